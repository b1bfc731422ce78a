//! Kills `millwright up` with -9 at random moments while clients send, then holds what is left against an oracle.
//!
//! What every reading is, and which alerts it must lead to, is computed here, from the seed alone and by arithmetic of
//! its own: nothing of the product is asked for what is right. `--planted` runs builds with a known bug each and fails
//! unless the oracle sees it.

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// kill -9 of the whole process at random moments, against an oracle.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Kills.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// A failing seed is printed; give it here to see it again.
    #[arg(long)]
    seed: Option<u64>,
    /// The binary under test; default: `millwright` beside this one.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Show that the oracle sees: every planted bug must be caught within the rounds.
    #[arg(long)]
    planted: bool,
}

/// Bugs that a build with the feature `planted` has when MILLWRIGHT_PLANTED names them.
const BUGS: [&str; 3] = ["ack_before_commit", "offset_before_effects", "no_fence"];

/// The history is written out between two kills, or hardly ever.
const FLUSH_AFTER: [&str; 2] = ["20ms", "30s"];

/// Clients; each owns machines of its own, so that the order of a machine's readings on the bus is known.
const CLIENTS: u64 = 3;
/// Machines a client.
const MACHINES: u64 = 4;
/// Event-time seconds of one machine in a body.
const SECONDS: u64 = 15;

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    rustls::crypto::ring::default_provider().install_default().expect("the provider is installed once");
    let failed = if args.planted { runtime.block_on(planted(&args)) } else { runtime.block_on(plain(&args)) };
    match failed {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn plain(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ unix_us() as u64);
    let started = Instant::now();
    let run = run(args, seed, None).await.with_context(|| format!("seed {seed}: start the product"))?;
    println!(
        "{} kills in {:.0} s, seed {seed}: {} readings accepted, {} refused, {} alerts, {} bodies sent again, {} second starts refused; {}",
        run.kills,
        started.elapsed().as_secs_f64(),
        run.accepted,
        run.refused,
        run.alerts,
        run.resent,
        run.second_starts,
        if run.wrong.is_empty() { "0 lost, 0 doubled".to_owned() } else { format!("{} WRONG", run.wrong.len()) }
    );
    if !run.wrong.is_empty() {
        bail!("seed {seed}:\n  {}", run.wrong[..run.wrong.len().min(20)].join("\n  "));
    }
    Ok(())
}

async fn planted(args: &Args) -> Result<()> {
    for bug in BUGS {
        let mut caught = None;
        let mut kills = 0;
        // A short history each time, so that a bug is told as soon as it shows.
        while kills < args.rounds && caught.is_none() {
            let some = Args { rounds: 10.min(args.rounds - kills), ..args.clone() };
            let seed = args.seed.unwrap_or(7) + u64::from(kills);
            let run = run(&some, seed, Some(bug)).await.with_context(|| format!("planted {bug}"))?;
            kills += run.kills;
            caught = run.wrong.into_iter().next();
        }
        match caught {
            Some(wrong) => println!("planted {bug}: caught within {kills} kills: {wrong}"),
            None => bail!("planted {bug}: NOT caught in {kills} kills, so this harness proves nothing"),
        }
    }
    Ok(())
}

/// What one run found.
struct Run {
    kills: u32,
    accepted: usize,
    refused: usize,
    alerts: usize,
    resent: u64,
    second_starts: u32,
    wrong: Vec<String>,
}

async fn run(args: &Args, seed: u64, bug: Option<&str>) -> Result<Run> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let bin = match &args.bin {
        Some(bin) => bin.clone(),
        None => {
            let name = if bug.is_some() { "millwright-planted" } else { "millwright" };
            std::env::current_exe().context("find this program")?.with_file_name(name)
        }
    };
    if !bin.exists() {
        bail!("{} is missing: build it first (./dev test does)", bin.display());
    }
    let mut product = Product {
        bin,
        data: folder.path().to_owned(),
        port: free_port()?,
        bug: bug.map(str::to_owned),
        flush_after: FLUSH_AFTER[0],
        child: None,
    };
    // Far enough back that no reading lies ahead of its arrival.
    let t0 = unix_us() / 1_000_000 - 20 * 3600 - 2000 * i64::from(args.rounds);
    let plan = Plan { seed, t0 };
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).pool_max_idle_per_host(0).build()?;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|id| Client::new(id, plan)).collect();
    let mut lots = Lots(seed ^ 0x5eed);
    let (mut kills, mut second_starts) = (0, 0);
    let mut wrong = Vec::new();
    while kills < args.rounds {
        product.flush_after = FLUSH_AFTER[lots.below(2) as usize];
        product.start(&http).await?;
        if lots.below(4) == 0 {
            if product.second_start_is_refused()? {
                second_starts += 1;
            } else {
                wrong.push("a second process ran beside the first on the same folder".to_owned());
            }
        }
        // Most kills fall into the first hundred milliseconds of traffic, some later, some at once.
        let wait = match lots.below(4) {
            0 => lots.below(15),
            1 => lots.below(400),
            _ => lots.below(120),
        };
        let deadline = tokio::time::Instant::now() + Duration::from_millis(wait);
        let url = format!("http://127.0.0.1:{}/api/readings", product.port);
        let sending = clients.iter_mut().map(|client| client.send_until(&http, &url, deadline));
        futures_util::future::join_all(sending).await;
        // A clean stop in mid traffic now and then, so that kills also hit what begins with saved state.
        if lots.below(8) == 0 {
            wrong.extend(product.stop()?);
        } else {
            product.kill();
            kills += 1;
        }
    }
    product.start(&http).await?;
    let url = format!("http://127.0.0.1:{}/api/readings", product.port);
    for client in &mut clients {
        client.finish(&http, &url).await?;
    }
    let portal = Portal { http: &http, base: format!("http://127.0.0.1:{}", product.port) };
    let expected = Expected::of(&clients, plan);
    let alerts = portal.settle(&expected).await?;
    judge(&portal, &clients, &expected, &alerts, &mut wrong).await?;
    // A clean stop loses nothing either, and leaves nothing in flight.
    if let Some(problem) = product.stop()? {
        wrong.push(problem);
    }
    product.start(&http).await?;
    let again = portal.settle(&expected).await?;
    if bug.is_none() && keys(&again) != keys(&alerts) {
        wrong.push("the alerts differ after a clean stop and start".to_owned());
    }
    product.kill();
    Ok(Run {
        kills,
        accepted: expected.rows.values().map(BTreeSet::len).sum(),
        refused: expected.refused,
        alerts: alerts.len(),
        resent: clients.iter().map(|client| client.resent).sum(),
        second_starts,
        wrong,
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// What is sent, from the seed alone.

/// The whole input: a pure function of the seed.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    t0: i64,
}

/// One line of a body.
struct Line {
    text: String,
    /// What a good line says; `None`: it must be refused.
    reading: Option<Reading>,
}

/// A good reading, as it must be stored: (second, air x 100, process x 100, rpm, torque x 100, wear).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    second: i64,
    air: i64,
    process: i64,
    rpm: i64,
    torque: i64,
    wear: i64,
}

impl Reading {
    /// Power outside 3500..9000 W (SPEC of class mill), in f64 of the decimals.
    fn breaks_power(&self) -> bool {
        let power = self.torque as f64 / 100.0 * self.rpm as f64 * 2.0 * std::f64::consts::PI / 60.0;
        !(3500.0..=9000.0).contains(&power)
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): draws that depend on a seed alone.
struct Lots(u64);

impl Lots {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn machine_name(client: u64, machine: u64) -> String {
    format!("t-{client}-{machine}")
}

impl Plan {
    /// The reading of a machine at a second. Breaks the power law in short spells.
    fn reading(self, client: u64, machine: u64, second: u64) -> Reading {
        let mut lots = Lots(self.seed ^ (client << 40) ^ (machine << 48) ^ second.wrapping_mul(0xd134_2543_de82_ef95));
        let mut spell = Lots(
            self.seed ^ 0xb0 ^ (client << 40) ^ (machine << 48) ^ (second / 50).wrapping_mul(0x9e6c_63d0_876a_68ee),
        );
        let broken = spell.below(3) == 0 && {
            let from = spell.below(45);
            (from..from + 1 + spell.below(5)).contains(&(second % 50))
        };
        let air = 29_700 + lots.below(600) as i64;
        Reading {
            second: self.t0 + second as i64,
            air,
            process: air + 950 + lots.below(150) as i64,
            rpm: if broken { 1500 } else { 1400 + lots.below(200) as i64 },
            torque: if broken { 7000 } else { 3500 + lots.below(1000) as i64 },
            wear: (second / 60 % 150) as i64,
        }
    }

    /// The `number`-th body of a client: seconds of each of its machines, some out of order, some lines bad.
    fn body(self, client: u64, number: u64) -> Vec<Line> {
        let mut lots = Lots(self.seed ^ 0xb0d7 ^ (client << 32) ^ number.wrapping_mul(0xa076_1d64_78bd_642f));
        let mut lines = Vec::new();
        for machine in 0..MACHINES {
            let mut seconds: Vec<u64> = (number * SECONDS..(number + 1) * SECONDS).collect();
            // Neighbours swapped: out of order, far inside the allowed lateness of 5 s.
            if lots.below(3) == 0 {
                let at = lots.below(SECONDS - 1) as usize;
                seconds.swap(at, at + 1);
            }
            for second in seconds {
                let reading = self.reading(client, machine, second);
                let name = machine_name(client, machine);
                lines.push(Line { text: json(&name, &reading), reading: Some(reading) });
                if lots.below(40) == 0 {
                    let tag = format!("{client}.{number}.{machine}.{second}");
                    lines.push(Line { text: bad(&mut lots, &name, &tag, &reading), reading: None });
                }
            }
        }
        lines
    }
}

fn json(machine: &str, reading: &Reading) -> String {
    let hundredths = |value: i64| format!("{}.{:02}", value / 100, value % 100);
    format!(
        r#"{{"machine_id":"{machine}","timestamp":"{}","air_temp_k":{},"process_temp_k":{},"rpm":{},"torque_nm":{},"tool_wear_min":{}}}"#,
        rfc3339(reading.second),
        hundredths(reading.air),
        hundredths(reading.process),
        reading.rpm,
        hundredths(reading.torque),
        reading.wear
    )
}

/// A line that must be refused; `tag` makes each one its own, so that it can be found again.
fn bad(lots: &mut Lots, machine: &str, tag: &str, reading: &Reading) -> String {
    let good = json(machine, reading);
    match lots.below(4) {
        0 => format!(r#"{{"tag":"{tag}","#),
        1 => format!(r#"{{"tag":"{tag}","machine_id":"{machine}"}}"#),
        2 => good
            .replace(r#""machine_id":"#, &format!(r#""tag":"{tag}","machine_id":"#))
            .replace(r#""rpm":"#, r#""rpm":"fast","was":"#),
        _ => good
            .replace(r#""machine_id":""#, &format!(r#""tag":"{tag}","machine_id":""#))
            .replace(":\"t-", ":\"\\u0000t-"),
    }
}

/// UTC seconds as RFC 3339 (Howard Hinnant's civil_from_days).
fn rfc3339(second: i64) -> String {
    let (days, rest) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients that send again what was not answered.

struct Client {
    id: u64,
    plan: Plan,
    /// Bodies before this one were answered 202.
    next: u64,
    /// The body `next` was sent and not answered.
    unanswered: bool,
    /// Refused lines by text: (answered, sent at all).
    refusals: BTreeMap<String, (u64, u64)>,
    resent: u64,
    /// A refusal or an answer that should not have been.
    complaints: Vec<String>,
    lots: Lots,
}

impl Client {
    fn new(id: u64, plan: Plan) -> Client {
        let lots = Lots(plan.seed ^ 0xc11e ^ id);
        Client {
            id,
            plan,
            next: 0,
            unanswered: false,
            refusals: BTreeMap::new(),
            resent: 0,
            complaints: Vec::new(),
            lots,
        }
    }

    async fn send_until(&mut self, http: &reqwest::Client, url: &str, deadline: tokio::time::Instant) {
        while tokio::time::Instant::now() < deadline {
            // A client that comes back sends its last answered body again too, now and then.
            if self.next > 0 && self.lots.below(8) == 0 {
                self.resent += 1;
                tokio::select! { () = tokio::time::sleep_until(deadline) => { self.sent(self.next - 1); return; }
                answered = self.send(http, url, self.next - 1) => if !answered { return } }
            }
            self.resent += u64::from(self.unanswered);
            let number = self.next;
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => { self.sent(number); self.unanswered = true; return }
                answered = self.send(http, url, number) => {
                    self.unanswered = !answered;
                    if !answered { return }
                    self.next += 1;
                }
            }
        }
    }

    /// Sends until every body that was begun is answered.
    async fn finish(&mut self, http: &reqwest::Client, url: &str) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        while self.unanswered {
            if self.send(http, url, self.next).await {
                self.unanswered = false;
                self.next += 1;
            } else if Instant::now() > until {
                bail!("client {}: body {} is not taken", self.id, self.next);
            }
        }
        Ok(())
    }

    /// Notes a body's bad lines as sent, whatever came of it.
    fn sent(&mut self, number: u64) {
        for line in self.plan.body(self.id, number).into_iter().filter(|line| line.reading.is_none()) {
            self.refusals.entry(line.text).or_default().1 += 1;
        }
    }

    /// Sends a body; true once it is answered 202. A 429 or 503 is tried again.
    async fn send(&mut self, http: &reqwest::Client, url: &str, number: u64) -> bool {
        let lines = self.plan.body(self.id, number);
        let text: Vec<&str> = lines.iter().map(|line| &*line.text).collect();
        let body = text.join("\n");
        loop {
            let answer = http.post(url).header("content-type", "application/x-ndjson").body(body.clone()).send().await;
            let Ok(answer) = answer else {
                self.sent(number);
                return false;
            };
            match answer.status().as_u16() {
                202 => {
                    let Ok(told) = answer.json::<Value>().await else {
                        self.sent(number);
                        return false;
                    };
                    let bad: BTreeSet<u64> =
                        (0..).zip(&lines).filter(|(_, line)| line.reading.is_none()).map(|(at, _)| at).collect();
                    let told_bad: BTreeSet<u64> = told["errors"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|error| error["index"].as_u64())
                        .collect();
                    if bad != told_bad || told["rejected"] != bad.len() || told["accepted"] != lines.len() - bad.len() {
                        self.complaints
                            .push(format!("client {} body {number}: answered {told}, bad lines are {bad:?}", self.id));
                    }
                    for line in lines.into_iter().filter(|line| line.reading.is_none()) {
                        let (answered, sent) = self.refusals.entry(line.text).or_default();
                        *answered += 1;
                        *sent += 1;
                    }
                    return true;
                }
                // Nothing of it was taken.
                429 | 503 => tokio::time::sleep(Duration::from_millis(20)).await,
                status => {
                    self.complaints.push(format!("client {} body {number}: HTTP {status}", self.id));
                    return false;
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What must be there.

type AlertKey = (String, &'static str, i64);

struct Expected {
    /// By machine.
    rows: BTreeMap<String, BTreeSet<Reading>>,
    /// Power alerts: (machine, kind, event second).
    alerts: BTreeSet<AlertKey>,
    refused: usize,
}

impl Expected {
    fn of(clients: &[Client], plan: Plan) -> Expected {
        let mut rows: BTreeMap<String, BTreeSet<Reading>> = BTreeMap::new();
        let mut alerts = BTreeSet::new();
        for client in clients {
            let mut states: BTreeMap<u64, PowerCondition> = BTreeMap::new();
            for number in 0..client.next {
                for (machine, lines) in by_machine(plan.body(client.id, number)) {
                    let name = machine_name(client.id, machine);
                    let state = states.entry(machine).or_default();
                    for reading in lines {
                        rows.entry(name.clone()).or_default().insert(reading);
                        if let Some(kind) = state.judge(&reading) {
                            alerts.insert((name.clone(), kind, reading.second));
                        }
                    }
                }
            }
        }
        Expected { rows, alerts, refused: clients.iter().map(|client| client.refusals.len()).sum() }
    }
}

/// Good readings of a body by machine, in the order of the body.
fn by_machine(lines: Vec<Line>) -> BTreeMap<u64, Vec<Reading>> {
    let mut found: BTreeMap<u64, Vec<Reading>> = BTreeMap::new();
    for line in lines {
        if let Some(reading) = line.reading {
            let after = line.text.split("\"t-").nth(1).and_then(|rest| rest.split(['-', '"']).nth(1));
            let machine = after.and_then(|digits| digits.parse().ok()).expect("a line of ours names its machine");
            found.entry(machine).or_default().push(reading);
        }
    }
    found
}

/// The power law of one machine: raised at once, cleared after 60 s unbroken; out of order it may raise, nothing else.
#[derive(Default)]
struct PowerCondition {
    newest: Option<i64>,
    standing: bool,
    unbroken_since: Option<i64>,
}

impl PowerCondition {
    fn judge(&mut self, reading: &Reading) -> Option<&'static str> {
        let broken = reading.breaks_power();
        if self.newest.is_some_and(|newest| reading.second < newest) {
            let raise = broken && !self.standing;
            self.standing |= raise;
            return raise.then_some("raised");
        }
        self.newest = Some(reading.second);
        if broken {
            self.unbroken_since = None;
            let raise = !self.standing;
            self.standing = true;
            return raise.then_some("raised");
        }
        let since = *self.unbroken_since.get_or_insert(reading.second);
        let clear = self.standing && reading.second - since >= 60;
        self.standing &= !clear;
        clear.then_some("cleared")
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What is there.

struct Portal<'a> {
    http: &'a reqwest::Client,
    base: String,
}

impl Portal<'_> {
    async fn get(&self, path: &str) -> Result<Value> {
        let answer =
            self.http.get(format!("{}{path}", self.base)).send().await.with_context(|| format!("GET {path}"))?;
        let status = answer.status();
        let body = answer.text().await.with_context(|| format!("GET {path}"))?;
        if !status.is_success() {
            bail!("GET {path}: {status} {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path}: {body}"))
    }

    async fn pages(&self, path: &str, key: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{sign}limit=777{cursor}")).await?;
            let rows = page[key].as_array_mut().map(std::mem::take).unwrap_or_default();
            let empty = rows.is_empty();
            all.extend(rows);
            match page["next_cursor"].as_str() {
                Some(next) if !empty => cursor = format!("&cursor={next}"),
                _ => return Ok(all),
            }
        }
    }

    /// Every alert, once all that was accepted has been worked through (or it does not get there in 20 s).
    async fn settle(&self, expected: &Expected) -> Result<Vec<Value>> {
        let stored: usize = expected.rows.values().map(BTreeSet::len).sum();
        let until = Instant::now() + Duration::from_secs(20);
        let mut before = usize::MAX;
        loop {
            let ledger = self.get("/api/ledger").await?;
            let alerts = self.pages("/api/alerts", "alerts").await?;
            let at_rest = sum(&ledger, "in_flight") == 0 && sum(&ledger, "stored") >= stored as u64;
            if at_rest && alerts.len() == before && alerts.len() >= expected.alerts.len() || Instant::now() > until {
                return Ok(alerts);
            }
            before = alerts.len();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Durable frames of the event stream from its beginning, until none has come for two seconds.
    async fn frames(&self) -> Result<Vec<Value>> {
        let mut frames = Vec::new();
        let mut until = tokio::time::Instant::now() + Duration::from_secs(2);
        let mut answer =
            self.http.get(format!("{}/api/events?after=0", self.base)).send().await.context("open the event stream")?;
        let mut text = String::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(until, answer.chunk()).await {
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let data = event.lines().filter_map(|line| line.strip_prefix("data:")).collect::<String>();
                if let Ok(frame) = serde_json::from_str::<Value>(&data)
                    && frame["type"] != "live"
                {
                    until = tokio::time::Instant::now() + Duration::from_secs(2);
                    frames.push(frame);
                }
            }
        }
        Ok(frames)
    }
}

fn sum(ledger: &Value, key: &str) -> u64 {
    ledger["sources"].as_array().into_iter().flatten().filter_map(|source| source[key].as_u64()).sum()
}

/// (machine, kind, event second) of the power alerts.
fn keys(alerts: &[Value]) -> Vec<(String, String, String)> {
    let text = |alert: &Value, key: &str| alert[key].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = alerts
        .iter()
        .filter(|alert| alert["condition"] == "power_failure")
        .map(|alert| (text(alert, "machine_id"), text(alert, "kind"), text(alert, "timestamp")))
        .collect();
    found.sort();
    found
}

/// Holds everything that can be seen from outside against what must be there.
async fn judge(
    portal: &Portal<'_>,
    clients: &[Client],
    expected: &Expected,
    alerts: &[Value],
    wrong: &mut Vec<String>,
) -> Result<()> {
    wrong.extend(clients.iter().flat_map(|client| client.complaints.clone()));
    // I1, I6: every accepted reading once, with equal values.
    for (machine, rows) in &expected.rows {
        let logs = portal.pages(&format!("/api/machines/{machine}/logs?from=2020-01-01T00:00:00Z"), "logs").await?;
        let stored: Vec<String> = logs.iter().map(cells).collect();
        let distinct: BTreeSet<&String> = stored.iter().collect();
        let must: BTreeSet<String> = rows.iter().map(cells_of).collect();
        let missing: Vec<&String> = must.iter().filter(|row| !distinct.contains(row)).collect();
        if !missing.is_empty() {
            wrong.push(format!("I1 {machine}: {} readings lost, e.g. {}", missing.len(), missing[0]));
        }
        if stored.len() != distinct.len() {
            wrong.push(format!("I1 {machine}: {} readings doubled", stored.len() - distinct.len()));
        }
        if let Some(stranger) = distinct.iter().find(|row| !must.contains(**row)) {
            wrong.push(format!("I1 {machine}: a reading that nobody sent: {stranger}"));
        }
    }
    // I1: every refused line in the dead letters, as often as it was refused.
    let letters = portal.pages("/api/dead-letters", "dead_letters").await?;
    let ids: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["id"].as_str()).collect();
    if ids.len() != letters.len() {
        wrong.push(format!("I1 {} dead letters share an id", letters.len() - ids.len()));
    }
    let mut held: BTreeMap<&str, u64> = BTreeMap::new();
    for letter in &letters {
        *held.entry(letter["payload"].as_str().unwrap_or_default()).or_default() += 1;
    }
    for (text, (answered, sent)) in clients.iter().flat_map(|client| &client.refusals) {
        let held = held.get(text.as_str()).copied().unwrap_or(0);
        if !(*answered..=*sent).contains(&held) {
            wrong.push(format!("I1 a refused line is held {held} times, answered {answered}, sent {sent}: {text}"));
        }
    }
    // The ledger, and I2: nothing is in flight once all is at rest.
    let ledger = portal.get("/api/ledger").await?;
    let [received, stored, rejected, duplicate] =
        ["received", "stored", "rejected", "duplicate"].map(|key| sum(&ledger, key));
    let must: usize = expected.rows.values().map(BTreeSet::len).sum();
    if ledger["balanced"] != true
        || received != stored + rejected + duplicate
        || stored != must as u64
        || rejected != letters.len() as u64
    {
        wrong.push(format!("ledger: {ledger}, must store {must}, reject {}", letters.len()));
    }
    if sum(&ledger, "in_flight") != 0 {
        wrong.push(format!("I2 {} readings are still in flight", sum(&ledger, "in_flight")));
    }
    // I3, I4: exactly the alerts of the law, each id once, each id the one of its contents.
    let found: BTreeSet<(String, String, String)> = keys(alerts).into_iter().collect();
    let must: BTreeSet<(String, String, String)> = expected
        .alerts
        .iter()
        .map(|(machine, kind, second)| (machine.clone(), (*kind).to_owned(), rfc3339(*second)))
        .collect();
    for (what, some) in [("missing", must.difference(&found)), ("false", found.difference(&must))]
        .map(|(what, some)| (what, some.collect::<Vec<_>>()))
    {
        if !some.is_empty() {
            wrong.push(format!("I3 {} alerts {what}, e.g. {:?}", some.len(), some[0]));
        }
    }
    if keys(alerts).len() != found.len() {
        wrong.push(format!("I4 {} alerts doubled", keys(alerts).len() - found.len()));
    }
    let alert_ids: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert["alert_id"].as_str()).collect();
    if alert_ids.len() != alerts.len() {
        wrong.push("I4 an alert id stands twice".to_owned());
    }
    // I5, I9: the stream from its beginning tells each alert once, in seqs without a gap.
    let frames = portal.frames().await?;
    let seqs: Vec<u64> = frames.iter().filter_map(|frame| frame["seq"].as_u64()).collect();
    if seqs.iter().zip(1..).any(|(seq, must)| *seq != must) {
        wrong.push(format!(
            "I9 the stream's seqs have a gap or do not begin at 1: {:?} ...",
            &seqs[..seqs.len().min(5)]
        ));
    }
    let told: Vec<&str> = frames
        .iter()
        .filter(|frame| frame["type"] == "alert")
        .filter_map(|frame| frame["data"]["alert_id"].as_str())
        .collect();
    if told.len() != alert_ids.len() || told.iter().any(|id| !alert_ids.contains(id)) {
        wrong.push(format!("I5 the stream tells {} alerts, history holds {}", told.len(), alert_ids.len()));
    }
    Ok(())
}

/// A stored reading, comparable.
fn cells(log: &Value) -> String {
    let hundredths = |key: &str| (log[key].as_f64().unwrap_or(f64::NAN) * 100.0).round() as i64;
    let second = log["timestamp"].as_str().unwrap_or_default();
    format!(
        "{second} {} {} {} {} {}",
        hundredths("air_temp_k"),
        hundredths("process_temp_k"),
        log["rpm"],
        hundredths("torque_nm"),
        log["tool_wear_min"]
    )
}

fn cells_of(reading: &Reading) -> String {
    let Reading { second, air, process, rpm, torque, wear } = reading;
    format!("{} {air} {process} {rpm} {torque} {wear}", rfc3339(*second))
}

// ---------------------------------------------------------------------------------------------------------------------
// The process under test.

struct Product {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    bug: Option<String>,
    /// `history.flush_after`.
    flush_after: &'static str,
    child: Option<Child>,
}

impl Product {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.bin);
        command.args(["up", "--no-simulate", "--port", &self.port.to_string(), "--data-dir"]).arg(&self.data);
        command.stdout(Stdio::null()).stderr(log(&self.data)).stdin(Stdio::null());
        command.env_remove("MILLWRIGHT_PLANTED");
        command.env("MILLWRIGHT_HISTORY__FLUSH_AFTER", self.flush_after);
        if let Some(bug) = &self.bug {
            command.env("MILLWRIGHT_PLANTED", bug);
        }
        command
    }

    async fn start(&mut self, http: &reqwest::Client) -> Result<()> {
        self.child = Some(self.command().spawn().with_context(|| format!("start {}", self.bin.display()))?);
        let until = Instant::now() + Duration::from_secs(20);
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        loop {
            if let Ok(answer) = http.get(&url).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                let said = std::fs::read_to_string(self.data.join("torture.log")).unwrap_or_default();
                let tail: Vec<&str> = said.lines().rev().take(5).collect();
                bail!("the product is not ready ({ended:?}): {tail:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a second one on the same folder; true where it refused. One that does not refuse is left to run on with
    /// the first for a moment, as a zombie would, and is then killed.
    fn second_start_is_refused(&self) -> Result<bool> {
        let mut command = self.command();
        command.args(["--port", "0"]);
        let mut args: Vec<std::ffi::OsString> = command.get_args().map(Into::into).collect();
        args.drain(2..4); // the first --port and its number
        let mut second = self.command_with(&args).spawn().context("start a second one")?;
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            if let Some(status) = second.try_wait().context("wait for the second one")? {
                return Ok(!status.success());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        second.kill().context("kill the second one")?;
        second.wait().context("wait for the second one")?;
        Ok(false)
    }

    fn command_with(&self, args: &[std::ffi::OsString]) -> Command {
        let mut command = Command::new(&self.bin);
        command.args(args).stdout(Stdio::null()).stderr(log(&self.data)).stdin(Stdio::null());
        command.env("MILLWRIGHT_HISTORY__FLUSH_AFTER", self.flush_after);
        if let Some(bug) = &self.bug {
            command.env("MILLWRIGHT_PLANTED", bug);
        }
        command
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its end is what is wanted; that it has ended already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM: exit 0 within 10 s, else what was wrong.
    fn stop(&mut self) -> Result<Option<String>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().context("send SIGTERM")?;
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = child.try_wait().context("wait for the end")? {
                return Ok((!status.success()).then(|| format!("SIGTERM: {status}")));
            }
            if Instant::now() > until {
                child.kill().context("kill what does not stop")?;
                child.wait().context("wait for the end")?;
                return Ok(Some("SIGTERM: no end within 10 s".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log(data: &Path) -> Stdio {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(data.join("torture.log"));
    file.map_or_else(|_| Stdio::null(), Stdio::from)
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

fn unix_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is after 1970");
    since.as_micros() as i64
}
