//! `millwright doctor`: looks at each engine of a plant and says in plain words what is wrong and what to do.
//!
//! Here facts are gathered, side by side and each within a time; what they mean is decided in [`judge`]. Changes nothing.

mod judge;

use crate::{
    cli::{ConfigFile, Output},
    config::{self, Config, RelayKind},
    failure::Failure,
    service::{self, Plant},
    sink, topics,
};
use anyhow::{Context, Result};
use bus::{
    Topic,
    kafka::{admin, look},
    registry,
};
use dependency::chain;
use judge::{Database, Facts, Kafka, Line, Port, Portal, Registry, State};
use serde_json::json;
use services::{detect, ingest};
use std::{error::Error, future::Future, net::SocketAddr, time::Duration};
use store::postgres::{self, Which};
use tokio::{
    net::{TcpStream, ToSocketAddrs},
    time::timeout,
};

/// Within this time somebody who is there accepts a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Within this time an engine that works has answered.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// Within this time brokers have told of the cluster; less than an answer, so that what is known without one is still heard.
const LOOK_MAX: Duration = Duration::from_secs(6);
/// The groups of the services, and what they read.
const GROUPS: [(Topic, &str); 3] =
    [(Topic::Readings, ingest::GROUP), (Topic::Readings, detect::GROUP), (Topic::Alerts, portal::GROUP)];
/// The slot of the connector that deploy/debezium describes.
const DEBEZIUM_SLOT: &str = "millwright_debezium";

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, or a check failed.
pub fn run(file: &ConfigFile, output: Output) -> Result<()> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (config, _) = config::load(file.config.as_deref(), &environment, &[])?;
    let plant = service::plant(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let facts = runtime.block_on(gather(&config, &plant));
    // A client that still waits for an engine is not waited for.
    runtime.shutdown_background();
    tell(&judge::judge(&facts), output)
}

fn tell(lines: &[Line], output: Output) -> Result<()> {
    let failed = lines.iter().filter(|line| line.state == State::Fail).count();
    let text = match output {
        Output::Text => lines.iter().map(|line| format!("{line}\n")).collect(),
        Output::Json => {
            let checks: Vec<_> = lines
                .iter()
                .map(|line| json!({ "check": line.check, "state": line.state.as_str(), "says": line.says, "next": line.next }))
                .collect();
            format!("{}\n", json!({ "ok": failed == 0, "failed": failed, "checks": checks }))
        }
    };
    sink::print(&text)?;
    if failed == 0 {
        return Ok(());
    }
    let what = format!("{failed} of {} checks failed", lines.len());
    Err(Failure::dependency("MW-0065", what)
        .hint("each line FAIL says what to do; then run `millwright doctor` again")
        .into())
}

async fn gather(config: &Config, plant: &Plant) -> Facts {
    let slot = match config.relay.kind {
        RelayKind::Millwright => config.relay.slot.clone(),
        RelayKind::Debezium => DEBEZIUM_SLOT.to_owned(),
    };
    let redis = async {
        match &plant.redis {
            Some(redis) => {
                redis.look().await.into_iter().map(|(place, node)| (place, node.map_err(|e| chain(&e)))).collect()
            }
            None => Vec::new(),
        }
    };
    let portal = SocketAddr::new(config.portal.host, config.portal.port);
    let registry = async { registry_of(plant.kafka.registry.as_ref()?, plant).await.into() };
    let (kafka, main, ai, redis, registry, portal) = tokio::join!(
        kafka(config, plant),
        database(&plant.main, Which::Main),
        database(&plant.ai, Which::Ai),
        redis,
        registry,
        portal_at(portal),
    );
    let all_there = matches!(kafka.cluster, Some(Ok(_))) && main.migrations.is_some() && ai.migrations.is_some();
    let cut = match all_there {
        // What else keeps it from being known has a line of its own.
        true => timeout(ANSWER_MAX, topics::cut(plant)).await.ok().and_then(Result::ok),
        false => None,
    };
    Facts { kafka, main, ai, slot, relay: config.relay.kind, redis, registry, portal, cut }
}

async fn kafka(config: &Config, plant: &Plant) -> Kafka {
    let options = &plant.kafka;
    let mut seeds = Vec::new();
    for seed in config.bus.brokers.split(',').map(str::trim).filter(|seed| !seed.is_empty()) {
        let bare = seed.rsplit("://").next().unwrap_or(seed);
        let address = if bare.contains(':') { bare.to_owned() } else { format!("{bare}:9092") };
        seeds.push((seed.to_owned(), reach(address).await.err()));
    }
    let wanted = topics::wanted(config, plant);
    let mut facts = Kafka {
        seeds,
        cluster: None,
        away: Vec::new(),
        topics: wanted.iter().map(|topic| topic.name.clone()).collect(),
        changes: None,
        protocols: None,
        groups: Vec::new(),
        wanted: config.bus.group_protocol,
    };
    if facts.seeds.iter().all(|(_, wrong)| wrong.is_some()) {
        return facts;
    }
    let cluster = match within(look::look(options, LOOK_MAX)).await {
        Ok(cluster) => cluster,
        Err(wrong) => {
            facts.cluster = Some(Err(wrong));
            return facts;
        }
    };
    for broker in &cluster.brokers {
        if let Err(wrong) = reach((broker.host.as_str(), broker.port)).await {
            facts.away.push((broker.id, wrong));
        }
    }
    if cluster.topics.is_none() && facts.away.is_empty() {
        let wrong = format!("no answer within {} s", LOOK_MAX.as_secs());
        facts.cluster = Some(Err(wrong));
        return facts;
    }
    // Every further question goes to a broker by the name that it gave itself.
    let near = cluster.brokers.iter().find(|broker| facts.away.iter().all(|(id, _)| *id != broker.id));
    if let Some(near) = near {
        facts.changes = Some(within(admin::difference(options, &wanted)).await);
        facts.protocols = Some(within(look::group_protocols(options, near.id)).await);
        for (topic, group) in GROUPS {
            facts.groups.push((group, within(look::coordinated(options, topic, group)).await.err()));
        }
    }
    facts.cluster = Some(Ok(cluster));
    facts
}

async fn registry_of(options: &registry::Options, plant: &Plant) -> Registry {
    let changes = within(registry::admin::difference(options, |topic| plant.kafka.topic(topic))).await;
    let named = options.subjects.iter().any(|subject| subject.named);
    Registry { place: options.url.clone(), changes, named }
}

async fn database(url: &str, which: Which) -> Database {
    let place = postgres::place(url, which).unwrap_or_default();
    let server = within(postgres::look(url, which)).await;
    let migrations = match &server {
        Ok(_) => Some(within(postgres::status(url, which)).await),
        Err(_) => None,
    };
    Database { which, place, server, migrations }
}

async fn portal_at(address: SocketAddr) -> Portal {
    let port = match std::net::TcpListener::bind(address) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            timeout(CONNECT_MAX, who_listens(address)).await.unwrap_or(Port::Stranger)
        }
        Err(error) => Port::Refused(error.to_string()),
    };
    Portal { address, port }
}

/// Whether it is a portal that has a port, and how it is.
async fn who_listens(address: SocketAddr) -> Port {
    let Ok(client) = sink::client() else { return Port::Stranger };
    let Ok(answer) = client.get(format!("http://{address}/readyz")).send().await else { return Port::Stranger };
    let ready = answer.status().is_success();
    let body: serde_json::Value = answer.json().await.unwrap_or_default();
    let Some(parts) = body["parts"].as_array() else { return Port::Stranger };
    let told = |part: &serde_json::Value| Some(format!("{}: {}", part["part"].as_str()?, part["wrong"].as_str()?));
    let wrong: Vec<String> = parts.iter().filter_map(told).collect();
    Port::Ours { wrong: (!ready).then(|| wrong.join(", ")) }
}

/// Whether somebody accepts connections there; why not.
async fn reach(address: impl ToSocketAddrs) -> Result<(), String> {
    match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT_MAX.as_secs())),
    }
}

async fn within<T, E: Error>(asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(ANSWER_MAX, asked).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
    }
}
