//! What an event led to.

use crate::{Role, State};
use serde::{Deserialize, Serialize};
use wire::AlertId;

/// What an event led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The state before.
    pub from: State,
    /// The state from here.
    pub to: State,
    /// People are told: one notification per channel.
    pub annunciates: bool,
    /// The line for the audit log, in the transaction of the change; `None`: the event changed nothing.
    pub audit: Option<Audit>,
}

impl Outcome {
    /// The alarm has to be stored.
    pub fn changed(&self) -> bool {
        self.audit.is_some()
    }
}

/// Who did what to the alarm, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Microseconds since 1970: the arrival of a reading, the time of an order, or what the clock was waited for.
    pub at_us: i64,
    /// The person; `engine`; `clock`.
    pub by: String,
    /// The person's role.
    pub role: Option<Role>,
    /// E.g. `raised`, `acknowledge`, `shelf_expired`.
    pub action: String,
    /// [`State::as_str`] before.
    pub from: String,
    /// [`State::as_str`] after; equal to `from` where the alarm changed within its state.
    pub to: String,
    /// The comment or reason of a person.
    pub why: Option<String>,
    /// Until when the order holds, microseconds since 1970.
    pub until_us: Option<i64>,
    /// The alert that told it.
    pub alert_id: Option<AlertId>,
    /// [`Outcome::annunciates`].
    pub annunciates: bool,
}

/// Why an order is not carried out. The alarm is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Illegal {
    /// There is no such edge: HTTP 409.
    #[error("cannot {action} an alarm that is {state}")]
    Edge { action: &'static str, state: &'static str },
    /// The person may not: HTTP 403.
    #[error("{action} needs role {needs}, not {has}", needs = needs.as_str(), has = has.as_str())]
    Role { action: &'static str, needs: Role, has: Role },
    /// The order itself is wrong: HTTP 422.
    #[error("{action} needs a reason")]
    Reason { action: &'static str },
    /// The order itself is wrong: HTTP 422.
    #[error("until is not after now")]
    Past,
    /// The order itself is wrong: HTTP 422.
    #[error("this alarm is shelved for {hours} h at most")]
    TooLong { hours: i64 },
}

impl Illegal {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Illegal::Edge { .. } => 409,
            Illegal::Role { .. } => 403,
            Illegal::Reason { .. } | Illegal::Past | Illegal::TooLong { .. } => 422,
        }
    }
}
