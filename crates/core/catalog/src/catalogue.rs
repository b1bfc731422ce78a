//! What is in force: class files, match rules and machine overrides, addressed by hash.

use crate::{Class, MachineId, Mistakes};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write, sync::Arc};

/// What is in force. Immutable; a change makes a new one with another hash.
#[derive(Debug, Clone)]
pub struct Catalogue {
    classes: BTreeMap<String, Arc<Class>>,
    default_class: String,
    rules: Vec<MatchRule>,
    machines: Arc<BTreeMap<MachineId, MachineSettings>>,
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

/// What [`Catalogue::document`] writes.
#[derive(serde::Serialize, serde::Deserialize)]
struct Document {
    /// Number of the format.
    format: u32,
    default_class: String,
    rules: Vec<MatchRule>,
    machines: BTreeMap<String, MachineSettings>,
    /// Class files byte for byte, by id.
    classes: BTreeMap<String, String>,
}

const MILL: &str = include_str!("mill.toml");
const PUMP: &str = include_str!("pump.toml");

impl Catalogue {
    /// The built-in classes with `mill` as the default.
    pub fn builtin() -> Catalogue {
        let classes = [("mill.toml", MILL), ("pump.toml", PUMP)]
            .map(|(file, text)| Class::parse(file, text).expect("a test parses the built-in classes"));
        Catalogue {
            default_class: classes[0].id.clone(),
            classes: classes.into_iter().map(|class| (class.id.clone(), Arc::new(class))).collect(),
            rules: Vec::new(),
            machines: Arc::default(),
            hash: String::new(),
        }
        .hashed()
    }

    fn hashed(mut self) -> Catalogue {
        let digest = Sha256::digest(self.document().as_bytes());
        self.hash = digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        self
    }

    /// Adds or replaces a class (a file with a built-in's id takes its place).
    pub fn with_class(mut self, class: Class) -> Catalogue {
        self.classes.insert(class.id.clone(), Arc::new(class));
        self.hashed()
    }

    /// Names the class of machines that no rule fits.
    ///
    /// # Errors
    /// The class is not in the catalogue.
    pub fn with_default(mut self, class: &str) -> Result<Catalogue, ClassError> {
        self.known(class)?;
        self.default_class = class.to_owned();
        Ok(self.hashed())
    }

    /// Sets the match rules.
    ///
    /// # Errors
    /// A rule names a class that is not in the catalogue.
    pub fn with_rules(mut self, rules: Vec<MatchRule>) -> Result<Catalogue, ClassError> {
        rules.iter().try_for_each(|rule| self.known(&rule.class).map(|_| ()))?;
        self.rules = rules;
        Ok(self.hashed())
    }

    /// Sets what a machine has of its own; the default settings remove it.
    ///
    /// # Errors
    /// Every key or value that the machine's class does not allow.
    pub fn with_machine(mut self, machine: MachineId, settings: MachineSettings) -> Result<Catalogue, ClassError> {
        self.set_machine(machine, settings)?;
        Ok(self.hashed())
    }

    /// As [`Catalogue::with_machine`] for many at once; what a class does not allow is left out and told.
    pub fn with_machines(
        mut self,
        machines: impl IntoIterator<Item = (MachineId, MachineSettings)>,
    ) -> (Catalogue, Vec<ClassError>) {
        let set = |(machine, settings)| self.set_machine(machine, settings).err();
        let errors = machines.into_iter().filter_map(set).collect();
        (self.hashed(), errors)
    }

    fn set_machine(&mut self, machine: MachineId, settings: MachineSettings) -> Result<(), ClassError> {
        let class = match &settings.class {
            Some(class) => self.known(class)?,
            None => self.by_rule(&machine),
        };
        let problems = problems(class, &settings);
        if !problems.is_empty() {
            return Err(ClassError::Machine { machine_id: machine, problems });
        }
        let machines = Arc::make_mut(&mut self.machines);
        if settings == MachineSettings::default() {
            machines.remove(&machine);
        } else {
            machines.insert(machine, settings);
        }
        Ok(())
    }

    /// The class of a reading: its key `class`, else the machine's, else the first rule that fits, else the default.
    /// `bound` is the class that the machine had before, where it was seen.
    pub fn class_of(&self, machine: &str, bound: Option<&str>, named: Option<&str>) -> ClassChoice {
        let own = self.machines.get(machine).and_then(|settings| settings.class.as_deref());
        let has = bound.or(own);
        if let Some(named) = named
            && !self.classes.contains_key(named)
        {
            return ClassChoice::Unknown(named.to_owned());
        }
        match (has, named) {
            (Some(has), Some(named)) if has != named => ClassChoice::Changed(has.to_owned(), named.to_owned()),
            (Some(id), _) | (None, Some(id)) => match self.classes.get(id) {
                Some(class) => ClassChoice::Class(class.clone()),
                None => ClassChoice::Unknown(id.to_owned()),
            },
            (None, None) => ClassChoice::Class(self.by_rule(machine).clone()),
        }
    }

    fn by_rule(&self, machine: &str) -> &Arc<Class> {
        let rule = self.rules.iter().find(|rule| fits(rule.pattern.as_bytes(), machine.as_bytes()));
        &self.classes[rule.map_or(&self.default_class, |rule| &rule.class)]
    }

    fn known(&self, class: &str) -> Result<&Arc<Class>, ClassError> {
        self.classes.get(class).ok_or_else(|| ClassError::NoClass(class.to_owned()))
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
        let document = Document {
            format: 1,
            default_class: self.default_class.clone(),
            rules: self.rules.clone(),
            machines: self.machines.iter().map(|(id, own)| (id.to_string(), own.clone())).collect(),
            classes: self.classes.iter().map(|(id, class)| (id.clone(), class.document.clone())).collect(),
        };
        serde_json::to_string(&document).expect("a catalogue has string keys and finite numbers")
    }

    /// Reads a catalogue document.
    ///
    /// # Errors
    /// It is not one of ours.
    pub fn from_document(document: &str) -> Result<Catalogue, ClassError> {
        let wrong = |what: String| ClassError::Document(what);
        let read: Document = serde_json::from_str(document).map_err(|error| wrong(error.to_string()))?;
        if read.format != 1 {
            return Err(wrong(format!("format {}, this release reads 1", read.format)));
        }
        let mut classes = BTreeMap::new();
        for (id, text) in read.classes {
            let class = Class::parse(&format!("{id}.toml"), &text)?;
            classes.insert(id, Arc::new(class));
        }
        let mut machines = BTreeMap::new();
        for (id, own) in read.machines {
            machines.insert(MachineId::try_from(id.as_str()).map_err(|error| wrong(error.to_string()))?, own);
        }
        if !classes.contains_key(&read.default_class) {
            return Err(ClassError::NoClass(read.default_class));
        }
        let catalogue = Catalogue {
            classes,
            default_class: read.default_class,
            rules: Vec::new(),
            machines: Arc::new(machines),
            hash: String::new(),
        };
        catalogue.with_rules(read.rules)
    }
}

/// Whether a pattern fits: `*` stands for any characters, `?` for one byte.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, eaten)) => {
                    star = Some((at, eaten + 1));
                    p = at + 1;
                    n = eaten + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What a class does not allow of a machine's settings.
fn problems(class: &Class, settings: &MachineSettings) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut tell = |key: String, message: String| found.push(Problem { key, message });
    for (id, value) in &settings.parameters {
        let key = format!("parameters.{id}");
        match class.parameters.iter().find(|parameter| parameter.id == *id) {
            None => {
                let known: Vec<&str> = class.parameters.iter().map(|parameter| parameter.id.as_str()).collect();
                tell(key, format!("class {} has no parameter `{id}`; it has {}", class.id, list(&known)));
            }
            Some(_) if !value.is_finite() => tell(key, "not a finite number".to_owned()),
            Some(parameter) => {
                if let Some((low, high)) = parameter.range
                    && !(low..=high).contains(value)
                {
                    tell(key, format!("{value} lies outside {low} to {high} {}", parameter.unit));
                }
            }
        }
    }
    let limits = limit_keys(class);
    for (id, value) in &settings.limits {
        let key = format!("limits.{id}");
        if !limits.contains(id) {
            let known: Vec<&str> = limits.iter().map(String::as_str).collect();
            tell(key, format!("class {} has no limit `{id}`; it has {}", class.id, list(&known)));
        } else if !value.is_finite() {
            tell(key, "not a finite number".to_owned());
        }
    }
    for (id, word) in &settings.attributes {
        let key = format!("attributes.{id}");
        match class.attributes.iter().find(|attribute| attribute.id == *id) {
            None => {
                let known: Vec<&str> = class.attributes.iter().map(|attribute| attribute.id.as_str()).collect();
                tell(key, format!("class {} has no attribute `{id}`; it has {}", class.id, list(&known)));
            }
            Some(attribute) if !attribute.values.contains(word) => {
                tell(key, format!("`{word}` is none of {}", attribute.values.join(", ")));
            }
            Some(_) => {}
        }
    }
    found
}

fn list(known: &[&str]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// Keys of every limit that a machine may override: `law.term`, with levels `law.level.term`.
pub(crate) fn limit_keys(class: &Class) -> Vec<String> {
    let mut keys = Vec::new();
    for law in &class.laws {
        for level in &law.levels {
            keys.extend(level.logic.terms.iter().map(|term| law.limit_key(level, term)));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> MachineId {
        MachineId::try_from(name).unwrap()
    }

    #[test]
    fn a_document_reads_back_to_the_same_hash() {
        let own = MachineSettings {
            class: Some("pump".to_owned()),
            parameters: [("i_rated".to_owned(), 38.0)].into(),
            limits: [("vibration.critical.vib_mm_s".to_owned(), 7.0)].into(),
            attributes: [("category".to_owned(), "I".to_owned())].into(),
        };
        let rules = vec![MatchRule { pattern: "pump-*".to_owned(), class: "pump".to_owned() }];
        let catalogue = Catalogue::builtin().with_rules(rules).unwrap().with_machine(id("p 1"), own).unwrap();
        let again = Catalogue::from_document(&catalogue.document()).unwrap();
        assert_eq!(again.hash(), catalogue.hash());
        assert_ne!(again.hash(), Catalogue::builtin().hash());
        assert_eq!(again.machine("p 1").unwrap().parameters["i_rated"], 38.0);
    }

    #[test]
    fn a_reading_has_the_class_of_its_key_its_machine_a_rule_or_the_default() {
        let rules = vec![MatchRule { pattern: "pump-*".to_owned(), class: "pump".to_owned() }];
        let catalogue = Catalogue::builtin().with_rules(rules).unwrap();
        let class =
            |machine: &str, bound: Option<&str>, named: Option<&str>| match catalogue.class_of(machine, bound, named) {
                ClassChoice::Class(class) => class.id.clone(),
                ClassChoice::Unknown(id) => format!("unknown {id}"),
                ClassChoice::Changed(has, named) => format!("changed {has} to {named}"),
            };
        assert_eq!(class("pump-1", None, None), "pump");
        assert_eq!(class("a pump-1", None, None), "mill");
        assert_eq!(class("pump-1", None, Some("mill")), "mill");
        assert_eq!(class("pump-1", Some("mill"), None), "mill");
        assert_eq!(class("pump-1", Some("mill"), Some("pump")), "changed mill to pump");
        assert_eq!(class("x", None, Some("boat")), "unknown boat");
    }

    #[test]
    fn every_wrong_setting_of_a_machine_is_named() {
        let own = MachineSettings {
            class: Some("pump".to_owned()),
            parameters: [("i_rated".to_owned(), -1.0), ("torque".to_owned(), 1.0)].into(),
            limits: [("vibration.vib_mm_s".to_owned(), 7.0)].into(),
            attributes: [("category".to_owned(), "III".to_owned())].into(),
        };
        let Err(ClassError::Machine { problems, .. }) = Catalogue::builtin().with_machine(id("p"), own) else {
            panic!()
        };
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            keys,
            ["parameters.i_rated", "parameters.torque", "limits.vibration.vib_mm_s", "attributes.category"]
        );
    }

    #[test]
    fn many_machines_at_once_are_the_same_as_one_by_one() {
        let own = |class: &str, i_rated: f64| MachineSettings {
            class: Some(class.to_owned()),
            parameters: [("i_rated".to_owned(), i_rated)].into(),
            ..MachineSettings::default()
        };
        let machines = [(id("a"), own("pump", 38.0)), (id("b"), own("pump", -1.0)), (id("c"), own("pump", 40.0))];
        let (together, left_out) = Catalogue::builtin().with_machines(machines.clone());
        assert_eq!(left_out.len(), 1, "{left_out:?}");
        let [first, _, last] = machines;
        let one_by_one =
            Catalogue::builtin().with_machine(first.0, first.1).and_then(|with| with.with_machine(last.0, last.1));
        assert_eq!(together.hash(), one_by_one.unwrap().hash());
    }

    #[test]
    fn a_pattern_fits_whole_names() {
        let check = |pattern: &str, name: &str| fits(pattern.as_bytes(), name.as_bytes());
        assert!(check("*", "") && check("a*c", "abbc") && check("a*b*c", "axbxbc") && check("?b", "ab"));
        assert!(!check("a*c", "abbcd") && !check("", "a") && !check("?", ""));
    }
}
