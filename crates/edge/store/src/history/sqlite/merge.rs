//! Merging the chunks of many flushes towards one machine a chunk, so that a machine's history is read in few places.
//!
//! Done in steps of bounded size while the plant is quiet: a step takes consecutive groups (what one flush or one merge
//! wrote of a class in a partition), holds only the chunks that share a machine in memory, and replaces them in one
//! transaction. A group that is large enough, or that cannot be read, is left as it is.

use super::{
    Error, Inner,
    chunk::{self, Encoded, Origin, Rows},
    directory::Directory,
    memory::Segment,
};
use crate::Error as StoreError;
use catalog::{Catalogue, MachineId};
use rusqlite::{Connection, Transaction, params};
use std::collections::VecDeque;

/// Groups of a level that become one of the next.
pub(super) const GROUPS: usize = 16;
/// Most rows of a step.
const ROWS_MAX: u64 = 512 * 1_024;
/// Rows that are encoded together.
const ROWS_AT_ONCE: usize = 32 * 1_024;
/// Longest between arrivals of one step, so that retention by the newest of them keeps little more than it must.
const SPAN_US: i64 = 24 * 3_600 * 1_000_000;

/// The chunks of a class in a partition that one flush or one merge wrote.
#[derive(Clone)]
struct Group {
    partition: u16,
    class: String,
    level: u32,
    from_offset: i64,
    next_offset: i64,
    rows: u64,
    newest_arrival: i64,
}

impl Inner {
    /// Merges the first groups that can be; whether there may be more to do.
    pub(in crate::history) async fn merge_once(&self, groups: usize) -> Result<bool, Error> {
        let catalogue = self.catalogue();
        let step = self.read(move |connection| {
            let Some(groups) = next_groups(connection, groups)? else { return Ok(None) };
            if groups.len() < 2 {
                return Ok(Some((groups, None)));
            }
            match merge(connection, &groups, &catalogue) {
                Ok(merged) => Ok(Some((groups, merged))),
                Err(error @ (Error::Damaged(_) | Error::Unreadable { .. })) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "left chunks unmerged");
                    Ok(Some((groups, None)))
                }
                Err(error) => Err(error),
            }
        });
        let Some((groups, merged)) = step.await? else { return Ok(false) };
        let job = move |transaction: &Transaction<'_>| match merged {
            Some(merged) => replace(transaction, &groups, &merged),
            None => groups.iter().try_for_each(|group| leave(transaction, group)),
        };
        self.database.write(job, |_| ()).await?;
        Ok(true)
    }
}

/// The first groups that make a step, in order of offset; one alone is as large as it gets.
fn next_groups(connection: &Connection, most: usize) -> Result<Option<Vec<Group>>, Error> {
    let mut query = connection.prepare_cached(
        "select partition, class, level, from_offset, next_offset, sum(rows), max(newest_arrival) from chunk
         where level is not null
         group by partition, class, level, from_offset, next_offset
         order by partition, class, level, from_offset, next_offset",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Group {
            partition: row.get(0)?,
            class: row.get(1)?,
            level: row.get(2)?,
            from_offset: row.get(3)?,
            next_offset: row.get(4)?,
            rows: row.get::<_, i64>(5)?.unsigned_abs(),
            newest_arrival: row.get(6)?,
        })
    })?;
    let mut step: Vec<Group> = Vec::new();
    for group in rows {
        let group = group?;
        if let Some(first) = step.first() {
            if (first.partition, &first.class, first.level) != (group.partition, &group.class, group.level) {
                step.clear();
            } else if step.iter().map(|group| group.rows).sum::<u64>() + group.rows > ROWS_MAX
                || group.newest_arrival.abs_diff(first.newest_arrival) > SPAN_US.unsigned_abs()
            {
                return Ok(Some(step));
            }
        }
        step.push(group);
        if step.len() == most {
            return Ok(Some(step));
        }
    }
    Ok(None)
}

/// A chunk that is being merged.
struct Input {
    /// In bus order.
    order: (i64, i64),
    rows: Rows,
    directory: Directory,
    /// The first run that was not taken.
    next: usize,
    /// Where its records begin in the output.
    base: u32,
}

/// The ids of the groups' chunks, and what takes their place.
struct Merged {
    ids: Vec<i64>,
    chunks: Vec<Encoded>,
}

/// Merges the chunks of groups; nothing where their class has changed since.
fn merge(connection: &Connection, groups: &[Group], catalogue: &Catalogue) -> Result<Option<Merged>, Error> {
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return Ok(None) };
    let Some(class) = catalogue.class(&first.class) else { return Ok(None) };
    let channels: Vec<(String, u8)> =
        class.channels.iter().map(|channel| (channel.id.clone(), channel.scale)).collect();
    let mut query = connection.prepare_cached(
        "select id, from_offset, first_machine from chunk
         where partition = ?1 and class = ?2 and level = ?3 and from_offset between ?4 and ?5
         order by first_machine, from_offset, id",
    )?;
    let range = params![first.partition, first.class, first.level, first.from_offset, last.from_offset];
    let waiting = query.query_map(range, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut waiting: VecDeque<(i64, i64, u32)> = waiting.collect::<Result<_, _>>()?;
    let ids = waiting.iter().map(|(id, ..)| *id).collect();

    let mut chunks = Vec::new();
    let mut open: Vec<Input> = Vec::new();
    let mut segment = Segment::new(class.clone());
    loop {
        let held = open.iter().filter_map(|input| Some(input.directory.runs.get(input.next)?.number)).min();
        let ahead = waiting.front().map(|(_, _, first_machine)| *first_machine);
        let Some(number) = held.into_iter().chain(ahead).min() else { break };
        while let Some((id, from_offset, _)) = waiting.pop_front_if(|(_, _, first_machine)| *first_machine <= number) {
            let (Some(directory), Some(rows)) =
                (chunk::directory(connection, id)?, chunk::rows(connection, id, catalogue)?)
            else {
                return Ok(None);
            };
            if directory.channels != channels {
                return Ok(None);
            }
            let base = segment.records.len() as u32;
            segment.records.extend_from_slice(&rows.records);
            open.push(Input { order: (from_offset, id), rows, directory, next: 0, base });
        }
        open.sort_by_key(|input| input.order);
        let mut name: Option<MachineId> = None;
        for input in &mut open {
            while let Some(run) = input.directory.runs.get(input.next).filter(|run| run.number == number) {
                let range = run.first_row as usize..(run.first_row + run.rows) as usize;
                name = name.or_else(|| Some(input.rows.batch.machine_of(range.start).clone()));
                let Rows { batch, flags, record, .. } = &input.rows;
                let (flags, record) = (&flags[range.clone()], record[range.clone()].iter());
                segment.extend_from(batch, range, number, flags, record.map(|record| input.base + record));
                input.next += 1;
            }
        }
        segment.names.extend(name.map(|name| (number, name)));
        open.retain(|input| input.next < input.directory.runs.len());
        if segment.flags.len() >= ROWS_AT_ONCE {
            chunks.extend(chunk::encode(std::slice::from_ref(&segment)));
            segment = Segment::new(class.clone());
            for input in &mut open {
                input.base = segment.records.len() as u32;
                segment.records.extend_from_slice(&input.rows.records);
            }
        }
    }
    chunks.extend(chunk::encode(std::slice::from_ref(&segment)));
    Ok(Some(Merged { ids, chunks }))
}

fn replace(transaction: &Transaction<'_>, groups: &[Group], merged: &Merged) -> Result<(), StoreError> {
    let (first, last) = (&groups[0], &groups[groups.len() - 1]);
    let mut delete = transaction.prepare_cached("delete from chunk where id = ?1")?;
    for id in &merged.ids {
        if delete.execute([id])? != 1 {
            // Another process dropped or merged it: nothing of this step stays.
            return Err(StoreError::Damaged(format!("chunk {id}")));
        }
    }
    let origin = Origin {
        partition: first.partition,
        from_offset: first.from_offset,
        next_offset: last.next_offset,
        level: first.level + 1,
    };
    chunk::insert(transaction, &origin, &merged.chunks)
}

/// Takes a group out of merging.
fn leave(transaction: &Transaction<'_>, group: &Group) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "update chunk set level = null where partition = ?1 and class = ?2 and level = ?3 and from_offset = ?4",
        )?
        .execute(params![group.partition, group.class, group.level, group.from_offset])?;
    Ok(())
}
