//! Reading in order: from memory when a consumer keeps up, else from the file.

use super::{
    file,
    state::{NOT_STARTED, Shared, Stage},
};
use crate::{Error, Event, Record};
use std::{ops::Range, sync::Arc};
use tokio::{sync::watch, task::JoinHandle};

/// A consumer of `bus.db`.
pub struct SqliteConsumer {
    shared: Arc<Shared>,
    number: u64,
    grown: watch::Receiver<()>,
    /// The first event was given: every partition is this consumer's.
    assigned: bool,
    /// Partition that is served first.
    turn: usize,
    /// Left behind by a dropped `next`: the following one takes it up, or who always drops early would never come
    /// forward.
    reading: Option<Reading>,
}

/// A read of the file.
struct Reading {
    bytes: usize,
    task: JoinHandle<Result<Vec<Record>, Error>>,
}

enum Found {
    Records(Vec<Record>),
    /// Offsets that wait, per partition; some are no longer in memory.
    InFile(Vec<Range<i64>>),
    Nothing,
}

impl SqliteConsumer {
    pub(super) fn new(shared: Arc<Shared>) -> SqliteConsumer {
        let number = shared.state().add_consumer();
        let grown = shared.grown();
        SqliteConsumer { shared, number, grown, assigned: false, turn: 0, reading: None }
    }

    pub(crate) fn start(&mut self, partition: u16, offset: i64) -> Result<(), Error> {
        // What is being read may be of where it stood before.
        self.reading = None;
        self.shared.state().place_consumer(self.number, partition, offset)
    }

    pub(crate) async fn next(&mut self, bytes: usize) -> Result<Event, Error> {
        if !self.assigned {
            self.assigned = true;
            let partitions = self.shared.state().partitions.len() as u16;
            return Ok(Event::Assigned((0..partitions).collect()));
        }
        loop {
            // Before looking, so that what comes after the look wakes.
            self.grown.borrow_and_update();
            match self.find(bytes)? {
                Found::Records(records) => return Ok(Event::Records(records)),
                Found::InFile(ranges) => return self.read(ranges, bytes).await.map(Event::Records),
                Found::Nothing => self.grown.changed().await.map_err(|_| Error::Closed)?,
            }
        }
    }

    pub(crate) fn caught_up(&self) -> bool {
        let state = self.shared.state();
        let mut bounds = state.positions(self.number).iter().zip(&state.partitions);
        bounds.all(|(&position, partition)| position != NOT_STARTED && position >= partition.tail.end())
    }

    /// Takes from memory what is there.
    fn find(&mut self, bytes: usize) -> Result<Found, Error> {
        let mut state = self.shared.state();
        if state.stage == Stage::Closed {
            return Err(Error::Closed);
        }
        let positions = state.positions(self.number);
        let bounds = positions.iter().zip(&state.partitions);
        let ranges: Vec<Range<i64>> = bounds.map(|(&from, partition)| from..partition.tail.end()).collect();
        if ranges.iter().all(Range::is_empty) {
            return Ok(Found::Nothing);
        }
        let in_memory =
            |(range, number): (&Range<i64>, usize)| range.is_empty() || state.partitions[number].tail.has(range.start);
        if !ranges.iter().zip(0..).all(in_memory) {
            return Ok(Found::InFile(ranges));
        }
        let get = |partition: u16, offset| Ok(state.partitions[usize::from(partition)].tail.get(partition, offset));
        let records = take_turns(self.turn, &ranges, bytes, get)?;
        state.pass(self.number, &records);
        drop(state);
        self.turn = turn_after(&records);
        Ok(Found::Records(records))
    }

    /// Reads from the file in a blocking thread.
    async fn read(&mut self, ranges: Vec<Range<i64>>, bytes: usize) -> Result<Vec<Record>, Error> {
        let begun = self.reading.take().filter(|reading| reading.bytes == bytes);
        let reading = self.reading.insert(begun.unwrap_or_else(|| {
            let (shared, turn) = (self.shared.clone(), self.turn);
            Reading { bytes, task: tokio::task::spawn_blocking(move || read_turns(&shared, turn, &ranges, bytes)) }
        }));
        let read = (&mut reading.task).await;
        self.reading = None;
        // The runtime gives up blocking tasks only when it ends; a panic of ours goes on to whoever asked.
        let records = match read {
            Ok(read) => read?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(Error::Closed),
        };
        self.shared.state().pass(self.number, &records);
        self.turn = turn_after(&records);
        Ok(records)
    }
}

impl Drop for SqliteConsumer {
    fn drop(&mut self) {
        self.shared.state().remove_consumer(self.number);
    }
}

fn read_turns(shared: &Shared, turn: usize, ranges: &[Range<i64>], bytes: usize) -> Result<Vec<Record>, Error> {
    shared.readers.read(|connection| {
        let transaction = connection.unchecked_transaction()?;
        take_turns(turn, ranges, bytes, |partition, position| {
            let record = file::record(&transaction, partition, position)?;
            let gone =
                || Error::Gap { partition, begin: shared.state().partitions[usize::from(partition)].begin, position };
            record.ok_or_else(gone).map(Some)
        })
    })
}

/// Takes one record of each partition in turn, from `turn` on, while they fit; then sets those of one partition together.
fn take_turns(
    turn: usize,
    ranges: &[Range<i64>],
    bytes: usize,
    mut get: impl FnMut(u16, i64) -> Result<Option<Record>, Error>,
) -> Result<Vec<Record>, Error> {
    let mut taken: Vec<Vec<Record>> = vec![Vec::new(); ranges.len()];
    let mut order: Vec<usize> = (turn..ranges.len()).chain(0..turn).collect();
    let mut left = Some(bytes);
    let mut first = true;
    while !order.is_empty() {
        let mut more = Vec::with_capacity(order.len());
        for partition in order {
            let offset = ranges[partition].start + taken[partition].len() as i64;
            if offset >= ranges[partition].end {
                continue;
            }
            let Some(record) = get(partition as u16, offset)? else { continue };
            let fits = left.and_then(|left| left.checked_sub(record.value.len()));
            if fits.is_some() || first {
                left = fits;
                first = false;
                taken[partition].push(record);
                more.push(partition);
            }
        }
        order = more;
    }
    // The partition that was served first stands first, so that the next turn is known.
    taken.rotate_left(turn);
    Ok(taken.into_iter().flatten().collect())
}

/// The partition after the one that was served first.
fn turn_after(records: &[Record]) -> usize {
    records.first().map_or(0, |first| usize::from(first.partition) + 1)
}
