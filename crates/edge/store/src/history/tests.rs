//! What holds wherever the history lies, and a plain model of it.

mod model;

use super::*;
use crate::postgres::{Which, scratch::Scratch};
use catalog::Channel;
use wire::ErrorCode;

pub(super) const SECOND: i64 = 1_000_000;
/// 2025-11-07T15:10:01Z.
pub(super) const START: i64 = 1_762_528_201 * SECOND;

/// Where a history lies: a contract holds in both.
pub(super) enum Place {
    File(tempfile::TempDir),
    Database(Scratch),
}

impl Place {
    fn file() -> Place {
        Place::File(tempfile::tempdir().unwrap())
    }

    /// A file, and a database where the environment names a server.
    async fn all() -> Vec<Place> {
        let database = Scratch::new(Which::Main).await.map(Place::Database);
        [Place::file()].into_iter().chain(database).collect()
    }

    async fn open(&self) -> History {
        self.open_with(options()).await
    }

    pub(super) async fn open_with(&self, options: Options) -> History {
        let catalogue = Arc::new(Catalogue::builtin());
        match self {
            Place::File(folder) => History::open(&folder.path().join("history.db"), catalogue, options).unwrap(),
            Place::Database(scratch) => {
                let partitions = options.partitions;
                let history =
                    History::open_postgres(&scratch.url(), "test", catalogue, options, &Dependency::default())
                        .await
                        .unwrap();
                for partition in 0..partitions {
                    history.assign(partition).await.unwrap();
                }
                history
            }
        }
    }
}

impl History {
    /// Appends a record that has no neighbours.
    pub(super) async fn append_record(
        &self,
        partition: u16,
        offset: i64,
        source: &str,
        arrived_us: i64,
        batches: &[ReadingBatch],
        rejects: &[Reject],
    ) -> Result<Appended, Error> {
        let span = Span { first_row: 0, offset, arrived_us, source: source.into() };
        let of_record = |batch: &ReadingBatch| ReadingBatch { spans: vec![span.clone()], ..batch.clone() };
        let batches: Vec<_> = batches.iter().map(of_record).collect();
        let rejects: Vec<_> = rejects.iter().map(|reject| (span.clone(), reject.clone())).collect();
        let lot = Lot { partition, offsets: offset..offset + 1, batches: &batches, rejects: &rejects };
        let taken = self.append(&lot).await?;
        assert!(taken.by_source.iter().all(|(name, _)| **name == *source));
        Ok(taken.by_source.first().map_or_else(Appended::default, |(_, appended)| *appended))
    }
}

/// Nothing happens on its own.
pub(super) fn options() -> Options {
    Options {
        partitions: 2,
        flush_bytes: 1 << 30,
        flush_after_us: 3_600 * SECOND,
        retention_us: i64::MAX,
        dead_letter_retention_us: i64::MAX,
    }
}

pub(super) fn id(name: &str) -> MachineId {
    MachineId::try_from(name).unwrap()
}

/// A reading of a mill, whose torque is given in hundredths.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) machine: String,
    pub(super) timestamp_us: i64,
    pub(super) torque: i64,
    pub(super) seq: Option<i64>,
}

pub(super) fn reading(machine: &str, timestamp_us: i64, torque: i64) -> Reading {
    Reading { machine: machine.into(), timestamp_us, torque, seq: None }
}

/// One batch of a class; channels that a test does not name have the least value of their range.
pub(super) fn batch_of(class: &str, readings: &[Reading]) -> ReadingBatch {
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

pub(super) fn mills(readings: &[Reading]) -> Vec<ReadingBatch> {
    vec![batch_of("mill", readings)]
}

pub(super) fn reject(index: u32, payload: &str) -> Reject {
    let payload = payload.as_bytes().to_vec();
    Reject { index, code: ErrorCode::NotJson, error: "not JSON".into(), machine: None, channel: None, payload }
}

/// (time, torque, flags), newest first.
pub(super) async fn all(history: &History, machine: &str) -> Vec<(i64, i64, u8)> {
    history.commit().await.unwrap();
    let page = history.logs(&id(machine), i64::MIN, i64::MAX, 1_000, None).await.unwrap();
    assert_eq!(page.next_cursor, None);
    page.rows.iter().map(|row| (row.timestamp_us, row.values[3], row.flags)).collect()
}

pub(super) async fn ledger_of(history: &History, source: &str) -> [u64; 4] {
    history.commit().await.unwrap();
    let row = history.ledger().await.unwrap().into_iter().find(|row| row.source == source).unwrap_or_default();
    assert_eq!(row.received, row.stored + row.rejected + row.duplicate);
    [row.received, row.stored, row.rejected, row.duplicate]
}

/// The history, whose readers see everything that was appended.
async fn committed(history: &History) -> &History {
    history.commit().await.unwrap();
    history
}

#[tokio::test]
async fn a_record_below_the_position_is_in_already() {
    for place in Place::all().await {
        let history = place.open().await;
        let batches = mills(&[reading("m1", START, 1)]);
        assert_eq!(history.append_record(1, 4, "http", START, &batches, &[]).await.unwrap().stored, 1);
        assert_eq!(history.append_record(1, 4, "http", START, &batches, &[]).await.unwrap(), Appended::default());
        assert_eq!(
            history.append_record(1, 3, "http", START, &batches, &[reject(0, "x")]).await.unwrap(),
            Appended::default()
        );
        assert_eq!(ledger_of(&history, "http").await, [1, 1, 0, 0]);
        assert_eq!(history.appended().await.unwrap(), [0, 5]);
    }
}

#[tokio::test]
async fn a_late_row_is_stored_once_at_any_age() {
    for place in Place::all().await {
        let history = place.open().await;
        let old = reading("m1", START, 1);
        let append = async |history: &History, offset, readings: &[Reading]| {
            history.append_record(0, offset, "file", START + 60 * SECOND, &mills(readings), &[]).await.unwrap()
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
        let history = place.open().await;
        let again = append(&history, 2, &[old, reading("m1", START + 60 * SECOND, 2), reading("m1", START, 5)]).await;
        assert_eq!((again.stored, again.late, again.duplicate), (1, 1, 2));
        // A sequence number is an identity by itself.
        let numbered = |torque| Reading { seq: Some(7), ..reading("m1", START, torque) };
        let again = append(&history, 3, &[numbered(6), numbered(7)]).await;
        assert_eq!((again.stored, again.duplicate), (1, 1));
    }
}

#[tokio::test]
async fn a_machine_keeps_its_class() {
    for place in Place::all().await {
        let history = place.open().await;
        history.append_record(0, 0, "http", START, &mills(&[reading("m \"1\"", START, 4280)]), &[]).await.unwrap();
        let other = vec![batch_of("pump", &[reading("p1", START, 0), reading("m \"1\"", START + SECOND, 0)])];
        let appended = history.append_record(0, 1, "http", START + SECOND, &other, &[reject(2, "x")]).await.unwrap();
        assert_eq!((appended.stored, appended.rejected), (1, 2));
        assert_eq!(ledger_of(&history, "http").await, [4, 2, 2, 0]);
        for _ in 0..2 {
            let letters =
                committed(&history).await.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows;
            assert_eq!(letters.len(), 2);
            let changed = letters.iter().find(|letter| letter.code == "class_changed").unwrap();
            let json: serde_json::Value = serde_json::from_slice(&changed.payload).unwrap();
            assert_eq!(json["machine_id"], "m \"1\"");
            assert_eq!(json["class"], "pump");
            assert_eq!(json["timestamp"], "2025-11-07T15:10:02Z");
            assert_eq!((changed.partition, changed.offset, changed.index), (Some(0), Some(1), 1));
            assert_eq!(
                committed(&history).await.dead_letter(changed.id).await.unwrap().unwrap().payload,
                changed.payload
            );
            history.flush().await.unwrap();
        }
        assert_eq!(history.class_of("m \"1\"").as_deref(), Some("mill"));
        assert_eq!(history.newest("m \"1\"").await.unwrap(), Some(START));
    }
}

#[tokio::test]
async fn refusals_of_the_door_are_durable_and_can_be_paged_and_marked() {
    for place in Place::all().await {
        let history = place.open().await;
        let mut ids = Vec::new();
        for at in 0..5 {
            let rejects = [reject(0, &format!("a{at}")), reject(1, &format!("b{at}"))];
            ids.extend(history.refuse("http", START + at, &rejects).await.unwrap());
        }
        // And one that lies in memory, between them.
        history.append_record(0, 0, "simulate", START + 2, &[], &[reject(7, "bus")]).await.unwrap();
        let (mut payloads, mut cursor) = (Vec::new(), None);
        loop {
            let page =
                committed(&history).await.dead_letters(&LetterFilter::default(), 2, cursor.as_deref()).await.unwrap();
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
        assert!(matches!(
            committed(&history).await.dead_letters(&LetterFilter::default(), 2, Some("d1.x")).await,
            Err(Error::Cursor)
        ));
        drop(history);

        let history = place.open().await;
        assert_eq!(ledger_of(&history, "http").await, [10, 0, 10, 0]);
        assert_eq!(ledger_of(&history, "simulate").await, [1, 0, 1, 0]);
        committed(&history).await.replayed(ids[0], 99).await.unwrap();
        assert_eq!(committed(&history).await.dead_letter(ids[0]).await.unwrap().unwrap().replayed_us, Some(99));
        assert!(committed(&history).await.dead_letter(uuid::Uuid::nil()).await.unwrap().is_none());
        // One that no flush has written yet.
        history.append_record(0, 1, "simulate", START + 3, &[], &[reject(8, "bus")]).await.unwrap();
        let held = committed(&history)
            .await
            .dead_letters(&LetterFilter::default(), 20, None)
            .await
            .unwrap()
            .rows
            .into_iter()
            .find(|letter| letter.index == 8);
        let held = held.unwrap();
        committed(&history).await.replayed(held.id, 98).await.unwrap();
        assert_eq!(committed(&history).await.dead_letter(held.id).await.unwrap().unwrap().replayed_us, Some(98));
    }
}

#[tokio::test]
async fn who_was_overtaken_writes_nothing() {
    for place in Place::all().await {
        let (first, second) = (place.open().await, place.open().await);
        let batches = mills(&[reading("m1", START, 1)]);
        first.append_record(1, 0, "http", START, &batches, &[]).await.unwrap();
        second.append_record(1, 0, "http", START, &batches, &[reject(1, "x")]).await.unwrap();
        second.append_record(0, 0, "http", START, &mills(&[reading("m2", START, 1)]), &[]).await.unwrap();
        first.flush().await.unwrap();
        let fenced = |result: Result<_, Error>| {
            assert!(matches!(result, Err(Error::Fenced { partition: 1, expected: 0, found: 1 })));
        };
        fenced(second.flush().await.map(|_| ()));
        fenced(second.flush().await.map(|_| ()));
        fenced(second.append_record(1, 1, "http", START, &batches, &[]).await.map(|_| ()));
        drop(second);
        let third = place.open().await;
        assert_eq!(third.positions().await.unwrap(), [0, 1]);
        assert_eq!(ledger_of(&third, "http").await, [1, 1, 0, 0]);
        assert!(third.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows.is_empty());
    }
}

#[tokio::test]
async fn old_dead_letters_are_dropped_and_stay_counted() {
    for place in Place::all().await {
        let history = place.open_with(Options { dead_letter_retention_us: 100 * SECOND, ..options() }).await;
        let rejects: Vec<_> = (0..2_500).map(|at| reject(at, "old")).collect();
        history.refuse("http", START, &rejects).await.unwrap();
        history.refuse("http", START + 50 * SECOND, &[reject(0, "new")]).await.unwrap();
        history.append_record(0, 0, "simulate", START, &[], &[reject(7, "bus")]).await.unwrap();
        history.flush().await.unwrap();
        match &history {
            History::Sqlite(sqlite) => sqlite.inner.drop_old_letters(START + 120 * SECOND).await.unwrap(),
            History::Postgres(postgres) => postgres.inner.drop_old_letters(START + 120 * SECOND).await.unwrap(),
        }
        let kept = history.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows;
        assert_eq!(kept.iter().map(|letter| &*letter.payload).collect::<Vec<_>>(), [b"new"]);
        assert_eq!(ledger_of(&history, "http").await, [2_501, 0, 2_501, 0]);
        assert_eq!(ledger_of(&history, "simulate").await, [1, 0, 1, 0]);
    }
}

#[tokio::test]
async fn dead_letters_are_found_by_source_code_and_arrival() {
    for place in Place::all().await {
        let history = place.open().await;
        history.refuse("http", START, &[reject(0, "a"), reject(1, "b")]).await.unwrap();
        let late = Reject { code: ErrorCode::TooOld, ..reject(0, "c") };
        history.refuse("http", START + SECOND, std::slice::from_ref(&late)).await.unwrap();
        // In a file in memory alone, then on disk.
        history.append_record(0, 0, "simulate", START + 2 * SECOND, &[], &[late, reject(1, "e")]).await.unwrap();
        let some = |text: &str| Some(text.to_owned());
        for _ in 0..2 {
            let history = committed(&history).await;
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
            let both = LetterFilter { source: some("simulate"), code: some("too_old"), ..all.clone() };
            assert_eq!(found(both).await, "c");
            assert_eq!(found(LetterFilter { from_us: START + SECOND, ..all.clone() }).await, "cce");
            assert_eq!(found(LetterFilter { to_us: START + SECOND, ..all.clone() }).await, "ab");
            assert_eq!(found(LetterFilter { source: some("nobody"), ..all.clone() }).await, "");
            assert_eq!(found(LetterFilter { source: some("no\0body"), ..all }).await, "");
            history.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn activations_of_a_partition_come_by_offset() {
    for place in Place::all().await {
        let history = place.open().await;
        let second = Catalogue::builtin().with_default("pump").unwrap();
        let (old, new) = (Catalogue::builtin().hash().to_owned(), second.hash().to_owned());
        history.append_record(0, 0, "http", START, &mills(&[reading("m1", START, 1)]), &[]).await.unwrap();
        history.flush().await.unwrap();
        history.switch(Arc::new(second)).await.unwrap();
        history.flush().await.unwrap();
        let of = |from_offset, catalogue_hash| Activation { partition: 0, from_offset, catalogue_hash };
        assert_eq!(history.activations(0).await.unwrap(), [of(0, old), of(1, new)]);
        assert_eq!(history.activations(9).await.unwrap(), []);
    }
}
