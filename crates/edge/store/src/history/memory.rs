//! What was appended and is not on disk: columns by class, dead letters, counts.

use super::{DeadLetter, LedgerRow};
use catalog::{Class, MachineId};
use std::{collections::BTreeMap, ops::Range, sync::Arc};
use wire::ReadingBatch;

/// The end of a machine's chain of rows.
const NO_ROW: u32 = u32::MAX;

/// Readings counted by what became of them: received = stored + rejected + duplicate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) stored: u64,
    pub(super) rejected: u64,
    pub(super) duplicate: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Counts) {
        self.received += other.received;
        self.stored += other.stored;
        self.rejected += other.rejected;
        self.duplicate += other.duplicate;
    }

    /// A line of the ledger.
    pub(super) fn row(&self, source: &str) -> LedgerRow {
        let Counts { received, stored, rejected, duplicate } = *self;
        LedgerRow { source: source.to_owned(), received, stored, rejected, duplicate }
    }
}

/// A run of records of one partition, from one flush to the next.
#[derive(Default)]
pub(super) struct Memory {
    /// Offset of its first record, and of the one after its last.
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) segments: Vec<Segment>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) counts: BTreeMap<Arc<str>, Counts>,
    /// Catalogues that took effect: (offset, hash).
    pub(super) activations: Vec<(i64, String)>,
    /// Machines that were first seen in it: (number, name, class). Filled when it is frozen, as what follows.
    pub(super) newcomers: Vec<(u32, MachineId, Arc<str>)>,
    /// Newest event times of the slabs that it touched.
    pub(super) newest: Vec<(u32, Vec<u8>)>,
    pub(super) bytes: usize,
}

impl Memory {
    pub(super) fn new(from: i64) -> Memory {
        Memory { from, to: from, ..Memory::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from == self.to && self.activations.is_empty()
    }

    /// The segment that takes rows of a class. A class whose definition changed is another one.
    pub(super) fn segment(&mut self, class: &Arc<Class>) -> &mut Segment {
        let same = |known: &Arc<Class>| {
            Arc::ptr_eq(known, class) || (known.id == class.id && known.document == class.document)
        };
        let at = self.segments.iter().position(|segment| same(&segment.rows.class));
        let at = at.unwrap_or_else(|| {
            self.segments.push(Segment::new(class.clone()));
            self.segments.len() - 1
        });
        &mut self.segments[at]
    }
}

/// Rows of one class in bus order.
pub(super) struct Segment {
    /// Its column `machine` holds numbers of the partition; its `machines` stay empty.
    pub(super) rows: ReadingBatch,
    pub(super) flags: Vec<u8>,
    /// Per row: place in `records`.
    pub(super) record: Vec<u32>,
    /// Offset and arrival of the records that the rows came in.
    pub(super) records: Vec<(i64, i64)>,
    /// Per row: the row of the same machine before it.
    previous: Vec<u32>,
    /// Per machine number: its last row.
    last: Vec<u32>,
    /// The machines that have rows, ascending by number. Filled when it is frozen.
    pub(super) names: Vec<(u32, MachineId)>,
}

impl Segment {
    pub(super) fn new(class: Arc<Class>) -> Segment {
        Segment {
            rows: ReadingBatch::new(class),
            flags: Vec::new(),
            record: Vec::new(),
            records: Vec::new(),
            previous: Vec::new(),
            last: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Makes room for machines of these numbers, of which some follow.
    pub(super) fn begin(&mut self, numbers: &[u32]) {
        let highest = numbers.iter().filter(|number| **number != super::partition::REFUSED).max();
        let needed = highest.map_or(0, |highest| *highest as usize + 1);
        if self.last.len() < needed {
            self.last.resize(needed, NO_ROW);
        }
    }

    /// Takes a run of rows; `numbers` and `flags` are of the whole batch, by place in its machines and by row. Their
    /// records are named after it ([`Segment::note_record`]).
    pub(super) fn extend(&mut self, batch: &ReadingBatch, run: Range<usize>, numbers: &[u32], flags: &[u8]) {
        let base = self.rows.rows();
        let rows = &mut self.rows;
        extend(rows, batch, &run);
        rows.machine.extend(batch.machine[run.clone()].iter().map(|machine| numbers[*machine as usize]));
        for (row, number) in (base as u32..).zip(&rows.machine[base..]) {
            self.previous.push(std::mem::replace(&mut self.last[*number as usize], row));
        }
        self.flags.extend_from_slice(&flags[run]);
    }

    /// Names the record of so many of the rows that have none yet.
    pub(super) fn note_record(&mut self, offset: i64, arrived_us: i64, rows: usize) {
        if rows > 0 {
            if self.records.last() != Some(&(offset, arrived_us)) {
                self.records.push((offset, arrived_us));
            }
            self.record.resize(self.record.len() + rows, self.records.len() as u32 - 1);
        }
    }

    /// Takes rows of one machine with their flags and records (places in `records`). Rows taken so have no chain.
    pub(super) fn extend_from(
        &mut self,
        batch: &ReadingBatch,
        run: Range<usize>,
        number: u32,
        flags: &[u8],
        record: impl Iterator<Item = u32>,
    ) {
        let at = self.rows.rows();
        extend(&mut self.rows, batch, &run);
        self.rows.machine.resize(at + run.len(), number);
        self.flags.extend_from_slice(flags);
        self.record.extend(record);
    }

    /// Bytes that a row takes, about.
    pub(super) fn row_bytes(&self) -> usize {
        let rare = |filled: bool, bytes: usize| if filled { bytes } else { 0 };
        25 + 8 * self.rows.values.len()
            + rare(!self.rows.quality.is_empty(), size_of::<u128>())
            + rare(!self.rows.seq.is_empty(), size_of::<Option<i64>>())
            + self.rows.attributes.len()
    }

    /// Rows of a machine, last first.
    pub(super) fn rows_of(&self, number: u32) -> impl Iterator<Item = usize> {
        let mut next = self.last.get(number as usize).copied().unwrap_or(NO_ROW);
        std::iter::from_fn(move || {
            let row = next;
            (row != NO_ROW).then(|| {
                next = self.previous[row as usize];
                row as usize
            })
        })
    }

    /// Numbers of the machines that have rows, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.last).filter(|(_, last)| **last != NO_ROW).map(|(number, _)| number)
    }

    pub(super) fn offset_of(&self, row: usize) -> i64 {
        self.records[self.record[row] as usize].0
    }

    pub(super) fn arrived_of(&self, row: usize) -> i64 {
        self.records[self.record[row] as usize].1
    }
}

/// Extends every column but `machine`.
fn extend(rows: &mut ReadingBatch, batch: &ReadingBatch, run: &Range<usize>) {
    let base = rows.rows();
    rows.timestamp_us.extend_from_slice(&batch.timestamp_us[run.clone()]);
    rows.index.extend_from_slice(&batch.index[run.clone()]);
    for (column, values) in rows.values.iter_mut().zip(&batch.values) {
        column.extend_from_slice(&values[run.clone()]);
    }
    extend_rare(&mut rows.quality, base, &batch.quality, run, 0);
    extend_rare(&mut rows.seq, base, &batch.seq, run, None);
    extend_rare(&mut rows.state, base, &batch.state, run, ReadingBatch::NONE);
    for (column, words) in rows.attributes.iter_mut().zip(&batch.attributes) {
        extend_rare(column, base, words, run, ReadingBatch::NONE);
    }
    for (row, links) in batch.links.range(run.start as u32..run.end as u32) {
        rows.links.insert((base + *row as usize - run.start) as u32, links.clone());
    }
}

/// Extends a column that is empty as long as no row fills it.
fn extend_rare<T: Copy>(column: &mut Vec<T>, base: usize, from: &[T], run: &Range<usize>, absent: T) {
    if !from.is_empty() {
        column.resize(base, absent);
        column.extend_from_slice(&from[run.clone()]);
    } else if !column.is_empty() {
        column.resize(base + run.len(), absent);
    }
}
