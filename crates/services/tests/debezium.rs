//! Our relay beside a real Debezium: the same bytes, and either takes over from the other. `MILLWRIGHT_TEST_CONNECT`, and
//! `MILLWRIGHT_TEST_RIG`, which kills and starts the worker.

use crate::{
    kafka,
    relay::{NOWHERE, Rig, Told, by_partition, commit, connect, count, ids, records},
    room::{soon, within},
};
use bus::{
    Record, Topic,
    kafka::{
        Options,
        admin::{self, Retention},
    },
};
use rdkafka::admin::AdminOptions;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use store::{
    NewEvent, Record as PortalStep,
    postgres::{Which, migrate},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, MutexGuard},
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A worker, or a connector in it, needs seconds of a quiet machine to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// The Connect worker, which one test has at a time: another may kill it.
struct Worker {
    address: String,
    rig: PathBuf,
    brokers: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Worker {
    async fn get() -> Option<Worker> {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let named = |name: &str| {
            let value = std::env::var(name).ok();
            assert!(value.is_some() || std::env::var("MILLWRIGHT_TEST_REQUIRED").is_err(), "{name} is not set");
            value
        };
        let names = ["MILLWRIGHT_TEST_CONNECT", "MILLWRIGHT_TEST_RIG", "MILLWRIGHT_TEST_KAFKA"];
        let [Some(address), Some(rig), Some(kafka)] = names.map(named) else {
            eprintln!("skipped: MILLWRIGHT_TEST_CONNECT is not set (./dev services start)");
            return None;
        };
        let brokers = kafka.split(',').count();
        let worker = Worker { address, rig: rig.into(), brokers, _alone: ALONE.lock().await };
        // A test that failed may have left it dead.
        worker.start().await;
        Some(worker)
    }

    /// Changes connectors: status and body.
    async fn change(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        loop {
            let (status, body) = self.ask(method, path, body).await;
            // While its group comes together it says so.
            if status != 409 {
                return (status, body);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let host = self.address.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n");
        let asked = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What the rig says to `services` and these words.
    async fn services(&self, words: &[&str]) -> String {
        let mut command = Command::new(&self.rig);
        command.arg("services").args(words);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its pid, or `down`.
    async fn pid(&self) -> String {
        let table = self.services(&["status"]).await;
        let line = table.lines().find(|line| line.starts_with("connect ")).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Kill -9; it is gone when this returns, or the rig would find it alive.
    async fn kill(&self) {
        let pid = self.pid().await;
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success(), "{pid}");
        within(PATIENCE, "the worker is gone", async || self.pid().await == "down").await;
    }

    /// Where it died it comes back, with its connectors.
    async fn start(&self) {
        self.services(&["start", "--only", "connect", "--brokers", &self.brokers.to_string()]).await;
    }
}

/// The connector of `deploy/debezium` on a test's database and topic.
struct Debezium<'a> {
    worker: &'a Worker,
    options: Options,
    name: String,
    slot: String,
}

impl Debezium<'_> {
    /// Reads from its slot when it returns.
    async fn start<'a>(worker: &'a Worker, rig: &Rig, options: &Options) -> Debezium<'a> {
        let name = rig.database.clone();
        let slot = format!("{name}_debezium");
        let topics = admin::wanted(options, Retention::default(), std::slice::from_ref(&name));
        let changes = admin::difference(options, &topics).await.unwrap();
        admin::apply(options, &changes).await.unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/debezium/outbox-connector.json");
        let mut connector: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let own = [
            ("database.dbname", name.clone()),
            ("slot.name", slot.clone()),
            ("topic.prefix", name.clone()),
            ("transforms.outbox.route.topic.replacement", options.topic(Topic::Alerts)),
        ];
        for (setting, value) in own {
            assert!(connector["config"].get(setting).is_some(), "{setting}");
            connector["config"][setting] = json!(value);
        }
        let path = format!("/connectors/{name}/config");
        let (status, body) = worker.change("PUT", &path, &connector["config"].to_string()).await;
        assert!((200..300).contains(&status), "{status} {body}");
        let debezium = Debezium { worker, options: options.clone(), name, slot };
        debezium.reads(rig).await;
        debezium
    }

    async fn reads(&self, rig: &Rig) {
        let sql = "select exists (select from pg_replication_slots where slot_name = $1 and active)";
        let reads = async || rig.client.query_one(sql, &[&self.slot]).await.unwrap().get(0);
        within(PATIENCE, "Debezium reads from its slot", reads).await;
    }

    async fn end(self, rig: &Rig) {
        let (status, body) = self.worker.change("DELETE", &format!("/connectors/{}", self.name), "").await;
        assert_eq!(status, 204, "{body}");
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        within(PATIENCE, "its slot is free", async || rig.client.execute(sql, &[&self.slot]).await.is_ok()).await;
        let heartbeats = format!("__debezium-heartbeat.{}", self.name);
        kafka::admin(&self.options).delete_topics(&[&heartbeats], &AdminOptions::new()).await.unwrap();
    }
}

/// Everything of a record that a consumer can tell one relay from the other by.
type Bytes = (Option<Arc<[u8]>>, Vec<(String, Option<Vec<u8>>)>, Arc<[u8]>);

fn bytes(record: Record) -> Bytes {
    (record.key, record.headers, record.value)
}

/// As [`bytes`], without the place that our relay adds at the end.
fn bytes_without_place(mut record: Record) -> Bytes {
    assert_eq!(record.headers.pop().unwrap().0, "mw-lsn");
    bytes(record)
}

const ROWS: i64 = 10_000;

const PAYLOADS: [&str; 14] = [
    r#"{"share": 0.970, "tiny": 1e-7, "exact": 12345678901234567890.123, "zero": -0.0, "big": 1E40, "long": 0.1000000000000000055511151231257827}"#,
    r#"{"text": "방열 불량 🔥 \u0041 \"q\" \\ \/ 𝛑 \u001f \u2028 é e\u0301 \ud83d\ude00", "키 🗝": "값", "lines": "a\nb\tc\r\n"}"#,
    r#"{"a": {"b": [{"c": {"d": [[[], {}], [null, true, false, [1, 0.5, -1e-9]]]}}]}, "aa": null, "": "no name"}"#,
    r#"{"twice": 1, "twice": 2, "z": "\u0001", "quote": "'; drop table outbox; --", "schema": {"type": "struct"}}"#,
    r#"{"shares": [1, 0.5, 1.50, 1.0e2, 9007199254740993, 0.1e1]}"#,
    r#"{"שלום": "مرحبا", "한글": ["가", "나", null]}"#,
    r#""a text alone""#,
    r#""""#,
    "null",
    "-0.0",
    "true",
    "[]",
    "{}",
    "[[], {}, [null]]",
];

/// Rows of the outbox by their number.
#[derive(Default)]
struct Lot {
    ids: Vec<Uuid>,
    keys: Vec<String>,
    kinds: Vec<String>,
    payloads: Vec<String>,
    traces: Vec<Option<String>>,
    numbers: Vec<i64>,
}

impl Lot {
    fn of(numbers: std::ops::Range<i64>) -> Lot {
        let mut lot = Lot::default();
        for number in numbers {
            lot.ids.push(Uuid::now_v7());
            lot.keys.push(match number % 11 {
                0 => format!("설비-{}", number % 97),
                1 => format!("🏭 {}\t\"{}\"", number % 5, number % 89),
                2 => format!("{:á<255}", number % 83),
                3 if number % 7 == 0 => String::new(),
                _ => format!("machine-{:03}", number % 101),
            });
            lot.kinds.push(["raised", "changed", "cleared", "경고 🙂"][number as usize % 4].to_owned());
            lot.payloads.push(match number % 3 {
                0 => PAYLOADS[(number / 3) as usize % PAYLOADS.len()].to_owned(),
                1 => format!(r#"{{"n": {number}, "odd": {}.{number:09}e-{}}}"#, number % 7, number % 30),
                _ => json!({ "text": "토크 ".repeat(number as usize % 300), "n": [number, f64::sqrt(number as f64)] })
                    .to_string(),
            });
            lot.traces.push(match number % 5 {
                0 => Some(format!("00-{number:032x}-{number:016x}-01")),
                1 if number % 2 == 0 => Some(String::new()),
                _ => None,
            });
            lot.numbers.push(number);
        }
        lot
    }

    async fn insert(&self, client: &Client) {
        let sql = "insert into outbox (id, aggregatetype, aggregateid, type, payload, traceparent, position)
            select id, 'alert', key, kind, payload::jsonb, trace, number
            from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
                with ordinality told (id, key, kind, payload, trace, number, place) order by place";
        let Lot { ids, keys, kinds, payloads, traces, numbers } = self;
        client.execute(sql, &[ids, keys, kinds, payloads, traces, numbers]).await.unwrap();
    }
}

/// Writes rows in transactions of every shape until all numbers are taken; the ids of those that were committed.
async fn write(client: Client, next: Arc<AtomicI64>) -> Vec<Uuid> {
    let mut committed = Vec::new();
    for round in 0.. {
        let size = [1, 7, 1, 40, 3, 1, 120, 2][round % 8];
        let from = next.fetch_add(size, Ordering::Relaxed);
        if from >= ROWS {
            break;
        }
        let numbers = from..(from + size).min(ROWS);
        let lot = Lot::of(numbers);
        let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
        let list = lot.ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
        match round % 9 {
            // By itself.
            0..3 => lot.insert(&client).await,
            // Among what is undone, and what no consumer may see.
            3 => {
                let undone = Lot::of(-from - size..-from);
                run("begin; savepoint here").await;
                undone.insert(&client).await;
                run("rollback to here; create temporary table other (n int) on commit drop; insert into other values (1)")
                    .await;
                lot.insert(&client).await;
                run("savepoint there").await;
                undone.insert(&client).await;
                run("rollback to there; commit; begin").await;
                undone.insert(&client).await;
                run("rollback").await;
            }
            // Gone at the end of its transaction, and published all the same.
            4 => {
                run("begin").await;
                lot.insert(&client).await;
                run(&format!("delete from outbox where id in ({list}); commit")).await;
            }
            // Changed in its transaction, and after it.
            5 => {
                run("begin").await;
                lot.insert(&client).await;
                let change =
                    format!("update outbox set payload = '\"changed\"', type = 'changed' where id in ({list})");
                run(&format!("{change}; commit; {change}; delete from outbox where id in ({list})")).await;
            }
            // Slowly, while others commit.
            _ => {
                run("begin").await;
                lot.insert(&client).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
                run("select pg_logical_emit_message(true, 'other', 'no row'); commit").await;
            }
        }
        committed.extend(lot.ids);
    }
    committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_records_are_debezium_s_byte_for_byte() {
    let Some(worker) = Worker::get().await else { return };
    let Some(rig) = Rig::new().await else { return };
    let (options, other) = kafka::connect().await.unwrap();
    let mut relay = rig.start().await;
    let debezium = Debezium::start(&worker, &rig, &options).await;
    relay.ready().await;

    let next = Arc::new(AtomicI64::new(0));
    let mut writers = Vec::new();
    for _ in 0..4 {
        writers.push(tokio::spawn(write(connect(&rig.url).await, next.clone())));
    }
    // What does not get smaller by compression, above the brokers' own limit of a record; and many rows at once.
    let large = "insert into outbox (id, aggregatetype, aggregateid, type, payload, position)
        select gen_random_uuid(), 'alert', 'large-' || at, 'raised', jsonb_build_object('text', string_agg(md5(random()::text), '')),
            1000000 + at
        from generate_series(1, 6) at, generate_series(1, 33000) part where at % 3 = 0 or part = 1 group by at order by at
        returning id";
    let mut committed: Vec<Uuid> = rig.client.query(large, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let many = Lot::of(2_000_000..2_002_000);
    many.insert(&rig.client).await;
    committed.extend(many.ids);
    for writer in writers {
        committed.extend(writer.await.unwrap());
    }
    assert!(committed.len() as i64 > ROWS);

    for (who, bus) in [("the relay", &rig.bus), ("Debezium", &other)] {
        within(PATIENCE, who, async || count(bus).await >= committed.len()).await;
    }
    let mut ids = HashSet::new();
    for partition in 0..Topic::Alerts.partitions() {
        let ours: Vec<Bytes> = records(&rig.bus, partition).await.into_iter().map(bytes_without_place).collect();
        let theirs: Vec<Bytes> = records(&other, partition).await.into_iter().map(bytes).collect();
        assert!(theirs.len() > 1_000, "partition {partition} has {} records", theirs.len());
        for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let text = |(key, headers, value): &Bytes| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name, value.as_deref().map(text))).collect();
                format!("{:?} {headers:?} {:.2000}", key.as_deref().map(text), text(value))
            };
            assert!(ours == theirs, "record {at} of partition {partition}:\n{}\n{}", text(ours), text(theirs));
        }
        assert_eq!(ours.len(), theirs.len());
        ids.extend(theirs.iter().map(|(_, headers, _)| headers[0].1.clone().unwrap()));
    }
    let committed: HashSet<Vec<u8>> = committed.iter().map(|id| id.to_string().into_bytes()).collect();
    assert!(ids == committed, "another row was published, or one was not");

    relay.kill().await;
    debezium.end(&rig).await;
    kafka::end(&options, &other).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_relay_takes_over_from_the_other_and_the_portal_shows_each_alert_once() {
    let Some(worker) = Worker::get().await else { return };
    let Some(rig) = Rig::new().await else { return };
    let mut relay = rig.start().await;
    relay.ready().await;
    // Detect goes on, whoever publishes.
    let detecting = CancellationToken::new();
    let (store, stop) = (rig.store(NOWHERE), detecting.clone());
    let detect = tokio::spawn(async move {
        let mut next = 0;
        while !stop.is_cancelled() {
            let end = next + 1 + next % 7;
            commit(&store, next..end).await;
            next = end;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        // One of each machine, when Debezium is gone: the last of every partition.
        commit(&store, next..next + 7).await;
        store.close().await;
    });
    // Whoever is at work publishes so many more.
    let goes_on = async |who: &str| {
        let wanted = count(&rig.bus).await + 200;
        within(PATIENCE, who, async || count(&rig.bus).await >= wanted).await;
    };
    goes_on("the relay publishes").await;

    // As docs/runbook/relay.md says: the relay goes on until Debezium reads, and until what was committed by then is published.
    let debezium = Debezium::start(&worker, &rig, &rig.options).await;
    let now: String = rig.client.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let sql = "select confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots where slot_name = $1";
    let published = async || rig.client.query_one(sql, &[&rig.slot, &now]).await.unwrap().get(0);
    within(PATIENCE, "the relay has published what Debezium does not", published).await;
    relay.kill().await;
    goes_on("Debezium publishes").await;
    worker.kill().await;
    worker.start().await;
    debezium.reads(&rig).await;
    goes_on("Debezium publishes again").await;
    worker.kill().await;
    let mut relay = rig.start().await;
    relay.ready().await;
    goes_on("the relay publishes again").await;
    // Who was believed dead comes back beside it.
    worker.start().await;
    debezium.reads(&rig).await;
    goes_on("both publish").await;
    debezium.end(&rig).await;
    detecting.cancel();
    detect.await.unwrap();

    let rows = rig.rows().await;
    let total = rows.len();
    let expected = by_partition(rows);
    let last = |partition: usize| expected[partition].last().map(|told| told.id.clone());
    for partition in 0..Topic::Alerts.partitions() {
        let wanted = last(usize::from(partition));
        soon("the last row is on the topic", async || {
            let last = rig.bus.last(Topic::Alerts, partition).await.unwrap();
            last.is_some_and(|record| record.header("id").map(str::to_owned) == wanted)
        })
        .await;
    }
    // What a consumer that knows a repeat by its id sees: every row, in its order, byte for byte.
    let (mut foreign, mut repeats) = (0, 0);
    let mut of_debezium = HashSet::new();
    let mut doubled = 0;
    let mut topic = Vec::new();
    for (partition, expected) in (0..).zip(&expected) {
        let records = records(&rig.bus, partition).await;
        let mut seen = BTreeMap::new();
        let mut first = Vec::new();
        for record in &records {
            let (place, told) = (record.header("mw-lsn").is_some(), Told::of(record));
            assert_eq!(record.headers.len(), if place { 4 } else { 3 });
            if !place {
                foreign += 1;
                doubled += usize::from(!of_debezium.insert(told.id.clone()));
            }
            match seen.get(&told.id) {
                Some(at) => {
                    repeats += 1;
                    assert_eq!(first[*at], told, "a repeat differs");
                }
                None => {
                    seen.insert(told.id.clone(), first.len());
                    first.push(told);
                }
            }
        }
        assert_eq!(ids(&first), ids(expected));
        assert!(first == *expected, "the bytes of a record differ");
        topic.push(records);
    }
    println!(
        "{total} alerts, {foreign} records of Debezium, {doubled} of them doubled by its kills, {repeats} repeats in all"
    );
    assert!(foreign > 400 && doubled > 0, "nothing was proved");

    let main = std::env::var("MILLWRIGHT_TEST_POSTGRES_MAIN").unwrap();
    portal_shows_once(&rig, &main, topic, total).await;
    relay.kill().await;
    rig.end().await;
}

/// Records as the portal takes them: position, alert and event in one step.
async fn portal_shows_once(rig: &Rig, main: &str, topic: Vec<Vec<Record>>, total: usize) {
    let server = connect(main).await;
    let name = format!("{}_main", rig.database);
    server.batch_execute(&format!("create database {name}")).await.unwrap();
    let url = format!("{}/{name}", main.rsplit_once('/').unwrap().0);
    migrate(&url, Which::Main).await.unwrap();
    let store = rig.store(&url);
    let mut shown = Vec::new();
    for (partition, records) in (0..).zip(topic) {
        let mut from = 0;
        for lot in records.chunks(100) {
            let text = |record: &Record| String::from_utf8(record.value.to_vec()).unwrap();
            let event = |record: &Record| NewEvent { kind: "alert".into(), data: text(record) };
            let to = lot[lot.len() - 1].offset + 1;
            let events = lot.iter().map(event).collect();
            let step = PortalStep { position: Some((from, to)), partition, events, ..PortalStep::default() };
            shown.extend(store.record(step).await.unwrap());
            from = to;
        }
    }
    let id = |data: &str| serde_json::from_str::<Value>(data).unwrap()["alert_id"].as_str().unwrap().to_owned();
    let ids: BTreeSet<String> = shown.iter().map(|event| id(&event.data)).collect();
    assert_eq!((shown.len(), ids.len()), (total, total), "on the stream");
    let client = connect(&url).await;
    let rows: i64 = client.query_one("select count(*) from alert", &[]).await.unwrap().get(0);
    assert_eq!(rows as usize, total);
    drop(client);
    store.close().await;
    server.batch_execute(&format!("drop database {name} with (force)")).await.unwrap();
}
