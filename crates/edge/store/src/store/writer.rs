//! The one thread that writes a database file (`store.db`, `history.db`), with group commit, and the connections that
//! read it.
//!
//! A job is a closure over the open transaction. The writer takes every job that waits, runs each in a savepoint of its
//! own, commits them together with one fsync, and answers them only then: who was answered is durable, and who failed
//! left nothing behind. While one group is being synced the next one gathers.

use super::Error;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Jobs that may wait; who comes then waits before queueing.
const QUEUE: usize = 256;
/// Read-only connections, and so blocking threads that read at once.
const READERS: usize = 4;

/// The writer thread's end of a job.
trait Job: Send {
    /// Runs inside the transaction; `false`: undo what it did.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;
    /// Tells whoever waits how it ended.
    fn answer(self: Box<Self>, committed: &Result<(), Arc<rusqlite::Error>>);
}

/// A job, its result, what to do once it is durable, and who waits.
struct Write<T, F, D> {
    job: Option<F>,
    result: Option<Result<T, Error>>,
    durable: D,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T, F, D> Job for Write<T, F, D>
where
    T: Send,
    F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send,
    D: FnOnce(&T) + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        let job = self.job.take().expect("a job runs once");
        // A panic is a bug of ours, and must not take the writer from everybody else.
        let result = catch_unwind(AssertUnwindSafe(|| job(transaction))).unwrap_or(Err(Error::Panicked));
        let good = result.is_ok();
        self.result = Some(result);
        good
    }

    fn answer(self: Box<Self>, committed: &Result<(), Arc<rusqlite::Error>>) {
        let Write { result, durable, answer, .. } = *self;
        let result = match (result, committed) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), Ok(())) => {
                durable(&value);
                Ok(value)
            }
            (_, Err(error)) => Err(Error::Commit(error.clone())),
            (None, Ok(())) => Err(Error::Closed),
        };
        // Whoever no longer waits does not need the answer; the job is done all the same.
        let _ = answer.send(result);
    }
}

/// Both ends of the file.
pub(crate) struct Database {
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    readers: Readers,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Database {
    /// Takes a migrated connection to `path` and starts the thread that writes with it.
    pub(crate) fn start(path: &Path, connection: Connection) -> Database {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let thread = std::thread::Builder::new()
            .name(format!("{file} writer"))
            .spawn(move || write_groups(&file, connection, jobs))
            .expect("the system gives a thread");
        let readers = Readers { path: path.to_owned(), idle: Mutex::default(), permits: Semaphore::new(READERS) };
        Database { jobs: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), readers }
    }

    /// Runs a job in the writer's next group; `durable` runs there once it is on disk, in commit order. A job that was
    /// queued is done even when nobody waits for its answer any more.
    pub(crate) async fn write<T, F, D>(&self, job: F, durable: D) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
        D: FnOnce(&T) + Send + 'static,
    {
        let jobs = self.jobs.lock().expect("never poisoned").clone().ok_or(Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        jobs.send(Box::new(Write { job: Some(job), result: None, durable, answer }))
            .await
            .map_err(|_| Error::Closed)?;
        drop(jobs);
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Reads in a blocking thread.
    pub(crate) async fn read<T, F>(self: Arc<Self>, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let database = self.clone();
        let _permit = self.readers.permits.acquire().await.map_err(|_| Error::Closed)?;
        match tokio::task::spawn_blocking(move || database.read_here(job)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Panicked),
        }
    }

    /// Reads in this thread.
    pub(crate) fn read_here<T>(&self, job: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let idle = self.readers.idle.lock().expect("never poisoned").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.readers.path)?,
        };
        let result = job(&connection);
        self.readers.idle.lock().expect("never poisoned").push(connection);
        result
    }

    /// Finishes what waits, writes the log into the file, closes it. Later jobs get [`Error::Closed`].
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().expect("never poisoned").take());
        let thread = self.thread.lock().expect("never poisoned").take();
        self.readers.permits.close();
        self.readers.idle.lock().expect("never poisoned").clear();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of {} ended with a panic", self.readers.path.display());
        }
    }
}

/// Opens the connection that writes.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // FULL: a commit is on the disk when it returns. NORMAL loses commits at a power cut, which no kill test sees.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn write_groups(file: &str, mut connection: Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < QUEUE
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        let committed = write_group(&mut connection, &mut group).map_err(Arc::new);
        if let Err(error) = &committed {
            abort_if_not_durable(file, error);
            tracing::error!(error = %error, jobs = group.len(), "could not commit to {file}");
        }
        for job in group {
            job.answer(&committed);
        }
    }
    // Readers may still hold the log; then the next start takes it in.
    let _ = connection.execute_batch("pragma wal_checkpoint(truncate)");
}

fn write_group(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in group {
        transaction.prepare_cached("savepoint job")?.execute([])?;
        if !job.run(&transaction) {
            transaction.prepare_cached("rollback to job")?.execute([])?;
        }
        transaction.prepare_cached("release job")?.execute([])?;
    }
    transaction.commit()
}

/// After a failed fsync nobody knows what is on the disk, and asking again would be answered from the cache: only a
/// fresh start reads what is really there.
fn abort_if_not_durable(file: &str, error: &rusqlite::Error) {
    let code = error.sqlite_error().map(|error| error.extended_code);
    if matches!(code, Some(rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC)) {
        tracing::error!(error = %error, "{file} could not be synced to the disk: stopping at once");
        std::process::abort();
    }
}
