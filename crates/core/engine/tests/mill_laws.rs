//! A day of AI4I jobs, in which 3 % break a law, against a state machine of the test's own.

use crate::{
    arithmetic::Reading,
    line::{Line, SECOND, START_US},
    shapes,
};
use plant::Mode;
use std::{collections::BTreeMap, f64::consts::PI};
use wire::{Kind, ReadingBatch};

const LAWS: [&str; 4] = ["heat_dissipation", "power_failure", "overstrain", "tool_wear"];
const SETTLE_S: i64 = 10;

/// One machine: its state and its four conditions.
#[derive(Default)]
struct Mill {
    was_running: Option<bool>,
    /// Second of the last change to running that was seen.
    started: Option<i64>,
    wear: f64,
    conditions: [Condition; 4],
}

#[derive(Default, Clone, Copy)]
struct Condition {
    standing: bool,
    suspended: bool,
    unbroken_since: Option<i64>,
}

/// Law, kind, `suspended`, second.
type Transition = (&'static str, Kind, Option<bool>, i64);

impl Mill {
    fn judge(&mut self, second: i64, [air, process, rpm, torque, wear]: [f64; 5], limit: f64) -> Vec<Transition> {
        let mut said = Vec::new();
        // State, then counter, then laws.
        let running = rpm > 200.0;
        if self.was_running == Some(false) && running {
            self.started = Some(second);
        }
        if self.was_running == Some(true) && !running {
            for (law, condition) in LAWS.iter().zip(&mut self.conditions) {
                condition.unbroken_since = None;
                if condition.standing {
                    condition.suspended = true;
                    said.push((*law, Kind::Changed, Some(true), second));
                }
            }
        }
        self.was_running = Some(running);
        if wear < 0.1 * self.wear {
            let notice = &mut self.conditions[3];
            if notice.standing {
                *notice = Condition::default();
                said.push((LAWS[3], Kind::Cleared, None, second));
            }
        }
        self.wear = wear;
        if !running || self.started.is_some_and(|started| second - started < SETTLE_S) {
            return said;
        }
        let watts = torque * rpm * 2.0 * PI / 60.0;
        let broken = [
            process - air < 8.6 && rpm < 1380.0,
            !(3500.0..=9000.0).contains(&watts),
            torque * wear > limit,
            wear >= 200.0,
        ];
        for ((law, condition), broken) in LAWS.iter().zip(&mut self.conditions).zip(broken) {
            if std::mem::take(&mut condition.suspended) {
                said.push((*law, Kind::Changed, Some(false), second));
            }
            if broken {
                condition.unbroken_since = None;
                if !std::mem::replace(&mut condition.standing, true) {
                    said.push((*law, Kind::Raised, None, second));
                }
                continue;
            }
            let since = *condition.unbroken_since.get_or_insert(second);
            let off_delay_s = if *law == "tool_wear" { 0 } else { 60 };
            if condition.standing && second - since >= off_delay_s {
                condition.standing = false;
                said.push((*law, Kind::Cleared, None, second));
            }
        }
        said
    }
}

/// By machine and second: what happens within one reading has no order that people see.
type Story = BTreeMap<String, Vec<(i64, String, String)>>;

fn tell(story: &mut Story, machine: &str, law: &str, kind: Kind, suspended: Option<bool>, second: i64) {
    let word = format!("{}{}", kind.as_str(), suspended.map(|of| format!(" suspended={of}")).unwrap_or_default());
    story.entry(machine.to_owned()).or_default().push((second, law.to_owned(), word));
}

fn watch(mills: &mut BTreeMap<String, Mill>, story: &mut Story, batch: &ReadingBatch) {
    let value = |channel: usize, row: usize, scale: f64| batch.values[channel][row] as f64 / scale;
    for row in 0..batch.rows() {
        let name = batch.machine_of(row);
        let channels =
            [value(0, row, 100.0), value(1, row, 100.0), value(2, row, 1.0), value(3, row, 100.0), value(4, row, 1.0)];
        let limit = [11_000.0, 12_000.0, 13_000.0][usize::from(batch.attributes[0][row])];
        let second = (batch.timestamp_us[row] - START_US) / SECOND;
        let mill = mills.entry(name.to_string()).or_default();
        for (law, kind, suspended, second) in mill.judge(second, channels, limit) {
            tell(story, name, law, kind, suspended, second);
        }
    }
}

#[test]
fn the_conditions_of_a_day_are_those_of_independent_arithmetic() {
    let mut line = Line::new("mill", 24, 4, Mode::Ai4i);
    // Stops too, in the middle of whatever stands.
    let (mut mills, mut expected) = (BTreeMap::new(), Story::new());
    for hour in 0..12 {
        for machine in 0..24 {
            line.profile(machine, "stop", hour * 3600 + 200 + 131 * machine as i64, 20 + 3 * machine as i64);
        }
        line.run((hour + 1) * 3600, |batch| watch(&mut mills, &mut expected, batch));
    }
    let mut found = Story::new();
    for alert in &line.alerts {
        let second = (alert.timestamp - START_US) / SECOND;
        tell(&mut found, &alert.machine_id, &alert.condition, alert.kind, alert.suspended, second);
    }
    for story in found.values_mut().chain(expected.values_mut()) {
        story.sort();
    }
    let count = |law: &str, word: &str| {
        expected.values().flatten().filter(|(_, of, kind)| of == law && kind.starts_with(word)).count()
    };
    for law in LAWS {
        let [raised, changed, cleared] = ["raised", "changed", "cleared"].map(|word| count(law, word));
        println!("{law}: {raised} raised, {changed} suspended and resumed, {cleared} cleared");
        assert!(raised > 0 && cleared > 0, "{law} never happened");
    }
    assert!(LAWS.iter().map(|law| count(law, "changed")).sum::<usize>() > 20);
    for (machine, expected) in &expected {
        let found = found.remove(machine).unwrap_or_default();
        let at = expected.iter().zip(&found).position(|(expected, found)| expected != found);
        let at = at.unwrap_or(expected.len().min(found.len()));
        assert!(
            *expected == found,
            "{machine}: {:?} expected, {:?} found",
            expected.get(at..(at + 4).min(expected.len())),
            found.get(at..(at + 4).min(found.len()))
        );
    }
    assert!(found.is_empty(), "{found:?}");
    shapes::check(&line.alerts, &line.catalogues(), "a day of AI4I jobs");
    for alert in line.alerts.iter().filter(|alert| alert.kind == Kind::Raised && !alert.notice) {
        assert_eq!(Reading::put_back(alert).mill(), [""; 0], "{}", alert.to_json());
    }
}
