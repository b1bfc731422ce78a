//! Rows as columns again, and the look-ups by which duplicates are found.

use super::{
    Error, Inner,
    table::{Kind, Table},
    value::Micros,
};
use crate::history::{
    judge::{Shard, Stored},
    partition::Judged,
};
use catalog::Class;
use engine::Identity;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use tokio_postgres::Row;
use wire::{Quality, ReadingBatch};

/// What [`push_row`] reads, in its order: time, flags, seq, quality, then the channels as scaled integers.
pub(super) fn columns(table: &Table) -> String {
    let mut columns = "timestamp, coalesce(flags, 0::smallint), seq, quality::text".to_owned();
    for (channel, kind) in table.class.channels.iter().zip(&table.channels) {
        let one = 10_u64.pow(channel.scale.into());
        columns += &match kind {
            None => ", null::bigint".to_owned(),
            Some(Kind::Numeric { .. } | Kind::Double) => format!(", round(\"{}\" * {one})::bigint", channel.id),
            Some(_) => format!(", \"{}\"::bigint", channel.id),
        };
    }
    columns
}

/// How many columns those are.
pub(super) fn width(table: &Table) -> usize {
    4 + table.channels.len()
}

/// Takes a row's time, values, quality and sequence number, which begin at a column; its flags.
pub(super) fn push_row(batch: &mut ReadingBatch, row: &Row, at: usize) -> Result<u8, Error> {
    let Micros(timestamp_us) = row.try_get(at)?;
    let flags: i16 = row.try_get(at + 1)?;
    let bits: Option<&str> = row.try_get(at + 3)?;
    let mut bits = bits.and_then(|bits| bits.parse::<u128>().ok()).unwrap_or(0);
    batch.timestamp_us.push(timestamp_us);
    batch.seq.push(row.try_get(at + 2)?);
    for (channel, values) in batch.values.iter_mut().enumerate() {
        let value: Option<i64> = row.try_get(at + 4 + channel)?;
        if value.is_none() {
            bits |= Quality::Missing.bits(channel);
        }
        values.push(value.unwrap_or(0));
    }
    batch.quality.push(bits);
    Ok(flags as u8)
}

/// Asks for rows of a table by machine and time; the place of what was wanted, identity and flags of each.
async fn ask(
    inner: &Inner,
    table: &Table,
    partition: u16,
    wanted: &[(String, Micros)],
    condition: &str,
) -> Result<Vec<(usize, Identity, u8)>, Error> {
    // The lateral join keeps the planner from reading whole days: each of the wanted is one look into the index.
    let sql = format!(
        "select wanted.place, found.* from unnest($1::text[], $2::timestamp[]) with ordinality as wanted (id, time, place)
         cross join lateral (
             select {} from {} where machine_id = wanted.id and timestamp {condition} wanted.time
                 and (bus_partition = $3 or bus_partition is null)
             offset 0) found",
        columns(table),
        table.name
    );
    let (names, times): (Vec<&str>, Vec<Micros>) = wanted.iter().map(|(name, time)| (&**name, *time)).unzip();
    let client = inner.pools.read.get().await?;
    let query = client.prepare_cached(&sql).await?;
    let rows = client.query(&query, &[&names, &times, &(partition as i16)]).await?;
    let mut batch = ReadingBatch::new(table.class.clone());
    let mut found = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let flags = push_row(&mut batch, row, 1)?;
        let place: i64 = row.try_get(0)?;
        found.push((place as usize - 1, engine::identity(&batch, at), flags));
    }
    Ok(found)
}

impl Stored for Inner {
    async fn read_back(
        &self,
        shard: &Shard,
        class: &Arc<Class>,
        wanted: &[(u32, i64)],
    ) -> Result<Vec<(u32, Identity, u8)>, Error> {
        let Some(table) = self.table_to_read(class).await? else { return Ok(Vec::new()) };
        let (partition, names) = {
            let state = shard.state();
            let name = |(number, floor): &(u32, i64)| (state.id_of(*number).to_string(), Micros(*floor));
            (state.number, wanted.iter().map(name).collect::<Vec<_>>())
        };
        let found = ask(self, &table, partition, &names, ">=").await?;
        Ok(found.into_iter().map(|(place, identity, flags)| (wanted[place].0, identity, flags)).collect())
    }

    async fn find(
        &self,
        shard: &Shard,
        batches: &[ReadingBatch],
        judged: &[Judged],
    ) -> Result<HashSet<(u32, Identity)>, Error> {
        let partition = shard.state().number;
        let mut found = HashSet::new();
        for (batch, judged) in batches.iter().zip(judged).filter(|(_, judged)| !judged.late().is_empty()) {
            let Some(table) = self.table_to_read(&batch.class).await? else { continue };
            // Each machine and time once, however many readings have it.
            let mut wanted: BTreeMap<(u32, i64), String> = BTreeMap::new();
            for (row, number, identity) in judged.late() {
                let name = || batch.machine_of(*row).to_string();
                wanted.entry((*number, identity.timestamp_us)).or_insert_with(name);
            }
            let (numbers, wanted): (Vec<u32>, Vec<(String, Micros)>) =
                wanted.into_iter().map(|((number, time), name)| (number, (name, Micros(time)))).unzip();
            let rows = ask(self, &table, partition, &wanted, "=").await?;
            found.extend(rows.into_iter().map(|(place, identity, _)| (numbers[place], identity)));
        }
        Ok(found)
    }
}
