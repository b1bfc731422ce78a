//! The compact binary batch: version, class, channels with their scales, columns, CRC.
//!
//! Bytes: magic `MWRB`, version, sections, CRC-32 of all before it (little endian, as every number here). A section is a
//! tag, the length of its content in 4 bytes, and the content; a reader skips tags that it does not know, so a later
//! release may add sections without a new version. The head comes first. Numbers that a column holds lie in a frame of
//! reference (`column.rs`). Layout of each section: see its `write_` function.

mod column;
mod cursor;
#[cfg(test)]
mod tests;

use crate::{Marker, Quality, ReadingBatch};
use catalog::{Catalogue, Class, MachineId, State};
use cursor::Cursor;
use std::sync::Arc;

/// Why bytes are no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BinaryError {
    #[error("not a reading batch")]
    NotABatch,
    #[error("reading batch of version {0}, this release reads up to {1}")]
    Version(u8, u8),
    #[error("reading batch is damaged: checksum differs")]
    Checksum,
    #[error("reading batch is cut short or inconsistent at byte {0}")]
    Malformed(usize),
    #[error("reading batch is of class {0}, which the catalogue does not have")]
    UnknownClass(String),
    #[error("reading batch does not fit class {class}: {what}")]
    ClassDiffers { class: String, what: String },
}

/// First bytes of every batch.
const MAGIC: [u8; 4] = *b"MWRB";
/// Newest version that this release reads, and the one that it writes.
const VERSION: u8 = 1;

/// What a section holds; numbers are never used again for something else.
mod tag {
    pub(super) const HEAD: u8 = 1;
    pub(super) const MACHINES: u8 = 2;
    pub(super) const MACHINE: u8 = 3;
    pub(super) const TIMESTAMP: u8 = 4;
    pub(super) const INDEX: u8 = 5;
    pub(super) const VALUES: u8 = 6;
    pub(super) const QUALITY: u8 = 7;
    pub(super) const SEQ: u8 = 8;
    pub(super) const ATTRIBUTE: u8 = 9;
    pub(super) const STATE: u8 = 10;
    pub(super) const LINKS: u8 = 11;
    pub(super) const MARKERS: u8 = 12;
}

impl ReadingBatch {
    /// Appends the encoding of this batch to `out`. Spans are not part of it: they are the bus record's own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        section(out, tag::HEAD, |out| self.write_head(out));
        section(out, tag::MACHINES, |out| self.write_machines(out));
        section(out, tag::MACHINE, |out| column::write_at_least_a_byte(&self.machine, out));
        section(out, tag::TIMESTAMP, |out| column::write_times(&self.timestamp_us, out));
        section(out, tag::INDEX, |out| column::write_ascending(&self.index, out));
        for (channel, values) in (0_u8..).zip(&self.values) {
            section(out, tag::VALUES, |out| {
                out.push(channel);
                column::write(values, out);
            });
        }
        if !self.quality.is_empty() {
            section(out, tag::QUALITY, |out| self.write_quality(out));
        }
        if !self.seq.is_empty() {
            section(out, tag::SEQ, |out| self.write_seq(out));
        }
        for (attribute, words) in (0_u8..).zip(&self.attributes).filter(|(_, words)| !words.is_empty()) {
            section(out, tag::ATTRIBUTE, |out| {
                out.push(attribute);
                out.extend_from_slice(words);
            });
        }
        if !self.state.is_empty() {
            section(out, tag::STATE, |out| out.extend_from_slice(&self.state));
        }
        if !self.links.is_empty() {
            section(out, tag::LINKS, |out| self.write_links(out));
        }
        if !self.markers.is_empty() {
            section(out, tag::MARKERS, |out| self.write_markers(out));
        }
        let checksum = crc32fast::hash(&out[from..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a batch; columns are matched to the class's channels by name, and a channel with another scale is refused.
    ///
    /// A channel that the writer did not know is missing where it is optional, else the batch does not fit; one that the
    /// class does not have is left out. A value outside the class's range, which the door of another catalogue let
    /// pass, is kept with quality bad.
    ///
    /// # Errors
    /// What is wrong with the bytes; never panics on any input.
    pub fn decode(bytes: &[u8], catalogue: &Catalogue) -> Result<ReadingBatch, BinaryError> {
        ReadingBatch::decode_with(bytes, |id| catalogue.class(id))
    }

    /// Whether bytes claim to be a batch; JSON never begins like one.
    pub fn is_encoded(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    fn decode_with<'c>(
        bytes: &[u8],
        class: impl Fn(&str) -> Option<&'c Arc<Class>>,
    ) -> Result<ReadingBatch, BinaryError> {
        if !ReadingBatch::is_encoded(bytes) {
            return Err(BinaryError::NotABatch);
        }
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(BinaryError::Malformed(bytes.len()))?;
        let version = *body.get(MAGIC.len()).ok_or(BinaryError::Malformed(bytes.len()))?;
        if version > VERSION {
            return Err(BinaryError::Version(version, VERSION));
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(BinaryError::Checksum);
        }
        let mut cursor = Cursor::new(body, MAGIC.len() + 1);
        let Some((tag::HEAD, mut content)) = cursor.section()? else { return Err(cursor.malformed()) };
        let head = Head::read(&mut content)?;
        let class = class(&head.class).ok_or_else(|| BinaryError::UnknownClass(head.class.clone()))?;
        let mut reader = Reader::new(head, class)?;
        while let Some((tag, content)) = cursor.section()? {
            reader.section(tag, content)?;
        }
        reader.finish(&cursor)
    }

    /// Rows, class id, then channels (id, scale) and attributes (id, words) of the writer's class.
    fn write_head(&self, out: &mut Vec<u8>) {
        number(self.rows(), out);
        text(&self.class.id, out);
        out.push(self.class.channels.len() as u8);
        for channel in &self.class.channels {
            text(&channel.id, out);
            out.push(channel.scale);
        }
        out.push(self.class.attributes.len() as u8);
        for attribute in &self.class.attributes {
            text(&attribute.id, out);
            out.push(attribute.values.len() as u8);
            for word in &attribute.values {
                text(word, out);
            }
        }
    }

    /// Their number, then each name.
    fn write_machines(&self, out: &mut Vec<u8>) {
        number(self.machines.len(), out);
        for machine in &self.machines {
            text(machine, out);
        }
    }

    /// Per row the bits of its channels, in as many bytes as they need.
    fn write_quality(&self, out: &mut Vec<u8>) {
        let width = quality_width(self.class.channels.len());
        for bits in &self.quality {
            out.extend_from_slice(&bits.to_le_bytes()[..width]);
        }
    }

    /// One bit a row that has one, then the numbers as a column, that of the row before where a row has none.
    fn write_seq(&self, out: &mut Vec<u8>) {
        for rows in self.seq.chunks(8) {
            out.push(rows.iter().rev().fold(0, |bits, seq| (bits << 1) | u8::from(seq.is_some())));
        }
        let mut last = self.seq.iter().flatten().next().copied().unwrap_or(0);
        let filled: Vec<i64> = self
            .seq
            .iter()
            .map(|seq| {
                last = seq.unwrap_or(last);
                last
            })
            .collect();
        column::write(&filled, out);
    }

    /// Their number, then row and text of each.
    fn write_links(&self, out: &mut Vec<u8>) {
        number(self.links.len(), out);
        for (row, links) in &self.links {
            out.extend_from_slice(&row.to_le_bytes());
            number(links.len(), out);
            out.extend_from_slice(links.as_bytes());
        }
    }

    /// Their number, then machine, channel, code, arrival, index and row of each.
    fn write_markers(&self, out: &mut Vec<u8>) {
        number(self.markers.len(), out);
        for marker in &self.markers {
            text(&marker.machine, out);
            text(&marker.channel, out);
            text(&marker.code, out);
            out.extend_from_slice(&marker.arrived_us.to_le_bytes());
            out.extend_from_slice(&marker.index.to_le_bytes());
            out.extend_from_slice(&marker.before_row.to_le_bytes());
        }
    }
}

/// Writes a section; its length is filled in when its content is known.
fn section(out: &mut Vec<u8>, tag: u8, content: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    let from = out.len();
    content(out);
    let length = (out.len() - from) as u32;
    out[from - 4..from].copy_from_slice(&length.to_le_bytes());
}

fn number(number: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(number as u32).to_le_bytes());
}

/// Ids and words are at most 255 bytes long; longer text cannot stand in a checked class, and is cut.
fn text(text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(255)];
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn quality_width(channels: usize) -> usize {
    channels.div_ceil(4)
}

/// What the writer's class looked like.
struct Head {
    rows: usize,
    class: String,
    channels: Vec<(String, u8)>,
    attributes: Vec<(String, Vec<String>)>,
}

impl Head {
    fn read(content: &mut Cursor<'_>) -> Result<Head, BinaryError> {
        let rows = content.u32()? as usize;
        let class = content.text()?.to_owned();
        let count = content.byte()?;
        let channels =
            (0..count).map(|_| Ok((content.text()?.to_owned(), content.byte()?))).collect::<Result<_, _>>()?;
        let count = content.byte()?;
        let mut attributes = Vec::new();
        for _ in 0..count {
            let id = content.text()?.to_owned();
            let words = content.byte()?;
            attributes.push((id, (0..words).map(|_| Ok(content.text()?.to_owned())).collect::<Result<_, _>>()?));
        }
        Ok(Head { rows, class, channels, attributes })
    }
}

/// A batch in the making.
struct Reader {
    head: Head,
    batch: ReadingBatch,
    /// Per channel of the writer: its place in the class.
    channels: Vec<Option<usize>>,
    /// Per channel of the writer, where its column needs a look: lowest and highest value.
    extremes: Vec<(i64, i64)>,
    /// Which tags were there; attributes and values count by their own columns.
    seen: u32,
}

impl Reader {
    fn new(head: Head, class: &Arc<Class>) -> Result<Reader, BinaryError> {
        let differs = |what| BinaryError::ClassDiffers { class: class.id.clone(), what };
        let mut channels = Vec::with_capacity(head.channels.len());
        for (id, scale) in &head.channels {
            let place = class.channel_index(id);
            if let Some(at) = place {
                if channels.contains(&place) {
                    return Err(differs(format!("channel {id} comes twice")));
                }
                let expected = class.channels[at].scale;
                if expected != *scale {
                    return Err(differs(format!("channel {id} has scale {scale}, the class says {expected}")));
                }
            }
            channels.push(place);
        }
        let unknown = |at: &usize| !channels.contains(&Some(*at));
        if let Some(at) = (0..class.channels.len()).filter(unknown).find(|at| !class.channels[*at].optional) {
            return Err(differs(format!("channel {} is not in it", class.channels[at].id)));
        }
        let extremes = vec![(0, 0); channels.len()];
        Ok(Reader { head, batch: ReadingBatch::new(class.clone()), channels, extremes, seen: 0 })
    }

    fn section(&mut self, tag: u8, mut content: Cursor<'_>) -> Result<(), BinaryError> {
        let rows = self.head.rows;
        if matches!(tag, tag::HEAD..=tag::MARKERS) && !matches!(tag, tag::VALUES | tag::ATTRIBUTE) {
            if self.seen & (1 << tag) != 0 {
                return Err(content.malformed());
            }
            self.seen |= 1 << tag;
        }
        // The column of machines has a byte a row at least, so it proves that the bytes are there for so many rows; it
        // stands before all columns that may be narrower.
        if tag > tag::MACHINE && self.seen & (1 << tag::MACHINE) == 0 {
            return Err(content.malformed());
        }
        match tag {
            tag::MACHINES => self.machines(&mut content)?,
            tag::MACHINE => self.batch.machine = column::read_at_least_a_byte(&mut content, rows)?,
            tag::TIMESTAMP => {
                column::read(&mut content, rows, &mut self.batch.timestamp_us)?;
            }
            tag::INDEX => self.batch.index = column::read_ascending(&mut content, rows)?,
            tag::VALUES => self.values(&mut content)?,
            tag::QUALITY => self.quality(&mut content)?,
            tag::SEQ => self.seq(&mut content)?,
            tag::ATTRIBUTE => self.attribute(&mut content)?,
            tag::STATE => {
                let states = content.take(rows)?;
                if states.iter().any(|state| usize::from(*state) >= State::ALL.len() && *state != ReadingBatch::NONE) {
                    return Err(content.malformed());
                }
                self.batch.state = states.to_vec();
            }
            tag::LINKS => self.links(&mut content)?,
            tag::MARKERS => self.markers(&mut content)?,
            _ => return Ok(()),
        }
        content.end()
    }

    fn machines(&mut self, content: &mut Cursor<'_>) -> Result<(), BinaryError> {
        let count = content.count(2)?;
        self.batch.machines.reserve_exact(count);
        for _ in 0..count {
            let name = content.text()?;
            self.batch.machines.push(MachineId::try_from(name).map_err(|_| content.malformed())?);
        }
        Ok(())
    }

    fn values(&mut self, content: &mut Cursor<'_>) -> Result<(), BinaryError> {
        let column = usize::from(content.byte()?);
        let Some(place) = self.channels.get(column) else { return Err(content.malformed()) };
        // A column that the class does not have needs no look.
        let Some(at) = *place else { return content.skip_rest() };
        let values = &mut self.batch.values[at];
        if !values.is_empty() {
            return Err(content.malformed());
        }
        self.extremes[column] = column::read(content, self.head.rows, values)?;
        Ok(())
    }

    fn quality(&mut self, content: &mut Cursor<'_>) -> Result<(), BinaryError> {
        let width = quality_width(self.channels.len());
        if width > 16 {
            return Err(content.malformed());
        }
        let rows = content.take(self.head.rows * width)?;
        if width == 0 {
            return Ok(());
        }
        let same = self.channels.iter().enumerate().all(|(column, place)| *place == Some(column));
        let row = |bytes: &[u8]| {
            let mut bits = [0; 16];
            bits[..width].copy_from_slice(bytes);
            let bits = u128::from_le_bytes(bits);
            if same { bits } else { self.moved(bits) }
        };
        self.batch.quality = rows.chunks_exact(width).map(row).collect();
        Ok(())
    }

    /// The writer's quality bits at the places of the class's channels.
    fn moved(&self, bits: u128) -> u128 {
        let pairs = self.channels.iter().enumerate();
        pairs.fold(0, |moved, (column, place)| moved | place.map_or(0, |at| Quality::of(bits, column).bits(at)))
    }

    fn seq(&mut self, content: &mut Cursor<'_>) -> Result<(), BinaryError> {
        let rows = self.head.rows;
        let present = content.take(rows.div_ceil(8))?;
        let mut filled = Vec::new();
        column::read(content, rows, &mut filled)?;
        let has = |row: usize| present[row / 8] & (1 << (row % 8)) != 0;
        self.batch.seq = filled.into_iter().enumerate().map(|(row, seq)| has(row).then_some(seq)).collect();
        Ok(())
    }

    fn attribute(&mut self, content: &mut Cursor<'_>) -> Result<(), BinaryError> {
        let column = usize::from(content.byte()?);
        let Some((id, words)) = self.head.attributes.get(column) else { return Err(content.malformed()) };
        let rows = content.take(self.head.rows)?;
        let class = &self.batch.class;
        let Some(at) = class.attributes.iter().position(|attribute| attribute.id == *id) else { return Ok(()) };
        if !self.batch.attributes[at].is_empty() {
            return Err(content.malformed());
        }
        let known = &class.attributes[at].values;
        let mut places = [None; 256];
        for (place, word) in places.iter_mut().zip(words) {
            *place = known.iter().position(|known| known == word).map(|at| at as u8);
        }
        places[usize::from(ReadingBatch::NONE)] = Some(ReadingBatch::NONE);
        let mut column = Vec::with_capacity(rows.len());
        for word in rows {
            column.push(places[usize::from(*word)].ok_or_else(|| match words.get(usize::from(*word)) {
                Some(word) => {
                    BinaryError::ClassDiffers { class: class.id.clone(), what: format!("{id} {word} is not in it") }
                }
                None => content.malformed(),
            })?);
        }
        self.batch.attributes[at] = column;
        Ok(())
    }

    fn links(&mut self, content: &mut Cursor<'_>) -> Result<(), BinaryError> {
        for _ in 0..content.count(8)? {
            let row = content.u32()?;
            let length = content.count(1)?;
            let text = std::str::from_utf8(content.take(length)?).map_err(|_| content.malformed())?;
            // It is written into JSON as it is.
            let is_object = text.starts_with('{') && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
            if row as usize >= self.head.rows || !is_object {
                return Err(content.malformed());
            }
            self.batch.links.insert(row, text.into());
        }
        Ok(())
    }

    fn markers(&mut self, content: &mut Cursor<'_>) -> Result<(), BinaryError> {
        let count = content.count(19)?;
        self.batch.markers.reserve_exact(count);
        for _ in 0..count {
            let machine = MachineId::try_from(content.text()?).map_err(|_| content.malformed())?;
            let (channel, code) = (content.text()?.to_owned(), content.text()?.to_owned());
            let (arrived_us, index, before_row) = (content.i64()?, content.u32()?, content.u32()?);
            if before_row as usize > self.head.rows {
                return Err(content.malformed());
            }
            self.batch.markers.push(Marker { machine, channel, code, arrived_us, index, before_row });
        }
        Ok(())
    }

    /// Holds the columns against each other.
    fn finish(mut self, end: &Cursor<'_>) -> Result<ReadingBatch, BinaryError> {
        let rows = self.head.rows;
        let needed = [tag::MACHINES, tag::MACHINE, tag::TIMESTAMP, tag::INDEX];
        let columns = self.channels.iter().flatten().all(|at| self.batch.values[*at].len() == rows);
        if needed.iter().any(|tag| self.seen & (1 << tag) == 0) || !columns {
            return Err(end.malformed());
        }
        let machines = self.batch.machines.len();
        if self.batch.machine.iter().fold(0, |highest, at| highest.max(*at)) as usize >= machines && rows > 0 {
            return Err(end.malformed());
        }
        self.fill_missing();
        self.mark_out_of_range();
        Ok(self.batch)
    }

    /// Fills the columns of optional channels that the writer did not know.
    fn fill_missing(&mut self) {
        let rows = self.head.rows;
        let unknown = |at: &usize| !self.channels.contains(&Some(*at));
        let unknown: Vec<usize> = (0..self.batch.values.len()).filter(unknown).collect();
        if unknown.is_empty() || rows == 0 {
            return;
        }
        let missing = unknown.iter().fold(0, |bits, at| bits | Quality::Missing.bits(*at));
        self.batch.quality.resize(rows, 0);
        self.batch.quality.iter_mut().for_each(|bits| *bits |= missing);
        for at in unknown {
            self.batch.values[at].resize(rows, 0);
        }
    }

    fn mark_out_of_range(&mut self) {
        for (column, place) in self.channels.iter().enumerate() {
            let Some(at) = *place else { continue };
            let (low, high) = self.batch.class.channels[at].range;
            let (lowest, highest) = self.extremes[column];
            if self.head.rows == 0 || lowest >= low && highest <= high {
                continue;
            }
            for (row, value) in self.batch.values[at].iter().enumerate() {
                let quality = Quality::of(self.batch.quality_of(row), at);
                if (*value < low || *value > high) && quality != Quality::Missing {
                    self.batch.quality.resize(self.head.rows, 0);
                    self.batch.quality[row] |= Quality::Bad.bits(at);
                    self.batch.quality[row] &= !Quality::Uncertain.bits(at);
                }
            }
        }
    }
}
