//! Where an alarm stands between the condition and the people.

use serde::{Deserialize, Serialize};

/// The states of ISA-18.2. `Shelved`, `Suppressed` and `OutOfService` are silent whatever the condition does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum State {
    /// Nothing is asked of anybody.
    #[default]
    Normal,
    /// The condition stands, nobody has answered.
    Unacknowledged,
    /// The condition stands, somebody has taken it.
    Acknowledged,
    /// The condition went before anybody answered: the latch.
    ReturnedUnacknowledged,
    /// A person silenced it for a time.
    Shelved {
        /// When it comes back, microseconds since 1970.
        until_us: i64,
        /// Why.
        reason: String,
        /// Who.
        by: String,
    },
    /// Silent by design: its machine stopped, or is in maintenance (see [`crate::Alarm::maintenance`]).
    Suppressed,
    /// A person took it out of service until further notice.
    OutOfService {
        /// Why.
        reason: String,
        /// Who.
        by: String,
    },
}

impl State {
    /// As it is written: `returned_unacknowledged`.
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Normal => "normal",
            State::Unacknowledged => "unacknowledged",
            State::Acknowledged => "acknowledged",
            State::ReturnedUnacknowledged => "returned_unacknowledged",
            State::Shelved { .. } => "shelved",
            State::Suppressed => "suppressed",
            State::OutOfService { .. } => "out_of_service",
        }
    }

    /// Every word of [`State::as_str`], for filters.
    pub const WORDS: [&str; 7] = [
        "normal",
        "unacknowledged",
        "acknowledged",
        "returned_unacknowledged",
        "shelved",
        "suppressed",
        "out_of_service",
    ];
}

/// A window in which a person works on the machine and its alarms are silent by design.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct Maintenance {
    /// When it ends, microseconds since 1970.
    pub until_us: i64,
    pub reason: String,
    pub by: String,
}
