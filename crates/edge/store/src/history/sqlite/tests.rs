//! What only the file does: answers from memory, chunks, merging, flushing on its own.

use super::*;
use crate::history::{
    History,
    tests::{Reading, SECOND, START, all, id, ledger_of, mills, options, reading},
};

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

fn file(history: &History) -> &Sqlite {
    match history {
        History::Sqlite(sqlite) => sqlite,
        History::Postgres(_) => unreachable!("opened as a file"),
    }
}

async fn positions(history: &History) -> Vec<i64> {
    history.positions().await.unwrap()
}

async fn appended(history: &History) -> Vec<i64> {
    history.appended().await.unwrap()
}

#[tokio::test]
async fn what_was_not_flushed_is_answered_and_is_gone_after_a_crash() {
    let folder = Folder::new();
    let history = folder.open();
    let first = mills(&[reading("m1", START, 4280), reading("m2", START, 1)]);
    history.append_record(0, 0, "http", START, &first, &[]).await.unwrap();
    assert_eq!(history.flush().await.unwrap(), [1, 0]);
    let second = mills(&[reading("m1", START + SECOND, 4300)]);
    history.append_record(0, 1, "http", START + SECOND, &second, &[]).await.unwrap();
    assert_eq!((positions(&history).await, appended(&history).await), (vec![1, 0], vec![2, 0]));
    let both = [(START + SECOND, 4300, 0), (START, 4280, 0)];
    assert_eq!(all(&history, "m1").await, both);
    assert_eq!(ledger_of(&history, "http").await, [3, 3, 0, 0]);
    drop(history);

    let history = folder.open();
    assert_eq!((positions(&history).await, appended(&history).await), (vec![1, 0], vec![1, 0]));
    assert_eq!(all(&history, "m1").await, both[1..]);
    assert_eq!((history.newest("m1").await.unwrap(), history.class_of("m1").as_deref()), (Some(START), Some("mill")));
    assert_eq!((history.newest("m9").await.unwrap(), history.class_of("m9")), (None, None));
    assert_eq!(ledger_of(&history, "http").await, [2, 2, 0, 0]);
    history.append_record(0, 1, "http", START + SECOND, &second, &[]).await.unwrap();
    assert_eq!(all(&history, "m1").await, both);
    assert_eq!(ledger_of(&history, "http").await, [3, 3, 0, 0]);
    history.close().await.unwrap();
    assert!(matches!(history.append_record(0, 2, "http", START, &first, &[]).await, Err(Error::Closed)));
    let history = folder.open();
    assert_eq!(all(&history, "m1").await, both);
}

#[tokio::test]
async fn a_damaged_chunk_is_told_and_no_panic() {
    let folder = Folder::new();
    let history = folder.open();
    let readings: Vec<Reading> = (0..500).map(|at| reading("m1", START + at * SECOND, at % 97)).collect();
    history.append_record(0, 0, "http", START + 500 * SECOND, &mills(&readings), &[]).await.unwrap();
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
        assert!(matches!(history.append_record(0, 1, "http", START, &late, &[]).await, Err(Error::Damaged(1))));
        put(&directory[..at % directory.len()], &readings);
        assert!(matches!(history.logs(&id("m1"), range.0, range.1, 10, None).await, Err(Error::Damaged(1))));
    }
    put(&directory, &readings);
    assert_eq!(history.logs(&id("m1"), range.0, range.1, 10, None).await.unwrap().rows.len(), 10);
    // What could not be looked up is not in, and comes again.
    let late = history.append_record(0, 1, "http", START, &late, &[]).await.unwrap();
    assert_eq!((late.stored, late.duplicate), (0, 1));
    assert_eq!(ledger_of(&history, "http").await, [501, 500, 0, 1]);
}

#[tokio::test]
async fn a_flush_saves_nothing_of_a_record_that_is_not_stored() {
    let folder = Folder::new();
    let history = folder.open();
    let first = mills(&[reading("m1", START, 1), reading("m1", START + 60 * SECOND, 2)]);
    history.append_record(0, 0, "http", START + 60 * SECOND, &first, &[]).await.unwrap();
    history.flush().await.unwrap();
    let connection = Connection::open(folder.path()).unwrap();
    connection.execute("update chunk set readings = cast('damaged' || readings as blob)", []).unwrap();
    // Its second row is late, and cannot be looked up.
    let second = mills(&[reading("m1", START + 90 * SECOND, 3), reading("m1", START, 1)]);
    history.append_record(0, 1, "http", START, &mills(&[reading("m2", START, 1)]), &[]).await.unwrap();
    let failed = history.append_record(0, 2, "http", START + 90 * SECOND, &second, &[]).await;
    assert!(matches!(failed, Err(Error::Damaged(1))), "{failed:?}");
    assert_eq!(history.flush().await.unwrap(), [2, 0]);
    assert_eq!(
        (history.newest("m1").await.unwrap(), appended(&history).await),
        (Some(START + 60 * SECOND), vec![2, 0])
    );
    drop(history);
    connection.execute("update chunk set readings = substr(readings, 8) where id = 1", []).unwrap();
    let history = folder.open();
    let appended = history.append_record(0, 2, "http", START + 90 * SECOND, &second, &[]).await.unwrap();
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
    history.append_record(0, 0, "http", START, &mills(&[reading("m1", START, 1)]), &[]).await.unwrap();
    history.switch(Arc::new(second.clone())).await.unwrap();
    history.switch(Arc::new(second.clone())).await.unwrap();
    history.append_record(0, 1, "http", START, &mills(&[reading("m1", START + SECOND, 1)]), &[]).await.unwrap();
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
        history.append_record(0, offset as i64, "http", arrived, &batches, &[]).await.unwrap();
        history.flush().await.unwrap();
    }
    file(&history).inner.drop_old(START + 120 * SECOND).await.unwrap();
    assert_eq!(all(&history, "m0").await, []);
    assert_eq!(all(&history, "m1").await.len(), 1);
    assert_eq!(ledger_of(&history, "http").await, [2, 2, 0, 0]);
}

#[tokio::test]
async fn size_and_age_flush_on_their_own() {
    let folder = Folder::new();
    for options in [Options { flush_bytes: 10_000, ..options() }, Options { flush_after_us: 50_000, ..options() }] {
        let history = folder.open_with(options);
        let from = positions(&history).await[0];
        for offset in from..from + 20 {
            let readings: Vec<Reading> =
                (0..100).map(|at| reading("m1", START + (offset * 100 + at) * SECOND, at)).collect();
            history.append_record(0, offset, "http", START, &mills(&readings), &[]).await.unwrap();
        }
        let started = std::time::Instant::now();
        while positions(&history).await[0] == from {
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
        history.append_record(0, offset, "file", START + offset * 300 * SECOND, &batches, &[]).await.unwrap();
        history.flush().await.unwrap();
    }
    let before = all_pages(&history, "m3").await;
    while file(&history).inner.merge_once(8).await.unwrap() {}
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
                while file(&history).inner.merge_once(2).await.unwrap() {}
            }
        })
    };
    for offset in 0..300 {
        let batches =
            mills(&[reading("m1", START + offset * SECOND, offset), reading("m2", START + offset * SECOND, 0)]);
        history.append_record(0, offset, "file", START + offset * SECOND, &batches, &[]).await.unwrap();
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
        let appended = history.append_record(0, round, "file", time(round, 5), batches, &[]).await.unwrap();
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
