//! The bus against real files. [`contract`] holds for every variant; the rest is of `bus.db` alone.

mod contract;
mod crash;
mod kafka;
mod registry;

use super::*;
use contract::{Harness, Limits, batch, next_records, offsets, started, take, value};
use rusqlite::Connection;
use std::time::Duration;

struct Sqlite(tempfile::TempDir);

impl Sqlite {
    fn new() -> Sqlite {
        Sqlite(tempfile::tempdir().unwrap())
    }

    fn open(&self, limits: Limits) -> Bus {
        Bus::open(self.options(limits)).unwrap()
    }

    fn options(&self, limits: Limits) -> Options {
        let Limits { retention_us, retention_bytes } = limits;
        Options { path: self.0.path().join("bus.db"), partitions: 3, retention_us, retention_bytes }
    }
}

impl Harness for Sqlite {
    async fn new() -> Option<Sqlite> {
        Some(Sqlite::new())
    }

    async fn open(&self, limits: Limits) -> Bus {
        Sqlite::open(self, limits)
    }
}

contract::bus_contract!(Sqlite);
contract::retention_contract!(Sqlite);

#[tokio::test]
async fn a_second_bus_on_the_same_file_is_refused_until_the_first_is_gone() {
    let folder = Sqlite::new();
    let bus = folder.open(Limits::WIDE);
    assert!(matches!(Bus::open(folder.options(Limits::WIDE)), Err(Error::Locked)));
    bus.close().await;
    folder.open(Limits::WIDE);
}

#[test]
fn another_programs_database_is_refused() {
    let folder = Sqlite::new();
    let options = folder.options(Limits::WIDE);
    Connection::open(&options.path).unwrap().execute_batch("create table theirs (a)").unwrap();
    let before = std::fs::read(&options.path).unwrap();
    assert!(matches!(Bus::open(options.clone()), Err(Error::NotOurs)));
    assert_eq!(std::fs::read(&options.path).unwrap(), before);
}

#[test]
fn a_later_schema_is_refused() {
    let folder = Sqlite::new();
    drop(folder.open(Limits::WIDE));
    let options = folder.options(Limits::WIDE);
    Connection::open(&options.path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(Bus::open(options), Err(Error::Schema { known: 1, found: 2 })));
}

#[test]
fn another_number_of_partitions_is_refused() {
    let folder = Sqlite::new();
    drop(folder.open(Limits::WIDE));
    let options = Options { partitions: 4, ..folder.options(Limits::WIDE) };
    assert!(matches!(Bus::open(options), Err(Error::Partitions { found: 3, wanted: 4 })));
}

#[tokio::test]
async fn a_closed_bus_leaves_one_file_and_its_lock() {
    let folder = Sqlite::new();
    let bus = folder.open(Limits::WIDE);
    bus.send(vec![batch(0, 1, 100)]).await.unwrap();
    let mut behind = started(&bus, &[0; 3]).await.unwrap();
    take(&mut behind, 1).await;
    bus.close().await;
    let mut names: Vec<_> = folder.0.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["bus.db", "bus.lock"]);
    let file = Connection::open(folder.0.path().join("bus.db")).unwrap();
    assert_eq!(file.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0)).unwrap(), 16384);
}

/// Consumers that keep up take from memory: they read on when the file cannot be read.
#[tokio::test]
async fn a_consumer_that_keeps_up_needs_no_file() {
    let folder = Sqlite::new();
    let bus = folder.open(Limits::WIDE);
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    bus.send(vec![batch(0, 1, 100), batch(1, 2, 100)]).await.unwrap();
    let Bus::Sqlite(sqlite) = &bus else { panic!("it is embedded") };
    sqlite.close_readers();
    assert_eq!(take(&mut consumer, 2).await.len(), 2);
    bus.send(vec![batch(2, 3, 100)]).await.unwrap();
    assert_eq!(take(&mut consumer, 1).await[0].value[..], value(3, 100));
    assert_eq!(bus.rows_from(&[0; 3]).unwrap().values().sum::<u64>(), 6);
    let mut late = started(&bus, &[0; 3]).await.unwrap();
    assert!(matches!(next_records(&mut late, 1000).await, Err(Error::Closed)));
}

/// More than memory keeps: the slow one reads the file, meets the newest in memory, and misses nothing.
#[tokio::test]
async fn a_slow_consumer_falls_back_to_the_file_and_catches_up() {
    const RECORDS: u64 = 180;
    const BYTES: usize = 512 << 10;
    let folder = Sqlite::new();
    let bus = folder.open(Limits::WIDE);
    let (mut slow, mut quick) = (started(&bus, &[0; 3]).await.unwrap(), started(&bus, &[0; 3]).await.unwrap());
    for number in 0..RECORDS {
        bus.send(vec![batch((number % 3) as u16, number, BYTES)]).await.unwrap();
        assert_eq!(take(&mut quick, 1).await[0].value[..], value(number, BYTES));
    }
    assert!(quick.caught_up() && !slow.caught_up());
    let mut next = [0; 3];
    let mut taken = 0;
    while !slow.caught_up() {
        let records = next_records(&mut slow, 4 * BYTES).await.unwrap();
        assert!((1..=4).contains(&records.len()));
        for record in records {
            let partition = usize::from(record.partition);
            assert_eq!(record.offset, next[partition]);
            assert_eq!(record.value[..], value(3 * record.offset as u64 + partition as u64, BYTES));
            next[partition] += 1;
            taken += 1;
        }
    }
    assert_eq!(taken, RECORDS);
    bus.send(vec![batch(1, 7, 10)]).await.unwrap();
    assert_eq!(offsets(&take(&mut slow, 1).await), [(1, next[1])]);
}

/// Who drops `next` early again and again still comes forward.
#[tokio::test]
async fn a_read_of_the_file_survives_the_next_that_began_it() {
    let folder = Sqlite::new();
    let bus = folder.open(Limits::WIDE);
    for number in 0..20 {
        bus.send(vec![batch(0, number, 100_000)]).await.unwrap();
    }
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < 20 {
        tokio::select! {
            biased;
            records = next_records(&mut consumer, 150_000) => taken.extend(records.unwrap()),
            () = tokio::task::yield_now() => {}
        }
    }
    let expected: Vec<_> = (0..20).map(|offset| (0, offset)).collect();
    assert_eq!(offsets(&taken), expected);
}

#[tokio::test]
async fn dropped_records_leave_room_that_is_used_again() {
    let folder = Sqlite::new();
    let bus = folder.open(Limits { retention_bytes: 4 << 20, ..Limits::WIDE });
    let path = folder.0.path().join("bus.db");
    for number in 0..600 {
        bus.hold("test", &bus.ends());
        bus.send(vec![batch((number % 3) as u16, number, 100_000)]).await.unwrap();
        assert!(bus.used().0 <= 4 << 20);
    }
    bus.close().await;
    assert!(path.metadata().unwrap().len() < 8 << 20, "60 MB went through");
}

#[tokio::test]
async fn a_lower_limit_is_reached_in_idle_time() {
    let folder = Sqlite::new();
    let bus = folder.open(Limits::WIDE);
    for number in 0..300 {
        bus.send(vec![batch(0, number, 1000)]).await.unwrap();
    }
    bus.close().await;
    let bus = folder.open(Limits { retention_bytes: 100_000, ..Limits::WIDE });
    bus.hold("test", &bus.ends());
    let reached = async {
        while bus.used().0 > 100_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap();
    assert!(bus.begins()[0] > 200);
}
