//! The simulated plant, as people play with it.

use crate::{
    SimulateControl, Simulated,
    answer::{self, Answer, time},
    app::App,
    params::{Machine, Params, now_us},
    problem::{Problem, chain},
};
use axum::{
    body::Body,
    extract::State,
    http::{Request, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use catalog::MachineId;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::{error::Error, time::Duration};
use tokio::net::TcpStream;

/// Seconds where nobody says how long.
const DURATION_S: u64 = 60;
/// Longest, seconds: a day.
const DURATION_MAX_S: u64 = 86_400;
/// The service that simulates answers within this time, or it is away.
const ANSWERED: Duration = Duration::from_secs(5);
/// Largest of its answers.
const ANSWER_MAX: usize = 64 * 1024;

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
        (status = 503, description = "The service that simulates is away", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No such profile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The service that simulates is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn simulate(State(app): State<App>, Machine(machine): Machine, uri: Uri, params: Params) -> Answer {
    params.only(&["profile", "duration_sec"])?;
    match &app.parts.simulate {
        Some(Simulated::Here(control)) => set_profile(control, &machine, &params),
        Some(Simulated::At(address)) => match tokio::time::timeout(ANSWERED, pass_on(address, &uri)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(away(address, &chain(&*error))),
            Err(_) => Err(away(address, "it does not answer")),
        },
        None => {
            let detail = "no plant is simulated here: start `millwright up` without --no-simulate, or name the service \
                          `simulate` of a plant in simulate.address";
            Err(Problem::new(StatusCode::CONFLICT, "no_plant", detail))
        }
    }
}

fn away(address: &str, why: &str) -> Problem {
    let detail = format!("the simulated plant at {address} is away: {why}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "plant_away", detail).after(2)
}

/// Asks the service that simulates the plant, and answers as it does.
async fn pass_on(address: &str, uri: &Uri) -> Result<Response, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or with whoever waits for it.
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path).header(header::HOST, address).body(Body::empty())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = axum::body::to_bytes(Body::new(body), ANSWER_MAX).await?;
    let kind = head.headers.get(header::CONTENT_TYPE).cloned();
    let mut answer = (head.status, body).into_response();
    answer.headers_mut().extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
    Ok(answer)
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
