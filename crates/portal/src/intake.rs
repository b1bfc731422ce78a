//! The door for readings: a body in, 202 once its readings and its dead letters are durable.
//!
//! A body costs memory in proportion to its size, so bodies in hand share a budget; who finds it spent waits, and is told
//! to come again when that takes too long. Nothing of a body that is not answered 202 is counted, except where the answer
//! itself was lost.

mod apart;
mod body;
mod decoders;

use crate::{app::App, params::now_us, problem::Problem};
use axum::{
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
pub(crate) use body::Budget;
use body::Coding;
pub(crate) use decoders::Decoders;
use serde::Serialize;
use std::sync::Arc;
use tracing::error;
use wire::{Framing, Reject};

/// The source of what comes over HTTP.
pub const HTTP: &str = "http";
/// Refusals that an answer lists; the rest are in the dead letters like these.
const ERRORS_MAX: usize = 10_000;
/// A body up to this size is decoded where it arrived: handing it to another thread would cost more.
const INLINE_MAX: usize = 32 * 1024;

/// What became of a body.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Taken {
    /// Readings that are durable on the bus; repeats among them are found later and the ledger tells.
    accepted: u64,
    /// Messages that are durable as dead letters.
    rejected: u64,
    /// Why each was refused, the first 10,000.
    errors: Vec<Refused>,
}

/// Why one message was refused.
#[derive(Serialize, utoipa::ToSchema)]
struct Refused {
    /// Its place in the body, from 0.
    index: u32,
    /// Stable.
    error_code: &'static str,
    /// What is wrong, what is allowed.
    error: String,
}

impl Taken {
    /// At least one reading was accepted.
    pub(crate) fn any(&self) -> bool {
        self.accepted > 0
    }

    pub(crate) fn answer(&self) -> Response {
        crate::answer::json(StatusCode::ACCEPTED, serde_json::to_string(self).expect("texts and numbers are JSON"))
    }
}

/// Take readings: one object, an array of objects, or JSON lines; gzip and zstd are understood.
///
/// Answered once everything is durable. Each message is judged alone: a bad one becomes a dead letter and is named in
/// `errors`, the others are accepted. A body that was not answered 202 may be sent again: what was stored is found to be a
/// repeat.
#[utoipa::path(
    post,
    path = "/api/readings",
    tag = "readings",
    request_body(
        content = String,
        content_type = "application/x-ndjson",
        description = "JSON lines; with `application/json` one object or an array; with another type the first byte decides. At most 16 MiB, 64 MiB unpacked."
    ),
    responses(
        (status = 202, description = "Durable", body = Taken),
        (status = 400, description = "Neither array nor lines; nothing was counted", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too large", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too much at once; nothing was counted", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The bus is full, away or closing; nothing was counted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn readings(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    Ok(take(&app, HTTP, HTTP, request).await?.answer())
}

/// Takes a body on behalf of a source; its times are those of the source `clock`.
pub(crate) async fn take(app: &App, source: &'static str, clock: &str, request: Request) -> Result<Taken, Problem> {
    let framing = framing(request.headers());
    let coding = Coding::of(request.headers())?;
    // Held until the answer: what was decoded of the body takes memory too.
    let read = body::read(request, coding, &app.budget);
    let (body, _room) = tokio::select! {
        biased;
        () = app.parts.closing.cancelled() => return Err(unavailable("closing", "the service is closing")),
        read = read => read?,
    };
    let arrived_us = now_us();
    let read = if coding == Coding::Plain && body.len() <= INLINE_MAX {
        decode(app, source, clock, framing, coding, &body, arrived_us)
    } else {
        let (app, clock) = (app.clone(), clock.to_owned());
        let job = move || decode(&app, source, &clock, framing, coding, &body, arrived_us);
        tokio::task::spawn_blocking(job).await.unwrap_or_else(|error| Err(Problem::internal("decode the body", &error)))
    }?;

    let Read { records, accepted, rejects } = read;
    if !records.is_empty() {
        app.parts.bus.send(records).await.map_err(not_sent)?;
    }
    if !rejects.is_empty()
        && let Err(error) = app.parts.history.refuse(source, arrived_us, &rejects).await
    {
        // The readings are on the bus; sent again they are repeats, and the refusals are refused again.
        error!(error = crate::problem::chain(&error), "could not write {} dead letters", rejects.len());
        return Err(unavailable("no_dead_letters", "the dead letters could not be written: send the body again"));
    }
    metrics::counter!("millwright_intake_readings_total", "source" => source, "verdict" => "accepted")
        .increment(accepted);
    metrics::counter!("millwright_intake_readings_total", "source" => source, "verdict" => "rejected")
        .increment(rejects.len() as u64);
    Ok(taken(accepted, rejects))
}

/// What was read of a body.
struct Read {
    records: Vec<bus::Outgoing>,
    accepted: u64,
    rejects: Vec<Reject>,
}

fn taken(accepted: u64, rejects: Vec<Reject>) -> Taken {
    let rejected = rejects.len() as u64;
    let errors = rejects.into_iter().take(ERRORS_MAX);
    let errors = errors
        .map(|reject| Refused { index: reject.index, error_code: reject.code.as_str(), error: reject.error })
        .collect();
    Taken { accepted, rejected, errors }
}

/// Unpacks, decodes and encodes; plain computation.
fn decode(
    app: &App,
    source: &'static str,
    clock: &str,
    framing: Framing,
    coding: Coding,
    body: &Bytes,
    arrived_us: i64,
) -> Result<Read, Problem> {
    let unpacked;
    let value: &[u8] = match coding {
        Coding::Plain => body,
        coding => {
            unpacked = body::unpack(coding, body)?;
            &unpacked
        }
    };
    if value.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::bad("empty", "the body is empty"));
    }
    let bound = |machine: &str| {
        let seen = app.parts.history.class_of(machine);
        seen.or_else(|| app.parts.live.get(machine).map(|live| live.class.id.clone()))
    };
    let offset_us = app.parts.settings.clock_offsets.get(clock).copied().unwrap_or(0);
    let decode = |value: &[u8], framing| {
        let mut decoder = app.decoders.take(&app.parts.catalogue.borrow());
        decoder.decoder.set_source(clock, offset_us);
        let decoded = decoder.decoder.decode(value, framing, arrived_us, &bound);
        app.decoders.put(decoder);
        decoded
    };
    let decoded =
        apart::decode(value, framing, decode).map_err(|error| Problem::bad("not_readings", error.to_string()))?;
    if decoded.unknown_keys > 0 {
        metrics::counter!("millwright_intake_unknown_keys_total", "source" => source).increment(decoded.unknown_keys);
    }
    if decoded.rounded > 0 {
        metrics::counter!("millwright_intake_rounded_total", "source" => source).increment(decoded.rounded);
    }

    let source: Arc<str> = source.into();
    let mut accepted = 0;
    let encoded = decoded.batches.into_iter().filter(|(_, batch)| batch.rows() > 0 || !batch.markers.is_empty());
    let values = app.parts.bus.values();
    let mut records = Vec::new();
    for (partition, batch) in encoded {
        accepted += batch.rows() as u64;
        records.extend(batch.to_values(values).into_iter().map(|(machine, rows, value)| {
            let key = machine.map(|machine| Arc::from(&*machine));
            bus::Outgoing { partition, arrived_us, source: source.clone(), rows, key, value }
        }));
    }
    Ok(Read { records, accepted, rejects: decoded.rejects })
}

/// `application/json` is one object or an array, `application/x-ndjson` lines, else the first byte decides.
fn framing(headers: &HeaderMap) -> Framing {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Framing::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Framing::Lines
        }
        _ => Framing::Auto,
    }
}

/// Why the bus took nothing.
fn not_sent(error: bus::Error) -> Problem {
    match error {
        bus::Error::Full { .. } => unavailable("bus_full", error.to_string()).after(5),
        bus::Error::Busy => Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", error.to_string()).after(1),
        bus::Error::Closed => unavailable("closing", error.to_string()),
        bus::Error::Away(away) => unavailable("bus_unavailable", away.to_string()).after(2),
        error => {
            error!(error = crate::problem::chain(&error), "could not write to the bus");
            unavailable("bus_unavailable", "the bus cannot be written; the log says why").after(5)
        }
    }
}

fn unavailable(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).after(2)
}
