//! The same loops on a real cluster: `MILLWRIGHT_TEST_KAFKA`, host:port of its brokers.

use crate::room::{Open, Room, T0, line, soon};
use bus::{
    Bus, DeadLetter, Message, Topic,
    kafka::{
        Options,
        admin::{self, Retention},
    },
};
use dependency::{Dependencies, Dependency};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use services::{detect, ingest};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use store::{AlertQuery, History, LiveValues, Store};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use wire::{Decoder, Framing, READINGS_PARTITIONS, partition_of};

/// Topics of a test's own.
pub async fn connect() -> Option<(Options, Bus)> {
    static PLANTS: AtomicU32 = AtomicU32::new(0);
    let Ok(brokers) = std::env::var("MILLWRIGHT_TEST_KAFKA") else {
        assert!(std::env::var("MILLWRIGHT_TEST_REQUIRED").is_err(), "MILLWRIGHT_TEST_KAFKA is not set");
        eprintln!("skipped: MILLWRIGHT_TEST_KAFKA is not set (./dev services start)");
        return None;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let topic_prefix = format!("test-{now}-{}-", PLANTS.fetch_add(1, Ordering::Relaxed));
    let settings = BTreeMap::from([("bootstrap.servers".to_owned(), brokers)]);
    let options = Options { settings, topic_prefix, ..Options::default() };
    let changes = admin::difference(&options, &admin::wanted(&options, Retention::default(), &[])).await.unwrap();
    admin::apply(&options, &changes).await.unwrap();
    for _ in 0..100 {
        if let Ok(bus) = Bus::connect(options.clone()).await {
            return Some((options, bus));
        }
        // A topic that was made a moment ago is not known to every broker yet.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the topics do not appear");
}

pub fn admin(options: &Options) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    options.settings.iter().for_each(|(name, value)| {
        config.set(name, value);
    });
    config.create().unwrap()
}

/// Closes the bus and takes its topics away.
pub async fn end(options: &Options, bus: &Bus) {
    bus.close().await;
    let admin = admin(options);
    let names: Vec<String> = Topic::ALL.map(|topic| options.topic(topic)).into();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    admin.delete_topics(&names, &AdminOptions::new()).await.unwrap();
}

/// A plant whose effects lie in files and whose readings on a cluster.
pub fn open(room: &Room, bus: &Bus) -> Open {
    Open { bus: bus.clone(), store: Store::open(&room.folder.path().join("store.db")).unwrap() }
}

/// A value on its machine's partition.
fn message(machine: &str, value: impl Into<Vec<u8>>) -> Message {
    Message {
        partition: partition_of(machine, READINGS_PARTITIONS),
        key: Some(machine.into()),
        headers: Vec::new(),
        value: Some(value.into()),
    }
}

pub async fn ends(bus: &Bus) -> Vec<i64> {
    let mut ends = Vec::new();
    for partition in 0..READINGS_PARTITIONS {
        ends.push(bus.bounds(Topic::Readings, partition).await.unwrap().1);
    }
    ends
}

pub type Ingesting = (JoinHandle<Result<(), ingest::Error>>, CancellationToken);

pub fn start_ingest(room: &Room, bus: &Bus, history: &History) -> Ingesting {
    start(ingest_parts(room, bus, history))
}

fn start(parts: ingest::Parts) -> Ingesting {
    let stop = CancellationToken::new();
    (tokio::spawn(ingest::run(parts, stop.clone())), stop)
}

fn ingest_parts(room: &Room, bus: &Bus, history: &History) -> ingest::Parts {
    ingest::Parts {
        bus: bus.clone(),
        history: history.clone(),
        catalogue: room.catalogue.subscribe(),
        tally: ingest::Tally::default(),
        passed: Default::default(),
        ready: Default::default(),
        positions: Default::default(),
        clocks: Default::default(),
        taken: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_of_every_form_are_stored_once_and_what_is_refused_is_one_dead_letter() {
    let Some((options, bus)) = connect().await else { return };
    let room = Room::new();
    let array = format!("[{},{}]", line("m-01", 1, 40.0), line("m-01", 2, 40.0));
    let lines = format!("{}\nno reading\n{}\n", line("m-01", 3, 40.0), line("m-01", 4, 40.0));
    // It can be decoded, and the machine has another class.
    let pump = r#"{"machine_id":"m-01","timestamp":"2026-01-01T00:00:09Z","class":"pump","vib_mm_s":1.8,"discharge_bar":5.4,"flow_m3h":80,"motor_current_a":36.6,"bearing_temp_c":55}"#;
    let mut decoder = Decoder::new(room.catalogue.borrow().clone(), READINGS_PARTITIONS);
    let pump = decoder.decode(pump.as_bytes(), Framing::Lines, i64::MAX / 2, &|_| None).unwrap();
    let mut other_class = Vec::new();
    pump.batches[0].1.encode(&mut other_class);
    let messages = vec![
        message("m-01", line("m-01", 0, 40.0)),
        message("m-01", array),
        message("m-01", lines),
        message("m-01", "no reading"),
        message("m-01", other_class.clone()),
        Message { value: None, ..message("m-01", "") },
        message("m-01", line("m-01", 0, 40.0)),
    ];
    let partition = messages[0].partition;
    bus.publish(Topic::Readings, messages).await.unwrap();
    // A second time after a crash before anything is durable: the topic holds the letters already.
    for round in 0..3 {
        let history = room.open_history();
        let (task, stop) = start_ingest(&room, &bus, &history);
        let ends = ends(&bus).await;
        soon("everything is taken", async || history.appended().await.unwrap() == ends).await;
        // The letters of a lot follow what it appended.
        let told = async || DeadLetter::origin(&bus.last(Topic::DeadLetters, partition).await.unwrap()?);
        soon("everything refused is told", async || told().await == Some((5, 0))).await;
        if round == 0 {
            task.abort();
            let _ = task.await;
        } else {
            stop.cancel();
            task.await.unwrap().unwrap();
            assert_eq!(history.positions().await.unwrap(), ends);
        }
    }
    let history = room.open_history();
    let row = history.ledger().await.unwrap().remove(0);
    assert_eq!((row.source.as_str(), row.received, row.stored), ("sensor-raw-data", 10, 5));
    assert_eq!((row.rejected, row.duplicate), (4, 1));
    let letters = bus.read(Topic::DeadLetters, partition, 0, usize::MAX).await.unwrap();
    let told: Vec<_> = letters
        .iter()
        .map(|letter| {
            let code = letter.header("x-error-code").unwrap();
            (DeadLetter::origin(letter).unwrap(), code, &*letter.value, letter.key.as_deref())
        })
        .collect();
    let key = Some(&b"m-01"[..]);
    let expected = [
        ((2, 1), "not_json", &b"no reading"[..], key),
        ((3, 0), "not_json", &b"no reading"[..], key),
        ((4, 0), "class_changed", &other_class[..], key),
        ((5, 0), "empty", &b""[..], key),
    ];
    assert_eq!(told, expected);
    end(&options, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_of_a_source_whose_clock_is_not_utc_are_stored_at_their_true_time() {
    let Some((options, bus)) = connect().await else { return };
    let room = Room::new();
    // One that tells no source is the topic's; one that came through a door was set right there.
    let of = |source: &str| Message {
        headers: vec![("mw-source".to_owned(), Some(source.into()))],
        ..message("m-01", line("m-01", 1, 40.0))
    };
    bus.publish(Topic::Readings, vec![message("m-01", line("m-01", 0, 40.0)), of("plc"), of("http")]).await.unwrap();
    let history = room.open_history();
    let clocks = Arc::new(BTreeMap::from([("sensor-raw-data".to_owned(), 9 * HOUR_US), ("plc".to_owned(), -HOUR_US)]));
    let (task, stop) = start(ingest::Parts { clocks, ..ingest_parts(&room, &bus, &history) });
    let ends = ends(&bus).await;
    soon("everything is taken", async || history.appended().await.unwrap() == ends).await;
    let machine = catalog::MachineId::try_from("m-01").unwrap();
    let page = history.logs(&machine, 0, i64::MAX, 10, None).await.unwrap();
    let mut times: Vec<i64> = page.rows.iter().map(|row| row.timestamp_us).collect();
    times.sort_unstable();
    let at = |second: i64| (T0 + second) * 1_000_000;
    assert_eq!(times, [at(0) - 9 * HOUR_US, at(1), at(1) + HOUR_US]);
    stop.cancel();
    task.await.unwrap().unwrap();
    end(&options, &bus).await;
}

const HOUR_US: i64 = 3_600_000_000;

pub struct Detecting {
    pub task: JoinHandle<Result<(), detect::Error>>,
    pub stop: CancellationToken,
    pub passed: watch::Receiver<Vec<i64>>,
    live: LiveValues,
}

pub fn start_detect(room: &Room, open: &Open) -> Detecting {
    start_detect_told(room, open, Dependency::default())
}

fn start_detect_told(room: &Room, open: &Open, positions: Dependency) -> Detecting {
    let (tell, passed) = watch::channel(Vec::new());
    let (stop, live) = (CancellationToken::new(), LiveValues::default());
    let parts = detect::Parts {
        bus: open.bus.clone(),
        store: open.store.clone(),
        live: live.clone(),
        catalogue: room.catalogue.subscribe(),
        passed: tell,
        ready: Default::default(),
        positions,
        clocks: Default::default(),
        taken: Default::default(),
    };
    Detecting { task: tokio::spawn(detect::run(parts, stop.clone())), stop, passed, live }
}

pub async fn alerts(store: &Store) -> Vec<(String, i64, u32)> {
    let page = store.alerts(AlertQuery { limit: 500, ..AlertQuery::default() }).await.unwrap();
    let told = |alert: &wire::Alert| {
        let what = format!("{} {} {}", alert.machine_id, alert.condition, alert.kind.as_str());
        (what, alert.position.offset, alert.position.index)
    };
    let mut told: Vec<_> = page.rows.iter().map(told).collect();
    told.sort();
    told
}

/// A machine that breaks a law and mends, again and again, one reading a record.
pub fn readings(seconds: std::ops::Range<i64>) -> Vec<Message> {
    let machines = ["m-00", "m-01", "m-02", "m-03", "m-04", "m-05"];
    let reading = |second: i64| {
        machines.map(|machine| message(machine, line(machine, second, if second % 100 < 3 { 70.0 } else { 40.0 })))
    };
    seconds.flat_map(reading).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_detectors_share_the_partitions_and_each_alert_is_given_once() {
    let Some((options, bus)) = connect().await else { return };
    let room = Room::new();
    let plant = open(&room, &bus);
    bus.publish(Topic::Readings, readings(0..150)).await.unwrap();
    let mut one = start_detect(&room, &plant);
    let everything = ends(&bus).await;
    one.passed.wait_for(|passed| *passed == everything).await.unwrap();
    let raised = alerts(&plant.store).await;
    assert_eq!(raised.iter().filter(|(what, ..)| what.ends_with("raised")).count(), 12, "{raised:?}");

    // A second one takes over its share while readings come.
    let mut two = start_detect(&room, &plant);
    let mut sent = 150;
    while two.passed.borrow().iter().all(|next| *next == 0) {
        assert!(sent < 20_000, "the second one gets nothing");
        bus.publish(Topic::Readings, readings(sent..sent + 10)).await.unwrap();
        sent += 10;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let everything = ends(&bus).await;
    soon("all is judged by one of the two", async || {
        let (one, two) = (one.passed.borrow().clone(), two.passed.borrow().clone());
        let reached = |list: &[i64], at: usize| list.get(at) == Some(&everything[at]);
        (0..everything.len()).all(|at| reached(&one, at) || reached(&two, at))
    })
    .await;
    // One is killed; the other has everything.
    one.task.abort();
    let _ = one.task.await;
    bus.publish(Topic::Readings, readings(sent..sent + 50)).await.unwrap();
    let everything = ends(&bus).await;
    let all = two.passed.wait_for(|passed| *passed == everything);
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("taken over").unwrap();
    two.stop.cancel();
    two.task.await.unwrap().unwrap();
    let shared = alerts(&plant.store).await;
    plant.store.close().await;

    let undisturbed = Room::new();
    let plant = open(&undisturbed, &bus);
    // A group of its own would be the same: positions come from the store alone.
    let mut alone = start_detect(&undisturbed, &plant);
    alone.passed.wait_for(|passed| *passed == everything).await.unwrap();
    alone.stop.cancel();
    alone.task.await.unwrap().unwrap();
    assert_eq!(alerts(&plant.store).await, shared);
    end(&options, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detector_that_was_overtaken_starts_over_where_the_store_stands() {
    let Some((options, bus)) = connect().await else { return };
    let room = Room::new();
    let plant = open(&room, &bus);
    bus.publish(Topic::Readings, readings(0..50)).await.unwrap();
    let mut running = start_detect(&room, &plant);
    let everything = ends(&bus).await;
    running.passed.wait_for(|passed| *passed == everything).await.unwrap();
    // Another one committed the next record meanwhile.
    let partition = partition_of("m-00", READINGS_PARTITIONS);
    let from = plant.store.positions(0..READINGS_PARTITIONS).await.unwrap()[usize::from(partition)];
    let effects = engine::Effects::default();
    let step = store::Step { partition, from, to: from + 1, effects: &effects, sources: &[], activation: None };
    plant.store.commit(vec![step]).await.unwrap();
    bus.publish(Topic::Readings, readings(50..150)).await.unwrap();
    let everything = ends(&bus).await;
    let all = running.passed.wait_for(|passed| *passed == everything);
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it goes on").unwrap();
    running.stop.cancel();
    running.task.await.unwrap().unwrap();
    assert_eq!(plant.store.positions(0..READINGS_PARTITIONS).await.unwrap(), everything);
    let raised = alerts(&plant.store).await;
    assert_eq!(raised.iter().filter(|(what, ..)| what.ends_with("raised")).count(), 12, "{raised:?}");
    end(&options, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detector_that_is_overtaken_while_it_stops_has_stopped_and_left_nothing_out() {
    let Some((options, bus)) = connect().await else { return };
    let room = Room::new();
    let plant = open(&room, &bus);
    let mut stopping = start_detect(&room, &plant);
    bus.publish(Topic::Readings, readings(0..100)).await.unwrap();
    let everything = ends(&bus).await;
    stopping.passed.wait_for(|passed| *passed == everything).await.unwrap();
    // Its next commit waits for another one, who goes on from its position.
    let partition = partition_of("m-00", READINGS_PARTITIONS);
    let other = rusqlite::Connection::open(room.folder.path().join("store.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let sql = "update consumer_offset set next_offset = next_offset + 1 where topic = ?1 and partition = ?2";
    assert_eq!(other.execute(sql, (wire::READINGS_TOPIC, partition)).unwrap(), 1);
    bus.publish(Topic::Readings, readings(100..101)).await.unwrap();
    soon("the readings are judged", async || {
        let shown = stopping.live.get("m-00");
        shown.is_some_and(|live| live.last_seen_us >= (T0 + 100) * 1_000_000)
    })
    .await;
    stopping.stop.cancel();
    other.execute_batch("commit").unwrap();
    stopping.task.await.unwrap().unwrap();

    // The one after it judges all that was not committed.
    let mut next = start_detect(&room, &plant);
    let everything = ends(&bus).await;
    next.passed.wait_for(|passed| *passed == everything).await.unwrap();
    next.stop.cancel();
    next.task.await.unwrap().unwrap();
    let raised = alerts(&plant.store).await;
    assert_eq!(raised.iter().filter(|(what, ..)| what.ends_with("raised")).count(), 11, "{raised:?}");
    end(&options, &bus).await;
}

/// What is said of a partition that stands still.
async fn stands_still(positions: &Dependency, partition: u16, end: i64, position: i64) {
    let said = format!(
        "partition {partition} of sensor-raw-data stands still: it ends at {end}, below the position {position};"
    );
    soon("it is told", async || positions.away().is_some_and(|away| away.error.starts_with(&said))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_stands_still_where_a_topic_was_made_anew_and_goes_on_elsewhere() {
    let Some((options, bus)) = connect().await else { return };
    let room = Room::new();
    let (cut, other) = ("m-00", "m-01");
    let partition = partition_of(cut, READINGS_PARTITIONS);
    assert_ne!(partition, partition_of(other, READINGS_PARTITIONS));
    bus.publish(Topic::Readings, (0..5).map(|second| message(cut, line(cut, second, 40.0))).collect()).await.unwrap();
    let history = room.open_history();
    let (task, stop) = start_ingest(&room, &bus, &history);
    let old = ends(&bus).await;
    soon("everything is taken", async || history.appended().await.unwrap() == old).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    end(&options, &bus).await;

    let Some((options, bus)) = connect().await else { return };
    let new = vec![message(cut, line(cut, 9, 40.0)), message(other, line(other, 9, 40.0))];
    bus.publish(Topic::Readings, new).await.unwrap();
    let history = room.open_history();
    let positions = Dependencies::default().needed("positions");
    let parts = ingest_parts(&room, &bus, &history);
    let (task, stop) = start(ingest::Parts { positions: positions.clone(), ..parts });
    stands_still(&positions, partition, 1, 5).await;
    let at = usize::from(partition_of(other, READINGS_PARTITIONS));
    soon("the other one is taken", async || history.appended().await.unwrap()[at] == 1).await;
    assert_eq!(history.appended().await.unwrap()[usize::from(partition)], 5, "nothing is said to be taken");

    // Within the first moments it may have been a broker that came back: the log reaches the position after all.
    bus.publish(Topic::Readings, (10..16).map(|second| message(cut, line(cut, second, 40.0))).collect()).await.unwrap();
    soon("it goes on", async || history.appended().await.unwrap()[usize::from(partition)] == 7).await;
    assert_eq!(positions.away(), None);
    stop.cancel();
    task.await.unwrap().unwrap();
    end(&options, &bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detect_judges_nothing_of_a_log_that_was_cut_until_a_person_says_from_where() {
    let Some((options, bus)) = connect().await else { return };
    let room = Room::new();
    let (cut, other) = ("m-00", "m-01");
    let (partition, free) = (partition_of(cut, READINGS_PARTITIONS), partition_of(other, READINGS_PARTITIONS));
    assert_ne!(partition, free);
    let plant = open(&room, &bus);
    let send = async |bus: &Bus, machine: &str, seconds: std::ops::Range<i64>, torque_nm: f64| {
        let messages = seconds.map(|second| message(machine, line(machine, second, torque_nm))).collect();
        bus.publish(Topic::Readings, messages).await.unwrap();
    };
    let stored = async || plant.store.positions([partition]).await.unwrap()[0];
    // State is saved at 50; the position is 60.
    send(&bus, cut, 0..50, 40.0).await;
    let first = start_detect(&room, &plant);
    soon("all is judged", async || stored().await == 50).await;
    first.stop.cancel();
    first.task.await.unwrap().unwrap();
    send(&bus, cut, 50..60, 40.0).await;
    let second = start_detect(&room, &plant);
    soon("all is judged", async || stored().await == 60).await;
    second.task.abort();
    let _ = second.task.await;
    end(&options, &bus).await;

    // The new log reaches beyond the state, and breaks the law from 52 on.
    let Some((options, bus)) = connect().await else { return };
    send(&bus, cut, 100..152, 40.0).await;
    send(&bus, cut, 152..155, 70.0).await;
    send(&bus, other, 100..101, 70.0).await;
    let anew = Open { bus: bus.clone(), store: plant.store.clone() };
    let positions = Dependencies::default().needed("positions");
    let mut third = start_detect_told(&room, &anew, positions.clone());
    stands_still(&positions, partition, 55, 60).await;
    let judged = third.passed.wait_for(|passed| passed.get(usize::from(free)) == Some(&1));
    tokio::time::timeout(Duration::from_secs(30), judged).await.expect("the other one is judged").unwrap();
    assert_eq!(alerts(&plant.store).await, [("m-01 power_failure raised".to_owned(), 0, 0)]);
    assert_eq!(stored().await, 60);

    let database = rusqlite::Connection::open(room.folder.path().join("store.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let number = i32::from(partition);
    for sql in [
        "delete from activation where partition = ?1",
        "delete from snapshot where partition = ?1",
        "update consumer_offset set next_offset = 0 where partition = ?1",
    ] {
        database.execute(sql, [number]).unwrap();
    }
    soon("it goes on", async || stored().await == 55).await;
    assert_eq!(positions.away(), None);
    let told = [("m-00 power_failure raised".to_owned(), 52, 0), ("m-01 power_failure raised".to_owned(), 0, 0)];
    assert_eq!(alerts(&plant.store).await, told);
    third.stop.cancel();
    third.task.await.unwrap().unwrap();
    end(&options, &bus).await;
}
