//! The embedded bus: `bus.db`, one row per batch.
//!
//! One thread writes ([`writer`]); what it committed lies in memory for consumers that keep up ([`state`], [`tail`]) and
//! in the file for those that do not ([`consumer`], [`file`]).

mod consumer;
mod file;
mod state;
mod tail;
mod writer;

pub use consumer::SqliteConsumer;

use crate::{Error, Options, Outgoing, Record};
use state::{Shared, Stage};
use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};
use writer::Writer;

/// `bus.db`.
#[derive(Clone)]
pub struct SqliteBus(Arc<Open>);

/// Ends the writer when the last handle goes.
struct Open {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteBus {
    pub(crate) fn open(options: &Options) -> Result<SqliteBus, Error> {
        let lock = lock_beside(&options.path)?;
        let mut connection = file::open_writer(&options.path)?;
        let logs = file::load(&mut connection, options.partitions)?;
        let shared = Arc::new(Shared::new(options, &logs));
        let writer = Writer::new(shared.clone(), connection, logs, options.retention_us, lock);
        let thread = std::thread::Builder::new()
            .name("bus-writer".into())
            .spawn(move || writer.run())
            .expect("the system gives a thread");
        Ok(SqliteBus(Arc::new(Open { shared, writer: Mutex::new(Some(thread)) })))
    }

    pub(crate) async fn send(&self, records: Vec<Outgoing>) -> Result<Vec<i64>, Error> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let records: Vec<Record> = records.into_iter().map(to_record).collect();
        #[cfg(feature = "planted")]
        let count = records.len();
        let answered = self.0.shared.queue(records)?;
        #[cfg(feature = "planted")]
        if crate::planted("ack_before_commit") {
            return Ok(vec![-1; count]);
        }
        answered.await.map_err(|_| Error::Closed)?
    }

    pub(crate) fn consumer(&self) -> SqliteConsumer {
        SqliteConsumer::new(self.0.shared.clone())
    }

    pub(crate) fn bounds(&self, partition: u16) -> (i64, i64) {
        let partition = &self.0.shared.state().partitions[usize::from(partition)];
        (partition.begin, partition.tail.end())
    }

    pub(crate) fn ends(&self) -> Vec<i64> {
        self.0.shared.state().partitions.iter().map(|partition| partition.tail.end()).collect()
    }

    pub(crate) fn begins(&self) -> Vec<i64> {
        self.0.shared.state().partitions.iter().map(|partition| partition.begin).collect()
    }

    pub(crate) fn rows_from(&self, offsets: &[i64]) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        let shared = &self.0.shared;
        shared.check_len(offsets);
        let mut rows = BTreeMap::new();
        let mut in_file = Vec::new();
        for ((partition, &from), number) in shared.state().partitions.iter().zip(offsets).zip(0..) {
            let from = from.max(partition.begin);
            let remembered = partition.tail.add_rows(from, &mut rows);
            if from < remembered {
                in_file.push((number, from..remembered));
            }
        }
        if !in_file.is_empty() {
            shared.readers.read(|connection| file::add_rows(connection, &in_file, &mut rows))?;
        }
        Ok(rows)
    }

    pub(crate) fn hold(&self, holder: &'static str, from: &[i64]) {
        self.0.shared.hold(holder, from);
    }

    pub(crate) fn used(&self) -> (u64, u64) {
        (self.0.shared.state().used, self.0.shared.limit)
    }

    /// Takes the file from who reads it.
    #[cfg(test)]
    pub(crate) fn close_readers(&self) {
        self.0.shared.readers.close();
    }

    pub(crate) async fn close(&self) {
        let open = self.0.clone();
        // The writer may be in the middle of an fsync.
        let _ = tokio::task::spawn_blocking(move || open.close()).await;
    }
}

impl Open {
    fn close(&self) {
        self.shared.advance(Stage::Closing);
        // The lock is kept while waiting, so that every `close` returns only once the file is closed.
        let mut writer = self.writer.lock().expect("never poisoned");
        if writer.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of bus.db ended with a panic");
        }
    }
}

/// Waits for the writer, so that the file is free for the next `open` when the last handle is gone.
impl Drop for Open {
    fn drop(&mut self) {
        self.close();
    }
}

/// The offset is given by the writer.
fn to_record(outgoing: Outgoing) -> Record {
    let Outgoing { partition, arrived_us, source, rows, key: _, value } = outgoing;
    Record { partition, offset: -1, arrived_us, source, rows, key: None, headers: Vec::new(), value: value.into() }
}

/// `bus.lock`, held: two processes would give one offset to two records. The system frees it however the process ends.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that is being started holds every open file for a moment: closing ours would free nothing until then.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(error = %error, "could not unlock bus.lock");
        }
    }
}

fn lock_beside(path: &Path) -> Result<Lock, Error> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.with_extension("lock"))
        .map_err(Error::Lock)?;
    #[cfg(feature = "planted")]
    if crate::planted("no_fence") {
        return Ok(Lock(lock));
    }
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::Lock(error)),
    }
}
