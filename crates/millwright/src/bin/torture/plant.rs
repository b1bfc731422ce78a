//! The plant: separate processes on real engines, a foreign producer and HTTP clients, and what befalls them.

mod judge;
mod live;
mod log;
mod measure;
mod nemesis;
mod rig;
mod sender;

use crate::{
    client::Client,
    input::{Lots, Plan, unix_us},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use judge::{Judge, Verdict};
use live::Hook;
use nemesis::{Nemesis, deal, pause};
use rig::Rig;
use rustix::process::Signal;
use sender::{Sender, Sent};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::signal::{self, unix::SignalKind};

/// Kills, stops and restarts of every service and engine, against an oracle.
#[derive(Debug, Clone, Args)]
pub struct Plant {
    /// What befalls the plant so often.
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    /// A failing seed is printed; give it here to have the same rounds and readings again.
    #[arg(long)]
    seed: Option<u64>,
    /// Kafka's brokers: 1 or 3.
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// Where the plant lives, which is kept; default: a temporary folder.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The binary under test; default: `millwright` beside this one.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// What starts the plant; default: `rig` beside this one.
    #[arg(long)]
    rig: Option<PathBuf>,
    /// Leave out how long take-overs take.
    #[arg(long)]
    no_figures: bool,
    /// Show that the oracle sees: every planted bug must be caught.
    #[arg(long)]
    planted: bool,
    /// Only this planted bug.
    #[arg(long)]
    bug: Option<String>,
}

/// For so long a notification may wait for its next attempt, so that one that is tried for ever is seen.
const BACKED_OFF_MAX: Duration = Duration::from_secs(360);

/// A bug that a build with the feature `planted` has when MILLWRIGHT_PLANTED names it, and what shows it.
struct Bug {
    name: &'static str,
    /// What befalls the plant, again and again.
    nemeses: &'static [Nemesis],
    /// How what is wrong begins.
    shows: &'static [&'static str],
    /// Event-time seconds of a machine each tick, and the pause of HTTP clients.
    load: Load,
}

#[derive(Clone, Copy)]
struct Load {
    pace: u64,
    http_pause_ms: u64,
}

const USUAL: Load = Load { pace: 2, http_pause_ms: 300 };
const ALERTS: Load = Load { pace: 8, http_pause_ms: 300 };

const BUGS: [Bug; 8] = [
    Bug { name: "no_dedupe", nemeses: &[Nemesis::Kill("ingest")], shows: &["I1 doubled"], load: USUAL },
    Bug {
        name: "ack_before_write",
        nemeses: &[Nemesis::Kill("portal")],
        shows: &["I6 lost"],
        load: Load { pace: 1, http_pause_ms: 0 },
    },
    Bug { name: "no_tail_read", nemeses: &[Nemesis::Kill("relay")], shows: &["I4 doubled"], load: ALERTS },
    Bug { name: "confirm_before_publish", nemeses: &[Nemesis::RelayEarly], shows: &["I4 lost"], load: ALERTS },
    Bug {
        name: "portal_acks_first",
        nemeses: &[Nemesis::Locked("portal")],
        shows: &["I5 lost", "I5 alarms"],
        load: ALERTS,
    },
    Bug { name: "counts_attempts", nemeses: &[Nemesis::Pause("portal")], shows: &["I5 unheard"], load: USUAL },
    Bug { name: "blind_retry", nemeses: &[Nemesis::LostAnswer("postgres_main")], shows: &["I1 doubled"], load: USUAL },
    Bug { name: "no_fence", nemeses: &[Nemesis::Zombie("ingest")], shows: &["I1 doubled"], load: USUAL },
];

/// Histories of a planted bug, each judged.
const TRIES: u64 = 24;
/// Rounds of one.
const TRIED: usize = 4;
/// Rounds that are judged together.
const HISTORY: usize = 100;
/// Between two rounds.
const BETWEEN_MS: (u64, u64) = (50, 300);

/// Runs what is asked for.
pub async fn torture(args: &Plant) -> Result<()> {
    let beside = |name: &str| Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name(name));
    let name = if args.planted { "millwright-planted" } else { "millwright" };
    let bin = args.bin.clone().map_or_else(|| beside(name), Ok)?;
    let program = args.rig.clone().map_or_else(|| beside("rig"), Ok)?;
    for needed in [&bin, &program] {
        if !needed.exists() {
            bail!("{} is missing: build it first (./dev torture plant does)", needed.display());
        }
    }
    let temporary = tempfile::tempdir().context("make a folder")?;
    let folder = args.folder.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let begun = Instant::now();
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).pool_max_idle_per_host(0).build()?;
    let seed =
        args.seed.unwrap_or_else(|| if args.planted { 7 } else { u64::from(std::process::id()) ^ unix_us() as u64 });
    let hook = Hook::listen(seed).await?;
    let rig = Rig::up(&program, folder, args.brokers, &bin, &hook.url, args.planted)?;
    println!("the plant is up after {:.0} s", begun.elapsed().as_secs_f64());
    let mut tortured = Tortured { rig, http, hook, seed, histories: 0 };
    let stopped = async {
        let mut ended = signal::unix::signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        tokio::select! {
            _ = ended.recv() => {}
            pressed = signal::ctrl_c() => pressed.context("wait for ^C")?,
        }
        bail!("stopped")
    };
    tokio::select! {
        done = async { if args.planted { tortured.planted(args).await } else { tortured.plain(args).await } } => done,
        stopped = stopped => stopped,
    }
}

struct Tortured {
    rig: Rig,
    http: reqwest::Client,
    hook: Hook,
    seed: u64,
    /// Each has machines of its own.
    histories: u64,
}

/// What a history came to.
struct History {
    verdict: Verdict,
    resent: u64,
    records: u64,
    /// How often what befell the plant did so as it was meant.
    hits: BTreeMap<Nemesis, (u64, u64)>,
}

impl Tortured {
    async fn plain(&mut self, args: &Plant) -> Result<()> {
        let deck: Vec<Nemesis> = (0..args.rounds)
            .step_by(2 * HISTORY)
            .flat_map(|from| {
                let rounds = (args.rounds - from).min(2 * HISTORY as u64);
                deal(rounds, &mut Lots(self.seed ^ 0xdea1 ^ from))
            })
            .collect();
        let seed = self.seed;
        for deck in deck.chunks(HISTORY) {
            let begun = Instant::now();
            let lots = Lots(seed ^ self.histories);
            let found = self.history(seed, deck, lots, USUAL, Duration::from_secs(30)).await;
            let History { verdict, resent, records, hits } = found.with_context(|| format!("seed {seed}"))?;
            println!(
                "{} rounds in {:.0} s, seed {seed}: {} readings in {records} records and bodies, {} repeats, {} refused, {} alerts, {} of them heard by a webhook, {resent} bodies sent again{}; {}",
                deck.len(),
                begun.elapsed().as_secs_f64(),
                verdict.readings,
                verdict.repeats,
                verdict.refused,
                verdict.alerts,
                verdict.heard,
                match verdict.letters_repeated {
                    0 => String::new(),
                    some => format!(", {some} dead letters repeated on their topic by one that was taken for dead"),
                },
                if verdict.wrong.is_empty() {
                    "0 lost, 0 doubled".to_owned()
                } else {
                    format!("{} WRONG", verdict.wrong.len())
                }
            );
            let hits: Vec<String> = hits.iter().map(|(nemesis, (hit, of))| format!("{nemesis} {hit}/{of}")).collect();
            println!("  {}", hits.join(", "));
            if !verdict.wrong.is_empty() {
                bail!("seed {seed}:\n  {}", verdict.wrong[..verdict.wrong.len().min(20)].join("\n  "));
            }
        }
        println!(
            "fenced off: {} times in ingest, {} in detect",
            self.rig.told("ingest", "another ingest went on"),
            self.rig.told("detect", "another detector went on")
        );
        if args.no_figures {
            return Ok(());
        }
        let plan = self.plan(self.seed);
        measure::measure(&self.rig, plan, (self.histories + 1) * 10, args.brokers).await
    }

    async fn planted(&mut self, args: &Plant) -> Result<()> {
        for Bug { name, nemeses, shows, load } in BUGS {
            if args.bug.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            let begun = Instant::now();
            self.rig.plant(name)?;
            self.end_services(Signal::KILL).await?;
            let mut caught = None;
            let mut rounds = 0;
            let mut other = Vec::new();
            for history in 0..TRIES {
                let seed = self.seed.wrapping_add(history);
                let deck: Vec<Nemesis> = nemeses.iter().copied().cycle().take(TRIED).collect();
                let found = self.history(seed, &deck, Lots(seed), load, Duration::from_secs(4)).await;
                let found = found.with_context(|| format!("planted {name}"))?;
                rounds += deck.len();
                let shown = |wrong: &&String| shows.iter().any(|shows| wrong.starts_with(shows));
                caught = found.verdict.wrong.iter().find(shown).cloned();
                if caught.is_some() {
                    break;
                }
                other = found.verdict.wrong;
                other.extend(found.hits.iter().map(|(nemesis, (hit, of))| format!("{nemesis} {hit}/{of}")));
            }
            match caught {
                Some(wrong) => {
                    println!(
                        "planted {name}: caught within {rounds} rounds, {:.0} s: {wrong}",
                        begun.elapsed().as_secs_f64()
                    );
                }
                None => {
                    bail!("planted {name}: NOT caught in {rounds} rounds, so this harness proves nothing; {other:?}")
                }
            }
        }
        Ok(())
    }

    fn plan(&self, seed: u64) -> Plan {
        // Far enough back that no reading lies ahead of its arrival.
        Plan { seed, t0: unix_us() / 1_000_000 - 20 * 3600 }
    }

    /// Ends every service, and waits for the next ones.
    async fn end_services(&self, how: Signal) -> Result<()> {
        for group in nemesis::SERVICES {
            let old = self.rig.pids(group)?;
            old.iter().for_each(|pid| rig::signal(*pid, how));
            let until = Instant::now() + Duration::from_secs(10);
            while self.rig.pids(group)?.iter().any(|pid| old.contains(pid)) {
                anyhow::ensure!(Instant::now() < until, "{group} does not end within 10 s of {how:?}");
                pause(20).await;
            }
        }
        self.ready().await
    }

    /// Waits for the portal, the last to be.
    async fn ready(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        let url = format!("{}/readyz", self.rig.at.portal);
        pause(100).await;
        while !self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            anyhow::ensure!(Instant::now() < until, "the portal is not ready within 60 s");
            pause(50).await;
        }
        Ok(())
    }

    /// Sends while one thing after the other befalls the plant, then waits until all is right, or nothing moves for `quiet`.
    async fn history(
        &mut self,
        seed: u64,
        deck: &[Nemesis],
        mut lots: Lots,
        load: Load,
        quiet: Duration,
    ) -> Result<History> {
        self.histories += 1;
        let (plan, first, live) = (self.plan(seed), self.histories * 10, live::client(self.histories));
        live::confirm(&self.http, &self.rig.at.portal, live).await?;
        let mut judge = Judge::begin(&self.rig.at, plan, self.histories, self.hook.clone()).await?;
        judge.two_writers = deck.iter().any(|nemesis| nemesis.leaves_two_writers());
        let sender = Sender::start(&self.rig.at.kafka, plan, first, load.pace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (1..=2).map(|id| self.client(first + id, plan, load, stop.clone())).collect();
        let live = {
            let (http, portal, stop) = (self.http.clone(), self.rig.at.portal.clone(), stop.clone());
            tokio::spawn(async move { live::send(&http, &portal, plan, live, &stop).await })
        };
        pause(1_000).await;
        let mut hits: BTreeMap<Nemesis, (u64, u64)> = BTreeMap::new();
        for nemesis in deck {
            let hit = nemesis.befall(&self.rig, &sender, &mut lots).await.with_context(|| format!("{nemesis}"))?;
            let (hits, of) = hits.entry(*nemesis).or_default();
            *hits += u64::from(hit);
            *of += 1;
            let (least, most) = BETWEEN_MS;
            pause(least + lots.below(most - least)).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut sent = tokio::task::block_in_place(|| sender.finish())?;
        sent.live = live.await.context("the live client")??;
        let mut ended = Vec::new();
        for client in clients {
            ended.push(client.await.context("a client")??);
        }
        let mut verdict = self.settle(&mut judge, &ended, &sent, quiet).await?;
        if verdict.wrong.is_empty() {
            // A clean stop loses nothing either, leaves nothing in flight, and what is doubled late shows now.
            self.end_services(Signal::TERM).await?;
            verdict = self.settle(&mut judge, &ended, &sent, quiet).await?;
        }
        let resent = ended.iter().map(|client| client.resent).sum();
        let bodies: u64 = ended.iter().map(|client| client.next).sum();
        Ok(History { verdict, resent, records: sent.records + bodies + sent.live.len() as u64, hits })
    }

    /// A client of the HTTP door.
    fn client(
        &self,
        id: u64,
        plan: Plan,
        load: Load,
        stop: Arc<AtomicBool>,
    ) -> tokio::task::JoinHandle<Result<Client>> {
        let (http, url) = (self.http.clone(), format!("{}/api/readings", self.rig.at.portal));
        tokio::spawn(async move {
            let mut client = Client::new(id, plan);
            while !stop.load(Ordering::Relaxed) {
                client.go_on(&http, &url).await;
                pause(if client.unanswered { 20 } else { load.http_pause_ms }).await;
            }
            client.finish(&http, &url).await?;
            Ok(client)
        })
    }

    async fn settle(&self, judge: &mut Judge, clients: &[Client], sent: &Sent, quiet: Duration) -> Result<Verdict> {
        let begun = Instant::now();
        let mut since = begun;
        let mut before = None;
        loop {
            let seen = judge.look(&self.http, clients, sent).await;
            let (wrong, at_rest) = match &seen {
                Ok(verdict) => (verdict.wrong.clone(), verdict.at_rest),
                // An engine may still be on its way back.
                Err(error) => (vec![format!("{error:#}")], false),
            };
            if before.as_ref() != Some(&wrong) {
                since = Instant::now();
                before = Some(wrong.clone());
            }
            // What a sender that died had in hand, or a webhook that failed five times in a row, waits for 30 s; a notification
            // that failed more often than that, until it is due, which may be five minutes.
            let waits = wrong.iter().any(|wrong| wrong.starts_with("I5 late"));
            let due_us = seen.as_ref().ok().and_then(|verdict| verdict.due_us);
            let late_alone = wrong.iter().all(|wrong| wrong.starts_with("I5 late"));
            if late_alone && due_us.is_some_and(|due_us| due_us > unix_us()) && begun.elapsed() < BACKED_OFF_MAX {
                since = Instant::now();
            }
            let patience = match (at_rest, waits) {
                (false, _) => quiet.max(Duration::from_secs(30)),
                (true, true) => quiet * 3,
                (true, false) => quiet,
            };
            match seen {
                Ok(verdict) if verdict.wrong.is_empty() || since.elapsed() > patience => return Ok(verdict),
                Err(error) if since.elapsed() > patience => return Err(error),
                _ => pause(500).await,
            }
        }
    }
}
