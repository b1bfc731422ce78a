//! Readings as JSON: one object, an array, or lines; a schema-driven fast path, serde_json for everything else.
//!
//! Both paths fill a [`Row`], which [`Sorter::accept`] puts into the batch of its class and partition. The fast path
//! ([`template`]) knows messages that are written like one of the last ones and gives up at whatever it did not expect;
//! then [`message`] reads the message as serde_json sees it, and alone decides what is refused. So a message has one
//! meaning, whichever path took it.

mod machines;
pub(crate) mod message;
mod nonfinite;
pub(crate) mod row;
pub(crate) mod sorter;
mod template;
mod write;

use crate::{ErrorCode, ReadingBatch, Reject, Span};
use catalog::Catalogue;
use machines::Machines;
use row::Row;
use serde_json::value::RawValue;
use sorter::Sorter;
use std::{collections::BTreeMap, sync::Arc};
use template::Templates;

/// How messages lie in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One object or an array of them (`application/json`).
    Json,
    /// Every non-blank line is one message (`application/x-ndjson`).
    Lines,
    /// The first byte that is no white space decides: `[` is [`Framing::Json`], else lines; a single pretty-printed
    /// object over several lines is one message. A blank value is neither.
    Auto,
}

/// A value that is neither array nor object nor lines: nothing of it can be counted as a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither a JSON object, an array nor JSON lines: {0}")]
pub struct NotReadings(pub String);

/// What a value held.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Batches of one class and one partition each: (partition, batch). Rows keep their order.
    pub batches: Vec<(u16, ReadingBatch)>,
    /// What was refused, in order.
    pub rejects: Vec<Reject>,
    /// Messages in the value: rows of all batches + rejects.
    pub messages: u32,
    /// Keys of accepted messages that no class key or contract key knows.
    pub unknown_keys: u64,
    /// Values of accepted messages that were rounded to their channel's scale.
    pub rounded: u64,
}

/// What a run of bus records held.
#[derive(Debug, Default)]
pub struct Run {
    /// One of each class, with the span of every record that it has rows or markers of. Rows keep their order.
    pub batches: Vec<ReadingBatch>,
    /// What was refused, in order, each with its record's place in the run.
    pub rejects: Vec<(usize, Reject)>,
    /// Messages in each record.
    pub messages: Vec<u32>,
    /// As in [`Decoded`].
    pub unknown_keys: u64,
    /// As in [`Decoded`].
    pub rounded: u64,
}

/// Decodes readings under one catalogue. Keeps buffers between calls; one per thread.
pub struct Decoder {
    sorter: Sorter,
    templates: Templates,
    row: Row,
    /// The end of a value with room behind it, so that the fast path may look ahead.
    tail: Vec<u8>,
}

/// How far the clocks of sources are ahead of UTC, microseconds, by name (`[[sources]] name, clock_offset`).
pub type Clocks = BTreeMap<String, i64>;

/// The class that a machine already has, by its id.
pub(crate) type Bound<'a> = dyn Fn(&str) -> Option<String> + 'a;

impl Decoder {
    /// A decoder for a catalogue and a number of partitions.
    ///
    /// Once `bound` has named the class of a machine it is not asked about it again, since a machine keeps its class.
    pub fn new(catalogue: Arc<Catalogue>, partitions: u16) -> Decoder {
        let templates = Templates::new();
        Decoder { sorter: Sorter::new(catalogue, partitions), templates, row: Row::default(), tail: Vec::new() }
    }

    /// A decoder that reads every message by serde_json: it accepts and refuses the same with the same result, only more
    /// slowly. For comparisons.
    pub fn without_fast_path(catalogue: Arc<Catalogue>, partitions: u16) -> Decoder {
        Decoder { templates: Templates::none(), ..Decoder::new(catalogue, partitions) }
    }

    /// Names the source of what is decoded from now on, and how far its clock is ahead of UTC (`[[sources]] name,
    /// clock_offset`), microseconds: so much is taken from every event time.
    pub fn set_source(&mut self, name: &str, clock_offset_us: i64) {
        self.sorter.source = Some(name.into());
        self.sorter.clock_offset_us = clock_offset_us;
    }

    /// The same for the records of runs, by the source of each.
    pub fn set_clocks(&mut self, clocks: Arc<Clocks>) {
        self.sorter.clocks = clocks;
    }

    /// Decodes a value that arrived at `arrived_us`. `bound` names the class that a machine already has.
    ///
    /// A machine without one has, for the rest of the value, the class of its first reading.
    ///
    /// # Errors
    /// The value is neither object, array nor lines (only with [`Framing::Json`], and with [`Framing::Auto`] that chose
    /// it or found no message).
    pub fn decode(
        &mut self,
        value: &[u8],
        framing: Framing,
        arrived_us: i64,
        bound: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Decoded, NotReadings> {
        let value = value.strip_prefix(b"\xef\xbb\xbf").unwrap_or(value);
        self.sorter.begin(value.len(), arrived_us);
        let mut tail = std::mem::take(&mut self.tail);
        let text = Text::new(value, &mut tail);
        let first = value.iter().find(|byte| !is_blank(**byte));
        let result = match (framing, first) {
            (Framing::Lines, _) => {
                self.lines(&text, bound);
                Ok(())
            }
            (_, None) => Err(NotReadings("it is empty".into())),
            (_, Some(b'[')) => self.array(&text, bound),
            (Framing::Json, _) => self.object(&text, bound),
            (Framing::Auto, _) if is_one_object(value) => self.object(&text, bound),
            (Framing::Auto, _) => {
                self.lines(&text, bound);
                Ok(())
            }
        };
        self.tail = tail;
        let decoded = self.sorter.end();
        result.map(|()| decoded)
    }

    /// Whether a value can stand in a run with others: an array cannot, as a broken end refuses all of it.
    pub fn joins(value: &[u8]) -> bool {
        value.iter().find(|byte| !is_blank(**byte)) != Some(&b'[')
    }

    /// Decodes the values of a run of records of one partition as though they were one: each an object, an array or
    /// lines, of one record an array too. The partition is the one they lie on, whatever their machines' names say. A
    /// value that is no readings at all is one refused message.
    pub fn decode_run<'a>(
        &mut self,
        records: impl IntoIterator<Item = (&'a [u8], Span), IntoIter: Clone>,
        bound: &dyn Fn(&str) -> Option<String>,
    ) -> Run {
        let records = records.into_iter();
        self.sorter.begin(records.clone().map(|(value, _)| value.len()).sum(), 0);
        let mut run = Run::default();
        let mut ends = Vec::new();
        for (value, span) in records {
            self.sorter.begin_record(span);
            let value = value.strip_prefix(b"\xef\xbb\xbf").unwrap_or(value);
            let mut tail = std::mem::take(&mut self.tail);
            let text = Text::new(value, &mut tail);
            let read = match value.iter().find(|byte| !is_blank(**byte)) {
                None => Err((ErrorCode::Empty, NotReadings("it is empty".into()))),
                Some(b'[') => self.array(&text, bound).map_err(|error| (ErrorCode::NotJson, error)),
                // A line is a message, and so is an object of several lines.
                Some(_) if memchr::memchr(b'\n', value).is_some() && is_one_object(value) => {
                    self.object(&text, bound).map_err(|error| (ErrorCode::NotJson, error))
                }
                Some(_) => {
                    self.lines(&text, bound);
                    Ok(())
                }
            };
            self.tail = tail;
            if let Err((code, error)) = read {
                self.sorter.refuse_record(code, &error.to_string(), value);
            }
            run.messages.push(self.sorter.messages());
            ends.push(self.sorter.rejects());
        }
        let Decoded { batches, rejects, unknown_keys, rounded, .. } = self.sorter.end();
        run.batches = batches.into_iter().map(|(_, batch)| batch).collect();
        let record_of = |at: usize| ends.partition_point(|end| *end <= at);
        run.rejects = rejects.into_iter().enumerate().map(|(at, reject)| (record_of(at), reject)).collect();
        (run.unknown_keys, run.rounded) = (unknown_keys, rounded);
        run
    }

    /// Every line that is not blank is one message.
    fn lines(&mut self, text: &Text<'_>, bound: &Bound<'_>) {
        let value = text.value;
        let mut at = 0;
        while at < value.len() {
            if let Some(end) = self.fast(text, at, true, bound) {
                let spaces = value[end..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
                if spaces <= SPACES_MAX && matches!(value.get(end + spaces), Some(b'\n') | None) {
                    self.sorter.accept(&self.row);
                    at = end + spaces + 1;
                    continue;
                }
            }
            let end = memchr::memchr(b'\n', &value[at..]).map_or(value.len(), |length| at + length);
            let line = &value[at..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.iter().all(|byte| is_blank(*byte)) {
                self.slow(line, bound);
            }
            at = end + 1;
        }
    }

    /// One message, which is an object.
    fn object(&mut self, text: &Text<'_>, bound: &Bound<'_>) -> Result<(), NotReadings> {
        let value = text.value;
        let object: &RawValue = serde_json::from_slice(value).map_err(|error| NotReadings(error.to_string()))?;
        let object = object.get().as_bytes();
        if object.first() != Some(&b'{') {
            return Err(NotReadings("it is a bare value".into()));
        }
        self.slow(object, bound);
        Ok(())
    }

    /// Every element is one message; where the syntax breaks, nothing of it is.
    fn array(&mut self, text: &Text<'_>, bound: &Bound<'_>) -> Result<(), NotReadings> {
        let value = text.value;
        let skip = |at: usize| at + value[at..].iter().take_while(|byte| is_blank(**byte)).count();
        let broken = |what: String, at: usize| NotReadings(format!("{what} at byte {at} of the array"));
        let mut at = skip(skip(0) + 1);
        if value.get(at) != Some(&b']') {
            loop {
                at = match self.fast(text, at, false, bound).map(&skip) {
                    Some(end) if matches!(value.get(end), Some(b',' | b']')) => {
                        self.sorter.accept(&self.row);
                        end
                    }
                    _ => {
                        let mut elements = serde_json::Deserializer::from_slice(&value[at..]).into_iter::<&RawValue>();
                        let element = match elements.next() {
                            Some(Ok(element)) => element,
                            Some(Err(error)) => return Err(broken(error.to_string(), at)),
                            None => return Err(broken("it ends".into(), at)),
                        };
                        let end = at + elements.byte_offset();
                        self.slow(element.get().as_bytes(), bound);
                        skip(end)
                    }
                };
                match value.get(at) {
                    Some(b',') => at = skip(at + 1),
                    Some(b']') => break,
                    Some(_) => return Err(broken("neither comma nor bracket".into(), at)),
                    None => return Err(broken("it ends".into(), at)),
                }
            }
        }
        let after = skip(at + 1);
        if after < value.len() { Err(broken("something follows".into(), after)) } else { Ok(()) }
    }

    /// Reads a message that is written like one of the last ones into the row; the place after it.
    fn fast(&mut self, text: &Text<'_>, at: usize, one_line: bool, bound: &Bound<'_>) -> Option<usize> {
        let (buffer, from) = text.with_room(at);
        let end = self.templates.read(&buffer[at - from..], one_line, &mut self.sorter, &mut self.row, bound)?;
        Some(at + end)
    }

    /// Reads any message.
    fn slow(&mut self, text: &[u8], bound: &Bound<'_>) {
        match message::read(text, &mut self.sorter, &mut self.row, bound) {
            Ok(()) => {
                self.sorter.accept(&self.row);
                self.templates.learn(text, &self.sorter, &self.row);
            }
            Err(refusal) => self.sorter.refuse(refusal, text),
        }
    }
}

/// A value and its end once more, with room to look ahead behind it.
struct Text<'a> {
    value: &'a [u8],
    tail: &'a [u8],
    /// Where the tail begins in the value.
    tail_at: usize,
}

impl<'a> Text<'a> {
    /// Longer than what most messages take, so that only the last few are read from the tail.
    const TAIL: usize = 1024;
    const ROOM: usize = 64;

    fn new(value: &'a [u8], tail: &'a mut Vec<u8>) -> Text<'a> {
        let tail_at = value.len().saturating_sub(Text::TAIL);
        tail.clear();
        tail.extend_from_slice(&value[tail_at..]);
        tail.resize(tail.len() + Text::ROOM, 0);
        Text { value, tail, tail_at }
    }

    /// The bytes to read from a place, and where they begin.
    fn with_room(&self, at: usize) -> (&'a [u8], usize) {
        if at < self.tail_at { (self.value, 0) } else { (self.tail, self.tail_at) }
    }
}

/// So many may stand behind a message that the fast path takes, so that it is never above the size limit.
const SPACES_MAX: usize = 64;

/// JSON's white space.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether a value is one object over several lines; a first line that is JSON by itself says no at once.
fn is_one_object(value: &[u8]) -> bool {
    let Some(from) = value.iter().position(|byte| !is_blank(*byte)) else { return false };
    let value = &value[from..];
    let first_line = memchr::memchr(b'\n', value).map_or(value, |end| &value[..end]);
    let is_json = |text| serde_json::from_slice::<&RawValue>(text).is_ok();
    value[0] == b'{' && !is_json(first_line) && is_json(value)
}
