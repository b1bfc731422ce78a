//! Alerts: what detect told, every kind, each once.

use crate::{
    answer::{self, Answer, raw},
    app::App,
    params::{Id, Params},
    problem::Problem,
};
use axum::{extract::State, http::StatusCode};
use store::AlertQuery;

/// Words of a severity, for filters.
pub(crate) const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// Alerts, newest first by event time.
#[utoipa::path(
    get,
    path = "/api/alerts",
    tag = "alerts",
    params(
        ("machine_id" = Option<String>, Query, description = "Of this machine"),
        ("failure_type" = Option<String>, Query, description = "Of this kind of failure"),
        ("severity" = Option<String>, Query, description = "critical, warning, info"),
        ("from" = Option<String>, Query, description = "Event time, RFC 3339 or `-1h`, inclusive"),
        ("to" = Option<String>, Query, description = "Exclusive"),
        ("limit" = Option<u64>, Query, description = "Default 100, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "`alerts`, `next_cursor`", body = Object),
        (status = 400, description = "Bad query", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&["machine_id", "failure_type", "severity", "from", "to", "limit", "cursor"])?;
    let (from_us, to_us) = params.range()?;
    let query = AlertQuery {
        machine_id: params.text("machine_id"),
        failure_type: params.text("failure_type"),
        severity: params.word("severity", &SEVERITIES)?,
        from_us,
        to_us,
        limit: params.limit()?,
        cursor: params.text("cursor"),
    };
    let page = app.parts.store.alerts(query).await?;
    let alerts: Vec<_> = page.rows.iter().map(|alert| raw(alert.to_json())).collect();
    Ok(answer::page("alerts", &alerts, page.next_cursor.as_deref()))
}

/// One alert.
#[utoipa::path(
    get,
    path = "/api/alerts/{id}",
    tag = "alerts",
    params(("id" = String, Path, description = "alert_id")),
    responses(
        (status = 200, description = "The alert", body = Object),
        (status = 404, description = "No such alert", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(State(app): State<App>, Id(id): Id) -> Answer {
    let alert = app.parts.store.alert(id).await?;
    let alert = alert.ok_or_else(|| Problem::missing("no_such_alert", format!("there is no alert {id}")))?;
    Ok(answer::json(StatusCode::OK, alert.to_json()))
}
