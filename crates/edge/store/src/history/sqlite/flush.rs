//! Writing memory to the file: by size, by age, and when asked.
//!
//! One thread sorts, encodes and hands over; appends go on into fresh memory meanwhile. One transaction holds positions,
//! chunks, machines, counts, dead letters and activations.

use super::{
    Error, Inner,
    chunk::{self, Encoded, Origin},
    dead,
    memory::Memory,
    merge,
};
use crate::Error as StoreError;
use rusqlite::{Transaction, params};
use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use wire::READINGS_TOPIC;

/// Chunks that retention drops in one transaction.
const DROPPED_AT_ONCE: u32 = 1_000;
/// How often retention looks.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// Merging waits this long after a flush by age, and between two steps.
const MERGE_AFTER: Duration = Duration::from_millis(200);
/// Until the next attempt after one that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the flusher is asked for.
pub(super) enum Request {
    /// Something waits from now on.
    Dirty,
    /// Enough waits.
    Full,
    /// Everything that waits, and an answer.
    Flush(oneshot::Sender<Result<(), Error>>),
}

/// Memory of a partition with its chunks.
struct Part {
    partition: u16,
    memory: Arc<Memory>,
    chunks: Vec<Encoded>,
}

/// Starts the thread that flushes; it ends with the history.
pub(super) fn start(inner: &Arc<Inner>, requests: mpsc::UnboundedReceiver<Request>) {
    let inner = Arc::downgrade(inner);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime without sockets needs nothing of the system").block_on(run(inner, requests));
    };
    std::thread::Builder::new().name("history-flush".into()).spawn(run).expect("the system gives a thread");
}

async fn run(inner: Weak<Inner>, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut due: Option<Instant> = None;
    let mut retention = Instant::now() + RETENTION_EVERY;
    // Only while flushes come by age: whoever is busy has no time for it.
    let mut merge: Option<Instant> = None;
    loop {
        let wake = [due, merge].into_iter().flatten().fold(retention, Instant::min);
        let request = match tokio::time::timeout_at(wake, requests.recv()).await {
            Ok(Some(request)) => Some(request),
            Ok(None) => return,
            Err(_) => None,
        };
        // Upgraded for a moment only: whoever drops the last handle ends this thread.
        let Some(inner) = inner.upgrade() else { return };
        let now = Instant::now();
        let after = Duration::from_micros(inner.options.flush_after_us.max(0).unsigned_abs());
        let flushed = match request {
            Some(Request::Dirty) => {
                due.get_or_insert(now + after);
                continue;
            }
            Some(Request::Full) => {
                merge = None;
                inner.flush_all().await
            }
            Some(Request::Flush(answer)) => {
                let (result, told) = match inner.flush_all().await {
                    Ok(()) => (Ok(()), Ok(())),
                    Err(error) => (Err(again(&error)), Err(error)),
                };
                // Whoever asked no longer waits: the flush is done all the same.
                let _ = answer.send(told);
                result
            }
            None if due.is_some_and(|due| due <= now) => {
                merge = Some(now + MERGE_AFTER);
                inner.flush_all().await
            }
            None if retention <= now => {
                retention = now + RETENTION_EVERY;
                merge = Some(now + MERGE_AFTER);
                if let Err(error) = inner.drop_old(now_us()).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "could not drop old readings");
                }
                if let Err(error) = inner.drop_old_letters(now_us()).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "could not drop old dead letters");
                }
                continue;
            }
            None => {
                merge = match inner.merge_once(merge::GROUPS).await {
                    Ok(true) => Some(Instant::now() + MERGE_AFTER),
                    Ok(false) => None,
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "could not merge chunks");
                        None
                    }
                };
                continue;
            }
        };
        due = match flushed {
            Ok(()) => inner.told_dirty.load(Ordering::Acquire).then_some(now + after),
            Err(Error::Fenced { .. } | Error::Closed) => None,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not flush to history.db");
                Some(now + AGAIN_AFTER)
            }
        };
    }
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

impl Inner {
    /// Flushes on the flusher's thread.
    pub(super) async fn ask_for_flush(&self) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Flush(answer)).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Writes all that was appended before.
    async fn flush_all(&self) -> Result<(), Error> {
        // What a failed flush left comes first; what was appended since needs a second turn.
        while self.flush_once().await? {}
        Ok(())
    }

    /// Writes what is frozen, or freezes and writes; whether there may be more.
    async fn flush_once(&self) -> Result<bool, Error> {
        if let Some((partition, expected, found)) = self.fenced.get() {
            return Err(Error::Fenced { partition: *partition, expected: *expected, found: *found });
        }
        self.told_dirty.store(false, Ordering::Release);
        self.told_full.store(false, Ordering::Release);
        let mut parts = Vec::new();
        let mut left_over = false;
        for (partition, shard) in (0..).zip(&self.partitions) {
            let mut state = shard.state();
            let Some((memory, fresh)) = state.freeze() else { continue };
            if fresh {
                self.frozen_bytes.fetch_add(memory.bytes, Ordering::Relaxed);
                self.active_bytes.fetch_sub(memory.bytes, Ordering::Relaxed);
            }
            left_over |= !fresh;
            parts.push((partition, memory));
        }
        if parts.is_empty() {
            return Ok(false);
        }
        let bytes: usize = parts.iter().map(|(_, memory)| memory.bytes).sum();
        let frozen: Vec<u16> = parts.iter().map(|(partition, _)| *partition).collect();
        let parts: Vec<Part> = parts
            .into_iter()
            .map(|(partition, memory)| Part { partition, chunks: chunk::encode(&memory.segments), memory })
            .collect();
        let written = self.write(parts).await;
        if let Err(Error::Fenced { partition, expected, found }) = &written {
            tracing::error!(partition, expected, found, "another ingest writes this history: stopping");
            let _ = self.fenced.set((*partition, *expected, *found));
            self.freed.notify_waiters();
        }
        written?;
        for partition in frozen {
            self.partitions[usize::from(partition)].state().thaw();
        }
        self.frozen_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_waiters();
        Ok(left_over)
    }

    /// One transaction: positions first, so that a loser finds out before it has written anything.
    async fn write(&self, parts: Vec<Part>) -> Result<(), Error> {
        #[cfg(feature = "planted")]
        if crate::planted("offset_before_effects") {
            return self.write_positions_before_effects(parts).await;
        }
        let job = move |transaction: &Transaction<'_>| {
            parts.iter().try_for_each(|part| move_position(transaction, part))?;
            parts.iter().try_for_each(|part| write_effects(transaction, part))
        };
        Ok(self.database.write(job, |_| ()).await?)
    }

    /// The bug that the torture harness must see: a kill between the two loses what the position already covers.
    #[cfg(feature = "planted")]
    async fn write_positions_before_effects(&self, parts: Vec<Part>) -> Result<(), Error> {
        let parts = Arc::new(parts);
        let moved = parts.clone();
        let job =
            move |transaction: &Transaction<'_>| moved.iter().try_for_each(|part| move_position(transaction, part));
        self.database.write(job, |_| ()).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let job =
            move |transaction: &Transaction<'_>| parts.iter().try_for_each(|part| write_effects(transaction, part));
        Ok(self.database.write(job, |_| ()).await?)
    }

    /// Drops whole chunks whose newest arrival is older than what is kept.
    pub(super) async fn drop_old(&self, now_us: i64) -> Result<(), Error> {
        let before = now_us.saturating_sub(self.options.retention_us);
        let any = self.read(move |connection| {
            let mut query =
                connection.prepare_cached("select exists (select 1 from chunk where newest_arrival < ?1)")?;
            Ok(query.query_row([before], |row| row.get::<_, bool>(0))?)
        });
        let mut more = any.await?;
        while more {
            let job = move |transaction: &Transaction<'_>| {
                Ok(transaction
                    .prepare_cached(
                        "delete from chunk where id in (
                             select id from chunk where newest_arrival < ?1 order by newest_arrival limit ?2)",
                    )?
                    .execute(params![before, DROPPED_AT_ONCE])?)
            };
            more = self.database.write(job, |_| ()).await? == DROPPED_AT_ONCE as usize;
        }
        Ok(())
    }
}

/// The same failure for a second reader; the log needs its words only.
fn again(error: &Error) -> Error {
    match error {
        Error::Commit(error) => Error::Commit(error.clone()),
        Error::Fenced { partition, expected, found } => {
            Error::Fenced { partition: *partition, expected: *expected, found: *found }
        }
        Error::Closed => Error::Closed,
        _ => Error::Panicked,
    }
}

fn move_position(transaction: &Transaction<'_>, part: &Part) -> Result<(), StoreError> {
    let Memory { from, to, .. } = *part.memory;
    let moved = transaction
        .prepare_cached(
            "update consumer_offset set next_offset = ?4 where topic = ?1 and partition = ?2 and next_offset = ?3",
        )?
        .execute(params![READINGS_TOPIC, part.partition, from, to])?;
    if moved == 1 {
        return Ok(());
    }
    let found = transaction
        .prepare_cached("select next_offset from consumer_offset where topic = ?1 and partition = ?2")?
        .query_row(params![READINGS_TOPIC, part.partition], |row| row.get(0))?;
    Err(StoreError::Fenced { partition: part.partition, expected: from, found })
}

fn write_effects(transaction: &Transaction<'_>, part: &Part) -> Result<(), StoreError> {
    let Part { partition, memory, chunks } = part;
    let mut insert = transaction
        .prepare_cached("insert into machine (partition, number, machine_id, class) values (?1, ?2, ?3, ?4)")?;
    for (number, id, class) in &memory.newcomers {
        insert.execute(params![partition, number, id.as_str(), class])?;
    }
    let mut insert = transaction.prepare_cached(
        "insert into newest (partition, slab, bytes) values (?1, ?2, ?3)
         on conflict do update set bytes = excluded.bytes",
    )?;
    for (slab, bytes) in &memory.newest {
        insert.execute(params![partition, slab, bytes])?;
    }
    let origin = Origin { partition: *partition, from_offset: memory.from, next_offset: memory.to, level: 0 };
    chunk::insert(transaction, &origin, chunks)?;
    for (source, counts) in &memory.counts {
        dead::add_counts(transaction, source, *counts)?;
    }
    for letter in &memory.dead_letters {
        dead::insert(transaction, letter)?;
    }
    let mut insert = transaction.prepare_cached(
        "insert into activation (topic, partition, from_offset, catalogue_hash) values (?1, ?2, ?3, ?4)
         on conflict do update set catalogue_hash = excluded.catalogue_hash",
    )?;
    for (from_offset, hash) in &memory.activations {
        insert.execute(params![READINGS_TOPIC, partition, from_offset, hash])?;
    }
    Ok(())
}
