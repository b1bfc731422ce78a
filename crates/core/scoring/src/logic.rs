//! Judges `all | any` of terms for one reading.
//!
//! The columns of a batch are judged by `columns` with the same comparisons: same verdicts.

use crate::TermLimit;
use catalog::{Comparison, Logic, LogicMode, Quantity};

/// What a logic says of one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// Every value and every limit was there.
    pub(crate) judged: bool,
    /// It holds.
    pub(crate) broken: bool,
    /// It holds with each limit moved back by its deadband.
    pub(crate) held: bool,
}

/// Judges a logic; a missing value (NaN) or limit makes it not judged.
pub(crate) fn judge(
    logic: &Logic,
    limits: &[TermLimit],
    value: impl Fn(Quantity) -> f64,
    attribute: impl Fn(usize) -> Option<u8>,
) -> Verdict {
    let all = logic.mode == LogicMode::All;
    let (mut broken, mut held) = (all, all);
    for (term, limit) in logic.terms.iter().zip(limits) {
        let (value, limit) = (value(term.quantity), limit.of(&attribute));
        if value.is_nan() || limit.is_nan() {
            return Verdict::default();
        }
        let is_broken = breaks(term.comparison, value, limit);
        let is_held = breaks(term.comparison, value, moved_back(term.comparison, limit, term.deadband));
        (broken, held) =
            if all { (broken && is_broken, held && is_held) } else { (broken || is_broken, held || is_held) };
    }
    Verdict { judged: true, broken, held }
}

/// Whether a value is on the wrong side of a limit.
pub(crate) fn breaks(comparison: Comparison, value: f64, limit: f64) -> bool {
    match comparison {
        Comparison::Above => value > limit,
        Comparison::Below => value < limit,
        Comparison::AtLeast => value >= limit,
        Comparison::AtMost => value <= limit,
    }
}

/// A limit moved to its good side by a deadband.
pub(crate) fn moved_back(comparison: Comparison, limit: f64, deadband: f64) -> f64 {
    match comparison {
        Comparison::Above | Comparison::AtLeast => limit - deadband,
        Comparison::Below | Comparison::AtMost => limit + deadband,
    }
}

/// Distance beyond a limit, in the quantity's unit; broken is > 0 (0 at an inclusive limit).
pub(crate) fn margin(comparison: Comparison, value: f64, limit: f64) -> f64 {
    match comparison {
        Comparison::Above | Comparison::AtLeast => value - limit,
        Comparison::Below | Comparison::AtMost => limit - value,
    }
}

/// The margin as a part of the limit; of a limit of 0 in the quantity's unit.
pub(crate) fn part(comparison: Comparison, value: f64, limit: f64) -> f64 {
    let margin = margin(comparison, value, limit);
    if limit == 0.0 { margin } else { margin / limit.abs() }
}
