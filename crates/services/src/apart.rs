//! What ingest and detect decode under different catalogues (DOMAIN.md 1): ingest's verdict is the ledger's, and what
//! detect decodes otherwise is counted and told.
//!
//! Decoding asks the classes alone, and while a process runs only settings of machines change. So the two can differ only
//! on records that one of them had taken and the other had not when the process began, with other classes than before.
//! Whoever takes such a record second compares.

use crate::record::decode;
use bus::Record;
use catalog::{Catalogue, Class};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use store::{Activation, History, Store, history};
use wire::{Quality, READINGS_PARTITIONS, ReadingBatch, Run};

/// What the other loop had taken when this process began.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// By partition.
    partitions: Arc<Vec<Partition>>,
    rows: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Partition {
    below: i64,
    /// By offset: what was in force from there; `None`: it is not stored.
    switches: Vec<(i64, Option<Arc<Catalogue>>)>,
}

/// Why it cannot be told what was taken.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("read what detect has judged")]
    Store(#[from] store::Error),
    #[error("read what ingest has stored")]
    History(#[from] history::Error),
}

/// What each had taken beyond the other; to be asked before either runs.
///
/// # Errors
/// A file cannot be read.
pub async fn taken(history: &History, store: &Store) -> Result<(ByIngest, ByDetect), Error> {
    let (mut by_ingest, mut by_detect) = (Vec::new(), Vec::new());
    let judged = store.positions(0..READINGS_PARTITIONS).await?;
    for ((partition, stored), judged) in (0..).zip(history.positions().await?).zip(judged) {
        let (from, below) = (stored.min(judged), stored.max(judged));
        let (mut ingest, mut detect) = (Partition::default(), Partition::default());
        if stored > judged {
            let activations = history.activations(partition).await?;
            ingest = Partition { below, switches: switches(store, activations, from, below).await? };
        } else if judged > stored {
            let activations = store.activations(partition).await?;
            detect = Partition { below, switches: switches(store, activations, from, below).await? };
        }
        by_ingest.push(ingest);
        by_detect.push(detect);
    }
    let of = |partitions| Taken { partitions: Arc::new(partitions), rows: Arc::default() };
    Ok((ByIngest(of(by_ingest)), ByDetect(of(by_detect))))
}

/// For detect.
#[derive(Debug, Clone, Default)]
pub struct ByIngest(pub Taken);

/// For ingest.
#[derive(Debug, Clone, Default)]
pub struct ByDetect(pub Taken);

/// What was in force for the records from `from` up to `below`.
async fn switches(
    store: &Store,
    activations: Vec<Activation>,
    from: i64,
    below: i64,
) -> Result<Vec<(i64, Option<Arc<Catalogue>>)>, Error> {
    let first = activations.partition_point(|activation| activation.from_offset <= from).saturating_sub(1);
    let mut switches = Vec::new();
    for Activation { partition, from_offset, catalogue_hash } in activations.into_iter().skip(first) {
        if from_offset >= below {
            break;
        }
        let document = store.catalogue(&catalogue_hash).await?;
        let catalogue = document.and_then(|document| Catalogue::from_document(&document).ok());
        if catalogue.is_none() {
            tracing::warn!(
                partition,
                "the catalogue {catalogue_hash}, under which records of partition {partition} were taken, is not stored: \
                 whether they are decoded otherwise now cannot be told"
            );
        }
        switches.push((from_offset, catalogue.map(Arc::new)));
    }
    Ok(switches)
}

impl Taken {
    /// Rows that were found to be decoded otherwise.
    pub fn rows_apart(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Compares a record that holds one batch with what the other made of it, and counts.
    pub(crate) fn compare(&self, record: &Record, run: &Run) {
        let decoded = match (run.batches.as_slice(), run.rejects.as_slice()) {
            ([batch], []) => Ok(batch),
            ([], [reject]) => Err(reject),
            _ => return,
        };
        let Some(partition) = self.partitions.get(usize::from(record.partition)) else { return };
        if record.offset >= partition.below {
            return;
        }
        let before = partition.switches.iter().rev().find(|(at, _)| *at <= record.offset);
        let Some(then) = before.and_then(|(_, catalogue)| catalogue.as_ref()) else { return };
        let is_same = |class: &Class| then.class(&class.id).is_some_and(|then| then.document == class.document);
        if decoded.is_ok_and(|batch| is_same(&batch.class)) {
            return;
        }
        let rows = match (decoded, decode(record, then)) {
            (Ok(now), Ok(then)) => rows_apart(now, &then),
            (Ok(batch), Err(_)) => batch.rows() as u64,
            (Err(_), Ok(batch)) => batch.rows() as u64,
            (Err(_), Err(_)) => 0,
        };
        if rows > 0 {
            self.rows.fetch_add(rows, Ordering::Relaxed);
            metrics::counter!("millwright_decoded_apart_total").increment(rows);
            let Record { partition, offset, .. } = record;
            tracing::warn!(
                partition,
                offset,
                rows,
                "{rows} rows of record {offset} of partition {partition} are decoded otherwise by detect than by ingest: \
                 the classes changed between the two"
            );
        }
    }
}

/// Rows in which a value, its quality or an attribute is not the same.
fn rows_apart(one: &ReadingBatch, other: &ReadingBatch) -> u64 {
    let both = [&one.class, &other.class];
    let channels: BTreeSet<&str> = both.iter().flat_map(|of| &of.channels).map(|channel| &*channel.id).collect();
    let attributes: BTreeSet<&str> = both.iter().flat_map(|of| &of.attributes).map(|of| &*of.id).collect();
    let value = |batch: &ReadingBatch, id: &str, row: usize| {
        let at = batch.class.channel_index(id)?;
        let quality = Quality::of(batch.quality_of(row), at);
        (quality != Quality::Missing).then(|| (batch.values[at][row], quality))
    };
    let word = |batch: &ReadingBatch, id: &str, row: usize| {
        let at = batch.class.attributes.iter().position(|attribute| attribute.id == id)?;
        let word = *batch.attributes.get(at)?.get(row)?;
        batch.class.attributes[at].values.get(usize::from(word)).cloned()
    };
    let differs = |row: &usize| {
        channels.iter().any(|id| value(one, id, *row) != value(other, id, *row))
            || attributes.iter().any(|id| word(one, id, *row) != word(other, id, *row))
    };
    let rows = one.rows().min(other.rows());
    (0..rows).filter(differs).count() as u64 + one.rows().abs_diff(other.rows()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::{MachineId, MachineSettings};
    use wire::{Decoder, Framing};

    const OVEN: &str = r#"
[class]
id = "oven"
[[channel]]
id = "temp"
unit = "degC"
scale = 0
range = [0, 1000]
"#;

    fn catalogue(class: &str) -> Arc<Catalogue> {
        let class = Class::parse("oven.toml", class).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        Arc::new(Catalogue::builtin().with_class(class).with_default("oven").unwrap())
    }

    /// Rows apart of three readings (30, 80, 40 degrees) that were let in and taken under `then`.
    fn apart(then: &Arc<Catalogue>, now: &Catalogue) -> u64 {
        let line = |second: u32, temp: u32| {
            format!(r#"{{"machine_id":"m","timestamp":"2026-01-01T00:00:0{second}Z","temp":{temp}}}"#)
        };
        let lines = [line(0, 30), line(1, 80), line(2, 40)].join("\n");
        let mut decoder = Decoder::new(then.clone(), READINGS_PARTITIONS);
        let decoded = decoder.decode(lines.as_bytes(), Framing::Lines, i64::MAX / 2, &|_| None).unwrap();
        let (partition, batch) = &decoded.batches[0];
        let mut value = Vec::new();
        batch.encode(&mut value);
        let (partition, offset) = (*partition, 7);
        let record = |offset| Record {
            partition,
            offset,
            arrived_us: 0,
            source: "http".into(),
            rows: 3,
            key: None,
            headers: Vec::new(),
            value: value.clone().into(),
        };
        let taken = Taken {
            partitions: Arc::new(
                (0..READINGS_PARTITIONS)
                    .map(|_| Partition { below: offset + 1, switches: vec![(3, Some(then.clone()))] })
                    .collect(),
            ),
            rows: Arc::default(),
        };
        // What the other had not taken is its to compare.
        for offset in [offset, offset + 1, 2] {
            let record = record(offset);
            let mut run = Run::default();
            match decode(&record, now) {
                Ok(batch) => run.batches.push(batch),
                Err(reject) => run.rejects.push((0, *reject)),
            }
            taken.compare(&record, &run);
        }
        taken.rows_apart()
    }

    #[test]
    fn what_another_class_makes_of_a_record_is_counted_once() {
        let wide = catalogue(OVEN);
        assert_eq!(apart(&wide, &catalogue(&OVEN.replace("1000", "50"))), 1, "80 is outside the range");
        assert_eq!(apart(&wide, &catalogue(&OVEN.replace("scale = 0", "scale = 1"))), 3, "the batch does not fit");
        assert_eq!(apart(&wide, &catalogue(&OVEN.replace("degC", "K"))), 0, "the rows are the same");
    }

    #[test]
    fn settings_of_a_machine_which_alone_change_while_a_process_runs_decode_nothing_apart() {
        let before = catalogue(OVEN);
        let own = MachineSettings { class: Some("oven".to_owned()), ..MachineSettings::default() };
        let after = (*before).clone().with_machine(MachineId::try_from("m").unwrap(), own).unwrap();
        assert_ne!(before.hash(), after.hash());
        assert_eq!(apart(&before, &after), 0);
    }
}
