//! Topics, partitions, offsets, bytes. A reading is only bytes here.
//!
//! [`Bus`] is an enum of what can carry it; embedded it is SQLite, one row per batch, group commit, `synchronous=FULL`.
//! Positions are not kept here: they live in the database of each consumer's effects.

mod sqlite;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// What carries readings from the door to the services.
#[derive(Clone)]
pub enum Bus {
    /// `bus.db` inside one process.
    Sqlite(sqlite::SqliteBus),
}

/// How a bus is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// File of the embedded bus.
    pub path: PathBuf,
    /// Partitions of `sensor-raw-data`.
    pub partitions: u16,
    /// Records older than this may be dropped, microseconds of arrival.
    pub retention_us: i64,
    /// Oldest records may be dropped above this size; above it with nothing to drop the bus is full.
    pub retention_bytes: u64,
}

/// A record to send.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Outgoing {
    pub partition: u16,
    pub arrived_us: i64,
    pub source: Arc<str>,
    /// Readings in the value, for lag and retention figures.
    pub rows: u32,
    pub value: Vec<u8>,
}

/// A record as it lies on the bus.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Record {
    pub partition: u16,
    pub offset: i64,
    pub arrived_us: i64,
    pub source: Arc<str>,
    pub rows: u32,
    pub value: Arc<[u8]>,
}

/// Why the bus did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("the bus is full: {used} of {limit} bytes hold records that a consumer still needs")]
    Full { used: u64, limit: u64 },
    #[error("too much waits to be written to the bus")]
    Busy,
    #[error("partition {partition} ends at {end}, below the position {position}: the log was cut or made anew")]
    Truncated { partition: u16, end: i64, position: i64 },
    #[error("partition {partition} begins at {begin}, above the position {position}: records are gone")]
    Gap { partition: u16, begin: i64, position: i64 },
    #[error("the bus is closed")]
    Closed,
    #[error("bus.db is in use by another process: bus.lock beside it is held")]
    Locked,
    #[error("bus.lock")]
    Lock(#[source] std::io::Error),
    #[error("bus.db is another program's database")]
    NotOurs,
    #[error("bus.db: this release knows schema {known}, the file has {found}")]
    Schema { known: u32, found: u32 },
    #[error("bus.db has {found} partitions, not {wanted}: their number is fixed when the file is made")]
    Partitions { found: usize, wanted: usize },
    #[error("bus.db")]
    Sqlite(#[from] rusqlite::Error),
    #[error("bus.db: commit")]
    Commit(#[source] Arc<rusqlite::Error>),
}

impl Bus {
    /// Opens the bus; makes it when there is none. One process at a time has it open.
    ///
    /// # Errors
    /// [`Error::Locked`]; the file cannot be opened, or is not ours.
    pub fn open(options: Options) -> Result<Bus, Error> {
        Ok(Bus::Sqlite(sqlite::SqliteBus::open(&options)?))
    }

    /// Sends records; when it returns they are durable, and these are their offsets, in order. All or none. What was
    /// accepted is written even when the caller no longer waits.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Busy`] and [`Error::Commit`]: try again later; nothing was written.
    pub async fn send(&self, records: Vec<Outgoing>) -> Result<Vec<i64>, Error> {
        match self {
            Bus::Sqlite(bus) => bus.send(records).await,
        }
    }

    /// A consumer of all partitions that starts at these offsets (one a partition).
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Gap`].
    pub fn consumer(&self, start: &[i64]) -> Result<Consumer, Error> {
        match self {
            Bus::Sqlite(bus) => Ok(Consumer(Log::Sqlite(bus.consumer(start)?))),
        }
    }

    /// Next offset to be written, per partition.
    pub fn ends(&self) -> Vec<i64> {
        match self {
            Bus::Sqlite(bus) => bus.ends(),
        }
    }

    /// First offset that is there, per partition.
    pub fn begins(&self) -> Vec<i64> {
        match self {
            Bus::Sqlite(bus) => bus.begins(),
        }
    }

    /// Readings at and above these offsets (one a partition), by source.
    ///
    /// # Errors
    /// The bus cannot be read.
    pub fn rows_from(&self, offsets: &[i64]) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        match self {
            Bus::Sqlite(bus) => bus.rows_from(offsets),
        }
    }

    /// Keeps every record at and above these offsets until the same holder says otherwise. Holds live as long as the
    /// process: each holder names its own before the first `send` after a start. Without any hold nothing is dropped.
    pub fn hold(&self, holder: &'static str, from: &[i64]) {
        match self {
            Bus::Sqlite(bus) => bus.hold(holder, from),
        }
    }

    /// Bytes on the bus, and the limit.
    pub fn used(&self) -> (u64, u64) {
        match self {
            Bus::Sqlite(bus) => bus.used(),
        }
    }

    /// Finishes what was accepted, checkpoints, closes the file.
    pub async fn close(&self) {
        match self {
            Bus::Sqlite(bus) => bus.close().await,
        }
    }
}

/// Reads records in order of offset per partition, fair between partitions.
pub struct Consumer(Log);

enum Log {
    Sqlite(sqlite::SqliteConsumer),
}

impl Consumer {
    /// The next records, at least one, at most `bytes` of values unless the first alone is larger; waits for them.
    /// Records of one partition stand together in order of offset. Cancel-safe: nothing is taken when it is dropped.
    ///
    /// # Errors
    /// The bus cannot be read or is closed; [`Error::Gap`]: no hold kept what comes next.
    pub async fn next(&mut self, bytes: usize) -> Result<Vec<Record>, Error> {
        match &mut self.0 {
            Log::Sqlite(consumer) => consumer.next(bytes).await,
        }
    }

    /// Nothing waits for this consumer.
    pub fn caught_up(&self) -> bool {
        match &self.0 {
            Log::Sqlite(consumer) => consumer.caught_up(),
        }
    }
}

#[cfg(test)]
mod tests;
