//! A machine's readings, newest first, from memory and chunks.
//!
//! The order is (event time, partition, offset, index), all descending: a place in it is a cursor that no flush moves.

use super::{
    Error, Inner, LogRow, Page, Sqlite,
    chunk::{self, Rows, Sought},
    memory::Segment,
};
use catalog::{Catalogue, MachineId};
use rusqlite::Connection;
use std::cmp::Reverse;

/// Event time, partition, offset, index.
type Key = (i64, u16, i64, u32);

/// Where a page ended, and next offset per partition when paging began: what came later is left out.
#[derive(Clone)]
struct Cursor {
    last: Key,
    as_of: Vec<i64>,
}

impl Cursor {
    fn text(&self) -> String {
        let ((time, partition, offset, index), as_of) = (self.last, &self.as_of);
        as_of.iter().fold(format!("l{time}.{partition}.{offset}.{index}"), |text, offset| format!("{text}.{offset}"))
    }

    fn parse(text: &str, partitions: usize) -> Option<Cursor> {
        let mut words = text.strip_prefix('l')?.split('.');
        let mut next = || words.next();
        let last = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let as_of = words.map(|word| word.parse().ok()).collect::<Option<Vec<i64>>>()?;
        let cursor = Cursor { last, as_of };
        // `+1` and `01` read as numbers too; only what was written by `text` is a cursor.
        (cursor.as_of.len() == partitions && cursor.text() == text).then_some(cursor)
    }
}

/// Where a machine's readings lie in the file: its number in a partition, and the position below which chunks count.
pub(super) struct OnDisk {
    pub(super) partition: u16,
    pub(super) number: u32,
    pub(super) below: i64,
}

impl Inner {
    /// Shows a machine's rows in memory, and says where the others lie. Whoever reads the file after this sees each row
    /// once: what is flushed in between lies at or above `below`, though in a chunk that was merged from both sides of it.
    pub(super) fn in_memory(&self, machine: &str, mut show: impl FnMut(u16, &Segment, u32)) -> Vec<OnDisk> {
        let mut on_disk = Vec::new();
        for (partition, shard) in (0..).zip(&self.partitions) {
            let state = shard.state();
            let Some(number) = state.number_of(machine) else { continue };
            state.segments().for_each(|segment| show(partition, segment, number));
            on_disk.push(OnDisk { partition, number, below: state.flushed() });
        }
        on_disk
    }
}

impl Sqlite {
    pub(in crate::history) async fn logs(
        &self,
        machine: &MachineId,
        from_us: i64,
        to_us: i64,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<LogRow>, Error> {
        let inner = &*self.inner;
        let limit = limit.clamp(1, 1_000);
        let cursor = cursor.map(|text| Cursor::parse(text, inner.partitions.len()).ok_or(Error::Cursor)).transpose()?;
        let as_of = cursor.as_ref().map_or_else(|| self.appended(), |cursor| cursor.as_of.clone());
        let mut found = Found {
            from_us,
            below: cursor.map_or((to_us, 0, i64::MIN, 0), |cursor| cursor.last.min((to_us, 0, i64::MIN, 0))),
            as_of,
            limit: limit + 1,
            rows: Vec::new(),
        };
        let on_disk = inner.in_memory(machine, |partition, segment, number| found.take(partition, segment, number));
        found.trim();
        let catalogue = inner.catalogue();
        let mut found = inner.read(move |connection| found.read(connection, &catalogue, &on_disk)).await?;
        let more = found.rows.len() > limit;
        found.rows.truncate(limit);
        let last = found.rows.last().filter(|_| more).map(|(key, _)| *key);
        let next_cursor = last.map(|last| Cursor { last, as_of: found.as_of }.text());
        Ok(Page { rows: found.rows.into_iter().map(|(_, row)| row).collect(), next_cursor })
    }
}

/// The newest rows so far of a range.
struct Found {
    from_us: i64,
    /// Keys lie below this.
    below: Key,
    as_of: Vec<i64>,
    limit: usize,
    rows: Vec<(Key, LogRow)>,
}

impl Found {
    fn wants(&self, key: Key) -> bool {
        key.0 >= self.from_us && key < self.below && key.2 < self.as_of[usize::from(key.1)]
    }

    /// Takes a machine's newest rows of a segment.
    fn take(&mut self, partition: u16, segment: &Segment, number: u32) {
        let key =
            |row: usize| (segment.rows.timestamp_us[row], partition, segment.offset_of(row), segment.rows.index[row]);
        let rows = segment.rows_of(number).map(|row| (key(row), row)).filter(|(key, _)| self.wants(*key));
        let mut rows: Vec<(Key, usize)> = rows.collect();
        rows.sort_unstable_by_key(|(key, _)| Reverse(*key));
        rows.truncate(self.limit);
        self.rows.extend(rows.into_iter().map(|(key, row)| {
            let record = (segment.offset_of(row), segment.arrived_of(row));
            (key, chunk::log_row(&segment.rows, row, segment.flags[row], partition, record))
        }));
    }

    fn trim(&mut self) {
        self.rows.sort_unstable_by_key(|(key, _)| Reverse(*key));
        self.rows.truncate(self.limit);
    }

    /// Adds what lies in the file.
    fn read(mut self, connection: &Connection, catalogue: &Catalogue, on_disk: &[OnDisk]) -> Result<Found, Error> {
        for OnDisk { partition, number, below } in on_disk {
            let times = (self.from_us, self.below.0);
            let sought = Sought { partition: *partition, machines: (*number, *number), times, below: *below };
            for candidate in chunk::candidates(connection, &sought)? {
                // Candidates come newest first: the rest holds nothing that is newer than a full page.
                let full = self.rows.get(self.limit - 1);
                if full.is_some_and(|((oldest, ..), _)| *oldest > candidate.max_time) {
                    break;
                }
                let Some(directory) = chunk::directory(connection, candidate.id)? else { continue };
                let runs: Vec<_> = directory
                    .runs
                    .iter()
                    .filter(|run| run.number == *number && run.max_time >= times.0 && run.min_time <= times.1)
                    .collect();
                if runs.is_empty() {
                    continue;
                }
                let Some(rows) = chunk::rows(connection, candidate.id, catalogue)? else { continue };
                for run in runs {
                    let range = run.first_row as usize..(run.first_row + run.rows) as usize;
                    let below = if candidate.below { i64::MAX } else { *below };
                    self.take_from(*partition, &rows, range, below);
                }
                self.trim();
            }
        }
        Ok(self)
    }

    fn take_from(&mut self, partition: u16, rows: &Rows, range: std::ops::Range<usize>, below: i64) {
        for row in range {
            let key = (rows.batch.timestamp_us[row], partition, rows.record_of(row).0, rows.batch.index[row]);
            if key.2 < below && self.wants(key) {
                self.rows.push((key, rows.log_row(partition, row)));
            }
        }
    }
}
