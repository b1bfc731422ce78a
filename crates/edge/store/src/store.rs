//! `store.db`: anomaly_history, outbox, positions, activations, snapshots, machines, alarms, notifications, audit.

mod alarms;
mod alerts;
mod audit;
mod catalogues;
mod commit;
mod events;
mod machine_events;
mod machines;
mod maintenance;
mod notifications;
mod schema;
mod snapshots;
pub(crate) mod writer;

pub use alarms::{AlarmQuery, AlarmRow, Record, alarm_id};
pub use alerts::AlertQuery;
pub use audit::{AuditRow, NewAudit};
pub use catalogues::Activation;
pub use commit::Step;
pub use events::{NewEvent, StoredEvent};
pub use machines::MachineRow;
pub use maintenance::MaintenanceRow;
pub use notifications::{Attempted, NewNotification, NotificationRow};

use machines::Confirmed;
use rusqlite::{Connection, Transaction};
use std::{path::Path, sync::Arc};
use tokio::sync::watch;
use writer::Database;

/// `store.db`. One writer thread; group commit; `synchronous=FULL`.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    /// Last position of the outbox that is durable.
    outbox: watch::Sender<i64>,
    confirmed: Arc<Confirmed>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("store.db")]
    Sqlite(#[from] rusqlite::Error),
    #[error("store.db: commit")]
    Commit(#[source] Arc<rusqlite::Error>),
    #[error("store.db: {0} is damaged")]
    Damaged(String),
    #[error("partition {partition}: position is {found}, not {expected}: another detector went on from here")]
    Fenced { partition: u16, expected: i64, found: i64 },
    #[error("store.db: this release knows schema {known}, the file has {found}")]
    Schema { known: u32, found: u32 },
    #[error("store.db is another program's database")]
    NotOurs,
    #[error("cursor is not one of ours")]
    Cursor,
    #[error("a job of the store panicked")]
    Panicked,
    #[error("the store is closed")]
    Closed,
}

impl Store {
    /// Opens or makes `store.db`; starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened, is not ours or is of a later release.
    pub fn open(path: &Path) -> Result<Store, Error> {
        let mut connection = writer::open_writer(path)?;
        schema::migrate(&mut connection)?;
        let last: i64 = connection.query_row("select coalesce(max(position), 0) from outbox", [], |row| row.get(0))?;
        let confirmed = Arc::new(Confirmed::load(&connection)?);
        let database = Arc::new(Database::start(path, connection));
        Ok(Store { database, outbox: watch::Sender::new(last), confirmed })
    }

    /// Runs a job in the next group commit; what it did is durable when this returns. A job that fails leaves nothing
    /// behind, and does not disturb the others of its group.
    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.database.write(job, |_| ()).await
    }

    /// As [`Store::write`]; `durable` runs once the job is on disk, in commit order, even if nobody waits any more.
    /// It runs on the writer's thread: it must be short and must not block.
    pub(crate) async fn write_then<T, F, D>(&self, job: F, durable: D) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
        D: FnOnce(&T) + Send + 'static,
    {
        self.database.write(job, durable).await
    }

    /// Reads in a blocking thread, on one of a few read-only connections.
    pub(crate) async fn read<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.database.clone().read(job).await
    }

    /// Finishes what waits, writes the log into the file and closes it.
    pub async fn close(&self) {
        let database = self.database.clone();
        // The writer may be in the middle of an fsync.
        let _ = tokio::task::spawn_blocking(move || database.close()).await;
    }
}

/// The wall clock, microseconds since 1970.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests;
