//! Detect: the same alerts whatever happens between judging and commit.

use crate::room::{Open, Room, line, open_bus_keeping, records, soon};
use bus::Outgoing;
use catalog::{Catalogue, Class, MachineId, MachineSettings};
use services::{
    apart::{self, ByIngest},
    detect::{self, Error, Parts},
};
use std::sync::Arc;
use store::{AlertQuery, LiveValues};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Twelve machines, ten seconds a lot; each machine is broken now and then, long enough apart to clear.
fn lots() -> Vec<Vec<Outgoing>> {
    let lot = |lot: i64| {
        let mut lines = Vec::new();
        for second in lot * 10..lot * 10 + 10 {
            for machine in 0..12 {
                let broken = (second + machine * 37) % 200 < 3;
                lines.push(line(&format!("m-{machine:02}"), second, if broken { 70.0 } else { 40.0 }));
            }
        }
        records(&lines)
    };
    (0..60).map(lot).collect()
}

struct Running {
    task: JoinHandle<Result<(), Error>>,
    stop: CancellationToken,
    passed: watch::Receiver<Vec<i64>>,
    live: LiveValues,
}

fn start(room: &Room, open: &Open) -> Running {
    start_behind(room, open, ByIngest::default())
}

/// With what ingest had taken before.
fn start_behind(room: &Room, open: &Open, taken: ByIngest) -> Running {
    let (stop, live) = (CancellationToken::new(), LiveValues::default());
    let (tell, passed) = watch::channel(Vec::new());
    let parts = Parts {
        bus: open.bus.clone(),
        store: open.store.clone(),
        live: live.clone(),
        catalogue: room.catalogue.subscribe(),
        passed: tell,
        ready: Default::default(),
        positions: Default::default(),
        clocks: Default::default(),
        taken,
    };
    Running { task: tokio::spawn(detect::run(parts, stop.clone())), stop, passed, live }
}

impl Running {
    async fn pass(&mut self, open: &Open) {
        let ends = open.bus.ends();
        let task = &mut self.task;
        tokio::select! {
            passed = self.passed.wait_for(|passed| *passed == ends) => { passed.unwrap(); }
            ended = task => panic!("detect ended: {ended:?}"),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Every alert: all that its text and reason say, in order.
async fn alerts(open: &Open) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let query = AlertQuery { limit: 500, cursor, ..AlertQuery::default() };
        let page = open.store.alerts(query).await.unwrap();
        all.extend(page.rows.iter().map(|alert| alert.to_json()));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    all.sort();
    all
}

async fn uninterrupted() -> Vec<String> {
    let room = Room::new();
    let open = room.open();
    let mut running = start(&room, &open);
    for lot in lots() {
        open.bus.send(lot).await.unwrap();
    }
    running.pass(&open).await;
    running.stop().await;
    alerts(&open).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_anywhere_gives_the_same_alerts_once() {
    let must = uninterrupted().await;
    let kinds = |kind: &str| must.iter().filter(|alert| alert.contains(&format!("\"kind\":\"{kind}\""))).count();
    assert!(kinds("raised") > 20 && kinds("cleared") > 20, "{} {}", kinds("raised"), kinds("cleared"));
    let room = Room::new();
    for (number, lots) in lots().chunks(4).enumerate() {
        let open = room.open();
        let running = start(&room, &open);
        for lot in lots {
            open.bus.send(lot.clone()).await.unwrap();
            // Somewhere between judging and commit, differently each time.
            for _ in 0..number * 7 % 23 {
                tokio::task::yield_now().await;
            }
        }
        if number % 5 == 4 {
            running.stop().await;
        } else {
            running.task.abort();
            // That it was aborted is what is wanted.
            let _ = running.task.await;
        }
        open.close().await;
    }
    let open = room.open();
    let mut running = start(&room, &open);
    running.pass(&open).await;
    assert!(alerts(&open).await == must, "the alerts differ from those of an uninterrupted run");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_leaves_nothing_to_replay_and_the_live_values() {
    let room = Room::new();
    let open = room.open();
    let mut running = start(&room, &open);
    for lot in lots() {
        open.bus.send(lot).await.unwrap();
    }
    running.pass(&open).await;
    running.stop().await;
    assert_eq!(open.store.positions(0..wire::READINGS_PARTITIONS).await.unwrap(), open.bus.ends());
    for partition in 0..wire::READINGS_PARTITIONS {
        if open.bus.ends()[usize::from(partition)] > 0 {
            assert!(!open.store.load_slabs(partition).await.unwrap().is_empty(), "partition {partition}");
        }
    }
    let before = alerts(&open).await;
    open.close().await;
    let open = room.open();
    let mut running = start(&room, &open);
    running.pass(&open).await;
    let live = running.live.clone();
    soon("live values after a restart", async || live.all().len() == 12).await;
    assert_eq!(live.get("m-00").unwrap().last_seen_us, (crate::room::T0 + 599) * 1_000_000);
    assert_eq!(alerts(&open).await, before);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_detector_on_the_same_store_is_fenced_off() {
    let room = Room::new();
    let open = room.open();
    let (mut one, other) = (start(&room, &open), start(&room, &open));
    let mut others = other.task;
    for lot in lots() {
        open.bus.send(lot).await.unwrap();
    }
    tokio::select! {
        ended = &mut one.task => assert!(matches!(ended, Ok(Err(Error::Store(store::Error::Fenced { .. })))), "{ended:?}"),
        ended = &mut others => assert!(matches!(ended, Ok(Err(Error::Store(store::Error::Fenced { .. })))), "{ended:?}"),
    }
    // Each ends, with what it has handed to the store.
    one.stop.cancel();
    other.stop.cancel();
    for task in [one.task, others] {
        if !task.is_finished() {
            let _ = task.await;
        }
    }
    let mut last = start(&room, &open);
    last.pass(&open).await;
    last.stop().await;
    assert_eq!(alerts(&open).await, uninterrupted().await);
}

/// The machine may take 80 Nm, so that 70 Nm break nothing.
fn may_take_more(room: &Room, machine: &str) {
    let settings =
        MachineSettings { limits: [("power_failure.high".to_owned(), 20_000.0)].into(), ..Default::default() };
    let catalogue = (**room.catalogue.borrow()).clone();
    let catalogue = catalogue.with_machine(MachineId::try_from(machine).unwrap(), settings).unwrap();
    room.catalogue.send_replace(Arc::new(catalogue));
}

/// Two machines under one load for some seconds.
fn load(seconds: std::ops::Range<i64>, torque: f64) -> Vec<Outgoing> {
    let lines = seconds.flat_map(|second| ["m-00", "m-01"].map(|machine| line(machine, second, torque)));
    records(&lines.collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_switches_the_catalogue_where_it_was_switched() {
    let room = Room::new();
    let open = room.open();
    let mut running = start(&room, &open);
    open.bus.send(load(0..1, 70.0)).await.unwrap();
    open.bus.send(load(1..63, 40.0)).await.unwrap();
    running.pass(&open).await;
    may_take_more(&room, "m-00");
    let hash = room.catalogue.borrow().hash().to_owned();
    soon("the activation", async || {
        let latest = open.store.latest_activations().await.unwrap();
        latest.len() == 6 && latest.iter().all(|activation| activation.catalogue_hash == hash)
    })
    .await;
    open.bus.send(load(63..64, 70.0)).await.unwrap();
    running.pass(&open).await;
    let before = alerts(&open).await;
    let of = |machine: &str| before.iter().filter(|alert| alert.contains(machine)).count();
    assert_eq!((of(r#""machine_id":"m-00","class""#), of(r#""machine_id":"m-01","class""#)), (2, 3));
    running.task.abort();
    // That it was aborted is what is wanted.
    let _ = running.task.await;
    open.close().await;
    // Nothing was saved: all is replayed, each reading under the catalogue that it was judged under.
    let open = room.open();
    let mut running = start(&room, &open);
    running.pass(&open).await;
    assert_eq!(alerts(&open).await, before);
    open.bus.send(load(64..126, 40.0)).await.unwrap();
    running.pass(&open).await;
    assert_eq!(alerts(&open).await.len(), before.len() + 1, "m-01 is cleared");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ingest_took_under_other_classes_is_compared_and_counted() {
    let room = Room::new();
    let mill = room.catalogue.borrow().class("mill").unwrap().document.clone();
    let (open, history) = (room.open(), room.open_history());
    let (task, stop, _) = crate::ingest::start(&room, &open, &history);
    let mut running = start(&room, &open);
    // The catalogue of the records is stored by detect, which takes the first of them.
    open.bus.send(load(0..3, 40.0)).await.unwrap();
    running.pass(&open).await;
    running.stop().await;
    open.bus.send(load(3..8, 40.0)).await.unwrap();
    open.bus.send(load(8..10, 70.0)).await.unwrap();
    soon("everything is taken", async || history.appended().await.unwrap() == open.bus.ends()).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    drop(history);
    // 70 Nm is out of the range of the class that comes now.
    let narrow = narrower(&mill);
    room.catalogue.send_replace(Arc::new(Catalogue::builtin().with_class(narrow)));
    let history = room.open_history();
    let (by_ingest, by_detect) = apart::taken(&history, &open.store).await.unwrap();
    let mut running = start_behind(&room, &open, by_ingest.clone());
    running.pass(&open).await;
    running.stop().await;
    assert_eq!((by_ingest.0.rows_apart(), by_detect.0.rows_apart()), (4, 0), "two machines, two readings each");
}

/// The mill with a torque of at most 60 Nm.
fn narrower(mill: &str) -> Class {
    let (before, torque) = mill.split_once("id = \"torque_nm\"").unwrap();
    let (from, rest) = torque.split_once("range = [").unwrap();
    let (_, rest) = rest.split_once(']').unwrap();
    let narrow = format!("{before}id = \"torque_nm\"{from}range = [0, 60]{rest}");
    Class::parse("mill.toml", &narrow).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Of one machine, in the order of its readings: what happened to which condition.
async fn told(open: &Open, machine: &str) -> Vec<(i64, wire::Kind, String, wire::AlertId)> {
    let query = AlertQuery { limit: 500, machine_id: Some(machine.to_owned()), ..AlertQuery::default() };
    let rows = open.store.alerts(query).await.unwrap().rows.into_iter().rev();
    let second = |alert: &wire::Alert| alert.timestamp / 1_000_000 - crate::room::T0;
    rows.map(|alert| (second(&alert), alert.kind, alert.condition.clone(), alert.condition_id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_snapshots_what_stands_by_the_history_is_cleared_under_its_own_id() {
    let room = Room::new();
    let open = room.open();
    let mut running = start(&room, &open);
    open.bus.send(load(0..3, 70.0)).await.unwrap();
    running.pass(&open).await;
    let raised = [told(&open, "m-00").await[0].3, told(&open, "m-01").await[0].3];
    running.stop().await;
    let saved = open.bus.ends();
    open.close().await;
    // Of m-00 nothing is left but the alert, of m-01 a part of the readings that raised it.
    let open = Open {
        bus: open_bus_keeping(&room.folder.path().join("bus.db"), 1),
        store: store::Store::open(&room.folder.path().join("store.db")).unwrap(),
    };
    open.bus.hold("detect", &saved);
    let rest: Vec<String> = (3..6).map(|second| line("m-01", second, 70.0)).collect();
    let mut rest = records(&rest);
    rest.iter_mut().for_each(|record| record.arrived_us += 10);
    open.bus.send(rest).await.unwrap();
    assert_eq!(open.bus.begins(), saved, "the bus has dropped what a snapshot knows");
    let mut running = start(&room, &open);
    running.pass(&open).await;
    running.stop().await;
    for partition in 0..wire::READINGS_PARTITIONS {
        open.store.drop_slabs(partition).await.unwrap();
    }
    let mut running = start(&room, &open);
    running.pass(&open).await;
    open.bus.send(load(6..8, 70.0)).await.unwrap();
    open.bus.send(load(8..80, 40.0)).await.unwrap();
    open.bus.send(load(80..81, 70.0)).await.unwrap();
    running.pass(&open).await;
    for (machine, raised) in ["m-00", "m-01"].into_iter().zip(raised) {
        let told = told(&open, machine).await;
        let of = |kind, second| (second, kind, "power_failure".to_owned(), raised);
        assert_eq!(told[..2], [of(wire::Kind::Raised, 0), of(wire::Kind::Cleared, 68)], "{machine}: {told:?}");
        assert_eq!((told.len(), told[2].0, told[2].1), (3, 80, wire::Kind::Raised), "{machine}: {told:?}");
        assert_ne!(told[2].3, raised);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_decoded_is_passed() {
    let room = Room::new();
    let open = room.open();
    let mut running = start(&room, &open);
    let bad = |partition| Outgoing {
        partition,
        arrived_us: 0,
        source: "http".into(),
        rows: 1,
        key: None,
        value: b"no batch".to_vec(),
    };
    open.bus.send((0..6).map(bad).collect()).await.unwrap();
    open.bus.send(records(&[line("m-00", 0, 70.0)])).await.unwrap();
    running.pass(&open).await;
    assert_eq!(alerts(&open).await.len(), 1);
    running.stop().await;
    assert_eq!(open.store.positions(0..wire::READINGS_PARTITIONS).await.unwrap(), open.bus.ends());
}
