//! The whole plant: engines and the product's services.

use crate::{
    certificates::Certificates,
    engines::{Setup, connect, jars::Jars},
    folder::{Draft, Folder, State},
    net::http_ok,
    process::Running,
    product::{Fleet, Product, Relay},
    services::{self, Engine},
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use std::{
    env,
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long the services may take to have their partitions.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the plant is made of.
pub struct Plan {
    /// Kafka's brokers.
    pub brokers: u16,
    /// The services.
    pub fleet: Fleet,
    /// Whether what dies is restarted.
    pub supervise: bool,
    /// Whether the services reach the engines over TLS.
    pub tls: bool,
    /// Where the portal tells alarms.
    pub webhook: Option<String>,
    /// The product.
    pub program: PathBuf,
    /// The connector that Debezium is given.
    pub connector: PathBuf,
    /// For tests of the rig.
    pub leave_out: Option<Part>,
}

/// A half of the plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Kafka, PostgreSQL, Redis, Connect.
    Engines,
    /// Our own services.
    Product,
}

/// What `up` and `status` print.
#[derive(Debug, Serialize)]
pub struct Document {
    kafka: Option<String>,
    postgres_main: Option<String>,
    postgres_ai: Option<String>,
    redis: Option<String>,
    portal: Option<String>,
    /// The others, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    more_portals: Vec<String>,
    connect: Option<String>,
    pids: Pids,
}

#[derive(Debug, Serialize)]
struct Pids {
    ingest: Vec<i32>,
    detect: Vec<i32>,
    relay: Vec<i32>,
    portal: Vec<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    simulate: Vec<i32>,
    kafka: Vec<i32>,
    postgres_main: Vec<i32>,
    postgres_ai: Vec<i32>,
    redis: Vec<i32>,
    connect: Vec<i32>,
}

/// Starts everything anew and waits until every service has its partitions. What was started is stopped again when that fails.
pub fn up(folder: &Folder, jars: &Jars, plan: &Plan) -> Result<State> {
    let state = folder.load()?;
    if state.supervisor.is_some_and(Running::alive) || state.processes.iter().any(|process| process.running.alive()) {
        bail!("the plant is up already; take it down first");
    }
    services::stop(folder)?;
    folder.clear_logs()?;
    start(folder, jars, plan).inspect_err(|_| {
        if let Err(error) = services::stop(folder) {
            eprintln!("rig: stop what was started: {error:#}");
        }
    })
}

fn start(folder: &Folder, jars: &Jars, plan: &Plan) -> Result<State> {
    let lock = folder.lock()?;
    let draft = Draft::load(folder)?;
    let certificates = plan.tls.then(|| Certificates::of(folder)).transpose()?;
    let setup = Setup { draft: &draft, jars, brokers: plan.brokers, durable: true, tls: certificates.as_ref() };
    let debezium = plan.fleet.relay == Relay::Debezium;
    if plan.leave_out != Some(Part::Engines) {
        let mut engines = vec![Engine::Postgres, Engine::Redis, Engine::Kafka];
        engines.extend(debezium.then_some(Engine::Connect));
        services::start_engines(setup, &engines)?;
    }
    let mut ops = Vec::new();
    if plan.leave_out != Some(Part::Product) {
        let product = Product::configure(&plan.program, setup, plan.fleet, plan.webhook.as_deref())?;
        product.prepare()?;
        if debezium && plan.leave_out.is_none() {
            connect::add(setup, &plan.connector).context("start the outbox connector")?;
        }
        ops = product.start(setup, plan.fleet)?;
    }
    if plan.supervise {
        let supervisor = start_supervisor(folder)?;
        draft.change(|state| state.supervisor = Some(supervisor))?;
    }
    drop(lock);
    wait_ready(folder, &ops, plan.supervise)?;
    folder.load()
}

fn wait_ready(folder: &Folder, ops: &[(String, u16)], supervised: bool) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for (name, port) in ops {
        while !http_ok(&format!("http://127.0.0.1:{port}"), "/readyz") {
            let state = folder.load()?;
            let process = state.processes.iter().find(|process| process.recipe.name == *name);
            let process = process.with_context(|| format!("{name} was taken down"))?;
            if Instant::now() > until {
                bail!("{name} is not ready after {} s: {}", PATIENCE.as_secs(), process.recipe.last_words());
            }
            if !supervised && !process.running.alive() {
                bail!("{name} died: {}", process.recipe.last_words());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Starts this program as the one that restarts what dies. It leads no group, so that it can leave this session.
fn start_supervisor(folder: &Folder) -> Result<Running> {
    let log = File::options().create(true).append(true).open(folder.log("supervisor"))?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["plant", "supervise", "--folder"]).arg(folder.at("")).current_dir("/");
    let child =
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("start the supervisor")?;
    Running::of(child.id().cast_signed()).context("the supervisor was gone at once")
}

/// The document of a state, with the pids of those alive.
pub fn document(state: &State) -> Document {
    let address = |name: &str| state.addresses.get(name).cloned();
    Document {
        kafka: address("kafka"),
        postgres_main: address("postgres_main"),
        postgres_ai: address("postgres_ai"),
        redis: address("redis"),
        portal: address("portal"),
        more_portals: state
            .addresses
            .iter()
            .filter(|(name, _)| name.starts_with("portal-"))
            .map(|(_, at)| at.clone())
            .collect(),
        connect: address("connect"),
        pids: Pids {
            ingest: state.pids("ingest"),
            detect: state.pids("detect"),
            relay: state.pids("relay"),
            portal: state.pids("portal"),
            simulate: state.pids("simulate"),
            kafka: state.pids("kafka"),
            postgres_main: state.pids("postgres_main"),
            postgres_ai: state.pids("postgres_ai"),
            redis: state.pids("redis"),
            connect: state.pids("connect"),
        },
    }
}
