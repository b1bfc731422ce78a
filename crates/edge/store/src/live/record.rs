//! A machine's newest values as one line of JSON, which the processes of a plant pass on through Redis.
//!
//! Positions in the lists are those of the class, so a reader with another form of the class cannot read them.

use catalog::{Catalogue, Class, MachineId, Severity, State};
use engine::{Live, LiveCondition};
use scoring::WindowStats;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize, Deserialize)]
struct Line {
    machine: String,
    class: String,
    state: String,
    last_seen_us: i64,
    arrived_us: i64,
    values: Vec<i64>,
    /// In hexadecimal: JSON's numbers end below 128 bits.
    quality: String,
    windows: Vec<Option<Window>>,
    /// `null` where not judged.
    derived: Vec<Option<f64>>,
    score: Option<f64>,
    learned_us: i64,
    conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize)]
struct Window {
    count: u64,
    mean: f64,
    variance: f64,
    min: f64,
    max: f64,
    slope_per_min: Option<f64>,
    judged: bool,
}

#[derive(Serialize, Deserialize)]
struct Condition {
    condition: String,
    condition_id: String,
    failure_type: String,
    severity: String,
    since_us: i64,
    suspended: bool,
}

/// Writes one machine.
pub(super) fn encode(live: &Live) -> String {
    let window = |stats: &WindowStats| Window {
        count: stats.count,
        mean: stats.mean,
        variance: stats.variance,
        min: stats.min,
        max: stats.max,
        slope_per_min: stats.slope_per_min,
        judged: stats.judged,
    };
    let condition = |standing: &LiveCondition| Condition {
        condition: standing.condition.clone(),
        condition_id: standing.condition_id.to_string(),
        failure_type: standing.failure_type.clone(),
        severity: standing.severity.as_str().to_owned(),
        since_us: standing.since_us,
        suspended: standing.suspended,
    };
    let line = Line {
        machine: live.machine.as_str().to_owned(),
        class: live.class.id.clone(),
        state: live.state.as_str().to_owned(),
        last_seen_us: live.last_seen_us,
        arrived_us: live.arrived_us,
        values: live.values.clone(),
        quality: format!("{:x}", live.quality),
        windows: live.windows.iter().map(|stats| stats.as_ref().map(window)).collect(),
        derived: live.derived.iter().map(|value| value.is_finite().then_some(*value)).collect(),
        score: live.score.filter(|score| score.is_finite()),
        learned_us: live.learned_us,
        conditions: live.conditions.iter().map(condition).collect(),
    };
    serde_json::to_string(&line).expect("numbers and texts are JSON")
}

/// Reads one machine; `None` where its class is not in force here or has another form.
pub(super) fn decode(text: &str, catalogue: &Catalogue) -> Option<Live> {
    let line: Line = serde_json::from_str(text).ok()?;
    let class: Arc<Class> = catalogue.class(&line.class)?.clone();
    let fits = line.values.len() == class.channels.len()
        && line.windows.len() == class.channels.len()
        && line.derived.len() == class.derived.len();
    if !fits {
        return None;
    }
    let window = |window: Window| WindowStats {
        count: window.count,
        mean: window.mean,
        variance: window.variance,
        min: window.min,
        max: window.max,
        slope_per_min: window.slope_per_min,
        judged: window.judged,
    };
    let condition = |standing: Condition| {
        Some(LiveCondition {
            condition: standing.condition,
            condition_id: standing.condition_id.parse().ok()?,
            failure_type: standing.failure_type,
            severity: Severity::from_word(&standing.severity)?,
            since_us: standing.since_us,
            suspended: standing.suspended,
        })
    };
    Some(Live {
        machine: MachineId::try_from(line.machine.as_str()).ok()?,
        class,
        state: State::from_word(&line.state)?,
        last_seen_us: line.last_seen_us,
        arrived_us: line.arrived_us,
        values: line.values,
        quality: u128::from_str_radix(&line.quality, 16).ok()?,
        windows: line.windows.into_iter().map(|stats| stats.map(window)).collect(),
        derived: line.derived.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect(),
        score: line.score,
        learned_us: line.learned_us,
        conditions: line.conditions.into_iter().map(condition).collect::<Option<_>>()?,
    })
}
