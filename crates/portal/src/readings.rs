//! Readings of one machine as people ask for them: log, status, chart, events.

use crate::{
    answer::{self, Answer, number, object, page, raw, time},
    app::App,
    machines::{is_stale, no_such_machine},
    params::{Machine, Params, now_us},
    problem::{KeyProblem, Problem},
};
use axum::extract::State;
use catalog::{Class, MachineId};
use engine::Live;
use serde_json::{Map, Value, json, value::RawValue};
use std::{fmt::Write, sync::Arc};
use store::history::LogRow;
use wire::{Quality, ReadingBatch, decimal_text, format_time};

/// A chart's range where nobody says: the last hour that has readings.
const CHART_US: i64 = 3_600_000_000;
/// A chart's points where nobody says, and at most: one bucket (two points) a pixel of a wide screen.
const POINTS: usize = 600;
const POINTS_MAX: usize = 4_000;

/// Stored readings of a machine, newest first.
#[utoipa::path(
    get,
    path = "/api/machines/{machineId}/logs",
    tag = "machines",
    params(
        ("machineId" = String, Path, description = "Machine"),
        ("from" = Option<String>, Query, description = "Event time, RFC 3339 or `-1h`, inclusive"),
        ("to" = Option<String>, Query, description = "Exclusive; without it the machine's newest reading is the last"),
        ("limit" = Option<u64>, Query, description = "Default 100, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "`logs` with the names of sensor_log, `next_cursor`", body = Object),
        (status = 400, description = "Bad query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn logs(State(app): State<App>, Machine(machine): Machine, params: Params) -> Answer {
    params.only(&["from", "to", "limit", "cursor"])?;
    let (from_us, to_us) = params.range()?;
    let (from_us, to_us) = (from_us.unwrap_or(i64::MIN), to_us.unwrap_or(i64::MAX));
    let found = app.parts.history.logs(&machine, from_us, to_us, params.limit()?, params.get("cursor")).await?;
    if found.rows.is_empty() {
        exists(&app, &machine).await?;
    }
    let rows: Vec<_> = found.rows.iter().map(|row| raw(log_json(&machine, row))).collect();
    Ok(page("logs", &rows, found.next_cursor.as_deref()))
}

/// 404 for a machine that nobody has heard of.
async fn exists(app: &App, machine: &MachineId) -> Result<(), Problem> {
    let seen = crate::machines::bound(app, machine).is_some();
    if seen || app.parts.store.registered(machine).await?.is_some() { Ok(()) } else { Err(no_such_machine(machine)) }
}

/// A row with the columns of sensor_log; values are exact decimals.
fn log_json(machine: &str, row: &LogRow) -> String {
    let mut text = format!("{{\"machine_id\":{},\"timestamp\":\"{}\"", quoted(machine), format_time(row.timestamp_us));
    for (at, (channel, value)) in row.class.channels.iter().zip(&row.values).enumerate() {
        let _ = match Quality::of(row.quality, at) {
            Quality::Missing => write!(text, ",{}:null", quoted(&channel.id)),
            _ => write!(text, ",{}:{}", quoted(&channel.id), decimal_text(*value, channel.scale)),
        };
    }
    for (attribute, word) in row.class.attributes.iter().zip(&row.attributes) {
        let word = (*word != ReadingBatch::NONE).then(|| attribute.values.get(usize::from(*word))).flatten();
        let word = word.map_or_else(|| "null".to_owned(), |word| quoted(word));
        let _ = write!(text, ",{}:{word}", quoted(&attribute.id));
    }
    let or_null = |number: Option<String>| number.unwrap_or_else(|| "null".to_owned());
    let _ = write!(
        text,
        ",\"class\":{},\"seq\":{},\"quality\":{},\"flags\":{},\"bus_partition\":{},\"bus_offset\":{},\"bus_index\":{},\"created_at\":\"{}\"}}",
        quoted(&row.class.id),
        or_null(row.seq.map(|seq| seq.to_string())),
        or_null((row.quality != 0).then(|| row.quality.to_string())),
        row.flags,
        row.position.partition,
        row.position.offset,
        row.position.index,
        format_time(row.arrived_us),
    );
    text
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// A channel's value at its scale, exact.
fn decimal(value: i64, scale: u8) -> Box<RawValue> {
    raw(decimal_text(value, scale))
}

/// A machine's newest values, what they were over the last minute of event time, and what stands.
#[utoipa::path(
    get,
    path = "/api/machines/{machineId}/status",
    tag = "machines",
    params(("machineId" = String, Path, description = "Machine")),
    responses(
        (status = 200, description = "Status; `stale` where nothing came for a while, or what feeds it is gone", body = Object),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn status(State(app): State<App>, Machine(machine): Machine) -> Answer {
    if let Some(live) = app.parts.live.get(&machine) {
        let mut value = live_json(&live, now_us());
        if app.parts.live.is_stale() {
            // What feeds the live values is gone: these are the last that were known.
            value.insert("stale".to_owned(), true.into());
        }
        return Ok(answer::value(&value));
    }
    // Live values are a mirror; until it is filled again the newest stored reading is what is known.
    let newest = app.parts.history.logs(&machine, i64::MIN, i64::MAX, 1, None).await?;
    match newest.rows.into_iter().next() {
        Some(row) => Ok(answer::value(&stored_json(&machine, row))),
        None => {
            exists(&app, &machine).await?;
            let row = app.parts.store.registered(&machine).await?;
            Ok(answer::value(&object([
                ("machine_id", machine.as_str().into()),
                ("class", row.map(|row| row.class).into()),
                ("state", "unknown".into()),
                ("stale", true.into()),
                ("last_seen", Value::Null),
                ("last_torque", Value::Null),
                ("temp_1m_avg", Value::Null),
                ("rpm_variance", Value::Null),
                ("score", Value::Null),
                ("conditions", json!([])),
                ("values", json!({})),
                ("derived", json!({})),
            ])))
        }
    }
}

/// What a screen shows of a machine; the same in frames of the stream.
pub(crate) fn live_json(live: &Live, now_us: i64) -> Map<String, Value> {
    let class = &live.class;
    let mut values = Map::new();
    for (at, channel) in class.channels.iter().enumerate() {
        let quality = Quality::of(live.quality, at);
        let last = live.values.get(at).filter(|_| quality != Quality::Missing);
        let last = last.map_or(Value::Null, |value| exact(*value, channel.scale));
        let mut value =
            object([("last", last), ("unit", channel.unit.as_str().into()), ("quality", word(quality).into())]);
        if channel.window {
            let window = live.windows.get(at).copied().flatten();
            let figure = |of: fn(&scoring::WindowStats) -> f64| window.as_ref().map_or(Value::Null, |w| number(of(w)));
            value.extend(object([
                ("mean_60s", figure(|window| window.mean)),
                ("variance_60s", figure(|window| window.variance)),
                ("min_60s", figure(|window| window.min)),
                ("max_60s", figure(|window| window.max)),
                ("slope_per_min", window.and_then(|window| window.slope_per_min).map_or(Value::Null, number)),
                ("count_60s", window.map(|window| window.count).into()),
            ]));
        }
        values.insert(channel.id.clone(), Value::Object(value));
    }
    let mut derived = Map::new();
    for (quantity, value) in class.derived.iter().zip(&live.derived) {
        let value = object([("last", number(*value)), ("unit", quantity.unit.as_str().into())]);
        derived.insert(quantity.id.clone(), Value::Object(value));
    }
    let conditions = live.conditions.iter().map(|standing| {
        json!({
            "condition": standing.condition,
            "condition_id": standing.condition_id.to_string(),
            "failure_type": standing.failure_type,
            "severity": standing.severity.as_str(),
            "since": format_time(standing.since_us),
            "suspended": standing.suspended,
        })
    });
    let conditions: Vec<Value> = conditions.collect();
    let of = |channel: &str, figure: &str| values.get(channel).map_or(Value::Null, |value| value[figure].clone());
    object([
        ("machine_id", live.machine.as_str().into()),
        ("class", class.id.as_str().into()),
        ("state", live.state.as_str().into()),
        ("stale", is_stale(live, now_us).into()),
        ("last_seen", time(Some(live.last_seen_us))),
        ("arrived_at", time(Some(live.arrived_us))),
        ("last_torque", of("torque_nm", "last")),
        ("temp_1m_avg", of("process_temp_k", "mean_60s")),
        ("rpm_variance", of("rpm", "variance_60s")),
        ("score", live.score.map_or(Value::Null, number)),
        ("learned_s", (live.learned_us / 1_000_000).into()),
        ("baseline_s", (class.baseline_us / 1_000_000).into()),
        ("conditions", conditions.into()),
        ("values", Value::Object(values)),
        ("derived", Value::Object(derived)),
    ])
}

/// The status out of a stored reading alone: values without windows, marked stale.
fn stored_json(machine: &MachineId, row: LogRow) -> Map<String, Value> {
    let class: Arc<Class> = row.class.clone();
    let live = Live {
        machine: machine.clone(),
        state: catalog::State::Unknown,
        last_seen_us: row.timestamp_us,
        arrived_us: row.arrived_us,
        values: row.values,
        quality: row.quality,
        windows: vec![None; class.channels.len()],
        derived: Vec::new(),
        score: None,
        learned_us: 0,
        conditions: Vec::new(),
        class,
    };
    let mut value = live_json(&live, now_us());
    value.insert("stale".to_owned(), true.into());
    value
}

fn word(quality: Quality) -> &'static str {
    match quality {
        Quality::Good => "good",
        Quality::Uncertain => "uncertain",
        Quality::Bad => "bad",
        Quality::Missing => "missing",
    }
}

/// A scaled integer as a JSON number. An f64 holds the shortest decimal of every value that a channel can have.
fn exact(value: i64, scale: u8) -> Value {
    serde_json::from_str(decimal(value, scale).get()).unwrap_or_default()
}

/// A channel of a machine for a chart: minimum, maximum and mean of at most `points` equal spans; no peak is lost.
#[utoipa::path(
    get,
    path = "/api/machines/{machineId}/chart",
    tag = "machines",
    params(
        ("machineId" = String, Path, description = "Machine"),
        ("channel" = String, Query, description = "Channel of its class"),
        ("from" = Option<String>, Query, description = "Event time, RFC 3339 or `-1h`; default an hour before `to`"),
        ("to" = Option<String>, Query, description = "Exclusive; default just after the machine's newest reading"),
        ("points" = Option<u64>, Query, description = "Pixels of the chart; default 600, at most 4000"),
    ),
    responses(
        (status = 200, description = "`buckets`, oldest first; spans without readings are left out", body = Object),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No such channel", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn chart(State(app): State<App>, Machine(machine): Machine, params: Params) -> Answer {
    params.only(&["channel", "from", "to", "points"])?;
    let class = class(&app, &machine).await?;
    let channels = || class.channels.iter().map(|channel| channel.id.as_str()).collect::<Vec<_>>().join(", ");
    let wrong = |message: String| Problem::keys(vec![KeyProblem { key: "channel".to_owned(), message }]);
    let name =
        params.get("channel").ok_or_else(|| wrong(format!("is missing; class {} has {}", class.id, channels())))?;
    let at = class
        .channel_index(name)
        .ok_or_else(|| wrong(format!("class {} has no channel `{name}`; it has {}", class.id, channels())))?;
    let (from_us, to_us) = params.range()?;
    let newest_us = app.parts.history.newest(&machine).await?;
    let to_us = to_us.unwrap_or_else(|| newest_us.map_or_else(now_us, |newest_us| newest_us + 1));
    let from_us = from_us.unwrap_or_else(|| to_us.saturating_sub(CHART_US));
    let points = params.number("points")?.map_or(POINTS, |points| usize::try_from(points).unwrap_or(POINTS_MAX));
    let points = points.clamp(1, POINTS_MAX);
    let buckets = if from_us < to_us {
        app.parts.history.chart(&machine, name, from_us, to_us, points).await?
    } else {
        Vec::new()
    };
    let buckets: Vec<Value> = buckets
        .iter()
        .map(|bucket| {
            json!({
                "from": format_time(bucket.from_us), "count": bucket.count,
                "min": number(bucket.min), "max": number(bucket.max), "mean": number(bucket.mean),
            })
        })
        .collect();
    Ok(answer::value(&json!({
        "machine_id": machine.as_str(),
        "channel": name,
        "unit": class.channels[at].unit,
        "from": format_time(from_us),
        "to": format_time(to_us),
        "buckets": buckets,
    })))
}

/// The class of a machine.
async fn class(app: &App, machine: &MachineId) -> Result<Arc<Class>, Problem> {
    let id = match crate::machines::bound(app, machine) {
        Some(id) => id,
        None => app.parts.store.registered(machine).await?.ok_or_else(|| no_such_machine(machine))?.class,
    };
    let found = app.parts.catalogue.borrow().class(&id).cloned();
    found.ok_or_else(|| Problem::missing("no_such_class", format!("class {id} of the machine is not in force")))
}

/// Counter resets and changes of state of a machine, newest first.
#[utoipa::path(
    get,
    path = "/api/machines/{machineId}/events",
    tag = "machines",
    params(
        ("machineId" = String, Path, description = "Machine"),
        ("from" = Option<String>, Query, description = "Event time, RFC 3339 or `-1h`, inclusive"),
        ("to" = Option<String>, Query, description = "Exclusive"),
        ("limit" = Option<u64>, Query, description = "Default 100, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "`events`, `next_cursor`", body = Object),
        (status = 404, description = "No such machine", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn events(State(app): State<App>, Machine(machine): Machine, params: Params) -> Answer {
    params.only(&["from", "to", "limit", "cursor"])?;
    let (from_us, to_us) = params.range()?;
    let (from_us, to_us) = (from_us.unwrap_or(i64::MIN), to_us.unwrap_or(i64::MAX));
    let store = &app.parts.store;
    let found = store.machine_events(&machine, from_us, to_us, params.limit()?, params.get("cursor")).await?;
    if found.rows.is_empty() {
        exists(&app, &machine).await?;
    }
    let events: Vec<Value> = found
        .rows
        .iter()
        .map(|event| {
            json!({
                "machine_id": event.machine_id,
                "kind": event.kind,
                "timestamp": format_time(event.timestamp_us),
                "position": event.position,
                "detail": serde_json::from_str::<Value>(&event.detail).unwrap_or_default(),
            })
        })
        .collect();
    Ok(page("events", &events, found.next_cursor.as_deref()))
}
