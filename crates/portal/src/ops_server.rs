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
use dependency::Dependencies;
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
    /// What is outside of the process, and what waits for it.
    pub dependencies: Dependencies,
    /// Figures.
    pub metrics: PrometheusHandle,
    /// The plant it simulates.
    pub simulate: Option<SimulateControl>,
}

impl Ops {
    /// Why the service does not do its work, where it does not.
    fn wrong(&self) -> Option<String> {
        // What failed before it came this far is over.
        if *self.ready.borrow() {
            return None;
        }
        let told = self.health.borrow().get(self.service).cloned().flatten();
        let lasting = |(since_us, wrong): &(i64, String)| format!("since {}: {wrong}", wire::format_time(*since_us));
        let lasting = self.trouble.borrow().as_ref().map(lasting);
        lasting.or(told).or_else(|| Some("not started yet, or waits for its partitions".to_owned()))
    }
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
    let mut parts: Vec<(&str, Option<String>)> = vec![(ops.service, ops.wrong())];
    let health = ops.health.borrow().clone();
    parts.extend(health.into_iter().filter(|(part, _)| *part != ops.service));
    ops::ready_answer(&[ops.service], parts, &ops.dependencies)
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    // An alert cannot hang on /readyz.
    let ready = ops.wrong().is_none() && !ops.dependencies.states().iter().any(ops::is_missed);
    metrics::gauge!("millwright_ready").set(if ready { 1.0 } else { 0.0 });
    ops::figures(&ops.metrics)
}

async fn profile(State(ops): State<Arc<Ops>>, Machine(machine): Machine, params: Params) -> answer::Answer {
    let control = ops.simulate.as_ref().expect("routed only where there is one");
    simulate::set_profile(control, &machine, &params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn the_figure_says_what_readyz_says() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (ready, is_ready) = watch::channel(false);
        let (health, told) = watch::channel(BTreeMap::new());
        let metrics_handle = recorder.handle();
        let (_, trouble) = watch::channel(Some((0, "the brokers are away".to_owned())));
        let dependencies = Dependencies::default();
        let (kafka, redis) = (dependencies.needed("kafka"), dependencies.spared("redis"));
        let ops = Ops {
            service: "detect",
            health: told,
            ready: is_ready,
            trouble,
            dependencies: dependencies.clone(),
            metrics: metrics_handle,
            simulate: None,
        };
        assert_eq!(ops.wrong().as_deref(), Some("since 1970-01-01T00:00:00Z: the brokers are away"));
        let ops = Arc::new(ops);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = || {
            ::metrics::with_local_recorder(&recorder, || {
                runtime.block_on(async {
                    let status = readyz(State(ops.clone())).await.status().as_u16();
                    let figures = metrics(State(ops.clone())).await.into_body();
                    let figures = axum::body::to_bytes(figures, usize::MAX).await.unwrap();
                    (status, String::from_utf8_lossy(&figures).contains("\nmillwright_ready 1\n"))
                })
            })
        };
        assert_eq!(ask(), (503, false), "it waits for its partitions");
        ready.send_replace(true);
        assert_eq!(ask(), (200, true));
        health.send_replace(BTreeMap::from([("detect", Some("the database is away".to_owned())), ("redis", None)]));
        assert_eq!(ask(), (200, true), "it has begun anew since");
        ready.send_replace(false);
        assert_eq!(ask(), (503, false));
        ready.send_replace(true);
        health.send_replace(BTreeMap::from([("detect", None), ("redis", Some("away".to_owned()))]));
        assert_eq!(ask(), (200, true), "a part that it can do without");
        let lost = std::io::Error::other("lost");
        let lose = |what: &dependency::Dependency| (0..dependency::AWAY_AFTER).for_each(|_| what.failed(&lost));
        lose(&redis);
        assert_eq!(ask(), (200, true), "a dependency that it can do without");
        lose(&kafka);
        assert_eq!(ask(), (503, false));
        dependencies.buffer("readings", Some(7));
        let body = runtime.block_on(async {
            let body = readyz(State(ops.clone())).await.into_body();
            axum::body::to_bytes(body, usize::MAX).await.unwrap()
        });
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&body["failed"], &body["buffered"]),
            (&"[\"kafka\"]".parse().unwrap(), &"{\"readings\":7}".parse().unwrap())
        );
        let away = &body["dependencies"][0];
        assert_eq!((&away["name"], &away["ok"], &away["error"]), (&"kafka".into(), &false.into(), &"lost".into()));
        assert!(wire::parse_time(away["since"].as_str().unwrap().as_bytes()).is_ok(), "{away}");
        assert_eq!(body["dependencies"][1]["needed"], false);
        kafka.answered();
        assert_eq!(ask(), (200, true));
    }
}
