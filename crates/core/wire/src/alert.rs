//! The message that tells of a condition's transition.

use catalog::{MachineId, Severity};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Identity of an alert, see [`alert_id`].
pub type AlertId = Uuid;

/// Name space of alert ids (SPEC.md 3.6).
const NAMESPACE: Uuid = Uuid::from_u128(0xb1c6e4a2_7c0e_5d53_9a57_2f1f0a9d6e31);

/// UUIDv5 of `machine|condition|kind|event time in microseconds|topic|partition|offset|index`.
pub fn alert_id(machine: &str, condition: &str, kind: Kind, timestamp_us: i64, position: &Position) -> AlertId {
    let Position { topic, partition, offset, index } = position;
    let name = format!("{machine}|{condition}|{}|{timestamp_us}|{topic}|{partition}|{offset}|{index}", kind.as_str());
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// A condition's transition, with its reason. Serialises to exactly the JSON of `docs/alert.schema.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is the JSON key of that name (SPEC.md 3.6)")]
pub struct Alert {
    pub alert_id: AlertId,
    pub machine_id: String,
    pub class: String,
    pub failure_type: String,
    pub kind: Kind,
    #[serde(with = "crate::alert::severity")]
    pub severity: Severity,
    /// Event time, microseconds since 1970; RFC 3339 in JSON.
    #[serde(with = "crate::time::rfc3339")]
    pub timestamp: i64,
    pub score: f64,
    pub model: String,
    pub model_version: String,
    /// Arrival of the reading, microseconds since 1970; RFC 3339 in JSON.
    #[serde(with = "crate::time::rfc3339")]
    pub arrived_at: i64,
    pub condition: String,
    /// Alert id of the raise.
    pub condition_id: AlertId,
    /// Event time of the raise, microseconds since 1970; RFC 3339 in JSON.
    #[serde(with = "crate::time::rfc3339")]
    pub started_at: i64,
    pub position: Position,
    /// The reading as JSON, decimals at the channel's scale; null for a no-data or refused raise without one.
    pub reading: Option<Box<RawValue>>,
    pub reason: Reason,
    pub text: AlertText,
    /// `changed` only: the machine left or is judged again in `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
    /// `changed` only: first reading < 30 s behind arrival after a raise found late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up: Option<bool>,
    /// A maintenance notice, not an anomaly.
    #[serde(default)]
    pub notice: bool,
}

/// Natural Korean and English.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct AlertText {
    pub en: String,
    pub ko: String,
}

/// What happened to the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "said above")]
pub enum Kind {
    Raised,
    Changed,
    Cleared,
}

impl Kind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Raised => "raised",
            Kind::Changed => "changed",
            Kind::Cleared => "cleared",
        }
    }
}

/// A reading's place on the bus.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the bus")]
pub struct Position {
    pub topic: String,
    pub partition: u16,
    pub offset: i64,
    pub index: u32,
}

/// Why (SPEC.md 3.6, DOMAIN.md 5).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reason {
    /// Null for a learned detector and for sensor conditions.
    pub law: Option<String>,
    /// The terms that were judged, broken first.
    pub terms: Vec<ReasonTerm>,
    /// What is unusual against this machine's own normal, largest share first.
    pub contributions: Vec<Contribution>,
    /// The smallest change that clears the condition.
    pub counterfactual: Vec<CounterfactualStep>,
    /// `false`: nobody can set these channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjustable: Option<bool>,
    /// Where a window's slope gives one.
    pub time_to_limit_s: Option<f64>,
    /// Words that a reader needs to know: an attribute's default was used, `law_removed`, a sensor's code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReasonTerm {
    /// Channel or derived quantity.
    pub quantity: String,
    /// The term's id.
    pub term: String,
    /// In `unit`.
    pub measured: f64,
    /// In `unit`.
    pub limit: f64,
    /// Of the quantity.
    pub unit: String,
    /// Side on which the law is broken.
    pub direction: Direction,
    /// measured - limit, signed so that broken is > 0.
    pub margin: f64,
    /// Whose limit it is.
    pub limit_source: LimitSource,
}

/// Side of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "said above")]
pub enum Direction {
    Above,
    Below,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "said above")]
pub enum LimitSource {
    Class,
    Machine,
}

/// How unusual a quantity is for this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "SPEC.md 3.6, DOMAIN.md 5")]
pub struct Contribution {
    pub quantity: String,
    pub value: f64,
    pub unit: String,
    /// Mean - 2 sd of this machine's unbroken readings; null before there are any.
    pub normal_low: Option<f64>,
    pub normal_high: Option<f64>,
    /// Squared distance in sd over their sum; 0 to 1. Null while nothing is known to be unusual: no normal, or all at it.
    pub share: Option<f64>,
}

/// One channel to move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "SPEC.md 3.6, DOMAIN.md 5")]
pub struct CounterfactualStep {
    pub channel: String,
    pub from: f64,
    pub to: f64,
    pub unit: String,
    /// Null for temperatures.
    pub change_percent: Option<f64>,
}

mod severity {
    use catalog::Severity;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(severity.as_str())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Severity, D::Error> {
        let word = <std::borrow::Cow<'a, str>>::deserialize(from)?;
        Severity::from_word(&word).ok_or_else(|| serde::de::Error::custom(format!("no severity {word}")))
    }
}

impl Alert {
    /// The JSON that travels.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an alert has string keys and finite numbers")
    }

    /// Reads an alert; keys that this version does not know are ignored.
    ///
    /// # Errors
    /// It is not an alert.
    pub fn from_json(json: &str) -> Result<Alert, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The machine's id, checked.
    ///
    /// # Errors
    /// The alert was not written by us.
    pub fn machine(&self) -> Result<MachineId, catalog::IdError> {
        MachineId::try_from(&*self.machine_id)
    }
}
