//! Chunks: readings of one partition and class, sorted by (machine, time, bus order), compressed and checked.
//!
//! A chunk is two blobs: a directory ([`Directory`]), and the readings as one encoded [`ReadingBatch`], which names its
//! channels and scales, with flags, index and bus record of each row behind it. Each blob ends with a CRC-32.

use super::{Error, LogRow, directory::Directory, memory::Segment};
use crate::Error as StoreError;
use catalog::Catalogue;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use wire::{Position, READINGS_TOPIC, ReadingBatch};

/// A chunk holds about so many rows of whole machines.
const ROWS: usize = 2_048;
/// A machine with more rows gets several chunks.
const ROWS_MAX: usize = 8_192;

/// A chunk on its way into the file.
pub(super) struct Encoded {
    pub(super) class: String,
    pub(super) first_machine: u32,
    pub(super) last_machine: u32,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    pub(super) newest_arrival: i64,
    pub(super) rows: u32,
    pub(super) directory: Vec<u8>,
    pub(super) readings: Vec<u8>,
}

/// The readings of a chunk.
pub(super) struct Rows {
    pub(super) batch: ReadingBatch,
    pub(super) flags: Vec<u8>,
    /// Per row: place in `records`.
    pub(super) record: Vec<u32>,
    /// Offset and arrival.
    pub(super) records: Vec<(i64, i64)>,
}

/// A chunk that may hold what is looked for.
pub(super) struct Candidate {
    pub(super) id: i64,
    pub(super) first_machine: u32,
    pub(super) last_machine: u32,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// All of its rows lie below the position; else each must be asked, as it was merged with later ones.
    pub(super) below: bool,
}

/// Which chunks: of a partition, with rows of these machine numbers and times (all inclusive), below a position.
pub(super) struct Sought {
    pub(super) partition: u16,
    pub(super) machines: (u32, u32),
    pub(super) times: (i64, i64),
    pub(super) below: i64,
}

/// Encodes all readings of segments.
pub(super) fn encode(segments: &[Segment]) -> Vec<Encoded> {
    let mut compressor = zstd::bulk::Compressor::new(1).expect("zstd gives a context");
    let mut out = Vec::new();
    for segment in segments {
        let sorted = sort(segment);
        let mut place = vec![u32::MAX; segment.records.len()];
        for piece in cut(segment, &sorted) {
            out.push(encode_piece(segment, piece, &mut place, &mut compressor));
        }
    }
    out
}

/// Rows by machine, time, bus order.
fn sort(segment: &Segment) -> Vec<u32> {
    let machine = &segment.rows.machine;
    let highest = machine.iter().max().map_or(0, |highest| *highest as usize + 1);
    let mut next = vec![0_u32; highest + 1];
    for number in machine {
        next[*number as usize + 1] += 1;
    }
    for at in 1..next.len() {
        next[at] += next[at - 1];
    }
    let mut sorted = vec![0; machine.len()];
    for (row, number) in (0..).zip(machine) {
        let at = &mut next[*number as usize];
        sorted[*at as usize] = row;
        *at += 1;
    }
    let times = &segment.rows.timestamp_us;
    for rows in sorted.chunk_by_mut(|left, right| machine[*left as usize] == machine[*right as usize]) {
        if !rows.is_sorted_by_key(|row| times[*row as usize]) {
            // Stable, so that bus order decides between equal times.
            rows.sort_by_key(|row| times[*row as usize]);
        }
    }
    sorted
}

/// Cuts sorted rows into chunks: whole machines where they are small, else parts of one.
fn cut<'a>(segment: &Segment, rows: &'a [u32]) -> Vec<&'a [u32]> {
    let machine = |row: u32| segment.rows.machine[row as usize];
    let mut pieces = Vec::new();
    let (mut from, mut to) = (0, 0);
    for rows_of_one in rows.chunk_by(|left, right| machine(*left) == machine(*right)) {
        if to > from && to - from + rows_of_one.len() > ROWS {
            pieces.push(&rows[from..to]);
            from = to;
        }
        to += rows_of_one.len();
        while to - from > ROWS_MAX {
            pieces.push(&rows[from..from + ROWS_MAX]);
            from += ROWS_MAX;
        }
    }
    if to > from {
        pieces.push(&rows[from..to]);
    }
    pieces
}

fn encode_piece(
    segment: &Segment,
    rows: &[u32],
    place: &mut [u32],
    compressor: &mut zstd::bulk::Compressor<'_>,
) -> Encoded {
    let gathered = gather(segment, rows);
    let (batch, numbers) = (&gathered.0, &gathered.1);
    let mut directory = Directory::new(batch);
    let mut from = 0;
    for machine in batch.machine.chunk_by(|left, right| left == right) {
        directory.enter(batch, numbers[machine[0] as usize], from..from + machine.len());
        from += machine.len();
    }

    let mut records = Vec::new();
    let mut record = Vec::with_capacity(rows.len());
    for row in rows {
        let place = &mut place[segment.record[*row as usize] as usize];
        if *place == u32::MAX {
            *place = records.len() as u32;
            records.push(segment.record[*row as usize]);
        }
        record.push(*place);
    }
    let mut readings = vec![0; 4];
    batch.encode(&mut readings);
    let length = (readings.len() - 4) as u32;
    readings[..4].copy_from_slice(&length.to_le_bytes());
    readings.extend_from_slice(&(records.len() as u32).to_le_bytes());
    let mut newest_arrival = i64::MIN;
    for at in records {
        place[at as usize] = u32::MAX;
        let (offset, arrived_us) = segment.records[at as usize];
        newest_arrival = newest_arrival.max(arrived_us);
        readings.extend_from_slice(&offset.to_le_bytes());
        readings.extend_from_slice(&arrived_us.to_le_bytes());
    }
    write_narrow(&record, &mut readings);
    write_narrow(&rows.iter().map(|row| segment.rows.index[*row as usize]).collect::<Vec<_>>(), &mut readings);
    write_narrow(&rows.iter().map(|row| u32::from(segment.flags[*row as usize])).collect::<Vec<_>>(), &mut readings);

    let min_time = batch.timestamp_us.iter().min().copied().unwrap_or(i64::MAX);
    let max_time = batch.timestamp_us.iter().max().copied().unwrap_or(i64::MIN);
    Encoded {
        class: batch.class.id.clone(),
        first_machine: numbers[0],
        last_machine: numbers[numbers.len() - 1],
        min_time,
        max_time,
        newest_arrival,
        rows: rows.len() as u32,
        directory: pack(&directory.encode(), compressor),
        readings: pack(&readings, compressor),
    }
}

/// Rows of a segment as a batch, and the number of each of its machines. Where a row lay in its record stands elsewhere.
fn gather(segment: &Segment, rows: &[u32]) -> (ReadingBatch, Vec<u32>) {
    fn pick<T: Copy>(column: &[T], rows: &[u32]) -> Vec<T> {
        if column.is_empty() { Vec::new() } else { rows.iter().map(|row| column[*row as usize]).collect() }
    }
    let from = &segment.rows;
    let mut batch = ReadingBatch::new(from.class.clone());
    let mut numbers = Vec::new();
    batch.machine.reserve_exact(rows.len());
    for row in rows {
        let number = from.machine[*row as usize];
        if numbers.last() != Some(&number) {
            let at = segment.names.binary_search_by_key(&number, |(number, _)| *number);
            let at = at.expect("whoever has rows was named when the memory was frozen");
            batch.machines.push(segment.names[at].1.clone());
            numbers.push(number);
        }
        batch.machine.push(numbers.len() as u32 - 1);
    }
    batch.timestamp_us = pick(&from.timestamp_us, rows);
    batch.index = vec![0; rows.len()];
    batch.values = from.values.iter().map(|values| pick(values, rows)).collect();
    batch.quality = pick(&from.quality, rows);
    batch.seq = pick(&from.seq, rows);
    batch.attributes = from.attributes.iter().map(|words| pick(words, rows)).collect();
    batch.state = pick(&from.state, rows);
    if !from.links.is_empty() {
        let linked = (0..).zip(rows).filter_map(|(to, row)| Some((to, from.links.get(row)?.clone())));
        batch.links = linked.collect();
    }
    (batch, numbers)
}

/// Length (4), zstd frame, CRC-32 of both (4).
fn pack(bytes: &[u8], compressor: &mut zstd::bulk::Compressor<'_>) -> Vec<u8> {
    let mut out = (bytes.len() as u32).to_le_bytes().to_vec();
    out.extend(compressor.compress(bytes).expect("zstd compresses any bytes"));
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (length, frame) = body.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    zstd::bulk::decompress(frame, length).ok().filter(|bytes| bytes.len() == length)
}

/// Width (1), then each number in so many bytes.
fn write_narrow(numbers: &[u32], out: &mut Vec<u8>) {
    let width = match numbers.iter().fold(0, |all, number| all | number) {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    out.push(width as u8);
    match width {
        0 => {}
        1 => out.extend(numbers.iter().map(|number| *number as u8)),
        2 => out.extend(numbers.iter().flat_map(|number| (*number as u16).to_le_bytes())),
        _ => out.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
    }
}

fn read_narrow(bytes: &mut &[u8], rows: usize) -> Option<Vec<u32>> {
    let width = usize::from(*bytes.split_off_first()?);
    let numbers = bytes.split_off(..rows.checked_mul(width)?)?;
    Some(match width {
        0 => vec![0; rows],
        1 => numbers.iter().map(|number| u32::from(*number)).collect(),
        2 => numbers.as_chunks::<2>().0.iter().map(|number| u32::from(u16::from_le_bytes(*number))).collect(),
        4 => numbers.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number)).collect(),
        _ => return None,
    })
}

/// Where rows of a chunk come from.
pub(super) struct Origin {
    pub(super) partition: u16,
    pub(super) from_offset: i64,
    pub(super) next_offset: i64,
    pub(super) level: u32,
}

/// Writes chunks of one origin.
pub(super) fn insert(transaction: &Transaction<'_>, origin: &Origin, chunks: &[Encoded]) -> Result<(), StoreError> {
    let mut insert = transaction.prepare_cached(
        "insert into chunk (partition, class, first_machine, last_machine, min_time, max_time, newest_arrival,
             from_offset, next_offset, level, rows, directory, readings)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    for chunk in chunks {
        insert.execute(params![
            origin.partition,
            chunk.class,
            chunk.first_machine,
            chunk.last_machine,
            chunk.min_time,
            chunk.max_time,
            chunk.newest_arrival,
            origin.from_offset,
            origin.next_offset,
            origin.level,
            chunk.rows,
            chunk.directory,
            chunk.readings,
        ])?;
    }
    Ok(())
}

/// The chunks that may hold what is sought, those with the newest readings first.
pub(super) fn candidates(connection: &Connection, sought: &Sought) -> Result<Vec<Candidate>, Error> {
    let mut query = connection.prepare_cached(
        "select id, first_machine, last_machine, min_time, max_time, next_offset <= ?6 from chunk
         where partition = ?1 and max_time >= ?2 and min_time <= ?3 and last_machine >= ?4 and first_machine <= ?5
             and from_offset < ?6
         order by max_time desc, id desc",
    )?;
    let ((first, last), (from, to)) = (sought.machines, sought.times);
    let rows = query.query_map(params![sought.partition, from, to, first, last, sought.below], |row| {
        let (first_machine, last_machine) = (row.get(1)?, row.get(2)?);
        let (min_time, max_time) = (row.get(3)?, row.get(4)?);
        Ok(Candidate { id: row.get(0)?, first_machine, last_machine, min_time, max_time, below: row.get(5)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The directory of a chunk; nothing where there is no such chunk.
pub(super) fn directory(connection: &Connection, id: i64) -> Result<Option<Directory>, Error> {
    let mut query = connection.prepare_cached("select directory from chunk where id = ?1")?;
    let blob: Option<Vec<u8>> = query.query_row([id], |row| row.get(0)).optional()?;
    let decode = |blob: Vec<u8>| unpack(&blob).and_then(|bytes| Directory::decode(&bytes));
    blob.map(|blob| decode(blob).ok_or(Error::Damaged(id))).transpose()
}

/// The readings of a chunk; nothing where there is no such chunk.
pub(super) fn rows(connection: &Connection, id: i64, catalogue: &Catalogue) -> Result<Option<Rows>, Error> {
    let mut query = connection.prepare_cached("select readings from chunk where id = ?1")?;
    let Some(blob): Option<Vec<u8>> = query.query_row([id], |row| row.get(0)).optional()? else { return Ok(None) };
    let bytes = unpack(&blob).ok_or(Error::Damaged(id))?;
    let mut rest = &bytes[..];
    let mut next = |length: usize| rest.split_off(..length).ok_or(Error::Damaged(id));
    let length = u32::from_le_bytes(next(4)?.try_into().expect("four bytes"));
    let batch = next(length as usize)?;
    let batch =
        ReadingBatch::decode(batch, catalogue).map_err(|error| Error::Unreadable { chunk: id, source: error })?;
    decode_rows(batch, rest).map(Some).ok_or(Error::Damaged(id))
}

fn decode_rows(mut batch: ReadingBatch, mut bytes: &[u8]) -> Option<Rows> {
    let bytes = &mut bytes;
    let count = u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?) as usize;
    let (pairs, _) = bytes.split_off(..count.checked_mul(16)?)?.as_chunks::<16>();
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("half of sixteen bytes"));
    let records: Vec<(i64, i64)> = pairs.iter().map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect();
    let record = read_narrow(bytes, batch.rows())?;
    batch.index = read_narrow(bytes, batch.rows())?;
    let flags = read_narrow(bytes, batch.rows())?.into_iter().map(|flags| flags as u8).collect();
    let sound = bytes.is_empty() && record.iter().all(|record| (*record as usize) < records.len());
    sound.then_some(Rows { batch, flags, record, records })
}

impl Rows {
    /// Bus offset and arrival of a row.
    pub(super) fn record_of(&self, row: usize) -> (i64, i64) {
        self.records[self.record[row] as usize]
    }

    pub(super) fn log_row(&self, partition: u16, row: usize) -> LogRow {
        log_row(&self.batch, row, self.flags[row], partition, self.record_of(row))
    }
}

/// A row of columns as `sensor_log` has it.
pub(super) fn log_row(
    batch: &ReadingBatch,
    row: usize,
    flags: u8,
    partition: u16,
    (offset, arrived_us): (i64, i64),
) -> LogRow {
    let word = |words: &Vec<u8>| words.get(row).copied().unwrap_or(ReadingBatch::NONE);
    LogRow {
        class: batch.class.clone(),
        timestamp_us: batch.timestamp_us[row],
        values: batch.values.iter().map(|values| values[row]).collect(),
        quality: batch.quality_of(row),
        seq: batch.seq_of(row),
        flags,
        attributes: batch.attributes.iter().map(word).collect(),
        position: Position { topic: READINGS_TOPIC.into(), partition, offset, index: batch.index[row] },
        arrived_us,
    }
}
