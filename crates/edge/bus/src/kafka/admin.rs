//! `topics apply`: the topics as they should be, what differs in the cluster, and making it so.

use super::{ANSWER_MAX, Error, Options, blocking, client};
use crate::Topic;
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use std::{collections::BTreeMap, fmt};

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in the cluster.
    pub name: String,
    /// Its partitions: their number can never be changed, since it tells which machine lives where.
    pub partitions: u16,
    /// Its settings, by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// How long records are kept, milliseconds.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "by topic")]
pub struct Retention {
    pub readings_ms: i64,
    pub alerts_ms: i64,
    pub dead_letters_ms: i64,
}

impl Default for Retention {
    /// Readings a week, alerts a month, dead letters a month.
    fn default() -> Retention {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Retention { readings_ms: 7 * DAY_MS, alerts_ms: 30 * DAY_MS, dead_letters_ms: 30 * DAY_MS }
    }
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is not there.
    Create {
        /// The topic.
        topic: Wanted,
        /// Copies of each partition: three, or as many as there are brokers.
        replication: u16,
    },
    /// A setting is another.
    Set {
        /// The topic's name.
        topic: String,
        /// The setting.
        setting: String,
        /// As it is.
        from: Option<String>,
        /// As it should be.
        to: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { topic, replication } => {
                write!(f, "create {} with {} partitions, {replication} copies", topic.name, topic.partitions)?;
                topic.config.iter().try_for_each(|(name, value)| write!(f, ", {name}={value}"))
            }
            Change::Set { topic, setting, from, to } => {
                write!(f, "{topic}: {setting}={to} (is {})", from.as_deref().unwrap_or("not set"))
            }
        }
    }
}

/// Why topics cannot be made as they should be.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ApplyError {
    #[error("kafka")]
    Kafka(#[from] Error),
    #[error(
        "topic {topic} has {found} partitions, not {wanted}, and machines live on them by that number: stop what uses it, \
         keep its records if they are needed, delete it and apply again, or choose another topic prefix"
    )]
    Partitions { topic: String, found: usize, wanted: u16 },
    #[error("the brokers do not do it")]
    Change(#[source] KafkaError),
    #[error("{what}: {code}")]
    Refused { what: String, code: RDKafkaErrorCode },
}

/// The topics of the house; `heartbeats` are topic prefixes of Debezium connectors, each of which needs a topic that it
/// does not make.
pub fn wanted(options: &Options, retention: Retention, heartbeats: &[String]) -> Vec<Wanted> {
    let topic = |topic: Topic, retention_ms: i64, more: &[(&str, &str)]| {
        let mut config = BTreeMap::from([
            ("cleanup.policy".to_owned(), "delete".to_owned()),
            ("retention.ms".to_owned(), retention_ms.to_string()),
        ]);
        config.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Wanted { name: options.topic(topic), partitions: topic.partitions(), config }
    };
    let large = ("max.message.bytes", client::RECORD_BYTES_MAX);
    let mut all = vec![
        // The arrival of a reading is the broker's time, whoever sent it.
        topic(Topic::Readings, retention.readings_ms, &[large, ("message.timestamp.type", "LogAppendTime")]),
        topic(Topic::Alerts, retention.alerts_ms, &[large]),
        topic(Topic::DeadLetters, retention.dead_letters_ms, &[large]),
    ];
    all.extend(heartbeats.iter().map(|prefix| Wanted {
        name: format!("__debezium-heartbeat.{prefix}"),
        partitions: 1,
        config: BTreeMap::from([
            ("cleanup.policy".to_owned(), "delete".to_owned()),
            ("retention.ms".to_owned(), "86400000".to_owned()),
        ]),
    }));
    all
}

/// What differs in the cluster; nothing is changed.
///
/// # Errors
/// The cluster does not answer; a topic has another number of partitions.
pub async fn difference(options: &Options, wanted: &[Wanted]) -> Result<Vec<Change>, ApplyError> {
    let eyes: BaseConsumer<client::Context> = client::reader(options)?;
    let metadata = blocking(move || {
        let metadata = eyes.fetch_metadata(None, ANSWER_MAX).map_err(Error::NoAnswer)?;
        let topics = metadata.topics().iter();
        let topics: BTreeMap<String, (usize, usize)> = topics
            .map(|topic| {
                let copies = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
                (topic.name().to_owned(), (topic.partitions().len(), copies.unwrap_or(0)))
            })
            .collect();
        Ok((topics, metadata.brokers().len()))
    });
    let (there, brokers) = metadata.await?;
    let replication = brokers.clamp(1, 3) as u16;
    let admin: AdminClient<client::Context> = client::asker(options)?;
    let mut changes = Vec::new();
    for topic in wanted {
        let Some((partitions, copies)) = there.get(&topic.name).copied() else {
            let topic = with_copies(topic, usize::from(replication));
            changes.push(Change::Create { topic, replication });
            continue;
        };
        if partitions != usize::from(topic.partitions) {
            let (topic, wanted) = (topic.name.clone(), topic.partitions);
            return Err(ApplyError::Partitions { topic, found: partitions, wanted });
        }
        let has = settings(&admin, &topic.name).await?;
        for (setting, to) in with_copies(topic, copies).config {
            let from = has.get(&setting).map(|(value, _)| value.clone());
            if from.as_ref() != Some(&to) {
                changes.push(Change::Set { topic: topic.name.clone(), setting, from, to });
            }
        }
    }
    Ok(changes)
}

/// Makes the changes.
///
/// # Errors
/// The cluster does not answer, or refuses one; those before it are made.
pub async fn apply(options: &Options, changes: &[Change]) -> Result<(), ApplyError> {
    let admin: AdminClient<client::Context> = client::asker(options)?;
    let patience = AdminOptions::new().operation_timeout(Some(ANSWER_MAX)).request_timeout(Some(ANSWER_MAX));
    let mut set: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for change in changes {
        match change {
            Change::Create { topic, replication } => {
                let replication = TopicReplication::Fixed(i32::from(*replication));
                let new = NewTopic::new(&topic.name, i32::from(topic.partitions), replication);
                let new = topic.config.iter().fold(new, |new, (name, value)| new.set(name, value));
                let made = admin.create_topics([&new], &patience).await.map_err(ApplyError::Change)?;
                for made in made {
                    match made {
                        // Somebody else was quicker.
                        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                        Err((topic, code)) => {
                            return Err(ApplyError::Refused { what: format!("topic {topic}"), code });
                        }
                    }
                }
            }
            Change::Set { topic, setting, to, .. } => {
                set.entry(topic).or_default().insert(setting, to);
            }
        }
    }
    for (topic, settings_to_change) in set {
        // What is not named here falls back to its default, so everything that was set on the topic is named.
        let has = settings(&admin, topic).await?;
        let own = has.iter().filter(|(_, (_, own))| *own).map(|(name, (value, _))| (name.as_str(), value.as_str()));
        let alter = own
            .chain(settings_to_change)
            .fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |alter, (name, value)| alter.set(name, value));
        for altered in admin.alter_configs([&alter], &patience).await.map_err(ApplyError::Change)? {
            altered.map_err(|(_, code)| ApplyError::Refused { what: format!("topic {topic}"), code })?;
        }
    }
    Ok(())
}

/// With three copies, a record is acknowledged by two of them.
fn with_copies(topic: &Wanted, copies: usize) -> Wanted {
    let mut topic = topic.clone();
    if copies >= 3 {
        topic.config.insert("min.insync.replicas".to_owned(), "2".to_owned());
    }
    topic
}

/// A topic's settings: value, and whether it was set on the topic itself.
async fn settings(
    admin: &AdminClient<client::Context>,
    topic: &str,
) -> Result<BTreeMap<String, (String, bool)>, ApplyError> {
    settings_of(admin, ResourceSpecifier::Topic(topic)).await
}

/// The settings of a topic or a broker: value, and whether it was set on the topic itself.
pub(super) async fn settings_of(
    admin: &AdminClient<client::Context>,
    of: ResourceSpecifier<'_>,
) -> Result<BTreeMap<String, (String, bool)>, ApplyError> {
    let what = match of {
        ResourceSpecifier::Broker(id) => format!("broker {id}"),
        ResourceSpecifier::Group(name) => format!("group {name}"),
        ResourceSpecifier::Topic(name) => format!("topic {name}"),
    };
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
    let mut found = BTreeMap::new();
    for resource in admin.describe_configs(&[of], &options).await.map_err(ApplyError::Change)? {
        let resource = resource.map_err(|code| ApplyError::Refused { what: what.clone(), code })?;
        for entry in resource.entries {
            let own = entry.source == ConfigSource::DynamicTopic;
            found.extend(entry.value.map(|value| (entry.name, (value, own))));
        }
    }
    Ok(found)
}
