//! How much an alarm matters, and to whom.

use catalog::Severity;
use serde::{Deserialize, Serialize};

/// How much the plant depends on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Criticality {
    /// The plant stands when it stands.
    A,
    /// The usual machine.
    #[default]
    B,
    /// It can wait.
    C,
}

impl Criticality {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Criticality::A => "A",
            Criticality::B => "B",
            Criticality::C => "C",
        }
    }

    /// Reads [`Criticality::as_str`].
    pub fn from_word(word: &str) -> Option<Criticality> {
        [Criticality::A, Criticality::B, Criticality::C].into_iter().find(|criticality| criticality.as_str() == word)
    }
}

/// What is wrong: the machine, what measures it, or the system that watches both. Each has its own list and routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "said above")]
pub enum Subject {
    Machine,
    Sensor,
    System,
}

impl Subject {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Machine => "machine",
            Subject::Sensor => "sensor",
            Subject::System => "system",
        }
    }

    /// Reads [`Subject::as_str`].
    pub fn from_word(word: &str) -> Option<Subject> {
        [Subject::Machine, Subject::Sensor, Subject::System].into_iter().find(|subject| subject.as_str() == word)
    }

    /// The subject of a condition of the engine: `stuck:CHANNEL` and its kin are the sensor's, all else the machine's.
    /// System alarms are made by the portal, which knows them as such.
    pub fn of_condition(condition: &str) -> Subject {
        let sensor = matches!(condition, "no_data" | "clock_skew")
            || condition.split_once(':').is_some_and(|(kind, _)| matches!(kind, "refused" | "quality" | "stuck"));
        if sensor { Subject::Sensor } else { Subject::Machine }
    }
}

/// Severity x criticality, 1 (first) to 4; `info` has none, since nobody is asked to act.
pub fn priority(severity: Severity, criticality: Criticality) -> Option<u8> {
    match (severity, criticality) {
        (Severity::Critical, Criticality::A) => Some(1),
        (Severity::Critical, Criticality::B | Criticality::C) | (Severity::Warning, Criticality::A) => Some(2),
        (Severity::Warning, Criticality::B) => Some(3),
        (Severity::Warning, Criticality::C) => Some(4),
        (Severity::Info, _) => None,
    }
}

/// `#[serde(with)]`: a severity as its word.
pub(crate) mod word {
    use super::{Deserialize, Severity};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(severity.as_str())
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Severity, D::Error> {
        let word = <std::borrow::Cow<'a, str>>::deserialize(from)?;
        Severity::from_word(&word).ok_or_else(|| serde::de::Error::custom(format!("no severity {word}")))
    }
}

/// `#[serde(with)]`: a severity as its word, none as null.
pub(crate) mod word_or_null {
    use super::{Deserialize, Severity};
    use serde::{Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    struct Word(#[serde(with = "super::word")] Severity);

    pub(crate) fn serialize<S: Serializer>(severity: &Option<Severity>, to: S) -> Result<S::Ok, S::Error> {
        severity.map(Severity::as_str).serialize(to)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Severity>, D::Error> {
        Ok(Option::<Word>::deserialize(from)?.map(|word| word.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_is_severity_by_criticality() {
        let table = [Severity::Critical, Severity::Warning, Severity::Info].map(|severity| {
            [Criticality::A, Criticality::B, Criticality::C].map(|criticality| priority(severity, criticality))
        });
        assert_eq!(table, [[Some(1), Some(2), Some(2)], [Some(2), Some(3), Some(4)], [None, None, None]]);
    }

    #[test]
    fn sensor_conditions_are_the_sensors() {
        for condition in ["stuck:rpm", "quality:torque_nm", "refused:rpm", "no_data", "clock_skew"] {
            assert_eq!(Subject::of_condition(condition), Subject::Sensor, "{condition}");
        }
        for condition in ["overstrain", "model:tail", "no_data_of_mine"] {
            assert_eq!(Subject::of_condition(condition), Subject::Machine, "{condition}");
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for subject in [Subject::Machine, Subject::Sensor, Subject::System] {
            assert_eq!(Subject::from_word(subject.as_str()), Some(subject));
        }
        for criticality in [Criticality::A, Criticality::B, Criticality::C] {
            assert_eq!(Criticality::from_word(criticality.as_str()), Some(criticality));
        }
        assert_eq!((Subject::from_word("x"), Criticality::from_word("D")), (None, None));
    }
}
