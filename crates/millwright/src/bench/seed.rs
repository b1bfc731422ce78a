//! The seed's load: 1,000 readings/s over HTTP into a plant, one a request, for a long time.

use super::{
    Better, Found, Row,
    product::Http,
    rig::{Plant, now_us},
};
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use wire::format_time;

/// Readings per second; as many machines, each at 1 Hz.
const RATE: u64 = 1_000;
/// Connections; each has its own share of the schedule.
const SENDERS: u64 = 32;

/// What grows by more than this in the second half is not flat.
const FLAT_PERCENT: f64 = 5.0;

/// Runs the drill.
pub fn run(seconds: u64) -> Result<Found> {
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    let plant = Plant::up(&[])?;
    let (port, count) = (plant.portal()?, seconds * RATE);
    let before = plant.cpu();
    let start_us = now_us();
    let start = Instant::now() + Duration::from_millis(100);
    let senders: Vec<_> =
        (0..SENDERS).map(|sender| std::thread::spawn(move || send(port, start, sender, count))).collect();
    // Once warm, in the middle, at the end.
    let mut memory = Vec::new();
    for at in [(seconds / 10).min(30), seconds / 2, seconds] {
        std::thread::sleep((start + Duration::from_secs(at)).saturating_duration_since(Instant::now()));
        memory.push(plant.rss_mb());
        eprintln!("bench: {at} s of {seconds}");
    }
    let mut sent = Sent::new()?;
    for sender in senders {
        let one = sender.join().expect("a sender does not panic")?;
        sent.latency.add(one.latency)?;
        sent.behind.add(one.behind)?;
        sent.again += one.again;
    }
    let Sent { latency, behind, again } = sent;
    let lost = runtime.block_on(lost(&plant, start_us, count))?;
    let cpu = plant.cpu();
    let mut rows = vec![Row::goal("-", "readings lost or doubled", lost as f64, "", Better::Lower, 0.0, 0.0)];
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let value = latency.value_at_quantile(quantile) as f64 / 1e3;
        rows.push(Row::figure(format!("reading due -> 202 (all brokers have it), {name}"), value, "ms", Better::Lower));
    }
    for kind in memory[0].keys() {
        let [warm, middle, end] =
            [0, 1, 2].map(|at: usize| memory.get(at).and_then(|memory| memory.get(kind)).copied().unwrap_or(0.0));
        for (when, value) in [("warm", warm), ("in the middle", middle), ("at the end", end)] {
            rows.push(Row::figure(format!("resident memory of {kind}, {when}"), value, "MB", Better::Lower));
        }
        let grown = (end / middle.max(0.1) - 1.0) * 100.0;
        let what = format!("resident memory of {kind}: growth from the middle to the end");
        rows.push(Row::goal("G12", what, grown, "%", Better::Lower, FLAT_PERCENT, 1.0));
    }
    let per_reading: BTreeMap<String, f64> = cpu
        .into_iter()
        .map(|(kind, spent)| (spent - before.get(&kind).copied().unwrap_or(0.0), kind))
        .map(|(spent, kind)| (kind, spent / count as f64))
        .collect();
    rows.append(&mut super::plant::cpu_rows(&per_reading, &format!("{RATE} readings/s over HTTP")));
    let behind_ms = behind.value_at_quantile(0.99) as f64 / 1e3;
    let mut notes = vec![format!(
        "{} requests of one reading each in {seconds} s, {SENDERS} connections, counted from the scheduled time; {again} were asked \
         to come again. Every reading is in sensor_log once. A sender that waited for no answer was {behind_ms:.2} ms behind at p99",
        latency.len()
    )];
    if behind_ms > 1.0 {
        notes.push("VOID, the latencies: the sender itself was more than 1 ms late at p99".to_owned());
    }
    Ok(Found { name: "seed", rows, notes })
}

/// What a sender saw, in microseconds.
struct Sent {
    latency: Histogram<u64>,
    /// How late it was where the answer before had come in time.
    behind: Histogram<u64>,
    /// How often it was told to come again.
    again: u64,
}

impl Sent {
    fn new() -> Result<Sent> {
        Ok(Sent { latency: Histogram::new(3)?, behind: Histogram::new(3)?, again: 0 })
    }
}

/// Each reading in its millisecond, on one connection of many.
fn send(port: u16, start: Instant, sender: u64, count: u64) -> Result<Sent> {
    let mut http = Http::connect(port)?;
    let mut sent = Sent::new()?;
    for n in (sender..count).step_by(SENDERS as usize) {
        let due = start + Duration::from_micros(n * 1_000_000 / RATE);
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early);
            sent.behind.record(due.elapsed().as_micros() as u64)?;
        }
        let body = format!(
            "{{\"machine_id\":\"machine-{:03}\",\"timestamp\":\"{}\",\"air_temp_k\":300.0,\"process_temp_k\":310.0,\"rpm\":1500,\"torque_nm\":40.0,\"tool_wear_min\":5}}\n",
            n % RATE,
            format_time(now_us())
        );
        loop {
            match http.request("POST", "/api/readings", body.as_bytes())? {
                (202, _) => break,
                (429 | 503, _) => sent.again += 1,
                (status, text) => bail!("POST /api/readings: {status} {text}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        sent.latency.record(due.elapsed().as_micros() as u64)?;
    }
    Ok(sent)
}

/// How far what is stored is from what was sent, once nothing more comes.
async fn lost(plant: &Plant, start_us: i64, count: u64) -> Result<u64> {
    let main = plant.database("postgres_main").await?;
    let sql = "select count(*), count(distinct (machine_id, timestamp)) from sensor_log where timestamp >= $1::text::timestamp";
    let (start, begun) = (format_time(start_us), Instant::now());
    loop {
        let row = main.query_one(sql, &[&start]).await.context("count the rows")?;
        let (rows, different) = (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64);
        let off = count.abs_diff(rows).max(count.abs_diff(different));
        if off == 0 || begun.elapsed() > Duration::from_secs(30) {
            return Ok(off);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
