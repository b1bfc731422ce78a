//! A plant on real engines as the thing that is measured: `rig`, which lies beside this binary, brings it up and down.

use super::{
    product::{Http, free_port, rss_mb},
    workload::Workload,
};
use anyhow::{Context, Result, bail};
use bus::{Bus, Outgoing, Topic, kafka};
use catalog::Catalogue;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio_postgres::NoTls;
use wire::{Decoder, Framing, READINGS_PARTITIONS, Values};

/// Java as Kafka's own `kafka-run-class.sh` starts it; the rig's own flags are for short lives.
const JAVA: &str = "-XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35";

/// A running plant; it is taken down when dropped.
pub struct Plant {
    document: Value,
    folder: PathBuf,
}

impl Plant {
    /// Brings a plant of this very binary up and waits until every service has its partitions.
    pub fn up(flags: &[&str]) -> Result<Plant> {
        let bin = std::env::current_exe().context("find this program")?;
        let folder = std::env::var_os("MILLWRIGHT_PLANT").map(PathBuf::from);
        let folder =
            folder.or_else(|| Some(bin.parent()?.parent()?.join("plant"))).context("find the target folder")?;
        eprintln!("bench: plant up {}", flags.join(" "));
        let java = std::env::var("MILLWRIGHT_RIG_JAVA").unwrap_or_else(|_| JAVA.to_owned());
        let output = rig(&folder)?
            .env("MILLWRIGHT_RIG_JAVA", java)
            .args(["plant", "up", "--output", "json", "--program"])
            .arg(&bin)
            .args(flags)
            .stderr(Stdio::inherit())
            .output()
            .context("start rig; `./dev bench plant` builds it")?;
        if !output.status.success() {
            bail!("the plant does not come up");
        }
        let document = serde_json::from_slice(&output.stdout).context("read what rig says")?;
        Ok(Plant { document, folder })
    }

    /// A connection string or address.
    pub fn address(&self, name: &str) -> Result<&str> {
        self.document[name].as_str().with_context(|| format!("the plant has no {name}"))
    }

    /// The portal's port.
    pub fn portal(&self) -> Result<u16> {
        let address = self.address("portal")?;
        address.rsplit(':').next().and_then(|port| port.parse().ok()).context("the portal has no port")
    }

    /// Processes of a kind.
    pub fn pids(&self, kind: &str) -> Vec<u32> {
        let pids = self.document["pids"][kind].as_array().into_iter().flatten();
        pids.filter_map(|pid| pid.as_u64()).map(|pid| pid as u32).collect()
    }

    /// Resident memory of our own services by kind, MB.
    pub fn rss_mb(&self) -> BTreeMap<&'static str, f64> {
        let of = |kind: &'static str| (kind, self.pids(kind).into_iter().map(rss_mb).sum());
        ["ingest", "detect", "relay", "portal"].into_iter().map(of).collect()
    }

    /// CPU-seconds by kind of process, each with its children.
    pub fn cpu(&self) -> BTreeMap<String, f64> {
        let spent = trees();
        let kinds = self.document["pids"].as_object().into_iter().flatten();
        kinds
            .map(|(kind, _)| (kind.clone(), self.pids(kind).iter().filter_map(|pid| spent.get(pid)).sum()))
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect()
    }

    /// A service more, which `rig` knows nothing of.
    pub fn service(&self, name: &str) -> Result<Service> {
        let port = free_port()?;
        let child = Command::new(std::env::current_exe().context("find this program")?)
            .args([name, "--ops-port", &port.to_string(), "--config"])
            .arg(self.folder.join("millwright.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Service { name: name.to_owned(), child, port })
    }

    /// The topics, as a producer of the seed's contract has them.
    pub async fn bus(&self) -> Result<Bus> {
        let settings = [("bootstrap.servers".to_owned(), self.address("kafka")?.to_owned())].into();
        Ok(Bus::connect(kafka::Options { settings, ..kafka::Options::default() }).await?)
    }

    /// The sum of the ends of the partitions of the readings.
    pub async fn end(&self, bus: &Bus) -> Result<u64> {
        let mut sum = 0;
        for partition in 0..READINGS_PARTITIONS {
            sum += bus.bounds(Topic::Readings, partition).await?.1 as u64;
        }
        Ok(sum)
    }

    /// A connection to `postgres_main` or `postgres_ai`.
    pub async fn database(&self, name: &str) -> Result<tokio_postgres::Client> {
        connect(self.address(name)?).await
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        let down = rig(&self.folder).and_then(|mut rig| Ok(rig.args(["plant", "down"]).status()?));
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("bench: the plant may still be up; take it down by `./dev plant down`");
        }
    }
}

/// A connection to a database.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect to PostgreSQL")?;
    // It ends with its client, or with the server, which the client then tells.
    tokio::spawn(connection);
    Ok(client)
}

fn rig(folder: &std::path::Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?.with_file_name("rig"));
    command.env("MILLWRIGHT_PLANT", folder);
    Ok(command)
}

/// One `millwright` service; killed when dropped.
pub struct Service {
    name: String,
    child: Child,
    port: u16,
}

impl Service {
    /// Waits until it has its partitions and nothing of them waits.
    pub fn wait_ready(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            let answer = Http::connect(self.port).and_then(|mut http| http.request("GET", "/readyz", b""));
            if answer.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("a service is not ready after 60 s")
    }

    /// CPU-seconds so far.
    pub fn cpu(&self) -> f64 {
        trees().get(&self.child.id()).copied().unwrap_or(0.0)
    }

    /// Lets it end in order, so that the next takes its partitions at once.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status().context("stop a service")?;
        self.child.wait().context("stop a service")?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; nothing else can be done about it here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU-seconds of every process with its children, those that ended too.
fn trees() -> HashMap<u32, f64> {
    let mut own = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // One that ended counts with its parent, once that has noticed.
        if fields.first() == Some(&"Z") {
            continue;
        }
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        // utime, stime, cutime, cstime, in hundredths of a second.
        own.insert(pid, (number(1) as u32, (11..15).map(number).sum::<f64>() / 100.0));
    }
    let mut sums = HashMap::new();
    for (pid, (_, seconds)) in &own {
        let mut at = *pid;
        while let Some((parent, _)) = own.get(&at) {
            *sums.entry(at).or_insert(0.0) += seconds;
            at = *parent;
        }
    }
    sums
}

/// Readings as records of the bus.
pub struct Press(Decoder);

impl Press {
    pub fn new() -> Press {
        Press(Decoder::new(Arc::new(Catalogue::builtin()), READINGS_PARTITIONS))
    }

    /// JSON lines as records; a binary one holds those of its partition.
    pub fn records(&mut self, lines: &str, values: Values) -> Result<Vec<Outgoing>> {
        let arrived_us = now_us();
        let decoded = self.0.decode(lines.as_bytes(), Framing::Lines, arrived_us, &|_| None).context("decode")?;
        if let Some(reject) = decoded.rejects.first() {
            bail!("a reading of the workload is refused: {reject:?}");
        }
        let source: Arc<str> = "bench".into();
        let records = decoded.batches.iter().flat_map(|(partition, batch)| {
            let source = source.clone();
            batch.to_values(values).into_iter().map(move |(machine, rows, value)| {
                let key = machine.map(|machine| Arc::from(&*machine));
                Outgoing { partition: *partition, arrived_us, source: source.clone(), rows, key, value }
            })
        });
        Ok(records.collect())
    }

    /// Readings of a workload as records, the first of them at this second.
    pub fn workload(
        &mut self,
        workload: Workload,
        start_s: i64,
        readings: Range<u64>,
        values: Values,
    ) -> Result<Vec<Outgoing>> {
        // About 500 readings of each partition.
        const PER: u64 = 3_000;
        let zero_s = start_s - (readings.start / workload.machines) as i64;
        let mut records = Vec::new();
        for from in readings.clone().step_by(PER as usize) {
            let mut lines = String::new();
            workload.lines(zero_s, from, (from + PER).min(readings.end), &mut lines);
            records.append(&mut self.records(&lines, values)?);
        }
        Ok(records)
    }
}

/// Sends records as fast as the brokers take them.
pub async fn send(bus: &Bus, mut records: Vec<Outgoing>) -> Result<()> {
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(10_000));
        bus.send(records).await?;
        records = rest;
    }
    Ok(())
}

/// The sum of all positions on the readings.
pub async fn position(database: &tokio_postgres::Client) -> Result<u64> {
    let sql = "select coalesce(sum(next_offset), 0)::bigint from consumer_offset where topic = $1";
    let row = database.query_one(sql, &[&wire::READINGS_TOPIC]).await.context("ask for the positions")?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// What was seen of consumers that worked off the readings.
pub struct Drained {
    /// The share of the records that was taken after they were first seen to move.
    pub share: f64,
    /// How long that took.
    pub seconds: f64,
    /// CPU-seconds of that time by kind of process.
    pub cpu: BTreeMap<String, f64>,
}

impl Plant {
    /// Waits until services have moved their positions on the readings from `from` to `to`; counted from now on, or from
    /// when they are first seen to move, where it takes them a while to begin.
    pub async fn drained(
        &self,
        database: &tokio_postgres::Client,
        services: &[Service],
        (from, to): (u64, u64),
        from_now: bool,
    ) -> Result<Drained> {
        let spent = || {
            let mut cpu = self.cpu();
            for service in services {
                *cpu.entry(service.name.clone()).or_insert(0.0) += service.cpu();
            }
            cpu
        };
        let begun = Instant::now();
        let mut moved = from_now.then(|| (from, begun, spent()));
        while begun.elapsed() < Duration::from_secs(180) {
            let at = position(database).await?;
            if at >= to {
                let (first, since, before) = moved.context("all was taken between two looks: too few readings")?;
                let seconds = since.elapsed().as_secs_f64();
                let mut cpu = spent();
                for (kind, seconds) in &mut cpu {
                    *seconds -= before.get(kind).copied().unwrap_or(0.0);
                }
                return Ok(Drained { share: (to - first) as f64 / (to - from) as f64, seconds, cpu });
            }
            if at > from && moved.is_none() {
                moved = Some((at, Instant::now(), spent()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("NOT COMPARABLE: the positions stand at {} of {to} after 180 s", position(database).await?)
    }

    /// Ends processes of a kind in order, for services of the bench's own.
    pub fn stop(&self, kind: &str) -> Result<()> {
        for pid in self.pids(kind) {
            Command::new("kill").arg(pid.to_string()).status().context("stop a service")?;
            // What has ended, reaped or not, has no command line.
            while std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

/// The wall clock, microseconds since 1970.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_micros() as i64
}
