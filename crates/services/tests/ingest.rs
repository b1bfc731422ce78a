//! Ingest: every reading stored once.

use crate::room::{Open, Room, line, records, soon};
use bus::Outgoing;
use catalog::MachineId;
use services::ingest::{self, Parts, Tally};
use std::collections::BTreeSet;
use store::{History, history::LetterFilter};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub type Running = (JoinHandle<Result<(), ingest::Error>>, CancellationToken, Tally);

pub fn start(room: &Room, open: &Open, history: &History) -> Running {
    let (stop, tally) = (CancellationToken::new(), Tally::default());
    let parts = Parts {
        bus: open.bus.clone(),
        history: history.clone(),
        catalogue: room.catalogue.subscribe(),
        tally: tally.clone(),
        passed: Default::default(),
        ready: Default::default(),
        positions: Default::default(),
        clocks: Default::default(),
        taken: Default::default(),
    };
    (tokio::spawn(ingest::run(parts, stop.clone())), stop, tally)
}

async fn seconds(history: &History, machine: &str) -> Vec<i64> {
    let machine = MachineId::try_from(machine).unwrap();
    let page = history.logs(&machine, 0, i64::MAX, 1000, None).await.unwrap();
    page.rows.iter().map(|row| row.timestamp_us / 1_000_000 - crate::room::T0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_anywhere_stores_every_reading_once() {
    let room = Room::new();
    for round in 0..8 {
        let (open, history) = (room.open(), room.open_history());
        let (task, stop, _) = start(&room, &open, &history);
        for second in round * 10..round * 10 + 10 {
            let lines: Vec<String> = (0..7).map(|machine| line(&format!("m-{machine}"), second, 40.0)).collect();
            open.bus.send(records(&lines)).await.unwrap();
            if second % 4 == 3 {
                history.flush().await.unwrap();
            }
        }
        if round % 3 == 2 {
            stop.cancel();
            task.await.unwrap().unwrap();
        } else {
            task.abort();
            let _ = task.await;
        }
        // What it had in memory is lost.
        drop(history);
        open.close().await;
    }
    let (open, history) = (room.open(), room.open_history());
    let (task, stop, _) = start(&room, &open, &history);
    soon("everything is taken", async || history.appended().await.unwrap() == open.bus.ends()).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(history.positions().await.unwrap(), open.bus.ends(), "a clean stop flushes");
    for machine in 0..7 {
        let found = seconds(&history, &format!("m-{machine}")).await;
        let distinct: BTreeSet<i64> = found.iter().copied().collect();
        assert_eq!((found.len(), distinct), (80, (0..80).collect()), "m-{machine}");
    }
    let ledger = history.ledger().await.unwrap();
    assert_eq!(ledger.len(), 1);
    assert_eq!((ledger[0].received, ledger[0].stored), (560, 560));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_one_dead_letter_and_a_repeat_a_duplicate() {
    let room = Room::new();
    let (open, history) = (room.open(), room.open_history());
    let (task, stop, tally) = start(&room, &open, &history);
    let bad = Outgoing {
        partition: 3,
        arrived_us: 7,
        source: "http".into(),
        rows: 1,
        key: None,
        value: b"no batch".to_vec(),
    };
    open.bus.send(vec![bad]).await.unwrap();
    for _ in 0..2 {
        open.bus.send(records(&[line("m-00", 0, 40.0)])).await.unwrap();
    }
    soon("everything is taken", async || history.appended().await.unwrap() == open.bus.ends()).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    let letters = history.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].code.as_str(), &letters[0].payload[..]), ("bad_batch", &b"no batch"[..]));
    let row = history.ledger().await.unwrap().remove(0);
    assert_eq!((row.received, row.stored, row.rejected, row.duplicate), (3, 1, 1, 1));
    let counted = tally.of("http");
    assert_eq!((counted.stored, counted.rejected, counted.duplicate), (1, 1, 1));
}
