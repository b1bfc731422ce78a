//! The newest records of one partition, in memory.
//!
//! The values serve consumers that keep up, and go when every consumer has passed them or they take too much; source and
//! row count stay longer, so that lag is counted without the file.

use crate::Record;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Records whose source and row count are remembered, per partition.
const REMEMBERED: usize = 16_384;
/// What a record takes in memory beside its value.
const ENTRY_BYTES: usize = 64;

pub(super) struct Tail {
    /// Offsets `end - entries.len()..end`.
    entries: VecDeque<Entry>,
    end: i64,
    /// Entries at and above have their values.
    values_from: i64,
    values_bytes: usize,
    values_bytes_max: usize,
}

struct Entry {
    arrived_us: i64,
    source: Arc<str>,
    rows: u32,
    value: Option<Arc<[u8]>>,
}

impl Tail {
    /// Nothing is remembered of what ends here.
    pub(super) fn new(end: i64, values_bytes_max: usize) -> Tail {
        Tail { entries: VecDeque::new(), end, values_from: end, values_bytes: 0, values_bytes_max }
    }

    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Takes the record that follows.
    pub(super) fn push(&mut self, record: &Record) {
        debug_assert_eq!(record.offset, self.end);
        self.values_bytes += ENTRY_BYTES + record.value.len();
        self.entries.push_back(Entry {
            arrived_us: record.arrived_us,
            source: record.source.clone(),
            rows: record.rows,
            value: Some(record.value.clone()),
        });
        self.end += 1;
        while self.values_bytes > self.values_bytes_max {
            self.forget_values_below(self.values_from + 1);
        }
        if self.entries.len() > REMEMBERED {
            self.forget_below(self.first() + 1);
        }
    }

    pub(super) fn forget_values_below(&mut self, offset: i64) {
        let until = offset.min(self.end);
        while self.values_from < until {
            let index = (self.values_from - self.first()) as usize;
            if let Some(value) = self.entries[index].value.take() {
                self.values_bytes -= ENTRY_BYTES + value.len();
            }
            self.values_from += 1;
        }
    }

    pub(super) fn forget_below(&mut self, offset: i64) {
        self.forget_values_below(offset);
        while self.first() < offset.min(self.end) {
            self.entries.pop_front();
        }
    }

    /// Whether the record is here with its value.
    pub(super) fn has(&self, offset: i64) -> bool {
        (self.values_from..self.end).contains(&offset)
    }

    pub(super) fn get(&self, partition: u16, offset: i64) -> Option<Record> {
        let entry = self.entries.get(usize::try_from(offset - self.first()).ok()?)?;
        let Entry { arrived_us, source, rows, value } = entry;
        let (source, value) = (source.clone(), value.clone()?);
        let (arrived_us, rows) = (*arrived_us, *rows);
        Some(Record { partition, offset, arrived_us, source, rows, key: None, headers: Vec::new(), value })
    }

    /// Adds the rows at and above `from` by source; gives the first offset that is remembered.
    pub(super) fn add_rows(&self, from: i64, rows: &mut BTreeMap<Arc<str>, u64>) -> i64 {
        let skipped = usize::try_from(from - self.first()).unwrap_or(0);
        let mut entries = self.entries.iter().skip(skipped).peekable();
        while let Some(Entry { source, rows: first, .. }) = entries.next() {
            let mut sum = u64::from(*first);
            // Neighbours mostly share their source.
            while let Some(entry) = entries.next_if(|entry| entry.source == *source) {
                sum += u64::from(entry.rows);
            }
            *rows.entry(source.clone()).or_default() += sum;
        }
        self.first()
    }

    fn first(&self) -> i64 {
        self.end - self.entries.len() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, source: &str, len: usize) -> Record {
        let value = vec![7; len].into();
        let (source, headers) = (source.into(), Vec::new());
        Record { partition: 0, offset, arrived_us: 0, source, rows: 2, key: None, headers, value }
    }

    #[test]
    fn values_keep_to_their_bytes_and_rows_are_remembered_longer() {
        let mut tail = Tail::new(5, 10 * (ENTRY_BYTES + 100));
        for offset in 5..105 {
            tail.push(&record(offset, "http", 100));
        }
        assert!(!tail.has(94) && tail.has(95) && tail.has(104) && !tail.has(105));
        assert!(tail.get(0, 94).is_none() && tail.get(0, 4).is_none());
        assert_eq!(tail.get(0, 104).unwrap().value.len(), 100);
        let mut rows = BTreeMap::new();
        assert_eq!(tail.add_rows(0, &mut rows), 5);
        assert_eq!(rows["http"], 200);
        tail.forget_below(103);
        tail.push(&record(105, "file", 0));
        rows.clear();
        assert_eq!(tail.add_rows(104, &mut rows), 103);
        assert_eq!((rows["http"], rows["file"]), (2, 2));
        tail.forget_values_below(1000);
        assert_eq!(tail.values_bytes, 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut tail = Tail::new(0, usize::MAX);
        let records = REMEMBERED as i64 + 10;
        (0..records).for_each(|offset| tail.push(&record(offset, "http", 1)));
        let mut rows = BTreeMap::new();
        assert_eq!(tail.add_rows(0, &mut rows), 10);
        assert_eq!(rows["http"], 2 * REMEMBERED as u64);
        assert_eq!(tail.values_bytes, REMEMBERED * (ENTRY_BYTES + 1));
    }
}
