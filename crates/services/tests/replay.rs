//! Replay: a file's readings arrive now, in order, with what was refused beside them.

use crate::room::{Room, line, records};
use bus::{Event, Topic};
use services::replay::{self, Piece, Progress, Speed};
use tokio_util::sync::CancellationToken;
use wire::{ErrorCode, ReadingBatch, Reject};

fn piece(second: i64) -> Result<Piece, std::io::Error> {
    let catalogue = catalog::Catalogue::builtin();
    let batches = records(&[line("m-00", second, 40.0), line("m-01", second, 40.0)]);
    let batches = batches.into_iter().map(|record| (record.partition, ReadingBatch::decode(&record.value, &catalogue)));
    let reject = Reject {
        index: 2,
        code: ErrorCode::NotCsv,
        error: "a quote is not closed".to_owned(),
        machine: None,
        channel: None,
        payload: b"\"".to_vec(),
    };
    Ok(Piece {
        batches: batches.map(|(partition, batch)| (partition, batch.unwrap())).collect(),
        rejects: vec![reject],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_sent_to_its_end_and_its_refused_rows_are_dead_letters() {
    let room = Room::new();
    let (open, history) = (room.open(), room.open_history());
    let (mut told, mut arrived) = (Vec::new(), std::collections::BTreeSet::new());
    let stop = CancellationToken::new();
    let pieces = (0..5).map(piece);
    let sent = replay::run(
        &open.bus,
        &history,
        pieces,
        Speed::Max,
        stop,
        |at| {
            arrived.insert(at);
        },
        |sent: &Progress| {
            told.push(*sent);
        },
    );
    let sent = sent.await.unwrap();
    assert_eq!((sent.readings, sent.rejects, sent.stopped), (10, 5, false));
    assert_eq!(told.len(), 5);
    let on_the_bus = open.bus.rows_from(&open.bus.begins()).unwrap();
    assert_eq!(on_the_bus.get("file"), Some(&10));
    assert_eq!(history.ledger().await.unwrap()[0].rejected, 5);
    let mut consumer = open.bus.consumer(Topic::Readings, "test").unwrap();
    let mut seen = 0;
    while seen < 10 {
        match consumer.next(1 << 20).await.unwrap() {
            Event::Assigned(partitions) => {
                for partition in partitions {
                    consumer.start(partition, 0).await.unwrap();
                }
            }
            Event::Records(records) => {
                for record in records {
                    assert!(arrived.contains(&record.arrived_us), "every record's arrival was told");
                    seen += record.rows;
                }
            }
            Event::Revoked(partitions) => panic!("{partitions:?} were taken away"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_a_replay_between_two_pieces() {
    let room = Room::new();
    let (open, history) = (room.open(), room.open_history());
    let stop = CancellationToken::new();
    let pieces = (0..).map(piece);
    let cancel = stop.clone();
    let cancel_at_three = move |sent: &Progress| {
        if sent.readings >= 6 {
            cancel.cancel();
        }
    };
    let sent = replay::run(&open.bus, &history, pieces, Speed::Max, stop, |_| {}, cancel_at_three).await.unwrap();
    assert_eq!((sent.readings, sent.stopped), (6, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_on_ends_with_its_error() {
    let room = Room::new();
    let (open, history) = (room.open(), room.open_history());
    let pieces = [piece(0), Err(std::io::Error::other("disk gone"))];
    let stop = CancellationToken::new();
    let sent = replay::run(&open.bus, &history, pieces, Speed::Max, stop, |_| {}, |_| {}).await;
    assert!(matches!(sent, Err(replay::Error::File(_))), "{sent:?}");
}
