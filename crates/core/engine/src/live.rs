//! What a screen shows of a machine.

use crate::{
    Engine, Live, LiveCondition,
    alert::Reading,
    machine::{Slab, place},
    rules::{Kind, Rules},
};
use scoring::{RowWindows, Verdicts, WindowStats};
use std::sync::Arc;
use wire::ReadingBatch;

/// The windows of a machine, which hold its newest reading already.
struct Kept<'a> {
    rules: &'a Rules,
    slab: &'a Slab,
    at: usize,
}

impl RowWindows for Kept<'_> {
    fn push_derived(&mut self, _windowed: usize, _value: i64) {}

    fn stats(&self, windowed: usize) -> Option<WindowStats> {
        let quantity = self.rules.program.windowed()[windowed];
        self.slab.windows(self.rules, self.at)[windowed].stats(self.rules.class.quantity_scale(quantity))
    }
}

impl Engine {
    /// What a screen shows of a machine; `None` before its first in-order reading.
    pub fn live(&self, machine: &str) -> Option<Live> {
        let (slab, at) = place(self.index.find(&self.slabs, machine)?);
        let slab = &self.slabs[slab];
        let Kind { rules, learning } = &self.kinds[slab.kind];
        let class = &rules.class;
        let machine = &slab.machines[at];
        let reading = Reading::newest(slab, rules, at)?;
        let mut batch = ReadingBatch::new(Arc::clone(class));
        batch.machines.push(machine.id.clone());
        batch.machine.push(0);
        batch.timestamp_us.push(reading.timestamp_us);
        batch.index.push(machine.last_index);
        batch.values.iter_mut().zip(&reading.values).for_each(|(column, value)| column.push(*value));
        batch.quality.push(reading.quality);
        batch.attributes.iter_mut().zip(&reading.attributes).for_each(|(column, word)| column.push(*word));
        let settings = rules.settings(machine.own);
        let mut verdicts = Verdicts::default();
        rules.program.judge(&batch, &[settings], &mut verdicts);
        let mut kept = Kept { rules, slab, at };
        if rules.program.needs_windows() {
            rules.program.judge_windowed(&batch, 0, settings, &mut kept, &mut verdicts);
        }
        let mut channels = Vec::new();
        verdicts.reading(0, &mut channels);
        let score = learning.fits.last().map(|frozen| frozen.fit.score(class, &channels));
        let conditions = machine.trouble.iter().flat_map(|trouble| &trouble.conditions);
        Some(Live {
            machine: machine.id.clone(),
            class: Arc::clone(class),
            state: machine.state,
            last_seen_us: machine.order.newest_us,
            arrived_us: machine.arrived_us,
            windows: (0..class.channels.len())
                .map(|channel| rules.window_channels.iter().position(|of| *of == Some(channel)))
                .map(|window| kept.stats(window?))
                .collect(),
            values: reading.values,
            quality: reading.quality,
            derived: verdicts.derived.iter().map(|column| column[0]).collect(),
            score: score.filter(|score| score.is_finite()),
            learned_us: machine.learned_us,
            conditions: conditions
                .map(|condition| LiveCondition {
                    condition: condition.what.name(class),
                    condition_id: condition.id,
                    failure_type: condition.what.failure_type(class),
                    severity: condition.severity,
                    since_us: condition.started_us,
                    suspended: condition.suspended,
                })
                .collect(),
        })
    }
}
