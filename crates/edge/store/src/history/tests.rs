//! The history against real files, and against a plain model of it.

mod model;

use super::*;
use catalog::Channel;
use wire::ErrorCode;

const SECOND: i64 = 1_000_000;
/// 2025-11-07T15:10:01Z.
const START: i64 = 1_762_528_201 * SECOND;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("history.db")
    }

    fn open(&self) -> History {
        self.open_with(options())
    }

    fn open_with(&self, options: Options) -> History {
        History::open(&self.path(), Arc::new(Catalogue::builtin()), options).unwrap()
    }
}

/// Nothing happens on its own.
fn options() -> Options {
    Options {
        partitions: 2,
        flush_bytes: 1 << 30,
        flush_after_us: 3_600 * SECOND,
        retention_us: i64::MAX,
        dead_letter_retention_us: i64::MAX,
    }
}

fn id(name: &str) -> MachineId {
    MachineId::try_from(name).unwrap()
}

/// A reading of a mill, whose torque is given in hundredths.
#[derive(Debug, Clone)]
struct Reading {
    machine: String,
    timestamp_us: i64,
    torque: i64,
    seq: Option<i64>,
}

fn reading(machine: &str, timestamp_us: i64, torque: i64) -> Reading {
    Reading { machine: machine.into(), timestamp_us, torque, seq: None }
}

/// One batch of a class; channels that a test does not name have the least value of their range.
fn batch_of(class: &str, readings: &[Reading]) -> ReadingBatch {
    let class = Catalogue::builtin().class(class).unwrap().clone();
    let torque = class.channel_index("torque_nm");
    let mut batch = ReadingBatch::new(class.clone());
    for (index, reading) in readings.iter().enumerate() {
        let machine = id(&reading.machine);
        let place = batch.machines.iter().position(|known| *known == machine).unwrap_or_else(|| {
            batch.machines.push(machine.clone());
            batch.machines.len() - 1
        });
        batch.machine.push(place as u32);
        batch.timestamp_us.push(reading.timestamp_us);
        batch.index.push(index as u32);
        for (at, (values, Channel { range, .. })) in batch.values.iter_mut().zip(&class.channels).enumerate() {
            values.push(if Some(at) == torque { reading.torque } else { range.0 });
        }
        if reading.seq.is_some() || !batch.seq.is_empty() {
            batch.seq.resize(index, None);
            batch.seq.push(reading.seq);
        }
    }
    batch
}

fn mills(readings: &[Reading]) -> Vec<ReadingBatch> {
    vec![batch_of("mill", readings)]
}

fn reject(index: u32, payload: &str) -> Reject {
    let payload = payload.as_bytes().to_vec();
    Reject { index, code: ErrorCode::NotJson, error: "not JSON".into(), machine: None, channel: None, payload }
}

/// (time, torque, flags), newest first.
async fn all(history: &History, machine: &str) -> Vec<(i64, i64, u8)> {
    let page = history.logs(&id(machine), i64::MIN, i64::MAX, 1_000, None).await.unwrap();
    assert_eq!(page.next_cursor, None);
    page.rows.iter().map(|row| (row.timestamp_us, row.values[3], row.flags)).collect()
}

fn ledger_of(history: &History, source: &str) -> [u64; 4] {
    let row = history.ledger().into_iter().find(|row| row.source == source).unwrap_or_default();
    assert_eq!(row.received, row.stored + row.rejected + row.duplicate);
    [row.received, row.stored, row.rejected, row.duplicate]
}

#[tokio::test]
async fn what_was_not_flushed_is_answered_and_is_gone_after_a_crash() {
    let folder = Folder::new();
    let history = folder.open();
    let first = mills(&[reading("m1", START, 4280), reading("m2", START, 1)]);
    history.append(0, 0, "http", START, &first, &[]).await.unwrap();
    assert_eq!(history.flush().await.unwrap(), [1, 0]);
    let second = mills(&[reading("m1", START + SECOND, 4300)]);
    history.append(0, 1, "http", START + SECOND, &second, &[]).await.unwrap();
    assert_eq!((history.positions(), history.appended()), (vec![1, 0], vec![2, 0]));
    let both = [(START + SECOND, 4300, 0), (START, 4280, 0)];
    assert_eq!(all(&history, "m1").await, both);
    assert_eq!(ledger_of(&history, "http"), [3, 3, 0, 0]);
    drop(history);

    let history = folder.open();
    assert_eq!((history.positions(), history.appended()), (vec![1, 0], vec![1, 0]));
    assert_eq!(all(&history, "m1").await, both[1..]);
    assert_eq!((history.newest("m1"), history.class_of("m1").as_deref()), (Some(START), Some("mill")));
    assert_eq!((history.newest("m9"), history.class_of("m9")), (None, None));
    assert_eq!(ledger_of(&history, "http"), [2, 2, 0, 0]);
    history.append(0, 1, "http", START + SECOND, &second, &[]).await.unwrap();
    assert_eq!(all(&history, "m1").await, both);
    assert_eq!(ledger_of(&history, "http"), [3, 3, 0, 0]);
    history.close().await.unwrap();
    assert!(matches!(history.append(0, 2, "http", START, &first, &[]).await, Err(Error::Closed)));
    let history = folder.open();
    assert_eq!(all(&history, "m1").await, both);
}

#[tokio::test]
async fn a_record_below_the_position_is_in_already() {
    let history = Folder::new().open();
    let batches = mills(&[reading("m1", START, 1)]);
    assert_eq!(history.append(1, 4, "http", START, &batches, &[]).await.unwrap().stored, 1);
    assert_eq!(history.append(1, 4, "http", START, &batches, &[]).await.unwrap(), Appended::default());
    assert_eq!(history.append(1, 3, "http", START, &batches, &[reject(0, "x")]).await.unwrap(), Appended::default());
    assert_eq!(ledger_of(&history, "http"), [1, 1, 0, 0]);
    assert_eq!(history.appended(), [0, 5]);
}

#[tokio::test]
async fn a_late_row_is_stored_once_at_any_age() {
    let folder = Folder::new();
    let history = folder.open();
    let old = reading("m1", START, 1);
    let append = async |history: &History, offset, readings: &[Reading]| {
        history.append(0, offset, "file", START + 60 * SECOND, &mills(readings), &[]).await.unwrap()
    };
    append(&history, 0, &[old.clone(), reading("m1", START + 60 * SECOND, 2)]).await;
    // In memory, twice within one record.
    let again = append(&history, 1, &[old.clone(), reading("m1", START, 3), reading("m1", START, 3)]).await;
    assert_eq!((again.stored, again.late, again.duplicate), (1, 1, 2));
    history.flush().await.unwrap();
    // In the file.
    let again = append(&history, 2, &[old.clone(), reading("m1", START, 3), reading("m1", START, 4)]).await;
    assert_eq!((again.stored, again.late, again.duplicate), (1, 1, 2));
    drop(history);
    // Inside the lateness and older, after a restart.
    let history = folder.open();
    let again = append(&history, 2, &[old, reading("m1", START + 60 * SECOND, 2), reading("m1", START, 5)]).await;
    assert_eq!((again.stored, again.late, again.duplicate), (1, 1, 2));
    // A sequence number is an identity by itself.
    let numbered = |torque| Reading { seq: Some(7), ..reading("m1", START, torque) };
    let again = append(&history, 3, &[numbered(6), numbered(7)]).await;
    assert_eq!((again.stored, again.duplicate), (1, 1));
}

#[tokio::test]
async fn a_machine_keeps_its_class() {
    let folder = Folder::new();
    let history = folder.open();
    history.append(0, 0, "http", START, &mills(&[reading("m \"1\"", START, 4280)]), &[]).await.unwrap();
    let other = vec![batch_of("pump", &[reading("p1", START, 0), reading("m \"1\"", START + SECOND, 0)])];
    let appended = history.append(0, 1, "http", START + SECOND, &other, &[reject(2, "x")]).await.unwrap();
    assert_eq!((appended.stored, appended.rejected), (1, 2));
    assert_eq!(ledger_of(&history, "http"), [4, 2, 2, 0]);
    for _ in 0..2 {
        let letters = history.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows;
        assert_eq!(letters.len(), 2);
        let changed = letters.iter().find(|letter| letter.code == "class_changed").unwrap();
        let json: serde_json::Value = serde_json::from_slice(&changed.payload).unwrap();
        assert_eq!(json["machine_id"], "m \"1\"");
        assert_eq!(json["class"], "pump");
        assert_eq!(json["timestamp"], "2025-11-07T15:10:02Z");
        assert_eq!((changed.partition, changed.offset, changed.index), (Some(0), Some(1), 1));
        assert_eq!(history.dead_letter(changed.id).await.unwrap().unwrap().payload, changed.payload);
        history.flush().await.unwrap();
    }
    assert_eq!(history.class_of("m \"1\"").as_deref(), Some("mill"));
    assert_eq!(history.newest("m \"1\""), Some(START));
}

#[tokio::test]
async fn refusals_of_the_door_are_durable_and_can_be_paged_and_marked() {
    let folder = Folder::new();
    let history = folder.open();
    let mut ids = Vec::new();
    for at in 0..5 {
        let rejects = [reject(0, &format!("a{at}")), reject(1, &format!("b{at}"))];
        ids.extend(history.refuse("http", START + at, &rejects).await.unwrap());
    }
    // And one that lies in memory, between them.
    history.append(0, 0, "simulate", START + 2, &[], &[reject(7, "bus")]).await.unwrap();
    let (mut payloads, mut cursor) = (Vec::new(), None);
    loop {
        let page = history.dead_letters(&LetterFilter::default(), 2, cursor.as_deref()).await.unwrap();
        payloads.extend(page.rows.iter().map(|letter| String::from_utf8(letter.payload.clone()).unwrap()));
        if payloads.len() == 4 {
            history.flush().await.unwrap();
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    payloads[4..7].sort();
    assert_eq!(payloads.join(" "), "b4 a4 b3 a3 a2 b2 bus b1 a1 b0 a0");
    assert!(matches!(history.dead_letters(&LetterFilter::default(), 2, Some("d1.x")).await, Err(Error::Cursor)));
    drop(history);

    let history = folder.open();
    assert_eq!(ledger_of(&history, "http"), [10, 0, 10, 0]);
    assert_eq!(ledger_of(&history, "simulate"), [1, 0, 1, 0]);
    history.replayed(ids[0], 99).await.unwrap();
    assert_eq!(history.dead_letter(ids[0]).await.unwrap().unwrap().replayed_us, Some(99));
    assert!(history.dead_letter(uuid::Uuid::nil()).await.unwrap().is_none());
    // One that no flush has written yet.
    history.append(0, 1, "simulate", START + 3, &[], &[reject(8, "bus")]).await.unwrap();
    let held = history
        .dead_letters(&LetterFilter::default(), 20, None)
        .await
        .unwrap()
        .rows
        .into_iter()
        .find(|letter| letter.index == 8);
    let held = held.unwrap();
    history.replayed(held.id, 98).await.unwrap();
    assert_eq!(history.dead_letter(held.id).await.unwrap().unwrap().replayed_us, Some(98));
}

#[tokio::test]
async fn who_was_overtaken_writes_nothing() {
    let folder = Folder::new();
    let (first, second) = (folder.open(), folder.open());
    let batches = mills(&[reading("m1", START, 1)]);
    first.append(1, 0, "http", START, &batches, &[]).await.unwrap();
    second.append(1, 0, "http", START, &batches, &[reject(1, "x")]).await.unwrap();
    second.append(0, 0, "http", START, &mills(&[reading("m2", START, 1)]), &[]).await.unwrap();
    first.flush().await.unwrap();
    let fenced = |result: Result<_, Error>| {
        assert!(matches!(result, Err(Error::Fenced { partition: 1, expected: 0, found: 1 })));
    };
    fenced(second.flush().await.map(|_| ()));
    fenced(second.flush().await.map(|_| ()));
    fenced(second.append(1, 1, "http", START, &batches, &[]).await.map(|_| ()));
    drop(second);
    let third = folder.open();
    assert_eq!(third.positions(), [0, 1]);
    assert_eq!(ledger_of(&third, "http"), [1, 1, 0, 0]);
    assert!(third.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn a_damaged_chunk_is_told_and_no_panic() {
    let folder = Folder::new();
    let history = folder.open();
    let readings: Vec<Reading> = (0..500).map(|at| reading("m1", START + at * SECOND, at % 97)).collect();
    history.append(0, 0, "http", START + 500 * SECOND, &mills(&readings), &[]).await.unwrap();
    history.flush().await.unwrap();
    let connection = Connection::open(folder.path()).unwrap();
    let [directory, readings] = ["directory", "readings"]
        .map(|blob| connection.query_row(&format!("select {blob} from chunk"), [], |row| row.get::<_, Vec<u8>>(0)));
    let (directory, readings) = (directory.unwrap(), readings.unwrap());
    let put = |directory: &[u8], readings: &[u8]| {
        connection.execute("update chunk set directory = ?1, readings = ?2", params![directory, readings]).unwrap();
    };
    let range = (START + 3 * SECOND, START + 400 * SECOND);
    let late = mills(&[reading("m1", START, 0)]);
    for at in (0..readings.len()).step_by(readings.len() / 20) {
        let mut damaged = readings.clone();
        damaged[at] ^= 1 << (at % 8);
        put(&directory, &damaged);
        assert!(matches!(history.logs(&id("m1"), range.0, range.1, 10, None).await, Err(Error::Damaged(1))));
        assert!(matches!(history.chart(&id("m1"), "torque_nm", range.0, range.1, 3).await, Err(Error::Damaged(1))));
        assert!(matches!(history.append(0, 1, "http", START, &late, &[]).await, Err(Error::Damaged(1))));
        put(&directory[..at % directory.len()], &readings);
        assert!(matches!(history.logs(&id("m1"), range.0, range.1, 10, None).await, Err(Error::Damaged(1))));
    }
    put(&directory, &readings);
    assert_eq!(history.logs(&id("m1"), range.0, range.1, 10, None).await.unwrap().rows.len(), 10);
    // What could not be looked up is not in, and comes again.
    let late = history.append(0, 1, "http", START, &late, &[]).await.unwrap();
    assert_eq!((late.stored, late.duplicate), (0, 1));
    assert_eq!(ledger_of(&history, "http"), [501, 500, 0, 1]);
}

#[tokio::test]
async fn a_flush_saves_nothing_of_a_record_that_is_not_stored() {
    let folder = Folder::new();
    let history = folder.open();
    let first = mills(&[reading("m1", START, 1), reading("m1", START + 60 * SECOND, 2)]);
    history.append(0, 0, "http", START + 60 * SECOND, &first, &[]).await.unwrap();
    history.flush().await.unwrap();
    let connection = Connection::open(folder.path()).unwrap();
    connection.execute("update chunk set readings = cast('damaged' || readings as blob)", []).unwrap();
    // Its second row is late, and cannot be looked up.
    let second = mills(&[reading("m1", START + 90 * SECOND, 3), reading("m1", START, 1)]);
    history.append(0, 1, "http", START, &mills(&[reading("m2", START, 1)]), &[]).await.unwrap();
    let failed = history.append(0, 2, "http", START + 90 * SECOND, &second, &[]).await;
    assert!(matches!(failed, Err(Error::Damaged(1))), "{failed:?}");
    assert_eq!(history.flush().await.unwrap(), [2, 0]);
    assert_eq!((history.newest("m1"), history.appended()), (Some(START + 60 * SECOND), vec![2, 0]));
    drop(history);
    connection.execute("update chunk set readings = substr(readings, 8) where id = 1", []).unwrap();
    let history = folder.open();
    let appended = history.append(0, 2, "http", START + 90 * SECOND, &second, &[]).await.unwrap();
    assert_eq!((appended.stored, appended.duplicate, appended.late, appended.out_of_order), (1, 1, 0, 0));
}

#[tokio::test]
async fn a_switch_is_recorded_with_the_flush_that_covers_it() {
    let folder = Folder::new();
    let history = folder.open();
    let activations = || {
        let connection = Connection::open(folder.path()).unwrap();
        let mut query = connection.prepare("select partition, from_offset, catalogue_hash from activation").unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<Vec<(u16, i64, String)>, _>>().unwrap()
    };
    let first = Catalogue::builtin();
    let second = Catalogue::builtin().with_default("pump").unwrap();
    let (old, new) = (first.hash().to_owned(), second.hash().to_owned());
    history.append(0, 0, "http", START, &mills(&[reading("m1", START, 1)]), &[]).await.unwrap();
    history.switch(Arc::new(second.clone())).await.unwrap();
    history.switch(Arc::new(second.clone())).await.unwrap();
    history.append(0, 1, "http", START, &mills(&[reading("m1", START + SECOND, 1)]), &[]).await.unwrap();
    assert_eq!(activations(), []);
    history.flush().await.unwrap();
    // On a partition without a record nothing lay between the two.
    assert_eq!(activations(), [(0, 0, old), (0, 1, new.clone()), (1, 0, new)]);
    drop(history);
    let history = History::open(&folder.path(), Arc::new(second), options()).unwrap();
    history.flush().await.unwrap();
    assert_eq!(activations().len(), 3);
}

#[tokio::test]
async fn retention_drops_whole_chunks_by_arrival() {
    let folder = Folder::new();
    let history = folder.open_with(Options { retention_us: 100 * SECOND, ..options() });
    // Old data that came late is as new as its arrival.
    for (offset, (time, arrived)) in
        [(START, START), (START - 9_000 * SECOND, START + 50 * SECOND)].into_iter().enumerate()
    {
        let batches = mills(&[reading(&format!("m{offset}"), time, 1)]);
        history.append(0, offset as i64, "http", arrived, &batches, &[]).await.unwrap();
        history.flush().await.unwrap();
    }
    history.inner.drop_old(START + 120 * SECOND).await.unwrap();
    assert_eq!(all(&history, "m0").await, []);
    assert_eq!(all(&history, "m1").await.len(), 1);
    assert_eq!(ledger_of(&history, "http"), [2, 2, 0, 0]);
}

#[tokio::test]
async fn old_dead_letters_are_dropped_and_stay_counted() {
    let folder = Folder::new();
    let history = folder.open_with(Options { dead_letter_retention_us: 100 * SECOND, ..options() });
    let rejects: Vec<_> = (0..2_500).map(|at| reject(at, "old")).collect();
    history.refuse("http", START, &rejects).await.unwrap();
    history.refuse("http", START + 50 * SECOND, &[reject(0, "new")]).await.unwrap();
    history.append(0, 0, "simulate", START, &[], &[reject(7, "bus")]).await.unwrap();
    history.flush().await.unwrap();
    history.inner.drop_old_letters(START + 120 * SECOND).await.unwrap();
    let kept = history.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows;
    assert_eq!(kept.iter().map(|letter| &*letter.payload).collect::<Vec<_>>(), [b"new"]);
    assert_eq!((ledger_of(&history, "http"), ledger_of(&history, "simulate")), ([2_501, 0, 2_501, 0], [1, 0, 1, 0]));
}

#[tokio::test]
async fn dead_letters_are_found_by_source_code_and_arrival() {
    let folder = Folder::new();
    let history = folder.open();
    history.refuse("http", START, &[reject(0, "a"), reject(1, "b")]).await.unwrap();
    let late = Reject { code: ErrorCode::TooOld, ..reject(0, "c") };
    history.refuse("http", START + SECOND, std::slice::from_ref(&late)).await.unwrap();
    // In memory alone, then on disk.
    history.append(0, 0, "simulate", START + 2 * SECOND, &[], &[late, reject(1, "e")]).await.unwrap();
    let some = |text: &str| Some(text.to_owned());
    for _ in 0..2 {
        let found = async |filter: LetterFilter| {
            let (mut found, mut cursor) = (Vec::new(), None);
            loop {
                let page = history.dead_letters(&filter, 1, cursor.as_deref()).await.unwrap();
                found.extend(page.rows.iter().map(|letter| String::from_utf8(letter.payload.clone()).unwrap()));
                match page.next_cursor {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            found.sort();
            found.concat()
        };
        let all = LetterFilter::default();
        assert_eq!(found(all.clone()).await, "abcce");
        assert_eq!(found(LetterFilter { source: some("http"), ..all.clone() }).await, "abc");
        assert_eq!(found(LetterFilter { source: some("simulate"), code: some("too_old"), ..all.clone() }).await, "c");
        assert_eq!(found(LetterFilter { from_us: START + SECOND, ..all.clone() }).await, "cce");
        assert_eq!(found(LetterFilter { to_us: START + SECOND, ..all.clone() }).await, "ab");
        assert_eq!(found(LetterFilter { source: some("nobody"), ..all }).await, "");
        history.flush().await.unwrap();
    }
}

#[tokio::test]
async fn size_and_age_flush_on_their_own() {
    let folder = Folder::new();
    for options in [Options { flush_bytes: 10_000, ..options() }, Options { flush_after_us: 50_000, ..options() }] {
        let history = folder.open_with(options);
        let from = history.positions()[0];
        for offset in from..from + 20 {
            let readings: Vec<Reading> =
                (0..100).map(|at| reading("m1", START + (offset * 100 + at) * SECOND, at)).collect();
            history.append(0, offset, "http", START, &mills(&readings), &[]).await.unwrap();
        }
        let started = std::time::Instant::now();
        while history.positions()[0] == from {
            assert!(started.elapsed().as_secs() < 20, "no flush came");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        history.close().await.unwrap();
    }
}

#[tokio::test]
async fn merging_ends_with_one_machine_a_chunk() {
    let folder = Folder::new();
    let history = folder.open();
    for offset in 0..40 {
        let row = |at: i64| reading(&format!("m{}", at % 10), START + (offset * 300 + at / 10) * SECOND, at);
        let batches = mills(&(0..3_000).map(row).collect::<Vec<_>>());
        history.append(0, offset, "file", START + offset * 300 * SECOND, &batches, &[]).await.unwrap();
        history.flush().await.unwrap();
    }
    let before = all_pages(&history, "m3").await;
    while history.inner.merge_once(8).await.unwrap() {}
    assert_eq!(all_pages(&history, "m3").await, before);
    assert_eq!(before.len(), 40 * 300);
    let connection = Connection::open(folder.path()).unwrap();
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(ask("select sum(rows) from chunk"), 40 * 3_000);
    assert_eq!(ask("select count(*) from chunk where first_machine <> last_machine"), 0);
    let whole = history.chart(&id("m3"), "torque_nm", START, START + 12_000 * SECOND, 1).await.unwrap();
    assert_eq!((whole[0].count, whole[0].min, whole[0].max), (12_000, 0.03, 29.93));
}

async fn all_pages(history: &History, machine: &str) -> Vec<(i64, i64)> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = history.logs(&id(machine), i64::MIN, i64::MAX, 1_000, cursor.as_deref()).await.unwrap();
        found.extend(page.rows.iter().map(|row| (row.timestamp_us, row.values[3])));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn whoever_reads_during_flush_and_merge_sees_each_row_once() {
    let folder = Folder::new();
    let history = folder.open();
    let stop = Arc::new(AtomicBool::new(false));
    let churn = {
        let (history, stop) = (history.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                history.flush().await.unwrap();
                while history.inner.merge_once(2).await.unwrap() {}
            }
        })
    };
    for offset in 0..300 {
        let batches =
            mills(&[reading("m1", START + offset * SECOND, offset), reading("m2", START + offset * SECOND, 0)]);
        history.append(0, offset, "file", START + offset * SECOND, &batches, &[]).await.unwrap();
        let rows = offset as usize + 1;
        assert_eq!(all(&history, "m1").await.len(), rows);
        let (from, to) = (START, START + 1_000 * SECOND);
        let chart = history.chart(&id("m1"), "torque_nm", from, to, 7).await.unwrap();
        assert_eq!(chart.iter().map(|bucket| bucket.count).sum::<u64>(), rows as u64);
    }
    stop.store(true, Ordering::Relaxed);
    churn.await.unwrap();
}

#[tokio::test]
async fn a_million_rows_are_taken_and_found() {
    let folder = Folder::new();
    let history = folder.open_with(Options { flush_bytes: 16 << 20, ..options() });
    const MACHINES: i64 = 1_000;
    const ROUNDS: i64 = 1_000;
    let time = |round: i64, at: i64| START + (round * 5 + at) * SECOND;
    let rows = |round: i64| -> Vec<Reading> {
        let row = |at: i64, machine: i64| {
            reading(&format!("machine-{machine:04}"), time(round, at), (at * machine * 7919) % 9_000)
        };
        (0..5).flat_map(|at| (0..MACHINES).map(move |machine| row(at, machine))).collect()
    };
    let records: Vec<_> = (0..ROUNDS / 5).map(|round| mills(&rows(round))).collect();
    let started = std::time::Instant::now();
    for (round, batches) in (0..).zip(&records) {
        let appended = history.append(0, round, "file", time(round, 5), batches, &[]).await.unwrap();
        assert_eq!(appended.stored, 5 * MACHINES as u64);
    }
    println!("{} rows taken in {:?}", MACHINES * ROUNDS, started.elapsed());
    history.flush().await.unwrap();
    println!("and written in {:?}, {} bytes", started.elapsed(), std::fs::metadata(folder.path()).unwrap().len());
    let started = std::time::Instant::now();
    let chart = history.chart(&id("machine-0500"), "torque_nm", START, START + ROUNDS * SECOND, 10).await.unwrap();
    assert_eq!(chart.iter().map(|bucket| bucket.count).sum::<u64>(), ROUNDS as u64);
    let page = history.logs(&id("machine-0999"), START, i64::MAX, 1_000, None).await.unwrap();
    assert_eq!(page.rows.len(), 1_000);
    println!("read in {:?}", started.elapsed());
}
