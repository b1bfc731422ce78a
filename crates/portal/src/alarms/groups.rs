//! Alarms of one machine that tell of one trouble: the first one out annunciates, the others join it silently.
//!
//! First-out is the highest cause (`caused_by` of the laws), else the earliest by event time. A later member that is
//! worse than what people were told annunciates again.

use super::step::Step;
use alarm::{Alarm, State};
use catalog::{Class, Severity};
use store::AlarmRow;
use uuid::Uuid;

/// Conditions of one machine within so long form one group, microseconds of event time.
const TOGETHER_US: i64 = 60 * 1_000_000;
/// A cause that is gone still explains for so long, microseconds of event time.
const CAUSE_US: i64 = 10 * 60 * 1_000_000;

/// Where a raised alarm belongs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its first-out; `None`: it is that itself.
    pub(super) group: Option<Uuid>,
    /// People know enough.
    pub(super) silent: bool,
    /// Alarms that follow the same first-out from here, this one where it is that itself.
    pub(super) follow: Vec<Uuid>,
}

/// Finds the place of an alarm that was just raised.
pub(super) fn place(
    step: &Step<'_>,
    row: &AlarmRow,
    class: Option<&std::sync::Arc<Class>>,
    event_us: i64,
    arrived_us: i64,
) -> Place {
    if !asks(&row.alarm) || is_silenced(&row.alarm) {
        return Place::default();
    }
    let class = class.map(|class| &**class);
    let others: Vec<&AlarmRow> = step
        .of_machine(&row.alarm.machine_id)
        .into_iter()
        .filter(|other| other.id != row.id && other.alarm.subject == row.alarm.subject && asks(&other.alarm))
        .collect();
    // What followed this alarm follows its first-out.
    let mine: Vec<Uuid> = others.iter().filter(|other| other.group == Some(row.id)).map(|other| other.id).collect();
    let explains = |other: &&&AlarmRow| {
        let gone = |cleared_us: i64| event_us - cleared_us <= CAUSE_US;
        let near = other.alarm.standing || other.alarm.cleared_us.is_some_and(gone);
        near && causes(class, &other.alarm, &row.alarm)
    };
    // The highest: one that explains the other causes, else the earliest.
    let cause = others.iter().filter(explains).min_by_key(|other| {
        let explained = others.iter().filter(|by| causes(class, &by.alarm, &other.alarm)).count();
        (explained, other.alarm.last_raised_us, other.id)
    });
    if let Some(cause) = cause {
        let first = first_of(&others, cause, row.id);
        // A cause that went before anybody heard of it explains and tells nothing.
        let known = cause.alarm.standing || was_told(&cause.alarm, arrived_us);
        let told = told(&others, first, arrived_us).max(known.then_some(cause.alarm.severity));
        return Place { group: Some(first), silent: Some(row.alarm.severity) <= told, follow: mine };
    }

    let near = |other: &&&AlarmRow| {
        let raised = |raised_us: i64| (event_us - raised_us).abs() <= TOGETHER_US;
        let leads = other.group.is_none() && other.alarm.count > 0 && !is_silenced(&other.alarm);
        leads && other.alarm.last_raised_us.is_some_and(raised)
    };
    let Some(first) = others.iter().filter(near).min_by_key(|other| (other.alarm.last_raised_us, other.id)) else {
        return Place::default();
    };
    let told = told(&others, first.id, arrived_us);
    let group = || others.iter().filter(|other| other.id == first.id || other.group == Some(first.id));
    let follow = || group().map(|other| other.id).collect();
    if group().any(|other| causes(class, &row.alarm, &other.alarm)) {
        return Place { group: None, silent: false, follow: follow() };
    }
    let silent = Some(row.alarm.severity) <= told;
    let first_causes = group().any(|other| causes(class, &first.alarm, &other.alarm));
    if !first_causes && first.alarm.last_raised_us.is_some_and(|raised_us| event_us < raised_us) {
        return Place { group: None, silent, follow: follow() };
    }
    Place { group: Some(first.id), silent, follow: mine }
}

/// Whether people know enough of a group to hear nothing of what changed in one of its members.
pub(super) fn is_silent(step: &Step<'_>, row: &AlarmRow, at_us: i64) -> bool {
    let Some(first) = row.group else { return false };
    if step.row(first).is_some_and(|first| first.alarm.machine_id != row.alarm.machine_id) {
        // A storm of its source: its own alarm tells as long as it stands.
        return step.row(first).is_some_and(|first| first.alarm.standing);
    }
    let others: Vec<&AlarmRow> =
        step.of_machine(&row.alarm.machine_id).into_iter().filter(|other| other.id != row.id).collect();
    Some(row.alarm.severity) <= told(&others, first, at_us)
}

fn asks(alarm: &Alarm) -> bool {
    !alarm.notice && alarm.severity > Severity::Info
}

/// One condition explains another.
fn causes(class: Option<&Class>, cause: &Alarm, effect: &Alarm) -> bool {
    let law = class.and_then(|class| Some(&class.laws[class.law_index(&effect.condition)?]));
    law.is_some_and(|law| law.caused_by.contains(&cause.condition))
}

/// First-out of an alarm's group; a group that `mine` leads is led by the alarm itself from here.
fn first_of(others: &[&AlarmRow], of: &AlarmRow, mine: Uuid) -> Uuid {
    let first = of.group.filter(|first| *first != mine);
    first.filter(|first| others.iter().any(|other| other.id == *first)).unwrap_or(of.id)
}

/// A person silenced it: nobody hears of it, so that it speaks for no other.
fn is_silenced(alarm: &Alarm) -> bool {
    matches!(alarm.state, State::Shelved { .. } | State::OutOfService { .. })
}

/// People heard of it a moment ago.
fn just_told(alarm: &Alarm, at_us: i64) -> bool {
    alarm.annunciated_us.is_some_and(|told_us| at_us - told_us <= alarm::ANNUNCIATE_EVERY_US)
}

/// People heard of its last raise, or of one a moment ago.
fn was_told(alarm: &Alarm, at_us: i64) -> bool {
    let raised_us = alarm.last_raised_us.unwrap_or(i64::MAX);
    alarm.annunciated_us.is_some_and(|told_us| told_us >= raised_us) || just_told(alarm, at_us)
}

/// The worst that people were told of a group, while it stands or was a moment ago.
fn told(others: &[&AlarmRow], first: Uuid, at_us: i64) -> Option<Severity> {
    let fresh = |alarm: &Alarm| if alarm.standing { was_told(alarm, at_us) } else { just_told(alarm, at_us) };
    let group = others.iter().filter(|other| other.id == first || other.group == Some(first));
    group.filter(|other| fresh(&other.alarm)).filter_map(|other| other.alarm.annunciated).max()
}
