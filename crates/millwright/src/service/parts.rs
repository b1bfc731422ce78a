//! What each service of a plant is put together from, anew at each start.

use super::{Service, outside::Outside};
use crate::{
    catalogue, class,
    config::{self, BusValues, Config, GroupProtocol, UnknownId, Written},
    failure::Failure,
};
use anyhow::{Context, Result};
use bus::{
    Bus, Topic, kafka,
    registry::{self, Format, Subject},
};
use catalog::Catalogue;
use metrics_exporter_prometheus::PrometheusHandle;
use notify::Notifier;
use services::{
    Health,
    apart::{ByDetect, ByIngest},
    detect, ingest, relay, replay, simulate, supervise,
};
use std::{collections::BTreeMap, net::TcpListener, sync::Arc, time::Duration};
use store::{
    History, LiveValues, Store, history,
    live::redis::{self, Redis, TlsFiles},
    postgres::{self, Pools, Sizes, Which},
    relay::Books,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::{Clocks, Values};

/// Connections of one process to one database.
const POOL: Sizes = Sizes { write: 4, read: 6 };

/// How often old rows of the outbox are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// The engines of a plant, as configured.
#[derive(Clone)]
pub struct Plant {
    /// How the brokers are reached.
    pub kafka: kafka::Options,
    /// Address of the main database.
    pub main: String,
    /// Address of the AI database.
    pub ai: String,
    /// How Redis is reached, where there is one.
    pub redis: Option<Redis>,
}

impl Plant {
    pub(super) fn new(config: &Config) -> Result<Plant> {
        let missing = |key: &str| {
            Failure::configuration("MW-0060", format!("{key} is empty: a plant needs it"))
                .hint("`millwright config init -` explains every key")
        };
        if config.bus.brokers.is_empty() {
            return Err(missing("bus.brokers").into());
        }
        let mut settings = BTreeMap::from([("bootstrap.servers".to_owned(), config.bus.brokers.clone())]);
        for setting in &config.bus.settings {
            let (name, value) = setting.split_once('=').ok_or_else(|| {
                Failure::configuration("MW-0060", format!("bus.settings: `{setting}` has no `=`"))
                    .hint("write e.g. \"security.protocol=SASL_SSL\"")
            })?;
            settings.insert(name.trim().to_owned(), config::secret(value.trim())?);
        }
        let kafka = kafka::Options {
            settings,
            protocol: match config.bus.group_protocol {
                GroupProtocol::Auto => kafka::Protocol::Auto,
                GroupProtocol::Consumer => kafka::Protocol::Consumer,
                GroupProtocol::Classic => kafka::Protocol::Classic,
            },
            values: match config.bus.values {
                BusValues::Reading => Values::Reading,
                BusValues::Lines => Values::Lines,
                BusValues::Binary => Values::Binary,
            },
            registry: registry(config)?,
            ..kafka::Options::default()
        };
        kafka.check().map_err(|error| Failure::configuration("MW-0060", format!("bus.settings: {error}")))?;
        let database = |key: &str, text: &str, which: Which| -> Result<String> {
            if text.is_empty() {
                return Err(missing(key).into());
            }
            let url = config::secret(text)?;
            Pools::new(&url, which, "check", POOL).map_err(|error| {
                Failure::configuration("MW-0060", format!("{key}: {:#}", anyhow::Error::from(error)))
            })?;
            Ok(url)
        };
        let redis = match config.redis.url.as_str() {
            "" => None,
            url => {
                let config::Redis { ca, cert, key, .. } = &config.redis;
                Some(Redis::new(&config::secret(url)?, TlsFiles { ca, cert, key }).map_err(|error| {
                    Failure::configuration("MW-0060", format!("redis: {:#}", anyhow::Error::from(error)))
                })?)
            }
        };
        Ok(Plant {
            kafka,
            main: database("postgres.main", &config.postgres.main, Which::Main)?,
            ai: database("postgres.ai", &config.postgres.ai, Which::Ai)?,
            redis,
        })
    }
}

/// The registry and what it is to hold, where there is one.
///
/// # Errors
/// A key is wrong, or a class.
pub fn registry(config: &Config) -> Result<Option<registry::Options>> {
    let config::Registry { url, credentials, ca, readings, alerts, unknown_id } = &config.registry;
    if url.is_empty() {
        return Ok(None);
    }
    let credentials = match config::secret(credentials)? {
        text if text.is_empty() => None,
        text => Some(text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned())).ok_or_else(
            || Failure::configuration("MW-0066", "registry.credentials has no `:`").hint("write USER:PASSWORD"),
        )?),
    };
    let names: Vec<String> = config.classes.iter().map(|class| class.display().to_string()).collect();
    let catalogue = class::catalogue(names.iter().map(String::as_str)).context("classes")?;
    let subject = |topic: Topic, written: Written, schema: serde_json::Value| {
        let (format, schema) = match written {
            Written::Plain | Written::Json => (Format::Json, schema),
            Written::Avro => (Format::Avro, wire::avro_schema(&schema)),
        };
        Subject { topic, format, schema: schema.to_string(), named: written != Written::Plain }
    };
    let ca = match ca.as_str() {
        "" => None,
        path => Some(
            std::fs::read(path)
                .map_err(|error| Failure::configuration("MW-0066", format!("registry.ca: read {path}: {error}")))?,
        ),
    };
    Ok(Some(registry::Options {
        url: url.clone(),
        ca,
        credentials,
        refuse_unknown: *unknown_id == UnknownId::Refuse,
        subjects: vec![
            subject(Topic::Readings, *readings, wire::reading_schema(&catalogue)),
            subject(Topic::Alerts, *alerts, wire::alert_schema()),
        ],
    }))
}

/// What a service needs; cheap to clone.
#[derive(Clone)]
pub(super) struct Needs {
    pub(super) service: Service,
    pub(super) plant: Arc<Plant>,
    /// Classes and match rules; no machine's own settings.
    pub(super) catalogue: Catalogue,
    pub(super) notifiers: Vec<(String, Notifier)>,
    pub(super) health: Health,
    pub(super) metrics: PrometheusHandle,
    /// Told when the service does its work.
    pub(super) ready: Arc<watch::Sender<bool>>,
    /// Since when it is kept from that, microseconds, and by what; kept while it tries again.
    pub(super) trouble: Arc<watch::Sender<Option<(i64, String)>>>,
    pub(super) config: Arc<Config>,
    /// What is outside of the process.
    pub(super) outside: Outside,
    /// The portal's.
    pub(super) listener: Option<Arc<TcpListener>>,
}

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("connect to the bus")]
    Bus(#[from] bus::Error),
    #[error("open the main database")]
    History(#[from] history::Error),
    #[error("connect to the databases")]
    Postgres(#[from] postgres::Error),
    #[error("complete the catalogue: {0:#}")]
    Catalogue(anyhow::Error),
    #[error("ingest")]
    Ingest(#[from] ingest::Error),
    #[error("detect")]
    Detect(#[from] detect::Error),
    #[error("relay")]
    Relay(#[from] relay::Error),
    #[error("portal")]
    Portal(#[from] portal::Error),
    #[error("simulate")]
    Simulate(#[from] simulate::Error),
    #[error("the listener")]
    Listener(#[source] std::io::Error),
}

/// Connects and does the service's work until `stop`, or until something it needs is away.
pub(super) async fn run(
    needs: Needs,
    simulated: Option<simulate::Control>,
    stop: CancellationToken,
) -> Result<(), Error> {
    needs.ready.send_replace(false);
    let was_ready = needs.ready.subscribe();
    // What runs beside the service ends with it.
    let beside = stop.child_token();
    let done = match needs.service {
        Service::Ingest => needs.ingest(&beside, stop).await,
        Service::Detect => needs.detect(&beside, stop).await,
        Service::Relay => needs.relay(stop).await,
        Service::Portal => needs.portal(&beside, stop).await,
        Service::Simulate => needs.simulate(simulated, stop).await,
    };
    beside.cancel();
    // It may have been told that it is not ready since, as a relay is that waits for its brokers.
    let worked = was_ready.has_changed().unwrap_or(false);
    needs.ready.send_replace(false);
    if let Err(error) = &done {
        let wrong = dependency::chain(error);
        needs.trouble.send_modify(|trouble| {
            let since_us =
                trouble.as_ref().filter(|_| !worked).map_or_else(services::now_us, |(since_us, _)| *since_us);
            *trouble = Some((since_us, wrong));
        });
    }
    done
}

impl Needs {
    async fn bus(&self) -> Result<Bus, Error> {
        let Outside { kafka, registry, .. } = &self.outside;
        let options = kafka::Options {
            brokers: kafka.clone(),
            schemas: registry.clone(),
            gapless: self.service == Service::Relay,
            // Nobody waits for a reading to be stored, and detect has the processor meanwhile.
            patient: self.service == Service::Ingest,
            ..self.plant.kafka.clone()
        };
        let bus = Bus::connect(options).await?;
        self.outside.bus.send_replace(Some(bus.clone()));
        Ok(bus)
    }

    /// The clocks of sources that write to the bus themselves: what came through a door of ours was set right there.
    fn clocks(&self) -> Arc<Clocks> {
        let doors = [portal::HTTP, portal::MENDED, simulate::SOURCE, replay::SOURCE];
        let foreign = self.config.sources.iter().filter(|source| !doors.contains(&&*source.name));
        Arc::new(foreign.map(|source| (source.name.clone(), source.clock_offset.0)).collect())
    }

    fn store(&self) -> Result<Store, Error> {
        let Outside { main, ai, .. } = &self.outside;
        let pools = |url: &str, which| Pools::new(url, which, self.service.name(), POOL);
        let (of_ai, of_main) = (pools(&self.plant.ai, Which::Ai)?, pools(&self.plant.main, Which::Main)?);
        Ok(Store::postgres(of_ai.looked_after(ai), of_main.looked_after(main)))
    }

    /// The catalogue in force, followed from here on.
    async fn catalogue(
        &self,
        store: &Store,
        beside: &CancellationToken,
    ) -> Result<watch::Sender<Arc<Catalogue>>, Error> {
        let complete = async {
            let base = catalogue::with_past_classes(store, self.catalogue.clone()).await?;
            let whole = catalogue::with_machines(store, base.clone()).await?;
            store.refresh_confirmed().await?;
            Ok((base, whole))
        };
        let (base, whole) = complete.await.map_err(Error::Catalogue)?;
        let (sender, _) = watch::channel(Arc::new(whole));
        tokio::spawn(catalogue::follow(store.clone(), base, sender.clone(), beside.clone()));
        Ok(sender)
    }

    async fn history(&self, catalogue: &watch::Sender<Arc<Catalogue>>) -> Result<History, Error> {
        let options = history::Options {
            partitions: wire::READINGS_PARTITIONS,
            flush_bytes: usize::try_from(self.config.history.flush_bytes.0).unwrap_or(usize::MAX),
            flush_after_us: self.config.history.flush_after.0,
            retention_us: self.config.history.retention.0,
            dead_letter_retention_us: self.config.history.dead_letter_retention.0,
        };
        let in_force = catalogue.borrow().clone();
        let (main, service) = (&self.outside.main, self.service.name());
        Ok(History::open_postgres(&self.plant.main, service, in_force, options, main).await?)
    }

    async fn ingest(&self, beside: &CancellationToken, stop: CancellationToken) -> Result<(), Error> {
        let bus = self.bus().await?;
        let catalogue = self.catalogue(&self.store()?, beside).await?;
        let history = self.history(&catalogue).await?;
        let parts = ingest::Parts {
            bus,
            history,
            catalogue: catalogue.subscribe(),
            tally: ingest::Tally::default(),
            passed: self.outside.passed.clone(),
            ready: self.ready.clone(),
            positions: self.outside.positions.clone(),
            clocks: self.clocks(),
            taken: ByDetect::default(),
        };
        Ok(ingest::run(parts, stop).await?)
    }

    async fn detect(&self, beside: &CancellationToken, stop: CancellationToken) -> Result<(), Error> {
        let bus = self.bus().await?;
        let store = self.store()?;
        let catalogue = self.catalogue(&store, beside).await?;
        tokio::spawn(prune_outbox(store.clone(), beside.clone()));
        let live = LiveValues::default();
        let mirror = self.plant.redis.clone().map(|redis| {
            let redis = redis.looked_after(&self.outside.redis);
            let (live, stop) = (live.clone(), beside.clone());
            let writer = uuid::Uuid::now_v7().to_string();
            let mirror = move || {
                let (live, redis, writer, stop) = (live.clone(), redis.clone(), writer.clone(), stop.clone());
                async move { redis::mirror(live, redis, &writer, stop).await }
            };
            tokio::spawn(supervise("redis", self.health.clone(), beside.clone(), mirror))
        });
        let parts = detect::Parts {
            bus,
            store,
            live,
            catalogue: catalogue.subscribe(),
            passed: self.outside.passed.clone(),
            ready: self.ready.clone(),
            positions: self.outside.positions.clone(),
            clocks: self.clocks(),
            taken: ByIngest::default(),
        };
        let done = detect::run(parts, stop).await;
        beside.cancel();
        if let Some(mirror) = mirror {
            // What it gathered last is written; it ends with a failure it told.
            let _ = mirror.await;
        }
        Ok(done?)
    }

    async fn relay(&self, stop: CancellationToken) -> Result<(), Error> {
        let parts = relay::Parts {
            bus: self.bus().await?,
            url: self.plant.ai.clone(),
            slot: self.config.relay.slot.clone(),
            books: Books::new(&self.plant.ai, &self.outside.ai)?,
            ready: self.ready.clone(),
        };
        Ok(relay::run(parts, stop).await?)
    }

    async fn portal(&self, beside: &CancellationToken, stop: CancellationToken) -> Result<(), Error> {
        let bus = self.bus().await?;
        let store = self.store()?;
        let catalogue = self.catalogue(&store, beside).await?;
        let history = self.history(&catalogue).await?;
        let live = LiveValues::default();
        if let Some(redis) = self.plant.redis.clone() {
            let redis = redis.looked_after(&self.outside.redis);
            let (live, in_force, stop) = (live.clone(), catalogue.subscribe(), beside.clone());
            let follow = move || redis::follow(live.clone(), redis.clone(), in_force.clone(), stop.clone());
            tokio::spawn(supervise("redis", self.health.clone(), beside.clone(), follow));
        }
        let sources = &self.config.sources;
        let parts = portal::Parts {
            bus,
            history,
            store,
            live,
            catalogue,
            simulate: self.config.simulate.at().map(portal::Simulated::At),
            health: self.health.subscribe(),
            settings: Arc::new(portal::Settings {
                notifiers: self.notifiers.clone(),
                clock_offsets: sources.iter().map(|source| (source.name.clone(), source.clock_offset.0)).collect(),
                quiet: portal::QuietArrivals::default(),
                needed: vec!["portal"],
                dependencies: self.outside.all.clone(),
                metrics: self.metrics.clone(),
            }),
            closing: stop.clone(),
            ready: self.ready.clone(),
        };
        let listener = self.listener.as_ref().expect("the portal is given one").try_clone();
        let listener = listener.and_then(tokio::net::TcpListener::from_std).map_err(Error::Listener)?;
        Ok(portal::serve(parts, listener, stop).await?)
    }

    /// The simulated plant, where this service is one.
    pub(super) fn simulated(&self) -> Result<Option<simulate::Control>> {
        if self.service != Service::Simulate {
            return Ok(None);
        }
        let config::Simulate { machines, rate_hz, seed, .. } = self.config.simulate;
        let control = simulate::Control::new(plant::Config {
            class: self.catalogue.default_class().clone(),
            machines,
            rate_hz,
            seed,
            start_us: services::now_us(),
            mode: plant::Mode::Healthy,
            partitions: wire::READINGS_PARTITIONS,
        });
        let control = control.map_err(|error| Failure::configuration("MW-0062", format!("simulate: {error}")))?;
        Ok(Some(control))
    }

    async fn simulate(&self, simulated: Option<simulate::Control>, stop: CancellationToken) -> Result<(), Error> {
        let bus = self.bus().await?;
        let control = simulated.expect("the service is given one");
        self.ready.send_replace(true);
        Ok(simulate::run(control, bus, self.config.simulate.demo, stop).await?)
    }
}

/// Takes from the outbox what was announced a day ago: a relay reads the log or the history, whatever it missed.
async fn prune_outbox(store: Store, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = store.prune_outbox(i64::MAX).await {
            tracing::warn!(?error, "could not take old rows from the outbox");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
    }
}

/// Lets HTTP change the profile of a simulated machine.
pub(super) fn control(plant: &simulate::Control) -> portal::SimulateControl {
    let plant = plant.clone();
    Arc::new(move |machine, profile, from_us, until_us| plant.set_profile(machine, profile, from_us, until_us))
}
