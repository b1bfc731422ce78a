//! Taking lots: judged row by row, older duplicates looked up, then stored in memory.

use super::{
    Error, Inner, Lot, Sqlite, Taken,
    chunk::{self, Sought},
    flush::Request,
    judge::{Shard, Stored},
    partition::{Judged, counts_of},
};
use catalog::Class;
use engine::Identity;
use rusqlite::Connection;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, atomic::Ordering},
};
use wire::ReadingBatch;

impl Sqlite {
    pub(in crate::history) async fn append(&self, lot: &Lot<'_>) -> Result<Taken, Error> {
        let inner = &*self.inner;
        let shard = &inner.partitions[usize::from(lot.partition)];
        let mut pending = shard.appending.lock().await;
        inner.wait_for_room().await?;
        if !shard.awaits(lot) {
            return Ok(Taken::default());
        }
        let judged = shard.judge(&mut pending, lot, &inner.machines, &inner.catalogue(), inner).await?;
        let (taken, bytes) = {
            let mut state = shard.state();
            let before = state.active.bytes;
            let taken = state.store(lot, &judged);
            {
                let mut ledger = inner.ledger.lock().expect("never poisoned");
                for (source, appended) in &taken.by_source {
                    ledger.entry(source.clone()).or_default().add(counts_of(appended));
                }
            }
            let bytes = state.active.bytes - before;
            // Under the lock, so that a flush never takes bytes that are not counted yet.
            (taken, bytes + inner.active_bytes.fetch_add(bytes, Ordering::Relaxed))
        };
        inner.tell_dirty();
        if bytes >= inner.options.flush_bytes && !inner.told_full.swap(true, Ordering::AcqRel) {
            // Without a flusher the history is closed, and says so at the next call.
            let _ = inner.requests.send(Request::Full);
        }
        Ok(taken)
    }
}

impl Inner {
    /// Waits while a flush is far behind.
    async fn wait_for_room(&self) -> Result<(), Error> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::Closed);
            }
            if let Some((partition, expected, found)) = self.fenced.get() {
                return Err(Error::Fenced { partition: *partition, expected: *expected, found: *found });
            }
            let held = self.active_bytes.load(Ordering::Relaxed) + self.frozen_bytes.load(Ordering::Relaxed);
            if held <= self.options.flush_bytes.saturating_mul(4) {
                return Ok(());
            }
            tokio::select! {
                () = freed => {}
                // Nobody will make room any more.
                () = self.requests.closed() => return Err(Error::Closed),
            }
        }
    }

    /// Tells the flusher, once until its next flush, that something waits.
    pub(super) fn tell_dirty(&self) {
        if !self.told_dirty.swap(true, Ordering::AcqRel) {
            let _ = self.requests.send(Request::Dirty);
        }
    }
}

impl Stored for Inner {
    async fn read_back(
        &self,
        shard: &Shard,
        _: &Arc<Class>,
        wanted: &[(u32, i64)],
    ) -> Result<Vec<(u32, Identity, u8)>, Error> {
        let partition = shard.state().number;
        let wanted: BTreeMap<u32, i64> = wanted.iter().copied().collect();
        let catalogue = self.catalogue();
        self.read(move |connection| {
            let from = wanted.values().min().copied().unwrap_or(i64::MAX);
            let mut found = Vec::new();
            visit(
                connection,
                partition,
                &wanted,
                (from, i64::MAX),
                |id, runs| {
                    let Some(rows) = chunk::rows(connection, id, &catalogue)? else { return Ok(()) };
                    for (number, range) in runs {
                        let floor = wanted[&number];
                        let held = range.filter(|row| rows.batch.timestamp_us[*row] >= floor);
                        found.extend(held.map(|row| (number, engine::identity(&rows.batch, row), rows.flags[row])));
                    }
                    Ok(())
                },
                |floor, _, max_time| max_time >= *floor,
            )?;
            Ok(found)
        })
        .await
    }

    async fn find(
        &self,
        shard: &Shard,
        _: &[ReadingBatch],
        judged: &[Judged],
    ) -> Result<HashSet<(u32, Identity)>, Error> {
        let partition = shard.state().number;
        let late = judged.iter().flat_map(Judged::late);
        let mut wanted: BTreeMap<u32, BTreeSet<Identity>> = BTreeMap::new();
        for (_, number, identity) in late {
            wanted.entry(*number).or_default().insert(*identity);
        }
        let catalogue = self.catalogue();
        self.read(move |connection| {
            let times = || wanted.values().flatten().map(|identity| identity.timestamp_us);
            let range = (times().min().unwrap_or(0), times().max().unwrap_or(0));
            let mut found = HashSet::new();
            let within = |identities: &BTreeSet<Identity>, min_time: i64, max_time: i64| {
                let first = identities.range(Identity { timestamp_us: min_time, hash: 0 }..).next();
                first.is_some_and(|identity| identity.timestamp_us <= max_time)
            };
            visit(
                connection,
                partition,
                &wanted,
                range,
                |id, runs| {
                    let Some(rows) = chunk::rows(connection, id, &catalogue)? else { return Ok(()) };
                    for (number, range) in runs {
                        let identities = &wanted[&number];
                        for row in range {
                            let time = rows.batch.timestamp_us[row];
                            if within(identities, time, time) {
                                let identity = engine::identity(&rows.batch, row);
                                if identities.contains(&identity) {
                                    found.insert((number, identity));
                                }
                            }
                        }
                    }
                    Ok(())
                },
                within,
            )?;
            Ok(found)
        })
        .await
    }
}

/// Shows the chunks that have runs of wanted machines which `holds` (given what is wanted of the machine, and the run's
/// first and last time): the chunk's id, and number and rows of each run.
fn visit<W>(
    connection: &Connection,
    partition: u16,
    wanted: &BTreeMap<u32, W>,
    times: (i64, i64),
    mut show: impl FnMut(i64, Vec<(u32, std::ops::Range<usize>)>) -> Result<(), Error>,
    holds: impl Fn(&W, i64, i64) -> bool,
) -> Result<(), Error> {
    let (Some((first, _)), Some((last, _))) = (wanted.first_key_value(), wanted.last_key_value()) else {
        return Ok(());
    };
    let sought = Sought { partition, machines: (*first, *last), times, below: i64::MAX };
    for candidate in chunk::candidates(connection, &sought)? {
        let mut among = wanted.range(candidate.first_machine..=candidate.last_machine);
        if !among.any(|(_, what)| holds(what, candidate.min_time, candidate.max_time)) {
            continue;
        }
        let Some(directory) = chunk::directory(connection, candidate.id)? else { continue };
        let runs = directory.runs.iter().filter_map(|run| {
            let what = wanted.get(&run.number)?;
            holds(what, run.min_time, run.max_time)
                .then(|| (run.number, run.first_row as usize..(run.first_row + run.rows) as usize))
        });
        let runs: Vec<_> = runs.collect();
        if !runs.is_empty() {
            show(candidate.id, runs)?;
        }
    }
    Ok(())
}
