//! The machines of one partition, and what happens to them.

use crate::{
    Effects, Input,
    alert::{Desk, Moment, Reading},
    condition::{NEVER, What},
    index::{Index, NOBODY},
    judge::Judge,
    learning::Learning,
    machine::{Handle, Machine, SLAB, Slab, handle, place},
    order,
    rules::{Kind, Rules},
    sensors,
    switch::Changes,
};
use catalog::{Catalogue, Class, ClassChoice, MachineId};
use scoring::{Settings, Verdicts};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};
use wire::{ErrorCode, Marker, Quality, ReadingBatch, Reject, Span};

/// Rows whose machines are brought near together, and from how many machines on that is worth while.
const NEAR: usize = 16;
const FAR_MACHINES: usize = 4096;

/// The machines of one partition.
pub struct Engine {
    pub(crate) partition: u16,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) kind_of: BTreeMap<String, usize>,
    pub(crate) slabs: Vec<Slab>,
    /// In order of first sight.
    pub(crate) seen: Vec<Handle>,
    pub(crate) index: Index,
    pub(crate) next_offset: i64,
    silent_below: i64,
    /// What the classes learned holds the records below it.
    pub(crate) learn_from: i64,
    /// See [`Engine::replay_from`].
    pub(crate) replay_from: i64,
    /// When silence was first asked for: what is silent since before is so from here.
    assigned_us: Option<i64>,
    /// No machine is silent for too long before it.
    silence_due_us: i64,
    /// Counts whenever effects were found empty, so that a machine is touched once in each.
    round: u32,
    verdicts: Verdicts,
    hashes: Vec<u64>,
    handles: Vec<Handle>,
    channels: Vec<f64>,
}

impl Engine {
    /// An engine without machines, for a partition of `wire::READINGS_TOPIC`.
    pub fn new(partition: u16, catalogue: Arc<Catalogue>) -> Engine {
        Engine {
            partition,
            catalogue,
            kinds: Vec::new(),
            kind_of: BTreeMap::new(),
            slabs: Vec::new(),
            seen: Vec::new(),
            index: Index::new(),
            next_offset: 0,
            silent_below: i64::MIN,
            learn_from: i64::MIN,
            replay_from: 0,
            assigned_us: None,
            silence_due_us: i64::MIN,
            round: 0,
            verdicts: Verdicts::default(),
            hashes: Vec::new(),
            handles: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Applies one input.
    pub fn apply(&mut self, input: Input<'_>, effects: &mut Effects) {
        if effects.touched.is_empty() {
            self.round = self.round.wrapping_add(1);
        }
        match input {
            Input::Readings(batch) => self.take_readings(batch, effects),
            Input::Use { catalogue } => self.switch(catalogue),
            Input::Silence { now_us, confirmed } => self.find_silent(now_us, confirmed, effects),
        }
    }

    /// Offset of the next record that this engine expects.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Emits nothing for records below `offset`: they were committed before the crash.
    pub fn silent_below(&mut self, offset: i64) {
        self.silent_below = offset;
    }

    /// The class that a machine has.
    pub fn class_of(&self, machine: &str) -> Option<&str> {
        let (slab, _) = place(self.index.find(&self.slabs, machine)?);
        Some(&self.kinds[self.slabs[slab].kind].rules.class.id)
    }

    /// Every machine, in order of first sight.
    pub fn machines(&self) -> Vec<MachineId> {
        let id = |handle: &Handle| {
            let (slab, at) = place(*handle);
            self.slabs[slab].machines[at].id.clone()
        };
        self.seen.iter().map(id).collect()
    }

    /// Smallest offset at which a slab is true: a restored engine must be given the bus from there. After a
    /// [`Engine::snapshot`] the offset of that snapshot, which holds once all its slabs are stored.
    pub fn replay_from(&self) -> i64 {
        self.replay_from
    }

    /// Rough size of the state, bytes: (machines, bytes).
    pub fn state_bytes(&self) -> (usize, usize) {
        let slabs: usize = self.slabs.iter().map(Slab::bytes).sum();
        let names = self.index.bytes() + self.seen.capacity() * size_of::<Handle>();
        (self.seen.len(), slabs + names)
    }

    /// Place of a class, compiled at first need: as the catalogue has it, else as the batch brings it.
    pub(crate) fn kind(&mut self, class: &Arc<Class>) -> usize {
        if let Some(kind) = self.kind_of.get(&class.id) {
            return *kind;
        }
        let of_catalogue = self.catalogue.class(&class.id).unwrap_or(class);
        self.add_kind(Rules::new(Arc::clone(of_catalogue), &self.catalogue))
    }

    pub(crate) fn add_kind(&mut self, rules: Rules) -> usize {
        self.kind_of.insert(rules.class.id.clone(), self.kinds.len());
        self.kinds.push(Kind { learning: Learning::new(&rules.class, &rules.bands), rules });
        // Its machines may fall silent sooner than those that were known when silence was looked for last.
        self.silence_is_due();
        self.kinds.len() - 1
    }

    /// Silence is looked for at the next call.
    pub(crate) fn silence_is_due(&mut self) {
        self.silence_due_us = i64::MIN;
    }

    fn take_readings(&mut self, batch: &ReadingBatch, effects: &mut Effects) {
        let Some(last) = batch.spans.last() else { return };
        let next_offset = last.offset + 1;
        let kind = self.kind(&batch.class);
        let batch = &*as_class(batch, &self.kinds[kind].rules.class);
        let Engine { catalogue, kinds, kind_of, slabs, seen, index, verdicts, hashes, handles, channels, .. } = self;
        let Kind { rules, learning } = &mut kinds[kind];
        let rules = &*rules;
        index.find_all(slabs, &batch.machines, handles);
        let settings: Vec<&Settings> = handles
            .iter()
            .zip(&batch.machines)
            .map(|(handle, machine)| {
                let (slab, at) = place(*handle);
                let known = slabs.get(slab).filter(|slab| rules.has_own() && slab.kind == kind);
                rules.settings(known.map_or_else(|| rules.own_of(machine), |slab| slab.machines[at].own))
            })
            .collect();
        rules.program.judge(batch, &settings, verdicts);
        order::hashes(batch, hashes);
        let desk = Desk { effects, catalogue_hash: catalogue.hash(), round: self.round };
        let mut judge = Judge { rules, learning, learn_from: self.learn_from, batch, verdicts, desk, channels };
        let mut spans = Spans { batch, at: 0 };
        let mut markers = batch.markers.iter().peekable();
        let moment_of = |row: usize, span: &Span, timestamp_us: i64, index: u32| Moment {
            row,
            timestamp_us,
            arrived_us: span.arrived_us,
            offset: span.offset,
            index,
            partition: self.partition,
            silent: span.offset < self.silent_below,
        };
        for row in 0..=batch.rows() {
            while let Some(marker) = markers.next_if(|marker| marker.before_row as usize <= row) {
                let moment = moment_of(row, spans.of_marker(marker), marker.arrived_us, marker.index);
                let moment = Moment { arrived_us: marker.arrived_us, ..moment };
                let Some(found) = index.find(slabs, &marker.machine) else { continue };
                let (slab, at) = place(found);
                let slab = &mut slabs[slab];
                if slab.kind == kind && moment.offset >= slab.true_at {
                    sensors::refuse(rules, slab, at, marker, &moment, &mut judge.desk);
                }
            }
            let Some(hash) = hashes.get(row).copied() else { break };
            if row % NEAR == 0 && seen.len() > FAR_MACHINES {
                let mut near = 0;
                for row in row..batch.rows().min(row + NEAR) {
                    let (slab, at) = place(handles[batch.machine[row] as usize]);
                    if let Some(slab) = slabs.get(slab).filter(|slab| slab.kind == kind) {
                        near ^= slab.warm(rules, at, batch.timestamp_us[row]);
                    }
                }
                std::hint::black_box(near);
            }
            let span = spans.of_row(row);
            let moment = moment_of(row, span, batch.timestamp_us[row], batch.index[row]);
            let of_batch = batch.machine[row] as usize;
            let mut found = handles[of_batch];
            if found == NOBODY {
                let id = &batch.machines[of_batch];
                if let ClassChoice::Changed(has, _) = catalogue.class_of(id, None, Some(&rules.class.id)) {
                    refuse_class(&mut judge, &moment, &has);
                    continue;
                }
                found = add_machine(rules, kind, slabs, seen, index, id);
                handles[of_batch] = found;
                if !moment.silent {
                    judge.desk.effects.machines.push((id.clone(), rules.class.id.clone(), moment.timestamp_us));
                }
            }
            let (slab, at) = place(found);
            let slab = &mut slabs[slab];
            if slab.kind != kind {
                let has = kind_of.iter().find(|(_, of)| **of == slab.kind).map_or("", |(id, _)| id.as_str());
                refuse_class(&mut judge, &moment, has);
                continue;
            }
            if moment.offset >= slab.true_at {
                judge.take(slab, at, &moment, hash);
            }
        }
        self.next_offset = self.next_offset.max(next_offset);
    }

    /// Raises `no_data` of machines whose last arrival is too old.
    fn find_silent(&mut self, now_us: i64, confirmed: &dyn Fn(&str) -> bool, effects: &mut Effects) {
        let assigned_us = *self.assigned_us.get_or_insert(now_us);
        if now_us < self.silence_due_us {
            return;
        }
        let mut due_us = i64::MAX;
        let mut desk = Desk { effects, catalogue_hash: self.catalogue.hash(), round: self.round };
        for kind in &self.kinds {
            // A machine that talks for the first time from here on is not silent before.
            due_us = due_us.min(now_us.saturating_add(kind.rules.class.no_data_us.unwrap_or(i64::MAX)));
        }
        for found in &self.seen {
            let (slab, at) = place(*found);
            let slab = &mut self.slabs[slab];
            let rules = &self.kinds[slab.kind].rules;
            let machine = &slab.machines[at];
            let Some(no_data_us) = rules.class.no_data_us else { continue };
            let heard_us = machine.arrived_us.max(assigned_us);
            let silent_us = now_us.saturating_sub(heard_us);
            if silent_us < no_data_us {
                due_us = due_us.min(heard_us.saturating_add(no_data_us));
            } else if machine.arrived_us != NEVER
                && machine.standing(&What::NoData).is_none()
                && !sensors::may_be_silent(machine.state)
            {
                if confirmed(&machine.id) {
                    let silent_us = now_us.saturating_sub(machine.arrived_us);
                    sensors::raise_no_data(rules, slab, at, self.partition, silent_us, &mut desk);
                } else {
                    // It may be confirmed at any time.
                    due_us = now_us;
                }
            }
        }
        self.silence_due_us = due_us;
    }
}

/// Refuses a row whose machine has another class.
fn refuse_class(judge: &mut Judge<'_>, moment: &Moment, has: &str) {
    if moment.silent {
        return;
    }
    let batch = judge.batch;
    let (machine, class) = (batch.machine_of(moment.row), &batch.class);
    let payload = Reading::of_row(batch, moment.row).json(class, machine);
    judge.desk.effects.counts.refused += 1;
    judge.desk.effects.rejects.push((
        moment.position(),
        Reject {
            index: moment.index,
            code: ErrorCode::ClassChanged,
            error: format!(
                "machine {machine} has class {has}, a machine keeps its class; the reading has {}",
                class.id
            ),
            machine: Some(machine.clone()),
            channel: None,
            payload: payload.get().as_bytes().to_vec(),
        },
    ));
}

/// Adds a machine of which nothing is known.
pub(crate) fn add_machine(
    rules: &Rules,
    kind: usize,
    slabs: &mut Vec<Slab>,
    seen: &mut Vec<Handle>,
    index: &mut Index,
    id: &MachineId,
) -> Handle {
    let open = slabs.iter().rposition(|slab| slab.kind == kind).filter(|at| slabs[*at].machines.len() < SLAB);
    let slab = open.unwrap_or_else(|| {
        slabs.push(Slab::new(kind));
        slabs.len() - 1
    });
    let found = handle(slab, slabs[slab].machines.len());
    slabs[slab].add(rules, Machine::new(id.clone(), seen.len() as u32, rules.own_of(id)));
    index.add(slabs, id, found);
    seen.push(found);
    found
}

/// A batch in the columns of the class in force. One that was decoded under another version of its class keeps the
/// channels that mean the same in both; the others count as missing.
fn as_class<'a>(batch: &'a ReadingBatch, class: &Arc<Class>) -> Cow<'a, ReadingBatch> {
    if Arc::ptr_eq(&batch.class, class) || batch.class.document == class.document {
        return Cow::Borrowed(batch);
    }
    let rows = batch.rows();
    let mut out = batch.clone();
    out.class = Arc::clone(class);
    let changes = Changes::new(&batch.class, class);
    out.quality = vec![0; rows];
    out.values = vec![vec![0; rows]; class.channels.len()];
    for (channel, from) in changes.channels.iter().enumerate() {
        for row in 0..rows {
            let quality = match from {
                Some(from) => {
                    out.values[channel][row] = batch.values[*from][row];
                    Quality::of(batch.quality_of(row), *from)
                }
                None => Quality::Missing,
            };
            out.quality[row] |= quality.bits(channel);
        }
    }
    out.attributes = changes
        .attributes
        .iter()
        .map(|from| {
            let column = from.as_ref().map(|(from, words)| (&batch.attributes[*from], words));
            let word = |row: usize| {
                let (column, words) = column?;
                words.get(usize::from(*column.get(row)?)).copied()
            };
            (0..rows).map(|row| word(row).unwrap_or(ReadingBatch::NONE)).collect()
        })
        .collect();
    Cow::Owned(out)
}

/// The bus records of a batch, walked in order.
struct Spans<'a> {
    batch: &'a ReadingBatch,
    at: usize,
}

impl<'a> Spans<'a> {
    fn next_first(&self) -> Option<usize> {
        self.batch.spans.get(self.at + 1).map(|span| span.first_row as usize)
    }

    fn of_row(&mut self, row: usize) -> &'a Span {
        while self.next_first().is_some_and(|first| first <= row) {
            self.at += 1;
        }
        &self.batch.spans[self.at]
    }

    /// The record of a refused reading. Where one record ends before the marker's row and another begins, its place in
    /// the value as received and its arrival tell which it came in.
    fn of_marker(&mut self, marker: &Marker) -> &'a Span {
        let before_row = marker.before_row as usize;
        while self.next_first().is_some_and(|first| first < before_row) {
            self.at += 1;
        }
        let mut fits = None;
        let mut at = self.at;
        loop {
            let span = &self.batch.spans[at];
            let end = self.batch.spans.get(at + 1).map_or(self.batch.rows(), |next| next.first_row as usize);
            let index_of = |row: usize| self.batch.index[row];
            let after =
                before_row == 0 || before_row - 1 < span.first_row as usize || index_of(before_row - 1) < marker.index;
            let before = before_row >= end || marker.index < index_of(before_row);
            if after && before {
                if span.arrived_us == marker.arrived_us {
                    fits = Some(at);
                    break;
                }
                fits = fits.or(Some(at));
            }
            if self.batch.spans.get(at + 1).is_none_or(|next| next.first_row as usize > before_row) {
                break;
            }
            at += 1;
        }
        self.at = fits.unwrap_or(self.at);
        &self.batch.spans[self.at]
    }
}
