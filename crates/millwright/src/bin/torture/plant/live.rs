//! Readings of this very second, from machines whose alarms ring, and the webhook that hears them.
//!
//! All other readings of a history are hours old, and what is found that late rings nowhere.

use super::nemesis::pause;
use crate::input::{Lots, Plan, json, machine_name, unix_us};
use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Machines that send once a second. In 50 s a third of them breaks the power law.
pub const MACHINES: u64 = 200;
/// Until the portal takes what it is asked for; longer than any engine is away.
const PATIENCE: Duration = Duration::from_secs(60);

/// The live client among those of a history.
pub fn client(history: u64) -> u64 {
    history * 10 + 9
}

/// Confirms its machines: others ring nowhere.
pub async fn confirm(http: &reqwest::Client, portal: &str, client: u64) -> Result<()> {
    for machine in 0..MACHINES {
        let url = format!("{portal}/api/machines/{}", machine_name(client, machine));
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = http.put(&url).header("content-type", "application/json").body(r#"{"confirmed":true}"#);
            match answer.send().await {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) if answer.status().is_client_error() => {
                    anyhow::bail!("{url}: {} {}", answer.status(), answer.text().await.unwrap_or_default())
                }
                _ => ensure!(Instant::now() < until, "{url} is not taken"),
            }
            pause(20).await;
        }
    }
    Ok(())
}

/// Sends the second that it is for every machine, again and again until it is answered; the seconds that were.
pub async fn send(
    http: &reqwest::Client,
    portal: &str,
    plan: Plan,
    client: u64,
    stop: &AtomicBool,
) -> Result<Vec<u64>> {
    let url = format!("{portal}/api/readings");
    let mut seconds: Vec<u64> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let second =
            u64::try_from(unix_us() / 1_000_000 - plan.t0).context("the clock is behind the plan's beginning")?;
        if seconds.last() >= Some(&second) {
            pause(20).await;
            continue;
        }
        let line = |machine| json(&machine_name(client, machine), &plan.reading(client, machine, second));
        let body = (0..MACHINES).map(line).collect::<Vec<_>>().join("\n");
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = http.post(&url).header("content-type", "application/x-ndjson").body(body.clone()).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(202) => break,
                Ok(429 | 503) | Err(_) => ensure!(Instant::now() < until, "live readings are not taken"),
                Ok(status) => anyhow::bail!("live readings: HTTP {status}"),
            }
            pause(20).await;
        }
        seconds.push(second);
    }
    Ok(seconds)
}

/// A webhook that is slow, fails now and then, and at times fails after it took what it was told.
#[derive(Clone)]
pub struct Hook {
    pub url: String,
    state: Arc<Mutex<Taken>>,
}

struct Taken {
    lots: Lots,
    heard: Heard,
}

/// What was told under each idempotency key; every body, where one was told otherwise.
pub type Heard = BTreeMap<String, Vec<Value>>;

impl Hook {
    /// Listens on a free port of this machine.
    pub async fn listen(seed: u64) -> Result<Hook> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("listen as a webhook")?;
        let url = format!("http://{}/hook", listener.local_addr().context("listen as a webhook")?);
        let state = Arc::new(Mutex::new(Taken { lots: Lots(seed ^ 0x400c), heard: Heard::new() }));
        let router = Router::new().route("/hook", post(hear)).with_state(state.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Hook { url, state })
    }

    /// What was told of these machines.
    pub fn heard(&self, machines: impl Fn(&str) -> bool) -> Heard {
        let taken = self.state.lock().expect("no one panics with it");
        let ours = |bodies: &[Value]| bodies[0]["machine_id"].as_str().is_some_and(&machines);
        taken
            .heard
            .iter()
            .filter(|(_, bodies)| ours(bodies))
            .map(|(key, bodies)| (key.clone(), bodies.clone()))
            .collect()
    }
}

async fn hear(State(state): State<Arc<Mutex<Taken>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (lot, wait_ms) = {
        let mut taken = state.lock().expect("no one panics with it");
        let (lot, wait_ms) = (taken.lots.below(8), taken.lots.below(40));
        if lot > 1 {
            let bodies = taken.heard.entry(key).or_default();
            if !bodies.contains(&body) {
                bodies.push(body);
            }
        }
        (lot, wait_ms)
    };
    pause(wait_ms).await;
    match lot {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE,
        2 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::NO_CONTENT,
    }
}
