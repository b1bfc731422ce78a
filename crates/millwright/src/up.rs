//! `millwright up`: everything in one process, wired, told about, and stopped in good order.

mod follow;
mod open;
mod replay;

use crate::{
    cli::{Output, UpArgs},
    config::{self, Config},
    failure::Failure,
    settings::{self, Checked},
    stop::{self, Tasks},
};
use anyhow::{Context, Result};
use catalog::Class;
use open::Opened;
use services::{Health, apart, detect, ingest, simulate};
use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use store::LiveValues;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// Threads that run the loops and answer HTTP.
const WORKERS: usize = 2;
/// Threads for what blocks: reading files, judging and decoding large lots.
const BLOCKING: usize = 12;
/// How often the portal is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// After so long without readiness a person is told why.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is wrong, the folder in use, the port taken, or a part did not end in time.
pub fn run(args: &UpArgs, output: Output) -> Result<()> {
    let began = Instant::now();
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let (config, origins) = config::load(args.file.config.as_deref(), &environment, &flags(args))?;
    let checked = Checked::new(&config, &origins)?;
    settings::log(&config, &checked)?;
    let source = args.replay.as_deref().map(|file| replay::Source::open(file, args, &config, &checked.catalogue));
    let source = source.transpose()?;
    let folder = open::folder(&config)?;
    let bus = open::bus(&folder, &config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(Duration::from_secs(5))
        .thread_name("millwright")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let up = Up { began, output, config, folder, source };
    let done = runtime.block_on(up.run(checked, bus));
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Flags as dotted keys of the configuration.
fn flags(args: &UpArgs) -> Vec<(&'static str, toml::Value)> {
    let mut flags: Vec<(&'static str, toml::Value)> = Vec::new();
    if let Some(folder) = &args.data_dir {
        flags.push(("data_dir", folder.display().to_string().into()));
    }
    if let Some(port) = args.port {
        flags.push(("portal.port", i64::from(port).into()));
    }
    if let Some(machines) = args.machines {
        flags.push(("simulate.machines", i64::from(machines).into()));
    }
    if let Some(rate) = args.rate {
        flags.push(("simulate.rate_hz", rate.into()));
    }
    if let Some(seed) = args.seed {
        flags.push(("simulate.seed", i64::try_from(seed).unwrap_or(i64::MAX).into()));
    }
    if args.no_simulate || (args.replay.is_some() && args.machines.is_none()) {
        flags.push(("simulate.enabled", false.into()));
    }
    if !args.classes.is_empty() {
        flags.push(("classes", args.classes.clone().into()));
    }
    flags
}

struct Up {
    began: Instant,
    output: Output,
    config: Config,
    folder: PathBuf,
    source: Option<replay::Source>,
}

impl Up {
    async fn run(mut self, checked: Checked, bus: bus::Bus) -> Result<()> {
        let stopping = stop::signals()?;
        let Opened { store, history, catalogue } = open::stores(&self.folder, &self.config, checked.catalogue).await?;
        // What detect will need is known once it has read its snapshots; until then nothing may go.
        bus.hold("ingest", &history.positions().await.context("read the positions of the history")?);
        bus.hold("detect", &bus.begins());
        let (by_ingest, by_detect) =
            apart::taken(&history, &store).await.context("compare what ingest and detect have taken")?;
        let listener = self.listen()?;
        let address = listener.local_addr().context("read the address of the listener")?;
        let (catalogue, in_force) = watch::channel(catalogue);
        let live = LiveValues::default();
        let tally = ingest::Tally::default();
        let (passed, judged) = watch::channel(Vec::new());
        let class = catalogue.borrow().default_class().clone();
        let plant = self.plant(&class);
        let health = Health::default();
        let metrics = settings::metrics()?;

        let mut tasks = Tasks::new(&self.config);
        let doors = tasks.phase();
        let work = tasks.phase();
        let last = tasks.phase();
        let sources = &self.config.sources;
        let quiet = portal::QuietArrivals::default();
        let portal = portal::Parts {
            bus: bus.clone(),
            history: history.clone(),
            store: store.clone(),
            live: live.clone(),
            catalogue,
            simulate: plant.clone().map(|plant| {
                portal::Simulated::Here(Arc::new(move |machine, profile, from_us, until_us| {
                    plant.set_profile(machine, profile, from_us, until_us)
                }))
            }),
            health: health.subscribe(),
            settings: Arc::new(portal::Settings {
                notifiers: checked.notifiers,
                clock_offsets: sources.iter().map(|source| (source.name.clone(), source.clock_offset.0)).collect(),
                quiet: quiet.clone(),
                needed: vec!["ingest", "detect", "portal"],
                dependencies: Default::default(),
                metrics: metrics.clone(),
            }),
            closing: stopping.clone(),
            ready: Arc::default(),
        };
        let parts = ingest::Parts {
            bus: bus.clone(),
            history: history.clone(),
            catalogue: in_force.clone(),
            tally: tally.clone(),
            passed: Default::default(),
            taken: by_detect,
            ready: Arc::default(),
            positions: Default::default(),
            clocks: Default::default(),
        };
        tasks.spawn(work, "ingest", &health, move |stop| ingest::run(parts.clone(), stop));
        let parts = detect::Parts {
            bus: bus.clone(),
            store: store.clone(),
            live,
            catalogue: in_force,
            passed,
            taken: by_ingest,
            ready: Arc::default(),
            positions: Default::default(),
            clocks: Default::default(),
        };
        tasks.spawn(work, "detect", &health, move |stop| detect::run(parts.clone(), stop));
        tasks.spawn(last, "portal", &health, move |stop| serve(portal.clone(), listener.try_clone(), stop));
        if let Some(plant) = plant.clone() {
            let (bus, demo) = (bus.clone(), self.config.simulate.demo);
            tasks.spawn(doors, "simulate", &health, move |stop| simulate::run(plant.clone(), bus.clone(), demo, stop));
        }

        let ready = tokio::select! {
            () = stopping.cancelled() => false,
            () = ready(address, &health) => true,
        };
        if ready {
            self.tell_ready(address, plant.as_ref(), &class);
            let mut terminal = follow::Terminal::new(&store, &self.config, self.output);
            if let Some(source) = self.source.take() {
                // At full speed there would be too many to read; the table at the end tells what was found.
                let mut paced = (!source.is_at_full_speed()).then_some(terminal);
                let whole = replay::Whole { bus: &bus, history: &history, judged, tally: &tally, quiet };
                let replaying = source.run(whole, self.output, &stopping);
                let replayed = match &mut paced {
                    Some(terminal) => tokio::select! {
                        replayed = replaying => replayed,
                        () = terminal.tell_alarms() => Ok(None),
                    },
                    None => replaying.await,
                };
                if let Some(terminal) = &mut paced {
                    // The table sums up what stands above it.
                    terminal.tell_waiting().await;
                }
                match replayed {
                    Ok(table) => say(&table.unwrap_or_default()),
                    // What was replayed so far is there to be looked at.
                    Err(error) => {
                        crate::failure::tell(&error, false);
                        if self.output == Output::Json {
                            let error = format!("{error:#}");
                            say(&format!("{}\n", serde_json::json!({ "type": "replayed", "error": error })));
                        }
                    }
                }
                terminal = paced.unwrap_or_else(|| follow::Terminal::new(&store, &self.config, self.output));
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = terminal.tell_alarms() => {}
            }
        }
        let late = tasks.stop().await;
        stop::close(&history, &store, &bus, late).await
    }

    fn listen(&self) -> Result<TcpListener> {
        let address = SocketAddr::new(self.config.portal.host, self.config.portal.port);
        let listener = TcpListener::bind(address).map_err(|error| {
            Failure::dependency("MW-0042", format!("listen on http://{address}: {error}"))
                .hint("another program has this port: give another with --port N, or --port 0 for a free one")
        })?;
        listener.set_nonblocking(true).context("prepare the listener")?;
        Ok(listener)
    }

    /// The simulated plant, of the default class, where there is to be one.
    fn plant(&self, class: &Arc<Class>) -> Option<simulate::Control> {
        let config::Simulate { enabled, machines, rate_hz, seed, .. } = self.config.simulate;
        if !enabled {
            return None;
        }
        let plant = simulate::Control::new(plant::Config {
            class: class.clone(),
            machines,
            rate_hz,
            seed,
            start_us: services::now_us(),
            mode: plant::Mode::Healthy,
            partitions: wire::READINGS_PARTITIONS,
        });
        plant.map_err(|error| eprintln!("no plant is simulated: {error}")).ok()
    }

    fn tell_ready(&self, address: SocketAddr, plant: Option<&simulate::Control>, class: &Class) {
        let ms = self.began.elapsed().as_millis();
        let folder = self.folder.display();
        let config::Simulate { machines, rate_hz, demo, .. } = self.config.simulate;
        let text = match self.output {
            Output::Json => {
                let plant = plant.map(|_| serde_json::json!({ "machines": machines, "rate_hz": rate_hz }));
                let url = format!("http://{address}");
                format!(
                    "{}\n",
                    serde_json::json!({ "type": "ready", "url": url, "ready_ms": ms, "data_dir": folder.to_string(), "plant": plant })
                )
            }
            Output::Text => {
                let plant = match plant {
                    Some(_) => {
                        let first = if demo { "; the first fault comes in 20 s" } else { "" };
                        format!("{machines} simulated machines of class {} at {rate_hz} Hz{first}", class.id)
                    }
                    None => "none; send readings to POST /api/readings".to_owned(),
                };
                format!(
                    "Millwright is ready in {ms} ms: http://{address}\n  data   {folder}\n  plant  {plant}\n  stop   Ctrl-C; nothing is lost\n"
                )
            }
        };
        say(&text);
    }
}

/// Writes to stdout; that nobody reads it any more is no reason to stop.
fn say(text: &str) {
    let _ = crate::sink::print(text);
}

async fn serve(
    parts: portal::Parts,
    listener: std::io::Result<TcpListener>,
    stop: CancellationToken,
) -> Result<(), portal::Error> {
    let listener = listener.and_then(tokio::net::TcpListener::from_std).map_err(portal::Error::Http)?;
    portal::serve(parts, listener, stop).await
}

/// Waits until `GET /readyz` answers 200; tells why it does not when that takes long.
async fn ready(address: SocketAddr, health: &Health) {
    let mut tell_at = Instant::now() + TELL_AFTER;
    while !is_ready(address).await.unwrap_or(false) {
        if Instant::now() > tell_at {
            tell_at += TELL_AFTER;
            let wrong = health.borrow().iter().find_map(|(part, wrong)| Some(format!("{part}: {}", wrong.as_ref()?)));
            eprintln!("not ready yet: {}", wrong.as_deref().unwrap_or("the portal does not answer"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let head = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
