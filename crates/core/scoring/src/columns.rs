//! A class compiled for judging whole batches: derived quantities, law verdicts and states, column by column.

use crate::{Settings, WindowStats};
use catalog::{Class, Quantity};
use std::sync::Arc;
use wire::ReadingBatch;

/// One level of one law: a bit in [`Verdicts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "places in the class")]
pub struct Slot {
    pub law: usize,
    pub level: usize,
}

/// A class compiled for judging. At most 64 slots (the catalog refuses more).
#[derive(Debug, Clone)]
pub struct Program {
    class: Arc<Class>,
    slots: Vec<Slot>,
}

/// What the laws say of the rows of one batch. Bits are slots unless said otherwise; buffers are reused.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    /// Per channel, per row: value / 10^scale in f64; NaN where bad or missing.
    pub channels: Vec<Vec<f64>>,
    /// Per derived quantity, per row; NaN where not judged.
    pub derived: Vec<Vec<f64>>,
    /// The level could be judged: no value it needs is missing, bad or not finite, and the table has an entry.
    pub judged: Vec<u64>,
    /// The level's law is broken.
    pub broken: Vec<u64>,
    /// Broken with each limit moved back by its deadband: what stands until it is not held. Holds wherever `broken` does.
    pub held: Vec<u64>,
    /// Bits are laws (place in the class): its `when` is absent or true.
    pub when: Vec<u64>,
    /// Per row: the state that the class's rules give (`catalog::State` as its number), `ReadingBatch::NONE` where not judgeable.
    pub state: Vec<u8>,
}

impl Program {
    /// Compiles a class.
    pub fn new(class: Arc<Class>) -> Program {
        let _ = class;
        todo!()
    }

    /// The class.
    pub fn class(&self) -> &Arc<Class> {
        &self.class
    }

    /// Law 0's levels first, lowest first; a slot's place is its bit.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Quantities that keep a 60 s window, in the order in which a machine stores its windows: channels in class order,
    /// then derived quantities in class order.
    pub fn windowed(&self) -> &[Quantity] {
        todo!()
    }

    /// Some verdict or derived quantity needs a window, so [`Program::judge_windowed`] must be called for each row.
    pub fn needs_windows(&self) -> bool {
        todo!()
    }

    /// Slots whose verdict depends on a channel, directly or through derived quantities and windows.
    pub fn slots_of_channel(&self, channel: usize) -> u64 {
        let _ = channel;
        todo!()
    }

    /// Judges every row, column by column. What depends on windows is left not judged (NaN, bit clear).
    /// `settings` is by place in `batch.machines`. Attributes: the row's own, else the settings'.
    pub fn judge(&self, batch: &ReadingBatch, settings: &[&Settings], out: &mut Verdicts) {
        let _ = (batch, settings, out);
        todo!()
    }

    /// Completes one row with the windows of its machine (by place in [`Program::windowed`]); statistics that are not
    /// `judged` count as missing. Derived quantities that keep a window are pushed by `push_derived` (place in
    /// `windowed`, scaled value) in class order, before anything that takes a statistic of them is evaluated.
    pub fn judge_windowed(
        &self,
        batch: &ReadingBatch,
        row: usize,
        settings: &Settings,
        windows: &mut dyn RowWindows,
        out: &mut Verdicts,
    ) {
        let _ = (batch, row, settings, windows, out);
        todo!()
    }
}

/// The windows of one machine while one of its rows is judged.
pub trait RowWindows {
    /// Takes the row's value of a derived quantity that keeps a window (by place in [`Program::windowed`]).
    fn push_derived(&mut self, windowed: usize, value: i64);
    /// Statistics of a window (by place in [`Program::windowed`]).
    fn stats(&self, windowed: usize) -> Option<WindowStats>;
}
