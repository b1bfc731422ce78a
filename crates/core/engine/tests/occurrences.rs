//! How often each thing happened: a property that was never tried holds nothing.

use crate::{
    journal::Journal,
    scenario::{Scenario, Step},
};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Alert, Kind};

/// Must each have happened.
const REQUIRED: &[&str] = &[
    "readings of mill",
    "readings of pump",
    "readings of press",
    "readings of cell",
    "in order",
    "out of order",
    "late",
    "ahead",
    "doubled",
    "refused",
    "refused as class_changed",
    "spikes",
    "counter falls",
    "events counter_reset",
    "events state",
    "fits",
    "switches",
    "switches while a condition stood",
    "silences",
    "batches of several records",
    "crashes",
    "crashes before any snapshot",
    "records replayed in silence",
    "replays across a switch",
    "law raised",
    "law raised after a delay",
    "law raised out of order",
    "law changed severity",
    "law changed suspended",
    "law changed resumed",
    "law changed caught_up",
    "law cleared",
    "law cleared as law_removed",
    "notice raised",
    "notice cleared",
    "stuck raised",
    "stuck cleared",
    "quality raised",
    "quality cleared",
    "refused raised",
    "refused cleared",
    "clock_skew raised",
    "clock_skew cleared",
    "no_data raised",
    "no_data cleared",
    "model raised",
    "model cleared",
    "model changed severity",
    "model cleared as law_removed",
    "model changed suspended",
    "model changed resumed",
];

#[derive(Debug, Default)]
pub struct Occurrences(BTreeMap<String, u64>);

impl Occurrences {
    pub fn add(&mut self, what: &str, count: u64) {
        *self.0.entry(what.to_owned()).or_default() += count;
    }

    pub fn sum(mut self, other: Occurrences) -> Occurrences {
        other.0.iter().for_each(|(what, count)| self.add(what, *count));
        self
    }

    pub fn assert_none_is_missing(&self) {
        let missing: Vec<_> =
            REQUIRED.iter().filter(|what| self.0.get(**what).is_none_or(|count| *count == 0)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }

    /// Counts what a scenario held and what came of it.
    pub fn count(&mut self, scenario: &Scenario, journal: &Journal) {
        self.count_steps(scenario, journal);
        let counts = &journal.counts;
        for (what, count) in [
            ("in order", counts.in_order),
            ("out of order", counts.out_of_order),
            ("late", counts.late),
            ("ahead", counts.ahead),
            ("doubled", counts.duplicate),
            ("refused", counts.refused),
            ("spikes", counts.spikes),
            ("counter falls", counts.counter_falls),
            ("refused as class_changed", journal.rejects.len() as u64),
            ("fits", journal.fits.len() as u64),
        ] {
            self.add(what, count);
        }
        for event in &journal.events {
            self.add(&format!("events {}", event.kind), 1);
        }
        let mut severities = BTreeMap::new();
        let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
        for alert in &journal.alerts {
            let before = severities.insert(alert.condition_id, alert.severity);
            let family = family(alert);
            match alert.kind {
                Kind::Raised | Kind::Cleared => self.add(&format!("{family} {}", alert.kind.as_str()), 1),
                Kind::Changed => {
                    self.add(&format!("{family} changed severity"), u64::from(before != Some(alert.severity)));
                    self.add(&format!("{family} changed suspended"), u64::from(alert.suspended == Some(true)));
                    self.add(&format!("{family} changed resumed"), u64::from(alert.suspended == Some(false)));
                    self.add(&format!("{family} changed caught_up"), u64::from(alert.caught_up == Some(true)));
                }
            }
            if alert.reason.notes.iter().any(|note| note.contains("law_removed")) {
                self.add(&format!("{family} cleared as law_removed"), 1);
            }
            if family == "law" && alert.kind == Kind::Raised {
                let delayed =
                    matches!(&*alert.condition, "cavitation" | "dead_head" | "dry_run" | "motor_overload" | "ramp");
                self.add("law raised after a delay", u64::from(delayed));
                let newest = newest.entry(&alert.machine_id).or_insert(i64::MIN);
                self.add("law raised out of order", u64::from(alert.timestamp < *newest));
            }
            let newest = newest.entry(&alert.machine_id).or_insert(i64::MIN);
            *newest = alert.timestamp.max(*newest);
        }
    }

    fn count_steps(&mut self, scenario: &Scenario, journal: &Journal) {
        let mut standing_at = BTreeMap::new();
        let mut standing = BTreeSet::new();
        for alert in &journal.alerts {
            match alert.kind {
                Kind::Raised => standing.insert(alert.condition_id),
                Kind::Changed => false,
                Kind::Cleared => standing.remove(&alert.condition_id),
            };
            standing_at.insert(alert.position.offset, standing.len());
        }
        let mut offset = 0;
        for step in &scenario.steps {
            match step {
                Step::Record(record) => {
                    offset = record.offset;
                    self.add(&format!("readings of {}", record.class.id), record.rows.len() as u64);
                }
                Step::Use(_) => {
                    self.add("switches", 1);
                    let stood = standing_at.range(..=offset).next_back().is_some_and(|(_, standing)| *standing > 0);
                    self.add("switches while a condition stood", u64::from(stood));
                }
                Step::Silence(_) => self.add("silences", 1),
            }
        }
    }
}

/// `law`, `notice`, or the condition without its channel.
fn family(alert: &Alert) -> &str {
    match alert.condition.split_once(':') {
        Some((family, _)) => family,
        None if matches!(&*alert.condition, "clock_skew" | "no_data") => &alert.condition,
        None if alert.notice => "notice",
        None => "law",
    }
}

impl std::fmt::Display for Occurrences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>9} {what}"))
    }
}
