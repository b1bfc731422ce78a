//! Keeps a loop running: what fails is told once, shown as the health of its part, and started again after a while.

use dependency::chain;
use std::{
    collections::BTreeMap,
    error::Error,
    future::Future,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Pause after the first failure; doubled with each that follows at once.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause: what was away is used again so soon after it is back.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A loop that ran for so long begins with the shortest pause again.
const FRESH_AFTER: Duration = Duration::from_secs(10);
/// A loop that has run for so long is well again.
const WELL_AFTER: Duration = Duration::from_secs(2);

/// What is wrong with each part of the process; `None` when it is well.
pub type Health = watch::Sender<BTreeMap<&'static str, Option<String>>>;

/// Runs a loop until `stop`, again and again from its last committed position. A panic is a failure like another.
pub async fn supervise<F, Fut, E>(name: &'static str, health: Health, stop: CancellationToken, mut start: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Error + Send + 'static,
{
    set(&health, name, None);
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let mut attempt = tokio::spawn(start());
        let ended = match tokio::time::timeout(WELL_AFTER, &mut attempt).await {
            Ok(ended) => ended,
            Err(_) => {
                set(&health, name, None);
                attempt.await
            }
        };
        let failure = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(error) => format!("panicked: {error}"),
        };
        if began.elapsed() > FRESH_AFTER {
            backoff = BACKOFF_MIN;
        }
        tracing::error!(part = name, "{name} failed and starts again in {} ms: {failure}", backoff.as_millis());
        metrics::counter!("millwright_restarts_total", "part" => name).increment(1);
        set(&health, name, Some(failure));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn set(health: &Health, name: &'static str, problem: Option<String>) {
    health.send_if_modified(|parts| parts.insert(name, problem.clone()) != Some(problem));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    #[derive(Debug, thiserror::Error)]
    #[error("read from the bus")]
    struct Failed(#[source] std::io::Error);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_fails_or_panics_is_started_again_and_its_health_told() {
        let health = Health::default();
        let mut seen = health.subscribe();
        let runs = Arc::new(AtomicU32::new(0));
        let stop = CancellationToken::new();
        let (counted, stopped) = (runs.clone(), stop.clone());
        let task = tokio::spawn(supervise("detect", health, stop.clone(), move || {
            let (run, stop) = (counted.fetch_add(1, Ordering::SeqCst), stopped.clone());
            async move {
                match run {
                    0 => Err(Failed(std::io::Error::other("disk gone"))),
                    1 => panic!("a bug"),
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            }
        }));
        seen.wait_for(|parts| parts.get("detect") == Some(&Some("read from the bus: disk gone".to_owned())))
            .await
            .unwrap();
        seen.wait_for(|parts| parts["detect"].as_ref().is_some_and(|problem| problem.starts_with("panicked")))
            .await
            .unwrap();
        seen.wait_for(|parts| parts["detect"].is_none()).await.unwrap();
        stop.cancel();
        task.await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait_for_the_next_start() {
        let stop = CancellationToken::new();
        let health = Health::default();
        let mut seen = health.subscribe();
        let task = tokio::spawn(supervise("ingest", health, stop.clone(), || async {
            Err(Failed(std::io::Error::other("always")))
        }));
        seen.wait_for(|parts| parts.get("ingest").is_some_and(Option::is_some)).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
