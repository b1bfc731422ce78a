//! What lines become of which facts.

use super::*;
use bus::kafka::{
    admin::Wanted,
    look::{Broker, TopicState},
};
use std::collections::BTreeMap;

const TOPICS: [&str; 3] = ["sensor-raw-data", "anomaly-alerts", "sensor-raw-data.dlq"];

fn server() -> Server {
    Server {
        version: 150_004,
        standby: false,
        wal_level: "logical".to_owned(),
        slots_keep: Some(1 << 30),
        may_replicate: true,
        ahead_us: 1_200,
        ahead_unsure_us: 300,
        slots: vec![SlotState {
            name: "millwright_relay".to_owned(),
            active: true,
            status: "reserved".to_owned(),
            retained: 4096,
        }],
    }
}

fn database(which: Which) -> Database {
    let applied =
        |number: u32, name: &str| Migration { number, name: name.to_owned(), applied_us: Some(1), newer: false };
    Database {
        which,
        place: "127.0.0.1:5432/plant".to_owned(),
        server: Ok(server()),
        migrations: Some(Ok(vec![applied(1, "0001_detect"), applied(2, "0002_relay")])),
    }
}

/// A plant of three brokers in which everything is well.
fn well() -> Facts {
    let state = TopicState { copies: 3, in_sync: 3, leaderless: 0 };
    let broker = |id: i32| Broker { id, host: "127.0.0.1".to_owned(), port: 9091 + id as u16 };
    let node = Node {
        version: "7.0.15".to_owned(),
        replica: false,
        used: 1000,
        max: 0,
        policy: "noeviction".to_owned(),
        cluster_ok: None,
    };
    Facts {
        kafka: Kafka {
            seeds: vec![("127.0.0.1:9092".to_owned(), None)],
            cluster: Some(Ok(Cluster {
                brokers: (1..=3).map(broker).collect(),
                topics: Some(TOPICS.iter().map(|name| ((*name).to_owned(), state)).collect()),
            })),
            away: Vec::new(),
            topics: TOPICS.map(str::to_owned).to_vec(),
            changes: Some(Ok(Vec::new())),
            protocols: Some(Ok(Some("classic,consumer".to_owned()))),
            groups: vec![("ingestor-group", None), ("portal-group", None)],
            wanted: GroupProtocol::Auto,
        },
        main: database(Which::Main),
        ai: database(Which::Ai),
        slot: "millwright_relay".to_owned(),
        relay: RelayKind::Millwright,
        redis: vec![("127.0.0.1:6379".to_owned(), Ok(node))],
        registry: None,
        portal: Portal { address: SocketAddr::from(([127, 0, 0, 1], 8080)), port: Port::Ours { wrong: None } },
        cut: Some(Vec::new()),
    }
}

/// The lines that are not ok once `change` has happened to a plant in which everything is well.
fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = well();
    change(&mut facts);
    let lines = judge(&facts);
    assert!(lines.iter().all(|line| (line.state == State::Ok) == line.next.is_none()), "what is wrong has a next step");
    lines.iter().filter(|line| line.state != State::Ok).map(ToString::to_string).collect()
}

/// One line is not ok: it begins so and holds all of these.
#[track_caller]
fn check(change: impl FnOnce(&mut Facts), begin: &str, parts: &[&str]) {
    let lines = wrong(change);
    let [line] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(line.starts_with(begin), "{line}");
    for part in parts {
        assert!(line.contains(part), "{line}\n{part}");
    }
}

fn cluster(facts: &mut Facts) -> &mut Cluster {
    facts.kafka.cluster.as_mut().unwrap().as_mut().unwrap()
}

fn topics(facts: &mut Facts) -> &mut BTreeMap<String, TopicState> {
    cluster(facts).topics.as_mut().unwrap()
}

fn ai(facts: &mut Facts) -> &mut Server {
    facts.ai.server.as_mut().unwrap()
}

fn node(facts: &mut Facts) -> &mut Node {
    facts.redis[0].1.as_mut().unwrap()
}

fn set(setting: &str, from: &str, to: &str) -> Change {
    let (topic, setting) = (TOPICS[0].to_owned(), setting.to_owned());
    Change::Set { topic, setting, from: Some(from.to_owned()), to: to.to_owned() }
}

#[test]
fn a_plant_that_is_well_is_told_so() {
    let lines = judge(&well());
    assert!(lines.iter().all(|line| line.state == State::Ok), "{lines:#?}");
    let checks: Vec<&str> = lines.iter().map(|line| line.check.as_str()).collect();
    assert_eq!(
        checks,
        [
            "kafka",
            "kafka advertised.listeners",
            "topic sensor-raw-data",
            "topic anomaly-alerts",
            "topic sensor-raw-data.dlq",
            "kafka groups",
            "postgres.main",
            "postgres.main clock",
            "postgres.main tables",
            "postgres.ai",
            "postgres.ai clock",
            "postgres.ai tables",
            "postgres.ai wal_level",
            "postgres.ai max_slot_wal_keep_size",
            "postgres.ai slot millwright_relay",
            "positions",
            "redis 127.0.0.1:6379",
            "portal",
        ]
    );
    assert_eq!(lines[0].to_string(), "ok    kafka: 3 brokers answer at bus.brokers");
}

#[test]
fn a_broker_that_names_itself_where_nobody_reaches_it() {
    check(
        |facts| {
            cluster(facts).brokers[1].host = "kafka-2".to_owned();
            facts.kafka.away = vec![(2, "failed to lookup address information".to_owned())];
        },
        "FAIL  kafka advertised.listeners: 127.0.0.1:9092 answers",
        &["broker 2 is at kafka-2:9093", "failed to lookup", "next: set advertised.listeners of broker 2"],
    );
}

#[test]
fn brokers_that_are_not_there() {
    let nobody = |facts: &mut Facts| {
        facts.kafka.seeds[0].1 = Some("connection refused".to_owned());
        (facts.kafka.cluster, facts.kafka.changes, facts.kafka.protocols) = (None, None, None);
    };
    check(nobody, "FAIL  kafka: nobody accepts connections at 127.0.0.1:9092 (connection refused)", &["bus.brokers"]);
    let stranger = |facts: &mut Facts| {
        facts.kafka.cluster = Some(Err("the brokers do not answer".to_owned()));
        (facts.kafka.changes, facts.kafka.protocols) = (None, None);
    };
    check(stranger, "FAIL  kafka: something accepts", &["security.protocol"]);
    let one = |facts: &mut Facts| facts.kafka.seeds.push(("127.0.0.1:9093".to_owned(), Some("refused".to_owned())));
    check(one, "warn  kafka: 3 brokers answer, and not at 127.0.0.1:9093 (refused)", &[]);
}

#[test]
fn topics_that_are_not_as_they_should_be() {
    let missing = |facts: &mut Facts| {
        topics(facts).remove(TOPICS[0]);
        let topic = Wanted { name: TOPICS[0].to_owned(), partitions: 6, config: BTreeMap::new() };
        facts.kafka.changes = Some(Ok(vec![Change::Create { topic, replication: 3 }]));
    };
    check(missing, "FAIL  topic sensor-raw-data: does not exist", &["millwright topics apply"]);
    let differs = |change: Change| move |facts: &mut Facts| facts.kafka.changes = Some(Ok(vec![change]));
    check(
        differs(set("message.timestamp.type", "CreateTime", "LogAppendTime")),
        "FAIL  topic sensor-raw-data: sensor-raw-data: message.timestamp.type=LogAppendTime (is CreateTime)",
        &["topics apply"],
    );
    check(differs(set("retention.ms", "1", "2")), "warn  topic sensor-raw-data", &["leave it where it is meant"]);
    let partitions = |facts: &mut Facts| facts.kafka.changes = Some(Err("has 3 partitions, not 6".to_owned()));
    check(partitions, "FAIL  kafka topics: has 3 partitions, not 6", &[]);
    let state = |copies, in_sync, leaderless| {
        move |facts: &mut Facts| {
            topics(facts).insert(TOPICS[1].to_owned(), TopicState { copies, in_sync, leaderless });
        }
    };
    check(state(1, 1, 0), "warn  topic anomaly-alerts: 1 copy of each partition on 3 brokers", &["raise it to 3"]);
    check(state(3, 2, 0), "warn  topic anomaly-alerts: 2 in sync of 3 copies", &[]);
    check(state(3, 0, 2), "FAIL  topic anomaly-alerts: 2 partitions are without a leader", &[]);
    let one_broker = |facts: &mut Facts| {
        cluster(facts).brokers.truncate(1);
        TOPICS.iter().for_each(|name| {
            topics(facts).insert((*name).to_owned(), TopicState { copies: 1, in_sync: 1, leaderless: 0 });
        });
    };
    assert_eq!(wrong(one_broker), Vec::<String>::new(), "one broker has one copy");
}

#[test]
fn positions_that_their_log_does_not_reach() {
    let cut = vec!["ingest: partition 2 of sensor-raw-data from 20 to 0 (its log has 0 to 10)".to_owned()];
    check(
        |facts| facts.cut = Some(cut),
        "FAIL  positions: the log ends below them: ingest: partition 2 of sensor-raw-data from 20 to 0",
        &["stand still", "millwright topics resume --dry-run"],
    );
}

#[test]
fn group_protocols() {
    let case = |protocols: Result<Option<&str>, &str>, wanted| {
        let protocols = protocols.map(|named| named.map(str::to_owned)).map_err(str::to_owned);
        move |facts: &mut Facts| (facts.kafka.protocols, facts.kafka.wanted) = (Some(protocols), wanted)
    };
    assert!(wrong(case(Ok(None), GroupProtocol::Auto)).is_empty());
    assert!(wrong(case(Ok(Some("classic")), GroupProtocol::Classic)).is_empty());
    check(case(Ok(Some("classic")), GroupProtocol::Consumer), "FAIL  kafka groups", &["bus.group_protocol = \"auto\""]);
    check(case(Ok(None), GroupProtocol::Consumer), "warn  kafka groups", &[]);
    check(case(Err("not authorized"), GroupProtocol::Auto), "warn  kafka groups", &["not authorized"]);
}

#[test]
fn groups_that_no_broker_coordinates() {
    check(
        |facts| facts.kafka.groups[1].1 = Some("NotCoordinator".to_owned()),
        "FAIL  kafka groups: no broker coordinates portal-group (NotCoordinator)",
        &["start the brokers again", "other names"],
    );
}

#[test]
fn databases() {
    let away = |facts: &mut Facts| facts.main.server = Err("connection refused".to_owned());
    let lines = wrong(|facts| {
        away(facts);
        facts.main.migrations = None;
    });
    assert_eq!(
        lines,
        ["FAIL  postgres.main: 127.0.0.1:5432/plant does not answer: connection refused; next: start it, or set \
          postgres.main to where it is; does its pg_hba.conf let this user in?"]
    );
    check(
        |facts| ai(facts).version = 130_009,
        "FAIL  postgres.ai: 127.0.0.1:5432/plant, PostgreSQL 13.9 is too old",
        &[],
    );
    check(|facts| ai(facts).standby = true, "FAIL  postgres.ai:", &["takes no writes", "primary"]);
    check(|facts| ai(facts).ahead_us = -7_000_000, "FAIL  postgres.ai clock: 7.000 s behind this machine's", &["NTP"]);
    check(|facts| ai(facts).ahead_us = 1_500_000, "warn  postgres.ai clock: 1.500 s ahead of this machine's", &[]);
    let slow = |facts: &mut Facts| (ai(facts).ahead_us, ai(facts).ahead_unsure_us) = (1_500_000, 1_000_000);
    assert!(wrong(slow).is_empty(), "a slow answer is no wrong clock");
    let tables = |facts: &mut Facts| facts.ai.migrations.as_mut().unwrap().as_mut().unwrap()[1].applied_us = None;
    check(tables, "FAIL  postgres.ai tables: not applied: 0002_relay", &["millwright db migrate"]);
    let newer = |facts: &mut Facts| facts.ai.migrations.as_mut().unwrap().as_mut().unwrap()[1].newer = true;
    check(newer, "warn  postgres.ai tables: of a later release: 0002_relay", &[]);
    let edited = |facts: &mut Facts| facts.ai.migrations = Some(Err("migration 0001 was edited".to_owned()));
    check(edited, "FAIL  postgres.ai tables: migration 0001 was edited", &[]);
}

#[test]
fn the_log_of_the_ai_database() {
    check(
        |facts| ai(facts).wal_level = "replica".to_owned(),
        "FAIL  postgres.ai wal_level: replica",
        &["wal_level = logical"],
    );
    check(|facts| ai(facts).may_replicate = false, "FAIL  postgres.ai role", &["replication"]);
    check(|facts| ai(facts).slots_keep = None, "warn  postgres.ai max_slot_wal_keep_size: not set", &["20GB"]);
    check(
        |facts| ai(facts).slots.clear(),
        "warn  postgres.ai slot millwright_relay: not there yet",
        &["millwright relay"],
    );
    let slot = |active: bool, status: &str, retained: u64| {
        let status = status.to_owned();
        move |facts: &mut Facts| {
            let slot = &mut ai(facts).slots[0];
            (slot.active, slot.status, slot.retained) = (active, status, retained);
        }
    };
    let name = "postgres.ai slot millwright_relay";
    check(
        slot(false, "reserved", 5),
        &format!("warn  {name}: nobody reads it, reserved, keeps 5 bytes of the log"),
        &[],
    );
    check(slot(true, "extended", 1 << 29), &format!("warn  {name}"), &["536870912 bytes", "50 %"]);
    check(slot(true, "extended", 900 << 20), &format!("FAIL  {name}"), &["87 %"]);
    check(slot(false, "lost", 0), &format!("FAIL  {name}"), &["makes a new slot"]);
    let left = |facts: &mut Facts| {
        let name = "millwright_debezium".to_owned();
        let status = "reserved".to_owned();
        ai(facts).slots.push(SlotState { name, active: false, status, retained: 77 });
    };
    let dropped = "pg_drop_replication_slot('millwright_debezium')";
    check(left, "warn  postgres.ai slot millwright_debezium: nobody reads it, and it keeps 77 bytes", &[dropped]);
}

#[test]
fn those_who_do_not_trust_each_other() {
    for (wrong, part) in [
        ("the brokers do not let this client in: SSL handshake failed: certificate verify failed", "ssl.ca.location"),
        ("the brokers do not let this client in: SASL error: Authentication failed", "sasl.password"),
        ("the brokers do not let this client in: no mechanism", "docs/security.md"),
    ] {
        let facts = |facts: &mut Facts| {
            facts.kafka.cluster = Some(Err(wrong.to_owned()));
            (facts.kafka.changes, facts.kafka.protocols) = (None, None);
        };
        check(facts, &format!("FAIL  kafka: {wrong}; next: "), &[part]);
    }
    for (wrong, part) in [
        ("invalid peer certificate: UnknownIssuer", "sslrootcert in postgres.ai"),
        ("invalid peer certificate: certificate not valid for name \"db\"", "a name that is in its certificate"),
        ("invalid peer certificate: certificate expired: verification time 1", "a new certificate"),
        ("server does not support TLS", "ssl = on"),
    ] {
        let facts = |facts: &mut Facts| (facts.ai.server, facts.ai.migrations) = (Err(wrong.to_owned()), None);
        let begin = format!("FAIL  postgres.ai: 127.0.0.1:5432/plant is not trusted: {wrong}; next: ");
        check(facts, &begin, &[part]);
    }
    let redis = |wrong: &'static str| move |facts: &mut Facts| facts.redis[0].1 = Err(wrong.to_owned());
    let begin = "FAIL  redis 127.0.0.1:6379: is not trusted";
    check(redis("invalid peer certificate: UnknownIssuer"), begin, &["redis.ca"]);
    check(redis("received corrupt message of type InvalidContentType"), begin, &["redis://"]);
}

#[test]
fn redis_and_the_portal() {
    check(|facts| facts.redis.clear(), "warn  redis: redis.url is empty", &[]);
    check(
        |facts| facts.redis[0].1 = Err("refused".to_owned()),
        "FAIL  redis 127.0.0.1:6379: does not answer: refused",
        &[],
    );
    check(|facts| node(facts).replica = true, "FAIL  redis 127.0.0.1:6379: is a replica", &[]);
    check(|facts| node(facts).cluster_ok = Some(false), "FAIL  redis 127.0.0.1:6379: its cluster", &[]);
    let policy = |policy: &str, max| {
        let policy = policy.to_owned();
        move |facts: &mut Facts| (node(facts).policy, node(facts).max) = (policy, max)
    };
    check(policy("allkeys-lru", 4000), "warn  redis 127.0.0.1:6379: maxmemory-policy is allkeys-lru", &["noeviction"]);
    check(policy("noeviction", 1200), "warn  redis 127.0.0.1:6379: 1000 of 1200 bytes", &["maxmemory"]);
    assert!(wrong(policy("allkeys-lru", 0)).is_empty(), "without a bound nothing is evicted");
    assert!(wrong(|facts| facts.portal.port = Port::Free).is_empty());
    check(
        |facts| facts.portal.port = Port::Stranger,
        "FAIL  portal: another program has 127.0.0.1:8080",
        &["portal.port"],
    );
    let waits = |facts: &mut Facts| facts.portal.port = Port::Ours { wrong: Some("portal: kafka".to_owned()) };
    check(waits, "warn  portal: the portal at http://127.0.0.1:8080 is not ready: portal: kafka", &[]);
    check(
        |facts| facts.portal.port = Port::Refused("denied".to_owned()),
        "FAIL  portal: 127.0.0.1:8080 cannot",
        &["denied"],
    );
}

#[test]
fn schema_registries() {
    let of = |changes, named| {
        move |facts: &mut Facts| {
            facts.registry = Some(Registry { place: "http://127.0.0.1:8081".to_owned(), changes, named });
        }
    };
    assert_eq!(wrong(of(Ok(Vec::new()), true)), [] as [String; 0]);
    let away = of(Err("it does not answer".to_owned()), false);
    check(away, "FAIL  registry: http://127.0.0.1:8081 is of no use: it does not answer", &["registry.url"]);
    let stranger = of(Err("invalid peer certificate: UnknownIssuer".to_owned()), false);
    check(stranger, "FAIL  registry: http://127.0.0.1:8081 is not trusted: invalid peer certificate", &["registry.ca"]);
    let level = registry::admin::Change::Level { subject: "a-value".to_owned(), from: None, to: "FULL" };
    let says = "registry: a-value: compatibility=FULL (is not set)";
    check(of(Ok(vec![level.clone()]), true), &format!("FAIL  {says}"), &["schemas apply"]);
    check(of(Ok(vec![level]), false), &format!("warn  {says}"), &["schemas apply"]);
}
