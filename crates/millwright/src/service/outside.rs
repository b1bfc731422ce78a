//! What a service of a plant depends on, looked after for as long as the process lives, and what waits meanwhile.

use super::{
    Service::{self, Detect, Ingest, Portal, Relay, Simulate},
    parts::Plant,
};
use bus::{Bus, registry};
use dependency::{Dependencies, Dependency};
use std::{sync::Arc, time::Duration};
use store::postgres::{self, Waiting, Which};
use tokio::{
    sync::watch,
    time::{interval, sleep},
};

/// How often a registry that is away is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often it is counted what waits.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Everything outside of the process; kept while the service tries again.
#[derive(Clone)]
pub(super) struct Outside {
    pub(super) all: Dependencies,
    pub(super) kafka: Dependency,
    pub(super) registry: Dependency,
    pub(super) main: Dependency,
    pub(super) ai: Dependency,
    pub(super) redis: Dependency,
    /// Whether every position lies on its log.
    pub(super) positions: Dependency,
    /// The bus that was last connected to.
    pub(super) bus: watch::Sender<Option<Bus>>,
    /// How far the readings are taken, by partition.
    pub(super) passed: watch::Sender<Vec<i64>>,
}

impl Outside {
    pub(super) fn new(service: Service, plant: &Plant) -> Outside {
        let all = Dependencies::default();
        let everyone = [Ingest, Detect, Relay, Portal, Simulate];
        let enter = |name, needed: &[Service], spared: &[Service]| match service {
            service if needed.contains(&service) => all.needed(name),
            service if spared.contains(&service) => all.spared(name),
            _ => Dependency::default(),
        };
        let (readers, askers): (&[_], &[_]) = (
            if plant.redis.is_some() { &[Detect, Portal] } else { &[] },
            if plant.kafka.registry.is_some() { &everyone } else { &[] },
        );
        Outside {
            kafka: enter("kafka", &everyone, &[]),
            registry: enter("registry", askers, &[]),
            main: enter("postgres_main", &[Ingest, Portal], &[Detect]),
            ai: enter("postgres_ai", &[Detect, Relay], &[Ingest, Portal]),
            redis: enter("redis", &[], readers),
            positions: enter("positions", &[Ingest, Detect], &[Portal]),
            all,
            bus: watch::Sender::new(None),
            passed: watch::Sender::new(Vec::new()),
        }
    }

    /// Asks the databases, which nobody else asks all the time, and a registry that was away; counts what waits; for as long as
    /// it is polled. The bus and Redis are asked by who uses them.
    pub(super) async fn watch(self, service: Service, plant: Arc<Plant>) {
        let (all, name) = (&self.all, service.name());
        let main = async {
            if matches!(service, Ingest | Detect | Portal) {
                let waiting = (service == Portal).then_some(Waiting::Notifications);
                postgres::watch(&plant.main, Which::Main, name, waiting, all, &self.main).await;
            }
        };
        let ai = async {
            if service != Simulate {
                let waiting = (service == Relay).then_some(Waiting::OutboxLog);
                postgres::watch(&plant.ai, Which::Ai, name, waiting, all, &self.ai).await;
            }
        };
        let registry = async {
            let Some(options) = &plant.kafka.registry else { return };
            loop {
                sleep(ASK_EVERY).await;
                // Who had to wait for it may be gone, as its partition is.
                if self.registry.away().is_some() && registry::answers(options).await.is_ok() {
                    self.registry.answered();
                }
            }
        };
        tokio::join!(main, ai, registry, self.count(service));
    }

    /// Counts what waits on the bus, or for it.
    async fn count(&self, service: Service) {
        let mut every = interval(COUNT_EVERY);
        loop {
            every.tick().await;
            let Some(bus) = self.bus.borrow().clone() else { continue };
            if matches!(service, Ingest | Detect) {
                let passed = self.passed.borrow().clone();
                let waits = |(end, next): (i64, &i64)| if *next > 0 { (end - next).max(0) } else { 0 };
                self.all.buffer("records", Some(bus.ends().into_iter().zip(&passed).map(waits).sum()));
            } else {
                self.all.buffer("unsent_bytes", i64::try_from(bus.used().0).ok());
            }
        }
    }
}
