//! Alarms, their audit, notifications and the event stream: what the portal writes, each step in one transaction.

use super::{Error, MachineRow, Store};
use crate::history::Page;
use alarm::{Alarm, Audit};
use uuid::Uuid;

/// The id of the alarm of a machine and condition: UUIDv5, the same in every process.
pub fn alarm_id(machine: &str, condition: &str) -> Uuid {
    let _ = (machine, condition);
    todo!()
}

/// An alarm as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmRow {
    /// See [`alarm_id`].
    pub id: Uuid,
    /// Its state.
    pub alarm: Alarm,
    /// JSON of the alert that last raised its condition or changed its severity: reason and text. `None`: a system alarm.
    pub alert: Option<String>,
    /// Words of a system alarm; `None`: the alert has them.
    pub text: Option<wire::AlertText>,
    /// The alarm whose group it joined (first-out); `None`: it is the first, or alone.
    pub group: Option<Uuid>,
}

/// Which alarms.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "parameters of /api/alarms")]
pub struct AlarmQuery {
    pub machine_id: Option<String>,
    /// One of `alarm::State::WORDS`.
    pub state: Option<String>,
    pub subject: Option<String>,
    pub severity: Option<String>,
    /// `true`: all but `normal`; `false`: all.
    pub open: bool,
    pub limit: usize,
    pub cursor: Option<String>,
}

/// A line of the audit log to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAudit {
    /// What it is about: `alarm:ID`, `machine:ID`.
    pub subject: String,
    /// Who, what, when, why.
    pub audit: Audit,
    /// One notification per channel of these follows from it.
    pub notify: Vec<NewNotification>,
}

/// A notification to be sent; its idempotency key is UUIDv5 of (alert, channel, audit sequence).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct NewNotification {
    pub channel: String,
    pub alarm: Uuid,
    pub alert: Uuid,
    /// JSON of the message.
    pub payload: String,
}

/// An event of the stream to be written; it gets the next seq.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// `alert`, `alarm`, `machine`, ...
    pub kind: String,
    /// JSON.
    pub data: String,
}

/// One step of the portal: everything in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The portal's position in the outbox, compare-and-set: (from, to).
    pub position: Option<(i64, i64)>,
    /// Alarms as they are from here.
    pub alarms: Vec<AlarmRow>,
    /// Lines of the audit log, with their notifications.
    pub audit: Vec<NewAudit>,
    /// Events, in order.
    pub events: Vec<NewEvent>,
    /// Registry rows, as [`Store::register`] writes them.
    pub machines: Vec<MachineRow>,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct StoredEvent {
    pub seq: u64,
    pub kind: String,
    pub data: String,
}

/// A stored line of the audit log; `hash` is over the line and the one before it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct AuditRow {
    pub sequence: i64,
    pub subject: String,
    pub audit: Audit,
    /// Lowercase hexadecimal SHA-256.
    pub hash: String,
}

/// A notification in the queue.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct NotificationRow {
    /// The idempotency key.
    pub id: Uuid,
    pub channel: String,
    pub alarm: Uuid,
    pub payload: String,
    /// Attempts begun before.
    pub attempts: u32,
    pub created_us: i64,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempted {
    /// It was taken.
    Sent,
    /// Again at this time, microseconds since 1970, and why.
    Retry(i64, String),
    /// Never again, and why.
    Dead(String),
}

impl Store {
    /// The portal's position in the outbox; 0 before the first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn portal_position(&self) -> Result<i64, Error> {
        todo!()
    }

    /// Writes one step of the portal; the events with their seqs, durable.
    ///
    /// # Errors
    /// [`Error::Fenced`]: another portal went on from here; nothing was written.
    pub async fn record(&self, record: Record) -> Result<Vec<StoredEvent>, Error> {
        let _ = record;
        todo!()
    }

    /// Every alarm, by machine and condition.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn alarms(&self) -> Result<Vec<AlarmRow>, Error> {
        todo!()
    }

    /// A page of alarms: unacknowledged first, then by priority, then newest change first.
    ///
    /// # Errors
    /// The file cannot be read, or the cursor is not ours.
    pub async fn alarm_page(&self, query: AlarmQuery) -> Result<Page<AlarmRow>, Error> {
        let _ = query;
        todo!()
    }

    /// One alarm.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn alarm(&self, id: Uuid) -> Result<Option<AlarmRow>, Error> {
        let _ = id;
        todo!()
    }

    /// Events with a seq above `after`, in order.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        let _ = (after, limit);
        todo!()
    }

    /// (oldest seq kept or newest + 1 where none is, newest seq ever given).
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn event_range(&self) -> Result<(u64, u64), Error> {
        todo!()
    }

    /// Drops events up to a seq.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn prune_events(&self, through: u64) -> Result<usize, Error> {
        let _ = through;
        todo!()
    }

    /// The audit log, newest first, of one subject or of all.
    ///
    /// # Errors
    /// The file cannot be read, or the cursor is not ours.
    pub async fn audit(
        &self,
        subject: Option<&str>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<AuditRow>, Error> {
        let _ = (subject, limit, cursor);
        todo!()
    }

    /// Recomputes the chain of hashes: lines checked, and the first that does not fit.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn verify_audit(&self) -> Result<(u64, Option<i64>), Error> {
        todo!()
    }

    /// Leases due notifications of a channel, oldest first, a `cleared` never before its `raised`; each lease counts as an
    /// attempt begun and is written before this returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn lease_notifications(
        &self,
        channel: &str,
        now_us: i64,
        lease_us: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, Error> {
        let _ = (channel, now_us, lease_us, limit);
        todo!()
    }

    /// Notes how an attempt ended.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn attempted(&self, id: Uuid, at_us: i64, how: Attempted) -> Result<(), Error> {
        let _ = (id, at_us, how);
        todo!()
    }
}
