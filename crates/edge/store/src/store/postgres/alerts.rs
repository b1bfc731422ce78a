//! anomaly_history, read.

use super::{Error, Micros, Postgres, connect, query, query_opt};
use crate::{
    history::Page,
    store::{AlertQuery, alerts::Cursor},
};
use tokio_postgres::{Row, types::ToSql};
use wire::{Alert, AlertText, Kind, Position};

/// The columns that [`alert`] reads, in its order.
pub(super) const COLUMNS: &str = r#"history.position, id, machine_id, class, failure_type, kind, severity, score, condition,
    condition_id, started_at, timestamp, arrived_at, model, model_version, topic, partition, "offset", "index",
    reason::text, reading::text, text_en, text_ko, suspended, caught_up, notice"#;

impl Postgres {
    pub(in crate::store) async fn alerts(&self, wanted: AlertQuery) -> Result<Page<Alert>, Error> {
        let cursor = wanted.cursor.as_deref().map(|text| Cursor::parse(text).ok_or(Error::Cursor)).transpose()?;
        let client = connect(&self.ai.read).await?;
        let as_of = match cursor {
            Some(cursor) => cursor.as_of,
            None => {
                let newest = query_opt(&client, "select max(position) from anomaly_history", &[]).await?;
                newest.map_or(Ok(None), |row| row.try_get(0))?.unwrap_or(0)
            }
        };
        let limit = wanted.limit.clamp(1, 1_000);

        let AlertQuery { machine_id, failure_type, severity, from_us, to_us, .. } = &wanted;
        let mut sql = format!("select {COLUMNS} from anomaly_history history where history.position <= $1");
        let mut values: Vec<Box<dyn ToSql + Sync + Send>> = vec![Box::new(as_of)];
        let mut narrow = |condition: &str, value: Box<dyn ToSql + Sync + Send>| {
            values.push(value);
            sql += &condition.replace('?', &format!("${}", values.len()));
        };
        for (condition, text) in [
            (" and machine_id = ?", machine_id),
            (" and failure_type = ?", failure_type),
            (" and severity = ?", severity),
        ] {
            if let Some(text) = text {
                narrow(condition, Box::new(text.clone()));
            }
        }
        for (condition, time) in [(" and timestamp >= ?", from_us), (" and timestamp < ?", to_us)] {
            if let Some(time) = time {
                narrow(condition, Box::new(Micros(*time)));
            }
        }
        if let Some(cursor) = cursor {
            narrow(" and (timestamp, history.position) < (?", Box::new(Micros(cursor.timestamp_us)));
            narrow(", ?)", Box::new(cursor.position));
        }
        // One row more than asked for tells whether there is a next page.
        narrow(" order by timestamp desc, history.position desc limit ?", Box::new(limit as i64 + 1));

        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        let mut found = read(&query(&client, &sql, &values).await?)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more);
        let next =
            next.map(|(position, alert)| Cursor { timestamp_us: alert.timestamp, position: *position, as_of }.text());
        Ok(Page { rows: found.into_iter().map(|(_, alert)| alert).collect(), next_cursor: next })
    }

    pub(in crate::store) async fn alert(&self, id: wire::AlertId) -> Result<Option<Alert>, Error> {
        let client = connect(&self.ai.read).await?;
        let sql = format!("select {COLUMNS} from anomaly_history history where id = $1");
        Ok(read(&query(&client, &sql, &[&id]).await?)?.pop().map(|(_, alert)| alert))
    }

    pub(in crate::store) async fn standing(&self) -> Result<Vec<Alert>, Error> {
        self.standing_where(None).await
    }

    pub(in crate::store) async fn standing_on(&self, partition: u16) -> Result<Vec<Alert>, Error> {
        self.standing_where(Some(i32::from(partition))).await
    }

    async fn standing_where(&self, partition: Option<i32>) -> Result<Vec<Alert>, Error> {
        let client = connect(&self.ai.read).await?;
        let sql = format!(
            "select {COLUMNS} from anomaly_history history where history.position in (
                 select (select max(later.position) from anomaly_history later where later.condition_id = raised.id)
                 from anomaly_history raised
                 where raised.kind = 'raised' and ($1::integer is null or raised.partition = $1) and not exists (
                     select 1 from anomaly_history cleared
                     where cleared.condition_id = raised.id and cleared.kind = 'cleared'))
             order by history.position"
        );
        Ok(read(&query(&client, &sql, &[&partition]).await?)?.into_iter().map(|(_, alert)| alert).collect())
    }
}

fn read(rows: &[Row]) -> Result<Vec<(i64, Alert)>, Error> {
    rows.iter().map(alert).collect()
}

/// Writes an alert again from its row.
pub(super) fn alert(row: &Row) -> Result<(i64, Alert), Error> {
    let position: i64 = row.try_get(0)?;
    let damaged = || Error::Damaged(format!("row {position} of anomaly_history"));
    let kind = match row.try_get(5)? {
        "raised" => Kind::Raised,
        "changed" => Kind::Changed,
        "cleared" => Kind::Cleared,
        _ => return Err(damaged()),
    };
    let time = |at: usize| row.try_get(at).map(|Micros(time)| time);
    let reading: Option<String> = row.try_get(20)?;
    let alert = Alert {
        alert_id: row.try_get(1)?,
        machine_id: row.try_get(2)?,
        class: row.try_get(3)?,
        failure_type: row.try_get(4)?,
        kind,
        severity: catalog::Severity::from_word(row.try_get(6)?).ok_or_else(damaged)?,
        score: row.try_get(7)?,
        condition: row.try_get(8)?,
        condition_id: row.try_get(9)?,
        started_at: time(10)?,
        timestamp: time(11)?,
        arrived_at: time(12)?,
        model: row.try_get(13)?,
        model_version: row.try_get(14)?,
        position: Position {
            topic: row.try_get(15)?,
            partition: row.try_get::<_, i32>(16)?.try_into().map_err(|_| damaged())?,
            offset: row.try_get(17)?,
            index: row.try_get::<_, i64>(18)?.try_into().map_err(|_| damaged())?,
        },
        reason: serde_json::from_str(row.try_get(19)?).map_err(|_| damaged())?,
        reading: reading.map(serde_json::value::RawValue::from_string).transpose().map_err(|_| damaged())?,
        text: AlertText { en: row.try_get(21)?, ko: row.try_get(22)? },
        suspended: row.try_get(23)?,
        caught_up: row.try_get(24)?,
        notice: row.try_get(25)?,
    };
    Ok((position, alert))
}
