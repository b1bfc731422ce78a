//! A machine's numbers: what its class says, overridden by its own.

use catalog::{Class, MachineSettings};
use wire::LimitSource;

/// Parameters and limits of one machine, resolved once per catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// By place of the parameter in the class.
    pub parameters: Vec<f64>,
    /// By slot (see `Program::slots`), by term in its logic.
    pub limits: Vec<Vec<TermLimit>>,
    /// Attribute values that a reading without the attribute takes: the machine's own, else the class's default.
    pub attributes: Vec<Option<u8>>,
}

/// The limit of one term for one machine.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "said above")]
pub enum TermLimit {
    Value(f64, LimitSource),
    /// By attribute: places in the class's attributes, entries, default.
    Table { by: Vec<usize>, entries: Vec<(Vec<u8>, f64)>, default: Option<f64> },
}

impl Settings {
    /// Resolves a machine's settings. Keys that the class does not know are ignored: the catalogue refused them.
    pub fn resolve(class: &Class, own: Option<&MachineSettings>) -> Settings {
        let _ = (class, own);
        todo!()
    }
}
