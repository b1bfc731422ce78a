//! Readings as CSV (SPEC.md 3.2): comma or semicolon, BOM, CRLF, quotes; headers matched by the class.
//!
//! The text comes in pieces, so that a file of any length needs little memory; a row has the meaning of the JSON message
//! with the same values. Knows neither files nor time zones: the caller reads the one and translates by the other.

mod cells;
mod header;
mod records;
#[cfg(test)]
mod tests;

use crate::{
    Decoded,
    json::{Bound, row::Row, sorter::Sorter},
};
use catalog::{Catalogue, Class, MachineId};
use cells::DecimalMark;
use header::Header;
use records::Records;
use std::sync::Arc;

/// 2020-01-01T00:00:00Z, where the rows of a file without times begin.
const START_US: i64 = 1_577_836_800_000_000;

/// How the columns of a file are to be taken.
#[derive(Debug, Clone)]
pub struct CsvOptions {
    /// Column with the event time; without it `timestamp` or `datetime`, where there is one.
    pub time_column: Option<String>,
    /// Column with the machine's name; without it `machine_id` or `machineID`, where there is one.
    pub machine_column: Option<String>,
    /// Distance of the rows of a file without a time column, microseconds.
    pub interval_us: i64,
    /// The machine of a file without a machine column.
    pub machine: MachineId,
    /// Columns of 0 and 1 to be read beside the readings; no channel is taken from them.
    pub labels: Vec<String>,
}

/// Why a file cannot be read on, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct CsvError {
    /// Where.
    pub place: CsvPlace,
    /// What.
    pub problem: CsvProblem,
}

/// A place in a file, from 1: the line, and the character in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub struct CsvPlace {
    pub line: u64,
    pub column: u64,
}

/// What is wrong with a file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CsvProblem {
    #[error("the file has no header line")]
    Empty,
    #[error("the header line is not UTF-8")]
    NotText,
    /// Columns of the class that the header lacks: the names that would do, for each.
    #[error("no column for {}", .missing.iter().map(|names| names.join(" or ")).collect::<Vec<_>>().join(", and none for "))]
    MissingColumns { missing: Vec<Vec<String>>, headers: Vec<String> },
    /// A column that the options name.
    #[error("there is no column `{name}`")]
    NoColumn { name: String, headers: Vec<String> },
    #[error("the columns `{first}` and `{second}` both hold {what}")]
    Twice { what: String, first: String, second: String },
    #[error("the row has more than 262144 bytes: is a quote not closed?")]
    TooLong,
    #[error("column `{header}` is `{cell}`, 0 or 1 is expected")]
    Label { header: String, cell: String },
}

/// Some rows of a file.
#[derive(Debug, Default)]
pub struct CsvRows {
    /// The readings and what was refused; an `index` counts from the first of these rows.
    pub decoded: Decoded,
    /// Bytes of the text that were read.
    pub bytes: usize,
    /// Place in the file of the first of these rows, from 0.
    pub first_row: u64,
    /// Per refused row: its place, at the cell that was refused where one was.
    pub places: Vec<CsvPlace>,
    /// Per column of [`CsvOptions::labels`] that the file has, refused rows counted: 1, 0, or `None` for an empty cell.
    pub labels: Vec<Vec<Option<bool>>>,
}

/// Reads the rows of one class's file.
pub struct CsvDecoder {
    class: Arc<Class>,
    options: CsvOptions,
    sorter: Sorter,
    row: Row,
    records: Records,
    header: Option<Header>,
    decimal_mark: DecimalMark,
    /// Line of the next byte, from 1.
    line: u64,
    /// Rows read.
    rows: u64,
    /// The place of the class in the sorter.
    class_at: Option<usize>,
}

/// See [`CsvDecoder::decode`].
type Zone<'a> = dyn Fn(i64) -> i64 + 'a;

impl CsvDecoder {
    /// Text that holds so many bytes, or all that are left, always lets [`CsvDecoder::decode`] go on.
    pub const TEXT_MIN: usize = 512 * 1024;

    /// A decoder before the first byte of a file whose rows are readings of a class.
    pub fn new(catalogue: Arc<Catalogue>, class: Arc<Class>, partitions: u16, options: CsvOptions) -> CsvDecoder {
        let catalogue_class = catalogue.class(&class.id).cloned();
        let sorter = Sorter::new(catalogue, partitions);
        CsvDecoder {
            class_at: sorter.classes.iter().position(|known| known.id == class.id),
            class: catalogue_class.unwrap_or(class),
            options,
            sorter,
            row: Row::default(),
            records: Records::new(),
            header: None,
            decimal_mark: DecimalMark::Unknown,
            line: 1,
            rows: 0,
        }
    }

    /// Decodes at most so many rows from the text that follows what was read before; `is_end`: nothing comes after it.
    ///
    /// A row that the text does not hold to its end is left for the next call. `zone` translates times that have no
    /// offset of their own, from microseconds since 1970 as the clock on the wall shows them to UTC. `bound` names the
    /// class that a machine already has.
    ///
    /// # Errors
    /// The file cannot be read on: see [`CsvProblem`].
    pub fn decode(
        &mut self,
        text: &[u8],
        is_end: bool,
        rows: usize,
        arrived_us: i64,
        zone: &Zone<'_>,
        bound: &Bound<'_>,
    ) -> Result<CsvRows, CsvError> {
        let mut out = CsvRows { first_row: self.rows, ..CsvRows::default() };
        let header = match self.header.take() {
            Some(header) => header,
            None => {
                let Some((header, bytes)) = self.read_header(text, is_end)? else { return Ok(out) };
                out.bytes = bytes;
                header
            }
        };
        let header = self.header.insert(header);
        out.labels = vec![Vec::new(); header.labels.len()];
        self.sorter.begin(text.len().min(rows.saturating_mul(128)), arrived_us);
        while (self.rows - out.first_row) < rows as u64 {
            let skipped = records::blank_lines(&text[out.bytes..]);
            self.line += skipped.lines;
            out.bytes += skipped.bytes;
            let rest = &text[out.bytes..];
            let Some(length) = self.records.cut(rest, is_end) else {
                if rest.len() >= CsvDecoder::TEXT_MIN / 2 {
                    return Err(CsvError {
                        place: CsvPlace { line: self.line, column: 1 },
                        problem: CsvProblem::TooLong,
                    });
                }
                break;
            };
            let raw = records::without_line_end(&rest[..length]);
            for (nth, label) in header.labels.iter().enumerate() {
                let cell = self.records.cell(label.cell).unwrap_or_default();
                let value = cells::label(cell).map_err(|()| CsvError {
                    place: CsvPlace { line: self.line, column: records::column(raw, label.cell, header.delimiter) },
                    problem: CsvProblem::Label {
                        header: label.name.clone(),
                        cell: String::from_utf8_lossy(cell).into_owned(),
                    },
                })?;
                out.labels[nth].push(value);
            }
            let nth = i64::try_from(self.rows).unwrap_or(i64::MAX);
            let reader = cells::Cells {
                records: &self.records,
                header,
                options: &self.options,
                zone,
                bound,
                class_at: self.class_at,
                default_us: START_US.saturating_add(self.options.interval_us.saturating_mul(nth)),
            };
            match reader.read(&self.class, raw, &mut self.sorter, &mut self.row, &mut self.decimal_mark) {
                Ok(()) => self.sorter.accept(&self.row),
                Err((refusal, cell)) => {
                    let column = cell.map_or(1, |cell| records::column(raw, cell, header.delimiter));
                    out.places.push(CsvPlace { line: self.line, column });
                    self.sorter.refuse(refusal, raw);
                }
            }
            self.line += records::lines(&rest[..length]);
            out.bytes += length;
            self.rows += 1;
        }
        out.decoded = self.sorter.end();
        Ok(out)
    }

    /// Names of the columns that are neither reading nor label, in order; empty before the header was read.
    pub fn ignored(&self) -> &[String] {
        self.header.as_ref().map_or(&[], |header| &header.ignored)
    }

    /// Names of the columns of [`CsvOptions::labels`] that the file has, in the order of [`CsvRows::labels`].
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.header.iter().flat_map(|header| header.labels.iter().map(|label| &*label.name))
    }

    /// Names of all columns, in order; empty before the header was read.
    pub fn headers(&self) -> &[String] {
        self.header.as_ref().map_or(&[], |header| &header.names)
    }

    /// Reads the header line; `None` where the text does not hold all of it.
    fn read_header(&mut self, text: &[u8], is_end: bool) -> Result<Option<(Header, usize)>, CsvError> {
        let mark = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let skipped = records::blank_lines(&text[mark..]);
        let from = mark + skipped.bytes;
        self.line = 1 + skipped.lines;
        let place = CsvPlace { line: self.line, column: 1 };
        let rest = &text[from..];
        if rest.is_empty() && is_end {
            return Err(CsvError { place, problem: CsvProblem::Empty });
        }
        let Some((delimiter, length)) = self.records.cut_header(rest, is_end) else {
            let too_long = rest.len() >= CsvDecoder::TEXT_MIN / 2;
            return if too_long { Err(CsvError { place, problem: CsvProblem::TooLong }) } else { Ok(None) };
        };
        let raw = records::without_line_end(&rest[..length]);
        let header =
            Header::read(&self.records, delimiter, &self.class, &self.options).map_err(|(problem, cell)| {
                let column = cell.map_or(1, |cell| records::column(raw, cell, delimiter));
                CsvError { place: CsvPlace { column, ..place }, problem }
            })?;
        self.line += records::lines(&rest[..length]);
        Ok(Some((header, from + length)))
    }
}
