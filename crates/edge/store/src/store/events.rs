//! The event stream: durable, numbered without a gap in commit order.

use super::{
    Error, Sqlite,
    alarms::{counter, raise_counter},
    now_us,
};
use rusqlite::{OptionalExtension, Transaction, params};

/// An event of the stream to be written; it gets the next seq.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// `alert`, `alarm`, `machine`, ...
    pub kind: String,
    /// JSON.
    pub data: String,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct StoredEvent {
    pub seq: u64,
    pub kind: String,
    pub data: String,
}

impl Sqlite {
    pub(super) async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("select seq, kind, data from event where seq > ?1 order by seq limit ?2")?;
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let rows = query.query_map(params![after, limit as i64], |row| {
                Ok(StoredEvent { seq: row.get::<_, i64>(0)? as u64, kind: row.get(1)?, data: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub(super) async fn event_range(&self) -> Result<(u64, u64), Error> {
        self.read(|connection| {
            // One statement sees one moment.
            let range: (Option<i64>, i64) = connection
                .prepare_cached("select (select min(seq) from event), value from counter where name = 'event'")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((range.0.unwrap_or(range.1 + 1) as u64, range.1 as u64))
        })
        .await
    }

    pub(super) async fn event_since(&self, from_us: i64) -> Result<u64, Error> {
        self.read(move |connection| {
            let first: Option<i64> = connection
                .prepare_cached("select seq from event where at_us >= ?1 order by seq limit 1")?
                .query_row([from_us], |row| row.get(0))
                .optional()?;
            Ok(match first {
                Some(seq) => seq,
                None => counter(connection, "event")? + 1,
            } as u64)
        })
        .await
    }

    pub(super) async fn prune_events(&self, through: u64) -> Result<usize, Error> {
        let through = i64::try_from(through).unwrap_or(i64::MAX);
        self.write(move |transaction| Ok(transaction.execute("delete from event where seq <= ?1", [through])?)).await
    }

    /// One store has one outbox, which repeats nothing: no alert is kept to know a repeat by.
    pub(super) async fn prune_alerts(&self, _: i64) -> Result<usize, Error> {
        Ok(0)
    }
}

/// Appends events; those written, with their seqs. An alert that is in the stream is not told twice.
pub(super) fn append(transaction: &Transaction<'_>, events: &[NewEvent]) -> Result<Vec<StoredEvent>, Error> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut last = counter(transaction, "event")?;
    let before = last;
    let at_us = now_us();
    let mut insert = transaction
        .prepare_cached("insert into event (seq, kind, data, at_us) values (?1, ?2, ?3, ?4) on conflict do nothing")?;
    let mut written = Vec::with_capacity(events.len());
    for NewEvent { kind, data } in events {
        if insert.execute(params![last + 1, kind, data, at_us])? == 1 {
            last += 1;
            written.push(StoredEvent { seq: last as u64, kind: kind.clone(), data: data.clone() });
        }
    }
    raise_counter(transaction, "event", last - before)?;
    Ok(written)
}
