//! Why: terms, contributions against this machine's own normal, and the smallest change that clears (DOMAIN.md 5).

use crate::{Fit, Settings, WindowStats};
use catalog::{Class, Quantity};
use wire::{AlertText, Reason};

/// Everything about one reading of one machine that an explanation may use.
pub struct Evidence<'a> {
    /// The class.
    pub class: &'a Class,
    /// The machine's name, for the text.
    pub machine: &'a str,
    /// The machine's settings.
    pub settings: &'a Settings,
    /// Scaled integers, by channel.
    pub values: &'a [i64],
    /// Two bits a channel, see `wire::Quality`.
    pub quality: u128,
    /// By attribute: the reading's own, else the settings'; `None`: absent.
    pub attributes: &'a [Option<u8>],
    /// The reading itself lacks the attribute (so that the reason can say that a default was used), by attribute.
    pub attribute_given: &'a [bool],
    /// Statistics of a window of this machine.
    pub windows: &'a dyn Fn(Quantity) -> Option<WindowStats>,
    /// (mean, sd) of this machine's unbroken readings (its class's until 100); `None`: none yet.
    pub normal: &'a dyn Fn(Quantity) -> Option<(f64, f64)>,
}

/// What an alert says.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Law, terms, contributions, counterfactual.
    pub reason: Reason,
    /// In both languages.
    pub text: AlertText,
    /// The largest margin / |limit| of its terms (`all`: the smallest); for a learned detector its score.
    pub score: f64,
}

/// Explains a law at a level that is broken (or held) for this reading.
pub fn explain_law(evidence: &Evidence<'_>, law: usize, level: usize) -> Explanation {
    let _ = (evidence, law, level);
    todo!()
}

/// Explains a learned detector's finding.
pub fn explain_learned(evidence: &Evidence<'_>, fit: &Fit, score: f64, threshold: f64) -> Explanation {
    let _ = (evidence, fit, score, threshold);
    todo!()
}
