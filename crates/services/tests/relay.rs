//! The relay between a real PostgreSQL and a real cluster: `MILLWRIGHT_TEST_POSTGRES_AI` and `MILLWRIGHT_TEST_KAFKA`.

use crate::{kafka, room::soon};
use bus::{Bus, Message, Record, Topic, kafka::Options};
use engine::Effects;
use rdkafka::{Offset, TopicPartitionList, admin::AdminOptions};
use services::relay;
use std::{ops::Range, sync::Arc, time::Duration};
use store::{
    Step, Store,
    postgres::{Pools, Sizes, Which, migrate},
    relay::Books,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{
    Alert, AlertText, Direction, Kind, LimitSource, Position, READINGS_TOPIC, Reason, ReasonTerm, partition_of,
};

/// The database of who has no need of one.
pub const NOWHERE: &str = "postgresql://nobody@127.0.0.1:1/nothing";

/// What the topic holds of a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub id: String,
    key: String,
    kind: String,
    traceparent: Option<String>,
    value: String,
}

impl Told {
    pub fn of(record: &Record) -> Told {
        let names: Vec<&str> = record.headers.iter().take(3).map(|(name, _)| &**name).collect();
        assert_eq!(names, ["id", "eventType", "traceparent"]);
        let header = |name: &str| record.header(name).map(str::to_owned);
        Told {
            id: header("id").unwrap(),
            key: String::from_utf8(record.key.as_deref().unwrap().to_vec()).unwrap(),
            kind: header("eventType").unwrap(),
            traceparent: header("traceparent"),
            value: String::from_utf8(record.value.to_vec()).unwrap(),
        }
    }

    /// As Debezium writes it.
    fn message(self) -> Message {
        Message {
            partition: partition_of(&self.key, Topic::Alerts.partitions()),
            key: Some(self.key.into()),
            headers: vec![
                ("id".into(), Some(self.id.into())),
                ("eventType".into(), Some(self.kind.into())),
                ("traceparent".into(), self.traceparent.map(Into::into)),
            ],
            value: Some(self.value.into()),
        }
    }
}

/// A database and topics of a test's own.
pub struct Rig {
    pub options: Options,
    pub bus: Bus,
    server: Client,
    pub client: Client,
    pub database: String,
    pub url: String,
    pub slot: String,
}

pub struct Running {
    task: JoinHandle<()>,
    bus: Bus,
    ready: watch::Receiver<bool>,
}

impl Running {
    pub async fn ready(&mut self) {
        let ready = self.ready.wait_for(|ready| *ready);
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("it is ready").unwrap();
    }

    /// Nothing is confirmed any more; what the brokers were given arrives.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        self.bus.close().await;
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Rig {
    pub async fn new() -> Option<Rig> {
        let Ok(address) = std::env::var("MILLWRIGHT_TEST_POSTGRES_AI") else {
            assert!(std::env::var("MILLWRIGHT_TEST_REQUIRED").is_err(), "MILLWRIGHT_TEST_POSTGRES_AI is not set");
            eprintln!("skipped: MILLWRIGHT_TEST_POSTGRES_AI is not set (./dev services start)");
            return None;
        };
        let (options, bus) = kafka::connect().await?;
        let database = format!("mw_test_{}", Uuid::now_v7().simple());
        let server = connect(&address).await;
        server.batch_execute(&format!("create database {database}")).await.unwrap();
        let url = format!("{}/{database}", address.rsplit_once('/').unwrap().0);
        migrate(&url, Which::Ai).await.unwrap();
        let client = connect(&url).await;
        let slot = format!("{database}_relay");
        Some(Rig { options: Options { gapless: true, ..options }, bus, server, client, database, url, slot })
    }

    /// As in a process of its own, started again where it fails.
    pub async fn start(&self) -> Running {
        let bus = Bus::connect(self.options.clone()).await.unwrap();
        let (tell, ready) = watch::channel(false);
        let parts = relay::Parts {
            bus: bus.clone(),
            url: self.url.clone(),
            slot: self.slot.clone(),
            books: Books::new(&self.url, &Default::default()).unwrap(),
            ready: Arc::new(tell),
        };
        let task = tokio::spawn(async move {
            while let Err(error) = relay::run(parts.clone(), CancellationToken::new()).await {
                // The server may not have noticed yet that nobody reads from the slot.
                eprintln!("{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Running { task, bus, ready }
    }

    /// The databases of detect and of the portal.
    pub fn store(&self, main: &str) -> Store {
        let sizes = Sizes { write: 1, read: 1 };
        let pools = |url: &str, which| Pools::new(url, which, "test", sizes).unwrap();
        Store::postgres(pools(&self.url, Which::Ai), pools(main, Which::Main))
    }

    async fn commit(&self, seconds: Range<i64>) {
        commit(&self.store(NOWHERE), seconds).await;
    }

    async fn drop_slot(&self) {
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        soon("the slot is free", async || self.client.execute(sql, &[&self.slot]).await.is_ok()).await;
    }

    /// The rows of the outbox in order of commit.
    pub async fn rows(&self) -> Vec<Told> {
        let sql = "select id::text, aggregateid, type, traceparent, payload::text from outbox order by position";
        let rows = self.client.query(sql, &[]).await.unwrap();
        let told = |row: &tokio_postgres::Row| Told {
            id: row.get(0),
            key: row.get(1),
            kind: row.get(2),
            traceparent: row.get(3),
            value: row.get(4),
        };
        rows.iter().map(told).collect()
    }

    async fn count(&self) -> usize {
        count(&self.bus).await
    }

    /// Every row of the outbox is on the topic once, on its machine's partition, in order of commit.
    async fn all_once(&self) -> Vec<Record> {
        let rows = self.rows().await;
        soon("every row is on the topic", async || self.count().await >= rows.len()).await;
        let (expected, mut found, mut all) = (by_partition(rows), Vec::new(), Vec::new());
        for partition in 0..Topic::Alerts.partitions() {
            let records = records(&self.bus, partition).await;
            found.push(records.iter().map(Told::of).collect::<Vec<_>>());
            all.extend(records);
        }
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(ids(found), ids(expected));
        }
        assert!(found == expected, "the bytes of a record differ");
        all
    }

    pub async fn end(self) {
        self.drop_slot().await;
        self.server.batch_execute(&format!("drop database {} with (force)", self.database)).await.unwrap();
        kafka::end(&self.options, &self.bus).await;
    }
}

/// Commits alerts as detect does, one a second of event time, of seven machines in turn.
pub async fn commit(store: &Store, seconds: Range<i64>) {
    let alerts = seconds.clone().map(|second| alert(&format!("m-{}", second % 7), second)).collect();
    let effects = Effects { alerts, ..Effects::default() };
    let (from, to) = (seconds.start, seconds.end);
    let step = Step { partition: 0, from, to, effects: &effects, sources: &[], activation: None };
    store.commit(vec![step]).await.unwrap();
}

/// Rows on the partitions of their machines.
pub fn by_partition(rows: Vec<Told>) -> Vec<Vec<Told>> {
    let mut lists: Vec<Vec<Told>> = (0..Topic::Alerts.partitions()).map(|_| Vec::new()).collect();
    for row in rows {
        lists[usize::from(partition_of(&row.key, Topic::Alerts.partitions()))].push(row);
    }
    lists
}

pub fn ids(list: &[Told]) -> Vec<&str> {
    list.iter().map(|told| &*told.id).collect()
}

/// Records of all partitions.
pub async fn count(bus: &Bus) -> usize {
    let mut count = 0;
    for partition in 0..Topic::Alerts.partitions() {
        count += bus.bounds(Topic::Alerts, partition).await.unwrap().1;
    }
    count as usize
}

pub async fn records(bus: &Bus, partition: u16) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let next = records.last().map_or(0, |last| last.offset + 1);
        let more = bus.read(Topic::Alerts, partition, next, usize::MAX).await.unwrap();
        if more.is_empty() {
            return records;
        }
        records.extend(more);
    }
}

fn alert(machine: &str, second: i64) -> Alert {
    let position = Position { topic: READINGS_TOPIC.into(), partition: 0, offset: second, index: 3 };
    let timestamp = 1_767_225_600_000_000 + second * 1_000_000 + second;
    let id = wire::alert_id(machine, "overstrain", Kind::Raised, timestamp, &position);
    let term = |measured: f64| ReasonTerm {
        quantity: "strain".into(),
        term: "strain_min_nm".into(),
        measured,
        limit: 11_000.0,
        unit: "min*Nm".into(),
        direction: Direction::Above,
        margin: measured - 11_000.0,
        limit_source: LimitSource::Class,
    };
    let hard = [0.1 + 0.2, 299.1 - 290.49999999999994, 1e300, 5e-324, 1e16, 123_456_789.123_456_79, 1e-7];
    Alert {
        alert_id: id,
        machine_id: machine.into(),
        class: "mill".into(),
        failure_type: "Overstrain".into(),
        kind: Kind::Raised,
        severity: catalog::Severity::Critical,
        score: 1.0 / (second + 3) as f64,
        model: "laws".into(),
        model_version: "abc".into(),
        condition: "overstrain".into(),
        condition_id: id,
        timestamp,
        arrived_at: timestamp + 5,
        started_at: timestamp,
        position,
        reading: Some(serde_json::value::RawValue::from_string(r#"{"torque_nm":42.80}"#.into()).unwrap()),
        reason: Reason {
            law: Some("overstrain".into()),
            terms: hard.into_iter().map(term).collect(),
            notes: vec!["a \"b\"".into()],
            ..Reason::default()
        },
        text: AlertText { en: "torque".into(), ko: "토크".into() },
        suspended: None,
        caught_up: None,
        notice: second % 2 == 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_has_debezium_s_bytes_and_its_place_in_the_log() {
    let Some(rig) = Rig::new().await else { return };
    let mut relay = rig.start().await;
    relay.ready().await;
    let payloads = [
        r#"{"share": 0.970, "big": 1e2, "tiny": 1.50e-7, "list": [1, 0.5, null, true], "z": {}, "a": []}"#,
        r#"{"text": "방열 불량 \u0041 \"q\" \\ \/ 𝛑", "키": "값", "line": "a\nb\tc"}"#,
        r#""a text alone""#,
        "-0.0",
    ];
    let sql = "insert into outbox (id, aggregatetype, aggregateid, type, payload, traceparent, position)
               values ($1, 'alert', $2, $3, $4::text::jsonb, $5, $6)";
    for (payload, at) in payloads.iter().zip(0_i64..) {
        let (machine, trace) = (format!("설비-{at}"), (at == 1).then(|| format!("00-{:032x}-{at:016x}-01", 7)));
        let kind = ["raised", "changed", "cleared"][at as usize % 3];
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&Uuid::now_v7(), &machine, &kind, payload, &trace, &at];
        rig.client.execute(sql, &values).await.unwrap();
    }
    // What does not get smaller by compression, above the brokers' own limit of a record; with others in one transaction.
    let large = "insert into outbox (id, aggregatetype, aggregateid, type, payload, position)
        select gen_random_uuid(), 'alert', 'm-' || at, 'raised', jsonb_build_object('text', string_agg(md5(random()::text), '')), at
        from generate_series(10, 16) at, generate_series(1, 36000) part where at % 3 = 0 or part = 1 group by at order by at";
    rig.client.execute(large, &[]).await.unwrap();
    let records = rig.all_once().await;
    assert_eq!(records.len(), 11);
    assert!(records.iter().filter(|record| record.value.len() > 1_100_000).count() == 2);
    let text = |wanted: &str| records.iter().any(|record| String::from_utf8_lossy(&record.value).contains(wanted));
    for wanted in ["0.970", "100", "방열 불량 A", "0.000000150"] {
        assert!(text(wanted), "{wanted}");
    }
    // The headers of the connector's configuration, in its order, then ours.
    let folder = env!("CARGO_MANIFEST_DIR");
    let file = std::fs::read(format!("{folder}/../../deploy/debezium/outbox-connector.json")).unwrap();
    let connector: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let setting = |name: &str| connector["config"][name].as_str().unwrap().to_owned();
    assert_eq!(setting("transforms.outbox.route.topic.replacement"), Topic::Alerts.name());
    let placed = setting("transforms.outbox.table.fields.additional.placement");
    let placed = placed.split(',').map(|placed| placed.split(':').nth(2).unwrap().to_owned());
    let expected: Vec<String> = ["id".to_owned()].into_iter().chain(placed).chain(["mw-lsn".to_owned()]).collect();
    for record in &records {
        assert_eq!(record.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), expected);
        assert!(record.header("mw-lsn").is_some());
    }
    relay.kill().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_fifty_times_while_rows_come_publishes_each_once() {
    let Some(rig) = Rig::new().await else { return };
    // What comes before the slot would be looked for in the history, which these rows are not in.
    let mut relay = rig.start().await;
    relay.ready().await;
    relay.kill().await;
    let inserting = CancellationToken::new();
    let (client, stop) = (connect(&rig.url).await, inserting.clone());
    let insert = tokio::spawn(async move {
        let sql = "insert into outbox (id, aggregatetype, aggregateid, type, payload, position)
                   select gen_random_uuid(), 'alert', 'm-' || at % 7, 'raised', jsonb_build_object('at', at), at
                   from generate_series($1::bigint, $2::bigint - 1) at";
        let mut next = 0_i64;
        while !stop.is_cancelled() {
            let end = next + 1 + next % 5;
            client.execute(sql, &[&next, &end]).await.unwrap();
            next = end;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let (mut seed, mut unconfirmed) = (1_u64, 0);
    for round in 0..50 {
        let mut relay = rig.start().await;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if round % 5 > 0 {
            relay.ready().await;
        }
        tokio::time::sleep(Duration::from_micros((seed >> 33) % 40_000)).await;
        relay.kill().await;
        // Whether something was published that the slot would tell again.
        let mut last = Vec::new();
        for partition in 0..Topic::Alerts.partitions() {
            last.extend(rig.bus.last(Topic::Alerts, partition).await.unwrap());
        }
        for record in last {
            let place = record.header("mw-lsn").unwrap().split(':').nth(2).unwrap().to_owned();
            let sql = "select count(*) from pg_replication_slots
                       where slot_name = $1 and confirmed_flush_lsn < $2::text::pg_lsn";
            unconfirmed += rig.client.query_one(sql, &[&rig.slot, &place]).await.unwrap().get::<_, i64>(0);
        }
    }
    inserting.cancel();
    insert.await.unwrap();
    assert!(unconfirmed > 5, "{unconfirmed}: the kills came too late to double anything");
    let mut relay = rig.start().await;
    relay.ready().await;
    let published = rig.all_once().await.len();
    assert!(published > 1_000, "{published}");
    relay.kill().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_slot_did_not_keep_is_published_from_the_history() {
    let Some(rig) = Rig::new().await else { return };
    let mut relay = rig.start().await;
    rig.commit(0..30).await;
    relay.ready().await;
    rig.all_once().await;
    relay.kill().await;
    rig.commit(30..60).await;
    rig.drop_slot().await;
    rig.commit(60..90).await;
    let mut relay = rig.start().await;
    relay.ready().await;
    rig.commit(90..120).await;
    assert_eq!(rig.all_once().await.len(), 120);
    relay.kill().await;

    // What retention took from one partition is not published once more.
    let mut list = TopicPartitionList::new();
    let topic = rig.options.topic(Topic::Alerts);
    let cut = partition_of("m-0", Topic::Alerts.partitions());
    list.add_partition_offset(&topic, i32::from(cut), Offset::Offset(15)).unwrap();
    kafka::admin(&rig.options).delete_records(&list, &AdminOptions::new()).await.unwrap();
    rig.drop_slot().await;
    let mut relay = rig.start().await;
    relay.ready().await;
    assert_eq!(rig.count().await, 120);
    relay.kill().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_relay_published_is_not_published_again() {
    let Some(rig) = Rig::new().await else { return };
    let mut relay = rig.start().await;
    rig.commit(0..30).await;
    relay.ready().await;
    rig.all_once().await;
    relay.kill().await;
    rig.commit(30..60).await;
    // Debezium took over, and was stopped in its turn.
    let foreign = rig.rows().await.into_iter().skip(30).take(20).map(Told::message).collect();
    rig.bus.publish(Topic::Alerts, foreign).await.unwrap();
    let mut relay = rig.start().await;
    relay.ready().await;
    rig.commit(60..90).await;
    let records = rig.all_once().await;
    assert_eq!(records.iter().filter(|record| record.header("mw-lsn").is_none()).count(), 20);
    relay.kill().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_while_it_heals_begins_anew() {
    let Some(rig) = Rig::new().await else { return };
    let all = 6_000;
    for from in (0..all).step_by(1_000) {
        rig.commit(from..from + 1_000).await;
    }
    // It got to publish on some partitions only, the first row of all not among them.
    let rows = rig.rows().await;
    let without = partition_of(&rows[0].key, Topic::Alerts.partitions());
    let first = rows.into_iter().take(40).map(Told::message).filter(|message| message.partition != without);
    rig.bus.publish(Topic::Alerts, first.collect()).await.unwrap();
    let mut interrupted = 0;
    let mut before = rig.count().await;
    while interrupted < 4 {
        let relay = rig.start().await;
        soon("it heals", async || rig.count().await > before).await;
        relay.kill().await;
        before = rig.count().await;
        if before as i64 >= all {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted > 1, "it healed at once");
    let mut relay = rig.start().await;
    relay.ready().await;
    rig.commit(all..all + 10).await;
    rig.all_once().await;
    relay.kill().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_relay_waits_and_takes_over_where_the_first_one_ended() {
    let Some(rig) = Rig::new().await else { return };
    let mut first = rig.start().await;
    first.ready().await;
    let mut second = rig.start().await;
    for from in 0..20 {
        rig.commit(from * 10..from * 10 + 10).await;
    }
    rig.all_once().await;
    assert!(*first.ready.borrow() && !*second.ready.borrow());
    first.kill().await;
    rig.commit(200..210).await;
    second.ready().await;
    rig.all_once().await;
    second.kill().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_slot_keeps_no_log() {
    let Some(rig) = Rig::new().await else { return };
    let mut relay = rig.start().await;
    relay.ready().await;
    // Others write to the log, and nothing to the outbox.
    rig.client.batch_execute("create table other as select generate_series(1, 10000)").await.unwrap();
    let now: String = rig.client.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let sql = "select confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots where slot_name = $1";
    soon("it is confirmed", async || rig.client.query_one(sql, &[&rig.slot, &now]).await.unwrap().get(0)).await;
    assert_eq!(rig.count().await, 0);
    relay.kill().await;
    rig.end().await;
}
