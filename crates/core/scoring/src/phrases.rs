//! Every sentence that an alert says, in English and Korean, in one table.

use catalog::{Class, State};
use wire::AlertText;

/// Which sensor condition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the conditions of DOMAIN.md 3")]
pub enum SensorFault<'a> {
    Stuck { channel: usize, for_us: i64, value: i64 },
    Quality { channel: usize, value: i64 },
    Refused { channel: &'a str, code: &'a str },
    NoData { silent_us: i64 },
    ClockSkew { ahead_us: i64 },
}

/// The text of a raised sensor condition.
pub fn sensor_text(class: &Class, machine: &str, fault: &SensorFault<'_>) -> AlertText {
    let _ = (class, machine, fault);
    todo!()
}

/// Why a condition was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub enum ClearedBy {
    Readings,
    CounterReset,
    LawRemoved,
    GoodValue,
}

/// The text of a cleared condition; `condition` as in the alert, `law` its place where it is one.
pub fn cleared_text(class: &Class, machine: &str, condition: &str, law: Option<usize>, by: ClearedBy) -> AlertText {
    let _ = (class, machine, condition, law, by);
    todo!()
}

/// The text of a standing condition whose machine left `running` (`Some(state)`) or is judged again (`None`).
pub fn suspended_text(
    class: &Class,
    machine: &str,
    condition: &str,
    law: Option<usize>,
    left_for: Option<State>,
) -> AlertText {
    let _ = (class, machine, condition, law, left_for);
    todo!()
}
