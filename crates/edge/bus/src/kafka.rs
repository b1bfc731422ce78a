//! The bus of a plant: topics of a Kafka cluster.
//!
//! Records are sent to the partition that they name, each acknowledged by every replica in sync; consumers ([`consumer`])
//! are told what they are assigned and begin where their own database says. [`admin`] makes the topics, [`look`] tells how
//! a cluster stands.

pub mod admin;
mod client;
mod consumer;
mod group;
mod letter;
pub mod look;
mod reader;

pub use consumer::KafkaConsumer;
pub use letter::DeadLetter;

use crate::{
    Error as BusError, Message, Outgoing, Record, Topic,
    registry::{self, Schemas, Writer},
};
use client::Context;
use dependency::Dependency;
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig},
    types::RDKafkaErrorCode,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, RwLock, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use wire::Values;

/// Bytes that may wait for a broker.
const QUEUE_BYTES: u64 = 64 << 20;
/// What a record takes beside its value.
const RECORD_BYTES: u64 = 100;
/// How often it is looked whether a producer will never deliver what it was given.
const LOOK_BROKEN: Duration = Duration::from_millis(100);
/// A question to the cluster is given up after this time.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A broker that is gone keeps what it was asked. As long as a new leader may yet be named, the question is put anew after
/// this time;
const ANSWER_TRY: Duration = Duration::from_millis(500);
/// one that is only slow is let answer after that.
const LEADER_NAMED: Duration = Duration::from_secs(4);
/// A partition whose leader changes is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often the ends of the partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was seen longer ago tells nothing: the brokers do not answer.
const SEEN_LATELY: Duration = Duration::from_secs(5);
/// Carries the source of a reading.
const SOURCE_HEADER: &str = "mw-source";

/// How a cluster is reached. The house's own settings are in force where these name no other; acks, idempotence and the
/// partitioner cannot be changed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Settings of every client, by librdkafka's names: `bootstrap.servers`, `security.protocol`, `sasl.mechanism`, ...
    pub settings: BTreeMap<String, String>,
    /// Settings of who sends: `compression.type`, `linger.ms`, ...
    pub producer_settings: BTreeMap<String, String>,
    /// Settings of who reads.
    pub consumer_settings: BTreeMap<String, String>,
    /// How members of a group agree.
    pub protocol: Protocol,
    /// How readings lie in what is sent; what is read may lie in any way.
    pub values: Values,
    /// Stands before the name of every topic: a cluster may hold several plants.
    pub topic_prefix: String,
    /// Where the schemas are that values name, where there is a registry.
    pub registry: Option<registry::Options>,
    /// What is on a partition is the beginning of what was sent to it, whatever failed: the last record tells all. Who
    /// sends waits for brokers that are away, for ever.
    pub gapless: bool,
    /// Members of groups would rather have much at once than soon: a record may come 50 ms later.
    pub patient: bool,
    /// Told whether the brokers answer. Readings are not given to brokers that are known to be away.
    pub brokers: Dependency,
    /// Told whether the registry answers, where it is asked.
    pub schemas: Dependency,
}

impl Options {
    /// A topic's name in the cluster.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.name())
    }

    /// Makes a client of these settings, which reads the files that they name; no broker is waited for.
    ///
    /// # Errors
    /// A setting is none, or has no such value, or a file cannot be used.
    pub fn check(&self) -> Result<(), Error> {
        client::reader(self).map(|_| ())
    }
}

/// How members of a group agree on who has which partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The newer where the brokers have it, else the classic one.
    #[default]
    Auto,
    /// KIP-848: the broker assigns, partitions move one by one.
    Consumer,
    /// With the cooperative-sticky assignor.
    Classic,
}

/// Why the cluster did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("settings of the Kafka client: {0}")]
    Settings(String),
    #[error("topic {0} does not exist: make it with `millwright topics apply`")]
    NoTopic(String),
    #[error("topic {topic} has {found} partitions, too few or too many for the {wanted} of {like}")]
    Partitions { topic: String, found: usize, wanted: usize, like: String },
    #[error("the brokers did not take the records")]
    NotDelivered(#[source] KafkaError),
    #[error("the brokers do not answer")]
    NoAnswer(#[source] KafkaError),
    #[error("the brokers do not let this client in: {0}")]
    NotLetIn(String),
    #[error("read from the brokers")]
    Read(#[source] KafkaError),
    #[error("the brokers gave partition {0} no record within the time")]
    NoRecord(u16),
    #[error("a job of the client panicked")]
    Panicked,
}

/// Topics of a cluster.
#[derive(Clone)]
pub struct KafkaBus(Arc<Inner>);

struct Inner {
    options: Options,
    /// Partitions of the readings.
    partitions: u16,
    producer: RwLock<FutureProducer<Context>>,
    accepting: Mutex<Accepting>,
    /// Nothing waits any more.
    idle: Notify,
    closed: watch::Sender<bool>,
    /// Consumers that leave their group.
    leaving: watch::Sender<usize>,
    /// Asks for the bounds of partitions.
    eyes: Arc<BaseConsumer<Context>>,
    seen: Mutex<Seen>,
    /// The brokers do not know the newer group protocol.
    classic: AtomicBool,
    schemas: Arc<Schemas>,
    /// Of the topics whose values name their schema.
    writers: BTreeMap<Topic, Writer>,
}

/// The partitions of the readings, as last looked at.
struct Seen {
    at: Instant,
    /// Begin and end of each.
    bounds: Vec<(i64, i64)>,
}

struct Accepting {
    closed: bool,
    /// Bytes that wait for a broker.
    waiting: u64,
}

impl KafkaBus {
    pub(crate) async fn connect(options: Options) -> Result<KafkaBus, BusError> {
        let schemas = Schemas::new(options.registry.as_ref(), &options.schemas)?;
        let writers = schemas.writers(options.registry.as_ref(), |topic| options.topic(topic)).await?;
        Ok(blocking(move || KafkaBus::connect_now(options, schemas, writers)).await?)
    }

    fn connect_now(options: Options, schemas: Schemas, writers: BTreeMap<Topic, Writer>) -> Result<KafkaBus, Error> {
        let eyes: BaseConsumer<Context> = client::reader(&options)?;
        let begun = Instant::now();
        let metadata = loop {
            match eyes.fetch_metadata(None, LOOK_EVERY) {
                Ok(metadata) => break metadata,
                Err(error) => {
                    options.brokers.failed(&error);
                    if begun.elapsed() >= ANSWER_MAX {
                        return Err(Error::NoAnswer(error));
                    }
                }
            }
        };
        options.brokers.answered();
        let partitions_of = |topic: Topic| {
            let name = options.topic(topic);
            let found = metadata.topics().iter().find(|found| found.name() == name);
            found.map(|found| found.partitions().len()).ok_or(Error::NoTopic(name))
        };
        let partitions = partitions_of(Topic::Readings)?;
        partitions_of(Topic::Alerts)?;
        let letters = partitions_of(Topic::DeadLetters)?;
        if letters < partitions {
            let (topic, like) = (options.topic(Topic::DeadLetters), options.topic(Topic::Readings));
            return Err(Error::Partitions { topic, found: letters, wanted: partitions, like });
        }
        let inner = Arc::new(Inner {
            partitions: u16::try_from(partitions).unwrap_or(u16::MAX),
            producer: RwLock::new(client::producer(&options)?),
            accepting: Mutex::new(Accepting { closed: false, waiting: 0 }),
            idle: Notify::new(),
            closed: watch::Sender::new(false),
            leaving: watch::Sender::new(0),
            eyes: Arc::new(eyes),
            seen: Mutex::new(Seen { at: Instant::now(), bounds: Vec::new() }),
            classic: AtomicBool::new(options.protocol == Protocol::Classic),
            schemas: Arc::new(schemas),
            writers,
            options,
        });
        inner.look()?;
        let eyes = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("bus-eyes".into())
            .spawn(move || keep_looking(&eyes))
            .expect("the system gives a thread");
        Ok(KafkaBus(inner))
    }

    pub(crate) async fn send(&self, records: Vec<Outgoing>) -> Result<Vec<i64>, BusError> {
        if let Some(away) = self.0.options.brokers.away() {
            return Err(away.into());
        }
        let message = |record: Outgoing| Message {
            partition: record.partition,
            key: record.key.map(|key| key.as_bytes().to_vec()),
            headers: vec![(SOURCE_HEADER.to_owned(), Some(record.source.as_bytes().to_vec()))],
            value: Some(record.value),
        };
        let messages: Vec<Message> = records.into_iter().map(message).collect();
        #[cfg(feature = "planted")]
        if crate::planted("ack_before_write") {
            let (bus, offsets) = (self.clone(), vec![-1; messages.len()]);
            tokio::spawn(async move { bus.publish(Topic::Readings, messages).await });
            return Ok(offsets);
        }
        self.publish(Topic::Readings, messages).await
    }

    pub(crate) async fn publish(&self, topic: Topic, messages: Vec<Message>) -> Result<Vec<i64>, BusError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let messages = self.0.named(topic, messages)?;
        let weight = messages.iter().map(weight).sum();
        self.0.accept(weight)?;
        let (sends, refused) = self.0.enqueue(topic, &messages);
        drop(messages);
        let inner = self.0.clone();
        // Apart, so that the bytes are counted until they are gone even when nobody waits.
        let delivered = tokio::spawn(async move {
            let delivered = inner.settled(sends).await;
            inner.delivered(weight);
            delivered
        });
        let delivered = delivered.await.map_err(|_| Error::Panicked)?;
        match refused.or(delivered.as_ref().err().cloned()) {
            None => Ok(delivered.unwrap_or_default()),
            Some(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => Err(BusError::Busy),
            Some(error) => {
                self.0.replace_broken_producer()?;
                Err(Error::NotDelivered(error).into())
            }
        }
    }

    pub(crate) fn values(&self) -> Values {
        self.0.options.values
    }

    pub(crate) fn schemas(&self) -> Arc<Schemas> {
        self.0.schemas.clone()
    }

    pub(crate) fn consumer(&self, topic: Topic, group: &str) -> Result<KafkaConsumer, Error> {
        KafkaConsumer::join(self.0.clone(), topic, group)
    }

    pub(crate) async fn bounds(&self, topic: Topic, partition: u16) -> Result<(i64, i64), BusError> {
        Ok(self.0.bounds(topic, partition).await?)
    }

    pub(crate) async fn last(&self, topic: Topic, partition: u16) -> Result<Option<Record>, BusError> {
        let inner = self.0.clone();
        Ok(blocking(move || reader::last(&inner, topic, partition)).await?)
    }

    pub(crate) async fn read(
        &self,
        topic: Topic,
        partition: u16,
        from: i64,
        bytes: usize,
    ) -> Result<Vec<Record>, BusError> {
        let inner = self.0.clone();
        Ok(blocking(move || reader::read(&inner, topic, partition, from, bytes)).await?)
    }

    /// Begin and end of each partition of the readings, as last looked at.
    pub(crate) fn seen(&self) -> Vec<(i64, i64)> {
        self.0.seen.lock().expect("never poisoned").bounds.clone()
    }

    pub(crate) fn used(&self) -> (u64, u64) {
        (self.0.accepting.lock().expect("never poisoned").waiting, QUEUE_BYTES)
    }

    pub(crate) async fn close(&self) {
        self.0.accepting.lock().expect("never poisoned").closed = true;
        self.0.closed.send_replace(true);
        loop {
            let mut idle = std::pin::pin!(self.0.idle.notified());
            idle.as_mut().enable();
            if self.used().0 == 0 {
                break;
            }
            idle.await;
        }
        // Who leaves its group properly has its partitions taken over at once.
        let mut leaving = self.0.leaving.subscribe();
        let _ = tokio::time::timeout(ANSWER_MAX, leaving.wait_for(|leaving| *leaving == 0)).await;
    }
}

impl Inner {
    /// Values with the id of their schema, where the topic's have one.
    fn named(&self, topic: Topic, mut messages: Vec<Message>) -> Result<Vec<Message>, registry::Error> {
        if let Some(writer) = self.writers.get(&topic) {
            for value in messages.iter_mut().filter_map(|message| message.value.as_mut()) {
                *value = writer.write(value)?;
            }
        }
        Ok(messages)
    }

    fn accept(&self, weight: u64) -> Result<(), BusError> {
        let mut accepting = self.accepting.lock().expect("never poisoned");
        if accepting.closed {
            return Err(BusError::Closed);
        }
        // A send above the bound passes alone, or it could never be sent.
        if accepting.waiting > 0 && accepting.waiting + weight > QUEUE_BYTES {
            return Err(BusError::Busy);
        }
        accepting.waiting += weight;
        Ok(())
    }

    /// Hands messages to the client in order, up to one that it refuses.
    fn enqueue(&self, topic: Topic, messages: &[Message]) -> (Vec<DeliveryFuture>, Option<KafkaError>) {
        let name = self.options.topic(topic);
        let producer = self.producer.read().expect("never poisoned");
        let mut sends = Vec::with_capacity(messages.len());
        for message in messages {
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for (key, value) in &message.headers {
                headers = headers.insert(Header { key, value: value.as_ref() });
            }
            let record = FutureRecord {
                topic: &name,
                partition: Some(i32::from(message.partition)),
                payload: message.value.as_ref(),
                key: message.key.as_ref(),
                timestamp: None,
                headers: Some(headers),
            };
            match producer.send_result(record) {
                Ok(send) => sends.push(send),
                Err((error, _)) => return (sends, Some(error)),
            }
        }
        (sends, None)
    }

    /// The offsets of what was sent.
    async fn settled(&self, sends: Vec<DeliveryFuture>) -> Result<Vec<i64>, KafkaError> {
        let mut offsets = Vec::with_capacity(sends.len());
        let mut failed = None;
        // All of them, so that none is on its way when the caller sends again.
        for mut send in sends {
            let sent = loop {
                match tokio::time::timeout(LOOK_BROKEN, &mut send).await {
                    Ok(sent) => break sent,
                    Err(_) => self.give_up_if_broken(),
                }
            };
            match sent {
                Ok(Ok(delivery)) => offsets.push(delivery.offset),
                Ok(Err((error, _))) => failed = Some(error),
                Err(_) => failed = Some(KafkaError::Canceled),
            }
        }
        failed.map_or(Ok(offsets), Err)
    }

    /// After a fatal error what waits is left to its timeout; without a gap there is none.
    fn give_up_if_broken(&self) {
        let producer = self.producer.read().expect("never poisoned");
        if producer.client().fatal_error().is_some() {
            producer.purge(PurgeConfig::default().queue());
        }
    }

    fn delivered(&self, weight: u64) {
        let mut accepting = self.accepting.lock().expect("never poisoned");
        accepting.waiting -= weight;
        if accepting.waiting == 0 {
            self.idle.notify_waiters();
        }
    }

    /// After a fatal error a producer takes nothing any more.
    fn replace_broken_producer(&self) -> Result<(), Error> {
        let mut producer = self.producer.write().expect("never poisoned");
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::error!(%code, "the Kafka producer is made anew: {reason}");
            *producer = client::producer(&self.options)?;
        }
        Ok(())
    }

    async fn bounds(self: &Arc<Inner>, topic: Topic, partition: u16) -> Result<(i64, i64), Error> {
        let inner = self.clone();
        blocking(move || inner.bounds_now(topic, partition)).await
    }

    fn bounds_now(&self, topic: Topic, partition: u16) -> Result<(i64, i64), Error> {
        let name = self.options.topic(topic);
        let begun = Instant::now();
        loop {
            let left = ANSWER_MAX.saturating_sub(begun.elapsed());
            let patience = if begun.elapsed() < LEADER_NAMED { ANSWER_TRY } else { left };
            match self.eyes.fetch_watermarks(&name, i32::from(partition), patience) {
                // A new leader does not name an end before its followers have confirmed it; librdkafka gives up earlier.
                Err(error) if consumer::passes(&error) && left > ASK_AGAIN => std::thread::sleep(ASK_AGAIN),
                bounds => return bounds.map_err(Error::NoAnswer),
            }
        }
    }

    /// Asks whether the brokers answer.
    fn ask(&self) -> Result<(), Error> {
        let name = self.options.topic(Topic::Readings);
        match self.eyes.fetch_metadata(Some(&name), LOOK_EVERY) {
            Ok(_) => {
                self.options.brokers.answered();
                Ok(())
            }
            Err(error) => {
                self.options.brokers.failed(&error);
                Err(Error::NoAnswer(error))
            }
        }
    }

    fn look(&self) -> Result<(), Error> {
        // Before asking: it is true of then.
        let at = Instant::now();
        let bounds = (0..self.partitions).map(|partition| self.bounds_now(Topic::Readings, partition));
        let bounds = bounds.collect::<Result<_, _>>()?;
        *self.seen.lock().expect("never poisoned") = Seen { at, bounds };
        Ok(())
    }

    /// The ends of the partitions of the readings, unless the brokers have not answered lately.
    fn ends_lately(&self) -> Option<Vec<i64>> {
        let seen = self.seen.lock().expect("never poisoned");
        (seen.at.elapsed() < SEEN_LATELY).then(|| seen.bounds.iter().map(|(_, end)| *end).collect())
    }
}

/// Looks at the ends of the partitions as long as there is a bus.
fn keep_looking(bus: &Weak<Inner>) {
    let mut pause = LOOK_EVERY;
    loop {
        std::thread::sleep(pause);
        let Some(bus) = bus.upgrade() else { return };
        // Errors and logs of the client come by way of a poll.
        drop(bus.eyes.poll(Duration::ZERO));
        let answers = bus.ask();
        // Who is away is asked all the time: a client that knows no broker answers at once.
        pause = if answers.is_ok() { LOOK_EVERY } else { ASK_AGAIN };
        if let Err(error) = answers.and_then(|()| bus.look()) {
            tracing::debug!(?error, "could not look at the ends of the partitions");
        }
    }
}

fn weight(message: &Message) -> u64 {
    let value = message.value.as_ref().map_or(0, Vec::len);
    let headers: usize = message.headers.iter().map(|(_, value)| value.as_ref().map_or(0, Vec::len)).sum();
    (value + headers) as u64 + RECORD_BYTES
}

/// Runs what waits for the network apart from the runtime.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(job).await.map_err(|_| Error::Panicked)?
}
