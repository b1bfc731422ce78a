//! The fast path: messages that are written like one of the last ones, byte for byte but for the values.
//!
//! A [`Template`] is the text of an accepted message with its values cut out. A message is read by comparing what lies
//! between the values with the template's, in place, and by reading each value as its channel wants it. Whatever is not
//! as expected ends the attempt: an escape, a number of unusual form, a value out of range, a machine that was not seen
//! yet. Nothing is refused here.

use super::{Bound, Row, is_blank, sorter::Sorter};
use crate::{Quality, scaled, time};
use catalog::{Class, State};
use std::sync::Arc;

/// So many ways of writing are remembered.
const TEMPLATES_MAX: usize = 16;
/// Once they are that many, one message in so many that no template fits replaces the one unused for longest.
const LEARN_EVERY: u32 = 64;
/// A literal may be so long, so that no template is longer than a message.
const LITERAL_MAX: usize = 256;

/// The templates, the last that fitted first.
pub(super) struct Templates {
    templates: Vec<Template>,
    clock: Clock,
    /// Messages that no template fitted while there was no room for one more.
    unlearnt: u32,
    learns: bool,
}

/// One way of writing a message of one class.
#[derive(Debug, PartialEq)]
struct Template {
    class: usize,
    class_named: bool,
    /// Stands on one line.
    one_line: bool,
    pieces: Vec<Piece>,
    /// What follows the last value.
    end: Literal,
    /// Channels that it does not have, and
    absent: Vec<usize>,
    /// their quality bits.
    missing: u128,
    /// Number of the class's attributes.
    attributes: usize,
    /// It fills columns that most batches do not need.
    is_rich: bool,
}

/// What stands before a value, and what the value is.
#[derive(Debug, PartialEq)]
struct Piece {
    before: Literal,
    slot: Slot,
}

/// Where a value goes.
#[derive(Debug, PartialEq)]
enum Slot {
    Machine,
    Time,
    Channel(Limits),
    Seq,
    /// Attribute and its words, each with the quote that ends it.
    Attribute(usize, Words),
    State(Words),
}

/// What the class says of a channel.
#[derive(Debug, PartialEq)]
struct Limits {
    at: usize,
    scale: u8,
    optional: bool,
    range: (i64, i64),
    plausible: (i64, i64),
}

/// Words and the numbers that stand for them.
type Words = Vec<(Literal, u8)>;

impl Templates {
    pub(super) fn new() -> Templates {
        Templates { templates: Vec::new(), clock: Clock::new(), unlearnt: 0, learns: true }
    }

    /// Templates that never learn one.
    pub(super) fn none() -> Templates {
        Templates { learns: false, ..Templates::new() }
    }

    /// Reads the message that begins the buffer into the row; its length. `one_line`: it must not run over a line's end.
    #[inline]
    pub(super) fn read(
        &mut self,
        buffer: &[u8],
        one_line: bool,
        sorter: &mut Sorter,
        row: &mut Row,
        bound: &Bound<'_>,
    ) -> Option<usize> {
        for nth in 0..self.templates.len() {
            let template = &self.templates[nth];
            if one_line && !template.one_line {
                continue;
            }
            if let Some(end) = template.read(buffer, &mut self.clock, sorter, row, bound) {
                if nth > 0 {
                    self.templates[..=nth].rotate_right(1);
                }
                return Some(end);
            }
        }
        None
    }

    /// Remembers how an accepted message is written.
    pub(super) fn learn(&mut self, text: &[u8], sorter: &Sorter, row: &Row) {
        if !self.learns || row.unknown_keys > 0 || row.rare.links.is_some() {
            return;
        }
        if self.templates.len() == TEMPLATES_MAX {
            self.unlearnt += 1;
            if !self.unlearnt.is_multiple_of(LEARN_EVERY) {
                return;
            }
        }
        let class = &sorter.classes[row.class];
        let Some(template) = Template::of(text, row.class, class) else { return };
        if !self.templates.contains(&template) {
            self.templates.truncate(TEMPLATES_MAX - 1);
            self.templates.insert(0, template);
        }
    }
}

impl Template {
    fn read(
        &self,
        buffer: &[u8],
        clock: &mut Clock,
        sorter: &mut Sorter,
        row: &mut Row,
        bound: &Bound<'_>,
    ) -> Option<usize> {
        let mut at = 0;
        let (mut quality, mut rounded) = (self.missing, 0);
        // What is not marked is clear.
        if self.is_rich || row.rare.any || row.rare.attributes.len() != self.attributes {
            row.rare.clear(self.attributes);
            row.rare.any = self.is_rich;
        }
        for Piece { before, slot } in &self.pieces {
            at = before.after(buffer, at)?;
            match slot {
                Slot::Channel(limits) => {
                    let (value, end, was_rounded) = match number(buffer, at, limits.scale) {
                        Some(number) => number,
                        None if limits.optional && buffer.get(at..)?.starts_with(b"null") => {
                            row.values[limits.at] = 0;
                            quality |= Quality::Missing.bits(limits.at);
                            at += 4;
                            continue;
                        }
                        None => return None,
                    };
                    if value < limits.range.0 || value > limits.range.1 {
                        return None;
                    }
                    if value < limits.plausible.0 || value > limits.plausible.1 {
                        quality |= Quality::Bad.bits(limits.at);
                    }
                    row.values[limits.at] = value;
                    rounded += u32::from(was_rounded);
                    at = end;
                }
                Slot::Machine => {
                    let (machine, length) = sorter.machines.read(buffer.get(at..)?)?;
                    row.machine = machine;
                    at += length;
                }
                Slot::Time => {
                    let (said_us, end) = clock.read(buffer, at)?;
                    row.timestamp_us = sorter.event_time(said_us)?;
                    at = end;
                }
                Slot::Seq => {
                    let (seq, end, was_rounded) = number(buffer, at, 0)?;
                    if was_rounded {
                        return None;
                    }
                    row.rare.seq = Some(seq);
                    at = end;
                }
                Slot::Attribute(nth, words) => {
                    let (word, end) = read_word(buffer, at, words)?;
                    *row.rare.attributes.get_mut(*nth)? = word;
                    at = end;
                }
                Slot::State(words) => {
                    let (word, end) = read_word(buffer, at, words)?;
                    row.rare.state = Some(word);
                    at = end;
                }
            }
        }
        at = self.end.after(buffer, at)?;
        sorter.refresh(row.machine, bound);
        let fits = if self.class_named {
            sorter.is_bound_to(row.machine, self.class)
        } else {
            sorter.machines.get(row.machine).unnamed as usize == self.class
        };
        if !fits {
            return None;
        }
        row.class = self.class;
        row.class_named = self.class_named;
        (row.rounded, row.unknown_keys) = (rounded, 0);
        if quality != 0 {
            row.rare.quality = quality;
            row.rare.any = true;
        }
        self.absent.iter().for_each(|channel| row.values[*channel] = 0);
        Some(at)
    }

    /// The template of an accepted message, unless something in it wants serde_json.
    fn of(text: &[u8], class: usize, schema: &Arc<Class>) -> Option<Template> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut class_named = false;
        // What stands before the next value begins at `from`.
        let (mut from, mut at) = (0, skip(text, 0) + 1);
        loop {
            at = skip(text, at);
            if text.get(at) == Some(&b'}') {
                break;
            }
            let key_end = plain_string(text, at)?;
            let key = std::str::from_utf8(&text[at + 1..key_end - 1]).ok()?;
            // Past the colon.
            at = skip(text, skip(text, key_end) + 1);
            let end = match text.get(at)? {
                b'"' => plain_string(text, at)?,
                b'{' | b'[' => return None,
                _ => {
                    at + text[at..].iter().take_while(|byte| !matches!(byte, b',' | b'}') && !is_blank(**byte)).count()
                }
            };
            let is_text = text[at] == b'"';
            let is_null = text[at] == b'n';
            let slot = match key {
                "machine_id" => Some(Slot::Machine),
                "timestamp" => Some(Slot::Time),
                "class" => {
                    class_named |= is_text;
                    None
                }
                "seq" => (!is_null).then_some(Slot::Seq),
                "machine_state" if is_text => Some(Slot::State(words(State::ALL.iter().map(|state| state.as_str()))?)),
                "machine_state" | "quality" | "links" => None,
                _ => match schema.channel_index(key) {
                    Some(at) => Some(Slot::Channel(Limits::of(schema, at))),
                    None => {
                        let nth = schema.attributes.iter().position(|attribute| attribute.id == key)?;
                        let known = schema.attributes[nth].values.iter().map(|value| &**value);
                        if is_text { Some(Slot::Attribute(nth, words(known)?)) } else { None }
                    }
                },
            };
            if let Some(slot) = slot {
                let value = if is_text { at + 1 } else { at };
                pieces.push(Piece { before: Literal::new(&text[from..value])?, slot });
                from = if is_text { end - 1 } else { end };
            }
            at = skip(text, end);
            if text.get(at) == Some(&b',') {
                at += 1;
            }
        }
        let end = Literal::new(&text[from..=at])?;
        let one_line = !text.contains(&b'\n');
        let has = |channel: &usize| {
            pieces.iter().any(|piece| matches!(&piece.slot, Slot::Channel(limits) if limits.at == *channel))
        };
        let absent: Vec<usize> = (0..schema.channels.len()).filter(|channel| !has(channel)).collect();
        let missing = absent.iter().fold(0, |bits, channel| bits | Quality::Missing.bits(*channel));
        let is_rich = pieces.iter().any(|piece| matches!(piece.slot, Slot::Seq | Slot::Attribute(..) | Slot::State(_)));
        let attributes = schema.attributes.len();
        Some(Template { class, class_named, one_line, pieces, end, absent, missing, attributes, is_rich })
    }
}

impl Limits {
    fn of(schema: &Class, at: usize) -> Limits {
        let channel = &schema.channels[at];
        Limits {
            at,
            scale: channel.scale,
            optional: channel.optional,
            range: channel.range,
            plausible: channel.plausible,
        }
    }
}

/// The place after white space.
fn skip(text: &[u8], at: usize) -> usize {
    at + text[at..].iter().take_while(|byte| is_blank(**byte)).count()
}

/// The place after a string that begins here and has no escapes.
fn plain_string(text: &[u8], quote: usize) -> Option<usize> {
    let rest = text.get(quote + 1..)?;
    let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    (rest[length] == b'"').then_some(quote + length + 2)
}

/// Words as they stand in JSON up to the quote that ends them.
fn words<'a>(words: impl Iterator<Item = &'a str>) -> Option<Words> {
    (0..)
        .zip(words)
        .filter(|(_, word)| !word.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\'))
        .map(|(at, word)| Some((Literal::new(format!("{word}\"").as_bytes())?, at)))
        .collect()
}

/// One of the words, up to its closing quote, which is not part of it.
fn read_word(buffer: &[u8], at: usize, words: &Words) -> Option<(u8, usize)> {
    words.iter().find_map(|(word, number)| Some((*number, word.after(buffer, at)? - 1)))
}

/// Bytes that must stand somewhere, compared 32 at once.
#[derive(Debug, PartialEq)]
struct Literal {
    words: [u64; 4],
    masks: [u64; 4],
    /// What is longer than 32 bytes.
    rest: Vec<u8>,
    length: usize,
}

impl Literal {
    fn new(text: &[u8]) -> Option<Literal> {
        if text.len() > LITERAL_MAX {
            return None;
        }
        let (head, rest) = text.split_at(text.len().min(32));
        let mut bytes = [0; 32];
        let mut mask = [0; 32];
        bytes[..head.len()].copy_from_slice(head);
        mask[..head.len()].fill(0xff);
        Some(Literal { words: words_of(&bytes), masks: words_of(&mask), rest: rest.to_vec(), length: text.len() })
    }

    /// The place behind it, where it stands here.
    #[inline(always)]
    fn after(&self, buffer: &[u8], at: usize) -> Option<usize> {
        let window = words_of(buffer.get(at..)?.first_chunk()?);
        let differs = (0..4).fold(0, |differs, nth| differs | ((window[nth] ^ self.words[nth]) & self.masks[nth]));
        let is_here = differs == 0 && (self.rest.is_empty() || buffer[at + 32..].starts_with(&self.rest));
        is_here.then_some(at + self.length)
    }
}

#[inline(always)]
fn words_of(bytes: &[u8; 32]) -> [u64; 4] {
    let words = bytes.as_chunks::<8>().0;
    [0, 1, 2, 3].map(|nth| u64::from_le_bytes(words[nth]))
}

/// Reads a number at a scale: (value, the place after it, it was rounded).
#[inline(always)]
fn number(buffer: &[u8], at: usize, scale: u8) -> Option<(i64, usize, bool)> {
    let is_negative = *buffer.get(at)? == b'-';
    let from = at + usize::from(is_negative);
    let word = u64::from_le_bytes(*buffer.get(from..)?.first_chunk()?);
    match short_number(word, scale) {
        Some((value, length)) => Some((if is_negative { -value } else { value }, from + length, false)),
        None => long_number(buffer, at, scale),
    }
}

/// Powers of ten up to the most decimals of a channel.
const POWERS: [i64; 10] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Reads a number without sign and exponent that ends within 8 bytes, with no more decimals than the scale keeps.
#[inline(always)]
fn short_number(word: u64, scale: u8) -> Option<(i64, usize)> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let digits = word ^ (ONES * 0x30);
    // Bit 7 of each byte that is no digit.
    let others = (((digits & (ONES * 0x7f)) + ONES * 0x76) | digits) & (ONES << 7);
    let whole = others.trailing_zeros() / 8;
    // The byte after the whole part: 8 digits in a row do not end here.
    if whole == 0 || whole == 8 {
        return None;
    }
    let has_point = (word >> (8 * whole)) & 0xff == u64::from(b'.');
    let after_point = (others & (others - 1)).trailing_zeros() / 8;
    let (length, decimals) = if has_point { (after_point, after_point.wrapping_sub(whole + 1)) } else { (whole, 0) };
    let starts_with_zero = digits & 0xff == 0 && whole > 1;
    let bare_point = has_point && decimals == 0;
    if starts_with_zero || bare_point || length == 8 || decimals > u32::from(scale) {
        return None;
    }
    // Closes the gap of the point, then moves the last digit to the end of the word.
    let low = !(u64::MAX << (8 * whole));
    let joined = if has_point { (digits & low) | ((digits >> 8) & !low) } else { digits };
    let count = whole + decimals;
    let value = eight_digits(joined << (8 * (8 - count)));
    Some((i64::from(value) * POWERS[usize::from(scale - decimals as u8)], length as usize))
}

/// The number of eight digits (0 to 9 each), the first in the lowest byte.
#[inline(always)]
fn eight_digits(digits: u64) -> u32 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    (low.wrapping_add(high) >> 32) as u32
}

#[inline(never)]
fn long_number(buffer: &[u8], at: usize, scale: u8) -> Option<(i64, usize, bool)> {
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let length = buffer[at..].iter().take(64).take_while(is_part).count();
    let (value, was_rounded) = scaled(&buffer[at..at + length], scale).ok()?;
    Some((value, at + length, was_rounded))
}

/// Reads times quickly by remembering the minute.
struct Clock {
    /// Date, hour and minute as last read, and what they are.
    minute: [u8; 16],
    minute_us: i64,
}

impl Clock {
    fn new() -> Clock {
        Clock { minute: *b"1970-01-01T00:00", minute_us: 0 }
    }

    /// Reads a time up to the quote that ends it: (time, place of the quote).
    #[inline(always)]
    fn read(&mut self, buffer: &[u8], at: usize) -> Option<(i64, usize)> {
        let text: &[u8; 32] = buffer.get(at..)?.first_chunk()?;
        if text[..16] == self.minute {
            let (tens, ones) = (text[17].wrapping_sub(b'0'), text[18].wrapping_sub(b'0'));
            if text[16] == b':' && tens < 6 && ones < 10 {
                let us = self.minute_us + i64::from(tens * 10 + ones) * 1_000_000;
                if text[19] == b'Z' {
                    return Some((us, at + 20));
                }
                if text[19] == b'.' && text[23] == b'Z' {
                    let milli = text[20..23].iter().try_fold(0, |milli, digit| {
                        let digit = digit.wrapping_sub(b'0');
                        (digit < 10).then_some(milli * 10 + i64::from(digit))
                    })?;
                    return Some((us + milli * 1000, at + 24));
                }
            }
        }
        self.read_any(buffer, at)
    }

    #[inline(never)]
    fn read_any(&mut self, buffer: &[u8], at: usize) -> Option<(i64, usize)> {
        let text = &buffer[at..];
        let length = text.iter().take(64).position(|byte| *byte == b'"')?;
        let us = time::parse_time(&text[..length]).ok()?;
        let mut minute = *b"1970-01-01T00:00:00";
        minute[..16].copy_from_slice(&text[..16]);
        self.minute_us = time::parse_time(&minute).ok()?;
        self.minute.copy_from_slice(&minute[..16]);
        Some((us, at + length))
    }
}
