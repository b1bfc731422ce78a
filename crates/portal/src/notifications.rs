//! Senders: one loop a channel, which leases rows of the queue, sends them and notes how it went. A stuck channel slows
//! no other.

use crate::{
    alarms::Alarms,
    delivery::{now_us, until},
};
use futures_util::future::{join_all, try_join_all};
use notify::{Breaker, Message, Notifier, Sent, backoff_us};
use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};
use store::{Attempted, NotificationRow, Store};
use tokio_util::sync::CancellationToken;

/// Notifications that one channel sends at a time.
const AT_ONCE: usize = 8;
/// After so long without a result an attempt counts as lost with its process; longer than any attempt takes.
const LEASE_US: i64 = 30 * 1_000_000;
/// A notification that was not taken for so long is dead.
const DEAD_US: i64 = 24 * 3600 * 1_000_000;
/// The queue is looked at again at least this often: the wall clock may be set.
const LOOK_AT_LEAST: Duration = Duration::from_secs(30);

/// Sends on every channel until `stop`; what is being sent then is finished.
///
/// # Errors
/// The store failed.
pub(crate) async fn run(
    store: &Store,
    alarms: &Alarms,
    notifiers: &[(String, Notifier)],
    stop: &CancellationToken,
) -> Result<(), store::Error> {
    let senders = notifiers.iter().map(|(channel, notifier)| send_on(store, alarms, channel, notifier, stop));
    try_join_all(senders).await.map(|_| ())
}

async fn send_on(
    store: &Store,
    alarms: &Alarms,
    channel: &str,
    notifier: &Notifier,
    stop: &CancellationToken,
) -> Result<(), store::Error> {
    let mut queued = alarms.queued();
    let mut breaker = Breaker::default();
    loop {
        // Before the look: what is queued after it wakes the wait below.
        queued.borrow_and_update();
        let allowed = breaker.allows(now_us(), AT_ONCE);
        let rows = match allowed {
            0 => Vec::new(),
            most => store.lease_notifications(channel, now_us(), LEASE_US, most).await?,
        };
        if !rows.is_empty() {
            let results = join_all(rows.iter().map(|row| send(notifier, row))).await;
            for (row, sent) in rows.iter().zip(results) {
                note(store, alarms, row, sent, &mut breaker).await?;
            }
            if stop.is_cancelled() {
                return Ok(());
            }
            continue;
        }
        let due_us = store.notification_due(channel).await?;
        let next_us = due_us.map(|due_us| due_us.max(breaker.tries_us().unwrap_or(due_us)));
        let wait = next_us.map_or(LOOK_AT_LEAST, |next_us| until(next_us, now_us())).min(LOOK_AT_LEAST);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
            woken = queued.changed() => if woken.is_err() {
                return Ok(());
            },
        }
    }
}

async fn send(notifier: &Notifier, row: &NotificationRow) -> Sent {
    match serde_json::from_str::<Message>(&row.payload) {
        Ok(message) => notifier.send(row.id, &message).await,
        Err(error) => Sent::Never(format!("the queue holds what is no message: {error}")),
    }
}

/// Notes how an attempt ended.
async fn note(
    store: &Store,
    alarms: &Alarms,
    row: &NotificationRow,
    sent: Sent,
    breaker: &mut Breaker,
) -> Result<(), store::Error> {
    #[cfg(feature = "planted")]
    let sent = if bus::planted("counts_attempts") { Sent::Ok } else { sent };
    let now_us = now_us();
    let channel = &row.channel;
    match sent {
        Sent::Ok => {
            breaker.succeeded();
            alarms.sent(row, now_us).await
        }
        Sent::Never(why) => {
            // It answered: the channel itself is there.
            breaker.succeeded();
            tracing::error!(channel, notification.id = %row.id, why, "a notification is refused for good");
            alarms.dead(row, now_us, why).await
        }
        Sent::Later(after_s, why) => {
            if breaker.failed(now_us) {
                tracing::warn!(channel, why, "channel {channel} fails: it is left alone for a while");
            }
            match again_us(row, now_us, after_s, RandomState::new().hash_one(row.id)) {
                Some(again_us) => store.attempted(row.id, now_us, Attempted::Retry(again_us, why)).await,
                None => {
                    tracing::error!(channel, notification.id = %row.id, why, "a notification was not delivered");
                    alarms.dead(row, now_us, why).await
                }
            }
        }
    }
}

/// When to try again after an attempt that failed; `None`: it was tried long enough. The target's own word counts where it
/// is later.
fn again_us(row: &NotificationRow, now_us: i64, after_s: Option<u64>, random: u64) -> Option<i64> {
    let dead_us = row.created_us + DEAD_US;
    if now_us >= dead_us {
        return None;
    }
    let said_us = after_s.map_or(0, |after_s| i64::try_from(after_s).unwrap_or(i64::MAX).saturating_mul(1_000_000));
    let wait_us = backoff_us(row.attempts + 1, random).max(said_us);
    // However late the target asks for, there is one attempt before the end.
    Some(now_us.saturating_add(wait_us).min(dead_us))
}

#[cfg(test)]
mod tests;
