//! A whole plant on real engines: what it stores against a bare COPY into the same table, how long an alert takes by our
//! relay and by Debezium, and what a second and a third detector bring.

mod alerts;

use super::{
    Better, Found, Row,
    rig::{self, Plant, Press},
    workload,
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use std::{
    collections::BTreeMap,
    ops::Range,
    pin::pin,
    time::{Duration, Instant},
};
use wire::{Values, format_time};

/// The connector as it lies in the repository: it asks each 5 ms.
const CONNECTOR: &str = "deploy/debezium/outbox-connector.json";
/// Readings of a timed run for each second that it may take.
const STORED_PER_S: u64 = 60_000;
const BATCHED_PER_S: u64 = 180_000;
const JUDGED_PER_S: u64 = 400_000;
/// What is stored and its bare COPY are timed so often, one after the other; the pair with the median share tells.
const PAIRS: usize = 3;
/// Event time between two runs, seconds.
const APART_S: i64 = 4_000;

/// Runs the drill.
pub fn run(seconds: u64) -> Result<Found> {
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    let mut found = Found { name: "plant", rows: Vec::new(), notes: Vec::new() };
    let ours = {
        let plant = Plant::up(&[])?;
        let ours = runtime.block_on(alerts::run(&plant, "our relay", seconds))?;
        runtime.block_on(throughput(&plant, seconds, &mut found))?;
        ours
    };
    let best = {
        let plant = Plant::up(&["--relay", "debezium", "--connector", CONNECTOR])?;
        runtime.block_on(alerts::run(&plant, "Debezium, poll 5 ms", seconds))?
    };
    let defaults = {
        let file = tempfile::NamedTempFile::new().context("make a file")?;
        std::fs::write(&file, unturned(&std::fs::read_to_string(CONNECTOR).context(CONNECTOR)?)?)
            .context("write the connector")?;
        let path = file.path().to_str().context("the folder for temporary files is no UTF-8")?;
        let plant = Plant::up(&["--relay", "debezium", "--connector", path])?;
        runtime.block_on(alerts::run(&plant, "Debezium, poll 500 ms", seconds))?
    };
    let mut rows = ours.rows(true);
    rows.append(&mut best.rows(false));
    rows.append(&mut defaults.rows(false));
    let ratio = |other: &alerts::Alerts| other.relayed_ms(0.5) / ours.relayed_ms(0.5);
    let times = |what: &str, value: f64, aim: f64| Row {
        ambition: Some(aim),
        ..Row::figure(format!("{what}, commit -> record p50 as a multiple of our relay's"), value, "x", Better::Higher)
    };
    rows.push(times("Debezium, poll 5 ms", ratio(&best), 4.0));
    rows.push(times("Debezium, poll 500 ms", ratio(&defaults), 200.0));
    rows.append(&mut found.rows);
    found.rows = rows;
    for run in [&ours, &best, &defaults] {
        found.notes.append(&mut run.notes());
    }
    Ok(found)
}

/// A connector with Debezium's own defaults for the two settings that decide how long an event takes.
fn unturned(connector: &str) -> Result<String> {
    let mut connector: serde_json::Value = serde_json::from_str(connector).context("parse the connector")?;
    let config = connector["config"].as_object_mut().context("the connector has no config")?;
    config.insert("poll.interval.ms".to_owned(), "500".into());
    config.remove("producer.override.linger.ms");
    Ok(connector.to_string())
}

/// What is stored and judged as fast as it goes, by services of the bench's own.
async fn throughput(plant: &Plant, seconds: u64, found: &mut Found) -> Result<()> {
    plant.stop("ingest")?;
    plant.stop("detect")?;
    // Whole days of the past, so that a run lies in one partition of the table.
    let mut start_s = (rig::now_us() / 86_400_000_000 - 1) * 86_400;
    for (values, how, per_s) in [
        (Values::Reading, "one reading a record", STORED_PER_S),
        (Values::Binary, "500 readings a record", BATCHED_PER_S),
    ] {
        let count = per_s * seconds;
        let mut pairs = Vec::new();
        for pair in 1..=PAIRS {
            eprintln!("bench: {count} readings, {how}, into sensor_log, {pair} of {PAIRS}");
            pairs.push(store(plant, start_s, count, values).await?);
            start_s += APART_S;
        }
        pairs.sort_by(|left, right| left.share().total_cmp(&right.share()));
        let shares: Vec<String> = pairs.iter().map(|pair| format!("{:.1}", pair.share() * 100.0)).collect();
        found
            .notes
            .push(format!("stored, {how}: the median of {PAIRS} pairs of runs, {} % of the COPY", shares.join(", ")));
        let stored = pairs.swap_remove(PAIRS / 2);
        let (ours, bare) = (stored.rate, stored.bare);
        found.rows.push(Row {
            ambition: Some(100.0),
            ..Row::figure(format!("stored, {how}"), ours / 1e3, "k readings/s", Better::Higher)
        });
        found.rows.push(Row::figure("bare COPY of the same rows", bare / 1e3, "k rows/s", Better::Higher));
        let what = format!("stored as a share of the bare COPY, {how}");
        found.rows.push(Row::goal("G3", what, stored.share() * 100.0, "%", Better::Higher, 70.0, 90.0));
        found.rows.append(&mut cpu_rows(&stored.cpu, &format!("stored, {how}")));
    }
    let mut alone = None;
    for detectors in 1..=3 {
        let count = JUDGED_PER_S * seconds;
        eprintln!("bench: {count} readings, {detectors} detectors");
        // Each run goes on in the workload: a machine that broke a law at the end of one breaks none at the start of the next.
        let readings = u64::from(detectors - 1) * count..u64::from(detectors) * count;
        let (rate, cpu) = detect(plant, start_s, readings, detectors).await?;
        start_s += APART_S;
        let alone = *alone.get_or_insert(rate);
        let what = format!("judged, detectors: {detectors}, partitions: 6");
        found.rows.push(Row::figure(&what, rate / 1e3, "k readings/s", Better::Higher));
        found.rows.push(Row::figure(format!("{what}, as a multiple of 1"), rate / alone, "x", Better::Higher));
        found.rows.append(&mut cpu_rows(&cpu, &what));
    }
    found.notes.push(format!(
        "stored, one reading a record: they lie on the topic before ingest starts, and count from its first commit to its last. 500 \
         readings a record: sent while the services wait, and counted from then on. Every row is in sensor_log once, and each reading in {} raised its condition",
        workload::SEED.broken_every
    ));
    Ok(())
}

/// CPU-seconds per million readings, that is microseconds per reading, by kind of process.
pub fn cpu_rows(per_reading: &BTreeMap<String, f64>, what: &str) -> Vec<Row> {
    let kinds = per_reading.iter().filter(|(_, seconds)| **seconds * 1e6 >= 0.005);
    kinds
        .map(|(kind, seconds)| Row::figure(format!("CPU, {what}: {kind}"), seconds * 1e6, "µs/reading", Better::Lower))
        .collect()
}

struct Stored {
    rate: f64,
    bare: f64,
    cpu: BTreeMap<String, f64>,
}

impl Stored {
    fn share(&self) -> f64 {
        self.rate / self.bare
    }
}

/// Readings through ingest into the table, then the same rows by a bare COPY into a table like its partition.
async fn store(plant: &Plant, start_s: i64, count: u64, values: Values) -> Result<Stored> {
    let (bus, main) = (plant.bus().await?, plant.database("postgres_main").await?);
    let from = rig::position(&main).await?;
    let records = Press::new().workload(workload::SEED, start_s, 0..count, values)?;
    let to = from + records.len() as u64;
    let (services, drained) = if values == Values::Reading {
        // To send them costs as much as to store them, so they are there before.
        rig::send(&bus, records).await?;
        let services = [plant.service("ingest")?];
        let drained = plant.drained(&main, &services, (from, to), false).await?;
        (services, drained)
    } else {
        let services = [plant.service("ingest")?];
        services[0].wait_ready()?;
        let (sent, drained) = tokio::join!(rig::send(&bus, records), plant.drained(&main, &services, (from, to), true));
        sent?;
        (services, drained?)
    };
    bus.close().await;
    let readings = drained.share * count as f64;
    for service in services {
        service.stop()?;
    }
    let range = format!(
        "timestamp >= '{}' and timestamp < '{}'",
        format_time(start_s * 1_000_000),
        format_time((start_s + APART_S) * 1_000_000)
    );
    let sql = format!(
        "select count(*), min(tableoid::regclass::text), max(tableoid::regclass::text) from sensor_log where {range}"
    );
    let row = main.query_one(&sql, &[]).await.context("count the rows")?;
    let (rows, day, last): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
    if rows as u64 != count || day != last {
        bail!("NOT COMPARABLE: {rows} rows in {day} to {last} of {count} readings");
    }
    let bare = copy(&main, &day, &range).await.context("copy the rows")?;
    Ok(Stored {
        rate: readings / drained.seconds,
        bare: count as f64 / bare,
        cpu: drained.cpu.into_iter().map(|(kind, seconds)| (kind, seconds / readings)).collect(),
    })
}

/// Seconds that a COPY of the rows takes, commit and all.
async fn copy(main: &tokio_postgres::Client, day: &str, range: &str) -> Result<f64> {
    const COLUMNS: &str = "machine_id, timestamp, air_temp_k, process_temp_k, rpm, torque_nm, tool_wear_min, created_at, \
                           product_type, seq, quality, flags, bus_partition, bus_offset, bus_index";
    let out = format!("copy (select {COLUMNS} from {day} where {range} order by id) to stdout (format binary)");
    let pieces: Vec<Bytes> = main.copy_out(&out).await?.try_collect().await?;
    main.batch_execute(&format!("drop table if exists bare; create table bare (like {day} including all); checkpoint"))
        .await?;
    let begun = Instant::now();
    let mut sink = pin!(main.copy_in::<_, Bytes>(&format!("copy bare ({COLUMNS}) from stdin (format binary)")).await?);
    for piece in pieces {
        sink.feed(piece).await?;
    }
    sink.finish().await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Readings/s that so many detectors judge, and CPU-seconds per reading.
async fn detect(
    plant: &Plant,
    start_s: i64,
    readings: Range<u64>,
    detectors: u16,
) -> Result<(f64, BTreeMap<String, f64>)> {
    let (bus, ai) = (plant.bus().await?, plant.database("postgres_ai").await?);
    let services = (0..detectors).map(|_| plant.service("detect")).collect::<Result<Vec<_>>>()?;
    services.iter().try_for_each(rig::Service::wait_ready)?;
    let records = Press::new().workload(workload::SEED, start_s, readings.clone(), Values::Binary)?;
    let end = plant.end(&bus).await?;
    // What the runs before left on the topic is not counted.
    let begun = Instant::now();
    while rig::position(&ai).await? < end {
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("the detectors do not catch up");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let to = end + records.len() as u64;
    let (sent, drained) = tokio::join!(rig::send(&bus, records), plant.drained(&ai, &services, (end, to), true));
    sent?;
    let drained = drained?;
    bus.close().await;
    let judged = drained.share * (readings.end - readings.start) as f64;
    for service in services {
        service.stop()?;
    }
    let sql = "select count(*) from anomaly_history
               where kind = 'raised' and failure_type = 'PowerFailure' and timestamp >= $1::text::timestamp and timestamp < $2::text::timestamp";
    let bounds = [start_s, start_s + APART_S].map(|second| format_time(second * 1_000_000));
    let raised: i64 = ai.query_one(sql, &[&bounds[0], &bounds[1]]).await.context("count the alerts")?.get(0);
    let broken = readings.end / workload::SEED.broken_every - readings.start / workload::SEED.broken_every;
    if raised as u64 != broken {
        bail!("NOT COMPARABLE: {raised} conditions were raised by {broken} broken readings");
    }
    let cpu = drained.cpu.into_iter().map(|(kind, seconds)| (kind, seconds / judged)).collect();
    Ok((judged / drained.seconds, cpu))
}
