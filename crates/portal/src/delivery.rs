//! From the outbox, or the topic of alerts, to alarms and people: delivery, the clock, the senders, and what is kept.
//!
//! Every loop here works from what the store has and may be cut anywhere: whoever starts again goes on from there.

use crate::{Error, alarms::Alarms, hub::Hub, notifications};
use bus::{Consumer, Event, Record, Stopped, Topic};
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use store::{History, Store};
use tokio_util::sync::CancellationToken;

/// Group of the consumers of the alerts.
pub const GROUP: &str = "portal-group";
/// Bytes of alerts that are taken at once.
const LOT_BYTES: usize = 2 << 20;
/// The outbox is read as one partition.
const OUTBOX: u16 = 0;
/// Alerts in one step.
const BATCH: usize = 256;
/// Outbox rows delivered between two prunings.
const PRUNE_OUTBOX: i64 = 1_000;
/// The wall clock may be set: it is asked again at least this often.
const CLOCK_AT_LEAST: Duration = Duration::from_secs(30);
/// How often it is asked whether a partition that stands still is to go on.
const GO_ON_EVERY: Duration = Duration::from_millis(200);
/// How often machines on two partitions are looked for.
const SCATTERED_EVERY: Duration = Duration::from_secs(5);
/// How often old rows are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(10 * 60);
/// Events are kept so long,
const EVENTS_US: i64 = 7 * 86_400 * 1_000_000;
/// but no more than these.
const EVENTS_MOST: u64 = 1_000_000;
/// Events dropped in one transaction: an alert waits for no more.
const EVENTS_DROPPED: u64 = 5_000;
/// Alerts by which a repeat is known: three times as long as the topic has them.
const ALERTS_US: i64 = 90 * 86_400 * 1_000_000;
/// Notifications that ended are kept so long.
const NOTIFICATIONS_US: i64 = 90 * 86_400 * 1_000_000;

/// Runs every loop of the portal beside HTTP until `stop`, or until one fails.
///
/// # Errors
/// The store or the bus failed, or another portal took over.
pub(crate) async fn run(
    parts: &crate::Parts,
    alarms: &Alarms,
    hub: &Arc<Hub>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let live = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = hub.send_live() => {}
        }
        Ok(())
    };
    let deliver = async {
        if parts.bus.is_embedded() {
            parts.ready.send_replace(true);
            return Ok(deliver(&parts.store, alarms, stop).await?);
        }
        follow(parts, alarms, stop).await
    };
    let keep_up = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = alarms.keep_up() => {}
        }
        Ok(())
    };
    tokio::try_join!(
        deliver,
        keep_up,
        async { Ok(clock(alarms, stop).await?) },
        async { Ok(tidy(&parts.store, stop).await?) },
        async { Ok(find_scattered(&parts.history, alarms, stop).await?) },
        async { Ok(notifications::run(&parts.store, alarms, &parts.settings.notifiers, stop).await?) },
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
        let position = alarms.position(OUTBOX).await?;
        let batch = store.outbox_after(position, BATCH).await?;
        if !batch.is_empty() {
            alarms.deliver(OUTBOX, batch).await?;
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

/// Takes alerts from the topic, each partition from where the store has it.
async fn follow(parts: &crate::Parts, alarms: &Alarms, stop: &CancellationToken) -> Result<(), Error> {
    let mut consumer = parts.bus.consumer(Topic::Alerts, GROUP)?;
    let schemas = parts.bus.schemas();
    let mut stopped = Stopped::new(Topic::Alerts, parts.settings.dependencies.spared("positions"));
    let mut go_on = tokio::time::interval(GO_ON_EVERY);
    go_on.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = go_on.tick(), if !stopped.is_empty() => {
                for partition in stopped.mistaken(&parts.bus).await {
                    start(&mut consumer, &mut stopped, alarms, partition).await?;
                }
                let mut moved = false;
                for (partition, stood) in stopped.standing() {
                    moved |= alarms.position(partition).await? != stood;
                }
                if moved {
                    stopped.release_all();
                    consumer = parts.bus.consumer(Topic::Alerts, GROUP)?;
                }
                continue;
            }
            event = consumer.next(LOT_BYTES) => event,
        };
        let event = match event {
            // A client that has read a topic may not find the one that was made in its place. What is cut stands still
            // from the next assignment on.
            Err(bus::Error::Truncated { .. }) => {
                stopped.release_all();
                consumer = parts.bus.consumer(Topic::Alerts, GROUP)?;
                continue;
            }
            event => event?,
        };
        match event {
            Event::Assigned(partitions) => {
                for partition in partitions {
                    start(&mut consumer, &mut stopped, alarms, partition).await?;
                }
                parts.ready.send_replace(true);
            }
            // The store has the position; who has them next goes on from there.
            Event::Revoked(partitions) => partitions.iter().for_each(|partition| stopped.release(*partition)),
            Event::Records(records) => {
                for lot in records.chunk_by(|a, b| a.partition == b.partition) {
                    let alert = |record: &Record| {
                        let content = schemas.content(&record.value).unwrap_or_else(|why| {
                            tracing::error!(record.partition, record.offset, "this alert cannot be read: {why}");
                            Cow::Borrowed(&record.value)
                        });
                        (record.offset + 1, String::from_utf8_lossy(&content).into_owned())
                    };
                    for some in lot.chunks(BATCH) {
                        alarms.deliver(some[0].partition, some.iter().map(alert).collect()).await?;
                    }
                    let last = &lot[lot.len() - 1];
                    consumer.commit(&[(last.partition, last.offset + 1)]);
                }
            }
        }
    }
}

/// Starts a partition where the store stands, or it stands still.
async fn start(consumer: &mut Consumer, stopped: &mut Stopped, alarms: &Alarms, partition: u16) -> Result<(), Error> {
    let position = alarms.position(partition).await?;
    match consumer.start(partition, position).await {
        Err(bus::Error::Truncated { end, .. }) => {
            stopped.stop(partition, end, position);
            return Ok(());
        }
        Err(bus::Error::Gap { begin, .. }) => {
            tracing::error!(
                partition,
                begin,
                position,
                "alerts {position} to {begin} of partition {partition} are gone from the topic before they were shown"
            );
            metrics::counter!("millwright_portal_gap_records_total").increment((begin - position).max(0) as u64);
            consumer.start(partition, begin).await?;
        }
        started => started?,
    }
    stopped.release(partition);
    Ok(())
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

/// Looks for machines whose readings come on two partitions.
async fn find_scattered(history: &History, alarms: &Alarms, stop: &CancellationToken) -> Result<(), store::Error> {
    let mut failing = false;
    loop {
        match history.scattered().await {
            Ok(machines) => {
                alarms.scattered(&machines, now_us()).await?;
                failing = false;
            }
            // Said once, however long it lasts; alarms do not wait for the history.
            Err(error) if !failing => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not look for machines on two partitions"
                );
                failing = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(SCATTERED_EVERY) => {}
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
    store.prune_alerts(now_us - ALERTS_US).await?;
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
