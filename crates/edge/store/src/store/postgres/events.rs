//! The event stream: numbered without a gap in commit order.

use super::{Error, Postgres, column, connect, execute, prune, query, query_opt};
use crate::store::{NewEvent, StoredEvent, now_us};
use deadpool_postgres::{GenericClient, Transaction};
use serde::Deserialize;
use std::collections::{BTreeSet, HashSet};

impl Postgres {
    pub(in crate::store) async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        let client = connect(&self.main.read).await?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let sql = "select seq, kind, data from event where seq > $1 order by seq limit $2";
        let rows = query(&client, sql, &[&after, &(limit as i64)]).await?;
        let event = |row: &tokio_postgres::Row| {
            let seq: i64 = row.try_get(0)?;
            Ok(StoredEvent { seq: seq as u64, kind: row.try_get(1)?, data: row.try_get(2)? })
        };
        rows.iter().map(event).collect()
    }

    pub(in crate::store) async fn event_range(&self) -> Result<(u64, u64), Error> {
        let client = connect(&self.main.read).await?;
        // One statement sees one moment.
        let sql = "select (select min(seq) from event), value from counter where name = 'event'";
        let row = query_opt(&client, sql, &[]).await?.ok_or_else(lost)?;
        let (oldest, newest): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok((oldest.unwrap_or(newest + 1) as u64, newest as u64))
    }

    pub(in crate::store) async fn event_since(&self, from_us: i64) -> Result<u64, Error> {
        let client = connect(&self.main.read).await?;
        let sql = "select coalesce((select seq from event where at_us >= $1 order by seq limit 1), value + 1)
                   from counter where name = 'event'";
        let seq: i64 = query_opt(&client, sql, &[&from_us]).await?.ok_or_else(lost)?.try_get(0)?;
        Ok(seq as u64)
    }

    pub(in crate::store) async fn prune_events(&self, through: u64) -> Result<usize, Error> {
        let client = connect(&self.main.write).await?;
        let through = i64::try_from(through).unwrap_or(i64::MAX);
        Ok(execute(&client, "delete from event where seq <= $1", &[&through]).await? as usize)
    }

    pub(in crate::store) async fn prune_alerts(&self, before_us: i64) -> Result<usize, Error> {
        let client = connect(&self.main.write).await?;
        let sql = "delete from alert where alert_id in (
                       select alert_id from alert where at_us < $1 order by at_us limit $2)";
        prune(&client, sql, &before_us).await
    }
}

fn lost() -> Error {
    Error::Damaged("counter event".to_owned())
}

/// Last seq given; who asks holds it until its transaction ends.
pub(super) async fn lock(transaction: &Transaction<'_>) -> Result<i64, Error> {
    let sql = "select value from counter where name = 'event' for update";
    Ok(query_opt(transaction, sql, &[]).await?.ok_or_else(lost)?.try_get(0)?)
}

/// Appends events behind `before`; those written, with their seqs. An alert that was told is not told twice.
pub(super) async fn append(
    transaction: &Transaction<'_>,
    before: i64,
    events: &[NewEvent],
) -> Result<Vec<StoredEvent>, Error> {
    let at_us = now_us();
    let ids: Vec<Option<String>> = events.iter().map(alert_id).collect();
    let mut new = keep_alerts(transaction, events, &ids, at_us).await?;
    let mut written: Vec<StoredEvent> = Vec::with_capacity(events.len());
    for (NewEvent { kind, data }, id) in events.iter().zip(&ids) {
        if id.as_ref().is_some_and(|id| !new.remove(id)) {
            continue;
        }
        let seq = before + written.len() as i64 + 1;
        written.push(StoredEvent { seq: seq as u64, kind: kind.clone(), data: data.clone() });
    }
    if written.is_empty() {
        return Ok(written);
    }
    let seqs = column(written.iter(), |event| event.seq as i64);
    let kinds = column(written.iter(), |event| &*event.kind);
    let data = column(written.iter(), |event| &*event.data);
    let sql = "insert into event (seq, kind, data, at_us)
        select seq, kind, data, $4 from unnest($1::bigint[], $2::text[], $3::text[]) told (seq, kind, data)";
    execute(transaction, sql, &[&seqs, &kinds, &data, &at_us]).await?;
    let last = before + written.len() as i64;
    execute(transaction, "update counter set value = $1 where name = 'event'", &[&last]).await?;
    Ok(written)
}

impl Postgres {
    pub(in crate::store) async fn known_alerts(
        &self,
        ids: Vec<wire::AlertId>,
    ) -> Result<BTreeSet<wire::AlertId>, Error> {
        let client = connect(&self.main.read).await?;
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = query(&client, "select alert_id from alert where alert_id = any($1)", &[&texts]).await?;
        let texts = rows.iter().map(|row| row.try_get(0)).collect::<Result<BTreeSet<String>, _>>()?;
        Ok(ids.into_iter().filter(|id| texts.contains(&id.to_string())).collect())
    }
}

/// The alert that an event tells of; what names none cannot be told twice.
fn alert_id(event: &NewEvent) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        alert_id: String,
    }
    let named = (event.kind == "alert").then(|| serde_json::from_str(&event.data).ok()).flatten();
    named.map(|Named { alert_id }| alert_id)
}

/// Writes the rows of alerts; the ids that were not there.
async fn keep_alerts(
    client: &impl GenericClient,
    events: &[NewEvent],
    ids: &[Option<String>],
    at_us: i64,
) -> Result<HashSet<String>, Error> {
    let (ids, data): (Vec<&String>, Vec<&str>) =
        ids.iter().zip(events).filter_map(|(id, event)| Some((id.as_ref()?, &*event.data))).unzip();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = "insert into alert (alert_id, data, at_us)
        select alert_id, data::jsonb, $3 from unnest($1::text[], $2::text[]) told (alert_id, data)
        on conflict do nothing returning alert_id";
    query(client, sql, &[&ids, &data, &at_us]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
