//! `store.db`: anomaly_history, outbox, positions, activations, snapshots, machines, alarms, notifications, audit.

mod alarms;
mod alerts;
mod audit;
mod catalogues;
mod commit;
mod dispatch;
mod events;
mod machine_events;
mod machines;
mod maintenance;
mod notifications;
mod postgres;
mod schema;
mod snapshots;
mod sqlite;
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

pub use postgres::relay;

use postgres::Postgres;
use sqlite::Sqlite;
use std::sync::Arc;

/// What detect and the portal keep: embedded in one file, in the plant in two databases.
#[derive(Clone)]
pub struct Store(Variant);

#[derive(Clone)]
enum Variant {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("store.db")]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Postgres(crate::postgres::Error),
    #[error("store.db: commit")]
    Commit(#[source] Arc<rusqlite::Error>),
    #[error("{0} is damaged")]
    Damaged(String),
    #[error("partition {partition}: position is {found}, not {expected}: another detector went on from here")]
    Fenced { partition: u16, expected: i64, found: i64 },
    #[error("another portal changed the alarms")]
    Overtaken,
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

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Postgres(error.into())
    }
}

impl From<crate::postgres::Error> for Error {
    fn from(error: crate::postgres::Error) -> Error {
        match error {
            crate::postgres::Error::Pool(deadpool_postgres::PoolError::Closed) => Error::Closed,
            error => Error::Postgres(error),
        }
    }
}

/// The wall clock, microseconds since 1970.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests;
