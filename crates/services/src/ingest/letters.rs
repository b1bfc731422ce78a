//! The topic of dead letters: what was refused, once, before its record is stored.

use super::{Decoded, Error};
use bus::{Bus, DeadLetter, Message, Topic};
use std::collections::BTreeMap;

/// Sends what was refused and is not held yet; `held` tells the last of each partition.
pub(super) async fn send(
    bus: &Bus,
    held: &mut BTreeMap<u16, Option<(i64, u32)>>,
    decoded: &[Decoded],
) -> Result<(), Error> {
    let mut messages = Vec::new();
    let mut last = held.clone();
    for letter in decoded.iter().flat_map(letters) {
        let place = Some((letter.offset, letter.index));
        let newest = last.entry(letter.partition).or_default();
        if place > *newest {
            *newest = place;
            messages.push(to_message(letter));
        }
    }
    if !messages.is_empty() {
        bus.publish(Topic::DeadLetters, messages).await?;
        *held = last;
    }
    Ok(())
}

fn to_message(letter: DeadLetter) -> Message {
    letter.message(Topic::Readings.name(), "ingest", env!("CARGO_PKG_VERSION"))
}

/// What was refused of a record, in order.
fn letters((record, run): &Decoded) -> impl Iterator<Item = DeadLetter> {
    let whole = run.messages.first() == Some(&1);
    run.rejects.iter().map(move |(_, reject)| DeadLetter {
        partition: record.partition,
        offset: record.offset,
        index: reject.index,
        arrived_us: record.arrived_us,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: if whole { record.value.to_vec() } else { reject.payload.clone() },
        code: reject.code.as_str(),
        error: reject.error.clone(),
    })
}
