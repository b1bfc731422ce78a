//! `store.db`: anomaly_history, outbox, positions, activations, snapshots, machines, alarms, notifications, audit.

use crate::history::Page;
use engine::Effects;
use std::path::Path;
use wire::Alert;

/// `store.db`. One writer thread; group commit; `synchronous=FULL`.
#[derive(Clone)]
pub struct Store {}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("store.db")]
    Sqlite(#[from] rusqlite::Error),
    #[error("partition {partition}: position is {found}, not {expected}: another detector went on from here")]
    Fenced { partition: u16, expected: i64, found: i64 },
    #[error("store.db: this release knows schema {known}, the file has {found}")]
    Schema { known: u32, found: u32 },
    #[error("cursor is not one of ours")]
    Cursor,
    #[error("the store is closed")]
    Closed,
}

/// One step of detect on one partition.
pub struct Step<'a> {
    /// The partition of `wire::READINGS_TOPIC`.
    pub partition: u16,
    /// Where it stood.
    pub from: i64,
    /// Where it stands then.
    pub to: i64,
    /// What the records between lead to.
    pub effects: &'a Effects,
    /// A catalogue that takes effect at `from`: (hash, document).
    pub activation: Option<(&'a str, &'a str)>,
}

/// Which alerts.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "parameters of SPEC.md 3.8")]
pub struct AlertQuery {
    pub machine_id: Option<String>,
    pub failure_type: Option<String>,
    pub severity: Option<String>,
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
    pub limit: usize,
    pub cursor: Option<String>,
}

impl Store {
    /// Opens or makes `store.db`; starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened, is not ours or is of a later release.
    pub fn open(path: &Path) -> Result<Store, Error> {
        let _ = path;
        todo!()
    }

    /// Where detect goes on: next offset per partition.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn positions(&self, partitions: u16) -> Result<Vec<i64>, Error> {
        let _ = partitions;
        todo!()
    }

    /// Writes the steps of detect in one transaction: compare-and-set of each position FIRST, then history, outbox (only
    /// for history rows really inserted), events, machines, fits, activations. Wakes whoever waits for the outbox.
    ///
    /// # Errors
    /// [`Error::Fenced`]: start over from the database's position.
    pub async fn commit(&self, steps: Vec<Step<'_>>) -> Result<(), Error> {
        let _ = steps;
        todo!()
    }

    /// Alerts with an outbox position above `after`, in commit order: (position, alert's JSON).
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn outbox_after(&self, after: i64, limit: usize) -> Result<Vec<(i64, String)>, Error> {
        let _ = (after, limit);
        todo!()
    }

    /// Alerts, newest first by event time.
    ///
    /// # Errors
    /// The file cannot be read, or the cursor is not ours.
    pub async fn alerts(&self, query: AlertQuery) -> Result<Page<Alert>, Error> {
        let _ = query;
        todo!()
    }
}
