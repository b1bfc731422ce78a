//! `history.db`: readings in compressed column chunks, the ledger, dead letters, and ingest's position.
//!
//! What was appended and is not yet flushed lies in memory and is answered from there; the bus is its log. One flush
//! writes everything of a partition up to a position, with that position, its counts and dead letters, in one transaction.
//!
//! A flush takes that memory away, sorts it by machine and time and cuts it into chunks (`chunk`) with statistics for each
//! machine and 10 s (`directory`), while appends fill the next (`flush`); later, in quiet moments, chunks of many flushes
//! become one for each machine (`merge`). Readers take memory first and the file after it, as of one moment, and leave out
//! of the file what they had from memory.
//!
//! Memory: at most four times `flush_bytes` before appends wait, and per machine its name, its order (what lies inside the
//! lateness and ahead of it) and about 150 bytes.

mod append;
mod chart;
mod chunk;
mod dead;
mod directory;
mod flush;
mod logs;
mod merge;
mod schema;
#[cfg(test)]
mod tests;

use super::{
    Bucket, DeadLetter, Error, LedgerRow, LetterFilter, LogRow, Lot, Options, Page, Taken, judge,
    judge::Shard,
    letters,
    machines::Machines,
    memory::{self, Counts},
    partition::{self, Partition},
};
use crate::{
    Activation,
    store::writer::{Database, open_writer},
};
use catalog::{Catalogue, MachineId};
use flush::Request;
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
use wire::READINGS_TOPIC;

/// The history of readings in a file.
#[derive(Clone)]
pub struct Sqlite {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
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

impl Sqlite {
    pub(super) fn open(path: &Path, catalogue: Arc<Catalogue>, options: Options) -> Result<Sqlite, Error> {
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
            partitions.push(Shard::new(partition));
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
        Ok(Sqlite { inner })
    }

    pub(super) fn positions(&self) -> Vec<i64> {
        self.inner.each(Partition::flushed)
    }

    pub(super) fn appended(&self) -> Vec<i64> {
        self.inner.each(Partition::appended)
    }

    pub(super) async fn flush(&self) -> Result<Vec<i64>, Error> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.inner.ask_for_flush().await?;
        Ok(self.positions())
    }

    pub(super) async fn switch(&self, catalogue: Arc<Catalogue>) -> Result<(), Error> {
        let before = std::mem::replace(&mut *self.inner.catalogue.write().expect("never poisoned"), catalogue.clone());
        if before.hash() == catalogue.hash() {
            return Ok(());
        }
        for shard in &self.inner.partitions {
            // Between two lots.
            let _appending = shard.appending.lock().await;
            let mut partition = shard.state();
            partition.change_lateness(&before, &catalogue);
            let from = partition.appended();
            partition.active.activations.push((from, catalogue.hash().to_owned()));
        }
        self.inner.tell_dirty();
        Ok(())
    }

    pub(super) async fn activations(&self, partition: u16) -> Result<Vec<Activation>, Error> {
        self.inner
            .read(move |connection| {
                let mut query = connection.prepare_cached(
                    "select from_offset, catalogue_hash from activation where topic = ?1 and partition = ?2
                     order by from_offset",
                )?;
                let rows = query.query_map(params![READINGS_TOPIC, partition], |row| {
                    Ok(Activation { partition, from_offset: row.get(0)?, catalogue_hash: row.get(1)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    pub(super) fn ledger(&self) -> Vec<LedgerRow> {
        let ledger = self.inner.ledger.lock().expect("never poisoned");
        ledger.iter().map(|(source, counts)| counts.row(source)).collect()
    }

    pub(super) fn class_of(&self, machine: &str) -> Option<String> {
        self.inner.machines.class_of(machine)
    }

    pub(super) fn newest(&self, machine: &str) -> Option<i64> {
        self.inner.machines.newest(machine)
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
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
        self.partitions.iter().map(|shard| of(&shard.state())).collect()
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
