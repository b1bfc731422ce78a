//! `millwright evaluate`: judges a file of readings row by row and compares with its labels.
//!
//! Rows are judged, not conditions: no delay, deadband or settle. The file is read once for every pass (training,
//! threshold, scoring), so that a file of any length needs little memory beside its scores.

mod figures;
mod report;
mod rows;

pub use report::Report;

use crate::{
    class,
    cli::{CsvArgs, Detector, EvaluateArgs, Output},
    failure::Failure,
    sink,
};
use anyhow::{Context, Result};
use catalog::{Catalogue, Class};
use figures::Tally;
use jiff::{Timestamp, tz::TimeZone};
use rows::{Judged, Source};
use scoring::{Fit, FitSums};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Share of the training rows that may lie over the threshold, where nothing else is said.
const FALSE_ALARM_RATE: f64 = 0.01;

/// What is to be judged, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The classes, and what machines have of their own.
    pub catalogue: Arc<Catalogue>,
    /// The class of the readings, one of the catalogue's.
    pub class: Arc<Class>,
    /// The file to judge.
    pub readings: PathBuf,
    /// How it is read, if it is CSV.
    pub csv: CsvArgs,
    /// Zone of times without one, where `csv` names none.
    pub zone: TimeZone,
    /// Column of 0 and 1; `None`: the class's.
    pub labels: Option<String>,
    /// What judges.
    pub detector: Detector,
    /// What a detector learns from.
    pub training: Training,
    /// What makes a score an anomaly.
    pub decision: Decision,
    /// File for the scores.
    pub scores: Option<PathBuf>,
}

/// What a detector learns from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Training {
    /// The rows that it judges.
    Same,
    /// Another file.
    File(PathBuf),
    /// So many first rows, which are then not scored.
    Rows(u64),
    /// The rows before this time, microseconds since 1970, which are then not scored.
    Until(i64),
}

/// What makes a score an anomaly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// The laws' own limits; for a learned detector a false alarm rate of 0.01.
    Default,
    /// A score above it is.
    Threshold(f64),
    /// A score is that only so large a share of the training rows has.
    FalseAlarmRate(f64),
}

/// Runs the command.
///
/// # Errors
/// An argument is wrong, a file cannot be read, or none of its rows can be judged.
pub fn run(args: &EvaluateArgs, output: Output) -> Result<()> {
    let report = evaluate(&Request::from_args(args)?)?;
    match output {
        Output::Json => sink::print(&format!("{}\n", report.json())),
        Output::Text => sink::print(&report.table()),
    }
}

impl Request {
    /// What a command line asks for.
    ///
    /// # Errors
    /// An argument is wrong.
    pub fn from_args(args: &EvaluateArgs) -> Result<Request> {
        let catalogue = Arc::new(class::catalogue([args.class.as_str()])?);
        let training = match (&args.train, args.train_rows, &args.train_until) {
            (Some(file), ..) => Training::File(file.clone()),
            (_, Some(rows), _) => Training::Rows(rows as u64),
            (.., Some(until)) => Training::Until(time_us(until, &args.csv)?),
            _ => Training::Same,
        };
        let decision = match (args.threshold, args.false_alarm_rate) {
            (Some(threshold), _) if threshold.is_finite() => Decision::Threshold(threshold),
            (None, None) => Decision::Default,
            (_, Some(rate)) if (0.0..1.0).contains(&rate) => Decision::FalseAlarmRate(rate),
            _ => {
                let what = "--threshold takes a number, --false-alarm-rate one from 0 to below 1";
                return Err(Failure::usage("MW-0035", what).into());
            }
        };
        Ok(Request {
            class: catalogue.default_class().clone(),
            catalogue,
            readings: args.readings.clone(),
            csv: args.csv.clone(),
            zone: TimeZone::UTC,
            labels: args.labels.clone(),
            detector: args.detector,
            training,
            decision,
            scores: args.scores.clone(),
        })
    }
}

/// Judges the rows.
///
/// # Errors
/// The file cannot be read, none of its rows can be judged, or nothing can be learnt from it.
pub fn evaluate(request: &Request) -> Result<Report> {
    let class = &request.class;
    let label = request.labels.as_ref().or(class.label.as_ref());
    let modes = figures::modes(class);
    let mut columns: Vec<String> = modes.iter().map(|mode| mode.name.clone()).collect();
    columns.extend(label.cloned());
    columns.dedup();
    let scored = Source::new(request, &request.readings, columns).with_column(request.labels.as_deref());
    let learnt = learn(request)?;
    let threshold = match (&learnt, request.decision) {
        (_, Decision::Threshold(threshold)) => Some(threshold),
        (None, Decision::Default) => None,
        (_, Decision::Default) => Some(threshold(request, learnt.as_ref(), FALSE_ALARM_RATE)?),
        (_, Decision::FalseAlarmRate(rate)) => Some(threshold(request, learnt.as_ref(), rate)?),
    };
    let mut tally = Tally::new(class, modes, label.cloned());
    let mut scores = request.scores.as_deref().map(ScoresFile::create).transpose()?;
    let told = scored.read(learnt.as_ref(), |row, labels| {
        if is_training(request, row) {
            return Ok(());
        }
        let anomaly = is_anomaly(row, threshold);
        tally.add(row, anomaly, request.detector, labels);
        match &mut scores {
            Some(scores) => scores.write(class, row, anomaly),
            None => Ok(()),
        }
    })?;
    scores.map_or(Ok(()), ScoresFile::finish)?;
    told.tell(&request.readings, label.filter(|label| !told.labels.contains(label)));
    if tally.rows() == 0 {
        let what = match told.rows {
            0 => "has no row that could be judged",
            _ => "has no row left to judge: all are taken for training",
        };
        return Err(Failure::data("MW-0034", format!("{} {what}", request.readings.display())).into());
    }
    Ok(tally.report(request, threshold, told.refused.count))
}

/// Makes a learned detector; `None` for the laws.
fn learn(request: &Request) -> Result<Option<Fit>> {
    if request.detector == Detector::Laws {
        return Ok(None);
    }
    let mut sums = FitSums::new(&request.class);
    training_rows(request, None, |row| {
        if row.running {
            sums.push(row.channels);
        }
    })?;
    match sums.fit() {
        Some(fit) => Ok(Some(fit)),
        None => Err(Failure::data(
            "MW-0036",
            format!("nothing can be learnt from {} running rows: at least two that differ are needed", sums.count()),
        )
        .hint("give more rows by --train, --train-rows or --train-until")
        .into()),
    }
}

/// The score that so large a share of the training rows lies above.
fn threshold(request: &Request, learnt: Option<&Fit>, rate: f64) -> Result<f64> {
    let mut scores = Vec::new();
    training_rows(request, learnt, |row| scores.extend(row.score))?;
    figures::threshold(scores, rate)
        .ok_or_else(|| Failure::data("MW-0036", "no training row has a score to take a threshold from").into())
}

/// Gives every row that a detector learns from.
fn training_rows(request: &Request, learnt: Option<&Fit>, mut each: impl FnMut(&Judged<'_>)) -> Result<()> {
    let file = match &request.training {
        Training::File(file) => file,
        _ => &request.readings,
    };
    let takes_all = matches!(request.training, Training::Same | Training::File(_));
    Source::new(request, file, label_columns(request)).read(learnt, |row, _| {
        if takes_all || is_training(request, row) {
            each(row);
        }
        Ok(())
    })?;
    Ok(())
}

/// Columns that are labels in every file, so that no channel is taken from them.
fn label_columns(request: &Request) -> Vec<String> {
    request.labels.iter().chain(&request.class.label).cloned().collect()
}

/// Whether a row of the readings is not scored since the detector learnt from it.
fn is_training(request: &Request, row: &Judged<'_>) -> bool {
    match request.training {
        Training::Same | Training::File(_) => false,
        Training::Rows(rows) => row.row < rows,
        Training::Until(until_us) => row.timestamp_us < until_us,
    }
}

fn is_anomaly(row: &Judged<'_>, threshold: Option<f64>) -> bool {
    match threshold {
        Some(threshold) => row.score.is_some_and(|score| score > threshold),
        None => row.verdict.anomaly,
    }
}

/// `--train-until`: RFC 3339, or a time of the files' zone.
fn time_us(text: &str, csv: &CsvArgs) -> Result<i64> {
    let wrong = || {
        Failure::usage("MW-0035", format!("--train-until: `{text}` is no time"))
            .hint("give e.g. 2025-11-07T15:10:01Z or \"2025-11-07 15:10:01\"")
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_microsecond());
    }
    let local = text.parse::<jiff::civil::DateTime>().map_err(|_| wrong())?;
    let zone = csv.time_zone.as_deref().map_or(Ok(TimeZone::UTC), TimeZone::get);
    let time = zone.and_then(|zone| zone.to_timestamp(local)).map_err(|_| wrong())?;
    Ok(time.as_microsecond())
}

/// The CSV of `--scores`.
struct ScoresFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl ScoresFile {
    fn create(path: &Path) -> Result<ScoresFile> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut scores = ScoresFile { path: path.to_owned(), file: BufWriter::new(file) };
        writeln!(scores.file, "row,timestamp,machine_id,score,anomaly,failure_type")
            .with_context(|| scores.context())?;
        Ok(scores)
    }

    fn write(&mut self, class: &Class, row: &Judged<'_>, anomaly: bool) -> Result<()> {
        let score = row.score.map(|score| score.to_string()).unwrap_or_default();
        let law = row.verdict.law.filter(|_| row.by_laws).map(|law| &*class.laws[law].failure_type);
        let failure_type = if anomaly { law.unwrap_or("Anomaly") } else { "" };
        let time = wire::format_time(row.timestamp_us);
        let machine = quoted(row.machine);
        let written =
            writeln!(self.file, "{},{time},{machine},{score},{},{}", row.row, u8::from(anomaly), quoted(failure_type));
        written.with_context(|| self.context())
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().with_context(|| self.context())
    }

    fn context(&self) -> String {
        format!("write {}", self.path.display())
    }
}

/// A cell of CSV.
fn quoted(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}
