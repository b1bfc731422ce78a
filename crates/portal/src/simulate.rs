//! The simulated plant, as people play with it.

use crate::{
    SimulateControl,
    answer::{self, Answer, time},
    app::App,
    params::{Machine, Params, now_us},
    problem::Problem,
};
use axum::{extract::State, http::StatusCode};
use catalog::MachineId;
use serde_json::json;

/// Seconds where nobody says how long.
const DURATION_S: u64 = 60;
/// Longest, seconds: a day.
const DURATION_MAX_S: u64 = 86_400;

/// Put a simulated machine under a profile for a while.
#[utoipa::path(
    post,
    path = "/simulate/{machineId}",
    tag = "simulation",
    params(
        ("machineId" = String, Path, description = "Machine"),
        ("profile" = String, Query, description = "Of its class; `normal` ends the one before"),
        ("duration_sec" = Option<u64>, Query, description = "1 to 86400, default 60"),
    ),
    responses(
        (status = 200, description = "Machine, profile and its end", body = Object),
        (status = 404, description = "No such simulated machine", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "No plant is simulated", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No such profile", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn simulate(State(app): State<App>, Machine(machine): Machine, params: Params) -> Answer {
    params.only(&["profile", "duration_sec"])?;
    let Some(control) = &app.parts.simulate else {
        let detail = "no plant is simulated here: start `millwright up` without --no-simulate";
        return Err(Problem::new(StatusCode::CONFLICT, "no_plant", detail));
    };
    set_profile(control, &machine, &params)
}

/// Puts a machine under the profile that the query names.
pub(crate) fn set_profile(control: &SimulateControl, machine: &MachineId, params: &Params) -> Answer {
    let profile = params.get("profile").ok_or_else(|| Problem::wrong("bad_profile", "profile is missing"))?;
    let duration_s = params.number("duration_sec")?.unwrap_or(DURATION_S);
    if !(1..=DURATION_MAX_S).contains(&duration_s) {
        return Err(Problem::wrong("bad_duration", format!("duration_sec: 1 to {DURATION_MAX_S}")));
    }
    // The simulated plant runs by the wall clock.
    let from_us = now_us();
    let until_us = from_us + duration_s as i64 * 1_000_000;
    control(machine, profile, from_us, until_us).map_err(|error| match error {
        plant::Error::Machine(_) => Problem::missing("no_such_machine", error.to_string()),
        error => Problem::wrong("bad_profile", error.to_string()),
    })?;
    Ok(answer::value(&json!({
        "machine_id": machine.as_str(),
        "profile": profile,
        "duration_sec": duration_s,
        "from": time(Some(from_us)),
        "until": time(Some(until_us)),
        "end": time(Some(until_us)),
    })))
}
