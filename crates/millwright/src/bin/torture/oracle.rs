//! What must be there, by arithmetic of its own.

use crate::{
    client::Client,
    input::{Line, Plan, Reading, machine_name},
};
use std::collections::{BTreeMap, BTreeSet};

pub type AlertKey = (String, &'static str, i64);

pub struct Expected {
    /// By machine.
    pub rows: BTreeMap<String, BTreeSet<Reading>>,
    /// Power alerts: (machine, kind, event second).
    pub alerts: BTreeSet<AlertKey>,
    pub refused: usize,
}

impl Expected {
    pub fn of(clients: &[Client], plan: Plan) -> Expected {
        let mut rows: BTreeMap<String, BTreeSet<Reading>> = BTreeMap::new();
        let mut alerts = BTreeSet::new();
        for client in clients {
            let mut states: BTreeMap<u64, PowerCondition> = BTreeMap::new();
            for number in 0..client.next {
                for (machine, lines) in by_machine(plan.body(client.id, number)) {
                    let name = machine_name(client.id, machine);
                    let state = states.entry(machine).or_default();
                    for reading in lines {
                        rows.entry(name.clone()).or_default().insert(reading);
                        if let Some(kind) = state.judge(&reading) {
                            alerts.insert((name.clone(), kind, reading.second));
                        }
                    }
                }
            }
        }
        Expected { rows, alerts, refused: clients.iter().map(|client| client.refusals.len()).sum() }
    }
}

/// Good readings of a body by machine, in the order of the body.
pub fn by_machine(lines: Vec<Line>) -> BTreeMap<u64, Vec<Reading>> {
    let mut found: BTreeMap<u64, Vec<Reading>> = BTreeMap::new();
    for line in lines {
        if let Some(reading) = line.reading {
            let after = line.text.split("\"t-").nth(1).and_then(|rest| rest.split(['-', '"']).nth(1));
            let machine = after.and_then(|digits| digits.parse().ok()).expect("a line of ours names its machine");
            found.entry(machine).or_default().push(reading);
        }
    }
    found
}

/// The power law of one machine: raised at once, cleared after 60 s unbroken; out of order it may raise, nothing else.
#[derive(Default)]
pub struct PowerCondition {
    newest: Option<i64>,
    standing: bool,
    unbroken_since: Option<i64>,
}

impl PowerCondition {
    pub fn judge(&mut self, reading: &Reading) -> Option<&'static str> {
        let broken = reading.breaks_power();
        // Late beyond the allowed 5 s: stored, no other effect.
        if self.newest.is_some_and(|newest| reading.second < newest - 5) {
            return None;
        }
        if self.newest.is_some_and(|newest| reading.second < newest) {
            let raise = broken && !self.standing;
            self.standing |= raise;
            return raise.then_some("raised");
        }
        self.newest = Some(reading.second);
        if broken {
            self.unbroken_since = None;
            let raise = !self.standing;
            self.standing = true;
            return raise.then_some("raised");
        }
        let since = *self.unbroken_since.get_or_insert(reading.second);
        let clear = self.standing && reading.second - since >= 60;
        self.standing &= !clear;
        clear.then_some("cleared")
    }
}
