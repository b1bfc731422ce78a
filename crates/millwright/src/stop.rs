//! Parts that run and how they are stopped: phase by phase, and by name where one is late.

use crate::{config::Config, failure::Failure};
use anyhow::{Context, Result};
use services::{Health, supervise};
use std::{collections::BTreeSet, error::Error, future::Future, time::Duration};
use store::{History, Store};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Closing the files has so long beyond the grace.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Cancelled by the first SIGTERM or SIGINT; a second one ends the process at once.
pub(crate) fn signals() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stopping.is_cancelled() {
                eprintln!("stopped at once; the next start goes on from what is durable");
                std::process::exit(1);
            }
            stopping.cancel();
        }
    });
    Ok(stop)
}

/// Running parts by phase; phases are stopped in the order in which they were made.
pub(crate) struct Tasks {
    phases: Vec<Running>,
    grace: Duration,
}

#[derive(Default)]
struct Running {
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
    names: BTreeSet<&'static str>,
}

impl Tasks {
    pub(crate) fn new(config: &Config) -> Tasks {
        Tasks { phases: Vec::new(), grace: Duration::from_micros(config.shutdown_grace.0.unsigned_abs()) }
    }

    /// A further phase: its number.
    pub(crate) fn phase(&mut self) -> usize {
        self.phases.push(Running::default());
        self.phases.len() - 1
    }

    /// Runs a part under supervision.
    pub(crate) fn spawn<F, Fut, E>(&mut self, phase: usize, name: &'static str, health: &Health, mut start: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + 'static,
    {
        let Running { stop, tasks, names } = &mut self.phases[phase];
        names.insert(name);
        let (health, stop) = (health.clone(), stop.clone());
        tasks.spawn(async move {
            supervise(name, health, stop.clone(), move || start(stop.clone())).await;
            name
        });
    }

    /// Stops phase by phase; who has not ended when the grace is over.
    pub(crate) async fn stop(self) -> Vec<&'static str> {
        let until = Instant::now() + self.grace;
        let mut late = Vec::new();
        for Running { stop, mut tasks, mut names } in self.phases {
            stop.cancel();
            while let Ok(Some(ended)) = timeout_at(until, tasks.join_next()).await {
                if let Ok(name) = ended {
                    names.remove(name);
                }
            }
            late.extend(names);
        }
        late
    }
}

/// Closes the files, when all that writes to them has ended.
pub(crate) async fn close(history: &History, store: &Store, bus: &bus::Bus, late: Vec<&'static str>) -> Result<()> {
    in_time(late)?;
    let closed = timeout(CLOSE_MAX, async {
        let (history, (), ()) = tokio::join!(history.close(), store.close(), bus.close());
        history
    });
    closed.await.context("close the files in time")?.context("close history.db")
}

/// Names who did not end in time.
///
/// # Errors
/// Somebody did not.
pub(crate) fn in_time(late: Vec<&'static str>) -> Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    Err(Failure::failed("MW-0044", format!("did not end in time: {}", late.join(", ")))
        .hint("nothing is lost, the next start goes on from what is durable; shutdown_grace gives more time")
        .into())
}
