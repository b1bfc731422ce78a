//! From exec to the first reading accepted; what the binary weighs.

use super::{
    Better, Found, Row,
    product::{Http, Product},
    workload,
};
use anyhow::{Context, Result, bail};
use std::time::Instant;

/// Runs the drill.
pub fn run() -> Result<Found> {
    let mut times = Vec::new();
    let mut ready = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        let product = Product::start(&["--no-simulate"])?;
        let mut body = String::new();
        workload::SEED.lines(workload::START_S, 0, 1, &mut body);
        let (status, text) = Http::connect(product.port)?.request("POST", "/api/readings", body.as_bytes())?;
        if status != 202 {
            bail!("POST /api/readings: {status} {text}");
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ready.push(product.ready_s * 1e3);
    }
    times.sort_by(f64::total_cmp);
    ready.sort_by(f64::total_cmp);
    let bin = std::env::current_exe().context("find this program")?;
    let bytes = std::fs::metadata(&bin).with_context(|| format!("look at {}", bin.display()))?.len();
    Ok(Found {
        name: "cold",
        rows: vec![
            Row::goal(
                "G8",
                "exec -> first reading accepted, empty folder, median of 9",
                times[4],
                "ms",
                Better::Lower,
                500.0,
                100.0,
            ),
            Row::figure("exec -> ready", ready[4], "ms", Better::Lower),
            Row::goal("G8", "binary, live page included", bytes as f64 / 1e6, "MB", Better::Lower, 40.0, 25.0),
        ],
        notes: Vec::new(),
    })
}
