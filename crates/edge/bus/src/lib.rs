//! Topics, partitions, offsets, bytes. A reading is only bytes here.
//!
//! [`Bus`] is an enum of what can carry it; embedded it is SQLite, one row per batch, group commit, `synchronous=FULL`; in
//! a plant it is Kafka, acks=all. Positions are not kept here: they live in the database of each consumer's effects.

pub mod kafka;
pub mod registry;
mod sqlite;
mod stopped;
mod topic;

pub use kafka::DeadLetter;
pub use registry::Schemas;
pub use stopped::Stopped;
pub use topic::Topic;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use wire::Values;

/// What carries readings from the door to the services.
#[derive(Clone)]
pub enum Bus {
    /// `bus.db` inside one process.
    Sqlite(sqlite::SqliteBus),
    /// Topics of a cluster.
    Kafka(kafka::KafkaBus),
}

/// How a bus is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// File of the embedded bus.
    pub path: PathBuf,
    /// Partitions of `sensor-raw-data`.
    pub partitions: u16,
    /// Records older than this may be dropped, microseconds of arrival.
    pub retention_us: i64,
    /// Oldest records may be dropped above this size; above it with nothing to drop the bus is full.
    pub retention_bytes: u64,
}

/// A record to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Of `sensor-raw-data`; a batch holds machines of this one only.
    pub partition: u16,
    /// Embedded: when it arrived. Kafka stamps it itself.
    pub arrived_us: i64,
    /// `http`, `simulate`, `file`, `mended`.
    pub source: Arc<str>,
    /// Readings in the value, for lag and retention figures.
    pub rows: u32,
    /// The machine of a value that is one reading; embedded it is not kept.
    pub key: Option<Arc<str>>,
    /// Readings.
    pub value: Vec<u8>,
}

/// A record for any topic of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its partition.
    pub partition: u16,
    /// Its key, where it has one.
    pub key: Option<Vec<u8>>,
    /// In this order; a header may have no value.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its value, where it has one.
    pub value: Option<Vec<u8>>,
}

/// A record as it lies on the bus.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its partition.
    pub partition: u16,
    /// Its place there.
    pub offset: i64,
    /// When it arrived; of Kafka whole milliseconds.
    pub arrived_us: i64,
    /// As it was sent; of a foreign producer's record the topic.
    pub source: Arc<str>,
    /// Readings in the value as its sender counted them; of Kafka 1.
    pub rows: u32,
    /// Of Kafka, where it has one.
    pub key: Option<Arc<[u8]>>,
    /// Of Kafka, without the one that became `source`.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Empty where it has none. One that names its schema is read by [`Schemas::content`].
    pub value: Arc<[u8]>,
}

impl Record {
    /// The value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.iter().find(|(header, _)| header == name)?.1.as_deref()?;
        std::str::from_utf8(value).ok()
    }
}

/// What a consumer learns next.
#[derive(Debug)]
pub enum Event {
    /// These partitions are this consumer's; nothing of one comes before [`Consumer::start`] names its place.
    Assigned(Vec<u16>),
    /// These are no longer, or not known to be; finish what is in hand before the next call, which gives them away.
    Revoked(Vec<u16>),
    /// At least one. Those of one partition stand together in order of offset.
    Records(Vec<Record>),
}

/// Why the bus did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("the bus is full: {used} of {limit} bytes hold records that a consumer still needs")]
    Full { used: u64, limit: u64 },
    #[error("too much waits to be written to the bus")]
    Busy,
    #[error("partition {partition} ends at {end}, below the position {position}: the log was cut or made anew")]
    Truncated { partition: u16, end: i64, position: i64 },
    #[error("partition {partition} begins at {begin}, above the position {position}: records are gone")]
    Gap { partition: u16, begin: i64, position: i64 },
    #[error("the bus is closed")]
    Closed,
    #[error("the embedded bus has no topic {0}")]
    NoTopic(&'static str),
    #[error("kafka")]
    Kafka(#[from] kafka::Error),
    #[error("the bus cannot be written")]
    Away(#[from] dependency::Away),
    #[error("schema registry")]
    Registry(#[from] registry::Error),
    #[error("bus.db is in use by another process: bus.lock beside it is held")]
    Locked,
    #[error("bus.lock")]
    Lock(#[source] std::io::Error),
    #[error("bus.db is another program's database")]
    NotOurs,
    #[error("bus.db: this release knows schema {known}, the file has {found}")]
    Schema { known: u32, found: u32 },
    #[error("bus.db has {found} partitions, not {wanted}: their number is fixed when the file is made")]
    Partitions { found: usize, wanted: usize },
    #[error("bus.db")]
    Sqlite(#[from] rusqlite::Error),
    #[error("bus.db: commit")]
    Commit(#[source] Arc<rusqlite::Error>),
}

impl Bus {
    /// Opens the embedded bus; makes it when there is none. One process at a time has it open.
    ///
    /// # Errors
    /// [`Error::Locked`]; the file cannot be opened, or is not ours.
    pub fn open(options: Options) -> Result<Bus, Error> {
        Ok(Bus::Sqlite(sqlite::SqliteBus::open(&options)?))
    }

    /// Connects to a cluster whose topics were made (`topics apply`).
    ///
    /// # Errors
    /// A setting is wrong, no broker answers, or a topic is missing; the registry has not the schema of what is sent.
    pub async fn connect(options: kafka::Options) -> Result<Bus, Error> {
        Ok(Bus::Kafka(kafka::KafkaBus::connect(options).await?))
    }

    /// Sends readings; when it returns they are durable, and these are their offsets, in order. What was accepted is
    /// written even when the caller no longer waits. Embedded all or none; on Kafka an error leaves open which of them
    /// were written, and to send them again gives duplicates, which ingest finds.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Busy`], [`Error::Commit`], [`Error::Kafka`]: try again later.
    pub async fn send(&self, records: Vec<Outgoing>) -> Result<Vec<i64>, Error> {
        match self {
            Bus::Sqlite(bus) => bus.send(records).await,
            Bus::Kafka(bus) => bus.send(records).await,
        }
    }

    /// Sends to a topic as [`Bus::send`] does; embedded there is none to be sent to.
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Busy`], [`Error::Kafka`].
    pub async fn publish(&self, topic: Topic, messages: Vec<Message>) -> Result<Vec<i64>, Error> {
        match self {
            Bus::Sqlite(_) => Err(Error::NoTopic(topic.name())),
            Bus::Kafka(bus) => bus.publish(topic, messages).await,
        }
    }

    /// A consumer of a topic in a group; embedded it has every partition. Its first event tells what is assigned.
    ///
    /// # Errors
    /// [`Error::NoTopic`]; a setting is wrong.
    pub fn consumer(&self, topic: Topic, group: &str) -> Result<Consumer, Error> {
        match (self, topic) {
            (Bus::Sqlite(bus), Topic::Readings) => Ok(Consumer(Log::Sqlite(bus.consumer()))),
            (Bus::Sqlite(_), topic) => Err(Error::NoTopic(topic.name())),
            (Bus::Kafka(bus), topic) => Ok(Consumer(Log::Kafka(Box::new(bus.consumer(topic, group)?)))),
        }
    }

    /// First offset that is there and next one to be written, of a partition.
    ///
    /// # Errors
    /// [`Error::NoTopic`]; the cluster does not answer.
    pub async fn bounds(&self, topic: Topic, partition: u16) -> Result<(i64, i64), Error> {
        match (self, topic) {
            (Bus::Sqlite(bus), Topic::Readings) => Ok(bus.bounds(partition)),
            (Bus::Sqlite(_), topic) => Err(Error::NoTopic(topic.name())),
            (Bus::Kafka(bus), topic) => bus.bounds(topic, partition).await,
        }
    }

    /// The last record of a partition that is still there; embedded only readings are.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn last(&self, topic: Topic, partition: u16) -> Result<Option<Record>, Error> {
        match self {
            Bus::Sqlite(_) => Err(Error::NoTopic(topic.name())),
            Bus::Kafka(bus) => bus.last(topic, partition).await,
        }
    }

    /// Records of a partition from an offset on, up to its end as it is now, at most `bytes` of values unless the first
    /// alone is larger. None: it has no more. No group is joined.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn read(&self, topic: Topic, partition: u16, from: i64, bytes: usize) -> Result<Vec<Record>, Error> {
        match self {
            Bus::Sqlite(_) => Err(Error::NoTopic(topic.name())),
            Bus::Kafka(bus) => bus.read(topic, partition, from, bytes).await,
        }
    }

    /// How readings are to be put into what is sent.
    pub fn values(&self) -> Values {
        match self {
            Bus::Sqlite(_) => Values::Binary,
            Bus::Kafka(bus) => bus.values(),
        }
    }

    /// What is known of the schemas that values name; embedded none does.
    pub fn schemas(&self) -> Arc<Schemas> {
        match self {
            Bus::Sqlite(_) => Arc::default(),
            Bus::Kafka(bus) => bus.schemas(),
        }
    }

    /// Whether it is this process's own: it holds our binary batches only, and no other topic than the readings.
    pub fn is_embedded(&self) -> bool {
        matches!(self, Bus::Sqlite(_))
    }

    /// Next offset of the readings to be written, per partition. Of Kafka as of a look at most a second ago.
    pub fn ends(&self) -> Vec<i64> {
        match self {
            Bus::Sqlite(bus) => bus.ends(),
            Bus::Kafka(bus) => bus.seen().into_iter().map(|(_, end)| end).collect(),
        }
    }

    /// First offset of the readings that is there, per partition. Of Kafka as of a look at most a second ago.
    pub fn begins(&self) -> Vec<i64> {
        match self {
            Bus::Sqlite(bus) => bus.begins(),
            Bus::Kafka(bus) => bus.seen().into_iter().map(|(begin, _)| begin).collect(),
        }
    }

    /// Readings at and above these offsets (one a partition), by source. Of Kafka it is records, all under the topic's
    /// name: what they hold is known once they are read.
    ///
    /// # Errors
    /// The bus cannot be read.
    pub fn rows_from(&self, offsets: &[i64]) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        match self {
            Bus::Sqlite(bus) => bus.rows_from(offsets),
            Bus::Kafka(bus) => {
                let waiting = |((_, end), from): ((i64, i64), &i64)| (end - from).max(0) as u64;
                let rows = bus.seen().into_iter().zip(offsets).map(waiting).sum();
                Ok(BTreeMap::from([(Topic::Readings.name().into(), rows)]))
            }
        }
    }

    /// Keeps every record at and above these offsets until the same holder says otherwise. Holds live as long as the
    /// process: each holder names its own before the first `send` after a start. Without any hold nothing is dropped.
    /// Kafka keeps what its topic's retention says, whatever is held.
    pub fn hold(&self, holder: &'static str, from: &[i64]) {
        match self {
            Bus::Sqlite(bus) => bus.hold(holder, from),
            Bus::Kafka(_) => {}
        }
    }

    /// Bytes on the bus, and the limit; of Kafka bytes that wait for a broker, and their limit.
    pub fn used(&self) -> (u64, u64) {
        match self {
            Bus::Sqlite(bus) => bus.used(),
            Bus::Kafka(bus) => bus.used(),
        }
    }

    /// Finishes what was accepted, then refuses; embedded it checkpoints and closes the file.
    pub async fn close(&self) {
        match self {
            Bus::Sqlite(bus) => bus.close().await,
            Bus::Kafka(bus) => bus.close().await,
        }
    }
}

/// Reads records in order of offset per partition, fair between partitions.
pub struct Consumer(Log);

enum Log {
    Sqlite(sqlite::SqliteConsumer),
    Kafka(Box<kafka::KafkaConsumer>),
}

impl Consumer {
    /// What comes next; waits for it. Records: at least one, at most `bytes` of values unless the first alone is larger,
    /// none of a partition that is not started. Cancel-safe: nothing is taken when it is dropped.
    ///
    /// # Errors
    /// The bus cannot be read or is closed; [`Error::Gap`] and [`Error::Truncated`]: what comes next for a partition is
    /// gone, or was never there, and another consumer may go on; [`Error::Registry`]: what comes next cannot be read
    /// without it, and is not passed over.
    pub async fn next(&mut self, bytes: usize) -> Result<Event, Error> {
        match &mut self.0 {
            Log::Sqlite(consumer) => consumer.next(bytes).await,
            Log::Kafka(consumer) => consumer.next(bytes).await,
        }
    }

    /// Reads an assigned partition from this offset on, whatever was read of it before. What lies below is not
    /// delivered. Offsets need not be dense: Kafka leaves holes where transactions end or a compaction was, so only a
    /// log that begins above the offset is a gap.
    ///
    /// # Errors
    /// [`Error::Gap`]: it stays as it was. [`Error::Truncated`]: nothing of it comes, and [`Consumer::caught_up`] waits
    /// for none. Another offset can be tried.
    pub async fn start(&mut self, partition: u16, offset: i64) -> Result<(), Error> {
        match &mut self.0 {
            Log::Sqlite(consumer) => consumer.start(partition, offset),
            Log::Kafka(consumer) => consumer.start(partition, offset).await,
        }
    }

    /// Tells the group the next offsets, for tools that show lag: no position is ever read from there. Does not wait.
    pub fn commit(&self, next: &[(u16, i64)]) {
        match &self.0 {
            Log::Sqlite(_) => {}
            Log::Kafka(consumer) => consumer.commit(next),
        }
    }

    /// To be told where a write was fenced off: another consumer went on from a position of this one. Two that are in groups
    /// of different names, since no broker coordinated one of them for a while, find together by that.
    pub fn overtaken(&mut self) {
        match &mut self.0 {
            Log::Sqlite(_) => {}
            Log::Kafka(consumer) => consumer.overtaken(),
        }
    }

    /// Something is assigned, all of it is started or stopped, and nothing waits; of Kafka nothing that is older than a
    /// second, and its brokers answer.
    pub fn caught_up(&self) -> bool {
        match &self.0 {
            Log::Sqlite(consumer) => consumer.caught_up(),
            Log::Kafka(consumer) => consumer.caught_up(),
        }
    }
}

/// Whether this known bug is in.
#[cfg(feature = "planted")]
pub fn planted(bug: &str) -> bool {
    std::env::var("MILLWRIGHT_PLANTED").is_ok_and(|planted| planted == bug)
}

#[cfg(test)]
mod tests;
