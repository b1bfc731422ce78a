//! One partition: its machines, in which order their readings came, and what of it lies in memory.

use super::{
    Appended, Lot, Taken, letters,
    machines::{Known, Machines},
    memory::{Counts, Memory, Segment},
};
use catalog::{Catalogue, ClassChoice, MachineId};
use engine::{Identity, Order, Place};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use wire::{ErrorCode, ReadingBatch, Reject, Span};

/// In the place of a machine number: its readings are refused.
pub(super) const REFUSED: u32 = u32::MAX;

/// Flags of a stored row.
const LATE: u8 = 1;
const OUT_OF_ORDER: u8 = 2;
const AHEAD: u8 = 4;
/// Verdicts beside the flags: such a row is not stored.
const DUPLICATE: u8 = 0x40;
const CLASS_CHANGED: u8 = 0x80;

/// Machines whose newest times share a row of `history.db`.
pub(super) const SLAB: usize = 256;

/// A machine of this partition.
struct Machine {
    id: MachineId,
    known: Arc<Known>,
    order: Order,
    /// What `order` must hold was read back from the file, or never lay there.
    read_back: bool,
    /// `order`'s newest as of what is stored: a lot that is judged and not yet stored has moved `order` already.
    watermark_us: i64,
    /// Event time of the newest stored reading.
    newest_us: i64,
}

/// A partition's state. What is appended goes to `active`; a flush freezes it and lets it go once it is on disk.
pub(super) struct Partition {
    pub(super) number: u16,
    numbers: HashMap<MachineId, u32>,
    machines: Vec<Machine>,
    /// Machines of lower number were handed to a flush.
    saved: usize,
    pub(super) active: Memory,
    pub(super) frozen: Option<Arc<Memory>>,
}

/// A batch of a lot, judged row by row.
pub(super) struct Judged {
    /// By place in the batch's machines.
    numbers: Vec<u32>,
    /// Refused machines by place in the batch's machines, and why.
    refused: Vec<(u32, ErrorCode, String)>,
    /// By row: flags, or why it is not stored.
    verdict: Vec<u8>,
    /// Late rows that may repeat what is older than the allowed lateness: (row, number, identity).
    late: Vec<(usize, u32, Identity)>,
}

impl Judged {
    pub(super) fn rows(&self) -> usize {
        self.verdict.len()
    }

    pub(super) fn late(&self) -> &[(usize, u32, Identity)] {
        &self.late
    }

    /// Late rows of these identities are duplicates after all.
    pub(super) fn repeated(&mut self, found: &HashSet<(u32, Identity)>) {
        for (row, number, identity) in &self.late {
            if found.contains(&(*number, *identity)) {
                self.verdict[*row] = DUPLICATE;
            }
        }
    }
}

impl Partition {
    pub(super) fn new(number: u16, position: i64) -> Partition {
        Partition {
            number,
            numbers: HashMap::new(),
            machines: Vec::new(),
            saved: 0,
            active: Memory::new(position),
            frozen: None,
        }
    }

    /// Enters a machine as the file has it: what its order holds is read back at its first reading.
    pub(super) fn restore(&mut self, id: MachineId, known: Arc<Known>, watermark_us: i64, newest_us: i64) {
        let mut order = Order::new();
        order.newest_us = watermark_us;
        known.raise_newest(newest_us);
        self.numbers.insert(id.clone(), self.machines.len() as u32);
        self.machines.push(Machine { id, known, order, read_back: false, watermark_us, newest_us });
        self.saved = self.machines.len();
    }

    /// Next offset to be appended.
    pub(super) fn appended(&self) -> i64 {
        self.active.to
    }

    /// What lies below is on disk.
    pub(super) fn flushed(&self) -> i64 {
        self.frozen.as_ref().map_or(self.active.from, |frozen| frozen.from)
    }

    /// The number of a machine.
    pub(super) fn number_of(&self, machine: &str) -> Option<u32> {
        self.numbers.get(machine).copied()
    }

    /// The machine of a number.
    pub(super) fn id_of(&self, number: u32) -> &MachineId {
        &self.machines[number as usize].id
    }

    /// What is not on disk, newest first.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.segments.iter().rev());
        self.active.segments.iter().rev().chain(frozen)
    }

    /// Finds the machines of a batch; who is new is entered with the batch's class.
    pub(super) fn find(&mut self, batch: &ReadingBatch, machines: &Machines, catalogue: &Catalogue) -> Judged {
        let mut judged = Judged { numbers: Vec::new(), refused: Vec::new(), verdict: Vec::new(), late: Vec::new() };
        judged.numbers.reserve_exact(batch.machines.len());
        for (place, id) in (0_u32..).zip(&batch.machines) {
            let number = match self.numbers.get(id) {
                Some(number) if *self.machines[*number as usize].known.class == *batch.class.id => Ok(*number),
                Some(number) => Err(class_changed(id, &self.machines[*number as usize].known.class, batch)),
                None => self.enter(id, batch, machines, catalogue),
            };
            judged.numbers.push(number.unwrap_or_else(|(code, error)| {
                judged.refused.push((place, code, error));
                REFUSED
            }));
        }
        judged
    }

    fn enter(
        &mut self,
        id: &MachineId,
        batch: &ReadingBatch,
        machines: &Machines,
        catalogue: &Catalogue,
    ) -> Result<u32, (ErrorCode, String)> {
        let bound = machines.get(id);
        let bound = bound.as_ref().map(|known| &*known.class);
        match catalogue.class_of(id, bound, Some(&batch.class.id)) {
            ClassChoice::Class(_) => {}
            ClassChoice::Changed(has, _) => return Err(class_changed(id, &has, batch)),
            ClassChoice::Unknown(class) => {
                return Err((ErrorCode::UnknownClass, format!("class {class} is not in the catalogue")));
            }
        }
        let known = machines.enter(id, &batch.class.id);
        let number = self.machines.len() as u32;
        self.numbers.insert(id.clone(), number);
        self.machines.push(Machine {
            id: id.clone(),
            known,
            order: Order::new(),
            read_back: true,
            watermark_us: i64::MIN,
            newest_us: i64::MIN,
        });
        Ok(number)
    }

    /// Machines of a batch whose order must be read back from the file, and the event time that it reaches back to.
    pub(super) fn unread(&self, batch: &ReadingBatch, judged: &Judged) -> Vec<(u32, i64)> {
        let numbers = judged.numbers.iter().filter(|number| **number != REFUSED);
        numbers
            .filter_map(|number| {
                let machine = &self.machines[*number as usize];
                let floor = machine.order.newest_us.saturating_sub(batch.class.lateness_us);
                (!machine.read_back).then_some((*number, floor))
            })
            .collect()
    }

    /// Takes what was read back for [`Partition::unread`] machines of a class.
    pub(super) fn remember(&mut self, lateness_us: i64, unread: &[(u32, i64)], rows: Vec<(u32, Identity, u8)>) {
        for (number, identity, flags) in rows {
            let place = match flags {
                0 => Place::InOrder,
                OUT_OF_ORDER => Place::OutOfOrder,
                AHEAD => Place::Ahead,
                _ => Place::Late,
            };
            self.machines[number as usize].order.remember(lateness_us, identity, place);
        }
        for (number, _) in unread {
            self.machines[*number as usize].read_back = true;
        }
    }

    /// Judges every row. The orders move: what was judged must be stored next.
    pub(super) fn judge(&mut self, batch: &ReadingBatch, judged: &mut Judged) {
        let lateness_us = batch.class.lateness_us;
        judged.verdict.reserve_exact(batch.rows());
        for (record, rows) in batch.records() {
            for row in rows {
                let number = judged.numbers[batch.machine[row] as usize];
                if number == REFUSED {
                    judged.verdict.push(CLASS_CHANGED);
                    continue;
                }
                let machine = &mut self.machines[number as usize];
                let identity = engine::identity(batch, row);
                judged.verdict.push(match machine.order.place(lateness_us, record.arrived_us, identity) {
                    Place::InOrder => 0,
                    Place::OutOfOrder => OUT_OF_ORDER,
                    #[cfg(feature = "planted")]
                    Place::Duplicate if crate::planted("no_dedupe") => OUT_OF_ORDER,
                    Place::Duplicate => DUPLICATE,
                    Place::Late => {
                        judged.late.push((row, number, identity));
                        LATE
                    }
                    Place::Ahead => {
                        // Where arrivals went back in time, what is ahead of its arrival can still be older than the
                        // lateness.
                        if identity.timestamp_us < machine.order.newest_us.saturating_sub(lateness_us) {
                            judged.late.push((row, number, identity));
                        }
                        AHEAD
                    }
                });
            }
        }
    }

    /// Finds late rows that repeat a row of their own lot, and then those that repeat what lies in memory.
    pub(super) fn find_repeated(&self, batches: &[ReadingBatch], judged: &mut [Judged]) {
        let wanted: HashSet<u32> =
            judged.iter().flat_map(|judged| &judged.late).map(|(_, number, _)| *number).collect();
        let mut seen = self.find_in_memory(judged);
        for (batch, judged) in batches.iter().zip(judged) {
            let mut late = std::mem::take(&mut judged.late).into_iter().peekable();
            for row in 0..batch.rows() {
                let number = judged.numbers[batch.machine[row] as usize];
                if judged.verdict[row] >= DUPLICATE || !wanted.contains(&number) {
                    continue;
                }
                let identity = engine::identity(batch, row);
                let new = seen.insert((number, identity));
                if let Some(row) = late.next_if(|(late, ..)| *late == row) {
                    match new {
                        true => judged.late.push(row),
                        false => judged.verdict[row.0] = DUPLICATE,
                    }
                }
            }
        }
    }

    /// The identities of late rows that rows in memory have.
    fn find_in_memory(&self, judged: &[Judged]) -> HashSet<(u32, Identity)> {
        let mut times: HashMap<u32, HashSet<i64>> = HashMap::new();
        for (_, number, identity) in judged.iter().flat_map(|judged| &judged.late) {
            times.entry(*number).or_default().insert(identity.timestamp_us);
        }
        let mut found = HashSet::new();
        for (number, times) in &times {
            for segment in self.segments() {
                let rows = segment.rows_of(*number).filter(|row| times.contains(&segment.rows.timestamp_us[*row]));
                found.extend(rows.map(|row| (*number, engine::identity(&segment.rows, row))));
            }
        }
        found
    }

    /// Takes a judged lot.
    pub(super) fn store(&mut self, lot: &Lot<'_>, judged: &[Judged]) -> Taken {
        let held = self.active.dead_letters.len();
        let mut taken = Taken::default();
        for (record, reject) in lot.rejects {
            of_source(&mut taken.by_source, record).rejected += 1;
            self.active.dead_letters.push(letters::letter(self.number, record, reject));
        }
        for (batch, judged) in lot.batches.iter().zip(judged) {
            let segment = self.active.segment(&batch.class);
            segment.begin(&judged.numbers);
            let mut from = 0;
            for run in judged.verdict.chunk_by(|left, right| (*left < DUPLICATE) == (*right < DUPLICATE)) {
                let rows = from..from + run.len();
                from = rows.end;
                if run[0] < DUPLICATE {
                    for row in rows.clone() {
                        let machine = &mut self.machines[judged.numbers[batch.machine[row] as usize] as usize];
                        machine.newest_us = machine.newest_us.max(batch.timestamp_us[row]);
                    }
                    segment.extend(batch, rows, &judged.numbers, &judged.verdict);
                }
            }
            let mut stored = 0;
            for (record, rows) in batch.records() {
                let appended = of_source(&mut taken.by_source, record);
                let before = appended.stored;
                count(&judged.verdict[rows], appended);
                let rows = (appended.stored - before) as usize;
                segment.note_record(record.offset, record.arrived_us, rows);
                stored += rows;
            }
            // A record's own offset and arrival.
            let bytes = stored * segment.row_bytes() + 16 * batch.spans.len();
            self.active.bytes += bytes;
            for number in judged.numbers.iter().filter(|number| **number != REFUSED) {
                let machine = &mut self.machines[*number as usize];
                machine.watermark_us = machine.order.newest_us;
                machine.known.raise_newest(machine.newest_us);
            }
            for (record, reject) in refusals(batch, judged) {
                self.active.dead_letters.push(letters::letter(self.number, record, &reject));
                taken.refused.push((record.offset, reject));
            }
        }
        taken.by_source.retain(|(_, appended)| counts_of(appended).received > 0);
        for (source, appended) in &taken.by_source {
            self.active.counts.entry(source.clone()).or_default().add(counts_of(appended));
        }
        let letters = self.active.dead_letters[held..].iter();
        self.active.bytes += letters.map(|letter| 200 + letter.payload.len() + letter.error.len()).sum::<usize>();
        self.active.to = lot.offsets.end;
        taken
    }

    /// Prunes the orders of machines whose class has another lateness from here.
    pub(super) fn change_lateness(&mut self, before: &Catalogue, after: &Catalogue) {
        let lateness = |catalogue: &Catalogue, class: &str| catalogue.class(class).map(|class| class.lateness_us);
        for machine in &mut self.machines {
            let class = &machine.known.class;
            if let (Some(before), Some(after)) = (lateness(before, class), lateness(after, class))
                && before != after
            {
                machine.order.prune(before);
            }
        }
    }

    /// What the next flush writes, and whether it was frozen here; it stays until [`Partition::thaw`].
    pub(super) fn freeze(&mut self) -> Option<(Arc<Memory>, bool)> {
        if let Some(frozen) = &self.frozen {
            return Some((frozen.clone(), false));
        }
        if self.active.is_empty() {
            return None;
        }
        let next = Memory::new(self.active.to);
        let mut memory = std::mem::replace(&mut self.active, next);
        let newcomers = (self.saved as u32..).zip(&self.machines[self.saved..]);
        memory.newcomers =
            newcomers.map(|(number, machine)| (number, machine.id.clone(), machine.known.class.clone())).collect();
        let mut slabs: BTreeSet<usize> = memory.newcomers.iter().map(|(number, ..)| *number as usize / SLAB).collect();
        self.saved = self.machines.len();
        for segment in &mut memory.segments {
            let names: Vec<_> =
                segment.numbers().map(|number| (number, self.machines[number as usize].id.clone())).collect();
            slabs.extend(names.iter().map(|(number, _)| *number as usize / SLAB));
            segment.names = names;
        }
        memory.newest = slabs.into_iter().map(|slab| (slab as u32, self.newest_of(slab))).collect();
        let frozen = Arc::new(memory);
        self.frozen = Some(frozen.clone());
        Some((frozen, true))
    }

    /// Lets go of what a flush has written.
    pub(super) fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Watermark and newest event time of each machine of a slab.
    fn newest_of(&self, slab: usize) -> Vec<u8> {
        let machines = self.machines[slab * SLAB..].iter().take(SLAB);
        machines
            .flat_map(|machine| [machine.watermark_us, machine.newest_us])
            .flat_map(|time| time.to_le_bytes())
            .collect()
    }
}

/// The times that `newest_of` wrote: (watermark, newest) by machine of the slab.
pub(super) fn read_newest(bytes: &[u8]) -> impl Iterator<Item = (i64, i64)> {
    let (pairs, _) = bytes.as_chunks::<16>();
    let time = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("half of sixteen bytes"));
    pairs.iter().map(move |pair| (time(&pair[..8]), time(&pair[8..])))
}

fn class_changed(id: &MachineId, has: &str, batch: &ReadingBatch) -> (ErrorCode, String) {
    let named = &batch.class.id;
    let error = format!("machine {id} has class {has}, the message says {named}; a machine keeps its class");
    (ErrorCode::ClassChanged, error)
}

/// The counts of a record's source; those of a lot are few, and most often the last one's.
fn of_source<'a>(by_source: &'a mut Vec<(Arc<str>, Appended)>, record: &Span) -> &'a mut Appended {
    let at = by_source.iter().rposition(|(source, _)| *source == record.source).unwrap_or_else(|| {
        by_source.push((record.source.clone(), Appended::default()));
        by_source.len() - 1
    });
    &mut by_source[at].1
}

/// What the ledger counts of it.
pub(super) fn counts_of(appended: &Appended) -> Counts {
    let Appended { stored, duplicate, rejected, .. } = *appended;
    Counts { received: stored + duplicate + rejected, stored, rejected, duplicate }
}

fn count(verdict: &[u8], appended: &mut Appended) {
    // In order first: most batches hold nothing else.
    let in_order = verdict.iter().filter(|verdict| **verdict == 0).count();
    appended.stored += in_order as u64;
    if in_order == verdict.len() {
        return;
    }
    for verdict in verdict.iter().filter(|verdict| **verdict != 0) {
        match *verdict {
            DUPLICATE => appended.duplicate += 1,
            CLASS_CHANGED => appended.rejected += 1,
            flags => {
                appended.stored += 1;
                appended.late += u64::from(flags & LATE != 0);
                appended.out_of_order += u64::from(flags & OUT_OF_ORDER != 0);
                appended.ahead += u64::from(flags & AHEAD != 0);
            }
        }
    }
}

/// The rows of refused machines, with their records.
fn refusals<'a>(batch: &'a ReadingBatch, judged: &'a Judged) -> impl Iterator<Item = (&'a Span, Reject)> {
    let records = batch.records().filter(|_| !judged.refused.is_empty());
    let rows = records.flat_map(|(record, rows)| rows.map(move |row| (record, row)));
    rows.filter(|(_, row)| judged.verdict[*row] == CLASS_CHANGED).filter_map(|(record, row)| {
        let (_, code, error) = judged.refused.iter().find(|(place, ..)| *place == batch.machine[row])?;
        let reject = Reject {
            index: batch.index[row],
            code: *code,
            error: error.clone(),
            machine: Some(batch.machine_of(row).clone()),
            channel: None,
            payload: letters::reading_json(batch, row).into_bytes(),
        };
        Some((record, reject))
    })
}
