//! The queue of notifications: leased, attempted, retried; the table is the retry queue.

use super::{Error, Sqlite, now_us};
use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

/// Name space of idempotency keys.
const NAMESPACE: Uuid = Uuid::from_u128(0x8d0f36b2_41ce_5a97_b6e8_90c27d15fa34);

/// A notification to be sent; its idempotency key is UUIDv5 of (alert, channel, audit sequence).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct NewNotification {
    pub channel: String,
    pub alarm: Uuid,
    pub alert: Uuid,
    /// JSON of the message.
    pub payload: String,
}

/// A notification in the queue.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct NotificationRow {
    /// The idempotency key.
    pub id: Uuid,
    pub channel: String,
    pub alarm: Uuid,
    pub payload: String,
    /// Attempts begun before.
    pub attempts: u32,
    pub created_us: i64,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempted {
    /// It was taken.
    Sent,
    /// Again at this time, microseconds since 1970, and why.
    Retry(i64, String),
    /// Never again, and why.
    Dead(String),
}

/// A notification is the first of its alarm that waits on its channel: what follows never overtakes it.
pub(super) const FIRST_OF_ITS_ALARM: &str = "not exists (select 1 from notification earlier
    where earlier.state = 'waiting' and earlier.channel = notification.channel
        and earlier.alarm_id = notification.alarm_id and earlier.position < notification.position)";

impl Sqlite {
    pub(super) async fn lease_notifications(
        &self,
        channel: &str,
        now_us: i64,
        lease_us: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, Error> {
        let channel = channel.to_owned();
        self.write(move |transaction| lease(transaction, &channel, now_us, now_us + lease_us, limit)).await
    }

    pub(super) async fn notification_due(&self, channel: &str) -> Result<Option<i64>, Error> {
        let channel = channel.to_owned();
        self.read(move |connection| {
            let sql = format!(
                "select min(due_us) from notification
                 where state = 'waiting' and channel = ?1 and {FIRST_OF_ITS_ALARM}"
            );
            Ok(connection.prepare_cached(&sql)?.query_row([channel], |row| row.get(0))?)
        })
        .await
    }

    pub(super) async fn attempted(&self, id: Uuid, at_us: i64, how: Attempted) -> Result<(), Error> {
        self.write(move |transaction| end_attempt(transaction, id, at_us, &how)).await
    }

    pub(super) async fn prune_notifications(&self, before_us: i64) -> Result<usize, Error> {
        self.write(move |transaction| {
            transaction.execute(
                "delete from notification_attempt where notification_id in
                     (select id from notification where state <> 'waiting' and created_us < ?1)",
                [before_us],
            )?;
            Ok(transaction
                .execute("delete from notification where state <> 'waiting' and created_us < ?1", [before_us])?)
        })
        .await
    }
}

/// The idempotency key.
pub(super) fn key(new: &NewNotification, sequence: i64) -> Uuid {
    let NewNotification { channel, alert, .. } = new;
    Uuid::new_v5(&NAMESPACE, format!("{alert}|{channel}|{sequence}").as_bytes())
}

/// Queues a notification under its idempotency key; one that is there stays as it is.
pub(super) fn queue(transaction: &Transaction<'_>, new: &NewNotification, sequence: i64) -> Result<(), Error> {
    let NewNotification { channel, alarm, alert, payload } = new;
    let id = key(new, sequence);
    transaction
        .prepare_cached(
            "insert into notification (id, channel, alarm_id, alert_id, sequence, payload, created_us, state, due_us, attempts)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'waiting', 0, 0) on conflict do nothing",
        )?
        .execute(params![id.to_string(), channel, alarm.to_string(), alert.to_string(), sequence, payload, now_us()])?;
    Ok(())
}

fn lease(
    transaction: &Transaction<'_>,
    channel: &str,
    now_us: i64,
    until_us: i64,
    limit: usize,
) -> Result<Vec<NotificationRow>, Error> {
    let sql = format!(
        "select id, alarm_id, payload, attempts, created_us from notification
         where state = 'waiting' and channel = ?1 and due_us <= ?2 and {FIRST_OF_ITS_ALARM} order by position limit ?3"
    );
    let mut query = transaction.prepare_cached(&sql)?;
    let mut found = query.query(params![channel, now_us, limit as i64])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let id: String = row.get(0)?;
        let damaged = || Error::Damaged(format!("notification {id}"));
        let alarm = row.get_ref(1)?.as_str().ok().and_then(|text| text.parse().ok()).ok_or_else(damaged)?;
        rows.push(NotificationRow {
            alarm,
            channel: channel.to_owned(),
            payload: row.get(2)?,
            attempts: row.get(3)?,
            created_us: row.get(4)?,
            id: id.parse().map_err(|_| damaged())?,
        });
    }
    for row in &rows {
        let id = row.id.to_string();
        transaction
            .prepare_cached("update notification set due_us = ?2, attempts = attempts + 1 where id = ?1")?
            .execute(params![id, until_us])?;
        transaction
            .prepare_cached(
                "insert into notification_attempt (notification_id, attempt, begun_us) values (?1, ?2, ?3)",
            )?
            .execute(params![id, row.attempts + 1, now_us])?;
    }
    Ok(rows)
}

/// Notes how the last attempt ended. What was sent, or is dead, stays so.
pub(super) fn end_attempt(transaction: &Transaction<'_>, id: Uuid, at_us: i64, how: &Attempted) -> Result<(), Error> {
    let id = id.to_string();
    let attempt: Option<i64> = transaction
        .prepare_cached("select attempts from notification where id = ?1 and state = 'waiting'")?
        .query_row([&id], |row| row.get(0))
        .optional()?;
    let Some(attempt) = attempt else { return Ok(()) };
    let (state, due_us, result) = match how {
        Attempted::Sent => ("sent", at_us, "sent"),
        Attempted::Retry(due_us, why) => ("waiting", *due_us, why.as_str()),
        Attempted::Dead(why) => ("dead", at_us, why.as_str()),
    };
    transaction
        .prepare_cached("update notification set state = ?2, due_us = ?3 where id = ?1")?
        .execute(params![id, state, due_us])?;
    transaction
        .prepare_cached(
            "update notification_attempt set ended_us = ?3, result = ?4 where notification_id = ?1 and attempt = ?2",
        )?
        .execute(params![id, attempt, at_us, result])?;
    Ok(())
}
