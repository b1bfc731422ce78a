//! Detect's transaction, as in the file: fences, then effects.

use super::{
    Error, Micros, Patience, Postgres, advance, column, connect, execute, next_offset, prune, query, query_opt,
};
use crate::store::{
    Activation, Step,
    commit::{AlertRow, OwnedStep, event_id},
};
use deadpool_postgres::Transaction;
use engine::MachineEvent;
use wire::READINGS_TOPIC;

/// Held from the first alert of a transaction to its end, so that positions are given in commit order: "MWou".
pub(in crate::store) const OUTBOX_LOCK: i64 = 0x4d57_6f75;

impl Postgres {
    /// Makes the rows that are missing, so that each later commit meets a row to lock.
    pub(in crate::store) async fn positions(&self, partitions: Vec<u16>) -> Result<Vec<i64>, Error> {
        let mut client = connect(&self.ai.write).await?;
        let transaction = client.transaction().await?;
        let numbers: Vec<i32> = partitions.iter().map(|partition| i32::from(*partition)).collect();
        execute(
            &transaction,
            "insert into consumer_offset (topic, partition, next_offset) select $1, number, 0
             from unnest($2::integer[]) number order by number on conflict do nothing",
            &[&READINGS_TOPIC, &numbers],
        )
        .await?;
        let rows = query(
            &transaction,
            "select next_offset from unnest($2::integer[]) with ordinality asked (partition, place)
             join consumer_offset using (partition) where topic = $1 order by place",
            &[&READINGS_TOPIC, &numbers],
        )
        .await?;
        transaction.commit().await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(in crate::store) async fn commit(&self, steps: Vec<Step<'_>>) -> Result<(), Error> {
        let steps: Vec<OwnedStep> = steps.iter().map(OwnedStep::new).collect();
        let mut patience = Patience::new("detect");
        let last = loop {
            let error = match self.try_commit(&steps).await {
                Ok(last) => break last,
                // An attempt of which nobody knows how it ended may be what moved the positions.
                Err(error @ Error::Fenced { .. }) if patience.unsure() => match self.stands_behind(&steps).await {
                    Ok(true) => break self.last_announced().await?,
                    Ok(false) => return Err(error),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            patience.after(error).await?;
        };
        if let Some(last) = last {
            self.outbox.send_if_modified(|known| {
                let grown = *known < last;
                *known = (*known).max(last);
                grown
            });
        }
        Ok(())
    }

    /// One attempt; the last position that it gave in the outbox.
    async fn try_commit(&self, steps: &[OwnedStep]) -> Result<Option<i64>, Error> {
        // The registry lies in the other database: first, and again where the rest fails, since what was seen was seen.
        self.see(steps.iter().flat_map(|step| &step.machines)).await?;
        let mut client = connect(&self.ai.write).await?;
        let transaction = client.transaction().await?;
        for step in steps {
            advance(&transaction, READINGS_TOPIC, step.partition, step.from, step.to).await?;
        }
        for step in steps {
            if let Some((hash, document)) = &step.activation {
                let activation =
                    Activation { partition: step.partition, from_offset: step.from, catalogue_hash: hash.clone() };
                super::catalogues::activate(&transaction, &activation, document).await?;
            }
            for (hash, name, document) in &step.fits {
                let sql = "insert into fit (hash, name, document) values ($1, $2, $3) on conflict do nothing";
                execute(&transaction, sql, &[hash, name, document]).await?;
            }
        }
        let events: Vec<&MachineEvent> = steps.iter().flat_map(|step| &step.events).collect();
        insert_events(&transaction, &events).await?;
        let alerts: Vec<&AlertRow> = steps.iter().flat_map(|step| &step.alerts).collect();
        let last = insert_alerts(&transaction, &alerts).await?;
        transaction.commit().await?;
        Ok(last)
    }

    /// Whether each partition stands where the last of its steps leads.
    async fn stands_behind(&self, steps: &[OwnedStep]) -> Result<bool, Error> {
        let client = connect(&self.ai.write).await?;
        for (at, step) in steps.iter().enumerate() {
            let last = steps[at + 1..].iter().all(|later| later.partition != step.partition);
            if last && next_offset(&client, READINGS_TOPIC, step.partition).await? != step.to {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn last_announced(&self) -> Result<Option<i64>, Error> {
        let client = connect(&self.ai.read).await?;
        let row = query_opt(&client, "select max(position) from outbox", &[]).await?;
        row.map_or(Ok(None), |row| Ok(row.try_get(0)?))
    }

    pub(in crate::store) async fn outbox_after(&self, after: i64, limit: usize) -> Result<Vec<(i64, String)>, Error> {
        let client = connect(&self.ai.read).await?;
        let sql = "select position, payload::text from outbox where position > $1 order by position limit $2";
        let rows = query(&client, sql, &[&after, &(limit as i64)]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    pub(in crate::store) fn outbox_grown(&self) -> tokio::sync::watch::Receiver<i64> {
        self.outbox.subscribe()
    }

    /// A relay reads the log and not the table, but people and a take-over look here: rows stay for a day.
    pub(in crate::store) async fn prune_outbox(&self, through: i64) -> Result<usize, Error> {
        let client = connect(&self.ai.write).await?;
        let sql = "delete from outbox where position in (
                       select position from outbox
                       where position <= $1 and created_at < (now() at time zone 'UTC') - interval '1 day'
                       order by position limit $2)";
        prune(&client, sql, &through).await
    }

    pub(in crate::store) async fn fit(&self, hash: &str) -> Result<Option<scoring::Fit>, Error> {
        let client = connect(&self.ai.read).await?;
        let Some(row) = query_opt(&client, "select document from fit where hash = $1", &[&hash]).await? else {
            return Ok(None);
        };
        let fit = serde_json::from_str(row.try_get(0)?).map_err(|_| Error::Damaged(format!("fit {hash}")))?;
        Ok(Some(fit))
    }
}

async fn insert_events(transaction: &Transaction<'_>, events: &[&MachineEvent]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let sql = r#"insert into machine_event (id, machine_id, kind, timestamp, topic, partition, "offset", "index", detail)
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamp[], $5::text[], $6::integer[],
            $7::bigint[], $8::bigint[], $9::text[])
        on conflict do nothing"#;
    execute(
        transaction,
        sql,
        &[
            &column(events.iter().copied(), event_id),
            &column(events.iter().copied(), |event| &*event.machine_id),
            &column(events.iter().copied(), |event| &*event.kind),
            &column(events.iter().copied(), |event| Micros(event.timestamp_us)),
            &column(events.iter().copied(), |event| &*event.position.topic),
            &column(events.iter().copied(), |event| i32::from(event.position.partition)),
            &column(events.iter().copied(), |event| event.position.offset),
            &column(events.iter().copied(), |event| i64::from(event.position.index)),
            &column(events.iter().copied(), |event| &*event.detail),
        ],
    )
    .await?;
    Ok(())
}

/// History, and the outbox for what the history did not have; the last position given.
async fn insert_alerts(transaction: &Transaction<'_>, alerts: &[&AlertRow]) -> Result<Option<i64>, Error> {
    if alerts.is_empty() {
        return Ok(None);
    }
    execute(transaction, "select pg_advisory_xact_lock($1)", &[&OUTBOX_LOCK]).await?;
    let sql = r#"with told as (
            select distinct on (id) * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::float8[], $8::text[], $9::uuid[], $10::timestamp[], $11::timestamp[], $12::timestamp[], $13::text[],
                $14::text[], $15::text[], $16::integer[], $17::bigint[], $18::bigint[], $19::text[], $20::text[],
                $21::text[], $22::text[], $23::boolean[], $24::boolean[], $25::boolean[], $26::text[])
            with ordinality as told (id, machine_id, class, failure_type, kind, severity, score, condition, condition_id,
                started_at, timestamp, arrived_at, model, model_version, topic, partition, "offset", "index", reason,
                reading, text_en, text_ko, suspended, caught_up, notice, payload, place)
            order by id, place
        ), inserted as (
            insert into anomaly_history (id, machine_id, class, failure_type, kind, severity, score, condition,
                condition_id, started_at, timestamp, arrived_at, model, model_version, topic, partition, "offset",
                "index", reason, reading, text_en, text_ko, suspended, caught_up, notice)
            select id, machine_id, class, failure_type, kind, severity, score, condition, condition_id, started_at,
                timestamp, arrived_at, model, model_version, topic, partition, "offset", "index", reason::jsonb,
                reading::jsonb, text_en, text_ko, suspended, caught_up, notice
            from told order by place
            on conflict do nothing
            returning id, position
        ), announced as (
            insert into outbox (id, aggregatetype, aggregateid, type, payload, position)
            select id, 'alert', told.machine_id, told.kind, told.payload::jsonb, inserted.position
            from inserted join told using (id) order by inserted.position
            returning outbox.position
        )
        select max(announced.position) from announced"#;
    let row = query_opt(
        transaction,
        sql,
        &[
            &column(alerts.iter().copied(), |row| row.alert.alert_id),
            &column(alerts.iter().copied(), |row| &*row.alert.machine_id),
            &column(alerts.iter().copied(), |row| &*row.alert.class),
            &column(alerts.iter().copied(), |row| &*row.alert.failure_type),
            &column(alerts.iter().copied(), |row| row.alert.kind.as_str()),
            &column(alerts.iter().copied(), |row| row.alert.severity.as_str()),
            &column(alerts.iter().copied(), |row| row.alert.score),
            &column(alerts.iter().copied(), |row| &*row.alert.condition),
            &column(alerts.iter().copied(), |row| row.alert.condition_id),
            &column(alerts.iter().copied(), |row| Micros(row.alert.started_at)),
            &column(alerts.iter().copied(), |row| Micros(row.alert.timestamp)),
            &column(alerts.iter().copied(), |row| Micros(row.alert.arrived_at)),
            &column(alerts.iter().copied(), |row| &*row.alert.model),
            &column(alerts.iter().copied(), |row| &*row.alert.model_version),
            &column(alerts.iter().copied(), |row| &*row.alert.position.topic),
            &column(alerts.iter().copied(), |row| i32::from(row.alert.position.partition)),
            &column(alerts.iter().copied(), |row| row.alert.position.offset),
            &column(alerts.iter().copied(), |row| i64::from(row.alert.position.index)),
            &column(alerts.iter().copied(), |row| &*row.reason),
            &column(alerts.iter().copied(), |row| row.alert.reading.as_ref().map(|reading| reading.get())),
            &column(alerts.iter().copied(), |row| &*row.alert.text.en),
            &column(alerts.iter().copied(), |row| &*row.alert.text.ko),
            &column(alerts.iter().copied(), |row| row.alert.suspended),
            &column(alerts.iter().copied(), |row| row.alert.caught_up),
            &column(alerts.iter().copied(), |row| row.alert.notice),
            &column(alerts.iter().copied(), |row| &*row.payload),
        ],
    )
    .await?;
    row.map_or(Ok(None), |row| Ok(row.try_get(0)?))
}
