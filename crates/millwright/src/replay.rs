//! `millwright replay`: the readings of a file as JSON lines.

use crate::{
    class,
    cli::{Output, ReplayArgs, Speed},
    progress::Progress,
    readings_file::{ReadingsFile, Refused},
    sink::{self, Goes, Sink},
};
use anyhow::Result;
use jiff::tz::TimeZone;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Rows that are decoded at once.
const ROWS: usize = 8192;
/// Readings that fall due within so long are sent together.
const TOGETHER: Duration = Duration::from_millis(20);

/// Runs the command.
///
/// # Errors
/// The file cannot be read, or its readings cannot be sent.
pub fn run(args: &ReplayArgs, output: Output) -> Result<()> {
    let catalogue = Arc::new(class::catalogue([args.class.as_str()])?);
    let class = catalogue.default_class().clone();
    let open = ReadingsFile::open(&args.file, &catalogue, &class, &args.csv, &TimeZone::UTC, args.machine.as_deref())?;
    let mut file = open.of_any_time();
    let mut sink = Sink::open(&args.to)?;
    let mut progress = Progress::new(file.total());
    let mut pace = Pace { speed: args.speed, begun: None };
    let (mut refused, mut is_first) = (Refused::default(), true);
    'file: while let Some(chunk) = file.next(ROWS)? {
        if std::mem::take(&mut is_first) && !file.ignored().is_empty() {
            eprintln!("{}: ignored columns: {}", args.file.display(), file.ignored().join(", "));
        }
        refused.add(&args.file, &chunk);
        for (_, at, row) in chunk.in_order() {
            let batch = &chunk.decoded.batches[at].1;
            if let Some(wait) = pace.wait(batch.timestamp_us[row]) {
                if sink.flush()? == Goes::NoFurther {
                    break 'file;
                }
                std::thread::sleep(wait);
            }
            let named = (batch.class.id != "mill").then_some(batch.class.id.as_str());
            if sink.line(|line| batch.write_json(row, named, line))? == Goes::NoFurther {
                break 'file;
            }
        }
        progress.set(file.read());
    }
    sink.flush()?;
    progress.end();
    refused.tell(&args.file);
    let sent = sink.sent();
    let summary = match output {
        Output::Text => format!("{} readings to {}", sent.readings, args.to),
        Output::Json => json!({
            "readings": sent.readings,
            "rejected": sent.rejected,
            "refused": refused.count,
            "class": class.id,
        })
        .to_string(),
    };
    sink::tell_summary(&summary, output, &args.to)
}

/// When a reading is due: as long after the first as it was measured after it, divided by the speed.
struct Pace {
    speed: Speed,
    /// The first reading: when it was sent, and its event time.
    begun: Option<(Instant, i64)>,
}

impl Pace {
    /// How long to wait before a reading of this event time is sent.
    fn wait(&mut self, timestamp_us: i64) -> Option<Duration> {
        let Speed::Times(times) = self.speed else { return None };
        let (begun, first_us) = *self.begun.get_or_insert_with(|| (Instant::now(), timestamp_us));
        let due = Duration::try_from_secs_f64(timestamp_us.saturating_sub(first_us) as f64 / 1e6 / times).ok()?;
        due.checked_sub(begun.elapsed()).filter(|wait| *wait > TOGETHER)
    }
}
