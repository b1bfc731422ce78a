//! Kills and copies: what `send` answered is there with its offset, whatever happens.

use super::{
    Sqlite,
    contract::{Limits, batch, next_records, started, value},
};
use crate::{Bus, Error, Options, Record};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// Names the folder to the child: this very binary, running [`child`].
const CHILD_FOLDER: &str = "BUS_TEST_CHILD_FOLDER";

/// Not a test when nobody asks for it: sends until it is killed, and says what was answered.
#[tokio::test]
async fn child() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let path = Path::new(&folder).join("bus.db");
    let bus = Bus::open(Options { path, partitions: 3, retention_us: 30_000_000, retention_bytes: 1 << 20 }).unwrap();
    let begun = bus.ends().iter().sum::<i64>() as u64;
    let senders = (0..3_u64).map(|sender| {
        let bus = bus.clone();
        tokio::spawn(async move {
            for number in (begun + sender..).step_by(3) {
                let partition = (number % 3) as u16;
                let len = (number % 7 * 3000) as usize;
                bus.hold("child", &bus.ends());
                let offsets = bus.send(vec![batch(partition, number, len), batch(1, number, 100)]).await.unwrap();
                // In one piece, so that a line that is there is whole.
                println!("\nsent {partition} {} {number} {len}\nsent 1 {} {number} 100", offsets[0], offsets[1]);
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_answered_survives_kill_9() {
    let folder = Sqlite::new();
    let limits = Limits { retention_us: 30_000_000, retention_bytes: 1 << 20 };
    let mut answered: BTreeMap<(u16, i64), (u64, usize)> = BTreeMap::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::crash::child", "--nocapture"])
            .env(CHILD_FOLDER, folder.0.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: String| {
            let words: Vec<&str> = line.split(' ').collect();
            if let ["sent", partition, offset, number, len] = words[..] {
                let place = (partition.parse().unwrap(), offset.parse().unwrap());
                let before = answered.insert(place, (number.parse().unwrap(), len.parse().unwrap()));
                assert_eq!(before, None, "an offset was given twice");
            }
        };
        for _ in 0..40 + 60 * round {
            note(lines.next().expect("the child sends until it is killed").unwrap());
        }
        assert!(matches!(Bus::open(folder.options(limits)), Err(Error::Locked)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it was killed.
        lines.map_while(Result::ok).for_each(&mut note);

        let bus = folder.open(limits);
        let (begins, ends) = (bus.begins(), bus.ends());
        let there = everything(&bus, &begins).await;
        for (&(partition, offset), &(number, len)) in &answered {
            let at = usize::from(partition);
            assert!(offset < ends[at], "{partition}/{offset} is lost");
            if offset >= begins[at] {
                assert_eq!(there[&(partition, offset)].value[..], value(number, len));
            }
        }
    }
    assert!(answered.len() > 500);
}

/// Names the folder to [`child_without_room`].
const FULL_FOLDER: &str = "BUS_TEST_FULL_FOLDER";

/// Not a test when nobody asks for it: sends until the disk takes no more, then goes on reading.
#[tokio::test]
async fn child_without_room() {
    let Ok(folder) = std::env::var(FULL_FOLDER) else { return };
    let path = Path::new(&folder).join("bus.db");
    let bus = Bus::open(Options { path, partitions: 3, retention_us: i64::MAX, retention_bytes: 1 << 40 }).unwrap();
    let mut answered = 0;
    let error = loop {
        match bus.send(vec![batch(0, answered, 100_000), batch(1, answered, 100_000)]).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Commit(_)), "{error}");
    // All or none, and what was answered can still be read.
    assert_eq!(bus.ends(), [answered as i64, answered as i64, 0]);
    assert_eq!(everything(&bus, &[0; 3]).await.len() as u64, 2 * answered);
    assert!(matches!(bus.send(vec![batch(0, 0, 1 << 20)]).await, Err(Error::Commit(_))));
    println!("\nanswered {answered}");
}

/// A limit on the size of files stands for a full disk.
#[cfg(unix)]
#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_was_answered() {
    let folder = Sqlite::new();
    let child = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -f 8192; exec "$0" --exact tests::crash::child_without_room --nocapture"#])
        .arg(std::env::current_exe().unwrap())
        .env(FULL_FOLDER, folder.0.path())
        .output()
        .unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    let answered = said.lines().find_map(|line| line.strip_prefix("answered ")).unwrap();
    let answered: i64 = answered.parse().unwrap();
    assert!(answered > 5);
    let bus = folder.open(Limits::WIDE);
    assert_eq!(bus.ends(), [answered, answered, 0]);
    for ((_, offset), record) in everything(&bus, &[0; 3]).await {
        assert_eq!(record.value[..], value(offset as u64, 100_000));
    }
    assert_eq!(bus.send(vec![batch(0, 0, 1 << 20)]).await.unwrap(), [answered]);
}

/// All records from here on, by place; each partition is dense.
async fn everything(bus: &Bus, from: &[i64]) -> BTreeMap<(u16, i64), Record> {
    let mut consumer = started(bus, from).await.unwrap();
    let mut there = BTreeMap::new();
    while !consumer.caught_up() {
        for record in next_records(&mut consumer, 100_000).await.unwrap() {
            there.insert((record.partition, record.offset), record);
        }
    }
    let expected: i64 = bus.ends().iter().zip(from).map(|(end, from)| end - from).sum();
    assert_eq!(there.len() as i64, expected);
    there
}

#[derive(Debug, Clone)]
enum Step {
    /// Partition and length of each record.
    Send(Vec<(u16, usize)>),
    /// Closes and opens.
    Reopen,
    /// Opens what lies on the disk while the bus is open, as after a crash.
    Crash,
    /// Lets go of all but the last so many of a partition.
    Hold(usize, i64),
    /// A consumer takes what is there.
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0..3_u16, prop_oneof![0..200_usize, 0..40_000_usize]), 1..6).prop_map(Step::Send),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        2 => (0..3_usize, 0..5_i64).prop_map(|(partition, last)| Step::Hold(partition, last)),
        2 => (1..100_000_usize).prop_map(Step::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a plain list of what was answered.
    #[test]
    fn any_use_agrees_with_a_list(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let limits = Limits { retention_us: 20_000_000, retention_bytes: 200_000 };
    let mut folder = Sqlite::new();
    let mut bus = folder.open(limits);
    let mut model: [Vec<(u64, usize)>; 3] = Default::default();
    let mut hold = [0; 3];
    bus.hold("test", &hold);
    let mut consumer = started(&bus, &hold).await.unwrap();
    // What the consumer has not taken is held, too.
    let mut position = vec![0; 3];
    bus.hold("consumer", &position);
    for (number, step) in (0..).zip(steps) {
        match step {
            Step::Send(records) => {
                let sent = records.iter().map(|&(partition, len)| batch(partition, number, len)).collect();
                let expected: Vec<i64> = expected_offsets(&model, &records);
                match bus.send(sent).await {
                    Ok(offsets) => {
                        assert_eq!(offsets, expected);
                        for (partition, len) in records {
                            model[usize::from(partition)].push((number, len));
                        }
                    }
                    Err(Error::Full { used, limit }) => assert!(used <= limit),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Reopen | Step::Crash => {
                if matches!(step, Step::Crash) {
                    let copy = Sqlite::new();
                    // The file first: the log only grows meanwhile.
                    for name in ["bus.db", "bus.db-wal"] {
                        std::fs::copy(folder.0.path().join(name), copy.0.path().join(name)).unwrap();
                    }
                    drop(bus);
                    folder = copy;
                } else {
                    bus.close().await;
                }
                bus = folder.open(limits);
                bus.hold("test", &hold);
                bus.hold("consumer", &position);
                consumer = started(&bus, &position).await.unwrap();
            }
            Step::Hold(partition, last) => {
                hold[partition] = hold[partition].max(model[partition].len() as i64 - last);
                bus.hold("test", &hold);
            }
            Step::Take(bytes) => {
                if consumer.caught_up() {
                    continue;
                }
                for record in next_records(&mut consumer, bytes).await.unwrap() {
                    let partition = usize::from(record.partition);
                    assert_eq!(record.offset, position[partition]);
                    let (number, len) = model[partition][record.offset as usize];
                    assert_eq!(record.value[..], value(number, len));
                    position[partition] += 1;
                }
                bus.hold("consumer", &position);
            }
        }
        let lens: Vec<i64> = model.iter().map(|records| records.len() as i64).collect();
        assert_eq!(bus.ends(), lens);
        for (partition, begin) in bus.begins().into_iter().enumerate() {
            assert!(begin <= hold[partition].min(position[partition]));
        }
        let rows: u64 =
            model.iter().zip(&position).flat_map(|(records, &at)| &records[at as usize..]).map(|of| of.0).sum();
        assert_eq!(bus.rows_from(&position).unwrap().values().sum::<u64>(), rows);
    }
    let held: Vec<i64> = hold.iter().zip(&position).map(|(a, b)| *a.min(b)).collect();
    let there = everything(&bus, &held).await;
    for ((partition, offset), record) in there {
        let (number, len) = model[usize::from(partition)][offset as usize];
        assert_eq!(record.value[..], value(number, len));
    }
}

fn expected_offsets(model: &[Vec<(u64, usize)>; 3], records: &[(u16, usize)]) -> Vec<i64> {
    let mut next = model.each_ref().map(|records| records.len() as i64);
    let offset = |&(partition, _): &(u16, usize)| {
        let next = &mut next[usize::from(partition)];
        *next += 1;
        *next - 1
    };
    records.iter().map(offset).collect()
}
