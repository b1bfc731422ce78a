//! Whether the process lives, is ready, and how it does.

use crate::{answer, app::App, problem::Problem};
use axum::{
    extract,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dependency::{Dependencies, State};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

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
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready; `parts` and `dependencies` say which, since when and why", body = Readiness),
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
    let (status, word) =
        if failed.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let body = Readiness {
        status: word,
        failed,
        parts: parts.iter().map(|(part, wrong)| Part { part, ok: wrong.is_none(), wrong: wrong.as_deref() }).collect(),
        dependencies: states.iter().map(Needed::from).collect(),
        buffered: dependencies.buffered(),
    };
    answer::json(status, serde_json::to_string(&body).expect("its keys are strings"))
}

/// Whether the process does its work.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Readiness<'a> {
    /// `ready` or `not ready`.
    status: &'static str,
    /// Needed parts and dependencies that are not well.
    failed: Vec<&'a str>,
    parts: Vec<Part<'a>>,
    /// What is outside of the process.
    dependencies: Vec<Needed<'a>>,
    /// What waits meanwhile, by name; null: that cannot be told.
    buffered: BTreeMap<&'static str, Option<i64>>,
}

/// A loop of the process.
#[derive(Serialize, utoipa::ToSchema)]
struct Part<'a> {
    part: &'a str,
    ok: bool,
    wrong: Option<&'a str>,
}

/// What the process depends on.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ReadinessDependency)]
struct Needed<'a> {
    name: &'static str,
    ok: bool,
    /// Nothing works without it.
    needed: bool,
    /// When it first failed, RFC 3339.
    since: Option<String>,
    /// How it failed last.
    error: Option<&'a str>,
}

impl<'a> From<&'a State> for Needed<'a> {
    fn from(State { name, needed, away }: &'a State) -> Needed<'a> {
        let since = away.as_ref().map(|away| wire::format_time(away.since_us));
        let error = away.as_ref().map(|away| &*away.error);
        Needed { name, ok: away.is_none(), needed: *needed, since, error }
    }
}

/// Whether something is away without which nothing works.
pub(crate) fn is_missed(state: &State) -> bool {
    state.needed && state.away.is_some()
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
