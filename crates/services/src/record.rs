//! Records of the bus as readings, and readings as records.

use bus::{Bus, Outgoing, Record, Schemas};
use catalog::Catalogue;
use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use wire::{BinaryError, Clocks, Decoder, ErrorCode, ReadingBatch, Reject, Run, Span, Values};

/// So often a value is tried; at the last panic it is refused.
const TRIES: usize = 3;
/// Longest value that a dead letter keeps whole, and what it keeps of a longer one.
const PAYLOAD_BYTES: (usize, usize) = (256 << 10, 4 << 10);
/// Most that is decoded as one batch.
const RUN_BYTES: usize = 1 << 20;

/// Records that carry a batch.
pub(crate) fn outgoing(
    partition: u16,
    arrived_us: i64,
    source: &Arc<str>,
    batch: &ReadingBatch,
    values: Values,
) -> impl Iterator<Item = Outgoing> {
    let source = source.clone();
    batch.to_values(values).into_iter().map(move |(machine, rows, value)| {
        let key = machine.map(|machine| Arc::from(&*machine));
        Outgoing { partition, arrived_us, source: source.clone(), rows, key, value }
    })
}

/// Reads records under one catalogue. Embedded a value is one binary batch; on Kafka it may also be one reading, an array
/// or lines, with or without the id of its schema, and neighbours become one batch.
pub(crate) struct Reader {
    catalogue: Arc<Catalogue>,
    /// `None` where every value is a batch.
    decoder: Option<Decoder>,
    schemas: Arc<Schemas>,
    clocks: Arc<Clocks>,
}

impl Reader {
    pub(crate) fn new(bus: &Bus, catalogue: Arc<Catalogue>, clocks: Arc<Clocks>) -> Reader {
        let mut reader = Reader { catalogue, decoder: None, schemas: bus.schemas(), clocks };
        if !bus.is_embedded() {
            reader.renew();
        }
        reader
    }

    /// Reads under another catalogue from here on.
    pub(crate) fn switch(&mut self, catalogue: Arc<Catalogue>) {
        self.catalogue = catalogue;
        if self.decoder.is_some() {
            self.renew();
        }
    }

    pub(crate) fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    fn renew(&mut self) {
        // One partition: a record's readings belong to the one that it lies on.
        let mut decoder = Decoder::new(self.catalogue.clone(), 1);
        decoder.set_clocks(self.clocks.clone());
        self.decoder = Some(decoder);
    }

    /// Reads the first of these records, of one partition and not empty, and as many after it as can be read with it; and
    /// how many these were. `bound` names the class that a machine already has.
    pub(crate) fn read(&mut self, records: &[Record], bound: &dyn Fn(&str) -> Option<String>) -> (usize, Run) {
        let first = &records[0];
        if self.decoder.is_none() || ReadingBatch::is_encoded(&first.value) {
            return (1, self.read_batch(first));
        }
        let mut bytes = 0;
        let mut contents = Vec::new();
        for record in records {
            bytes += record.value.len();
            if !contents.is_empty() && (bytes > RUN_BYTES || ReadingBatch::is_encoded(&record.value)) {
                break;
            }
            match self.schemas.content(&record.value) {
                Ok(content) if Decoder::joins(&content) => contents.push(content),
                // Alone.
                Ok(content) if contents.is_empty() => {
                    contents.push(content);
                    break;
                }
                Err(why) if contents.is_empty() => return (1, refusal(first, ErrorCode::BadSchema, &why)),
                Ok(_) | Err(_) => break,
            }
        }
        let count = contents.len();
        if let Some(run) = self.read_run(&records[..count], &contents, bound) {
            return (count, run);
        }
        // What it panicked on is found one by one.
        let run = (0..TRIES).find_map(|_| self.read_run(&records[..1], &contents[..1], bound));
        (1, run.unwrap_or_else(|| refusal(first, ErrorCode::DecoderPanic, PANICKED)))
    }

    /// `None` where the decoder panicked.
    fn read_run(
        &mut self,
        records: &[Record],
        contents: &[Cow<'_, [u8]>],
        bound: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Run> {
        let decoder = self.decoder.as_mut()?;
        let values = records.iter().zip(contents).map(|(record, content)| (&**content, span(record)));
        // A panic of the decoder is a bug of ours; what follows it on the bus must still be read.
        let run = catch_unwind(AssertUnwindSafe(|| decoder.decode_run(values, bound)));
        if run.is_err() {
            self.renew();
        }
        run.ok()
    }

    fn read_batch(&self, record: &Record) -> Run {
        match decode(record, &self.catalogue) {
            Ok(batch) => {
                let messages = vec![batch.rows() as u32];
                Run { batches: vec![batch], messages, ..Run::default() }
            }
            Err(reject) => refusal_of(*reject),
        }
    }
}

/// Decodes a record that is one batch; its readings know where they came from. One that cannot be decoded is one refused
/// message.
pub(crate) fn decode(record: &Record, catalogue: &Catalogue) -> Result<ReadingBatch, Box<Reject>> {
    decode_by(record, |value| ReadingBatch::decode(value, catalogue))
}

fn decode_by(
    record: &Record,
    decode: impl Fn(&[u8]) -> Result<ReadingBatch, BinaryError>,
) -> Result<ReadingBatch, Box<Reject>> {
    // A panic of the decoder is a bug of ours; what follows it on the bus must still be read.
    let attempt = |_| catch_unwind(AssertUnwindSafe(|| decode(&record.value))).ok();
    match (0..TRIES).find_map(attempt) {
        Some(Ok(mut batch)) => {
            batch.spans = vec![span(record)];
            Ok(batch)
        }
        Some(Err(_)) if record.value.is_empty() => Err(refused(record, ErrorCode::Empty, "the value is empty")),
        Some(Err(error)) => Err(refused(record, ErrorCode::BadBatch, &error.to_string())),
        None => Err(refused(record, ErrorCode::DecoderPanic, PANICKED)),
    }
}

const PANICKED: &str = "the decoder panicked on this value";

/// Where the rows of a record come from.
pub(crate) fn span(record: &Record) -> Span {
    let Record { offset, arrived_us, source, .. } = record;
    Span { first_row: 0, offset: *offset, arrived_us: *arrived_us, source: source.clone() }
}

fn refusal(record: &Record, code: ErrorCode, error: &str) -> Run {
    refusal_of(*refused(record, code, error))
}

/// A record whose only message is refused.
fn refusal_of(reject: Reject) -> Run {
    Run { rejects: vec![(0, reject)], messages: vec![1], ..Run::default() }
}

/// A record that cannot be decoded is one refused message.
fn refused(record: &Record, code: ErrorCode, error: &str) -> Box<Reject> {
    let (whole, part) = PAYLOAD_BYTES;
    let kept = if record.value.len() > whole { &record.value[..part] } else { &record.value[..] };
    let (error, payload) = (error.to_owned(), kept.to_vec());
    Box::new(Reject { index: 0, code, error, machine: None, channel: None, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_value_that_panics_the_decoder_three_times_is_one_refused_message() {
        let record = Record {
            partition: 2,
            offset: 7,
            arrived_us: 9,
            source: "http".into(),
            rows: 3,
            key: None,
            headers: Vec::new(),
            value: b"boom".to_vec().into(),
        };
        let tries = Cell::new(0);
        let reject = decode_by(&record, |_| {
            tries.set(tries.get() + 1);
            std::panic::resume_unwind(Box::new("boom"))
        })
        .unwrap_err();
        assert_eq!((tries.get(), reject.code, &*reject.payload), (3, ErrorCode::DecoderPanic, &b"boom"[..]));
    }
}
