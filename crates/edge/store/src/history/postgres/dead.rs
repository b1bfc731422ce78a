//! Dead letters and the ledger's counts.

use super::{Error, Inner, Postgres};
use crate::history::{
    DeadLetter, LetterFilter, Page,
    letters::{DROPPED_AT_ONCE, cursor_text, of_door, parse_cursor},
    memory::Counts,
};
use deadpool_postgres::Transaction;
use std::borrow::Cow;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;
use wire::Reject;

/// In the place of a partition: the HTTP door counts there.
const DOOR: i32 = -1;
const COLUMNS: &str = r#"id, code, error, payload, machine_id, source, topic, partition, "offset", "index", arrived_us,
    replayed_us"#;

/// Text of PostgreSQL has no NUL.
fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// Writes dead letters, each once.
pub(super) async fn insert_letters(transaction: &Transaction<'_>, letters: &[DeadLetter]) -> Result<(), Error> {
    if letters.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(letters: &'a [DeadLetter], of: impl Fn(&'a DeadLetter) -> T) -> Vec<T> {
        letters.iter().map(of).collect()
    }
    let sql = format!(
        "insert into dead_letter ({COLUMNS})
         select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[],
             $8::integer[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
         on conflict (id) do nothing"
    );
    let insert = transaction.prepare_cached(&sql).await?;
    let ids = column(letters, |letter| letter.id);
    let codes = column(letters, |letter| text(&letter.code));
    let errors = column(letters, |letter| text(&letter.error));
    let payloads = column(letters, |letter| &*letter.payload);
    let machines = column(letters, |letter| letter.machine_id.as_deref().map(text));
    let sources = column(letters, |letter| text(&letter.source));
    let topics = column(letters, |letter| text(&letter.topic));
    let partitions = column(letters, |letter| letter.partition.map(i32::from));
    let offsets = column(letters, |letter| letter.offset);
    let indexes = column(letters, |letter| i64::from(letter.index));
    let arrivals = column(letters, |letter| letter.arrived_us);
    let replayed = column(letters, |letter| letter.replayed_us);
    transaction
        .execute(
            &insert,
            &[
                &ids,
                &codes,
                &errors,
                &payloads,
                &machines,
                &sources,
                &topics,
                &partitions,
                &offsets,
                &indexes,
                &arrivals,
                &replayed,
            ],
        )
        .await?;
    Ok(())
}

/// Adds to what the database has counted of a source in a partition.
pub(super) async fn add_counts(
    transaction: &Transaction<'_>,
    source: &str,
    partition: i32,
    counts: Counts,
) -> Result<(), Error> {
    let sql = "insert into ledger (source, partition, received, stored, rejected, duplicate)
               values ($1, $2, $3, $4, $5, $6)
               on conflict (source, partition) do update set received = ledger.received + excluded.received,
                   stored = ledger.stored + excluded.stored, rejected = ledger.rejected + excluded.rejected,
                   duplicate = ledger.duplicate + excluded.duplicate";
    let insert = transaction.prepare_cached(sql).await?;
    let Counts { received, stored, rejected, duplicate } = counts;
    let [received, stored, rejected, duplicate] = [received, stored, rejected, duplicate].map(u64::cast_signed);
    transaction.execute(&insert, &[&text(source), &partition, &received, &stored, &rejected, &duplicate]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<DeadLetter, Error> {
    let number = |at: usize| row.try_get::<_, Option<i32>>(at);
    let index: i64 = row.try_get(9)?;
    Ok(DeadLetter {
        id: row.try_get(0)?,
        code: row.try_get(1)?,
        error: row.try_get(2)?,
        payload: row.try_get(3)?,
        machine_id: row.try_get(4)?,
        source: row.try_get(5)?,
        topic: row.try_get(6)?,
        partition: number(7)?.and_then(|partition| u16::try_from(partition).ok()),
        offset: row.try_get(8)?,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        arrived_us: row.try_get(10)?,
        replayed_us: row.try_get(11)?,
    })
}

impl Inner {
    /// Drops dead letters that arrived longer ago than they are kept. What was counted of them stays counted.
    pub(in crate::history) async fn drop_old_letters(&self, now_us: i64) -> Result<(), Error> {
        let before = now_us.saturating_sub(self.options.dead_letter_retention_us);
        let client = self.pools.write.get().await?;
        // What another process holds, it drops itself.
        let sql = "delete from dead_letter where id in (
                       select id from dead_letter where arrived_us < $1 order by arrived_us, id limit $2
                       for update skip locked)";
        let delete = client.prepare_cached(sql).await?;
        while client.execute(&delete, &[&before, &DROPPED_AT_ONCE]).await? == DROPPED_AT_ONCE.unsigned_abs() {}
        Ok(())
    }
}

impl Postgres {
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
        let count = rejects.len() as u64;
        let counts = Counts { received: count, rejected: count, ..Counts::default() };
        let mut client = self.inner.pools.write.get().await?;
        let transaction = client.transaction().await?;
        insert_letters(&transaction, &letters).await?;
        add_counts(&transaction, source, DOOR, counts).await?;
        transaction.commit().await?;
        Ok(letters.iter().map(|letter| letter.id).collect())
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
        let client = self.inner.pools.read.get().await?;
        let sql = format!(
            "select {COLUMNS} from dead_letter where (arrived_us, id) < ($1, $2) and arrived_us >= $4 and arrived_us < $5
                 and source = coalesce($6, source) and code = coalesce($7, code)
             order by arrived_us desc, id desc limit $3"
        );
        let query = client.prepare_cached(&sql).await?;
        let LetterFilter { source, code, from_us, to_us } = filter;
        let (source, code) = (source.as_deref().map(text), code.as_deref().map(text));
        let values: [&(dyn ToSql + Sync); 7] =
            [&below.0, &below.1, &(limit as i64 + 1), from_us, to_us, &source, &code];
        let found = client.query(&query, &values).await?;
        let mut rows = found.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|letter| cursor_text((letter.arrived_us, letter.id)));
        Ok(Page { rows, next_cursor: next })
    }

    pub(in crate::history) async fn dead_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, Error> {
        let client = self.inner.pools.read.get().await?;
        let sql = format!("select {COLUMNS} from dead_letter where id = $1");
        client.query_opt(&sql, &[&id]).await?.as_ref().map(read).transpose()
    }

    pub(in crate::history) async fn replayed(&self, id: Uuid, at_us: i64) -> Result<(), Error> {
        let client = self.inner.pools.write.get().await?;
        client.execute("update dead_letter set replayed_us = $2 where id = $1", &[&id, &at_us]).await?;
        Ok(())
    }
}
