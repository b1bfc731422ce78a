//! A record of the bus as readings.

use bus::Record;
use catalog::Catalogue;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wire::{BinaryError, ErrorCode, ReadingBatch, Reject, Span};

/// So often a value is tried; at the last panic it is refused.
const TRIES: usize = 3;

/// Longest value that a dead letter keeps whole, and what it keeps of a longer one.
const PAYLOAD_BYTES: (usize, usize) = (256 << 10, 4 << 10);

/// Decodes a record; its readings know where they came from. One that cannot be decoded is one refused message.
pub(crate) fn decode(record: &Record, catalogue: &Catalogue) -> Result<ReadingBatch, Box<Reject>> {
    decode_by(record, |value| ReadingBatch::decode(value, catalogue))
}

fn decode_by(
    record: &Record,
    decode: impl Fn(&[u8]) -> Result<ReadingBatch, BinaryError>,
) -> Result<ReadingBatch, Box<Reject>> {
    // A panic of the decoder is a bug of ours; what follows it on the bus must still be read.
    let attempt = |_| catch_unwind(AssertUnwindSafe(|| decode(&record.value))).ok();
    let (code, error) = match (0..TRIES).find_map(attempt) {
        Some(Ok(mut batch)) => {
            batch.spans = vec![Span {
                first_row: 0,
                offset: record.offset,
                arrived_us: record.arrived_us,
                source: record.source.clone(),
            }];
            return Ok(batch);
        }
        Some(Err(error)) => (ErrorCode::BadBatch, error.to_string()),
        None => (ErrorCode::DecoderPanic, "the decoder panicked on this value".to_owned()),
    };
    let (whole, part) = PAYLOAD_BYTES;
    let kept = if record.value.len() > whole { &record.value[..part] } else { &record.value[..] };
    Err(Box::new(Reject { index: 0, code, error, machine: None, channel: None, payload: kept.to_vec() }))
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
