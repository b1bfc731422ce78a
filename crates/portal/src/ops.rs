//! Whether the process lives, is ready, and how it does.

use crate::{
    answer::{self, object},
    app::App,
    problem::Problem,
};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "It does", body = Object)))]
pub(crate) async fn livez() -> Response {
    answer::value(&json!({ "status": "alive" }))
}

/// Whether readings are taken, judged and shown: ingest, detect and portal run.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "Ready", body = Object),
        (status = 503, description = "Not ready; `parts` says which and why", body = Object),
    )
)]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let settings = &app.parts.settings;
    let health = app.parts.health.borrow().clone();
    let mut parts: Vec<(&str, Option<String>)> = health.iter().map(|(part, wrong)| (*part, wrong.clone())).collect();
    for part in &settings.needed {
        if *part != "portal" && !health.contains_key(part) {
            parts.push((part, Some("not started yet".to_owned())));
        }
    }
    ready_answer(&settings.needed, parts)
}

/// Whether the needed parts are well, and what is wrong with which.
pub(crate) fn ready_answer(needed: &[&str], parts: Vec<(&str, Option<String>)>) -> Response {
    let failed: Vec<&str> =
        parts.iter().filter(|(part, wrong)| needed.contains(part) && wrong.is_some()).map(|(part, _)| *part).collect();
    let parts: Vec<Value> =
        parts.iter().map(|(part, wrong)| json!({ "part": part, "ok": wrong.is_none(), "wrong": wrong })).collect();
    let (status, word) =
        if failed.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let body = object([("status", word.into()), ("failed", failed.into()), ("parts", parts.into())]);
    answer::json(status, Value::Object(body).to_string())
}

/// Figures in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "Figures", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
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
