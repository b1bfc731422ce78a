//! A file of readings, CSV or JSON, some rows at a time.

use crate::{
    cli::CsvArgs,
    failure::{Failure, did_you_mean},
};
use anyhow::{Context, Result};
use catalog::{Catalogue, Class, MachineId};
use jiff::{Timestamp, tz::TimeZone};
use serde::de::IgnoredAny;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};
use wire::{
    CsvDecoder, CsvError, CsvOptions, CsvPlace, CsvProblem, Decoded, Decoder, Framing, READINGS_PARTITIONS,
    partition_of,
};

/// A file of readings that is read once, from its beginning.
pub struct ReadingsFile {
    text: Text,
    total: u64,
    form: Form,
    zone: TimeZone,
    arrival: Arrival,
    rename: Option<Rename>,
    rows: u64,
}

/// Some rows of a file.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The readings by partition, and what was refused; an `index` counts from the first of these rows.
    pub decoded: Decoded,
    /// Place in the file of the first of these rows, from 0.
    pub first_row: u64,
    /// Where each refused row stands.
    pub places: Vec<CsvPlace>,
    /// Per label column that the file has (see [`ReadingsFile::labels`]), per row, refused ones counted.
    pub labels: Vec<Vec<Option<bool>>>,
}

/// The refused rows of a file.
#[derive(Debug, Default)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// The first few, each with its place.
    first: Vec<String>,
}

/// So many refused rows are told one by one.
const TOLD: usize = 5;

enum Form {
    Csv(Box<CsvDecoder>),
    Json(Box<Json>),
}

struct Json {
    decoder: Decoder,
    /// Line of the next byte, from 1.
    line: u64,
    /// The file is one array or one object over several lines.
    is_one_value: bool,
}

/// The bytes of the file, some of them read ahead.
struct Text {
    path: PathBuf,
    file: File,
    /// What was read and not yet decoded begins at `at`.
    buffer: Vec<u8>,
    at: usize,
    is_end: bool,
    decoded: u64,
}

/// The class that a machine already has.
type Bound<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// When the readings are said to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Now,
    /// Later than any of them.
    AfterAll,
}

/// The one machine of a file gets another name.
struct Rename {
    to: MachineId,
    /// What the file calls it.
    from: Option<MachineId>,
}

impl ReadingsFile {
    /// Opens a file of readings of a class, without labels. `zone` is that of times without one where the arguments name
    /// none; `machine` is the name that a file of one machine gives its machine.
    ///
    /// # Errors
    /// The file cannot be read, or an argument is wrong.
    pub fn open(
        path: &Path,
        catalogue: &Arc<Catalogue>,
        class: &Arc<Class>,
        csv: &CsvArgs,
        zone: &TimeZone,
        machine: Option<&str>,
    ) -> Result<ReadingsFile> {
        ReadingsFile::open_labelled(path, catalogue, class, csv, zone, machine, Vec::new())
    }

    /// Opens a file of readings that may have columns of labels.
    ///
    /// # Errors
    /// As [`ReadingsFile::open`].
    pub fn open_labelled(
        path: &Path,
        catalogue: &Arc<Catalogue>,
        class: &Arc<Class>,
        csv: &CsvArgs,
        zone: &TimeZone,
        machine: Option<&str>,
        labels: Vec<String>,
    ) -> Result<ReadingsFile> {
        let unreadable = |error: std::io::Error| Failure::data("MW-0030", format!("read {}: {error}", path.display()));
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(Failure::data("MW-0030", format!("{} is a directory", path.display())).into());
        }
        let zone = match &csv.time_zone {
            None => zone.clone(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                Failure::usage("MW-0031", format!("--time-zone: there is no time zone `{name}`"))
                    .hint("give an IANA name, e.g. Asia/Seoul or Europe/Berlin")
            })?,
        };
        let rename = match machine {
            None => None,
            Some(name) => {
                let to = MachineId::try_from(name)
                    .map_err(|error| Failure::usage("MW-0031", format!("--machine: {error}")))?;
                Some(Rename { to, from: None })
            }
        };
        let mut text = Text { path: path.to_owned(), file, buffer: Vec::new(), at: 0, is_end: false, decoded: 0 };
        text.fill(PIECE)?;
        let content = text.buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text.buffer).trim_ascii_start();
        let form = match content.first() {
            Some(first @ (b'{' | b'[')) => {
                let is_object = || text.is_end && serde_json::from_slice::<IgnoredAny>(content).is_ok();
                Form::Json(Box::new(Json {
                    decoder: Decoder::new(catalogue.clone(), READINGS_PARTITIONS),
                    line: 1,
                    is_one_value: *first == b'[' || is_object(),
                }))
            }
            _ => {
                let options = CsvOptions {
                    time_column: csv.time_column.clone(),
                    machine_column: csv.machine_column.clone(),
                    interval_us: interval_us(&csv.interval)?,
                    machine: name_of(path),
                    labels,
                };
                Form::Csv(Box::new(CsvDecoder::new(catalogue.clone(), class.clone(), READINGS_PARTITIONS, options)))
            }
        };
        Ok(ReadingsFile { text, total: metadata.len(), form, zone, arrival: Arrival::Now, rename, rows: 0 })
    }

    /// Takes readings of any time: what is judged by itself has no arrival that they could be ahead of.
    #[must_use]
    pub fn of_any_time(mut self) -> ReadingsFile {
        self.arrival = Arrival::AfterAll;
        self
    }

    /// At most so many rows that follow; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read on.
    pub fn next(&mut self, rows: usize) -> Result<Option<Chunk>> {
        self.next_bound(rows, &|_| None)
    }

    /// As [`ReadingsFile::next`]; `bound` names the class that a machine already has.
    ///
    /// # Errors
    /// The file cannot be read on.
    pub fn next_bound(&mut self, rows: usize, bound: &Bound<'_>) -> Result<Option<Chunk>> {
        let arrived_us = match self.arrival {
            Arrival::Now => Timestamp::now().as_microsecond(),
            Arrival::AfterAll => i64::MAX,
        };
        let chunk = match &mut self.form {
            Form::Csv(decoder) => next_csv(decoder, &mut self.text, rows, arrived_us, &self.zone, bound)?,
            Form::Json(json) => json.next(&mut self.text, rows, arrived_us, bound)?,
        };
        let Some(mut chunk) = chunk else { return Ok(None) };
        chunk.first_row = self.rows;
        self.rows += u64::from(chunk.decoded.messages);
        if let Some(rename) = &mut self.rename {
            rename.apply(&mut chunk.decoded).map_err(|(first, second)| {
                Failure::usage(
                    "MW-0031",
                    format!(
                        "--machine: {} has more than one machine, {first} and {second} for two",
                        self.text.path.display()
                    ),
                )
                .hint("leave --machine out: the file names its machines")
            })?;
        }
        Ok(Some(chunk))
    }

    /// Bytes decoded.
    pub fn read(&self) -> u64 {
        self.text.decoded
    }

    /// Bytes of the file.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Columns that are neither reading nor label, once the first rows were read.
    pub fn ignored(&self) -> &[String] {
        match &self.form {
            Form::Csv(decoder) => decoder.ignored(),
            Form::Json(_) => &[],
        }
    }

    /// Names of the label columns that the file has, once the first rows were read.
    pub fn labels(&self) -> Vec<String> {
        match &self.form {
            Form::Csv(decoder) => decoder.labels().map(str::to_owned).collect(),
            Form::Json(_) => Vec::new(),
        }
    }

    /// All columns of a CSV file, once the first rows were read.
    pub fn headers(&self) -> &[String] {
        match &self.form {
            Form::Csv(decoder) => decoder.headers(),
            Form::Json(_) => &[],
        }
    }
}

impl Chunk {
    /// The rows as they stand in the file: (place in the chunk, batch, row of the batch).
    pub fn in_order(&self) -> Vec<(u32, usize, usize)> {
        let batches = self.decoded.batches.iter().enumerate();
        let rows = batches
            .flat_map(|(at, (_, batch))| batch.index.iter().enumerate().map(move |(row, index)| (*index, at, row)));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        rows
    }
}

impl Refused {
    /// Notes what was refused of a chunk.
    pub fn add(&mut self, file: &Path, chunk: &Chunk) {
        self.count += chunk.decoded.rejects.len() as u64;
        let room = TOLD.saturating_sub(self.first.len());
        self.first.extend(chunk.decoded.rejects.iter().zip(&chunk.places).take(room).map(|(reject, place)| {
            let CsvPlace { line, column } = place;
            format!("{}:{line}:{column}: {} ({})", file.display(), reject.error, reject.code.as_str())
        }));
    }

    /// Says on stderr what was refused, if anything was.
    pub fn tell(&self, file: &Path) {
        if self.count > 0 {
            eprintln!("{}: {} rows are refused", file.display(), self.count);
            self.first.iter().for_each(|refusal| eprintln!("  {refusal}"));
            if self.count > self.first.len() as u64 {
                eprintln!("  ...");
            }
        }
    }
}

impl Text {
    /// Reads on until so many bytes are there to decode, or the file ends.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        if self.is_end || self.buffer.len() - self.at >= bytes {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let want = (bytes - self.buffer.len()).max(PIECE) as u64;
        let got = Read::by_ref(&mut self.file).take(want).read_to_end(&mut self.buffer);
        let got = got.with_context(|| format!("read {}", self.path.display()))?;
        self.is_end = (got as u64) < want;
        Ok(())
    }

    /// What is there to decode.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// So many bytes are decoded.
    fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.decoded += bytes as u64;
    }
}

fn next_csv(
    decoder: &mut CsvDecoder,
    text: &mut Text,
    rows: usize,
    arrived_us: i64,
    zone: &TimeZone,
    bound: &Bound<'_>,
) -> Result<Option<Chunk>> {
    let zone = |local_us: i64| utc_us(zone, local_us);
    loop {
        text.fill(PIECE)?;
        let took = decoder
            .decode(text.rest(), text.is_end, rows, arrived_us, &zone, bound)
            .map_err(|error| csv_failure(&text.path, &error))?;
        text.pass(took.bytes);
        if took.decoded.messages > 0 {
            let wire::CsvRows { decoded, first_row, places, labels, .. } = took;
            return Ok(Some(Chunk { decoded, first_row, places, labels }));
        }
        if text.is_end {
            return Ok(None);
        }
    }
}

impl Json {
    /// The messages of the next lines, blank ones not counted.
    fn next(&mut self, text: &mut Text, rows: usize, arrived_us: i64, bound: &Bound<'_>) -> Result<Option<Chunk>> {
        loop {
            let length = self.piece(text, rows)?;
            let piece = &text.rest()[..length];
            let line = self.line;
            self.line += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            if piece.trim_ascii().is_empty() {
                let is_all = text.is_end && length == text.rest().len();
                text.pass(length);
                if is_all {
                    return Ok(None);
                }
                continue;
            }
            let framing = if self.is_one_value { Framing::Auto } else { Framing::Lines };
            let decoded = self
                .decoder
                .decode(piece, framing, arrived_us, bound)
                .map_err(|error| Failure::data("MW-0032", format!("{}: {error}", text.path.display())))?;
            let lines = piece.split(|byte| *byte == b'\n').zip(line..);
            let mut messages = lines.filter(|(text, _)| !text.trim_ascii().is_empty()).map(|(_, line)| line);
            let (mut places, mut next) = (Vec::new(), 0);
            for reject in &decoded.rejects {
                // Messages of one value share its first line.
                let line = messages.nth((reject.index - next) as usize).filter(|_| !self.is_one_value).unwrap_or(line);
                next = reject.index + 1;
                places.push(CsvPlace { line, column: 1 });
            }
            text.pass(length);
            return Ok(Some(Chunk { decoded, places, ..Chunk::default() }));
        }
    }

    /// Length of the next lines, so many that are not blank at most; of everything where the file is one value.
    fn piece(&self, text: &mut Text, rows: usize) -> Result<usize> {
        if self.is_one_value {
            text.fill(usize::MAX)?;
            return Ok(text.rest().len());
        }
        text.fill(PIECE)?;
        let (mut length, mut lines) = (0, 0);
        loop {
            let rest = text.rest();
            while lines < rows
                && let Some(end) = rest[length..].iter().position(|byte| *byte == b'\n')
            {
                lines += usize::from(!rest[length..length + end].trim_ascii().is_empty());
                length += end + 1;
            }
            if text.is_end && lines < rows {
                return Ok(rest.len());
            }
            if length > 0 {
                return Ok(length);
            }
            // A line longer than what is there.
            let more = rest.len() * 2;
            text.fill(more)?;
        }
    }
}

/// So many bytes are read at once, at least.
const PIECE: usize = 2 * CsvDecoder::TEXT_MIN;

impl Rename {
    /// Gives the machine of some rows its new name; two machines are returned as an error.
    fn apply(&mut self, decoded: &mut Decoded) -> Result<(), (MachineId, MachineId)> {
        let machines = decoded.batches.iter().flat_map(|(_, batch)| &batch.machines);
        let machines: Vec<MachineId> =
            machines.chain(decoded.rejects.iter().filter_map(|reject| reject.machine.as_ref())).cloned().collect();
        for machine in machines {
            let from = self.from.get_or_insert_with(|| machine.clone());
            if *from != machine {
                return Err((from.clone(), machine));
            }
        }
        for (partition, batch) in &mut decoded.batches {
            *partition = partition_of(&self.to, READINGS_PARTITIONS);
            batch.machines.iter_mut().for_each(|machine| *machine = self.to.clone());
            batch.markers.iter_mut().for_each(|marker| marker.machine = self.to.clone());
        }
        decoded.rejects.iter_mut().filter_map(|reject| reject.machine.as_mut()).for_each(|id| *id = self.to.clone());
        Ok(())
    }
}

/// The distance of rows without a time.
fn interval_us(text: &str) -> Result<i64> {
    let interval = text.parse::<jiff::SignedDuration>().ok();
    let us = interval.and_then(|interval| i64::try_from(interval.as_micros()).ok()).filter(|us| *us > 0);
    us.ok_or_else(|| {
        Failure::usage("MW-0031", format!("--interval: `{text}` is no distance of rows"))
            .hint("give a time above 0, e.g. 1s, 500ms or 1m")
            .into()
    })
}

/// Event time of a local time of a zone, both microseconds since 1970. A time that the clocks skipped is taken as if they
/// had not, one that came twice as the first.
fn utc_us(zone: &TimeZone, local_us: i64) -> i64 {
    let local = Timestamp::from_microsecond(local_us).map(|wall| TimeZone::UTC.to_datetime(wall));
    let utc = local.and_then(|local| zone.to_timestamp(local));
    utc.map_or(local_us, Timestamp::as_microsecond)
}

/// The machine of a file without a machine column is called as the file is.
fn name_of(path: &Path) -> MachineId {
    let stem = path.file_stem().map_or_else(|| "machine".into(), |stem| stem.to_string_lossy());
    let name: String = stem.chars().filter(|character| *character != '\0').take(50).collect();
    MachineId::try_from(&*name).unwrap_or_else(|_| MachineId::try_from("machine").expect("a short name is an id"))
}

fn csv_failure(path: &Path, error: &CsvError) -> anyhow::Error {
    let CsvPlace { line, column } = error.place;
    let what = format!("{}:{line}:{column}: {error}", path.display());
    match &error.problem {
        CsvProblem::NoColumn { name, headers } => {
            Failure::usage("MW-0033", what).hint(near_column(name, headers)).into()
        }
        CsvProblem::MissingColumns { missing, headers } => {
            let candidates: Vec<&str> = missing.iter().flatten().map(String::as_str).collect();
            let slips = headers.iter().filter_map(|header| {
                let near = did_you_mean(header, candidates.iter().copied())?;
                Some(format!("`{header}`: did you mean `{near}`?"))
            });
            let slips: Vec<String> = slips.collect();
            let hint = if slips.is_empty() {
                format!(
                    "the file has {}; give the class its `columns` (docs/class-file.md), or name another --class",
                    headers.join(", ")
                )
            } else {
                slips.join("; ")
            };
            Failure::data("MW-0032", what).hint(hint).into()
        }
        _ => Failure::data("MW-0032", what).into(),
    }
}

/// What to say where a column that was named is not there.
pub fn near_column(name: &str, headers: &[String]) -> String {
    match did_you_mean(name, headers.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the file has {}", headers.join(", ")),
    }
}

#[cfg(test)]
mod tests;
