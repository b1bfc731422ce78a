//! Counter resets and state changes of machines as people read them.

use super::{Error, Sqlite};
use crate::history::Page;
use engine::MachineEvent;
use rusqlite::{Connection, params};
use wire::Position;

/// Where a page ended: event time and position of the last row shown, and the last position when paging began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) timestamp_us: i64,
    pub(super) position: i64,
    pub(super) as_of: i64,
}

impl Sqlite {
    pub(super) async fn machine_events(
        &self,
        machine: &str,
        from_us: i64,
        to_us: i64,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<MachineEvent>, Error> {
        let machine = machine.to_owned();
        let cursor = cursor.map(|text| Cursor::parse(text).ok_or(Error::Cursor)).transpose()?;
        self.read(move |connection| page(connection, &machine, (from_us, to_us), limit, cursor)).await
    }
}

fn page(
    connection: &Connection,
    machine: &str,
    (from_us, to_us): (i64, i64),
    limit: usize,
    cursor: Option<Cursor>,
) -> Result<Page<MachineEvent>, Error> {
    let begin = || -> Result<Cursor, Error> {
        let as_of = connection
            .prepare_cached("select coalesce(max(position), 0) from machine_event")?
            .query_row([], |row| row.get(0))?;
        Ok(Cursor { timestamp_us: i64::MAX, position: i64::MAX, as_of })
    };
    let before = cursor.map_or_else(begin, Ok)?;
    let limit = limit.clamp(1, 1_000);
    let mut query = connection.prepare_cached(
        r#"select position, machine_id, kind, timestamp, topic, partition, "offset", "index", detail from machine_event
           where machine_id = ?1 and timestamp >= ?2 and timestamp < ?3 and position <= ?4
               and (timestamp, position) < (?5, ?6)
           order by timestamp desc, position desc limit ?7"#,
    )?;
    // One row more than asked for tells whether there is a next page.
    let wanted = params![machine, from_us, to_us, before.as_of, before.timestamp_us, before.position, limit as i64 + 1];
    let rows = query.query_map(wanted, |row| {
        let position = Position { topic: row.get(4)?, partition: row.get(5)?, offset: row.get(6)?, index: row.get(7)? };
        let event = MachineEvent {
            machine_id: row.get(1)?,
            kind: row.get(2)?,
            timestamp_us: row.get(3)?,
            position,
            detail: row.get(8)?,
        };
        Ok((row.get::<_, i64>(0)?, event))
    })?;
    let mut found = rows.collect::<Result<Vec<_>, _>>()?;
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

impl Cursor {
    pub(super) fn text(self) -> String {
        format!("e{}.{}.{}", self.timestamp_us, self.position, self.as_of)
    }

    pub(super) fn parse(text: &str) -> Option<Cursor> {
        let mut numbers = text.strip_prefix('e')?.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let cursor = Cursor { timestamp_us: next()?, position: next()?, as_of: next()? };
        // `+1` and `01` read as numbers too; only what was written by `text` is a cursor.
        (cursor.text() == text).then_some(cursor)
    }
}
