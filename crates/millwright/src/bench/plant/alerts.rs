//! From a reading to its alert on the topic and on the WebSocket of a plant, open loop.

use crate::bench::{
    Better, Row,
    product::Http,
    rig::{Plant, now_us},
};
use anyhow::{Context, Result, bail};
use bus::{Bus, Event, Outgoing, Topic};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::mpsc,
    time::{Duration, Instant},
};
use wire::{READINGS_PARTITIONS, format_time, parse_time, partition_of};

/// Readings per second; one in so many breaks the power law, each on a machine of its own.
const RATE: u64 = 1_000;
const BROKEN_EVERY: u64 = 20;
/// Seconds of the same load before it counts: Java compiles for so long, and each machine is seen before it breaks a law.
const WARM_S: u64 = 60;
/// How long the last alerts may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was measured with one relay.
pub struct Alerts {
    relay: &'static str,
    topic: Histogram<u64>,
    frame: Histogram<u64>,
    relayed: Histogram<u64>,
    behind: Histogram<u64>,
    cpu: BTreeMap<String, f64>,
}

/// An alert as it came: its id, the time in its reading, and when.
struct Seen {
    id: String,
    due_us: i64,
    at_us: i64,
}

/// Sends the load and waits for its alerts.
pub async fn run(plant: &Plant, relay: &'static str, seconds: u64) -> Result<Alerts> {
    // Alerts enough for a p99.9.
    let seconds = (4 * seconds).max(1);
    eprintln!("bench: {RATE} readings/s for {} s, {relay}", WARM_S + seconds);
    let bus = plant.bus().await?;
    let on_topic = follow_topic(&bus).await?;
    let on_socket = follow_socket(plant.portal()?)?;
    let count = (WARM_S + seconds) * RATE;
    let broken = count.div_ceil(BROKEN_EVERY);
    let start_us = now_us() + 200_000;
    let counted_us = start_us + (WARM_S * 1_000_000) as i64;
    let (runtime, sender_bus) = (tokio::runtime::Handle::current(), bus.clone());
    let sender = tokio::task::spawn_blocking(move || send(&runtime, &sender_bus, start_us, count));
    // The processor's time counts from the same moment of the schedule as the latencies.
    tokio::time::sleep(Duration::from_micros((counted_us - now_us()).max(0) as u64)).await;
    let before = plant.cpu();
    let (behind, sent) = sender.await.context("the sender panicked")??;
    for one in sent {
        one.await.context("a send panicked")?.context("send a reading")?;
    }
    let topic = collect(on_topic, broken).context("alerts on the topic")?;
    let frames = collect(on_socket, broken).context("alerts on the WebSocket")?;
    let mut cpu = plant.cpu();
    for (kind, spent) in &mut cpu {
        *spent = (*spent - before.get(kind).copied().unwrap_or(0.0)) / (seconds * RATE) as f64;
    }
    bus.close().await;
    let ai = plant.database("postgres_ai").await?;
    let committed = committed(&ai).await?;
    if committed.len() as u64 != broken {
        bail!("NOT COMPARABLE: {} alerts in the history of {broken}", committed.len());
    }
    let latency = |seen: &[Seen]| -> Result<Histogram<u64>> {
        let mut latency = Histogram::new(3)?;
        for one in seen.iter().filter(|one| one.due_us >= counted_us) {
            latency.record((one.at_us - one.due_us).max(0) as u64)?;
        }
        Ok(latency)
    };
    let mut relayed = Histogram::new(3)?;
    for one in topic.iter().filter(|one| one.due_us >= counted_us) {
        let commit_us = committed.get(&one.id).context("an alert on the topic is not in the history")?;
        relayed.record((one.at_us - commit_us).max(0) as u64)?;
    }
    Ok(Alerts { relay, topic: latency(&topic)?, frame: latency(&frames)?, relayed, behind, cpu })
}

type Sent = Vec<tokio::task::JoinHandle<Result<Vec<i64>, bus::Error>>>;

/// One reading each millisecond, whether the ones before were taken or not; how far behind its schedule it was.
fn send(runtime: &tokio::runtime::Handle, bus: &Bus, start_us: i64, count: u64) -> Result<(Histogram<u64>, Sent)> {
    // A machine's clock waits for no service of the plant. Who may not ask for it is told below if it was late.
    let _ = rustix::process::nice(-15);
    let start = Instant::now() + Duration::from_micros((start_us - now_us()).max(0) as u64);
    let mut behind = Histogram::new(3)?;
    let mut sent = Vec::with_capacity(count as usize);
    for n in 0..count {
        let due = Duration::from_micros(n * 1_000_000 / RATE);
        // Each machine whose alert counts, one after the other, for the first sound readings of the warm-up.
        let sound = n - n.div_ceil(BROKEN_EVERY);
        let next = (WARM_S * RATE).next_multiple_of(BROKEN_EVERY) + sound * BROKEN_EVERY;
        let (machine, torque) = match n % BROKEN_EVERY {
            0 => (format!("alarm-{n:06}"), 70),
            _ if next < count => (format!("alarm-{next:06}"), 40),
            _ => (format!("load-{:06}", n % 1_000), 40),
        };
        let timestamp = format_time(start_us + due.as_micros() as i64);
        let value = format!(
            r#"{{"machine_id":"{machine}","timestamp":"{timestamp}","air_temp_k":300.0,"process_temp_k":310.0,"rpm":1500,"torque_nm":{torque}.0,"tool_wear_min":5}}"#
        );
        let record = Outgoing {
            partition: partition_of(&machine, READINGS_PARTITIONS),
            arrived_us: 0,
            source: "bench".into(),
            rows: 1,
            key: Some(machine.into()),
            value: value.into_bytes(),
        };
        std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
        behind.record((start + due).elapsed().as_micros() as u64)?;
        let bus = bus.clone();
        sent.push(runtime.spawn(async move { bus.send(vec![record]).await }));
    }
    Ok((behind, sent))
}

/// Alerts on the topic from its end on.
async fn follow_topic(bus: &Bus) -> Result<mpsc::Receiver<Seen>> {
    const PIECE: usize = 1 << 20;
    let mut consumer = bus.consumer(Topic::Alerts, "bench")?;
    let mut open = Topic::Alerts.partitions();
    while open > 0 {
        if let Event::Assigned(partitions) = consumer.next(PIECE).await? {
            for partition in partitions {
                let (_, end) = bus.bounds(Topic::Alerts, partition).await?;
                consumer.start(partition, end).await?;
                open -= 1;
            }
        }
    }
    let (tell, told) = mpsc::channel();
    tokio::spawn(async move {
        // Until the bus is closed, or whoever listens is gone.
        while let Ok(event) = consumer.next(PIECE).await {
            let at_us = now_us();
            let Event::Records(records) = event else { continue };
            for record in records {
                let alert = serde_json::from_slice(&record.value).unwrap_or_default();
                if seen(&alert, at_us).is_some_and(|seen| tell.send(seen).is_err()) {
                    return;
                }
            }
        }
    });
    Ok(told)
}

/// Alerts on the WebSocket. The thread ends with the portal.
fn follow_socket(port: u16) -> Result<mpsc::Receiver<Seen>> {
    let frames = Http::connect(port)?.websocket()?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for frame in frames {
            let at_us = now_us();
            if !frame.contains("PowerFailure") {
                continue;
            }
            let frame: Value = serde_json::from_str(&frame).unwrap_or_default();
            if seen(&frame["data"], at_us).is_some_and(|seen| tell.send(seen).is_err()) {
                return;
            }
        }
    });
    Ok(told)
}

/// Of an alert that the load is meant to raise.
fn seen(alert: &Value, at_us: i64) -> Option<Seen> {
    if alert["kind"] != "raised" || alert["failure_type"] != "PowerFailure" {
        return None;
    }
    let due_us = parse_time(alert["timestamp"].as_str()?.as_bytes()).ok()?;
    Some(Seen { id: alert["alert_id"].as_str()?.to_owned(), due_us, at_us })
}

/// So many different alerts, each as it first came.
fn collect(told: mpsc::Receiver<Seen>, count: u64) -> Result<Vec<Seen>> {
    let mut first: HashMap<String, Seen> = HashMap::new();
    let until = Instant::now() + PATIENCE;
    while (first.len() as u64) < count {
        let Ok(seen) = told.recv_timeout(until.saturating_duration_since(Instant::now())) else {
            bail!(
                "NOT COMPARABLE: {} of {count} came within {} s of the last reading",
                first.len(),
                PATIENCE.as_secs()
            );
        };
        first.entry(seen.id.clone()).or_insert(seen);
    }
    Ok(first.into_values().collect())
}

/// When PostgreSQL committed each alert, microseconds since 1970.
async fn committed(ai: &tokio_postgres::Client) -> Result<HashMap<String, i64>> {
    let sql = "select id::text, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
               from anomaly_history where kind = 'raised' and failure_type = 'PowerFailure'";
    let rows = ai.query(sql, &[]).await.context("ask for the times of the commits")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

impl Alerts {
    /// From the commit to the record at a consumer.
    pub fn relayed_ms(&self, quantile: f64) -> f64 {
        self.relayed.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Its figures; with the goals where it is the relay that they are for.
    pub fn rows(&self, held: bool) -> Vec<Row> {
        let mut rows = Vec::new();
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
        for (what, histogram, goals) in [
            ("reading due -> WebSocket frame", &self.frame, [Some((25.0, 8.0)), Some((250.0, 60.0))]),
            ("reading due -> record on anomaly-alerts", &self.topic, [Some((25.0, 8.0)), Some((250.0, 60.0))]),
            ("commit -> record on anomaly-alerts", &self.relayed, [None, None]),
        ] {
            for (name, quantile) in quantiles {
                let goal = match name {
                    "p50" if held => goals[0],
                    "p99" if held => goals[1],
                    _ => None,
                };
                let what = format!("{}: {what}, {name}", self.relay);
                let value = histogram.value_at_quantile(quantile) as f64 / 1e3;
                rows.push(match goal {
                    Some((must, aim)) => Row::goal("G5", what, value, "ms", Better::Lower, must, aim),
                    // Of the relay's own part an aim alone is set.
                    None if held && name == "p50" => {
                        Row { ambition: Some(2.0), ..Row::figure(what, value, "ms", Better::Lower) }
                    }
                    None => Row::figure(what, value, "ms", Better::Lower),
                });
            }
        }
        rows.append(&mut super::cpu_rows(&self.cpu, &format!("{RATE} readings/s, {}", self.relay)));
        rows
    }

    /// What a reader must know.
    pub fn notes(&self) -> Vec<String> {
        let behind = self.behind.value_at_quantile(0.99) as f64 / 1e3;
        let mut notes = vec![format!(
            "{}: {} alerts at {RATE} readings/s, counted from the scheduled time that the reading carries, the first {WARM_S} s left \
             out; all came. The commit's time is PostgreSQL's (track_commit_timestamp), before its fsync. The sender was {behind:.2} ms \
             behind at p99",
            self.relay,
            self.topic.len()
        )];
        if behind > 1.0 {
            notes.push(format!("VOID: {}: the sender itself was more than 1 ms late at p99", self.relay));
        }
        notes
    }
}
