//! Bus to history: every reading stored once, or counted as a duplicate, or a dead letter.
//!
//! Neighbouring records are taken as one lot; while one is committed the next is read and decoded, and appended once it
//! is. On Kafka what is refused also goes to a topic, acknowledged before the lot is committed. Ingest is the only
//! writer there, so what the topic's last record tells is skipped after a crash ([`letters`]).

mod letters;

use crate::{
    apart::ByDetect,
    record::{Reader, span},
};
use bus::{Bus, Consumer, DeadLetter, Event, Record, Stopped, Topic};
use catalog::Catalogue;
use dependency::Dependency;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{
    History,
    history::{self, Appended, Lot},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wire::{Clocks, ReadingBatch, Reject, Run, Span};

/// Group of the consumers.
pub const GROUP: &str = "ingestor-group";
/// Bytes of values that are taken at once.
const LOT_BYTES: usize = 2 << 20;
/// Readings that a lot from Kafka is to hold, however they are written: with fewer, the time that a transaction takes
/// whatever is in it counts; with more, what waits for its end waits long.
const LOT_ROWS: usize = 100_000;
/// A lot from Kafka has no more bytes, some 50,000 readings where they come one a record.
const LOT_BYTES_MAX: usize = 8 << 20;
/// A lot above this is decoded apart from the runtime, whose threads answer HTTP meanwhile.
const DECODE_APART_BYTES: usize = 64 << 10;
/// How often the bus is told what it must keep.
const HOLD_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether a partition that stands still is to go on.
const GO_ON_EVERY: Duration = Duration::from_millis(200);
/// A stop takes what waits on the bus along, for no longer than this.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What ingest is given.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Parts {
    pub bus: Bus,
    pub history: History,
    pub catalogue: watch::Receiver<Arc<Catalogue>>,
    pub tally: Tally,
    /// Next offset per partition: all before it is taken. 0 of one that is not ours.
    pub passed: watch::Sender<Vec<i64>>,
    /// Told once the partitions are known and stored.
    pub ready: Arc<watch::Sender<bool>>,
    /// Away while a partition stands still.
    pub positions: Dependency,
    /// Of sources that write to the bus themselves; a door has set its own right.
    pub clocks: Arc<Clocks>,
    /// What detect had taken before.
    pub taken: ByDetect,
}

/// What was decided of each source's rows since the process began.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<Arc<str>, Appended>>>);

impl Tally {
    /// Of one source.
    pub fn of(&self, source: &str) -> Appended {
        self.0.lock().expect("never poisoned").get(source).copied().unwrap_or_default()
    }

    fn add(&self, source: &Arc<str>, more: &Appended) {
        let mut by_source = self.0.lock().expect("never poisoned");
        let sum = by_source.entry(source.clone()).or_default();
        sum.stored += more.stored;
        sum.duplicate += more.duplicate;
        sum.rejected += more.rejected;
        sum.late += more.late;
        sum.out_of_order += more.out_of_order;
        sum.ahead += more.ahead;
    }
}

/// Why ingest ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("read from the bus")]
    Bus(#[from] bus::Error),
    #[error("write the history")]
    History(#[from] store::history::Error),
    #[error("a worker panicked")]
    Panicked,
}

/// Takes readings from the bus into the history until `stop`; then what waits is stored and everything flushed.
///
/// # Errors
/// The bus cannot be read or the history not written: start again.
pub async fn run(mut parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    let catalogue = parts.catalogue.borrow_and_update().clone();
    let mut changes = parts.catalogue.clone();
    parts.history.switch(catalogue.clone()).await?;
    parts.bus.hold("ingest", &parts.history.positions().await?);
    let mut consumer = parts.bus.consumer(Topic::Readings, GROUP)?;
    let reader = Some(Reader::new(&parts.bus, catalogue, parts.clocks.clone()));
    let stopped = Stopped::new(Topic::Readings, parts.positions.clone());
    let mut ingest =
        Ingest { parts, reader, assigned: BTreeMap::new(), stopped, committing: None, lot_bytes: LOT_BYTES };
    let mut hold = tokio::time::interval(HOLD_EVERY);
    hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut go_on = tokio::time::interval(GO_ON_EVERY);
    go_on.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            committed = ended(&mut ingest.committing), if ingest.committing.is_some() => {
                ingest.committed(&mut consumer, committed).await?;
            }
            Ok(()) = changes.changed() => {
                ingest.settle(&mut consumer).await?;
                let catalogue = changes.borrow_and_update().clone();
                ingest.parts.history.switch(catalogue.clone()).await?;
                ingest.reader().switch(catalogue);
            }
            _ = hold.tick() => ingest.tell(&consumer).await?,
            _ = go_on.tick(), if !ingest.stopped.is_empty() => {
                ingest.settle(&mut consumer).await?;
                ingest.go_on(&mut consumer).await?;
            }
            event = consumer.next(ingest.lot_bytes) => match event {
                // Those that are cut stand still from the next assignment on.
                Err(bus::Error::Truncated { .. }) if !ingest.parts.bus.is_embedded() => {
                    ingest.join_anew(&mut consumer).await?;
                }
                event => ingest.take(&mut consumer, event?).await?,
            },
        }
    }
    let until = Instant::now() + DRAIN_MAX;
    while !consumer.caught_up() && Instant::now() < until {
        let Ok(event) = tokio::time::timeout_at(until, consumer.next(ingest.lot_bytes)).await else { break };
        ingest.take(&mut consumer, event?).await?;
    }
    ingest.flush(&mut consumer, &[]).await?;
    ingest.tell(&consumer).await
}

/// How the commit under way ended, if there is one. Cancel-safe.
async fn ended(committing: &mut Option<Committing>) -> Result<(), Error> {
    let Some(commit) = committing else { return Ok(()) };
    let ended = commit.await;
    *committing = None;
    Ok(ended.map_err(|_| Error::Panicked)??)
}

struct Ingest {
    parts: Parts,
    /// `None` while a worker has it.
    reader: Option<Reader>,
    /// The partitions that are ours.
    assigned: BTreeMap<u16, Assigned>,
    stopped: Stopped,
    /// A commit of what was appended. But for reading, decoding and telling, everything waits for its end
    /// ([`Ingest::settle`]).
    committing: Option<Committing>,
    /// Bytes of the next lot.
    lot_bytes: usize,
}

type Committing = AbortOnDropHandle<Result<(), history::Error>>;

/// Where a partition of ours stands.
struct Assigned {
    /// Next record to be taken.
    next: i64,
    /// Offset and index of the last refused message that the topic of dead letters holds.
    told: Option<(i64, u32)>,
}

/// Neighbouring records of a partition, and what they hold.
struct Decoded {
    records: Vec<Record>,
    run: Run,
}

impl Ingest {
    fn reader(&mut self) -> &mut Reader {
        self.reader.as_mut().expect("no worker runs")
    }

    /// Tells the bus what it must keep, and the group how far it is.
    async fn tell(&self, consumer: &Consumer) -> Result<(), Error> {
        let positions = self.parts.history.positions().await?;
        self.parts.bus.hold("ingest", &positions);
        let passed = |partition: u16| self.assigned.get(&partition).map_or(0, |assigned| assigned.next);
        self.parts.passed.send_replace((0..positions.len() as u16).map(passed).collect());
        let of = |partition: &u16| Some((*partition, *positions.get(usize::from(*partition))?));
        consumer.commit(&self.assigned.keys().filter_map(of).collect::<Vec<_>>());
        Ok(())
    }

    /// Waits for the commit under way; whether every partition of ours was begun anew.
    async fn settle(&mut self, consumer: &mut Consumer) -> Result<bool, Error> {
        let ended = ended(&mut self.committing).await;
        self.committed(consumer, ended).await
    }

    /// After a commit: where another ingest went on with a partition of ours, all are begun anew, which it tells.
    async fn committed(&mut self, consumer: &mut Consumer, ended: Result<(), Error>) -> Result<bool, Error> {
        let Err(Error::History(history::Error::Fenced { partition, expected, found })) = ended else {
            return ended.map(|()| false);
        };
        told_fenced(partition, expected, found);
        consumer.overtaken();
        let ours: Vec<u16> = self.assigned.keys().copied().collect();
        for partition in ours {
            self.start(consumer, partition).await?;
        }
        Ok(true)
    }

    async fn take(&mut self, consumer: &mut Consumer, event: Event) -> Result<(), Error> {
        match event {
            Event::Assigned(partitions) => {
                self.settle(consumer).await?;
                for partition in partitions {
                    self.start(consumer, partition).await?;
                }
                self.parts.ready.send_replace(true);
            }
            Event::Revoked(partitions) => {
                // Who has them next goes on from what is durable.
                self.flush(consumer, &partitions).await?;
                self.tell(consumer).await?;
                for partition in partitions {
                    self.stopped.release(partition);
                    self.assigned.remove(&partition);
                    self.parts.history.revoke(partition).await;
                }
            }
            Event::Records(records) => {
                let stored = self.store(consumer, records).await;
                self.committed(consumer, stored).await?;
            }
        }
        Ok(())
    }

    /// Writes everything that was taken. A partition in which another ingest went on is let go where it is `leaving`, or
    /// the loop ends, and else begun anew; nothing of it is written.
    async fn flush(&mut self, consumer: &mut Consumer, leaving: &[u16]) -> Result<(), Error> {
        match ended(&mut self.committing).await {
            // The next turn meets it again.
            Err(Error::History(history::Error::Fenced { .. })) => {}
            ended => ended?,
        }
        loop {
            match self.parts.history.flush().await {
                Err(history::Error::Fenced { partition, expected, found })
                    if !self.parts.bus.is_embedded() && self.assigned.contains_key(&partition) =>
                {
                    told_fenced(partition, expected, found);
                    if leaving.is_empty() || leaving.contains(&partition) {
                        self.assigned.remove(&partition);
                        self.parts.history.revoke(partition).await;
                    } else {
                        self.start(consumer, partition).await?;
                    }
                }
                flushed => {
                    flushed?;
                    return Ok(());
                }
            }
        }
    }

    /// Starts a partition where the history stands, what lies in its memory counted.
    async fn start(&mut self, consumer: &mut Consumer, partition: u16) -> Result<(), Error> {
        let mut from = self.parts.history.assign(partition).await?;
        loop {
            match consumer.start(partition, from).await {
                Err(bus::Error::Gap { begin, position, .. }) => {
                    tracing::error!(
                        partition,
                        begin,
                        position,
                        "partition {partition}: records {position} to {begin} are gone from the bus before they were stored"
                    );
                    metrics::counter!("millwright_ingest_gap_records_total")
                        .increment((begin - position).max(0) as u64);
                    from = begin;
                }
                Err(bus::Error::Truncated { end, position, .. }) if !self.parts.bus.is_embedded() => {
                    self.assigned.remove(&partition);
                    self.parts.history.revoke(partition).await;
                    self.stopped.stop(partition, end, position);
                    return Ok(());
                }
                started => break started?,
            }
        }
        self.stopped.release(partition);
        let bus = &self.parts.bus;
        let last = if bus.is_embedded() { None } else { bus.last(Topic::DeadLetters, partition).await? };
        let told = last.as_ref().and_then(DeadLetter::origin);
        self.assigned.insert(partition, Assigned { next: from, told });
        Ok(())
    }

    /// Lets go of everything and joins the group as another: a client that has read a topic may not find the one that was
    /// made in its place.
    async fn join_anew(&mut self, consumer: &mut Consumer) -> Result<(), Error> {
        let mut ours: Vec<u16> = self.assigned.keys().copied().collect();
        ours.extend(self.stopped.standing().iter().map(|(partition, _)| *partition));
        self.take(consumer, Event::Revoked(ours)).await?;
        *consumer = self.parts.bus.consumer(Topic::Readings, GROUP)?;
        Ok(())
    }

    /// Goes on where a partition that stands still is whole after all, or a person has moved its position.
    async fn go_on(&mut self, consumer: &mut Consumer) -> Result<(), Error> {
        for partition in self.stopped.mistaken(&self.parts.bus).await {
            self.start(consumer, partition).await?;
        }
        let standing = self.stopped.standing();
        let positions = self.parts.history.positions().await?;
        if standing.iter().all(|(partition, stood)| positions[usize::from(*partition)] == *stood) {
            return Ok(());
        }
        self.join_anew(consumer).await
    }

    /// Decodes records and appends them in order, and begins their commit.
    async fn store(&mut self, consumer: &mut Consumer, mut records: Vec<Record>) -> Result<(), Error> {
        records.retain(|record| {
            self.assigned.get(&record.partition).is_some_and(|assigned| record.offset >= assigned.next)
        });
        let bytes: usize = records.iter().map(|record| record.value.len()).sum();
        let mut reader = self.reader.take().expect("no worker runs");
        let history = self.parts.history.clone();
        let decode = move || {
            let decoded = decode(records, &mut reader, &history);
            (reader, decoded)
        };
        let (reader, decoded) = if bytes > DECODE_APART_BYTES {
            tokio::task::spawn_blocking(decode).await.map_err(|_| Error::Panicked)?
        } else {
            decode()
        };
        self.reader = Some(reader);
        if !self.parts.bus.is_embedded() {
            let batches = decoded.iter().flat_map(|decoded| &decoded.run.batches);
            let rows: usize = batches.map(ReadingBatch::rows).sum();
            self.lot_bytes = (bytes * LOT_ROWS).checked_div(rows).unwrap_or(LOT_BYTES).min(LOT_BYTES_MAX);
        }
        if self.settle(consumer).await? {
            // They come again, from where each partition stands.
            return Ok(());
        }
        for decoded in decoded {
            self.append(decoded).await?;
        }
        let history = self.parts.history.clone();
        self.committing = Some(AbortOnDropHandle::new(tokio::spawn(async move { history.commit().await })));
        Ok(())
    }

    /// Appends neighbours; what of them is refused is acknowledged before the history commits them.
    async fn append(&mut self, decoded: Decoded) -> Result<(), Error> {
        let Decoded { records, mut run } = decoded;
        let (first, last) = (&records[0], &records[records.len() - 1]);
        let (partition, offsets) = (first.partition, first.offset..last.offset + 1);
        self.parts.taken.0.compare(first, &run);
        let with_span = |(place, reject): (usize, Reject)| (span(&records[place]), reject);
        let rejects: Vec<(Span, Reject)> = std::mem::take(&mut run.rejects).into_iter().map(with_span).collect();
        let lot = Lot { partition, offsets: offsets.clone(), batches: &run.batches, rejects: &rejects };
        let taken = self.parts.history.append(&lot).await?;
        let assigned = self.assigned.get_mut(&partition).expect("records of other partitions were dropped");
        assigned.next = offsets.end;
        let mut refused: Vec<(i64, Reject)> = rejects.into_iter().map(|(record, why)| (record.offset, why)).collect();
        refused.extend(taken.refused);
        if let Some((offset, first)) = refused.first() {
            tracing::debug!(
                partition,
                offset,
                "{} messages of partition {partition} from record {offset} on are refused: {}",
                refused.len(),
                first.error
            );
            refused.sort_by_key(|(offset, reject)| (*offset, reject.index));
            if !self.parts.bus.is_embedded() {
                letters::send(&self.parts.bus, &mut assigned.told, &records, &run.messages, refused).await?;
            }
        }
        for (source, appended) in &taken.by_source {
            self.parts.tally.add(source, appended);
            count(appended);
        }
        Ok(())
    }
}

fn told_fenced(partition: u16, expected: i64, found: i64) {
    tracing::warn!(
        partition,
        expected,
        found,
        "another ingest went on with partition {partition} from {expected} to {found}: starting over from there"
    );
    metrics::counter!("millwright_ingest_fenced_total").increment(1);
}

/// Decodes the records of each partition, neighbours together where they can be.
fn decode(mut records: Vec<Record>, reader: &mut Reader, history: &History) -> Vec<Decoded> {
    records.sort_by_key(|record| record.partition);
    // Classes of machines that the history will know once these records are appended.
    let mut met: BTreeMap<String, String> = BTreeMap::new();
    let mut decoded = Vec::new();
    let mut rest = records.into_iter();
    while let Some(first) = rest.as_slice().first() {
        let records = rest.as_slice();
        let ours = records.partition_point(|record| record.partition == first.partition);
        let bound = |machine: &str| history.class_of(machine).or_else(|| met.get(machine).cloned());
        let (count, run) = reader.read(&records[..ours], &bound);
        for batch in &run.batches {
            meet(batch, history, &mut met);
        }
        if run.unknown_keys > 0 {
            metrics::counter!("millwright_ingest_unknown_keys_total").increment(run.unknown_keys);
        }
        if run.rounded > 0 {
            metrics::counter!("millwright_ingest_rounded_total").increment(run.rounded);
        }
        decoded.push(Decoded { records: rest.by_ref().take(count).collect(), run });
    }
    decoded
}

fn meet(batch: &ReadingBatch, history: &History, met: &mut BTreeMap<String, String>) {
    for machine in &batch.machines {
        if !met.contains_key(&**machine) && history.class_of(machine).is_none() {
            met.insert(machine.to_string(), batch.class.id.clone());
        }
    }
}

fn count(appended: &Appended) {
    let Appended { stored, duplicate, rejected, late, out_of_order, ahead } = *appended;
    metrics::counter!("millwright_readings_ingested_total").increment(stored);
    for (what, rows) in [
        ("duplicate", duplicate),
        ("rejected", rejected),
        ("late", late),
        ("out_of_order", out_of_order),
        ("ahead", ahead),
    ] {
        if rows > 0 {
            metrics::counter!("millwright_readings_noted_total", "what" => what).increment(rows);
        }
    }
}
