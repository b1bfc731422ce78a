//! What befalls the plant.

use super::{
    judge::connect,
    rig::{Rig, signal},
    sender::Sender,
};
use crate::input::Lots;
use anyhow::Result;
use rustix::process::Signal;
use std::{
    fmt,
    time::{Duration, Instant},
};

/// One round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nemesis {
    /// kill -9 of one process of a group.
    Kill(&'static str),
    /// A clean stop in mid traffic.
    Term(&'static str),
    /// kill -9 of every process of the groups.
    Storm,
    /// Members of the groups of ingest and detect leave and come back faster than the groups settle.
    Rebalances,
    /// SIGSTOP for a moment.
    Pause(&'static str),
    /// SIGSTOP in the middle of a burst until others have its partitions; then it wakes.
    Zombie(&'static str),
    /// kill -9 of a service while its effects wait for locks that are held: between position and effects, were they apart.
    Locked(&'static str),
    /// The transaction is committed, and its connection ends before the answer.
    LostAnswer(&'static str),
    /// kill -9 of the relay that has taken alerts which brokers that stand still do not take.
    RelayEarly,
    /// kill -9 of an engine, which is restarted.
    Engine(&'static str),
    /// Everything in Redis is forgotten.
    Flushed,
}

/// (weight, what): of a hundred rounds about so many.
pub const ALL: [(u64, Nemesis); 28] = [
    (14, Nemesis::Kill("ingest")),
    (14, Nemesis::Kill("detect")),
    (12, Nemesis::Kill("relay")),
    (12, Nemesis::Kill("portal")),
    (8, Nemesis::Pause("ingest")),
    (8, Nemesis::Pause("detect")),
    (5, Nemesis::Pause("relay")),
    (5, Nemesis::Pause("portal")),
    (1, Nemesis::Pause("kafka")),
    (1, Nemesis::Pause("postgres_main")),
    (1, Nemesis::Pause("postgres_ai")),
    (1, Nemesis::Term("ingest")),
    (1, Nemesis::Term("detect")),
    (1, Nemesis::Term("relay")),
    (1, Nemesis::Term("portal")),
    (2, Nemesis::Storm),
    (2, Nemesis::Rebalances),
    (1, Nemesis::Zombie("ingest")),
    (1, Nemesis::Zombie("detect")),
    (1, Nemesis::Locked("ingest")),
    (1, Nemesis::Locked("detect")),
    (1, Nemesis::Locked("portal")),
    (1, Nemesis::LostAnswer("postgres_main")),
    (1, Nemesis::LostAnswer("postgres_ai")),
    (1, Nemesis::RelayEarly),
    (1, Nemesis::Engine("postgres_main")),
    (1, Nemesis::Engine("postgres_ai")),
    (2, Nemesis::Engine("redis")),
];

/// Also dealt, but so rarely that a broker is there most of the time: it takes seconds to start.
const BROKER: (u64, Nemesis) = (100, Nemesis::Engine("kafka"));

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nemesis::Kill(group) => write!(f, "kill {group}"),
            Nemesis::Term(group) => write!(f, "stop {group}"),
            Nemesis::Storm => f.write_str("kill all services"),
            Nemesis::Rebalances => f.write_str("storm of rebalances"),
            Nemesis::Pause(group) => write!(f, "pause {group}"),
            Nemesis::Zombie(group) => write!(f, "zombie {group}"),
            Nemesis::Locked(group) => write!(f, "kill {group} behind locks"),
            Nemesis::LostAnswer(group) => write!(f, "lost answer of {group}"),
            Nemesis::RelayEarly => f.write_str("kill relay before the brokers have it"),
            Nemesis::Engine(group) => write!(f, "restart {group}"),
            Nemesis::Flushed => f.write_str("flush redis"),
        }
    }
}

/// What befalls in so many rounds: each kind at least once where there are enough, in an order of the seed.
pub fn deal(rounds: u64, lots: &mut Lots) -> Vec<Nemesis> {
    let weights: u64 = ALL.iter().map(|(weight, _)| weight).sum();
    let mut deck = vec![Nemesis::Flushed];
    deck.extend((0..rounds.div_ceil(BROKER.0)).map(|_| BROKER.1));
    for (weight, nemesis) in ALL {
        deck.extend((0..(weight * rounds / weights).max(1)).map(|_| nemesis));
    }
    while (deck.len() as u64) < rounds {
        deck.push(ALL[lots.below(8) as usize].1);
    }
    for last in (1..deck.len()).rev() {
        deck.swap(last, lots.below(last as u64 + 1) as usize);
    }
    deck.truncate(rounds as usize);
    // Those come last, so that what is judged before them is judged without what they excuse.
    let half = deck.len() / 2;
    let (mut first, mut last) = (0, half);
    while first < half && last < deck.len() {
        if !deck[first].leaves_two_writers() {
            first += 1;
        } else if deck[last].leaves_two_writers() {
            last += 1;
        } else {
            deck.swap(first, last);
        }
    }
    deck
}

/// Groups of services.
pub const SERVICES: [&str; 4] = ["ingest", "detect", "relay", "portal"];

impl Nemesis {
    /// Ingest may be taken for dead and still write to the topic of dead letters, which nothing fences: there it may repeat
    /// what its successor wrote.
    pub fn leaves_two_writers(self) -> bool {
        matches!(
            self,
            Nemesis::Zombie("ingest") | Nemesis::Pause("kafka") | Nemesis::RelayEarly | Nemesis::Engine("kafka")
        )
    }

    /// Does it; false where it could not be done as it was meant.
    pub async fn befall(self, rig: &Rig, sender: &Sender, lots: &mut Lots) -> Result<bool> {
        let one = |group: &str, lots: &mut Lots| -> Result<Option<i32>> {
            let pids = rig.pids(group)?;
            Ok((!pids.is_empty()).then(|| pids[lots.below(pids.len() as u64) as usize]))
        };
        let send = |group: &str, lots: &mut Lots, what: Signal| -> Result<bool> {
            let pid = one(group, lots)?;
            pid.into_iter().for_each(|pid| signal(pid, what));
            Ok(pid.is_some())
        };
        match self {
            Nemesis::Kill(group) => send(group, lots, Signal::KILL),
            Nemesis::Term(group) => send(group, lots, Signal::TERM),
            Nemesis::Storm => {
                for group in SERVICES {
                    rig.pids(group)?.into_iter().for_each(|pid| signal(pid, Signal::KILL));
                }
                pause(1_000).await;
                Ok(true)
            }
            Nemesis::Rebalances => {
                sender.burst(true);
                let mut left = 0;
                for _ in 0..8 {
                    for group in ["ingest", "detect"] {
                        left += usize::from(send(group, lots, Signal::TERM)?);
                    }
                    // What has left is started again within half a second, and joins.
                    pause(100 + lots.below(300)).await;
                }
                sender.burst(false);
                Ok(left > 8)
            }
            Nemesis::Pause(group) => {
                let Some(pid) = one(group, lots)? else { return Ok(false) };
                signal(pid, Signal::STOP);
                let most = if SERVICES.contains(&group) { 300 } else { 1_200 };
                pause(10 + lots.below(most)).await;
                signal(pid, Signal::CONT);
                Ok(true)
            }
            Nemesis::Zombie(group) => {
                let Some(pid) = one(group, lots)? else { return Ok(false) };
                sender.burst(true);
                pause(300 + lots.below(300)).await;
                signal(pid, Signal::STOP);
                pause(300).await;
                sender.burst(false);
                // The session of a member is 1.5 s here.
                pause(2_000 + lots.below(1_500)).await;
                signal(pid, Signal::CONT);
                pause(300).await;
                Ok(true)
            }
            Nemesis::Locked(group) => {
                let (url, tables) = match group {
                    "ingest" => (&rig.at.postgres_main, "sensor_log"),
                    "detect" => (&rig.at.postgres_ai, "anomaly_history, outbox"),
                    _ => (&rig.at.postgres_main, "alert, alarm, event, counter"),
                };
                let Ok(mut client) = connect(url).await else { return Ok(false) };
                // So that there is something to write within the time.
                sender.burst(true);
                let done = async {
                    let transaction = client.transaction().await?;
                    let lock = format!("set local lock_timeout = '900ms'; lock table {tables} in exclusive mode");
                    transaction.batch_execute(&lock).await?;
                    // A second is the lock_timeout of the services.
                    let until = Instant::now() + Duration::from_millis(700);
                    let waits = "select count(*) from pg_locks where not granted and locktype = 'relation'";
                    let mut caught = false;
                    while !caught && Instant::now() < until {
                        caught = transaction.query_one(waits, &[]).await?.get::<_, i64>(0) > 0;
                        pause(10).await;
                    }
                    if caught {
                        for pid in rig.pids(group)? {
                            signal(pid, Signal::KILL);
                        }
                    }
                    transaction.rollback().await?;
                    anyhow::Ok(caught)
                };
                let caught = done.await.unwrap_or(false);
                sender.burst(false);
                Ok(caught)
            }
            Nemesis::LostAnswer(group) => {
                let url = if group == "postgres_main" { &rig.at.postgres_main } else { &rig.at.postgres_ai };
                let Ok(client) = connect(url).await else { return Ok(false) };
                // Each commit is written and then waits for a standby that there is not.
                let on = ["alter system set synchronous_standby_names = 'nobody'", "select pg_reload_conf()"];
                let off = ["alter system reset synchronous_standby_names", "select pg_reload_conf()"];
                let ended = async {
                    for sql in on {
                        client.simple_query(sql).await?;
                    }
                    let until = Instant::now() + Duration::from_millis(1_500);
                    let mut ended = 0;
                    while ended == 0 && Instant::now() < until {
                        let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
                        ended = client.query_one(sql, &[]).await?.get::<_, i64>(0);
                        pause(20).await;
                    }
                    anyhow::Ok(ended > 0)
                };
                let ended = ended.await.unwrap_or(false);
                // The setting outlives its server, so it is taken back whatever happened to that.
                let until = Instant::now() + Duration::from_secs(30);
                loop {
                    if let Ok(client) = connect(url).await
                        && client.simple_query(off[0]).await.is_ok()
                        && client.simple_query(off[1]).await.is_ok()
                    {
                        return Ok(ended);
                    }
                    anyhow::ensure!(Instant::now() < until, "{group} does not answer for 30 s");
                    pause(50).await;
                }
            }
            Nemesis::RelayEarly => {
                let (Some(pid), brokers) = (one("relay", lots)?, rig.pids("kafka")?) else { return Ok(false) };
                let Ok(ai) = connect(&rig.at.postgres_ai).await else { return Ok(false) };
                signal(pid, Signal::STOP);
                let count = async || -> Result<i64> {
                    Ok(ai.query_one("select count(*) from anomaly_history", &[]).await?.get(0))
                };
                let grown = async {
                    let (before, until) = (count().await?, Instant::now() + Duration::from_secs(2));
                    while Instant::now() < until {
                        pause(20).await;
                        if count().await? > before + 2 {
                            return Ok(true);
                        }
                    }
                    anyhow::Ok(false)
                };
                let grown = grown.await.unwrap_or(false);
                brokers.iter().for_each(|pid| signal(*pid, Signal::STOP));
                signal(pid, Signal::CONT);
                // It tells the database what it has confirmed each second.
                pause(1_400).await;
                signal(pid, Signal::KILL);
                // What it has sent lies in their sockets: they read it when they go on, and it is gone with them.
                let how = if lots.below(2) == 0 { Signal::KILL } else { Signal::CONT };
                brokers.iter().for_each(|pid| signal(*pid, how));
                Ok(grown)
            }
            Nemesis::Engine(group) => {
                let at_once = lots.below(2) == 0 || !group.starts_with("postgres");
                let how = if at_once { Signal::KILL } else { Signal::QUIT };
                let done = send(group, lots, how)?;
                // Restarted soon, and nothing is proved while it is away.
                pause(if group == "redis" { 200 } else { 1_000 }).await;
                Ok(done)
            }
            Nemesis::Flushed => {
                let address = rig.at.redis.trim_start_matches("redis://").trim_end_matches('/').to_owned();
                let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return Ok(false) };
                Ok(tokio::io::AsyncWriteExt::write_all(&mut stream, b"FLUSHALL\r\n").await.is_ok())
            }
        }
    }
}

pub async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
