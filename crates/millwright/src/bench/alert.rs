//! From a reading to its alert on the event stream, open loop.

use super::{
    Better, Found, Row, floor,
    product::{Http, Product},
    workload,
};
use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    sync::mpsc,
    time::{Duration, Instant},
};

/// Readings per second in the background.
const RATE: u64 = 20_000;
/// Bodies per second that carry them.
const BODIES: u64 = 50;

/// Runs the drill.
pub fn run(seconds: u64) -> Result<Found> {
    let (fdatasync_ms, _) = floor::fdatasync()?;
    let product = Product::start(&["--no-simulate"])?;
    let frames = Http::connect(product.port)?.events()?;
    let (tell, told) = mpsc::channel();
    // Ends with the process that it listens to.
    std::thread::spawn(move || {
        for frame in frames {
            let now = Instant::now();
            if frame.contains("\"raised\"") && frame.contains("PowerFailure") && tell.send((now, frame)).is_err() {
                return;
            }
        }
    });
    let background = workload::Workload { machines: 1000, broken_every: 0, shuffled: false };
    // Event time is now: nothing is found late.
    let start_s = wall_s() - (RATE / 1000 * seconds) as i64;
    let start = Instant::now();
    let mut scheduled: BTreeMap<String, Instant> = BTreeMap::new();
    let mut behind = Histogram::<u64>::new(3)?;
    let mut senders = Vec::new();
    let (work, queue) = mpsc::channel::<(Instant, String)>();
    let queue = std::sync::Arc::new(std::sync::Mutex::new(queue));
    for _ in 0..4 {
        let queue = queue.clone();
        let port = product.port;
        senders.push(std::thread::spawn(move || -> Result<Vec<Duration>> {
            let mut http = Http::connect(port)?;
            let mut late = Vec::new();
            loop {
                let next = queue.lock().expect("no sender panics").recv();
                let Ok((due, body)) = next else { return Ok(late) };
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                late.push(Instant::now().saturating_duration_since(due));
                let (status, text) = http.request("POST", "/api/readings", body.as_bytes())?;
                if status != 202 {
                    bail!("POST /api/readings: {status} {text}");
                }
            }
        }));
    }
    for n in 0..seconds * BODIES {
        let due = start + Duration::from_secs(1) + Duration::from_micros(1_000_000 / BODIES * n);
        let per = RATE / BODIES;
        let mut body = String::new();
        background.lines(start_s, n * per, (n + 1) * per, &mut body);
        // One machine of its own breaks the power law in each second body.
        if n % 2 == 0 {
            let machine = format!("alarm-{n:06}");
            body.push_str(&format!(
                "{{\"machine_id\":\"{machine}\",\"timestamp\":\"{}\",\"air_temp_k\":300.0,\"process_temp_k\":310.0,\"rpm\":1500,\"torque_nm\":70.0,\"tool_wear_min\":5}}\n",
                wire::format_time(wall_s() * 1_000_000)
            ));
            scheduled.insert(machine, due);
        }
        if work.send((due, body)).is_err() {
            break;
        }
    }
    drop(work);
    for sender in senders {
        for late in sender.join().expect("a sender does not panic")? {
            behind.record(late.as_micros() as u64)?;
        }
    }
    let mut latency = Histogram::<u64>::new(3)?;
    let mut open = scheduled.len();
    while open > 0 {
        let Ok((at, frame)) = told.recv_timeout(Duration::from_secs(5)) else {
            bail!("{open} of {} alerts did not come within 5 s", scheduled.len());
        };
        let frame: serde_json::Value = serde_json::from_str(&frame)?;
        if let Some(due) = frame["data"]["machine_id"].as_str().and_then(|machine| scheduled.remove(machine)) {
            latency.record(at.saturating_duration_since(due).as_micros() as u64)?;
            open -= 1;
        }
    }
    let ms = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
    let sender_p99 = behind.value_at_quantile(0.99) as f64 / 1e3;
    let mut notes = vec![
        format!(
            "{} alerts at {RATE} readings/s in the background, {BODIES} bodies/s; counted from the scheduled time",
            latency.len()
        ),
        format!(
            "fdatasync p50 on this disk {fdatasync_ms:.2} ms in the same run; the goal for p50 is 3 of them + 1 ms"
        ),
        format!("the sender was {sender_p99:.2} ms behind its schedule at p99"),
    ];
    if sender_p99 > 1.0 {
        notes.push("VOID: the sender itself was more than 1 ms late at p99".to_owned());
    }
    let ambition = 3.0 * fdatasync_ms + 1.0;
    Ok(Found {
        name: "alert",
        rows: vec![
            Row::goal("G4", "reading due -> alert frame, p50", ms(0.5), "ms", Better::Lower, 50.0, ambition),
            Row::goal("G4", "p99", ms(0.99), "ms", Better::Lower, 50.0, 50.0),
            Row::goal("G4", "p99.9", ms(0.999), "ms", Better::Lower, 100.0, 100.0),
            Row::figure("max", latency.max() as f64 / 1e3, "ms", Better::Lower),
        ],
        notes,
    })
}

fn wall_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is after 1970");
    since.as_secs() as i64
}
