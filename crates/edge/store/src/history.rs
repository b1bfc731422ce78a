//! `history.db`: readings in compressed column chunks, the ledger, dead letters, and ingest's position.
//!
//! What was appended and is not yet flushed lies in memory and is answered from there; the bus is its log. One flush
//! writes everything of a partition up to a position, with that position, its counts and dead letters, in one transaction.
//!
//! A record is judged under its partition's lock (`partition`): `engine::Order` places each row, and rows older than the
//! allowed lateness are looked up in memory and in the chunks of their time (`append`). Stored rows are copied, column by
//! column, behind those of their class (`memory`). A flush takes that memory away, sorts it by machine and time and
//! cuts it into chunks (`chunk`) with statistics for each machine and 10 s (`directory`), while appends fill the next
//! (`flush`); later, in quiet moments, chunks of many flushes become one for each machine (`merge`). Readers take memory
//! first and the file after it, as of one moment, and leave out of the file what they had from memory.
//!
//! The orders of machines are not saved: an identity is a row's own, so at a machine's first reading after a start its
//! order is rebuilt from its rows inside the lateness. Only its watermark is, in slabs of 256 machines, to find these.
//!
//! Memory: at most four times `flush_bytes` before appends wait, and per machine its name, its order (what lies inside the
//! lateness and ahead of it) and about 150 bytes.

mod activations;
mod append;
mod chart;
mod chunk;
mod directory;
mod flush;
mod letters;
mod logs;
mod machines;
mod memory;
mod merge;
mod partition;
mod schema;
#[cfg(test)]
mod tests;

use crate::store::writer::{Database, open_writer};
use append::Pending;
use catalog::{Catalogue, Class, MachineId};
use flush::Request;
use machines::Machines;
use memory::Counts;
use partition::Partition;
use rusqlite::{Connection, params};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, mpsc};
use wire::{Position, READINGS_TOPIC, ReadingBatch, Reject};

/// The history of readings.
#[derive(Clone)]
pub struct History {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    database: Arc<Database>,
    catalogue: RwLock<Arc<Catalogue>>,
    partitions: Vec<Shard>,
    machines: Machines,
    /// Totals by source, what is unflushed included.
    ledger: Arc<Mutex<BTreeMap<Arc<str>, Counts>>>,
    /// Bytes in memory that no flush has taken yet, and those that one is writing.
    active_bytes: AtomicUsize,
    frozen_bytes: AtomicUsize,
    /// A flush let go of memory.
    freed: Notify,
    requests: mpsc::UnboundedSender<Request>,
    /// The flusher was told that something, or enough, waits for it.
    told_dirty: AtomicBool,
    told_full: AtomicBool,
    closed: AtomicBool,
    /// Somebody else moved a position: (partition, expected, found).
    fenced: OnceLock<(u16, i64, i64)>,
}

struct Shard {
    /// Held while a record is appended.
    appending: tokio::sync::Mutex<Option<Pending>>,
    state: Mutex<Partition>,
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
            Store::Damaged(_) | Store::Panicked => Error::Panicked,
        }
    }
}

/// When a flush happens on its own.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Options {
    pub partitions: u16,
    /// Of memory; appends wait at four times as much.
    pub flush_bytes: usize,
    pub flush_after_us: i64,
    /// Newest arrival in a chunk older than this: dropped.
    pub retention_us: i64,
    /// Dead letters that arrived longer ago: dropped.
    pub dead_letter_retention_us: i64,
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
        let mut connection = open_writer(path)?;
        schema::migrate(&mut connection)?;
        let (positions, ledger) = (read_positions(&connection, options.partitions)?, read_ledger(&connection)?);
        let machines = Machines::new();
        let mut partitions = Vec::new();
        for (number, position) in (0..).zip(positions) {
            let mut partition = Partition::new(number, position);
            read_machines(&connection, &mut partition, &machines)?;
            if last_catalogue(&connection, number)?.as_deref() != Some(catalogue.hash()) {
                partition.active.activations.push((position, catalogue.hash().to_owned()));
            }
            partitions.push(Shard { appending: tokio::sync::Mutex::default(), state: Mutex::new(partition) });
        }
        let (requests, receiver) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            options,
            database: Arc::new(Database::start(path, connection)),
            catalogue: RwLock::new(catalogue),
            partitions,
            machines,
            ledger: Arc::new(Mutex::new(ledger)),
            active_bytes: AtomicUsize::new(0),
            frozen_bytes: AtomicUsize::new(0),
            freed: Notify::new(),
            requests,
            told_dirty: AtomicBool::new(false),
            told_full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            fenced: OnceLock::new(),
        });
        flush::start(&inner, receiver);
        Ok(History { inner })
    }

    /// Where ingest goes on: next offset per partition, as flushed.
    pub fn positions(&self) -> Vec<i64> {
        self.inner.each(Partition::flushed)
    }

    /// Next offset to be appended per partition: what lies in memory is counted, so that `ends - these` is in flight.
    pub fn appended(&self) -> Vec<i64> {
        self.inner.each(Partition::appended)
    }

    /// Takes one record of one partition: its readings (each batch with its spans set), and what could not be decoded.
    /// Duplicates are found, readings placed (late, out of order, ahead), counted by source. Records at or above the
    /// position only, in order; `offset` is the record's. Waits while too much is unflushed.
    ///
    /// # Errors
    /// The file cannot be read (older duplicates are looked up there): the same record can be given again.
    /// [`Error::Fenced`]: another ingest went on from here; nothing more is written.
    pub async fn append(
        &self,
        partition: u16,
        offset: i64,
        source: &str,
        arrived_us: i64,
        batches: &[ReadingBatch],
        rejects: &[Reject],
    ) -> Result<Appended, Error> {
        self.append_record(partition, offset, source, arrived_us, batches, rejects).await
    }

    /// Writes everything that was appended; returns the positions that are durable then.
    ///
    /// # Errors
    /// The file cannot be written: what was appended stays in memory, and the next flush tries again.
    /// [`Error::Fenced`]: another ingest went on from here; nothing was written, and nothing will be.
    pub async fn flush(&self) -> Result<Vec<i64>, Error> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.inner.ask_for_flush().await?;
        Ok(self.positions())
    }

    /// Another catalogue is in force from the next record on. The next flush records it with the offset from which it
    /// is: what a crash takes before that is judged again, under the catalogue that the next start gives.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn switch(&self, catalogue: Arc<Catalogue>) -> Result<(), Error> {
        let before = std::mem::replace(&mut *self.inner.catalogue.write().expect("never poisoned"), catalogue.clone());
        if before.hash() == catalogue.hash() {
            return Ok(());
        }
        for shard in &self.inner.partitions {
            // Between two records.
            let _appending = shard.appending.lock().await;
            let mut partition = shard.state.lock().expect("never poisoned");
            partition.change_lateness(&before, &catalogue);
            let from = partition.appended();
            partition.active.activations.push((from, catalogue.hash().to_owned()));
        }
        self.inner.tell_dirty();
        Ok(())
    }

    /// Counts per source, what is unflushed included.
    pub fn ledger(&self) -> Vec<LedgerRow> {
        let ledger = self.inner.ledger.lock().expect("never poisoned");
        let row = |(source, counts): (&Arc<str>, &Counts)| LedgerRow {
            source: source.to_string(),
            received: counts.received,
            stored: counts.stored,
            rejected: counts.rejected,
            duplicate: counts.duplicate,
        };
        ledger.iter().map(row).collect()
    }

    /// Writes refusals of the HTTP door and counts them (received and rejected), durable when it returns; their ids.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn refuse(&self, source: &str, arrived_us: i64, rejects: &[Reject]) -> Result<Vec<uuid::Uuid>, Error> {
        self.write_refusals(source, arrived_us, rejects).await
    }

    /// The class that a machine has, where it was seen.
    pub fn class_of(&self, machine: &str) -> Option<String> {
        self.inner.machines.class_of(machine)
    }

    /// Event time of a machine's newest stored reading.
    pub fn newest(&self, machine: &str) -> Option<i64> {
        self.inner.machines.newest(machine)
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
        self.page_of_logs(machine, from_us, to_us, limit, cursor).await
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
        self.chart_of(machine, channel, from_us, to_us, buckets).await
    }

    /// Dead letters, newest first.
    ///
    /// # Errors
    /// The file cannot be read, or the cursor is not ours.
    pub async fn dead_letters(
        &self,
        filter: &LetterFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DeadLetter>, Error> {
        self.page_of_letters(filter, limit, cursor).await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn dead_letter(&self, id: uuid::Uuid) -> Result<Option<DeadLetter>, Error> {
        self.letter_of(id).await
    }

    /// Notes that a mended reading of a dead letter was accepted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn replayed(&self, id: uuid::Uuid, at_us: i64) -> Result<(), Error> {
        self.note_replayed(id, at_us).await
    }

    /// Flushes, checkpoints, closes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn close(&self) -> Result<(), Error> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.inner.freed.notify_waiters();
        let flushed = self.inner.ask_for_flush().await;
        let database = self.inner.database.clone();
        // The writer may be in the middle of an fsync.
        let _ = tokio::task::spawn_blocking(move || database.close()).await;
        flushed
    }
}

impl Inner {
    fn each<T>(&self, of: impl Fn(&Partition) -> T) -> Vec<T> {
        self.partitions.iter().map(|shard| of(&shard.state.lock().expect("never poisoned"))).collect()
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().expect("never poisoned").clone()
    }

    /// Reads in a blocking thread, as of one moment: a merge replaces chunks by others.
    async fn read<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let job = move |connection: &Connection| {
            // It only reads, and ends with the job.
            let moment = connection.unchecked_transaction()?;
            Ok(job(&moment))
        };
        self.database.clone().read(job).await?
    }
}

fn read_positions(connection: &Connection, partitions: u16) -> Result<Vec<i64>, Error> {
    let mut insert = connection.prepare(
        "insert into consumer_offset (topic, partition, next_offset) values (?1, ?2, 0) on conflict do nothing",
    )?;
    let mut select =
        connection.prepare("select next_offset from consumer_offset where topic = ?1 and partition = ?2")?;
    let mut positions = Vec::new();
    for partition in 0..partitions {
        insert.execute(params![READINGS_TOPIC, partition])?;
        positions.push(select.query_row(params![READINGS_TOPIC, partition], |row| row.get(0))?);
    }
    Ok(positions)
}

fn read_ledger(connection: &Connection) -> Result<BTreeMap<Arc<str>, Counts>, Error> {
    let mut query = connection.prepare("select source, received, stored, rejected, duplicate from ledger")?;
    let rows = query.query_map([], |row| {
        let source: String = row.get(0)?;
        let count = |at: usize| row.get(at).map(i64::cast_unsigned);
        let (received, stored) = (count(1)?, count(2)?);
        Ok((source.into(), Counts { received, stored, rejected: count(3)?, duplicate: count(4)? }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_machines(connection: &Connection, partition: &mut Partition, machines: &Machines) -> Result<(), Error> {
    let mut query = connection.prepare("select bytes from newest where partition = ?1 order by slab")?;
    let slabs = query.query_map([partition.number], |row| row.get::<_, Vec<u8>>(0))?.collect::<Result<Vec<_>, _>>()?;
    let mut newest = slabs.iter().flat_map(|bytes| partition::read_newest(bytes));
    let mut query = connection.prepare("select machine_id, class from machine where partition = ?1 order by number")?;
    let mut rows = query.query([partition.number])?;
    while let Some(row) = rows.next()? {
        let (name, class): (String, String) = (row.get(0)?, row.get(1)?);
        let id = MachineId::try_from(&*name).map_err(|_| Error::NotOurs)?;
        let known = machines.enter(&id, &class);
        let (watermark_us, newest_us) = newest.next().unwrap_or((i64::MIN, i64::MIN));
        partition.restore(id, known, watermark_us, newest_us);
    }
    Ok(())
}

fn last_catalogue(connection: &Connection, partition: u16) -> Result<Option<String>, Error> {
    use rusqlite::OptionalExtension;
    let mut query = connection.prepare(
        "select catalogue_hash from activation where topic = ?1 and partition = ?2 order by from_offset desc limit 1",
    )?;
    Ok(query.query_row(params![READINGS_TOPIC, partition], |row| row.get(0)).optional()?)
}
