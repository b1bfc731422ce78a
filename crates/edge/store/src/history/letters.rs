//! Dead letters: what was refused on the bus and at the HTTP door.

use super::{DeadLetter, Error, History, Inner, LetterFilter, Page, memory::Counts};
use crate::Error as StoreError;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use std::{cmp::Reverse, collections::HashMap, sync::Arc};
use uuid::Uuid;
use wire::{Quality, READINGS_TOPIC, ReadingBatch, Reject, decimal_text, format_time};

/// Name space of the ids of dead letters: that of alert ids (SPEC.md 3.6). Their names cannot be the same, as an
/// alert's begins with a machine, a condition and a kind.
const NAMESPACE: Uuid = Uuid::from_u128(0xb1c6_e4a2_7c0e_5d53_9a57_2f1f_0a9d_6e31);
/// Topic of what was refused before it came on the bus.
const DOOR: &str = "http";
const COLUMNS: &str = r#"id, code, error, payload, machine_id, source, topic, partition, "offset", "index", arrived_us,
    replayed_us"#;

/// Dead letters that retention drops in one transaction; a flush waits for no more.
const DROPPED_AT_ONCE: i64 = 1_000;

/// A record of the bus.
pub(super) struct Record<'a> {
    pub(super) offset: i64,
    pub(super) arrived_us: i64,
    pub(super) source: &'a Arc<str>,
    pub(super) batches: &'a [ReadingBatch],
    pub(super) rejects: &'a [Reject],
}

/// The dead letter of a reject of the bus: its id is UUIDv5 of `topic|partition|offset|index`.
pub(super) fn letter(record: &Record<'_>, partition: u16, reject: &Reject) -> DeadLetter {
    let Record { offset, arrived_us, source, .. } = record;
    let name = format!("{READINGS_TOPIC}|{partition}|{offset}|{}", reject.index);
    DeadLetter {
        id: Uuid::new_v5(&NAMESPACE, name.as_bytes()),
        topic: READINGS_TOPIC.into(),
        partition: Some(partition),
        offset: Some(*offset),
        ..of(reject, source, *arrived_us)
    }
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

/// Writes a dead letter once.
pub(super) fn insert(transaction: &Transaction<'_>, letter: &DeadLetter) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            r#"insert into dead_letter (id, code, error, payload, machine_id, source, topic, partition, "offset",
                   "index", arrived_us, replayed_us)
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) on conflict do nothing"#,
        )?
        .execute(params![
            letter.id.to_string(),
            letter.code,
            letter.error,
            letter.payload,
            letter.machine_id,
            letter.source,
            letter.topic,
            letter.partition,
            letter.offset,
            letter.index,
            letter.arrived_us,
            letter.replayed_us,
        ])?;
    Ok(())
}

/// Adds to what the file has counted of a source.
pub(super) fn add_counts(transaction: &Transaction<'_>, source: &str, counts: Counts) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "insert into ledger (source, received, stored, rejected, duplicate) values (?1, ?2, ?3, ?4, ?5)
             on conflict do update set received = received + excluded.received, stored = stored + excluded.stored,
                 rejected = rejected + excluded.rejected, duplicate = duplicate + excluded.duplicate",
        )?
        .execute(params![
            source,
            counts.received.cast_signed(),
            counts.stored.cast_signed(),
            counts.rejected.cast_signed(),
            counts.duplicate.cast_signed(),
        ])?;
    Ok(())
}

/// Where a page ended: arrival and id of the last row shown.
fn parse_cursor(text: &str) -> Option<(i64, Uuid)> {
    let (arrived, id) = text.strip_prefix('d')?.split_once('.')?;
    let cursor = (arrived.parse().ok()?, id.parse().ok()?);
    (cursor_text(cursor) == text).then_some(cursor)
}

fn cursor_text((arrived_us, id): (i64, Uuid)) -> String {
    format!("d{arrived_us}.{id}")
}

fn read(row: &Row<'_>) -> Result<DeadLetter, rusqlite::Error> {
    let id: String = row.get(0)?;
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error));
    Ok(DeadLetter {
        id: id.parse().map_err(wrong)?,
        code: row.get(1)?,
        error: row.get(2)?,
        payload: row.get(3)?,
        machine_id: row.get(4)?,
        source: row.get(5)?,
        topic: row.get(6)?,
        partition: row.get(7)?,
        offset: row.get(8)?,
        index: row.get(9)?,
        arrived_us: row.get(10)?,
        replayed_us: row.get(11)?,
    })
}

impl Inner {
    /// Drops dead letters that arrived longer ago than they are kept. What was counted of them stays counted.
    pub(super) async fn drop_old_letters(&self, now_us: i64) -> Result<(), Error> {
        let before = now_us.saturating_sub(self.options.dead_letter_retention_us);
        loop {
            let job = move |transaction: &Transaction<'_>| {
                Ok(transaction
                    .prepare_cached(
                        "delete from dead_letter where rowid in (
                             select rowid from dead_letter where arrived_us < ?1 order by arrived_us limit ?2)",
                    )?
                    .execute(params![before, DROPPED_AT_ONCE])?)
            };
            if self.database.write(job, |_| ()).await? < DROPPED_AT_ONCE as usize {
                return Ok(());
            }
        }
    }

    /// The newest dead letters that are not on disk and that this holds for, so many of each partition.
    fn letters_in_memory(&self, limit: usize, wanted: impl Fn(&DeadLetter) -> bool) -> Vec<DeadLetter> {
        let mut found = Vec::new();
        for shard in &self.partitions {
            let partition = shard.state.lock().expect("never poisoned");
            let frozen = partition.frozen.iter().flat_map(|frozen| &frozen.dead_letters);
            let letters = frozen.chain(&partition.active.dead_letters);
            let mut letters: Vec<&DeadLetter> = letters.filter(|letter| wanted(letter)).collect();
            letters.sort_unstable_by_key(|letter| Reverse((letter.arrived_us, letter.id)));
            found.extend(letters.into_iter().take(limit).cloned());
        }
        found
    }
}

impl History {
    pub(super) async fn write_refusals(
        &self,
        source: &str,
        arrived_us: i64,
        rejects: &[Reject],
    ) -> Result<Vec<Uuid>, Error> {
        if rejects.is_empty() {
            return Ok(Vec::new());
        }
        let letters: Vec<DeadLetter> =
            rejects.iter().map(|reject| DeadLetter { id: Uuid::now_v7(), ..of(reject, source, arrived_us) }).collect();
        let ids = letters.iter().map(|letter| letter.id).collect();
        let count = rejects.len() as u64;
        let counts = Counts { received: count, rejected: count, ..Counts::default() };
        let (source, ledger): (Arc<str>, _) = (source.into(), self.inner.ledger.clone());
        let counted = source.clone();
        let job = move |transaction: &Transaction<'_>| {
            letters.iter().try_for_each(|letter| insert(transaction, letter))?;
            add_counts(transaction, &source, counts)
        };
        let durable = move |(): &()| ledger.lock().expect("never poisoned").entry(counted).or_default().add(counts);
        self.inner.database.write(job, durable).await?;
        Ok(ids)
    }

    pub(super) async fn page_of_letters(
        &self,
        filter: &LetterFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DeadLetter>, Error> {
        let limit = limit.clamp(1, 1_000);
        let below = cursor.map(|text| parse_cursor(text).ok_or(Error::Cursor)).transpose()?;
        let below = below.unwrap_or((i64::MAX, Uuid::max()));
        // Memory first: what is flushed in between is found twice, never not at all.
        let mut found: HashMap<Uuid, DeadLetter> = self
            .inner
            .letters_in_memory(limit + 1, |letter| (letter.arrived_us, letter.id) < below && filter.holds(letter))
            .into_iter()
            .map(|letter| (letter.id, letter))
            .collect();
        let sql = format!(
            "select {COLUMNS} from dead_letter where (arrived_us, id) < (?1, ?2) and arrived_us >= ?4 and arrived_us < ?5
                 and source = coalesce(?6, source) and code = coalesce(?7, code)
             order by arrived_us desc, id desc limit ?3"
        );
        let LetterFilter { source, code, from_us, to_us } = filter.clone();
        let stored = self.inner.read(move |connection| {
            let mut query = connection.prepare_cached(&sql)?;
            let values = params![below.0, below.1.to_string(), limit as i64 + 1, from_us, to_us, source, code];
            let rows = query.query_map(values, read)?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        // A stored letter knows whether it was replayed.
        found.extend(stored.await?.into_iter().map(|letter| (letter.id, letter)));
        let mut rows: Vec<DeadLetter> = found.into_values().collect();
        // The text of an id sorts as its bytes do.
        rows.sort_by_key(|letter| Reverse((letter.arrived_us, letter.id)));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|letter| cursor_text((letter.arrived_us, letter.id)));
        Ok(Page { rows, next_cursor: next })
    }

    pub(super) async fn letter_of(&self, id: Uuid) -> Result<Option<DeadLetter>, Error> {
        let held = self.inner.letters_in_memory(1, |letter| letter.id == id).pop();
        let sql = format!("select {COLUMNS} from dead_letter where id = ?1");
        let stored = self.inner.read(move |connection| {
            Ok(connection.prepare_cached(&sql)?.query_row([id.to_string()], read).optional()?)
        });
        Ok(stored.await?.or(held))
    }

    pub(super) async fn note_replayed(&self, id: Uuid, at_us: i64) -> Result<(), Error> {
        // Asked first: what is flushed in between is then found twice, never not at all.
        let held = !self.inner.letters_in_memory(1, |letter| letter.id == id).is_empty();
        let update = || {
            let job = move |transaction: &Transaction<'_>| {
                Ok(transaction
                    .prepare_cached("update dead_letter set replayed_us = ?2 where id = ?1")?
                    .execute(params![id.to_string(), at_us])?)
            };
            self.inner.database.write(job, |_| ())
        };
        if update().await? == 0 && held {
            self.flush().await?;
            update().await?;
        }
        Ok(())
    }
}
