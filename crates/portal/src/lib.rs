//! What people and programs see: HTTP API, event stream, alarm life cycle, notifications, the live page.
//!
//! Two loops and a router. Delivery reads the outbox, or in a plant the topic of alerts, by position, lets `alarm::Alarm`
//! decide what a person must do, and writes alarm, audit, event and notification rows with its position in one
//! transaction. Does not know the command line nor how readings are judged.

mod alarm_routes;
mod alarms;
mod alerts;
mod answer;
mod app;
mod dead_letters;
mod delivery;
mod guard;
mod hub;
mod intake;
mod ledger;
mod machines;
mod notifications;
mod ops;
mod ops_server;
mod pages;
mod params;
mod problem;
mod quiet;
mod readings;
mod router;
mod server;
mod simulate;
mod stream;

pub use dead_letters::MENDED;
pub use delivery::GROUP;
pub use intake::HTTP;
pub use ops_server::{Ops, serve_ops};

use alarms::Alarms;
use app::App;
use bus::Bus;
use catalog::Catalogue;
use hub::Hub;
pub use quiet::QuietArrivals;
use std::{collections::BTreeMap, sync::Arc};
use store::{History, LiveValues, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the portal is given.
#[derive(Clone)]
pub struct Parts {
    /// Where accepted readings go.
    pub bus: Bus,
    /// Readings, ledger, dead letters.
    pub history: History,
    /// Alerts, alarms, registry.
    pub store: Store,
    /// Newest values.
    pub live: LiveValues,
    /// The catalogue in force; a changed machine sends a new one, which ingest and detect take between two batches.
    pub catalogue: watch::Sender<Arc<Catalogue>>,
    /// Where the simulated plant is; `None`: no plant is simulated.
    pub simulate: Option<Simulated>,
    /// By part of the process (`ingest`, `detect`, `simulate`, ...): what is wrong with it, `None` when it is well.
    pub health: watch::Receiver<BTreeMap<&'static str, Option<String>>>,
    /// What the configuration says.
    pub settings: Arc<Settings>,
    /// Told once alerts are taken.
    pub ready: Arc<watch::Sender<bool>>,
    /// Cancelled when a stop begins: readings are taken no more, everything else is answered until the portal itself ends.
    pub closing: CancellationToken,
}

/// The simulated plant whose machines are put under profiles.
#[derive(Clone)]
pub enum Simulated {
    /// In this process.
    Here(SimulateControl),
    /// In a service of its own, which answers HTTP at this host and port.
    At(String),
}

/// (machine, profile, from, until; microseconds since 1970 of event time), see `plant::Plant::set_profile`.
pub type SimulateControl = Arc<dyn Fn(&str, &str, i64, i64) -> Result<(), plant::Error> + Send + Sync>;

/// What the configuration says.
pub struct Settings {
    /// Channels by name, in order.
    pub notifiers: Vec<(String, notify::Notifier)>,
    /// How far a source's clock is ahead of UTC, microseconds.
    pub clock_offsets: BTreeMap<String, i64>,
    /// What arrived of a replayed file: people are notified of everything else.
    pub quiet: QuietArrivals,
    /// Parts of the process without which it is not ready, besides the portal itself.
    pub needed: Vec<&'static str>,
    /// What is outside of the process, and what waits for it; embedded nothing is.
    pub dependencies: dependency::Dependencies,
    /// Answers `/metrics`.
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
}

/// Why the portal ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("read or write the store")]
    Store(#[from] store::Error),
    #[error("read the topic of alerts")]
    Bus(#[from] bus::Error),
    #[error("serve HTTP")]
    Http(#[source] std::io::Error),
}

/// Serves HTTP on `listener`, delivers alerts to alarms and notifications, until `stop`; then answers what is in hand.
///
/// # Errors
/// A loop failed; the front door starts it again.
pub async fn serve(parts: Parts, listener: tokio::net::TcpListener, stop: CancellationToken) -> Result<(), Error> {
    let port = listener.local_addr().map_err(Error::Http)?.port();
    // What fails takes the rest with it, and nothing else of the process.
    let stop = stop.child_token();
    let hub = Arc::new(Hub::new(parts.store.clone(), parts.live.clone(), stop.clone()));
    let alarms = Alarms::load(&parts, hub.clone()).await?;
    let app = App::new(parts, alarms, hub, port, stop.clone());
    let loops = async {
        let ended = delivery::run(&app.parts, &app.alarms, &app.hub, &stop).await;
        stop.cancel();
        ended
    };
    let http = server::run(listener, router::router(app.clone()), stop.clone(), &app.upgraded);
    let (ended, ()) = tokio::join!(loops, http);
    ended
}
