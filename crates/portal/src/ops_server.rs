//! What each service of a plant answers on its own port: whether it lives, is ready, and how it does; and the simulated
//! plant's profiles, where it simulates one.

use crate::{
    Error, SimulateControl, answer, ops,
    params::{Machine, Params},
    problem::Problem,
    server, simulate,
};
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{collections::BTreeMap, net::TcpListener, sync::Arc};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the answers are made from.
#[derive(Clone)]
pub struct Ops {
    /// Its name.
    pub service: &'static str,
    /// What is wrong with each part of the process.
    pub health: watch::Receiver<BTreeMap<&'static str, Option<String>>>,
    /// It does its work: it has its partitions, or reads its log.
    pub ready: watch::Receiver<bool>,
    /// Since when it is kept from that, microseconds, and by what.
    pub trouble: watch::Receiver<Option<(i64, String)>>,
    /// Figures.
    pub metrics: PrometheusHandle,
    /// The plant it simulates.
    pub simulate: Option<SimulateControl>,
}

/// Answers until `stop`.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve_ops(ops: Ops, listener: std::io::Result<TcpListener>, stop: CancellationToken) -> Result<(), Error> {
    let listener = listener.and_then(tokio::net::TcpListener::from_std).map_err(Error::Http)?;
    let mut router =
        Router::new().route("/livez", get(ops::livez)).route("/readyz", get(readyz)).route("/metrics", get(metrics));
    if ops.simulate.is_some() {
        router = router.route("/simulate/{machineId}", post(profile));
    }
    let missing = async || Problem::missing("no_such_route", "this port answers /livez, /readyz and /metrics");
    let router = router.fallback(missing).with_state(Arc::new(ops));
    server::run(listener, router, stop, &TaskTracker::new()).await;
    Ok(())
}

async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    let health = ops.health.borrow().clone();
    let ready = *ops.ready.borrow();
    let waits = || "not started yet, or waits for its partitions".to_owned();
    let told = |(since_us, wrong): &(i64, String)| format!("since {}: {wrong}", wire::format_time(*since_us));
    let own = (!ready).then(|| ops.trouble.borrow().as_ref().map_or_else(waits, told));
    let mut parts: Vec<(&str, Option<String>)> = vec![(ops.service, own)];
    parts.extend(health.into_iter().filter(|(part, _)| *part != ops.service));
    ops::ready_answer(&[ops.service], parts)
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    ops::figures(&ops.metrics)
}

async fn profile(State(ops): State<Arc<Ops>>, Machine(machine): Machine, params: Params) -> answer::Answer {
    let control = ops.simulate.as_ref().expect("routed only where there is one");
    simulate::set_profile(control, &machine, &params)
}
