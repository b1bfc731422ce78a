//! How long the plant stands still: from what befalls it to the moment when every partition moves again.

use super::{
    judge::{connect, positions},
    nemesis::pause,
    rig::{Rig, signal},
    sender::{MACHINES, Sender},
};
use crate::input::Plan;
use anyhow::{Result, bail};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Times that each thing is measured; the longest counts.
const TIMES: usize = 3;
const PARTITIONS: usize = 6;

/// Prints the longest times. A machine that does other work besides makes them longer, so they are told and not judged.
pub async fn measure(rig: &Rig, plan: Plan, client: u64, brokers: u16) -> Result<()> {
    debug_assert!(MACHINES as usize >= PARTITIONS * 3);
    let sender = Sender::start(&rig.at.kafka, plan, client, 1)?;
    let done = all(rig, brokers).await;
    tokio::task::block_in_place(|| sender.finish())?;
    done
}

async fn all(rig: &Rig, brokers: u16) -> Result<()> {
    for (what, group, database, most) in [
        ("a killed detector's partitions are taken over", "detect", &rig.at.postgres_ai, 5.0),
        ("a killed ingestor's partitions are taken over", "ingest", &rig.at.postgres_main, 5.0),
    ] {
        let mut longest = 0.0_f64;
        for _ in 0..TIMES {
            all_move(database, Instant::now()).await?;
            pause(1_000).await;
            let Some(pid) = rig.pids(group)?.first().copied() else { bail!("no {group} runs") };
            signal(pid, Signal::KILL);
            longest = longest.max(all_move(database, Instant::now()).await?);
        }
        tell(what, longest, most);
    }
    for (what, engine, database) in [
        ("ingest goes on once PostgreSQL main accepts connections", "postgres_main", &rig.at.postgres_main),
        ("detect goes on once PostgreSQL AI accepts connections", "postgres_ai", &rig.at.postgres_ai),
    ] {
        let mut longest = 0.0_f64;
        for _ in 0..TIMES {
            all_move(database, Instant::now()).await?;
            rig.pids(engine)?.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            pause(50).await;
            let until = Instant::now() + Duration::from_secs(60);
            while connect(database).await.is_err() {
                anyhow::ensure!(Instant::now() < until, "{engine} is not restarted");
                pause(10).await;
            }
            longest = longest.max(all_move(database, Instant::now()).await?);
        }
        tell(what, longest, 2.0);
    }
    if brokers > 1 {
        let mut longest = 0.0_f64;
        for at in 0..3 {
            all_move(&rig.at.postgres_main, Instant::now()).await?;
            // The last one killed is back and has all of its replicas.
            pause(15_000).await;
            let Some(pid) = rig.pids("kafka")?.get(at).copied() else { bail!("not all brokers run") };
            signal(pid, Signal::KILL);
            longest = longest.max(all_move(&rig.at.postgres_main, Instant::now()).await?);
        }
        tell("one broker of three is lost", longest, 4.0);
    }
    Ok(())
}

fn tell(what: &str, seconds: f64, most: f64) {
    let missed = if seconds < most { "" } else { ", MISSED" };
    println!("{what}: {seconds:.1} s at the longest (must be below {most} s{missed})");
}

/// Seconds from a moment until every partition has moved after it.
async fn all_move(database: &str, since: Instant) -> Result<f64> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut first: Option<Vec<i64>> = None;
    loop {
        // What was in hand is committed after a kill too, so the first look comes a moment later.
        pause(20).await;
        anyhow::ensure!(Instant::now() < until, "not every partition moves within 60 s");
        let Ok(client) = connect(database).await else { continue };
        while let Ok(now) = positions(&client, "sensor-raw-data", PARTITIONS).await {
            let first = first.get_or_insert_with(|| now.clone());
            if first.iter().zip(&now).all(|(first, now)| first < now) {
                return Ok(since.elapsed().as_secs_f64());
            }
            anyhow::ensure!(Instant::now() < until, "not every partition moves within 60 s");
            pause(20).await;
        }
    }
}
