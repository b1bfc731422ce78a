//! Random histories against a plain list of what was stored.

use super::*;
use std::collections::BTreeMap;

/// Splitmix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, limit: u64) -> i64 {
        (self.next() % limit) as i64
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A stored row: everything that an answer says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    timestamp_us: i64,
    partition: u16,
    offset: i64,
    index: u32,
    torque: i64,
    seq: Option<i64>,
    flags: u8,
}

impl Stored {
    fn key(&self) -> (i64, u16, i64, u32) {
        (self.timestamp_us, self.partition, self.offset, self.index)
    }
}

/// A record as it lies on the bus.
struct Record {
    source: &'static str,
    arrived_us: i64,
    readings: Vec<Reading>,
    /// Of a machine that is a mill, as a pump, at this index.
    as_pump: Option<(u32, Reading)>,
    rejects: Vec<Reject>,
}

/// How often each thing happened.
#[derive(Debug, Default)]
struct Seen {
    in_order: u32,
    out_of_order: u32,
    late: u32,
    ahead: u32,
    duplicate: u32,
    refused: u32,
    lots: u32,
    crashes: u32,
    flushes: u32,
    merges: u32,
    pages: u32,
    buckets: u32,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<String, Vec<Stored>>,
    newest: BTreeMap<String, i64>,
    ledger: BTreeMap<&'static str, [u64; 4]>,
    /// By partition.
    log: [Vec<Record>; 2],
    dead: u32,
    seen: Seen,
}

const LATENESS: i64 = 5 * SECOND;
const SOURCES: [&str; 3] = ["http", "simulate", "file"];

impl Model {
    /// Judges as GUARANTEES.md says, by looking at every row that is stored.
    fn judge(&mut self, source: &'static str, arrived_us: i64, partition: u16, offset: i64, readings: &[Reading]) {
        let [received, stored, _, duplicate] = self.ledger.entry(source).or_default();
        for (index, reading) in readings.iter().enumerate() {
            *received += 1;
            let Reading { timestamp_us, torque, seq, .. } = *reading;
            let rows = self.rows.entry(reading.machine.clone()).or_default();
            let newest = self.newest.entry(reading.machine.clone()).or_insert(i64::MIN);
            let same = |row: &Stored| match (row.seq, seq) {
                (Some(one), Some(other)) => one == other,
                (None, None) => row.torque == torque,
                _ => false,
            };
            if rows.iter().any(|row| row.timestamp_us == timestamp_us && same(row)) {
                *duplicate += 1;
                self.seen.duplicate += 1;
                continue;
            }
            *stored += 1;
            let (flags, seen) = if timestamp_us > arrived_us + LATENESS {
                (4, &mut self.seen.ahead)
            } else if timestamp_us < newest.saturating_sub(LATENESS) {
                (1, &mut self.seen.late)
            } else if timestamp_us < *newest {
                (2, &mut self.seen.out_of_order)
            } else {
                *newest = timestamp_us;
                (0, &mut self.seen.in_order)
            };
            *seen += 1;
            rows.push(Stored { timestamp_us, partition, offset, index: index as u32, torque, seq, flags });
        }
    }

    /// A machine's rows of a range, newest first.
    fn range(&self, machine: &str, from_us: i64, to_us: i64) -> Vec<Stored> {
        let rows = self.rows.get(machine).into_iter().flatten();
        let mut rows: Vec<Stored> =
            rows.filter(|row| row.timestamp_us >= from_us && row.timestamp_us < to_us).copied().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.key()));
        rows
    }
}

fn stored(row: &LogRow) -> Stored {
    Stored {
        timestamp_us: row.timestamp_us,
        partition: row.position.partition,
        offset: row.position.offset,
        index: row.position.index,
        torque: row.values[3],
        seq: row.seq,
        flags: row.flags,
    }
}

/// Readings of neighbours with their records and indexes as one batch.
fn in_one(class: &str, rows: Vec<(Span, u32, Reading)>) -> ReadingBatch {
    let readings: Vec<Reading> = rows.iter().map(|(.., reading)| reading.clone()).collect();
    let mut batch = batch_of(class, &readings);
    for (row, (span, index, _)) in rows.into_iter().enumerate() {
        batch.index[row] = index;
        if batch.spans.last().is_none_or(|last| last.offset != span.offset) {
            batch.spans.push(Span { first_row: row as u32, ..span });
        }
    }
    batch
}

struct Run {
    seed: u64,
    draw: Draw,
    place: Place,
    history: History,
    model: Model,
    clock_us: i64,
    /// The history flushes on its own; then a stop is a clean one, as a crash of this process cannot stop its thread.
    busy: bool,
}

impl Run {
    async fn new(place: Place, seed: u64, busy: bool) -> Run {
        let history = Run::open(&place, busy).await;
        Run { seed, draw: Draw(seed), place, history, model: Model::default(), clock_us: START, busy }
    }

    async fn open(place: &Place, busy: bool) -> History {
        match busy {
            true => place.open_with(Options { flush_bytes: 20_000, flush_after_us: 2_000, ..options() }).await,
            false => place.open().await,
        }
    }

    fn machine(&mut self, partition: u16) -> String {
        format!("m{partition}-{}", self.draw.below(4))
    }

    /// A record, or neighbours at once.
    async fn append(&mut self) {
        let partition = self.draw.below(2) as u16;
        let from = self.model.log[usize::from(partition)].len();
        let count = if self.draw.one_in(3) { 2 + self.draw.below(5) } else { 1 };
        for _ in 0..count {
            self.arrive(partition);
        }
        self.model.seen.lots += u32::from(count > 1);
        self.replay(partition, from, count as usize).await;
    }

    fn arrive(&mut self, partition: u16) {
        let draw = &mut self.draw;
        let source = SOURCES[draw.below(3) as usize];
        self.clock_us += draw.below(3) * SECOND;
        // Some bulk, so that chunks are cut inside a machine's rows too.
        let count = if draw.one_in(40) { 5_000 } else { 1 + draw.below(30) };
        let mut readings = Vec::new();
        for at in 0..count {
            let machine = self.machine(partition);
            let draw = &mut self.draw;
            let newest = self.model.newest.get(&machine).copied().unwrap_or(START).max(START);
            let earlier = self.model.rows.get(&machine).filter(|rows| !rows.is_empty());
            let step = draw.below(20);
            let mut reading = match (step, earlier) {
                (0 | 1, Some(rows)) => {
                    let row = rows[draw.below(rows.len() as u64) as usize];
                    Reading { machine, timestamp_us: row.timestamp_us, torque: row.torque, seq: row.seq }
                }
                (2, _) => reading(&machine, newest - draw.below(6) * SECOND, draw.below(9_000)),
                (3, _) => reading(&machine, newest - draw.below(60) * SECOND, draw.below(9_000)),
                (4, _) => reading(&machine, self.clock_us + (4 + draw.below(8)) * SECOND, draw.below(9_000)),
                (5, _) => reading(&machine, newest, draw.below(3)),
                _ => {
                    let ahead = self.clock_us.max(newest) + at / 40 * SECOND;
                    self.clock_us = self.clock_us.max(ahead - 2 * SECOND);
                    reading(&machine, ahead.min(self.clock_us), draw.below(9_000))
                }
            };
            if step > 17 {
                reading.seq = Some(draw.below(4));
            }
            readings.push(reading);
        }
        let offset = self.model.log[usize::from(partition)].len() as i64;
        self.model.judge(source, self.clock_us, partition, offset, &readings);
        let mut as_pump = None;
        let mut rejects = Vec::new();
        let draw = &mut self.draw;
        let counts = self.model.ledger.get_mut(source).unwrap();
        if draw.one_in(4) {
            rejects.push(reject(count as u32, "{"));
        }
        if draw.one_in(8) && self.model.rows.contains_key(&format!("m{partition}-0")) {
            as_pump = Some((count as u32 + 1, reading(&format!("m{partition}-0"), self.clock_us, 0)));
        }
        let refused = rejects.len() as u64 + u64::from(as_pump.is_some());
        counts[0] += refused;
        counts[2] += refused;
        self.model.dead += refused as u32;
        self.model.seen.refused += refused as u32;
        let record = Record { source, arrived_us: self.clock_us, readings, as_pump, rejects };
        self.model.log[usize::from(partition)].push(record);
    }

    /// Gives so many neighbours of a partition to the history.
    async fn replay(&mut self, partition: u16, from: usize, count: usize) {
        let records = &self.model.log[usize::from(partition)][from..from + count];
        let (mut mills, mut pumps): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        let (mut rejects, mut refused) = (Vec::new(), 0);
        for (offset, record) in (from as i64..).zip(records) {
            let span = Span { first_row: 0, offset, arrived_us: record.arrived_us, source: record.source.into() };
            mills.extend((0..).zip(&record.readings).map(|(index, reading)| (span.clone(), index, reading.clone())));
            pumps.extend(record.as_pump.clone().map(|(index, reading)| (span.clone(), index, reading)));
            rejects.extend(record.rejects.iter().map(|reject| (span.clone(), reject.clone())));
            refused += record.rejects.len() + usize::from(record.as_pump.is_some());
        }
        let pumps = (!pumps.is_empty()).then(|| in_one("pump", pumps));
        let batches: Vec<_> = [in_one("mill", mills)].into_iter().chain(pumps).collect();
        let offsets = from as i64..(from + count) as i64;
        let taken =
            self.history.append(&Lot { partition, offsets, batches: &batches, rejects: &rejects }).await.unwrap();
        let of_pumps = records.iter().filter_map(|record| Some(record.as_pump.as_ref()?.0));
        assert!(taken.refused.iter().map(|(_, reject)| reject.index).eq(of_pumps), "seed {}", self.seed);
        let rejected: u64 = taken.by_source.iter().map(|(_, appended)| appended.rejected).sum();
        assert_eq!(rejected, refused as u64, "seed {}", self.seed);
    }

    async fn crash(&mut self) {
        self.model.seen.crashes += 1;
        if self.busy {
            self.history.close().await.unwrap();
        }
        self.history = Run::open(&self.place, self.busy).await;
        for (partition, position) in (0..).zip(self.history.positions().await.unwrap()) {
            // In other lots than before.
            let (mut from, end) = (position as usize, self.model.log[usize::from(partition)].len());
            while from < end {
                let count = (1 + self.draw.below(6) as usize).min(end - from);
                self.replay(partition, from, count).await;
                from += count;
            }
        }
    }

    async fn merge(&mut self) {
        let groups = 2 + self.draw.below(3) as usize;
        // A busy one merges on its own too.
        if let (History::Sqlite(sqlite), false) = (&self.history, self.busy) {
            self.model.seen.merges += u32::from(sqlite.inner.merge_once(groups).await.unwrap());
        }
    }

    async fn check(&mut self) {
        // A file answers all the same from what it has not written.
        self.history.commit().await.unwrap();
        let ledger = self.history.ledger().await.unwrap();
        let ledger: BTreeMap<String, [u64; 4]> = ledger
            .into_iter()
            .map(|row| (row.source, [row.received, row.stored, row.rejected, row.duplicate]))
            .collect();
        for (source, counts) in &self.model.ledger {
            assert_eq!(ledger[*source], *counts, "{source}, seed {}", self.seed);
            assert_eq!(counts[0], counts[1] + counts[2] + counts[3]);
        }
        let partition = self.draw.below(2) as u16;
        let machine = self.machine(partition);
        let draw = &mut self.draw;
        let (from, length) = (START + draw.below(400) * SECOND - 60 * SECOND, 1 + draw.below(300) * SECOND);
        let to = if draw.one_in(3) { i64::MAX } else { from + length };
        self.check_logs(&machine, from, to).await;
        self.check_chart(&machine, from, from + length).await;
        self.history.commit().await.unwrap();
        let newest = self.model.rows.get(&machine).into_iter().flatten().map(|row| row.timestamp_us).max();
        assert_eq!(self.history.newest(&machine).await.unwrap(), newest, "seed {}", self.seed);
    }

    /// Pages while rows come and flushes happen.
    async fn check_logs(&mut self, machine: &str, from: i64, to: i64) {
        self.history.commit().await.unwrap();
        let expected = self.model.range(machine, from, to);
        let limit = 1 + self.draw.below(if expected.len() > 500 { 1_000 } else { 40 }) as usize;
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.history.logs(&id(machine), from, to, limit, cursor.as_deref()).await.unwrap();
            self.model.seen.pages += 1;
            assert!(page.rows.len() <= limit);
            found.extend(page.rows.iter().map(stored));
            let Some(next) = page.next_cursor else { break };
            cursor = Some(next);
            match self.draw.below(8) {
                0 => Box::pin(self.append()).await,
                1 => drop(self.history.flush().await.unwrap()),
                2 => self.merge().await,
                _ => {}
            }
        }
        assert_eq!(found, expected, "{machine} from {from} to {to}, seed {}", self.seed);
    }

    async fn check_chart(&mut self, machine: &str, from: i64, to: i64) {
        self.history.commit().await.unwrap();
        let buckets = 1 + self.draw.below(30) as usize;
        let found = self.history.chart(&id(machine), "torque_nm", from, to, buckets).await.unwrap();
        assert!(found.len() <= buckets, "seed {}", self.seed);
        let mut rows = self.model.range(machine, from, to);
        let mut end = i64::MAX;
        for bucket in found.iter().rev() {
            self.model.seen.buckets += 1;
            let within: Vec<i64> = rows
                .extract_if(.., |row| row.timestamp_us >= bucket.from_us && row.timestamp_us < end)
                .map(|row| row.torque)
                .collect();
            end = bucket.from_us;
            assert_eq!(bucket.count, within.len() as u64, "{machine}, seed {}", self.seed);
            assert_eq!(bucket.min, *within.iter().min().unwrap() as f64 / 100.0);
            assert_eq!(bucket.max, *within.iter().max().unwrap() as f64 / 100.0);
            let mean = within.iter().sum::<i64>() as f64 / within.len() as f64 / 100.0;
            assert!((bucket.mean - mean).abs() < 1e-9);
        }
        assert!(rows.is_empty(), "every row lies in a bucket, seed {}", self.seed);
    }
}

#[tokio::test]
async fn a_random_history_is_what_the_model_says() {
    let seen = run_seeds(async || Some(Place::file()), 0..25, false).await.unwrap();
    println!("{seen:?}");
    check_all_occurred(&seen);
    assert!(seen.merges > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_one_that_flushes_all_the_time() {
    run_seeds(async || Some(Place::file()), 100..110, true).await.unwrap();
}

#[tokio::test]
async fn so_is_one_in_a_database() {
    let database = async || Scratch::new(Which::Main).await.map(Place::Database);
    if let Some(seen) = run_seeds(database, 200..208, false).await {
        println!("{seen:?}");
        check_all_occurred(&seen);
    }
}

fn check_all_occurred(seen: &Seen) {
    let Seen {
        in_order,
        out_of_order,
        late,
        ahead,
        duplicate,
        refused,
        lots,
        crashes,
        flushes,
        pages,
        buckets,
        merges: _,
    } = *seen;
    let counts = [in_order, out_of_order, late, ahead, duplicate, refused, lots, crashes, flushes, pages, buckets];
    assert!(counts.iter().all(|count| *count > 0), "each must occur");
}

/// Each seed in a place of its own; nothing where there is none.
async fn run_seeds(place: impl AsyncFn() -> Option<Place>, seeds: std::ops::Range<u64>, busy: bool) -> Option<Seen> {
    let mut all = Vec::new();
    for seed in seeds {
        let mut run = Run::new(place().await?, seed, busy).await;
        for _ in 0..60 {
            match run.draw.below(20) {
                0..9 => run.append().await,
                9 => run.merge().await,
                10..12 => {
                    run.model.seen.flushes += 1;
                    run.history.flush().await.unwrap();
                }
                12 => run.crash().await,
                13 => {
                    let counts = run.model.ledger.entry("http").or_default();
                    counts[0] += 1;
                    counts[2] += 1;
                    run.model.dead += 1;
                    run.history.refuse("http", run.clock_us, &[reject(0, "[")]).await.unwrap();
                }
                _ => run.check().await,
            }
        }
        run.crash().await;
        for partition in 0..2 {
            for machine in 0..4 {
                run.check_logs(&format!("m{partition}-{machine}"), i64::MIN, i64::MAX).await;
            }
        }
        let (mut dead, mut cursor) = (std::collections::BTreeSet::new(), None);
        loop {
            let page = run.history.dead_letters(&LetterFilter::default(), 7, cursor.as_deref()).await.unwrap();
            dead.extend(page.rows.iter().map(|letter| letter.id));
            let Some(next) = page.next_cursor else { break };
            cursor = Some(next);
        }
        assert_eq!(dead.len(), run.model.dead as usize, "seed {seed}");
        all.push(run.model.seen);
    }
    let sum = |of: fn(&Seen) -> u32| all.iter().map(of).sum::<u32>();
    Some(Seen {
        in_order: sum(|seen| seen.in_order),
        out_of_order: sum(|seen| seen.out_of_order),
        late: sum(|seen| seen.late),
        ahead: sum(|seen| seen.ahead),
        duplicate: sum(|seen| seen.duplicate),
        refused: sum(|seen| seen.refused),
        lots: sum(|seen| seen.lots),
        crashes: sum(|seen| seen.crashes),
        flushes: sum(|seen| seen.flushes),
        merges: sum(|seen| seen.merges),
        pages: sum(|seen| seen.pages),
        buckets: sum(|seen| seen.buckets),
    })
}
