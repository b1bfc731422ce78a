//! The life of one alarm: what a condition asks of people, and what people do with it (ISA-18.2).
//!
//! One [`Alarm`] per (machine, condition). [`Alarm::apply`] takes what the engine tells, what a person orders and what
//! the clock brings, and says the state it leads to, whether it annunciates, and the line for the audit log. The same
//! events in the same order give the same alarm for ever, so alarms are rebuilt from alerts and audit log alone.
//!
//! Does not know how an alert arrives, where an alarm is stored or who is notified.

mod alarm;
mod event;
mod outcome;
mod severity;
mod state;

pub use crate::alarm::{Acknowledged, Alarm};
pub use event::{Action, Change, Command, Event, Role, Transition};
pub use outcome::{Audit, Illegal, Outcome};
pub use severity::{Criticality, Subject, priority};
pub use state::{Maintenance, State};

/// A raise of an alarm that was never acknowledged annunciates at most once in so long.
pub const ANNUNCIATE_EVERY_US: i64 = 10 * 60 * 1_000_000;
/// A reading that arrives so long after its event time is found late: history and list, no annunciation.
pub const FOUND_LATE_US: i64 = 5 * 60 * 1_000_000;
/// An acknowledged alarm of priority 1 that still stands after so long is unacknowledged again.
pub const REALARM_US: i64 = 8 * 3600 * 1_000_000;
/// Longest shelf.
pub const SHELVE_MAX_US: i64 = 12 * 3600 * 1_000_000;
/// Longest shelf of a critical alarm on a machine of criticality A.
pub const SHELVE_MAX_CRITICAL_US: i64 = 2 * 3600 * 1_000_000;
