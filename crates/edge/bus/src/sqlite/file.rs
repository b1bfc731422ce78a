//! `bus.db` itself: its schema, the statements that touch it, and the connections that read it.

use crate::{Error, Record};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

/// Marks the file as ours: "MWbs".
const APPLICATION_ID: i64 = 0x4d57_6273;
const SCHEMA: u32 = 1;

/// A partition's row outlives its records, so that an offset is never given twice. The value comes last: what stands
/// before it is read without it.
const CREATE: &str = "
create table partition (
    partition integer primary key,
    begin_offset integer not null,
    next_offset integer not null,
    bytes integer not null
);
create table record (
    id integer primary key, -- partition * 2^47 + offset
    arrived_us integer not null,
    source text not null,
    rows integer not null,
    value blob not null
);
";

/// Bits of an id that hold the offset.
const OFFSET_BITS: u32 = 47;
/// What a record takes in the file beside its value.
const RECORD_BYTES: u64 = 32;

/// Bytes that a value of this length counts for.
pub(super) fn weight(value_len: usize) -> u64 {
    value_len as u64 + RECORD_BYTES
}

/// One partition, as it stands in the file.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) begin: i64,
    pub(super) next: i64,
    pub(super) bytes: u64,
    /// The record at `begin`, when it was looked up.
    pub(super) head: Option<Head>,
}

#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) arrived_us: i64,
    pub(super) weight: u64,
}

/// Opens the connection that writes.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    check_ours(&connection)?;
    // Before the first page is written; a batch takes a few pages then, not tens.
    connection.pragma_update(None, "page_size", super::writer::PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // FULL: a commit is on the disk when it returns. NORMAL loses commits at a power cut, which no kill test sees.
    connection.pragma_update(None, "synchronous", "full")?;
    // The writer checkpoints by itself: SQLite would swallow an fsync error there.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

/// Before anything is changed.
fn check_ours(connection: &Connection) -> Result<(), Error> {
    let tables: u32 = connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match (tables, application, found) {
        (0, ..) | (_, APPLICATION_ID, SCHEMA) => Ok(()),
        (_, APPLICATION_ID, _) => Err(Error::Schema { known: SCHEMA, found }),
        _ => Err(Error::NotOurs),
    }
}

/// Makes the schema when there is none, and reads how far each partition is.
pub(super) fn load(connection: &mut Connection, partitions: u16) -> Result<Vec<Log>, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tables: u32 = transaction.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(CREATE)?;
        for partition in 0..partitions {
            transaction.execute("insert into partition values (?, 0, 0, 0)", [partition])?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA)?;
    }
    let logs: Vec<Log> = transaction
        .prepare("select begin_offset, next_offset, bytes from partition order by partition")?
        .query_map([], |row| {
            let bytes = row.get::<_, i64>(2)?.cast_unsigned();
            Ok(Log { begin: row.get(0)?, next: row.get(1)?, bytes, head: None })
        })?
        .collect::<Result<_, _>>()?;
    if logs.len() != usize::from(partitions) {
        return Err(Error::Partitions { found: logs.len(), wanted: partitions.into() });
    }
    transaction.commit()?;
    Ok(logs)
}

pub(super) fn insert(connection: &Connection, record: &Record) -> Result<(), rusqlite::Error> {
    let id = id(record.partition, record.offset);
    connection
        .prepare_cached("insert into record (id, arrived_us, source, rows, value) values (?, ?, ?, ?, ?)")?
        .execute((id, record.arrived_us, &*record.source, record.rows, &*record.value))?;
    Ok(())
}

pub(super) fn head(connection: &Connection, partition: u16, offset: i64) -> Result<Head, rusqlite::Error> {
    connection
        .prepare_cached("select arrived_us, length(value) from record where id = ?")?
        .query_row([id(partition, offset)], |row| {
            Ok(Head { arrived_us: row.get(0)?, weight: weight(row.get::<_, i64>(1)? as usize) })
        })
}

pub(super) fn delete(connection: &Connection, partition: u16, offset: i64) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("delete from record where id = ?")?.execute([id(partition, offset)])?;
    Ok(())
}

/// Writes how far a partition is.
pub(super) fn save(connection: &Connection, partition: u16, log: &Log) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("update partition set begin_offset = ?, next_offset = ?, bytes = ? where partition = ?")?
        .execute((log.begin, log.next, log.bytes.cast_signed(), partition))?;
    Ok(())
}

pub(super) fn record(connection: &Connection, partition: u16, offset: i64) -> Result<Option<Record>, rusqlite::Error> {
    connection
        .prepare_cached("select arrived_us, source, rows, value from record where id = ?")?
        .query_row([id(partition, offset)], |row| {
            let source = row.get_ref(1)?.as_str()?.into();
            let value = row.get_ref(3)?.as_blob()?.into();
            let (arrived_us, rows) = (row.get(0)?, row.get(2)?);
            Ok(Record { partition, offset, arrived_us, source, rows, key: None, headers: Vec::new(), value })
        })
        .optional()
}

/// Adds the rows of these offsets by source.
pub(super) fn add_rows(
    connection: &Connection,
    ranges: &[(u16, Range<i64>)],
    rows: &mut BTreeMap<Arc<str>, u64>,
) -> Result<(), Error> {
    let mut statement =
        connection.prepare_cached("select source, sum(rows) from record where id >= ? and id < ? group by source")?;
    for (partition, offsets) in ranges {
        let mut found = statement.query((id(*partition, offsets.start), id(*partition, offsets.end)))?;
        while let Some(row) = found.next()? {
            *rows.entry(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?.into()).or_default() +=
                row.get::<_, i64>(1)?.cast_unsigned();
        }
    }
    Ok(())
}

/// The connections that read `bus.db`.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// Held while reading; taken alone by who needs the log free of readers. `false` once the file is closed.
    gate: RwLock<bool>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Readers {
        Readers { path: path.to_owned(), idle: Mutex::default(), gate: RwLock::new(true) }
    }

    /// Reads in this thread.
    pub(super) fn read<T>(&self, job: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let open = self.gate.read().expect("never poisoned");
        if !*open {
            return Err(Error::Closed);
        }
        let idle = self.idle.lock().expect("never poisoned").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let result = job(&connection);
        self.idle.lock().expect("never poisoned").push(connection);
        result
    }

    /// Runs while nobody reads.
    pub(super) fn without<T>(&self, job: impl FnOnce() -> T) -> T {
        let _alone = self.gate.write().expect("never poisoned");
        job()
    }

    /// Waits for who reads, and lets nobody read any more.
    pub(super) fn close(&self) {
        let mut open = self.gate.write().expect("never poisoned");
        *open = false;
        self.idle.lock().expect("never poisoned").clear();
    }

    fn connect(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.set_prepared_statement_cache_capacity(4);
        Ok(connection)
    }
}

fn id(partition: u16, offset: i64) -> i64 {
    debug_assert!((0..1 << OFFSET_BITS).contains(&offset), "2^47 records are 4,000 years at 1,000 a second");
    i64::from(partition) << OFFSET_BITS | offset
}
