//! Dead letters: what was refused, why, and the way back in.

use crate::{
    answer::{self, Answer, time},
    app::App,
    intake,
    params::{Id, Params, now_us},
    problem::Problem,
};
use axum::{
    extract::{FromRequestParts, Request, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use store::history::{DeadLetter, LetterFilter};

/// The source of what was mended.
pub const MENDED: &str = "mended";

/// What was refused, newest first.
#[utoipa::path(
    get,
    path = "/api/dead-letters",
    tag = "readings",
    params(
        ("source" = Option<String>, Query, description = "Of this source"),
        ("error_code" = Option<String>, Query, description = "Refused for this"),
        ("from" = Option<String>, Query, description = "Arrival, RFC 3339 or `-1h`, inclusive"),
        ("to" = Option<String>, Query, description = "Exclusive"),
        ("limit" = Option<u64>, Query, description = "Default 100, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "`dead_letters`, `next_cursor`", body = Object),
        (status = 400, description = "Bad query", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&["source", "error_code", "from", "to", "limit", "cursor"])?;
    let (from_us, to_us) = params.range()?;
    let filter = LetterFilter {
        source: params.text("source"),
        code: params.text("error_code"),
        from_us: from_us.unwrap_or(i64::MIN),
        to_us: to_us.unwrap_or(i64::MAX),
    };
    let page = app.parts.history.dead_letters(&filter, params.limit()?, params.get("cursor")).await?;
    let letters: Vec<_> = page.rows.iter().map(letter_json).collect();
    Ok(answer::page("dead_letters", &letters, page.next_cursor.as_deref()))
}

/// One dead letter.
#[utoipa::path(
    get,
    path = "/api/dead-letters/{id}",
    tag = "readings",
    params(("id" = String, Path, description = "Dead letter")),
    responses(
        (status = 200, description = "The dead letter", body = Object),
        (status = 404, description = "No such dead letter", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(State(app): State<App>, Id(id): Id) -> Answer {
    Ok(answer::value(&letter_json(&find(&app, id).await?)))
}

/// Send the mended reading of a dead letter; source `mended`. Its times are read by the clock of the source that it came
/// from (`clock_offset`).
#[utoipa::path(
    post,
    path = "/api/dead-letters/{id}/replay",
    tag = "readings",
    params(("id" = String, Path, description = "Dead letter")),
    request_body(content = String, content_type = "application/json", description = "The mended reading"),
    responses(
        (status = 202, description = "As POST /api/readings", body = intake::Taken),
        (status = 404, description = "No such dead letter", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn replay(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let Id(id) = Id::from_request_parts(&mut head, &app).await?;
    let letter = find(&app, id).await?;
    // A mended reading still tells the time of the clock that it came from.
    let offsets = &app.parts.settings.clock_offsets;
    let own = offsets.contains_key(&letter.source) || !offsets.contains_key(MENDED);
    let clock = if own { &letter.source } else { MENDED };
    let taken = intake::take(&app, MENDED, clock, Request::from_parts(head, body)).await?;
    if taken.any() {
        app.parts.history.replayed(id, now_us()).await?;
    }
    Ok(taken.answer())
}

async fn find(app: &App, id: uuid::Uuid) -> Result<DeadLetter, Problem> {
    let letter = app.parts.history.dead_letter(id).await?;
    letter.ok_or_else(|| Problem::missing("no_such_dead_letter", format!("there is no dead letter {id}")))
}

fn letter_json(letter: &DeadLetter) -> Value {
    let mut value = answer::object([
        ("id", letter.id.to_string().into()),
        ("error_code", letter.code.as_str().into()),
        ("error", letter.error.as_str().into()),
        ("machine_id", letter.machine_id.as_deref().into()),
        ("source", letter.source.as_str().into()),
        ("topic", letter.topic.as_str().into()),
        ("partition", letter.partition.into()),
        ("offset", letter.offset.into()),
        ("index", letter.index.into()),
        ("arrived_at", time(Some(letter.arrived_us))),
        ("replayed_at", time(letter.replayed_us)),
    ]);
    // A text is shown as it was received; what is no text keeps its bytes.
    match std::str::from_utf8(&letter.payload) {
        Ok(text) => value.insert("payload".to_owned(), text.into()),
        Err(_) => value.insert("payload_base64".to_owned(), STANDARD.encode(&letter.payload).into()),
    };
    Value::Object(value)
}
