//! What is in force: class files, match rules and machine overrides, addressed by hash.

use crate::{Class, MachineId, Mistakes};
use std::{collections::BTreeMap, sync::Arc};

/// What is in force. Immutable; a change makes a new one with another hash.
#[derive(Debug, Clone)]
pub struct Catalogue {
    classes: BTreeMap<String, Arc<Class>>,
    default_class: String,
    rules: Vec<MatchRule>,
    machines: BTreeMap<MachineId, MachineSettings>,
    hash: String,
}

/// `[[machines]] match = "pump-*", class = "pump"` of the configuration; `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct MatchRule {
    pub pattern: String,
    pub class: String,
}

/// What a machine has of its own. Values of a key are checked against the class.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct MachineSettings {
    /// Its class, once bound.
    pub class: Option<String>,
    /// By parameter id.
    pub parameters: BTreeMap<String, f64>,
    /// By `law.term`, `law.level.term`.
    pub limits: BTreeMap<String, f64>,
    /// By attribute id; a reading's own wins.
    pub attributes: BTreeMap<String, String>,
}

/// Which class a reading has (DOMAIN.md 1), or why it has none.
#[derive(Debug, Clone)]
pub enum ClassChoice {
    /// This one.
    Class(Arc<Class>),
    /// The reading names a class that the catalogue does not have.
    Unknown(String),
    /// The machine has another class: (has, named).
    Changed(String, String),
}

/// A setting of a machine that its class does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// E.g. `parameters.i_rated`.
    pub key: String,
    /// What is wrong, what is allowed.
    pub message: String,
}

/// Why a catalogue cannot be made.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ClassError {
    #[error("{0}")]
    File(#[from] Mistakes),
    #[error("class {0} is not in the catalogue")]
    NoClass(String),
    #[error("machine {machine_id}: {problems:?}")]
    Machine { machine_id: MachineId, problems: Vec<Problem> },
    #[error("read the catalogue document: {0}")]
    Document(String),
}

impl Catalogue {
    /// The built-in classes with `mill` as the default.
    pub fn builtin() -> Catalogue {
        todo!()
    }

    /// Adds or replaces a class (a file with a built-in's id takes its place).
    pub fn with_class(self, class: Class) -> Catalogue {
        let _ = class;
        todo!()
    }

    /// Names the class of machines that no rule fits.
    ///
    /// # Errors
    /// The class is not in the catalogue.
    pub fn with_default(self, class: &str) -> Result<Catalogue, ClassError> {
        let _ = class;
        todo!()
    }

    /// Sets the match rules.
    ///
    /// # Errors
    /// A rule names a class that is not in the catalogue.
    pub fn with_rules(self, rules: Vec<MatchRule>) -> Result<Catalogue, ClassError> {
        let _ = rules;
        todo!()
    }

    /// Sets what a machine has of its own; the default settings remove it.
    ///
    /// # Errors
    /// Every key or value that the machine's class does not allow.
    pub fn with_machine(self, machine: MachineId, settings: MachineSettings) -> Result<Catalogue, ClassError> {
        let _ = (machine, settings);
        todo!()
    }

    /// The class of a reading: its key `class`, else the machine's, else the first rule that fits, else the default.
    /// `bound` is the class that the machine had before, where it was seen.
    pub fn class_of(&self, machine: &str, bound: Option<&str>, named: Option<&str>) -> ClassChoice {
        let _ = (machine, bound, named);
        todo!()
    }

    /// A class by id.
    pub fn class(&self, id: &str) -> Option<&Arc<Class>> {
        self.classes.get(id)
    }

    /// Every class, by id.
    pub fn classes(&self) -> impl Iterator<Item = &Arc<Class>> {
        self.classes.values()
    }

    /// The default class.
    pub fn default_class(&self) -> &Arc<Class> {
        &self.classes[&self.default_class]
    }

    /// The match rules, in order.
    pub fn rules(&self) -> &[MatchRule] {
        &self.rules
    }

    /// What a machine has of its own.
    pub fn machine(&self, machine: &str) -> Option<&MachineSettings> {
        self.machines.get(machine)
    }

    /// Every machine that has something of its own.
    pub fn machines(&self) -> &BTreeMap<MachineId, MachineSettings> {
        &self.machines
    }

    /// Lowercase hexadecimal SHA-256 of [`Catalogue::document`].
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The whole catalogue as canonical JSON, built-ins included; [`Catalogue::from_document`] reads it back.
    pub fn document(&self) -> String {
        todo!()
    }

    /// Reads a catalogue document.
    ///
    /// # Errors
    /// It is not one of ours.
    pub fn from_document(document: &str) -> Result<Catalogue, ClassError> {
        let _ = document;
        todo!()
    }
}
