//! One service of a plant in a process of its own: `millwright ingest | detect | relay | portal`, and `simulate` to the
//! plant's bus.
//!
//! A service is started again whenever what it needs is away, from the position that its database has; meanwhile `/readyz`
//! on its `--ops-port` says what is wrong.

mod outside;
mod parts;

pub use parts::{Plant, registry};

use crate::{
    cli::{Output, ServiceArgs},
    config::{self, BusKind, Config, RelayKind},
    failure::Failure,
    settings::{self, Checked},
    stop::{self, Tasks},
};
use anyhow::{Context, Result};
use outside::Outside;
use parts::Needs;
use services::Health;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// A service of a plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Readings into the main database.
    Ingest,
    /// Readings into alerts.
    Detect,
    /// Alerts onto the topic.
    Relay,
    /// HTTP, alarms, notifications.
    Portal,
    /// A simulated plant onto the bus.
    Simulate,
}

impl Service {
    /// As the command is called.
    pub fn name(self) -> &'static str {
        match self {
            Service::Ingest => "ingest",
            Service::Detect => "detect",
            Service::Relay => "relay",
            Service::Portal => "portal",
            Service::Simulate => "simulate",
        }
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is wrong, a port taken, or the service did not end in time.
pub fn run(service: Service, args: &ServiceArgs, output: Output) -> Result<()> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let mut flags: Vec<(&str, toml::Value)> = Vec::new();
    if let Some(listen) = args.listen {
        flags.push(("portal.host", listen.ip().to_string().into()));
        flags.push(("portal.port", i64::from(listen.port()).into()));
    }
    let (config, origins) = config::load(args.file.config.as_deref(), &environment, &flags)?;
    let checked = Checked::new(&config, &origins)?;
    settings::log(&config, &checked)?;
    let plant = plant(&config)?;
    if service == Service::Relay && config.relay.kind == RelayKind::Debezium {
        return Err(Failure::configuration("MW-0061", "relay.kind is debezium: the topic is left to it")
            .hint("run Kafka Connect with deploy/debezium, or set relay.kind = \"millwright\"")
            .into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("millwright")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let done = runtime.block_on(serve(service, args, output, config, plant, checked));
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// What the configuration says of the engines of a plant.
///
/// # Errors
/// A key is missing or wrong.
pub fn plant(config: &Config) -> Result<Plant> {
    if config.bus.kind != BusKind::Kafka {
        return Err(Failure::configuration("MW-0060", "bus.kind is embedded: nothing but `millwright up` runs on it")
            .hint("set bus.kind = \"kafka\" with bus.brokers, postgres.main, postgres.ai and redis.url; `millwright config init` explains them")
            .into());
    }
    Plant::new(config)
}

async fn serve(
    service: Service,
    args: &ServiceArgs,
    output: Output,
    config: Config,
    plant: Plant,
    checked: Checked,
) -> Result<()> {
    let stopping = stop::signals()?;
    let metrics = settings::metrics()?;
    let health = Health::default();
    let ops = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, args.ops_port)), "--ops-port")?;
    let address = ops.local_addr().context("read the address of the listener")?;
    let mut tasks = Tasks::new(&config);
    let work = tasks.phase();
    let last = tasks.phase();
    let (ready, is_ready) = watch::channel(false);
    let (trouble, in_trouble) = watch::channel(None);
    let outside = Outside::new(service, &plant);
    let plant = Arc::new(plant);
    let needs = Needs {
        service,
        plant: plant.clone(),
        outside: outside.clone(),
        catalogue: checked.catalogue,
        notifiers: checked.notifiers,
        health: health.clone(),
        metrics: metrics.clone(),
        ready: Arc::new(ready),
        trouble: Arc::new(trouble),
        config: Arc::new(config),
        listener: None,
    };
    let needs = match service {
        Service::Portal => {
            let portal = &needs.config.portal;
            let listener = listen(SocketAddr::new(portal.host, portal.port), "--listen")?;
            Needs { listener: Some(Arc::new(listener)), ..needs }
        }
        _ => needs,
    };
    let simulated = needs.simulated()?;
    let ops_parts = portal::Ops {
        service: service.name(),
        health: health.subscribe(),
        ready: is_ready,
        trouble: in_trouble,
        dependencies: outside.all.clone(),
        metrics: metrics.clone(),
        simulate: simulated.as_ref().map(parts::control),
    };
    tasks.spawn(last, "ops", &health, move |stop| portal::serve_ops(ops_parts.clone(), ops.try_clone(), stop));
    tasks.spawn(work, service.name(), &health, move |stop| parts::run(needs.clone(), simulated.clone(), stop));
    let text = match output {
        Output::Json => {
            format!("{}\n", serde_json::json!({ "service": service.name(), "ops": format!("http://{address}") }))
        }
        Output::Text => format!("millwright {} runs; http://{address}/readyz says how it is\n", service.name()),
    };
    let _ = crate::sink::print(&text);
    tokio::select! {
        () = stopping.cancelled() => {}
        // It has no end of its own.
        () = outside.watch(service, plant) => {}
    }
    let late = tasks.stop().await;
    stop::in_time(late)
}

fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| {
        Failure::dependency("MW-0042", format!("listen on {address}: {error}"))
            .hint(format!("another program has this port: give another with {flag}"))
    })?;
    listener.set_nonblocking(true).context("prepare the listener")?;
    Ok(listener)
}
