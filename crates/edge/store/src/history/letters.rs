//! Dead letters as rows: what was refused on the bus and at the HTTP door.

use super::DeadLetter;
use uuid::Uuid;
use wire::{Quality, READINGS_TOPIC, ReadingBatch, Reject, Span, decimal_text, format_time};

/// Name space of the ids of dead letters: that of alert ids (SPEC.md 3.6). Their names cannot be the same, as an
/// alert's begins with a machine, a condition and a kind.
const NAMESPACE: Uuid = Uuid::from_u128(0xb1c6_e4a2_7c0e_5d53_9a57_2f1f_0a9d_6e31);
/// Topic of what was refused before it came on the bus.
const DOOR: &str = "http";

/// Dead letters that retention drops in one transaction; no write waits for more.
pub(super) const DROPPED_AT_ONCE: i64 = 1_000;

/// The dead letter of a reject of a record: its id is UUIDv5 of `topic|partition|offset|index`.
pub(super) fn letter(partition: u16, record: &Span, reject: &Reject) -> DeadLetter {
    let Span { offset, arrived_us, source, .. } = record;
    let name = format!("{READINGS_TOPIC}|{partition}|{offset}|{}", reject.index);
    DeadLetter {
        id: Uuid::new_v5(&NAMESPACE, name.as_bytes()),
        topic: READINGS_TOPIC.into(),
        partition: Some(partition),
        offset: Some(*offset),
        ..of(reject, source, *arrived_us)
    }
}

/// The dead letter of a reject of the HTTP door.
pub(super) fn of_door(reject: &Reject, source: &str, arrived_us: i64) -> DeadLetter {
    DeadLetter { id: Uuid::now_v7(), ..of(reject, source, arrived_us) }
}

fn of(reject: &Reject, source: &str, arrived_us: i64) -> DeadLetter {
    DeadLetter {
        id: Uuid::nil(),
        code: reject.code.as_str().into(),
        error: reject.error.clone(),
        payload: reject.payload.clone(),
        machine_id: reject.machine.as_ref().map(|machine| machine.to_string()),
        source: source.into(),
        topic: DOOR.into(),
        partition: None,
        offset: None,
        index: reject.index,
        arrived_us,
        replayed_us: None,
    }
}

/// A reading as the intake takes it (SPEC.md 3.1).
pub(super) fn reading_json(batch: &ReadingBatch, row: usize) -> String {
    let class = &batch.class;
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut json = format!(
        r#"{{"machine_id":{},"timestamp":"{}","class":{}"#,
        text(batch.machine_of(row)),
        format_time(batch.timestamp_us[row]),
        text(&class.id)
    );
    let mut member = |key: &str, value: &str| {
        json.push(',');
        json.push_str(&text(key));
        json.push(':');
        json.push_str(value);
    };
    let mut qualities = serde_json::Map::new();
    for (at, (channel, values)) in class.channels.iter().zip(&batch.values).enumerate() {
        match Quality::of(batch.quality_of(row), at) {
            Quality::Missing => continue,
            Quality::Good => {}
            Quality::Uncertain => drop(qualities.insert(channel.id.clone(), "uncertain".into())),
            Quality::Bad => drop(qualities.insert(channel.id.clone(), "bad".into())),
        }
        member(&channel.id, &decimal_text(values[row], channel.scale));
    }
    for (attribute, words) in class.attributes.iter().zip(&batch.attributes) {
        if let Some(word) = words.get(row).and_then(|word| attribute.values.get(usize::from(*word))) {
            member(&attribute.id, &text(word));
        }
    }
    if let Some(seq) = batch.seq_of(row) {
        member("seq", &seq.to_string());
    }
    if let Some(state) = batch.state.get(row).and_then(|state| catalog::State::ALL.get(usize::from(*state))) {
        member("machine_state", &text(state.as_str()));
    }
    if !qualities.is_empty() {
        member("quality", &serde_json::Value::from(qualities).to_string());
    }
    if let Some(links) = batch.links.get(&(row as u32)) {
        member("links", links);
    }
    json.push('}');
    json
}

/// Where a page ended: arrival and id of the last row shown.
pub(super) fn parse_cursor(text: &str) -> Option<(i64, Uuid)> {
    let (arrived, id) = text.strip_prefix('d')?.split_once('.')?;
    let cursor = (arrived.parse().ok()?, id.parse().ok()?);
    (cursor_text(cursor) == text).then_some(cursor)
}

pub(super) fn cursor_text((arrived_us, id): (i64, Uuid)) -> String {
    format!("d{arrived_us}.{id}")
}
