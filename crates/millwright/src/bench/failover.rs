//! How long a plant stands still when a part of it dies.

use super::{
    Better, Found, Row,
    rig::{self, Plant, now_us},
};
use anyhow::{Context, Result, bail};
use bus::{Bus, Outgoing};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_postgres::Client;
use wire::{READINGS_PARTITIONS, READINGS_TOPIC, format_time, partition_of};

/// Readings per second of each partition.
const RATE: u64 = 50;
/// One of so many breaks a law, of a machine of its own: a detector writes its position with each alert, and without any only each second.
const BROKEN_EVERY: u64 = 5;
/// How long a death is watched.
const WATCHED: Duration = Duration::from_secs(15);
/// How long whatever was restarted may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the drill.
pub fn run() -> Result<Found> {
    let runtime = Runtime::new().context("start a runtime")?;
    let mut found = Found { name: "failover", rows: Vec::new(), notes: Vec::new() };
    {
        let plant = Plant::up(&["--brokers", "3", "--detectors", "2"])?;
        runtime.block_on(deaths(&plant, &mut found))?;
    }
    let plant = Plant::up(&["--detectors", "2", "--supervise"])?;
    runtime.block_on(restarts(&plant, &mut found))?;
    found.notes.push(format!(
        "{RATE} readings/s on each of {READINGS_PARTITIONS} partitions, one of {BROKEN_EVERY} raises an alert; what was acknowledged is in sensor_log, each reading once"
    ));
    Ok(found)
}

/// A detector, then one of three brokers; nobody starts them again.
async fn deaths(plant: &Plant, found: &mut Found) -> Result<()> {
    let load = Load::start(plant).await?;
    let (main, ai) = (plant.database("postgres_main").await?, plant.database("postgres_ai").await?);
    // What stood before is what a loaded machine does by itself.
    let before = silence(&[("detect", &ai)], Duration::from_secs(5), || Ok(())).await?;
    for (what, kind, databases, must, aim) in [
        ("kill -9 of one of 2 detectors: longest silence of a partition", "detect", vec![("detect", &ai)], 5.0, 2.0),
        (
            "kill -9 of one of 3 brokers: longest silence of a partition, ingest and detect",
            "kafka",
            vec![("ingest", &main), ("detect", &ai)],
            4.0,
            4.0,
        ),
    ] {
        eprintln!("bench: {what}");
        let pid = *plant.pids(kind).first().with_context(|| format!("there is no {kind}"))?;
        let silence = silence(&databases, WATCHED, || signal(pid, "KILL")).await?;
        found.rows.push(Row::goal("-", what, silence, "s", Better::Lower, must, aim));
    }
    found.rows.push(Row::figure("longest silence of a partition while all live", before, "s", Better::Lower));
    load.end(&main).await
}

/// PostgreSQL, Kafka and Redis, which are started again at once.
async fn restarts(plant: &Plant, found: &mut Found) -> Result<()> {
    let load = Load::start(plant).await?;
    let (main, mut ai) = (plant.database("postgres_main").await?, plant.database("postgres_ai").await?);
    silence(&[("detect", &ai)], Duration::from_secs(5), || Ok(())).await?;
    for (kind, what) in [("postgres_ai", "PostgreSQL (AI)"), ("kafka", "the only broker"), ("redis", "Redis")] {
        eprintln!("bench: restart of {what}");
        let pid = *plant.pids(kind).first().with_context(|| format!("there is no {kind}"))?;
        // A postmaster that is killed outright leaves children that the next one must wait for.
        signal(pid, if kind == "postgres_ai" { "QUIT" } else { "KILL" })?;
        let killed = Instant::now();
        while std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let down = wait(async || answers(plant, kind).await).await.context(what)?;
        let accepts = Instant::now();
        if kind == "redis" {
            // Its counts begin anew; what it reads back from its own file is not counted.
            wait(async || Ok(written(&redis(plant.address(kind)?, "INFO commandstats")?))).await.context(what)?;
        } else {
            if kind == "postgres_ai" {
                ai = plant.database(kind).await?;
            }
            let from = rig::position(&ai).await?;
            wait(async || Ok(rig::position(&ai).await? > from)).await.context(what)?;
        }
        let back = accepts.elapsed().as_secs_f64();
        let row = format!("restart of {what}: from accepting connections until progress");
        found.rows.push(Row::goal("-", row, back, "s", Better::Lower, 2.0, 2.0));
        found.notes.push(format!(
            "{what} accepted connections {:.1} s after it died",
            (killed.elapsed().as_secs_f64() - back).max(down)
        ));
        // The next death finds everything well.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    load.end(&main).await
}

/// Asks until it is so, through errors; the seconds that it took.
async fn wait(mut so: impl AsyncFnMut() -> Result<bool>) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let answer = so().await;
        if matches!(answer, Ok(true)) {
            return Ok(begun.elapsed().as_secs_f64());
        }
        if begun.elapsed() > PATIENCE {
            answer?;
            bail!("no progress after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether an engine answers a question, not only the kernel its connection.
async fn answers(plant: &Plant, kind: &str) -> Result<bool> {
    let address = plant.address(kind)?;
    match kind {
        "kafka" => {
            // ApiVersions, version 0, no client id.
            let question = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255];
            Ok(ask(address, &question)?.len() > 4)
        }
        "redis" => Ok(redis(address, "PING")?.starts_with("+PONG")),
        _ => Ok(rig::connect(address).await?.simple_query("select 1").await.is_ok()),
    }
}

/// Whether one of our scripts has run: `cmdstat_evalsha:calls=2,...,failed_calls=1`.
fn written(statistics: &str) -> bool {
    let line = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or_default();
    let number = |key: &str| {
        let value = line.split(',').find_map(|field| field.strip_prefix(key)).unwrap_or_default();
        value.trim().parse::<u64>().unwrap_or(0)
    };
    number("calls=") > number("failed_calls=")
}

fn redis(url: &str, words: &str) -> Result<String> {
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    Ok(String::from_utf8_lossy(&ask(address, format!("{words}\r\n").as_bytes())?).into_owned())
}

/// The first bytes of an answer.
fn ask(address: &str, question: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(question)?;
    let mut answer = vec![0; 16 << 10];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().context("run kill")?;
    if !status.success() {
        bail!("there is no process {pid} to kill");
    }
    Ok(())
}

/// Does something and watches the positions: the longest that one of them stood from then on, seconds.
async fn silence(
    services: &[(&'static str, &Client)],
    watched: Duration,
    strike: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let sql = "select partition, next_offset from consumer_offset where topic = $1";
    strike()?;
    let begun = Instant::now();
    // By service and partition: the position, since when it stands.
    let mut seen: BTreeMap<(&str, i32), (i64, Instant)> = BTreeMap::new();
    let (mut longest, mut worst) = (Duration::ZERO, ("none", 0));
    while begun.elapsed() < watched {
        for (service, database) in services {
            let rows = database.query(sql, &[&READINGS_TOPIC]).await.context("ask for the positions")?;
            for row in &rows {
                let (partition, offset): (i32, i64) = (row.get(0), row.get(1));
                let (position, since) = seen.entry((*service, partition)).or_insert((offset, begun));
                if offset > *position {
                    if since.elapsed() > longest {
                        longest = since.elapsed();
                        worst = (*service, partition);
                    }
                    (*position, *since) = (offset, Instant::now());
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if seen.len() != services.len() * usize::from(READINGS_PARTITIONS) {
        bail!("not every partition has a position");
    }
    eprintln!("bench: {:.1} s, of {}, partition {}", longest.as_secs_f64(), worst.0, worst.1);
    for ((service, partition), (_, since)) in &seen {
        if since.elapsed() > Duration::from_secs(1) {
            eprintln!("bench: partition {partition} of {service} still stands");
        }
    }
    // One that still stands was not taken over.
    Ok(seen.values().map(|(_, since)| since.elapsed()).fold(longest, Duration::max).as_secs_f64())
}

/// Readings at a steady rate on every partition, whatever becomes of those before.
struct Load {
    stop: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<JoinSet<Result<Duration, bus::Error>>>,
    bus: Bus,
    start_us: i64,
}

impl Load {
    async fn start(plant: &Plant) -> Result<Load> {
        let (bus, stop) = (plant.bus().await?, Arc::new(AtomicBool::new(false)));
        let start_us = now_us();
        let (runtime, sender_bus, stopped) = (tokio::runtime::Handle::current(), bus.clone(), stop.clone());
        let sender = std::thread::spawn(move || send(&runtime, &sender_bus, &stopped));
        // Every partition has a position from its first batch on.
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(Load { stop, sender, bus, start_us })
    }

    /// Stops it, and holds what was stored against what was acknowledged.
    async fn end(self, main: &Client) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender does not panic").join_all().await;
        let (all, taken) = (sent.len() as i64, sent.iter().filter(|sent| sent.is_ok()).count() as i64);
        let longest = sent.iter().flatten().max().copied().unwrap_or_default();
        eprintln!("bench: the longest acknowledgement took {:.1} s", longest.as_secs_f64());
        self.bus.close().await;
        let sql = "select count(*), count(distinct (machine_id, timestamp)) from sensor_log where timestamp >= $1::text::timestamp";
        let start = format_time(self.start_us);
        let begun = Instant::now();
        loop {
            let row = main.query_one(sql, &[&start]).await.context("count the rows")?;
            let (rows, different): (i64, i64) = (row.get(0), row.get(1));
            if rows == different && (taken..=all).contains(&rows) {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!(
                    "NOT COMPARABLE: {rows} rows, {different} different, of {all} readings sent and {taken} acknowledged"
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn send(runtime: &tokio::runtime::Handle, bus: &Bus, stopped: &AtomicBool) -> JoinSet<Result<Duration, bus::Error>> {
    let start = Instant::now();
    let mut sent = JoinSet::new();
    let machine = |kind: &str, partition| {
        let mut names = (0..).map(|n| format!("{kind}-{n:03}"));
        names.find(|name| partition_of(name, READINGS_PARTITIONS) == partition).unwrap_or_default()
    };
    let machines: Vec<String> = (0..READINGS_PARTITIONS).map(|partition| machine("machine", partition)).collect();
    for n in 0.. {
        std::thread::sleep(
            (start + Duration::from_micros(1_000_000 / RATE * n)).saturating_duration_since(Instant::now()),
        );
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let timestamp = format_time(now_us());
        for (partition, machine_id) in (0..).zip(&machines) {
            let (machine_id, torque) = match n % BROKEN_EVERY {
                0 => (machine(&format!("alarm-{n}"), partition), 70),
                _ => (machine_id.clone(), 40),
            };
            let value = format!(
                r#"{{"machine_id":"{machine_id}","timestamp":"{timestamp}","air_temp_k":300.0,"process_temp_k":310.0,"rpm":1500,"torque_nm":{torque}.0,"tool_wear_min":5}}"#
            );
            let record = Outgoing {
                partition,
                arrived_us: 0,
                source: "bench".into(),
                rows: 1,
                key: Some(machine_id.into()),
                value: value.into_bytes(),
            };
            let bus = bus.clone();
            let begun = Instant::now();
            sent.spawn_on(async move { bus.send(vec![record]).await.map(|_| begun.elapsed()) }, runtime);
        }
    }
    sent
}
