//! Bus records as the tests write them, and the batches that an engine is given of them.

use catalog::{Class, MachineId};
use std::sync::Arc;
use wire::{Marker, ReadingBatch, Span};

/// One reading, in scaled integers.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub machine: MachineId,
    pub timestamp_us: i64,
    pub values: Vec<i64>,
    pub quality: u128,
    pub seq: Option<i64>,
    /// By attribute of the class.
    pub attributes: Vec<u8>,
    pub state: u8,
    /// JSON text.
    pub links: Option<&'static str>,
}

/// One record of the bus.
#[derive(Debug, Clone)]
pub struct Record {
    pub class: Arc<Class>,
    pub offset: i64,
    pub arrived_us: i64,
    pub rows: Vec<Row>,
    /// Refused readings: (rows before it, machine, channel).
    pub refused: Vec<(u32, MachineId, String)>,
}

impl Record {
    /// A refused reading stands behind the last row: in a longer batch it would seem to belong to the next record.
    pub fn ends_refused(&self) -> bool {
        self.rows.is_empty() || self.refused.iter().any(|(before, ..)| *before as usize == self.rows.len())
    }
}

/// One batch of records that follow each other, all of one class.
pub fn batch(records: &[&Record]) -> ReadingBatch {
    let class = &records[0].class;
    let mut batch = ReadingBatch::new(class.clone());
    let rows = || records.iter().flat_map(|record| &record.rows);
    let has_quality = rows().any(|row| row.quality != 0);
    let has_seq = rows().any(|row| row.seq.is_some());
    let has_state = rows().any(|row| row.state != ReadingBatch::NONE);
    let has_attribute: Vec<bool> =
        (0..class.attributes.len()).map(|at| rows().any(|row| row.attributes[at] != ReadingBatch::NONE)).collect();
    for record in records {
        assert!(Arc::ptr_eq(class, &record.class), "a batch holds one class");
        let first_row = batch.rows() as u32;
        batch.spans.push(Span {
            first_row,
            offset: record.offset,
            arrived_us: record.arrived_us,
            source: "http".into(),
        });
        let mut index = 0;
        let mut refused = record.refused.iter().peekable();
        let mut markers = |before: u32, index: &mut u32, batch: &mut ReadingBatch| {
            while let Some((_, machine, channel)) = refused.next_if(|(at, ..)| *at == before) {
                batch.markers.push(Marker {
                    machine: machine.clone(),
                    channel: channel.clone(),
                    code: "out_of_range".into(),
                    arrived_us: record.arrived_us,
                    index: *index,
                    before_row: first_row + before,
                });
                *index += 1;
            }
        };
        for (nth, row) in (0..).zip(&record.rows) {
            markers(nth, &mut index, &mut batch);
            let at = batch.machines.iter().position(|machine| *machine == row.machine).unwrap_or_else(|| {
                batch.machines.push(row.machine.clone());
                batch.machines.len() - 1
            });
            batch.machine.push(at as u32);
            batch.timestamp_us.push(row.timestamp_us);
            batch.index.push(index);
            index += 1;
            batch.values.iter_mut().zip(&row.values).for_each(|(column, value)| column.push(*value));
            if let Some(links) = row.links {
                batch.links.insert(batch.rows() as u32 - 1, links.into());
            }
            if has_quality {
                batch.quality.push(row.quality);
            }
            if has_seq {
                batch.seq.push(row.seq);
            }
            if has_state {
                batch.state.push(row.state);
            }
            for (at, column) in batch.attributes.iter_mut().enumerate().filter(|(at, _)| has_attribute[*at]) {
                column.push(row.attributes[at]);
            }
        }
        markers(record.rows.len() as u32, &mut index, &mut batch);
    }
    batch
}
