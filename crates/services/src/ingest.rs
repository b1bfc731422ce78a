//! Bus to history: every reading stored once, or counted as a duplicate, or a dead letter.
//!
//! On Kafka what is refused also goes to a topic, acknowledged before its record is stored. Ingest is the only writer
//! there, so what the topic's last record tells is skipped after a crash ([`letters`]).

mod letters;

use crate::{apart::ByDetect, record::Reader};
use bus::{Bus, Consumer, DeadLetter, Event, Record, Topic};
use catalog::Catalogue;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{History, history::Appended};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use wire::{ReadingBatch, Reject, Run};

/// Group of the consumers.
const GROUP: &str = "ingestor-group";
/// Bytes of values that are taken at once.
const LOT_BYTES: usize = 2 << 20;
/// A lot above this is decoded apart from the runtime, whose threads answer HTTP meanwhile.
const DECODE_APART_BYTES: usize = 64 << 10;
/// How often the bus is told what it must keep.
const HOLD_EVERY: Duration = Duration::from_secs(1);
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
    /// Told once the partitions are known and stored.
    pub ready: Arc<watch::Sender<bool>>,
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
    #[error("decoding panicked")]
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
    let reader = Some(Reader::new(&parts.bus, catalogue));
    let mut ingest = Ingest { parts, reader, assigned: BTreeMap::new() };
    let mut hold = tokio::time::interval(HOLD_EVERY);
    hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Ok(()) = changes.changed() => {
                let catalogue = changes.borrow_and_update().clone();
                ingest.parts.history.switch(catalogue.clone()).await?;
                ingest.reader().switch(catalogue);
            }
            _ = hold.tick() => ingest.tell(&consumer).await?,
            event = consumer.next(LOT_BYTES) => ingest.take(&mut consumer, event?).await?,
        }
    }
    let until = Instant::now() + DRAIN_MAX;
    while !consumer.caught_up() && Instant::now() < until {
        let Ok(event) = tokio::time::timeout_at(until, consumer.next(LOT_BYTES)).await else { break };
        ingest.take(&mut consumer, event?).await?;
    }
    ingest.parts.history.flush().await?;
    ingest.tell(&consumer).await
}

struct Ingest {
    parts: Parts,
    /// `None` while a worker has it.
    reader: Option<Reader>,
    /// Of each partition that is ours: offset and index of the last refused message that the topic of dead letters holds.
    assigned: BTreeMap<u16, Option<(i64, u32)>>,
}

type Decoded = (Record, Run);

impl Ingest {
    fn reader(&mut self) -> &mut Reader {
        self.reader.as_mut().expect("no worker runs")
    }

    /// Tells the bus what it must keep, and the group how far it is.
    async fn tell(&self, consumer: &Consumer) -> Result<(), Error> {
        let positions = self.parts.history.positions().await?;
        self.parts.bus.hold("ingest", &positions);
        let of = |partition: &u16| Some((*partition, *positions.get(usize::from(*partition))?));
        consumer.commit(&self.assigned.keys().filter_map(of).collect::<Vec<_>>());
        Ok(())
    }

    async fn take(&mut self, consumer: &mut Consumer, event: Event) -> Result<(), Error> {
        match event {
            Event::Assigned(partitions) => {
                for partition in partitions {
                    self.start(consumer, partition).await?;
                }
                self.parts.ready.send_replace(true);
            }
            Event::Revoked(partitions) => {
                // Who has them next goes on from what is durable.
                self.parts.history.flush().await?;
                self.tell(consumer).await?;
                for partition in partitions {
                    self.assigned.remove(&partition);
                    self.parts.history.revoke(partition).await;
                }
            }
            Event::Records(records) => match self.store(records).await {
                Err(Error::History(store::history::Error::Fenced { partition, expected, found })) => {
                    tracing::warn!(
                        partition,
                        expected,
                        found,
                        "another ingest went on with partition {partition} from {expected} to {found}: starting over from there"
                    );
                    metrics::counter!("millwright_ingest_fenced_total").increment(1);
                    let ours: Vec<u16> = self.assigned.keys().copied().collect();
                    for partition in ours {
                        self.start(consumer, partition).await?;
                    }
                }
                stored => stored?,
            },
        }
        Ok(())
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
                started => break started?,
            }
        }
        let bus = &self.parts.bus;
        let last = if bus.is_embedded() { None } else { bus.last(Topic::DeadLetters, partition).await? };
        self.assigned.insert(partition, last.as_ref().and_then(DeadLetter::origin));
        Ok(())
    }

    /// Decodes records and appends them in order.
    async fn store(&mut self, records: Vec<Record>) -> Result<(), Error> {
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
            letters::send(&self.parts.bus, &mut self.assigned, &decoded).await?;
        }
        for (record, run) in decoded {
            self.parts.taken.0.compare(&record, &run);
            let Record { partition, offset, arrived_us, source, .. } = &record;
            let rejects: Vec<Reject> = run.rejects.into_iter().map(|(_, reject)| reject).collect();
            if let Some(first) = rejects.first() {
                tracing::debug!(
                    partition,
                    offset,
                    "{} of record {offset} of partition {partition} refused: {}",
                    rejects.len(),
                    first.error
                );
            }
            let history = &self.parts.history;
            let appended = history.append(*partition, *offset, source, *arrived_us, &run.batches, &rejects).await?;
            self.parts.tally.add(source, &appended);
            count(&appended);
        }
        self.parts.history.commit().await?;
        Ok(())
    }
}

/// Decodes each record by itself, so that the history can judge and count it by itself.
fn decode(records: Vec<Record>, reader: &mut Reader, history: &History) -> Vec<Decoded> {
    // Classes of machines that the history will know once these records are appended.
    let mut met: BTreeMap<String, String> = BTreeMap::new();
    let mut decoded = Vec::with_capacity(records.len());
    for record in records {
        let bound = |machine: &str| history.class_of(machine).or_else(|| met.get(machine).cloned());
        let (_, run) = reader.read(std::slice::from_ref(&record), &bound);
        for batch in &run.batches {
            meet(batch, history, &mut met);
        }
        if run.unknown_keys > 0 {
            metrics::counter!("millwright_ingest_unknown_keys_total").increment(run.unknown_keys);
        }
        if run.rounded > 0 {
            metrics::counter!("millwright_ingest_rounded_total").increment(run.rounded);
        }
        decoded.push((record, run));
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
