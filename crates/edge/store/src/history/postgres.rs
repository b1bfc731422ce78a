//! The main database of a plant: each process takes the partitions that are assigned to it, all read what was committed.
//!
//! Appended rows wait in memory. A commit writes those of all partitions in one transaction (`commit`): positions first,
//! each by compare-and-set, which takes the row lock, so that whoever was overtaken finds out before it has written
//! anything; then rows by `COPY` (`copy`) into the table and day of their class (`table`), counts, dead letters.
//!
//! Nobody else waits for a row that a commit holds: positions, machines and counts are kept by partition.

mod commit;
mod copy;
mod dead;
mod find;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod value;

use super::{
    Error, LedgerRow, Lot, Options, Taken,
    judge::Shard,
    machines::Machines,
    memory::Counts,
    partition::{Partition, read_newest},
};
use crate::{
    Activation,
    postgres::{Pools, Sizes, Which, migrate},
};
use catalog::{Catalogue, MachineId};
use dependency::Dependency;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, RwLock, Weak},
    time::{Duration, SystemTime},
};
use table::Tables;
use wire::READINGS_TOPIC;

/// One writes, one makes a day or refuses at the door meanwhile; readers are the portal's.
const SIZES: Sizes = Sizes { write: 4, read: 8 };
/// How often machines that other processes saw first are asked for.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often retention looks.
const RETENTION_EVERY: Duration = Duration::from_secs(60);

/// The history of readings in the main database.
#[derive(Clone)]
pub struct Postgres {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    options: Options,
    pools: Pools,
    catalogue: RwLock<Arc<Catalogue>>,
    /// By partition; nothing where it is another process's.
    partitions: Vec<RwLock<Option<Arc<Assigned>>>>,
    machines: Machines,
    /// Number of the next machine of each partition that `refresh` has not seen.
    refreshed: tokio::sync::Mutex<Vec<i32>>,
    /// Machines that it found on more than one.
    scattered: Mutex<BTreeSet<MachineId>>,
    tables: Tables,
    /// Held by who commits; whether the outcome of a commit is unknown.
    committing: tokio::sync::Mutex<bool>,
}

/// A partition of this process.
struct Assigned {
    shard: Shard,
    /// Somebody else moved the position: (expected, found).
    fenced: OnceLock<(i64, i64)>,
    /// Newest arrival by class and day, as the database has it.
    arrivals: Mutex<BTreeMap<(String, i64), i64>>,
}

impl Postgres {
    pub(super) async fn open(
        url: &str,
        service: &str,
        catalogue: Arc<Catalogue>,
        options: Options,
        database: &Dependency,
    ) -> Result<Postgres, Error> {
        migrate(url, Which::Main).await?;
        let partitions = (0..options.partitions).map(|_| RwLock::default()).collect();
        let inner = Arc::new(Inner {
            refreshed: tokio::sync::Mutex::new(vec![0; usize::from(options.partitions)]),
            scattered: Mutex::default(),
            options,
            pools: Pools::new(url, Which::Main, service, SIZES)?.looked_after(database),
            catalogue: RwLock::new(catalogue),
            partitions,
            machines: Machines::new(),
            tables: Tables::default(),
            committing: tokio::sync::Mutex::new(false),
        });
        tokio::spawn(keep(Arc::downgrade(&inner)));
        Ok(Postgres { inner })
    }

    pub(super) async fn assign(&self, partition: u16) -> Result<i64, Error> {
        let inner = &*self.inner;
        inner.refresh().await?;
        // A commit under way may hold the partition's row.
        let committing = inner.committing.lock().await;
        let client = inner.pools.write.get().await?;
        let number = i32::from(partition);
        let sql =
            "insert into consumer_offset (topic, partition, next_offset) values ($1, $2, 0) on conflict do nothing";
        client.execute(sql, &[&READINGS_TOPIC, &number]).await?;
        let sql = "select next_offset from consumer_offset where topic = $1 and partition = $2";
        let position: i64 = client.query_one(sql, &[&READINGS_TOPIC, &number]).await?.try_get(0)?;

        let mut state = Partition::new(partition, position);
        let slabs = client.query("select bytes from newest where partition = $1 order by slab", &[&number]).await?;
        let slabs = slabs.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
        let mut newest = slabs.iter().flat_map(|bytes| read_newest(bytes));
        let sql = "select machine_id, class from bus_machine where partition = $1 order by number";
        for row in client.query(sql, &[&number]).await? {
            let (name, class): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let id = MachineId::try_from(&*name).map_err(|_| Error::NotOurs)?;
            let known = inner.machines.enter(&id, &class);
            let (watermark_us, newest_us) = newest.next().unwrap_or((i64::MIN, i64::MIN));
            state.restore(id, known, watermark_us, newest_us);
        }
        let sql = "select catalogue_hash from activation where topic = $1 and partition = $2
                   order by from_offset desc limit 1";
        let last = client.query_opt(sql, &[&READINGS_TOPIC, &number]).await?;
        let last: Option<String> = last.map(|row| row.try_get(0)).transpose()?;
        let hash = inner.catalogue().hash().to_owned();
        if last.as_deref() != Some(&*hash) {
            state.active.activations.push((position, hash));
        }
        let assigned = Assigned { shard: Shard::new(state), fenced: OnceLock::new(), arrivals: Mutex::default() };
        *inner.slot(partition).write().expect("never poisoned") = Some(Arc::new(assigned));
        drop(committing);
        Ok(position)
    }

    pub(super) async fn revoke(&self, partition: u16) {
        // A commit under way is let finish: what it wrote must not be thought lost.
        let _committing = self.inner.committing.lock().await;
        *self.inner.slot(partition).write().expect("never poisoned") = None;
    }

    pub(super) async fn positions(&self) -> Result<Vec<i64>, Error> {
        let mut positions = vec![0; self.inner.partitions.len()];
        let client = self.inner.pools.read.get().await?;
        let sql = "select partition, next_offset from consumer_offset where topic = $1";
        for row in client.query(sql, &[&READINGS_TOPIC]).await? {
            let partition: i32 = row.try_get(0)?;
            if let Some(position) = usize::try_from(partition).ok().and_then(|at| positions.get_mut(at)) {
                *position = row.try_get(1)?;
            }
        }
        Ok(positions)
    }

    pub(super) async fn append(&self, lot: &Lot<'_>) -> Result<Taken, Error> {
        let inner = &*self.inner;
        if inner.held_bytes() >= inner.options.flush_bytes {
            self.commit().await?;
        }
        let partition = lot.partition;
        let assigned = inner.assigned(partition).ok_or(Error::Unassigned(partition))?;
        if let Some((expected, found)) = assigned.fenced.get() {
            return Err(Error::Fenced { partition, expected: *expected, found: *found });
        }
        let shard = &assigned.shard;
        let mut pending = shard.appending.lock().await;
        if !shard.awaits(lot) {
            return Ok(Taken::default());
        }
        let judged = shard.judge(&mut pending, lot, &inner.machines, &inner.catalogue(), inner).await?;
        Ok(shard.state().store(lot, &judged))
    }

    pub(super) async fn switch(&self, catalogue: Arc<Catalogue>) {
        let inner = &*self.inner;
        let before = std::mem::replace(&mut *inner.catalogue.write().expect("never poisoned"), catalogue.clone());
        if before.hash() == catalogue.hash() {
            return;
        }
        for (_, assigned) in inner.all_assigned() {
            // Between two lots.
            let _appending = assigned.shard.appending.lock().await;
            let mut partition = assigned.shard.state();
            partition.change_lateness(&before, &catalogue);
            let from = partition.appended();
            partition.active.activations.push((from, catalogue.hash().to_owned()));
        }
    }

    pub(super) async fn activations(&self, partition: u16) -> Result<Vec<Activation>, Error> {
        let client = self.inner.pools.read.get().await?;
        let sql = "select from_offset, catalogue_hash from activation where topic = $1 and partition = $2
                   order by from_offset";
        let rows = client.query(sql, &[&READINGS_TOPIC, &i32::from(partition)]).await?;
        let read = |row: &tokio_postgres::Row| {
            Ok(Activation { partition, from_offset: row.try_get(0)?, catalogue_hash: row.try_get(1)? })
        };
        rows.iter().map(read).collect()
    }

    pub(super) async fn ledger(&self) -> Result<Vec<LedgerRow>, Error> {
        let client = self.inner.pools.read.get().await?;
        let sql = "select source, sum(received)::bigint, sum(stored)::bigint, sum(rejected)::bigint,
                       sum(duplicate)::bigint
                   from ledger group by source order by source collate \"C\"";
        let rows = client.query(sql, &[]).await?;
        let read = |row: &tokio_postgres::Row| {
            let count = |at: usize| row.try_get(at).map(i64::cast_unsigned);
            let (received, stored, rejected, duplicate) = (count(1)?, count(2)?, count(3)?, count(4)?);
            Ok(Counts { received, stored, rejected, duplicate }.row(row.try_get(0)?))
        };
        rows.iter().map(read).collect()
    }

    pub(super) fn class_of(&self, machine: &str) -> Option<String> {
        self.inner.machines.class_of(machine)
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        let committed = self.commit().await;
        self.inner.pools.write.close();
        self.inner.pools.read.close();
        committed
    }
}

impl Inner {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().expect("never poisoned").clone()
    }

    /// Learns which class each machine has that another process saw first.
    async fn refresh(&self) -> Result<(), Error> {
        let mut refreshed = self.refreshed.lock().await;
        let client = self.pools.read.get().await?;
        let from: Vec<i32> = refreshed.clone();
        let sql = "select m.partition, m.number, m.machine_id, m.class
                   from unnest($1::integer[]) with ordinality as seen (next, place)
                   join bus_machine m on m.partition = seen.place - 1 and m.number >= seen.next
                   order by m.partition, m.number";
        for row in client.query(sql, &[&from]).await? {
            let (partition, number): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
            let (name, class): (String, String) = (row.try_get(2)?, row.try_get(3)?);
            let id = MachineId::try_from(&*name).map_err(|_| Error::NotOurs)?;
            if self.machines.enter(&id, &class).is_also_on(partition as u16) {
                self.scattered.lock().expect("never poisoned").insert(id);
            }
            refreshed[partition as usize] = number + 1;
        }
        Ok(())
    }

    fn slot(&self, partition: u16) -> &RwLock<Option<Arc<Assigned>>> {
        &self.partitions[usize::from(partition)]
    }

    fn assigned(&self, partition: u16) -> Option<Arc<Assigned>> {
        self.slot(partition).read().expect("never poisoned").clone()
    }

    /// The partitions of this process, ascending.
    fn all_assigned(&self) -> Vec<(u16, Arc<Assigned>)> {
        (0..self.options.partitions).filter_map(|number| Some((number, self.assigned(number)?))).collect()
    }

    /// Bytes that wait in memory.
    fn held_bytes(&self) -> usize {
        let of = |(_, assigned): &(u16, Arc<Assigned>)| {
            let state = assigned.shard.state();
            state.active.bytes + state.frozen.as_ref().map_or(0, |frozen| frozen.bytes)
        };
        self.all_assigned().iter().map(of).sum()
    }
}

/// Asks for other processes' machines and drops old days and dead letters, as long as the history is open.
async fn keep(inner: Weak<Inner>) {
    let mut refresh = tokio::time::interval(REFRESH_EVERY);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut retention = tokio::time::Instant::now() + RETENTION_EVERY;
    let mut failing = false;
    loop {
        refresh.tick().await;
        // Upgraded for a moment only: whoever drops the last handle ends this task.
        let Some(inner) = inner.upgrade() else { return };
        if inner.pools.write.is_closed() {
            return;
        }
        let mut done = inner.refresh().await;
        // Who takes no partition leaves them to those who do.
        if retention <= tokio::time::Instant::now() && !inner.all_assigned().is_empty() {
            retention = tokio::time::Instant::now() + RETENTION_EVERY;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
            done = done.and(inner.drop_old(now_us).await).and(inner.drop_old_letters(now_us).await);
        }
        // Said once, however long it lasts.
        if let (Err(error), false) = (&done, failing) {
            tracing::warn!(error = error as &dyn std::error::Error, "could not keep up with the main database");
        }
        failing = done.is_err();
    }
}
