//! A batch of readings in, [`Effects`] out. Owns the state of each machine of one partition; can be replayed.
//!
//! The same inputs in any split into batches, with a crash and a restore anywhere, give bit-identical effects. Does not
//! know a clock, a file, a topic's bytes or a table.

mod alert;
mod condition;
mod engine;
mod index;
mod judge;
mod laws;
mod learning;
mod live;
mod machine;
mod order;
mod recall;
mod rules;
mod sensors;
mod snapshot;
mod switch;
#[cfg(test)]
mod tests;

pub use engine::Engine;
pub use order::{Identity, Order, Place, identity};

use catalog::{Catalogue, MachineId, State};
use scoring::{Fit, WindowStats};
use std::sync::Arc;
use wire::{Alert, Position, ReadingBatch, Reject};

/// What happens to an engine.
pub enum Input<'a> {
    /// Readings of this partition in bus order, every row inside a span; rows below `from` are replayed after a restore:
    /// they change state and give no effects.
    Readings(&'a ReadingBatch),
    /// Another catalogue is in force from `from_offset` on (between two records).
    Use {
        /// What is in force from here.
        catalogue: Arc<Catalogue>,
    },
    /// The wall clock, once a second while the partition is caught up and the bus answers.
    Silence {
        /// Microseconds since 1970.
        now_us: i64,
        /// Whether a person or a file confirmed the machine.
        confirmed: &'a dyn Fn(&str) -> bool,
    },
}

/// What an input leads to; one transaction with the position. Cleared by the caller between commits.
#[derive(Debug, Default)]
pub struct Effects {
    /// Rows of anomaly_history and the outbox, in order.
    pub alerts: Vec<Alert>,
    /// Counter resets and state changes, in order.
    pub events: Vec<MachineEvent>,
    /// Machines seen for the first time: (machine, class, event time of the first reading).
    pub machines: Vec<(MachineId, String, i64)>,
    /// Fits frozen here, to be stored by hash.
    pub fits: Vec<(String, Fit)>,
    /// Machines whose live values changed, each once, in first-touch order.
    pub touched: Vec<MachineId>,
    /// Readings refused at judgement (`class_changed`), with their positions.
    pub rejects: Vec<(Position, Reject)>,
    /// What was judged.
    pub counts: Counts,
}

/// Rows by what was decided of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called (GUARANTEES.md 1)")]
pub struct Counts {
    pub in_order: u64,
    pub out_of_order: u64,
    pub late: u64,
    pub ahead: u64,
    pub duplicate: u64,
    pub refused: u64,
    pub spikes: u64,
    pub counter_falls: u64,
}

/// A row of `machine_event`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "columns of SPEC.md 3.5")]
pub struct MachineEvent {
    pub machine_id: String,
    /// `counter_reset`, `state`.
    pub kind: String,
    pub timestamp_us: i64,
    pub position: Position,
    /// E.g. `{"channel":"tool_wear_min","from":211,"to":0}` or `{"from":"running","to":"idle"}`, as JSON text.
    pub detail: String,
}

/// What a screen shows of a machine.
#[derive(Debug, Clone)]
pub struct Live {
    /// The machine.
    pub machine: MachineId,
    /// Its class.
    pub class: Arc<catalog::Class>,
    /// What it is doing.
    pub state: State,
    /// Event time of its newest in-order reading, microseconds.
    pub last_seen_us: i64,
    /// Arrival of its newest reading, microseconds.
    pub arrived_us: i64,
    /// Newest in-order values, scaled integers, and their quality bits.
    pub values: Vec<i64>,
    /// Two bits a channel.
    pub quality: u128,
    /// By channel: its window, where it keeps one.
    pub windows: Vec<Option<WindowStats>>,
    /// Derived quantities of the newest in-order reading; NaN where not judged.
    pub derived: Vec<f64>,
    /// Cold-start score, once a fit exists.
    pub score: Option<f64>,
    /// Running time towards the baseline, microseconds.
    pub learned_us: i64,
    /// Standing conditions.
    pub conditions: Vec<LiveCondition>,
}

/// A standing condition.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "as in the alert")]
pub struct LiveCondition {
    pub condition: String,
    pub condition_id: wire::AlertId,
    pub failure_type: String,
    pub severity: catalog::Severity,
    pub since_us: i64,
    pub suspended: bool,
}

/// Why a snapshot cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SnapshotError {
    #[error("snapshot slab {slab} of format {found}, this release reads up to {known}")]
    Format { slab: u32, found: u16, known: u16 },
    #[error("snapshot slab {0} is damaged")]
    Damaged(u32),
    #[error("snapshot slab {slab} was written under catalogue {hash}, which is not stored")]
    NoCatalogue { slab: u32, hash: String },
}
