//! A machine's readings: pages, charts, the newest.
//!
//! The order of pages is (event time, id), descending. Ids ascend in the order of the bus, and those above the sequence's
//! last when paging began came later, so they are left out.

use super::{
    Error, Postgres, find,
    table::{Kind, Table},
    value::Micros,
};
use crate::history::{Bucket, LogRow, Page, Scattered, partition::SLAB};
use catalog::{Class, MachineId};
use std::sync::Arc;
use wire::{Position, READINGS_TOPIC, ReadingBatch};

/// No reading is older or newer: 1970 and the year 10000.
const TIMES: (i64, i64) = (0, 253_402_300_800_000_000);

/// Scattered machines that are told of at once.
const SCATTERED_MOST: usize = 1_000;

/// Where a page ended, and the last id when paging began.
#[derive(Clone, Copy)]
struct Cursor {
    time: i64,
    id: i64,
    as_of: i64,
}

impl Cursor {
    fn text(self) -> String {
        format!("p{}.{}.{}", self.time, self.id, self.as_of)
    }

    fn parse(text: &str) -> Option<Cursor> {
        let mut words = text.strip_prefix('p')?.split('.').map(str::parse);
        let mut next = || words.next()?.ok();
        let cursor = Cursor { time: next()?, id: next()?, as_of: next()? };
        // `+1` and `01` read as numbers too; only what was written by `text` is a cursor.
        (cursor.text() == text).then_some(cursor)
    }
}

impl Postgres {
    /// The table that a machine's readings lie in.
    async fn table_of(&self, machine: &str) -> Result<Option<Arc<Table>>, Error> {
        let mut class = self.class_of(machine);
        if class.is_none() {
            self.inner.refresh().await?;
            class = self.class_of(machine);
        }
        let Some(class) = class else { return Ok(None) };
        let class: Arc<Class> = self.inner.catalogue().class(&class).cloned().ok_or(Error::NoClass(class))?;
        self.inner.table_to_read(&class).await
    }

    pub(in crate::history) async fn newest(&self, machine: &str) -> Result<Option<i64>, Error> {
        let Some(table) = self.table_of(machine).await? else { return Ok(None) };
        let client = self.inner.pools.read.get().await?;
        let sql = format!("select timestamp from {} where machine_id = $1 order by timestamp desc limit 1", table.name);
        let query = client.prepare_cached(&sql).await?;
        let row = client.query_opt(&query, &[&machine]).await?;
        Ok(row.map(|row| row.try_get::<_, Micros>(0)).transpose()?.map(|Micros(time)| time))
    }

    pub(in crate::history) async fn scattered(&self) -> Result<Vec<Scattered>, Error> {
        let names: Vec<String> = {
            let scattered = self.inner.scattered.lock().expect("never poisoned");
            scattered.iter().take(SCATTERED_MOST).map(|id| id.to_string()).collect()
        };
        let mut found: Vec<Scattered> = Vec::new();
        if names.is_empty() {
            return Ok(found);
        }
        let client = self.inner.pools.read.get().await?;
        // Of a machine's 16 bytes in its slab the last eight are the time of its newest reading.
        let sql = "select m.machine_id, m.partition, substring(n.bytes from (m.number % $2) * 16 + 9 for 8)
                   from bus_machine m join newest n on n.partition = m.partition and n.slab = m.number / $2
                   where m.machine_id = any($1) order by m.machine_id collate \"C\"";
        let mut of_machine: Vec<(i64, u16)> = Vec::new();
        let rows = client.query(sql, &[&names, &(SLAB as i32)]).await?;
        let mut rows = rows.iter().peekable();
        while let Some(row) = rows.next() {
            let (machine_id, partition, bytes): (String, i32, &[u8]) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let newest_us = i64::from_le_bytes(bytes.try_into().map_err(|_| Error::NotOurs)?);
            of_machine.push((newest_us, partition as u16));
            if rows.peek().map(|next| next.try_get::<_, &str>(0)).transpose()? == Some(&*machine_id) {
                continue;
            }
            of_machine.sort_unstable_by(|one, other| other.cmp(one));
            if let [(newest_us, _), (second_us, _), ..] = of_machine[..] {
                let partitions = of_machine.iter().map(|(_, partition)| *partition).collect();
                found.push(Scattered { machine_id, partitions, newest_us: (newest_us, second_us) });
            }
            of_machine.clear();
        }
        Ok(found)
    }

    pub(in crate::history) async fn logs(
        &self,
        machine: &MachineId,
        from_us: i64,
        to_us: i64,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<LogRow>, Error> {
        let limit = limit.clamp(1, 1_000);
        let cursor = cursor.map(|text| Cursor::parse(text).ok_or(Error::Cursor)).transpose()?;
        let Some(table) = self.table_of(machine).await? else {
            return Ok(Page { rows: Vec::new(), next_cursor: None });
        };
        let client = self.inner.pools.read.get().await?;
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let sql = format!("select last_value from {}_id_seq", table.name);
                Cursor { time: i64::MAX, id: i64::MAX, as_of: client.query_one(&sql, &[]).await?.try_get(0)? }
            }
        };
        let (columns, width) = (find::columns(&table), find::width(&table));
        let attributes = table.class.attributes.iter().zip(&table.attributes).map(|(attribute, there)| match there {
            true => format!(", \"{}\"::text", attribute.id),
            false => ", null::text".to_owned(),
        });
        let sql = format!(
            "select {columns}, id, coalesce(bus_partition, 0::smallint), coalesce(bus_offset, 0),
                 coalesce(bus_index, 0), coalesce(created_at, timestamp){}
             from {} where machine_id = $1 and timestamp >= $2 and timestamp < $3 and timestamp <= $4
                 and (timestamp < $4 or id < $5) and id <= $6
             order by timestamp desc, id desc limit $7",
            attributes.collect::<String>(),
            table.name
        );
        let query = client.prepare_cached(&sql).await?;
        let found = client
            .query(
                &query,
                &[
                    &machine.as_str(),
                    &Micros(from_us.max(TIMES.0)),
                    &Micros(to_us.min(TIMES.1)),
                    &Micros(cursor.time.min(TIMES.1)),
                    &cursor.id,
                    &cursor.as_of,
                    &(limit as i64 + 1),
                ],
            )
            .await?;
        let mut rows = Vec::with_capacity(found.len());
        let mut ids = Vec::with_capacity(found.len());
        for row in &found {
            let mut batch = ReadingBatch::new(table.class.clone());
            let flags = find::push_row(&mut batch, row, 0)?;
            ids.push(row.try_get::<_, i64>(width)?);
            let partition: i16 = row.try_get(width + 1)?;
            let index: i32 = row.try_get(width + 3)?;
            let Micros(arrived_us) = row.try_get(width + 4)?;
            let mut attributes = Vec::new();
            for (at, attribute) in table.class.attributes.iter().enumerate() {
                let word: Option<&str> = row.try_get(width + 5 + at)?;
                let place = word.and_then(|word| attribute.values.iter().position(|value| value == word));
                attributes.push(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(ReadingBatch::NONE));
            }
            rows.push(LogRow {
                class: table.class.clone(),
                timestamp_us: batch.timestamp_us[0],
                values: batch.values.iter().map(|values| values[0]).collect(),
                quality: batch.quality_of(0),
                seq: batch.seq_of(0),
                flags,
                attributes,
                position: Position {
                    topic: READINGS_TOPIC.into(),
                    partition: partition as u16,
                    offset: row.try_get(width + 2)?,
                    index: index.cast_unsigned(),
                },
                arrived_us,
            });
        }
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().zip(ids.get(rows.len().saturating_sub(1))).filter(|_| more);
        let next_cursor = last.map(|(row, id)| Cursor { time: row.timestamp_us, id: *id, ..cursor }.text());
        Ok(Page { rows, next_cursor })
    }

    pub(in crate::history) async fn chart(
        &self,
        machine: &MachineId,
        channel: &str,
        from_us: i64,
        to_us: i64,
        buckets: usize,
    ) -> Result<Vec<Bucket>, Error> {
        let (from_us, to_us) = (from_us.max(TIMES.0), to_us.min(TIMES.1));
        if from_us >= to_us || buckets == 0 {
            return Ok(Vec::new());
        }
        let Some(table) = self.table_of(machine).await? else { return Ok(Vec::new()) };
        let Some(at) = table.class.channel_index(channel) else { return Ok(Vec::new()) };
        let Some(kind) = table.channels[at] else { return Ok(Vec::new()) };
        let width_us = (to_us - from_us - 1) / i64::try_from(buckets).unwrap_or(i64::MAX) + 1;
        // A mean of integers is summed as such, and so exact.
        let mean = if kind == Kind::Double { "avg" } else { "sum" };
        let sql = format!(
            "select date_bin($4::bigint * interval '1 microsecond', timestamp, $2), count(\"{channel}\"),
                 min(\"{channel}\")::float8, max(\"{channel}\")::float8, {mean}(\"{channel}\")::float8
             from {} where machine_id = $1 and timestamp >= $2 and timestamp < $3 and \"{channel}\" is not null
             group by 1 order by 1",
            table.name
        );
        let client = self.inner.pools.read.get().await?;
        let query = client.prepare_cached(&sql).await?;
        let rows = client.query(&query, &[&machine.as_str(), &Micros(from_us), &Micros(to_us), &width_us]).await?;
        let bucket = |row: &tokio_postgres::Row| {
            let Micros(from_us) = row.try_get(0)?;
            let count = row.try_get::<_, i64>(1)?.cast_unsigned();
            let mean: f64 = row.try_get(4)?;
            let mean = if kind == Kind::Double { mean } else { mean / count as f64 };
            Ok(Bucket { from_us, count, min: row.try_get(2)?, max: row.try_get(3)?, mean })
        };
        rows.iter().map(bucket).collect()
    }
}
