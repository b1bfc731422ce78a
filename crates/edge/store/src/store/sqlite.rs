//! The embedded variant: one file.

use super::{
    Error,
    machines::Confirmed,
    schema,
    writer::{self, Database},
};
use rusqlite::{Connection, Transaction};
use std::{path::Path, sync::Arc};
use tokio::sync::watch;

/// `store.db`. One writer thread; group commit; `synchronous=FULL`.
#[derive(Clone)]
pub(super) struct Sqlite {
    database: Arc<Database>,
    /// Last position of the outbox that is durable.
    pub(super) outbox: watch::Sender<i64>,
    pub(super) confirmed: Arc<Confirmed>,
}

impl Sqlite {
    pub(super) fn open(path: &Path) -> Result<Sqlite, Error> {
        let mut connection = writer::open_writer(path)?;
        schema::migrate(&mut connection)?;
        let last: i64 = connection.query_row("select coalesce(max(position), 0) from outbox", [], |row| row.get(0))?;
        let confirmed = Arc::new(Confirmed::load(&connection)?);
        let database = Arc::new(Database::start(path, connection));
        Ok(Sqlite { database, outbox: watch::Sender::new(last), confirmed })
    }

    /// Runs a job in the next group commit; what it did is durable when this returns. A job that fails leaves nothing
    /// behind, and does not disturb the others of its group.
    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.database.write(job, |_| ()).await
    }

    /// As [`Sqlite::write`]; `durable` runs once the job is on disk, in commit order, even if nobody waits any more.
    /// It runs on the writer's thread: it must be short and must not block.
    pub(super) async fn write_then<T, F, D>(&self, job: F, durable: D) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
        D: FnOnce(&T) + Send + 'static,
    {
        self.database.write(job, durable).await
    }

    /// Reads in a blocking thread, on one of a few read-only connections.
    pub(super) async fn read<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.database.clone().read(job).await
    }

    pub(super) async fn close(&self) {
        let database = self.database.clone();
        // The writer may be in the middle of an fsync.
        let _ = tokio::task::spawn_blocking(move || database.close()).await;
    }
}
