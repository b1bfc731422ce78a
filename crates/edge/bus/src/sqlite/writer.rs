//! The one thread that writes `bus.db`, with group commit and retention.
//!
//! It takes every send that waits, commits them with one fsync, shows them to the consumers and answers the senders: who
//! was answered is durable. While one group is being synced the next one gathers. Old records go in small steps, with
//! each group and between groups, so that no sender waits for many of them.

use super::{
    Lock,
    file::{self, Log, weight},
    state::{Job, Shared, Stage, Work},
};
use crate::{Error, Record};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;

pub(super) const PAGE_BYTES: u32 = 16 << 10;
/// Bytes of log after which it is written into the file.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// Bytes of log at which readers wait, so that it can begin anew.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// Records dropped in one step, beside twice as many as the group brings: so retention overtakes any inflow.
const STEP_RECORDS: usize = 64;
/// Records dropped to make room in one group. Many small ones may have to go for a large one, or for a limit that was
/// lowered; nobody waits for all of them.
const GROUP_DROPS_MAX: usize = 8192;

pub(super) struct Writer {
    shared: Arc<Shared>,
    connection: Connection,
    logs: Vec<Log>,
    retention_us: i64,
    /// Arrival of the newest send: what retention takes as the time.
    newest_us: Option<i64>,
    /// Bytes written to the log since it was last written into the file.
    log_bytes: u64,
    _lock: Lock,
}

/// What a group did.
struct Written {
    logs: Vec<Log>,
    records: Vec<Record>,
    answers: Vec<Result<Vec<i64>, Error>>,
    dropped: usize,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Connection,
        logs: Vec<Log>,
        retention_us: i64,
        lock: Lock,
    ) -> Writer {
        Writer { shared, connection, logs, retention_us, newest_us: None, log_bytes: 0, _lock: lock }
    }

    pub(super) fn run(mut self) {
        // Even after a panic: nobody may wait for a writer that is gone.
        let _closes = ClosesAtEnd(self.shared.clone());
        loop {
            match self.shared.work() {
                Work::Write(jobs) => self.write(jobs),
                Work::Drop => self.drop_in_idle_time(),
                Work::Close => break,
            }
            if self.log_bytes > CHECKPOINT_BYTES {
                self.checkpoint();
            }
        }
        self.shared.readers.close();
        if let Err(error) = self.connection.execute_batch("pragma wal_checkpoint(truncate)") {
            abort_if_not_durable(&error);
            tracing::warn!(error = %error, "could not write the log into bus.db: the next start will");
        }
    }

    fn write(&mut self, jobs: Vec<Job>) {
        let weight = jobs.iter().map(|job| job.weight).sum();
        let (sends, senders): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| ((job.records, job.weight), job.answer)).unzip();
        match self.write_group(sends) {
            Ok(written) => {
                self.newest_us = written.records.last().map(|record| record.arrived_us).or(self.newest_us);
                self.logs = written.logs;
                self.shared.committed(&written.records, &self.logs, written.dropped);
                self.shared.answered(weight);
                for (sender, answer) in senders.into_iter().zip(written.answers) {
                    // Whoever no longer waits does not need the answer.
                    let _ = sender.send(answer);
                }
            }
            Err(error) => {
                abort_if_not_durable(&error);
                tracing::error!(error = %error, sends = senders.len(), "could not commit to bus.db");
                let error = Arc::new(error);
                self.shared.answered(weight);
                for sender in senders {
                    let _ = sender.send(Err(Error::Commit(error.clone())));
                }
            }
        }
    }

    fn write_group(&mut self, sends: Vec<(Vec<Record>, u64)>) -> Result<Written, rusqlite::Error> {
        let floor = self.shared.floor();
        let mut dropping = Dropping { floor: &floor, logs: self.logs.clone(), dropped: 0 };
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(sends.len());
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (send, weight) in sends {
            if let Some(refusal) = dropping.make_room(&transaction, weight, self.shared.limit)? {
                answers.push(Err(refusal));
                continue;
            }
            let mut offsets = Vec::with_capacity(send.len());
            for mut record in send {
                let log = &mut dropping.logs[usize::from(record.partition)];
                record.offset = log.next;
                file::insert(&transaction, &record)?;
                log.next += 1;
                log.bytes += file::weight(record.value.len());
                offsets.push(record.offset);
                records.push(record);
            }
            answers.push(Ok(offsets));
        }
        let newest_us = records.last().map(|record| record.arrived_us).or(self.newest_us);
        let steps = STEP_RECORDS + 2 * records.len();
        dropping.drop_expired(&transaction, expiry(newest_us, self.retention_us), self.shared.limit, steps)?;
        for ((log, before), partition) in dropping.logs.iter().zip(&self.logs).zip(0..) {
            if (log.begin, log.next) != (before.begin, before.next) {
                file::save(&transaction, partition, log)?;
            }
        }
        transaction.commit()?;
        let Dropping { logs, dropped, .. } = dropping;
        // A page for each partition's end, one for the positions, a few for the tree.
        let values: u64 = records.iter().map(|record| weight(record.value.len())).sum();
        self.log_bytes += values + u64::from(PAGE_BYTES) * (logs.len() + 2 + dropped) as u64;
        Ok(Written { logs, records, answers, dropped })
    }

    fn drop_in_idle_time(&mut self) {
        match self.write_group(Vec::new()) {
            Ok(written) => {
                self.logs = written.logs;
                self.shared.committed(&[], &self.logs, written.dropped);
            }
            Err(error) => {
                // Tried again with the next send.
                abort_if_not_durable(&error);
                tracing::warn!(error = %error, "could not drop old records from bus.db");
            }
        }
    }

    /// Writes the log into the file, so that the log begins anew.
    fn checkpoint(&mut self) {
        self.log_bytes = 0;
        let frames = checkpoint(&self.connection, "pragma wal_checkpoint(passive)");
        if frames * u64::from(PAGE_BYTES) > LOG_BYTES_MAX {
            // Readers that overlap all the time never let it begin anew by themselves.
            let connection = &self.connection;
            self.shared.readers.without(|| checkpoint(connection, "pragma wal_checkpoint(truncate)"));
        }
    }
}

/// Gives the frames in the log.
fn checkpoint(connection: &Connection, pragma: &str) -> u64 {
    connection.query_row(pragma, [], |row| row.get::<_, i64>(1)).map_or_else(
        |error| {
            abort_if_not_durable(&error);
            // The log keeps all that is committed: nothing is lost, it only grows.
            tracing::warn!(error = %error, "could not write the log into bus.db");
            0
        },
        |frames| frames.try_into().unwrap_or(0),
    )
}

struct ClosesAtEnd(Arc<Shared>);

impl Drop for ClosesAtEnd {
    fn drop(&mut self) {
        self.0.advance(Stage::Closed);
    }
}

/// Drops the oldest records that no holder needs, inside one transaction.
struct Dropping<'a> {
    floor: &'a [i64],
    logs: Vec<Log>,
    dropped: usize,
}

impl Dropping<'_> {
    fn used(&self) -> u64 {
        self.logs.iter().map(|log| log.bytes).sum()
    }

    /// Drops until `weight` more bytes keep to the limit; gives why they do not.
    fn make_room(
        &mut self,
        connection: &Connection,
        weight: u64,
        limit: u64,
    ) -> Result<Option<Error>, rusqlite::Error> {
        while self.used() + weight > limit {
            let Some(oldest) = self.oldest(connection)?.filter(|_| weight <= limit) else {
                return Ok(Some(Error::Full { used: self.used(), limit }));
            };
            if self.dropped >= GROUP_DROPS_MAX {
                return Ok(Some(Error::Busy));
            }
            self.drop_head(connection, oldest)?;
        }
        Ok(None)
    }

    /// Drops what arrived before `expiry` or lies above the limit, a bounded number of records.
    fn drop_expired(
        &mut self,
        connection: &Connection,
        expiry: i64,
        limit: u64,
        steps: usize,
    ) -> Result<(), rusqlite::Error> {
        for _ in 0..steps {
            match self.oldest(connection)? {
                Some((partition, arrived_us)) if arrived_us < expiry || self.used() > limit => {
                    self.drop_head(connection, (partition, arrived_us))?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// The partition whose first record arrived first, of those that may be dropped, and that arrival.
    fn oldest(&mut self, connection: &Connection) -> Result<Option<(usize, i64)>, rusqlite::Error> {
        let mut oldest: Option<(usize, i64)> = None;
        for (partition, log) in self.logs.iter_mut().enumerate() {
            if log.begin >= log.next.min(self.floor[partition]) {
                continue;
            }
            let head = match log.head {
                Some(head) => head,
                None => *log.head.insert(file::head(connection, partition as u16, log.begin)?),
            };
            if oldest.is_none_or(|(_, arrived_us)| head.arrived_us < arrived_us) {
                oldest = Some((partition, head.arrived_us));
            }
        }
        Ok(oldest)
    }

    fn drop_head(&mut self, connection: &Connection, (partition, _): (usize, i64)) -> Result<(), rusqlite::Error> {
        let log = &mut self.logs[partition];
        let head = log.head.take().expect("looked up when it was found the oldest");
        file::delete(connection, partition as u16, log.begin)?;
        log.begin += 1;
        log.bytes -= head.weight;
        self.dropped += 1;
        Ok(())
    }
}

fn expiry(newest_us: Option<i64>, retention_us: i64) -> i64 {
    newest_us.map_or(i64::MIN, |newest_us| newest_us.saturating_sub(retention_us))
}

/// After a failed fsync nobody knows what is on the disk, and asking again would be answered from the cache: only a
/// fresh start reads what is really there.
fn abort_if_not_durable(error: &rusqlite::Error) {
    let code = error.sqlite_error().map(|error| error.extended_code);
    if matches!(code, Some(rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC)) {
        tracing::error!(error = %error, "bus.db could not be synced to the disk: stopping at once");
        std::process::abort();
    }
}
