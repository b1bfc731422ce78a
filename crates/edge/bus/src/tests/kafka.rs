//! The bus against a real cluster: `MILLWRIGHT_TEST_KAFKA`, host:port of its brokers.

use super::contract::{self, Harness, Limits, batch, next_records, offsets, started, take};
use crate::{
    Bus, Consumer, DeadLetter, Error, Event, Message, Outgoing, Topic,
    kafka::{
        self, Options, Protocol,
        admin::{self, Change, Retention, Wanted},
        look,
    },
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Topics of a test's own, three partitions each.
pub(super) struct Cluster {
    pub(super) options: Options,
    wanted: Vec<Wanted>,
}

impl Harness for Cluster {
    async fn new() -> Option<Cluster> {
        let options = options()?;
        let mut wanted = admin::wanted(&options, Retention::default(), &[]);
        wanted.iter_mut().for_each(|topic| topic.partitions = 3);
        let changes = admin::difference(&options, &wanted).await.unwrap();
        admin::apply(&options, &changes).await.unwrap();
        Some(Cluster { options, wanted })
    }

    async fn open(&self, _: Limits) -> Bus {
        // A topic that was made a moment ago is not known to every broker yet.
        for _ in 0..100 {
            match Bus::connect(self.options.clone()).await {
                Err(Error::Kafka(kafka::Error::NoTopic(_) | kafka::Error::NoAnswer(_))) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                bus => return bus.unwrap(),
            }
        }
        panic!("the topics do not appear");
    }

    async fn end(self) {
        let names: Vec<&str> = self.wanted.iter().map(|topic| topic.name.as_str()).collect();
        for deleted in self.admin().delete_topics(&names, &AdminOptions::new()).await.unwrap() {
            deleted.unwrap();
        }
    }
}

contract::bus_contract!(Cluster);

fn options() -> Option<Options> {
    static PLANTS: AtomicU32 = AtomicU32::new(0);
    let Ok(brokers) = std::env::var("MILLWRIGHT_TEST_KAFKA") else {
        assert!(std::env::var("MILLWRIGHT_TEST_REQUIRED").is_err(), "MILLWRIGHT_TEST_KAFKA is not set");
        eprintln!("skipped: MILLWRIGHT_TEST_KAFKA is not set (./dev services start)");
        return None;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let topic_prefix = format!("test-{now}-{}-", PLANTS.fetch_add(1, Ordering::Relaxed));
    let settings = BTreeMap::from([("bootstrap.servers".to_owned(), brokers)]);
    Some(Options { settings, topic_prefix, ..Options::default() })
}

impl Cluster {
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        let mut config = ClientConfig::new();
        self.options.settings.iter().for_each(|(name, value)| {
            config.set(name, value);
        });
        config.create().unwrap()
    }

    /// Takes away what lies below an offset, as retention does.
    async fn drop_below(&self, partition: u16, offset: i64) {
        let mut list = TopicPartitionList::new();
        let topic = self.options.topic(Topic::Readings);
        list.add_partition_offset(&topic, i32::from(partition), Offset::Offset(offset)).unwrap();
        self.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    }
}

#[tokio::test]
async fn what_retention_took_is_a_gap() {
    let Some(cluster) = Cluster::new().await else { return };
    let bus = cluster.open(Limits::WIDE).await;
    let mut idle = started(&bus, &[0; 3]).await.unwrap();
    for number in 0..10 {
        bus.send(vec![batch(2, number, 10)]).await.unwrap();
    }
    cluster.drop_below(2, 4).await;
    let refused = started(&bus, &[0; 3]).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Gap { partition: 2, begin: 4, position: 0 })), "{refused:?}");
    // Who had not read it learns it too, and goes on from where records are.
    assert!(matches!(next_records(&mut idle, 100).await, Err(Error::Gap { partition: 2, begin: 4, position: 0 })));
    idle.start(2, 4).await.unwrap();
    let expected: Vec<_> = (4..10).map(|offset| (2, offset)).collect();
    assert_eq!(offsets(&take(&mut idle, 6).await), expected);
    bus.close().await;
    cluster.end().await;
}

/// A member of a group, what it has, and what both members took.
struct Attendant {
    consumer: Consumer,
    has: BTreeSet<u16>,
}

#[derive(Default)]
struct Taken {
    places: BTreeMap<u16, i64>,
    offsets: Vec<(u16, i64)>,
}

impl Attendant {
    /// Takes what comes within a while; starts what is assigned where the one before stood.
    async fn attend(&mut self, taken: &mut Taken) {
        let soon = Duration::from_millis(50);
        let Ok(event) = tokio::time::timeout(soon, self.consumer.next(1000)).await else { return };
        match event.unwrap() {
            Event::Assigned(partitions) => {
                for partition in partitions {
                    assert!(self.has.insert(partition));
                    let from = taken.places.get(&partition).copied().unwrap_or(0);
                    self.consumer.start(partition, from).await.unwrap();
                }
            }
            Event::Revoked(partitions) => partitions.iter().for_each(|partition| assert!(self.has.remove(partition))),
            Event::Records(records) => {
                for record in records {
                    assert!(self.has.contains(&record.partition));
                    taken.places.insert(record.partition, record.offset + 1);
                    taken.offsets.push((record.partition, record.offset));
                }
            }
        }
    }
}

async fn members_share(protocol: Protocol) {
    let Some(mut cluster) = Cluster::new().await else { return };
    cluster.options.protocol = protocol;
    let bus = cluster.open(Limits::WIDE).await;
    let group = cluster.options.topic(Topic::Readings);
    let join = || Attendant { consumer: bus.consumer(Topic::Readings, &group).unwrap(), has: BTreeSet::new() };
    let one_each = |number| (0..3).map(|partition| batch(partition, number, 10)).collect();
    let until = Instant::now() + Duration::from_secs(60);
    let in_time = || assert!(Instant::now() < until, "it takes too long");

    let (mut first, mut taken) = (join(), Taken::default());
    bus.send(one_each(1)).await.unwrap();
    while taken.offsets.len() < 3 {
        in_time();
        first.attend(&mut taken).await;
    }
    let mut second = join();
    while second.has.is_empty() || first.has.len() + second.has.len() < 3 {
        in_time();
        // One after the other, so that each knows where the other stood.
        first.attend(&mut taken).await;
        second.attend(&mut taken).await;
    }
    assert!(first.has.is_disjoint(&second.has));
    bus.send(one_each(2)).await.unwrap();
    while taken.offsets.len() < 6 {
        in_time();
        first.attend(&mut taken).await;
        second.attend(&mut taken).await;
    }
    first.consumer.commit(&taken.places.iter().map(|(partition, next)| (*partition, *next)).collect::<Vec<_>>());
    // Who leaves gives its partitions to who stays.
    drop(first);
    while second.has.len() < 3 {
        in_time();
        second.attend(&mut taken).await;
    }
    taken.offsets.sort_unstable();
    assert_eq!(taken.offsets, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    drop(second);
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn members_of_a_group_share_the_partitions() {
    members_share(Protocol::Auto).await;
}

#[tokio::test]
async fn members_of_a_classic_group_share_the_partitions() {
    members_share(Protocol::Classic).await;
}

#[tokio::test]
async fn a_reading_keeps_its_key_and_source_and_is_stamped_by_the_broker() {
    let Some(cluster) = Cluster::new().await else { return };
    let bus = cluster.open(Limits::WIDE).await;
    let keyed = Outgoing { key: Some("machine-001".into()), source: "simulate".into(), ..batch(1, 7, 10) };
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    bus.send(vec![keyed, Outgoing { value: Vec::new(), ..batch(1, 8, 0) }]).await.unwrap();
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    let records = take(&mut consumer, 2).await;
    assert_eq!(records[0].key.as_deref(), Some(&b"machine-001"[..]));
    assert_eq!((&*records[0].source, records[0].headers.len()), ("simulate", 0));
    assert!(records[0].arrived_us >= before * 1000, "sent as of 7 s after 1970");
    assert!(records[1].value.is_empty());
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn the_last_record_and_a_stretch_are_read_without_a_group() {
    let Some(cluster) = Cluster::new().await else { return };
    let bus = cluster.open(Limits::WIDE).await;
    assert!(bus.last(Topic::Alerts, 0).await.unwrap().is_none());
    let message = |number: u8| Message {
        partition: 0,
        key: Some(b"m".to_vec()),
        headers: vec![("id".to_owned(), Some(vec![b'0' + number])), ("none".to_owned(), None)],
        value: Some(vec![number; 10]),
    };
    assert_eq!(bus.publish(Topic::Alerts, (0..5).map(message).collect()).await.unwrap(), [0, 1, 2, 3, 4]);
    let last = bus.last(Topic::Alerts, 0).await.unwrap().unwrap();
    assert_eq!((last.offset, last.header("id"), last.headers.len()), (4, Some("4"), 2));
    assert_eq!(last.headers[1], ("none".to_owned(), None));
    assert_eq!(offsets(&bus.read(Topic::Alerts, 0, 1, 25).await.unwrap()), [(0, 1), (0, 2)]);
    assert_eq!(bus.read(Topic::Alerts, 0, 5, 25).await.unwrap().len(), 0);
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_dead_letter_tells_what_it_is_of() {
    let Some(cluster) = Cluster::new().await else { return };
    let bus = cluster.open(Limits::WIDE).await;
    let letter = DeadLetter {
        partition: 2,
        offset: 41,
        index: 3,
        arrived_us: 1_767_225_600_123_000,
        key: Some(b"m\xff".to_vec()),
        value: b"{".to_vec(),
        code: "not_json",
        error: "EOF".to_owned(),
    };
    let message = letter.message("sensor-raw-data", "ingest", "0.1.0");
    bus.publish(Topic::DeadLetters, vec![message]).await.unwrap();
    let record = bus.last(Topic::DeadLetters, 2).await.unwrap().unwrap();
    assert_eq!(DeadLetter::origin(&record), Some((41, 3)));
    assert_eq!((record.key.as_deref(), &record.value[..]), (Some(&b"m\xff"[..]), &b"{"[..]));
    let headers: Vec<_> =
        record.headers.iter().map(|(name, _)| (name.as_str(), record.header(name).unwrap())).collect();
    assert_eq!(
        headers,
        [
            ("x-error-code", "not_json"),
            ("x-error", "EOF"),
            ("x-orig-topic", "sensor-raw-data"),
            ("x-orig-partition", "2"),
            ("x-orig-offset", "41"),
            ("x-orig-index", "3"),
            ("x-orig-ts", "1767225600123"),
            ("x-service", "ingest"),
            ("x-version", "0.1.0"),
        ]
    );
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn topics_are_made_mended_and_left_alone() {
    let Some(cluster) = Cluster::new().await else { return };
    let options = &cluster.options;
    // They appear on every broker a little later.
    drop(cluster.open(Limits::WIDE).await);
    assert_eq!(admin::difference(options, &cluster.wanted).await.unwrap(), []);
    let mut wanted = cluster.wanted.clone();
    wanted[0].config.insert("retention.ms".to_owned(), "3600000".to_owned());
    let changes = admin::difference(options, &wanted).await.unwrap();
    let set = |change: &Change| change.to_string().ends_with("sensor-raw-data: retention.ms=3600000 (is 604800000)");
    assert!(matches!(&changes[..], [change] if set(change)), "{changes:?}");
    admin::apply(options, &changes).await.unwrap();
    let mended = async {
        while !admin::difference(options, &wanted).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), mended).await.expect("what was set before stays set");
    wanted[1].partitions = 4;
    let refused = admin::difference(options, &wanted).await;
    assert!(matches!(refused, Err(admin::ApplyError::Partitions { found: 3, wanted: 4, .. })), "{refused:?}");
    let heartbeat = admin::wanted(options, Retention::default(), &["plant".to_owned()]).pop().unwrap();
    assert_eq!((heartbeat.name.as_str(), heartbeat.partitions), ("__debezium-heartbeat.plant", 1));
    cluster.end().await;
}

#[tokio::test]
async fn without_its_topics_a_cluster_is_refused() {
    let Some(options) = options() else { return };
    let refused = Bus::connect(options).await.map(|_| ());
    assert!(matches!(&refused, Err(Error::Kafka(kafka::Error::NoTopic(topic))) if topic.ends_with("sensor-raw-data")));
}

#[tokio::test]
async fn without_brokers_the_senders_are_told() {
    let Some(mut cluster) = Cluster::new().await else { return };
    cluster.options.producer_settings.insert("message.timeout.ms".to_owned(), "300".to_owned());
    // As though they were gone: the producer alone does not find them.
    cluster.options.producer_settings.insert("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned());
    let bus = cluster.open(Limits::WIDE).await;
    let refused = bus.send(vec![batch(0, 1, 10)]).await;
    assert!(matches!(refused, Err(Error::Kafka(kafka::Error::NotDelivered(_)))), "{refused:?}");
    assert_eq!(bus.used().0, 0);
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn behind_a_record_that_cannot_be_taken_none_is() {
    let Some(mut cluster) = Cluster::new().await else { return };
    // Each record a request of its own, several of them under way at once.
    for (name, value) in [("batch.num.messages", "1"), ("linger.ms", "0"), ("compression.type", "none")] {
        cluster.options.producer_settings.insert(name.to_owned(), value.to_owned());
    }
    cluster.options.gapless = true;
    let bus = cluster.open(Limits::WIDE).await;
    cluster.wanted[1].config.insert("max.message.bytes".to_owned(), "2000".to_owned());
    let changes = admin::difference(&cluster.options, &cluster.wanted).await.unwrap();
    admin::apply(&cluster.options, &changes).await.unwrap();
    let message = |bytes: usize, at: usize| Message {
        partition: 1,
        key: Some(at.to_string().into()),
        headers: Vec::new(),
        value: Some(vec![b'x'; bytes]),
    };
    let keys = async || {
        let records = bus.read(Topic::Alerts, 1, 0, usize::MAX).await.unwrap();
        records.iter().map(|record| String::from_utf8_lossy(record.key.as_deref().unwrap()).into_owned()).collect()
    };
    // The brokers follow their setting a moment later.
    let mut taken = 0;
    while bus.publish(Topic::Alerts, vec![message(5_000, taken)]).await.is_ok() {
        taken += 1;
    }
    for _ in 0..5 {
        let messages = (0..400).map(|at| message(if at == 200 { 5_000 } else { 10 }, taken + at)).collect();
        let refused = bus.publish(Topic::Alerts, messages).await;
        assert!(matches!(refused, Err(Error::Kafka(kafka::Error::NotDelivered(_)))), "{refused:?}");
        let found: Vec<String> = keys().await;
        assert_eq!(found, (0..found.len()).map(|at| at.to_string()).collect::<Vec<_>>(), "there is a gap");
        assert!(found.len() <= taken + 200);
        taken = found.len();
    }
    // It is well again.
    bus.publish(Topic::Alerts, vec![message(10, taken)]).await.unwrap();
    assert_eq!(keys().await.len(), taken + 1);
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn the_end_of_a_partition_that_its_new_leader_does_not_tell_yet_is_asked_for_again() {
    let cluster = MockCluster::new(1).unwrap();
    let settings = BTreeMap::from([("bootstrap.servers".to_owned(), cluster.bootstrap_servers())]);
    let options = Options { settings, ..Options::default() };
    Topic::ALL.iter().for_each(|topic| cluster.create_topic(&options.topic(*topic), 1, 1).unwrap());
    let bus = Bus::connect(options).await.unwrap();
    let message = Message { partition: 0, key: None, headers: Vec::new(), value: Some(b"one".to_vec()) };
    bus.publish(Topic::Readings, vec![message]).await.unwrap();
    // More than librdkafka tries by itself.
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE; 20]);
    assert_eq!(bus.bounds(Topic::Readings, 0).await.unwrap(), (0, 1));
    // What does not pass is told at once.
    cluster.request_errors(
        RDKafkaApiKey::ListOffsets,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 20],
    );
    let refused = bus.bounds(Topic::Readings, 0).await;
    assert!(matches!(refused, Err(Error::Kafka(kafka::Error::NoAnswer(_)))), "{refused:?}");
    bus.close().await;
}

/// What leads to the secure listeners; `authority` is the file of who is trusted, none where it is empty.
fn secure(mechanism: &str, password: &str, authority: &str) -> Option<Options> {
    let mut options = options()?;
    let (brokers, folder) =
        (std::env::var("MILLWRIGHT_TEST_KAFKA_TLS").unwrap(), std::env::var("MILLWRIGHT_TEST_TLS").unwrap());
    for (name, value) in [
        ("bootstrap.servers", brokers),
        ("security.protocol", "SASL_SSL".to_owned()),
        ("sasl.mechanism", mechanism.to_owned()),
        ("sasl.username", "millwright".to_owned()),
        ("sasl.password", password.to_owned()),
    ] {
        options.settings.insert(name.to_owned(), value);
    }
    if !authority.is_empty() {
        options.settings.insert("ssl.ca.location".to_owned(), format!("{folder}/{authority}"));
    }
    Some(options)
}

#[tokio::test]
async fn brokers_are_reached_over_tls_by_who_is_known_to_them() {
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let Some(options) = secure(mechanism, "for-tests-only", "ca.pem") else { return };
        let wanted = admin::wanted(&options, Retention::default(), &[]);
        let cluster = Cluster { options, wanted };
        admin::apply(&cluster.options, &admin::difference(&cluster.options, &cluster.wanted).await.unwrap())
            .await
            .unwrap();
        let bus = cluster.open(Limits::WIDE).await;
        let mut reader = started(&bus, &[0; 6]).await.unwrap();
        bus.send(vec![batch(2, 1, 10)]).await.unwrap();
        assert_eq!(offsets(&take(&mut reader, 1).await), [(2, 0)], "{mechanism}");
        bus.close().await;
        cluster.end().await;
    }
}

#[tokio::test]
async fn who_is_not_known_to_the_brokers_learns_it() {
    for (password, authority, wanted) in [
        ("wrong", "ca.pem", "Authentication failed"),
        ("for-tests-only", "stranger.pem", "certificate verify failed"),
        ("for-tests-only", "", "certificate verify failed"),
    ] {
        let Some(options) = secure("SCRAM-SHA-512", password, authority) else { return };
        let told =
            look::look(&options, Duration::from_secs(4)).await.map(|_| ()).map_err(|error| dependency::chain(&error));
        assert!(told.as_ref().is_err_and(|told| told.contains(wanted)), "{wanted}: {told:?}");
    }
}
