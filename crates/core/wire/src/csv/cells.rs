//! One record to one reading.

use super::{CsvOptions, Zone, header::Header, records::Records};
use crate::{
    ErrorCode, Quality, ReadingBatch, ScaledError,
    json::{
        Bound,
        message::{missing, outside, shown, unknown_word, wrong_type},
        row::Row,
        sorter::{MESSAGE_MAX, Refusal, Sorter},
    },
    number::scaled_loose,
    time,
};
use catalog::{Channel, Class, MachineId, State};
use std::borrow::Cow;

/// What stands before the decimals of a file: whichever the first number with decimals has. A comma does only in files
/// that are separated by semicolons; a file with both is no longer clear, since one of them may group thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecimalMark {
    Unknown,
    Point,
    Comma,
}

/// A refusal, and the cell that it names.
type Refused = (Refusal, Option<usize>);

/// The record at hand and how it is to be taken.
pub(super) struct Cells<'a> {
    pub(super) records: &'a Records,
    pub(super) header: &'a Header,
    pub(super) options: &'a CsvOptions,
    pub(super) zone: &'a Zone<'a>,
    pub(super) bound: &'a Bound<'a>,
    pub(super) class_at: Option<usize>,
    /// Event time in a file without a time column.
    pub(super) default_us: i64,
}

impl Cells<'_> {
    /// Reads the record into the row.
    pub(super) fn read(
        &self,
        class: &Class,
        raw: &[u8],
        sorter: &mut Sorter,
        row: &mut Row,
        mark: &mut DecimalMark,
    ) -> Result<(), Refused> {
        if raw.len() > MESSAGE_MAX {
            let error = format!("the row has {} bytes, {MESSAGE_MAX} are allowed", raw.len());
            return Err((Refusal::new(ErrorCode::TooLong, error), None));
        }
        row.machine = sorter.machine(self.machine()?, self.bound);
        let result = self.after_machine(class, sorter, row, mark);
        result.map_err(|(refusal, cell)| (Refusal { machine: Some(row.machine), ..refusal }, cell))
    }

    /// A cell as text, `None` where it is empty.
    fn text(&self, cell: usize) -> Result<Option<&str>, Refused> {
        let text = std::str::from_utf8(self.records.cell(cell).unwrap_or_default());
        let text = text.map_err(|_| (Refusal::new(ErrorCode::NotCsv, "the cell is not UTF-8"), Some(cell)))?;
        Ok(Some(text.trim()).filter(|text| !text.is_empty()))
    }

    fn machine(&self) -> Result<MachineId, Refused> {
        let Some(cell) = self.header.machine else { return Ok(self.options.machine.clone()) };
        let name = self.text(cell)?.ok_or_else(|| (missing("machine_id"), Some(cell)))?;
        MachineId::try_from(name)
            .map_err(|error| (Refusal::new(ErrorCode::BadMachineId, error.to_string()), Some(cell)))
    }

    fn after_machine(
        &self,
        class: &Class,
        sorter: &mut Sorter,
        row: &mut Row,
        mark: &mut DecimalMark,
    ) -> Result<(), Refused> {
        row.class_named = false;
        row.class = match self.class_at {
            Some(at) if sorter.is_bound_to(row.machine, at) => at,
            _ => sorter.class_of(row.machine, Some(&class.id), self.bound).map_err(|refusal| (refusal, None))?,
        };
        let (cells, expected) = (self.records.cells(), self.header.names.len());
        if cells != expected {
            let error = format!("the row has {cells} cells, the header {expected}");
            return Err((Refusal::new(ErrorCode::NotCsv, error), None));
        }
        let said_us = self.event_time()?;
        row.timestamp_us = sorter.event_time(said_us).ok_or_else(|| (sorter.refuse_time(said_us), self.header.time))?;
        row.rare.clear(class.attributes.len());
        (row.rounded, row.unknown_keys) = (0, self.header.ignored.len() as u32);
        for (at, channel) in class.channels.iter().enumerate() {
            let cell = self.header.channels[at];
            let named = |refusal| (Refusal { channel: Some((row.class, at)), ..refusal }, cell);
            let text = match cell {
                Some(cell) => self.text(cell)?,
                None => None,
            };
            match text {
                Some(text) => {
                    let (value, was_rounded) = self.number(channel, text, mark).map_err(named)?;
                    row.values[at] = value;
                    row.rounded += u32::from(was_rounded);
                    if value < channel.plausible.0 || value > channel.plausible.1 {
                        row.rare.quality |= Quality::Bad.bits(at);
                    }
                }
                None if channel.optional => {
                    row.values[at] = 0;
                    row.rare.quality |= Quality::Missing.bits(at);
                }
                None => return Err(named(missing(&channel.id))),
            }
        }
        self.words(class, row)?;
        row.rare.settle();
        Ok(())
    }

    /// What is no channel.
    fn words(&self, class: &Class, row: &mut Row) -> Result<(), Refused> {
        for (at, attribute) in class.attributes.iter().enumerate() {
            let Some(cell) = self.header.attributes[at] else { continue };
            row.rare.attributes[at] = match self.text(cell)? {
                None => ReadingBatch::NONE,
                Some(word) => match attribute.values.iter().position(|value| value == word) {
                    Some(value) => value as u8,
                    None => {
                        let known = attribute.values.iter().map(|value| &**value);
                        return Err((unknown_word(&attribute.id, word, known), Some(cell)));
                    }
                },
            };
        }
        if let Some(cell) = self.header.seq {
            let seq = |text: &str| match scaled_loose(text.as_bytes(), 0) {
                Ok((seq, false)) => Ok(seq),
                _ => Err((wrong_type("seq", "a whole number of 64 bits", text), Some(cell))),
            };
            row.rare.seq = self.text(cell)?.map(seq).transpose()?;
        }
        if let Some(cell) = self.header.state {
            let state = |word: &str| {
                let known = State::ALL.iter().map(|state| state.as_str());
                State::from_word(word)
                    .map(|state| state as u8)
                    .ok_or_else(|| (unknown_word("machine_state", word, known), Some(cell)))
            };
            row.rare.state = self.text(cell)?.map(state).transpose()?;
        }
        Ok(())
    }

    fn event_time(&self) -> Result<i64, Refused> {
        let Some(cell) = self.header.time else { return Ok(self.default_us) };
        let text = self.text(cell)?.ok_or_else(|| (missing("timestamp"), Some(cell)))?;
        event_time(text, self.zone).ok_or_else(|| {
            let error = format!(
                "timestamp is {}, expected is a time such as 2025-11-07T15:10:01Z or 2025-11-07 15:10:01, or Unix \
                 seconds or milliseconds",
                shown(text)
            );
            (Refusal::new(ErrorCode::BadTime, error), Some(cell))
        })
    }

    fn number(&self, channel: &Channel, text: &str, mark: &mut DecimalMark) -> Result<(i64, bool), Refusal> {
        let unclear = |other: &str| {
            let error = format!("{} is {}, but earlier numbers of the file have {other}", channel.id, shown(text));
            Err(Refusal::new(ErrorCode::WrongType, error))
        };
        let mut number = Cow::Borrowed(text);
        if self.header.delimiter == b';' {
            match (text.contains('.'), text.contains(','), *mark) {
                (true, false, DecimalMark::Comma) => return unclear("a comma before their decimals"),
                (false, true, DecimalMark::Point) => return unclear("a point before their decimals"),
                (true, false, _) => *mark = DecimalMark::Point,
                (false, true, _) => {
                    *mark = DecimalMark::Comma;
                    number = Cow::Owned(text.replace(',', "."));
                }
                // Both: no number in any case.
                _ => {}
            }
        }
        match scaled_loose(number.as_bytes(), channel.scale) {
            Ok((value, _)) if value < channel.range.0 || value > channel.range.1 => Err(outside(channel, text)),
            Ok(number) => Ok(number),
            Err(ScaledError::TooLarge) => Err(outside(channel, text)),
            Err(ScaledError::NotANumber) if is_not_finite(text) => Err(Refusal::new(
                ErrorCode::NotFinite,
                format!("{} is {}, a finite number is expected", channel.id, shown(text)),
            )),
            Err(ScaledError::NotANumber) => Err(wrong_type(&channel.id, "a number", text)),
        }
    }
}

/// As programs write NaN and infinity.
fn is_not_finite(text: &str) -> bool {
    let word = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    matches!(&*word, "nan" | "inf" | "infinity")
}

/// A date and time, or a number of seconds or milliseconds since 1970; the latter from 10^11 on, which is the year 5138
/// in seconds and 1973 in milliseconds.
fn event_time(text: &str, zone: &Zone<'_>) -> Option<i64> {
    if let Ok((local_us, offset_us)) = time::parse_local(text.as_bytes()) {
        return Some(match offset_us {
            Some(offset_us) => local_us - offset_us,
            None => zone(local_us),
        });
    }
    // Digits finer than microseconds are cut, as those of a time are.
    let cut = |text: &str, decimals: usize| match text.split_once('.') {
        Some((whole, part)) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{whole}.{}", &part[..part.len().min(decimals)])
        }
        _ => text.to_owned(),
    };
    let (whole, _) = scaled_loose(cut(text, 0).as_bytes(), 0).ok()?;
    let decimals = if whole.unsigned_abs() < 100_000_000_000 { 6 } else { 3 };
    scaled_loose(cut(text, usize::from(decimals)).as_bytes(), decimals).ok().map(|(us, _)| us)
}

/// A cell of 0 or 1; `None` where it is empty.
pub(super) fn label(cell: &[u8]) -> Result<Option<bool>, ()> {
    if cell.is_empty() {
        return Ok(None);
    }
    if cell.eq_ignore_ascii_case(b"true") {
        return Ok(Some(true));
    }
    if cell.eq_ignore_ascii_case(b"false") {
        return Ok(Some(false));
    }
    match scaled_loose(cell, 0) {
        Ok((0, false)) => Ok(Some(false)),
        Ok((1, false)) => Ok(Some(true)),
        _ => Err(()),
    }
}
