//! Positions and everything that they cover, in one transaction.

use super::{
    Assigned, Error, Inner, Postgres,
    copy::{self, Rows},
    dead::{add_counts, insert_letters},
    table::{Table, day_name, day_of},
};
use crate::history::memory::{Memory, Segment};
use deadpool_postgres::Transaction;
use futures_util::{
    SinkExt,
    future::{join_all, try_join_all},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Cursor,
    sync::Arc,
};
use tokio_postgres::error::SqlState;
use wire::READINGS_TOPIC;

const MINUTE_US: i64 = 60_000_000;

/// Memory of a partition on its way into the database.
struct Part {
    partition: u16,
    assigned: Arc<Assigned>,
    memory: Arc<Memory>,
    loads: Vec<Load>,
}

/// Where the rows of a segment go.
struct Load {
    table: Arc<Table>,
    days: BTreeMap<i64, Day>,
}

/// Rows of one day, those of a machine together and in bus order: so an index page is visited once, not once a row, which
/// halves the time of a `COPY`.
struct Day {
    rows: Vec<u32>,
    newest_arrival: i64,
}

impl Postgres {
    pub(in crate::history) async fn commit(&self) -> Result<(), Error> {
        let mut unsure = self.inner.committing.lock().await;
        // What a failed commit left comes first; what was appended since needs a second turn.
        while self.inner.commit_once(&mut unsure).await? {}
        Ok(())
    }
}

impl Inner {
    /// Writes what is frozen, or freezes and writes; whether there may be more.
    async fn commit_once(&self, unsure: &mut bool) -> Result<bool, Error> {
        let (mut parts, left_over) = self.freeze();
        if parts.is_empty() {
            return Ok(false);
        }
        if let Err(error) = self.write(&mut parts, unsure).await {
            // Again at once where a new connection, or a new look at the days, can help: the first statement of the
            // transaction finds out whether the last commit got in.
            let dropped = code_of(&error) == Some(&SqlState::UNDEFINED_TABLE);
            if dropped {
                self.tables.forget_days();
                parts.iter().for_each(|part| part.assigned.arrivals.lock().expect("never poisoned").clear());
            }
            match dropped || *unsure {
                true => self.write(&mut parts, unsure).await?,
                false => return Err(error),
            }
        }
        for part in &parts {
            part.assigned.shard.state().thaw();
        }
        Ok(left_over)
    }

    fn freeze(&self) -> (Vec<Part>, bool) {
        let all = self.all_assigned();
        let left_over = all.iter().any(|(_, assigned)| assigned.shard.state().frozen.is_some());
        let freeze = |(partition, assigned): (u16, Arc<Assigned>)| {
            let mut state = assigned.shard.state();
            if left_over && state.frozen.is_none() {
                return None;
            }
            let (memory, _) = state.freeze()?;
            drop(state);
            Some(Part { partition, assigned, memory, loads: Vec::new() })
        };
        (all.into_iter().filter_map(freeze).collect(), left_over)
    }

    async fn write(&self, parts: &mut [Part], unsure: &mut bool) -> Result<(), Error> {
        for part in &mut *parts {
            part.loads.clear();
            for segment in &part.memory.segments {
                let (table, days) = (self.table_to_write(&segment.rows.class).await?, by_day(segment));
                self.make_days(&table, days.keys()).await?;
                part.loads.push(Load { table, days });
            }
        }
        let mut client = self.pools.write.get().await?;
        let transaction = client.transaction().await?;
        // One round trip for all of them, as for what follows the rows.
        let moved = join_all(parts.iter().map(|part| move_position(&transaction, part))).await;
        for (part, moved) in parts.iter().zip(moved) {
            match moved {
                #[cfg(feature = "planted")]
                Err(Error::Fenced { .. }) if *unsure && crate::planted("blind_retry") => {}
                // The commit whose outcome was unknown got in.
                Err(Error::Fenced { .. }) if *unsure && are_there(&transaction, parts).await? => {
                    *unsure = false;
                    return Ok(());
                }
                Err(Error::Fenced { partition, expected, found }) => {
                    tracing::error!(partition, expected, found, "another ingest took partition {partition}");
                    let _ = part.assigned.fenced.set((expected, found));
                    return Err(Error::Fenced { partition, expected, found });
                }
                moved => moved?,
            }
        }
        lock_days(&transaction, parts).await?;
        copy_rows(&transaction, parts).await?;
        let arrivals = try_join_all(parts.iter().map(|part| note_effects(&transaction, part))).await?;
        *unsure = true;
        let committed = transaction.commit().await;
        // The server said that it did not; what it says while it shuts down is not that.
        let refused = |error: &tokio_postgres::Error| error.code().is_some_and(|code| !code.code().starts_with("57P"));
        if committed.as_ref().err().is_none_or(refused) {
            *unsure = false;
        }
        committed?;
        for (part, arrivals) in parts.iter().zip(arrivals) {
            part.assigned.arrivals.lock().expect("never poisoned").extend(arrivals);
        }
        Ok(())
    }
}

fn code_of(error: &Error) -> Option<&SqlState> {
    match error {
        Error::Postgres(crate::postgres::Error::Client(error)) => error.code(),
        _ => None,
    }
}

fn by_day(segment: &Segment) -> BTreeMap<i64, Day> {
    let mut days: BTreeMap<i64, Day> = BTreeMap::new();
    for (row, time) in (0..).zip(&segment.rows.timestamp_us) {
        let day = days.entry(day_of(*time)).or_insert(Day { rows: Vec::new(), newest_arrival: i64::MIN });
        day.rows.push(row);
        day.newest_arrival = day.newest_arrival.max(segment.arrived_of(row as usize));
    }
    for day in days.values_mut() {
        day.rows.sort_by_key(|row| segment.rows.machine[*row as usize]);
    }
    days
}

async fn move_position(transaction: &Transaction<'_>, part: &Part) -> Result<(), Error> {
    let Memory { from, to, .. } = *part.memory;
    let number = i32::from(part.partition);
    let sql = "update consumer_offset set next_offset = $4 where topic = $1 and partition = $2 and next_offset = $3";
    #[cfg(feature = "planted")]
    let sql = if crate::planted("no_fence") { crate::UNFENCED } else { sql };
    let update = transaction.prepare_cached(sql).await?;
    if transaction.execute(&update, &[&READINGS_TOPIC, &number, &from, &to]).await? == 1 {
        return Ok(());
    }
    let found = position_of(transaction, part.partition).await?;
    Err(Error::Fenced { partition: part.partition, expected: from, found })
}

async fn position_of(transaction: &Transaction<'_>, partition: u16) -> Result<i64, Error> {
    let sql = "select next_offset from consumer_offset where topic = $1 and partition = $2";
    Ok(transaction.query_one(sql, &[&READINGS_TOPIC, &i32::from(partition)]).await?.try_get(0)?)
}

/// Every position is where this commit would put it.
async fn are_there(transaction: &Transaction<'_>, parts: &[Part]) -> Result<bool, Error> {
    for part in parts {
        if position_of(transaction, part.partition).await? != part.memory.to {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps retention from the days that are written to, and finds out whether one is gone: a `COPY` into a table that is not
/// there would cost the connection.
async fn lock_days(transaction: &Transaction<'_>, parts: &[Part]) -> Result<(), Error> {
    let loads = parts.iter().flat_map(|part| &part.loads);
    let days = loads.flat_map(|load| load.days.keys().map(|day| day_name(&load.table.class.id, *day)));
    let days: BTreeSet<String> = days.collect();
    if !days.is_empty() {
        let days = days.into_iter().collect::<Vec<_>>().join(", ");
        transaction.batch_execute(&format!("lock table {days} in row exclusive mode")).await?;
    }
    Ok(())
}

/// Writes the rows that the positions cover: those of a table and day by one `COPY`.
async fn copy_rows(transaction: &Transaction<'_>, parts: &[Part]) -> Result<(), Error> {
    // A table whose class was changed between two segments is two.
    let mut copies: Vec<(&Arc<Table>, i64, Vec<Rows<'_>>)> = Vec::new();
    for Part { partition, memory, loads, .. } in parts {
        for (segment, Load { table, days }) in memory.segments.iter().zip(loads) {
            for (day, Day { rows, .. }) in days {
                let rows = Rows { partition: *partition, segment, rows };
                let same = copies.iter_mut().find(|(other, at, _)| Arc::ptr_eq(other, table) && at == day);
                match same {
                    Some((_, _, all)) => all.push(rows),
                    None => copies.push((table, *day, vec![rows])),
                }
            }
        }
    }
    for (table, day, rows) in copies {
        let statement = copy::statement(table, &day_name(&table.class.id, day));
        let sink = transaction.copy_in::<_, Cursor<Vec<u8>>>(&statement).await?;
        let mut sink = std::pin::pin!(sink);
        for piece in copy::pieces(table, &rows) {
            sink.feed(Cursor::new(piece)).await?;
        }
        sink.finish().await?;
    }
    Ok(())
}

/// Writes what else a position covers; which newest arrivals the database has then.
async fn note_effects(transaction: &Transaction<'_>, part: &Part) -> Result<BTreeMap<(String, i64), i64>, Error> {
    let Part { partition, memory, loads, assigned } = part;
    let number = i32::from(*partition);
    let arrivals = {
        let known = assigned.arrivals.lock().expect("never poisoned");
        newest_arrivals(loads, &known)
    };
    for ((class, day), newest) in &arrivals {
        let sql = "insert into sensor_day (class, day, partition, newest_arrival_us) values ($1, $2, $3, $4)
                   on conflict (class, day, partition) do update
                   set newest_arrival_us = greatest(sensor_day.newest_arrival_us, excluded.newest_arrival_us)";
        let insert = transaction.prepare_cached(sql).await?;
        transaction.execute(&insert, &[class, day, &number, newest]).await?;
    }
    if !memory.newcomers.is_empty() {
        let numbers: Vec<i32> = memory.newcomers.iter().map(|(number, ..)| number.cast_signed()).collect();
        let names: Vec<&str> = memory.newcomers.iter().map(|(_, id, _)| id.as_str()).collect();
        let classes: Vec<&str> = memory.newcomers.iter().map(|(.., class)| &**class).collect();
        let sql = "insert into bus_machine (partition, number, machine_id, class)
                   select $1::integer, * from unnest($2::integer[], $3::text[], $4::text[])";
        let insert = transaction.prepare_cached(sql).await?;
        transaction.execute(&insert, &[&number, &numbers, &names, &classes]).await?;
    }
    if !memory.newest.is_empty() {
        let slabs: Vec<i32> = memory.newest.iter().map(|(slab, _)| slab.cast_signed()).collect();
        let bytes: Vec<&[u8]> = memory.newest.iter().map(|(_, bytes)| &**bytes).collect();
        let sql = "insert into newest (partition, slab, bytes)
                   select $1::integer, * from unnest($2::integer[], $3::bytea[])
                   on conflict (partition, slab) do update set bytes = excluded.bytes";
        let insert = transaction.prepare_cached(sql).await?;
        transaction.execute(&insert, &[&number, &slabs, &bytes]).await?;
    }
    insert_letters(transaction, &memory.dead_letters).await?;
    for (source, counts) in &memory.counts {
        add_counts(transaction, source, number, *counts).await?;
    }
    for (from_offset, hash) in &memory.activations {
        let sql = "insert into activation (topic, partition, from_offset, catalogue_hash) values ($1, $2, $3, $4)
                   on conflict (topic, partition, from_offset) do update set catalogue_hash = excluded.catalogue_hash";
        let insert = transaction.prepare_cached(sql).await?;
        transaction.execute(&insert, &[&READINGS_TOPIC, &number, from_offset, hash]).await?;
    }
    Ok(arrivals)
}

/// The newest arrival by class and day, to the minute and rounded up, where the database does not have it yet.
fn newest_arrivals(loads: &[Load], known: &BTreeMap<(String, i64), i64>) -> BTreeMap<(String, i64), i64> {
    let mut newest: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for Load { table, days } in loads {
        for (day, Day { newest_arrival, .. }) in days {
            let rounded = newest_arrival.div_euclid(MINUTE_US).saturating_add(1).saturating_mul(MINUTE_US);
            let key = (table.class.id.clone(), *day);
            if known.get(&key).is_none_or(|known| *known < rounded) {
                let entry = newest.entry(key).or_insert(rounded);
                *entry = (*entry).max(rounded);
            }
        }
    }
    newest
}
