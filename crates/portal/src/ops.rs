//! Whether the process lives, is ready, and how it does.

use crate::{
    answer::{self, object},
    app::App,
    problem::Problem,
};
use axum::{
    extract,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dependency::{Dependencies, State};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "It does", body = Object)))]
pub(crate) async fn livez() -> Response {
    answer::value(&json!({ "status": "alive" }))
}

/// Whether readings are taken, judged and shown: ingest, detect and portal run, and what they need answers.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "Ready", body = Object),
        (status = 503, description = "Not ready; `parts` and `dependencies` say which, since when and why", body = Object),
    )
)]
pub(crate) async fn readyz(extract::State(app): extract::State<App>) -> Response {
    let settings = &app.parts.settings;
    let health = app.parts.health.borrow().clone();
    let mut parts: Vec<(&str, Option<String>)> = health.iter().map(|(part, wrong)| (*part, wrong.clone())).collect();
    for part in &settings.needed {
        if *part != "portal" && !health.contains_key(part) {
            parts.push((part, Some("not started yet".to_owned())));
        }
    }
    ready_answer(&settings.needed, parts, &settings.dependencies)
}

/// Whether the needed parts and dependencies are well, what is wrong with which, and what waits meanwhile.
pub(crate) fn ready_answer(
    needed: &[&str],
    parts: Vec<(&str, Option<String>)>,
    dependencies: &Dependencies,
) -> Response {
    let states = dependencies.states();
    let mut failed: Vec<&str> =
        parts.iter().filter(|(part, wrong)| needed.contains(part) && wrong.is_some()).map(|(part, _)| *part).collect();
    failed.extend(states.iter().filter(|state| is_missed(state)).map(|state| state.name));
    let states: Vec<Value> = states.iter().map(dependency).collect();
    let parts: Vec<Value> =
        parts.iter().map(|(part, wrong)| json!({ "part": part, "ok": wrong.is_none(), "wrong": wrong })).collect();
    let (status, word) =
        if failed.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let body = object([
        ("status", word.into()),
        ("failed", failed.into()),
        ("parts", parts.into()),
        ("dependencies", states.into()),
        ("buffered", json!(dependencies.buffered())),
    ]);
    answer::json(status, Value::Object(body).to_string())
}

/// Whether something is away without which nothing works.
pub(crate) fn is_missed(state: &State) -> bool {
    state.needed && state.away.is_some()
}

fn dependency(State { name, needed, away }: &State) -> Value {
    let since = away.as_ref().map(|away| wire::format_time(away.since_us));
    let error = away.as_ref().map(|away| &away.error);
    json!({ "name": name, "ok": away.is_none(), "needed": needed, "since": since, "error": error })
}

/// Figures in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "Figures", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(extract::State(app): extract::State<App>) -> Response {
    figures(&app.parts.settings.metrics)
}

/// Figures in Prometheus' text format.
pub(crate) fn figures(metrics: &PrometheusHandle) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

/// Start a training.
///
/// The detectors of this release are the laws of the machine classes and a cold-start fit that needs no training.
#[utoipa::path(
    post,
    path = "/train-model",
    tag = "models",
    responses((status = 501, description = "Not in this release", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn train_model() -> Problem {
    Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        "no_training",
        "this release judges by the laws of the machine classes and trains no model; `millwright evaluate` measures a \
         detector on a file, and GET /api/machines/{machineId}/status shows the cold-start score",
    )
}
