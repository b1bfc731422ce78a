//! Rows of memory as the bytes of `COPY ... (format binary)`.

use super::{
    table::{Kind, Table},
    value::{Micros, write_numeric},
};
use crate::history::memory::Segment;
use wire::{Quality, ReadingBatch};

/// Signature, flags, length of the extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = &(-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// A piece is sent when it has so many bytes.
const PIECE: usize = 64 << 10;

/// The statement that takes what [`pieces`] gives.
pub(super) fn statement(table: &Table, day: &str) -> String {
    let class = &table.class;
    let channels = class.channels.iter().map(|channel| format!("\"{}\", ", channel.id));
    let attributes = class.attributes.iter().map(|attribute| format!("\"{}\", ", attribute.id));
    format!(
        "copy {day} (machine_id, timestamp, {}created_at, {}seq, quality, flags, bus_partition, bus_offset, bus_index)
         from stdin (format binary)",
        channels.collect::<String>(),
        attributes.collect::<String>()
    )
}

/// Rows of a segment of a partition.
pub(super) struct Rows<'a> {
    pub(super) partition: u16,
    pub(super) segment: &'a Segment,
    pub(super) rows: &'a [u32],
}

/// Rows of a table, as they are to be sent.
pub(super) fn pieces(table: &Table, rows: &[Rows<'_>]) -> impl Iterator<Item = Vec<u8>> {
    let mut rows = rows.iter().flat_map(|some| some.rows.iter().map(move |row| (some, *row))).peekable();
    let mut begun = false;
    std::iter::from_fn(move || {
        if begun && rows.peek().is_none() {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE + 1_024);
        if !begun {
            out.extend_from_slice(HEADER);
            begun = true;
        }
        while out.len() < PIECE
            && let Some((Rows { partition, segment, .. }, row)) = rows.next()
        {
            write_row(table, *partition, segment, row as usize, &mut out);
        }
        if rows.peek().is_none() {
            out.extend_from_slice(TRAILER);
        }
        Some(out)
    })
}

fn write_row(table: &Table, partition: u16, segment: &Segment, row: usize, out: &mut Vec<u8>) {
    let batch = &segment.rows;
    let fields = 9 + batch.values.len() + batch.attributes.len();
    out.extend_from_slice(&(fields as i16).to_be_bytes());
    let at = segment.names.binary_search_by_key(&batch.machine[row], |(number, _)| *number);
    let at = at.expect("whoever has rows was named when the memory was frozen");
    write_bytes(segment.names[at].1.as_bytes(), out);
    write_bytes(&Micros(batch.timestamp_us[row]).to_binary().to_be_bytes(), out);
    let quality = batch.quality_of(row);
    for (channel, (values, kind)) in batch.values.iter().zip(&table.channels).enumerate() {
        match kind {
            Some(kind) if Quality::of(quality, channel) != Quality::Missing => {
                write_value(*kind, values[row], table.class.channels[channel].scale, out);
            }
            _ => out.extend_from_slice(&NULL),
        }
    }
    write_bytes(&Micros(segment.arrived_of(row)).to_binary().to_be_bytes(), out);
    for (attribute, words) in table.class.attributes.iter().zip(&batch.attributes) {
        let word = words.get(row).copied().unwrap_or(ReadingBatch::NONE);
        match attribute.values.get(usize::from(word)) {
            Some(word) => write_bytes(word.as_bytes(), out),
            None => out.extend_from_slice(&NULL),
        }
    }
    match batch.seq_of(row) {
        Some(seq) => write_bytes(&seq.to_be_bytes(), out),
        None => out.extend_from_slice(&NULL),
    }
    match (quality, table.quality) {
        (0, _) => out.extend_from_slice(&NULL),
        (bits, Kind::Integer) => write_bytes(&(bits as i32).to_be_bytes(), out),
        (bits, _) => write_numeric(false, bits, 0, out),
    }
    match segment.flags[row] {
        0 => out.extend_from_slice(&NULL),
        flags => write_bytes(&i16::from(flags).to_be_bytes(), out),
    }
    write_bytes(&(partition as i16).to_be_bytes(), out);
    write_bytes(&segment.offset_of(row).to_be_bytes(), out);
    write_bytes(&batch.index[row].cast_signed().to_be_bytes(), out);
}

/// The value lies in the channel's range, which its column holds.
fn write_value(kind: Kind, value: i64, scale: u8, out: &mut Vec<u8>) {
    match kind {
        Kind::SmallInt => write_bytes(&(value as i16).to_be_bytes(), out),
        Kind::Integer => write_bytes(&(value as i32).to_be_bytes(), out),
        Kind::BigInt => write_bytes(&value.to_be_bytes(), out),
        Kind::Numeric { .. } => write_numeric(value < 0, value.unsigned_abs().into(), scale, out),
        Kind::Double => write_bytes(&(value as f64 / 10_f64.powi(scale.into())).to_be_bytes(), out),
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}
