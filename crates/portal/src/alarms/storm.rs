//! A source that falls silent: one system alarm for it, not one for each of its machines.

use super::{
    room::Room,
    step::{Registry, Step},
};
use alarm::{Alarm, Change};
use catalog::Severity;
use std::collections::{BTreeMap, BTreeSet};
use store::{AlarmRow, Store};
use uuid::Uuid;
use wire::{Alert, AlertText, Kind};

/// More machines than this,
const MACHINES: usize = 3;
/// whose last readings lie within so long, are a source that fell silent, microseconds of arrival.
const WITHIN_US: i64 = 30 * 1_000_000;
const CONDITION: &str = "no_data_storm";

/// Reads the registry's rows of what a batch may ask for: machines with a raise, and where one fell silent or came back
/// all that are silent.
pub(super) async fn registry(
    store: &Store,
    room: &Room,
    alerts: impl Iterator<Item = &Alert>,
) -> Result<Registry, store::Error> {
    let mut machines = BTreeSet::new();
    let mut silence = false;
    for alert in alerts {
        silence |= is_silence(alert);
        if alert.kind == Kind::Raised || is_silence(alert) {
            machines.insert(alert.machine_id.clone());
        }
    }
    if silence {
        machines.extend(room.silent().map(|row| row.alarm.machine_id.clone()));
    }
    if machines.is_empty() {
        return Ok(Registry::new());
    }
    let rows = store.registered_of(machines.into_iter().collect()).await?;
    Ok(rows.into_iter().map(|row| (row.machine_id.clone(), row)).collect())
}

/// Raises, feeds and clears the alarms of the sources that the alerts of this step concern.
pub(super) fn judge<'a>(step: &mut Step<'_>, alerts: impl Iterator<Item = &'a Alert>, registry: &Registry) {
    let source_of = |machine: &str| registry.get(machine).and_then(|row| row.source.clone());
    // By source, the last alert about silence.
    let mut concerned: BTreeMap<String, &Alert> = BTreeMap::new();
    for alert in alerts.filter(|alert| is_silence(alert)) {
        if let Some(source) = source_of(&alert.machine_id) {
            concerned.insert(source, alert);
        }
    }
    for (source, last) in concerned {
        let part = format!("source:{source}");
        let id = store::alarm_id(&part, CONDITION);
        let standing = step.row(id).is_some_and(|row| row.alarm.standing);
        let silent = step.silent();
        let of_source = silent.iter().copied().filter(|row| source_of(&row.alarm.machine_id).as_ref() == Some(&source));
        let (inside, outside): (Vec<&AlarmRow>, Vec<&AlarmRow>) =
            of_source.partition(|row| standing && row.group == Some(id));
        let ends = standing && inside.is_empty();
        let inside = arrivals(&inside);
        // Who fell silent with one of a standing storm is of it. Who does so later is told; many at once are another.
        let near = |(arrived_us, _): &(i64, Uuid)| {
            inside.iter().any(|(other_us, _)| (arrived_us - other_us).abs() <= WITHIN_US)
        };
        let (mut members, apart): (Vec<_>, Vec<_>) = arrivals(&outside).into_iter().partition(near);
        let new = if ends { Vec::new() } else { storm(apart) };
        if standing && (ends || !new.is_empty()) {
            let row = step.row(id).expect("it stands").clone();
            step.system(row, Change::Cleared, last.alert_id, Severity::Critical, last.arrived_at, "");
        }
        if !new.is_empty() {
            raise(step, id, &part, &source, &new, last);
        }
        members.extend(new);
        for (_, member) in members {
            if step.row(member).is_some_and(|row| row.group != Some(id)) {
                step.silence(member);
                step.join(member, id);
            }
        }
    }
}

fn raise(step: &mut Step<'_>, id: Uuid, part: &str, source: &str, members: &[(i64, Uuid)], last: &Alert) {
    let mut row = step.row(id).cloned().unwrap_or_else(|| AlarmRow {
        id,
        alarm: Alarm::of_system(part, CONDITION, "NoData"),
        alert: None,
        text: None,
        group: None,
    });
    let count = members.len();
    row.text = Some(AlertText {
        en: format!("source {source} fell silent: {count} machines send no data"),
        ko: format!("출처 {source}: 설비 {count}대 데이터 끊김"),
    });
    let at_us = members.iter().map(|(arrived_us, _)| *arrived_us).max().unwrap_or(last.arrived_at);
    step.system(row, Change::Raised, last.alert_id, Severity::Critical, at_us, "");
}

/// Those that fell silent together, more than [`MACHINES`] within [`WITHIN_US`].
fn storm(mut silent: Vec<(i64, Uuid)>) -> Vec<(i64, Uuid)> {
    silent.sort_unstable();
    let together = |at: usize| {
        let (from_us, _) = silent[at];
        silent[at..].iter().take_while(|(arrived_us, _)| arrived_us - from_us <= WITHIN_US).count()
    };
    let mut members = BTreeSet::new();
    for at in 0..silent.len() {
        let count = together(at);
        if count > MACHINES {
            members.extend(silent[at..at + count].iter().copied());
        }
    }
    members.into_iter().collect()
}

fn is_silence(alert: &Alert) -> bool {
    alert.condition == "no_data"
}

/// With the arrival of the last reading before the silence.
fn arrivals(silent: &[&AlarmRow]) -> Vec<(i64, Uuid)> {
    silent.iter().filter_map(|row| Some((arrived_us(row)?, row.id))).collect()
}

/// Arrival of the last reading before the silence.
fn arrived_us(row: &AlarmRow) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Told {
        #[serde(with = "wire::rfc3339")]
        arrived_at: i64,
    }
    let told: Told = serde_json::from_str(row.alert.as_deref()?).ok()?;
    Some(told.arrived_at)
}
