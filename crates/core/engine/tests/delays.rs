//! Delays, deadbands, levels, gaps, missing values and stops, against a state machine that knows DOMAIN.md 2 and 4 alone.

use crate::{
    classes,
    lots::Lots,
    readings::{self, Record, Row},
    shapes,
};
use catalog::{Catalogue, MachineId, Severity};
use engine::{Effects, Engine, Input};
use std::sync::Arc;
use wire::{Kind, Quality, ReadingBatch};

const DRUM: &str = r#"
[class]
id = "drum"
name = { en = "Drum", ko = "드럼" }
[state]
running = { all = [{ quantity = "speed", above = 0 }] }
settle = "4s"
[[channel]]
id = "speed"
unit = "1/min"
scale = 0
range = [0, 100]
[[channel]]
id = "load"
unit = "%"
scale = 1
range = [0, 200]
[[channel]]
id = "temp"
unit = "degC"
scale = 1
range = [0, 200]
optional = true
[[law]]
id = "loaded"
failure_type = "Loaded"
deadband = 2
off_delay = "10s"
action = { en = "Unload.", ko = "부하를 줄이십시오." }
[[law.level]]
severity = "info"
all = [{ quantity = "load", above = 50 }]
on_delay = "5s"
[[law.level]]
severity = "warning"
all = [{ quantity = "load", at_least = 70 }]
on_delay = "3s"
off_delay = "6s"
[[law.level]]
severity = "critical"
all = [{ quantity = "load", above = 90 }]
off_delay = "2s"
[[law]]
id = "hot_and_loaded"
failure_type = "Hot"
severity = "warning"
all = [{ quantity = "load", above = 60, deadband = 1 }, { quantity = "temp", above = 80, deadband = 3 }]
on_delay = "8s"
off_delay = "15s"
action = { en = "Cool.", ko = "냉각하십시오." }
[[law]]
id = "outside"
failure_type = "Outside"
severity = "critical"
any = [{ quantity = "load", below = 10 }, { quantity = "temp", at_most = 20, id = "cold" }]
off_delay = "5s"
deadband = 1
action = { en = "Look.", ko = "점검하십시오." }
"#;

const SECOND: i64 = 1_000_000;
const START_US: i64 = 1_762_500_000_000_000;
const INTERVAL_US: i64 = SECOND;
const SETTLE_US: i64 = 4 * SECOND;

/// One reading: (event time, speed, load, temperature if there).
type Told = (i64, i64, f64, Option<f64>);
/// (Event time, law, kind, severity, suspended).
type Transition = (i64, &'static str, Kind, Severity, Option<bool>);

/// A level as the reference knows it.
struct Level {
    law: &'static str,
    severity: Severity,
    on_us: i64,
    off_us: i64,
    /// Whether it is broken, its limits moved back by their deadbands where they stand; `None`: not judged.
    broken: fn(f64, Option<f64>, bool) -> Option<bool>,
    active: bool,
    /// How long it has been broken (or, active, unbroken) without a break; `None`: it is not.
    held_us: Option<i64>,
    last_us: Option<i64>,
}

fn level(
    law: &'static str,
    severity: Severity,
    [on_s, off_s]: [i64; 2],
    broken: fn(f64, Option<f64>, bool) -> Option<bool>,
) -> Level {
    let (on_us, off_us) = (on_s * SECOND, off_s * SECOND);
    Level { law, severity, on_us, off_us, broken, active: false, held_us: None, last_us: None }
}

fn back(active: bool, by: f64) -> f64 {
    if active { by } else { 0.0 }
}

fn levels() -> Vec<Level> {
    vec![
        level("loaded", Severity::Info, [5, 10], |load, _, active| Some(load > 50.0 - back(active, 2.0))),
        level("loaded", Severity::Warning, [3, 6], |load, _, active| Some(load >= 70.0 - back(active, 2.0))),
        level("loaded", Severity::Critical, [0, 2], |load, _, active| Some(load > 90.0 - back(active, 2.0))),
        level("hot_and_loaded", Severity::Warning, [8, 15], |load, temp, active| {
            // A missing value is "not judged", whatever the other says.
            let temp = temp?;
            Some(load > 60.0 - back(active, 1.0) && temp > 80.0 - back(active, 3.0))
        }),
        level("outside", Severity::Critical, [0, 5], |load, temp, active| {
            let temp = temp?;
            Some(load < 10.0 + back(active, 1.0) || temp <= 20.0 + back(active, 1.0))
        }),
    ]
}

/// What must be said of these readings.
fn expected(told: &[Told]) -> Vec<Transition> {
    let mut levels = levels();
    let mut standing: Vec<(&'static str, Severity, bool)> = Vec::new();
    let (mut was_running, mut started_us) = (None, i64::MIN);
    let mut said = Vec::new();
    for &(now_us, speed, load, temp) in told {
        let running = speed > 0;
        if was_running == Some(true) && !running {
            levels.iter_mut().for_each(|level| (level.held_us, level.last_us) = (None, None));
            for (law, severity, suspended) in standing.iter_mut().filter(|condition| !condition.2) {
                *suspended = true;
                said.push((now_us, *law, Kind::Changed, *severity, Some(true)));
            }
        }
        if was_running == Some(false) && running {
            started_us = now_us;
        }
        was_running = Some(running);
        if !running || started_us != i64::MIN && now_us - started_us < SETTLE_US {
            continue;
        }
        let mut judged = Vec::new();
        for level in &mut levels {
            let Some(broken) = (level.broken)(load, temp, level.active) else { continue };
            judged.push(level.law);
            let passed_us = level.last_us.map_or(0, |last_us| now_us - last_us);
            let gap = passed_us > 5 * INTERVAL_US;
            level.last_us = Some(now_us);
            if broken == level.active {
                level.held_us = None;
                continue;
            }
            level.held_us = match level.held_us {
                None => Some(0),
                Some(_) if gap && !level.active => Some(0),
                Some(held_us) if gap => Some(held_us + INTERVAL_US),
                Some(held_us) => Some(held_us + passed_us),
            };
            if level.held_us >= Some(if level.active { level.off_us } else { level.on_us }) {
                level.active = !level.active;
                level.held_us = None;
            }
        }
        for law in ["loaded", "hot_and_loaded", "outside"] {
            let worst =
                levels.iter().filter(|level| level.law == law && level.active).map(|level| level.severity).max();
            let at = standing.iter().position(|condition| condition.0 == law);
            match (at, worst) {
                (None, Some(severity)) => {
                    standing.push((law, severity, false));
                    said.push((now_us, law, Kind::Raised, severity, None));
                }
                (Some(at), severity) => {
                    let resumed = judged.contains(&law) && std::mem::take(&mut standing[at].2);
                    let before = standing[at].1;
                    // One alert tells of all that changed at a reading.
                    if severity.is_none() {
                        if resumed {
                            said.push((now_us, law, Kind::Changed, before, Some(false)));
                        }
                        standing.remove(at);
                        said.push((now_us, law, Kind::Cleared, before, None));
                    } else if resumed || severity != Some(before) {
                        standing[at].1 = severity.unwrap_or(before);
                        said.push((now_us, law, Kind::Changed, standing[at].1, resumed.then_some(false)));
                    }
                }
                (None, None) => {}
            }
        }
    }
    said
}

/// Readings that wander around the limits, with gaps, stops and missing temperatures.
fn readings(seed: u64) -> Vec<Told> {
    let mut lots = Lots::new(seed, 30);
    let (mut now_us, mut load, mut temp) = (START_US, 40.0_f64, 50.0_f64);
    let (mut stopped, mut missing) = (0_i64, 0_i64);
    let mut told = Vec::new();
    for _ in 0..lots.between(150, 400) {
        now_us += match lots.below(40) {
            0 => lots.between(5, 60) * SECOND,
            1..8 => lots.between(1, 4) * SECOND / 2,
            _ => SECOND,
        };
        if lots.percent(10) {
            (load, temp) = (lots.between(0, 120) as f64, lots.between(0, 120) as f64);
        }
        // Onto the limits and into the deadbands too.
        load = (load + lots.between(-2, 2) as f64).clamp(0.0, 200.0);
        temp = (temp + lots.between(-2, 2) as f64).clamp(0.0, 200.0);
        stopped = if lots.below(60) == 0 { lots.between(1, 12) } else { (stopped - 1).max(0) };
        missing = if lots.below(40) == 0 { lots.between(1, 4) } else { (missing - 1).max(0) };
        told.push((now_us, i64::from(stopped == 0), load, (missing == 0).then_some(temp)));
    }
    told
}

#[test]
fn conditions_rise_change_and_clear_as_their_delays_say() {
    let catalogue = Arc::new(Catalogue::builtin().with_class(classes::parse(DRUM)));
    let class = catalogue.class("drum").expect("it was added").clone();
    let machine = MachineId::try_from("drum-1").expect("a short name is an id");
    let catalogues = [(catalogue.hash().to_owned(), catalogue.clone())].into();
    let (mut transitions, mut changes) = (0, 0);
    for seed in 0..600 {
        let told = readings(seed);
        let mut engine = Engine::new(0, catalogue.clone());
        let mut effects = Effects::default();
        for (offset, &(timestamp_us, speed, load, temp)) in (0..).zip(&told) {
            let row = Row {
                machine: machine.clone(),
                timestamp_us,
                values: vec![speed, (load * 10.0) as i64, temp.map_or(0, |temp| (temp * 10.0) as i64)],
                quality: if temp.is_none() { Quality::Missing.bits(2) } else { 0 },
                seq: None,
                attributes: Vec::new(),
                state: ReadingBatch::NONE,
                links: None,
            };
            let record = Record {
                class: class.clone(),
                offset,
                arrived_us: timestamp_us + 1000,
                rows: vec![row],
                refused: Vec::new(),
            };
            engine.apply(Input::Readings(&readings::batch(&[&record])), &mut effects);
        }
        shapes::check(&effects.alerts, &catalogues, &format!("seed {seed}"));
        let mut found: Vec<_> = effects
            .alerts
            .iter()
            .map(|alert| (alert.timestamp, &*alert.condition, alert.kind, alert.severity, alert.suspended))
            .collect();
        let mut expected = expected(&told);
        expected.sort();
        found.sort();
        transitions += expected.len();
        changes += expected.iter().filter(|said| said.2 == Kind::Changed && said.4.is_none()).count();
        let at = expected.iter().zip(&found).position(|(expected, found)| expected != found);
        let at = at.unwrap_or(expected.len().min(found.len()));
        assert!(expected == found, "seed {seed}: expected {:?}, found {:?}", expected.get(at), found.get(at));
    }
    println!("{transitions} transitions, {changes} changes of severity");
    assert!(transitions > 10_000 && changes > 1000);
}
