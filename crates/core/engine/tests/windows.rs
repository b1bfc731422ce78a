//! What was decided of every reading, and what the windows hold, against a memory that forgets nothing.

use crate::{
    readings::{self, Record, Row},
    scenario::{Scenario, Step},
};
use engine::{Counts, Effects, Engine, Input};
use std::collections::BTreeMap;
use wire::Quality;

/// A reading that its machine holds, and whether it is one of those that move it on.
struct Held {
    row: Row,
    is_in_order: bool,
    is_ahead: bool,
}

#[derive(Default)]
struct Memory {
    class: String,
    held: Vec<Held>,
}

impl Memory {
    fn newest_us(&self) -> Option<i64> {
        self.held.iter().filter(|held| held.is_in_order).map(|held| held.row.timestamp_us).max()
    }

    /// Decides as GUARANTEES.md 1 says: refused, else duplicate, else ahead, else late, else out of order, else in order.
    fn take(&mut self, record: &Record, row: &Row, counts: &mut Counts) {
        if self.class.is_empty() {
            record.class.id.clone_into(&mut self.class);
        }
        if self.class != record.class.id {
            counts.refused += 1;
            return;
        }
        let lateness_us = record.class.lateness_us;
        let newest_us = self.newest_us();
        let is_late = newest_us.is_some_and(|newest_us| row.timestamp_us < newest_us - lateness_us);
        let is_known = |held: &Held| {
            held.row.timestamp_us == row.timestamp_us
                && match (held.row.seq, row.seq) {
                    (Some(held), Some(seq)) => held == seq,
                    (None, None) => held.row.values == row.values && missing(&held.row) == missing(row),
                    _ => false,
                }
        };
        let is_ahead = row.timestamp_us > record.arrived_us + lateness_us;
        let count = match () {
            () if !is_late && self.held.iter().any(is_known) => {
                counts.duplicate += 1;
                return;
            }
            () if is_ahead => &mut counts.ahead,
            () if is_late => {
                counts.late += 1;
                return;
            }
            () if newest_us.is_some_and(|newest_us| row.timestamp_us < newest_us) => &mut counts.out_of_order,
            () => &mut counts.in_order,
        };
        *count += 1;
        let is_in_order = !is_ahead && newest_us.is_none_or(|newest_us| row.timestamp_us >= newest_us);
        self.held.push(Held { row: row.clone(), is_in_order, is_ahead });
    }

    /// Count, mean, population variance, least and most of a channel over the 60 whole seconds that end with the newest.
    fn window(&self, channel: usize, scale: f64) -> Option<(u64, f64, f64, f64, f64)> {
        let newest = self.newest_us()?.div_euclid(1_000_000);
        let inside = |held: &&Held| {
            let second = held.row.timestamp_us.div_euclid(1_000_000);
            let usable = matches!(Quality::of(held.row.quality, channel), Quality::Good | Quality::Uncertain);
            !held.is_ahead && usable && second > newest - 60
        };
        let values: Vec<f64> =
            self.held.iter().filter(inside).map(|held| held.row.values[channel] as f64 / scale).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
        let (least, most) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
        Some((values.len() as u64, mean, variance, least, most))
    }
}

fn missing(row: &Row) -> Vec<bool> {
    (0..row.values.len()).map(|channel| Quality::of(row.quality, channel) == Quality::Missing).collect()
}

/// Channels with a window that no switch of a scenario begins anew: (class, channel, scale).
const WINDOWS: [(&str, usize, f64); 3] = [("mill", 1, 100.0), ("mill", 2, 1.0), ("pump", 0, 100.0)];

#[test]
fn places_and_windows_are_those_of_a_memory_that_forgets_nothing() {
    let mut compared = 0_u64;
    for seed in 0..150 {
        let scenario = Scenario::new(seed);
        let mut engine = Engine::new(scenario.partition, scenario.first.clone());
        let (mut memories, mut expected) = (BTreeMap::<String, Memory>::new(), Counts::default());
        let mut effects = Effects::default();
        for step in &scenario.steps {
            match step {
                Step::Use(catalogue) => engine.apply(Input::Use { catalogue: catalogue.clone() }, &mut effects),
                Step::Silence(_) => {}
                Step::Record(record) => {
                    engine.apply(Input::Readings(&readings::batch(&[record])), &mut effects);
                    for row in &record.rows {
                        let memory = memories.entry(row.machine.to_string()).or_default();
                        memory.take(record, row, &mut expected);
                        if memory.held.len() > 400 {
                            memory.held.drain(..100);
                        }
                    }
                    let last = record.rows.last().map(|row| &row.machine);
                    compared += last.map_or(0, |machine| compare(&engine, machine, &memories[&**machine], seed));
                }
            }
        }
        let found = effects.counts;
        // Spikes and falls are told apart elsewhere.
        let expected = Counts { spikes: found.spikes, counter_falls: found.counter_falls, ..expected };
        assert_eq!(found, expected, "seed {seed}");
    }
    println!("{compared} windows compared");
    assert!(compared > 50_000);
}

fn compare(engine: &Engine, machine: &str, memory: &Memory, seed: u64) -> u64 {
    let mut compared = 0;
    for (class, channel, scale) in WINDOWS {
        if memory.class != class {
            continue;
        }
        let Some(live) = engine.live(machine) else {
            assert_eq!(memory.newest_us(), None, "seed {seed}, {machine}: nothing to show");
            return 0;
        };
        let found = live.windows[channel].map(|stats| (stats.count, stats.mean, stats.variance, stats.min, stats.max));
        let found = found.filter(|stats| stats.0 > 0);
        let expected = memory.window(channel, scale);
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6 * expected.abs().max(1.0);
        let same = match (found, expected) {
            (Some(found), Some(expected)) => {
                found.0 == expected.0
                    && near(found.1, expected.1)
                    && near(found.2, expected.2)
                    && (found.3, found.4) == (expected.3, expected.4)
            }
            (found, expected) => found == expected,
        };
        assert!(same, "seed {seed}, {machine}, channel {channel}: {found:?} and not {expected:?}");
        compared += 1;
    }
    compared
}
