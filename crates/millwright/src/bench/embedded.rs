//! `up` from HTTP to alarm: durable intake, history, detection, outbox, event stream, everything counted.

use super::{
    Better, Found, Row,
    product::{Http, Product},
    workload,
};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Lines a body.
const PER: u64 = 10_000;
/// Senders at once.
const SENDERS: u64 = 4;

/// Runs the drill.
pub fn run(seconds: u64) -> Result<Found> {
    // Made beforehand; more than the goal can take in the time.
    let count = (400_000 * seconds).max(PER * SENDERS);
    let bodies = senders(count);
    let hash = workload::hash(bodies.iter().flatten());
    let product = Product::start(&["--no-simulate"])?;
    let broken = (count / workload::SEED.broken_every) as usize;
    let (cpu, start) = (product.cpu_seconds(), Instant::now());
    std::thread::scope(|scope| -> Result<()> {
        let sending: Vec<_> = bodies.iter().map(|bodies| scope.spawn(|| send(product.port, bodies))).collect();
        sending.into_iter().try_for_each(|one| one.join().expect("a sender does not panic"))
    })?;
    let accepted = start.elapsed().as_secs_f64();
    product.wait_stored(count)?;
    product.wait_raised("PowerFailure", broken)?;
    let stored = start.elapsed().as_secs_f64();
    let spent = product.cpu_seconds() - cpu;
    let trickle = trickle(seconds.min(10))?;
    Ok(Found {
        name: "embedded",
        rows: vec![
            Row::goal(
                "G2",
                "stored, judged and queryable, durable, 10,000 lines a body, 4 senders",
                count as f64 / stored / 1e6,
                "M readings/s",
                Better::Higher,
                0.5,
                1.5,
            ),
            Row::figure(
                "the same per CPU-second of the product",
                count as f64 / spent / 1e6,
                "M readings/CPU-s",
                Better::Higher,
            ),
            Row::figure("answered 202", count as f64 / accepted / 1e6, "M readings/s", Better::Higher),
            Row::figure("resident memory after it", product.rss_mb(), "MB", Better::Lower),
            Row::goal(
                "G12",
                "share of a core at 1,000 readings/s, one body of 1,000 lines a second",
                trickle * 100.0,
                "%",
                Better::Lower,
                10.0,
                2.0,
            ),
        ],
        notes: vec![
            format!(
                "{count} readings, workload W1, sha256 {hash}; senders run on the same cores and are not counted in CPU-seconds"
            ),
            format!(
                "the time ends when the ledger holds all as stored and each of {broken} broken readings has raised its condition"
            ),
        ],
    })
}

/// Bodies by sender; a machine's readings are one sender's, so that its time only goes forward.
fn senders(count: u64) -> Vec<Vec<String>> {
    let all = workload::SEED.bodies(count, PER);
    let mut by_sender: Vec<Vec<String>> = vec![Vec::new(); SENDERS as usize];
    for body in all {
        let mut parts: Vec<String> = vec![String::new(); SENDERS as usize];
        for line in body.lines() {
            // The machine's last digits decide.
            let machine: u64 = line[23..29].parse().unwrap_or(0);
            let part = &mut parts[(machine % SENDERS) as usize];
            part.push_str(line);
            part.push('\n');
        }
        for (sender, part) in by_sender.iter_mut().zip(parts) {
            match sender.last_mut() {
                Some(last) if last.len() + part.len() < PER as usize * 165 => last.push_str(&part),
                _ => sender.push(part),
            }
        }
    }
    by_sender
}

fn send(port: u16, bodies: &[String]) -> Result<()> {
    let mut http = Http::connect(port)?;
    for body in bodies {
        loop {
            match http.request("POST", "/api/readings", body.as_bytes())? {
                (202, _) => break,
                (429 | 503, _) => std::thread::sleep(Duration::from_millis(5)),
                (status, text) => bail!("POST /api/readings: {status} {text}"),
            }
        }
    }
    Ok(())
}

/// Share of a core that 1,000 readings/s cost.
fn trickle(seconds: u64) -> Result<f64> {
    let product = Product::start(&["--no-simulate"])?;
    let mut http = Http::connect(product.port)?;
    let (cpu, start) = (product.cpu_seconds(), Instant::now());
    for second in 0..seconds {
        let mut body = String::new();
        workload::SEED.lines(workload::START_S, second * 1000, (second + 1) * 1000, &mut body);
        let due = start + Duration::from_secs(second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (status, text) = http.request("POST", "/api/readings", body.as_bytes())?;
        if status != 202 {
            bail!("POST /api/readings: {status} {text}");
        }
    }
    std::thread::sleep((start + Duration::from_secs(seconds)).saturating_duration_since(Instant::now()));
    product.wait_stored(seconds * 1000).context("store the readings of the trickle")?;
    Ok((product.cpu_seconds() - cpu) / start.elapsed().as_secs_f64())
}
