//! Counter resets and state changes of machines, read.

use super::{Error, Micros, Postgres, connect, query, query_opt};
use crate::{history::Page, store::machine_events::Cursor};
use engine::MachineEvent;
use tokio_postgres::Row;
use wire::Position;

impl Postgres {
    pub(in crate::store) async fn machine_events(
        &self,
        machine: &str,
        from_us: i64,
        to_us: i64,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<MachineEvent>, Error> {
        let cursor = cursor.map(|text| Cursor::parse(text).ok_or(Error::Cursor)).transpose()?;
        let client = connect(&self.ai.read).await?;
        let before = match cursor {
            Some(cursor) => cursor,
            None => {
                // Of one machine positions are given in commit order: it lies on one partition.
                let sql = "select max(position) from machine_event where machine_id = $1";
                let newest = query_opt(&client, sql, &[&machine]).await?;
                let as_of = newest.map_or(Ok(None), |row| row.try_get(0))?.unwrap_or(0);
                Cursor { timestamp_us: i64::MAX, position: i64::MAX, as_of }
            }
        };
        let limit = limit.clamp(1, 1_000);
        let sql = r#"select event.position, machine_id, kind, timestamp, topic, partition, "offset", "index", detail
            from machine_event event
            where machine_id = $1 and timestamp >= $2 and timestamp < $3 and event.position <= $4
                and (timestamp, event.position) < ($5, $6)
            order by timestamp desc, event.position desc limit $7"#;
        // One row more than asked for tells whether there is a next page.
        let rows = query(
            &client,
            sql,
            &[
                &machine,
                &Micros(from_us),
                &Micros(to_us),
                &before.as_of,
                &Micros(before.timestamp_us),
                &before.position,
                &(limit as i64 + 1),
            ],
        )
        .await?;
        let mut found = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more);
        let next = next.map(|(position, event)| Cursor {
            timestamp_us: event.timestamp_us,
            position: *position,
            as_of: before.as_of,
        });
        Ok(Page { rows: found.into_iter().map(|(_, event)| event).collect(), next_cursor: next.map(Cursor::text) })
    }
}

fn event(row: &Row) -> Result<(i64, MachineEvent), Error> {
    let position: i64 = row.try_get(0)?;
    let damaged = || Error::Damaged(format!("row {position} of machine_event"));
    let Micros(timestamp_us) = row.try_get(3)?;
    let event = MachineEvent {
        machine_id: row.try_get(1)?,
        kind: row.try_get(2)?,
        timestamp_us,
        position: Position {
            topic: row.try_get(4)?,
            partition: row.try_get::<_, i32>(5)?.try_into().map_err(|_| damaged())?,
            offset: row.try_get(6)?,
            index: row.try_get::<_, i64>(7)?.try_into().map_err(|_| damaged())?,
        },
        detail: row.try_get(8)?,
    };
    Ok((position, event))
}
