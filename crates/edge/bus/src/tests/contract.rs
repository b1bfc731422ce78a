//! What every variant of the bus promises: a variant names its [`Harness`] to [`bus_contract`].

use crate::{Bus, Consumer, Error, Event, Outgoing, Record, Topic};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// How a variant is set up: three partitions, a log of its own.
pub(super) trait Harness: Sized {
    /// `None` where what it needs is not here; then it said so.
    async fn new() -> Option<Self>;
    /// Opens the log; the one before is dropped or closed.
    async fn open(&self, limits: Limits) -> Bus;
    async fn end(self) {}
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) retention_us: i64,
    pub(super) retention_bytes: u64,
}

impl Limits {
    /// Nothing meets them.
    pub(super) const WIDE: Limits = Limits { retention_us: i64::MAX, retention_bytes: 1 << 40 };
}

macro_rules! bus_contract {
    ($harness:ty) => {
        $crate::tests::contract::bus_contract!($harness:
            what_was_sent_is_there_after_reopening
            offsets_are_dense_and_in_order
            records_of_a_partition_stand_together_in_order
            a_dropped_next_takes_nothing
            next_waits_for_what_comes
            two_consumers_each_see_everything
            at_most_the_bytes_asked_for_but_at_least_one
            a_position_above_the_end_is_truncated
            nothing_comes_of_a_partition_before_it_is_started
            a_partition_is_started_anew_elsewhere
            a_closed_bus_refuses
            closing_finishes_what_was_accepted
            too_much_waiting_is_busy
        );
    };
    ($harness:ty: $($fact:ident)+) => {
        $(#[tokio::test]
        async fn $fact() {
            let Some(harness) = <$harness as $crate::tests::contract::Harness>::new().await else { return };
            $crate::tests::contract::$fact(&harness).await;
            harness.end().await;
        })+
    };
}
pub(super) use bus_contract;

/// What the embedded bus promises beside: it drops by itself what nobody holds, and is full when everything is held.
macro_rules! retention_contract {
    ($harness:ty) => {
        $crate::tests::contract::bus_contract!($harness:
            an_offset_is_never_given_twice
            every_partition_comes_forward
            retention_respects_every_hold
            without_a_hold_nothing_is_dropped
            a_full_bus_refuses_until_a_hold_moves
            a_position_below_the_begin_is_a_gap
            rows_are_counted_by_source
        );
    };
}
pub(super) use retention_contract;

/// A value that is known by its number.
pub(super) fn value(number: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (number.wrapping_mul(31).wrapping_add(at * 7) % 251) as u8).collect()
}

/// Of `number` rows, arrived at `number` seconds.
pub(super) fn batch(partition: u16, number: u64, len: usize) -> Outgoing {
    let arrived_us = number as i64 * 1_000_000;
    let (source, rows) = ("http".into(), number as u32);
    Outgoing { partition, arrived_us, source, rows, key: None, value: value(number, len) }
}

/// A consumer in a group of its own that was assigned everything and starts there.
pub(super) async fn started(bus: &Bus, start: &[i64]) -> Result<Consumer, Error> {
    let mut consumer = assigned(bus, start.len()).await;
    for (partition, offset) in (0..).zip(start) {
        consumer.start(partition, *offset).await?;
    }
    Ok(consumer)
}

/// A consumer in a group of its own that was assigned so many partitions.
pub(super) async fn assigned(bus: &Bus, partitions: usize) -> Consumer {
    static GROUPS: AtomicU32 = AtomicU32::new(0);
    let group = format!("test-{}-{}", std::process::id(), GROUPS.fetch_add(1, Ordering::Relaxed));
    let mut consumer = bus.consumer(Topic::Readings, &group).unwrap();
    let mut has = 0;
    while has < partitions {
        match next(&mut consumer, 1).await.unwrap() {
            Event::Assigned(more) => has += more.len(),
            event => panic!("{event:?}"),
        }
    }
    consumer
}

async fn next(consumer: &mut Consumer, bytes: usize) -> Result<Event, Error> {
    tokio::time::timeout(Duration::from_secs(30), consumer.next(bytes)).await.expect("something comes")
}

pub(super) async fn next_records(consumer: &mut Consumer, bytes: usize) -> Result<Vec<Record>, Error> {
    match next(consumer, bytes).await? {
        Event::Records(records) => Ok(records),
        event => panic!("{event:?}"),
    }
}

/// Waits until nothing waits for the consumer; nothing may come.
pub(super) async fn until_caught_up(consumer: &mut Consumer) {
    for _ in 0..1000 {
        if consumer.caught_up() {
            return;
        }
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(20), consumer.next(1000)).await {
            panic!("{event:?}");
        }
    }
    panic!("it does not catch up");
}

async fn ends(bus: &Bus) -> Vec<i64> {
    let mut ends = Vec::new();
    for partition in 0..3 {
        ends.push(bus.bounds(Topic::Readings, partition).await.unwrap().1);
    }
    ends
}

/// Takes until there are as many; in order of partition.
pub(super) async fn take(consumer: &mut Consumer, count: usize) -> Vec<Record> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(next_records(consumer, 1 << 20).await.unwrap());
    }
    taken.sort_by_key(|record| record.partition);
    taken
}

pub(super) fn offsets(records: &[Record]) -> Vec<(u16, i64)> {
    records.iter().map(|record| (record.partition, record.offset)).collect()
}

pub(super) async fn what_was_sent_is_there_after_reopening(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let sent = vec![batch(0, 1, 10), batch(2, 2, 40_000), batch(0, 3, 0)];
    assert_eq!(bus.send(sent.clone()).await.unwrap(), [0, 0, 1]);
    drop(bus);
    let bus = harness.open(Limits::WIDE).await;
    assert_eq!(ends(&bus).await, [2, 0, 1]);
    let taken = take(&mut started(&bus, &[0; 3]).await.unwrap(), 3).await;
    assert_eq!(offsets(&taken), [(0, 0), (0, 1), (2, 0)]);
    for (record, sent) in taken.iter().zip([&sent[0], &sent[2], &sent[1]]) {
        assert_eq!(record.value[..], sent.value);
        assert_eq!(record.source, sent.source);
        if let Bus::Sqlite(_) = bus {
            assert_eq!((record.arrived_us, record.rows), (sent.arrived_us, sent.rows));
        }
    }
}

pub(super) async fn offsets_are_dense_and_in_order(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let senders = (0..4).map(|sender| {
        let bus = bus.clone();
        tokio::spawn(async move {
            let mut given = Vec::new();
            for number in 0..20 {
                let sent = bus.send(vec![batch(1, number, 10), batch(sender % 3, number, 10)]).await.unwrap();
                given.extend([(1, sent[0]), (sender % 3, sent[1])]);
            }
            assert!(given.chunks(2).is_sorted_by_key(|pair| pair[0].1));
            given
        })
    });
    let mut given = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        given.extend(sender.await.unwrap());
    }
    given.sort_unstable();
    let expected: Vec<_> =
        (0..3).zip(ends(&bus).await).flat_map(|(p, end)| (0..end).map(move |offset| (p, offset))).collect();
    assert_eq!(given, expected);
    assert_eq!(given.len(), 160);
}

pub(super) async fn an_offset_is_never_given_twice(harness: &impl Harness) {
    let limits = Limits { retention_us: 0, ..Limits::WIDE };
    let bus = harness.open(limits).await;
    bus.hold("test", &[100; 3]);
    assert_eq!(bus.send(vec![batch(0, 1, 10), batch(1, 1, 10)]).await.unwrap(), [0, 0]);
    // Newer, so that the ones before are dropped with it.
    assert_eq!(bus.send(vec![batch(1, 5, 10)]).await.unwrap(), [1]);
    dropped_to(&bus, [1, 1, 0]).await;
    drop(bus);
    let bus = harness.open(limits).await;
    assert_eq!((bus.begins(), bus.ends()), (vec![1, 1, 0], vec![1, 2, 0]));
    assert_eq!(bus.send(vec![batch(0, 6, 10)]).await.unwrap(), [1]);
}

/// Waits until retention has come that far.
async fn dropped_to(bus: &Bus, begins: [i64; 3]) {
    let reached = async {
        while bus.begins() != begins {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), reached).await;
    assert!(waited.is_ok(), "begins at {:?}, not {begins:?}", bus.begins());
}

pub(super) async fn records_of_a_partition_stand_together_in_order(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    for number in 0..10 {
        bus.send(vec![batch(2, number, 10), batch(0, number, 10), batch(1, number, 10)]).await.unwrap();
    }
    let mut consumer = started(&bus, &[0, 3, 0]).await.unwrap();
    let mut next = [0, 3, 0];
    while next != [10; 3] {
        let records = next_records(&mut consumer, 100).await.unwrap();
        let runs: Vec<_> = records.chunk_by(|a, b| a.partition == b.partition).map(|run| run[0].partition).collect();
        let distinct: std::collections::BTreeSet<_> = runs.iter().collect();
        assert_eq!(runs.len(), distinct.len());
        for record in records {
            assert_eq!(record.offset, next[usize::from(record.partition)]);
            next[usize::from(record.partition)] += 1;
        }
    }
    until_caught_up(&mut consumer).await;
}

pub(super) async fn every_partition_comes_forward(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    for number in 0..60 {
        bus.send(vec![batch(0, number, 100)]).await.unwrap();
    }
    bus.send(vec![batch(1, 1, 100), batch(2, 2, 100)]).await.unwrap();
    let mut one_each = started(&bus, &[0; 3]).await.unwrap();
    let mut first = Vec::new();
    for _ in 0..3 {
        first.extend(offsets(&next_records(&mut one_each, 100).await.unwrap()));
    }
    assert_eq!(first, [(0, 0), (1, 0), (2, 0)]);
    let many = next_records(&mut started(&bus, &[0; 3]).await.unwrap(), 1000).await.unwrap();
    assert_eq!(many.iter().filter(|record| record.partition == 0).count(), 8);
}

pub(super) async fn a_dropped_next_takes_nothing(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    for number in 0..50 {
        let mut next = Box::pin(consumer.next(1000));
        let early = futures_poll_once(next.as_mut()).await;
        assert!(early.is_none());
        bus.send(vec![batch(1, number, 10)]).await.unwrap();
        drop(next);
        assert_eq!(offsets(&take(&mut consumer, 1).await), [(1, number as i64)]);
    }
}

async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

pub(super) async fn next_waits_for_what_comes(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    until_caught_up(&mut consumer).await;
    let waits = tokio::spawn(async move { offsets(&take(&mut consumer, 2).await) });
    bus.send(vec![batch(2, 1, 10), batch(2, 2, 10)]).await.unwrap();
    assert_eq!(waits.await.unwrap(), [(2, 0), (2, 1)]);
}

pub(super) async fn two_consumers_each_see_everything(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    bus.send(vec![batch(0, 0, 10)]).await.unwrap();
    let (mut whole, mut rest) = (started(&bus, &[0; 3]).await.unwrap(), started(&bus, &[1, 0, 0]).await.unwrap());
    bus.send(vec![batch(0, 1, 10), batch(1, 2, 10)]).await.unwrap();
    assert_eq!(take(&mut whole, 3).await.len(), 3);
    until_caught_up(&mut whole).await;
    assert_eq!(offsets(&take(&mut rest, 2).await), [(0, 1), (1, 0)]);
}

pub(super) async fn at_most_the_bytes_asked_for_but_at_least_one(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    bus.send(vec![batch(0, 0, 500), batch(0, 1, 100), batch(0, 2, 100), batch(0, 3, 100)]).await.unwrap();
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    assert_eq!(offsets(&next_records(&mut consumer, 10).await.unwrap()), [(0, 0)]);
    assert_eq!(offsets(&next_records(&mut consumer, 200).await.unwrap()), [(0, 1), (0, 2)]);
    assert_eq!(offsets(&next_records(&mut consumer, 0).await.unwrap()), [(0, 3)]);
}

pub(super) async fn retention_respects_every_hold(harness: &impl Harness) {
    let bus = harness.open(Limits { retention_us: 3_000_000, ..Limits::WIDE }).await;
    bus.hold("ingest", &[5, 0, 0]);
    bus.hold("detect", &[2, 9, 0]);
    for number in 0..10 {
        bus.send(vec![batch(0, number, 10)]).await.unwrap();
    }
    dropped_to(&bus, [2, 0, 0]).await;
    bus.hold("detect", &[4, 9, 0]);
    dropped_to(&bus, [4, 0, 0]).await;
    // Arrived at 6 s and later stay: they are not older than 3 s.
    bus.hold("ingest", &[10, 0, 0]);
    bus.hold("detect", &[10, 0, 0]);
    dropped_to(&bus, [6, 0, 0]).await;
    bus.send(vec![batch(1, 9, 10)]).await.unwrap();
    assert_eq!(bus.begins(), [6, 0, 0]);
    assert_eq!(take(&mut started(&bus, &[6, 0, 0]).await.unwrap(), 5).await.len(), 5);
}

pub(super) async fn without_a_hold_nothing_is_dropped(harness: &impl Harness) {
    let bus = harness.open(Limits { retention_us: 1, ..Limits::WIDE }).await;
    for number in 0..10 {
        bus.send(vec![batch(0, number, 10)]).await.unwrap();
    }
    assert_eq!(bus.begins(), [0; 3]);
    assert_eq!(take(&mut started(&bus, &[0; 3]).await.unwrap(), 10).await.len(), 10);
}

pub(super) async fn a_full_bus_refuses_until_a_hold_moves(harness: &impl Harness) {
    let bus = harness.open(Limits { retention_bytes: 10_000, ..Limits::WIDE }).await;
    bus.hold("test", &[0; 3]);
    let mut sent = 0;
    let (used, limit) = loop {
        match bus.send(vec![batch(0, sent, 1000), batch(1, sent, 1000)]).await {
            Ok(_) => sent += 1,
            Err(Error::Full { used, limit }) => break (used, limit),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((used, limit), bus.used());
    assert!(sent >= 4 && used <= limit && used > limit - 2200);
    // All or none: neither partition moved.
    assert_eq!(bus.ends(), [sent as i64, sent as i64, 0]);
    bus.hold("test", &[1, 1, 0]);
    assert_eq!(bus.send(vec![batch(0, sent, 1000)]).await.unwrap(), [sent as i64]);
    // Larger than the whole bus: never, and nothing is dropped for it.
    let begins = bus.begins();
    assert!(matches!(bus.send(vec![batch(0, 0, 20_000)]).await, Err(Error::Full { .. })));
    assert_eq!(bus.begins(), begins);
}

pub(super) async fn a_position_above_the_end_is_truncated(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    bus.send(vec![batch(1, 0, 10)]).await.unwrap();
    let refused = started(&bus, &[0, 2, 0]).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Truncated { partition: 1, end: 1, position: 2 })));
    until_caught_up(&mut started(&bus, &[0, 1, 0]).await.unwrap()).await;

    // It is stopped alone, and goes on from where it is said.
    let mut consumer = assigned(&bus, 3).await;
    for (partition, offset) in [(0, 0), (1, 2), (2, 0)] {
        assert_eq!(consumer.start(partition, offset).await.is_err(), partition == 1);
    }
    until_caught_up(&mut consumer).await;
    bus.send(vec![batch(0, 1, 10), batch(1, 2, 10), batch(1, 3, 10)]).await.unwrap();
    assert_eq!(offsets(&take(&mut consumer, 1).await), [(0, 0)]);
    until_caught_up(&mut consumer).await;
    consumer.start(1, 1).await.unwrap();
    assert_eq!(offsets(&take(&mut consumer, 2).await), [(1, 1), (1, 2)]);
}

pub(super) async fn a_position_below_the_begin_is_a_gap(harness: &impl Harness) {
    let bus = harness.open(Limits { retention_us: 0, ..Limits::WIDE }).await;
    let mut idle = started(&bus, &[0; 3]).await.unwrap();
    bus.hold("test", &[0, 0, 1]);
    bus.send(vec![batch(2, 0, 10), batch(2, 5, 10)]).await.unwrap();
    dropped_to(&bus, [0, 0, 1]).await;
    let refused = started(&bus, &[0; 3]).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Gap { partition: 2, begin: 1, position: 0 })));
    // Who did not hold what it had not read learns it, too.
    assert!(matches!(next_records(&mut idle, 100).await, Err(Error::Gap { partition: 2, begin: 1, position: 0 })));
}

pub(super) async fn rows_are_counted_by_source(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let from = |source: &str, outgoing| Outgoing { source: source.into(), ..outgoing };
    for number in 1..=3 {
        let file = from("file", batch(1, 10 * number, 10));
        bus.send(vec![batch(0, number, 10), file]).await.unwrap();
    }
    let rows = |of: &[(&str, u64)]| -> BTreeMap<Arc<str>, u64> {
        of.iter().map(|&(source, rows)| (source.into(), rows)).collect()
    };
    let check = |bus: &Bus| {
        assert_eq!(bus.rows_from(&[0; 3]).unwrap(), rows(&[("http", 6), ("file", 60)]));
        assert_eq!(bus.rows_from(&[2, 1, 0]).unwrap(), rows(&[("http", 3), ("file", 50)]));
        assert_eq!(bus.rows_from(&[3, 3, 0]).unwrap(), rows(&[]));
    };
    check(&bus);
    drop(bus);
    let bus = harness.open(Limits::WIDE).await;
    check(&bus);
    bus.send(vec![batch(0, 7, 10)]).await.unwrap();
    assert_eq!(bus.rows_from(&[1, 3, 0]).unwrap(), rows(&[("http", 12)]));
}

pub(super) async fn nothing_comes_of_a_partition_before_it_is_started(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    bus.send(vec![batch(0, 1, 10), batch(1, 2, 10), batch(2, 3, 10)]).await.unwrap();
    let mut consumer = assigned(&bus, 3).await;
    consumer.start(1, 0).await.unwrap();
    assert_eq!(offsets(&take(&mut consumer, 1).await), [(1, 0)]);
    bus.send(vec![batch(0, 4, 10), batch(1, 5, 10)]).await.unwrap();
    assert_eq!(offsets(&take(&mut consumer, 1).await), [(1, 1)]);
    assert!(!consumer.caught_up(), "two are not started");
    consumer.start(0, 1).await.unwrap();
    consumer.start(2, 0).await.unwrap();
    let mut rest = offsets(&take(&mut consumer, 2).await);
    rest.sort_unstable();
    assert_eq!(rest, [(0, 1), (2, 0)]);
}

pub(super) async fn a_partition_is_started_anew_elsewhere(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    for number in 0..10 {
        bus.send(vec![batch(0, number, 10), batch(1, number, 10)]).await.unwrap();
    }
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    take(&mut consumer, 5).await;
    assert!(matches!(consumer.start(0, 11).await, Err(Error::Truncated { end: 10, .. })));
    for (partition, offset) in [(0, 4), (1, 10)] {
        consumer.start(partition, offset).await.unwrap();
    }
    let expected: Vec<_> = (4..10).map(|offset| (0, offset)).collect();
    assert_eq!(offsets(&take(&mut consumer, 6).await), expected);
    until_caught_up(&mut consumer).await;
}

pub(super) async fn a_closed_bus_refuses(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    let mut waits = started(&bus, &[0; 3]).await.unwrap();
    let waits = tokio::spawn(async move { waits.next(100).await });
    bus.close().await;
    bus.close().await;
    assert!(matches!(bus.send(vec![batch(0, 0, 10)]).await, Err(Error::Closed)));
    assert!(matches!(consumer.next(100).await, Err(Error::Closed)));
    assert!(matches!(waits.await.unwrap(), Err(Error::Closed)));
}

pub(super) async fn closing_finishes_what_was_accepted(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let mut sends: Vec<_> = (0..20).map(|number| Box::pin(bus.send(vec![batch(0, number, 10)]))).collect();
    for send in &mut sends {
        // Accepted when first polled.
        futures_poll_once(send.as_mut()).await;
    }
    bus.close().await;
    drop(sends);
    drop(bus);
    assert_eq!(ends(&harness.open(Limits::WIDE).await).await, [20, 0, 0]);
}

pub(super) async fn too_much_waiting_is_busy(harness: &impl Harness) {
    let bus = harness.open(Limits::WIDE).await;
    let large = vec![Outgoing { value: vec![7; 1 << 20], ..batch(0, 1, 0) }; 40];
    let mut sends: Vec<_> = (0..4).map(|_| Box::pin(bus.send(large.clone()))).collect();
    let mut accepted = 0;
    let mut busy = 0;
    for send in &mut sends {
        match futures_poll_once(send.as_mut()).await {
            Some(Err(Error::Busy)) => busy += 1,
            None | Some(Ok(_)) => accepted += 1,
            Some(Err(error)) => panic!("{error}"),
        }
    }
    assert!(accepted > 0 && busy > 0, "{accepted} accepted, {busy} busy");
    bus.close().await;
    assert_eq!(ends(&bus).await, [accepted * 40, 0, 0]);
}
