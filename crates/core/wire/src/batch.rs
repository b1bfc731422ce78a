//! Readings in columns: the unit of everything.

use catalog::{Class, MachineId};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// What a row of the built-in classes takes at most, encoded; a guess too low costs a copy.
const BYTES_PER_ROW: usize = 24;

/// Readings of one class in columns. Row `r` is one reading; every filled column has one entry a row.
///
/// Columns that most batches do not need (`quality`, `seq`, `state`, each of `attributes`) are empty when no row has
/// them. Rows keep the order in which they arrived.
#[derive(Debug, Clone)]
pub struct ReadingBatch {
    /// The class of every row; its channels name the columns.
    pub class: Arc<Class>,
    /// The machines of this batch, each once.
    pub machines: Vec<MachineId>,
    /// Per row: index into `machines`.
    pub machine: Vec<u32>,
    /// Per row: event time, microseconds since 1970 UTC.
    pub timestamp_us: Vec<i64>,
    /// Per row: its place in the value as received on the bus, refused rows counted.
    pub index: Vec<u32>,
    /// Per channel, per row: scaled integer; 0 where missing.
    pub values: Vec<Vec<i64>>,
    /// Per row: two bits a channel, see [`Quality`]; empty: all good.
    pub quality: Vec<u128>,
    /// Per row: device sequence number; empty: none has one.
    pub seq: Vec<Option<i64>>,
    /// Per attribute of the class, per row: index into its values, [`ReadingBatch::NONE`] where absent; empty: none.
    pub attributes: Vec<Vec<u8>>,
    /// Per row: `catalog::State` as its number, [`ReadingBatch::NONE`] where absent; empty: none.
    pub state: Vec<u8>,
    /// Rows that carry `links`: its JSON text.
    pub links: BTreeMap<u32, Arc<str>>,
    /// Refused readings of known machines.
    pub markers: Vec<Marker>,
    /// Where the rows came from, ascending by `first_row`; the first has `first_row` 0. Not part of the encoding.
    pub spans: Vec<Span>,
}

/// How readings lie in the values of bus records (`bus.values`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Values {
    /// One JSON object each, under its machine as the key: any consumer of the contract reads it.
    #[default]
    Reading,
    /// JSON lines.
    Lines,
    /// Our binary batch: the smallest and quickest, and the only one that carries markers.
    Binary,
}

/// The bus record that a run of rows came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its first row.
    pub first_row: u32,
    /// Its offset in its partition.
    pub offset: i64,
    /// When it arrived, microseconds since 1970 UTC.
    pub arrived_us: i64,
    /// `http`, `simulate`, `file`, `mended`, or the topic.
    pub source: Arc<str>,
}

/// A refused reading whose machine is known (DOMAIN.md 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The machine.
    pub machine: MachineId,
    /// The channel that was refused, by id.
    pub channel: String,
    /// Why ([`crate::ErrorCode::as_str`]).
    pub code: String,
    /// Arrival, microseconds since 1970 UTC.
    pub arrived_us: i64,
    /// Its place in the value as received.
    pub index: u32,
    /// It stands before this row of the batch (the number of good rows that arrived before it).
    pub before_row: u32,
}

/// Quality of one value, two bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the words of DOMAIN.md 3")]
pub enum Quality {
    Good = 0,
    Uncertain = 1,
    Bad = 2,
    /// An optional channel that the reading lacks.
    Missing = 3,
}

impl Quality {
    /// The quality of a channel in a row's bits.
    pub fn of(bits: u128, channel: usize) -> Quality {
        match (bits >> (2 * channel)) & 3 {
            0 => Quality::Good,
            1 => Quality::Uncertain,
            2 => Quality::Bad,
            _ => Quality::Missing,
        }
    }

    /// This quality at a channel's place, to be or-ed into a row's bits.
    pub fn bits(self, channel: usize) -> u128 {
        (self as u128) << (2 * channel)
    }
}

/// What most readings lack: the columns that stay empty until a row fills them.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// One of the others is set, see [`Rare::settle`].
    pub(crate) any: bool,
    pub(crate) quality: u128,
    pub(crate) seq: Option<i64>,
    /// Per attribute of the class, [`ReadingBatch::NONE`] where absent.
    pub(crate) attributes: Vec<u8>,
    pub(crate) state: Option<u8>,
    pub(crate) links: Option<Arc<str>>,
}

impl Rare {
    /// Forgets everything; the class has so many attributes.
    pub(crate) fn clear(&mut self, attributes: usize) {
        self.any = false;
        self.quality = 0;
        self.seq = None;
        self.attributes.clear();
        self.attributes.resize(attributes, ReadingBatch::NONE);
        self.state = None;
        self.links = None;
    }

    /// Notes whether anything is set.
    pub(crate) fn settle(&mut self) {
        self.any = self.quality != 0
            || self.seq.is_some()
            || self.state.is_some()
            || self.links.is_some()
            || self.attributes.iter().any(|word| *word != ReadingBatch::NONE);
    }
}

/// Adds a row's entry to a column that is empty as long as all rows have `absent`.
fn fill<T: Copy + PartialEq>(column: &mut Vec<T>, row: usize, absent: T, value: T) {
    if value != absent || !column.is_empty() {
        column.resize(row, absent);
        column.push(value);
    }
}

impl ReadingBatch {
    /// No value, in the byte columns.
    pub const NONE: u8 = 255;

    /// An empty batch of a class.
    pub fn new(class: Arc<Class>) -> ReadingBatch {
        ReadingBatch {
            machines: Vec::new(),
            machine: Vec::new(),
            timestamp_us: Vec::new(),
            index: Vec::new(),
            values: vec![Vec::new(); class.channels.len()],
            quality: Vec::new(),
            seq: Vec::new(),
            attributes: vec![Vec::new(); class.attributes.len()],
            state: Vec::new(),
            links: BTreeMap::new(),
            markers: Vec::new(),
            spans: Vec::new(),
            class,
        }
    }

    /// Makes room for so many further rows.
    pub fn reserve(&mut self, rows: usize) {
        self.machine.reserve_exact(rows);
        self.timestamp_us.reserve_exact(rows);
        self.index.reserve_exact(rows);
        self.values.iter_mut().for_each(|values| values.reserve_exact(rows));
    }

    /// Fills the columns that most batches do not need for the last row; every row after the first that is not bare must
    /// come through here.
    pub(crate) fn fill_rare(&mut self, rare: &Rare) {
        let row = self.rows() - 1;
        fill(&mut self.quality, row, 0, rare.quality);
        fill(&mut self.seq, row, None, rare.seq);
        fill(&mut self.state, row, ReadingBatch::NONE, rare.state.unwrap_or(ReadingBatch::NONE));
        for (column, word) in self.attributes.iter_mut().zip(&rare.attributes) {
            fill(column, row, ReadingBatch::NONE, *word);
        }
        if let Some(links) = &rare.links {
            self.links.insert(row as u32, links.clone());
        }
    }

    /// The values of the records that carry this batch, each with its readings and, where it is one, its machine.
    pub fn to_values(&self, values: Values) -> Vec<(Option<MachineId>, u32, Vec<u8>)> {
        let rows = self.rows() as u32;
        let json = |row: usize| {
            let mut text = String::new();
            self.write_json(row, Some(&self.class.id), &mut text);
            text
        };
        match values {
            Values::Binary => {
                let mut value = Vec::with_capacity(self.rows() * BYTES_PER_ROW + 512);
                self.encode(&mut value);
                vec![(None, rows, value)]
            }
            Values::Lines if rows == 0 => Vec::new(),
            Values::Lines => {
                let lines: Vec<String> = (0..self.rows()).map(json).collect();
                vec![(None, rows, lines.join("\n").into_bytes())]
            }
            Values::Reading => {
                (0..self.rows()).map(|row| (Some(self.machine_of(row).clone()), 1, json(row).into_bytes())).collect()
            }
        }
    }

    /// Number of readings.
    pub fn rows(&self) -> usize {
        self.timestamp_us.len()
    }

    /// The machine of a row.
    pub fn machine_of(&self, row: usize) -> &MachineId {
        &self.machines[self.machine[row] as usize]
    }

    /// The quality bits of a row.
    pub fn quality_of(&self, row: usize) -> u128 {
        self.quality.get(row).copied().unwrap_or(0)
    }

    /// The device sequence number of a row.
    pub fn seq_of(&self, row: usize) -> Option<i64> {
        self.seq.get(row).copied().flatten()
    }

    /// The bus records that the rows came in, in order, each with its rows.
    pub fn records(&self) -> impl Iterator<Item = (&Span, Range<usize>)> {
        let ends = self.spans.iter().skip(1).map(|next| next.first_row as usize).chain([self.rows()]);
        self.spans.iter().zip(ends).map(|(span, end)| (span, span.first_row as usize..end))
    }

    /// The bus record of a row. Batches that were not read from a bus have none.
    pub fn span_of(&self, row: usize) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.first_row as usize <= row);
        after.checked_sub(1).map(|at| &self.spans[at])
    }
}
