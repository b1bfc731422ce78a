//! anomaly_history as people and restarts read it.

use super::{Error, Sqlite};
use crate::history::Page;
use rusqlite::{Connection, Row, params_from_iter, types::Value};
use wire::{Alert, AlertText, Kind, Position};

/// Which alerts.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "parameters of SPEC.md 3.8")]
pub struct AlertQuery {
    pub machine_id: Option<String>,
    pub failure_type: Option<String>,
    pub severity: Option<String>,
    /// Inclusive.
    pub from_us: Option<i64>,
    /// Exclusive.
    pub to_us: Option<i64>,
    pub limit: usize,
    pub cursor: Option<String>,
}

/// The columns that [`alert`] reads, in its order.
const COLUMNS: &str = r#"position, id, machine_id, class, failure_type, kind, severity, score, condition, condition_id,
    started_at, timestamp, arrived_at, model, model_version, topic, partition, "offset", "index", reason, reading,
    text_en, text_ko, suspended, caught_up, notice"#;

/// Where a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Event time and position of the last row shown.
    pub(super) timestamp_us: i64,
    pub(super) position: i64,
    /// Last position when paging began: what came later is left out, so that a page never depends on when it is asked.
    pub(super) as_of: i64,
}

impl Sqlite {
    pub(super) async fn alerts(&self, query: AlertQuery) -> Result<Page<Alert>, Error> {
        self.read(move |connection| page(connection, &query)).await
    }

    pub(super) async fn alert(&self, id: wire::AlertId) -> Result<Option<Alert>, Error> {
        self.read(move |connection| {
            let mut found = rows(
                connection,
                &format!("select {COLUMNS} from anomaly_history where id = ?1"),
                [id.to_string().into()],
            )?;
            Ok(found.pop().map(|(_, alert)| alert))
        })
        .await
    }

    pub(super) async fn standing(&self) -> Result<Vec<Alert>, Error> {
        self.read(standing).await
    }

    pub(super) async fn standing_on(&self, partition: u16) -> Result<Vec<Alert>, Error> {
        let mut standing = self.standing().await?;
        standing.retain(|alert| alert.position.partition == partition);
        Ok(standing)
    }
}

fn standing(connection: &Connection) -> Result<Vec<Alert>, Error> {
    let sql = format!(
        "select {COLUMNS} from anomaly_history where position in (
             select (select max(position) from anomaly_history later where later.condition_id = raised.id)
             from anomaly_history raised
             where raised.kind = 'raised' and not exists (
                 select 1 from anomaly_history cleared
                 where cleared.condition_id = raised.id and cleared.kind = 'cleared'))
         order by position"
    );
    Ok(rows(connection, &sql, [])?.into_iter().map(|(_, alert)| alert).collect())
}

fn page(connection: &Connection, query: &AlertQuery) -> Result<Page<Alert>, Error> {
    let cursor = query.cursor.as_deref().map(|text| Cursor::parse(text).ok_or(Error::Cursor)).transpose()?;
    let as_of = match cursor {
        Some(cursor) => cursor.as_of,
        None => connection
            .prepare_cached("select coalesce(max(position), 0) from anomaly_history")?
            .query_row([], |row| row.get(0))?,
    };
    let limit = query.limit.clamp(1, 1_000);

    let mut sql = format!("select {COLUMNS} from anomaly_history where position <= ?");
    let mut values: Vec<Value> = vec![as_of.into()];
    let texts = [
        (" and machine_id = ?", &query.machine_id),
        (" and failure_type = ?", &query.failure_type),
        (" and severity = ?", &query.severity),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            sql += condition;
            values.push(value.clone().into());
        }
    }
    for (condition, value) in [(" and timestamp >= ?", query.from_us), (" and timestamp < ?", query.to_us)] {
        if let Some(value) = value {
            sql += condition;
            values.push(value.into());
        }
    }
    if let Some(cursor) = cursor {
        sql += " and (timestamp, position) < (?, ?)";
        values.extend([cursor.timestamp_us.into(), cursor.position.into()]);
    }
    // One row more than asked for tells whether there is a next page.
    sql += " order by timestamp desc, position desc limit ?";
    values.push((limit as i64 + 1).into());

    let mut found = rows(connection, &sql, values)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found
        .last()
        .filter(|_| more)
        .map(|(position, alert)| Cursor { timestamp_us: alert.timestamp, position: *position, as_of }.text());
    Ok(Page { rows: found.into_iter().map(|(_, alert)| alert).collect(), next_cursor: next })
}

fn rows(
    connection: &Connection,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<(i64, Alert)>, Error> {
    let mut query = connection.prepare_cached(sql)?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(alert(row)?);
    }
    Ok(found)
}

/// Writes an alert again from its row.
fn alert(row: &Row<'_>) -> Result<(i64, Alert), Error> {
    let position: i64 = row.get(0)?;
    let damaged = || Error::Damaged(format!("row {position} of anomaly_history"));
    let id = |at: usize| -> Result<uuid::Uuid, Error> {
        row.get_ref(at)?.as_str().ok().and_then(|text| text.parse().ok()).ok_or_else(damaged)
    };
    let kind = match row.get_ref(5)?.as_str().map_err(|_| damaged())? {
        "raised" => Kind::Raised,
        "changed" => Kind::Changed,
        "cleared" => Kind::Cleared,
        _ => return Err(damaged()),
    };
    let severity = row.get_ref(6)?.as_str().ok().and_then(catalog::Severity::from_word).ok_or_else(damaged)?;
    let reason = row.get_ref(19)?.as_str().map_err(|_| damaged())?;
    let reading: Option<String> = row.get(20)?;
    let alert = Alert {
        alert_id: id(1)?,
        machine_id: row.get(2)?,
        class: row.get(3)?,
        failure_type: row.get(4)?,
        kind,
        severity,
        score: row.get(7)?,
        condition: row.get(8)?,
        condition_id: id(9)?,
        started_at: row.get(10)?,
        timestamp: row.get(11)?,
        arrived_at: row.get(12)?,
        model: row.get(13)?,
        model_version: row.get(14)?,
        position: Position { topic: row.get(15)?, partition: row.get(16)?, offset: row.get(17)?, index: row.get(18)? },
        reason: serde_json::from_str(reason).map_err(|_| damaged())?,
        reading: reading.map(serde_json::value::RawValue::from_string).transpose().map_err(|_| damaged())?,
        text: AlertText { en: row.get(21)?, ko: row.get(22)? },
        suspended: row.get(23)?,
        caught_up: row.get(24)?,
        notice: row.get(25)?,
    };
    Ok((position, alert))
}

impl Cursor {
    pub(super) fn text(self) -> String {
        format!("a{}.{}.{}", self.timestamp_us, self.position, self.as_of)
    }

    pub(super) fn parse(text: &str) -> Option<Cursor> {
        let mut numbers = text.strip_prefix('a')?.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let cursor = Cursor { timestamp_us: next()?, position: next()?, as_of: next()? };
        // `+1` and `01` read as numbers too; only what was written by `text` is a cursor.
        (cursor.text() == text).then_some(cursor)
    }
}
