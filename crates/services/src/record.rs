//! A record of the bus as readings.

use bus::Record;
use catalog::Catalogue;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wire::{ErrorCode, ReadingBatch, Reject, Span};

/// Longest value that a dead letter keeps whole, and what it keeps of a longer one.
const PAYLOAD_BYTES: (usize, usize) = (256 << 10, 4 << 10);

/// Decodes a record; its readings know where they came from. One that cannot be decoded is one refused message.
pub(crate) fn decode(record: &Record, catalogue: &Catalogue) -> Result<ReadingBatch, Box<Reject>> {
    // A panic of the decoder is a bug of ours; what follows it on the bus must still be read.
    let decoded = catch_unwind(AssertUnwindSafe(|| ReadingBatch::decode(&record.value, catalogue)));
    let (code, error) = match decoded {
        Ok(Ok(mut batch)) => {
            batch.spans = vec![Span {
                first_row: 0,
                offset: record.offset,
                arrived_us: record.arrived_us,
                source: record.source.clone(),
            }];
            return Ok(batch);
        }
        Ok(Err(error)) => (ErrorCode::BadBatch, error.to_string()),
        Err(_) => (ErrorCode::DecoderPanic, "the decoder panicked on this value".to_owned()),
    };
    let (whole, part) = PAYLOAD_BYTES;
    let kept = if record.value.len() > whole { &record.value[..part] } else { &record.value[..] };
    Err(Box::new(Reject { index: 0, code, error, machine: None, channel: None, payload: kept.to_vec() }))
}
