//! All SQL, all migrations, history chunks; live values.
//!
//! Embedded there are two files: `history.db` ([`History`]: readings, ledger, dead letters, ingest's position) and
//! `store.db` ([`Store`]: anomaly_history, outbox, positions, activations, snapshots, machines, alarms, audit), apart so
//! that an alert never waits for a chunk. In a plant what detect writes lies in the AI database, the rest in the main
//! database. Does not know HTTP, topics' bytes or a class's laws.

pub mod history;
pub mod live;
pub mod postgres;
mod store;

pub use history::History;
pub use live::LiveValues;
pub use store::{
    Activation, AlarmQuery, AlarmRow, AlertQuery, Attempted, AuditRow, Error, MachineRow, MaintenanceRow, NewAudit,
    NewEvent, NewNotification, NotificationRow, Record, Step, Store, StoredEvent, alarm_id, relay,
};

/// Whether this known bug is in.
#[cfg(feature = "planted")]
fn planted(bug: &str) -> bool {
    std::env::var("MILLWRIGHT_PLANTED").is_ok_and(|planted| planted == bug)
}

/// A position that is moved from wherever it stands.
#[cfg(feature = "planted")]
const UNFENCED: &str = "update consumer_offset set next_offset = $4
    where topic = $1 and partition = $2 and $3::bigint is not null";
