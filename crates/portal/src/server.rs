//! Connections: accepted one by one, bounded in number and time, ended in good order.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// Connections open at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 2_000;
/// The head of a request must have come within so long, also the next one of a kept connection.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// What is in hand at the end has so long.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// After a failure to accept (no file descriptor left), so that it does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers until `stop`, then what is in hand.
pub(crate) async fn run(listener: TcpListener, router: Router, stop: CancellationToken, upgraded: &TaskTracker) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let room = room.clone().acquire_owned().await.expect("it is never closed");
            (listener.accept().await, room)
        };
        let (accepted, room) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    answer(stream, router, stop).await;
                    drop(room);
                });
            }
            Err(error) => {
                warn!(%error, "could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    upgraded.close();
    let ended = async {
        connections.wait().await;
        upgraded.wait().await;
    };
    if tokio::time::timeout(LAST_ANSWERS, ended).await.is_err() {
        warn!("{} connections did not end in time", connections.len() + upgraded.len());
    }
}

/// Answers on one connection until it ends.
async fn answer(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Answers are short and wanted at once; without it they still arrive.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error = crate::problem::chain(&error), "a connection broke");
    }
}
