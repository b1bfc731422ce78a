//! A look at a cluster from outside: who answers, under which names, and how the topics stand. Changes nothing.

use super::{
    Error, Options,
    admin::{ApplyError, settings_of},
    blocking, client, group,
};
use crate::Topic;
use rdkafka::{
    ClientContext, Statistics,
    admin::{AdminClient, ResourceSpecifier},
    config::RDKafkaLogLevel,
    consumer::{Consumer, ConsumerContext},
    error::KafkaError,
    metadata::{MetadataBroker, MetadataPartition, MetadataTopic},
    types::RDKafkaErrorCode,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What the brokers that answer at the bootstrap address tell of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Every broker, as it names itself to clients (`advertised.listeners`).
    pub brokers: Vec<Broker>,
    /// Every topic, by name; `None` where no broker answered that, and no more is known than what the brokers call themselves.
    pub topics: Option<BTreeMap<String, TopicState>>,
}

/// A broker, where clients are told to go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: u16,
}

/// How a topic stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicState {
    /// Copies of the partition that has the fewest.
    pub copies: usize,
    /// Copies in sync of the partition that has the fewest.
    pub in_sync: usize,
    /// Partitions without a leader: nothing can be read from or written to them.
    pub leaderless: usize,
}

/// Asks whoever answers at `bootstrap.servers`, within about this time. A client that knows brokers asks them alone: where
/// none can be reached under the name that it gave itself, the names are all that comes back.
///
/// # Errors
/// Nobody answers.
pub async fn look(options: &Options, patience: Duration) -> Result<Cluster, Error> {
    let eyes = client::watched(options, STATISTICS_EVERY, Eyes::default())?;
    blocking(move || {
        let metadata = match eyes.fetch_metadata(None, patience) {
            Ok(metadata) => metadata,
            Err(error) => {
                // What the client told of itself meanwhile waits to be heard.
                let until = Instant::now() + 2 * STATISTICS_EVERY;
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    let _ = eyes.poll(left);
                }
                let brokers = eyes.context().brokers();
                return match eyes.context().not_let_in() {
                    Some(why) => Err(Error::NotLetIn(why)),
                    None if brokers.is_empty() => Err(Error::NoAnswer(error)),
                    None => Ok(Cluster { brokers, topics: None }),
                };
            }
        };
        let broker = |broker: &MetadataBroker| Broker {
            id: broker.id(),
            host: broker.host().to_owned(),
            port: u16::try_from(broker.port()).unwrap_or(0),
        };
        let topic = |topic: &MetadataTopic| {
            let partitions = topic.partitions();
            let fewest = |of: fn(&MetadataPartition) -> usize| partitions.iter().map(of).min();
            let state = TopicState {
                copies: fewest(|partition| partition.replicas().len()).unwrap_or(0),
                in_sync: fewest(|partition| partition.isr().len()).unwrap_or(0),
                leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
            };
            (topic.name().to_owned(), state)
        };
        Ok(Cluster {
            brokers: metadata.brokers().iter().map(broker).collect(),
            topics: Some(metadata.topics().iter().map(topic).collect()),
        })
    })
    .await
}

/// How often a client tells which brokers it knows.
const STATISTICS_EVERY: Duration = Duration::from_millis(250);

/// What a client learned.
#[derive(Default)]
struct Eyes {
    /// Brokers by what they call themselves.
    brokers: Mutex<BTreeMap<i32, String>>,
    /// Why TLS or the brokers refused it, the last time.
    not_let_in: Mutex<Option<String>>,
}

impl Eyes {
    fn brokers(&self) -> Vec<Broker> {
        let known = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        let broker = |(id, place): (&i32, &String)| {
            let (host, port) = place.rsplit_once(':')?;
            Some(Broker { id: *id, host: host.to_owned(), port: port.parse().ok()? })
        };
        known.iter().filter_map(broker).collect()
    }

    fn not_let_in(&self) -> Option<String> {
        self.not_let_in.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Eyes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::Context("look").log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication)) {
            *self.not_let_in.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }

    fn stats(&self, statistics: Statistics) {
        // Addresses of `bootstrap.servers` have no number, and coordinators are known once more under other names.
        let named = statistics.brokers.into_values().filter(|broker| broker.nodeid >= 0 && broker.source != "logical");
        let mut known = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(named.map(|broker| (broker.nodeid, broker.nodename)));
    }
}

impl ConsumerContext for Eyes {}

/// Whether a broker coordinates a group of ours: what it keeps of the group can be read.
///
/// # Errors
/// None does, or none answers.
pub async fn coordinated(options: &Options, topic: Topic, group: &str) -> Result<(), Error> {
    let (options, group) = (options.clone(), group.to_owned());
    blocking(move || group::committed(&options, topic, &group, 1).map(|_| ()).map_err(Error::Read)).await
}

/// The group protocols that a broker is set to speak; `None` where its release does not say.
///
/// # Errors
/// It does not answer, or does not tell us.
pub async fn group_protocols(options: &Options, broker: i32) -> Result<Option<String>, ApplyError> {
    let admin: AdminClient<client::Context> = client::asker(options)?;
    let mut settings = settings_of(&admin, ResourceSpecifier::Broker(broker)).await?;
    Ok(settings.remove("group.coordinator.rebalance.protocols").map(|(protocols, _)| protocols))
}
