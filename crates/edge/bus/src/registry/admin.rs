//! `schemas apply` and `schemas check`: the subjects as they should be, what differs in the registry, and making it so.

use super::{Error, Format, Options, Registry, Subject, body, name};
use crate::Topic;
use reqwest::Method;
use serde_json::json;
use std::fmt;

/// What differs.
#[derive(Debug, Clone)]
pub enum Change {
    /// The subject has not our schema.
    Register {
        /// Its name.
        subject: String,
        /// What it lacks.
        wanted: Subject,
    },
    /// Its versions are held against each other in another way.
    Level {
        /// Its name.
        subject: String,
        /// As it is; `None` where nothing is set.
        from: Option<String>,
        /// As it should be.
        to: &'static str,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Register { subject, wanted } => {
                write!(f, "{subject}: register the {} schema", wanted.format.as_str())
            }
            Change::Level { subject, from, to } => {
                write!(f, "{subject}: compatibility={to} (is {})", from.as_deref().unwrap_or("not set"))
            }
        }
    }
}

impl Format {
    /// How a later schema must fit the ones before it.
    ///
    /// Avro: readers of either side read the other's values. JSON Schema without further keys cannot have that, since an
    /// added key is refused by the one before; but all that were written stay readable, and no key can go.
    fn level(self) -> &'static str {
        match self {
            Format::Json => "BACKWARD",
            Format::Avro => "FULL",
        }
    }
}

/// What differs in the registry; nothing is changed. `topic` gives a topic's name in the cluster.
///
/// # Errors
/// The registry does not answer.
pub async fn difference(options: &Options, topic: impl Fn(Topic) -> String) -> Result<Vec<Change>, Error> {
    let registry = Registry::new(options)?;
    let mut changes = Vec::new();
    for wanted in &options.subjects {
        let subject = name(&topic(wanted.topic));
        let exists = latest(&registry, &subject).await?;
        let from = if exists { level(&registry, &subject).await? } else { None };
        let to = wanted.format.level();
        let level = (from.as_deref() != Some(to)).then(|| Change::Level { subject: subject.clone(), from, to });
        let is_there = exists && registry.find(&subject, wanted).await?.is_some();
        let register = (!is_there).then(|| Change::Register { subject, wanted: wanted.clone() });
        // Where there are versions already the new one is held against them by the right measure.
        if exists {
            changes.extend(level.into_iter().chain(register));
        } else {
            changes.extend(register.into_iter().chain(level));
        }
    }
    Ok(changes)
}

/// Makes the changes.
///
/// # Errors
/// The registry does not answer, or refuses one; those before it are made.
pub async fn apply(options: &Options, changes: &[Change]) -> Result<(), Error> {
    let registry = Registry::new(options)?;
    for change in changes {
        match change {
            Change::Register { subject, wanted } => {
                done(registry.ask(Method::POST, &format!("/subjects/{subject}/versions"), Some(body(wanted))).await?)?;
            }
            Change::Level { subject, to, .. } => {
                let level = json!({ "compatibility": to });
                done(registry.ask(Method::PUT, &format!("/config/{subject}"), Some(level)).await?)?;
            }
        }
    }
    Ok(())
}

/// Each subject, and why our schema does not fit what the registry has of it; `None`: it does, or nothing is there yet.
///
/// # Errors
/// The registry does not answer.
pub async fn check(options: &Options, topic: impl Fn(Topic) -> String) -> Result<Vec<(String, Option<String>)>, Error> {
    let registry = Registry::new(options)?;
    let mut told = Vec::new();
    for wanted in &options.subjects {
        let subject = name(&topic(wanted.topic));
        let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
        let mut why = None;
        if latest(&registry, &subject).await?
            && let Some(answer) = registry.ask(Method::POST, &path, Some(body(wanted))).await?
            && answer["is_compatible"] != true
        {
            // Apicurio gives a text, Confluent a list.
            let messages = answer["messages"].as_array().map(|_| answer["messages"].to_string());
            why = Some(answer["reason"].as_str().map(str::to_owned).or(messages).unwrap_or_default());
        }
        told.push((subject, why));
    }
    Ok(told)
}

/// Whether a subject has a version.
async fn latest(registry: &Registry, subject: &str) -> Result<bool, Error> {
    Ok(registry.ask(Method::GET, &format!("/subjects/{subject}/versions/latest"), None).await?.is_some())
}

async fn level(registry: &Registry, subject: &str) -> Result<Option<String>, Error> {
    let answer = registry.ask(Method::GET, &format!("/config/{subject}"), None).await?;
    Ok(answer.and_then(|answer| answer["compatibilityLevel"].as_str().map(str::to_owned)))
}

/// A subject that vanished meanwhile is not there to be changed.
fn done(answer: Option<serde_json::Value>) -> Result<(), Error> {
    let refused = || Error::Refused { status: reqwest::StatusCode::NOT_FOUND, message: "no such subject".into() };
    answer.map(drop).ok_or_else(refused)
}
