//! Dead letters in memory and in the file.

use super::{
    DeadLetter, Error, Inner, LetterFilter, Page, Sqlite,
    letters::{DROPPED_AT_ONCE, cursor_text, of_door, parse_cursor},
    memory::Counts,
};
use crate::Error as StoreError;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use std::{cmp::Reverse, collections::HashMap, sync::Arc};
use uuid::Uuid;
use wire::Reject;

const COLUMNS: &str = r#"id, code, error, payload, machine_id, source, topic, partition, "offset", "index", arrived_us,
    replayed_us"#;

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
    pub(in crate::history) async fn drop_old_letters(&self, now_us: i64) -> Result<(), Error> {
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
            let partition = shard.state();
            let frozen = partition.frozen.iter().flat_map(|frozen| &frozen.dead_letters);
            let letters = frozen.chain(&partition.active.dead_letters);
            let mut letters: Vec<&DeadLetter> = letters.filter(|letter| wanted(letter)).collect();
            letters.sort_unstable_by_key(|letter| Reverse((letter.arrived_us, letter.id)));
            found.extend(letters.into_iter().take(limit).cloned());
        }
        found
    }
}

impl Sqlite {
    pub(in crate::history) async fn refuse(
        &self,
        source: &str,
        arrived_us: i64,
        rejects: &[Reject],
    ) -> Result<Vec<Uuid>, Error> {
        if rejects.is_empty() {
            return Ok(Vec::new());
        }
        let letters: Vec<DeadLetter> = rejects.iter().map(|reject| of_door(reject, source, arrived_us)).collect();
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

    pub(in crate::history) async fn dead_letters(
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

    pub(in crate::history) async fn dead_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, Error> {
        let held = self.inner.letters_in_memory(1, |letter| letter.id == id).pop();
        let sql = format!("select {COLUMNS} from dead_letter where id = ?1");
        let stored = self.inner.read(move |connection| {
            Ok(connection.prepare_cached(&sql)?.query_row([id.to_string()], read).optional()?)
        });
        Ok(stored.await?.or(held))
    }

    pub(in crate::history) async fn replayed(&self, id: Uuid, at_us: i64) -> Result<(), Error> {
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
