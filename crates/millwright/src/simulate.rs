//! `millwright simulate`: a simulated plant's readings as JSON lines.

use crate::{
    class,
    cli::{Output, SimulateArgs},
    failure::Failure,
    progress::Progress,
    sink::{self, Goes, Sink},
};
use anyhow::Result;
use jiff::Timestamp;
use plant::{Config, Mode, Plant};
use serde_json::json;
use std::time::Duration;

/// Runs the command.
///
/// # Errors
/// There is no such plant, or its readings cannot be sent.
pub fn run(args: &SimulateArgs, output: Output) -> Result<()> {
    let catalogue = class::catalogue([args.class.as_str()])?;
    let class = catalogue.default_class().clone();
    let usage = |what: &str| Failure::usage("MW-0050", what);
    if args.machines == 0 || args.machines > 1_000_000 {
        return Err(usage("--machines takes 1 to 1000000").into());
    }
    if !(args.rate > 0.0 && args.rate <= 1000.0) {
        return Err(usage("--rate takes a number above 0 and up to 1000").into());
    }
    let to_instance = sink::is_url(&args.to);
    if args.seconds == 0 && !to_instance {
        return Err(usage("--seconds 0 goes on until it is stopped, which only --to URL can").into());
    }
    let given = args.start.as_deref().map(|text| {
        text.parse::<Timestamp>().map_err(|_| {
            usage(&format!("--start: `{text}` is no time")).hint("give one with its zone, e.g. 2025-11-07T15:10:01Z")
        })
    });
    let given = given.transpose()?;
    // Whole seconds read better, and nobody counts on the fraction of now.
    let start_us = given.map_or_else(|| Timestamp::now().as_second() * 1_000_000, Timestamp::as_microsecond);
    // A plant that begins now and is heard by an instance lives; any other is told as fast as it is taken.
    let lives = to_instance && given.is_none();
    let end_us = match args.seconds {
        0 => i64::MAX,
        seconds => start_us.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
    };
    let mut plant = Plant::new(Config {
        class: class.clone(),
        machines: args.machines,
        rate_hz: args.rate,
        seed: args.seed,
        start_us,
        mode: if args.ai4i { Mode::Ai4i } else { Mode::Healthy },
        partitions: wire::READINGS_PARTITIONS,
    })
    .map_err(|error| usage(&error.to_string()))?;
    for machine in plant.machines().to_vec() {
        // A profile that has an end fades before it; this one stays.
        plant.set_profile(&machine, &args.profile, start_us, i64::MAX).map_err(|error| usage(&error.to_string()))?;
    }
    let mut sink = Sink::open(&args.to)?;
    let mut progress = Progress::new(end_us.saturating_sub(start_us).unsigned_abs());
    let named = (class.id != "mill").then_some(class.id.as_str());
    let mut last_us = start_us;
    'ticks: while plant.next_us() < end_us {
        let now_us = plant.next_us();
        if lives {
            if sink.flush()? == Goes::NoFurther {
                break;
            }
            let wait_us = now_us - Timestamp::now().as_microsecond();
            std::thread::sleep(Duration::from_micros(wait_us.max(0).unsigned_abs()));
        }
        for (_, batch) in plant.next_batch() {
            for row in 0..batch.rows() {
                if sink.line(|line| batch.write_json(row, named, line))? == Goes::NoFurther {
                    break 'ticks;
                }
            }
        }
        last_us = now_us;
        if args.seconds > 0 {
            progress.set((now_us - start_us).unsigned_abs());
        }
    }
    sink.flush()?;
    progress.end();
    let sent = sink.sent();
    let (from, until) = (wire::format_time(start_us), wire::format_time(last_us));
    let summary = match output {
        Output::Text => {
            format!("{} readings of {} machines, {from} to {until}, to {}", sent.readings, args.machines, args.to)
        }
        Output::Json => json!({
            "readings": sent.readings,
            "rejected": sent.rejected,
            "machines": args.machines,
            "class": class.id,
            "seed": args.seed,
            "from": from,
            "until": until,
        })
        .to_string(),
    };
    sink::tell_summary(&summary, output, &args.to)
}
