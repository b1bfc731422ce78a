//! The queue of notifications, in the main database.

use super::{Error, Postgres, column, connect, execute, query, query_opt};
use crate::store::{
    Attempted, NewNotification, NotificationRow,
    notifications::{FIRST_OF_ITS_ALARM, key},
    now_us,
};
use deadpool_postgres::{GenericClient, Transaction};
use uuid::Uuid;

impl Postgres {
    pub(in crate::store) async fn lease_notifications(
        &self,
        channel: &str,
        now_us: i64,
        lease_us: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, Error> {
        let client = connect(&self.main.write).await?;
        // One statement is one transaction. What another sender is leasing just now is left to it.
        let sql = format!(
            "with due as (
                 select id from notification
                 where state = 'waiting' and channel = $1 and due_us <= $2 and {FIRST_OF_ITS_ALARM}
                 order by position limit $4 for update skip locked
             ), leased as (
                 update notification set due_us = $3, attempts = attempts + 1 from due where notification.id = due.id
                 returning notification.id, alarm_id, payload, attempts, created_us, notification.position as place
             ), begun as (
                 insert into notification_attempt (notification_id, attempt, begun_us)
                 select id, attempts, $2 from leased
             )
             select id, alarm_id, payload, attempts - 1, created_us from leased order by place"
        );
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&channel, &now_us, &now_us.saturating_add(lease_us), &(limit as i64)];
        let row = |row: &tokio_postgres::Row| {
            let id: Uuid = row.try_get(0)?;
            let attempts: i64 = row.try_get(3)?;
            Ok(NotificationRow {
                id,
                channel: channel.to_owned(),
                alarm: row.try_get(1)?,
                payload: row.try_get(2)?,
                attempts: attempts.try_into().map_err(|_| Error::Damaged(format!("notification {id}")))?,
                created_us: row.try_get(4)?,
            })
        };
        query(&client, &sql, &values).await?.iter().map(row).collect()
    }

    pub(in crate::store) async fn notification_due(&self, channel: &str) -> Result<Option<i64>, Error> {
        let client = connect(&self.main.read).await?;
        let sql = format!(
            "select min(due_us) from notification where state = 'waiting' and channel = $1 and {FIRST_OF_ITS_ALARM}"
        );
        let row = query_opt(&client, &sql, &[&channel]).await?;
        row.map_or(Ok(None), |row| Ok(row.try_get(0)?))
    }

    pub(in crate::store) async fn attempted(&self, id: Uuid, at_us: i64, how: Attempted) -> Result<(), Error> {
        let mut client = connect(&self.main.write).await?;
        let transaction = client.transaction().await?;
        end_attempt(&transaction, id, at_us, &how).await?;
        Ok(transaction.commit().await?)
    }

    pub(in crate::store) async fn prune_notifications(&self, before_us: i64) -> Result<usize, Error> {
        let client = connect(&self.main.write).await?;
        let sql = "delete from notification where state <> 'waiting' and created_us < $1";
        Ok(execute(&client, sql, &[&before_us]).await? as usize)
    }
}

/// Queues notifications, each with the line of the audit log that it follows from, under their idempotency keys; one
/// that is there stays as it is.
pub(super) async fn queue(client: &impl GenericClient, told: &[(i64, &NewNotification)]) -> Result<(), Error> {
    if told.is_empty() {
        return Ok(());
    }
    let sql = "insert into notification (id, channel, alarm_id, alert_id, sequence, payload, created_us, state, due_us,
            attempts)
        select id, channel, alarm_id, alert_id, sequence, payload, $7, 'waiting', 0, 0
        from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[])
            with ordinality told (id, channel, alarm_id, alert_id, sequence, payload, place)
        order by place on conflict (id) do nothing";
    execute(
        client,
        sql,
        &[
            &column(told.iter(), |(sequence, new)| key(new, *sequence)),
            &column(told.iter(), |(_, new)| &*new.channel),
            &column(told.iter(), |(_, new)| new.alarm),
            &column(told.iter(), |(_, new)| new.alert),
            &column(told.iter(), |(sequence, _)| *sequence),
            &column(told.iter(), |(_, new)| &*new.payload),
            &now_us(),
        ],
    )
    .await?;
    Ok(())
}

/// Notes how the last attempt ended. What was sent, or is dead, stays so.
pub(super) async fn end_attempt(
    transaction: &Transaction<'_>,
    id: Uuid,
    at_us: i64,
    how: &Attempted,
) -> Result<(), Error> {
    let (state, due_us, result) = match how {
        Attempted::Sent => ("sent", at_us, "sent"),
        Attempted::Retry(due_us, why) => ("waiting", *due_us, why.as_str()),
        Attempted::Dead(why) => ("dead", at_us, why.as_str()),
    };
    let sql = "with ended as (
            update notification set state = $2, due_us = $3 where id = $1 and state = 'waiting' returning attempts)
        update notification_attempt set ended_us = $4, result = $5 from ended
        where notification_id = $1 and attempt = ended.attempts";
    execute(transaction, sql, &[&id, &state, &due_us, &at_us, &result]).await?;
    Ok(())
}
