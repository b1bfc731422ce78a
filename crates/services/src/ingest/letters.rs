//! The topic of dead letters: what was refused, once, before its record is committed.

use super::Error;
use bus::{Bus, DeadLetter, Message, Record, Topic};
use wire::Reject;

/// Sends what was refused of neighbouring records (by offset and index, and so many messages are in each record), and is
/// not held yet; `told` is the last that the topic holds.
pub(super) async fn send(
    bus: &Bus,
    told: &mut Option<(i64, u32)>,
    records: &[Record],
    messages: &[u32],
    refused: Vec<(i64, Reject)>,
) -> Result<(), Error> {
    let mut last = *told;
    let mut letters = Vec::new();
    for (offset, reject) in refused {
        let place = Some((offset, reject.index));
        if place <= last {
            continue;
        }
        last = place;
        let at = records.partition_point(|record| record.offset < offset);
        letters.push(letter(&records[at], messages[at] == 1, reject));
    }
    if !letters.is_empty() {
        bus.publish(Topic::DeadLetters, letters).await?;
        *told = last;
    }
    Ok(())
}

/// Says what was refused of a record, which it may be as a whole.
fn letter(record: &Record, whole: bool, reject: Reject) -> Message {
    let letter = DeadLetter {
        partition: record.partition,
        offset: record.offset,
        index: reject.index,
        arrived_us: record.arrived_us,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: if whole { record.value.to_vec() } else { reject.payload },
        code: reject.code.as_str(),
        error: reject.error,
    };
    letter.message(Topic::Readings.name(), "ingest", env!("CARGO_PKG_VERSION"))
}
