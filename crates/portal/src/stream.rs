//! The event stream, over WebSocket and server-sent events: the same frames, the same seqs.

use crate::{
    answer::Answer,
    app::App,
    hub::{Follower, Frame},
    params::Params,
    problem::Problem,
};
use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use std::{convert::Infallible, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// A silent stream says so often that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A WebSocket that takes nothing for so long is closed; its client resumes by seq.
const STUCK: Duration = Duration::from_secs(30);

/// Follow events by server-sent events.
///
/// Each `data` is one frame `{"seq","type","data"}`; `id` is its seq, so a browser that reconnects resumes by itself.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "events",
    params(
        ("after" = Option<u64>, Query, description = "Send what follows this seq; without it from now"),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`; the larger one counts"),
    ),
    responses(
        (status = 200, description = "Frames", body = String, content_type = "text/event-stream"),
        (status = 400, description = "Bad query", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn events(State(app): State<App>, params: Params, headers: HeaderMap) -> Answer {
    params.only(&["after"])?;
    let seen = headers.get("last-event-id").map(|id| seq(id.to_str().unwrap_or_default())).transpose()?;
    // A browser that reconnects asks for the address that it was given and says what it has seen since.
    let after = params.number("after")?.max(seen);
    let (follower, room) = follow(&app, after).await?;
    let frames = stream::unfold((app, follower, room), |(app, mut follower, room)| async {
        let frame = next(&app, &mut follower).await?;
        let event = Event::default().id(frame.seq.to_string()).data(&*frame.json);
        Some((Ok::<_, Infallible>(event), (app, follower, room)))
    });
    Ok(Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// Follow events by WebSocket: each text message is one frame.
#[utoipa::path(
    get,
    path = "/ws",
    tag = "events",
    params(("after" = Option<u64>, Query, description = "Send what follows this seq; without it from now")),
    responses(
        (status = 101, description = "Frames follow"),
        (status = 400, description = "Bad query or no WebSocket", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ws(
    State(app): State<App>,
    params: Params,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    params.only(&["after"])?;
    let after = params.number("after")?;
    let upgrade = upgrade.map_err(|rejection| {
        Problem::new(
            rejection.into_response().status(),
            "no_websocket",
            "this path speaks WebSocket; /api/events tells the same over HTTP",
        )
    })?;
    let (follower, room) = follow(&app, after).await?;
    let open = app.upgraded.token();
    // Clients have nothing to say, and each frame is written out before the next: the buffers that each connection has may
    // be small.
    let upgrade = upgrade.max_message_size(64 * 1024).read_buffer_size(4 * 1024).write_buffer_size(16 * 1024);
    Ok(upgrade.on_upgrade(move |socket| async move {
        talk(&app, socket, follower).await;
        drop((room, open));
    }))
}

fn seq(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::bad("bad_query", format!("Last-Event-ID: `{text}` is no seq of ours")))
}

async fn follow(app: &App, after: Option<u64>) -> Result<(Follower, OwnedSemaphorePermit), Problem> {
    let room = app.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", "too many streams are open").after(10)
    })?;
    Ok((app.hub.follow(after).await?, room))
}

/// The next frame, until the portal closes.
async fn next(app: &App, follower: &mut Follower) -> Option<Frame> {
    tokio::select! {
        biased;
        () = app.stop.cancelled() => None,
        frame = follower.next() => frame,
    }
}

async fn talk(app: &App, mut socket: WebSocket, mut follower: Follower) {
    loop {
        let message = tokio::select! {
            frame = next(app, &mut follower) => match frame {
                Some(frame) => Message::text(&*frame.json),
                None => break,
            },
            said = socket.recv() => match said {
                // Pings are answered by the library; other words mean nothing here.
                Some(Ok(said)) if !matches!(said, Message::Close(_)) => continue,
                _ => return,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => Message::Ping(axum::body::Bytes::new()),
        };
        let sent = tokio::select! {
            sent = tokio::time::timeout(STUCK, socket.send(message)) => sent,
            // A client that does not read must not hold up the end; what was begun goes before the goodbye.
            () = app.stop.cancelled() => break,
        };
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
    let goodbye = CloseFrame { code: close_code::AWAY, reason: "the portal closes".into() };
    // Whoever does not take it sees the connection end.
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.send(Message::Close(Some(goodbye)))).await;
}
