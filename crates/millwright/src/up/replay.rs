//! A file onto the bus of this process, and what came of it.

use crate::{
    cli::{Output, Speed, UpArgs},
    config::Config,
    evaluate::{Decision, Request, Training, evaluate},
    progress::Progress,
    readings_file::{Chunk, ReadingsFile},
};
use anyhow::{Context, Result};
use bus::Bus;
use catalog::Catalogue;
use jiff::tz::TimeZone;
use portal::QuietArrivals;
use services::{ingest::Tally, replay};
use std::{path::Path, sync::Arc, time::Duration};
use store::{History, history::Appended};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Rows sent at once, as fast as they are taken.
const ROWS: usize = 10_000;
/// Rows sent at once at a pace: few, so that each goes at its time.
const PACED_ROWS: usize = 50;
/// How often it is asked whether what was sent is stored.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A file to be replayed, opened and its header checked.
pub(super) struct Source {
    file: ReadingsFile,
    request: Request,
    speed: Speed,
    notifies: bool,
}

/// What a replay is told of the whole.
pub(super) struct Whole<'a> {
    pub(super) bus: &'a Bus,
    pub(super) history: &'a History,
    /// How far detect has come.
    pub(super) judged: watch::Receiver<Vec<i64>>,
    pub(super) tally: &'a Tally,
    /// Takes what nobody is to be notified of.
    pub(super) quiet: QuietArrivals,
}

impl Source {
    pub(super) fn open(path: &Path, args: &UpArgs, config: &Config, catalogue: &Catalogue) -> Result<Source> {
        let catalogue = Arc::new(catalogue.clone());
        let class = catalogue.default_class().clone();
        let zone = TimeZone::get(&config.site.timezone).context("find the site's time zone")?;
        let file = ReadingsFile::open(path, &catalogue, &class, &args.csv, &zone, args.machine.as_deref())?;
        let request = Request {
            catalogue,
            class,
            readings: path.to_owned(),
            csv: args.csv.clone(),
            zone,
            labels: None,
            detector: crate::cli::Detector::Laws,
            training: Training::Same,
            decision: Decision::Default,
            scores: None,
        };
        Ok(Source { file, request, speed: args.speed, notifies: args.notify })
    }

    /// Whether it is sent as fast as it is taken.
    pub(super) fn is_at_full_speed(&self) -> bool {
        self.speed == Speed::Max
    }

    /// Sends the file, waits until all of it is stored and judged, and gives what was found, to be told; `None` where
    /// `stop` came first.
    pub(super) async fn run(
        self,
        whole: Whole<'_>,
        output: Output,
        stop: &CancellationToken,
    ) -> Result<Option<String>> {
        let Source { file, request, speed, notifies } = self;
        let (speed, rows) = match speed {
            Speed::Max => (replay::Speed::Max, ROWS),
            Speed::Times(times) => (replay::Speed::Times(times), PACED_ROWS),
        };
        let mut bar = Progress::new(file.total());
        let (tell_read, read) = watch::channel(0);
        let pieces = Pieces { file, history: whole.history.clone(), rows, tell_read };
        let arriving = |arrived_us| {
            if !notifies {
                whole.quiet.add(arrived_us);
            }
        };
        let progress = |_: &replay::Progress| bar.set(*read.borrow());
        let sent = replay::run(whole.bus, whole.history, pieces, speed, stop.clone(), arriving, progress).await;
        bar.end();
        let sent = sent.context("replay the file")?;
        if sent.stopped || !whole.wait_for(whole.bus.ends(), stop).await {
            return Ok(None);
        }
        let Appended { stored, duplicate, late, .. } = whole.tally.of(replay::SOURCE);
        let refused = sent.rejects + whole.tally.of(replay::SOURCE).rejected;
        let name = request.readings.display().to_string();
        let report =
            tokio::task::spawn_blocking(move || evaluate(&request)).await.context("compare with the labels")?;
        let rows = sent.readings + sent.rejects;
        Ok(Some(match output {
            Output::Text => format!(
                "{name} is replayed: {rows} rows; {stored} stored, {duplicate} duplicate, {refused} refused; {late} late, and late rows were not judged\n{}",
                report.map_or_else(|error| format!("  {error:#}\n"), |report| report.table()),
            ),
            Output::Json => {
                let (evaluation, error) = match report {
                    Ok(report) => (Some(report.json()), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                };
                let document = serde_json::json!({
                    "type": "replayed", "file": name, "rows": rows, "stored": stored, "duplicate": duplicate,
                    "refused": refused, "late": late, "evaluation": evaluation, "error": error,
                });
                format!("{document}\n")
            }
        }))
    }
}

impl Whole<'_> {
    /// Waits until everything below these offsets is stored and judged; false where `stop` came first.
    async fn wait_for(&self, ends: Vec<i64>, stop: &CancellationToken) -> bool {
        let reached = |at: &[i64]| at.len() == ends.len() && at.iter().zip(&ends).all(|(at, end)| at >= end);
        let mut judged = self.judged.clone();
        let done = async {
            // Detect keeps the other end as long as the process runs.
            let _ = judged.wait_for(|at| reached(at)).await;
            // A history that cannot be read has not stored it either.
            while !self.history.appended().await.is_ok_and(|at| reached(&at)) {
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = done => true,
        }
    }
}

/// The file piece by piece.
struct Pieces {
    file: ReadingsFile,
    /// Knows the class that a machine already has.
    history: History,
    rows: usize,
    /// Bytes read.
    tell_read: watch::Sender<u64>,
}

impl Iterator for Pieces {
    type Item = Result<replay::Piece>;

    fn next(&mut self) -> Option<Result<replay::Piece>> {
        let history = &self.history;
        let chunk = self.file.next_bound(self.rows, &|machine| history.class_of(machine)).transpose()?;
        self.tell_read.send_replace(self.file.read());
        Some(chunk.map(|Chunk { decoded, .. }| replay::Piece { batches: decoded.batches, rejects: decoded.rejects }))
    }
}
