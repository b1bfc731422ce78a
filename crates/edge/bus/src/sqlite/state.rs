//! What the writer, the senders and the consumers share: the bounds of each partition, what waits to be written, holds.

use super::{
    file::{Log, Readers, weight},
    tail::Tail,
};
use crate::{Error, Options, Record};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard},
};
use tokio::sync::{oneshot, watch};

/// Bytes that may wait to be written.
const QUEUE_BYTES: u64 = 64 << 20;
/// Bytes that one commit takes, unless the first job alone is larger: bounds how long its senders wait.
const GROUP_BYTES: u64 = 8 << 20;
/// Bytes of records kept in memory for consumers that keep up.
const TAIL_BYTES: usize = 32 << 20;

/// Above every offset: nothing of the partition waits for the consumer.
pub(super) const NOT_STARTED: i64 = i64::MAX;
/// It ends below where it was to be read from: nor is it waited for.
pub(super) const STOPPED: i64 = i64::MAX - 1;

/// One `send`.
pub(super) struct Job {
    /// Their offsets are given when they are written.
    pub(super) records: Vec<Record>,
    pub(super) weight: u64,
    pub(super) answer: oneshot::Sender<Result<Vec<i64>, Error>>,
}

/// What the writer does next.
pub(super) enum Work {
    /// Jobs that waited, to be committed together.
    Write(Vec<Job>),
    /// Nobody waits, and there may be records that nobody needs.
    Drop,
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// Accepts nothing, finishes what was accepted.
    Closing,
    Closed,
}

pub(super) struct Partition {
    pub(super) begin: i64,
    pub(super) tail: Tail,
}

pub(super) struct State {
    pub(super) partitions: Vec<Partition>,
    /// Bytes on the bus.
    pub(super) used: u64,
    pub(super) stage: Stage,
    queue: VecDeque<Job>,
    /// Bytes in the queue and in the group that is being committed.
    waiting: u64,
    holds: BTreeMap<&'static str, Vec<i64>>,
    /// Position of each consumer, by its number; [`NOT_STARTED`] or [`STOPPED`] where it reads nothing.
    consumers: BTreeMap<u64, Vec<i64>>,
    consumers_made: u64,
    /// Holds moved, or something was dropped, since the writer last looked for more.
    may_drop: bool,
}

pub(super) struct Shared {
    pub(super) limit: u64,
    pub(super) readers: Readers,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes consumers: records came, or the bus closed.
    grown: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(options: &Options, logs: &[Log]) -> Shared {
        let values_bytes_max = TAIL_BYTES / logs.len().max(1);
        let partition = |log: &Log| Partition { begin: log.begin, tail: Tail::new(log.next, values_bytes_max) };
        let state = State {
            partitions: logs.iter().map(partition).collect(),
            used: logs.iter().map(|log| log.bytes).sum(),
            stage: Stage::Open,
            queue: VecDeque::new(),
            waiting: 0,
            holds: BTreeMap::new(),
            consumers: BTreeMap::new(),
            consumers_made: 0,
            may_drop: true,
        };
        Shared {
            limit: options.retention_bytes,
            readers: Readers::new(&options.path),
            state: Mutex::new(state),
            work: Condvar::new(),
            grown: watch::Sender::new(()),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("never poisoned")
    }

    /// A list that does not have one offset a partition is a bug of the caller.
    pub(super) fn check_len(&self, offsets: &[i64]) {
        assert_eq!(offsets.len(), self.state().partitions.len(), "one offset a partition");
    }

    // The senders' side.

    pub(super) fn queue(&self, records: Vec<Record>) -> Result<oneshot::Receiver<Result<Vec<i64>, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let weight = records.iter().map(|record| weight(record.value.len())).sum();
        let mut state = self.state();
        let partitions = state.partitions.len();
        let known = records.iter().all(|record| usize::from(record.partition) < partitions);
        if state.stage != Stage::Open {
            return Err(Error::Closed);
        }
        // A send above the bound passes alone, or it could never be sent.
        if state.waiting > 0 && state.waiting + weight > QUEUE_BYTES {
            return Err(Error::Busy);
        }
        if known {
            state.waiting += weight;
            state.queue.push_back(Job { records, weight, answer });
        }
        drop(state);
        assert!(known, "the bus has {partitions} partitions");
        self.work.notify_one();
        Ok(answered)
    }

    pub(super) fn hold(&self, holder: &'static str, from: &[i64]) {
        self.check_len(from);
        let mut state = self.state();
        state.holds.insert(holder, from.to_vec());
        state.may_drop = true;
        drop(state);
        self.work.notify_one();
    }

    /// Moves to a later stage.
    pub(super) fn advance(&self, to: Stage) {
        let mut state = self.state();
        state.stage = state.stage.max(to);
        if state.stage == Stage::Closed {
            // Only a writer that panicked leaves jobs: who waits for them is answered by the loss of its channel.
            state.queue.clear();
        }
        drop(state);
        self.work.notify_one();
        self.grown.send_replace(());
    }

    // The writer's side.

    /// Waits for something to do.
    pub(super) fn work(&self) -> Work {
        let mut state = self.state();
        loop {
            if !state.queue.is_empty() {
                return Work::Write(state.take_group());
            }
            if state.stage != Stage::Open {
                return Work::Close;
            }
            if state.may_drop {
                // Before looking, so that a hold that moves meanwhile is seen.
                state.may_drop = false;
                return Work::Drop;
            }
            state = self.work.wait(state).expect("never poisoned");
        }
    }

    /// Below these offsets no holder needs anything.
    pub(super) fn floor(&self) -> Vec<i64> {
        let state = self.state();
        let lowest = |partition: usize| state.holds.values().map(|from| from[partition]).min().unwrap_or(0);
        (0..state.partitions.len()).map(lowest).collect()
    }

    /// Shows what is durable: the records of these jobs, in order, and what is left of each partition.
    pub(super) fn committed(&self, records: &[Record], logs: &[Log], dropped: usize) {
        let mut state = self.state();
        for record in records {
            state.partitions[usize::from(record.partition)].tail.push(record);
        }
        for (number, log) in logs.iter().enumerate() {
            let passed = state.consumers.values().map(|positions| positions[number]).min();
            let partition = &mut state.partitions[number];
            debug_assert_eq!(partition.tail.end(), log.next);
            partition.begin = log.begin;
            partition.tail.forget_below(log.begin);
            partition.tail.forget_values_below(passed.unwrap_or(log.next));
        }
        state.used = logs.iter().map(|log| log.bytes).sum();
        // Where something was dropped there may be more.
        state.may_drop |= dropped > 0;
        drop(state);
        if !records.is_empty() {
            self.grown.send_replace(());
        }
    }

    /// Jobs of this weight are answered.
    pub(super) fn answered(&self, weight: u64) {
        self.state().waiting -= weight;
    }

    // The consumers' side.

    pub(super) fn grown(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }
}

impl State {
    fn take_group(&mut self) -> Vec<Job> {
        let mut group = Vec::new();
        let mut weight = 0;
        while let Some(job) = self.queue.front() {
            weight += job.weight;
            if weight > GROUP_BYTES && !group.is_empty() {
                break;
            }
            group.extend(self.queue.pop_front());
        }
        group
    }

    pub(super) fn add_consumer(&mut self) -> u64 {
        self.consumers_made += 1;
        self.consumers.insert(self.consumers_made, vec![NOT_STARTED; self.partitions.len()]);
        self.consumers_made
    }

    pub(super) fn place_consumer(&mut self, consumer: u64, number: u16, position: i64) -> Result<(), Error> {
        let partition = &self.partitions[usize::from(number)];
        let (begin, end) = (partition.begin, partition.tail.end());
        if position < begin {
            return Err(Error::Gap { partition: number, begin, position });
        }
        let is_cut = position > end;
        if let Some(positions) = self.consumers.get_mut(&consumer) {
            positions[usize::from(number)] = if is_cut { STOPPED } else { position };
        }
        if is_cut { Err(Error::Truncated { partition: number, end, position }) } else { Ok(()) }
    }

    pub(super) fn remove_consumer(&mut self, consumer: u64) {
        self.consumers.remove(&consumer);
    }

    pub(super) fn positions(&self, consumer: u64) -> &[i64] {
        &self.consumers[&consumer]
    }

    /// The consumer was given these.
    pub(super) fn pass(&mut self, consumer: u64, records: &[Record]) {
        let positions = self.consumers.get_mut(&consumer).expect("removed when it is dropped");
        for record in records {
            positions[usize::from(record.partition)] = record.offset + 1;
        }
    }
}
