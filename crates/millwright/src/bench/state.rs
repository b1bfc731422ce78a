//! Bytes per machine, idle memory, and many machines in random order.

use super::{
    Better, Found, Row,
    product::{Product, own_cpu_seconds},
    workload,
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};

/// Runs the drill.
pub fn run() -> Result<Found> {
    let bytes = bytes_per_machine();
    let idle = {
        let product = Product::start(&["--no-simulate"])?;
        std::thread::sleep(Duration::from_secs(2));
        product.rss_mb()
    };
    let (few, many) = (rate(1000), rate(300_000));
    let million = own_rss_with_a_million();
    Ok(Found {
        name: "state",
        rows: vec![
            Row::goal("G6", "state of a mill machine after 120 s at 1 Hz", bytes, "B", Better::Lower, 768.0, 512.0),
            Row::goal("G6", "resident memory, idle", idle, "MB", Better::Lower, 60.0, 30.0),
            Row::goal(
                "G6",
                "resident memory of the engine with 1,000,000 machines",
                million,
                "MB",
                Better::Lower,
                1500.0,
                800.0,
            ),
            Row::goal(
                "G7",
                "300,000 machines in random order against 1,000",
                100.0 * many / few,
                "%",
                Better::Higher,
                25.0,
                50.0,
            ),
        ],
        notes: vec![format!(
            "engine alone: {:.2} M readings/CPU-s with 1,000 machines, {:.2} M with 300,000 in random order",
            few / 1e6,
            many / 1e6
        )],
    })
}

/// Batches of a workload, one partition, decoded beforehand.
fn batches(machines: u64, count: u64) -> Vec<wire::ReadingBatch> {
    let catalogue = Arc::new(catalog::Catalogue::builtin());
    let mut decoder = wire::Decoder::new(catalogue, 1);
    let work = workload::Workload { machines, broken_every: 0, shuffled: true };
    let mut batches = Vec::new();
    for (offset, body) in work.bodies(count, 20_000).iter().enumerate() {
        let arrived_us = (workload::START_S + 86_400) * 1_000_000;
        let decoded =
            decoder.decode(body.as_bytes(), wire::Framing::Lines, arrived_us, &|_| None).expect("lines are readings");
        for (_, mut batch) in decoded.batches {
            batch.spans = vec![wire::Span { first_row: 0, offset: offset as i64, arrived_us, source: "bench".into() }];
            batches.push(batch);
        }
    }
    batches
}

fn feed(engine: &mut engine::Engine, batches: &[wire::ReadingBatch]) {
    let mut effects = engine::Effects::default();
    for batch in batches {
        engine.apply(engine::Input::Readings(batch), &mut effects);
        effects = engine::Effects::default();
    }
}

fn bytes_per_machine() -> f64 {
    let mut engine = engine::Engine::new(0, Arc::new(catalog::Catalogue::builtin()));
    feed(&mut engine, &batches(1000, 120_000));
    let (machines, bytes) = engine.state_bytes();
    bytes as f64 / machines as f64
}

/// Readings per CPU-second of the engine alone, machines known.
fn rate(machines: u64) -> f64 {
    let mut engine = engine::Engine::new(0, Arc::new(catalog::Catalogue::builtin()));
    let batches = batches(machines, 900_000.max(machines * 3));
    let warm = batches.len() / 3;
    feed(&mut engine, &batches[..warm]);
    let cpu = own_cpu_seconds();
    feed(&mut engine, &batches[warm..]);
    let rows: usize = batches[warm..].iter().map(wire::ReadingBatch::rows).sum();
    rows as f64 / (own_cpu_seconds() - cpu)
}

/// MB by which this process grows when an engine holds a million machines with two readings each.
fn own_rss_with_a_million() -> f64 {
    let before = own_rss_mb();
    let mut engine = engine::Engine::new(0, Arc::new(catalog::Catalogue::builtin()));
    for from in (0..2_000_000).step_by(20_000) {
        // One body at a time, so that the input does not count.
        let catalogue = Arc::new(catalog::Catalogue::builtin());
        let mut decoder = wire::Decoder::new(catalogue, 1);
        let work = workload::Workload { machines: 1_000_000, broken_every: 0, shuffled: false };
        let mut body = String::new();
        work.lines(workload::START_S, from, from + 20_000, &mut body);
        let arrived_us = (workload::START_S + 86_400) * 1_000_000;
        let decoded =
            decoder.decode(body.as_bytes(), wire::Framing::Lines, arrived_us, &|_| None).expect("lines are readings");
        for (_, mut batch) in decoded.batches {
            batch.spans =
                vec![wire::Span { first_row: 0, offset: (from / 20_000) as i64, arrived_us, source: "bench".into() }];
            feed(&mut engine, &[batch]);
        }
    }
    let grown = own_rss_mb() - before;
    drop(engine);
    grown
}

fn own_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
