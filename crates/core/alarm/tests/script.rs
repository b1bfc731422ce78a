//! Scripts of events in words, and what they lead to.

use alarm::{Action, Alarm, Change, Command, Criticality, Event, Illegal, Outcome, Role, Transition};
use catalog::Severity;
use uuid::Uuid;

pub(crate) const MINUTE: i64 = 60_000_000;

/// Names of the states after each event; a refused order gives the name of its error.
#[track_caller]
pub(crate) fn check(script: &str, expected: &str) {
    let states: Vec<String> = run(script).1.iter().map(state_name).collect();
    assert_eq!(states.join(" > "), expected, "{script}");
}

/// Whether each event annunciates.
#[track_caller]
pub(crate) fn rings(script: &str, expected: &str) {
    let bells: Vec<&str> = run(script)
        .1
        .iter()
        .map(|outcome| if outcome.as_ref().expect("an allowed order").annunciates { "yes" } else { "no" })
        .collect();
    assert_eq!(bells.join(" "), expected, "{script}");
}

/// Runs a script. Words: `A`, `notice`, `operator`, `viewer` set up; `late:` before an engine event; `+2h` lets time pass.
pub(crate) fn run(script: &str) -> (Alarm, Vec<Result<Outcome, Illegal>>) {
    let mut alarm = Alarm::new("machine-001", "overstrain", "Overstrain", Criticality::B);
    let mut role = Role::Admin;
    let mut now = -MINUTE;
    let mut outcomes = Vec::new();
    for word in script.split_whitespace() {
        match word {
            "A" => alarm.set_criticality(Criticality::A),
            "notice" => alarm.notice = true,
            "viewer" => role = Role::Viewer,
            "operator" => role = Role::Operator,
            "engineer" => role = Role::Engineer,
            _ => {
                now += if let Some(span) = word.strip_prefix('+') { minutes(span) * MINUTE } else { MINUTE };
                outcomes.push(alarm.apply(&event(word, &alarm, role, now)));
            }
        }
    }
    (alarm, outcomes)
}

fn event(word: &str, alarm: &Alarm, role: Role, now_us: i64) -> Event {
    if word.starts_with('+') {
        return Event::Clock { now_us };
    }
    let (word, late) = word.strip_prefix("late:").map_or((word, false), |word| (word, true));
    let (verb, with) = word.split_once(':').unwrap_or((word, ""));
    let until_us = now_us + minutes(with) * MINUTE;
    let reason = "because".to_string();
    let action = match verb {
        "ack" => Action::Acknowledge { comment: with.into() },
        "shelve" => Action::Shelve { until_us, reason },
        "shelve_silently" => Action::Shelve { until_us: now_us + MINUTE, reason: " ".into() },
        "unshelve" => Action::Unshelve,
        "oos" => Action::TakeOutOfService { reason },
        "return" => Action::ReturnToService,
        "maintain" => Action::BeginMaintenance { until_us, reason },
        "end" => Action::EndMaintenance,
        "comment" => Action::Comment { comment: reason },
        _ => return engine_event(verb, with, late, alarm, now_us),
    };
    Event::Person(Command { by: "kim".into(), role, at_us: now_us, action })
}

fn engine_event(verb: &str, with: &str, late: bool, alarm: &Alarm, now_us: i64) -> Event {
    let (change, severity) = match verb {
        "raise" => (Change::Raised, Severity::from_word(with).unwrap_or(Severity::Critical)),
        "change" => (Change::Severity, Severity::from_word(with).expect("a severity")),
        "rise" => (Change::Severity, Severity::Critical),
        "fall" => (Change::Severity, Severity::Warning),
        "suspend" => (Change::Suspended, alarm.severity),
        "resume" => (Change::Resumed, alarm.severity),
        "caught_up" => (Change::CaughtUp, alarm.severity),
        "clear" => (Change::Cleared, alarm.severity),
        _ => panic!("no event {verb}"),
    };
    let alert_id = Uuid::from_u128(now_us as u128 + 1_000_000_000);
    let condition_id = if change == Change::Raised { alert_id } else { alarm.condition_id.unwrap_or_default() };
    let event_us = if late { now_us - 10 * MINUTE } else { now_us };
    Event::Engine(Transition { change, alert_id, condition_id, severity, event_us, arrived_us: now_us })
}

fn minutes(span: &str) -> i64 {
    let Some(unit) = span.chars().last().filter(|last| !last.is_ascii_digit()) else { return 0 };
    let number: i64 = span[..span.len() - 1].parse().unwrap_or(0);
    if unit == 'h' { number * 60 } else { number }
}

fn state_name(outcome: &Result<Outcome, Illegal>) -> String {
    let word = match outcome {
        Ok(outcome) => outcome.to.as_str(),
        Err(Illegal::Edge { .. }) => "edge",
        Err(Illegal::Role { .. }) => "role",
        Err(Illegal::Reason { .. }) => "reason",
        Err(Illegal::Past) => "past",
        Err(Illegal::TooLong { .. }) => "too_long",
    };
    word.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}
