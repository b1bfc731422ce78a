//! The clients: their settings, and what they tell of themselves.

use super::{Error, Options};
use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, ConsumerContext},
    error::KafkaError,
    producer::FutureProducer,
};
use std::{collections::BTreeMap, time::Duration};

/// Largest record: as the topics are made.
pub(super) const RECORD_BYTES_MAX: &str = "16777216";

/// Of every client: a lost broker is noticed and left within seconds, not tens of them.
const COMMON: [(&str, &str); 7] = [
    ("client.id", "millwright"),
    ("retry.backoff.ms", "20"),
    ("retry.backoff.max.ms", "200"),
    ("reconnect.backoff.ms", "20"),
    ("reconnect.backoff.max.ms", "200"),
    ("topic.metadata.refresh.fast.interval.ms", "50"),
    ("allow.auto.create.topics", "false"),
];

/// The intake answers after `message.timeout.ms` at the latest; a broker's death is over in less.
const PRODUCER: [(&str, &str); 7] = [
    ("compression.type", "lz4"),
    ("linger.ms", "1"),
    ("message.timeout.ms", "10000"),
    ("message.max.bytes", RECORD_BYTES_MAX),
    // The bus has a bound of its own, below this one.
    ("queue.buffering.max.kbytes", "262144"),
    ("queue.buffering.max.messages", "10000000"),
    ("statistics.interval.ms", "5000"),
];

/// What every promise rests on.
const PRODUCER_FIXED: [(&str, &str); 3] =
    [("acks", "all"), ("enable.idempotence", "true"), ("partitioner", "murmur2_random")];

/// What is given up would leave a hole between the records around it, so nothing is: it is tried until it is there, and
/// what can never be there is the end of the producer.
const PRODUCER_GAPLESS: [(&str, &str); 2] = [("enable.gapless.guarantee", "true"), ("message.timeout.ms", "0")];

const CONSUMER: [(&str, &str); 5] = [
    ("fetch.error.backoff.ms", "20"),
    // How late the end of a partition is noticed.
    ("fetch.wait.max.ms", "100"),
    // What may lie in memory per partition.
    ("queued.max.messages.kbytes", "8192"),
    // How late it is seen that it has room again: after the default, a second, it had long been empty.
    ("fetch.queue.backoff.ms", "10"),
    ("statistics.interval.ms", "5000"),
];

/// Positions live in the database of the effects: nothing is committed or reset behind its back.
const CONSUMER_FIXED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
];

/// The brokers gather what comes, at most so long: a transaction of whoever takes it holds more, and the brokers are asked
/// less often, 20 times a second where it was once a record.
const PATIENT: [(&str, &str); 2] = [("fetch.min.bytes", "65536"), ("fetch.wait.max.ms", "50")];

fn settings(options: &Options, of_kind: &[(&str, &str)], own: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in COMMON.iter().chain(of_kind) {
        config.set(*name, *value);
    }
    for (name, value) in options.settings.iter().chain(own) {
        config.set(name, value);
    }
    // OpenSSL is linked in and knows of no folder of this machine: librdkafka then looks where systems keep their authorities.
    let secure = config.get("security.protocol").is_some_and(|protocol| protocol.to_ascii_lowercase().ends_with("ssl"));
    if secure && config.get("ssl.ca.location").is_none() && config.get("ssl.ca.pem").is_none() {
        config.set("ssl.ca.location", "probe");
    }
    config
}

/// Without the value that was refused: it may be a password.
fn wrong_settings(error: KafkaError) -> Error {
    Error::Settings(match error {
        KafkaError::ClientConfig(_, why, ..) => why,
        other => other.to_string(),
    })
}

fn fix(config: &mut ClientConfig, fixed: &[(&str, &str)]) {
    for (name, value) in fixed {
        config.set(*name, *value);
    }
}

pub(super) fn producer(options: &Options) -> Result<FutureProducer<Context>, Error> {
    let mut config = settings(options, &PRODUCER, &options.producer_settings);
    fix(&mut config, &PRODUCER_FIXED);
    if options.gapless {
        fix(&mut config, &PRODUCER_GAPLESS);
    }
    config.create_with_context(Context("producer")).map_err(wrong_settings)
}

/// Who asks and changes things.
pub(super) fn asker<C: FromClientConfigAndContext<Context>>(options: &Options) -> Result<C, Error> {
    settings(options, &[], &BTreeMap::new()).create_with_context(Context("admin")).map_err(wrong_settings)
}

/// Who reads without a group.
pub(super) fn reader(options: &Options) -> Result<BaseConsumer<Context>, Error> {
    watched(options, Duration::ZERO, Context("reader"))
}

/// The same, and so often it tells of itself.
pub(super) fn watched<C: ConsumerContext>(
    options: &Options,
    tells_every: Duration,
    context: C,
) -> Result<BaseConsumer<C>, Error> {
    // Asked for by librdkafka; no such group is ever joined.
    outside(options, "millwright-reader", tells_every, context)
}

/// Who asks what a group has committed, and does not join it.
pub(super) fn outsider(options: &Options, group: &str) -> Result<BaseConsumer<Context>, Error> {
    outside(options, group, Duration::ZERO, Context("outsider"))
}

fn outside<C: ConsumerContext>(
    options: &Options,
    group: &str,
    tells_every: Duration,
    context: C,
) -> Result<BaseConsumer<C>, Error> {
    let mut config = settings(options, &CONSUMER, &options.consumer_settings);
    fix(&mut config, &CONSUMER_FIXED);
    config.set("statistics.interval.ms", tells_every.as_millis().to_string());
    config.set("group.id", group);
    config.create_with_context(context).map_err(wrong_settings)
}

/// Who reads in a group.
pub(super) fn member<C, M>(options: &Options, group: &str, classic: bool, context: C) -> Result<M, Error>
where
    C: ConsumerContext,
    M: FromClientConfigAndContext<C>,
{
    let kind: Vec<_> = CONSUMER.iter().chain(PATIENT.iter().filter(|_| options.patient)).copied().collect();
    let mut config = settings(options, &kind, &options.consumer_settings);
    fix(&mut config, &CONSUMER_FIXED);
    config.set("group.id", group);
    if classic {
        config.set("group.protocol", "classic");
        config.set("partition.assignment.strategy", "cooperative-sticky");
        let mut default = |name: &str, value: &str| {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        };
        default("session.timeout.ms", "6000");
        default("heartbeat.interval.ms", "1500");
    } else {
        config.set("group.protocol", "consumer");
        // There the brokers say it.
        config.remove("session.timeout.ms");
        config.remove("heartbeat.interval.ms");
    }
    config.create_with_context(context).map_err(wrong_settings)
}

/// What a client tells of itself, by what it is for.
#[derive(Clone)]
pub(super) struct Context(pub(super) &'static str);

impl ConsumerContext for Context {}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(client = self.0, facility, "{message}");
            }
            _ => tracing::warn!(client = self.0, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is an error to librdkafka.
        if !matches!(error, KafkaError::PartitionEOF(_)) {
            tracing::debug!(client = self.0, %error, "{reason}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        metrics::gauge!("millwright_kafka_requests_waiting", "client" => self.0)
            .set(statistics.brokers.values().map(|broker| broker.waitresp_cnt).sum::<i64>() as f64);
        let slowest = statistics.brokers.values().filter_map(|broker| broker.rtt.as_ref()).map(|rtt| rtt.p99).max();
        metrics::gauge!("millwright_kafka_answer_seconds", "client" => self.0)
            .set(slowest.unwrap_or_default() as f64 / 1e6);
        let failed: u64 = statistics.brokers.values().map(|broker| broker.txerrs + broker.rxerrs).sum();
        metrics::counter!("millwright_kafka_request_errors_total", "client" => self.0).absolute(failed);
        if statistics.client_type == "producer" {
            metrics::gauge!("millwright_kafka_unsent_bytes").set(statistics.msg_size as f64);
        }
        for (topic, partition) in statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values().map(|partition| (&topic.topic, partition)))
        {
            // What is not assigned has no place of its own.
            if statistics.client_type == "consumer" && partition.app_offset >= 0 && partition.hi_offset >= 0 {
                let lag = (partition.hi_offset - partition.app_offset).max(0);
                let labels = [
                    ("topic", topic.clone()),
                    ("partition", partition.partition.to_string()),
                    ("client", self.0.to_owned()),
                ];
                metrics::gauge!("millwright_kafka_lag_records", &labels).set(lag as f64);
            }
        }
    }
}
