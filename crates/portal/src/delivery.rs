//! From the outbox to alarms and people: delivery, the clock, the senders, and what is kept.
//!
//! Every loop here works from what the store has and may be cut anywhere: whoever starts again goes on from there.

use crate::{alarms::Alarms, hub::Hub, notifications};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use store::Store;
use tokio_util::sync::CancellationToken;

/// Alerts in one step.
const BATCH: usize = 256;
/// Outbox rows delivered between two prunings.
const PRUNE_OUTBOX: i64 = 1_000;
/// The wall clock may be set: it is asked again at least this often.
const CLOCK_AT_LEAST: Duration = Duration::from_secs(30);
/// How often old rows are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(10 * 60);
/// Events are kept so long,
const EVENTS_US: i64 = 7 * 86_400 * 1_000_000;
/// but no more than these.
const EVENTS_MOST: u64 = 1_000_000;
/// Events dropped in one transaction: an alert waits for no more.
const EVENTS_DROPPED: u64 = 5_000;
/// Notifications that ended are kept so long.
const NOTIFICATIONS_US: i64 = 90 * 86_400 * 1_000_000;

/// Runs every loop of the portal beside HTTP until `stop`, or until one fails.
///
/// # Errors
/// The store failed, or another portal took over.
pub(crate) async fn run(
    parts: &crate::Parts,
    alarms: &Alarms,
    hub: &Arc<Hub>,
    stop: &CancellationToken,
) -> Result<(), store::Error> {
    let live = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = hub.send_live() => {}
        }
        Ok(())
    };
    tokio::try_join!(
        deliver(&parts.store, alarms, stop),
        clock(alarms, stop),
        tidy(&parts.store, stop),
        notifications::run(&parts.store, alarms, &parts.settings.notifiers, stop),
        live,
    )
    .map(|_| ())
}

/// Takes alerts from the outbox as they are committed.
pub(crate) async fn deliver(store: &Store, alarms: &Alarms, stop: &CancellationToken) -> Result<(), store::Error> {
    let mut grown = store.outbox_grown();
    let mut pruned = 0;
    loop {
        // Before the read: what is committed after it wakes the wait below.
        grown.borrow_and_update();
        let position = alarms.position().await?;
        let batch = store.outbox_after(position, BATCH).await?;
        if !batch.is_empty() {
            alarms.deliver(batch).await?;
            if stop.is_cancelled() {
                return Ok(());
            }
            continue;
        }
        if position - pruned >= PRUNE_OUTBOX {
            store.prune_outbox(position).await?;
            pruned = position;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            grew = grown.changed() => if grew.is_err() {
                return Ok(());
            },
        }
    }
}

/// Tells alarms what the clock brings.
pub(crate) async fn clock(alarms: &Alarms, stop: &CancellationToken) -> Result<(), store::Error> {
    let mut due = alarms.due();
    loop {
        let next_us = *due.borrow_and_update();
        let now_us = now_us();
        if next_us.is_some_and(|next_us| next_us <= now_us) {
            alarms.clock(now_us).await?;
        }
        let wait = next_us.map_or(CLOCK_AT_LEAST, |next_us| until(next_us, now_us)).min(CLOCK_AT_LEAST);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
            changed = due.changed() => if changed.is_err() {
                return Ok(());
            },
        }
    }
}

/// Drops what is older than it is kept.
async fn tidy(store: &Store, stop: &CancellationToken) -> Result<(), store::Error> {
    loop {
        tidy_once(store, now_us(), stop).await?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(TIDY_EVERY) => {}
        }
    }
}

async fn tidy_once(store: &Store, now_us: i64, stop: &CancellationToken) -> Result<(), store::Error> {
    store.prune_notifications(now_us - NOTIFICATIONS_US).await?;
    let (oldest, newest) = store.event_range().await?;
    let young = store.event_since(now_us - EVENTS_US).await?;
    let keep = young.max((newest + 1).saturating_sub(EVENTS_MOST));
    let mut dropped = oldest;
    while dropped < keep && !stop.is_cancelled() {
        dropped = keep.min(dropped + EVENTS_DROPPED);
        store.prune_events(dropped - 1).await?;
    }
    Ok(())
}

/// The wall clock, microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// From `now_us` to `at_us`; nothing where that is past.
pub(crate) fn until(at_us: i64, now_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(at_us.saturating_sub(now_us)).unwrap_or(0))
}

#[cfg(test)]
mod tests;
