//! Cuts text into records and cells.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// The record at hand, unquoted.
pub(super) struct Records {
    reader: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    cells: usize,
}

impl Records {
    pub(super) fn new() -> Records {
        Records { reader: Reader::new(), text: vec![0; 1024], ends: vec![0; 64], cells: 0 }
    }

    /// Reads the header that begins the text, from now on with the delimiter that gives it more cells: (it, its length).
    pub(super) fn cut_header(&mut self, text: &[u8], is_end: bool) -> Option<(u8, usize)> {
        let mut cells = [0, 0];
        for (cells, delimiter) in cells.iter_mut().zip(*b",;") {
            self.reader = ReaderBuilder::new().delimiter(delimiter).build();
            self.cut(text, is_end)?;
            *cells = self.cells;
        }
        let delimiter = if cells[1] > cells[0] { b';' } else { b',' };
        self.reader = ReaderBuilder::new().delimiter(delimiter).build();
        Some((delimiter, self.cut(text, is_end)?))
    }

    /// Reads the record that begins the text; its length with its line end, `None` where the text does not hold all of it.
    pub(super) fn cut(&mut self, text: &[u8], is_end: bool) -> Option<usize> {
        self.reader.reset();
        let (mut read, mut written, mut cells) = (0, 0, 0);
        loop {
            // The reader takes an empty piece for the end.
            if read == text.len() && !is_end {
                return None;
            }
            let (result, bytes, unquoted, ended) =
                self.reader.read_record(&text[read..], &mut self.text[written..], &mut self.ends[cells..]);
            read += bytes;
            written += unquoted;
            cells += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.cells = cells;
                    return Some(read);
                }
                ReadRecordResult::End => return None,
            }
        }
    }

    /// Number of cells.
    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// A cell without outer blanks.
    pub(super) fn cell(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends[..self.cells].get(at)?;
        let from = if at == 0 { 0 } else { self.ends[at - 1] };
        Some(self.text[from..end].trim_ascii())
    }
}

/// What stands between records.
pub(super) struct Skipped {
    pub(super) bytes: usize,
    pub(super) lines: u64,
}

/// The empty lines that begin the text.
pub(super) fn blank_lines(text: &[u8]) -> Skipped {
    let bytes = text.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    Skipped { bytes, lines: lines(&text[..bytes]) }
}

/// Line ends in a text.
pub(super) fn lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// A record as it stands, without its line end.
pub(super) fn without_line_end(record: &[u8]) -> &[u8] {
    let end = record.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &record[..end]
}

/// Where a cell begins in a record, in characters from 1.
pub(super) fn column(record: &[u8], cell: usize, delimiter: u8) -> u64 {
    let mut quoted = false;
    let (mut before, mut column) = (0, 1);
    for byte in record {
        if before == cell {
            break;
        }
        match byte {
            b'"' => quoted = !quoted,
            byte if *byte == delimiter && !quoted => before += 1,
            _ => {}
        }
        let is_inside_character = byte & 0b1100_0000 == 0b1000_0000;
        column += u64::from(!is_inside_character);
    }
    column
}
