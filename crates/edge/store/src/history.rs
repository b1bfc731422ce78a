//! `history.db`: readings in compressed column chunks, the ledger, dead letters, and ingest's position.
//!
//! What was appended and is not yet flushed lies in memory and is answered from there; the bus is its log. One flush
//! writes everything of a partition up to a position, with that position, its counts and dead letters, in one transaction.

use catalog::{Catalogue, Class, MachineId};
use std::{path::Path, sync::Arc};
use wire::{Position, ReadingBatch, Reject};

/// The history of readings.
#[derive(Clone)]
pub struct History {}

/// Why the history did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("history.db")]
    Sqlite(#[from] rusqlite::Error),
    #[error("history.db: chunk {0} is damaged")]
    Damaged(i64),
    #[error("history.db: this release knows schema {known}, the file has {found}")]
    Schema { known: u32, found: u32 },
    #[error("cursor is not one of ours")]
    Cursor,
    #[error("the history is closed")]
    Closed,
}

/// When a flush happens on its own.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Options {
    pub partitions: u16,
    pub flush_bytes: usize,
    pub flush_after_us: i64,
    /// Newest arrival in a chunk older than this: dropped.
    pub retention_us: i64,
}

/// What was decided of a batch's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Appended {
    pub stored: u64,
    pub duplicate: u64,
    pub rejected: u64,
    pub late: u64,
    pub out_of_order: u64,
    pub ahead: u64,
}

/// Counts of one source: received = stored + rejected + duplicate.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct LedgerRow {
    pub source: String,
    pub received: u64,
    pub stored: u64,
    pub rejected: u64,
    pub duplicate: u64,
}

/// A stored reading, as `sensor_log` has it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "columns of SPEC.md 3.4")]
pub struct LogRow {
    pub class: Arc<Class>,
    pub timestamp_us: i64,
    pub values: Vec<i64>,
    pub quality: u128,
    pub seq: Option<i64>,
    /// 1 late, 2 out of order, 4 ahead.
    pub flags: u8,
    /// By attribute: index into its values, `ReadingBatch::NONE` where absent.
    pub attributes: Vec<u8>,
    pub position: Position,
    pub arrived_us: i64,
}

/// A page of something, newest first.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "said above")]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Opaque; `None` at the end. Pages neither skip nor repeat rows that were there when paging began.
    pub next_cursor: Option<String>,
}

/// A refused message.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "headers of GUARANTEES.md, dead letters")]
pub struct DeadLetter {
    /// UUIDv5 of (topic, partition, offset, index), at the HTTP door a UUIDv7.
    pub id: uuid::Uuid,
    pub code: String,
    pub error: String,
    pub payload: Vec<u8>,
    pub machine_id: Option<String>,
    pub source: String,
    /// `http` at the door, else the topic.
    pub topic: String,
    pub partition: Option<u16>,
    pub offset: Option<i64>,
    pub index: u32,
    pub arrived_us: i64,
    /// When a mended reading of it was accepted.
    pub replayed_us: Option<i64>,
}

/// One bucket of a chart: min, max, mean of a channel.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[expect(missing_docs, reason = "said above")]
pub struct Bucket {
    pub from_us: i64,
    pub count: u64,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
}

impl History {
    /// Opens or makes `history.db`; starts its writer. Chunks of classes in `catalogue` can be read.
    ///
    /// # Errors
    /// The file cannot be opened, is not ours or is of a later release.
    pub fn open(path: &Path, catalogue: Arc<Catalogue>, options: Options) -> Result<History, Error> {
        let _ = (path, catalogue, options);
        todo!()
    }

    /// Where ingest goes on: next offset per partition, as flushed.
    pub fn positions(&self) -> Vec<i64> {
        todo!()
    }

    /// Next offset to be appended per partition: what lies in memory is counted, so that `ends - these` is in flight.
    pub fn appended(&self) -> Vec<i64> {
        todo!()
    }

    /// Takes one record of one partition: its readings (each batch with its spans set), and what could not be decoded.
    /// Duplicates are found, readings placed (late, out of order, ahead), counted by source. Records at or above the
    /// position only, in order; `offset` is the record's. Waits while too much is unflushed.
    ///
    /// # Errors
    /// The file cannot be read (older duplicates are looked up there).
    pub async fn append(
        &self,
        partition: u16,
        offset: i64,
        source: &str,
        arrived_us: i64,
        batches: &[ReadingBatch],
        rejects: &[Reject],
    ) -> Result<Appended, Error> {
        let _ = (partition, offset, source, arrived_us, batches, rejects);
        todo!()
    }

    /// Writes everything that was appended; returns the positions that are durable then.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn flush(&self) -> Result<Vec<i64>, Error> {
        todo!()
    }

    /// Catalogue from an offset on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn switch(&self, catalogue: Arc<Catalogue>) -> Result<(), Error> {
        let _ = catalogue;
        todo!()
    }

    /// Counts per source, what is unflushed included.
    pub fn ledger(&self) -> Vec<LedgerRow> {
        todo!()
    }

    /// Writes refusals of the HTTP door and counts them (received and rejected), durable when it returns; their ids.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn refuse(&self, source: &str, arrived_us: i64, rejects: &[Reject]) -> Result<Vec<uuid::Uuid>, Error> {
        let _ = (source, arrived_us, rejects);
        todo!()
    }

    /// The class that a machine has, where it was seen.
    pub fn class_of(&self, machine: &str) -> Option<String> {
        let _ = machine;
        todo!()
    }

    /// Event time of a machine's newest stored reading.
    pub fn newest(&self, machine: &str) -> Option<i64> {
        let _ = machine;
        todo!()
    }

    /// Readings of a machine with `from_us <= timestamp < to_us`, newest first.
    ///
    /// # Errors
    /// The file cannot be read, or the cursor is not ours.
    pub async fn logs(
        &self,
        machine: &MachineId,
        from_us: i64,
        to_us: i64,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<LogRow>, Error> {
        let _ = (machine, from_us, to_us, limit, cursor);
        todo!()
    }

    /// A channel of a machine in at most `buckets` equal spans of time; no peak is lost. Empty spans are left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn chart(
        &self,
        machine: &MachineId,
        channel: &str,
        from_us: i64,
        to_us: i64,
        buckets: usize,
    ) -> Result<Vec<Bucket>, Error> {
        let _ = (machine, channel, from_us, to_us, buckets);
        todo!()
    }

    /// Dead letters, newest first.
    ///
    /// # Errors
    /// The file cannot be read, or the cursor is not ours.
    pub async fn dead_letters(&self, limit: usize, cursor: Option<&str>) -> Result<Page<DeadLetter>, Error> {
        let _ = (limit, cursor);
        todo!()
    }

    /// One dead letter.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn dead_letter(&self, id: uuid::Uuid) -> Result<Option<DeadLetter>, Error> {
        let _ = id;
        todo!()
    }

    /// Notes that a mended reading of a dead letter was accepted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn replayed(&self, id: uuid::Uuid, at_us: i64) -> Result<(), Error> {
        let _ = (id, at_us);
        todo!()
    }

    /// Flushes, checkpoints, closes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn close(&self) -> Result<(), Error> {
        todo!()
    }
}
