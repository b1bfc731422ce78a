//! The embedded product: kill -9 of `millwright up` at random moments while clients send.

use crate::{
    client::Client,
    input::{Lots, Plan, cells, cells_of, rfc3339, unix_us},
    oracle::Expected,
    portal::{Portal, sum},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// kill -9 of the whole process at random moments, against an oracle.
#[derive(Debug, Clone, Args)]
pub struct Embedded {
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

/// Runs what is asked for.
pub async fn torture(args: &Embedded) -> Result<()> {
    if args.planted { planted(args).await } else { plain(args).await }
}

async fn plain(args: &Embedded) -> Result<()> {
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

async fn planted(args: &Embedded) -> Result<()> {
    for bug in BUGS {
        let mut caught = None;
        let mut kills = 0;
        // A short history each time, so that a bug is told as soon as it shows.
        while kills < args.rounds && caught.is_none() {
            let some = Embedded { rounds: 10.min(args.rounds - kills), ..args.clone() };
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

async fn run(args: &Embedded, seed: u64, bug: Option<&str>) -> Result<Run> {
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
    let frames = portal.frames(0).await?;
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
