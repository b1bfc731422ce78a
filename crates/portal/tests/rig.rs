//! A portal with everything behind it: loops as plain as can be between bus, history and store.

use bus::{Bus, Consumer, Event, Topic};
use catalog::Catalogue;
use engine::{Effects, Engine, Input};
use portal::{Parts, Settings};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use store::{History, LiveValues, Step, Store, history::Lot};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use wire::{READINGS_PARTITIONS, ReadingBatch, Span};

/// Nothing in these tests takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub parts: Parts,
    pub health: watch::Sender<BTreeMap<&'static str, Option<String>>>,
    address: SocketAddr,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _folder: TempDir,
}

pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a problem, which must look like one.
    #[track_caller]
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        for key in ["type", "title", "detail"] {
            assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {problem}");
        }
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}

impl Rig {
    pub async fn start() -> Rig {
        Rig::with(|_| {}).await
    }

    /// A portal whose parts are changed first.
    pub async fn with(change: impl FnOnce(&mut Parts)) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Arc::new(Catalogue::builtin());
        let bus = bus::Bus::open(bus::Options {
            path: folder.path().join("bus.db"),
            partitions: READINGS_PARTITIONS,
            retention_us: i64::MAX,
            retention_bytes: 1 << 30,
        });
        let options = store::history::Options {
            partitions: READINGS_PARTITIONS,
            flush_bytes: 1 << 20,
            flush_after_us: 1_000_000,
            retention_us: i64::MAX,
            dead_letter_retention_us: i64::MAX,
        };
        let history = History::open(&folder.path().join("history.db"), catalogue.clone(), options);
        let well = ["ingest", "detect", "portal"].map(|part| (part, None));
        let health = watch::Sender::new(BTreeMap::from(well));
        let mut parts = Parts {
            bus: bus.unwrap(),
            history: history.unwrap(),
            store: Store::open(&folder.path().join("store.db")).unwrap(),
            live: LiveValues::default(),
            catalogue: watch::Sender::new(catalogue),
            simulate: None,
            health: health.subscribe(),
            settings: Arc::new(Settings {
                notifiers: Vec::new(),
                clock_offsets: BTreeMap::new(),
                quiet: portal::QuietArrivals::default(),
                metrics: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle(),
                needed: vec!["ingest", "detect", "portal"],
                dependencies: Default::default(),
            }),
            ready: Default::default(),
            closing: CancellationToken::new(),
        };
        change(&mut parts);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let (serving, ended) = (parts.clone(), stop.clone());
        let serve = tokio::spawn(async move { portal::serve(serving, listener, ended).await.unwrap() });
        let tasks = vec![serve, tokio::spawn(ingest(parts.clone())), tokio::spawn(detect(parts.clone()))];
        Rig { parts, health, address, stop, tasks, _folder: folder }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Stops the portal and waits for its end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let serve = self.tasks.remove(0);
        timeout(PATIENCE, serve).await.expect("the portal ends").unwrap();
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    /// One request on a connection of its own.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        timeout(PATIENCE, self.ask(method, path, headers, body)).await.expect("an answer in time")
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: 127.0.0.1:{}\r\n", self.port());
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        // The portal may answer, and close, before it has read all of a body that it refuses.
        let _ = stream.write_all(body).await;
        let mut raw = Vec::new();
        let _ = stream.read_to_end(&mut raw).await;
        parse(&raw)
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").await
    }

    /// A GET that must succeed, as JSON.
    #[track_caller]
    pub fn json(&self, path: &str) -> impl Future<Output = Value> {
        let path = path.to_owned();
        async move {
            let answer = self.get(&path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            answer.json()
        }
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &[("content-type", "application/json")], body.as_bytes()).await
    }

    pub async fn lines(&self, lines: &[String]) -> Answer {
        let body = lines.join("\n");
        self.request("POST", "/api/readings", &[("content-type", "application/x-ndjson")], body.as_bytes()).await
    }

    /// Every row of a list, page by page.
    pub async fn pages(&self, path: &str, key: &str, limit: usize) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = self.json(&format!("{path}{mark}limit={limit}&cursor={cursor}")).await;
            let found = page[key].as_array().unwrap();
            assert!(found.len() <= limit);
            rows.extend(found.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return rows,
            }
        }
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..400 {
            last = self.json(path).await;
            if wanted(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{path} does not come to be as wanted: {last}");
    }

    /// Waits until the ledger has stored so many and nothing is on its way.
    pub async fn stored(&self, rows: u64) -> Value {
        self.until("/api/ledger", |ledger| {
            let sum = |key: &str| -> u64 {
                ledger["sources"].as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum()
            };
            sum("stored") == rows && sum("in_flight") == 0
        })
        .await
    }
}

/// A reading of a mill, so many seconds ago; `torque` 70 breaks the law of power.
pub fn reading(machine: &str, seconds_ago: i64, torque: f64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let time = wire::format_time((now - seconds_ago) * 1_000_000);
    format!(
        r#"{{"machine_id":"{machine}","timestamp":"{time}","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":{torque},"tool_wear_min":5}}"#
    )
}

/// A consumer that starts at these offsets.
async fn consumer(bus: &Bus, from: &[i64]) -> Consumer {
    let mut consumer = bus.consumer(Topic::Readings, "rig").unwrap();
    assert!(matches!(consumer.next(1).await, Ok(Event::Assigned(_))));
    for (partition, offset) in (0..).zip(from) {
        consumer.start(partition, *offset).await.unwrap();
    }
    consumer
}

async fn ingest(parts: Parts) {
    let mut consumer = consumer(&parts.bus, &parts.history.appended().await.unwrap()).await;
    while let Ok(Event::Records(records)) = consumer.next(1 << 20).await {
        for record in records {
            let batch = decode(&parts, &record);
            let offsets = record.offset..record.offset + 1;
            let lot = Lot { partition: record.partition, offsets, batches: &[batch], rejects: &[] };
            parts.history.append(&lot).await.unwrap();
        }
    }
}

async fn detect(parts: Parts) {
    let mut positions = parts.store.positions(0..READINGS_PARTITIONS).await.unwrap();
    let mut consumer = consumer(&parts.bus, &positions).await;
    let catalogue = parts.catalogue.borrow().clone();
    let mut engines: Vec<_> = (0..READINGS_PARTITIONS).map(|at| Engine::new(at, catalogue.clone())).collect();
    while let Ok(Event::Records(records)) = consumer.next(1 << 20).await {
        for record in records {
            let (batch, mut effects) = (decode(&parts, &record), Effects::default());
            let engine = &mut engines[usize::from(record.partition)];
            engine.apply(Input::Readings(&batch), &mut effects);
            let sources = vec![record.source.clone(); effects.machines.len()];
            let from = std::mem::replace(&mut positions[usize::from(record.partition)], record.offset + 1);
            let step = Step {
                partition: record.partition,
                from,
                to: record.offset + 1,
                effects: &effects,
                sources: &sources,
                activation: None,
            };
            parts.store.commit(vec![step]).await.unwrap();
            parts.live.put(effects.touched.iter().filter_map(|machine| engine.live(machine)).collect());
        }
    }
}

fn decode(parts: &Parts, record: &bus::Record) -> ReadingBatch {
    let mut batch = ReadingBatch::decode(&record.value, &parts.catalogue.borrow()).unwrap();
    let (offset, arrived_us, source) = (record.offset, record.arrived_us, record.source.clone());
    batch.spans = vec![Span { first_row: 0, offset, arrived_us, source }];
    batch
}

fn parse(raw: &[u8]) -> Answer {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = raw[end..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunk(&body);
    }
    Answer { status, headers, body }
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + length]);
        raw = &raw[end + 4 + length..];
    }
    body
}
