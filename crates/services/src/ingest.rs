//! Bus to history: every reading stored once, or counted as a duplicate, or a dead letter.

use crate::{apart::ByDetect, record::decode};
use bus::{Bus, Consumer, Record};
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
use wire::{ReadingBatch, Reject};

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
    let mut consumer = consumer(&parts)?;
    let mut catalogue = parts.catalogue.borrow_and_update().clone();
    parts.history.switch(catalogue.clone()).await?;
    let mut hold = tokio::time::interval(HOLD_EVERY);
    hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Ok(()) = parts.catalogue.changed() => {
                catalogue = parts.catalogue.borrow_and_update().clone();
                parts.history.switch(catalogue.clone()).await?;
            }
            _ = hold.tick() => parts.bus.hold("ingest", &parts.history.positions()),
            records = consumer.next(LOT_BYTES) => take(&parts, &catalogue, records?).await?,
        }
    }
    let until = Instant::now() + DRAIN_MAX;
    while !consumer.caught_up() && Instant::now() < until {
        let records = consumer.next(LOT_BYTES).await?;
        take(&parts, &catalogue, records).await?;
    }
    let durable = parts.history.flush().await?;
    parts.bus.hold("ingest", &durable);
    Ok(())
}

/// A consumer from where the history stands, what lies in its memory counted.
fn consumer(parts: &Parts) -> Result<Consumer, Error> {
    parts.bus.hold("ingest", &parts.history.positions());
    let mut start = parts.history.appended();
    loop {
        match parts.bus.consumer(&start) {
            Err(bus::Error::Gap { partition, begin, position }) => {
                tracing::error!(
                    partition,
                    begin,
                    position,
                    "partition {partition}: records {position} to {begin} are gone from the bus before they were stored"
                );
                metrics::counter!("millwright_ingest_gap_records_total").increment((begin - position).max(0) as u64);
                start[usize::from(partition)] = begin;
            }
            consumer => return Ok(consumer?),
        }
    }
}

type Decoded = (Record, Result<ReadingBatch, Box<Reject>>);

/// Decodes records and appends them in order.
async fn take(parts: &Parts, catalogue: &Arc<Catalogue>, records: Vec<Record>) -> Result<(), Error> {
    let bytes: usize = records.iter().map(|record| record.value.len()).sum();
    let decoded = if bytes > DECODE_APART_BYTES {
        let catalogue = catalogue.clone();
        tokio::task::spawn_blocking(move || decode_all(records, &catalogue)).await.map_err(|_| Error::Panicked)?
    } else {
        decode_all(records, catalogue)
    };
    let history = &parts.history;
    for (record, decoded) in decoded {
        parts.taken.0.compare(&record, decoded.as_ref().map_err(|reject| &**reject));
        let Record { partition, offset, arrived_us, source, .. } = &record;
        let appended = match decoded {
            Ok(batch) => history.append(*partition, *offset, source, *arrived_us, &[batch], &[]).await?,
            Err(reject) => {
                tracing::warn!(
                    partition,
                    offset,
                    "record {offset} of partition {partition} is refused: {}",
                    reject.error
                );
                history.append(*partition, *offset, source, *arrived_us, &[], &[*reject]).await?
            }
        };
        parts.tally.add(source, &appended);
        count(&appended);
    }
    Ok(())
}

fn decode_all(records: Vec<Record>, catalogue: &Catalogue) -> Vec<Decoded> {
    let decode = |record: Record| {
        let decoded = decode(&record, catalogue);
        (record, decoded)
    };
    records.into_iter().map(decode).collect()
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
