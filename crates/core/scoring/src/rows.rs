//! Judges rows, not conditions: what `evaluate` compares with labels. No delay, deadband or settle; states and `when`
//! apply, and a notice is no anomaly.

use crate::{
    Program, RowWindows, Settings, Verdicts, Window, WindowStats,
    columns::{attribute_of, bits},
    logic,
};
use catalog::{LogicMode, MachineId, State};
use std::{collections::BTreeMap, sync::Arc};
use wire::ReadingBatch;

/// What the laws say of one row. Bits are laws (place in the class).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowVerdict {
    /// The machine was running, so that detectors may judge the row.
    pub running: bool,
    /// Laws of which a level could be judged.
    pub judged: u64,
    /// Laws that are broken, notices too.
    pub broken: u64,
    /// A law that is no notice is broken.
    pub anomaly: bool,
    /// The largest score of the laws that are no notices: the row's distance beyond (or, negative, before) the nearest
    /// limit as a part of it; `None` where none could be judged.
    pub score: Option<f64>,
    /// The broken law with the largest score, notices apart.
    pub law: Option<usize>,
}

/// Judges rows in the order in which they come. Keeps each machine's windows and state between batches.
#[derive(Debug)]
pub struct RowJudge {
    program: Arc<Program>,
    verdicts: Verdicts,
    machines: BTreeMap<MachineId, MachineRows>,
}

#[derive(Debug)]
struct MachineRows {
    windows: Vec<Window>,
    state: State,
}

impl RowJudge {
    /// A judge that has seen no row.
    pub fn new(program: Arc<Program>) -> RowJudge {
        RowJudge { program, verdicts: Verdicts::default(), machines: BTreeMap::new() }
    }

    /// Judges every row of a batch of the program's class; `settings` is by place in `batch.machines`.
    pub fn judge(&mut self, batch: &ReadingBatch, settings: &[&Settings], out: &mut Vec<RowVerdict>) {
        let program = &self.program;
        program.judge(batch, settings, &mut self.verdicts);
        out.clear();
        for row in 0..batch.rows() {
            let of_machine = settings[batch.machine[row] as usize];
            let fresh =
                || MachineRows { windows: vec![Window::new(); program.windowed().len()], state: State::Unknown };
            let machine = self.machines.entry(batch.machine_of(row).clone()).or_insert_with(fresh);
            if program.needs_windows() {
                machine.push(program, batch, row, &self.verdicts);
                let mut windows = Windows { program, machine, timestamp_us: batch.timestamp_us[row] };
                program.judge_windowed(batch, row, of_machine, &mut windows, &mut self.verdicts);
            }
            let given = batch.state.get(row).copied().filter(|&state| state != ReadingBatch::NONE);
            let given = given.unwrap_or(self.verdicts.state[row]);
            if let Some(state) = State::ALL.into_iter().find(|&state| state as u8 == given) {
                machine.state = state;
            }
            out.push(verdict(program, batch, row, of_machine, &self.verdicts, machine.state == State::Running));
        }
    }

    /// Values of the last batch, for a detector.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }
}

impl MachineRows {
    /// Pushes the row's channels; a missing value moves its window on.
    fn push(&mut self, program: &Program, batch: &ReadingBatch, row: usize, verdicts: &Verdicts) {
        let timestamp_us = batch.timestamp_us[row];
        for (window, quantity) in self.windows.iter_mut().zip(program.windowed()) {
            match quantity {
                catalog::Quantity::Channel(at) if !verdicts.channels[*at][row].is_nan() => {
                    window.push(timestamp_us, batch.values[*at][row]);
                }
                _ => window.advance(timestamp_us),
            }
        }
    }
}

struct Windows<'a> {
    program: &'a Program,
    machine: &'a mut MachineRows,
    timestamp_us: i64,
}

impl RowWindows for Windows<'_> {
    fn push_derived(&mut self, windowed: usize, value: i64) {
        self.machine.windows[windowed].push(self.timestamp_us, value);
    }

    fn stats(&self, windowed: usize) -> Option<WindowStats> {
        let quantity = self.program.windowed()[windowed];
        self.machine.windows[windowed].stats(self.program.class().quantity_scale(quantity))
    }
}

fn verdict(
    program: &Program,
    batch: &ReadingBatch,
    row: usize,
    settings: &Settings,
    verdicts: &Verdicts,
    running: bool,
) -> RowVerdict {
    let class = program.class();
    let mut verdict = RowVerdict { running, judged: 0, broken: 0, anomaly: false, score: None, law: None };
    let mut worst = f64::NEG_INFINITY;
    for slot in bits(verdicts.judged[row]) {
        let of = program.slots()[slot];
        let law = &class.laws[of.law];
        // A law's own `when` stands in for the machine's state.
        let applies = if law.when.is_some() { verdicts.when[row] >> of.law & 1 == 1 } else { running };
        if !applies {
            continue;
        }
        let is_broken = verdicts.broken[row] >> slot & 1 == 1;
        verdict.judged |= 1 << of.law;
        verdict.broken |= u64::from(is_broken) << of.law;
        if law.notice {
            continue;
        }
        let logic = &law.levels[of.level].logic;
        let parts = logic.terms.iter().zip(&settings.limits[slot]).map(|(term, limit)| {
            let limit = limit.of(|at| attribute_of(batch, row, settings, at));
            logic::part(term.comparison, verdicts.value(term.quantity, row), limit)
        });
        let score = match logic.mode {
            LogicMode::All => parts.reduce(f64::min),
            LogicMode::Any => parts.reduce(f64::max),
        };
        let Some(score) = score else { continue };
        verdict.score = Some(verdict.score.map_or(score, |most| most.max(score)));
        verdict.anomaly |= is_broken;
        if is_broken && score > worst {
            (worst, verdict.law) = (score, Some(of.law));
        }
    }
    verdict
}
