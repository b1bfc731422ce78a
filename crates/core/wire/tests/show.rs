//! Decoded values as text, and their comparison.

use wire::{Decoded, NotReadings, Quality, ReadingBatch, decimal_text, format_time};

/// Everything that a value held, in the order of its messages.
pub(crate) fn summary(result: &Result<Decoded, NotReadings>) -> String {
    let decoded = match result {
        Ok(decoded) => decoded,
        Err(_) => return "not readings".into(),
    };
    let mut lines: Vec<(u32, String)> = Vec::new();
    for (_, batch) in &decoded.batches {
        lines.extend((0..batch.rows()).map(|row| (batch.index[row], row_text(batch, row))));
    }
    for reject in &decoded.rejects {
        let machine = reject.machine.as_ref().map_or("-", |machine| machine.as_str());
        let channel = reject.channel.as_deref().unwrap_or("-");
        lines.push((reject.index, format!("{} {machine} {channel}", reject.code.as_str())));
    }
    assert_eq!(lines.len(), decoded.messages as usize);
    lines.sort();
    lines.into_iter().map(|(index, line)| format!("{index} {line}")).collect::<Vec<_>>().join("\n")
}

/// One row: class, machine, time, values, and what is not usual.
fn row_text(batch: &ReadingBatch, row: usize) -> String {
    let mut text = format!("{} {} {}", batch.class.id, batch.machine_of(row), format_time(batch.timestamp_us[row]));
    for (at, channel) in batch.class.channels.iter().enumerate() {
        let value = decimal_text(batch.values[at][row], channel.scale);
        text += &match Quality::of(batch.quality_of(row), at) {
            Quality::Good => format!(" {value}"),
            Quality::Uncertain => format!(" {value}?"),
            Quality::Bad => format!(" {value}!"),
            Quality::Missing => " -".into(),
        };
    }
    if let Some(seq) = batch.seq_of(row) {
        text += &format!(" seq={seq}");
    }
    for (attribute, words) in batch.class.attributes.iter().zip(&batch.attributes) {
        if let Some(word) = words.get(row).and_then(|word| attribute.values.get(usize::from(*word))) {
            text += &format!(" {}={word}", attribute.id);
        }
    }
    if let Some(state) = batch.state.get(row).filter(|state| **state != ReadingBatch::NONE) {
        text += &format!(" state={}", catalog::State::ALL[usize::from(*state)].as_str());
    }
    if let Some(links) = batch.links.get(&(row as u32)) {
        text += &format!(" links={links}");
    }
    text
}

/// Whether two values are the same to the bit.
#[track_caller]
pub(crate) fn assert_same(left: &Result<Decoded, NotReadings>, right: &Result<Decoded, NotReadings>, sent: &[u8]) {
    let sent = || String::from_utf8_lossy(sent);
    let (left, right) = match (left, right) {
        (Ok(left), Ok(right)) => (left, right),
        (left, right) => return assert_eq!(left.as_ref().err(), right.as_ref().err(), "{}", sent()),
    };
    assert_eq!(left.rejects, right.rejects, "{}", sent());
    assert_eq!(
        (left.messages, left.unknown_keys, left.rounded),
        (right.messages, right.unknown_keys, right.rounded),
        "{}",
        sent()
    );
    assert_eq!(left.batches.len(), right.batches.len(), "{}", sent());
    for ((partition, left), (other, right)) in left.batches.iter().zip(&right.batches) {
        assert_eq!(partition, other, "{}", sent());
        assert!(same_batch(left, right), "{}", sent());
    }
}

fn same_batch(left: &ReadingBatch, right: &ReadingBatch) -> bool {
    left.class.id == right.class.id
        && left.machines == right.machines
        && left.machine == right.machine
        && left.timestamp_us == right.timestamp_us
        && left.index == right.index
        && left.values == right.values
        && left.quality == right.quality
        && left.seq == right.seq
        && left.attributes == right.attributes
        && left.state == right.state
        && left.links == right.links
        && left.markers == right.markers
}
