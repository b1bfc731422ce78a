//! A look at a cluster from outside: who answers, under which names, and how the topics stand. Changes nothing.

use super::{
    ANSWER_MAX, Error, Options,
    admin::{ApplyError, settings_of},
    blocking, client,
};
use rdkafka::{
    admin::{AdminClient, ResourceSpecifier},
    consumer::{BaseConsumer, Consumer},
    metadata::{MetadataBroker, MetadataPartition, MetadataTopic},
};
use std::collections::BTreeMap;

/// What the brokers that answer at the bootstrap address tell of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Every broker, as it names itself to clients (`advertised.listeners`).
    pub brokers: Vec<Broker>,
    /// Every topic, by name.
    pub topics: BTreeMap<String, TopicState>,
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

/// Asks whoever answers at `bootstrap.servers`.
///
/// # Errors
/// Nobody does.
pub async fn look(options: &Options) -> Result<Cluster, Error> {
    let eyes: BaseConsumer<client::Context> = client::reader(options)?;
    blocking(move || {
        let metadata = eyes.fetch_metadata(None, ANSWER_MAX).map_err(Error::NoAnswer)?;
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
            topics: metadata.topics().iter().map(topic).collect(),
        })
    })
    .await
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
