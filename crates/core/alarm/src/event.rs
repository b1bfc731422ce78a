//! What can happen to an alarm.

use catalog::Severity;
use serde::{Deserialize, Serialize};
use wire::{Alert, AlertId, Kind};

/// What can happen to an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Event {
    /// The engine tells of the condition.
    Engine(Transition),
    /// A person orders.
    Person(Command),
    /// The clock has come to this time; see [`crate::Alarm::due_us`].
    Clock {
        /// Microseconds since 1970.
        now_us: i64,
    },
}

/// A transition of the condition, as an alert tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// What happened.
    pub change: Change,
    /// The alert that told it.
    pub alert_id: AlertId,
    /// The raise that it belongs to.
    pub condition_id: AlertId,
    /// The condition's severity from here.
    #[serde(with = "crate::severity::word")]
    pub severity: Severity,
    /// Event time, microseconds since 1970.
    pub event_us: i64,
    /// Arrival of the reading, microseconds since 1970.
    pub arrived_us: i64,
}

/// What happened to the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It began to stand.
    Raised,
    /// It stands on at another severity.
    Severity,
    /// Its machine left running: it is frozen.
    Suspended,
    /// Its machine is judged again.
    Resumed,
    /// Its machine's readings, found late before, come in time.
    CaughtUp,
    /// It stands no more.
    Cleared,
}

impl Change {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Raised => "raised",
            Change::Severity => "severity",
            Change::Suspended => "suspended",
            Change::Resumed => "resumed",
            Change::CaughtUp => "caught_up",
            Change::Cleared => "cleared",
        }
    }
}

impl From<&Alert> for Transition {
    fn from(alert: &Alert) -> Transition {
        let change = match (alert.kind, alert.suspended, alert.caught_up) {
            (Kind::Raised, ..) => Change::Raised,
            (Kind::Cleared, ..) => Change::Cleared,
            (Kind::Changed, Some(true), _) => Change::Suspended,
            (Kind::Changed, Some(false), _) => Change::Resumed,
            (Kind::Changed, None, Some(true)) => Change::CaughtUp,
            (Kind::Changed, None, _) => Change::Severity,
        };
        Transition {
            change,
            alert_id: alert.alert_id,
            condition_id: alert.condition_id,
            severity: alert.severity,
            event_us: alert.timestamp,
            arrived_us: alert.arrived_at,
        }
    }
}

/// What a person orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Who.
    pub by: String,
    /// With whose rights.
    pub role: Role,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// The orders, with their why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Has seen it and takes it.
    Acknowledge {
        /// Free words; may be empty.
        comment: String,
    },
    /// Silences it for a time.
    Shelve {
        /// When it comes back, microseconds since 1970.
        until_us: i64,
        /// Not blank.
        reason: String,
    },
    /// Ends the shelf early.
    Unshelve,
    /// Silences it until further notice.
    TakeOutOfService {
        /// Not blank.
        reason: String,
    },
    /// Ends that.
    ReturnToService,
    /// The machine's maintenance window begins.
    BeginMaintenance {
        /// When it ends, microseconds since 1970.
        until_us: i64,
        /// Not blank.
        reason: String,
    },
    /// The machine's maintenance window ends early.
    EndMaintenance,
    /// Words for whoever looks next; changes nothing.
    Comment {
        /// Not blank.
        comment: String,
    },
}

impl Action {
    /// As it is written.
    pub fn as_str(&self) -> &'static str {
        match self {
            Action::Acknowledge { .. } => "acknowledge",
            Action::Shelve { .. } => "shelve",
            Action::Unshelve => "unshelve",
            Action::TakeOutOfService { .. } => "take_out_of_service",
            Action::ReturnToService => "return_to_service",
            Action::BeginMaintenance { .. } => "begin_maintenance",
            Action::EndMaintenance => "end_maintenance",
            Action::Comment { .. } => "comment",
        }
    }
}

/// Rights, each including those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of GUARANTEES.md 3")]
pub enum Role {
    Viewer,
    Operator,
    Engineer,
    Admin,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Engineer => "engineer",
            Role::Admin => "admin",
        }
    }
}
