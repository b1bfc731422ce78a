//! `millwright bench`: what this machine can do and how near Millwright comes, as ratios within one run.
//!
//! The unit of cost is CPU-seconds per reading, everything counted. Latencies are open loop: the sender follows a
//! schedule and a latency counts from the scheduled time (no coordinated omission).

mod alert;
mod cold;
mod compute;
mod embedded;
mod failover;
mod floor;
mod plant;
mod product;
mod rig;
mod seed;
mod state;
mod workload;

use crate::{
    cli::{BenchArgs, BenchName, Output},
    sink,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write;

/// One figure against its goal.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Goal of docs/performance.md, or "-".
    pub goal: &'static str,
    /// What was measured.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What must be reached.
    pub must: Option<f64>,
    /// What is aimed at.
    pub ambition: Option<f64>,
    /// Which way is better.
    pub better: Better,
    /// Reached what must be reached.
    pub ok: bool,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

impl Row {
    /// A figure that must lie on the right side of `must`.
    pub fn goal(
        goal: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        better: Better,
        must: f64,
        ambition: f64,
    ) -> Row {
        let ok = match better {
            Better::Higher => value >= must,
            Better::Lower => value <= must,
        };
        Row { goal, what: what.into(), value, unit, must: Some(must), ambition: Some(ambition), better, ok }
    }

    /// A figure without a goal.
    pub fn figure(what: impl Into<String>, value: f64, unit: &'static str, better: Better) -> Row {
        Row { goal: "-", what: what.into(), value, unit, must: None, ambition: None, better, ok: true }
    }
}

/// What a drill found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// Its name.
    pub name: &'static str,
    /// Its figures.
    pub rows: Vec<Row>,
    /// What a reader must know: parity, void runs, the workload's hash.
    pub notes: Vec<String>,
}

/// Runs the drills one after the other.
///
/// # Errors
/// A drill cannot be run, or its parity check fails.
pub fn run(args: &BenchArgs, output: Output) -> Result<()> {
    let mut found = Vec::new();
    let seconds = args.seconds.unwrap_or(5);
    for name in &args.names {
        eprintln!("bench {name:?} ...");
        let one = match name {
            BenchName::Floor => floor::run(seconds)?,
            BenchName::Compute => compute::run(seconds)?,
            BenchName::Embedded => embedded::run(seconds)?,
            BenchName::Alert => alert::run(seconds)?,
            BenchName::Cold => cold::run()?,
            BenchName::State => state::run()?,
            BenchName::Plant => plant::run(seconds)?,
            BenchName::Failover => failover::run()?,
            BenchName::Seed => seed::run(args.seconds.unwrap_or(1200))?,
        };
        if output == Output::Text {
            print!("{}", table(&one));
        }
        found.push(one);
    }
    if output == Output::Json {
        let machine = machine();
        let documents: Vec<serde_json::Value> = found
            .iter()
            .map(
                |one| serde_json::json!({ "name": one.name, "rows": one.rows, "notes": one.notes, "machine": machine }),
            )
            .collect();
        let document = match &documents[..] {
            [one] => one.clone(),
            several => serde_json::Value::Array(several.to_vec()),
        };
        sink::print(&format!("{document}\n"))?;
    }
    if let Some(file) = &args.report {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        std::fs::write(file, report(&text, &found)).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Where between two marks of the report the figures of a drill stand.
fn report(text: &str, found: &[Found]) -> String {
    let mut text = text.to_owned();
    for one in found {
        let (open, close) = (format!("<!-- bench {} -->", one.name), format!("<!-- end {} -->", one.name));
        let block = format!("{open}\n`millwright bench {}` on {}:\n\n{}{close}", one.name, machine_line(), table(one));
        match (text.find(&open), text.find(&close)) {
            (Some(from), Some(to)) => text.replace_range(from..to + close.len(), &block),
            _ => {
                let _ = write!(text, "\n## {}\n\n{block}\n", one.name);
            }
        }
    }
    text
}

fn table(found: &Found) -> String {
    let mut text = String::from("| goal | what | value | must | goal | |\n|---|---|---:|---:|---:|---|\n");
    for row in &found.rows {
        let bound = |value: Option<f64>| value.map_or("-".to_owned(), number);
        let verdict = match (row.must, row.ok) {
            (None, _) => "",
            (Some(_), true) => "ok",
            (Some(_), false) => "SHORT",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} {} | {} | {} | {verdict} |",
            row.goal,
            row.what,
            number(row.value),
            row.unit,
            bound(row.must),
            bound(row.ambition)
        );
    }
    text.push('\n');
    for note in &found.notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// What a reader must know of the machine.
fn machine() -> serde_json::Value {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    serde_json::json!({
        "cpu": cpu_model(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "load_1m": load.split(' ').next().and_then(|load| load.parse::<f64>().ok()),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn machine_line() -> String {
    format!("{} cores of {}", std::thread::available_parallelism().map_or(0, usize::from), cpu_model())
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or("an unknown processor", |model| model.trim_start_matches(['\t', ' ', ':'])).to_owned()
}
