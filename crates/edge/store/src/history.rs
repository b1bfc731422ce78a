//! Readings, the ledger, dead letters, and ingest's position: in `history.db` (`sqlite`) or in PostgreSQL (`postgres`).
//!
//! A lot of records is judged under its partition's lock (`judge`, `partition`): `engine::Order` places each row, and rows older
//! than the allowed lateness are looked up in memory and where the history lies. Rows that are stored are copied, column
//! by column, behind those of their class (`memory`), until a flush or a commit writes everything of a partition up to a
//! position, with that position, its counts and dead letters, in one transaction. The bus is the log of that memory.
//!
//! The orders of machines are not saved: an identity is a row's own, so at a machine's first reading after a start its
//! order is rebuilt from its rows inside the lateness. Only its watermark is, in slabs of 256 machines, to find these.

mod judge;
mod letters;
mod machines;
mod memory;
mod partition;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use crate::Activation;
use catalog::{Catalogue, Class, MachineId};
use dependency::Dependency;
use postgres::Postgres;
use sqlite::Sqlite;
use std::{ops::Range, path::Path, sync::Arc};
use wire::{Position, ReadingBatch, Reject, Span};

/// The history of readings.
#[derive(Clone)]
pub enum History {
    /// A file of this process, which takes every partition. What is not written yet is answered from memory.
    Sqlite(Sqlite),
    /// A database that several processes share; each takes the partitions that are assigned to it. What is not committed
    /// is not answered.
    Postgres(Postgres),
}

/// Why the history did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("history.db")]
    Sqlite(#[from] rusqlite::Error),
    #[error("history.db: commit")]
    Commit(#[source] Arc<rusqlite::Error>),
    #[error("history.db: chunk {0} is damaged")]
    Damaged(i64),
    #[error("history.db: chunk {chunk} cannot be read under this catalogue")]
    Unreadable { chunk: i64, source: wire::BinaryError },
    #[error("partition {partition}: position is {found}, not {expected}: another ingest went on from here")]
    Fenced { partition: u16, expected: i64, found: i64 },
    #[error("history.db: this release knows schema {known}, the file has {found}")]
    Schema { known: u32, found: u32 },
    #[error("history.db is another program's database")]
    NotOurs,
    #[error("main database")]
    Postgres(#[from] crate::postgres::Error),
    #[error("main database: column {column} of {table} is {found} and cannot hold the channel: use a new class id")]
    Column { table: String, column: String, found: String },
    #[error("class {0} is not in the catalogue")]
    NoClass(String),
    #[error("partition {0} is not assigned to this process")]
    Unassigned(u16),
    #[error("cursor is not one of ours")]
    Cursor,
    #[error("a job of the history panicked")]
    Panicked,
    #[error("the history is closed")]
    Closed,
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Error {
        use crate::Error as Store;
        match error {
            Store::Sqlite(error) => Error::Sqlite(error),
            Store::Commit(error) => Error::Commit(error),
            Store::Fenced { partition, expected, found } => Error::Fenced { partition, expected, found },
            Store::Schema { known, found } => Error::Schema { known, found },
            Store::NotOurs => Error::NotOurs,
            Store::Cursor => Error::Cursor,
            Store::Closed => Error::Closed,
            // The jobs of the history name no damage of their own.
            Store::Damaged(_) | Store::Panicked | Store::Postgres(_) | Store::Overtaken => Error::Panicked,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Postgres(error.into())
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Error {
        Error::Postgres(error.into())
    }
}

/// When a flush happens on its own.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Options {
    pub partitions: u16,
    /// Of memory; in a file, appends wait at four times as much.
    pub flush_bytes: usize,
    /// In a file; in PostgreSQL whoever appends says when.
    pub flush_after_us: i64,
    /// Newest arrival in a chunk or a day's partition older than this: dropped.
    pub retention_us: i64,
    /// Dead letters that arrived longer ago: dropped.
    pub dead_letter_retention_us: i64,
}

/// Neighbouring records of a partition, decoded together.
#[derive(Debug)]
pub struct Lot<'a> {
    /// Their partition.
    pub partition: u16,
    /// The first one's offset, and the one after the last's.
    pub offsets: Range<i64>,
    /// Their readings, one batch of a class, which know their records.
    pub batches: &'a [ReadingBatch],
    /// What of them could not be decoded, by offset and index; of a span the rows mean nothing here.
    pub rejects: &'a [(Span, Reject)],
}

/// What became of a lot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// By source, each once.
    pub by_source: Vec<(Arc<str>, Appended)>,
    /// What could be decoded and is refused all the same, as its machine has another class: offset and message, by class.
    pub refused: Vec<(i64, Reject)>,
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

/// A machine whose readings lie on several partitions: each is judged alone, and no repeat is found across them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scattered {
    /// The machine.
    pub machine_id: String,
    /// Its partitions, that of its newest reading first.
    pub partitions: Vec<u16>,
    /// Event time of its newest reading on the first of them, and on the second.
    pub newest_us: (i64, i64),
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
    /// UUIDv5 of `topic|partition|offset|index` in the name space of alert ids, at the HTTP door a UUIDv7.
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

/// Which dead letters.
#[derive(Debug, Clone)]
pub struct LetterFilter {
    /// Of this source.
    pub source: Option<String>,
    /// Refused for this, see `wire::ErrorCode`.
    pub code: Option<String>,
    /// Arrival, inclusive.
    pub from_us: i64,
    /// Arrival, exclusive.
    pub to_us: i64,
}

impl Default for LetterFilter {
    fn default() -> LetterFilter {
        LetterFilter { source: None, code: None, from_us: i64::MIN, to_us: i64::MAX }
    }
}

impl LetterFilter {
    fn holds(&self, letter: &DeadLetter) -> bool {
        self.source.as_ref().is_none_or(|source| letter.source == *source)
            && self.code.as_ref().is_none_or(|code| letter.code == *code)
            && (self.from_us..self.to_us).contains(&letter.arrived_us)
    }
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
        Ok(History::Sqlite(Sqlite::open(path, catalogue, options)?))
    }

    /// Opens the main database, which is migrated where it must be; `service` is told to it as who asks, `database` says
    /// whether it is away. No partition is assigned yet.
    ///
    /// # Errors
    /// The database is not reachable, or cannot be migrated.
    pub async fn open_postgres(
        url: &str,
        service: &str,
        catalogue: Arc<Catalogue>,
        options: Options,
        database: &Dependency,
    ) -> Result<History, Error> {
        Ok(History::Postgres(Postgres::open(url, service, catalogue, options, database).await?))
    }

    /// Takes a partition, from the position that this returns on. What of it lay in memory is forgotten.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn assign(&self, partition: u16) -> Result<i64, Error> {
        match self {
            History::Sqlite(sqlite) => Ok(sqlite.appended()[usize::from(partition)]),
            History::Postgres(postgres) => postgres.assign(partition).await,
        }
    }

    /// Lets go of a partition; what was not committed is another's to take.
    pub async fn revoke(&self, partition: u16) {
        match self {
            History::Sqlite(_) => {}
            History::Postgres(postgres) => postgres.revoke(partition).await,
        }
    }

    /// Next offset per partition, as written.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn positions(&self) -> Result<Vec<i64>, Error> {
        match self {
            History::Sqlite(sqlite) => Ok(sqlite.positions()),
            History::Postgres(postgres) => postgres.positions().await,
        }
    }

    /// Next offset per partition as the ledger counts: a file's ledger knows what lies in memory, a database's does not.
    /// So `ends - these` is in flight.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn appended(&self) -> Result<Vec<i64>, Error> {
        match self {
            History::Sqlite(sqlite) => Ok(sqlite.appended()),
            History::Postgres(postgres) => postgres.positions().await,
        }
    }

    /// Takes a lot: duplicates are found, readings placed (late, out of order, ahead), counted by source. Lots of a
    /// partition come in order; one that lies below what was appended is in already. While too much is not written, a
    /// file's waits and a database's commits.
    ///
    /// # Errors
    /// The history cannot be read (older duplicates are looked up there): the same lot can be given again.
    /// [`Error::Fenced`]: another ingest went on from here; nothing more is written.
    ///
    /// # Panics
    /// The lot begins below what was appended and ends above it.
    pub async fn append(&self, lot: &Lot<'_>) -> Result<Taken, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.append(lot).await,
            History::Postgres(postgres) => postgres.append(lot).await,
        }
    }

    /// The end of a lot: a database writes everything that was appended, a file when its options say so.
    ///
    /// # Errors
    /// The database cannot be written: what was appended stays in memory, and the next commit tries again.
    /// [`Error::Fenced`]: another ingest went on from here; nothing was written. The other partitions can be committed
    /// once this one is revoked or assigned again.
    pub async fn commit(&self) -> Result<(), Error> {
        match self {
            History::Sqlite(_) => Ok(()),
            History::Postgres(postgres) => postgres.commit().await,
        }
    }

    /// Writes everything that was appended; returns the positions that are durable then.
    ///
    /// # Errors
    /// The history cannot be written: what was appended stays in memory, and the next flush tries again.
    /// [`Error::Fenced`]: another ingest went on from here; nothing was written.
    pub async fn flush(&self) -> Result<Vec<i64>, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.flush().await,
            History::Postgres(postgres) => {
                postgres.commit().await?;
                postgres.positions().await
            }
        }
    }

    /// Another catalogue is in force from the next record on. The next flush records it with the offset from which it
    /// is: what a crash takes before that is judged again, under the catalogue that the next start gives.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn switch(&self, catalogue: Arc<Catalogue>) -> Result<(), Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.switch(catalogue).await,
            History::Postgres(postgres) => {
                postgres.switch(catalogue).await;
                Ok(())
            }
        }
    }

    /// Under which catalogues the records of a partition were taken, by offset, as written.
    ///
    /// # Errors
    /// The history cannot be read.
    pub async fn activations(&self, partition: u16) -> Result<Vec<Activation>, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.activations(partition).await,
            History::Postgres(postgres) => postgres.activations(partition).await,
        }
    }

    /// Counts per source; see [`History::appended`].
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn ledger(&self) -> Result<Vec<LedgerRow>, Error> {
        match self {
            History::Sqlite(sqlite) => Ok(sqlite.ledger()),
            History::Postgres(postgres) => postgres.ledger().await,
        }
    }

    /// Writes refusals of the HTTP door and counts them (received and rejected), durable when it returns; their ids.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn refuse(&self, source: &str, arrived_us: i64, rejects: &[Reject]) -> Result<Vec<uuid::Uuid>, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.refuse(source, arrived_us, rejects).await,
            History::Postgres(postgres) => postgres.refuse(source, arrived_us, rejects).await,
        }
    }

    /// The class that a machine has, where it was seen; by another process, about a second after its first commit.
    pub fn class_of(&self, machine: &str) -> Option<String> {
        match self {
            History::Sqlite(sqlite) => sqlite.class_of(machine),
            History::Postgres(postgres) => postgres.class_of(machine),
        }
    }

    /// Event time of a machine's newest stored reading.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn newest(&self, machine: &str) -> Result<Option<i64>, Error> {
        match self {
            History::Sqlite(sqlite) => Ok(sqlite.newest(machine)),
            History::Postgres(postgres) => postgres.newest(machine).await,
        }
    }

    /// Machines whose readings were ever found on more than one partition, by id, at most a thousand. Whoever writes a
    /// file sends each machine to its own.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn scattered(&self) -> Result<Vec<Scattered>, Error> {
        match self {
            History::Sqlite(_) => Ok(Vec::new()),
            History::Postgres(postgres) => postgres.scattered().await,
        }
    }

    /// Readings of a machine with `from_us <= timestamp < to_us`, newest first.
    ///
    /// # Errors
    /// The history cannot be read, or the cursor is not ours.
    pub async fn logs(
        &self,
        machine: &MachineId,
        from_us: i64,
        to_us: i64,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<LogRow>, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.logs(machine, from_us, to_us, limit, cursor).await,
            History::Postgres(postgres) => postgres.logs(machine, from_us, to_us, limit, cursor).await,
        }
    }

    /// A channel of a machine in at most `buckets` equal spans of time; no peak is lost. Empty spans are left out.
    ///
    /// # Errors
    /// The history cannot be read.
    pub async fn chart(
        &self,
        machine: &MachineId,
        channel: &str,
        from_us: i64,
        to_us: i64,
        buckets: usize,
    ) -> Result<Vec<Bucket>, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.chart(machine, channel, from_us, to_us, buckets).await,
            History::Postgres(postgres) => postgres.chart(machine, channel, from_us, to_us, buckets).await,
        }
    }

    /// Dead letters, newest first.
    ///
    /// # Errors
    /// The history cannot be read, or the cursor is not ours.
    pub async fn dead_letters(
        &self,
        filter: &LetterFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DeadLetter>, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.dead_letters(filter, limit, cursor).await,
            History::Postgres(postgres) => postgres.dead_letters(filter, limit, cursor).await,
        }
    }

    /// One dead letter.
    ///
    /// # Errors
    /// The history cannot be read.
    pub async fn dead_letter(&self, id: uuid::Uuid) -> Result<Option<DeadLetter>, Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.dead_letter(id).await,
            History::Postgres(postgres) => postgres.dead_letter(id).await,
        }
    }

    /// Notes that a mended reading of a dead letter was accepted.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn replayed(&self, id: uuid::Uuid, at_us: i64) -> Result<(), Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.replayed(id, at_us).await,
            History::Postgres(postgres) => postgres.replayed(id, at_us).await,
        }
    }

    /// Flushes and closes.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn close(&self) -> Result<(), Error> {
        match self {
            History::Sqlite(sqlite) => sqlite.close().await,
            History::Postgres(postgres) => postgres.close().await,
        }
    }
}
