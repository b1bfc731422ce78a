//! The portal's step, and alarms, in the main database.

use super::{
    Error, Postgres, Values, advance, audit, column, connect, events, execute, machines, maintenance, next_offset,
    notifications, query, query_opt,
};
use crate::{
    history::Page,
    store::{
        AlarmQuery, AlarmRow, MaintenanceRow, Record, StoredEvent,
        alarms::{Cursor, VERSIONS, rank},
    },
};
use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;
use wire::ALERTS_TOPIC;

/// The columns that [`alarm`] reads, in its order.
const COLUMNS: &str = "alarm.id, alarm.state::text, alarm.alert, alarm.text_en, alarm.text_ko, alarm.group_id";

impl Postgres {
    pub(in crate::store) async fn portal_position(&self, partition: u16) -> Result<i64, Error> {
        let client = connect(&self.main.read).await?;
        next_offset(&client, ALERTS_TOPIC, partition).await
    }

    pub(in crate::store) async fn record(&self, record: Record) -> Result<Vec<StoredEvent>, Error> {
        #[cfg(feature = "planted")]
        let record = if crate::planted("portal_acks_first") { self.acknowledge_first(record).await? } else { record };
        let mut client = connect(&self.main.write).await?;
        let transaction = client.transaction().await?;
        let written = write_record(&transaction, &record).await?;
        transaction.commit().await?;
        self.note_confirmed(&record.machines);
        Ok(written)
    }

    /// The bug that the torture harness must see: a kill before the effects loses them.
    #[cfg(feature = "planted")]
    async fn acknowledge_first(&self, mut record: Record) -> Result<Record, Error> {
        if let Some((from, to)) = record.position.take() {
            let mut client = connect(&self.main.write).await?;
            let transaction = client.transaction().await?;
            advance(&transaction, ALERTS_TOPIC, record.partition, from, to).await?;
            transaction.commit().await?;
        }
        Ok(record)
    }

    pub(in crate::store) async fn alarms(&self) -> Result<Vec<AlarmRow>, Error> {
        self.alarms_where("true order by machine_id, condition", &[]).await
    }

    pub(in crate::store) async fn alarm(&self, id: Uuid) -> Result<Option<AlarmRow>, Error> {
        Ok(self.alarms_where("id = $1", &[&id]).await?.pop())
    }

    pub(in crate::store) async fn edition(&self) -> Result<i64, Error> {
        let client = connect(&self.main.read).await?;
        let row = query_opt(&client, "select value from counter where name = 'alarms'", &[]).await?;
        Ok(row.ok_or_else(|| Error::Damaged("counter alarms".to_owned()))?.try_get(0)?)
    }

    pub(in crate::store) async fn changed_since(
        &self,
        edition: i64,
    ) -> Result<(Vec<AlarmRow>, Vec<MaintenanceRow>), Error> {
        Ok((self.alarms_where("edition > $1", &[&edition]).await?, self.maintenance_since(edition).await?))
    }

    async fn alarms_where(&self, condition: &str, values: Values<'_>) -> Result<Vec<AlarmRow>, Error> {
        let client = connect(&self.main.read).await?;
        let sql = format!("select {COLUMNS} from alarm where {condition}");
        query(&client, &sql, values).await?.iter().map(alarm).collect()
    }

    pub(in crate::store) async fn alarm_page(&self, wanted: AlarmQuery) -> Result<Page<AlarmRow>, Error> {
        let cursor = wanted.cursor.as_deref().map(|text| Cursor::parse(text).ok_or(Error::Cursor)).transpose()?;
        let client = connect(&self.main.read).await?;
        let newest = query_opt(&client, "select max(version) from alarm_version", &[]).await?;
        let newest: i64 = newest.map_or(Ok(None), |row| row.try_get(0))?.unwrap_or(0);
        let as_of = cursor.map_or(newest, |cursor| cursor.as_of);
        if as_of < newest - VERSIONS {
            return Err(Error::Cursor);
        }
        let limit = wanted.limit.clamp(1, 1_000);

        let mut sql = format!(
            "select {COLUMNS}, listed.rank, listed.priority, listed.changed_us
             from alarm_version listed join alarm on alarm.id = listed.alarm_id
             where listed.version = (select max(version) from alarm_version
                 where alarm_id = listed.alarm_id and version <= $1)"
        );
        let mut values: Vec<Box<dyn ToSql + Sync + Send>> = vec![Box::new(as_of)];
        let mut narrow = |condition: &str, value: Box<dyn ToSql + Sync + Send>| {
            values.push(value);
            sql += &condition.replace('?', &format!("${}", values.len()));
        };
        let AlarmQuery { machine_id, state, subject, severity, .. } = &wanted;
        for (condition, text) in [
            (" and listed.machine_id = ?", machine_id),
            (" and listed.state = ?", state),
            (" and listed.subject = ?", subject),
            (" and listed.severity = ?", severity),
        ] {
            if let Some(text) = text {
                narrow(condition, Box::new(text.clone()));
            }
        }
        for (condition, at_us) in
            [(" and listed.changed_us >= ?", wanted.from_us), (" and listed.changed_us < ?", wanted.to_us)]
        {
            if let Some(at_us) = at_us {
                narrow(condition, Box::new(at_us));
            }
        }
        if wanted.open {
            narrow(" and listed.state <> ?", Box::new("normal"));
        }
        if let Some(Cursor { rank, priority, changed_us, id, .. }) = cursor {
            let order = " and (listed.rank, listed.priority, -listed.changed_us, listed.alarm_id)";
            narrow(&format!("{order} > (?"), Box::new(rank));
            narrow(", ?", Box::new(priority));
            narrow(", ?", Box::new(changed_us.saturating_neg()));
            narrow(", ?)", Box::new(id));
        }
        // One row more than asked for tells whether there is a next page.
        let order = " order by listed.rank, listed.priority, listed.changed_us desc, listed.alarm_id limit ?";
        narrow(order, Box::new(limit as i64 + 1));

        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        let found = query(&client, &sql, &values).await?;
        let more = found.len() > limit;
        let mut last = None;
        let mut shown = Vec::new();
        for row in found.iter().take(limit) {
            let alarm = alarm(row)?;
            let (rank, priority, changed_us) = (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
            last = Some(Cursor { rank, priority, changed_us, id: alarm.id, as_of });
            shown.push(alarm);
        }
        Ok(Page { rows: shown, next_cursor: last.filter(|_| more).map(Cursor::text) })
    }
}

async fn write_record(transaction: &Transaction<'_>, record: &Record) -> Result<Vec<StoredEvent>, Error> {
    // The fences before any effect: a portal that was overtaken writes nothing. The first holds up the next step of any.
    let sql = "update counter set value = value + 1 where name = 'alarms' and ($1::bigint is null or value = $1)
               returning value";
    let edition: i64 = query_opt(transaction, sql, &[&record.edition]).await?.ok_or(Error::Overtaken)?.try_get(0)?;
    if let Some((from, to)) = record.position {
        advance(transaction, ALERTS_TOPIC, record.partition, from, to).await?;
    }
    // What is numbered has no gap, and numbers are in commit order.
    let before = events::lock(transaction).await?;
    for row in &record.machines {
        machines::put(transaction, row).await?;
    }
    put(transaction, &record.alarms, edition).await?;
    for row in &record.maintenance {
        maintenance::put(transaction, row, edition).await?;
    }
    for (id, at_us, how) in &record.attempted {
        notifications::end_attempt(transaction, *id, *at_us, how).await?;
    }
    let first = audit::append(transaction, &record.audit).await?;
    let told: Vec<_> = (first..)
        .zip(&record.audit)
        .flat_map(|(sequence, line)| line.notify.iter().map(move |notification| (sequence, notification)))
        .collect();
    notifications::queue(transaction, &told).await?;
    events::append(transaction, before, &record.events).await
}

async fn put(client: &impl GenericClient, rows: &[AlarmRow], edition: i64) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = column(rows.iter(), |row| row.id);
    let machines = column(rows.iter(), |row| &*row.alarm.machine_id);
    let state = |row: &AlarmRow| serde_json::to_string(&row.alarm).expect("an alarm has string keys");
    let sql = "insert into alarm (id, machine_id, condition, state, alert, text_en, text_ko, group_id, edition)
        select distinct on (id) id, machine_id, condition, state::jsonb, alert, text_en, text_ko, group_id, $9
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[])
            with ordinality told (id, machine_id, condition, state, alert, text_en, text_ko, group_id, place)
        order by id, place desc
        on conflict (id) do update set state = excluded.state, alert = excluded.alert, text_en = excluded.text_en,
            text_ko = excluded.text_ko, group_id = excluded.group_id, edition = excluded.edition";
    execute(
        client,
        sql,
        &[
            &ids,
            &machines,
            &column(rows.iter(), |row| &*row.alarm.condition),
            &column(rows.iter(), state),
            &column(rows.iter(), |row| row.alert.as_deref()),
            &column(rows.iter(), |row| row.text.as_ref().map(|text| &*text.en)),
            &column(rows.iter(), |row| row.text.as_ref().map(|text| &*text.ko)),
            &column(rows.iter(), |row| row.group),
            &edition,
        ],
    )
    .await?;
    let sql = "insert into alarm_version (alarm_id, machine_id, state, subject, severity, rank, priority, changed_us)
        select alarm_id, machine_id, state, subject, severity, rank, priority, changed_us
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[])
            with ordinality told (alarm_id, machine_id, state, subject, severity, rank, priority, changed_us, place)
        order by place";
    execute(
        client,
        sql,
        &[
            &ids,
            &machines,
            &column(rows.iter(), |row| row.alarm.state.as_str()),
            &column(rows.iter(), |row| row.alarm.subject.as_str()),
            &column(rows.iter(), |row| row.alarm.severity.as_str()),
            &column(rows.iter(), |row| rank(&row.alarm.state)),
            // Below all that asks to act.
            &column(rows.iter(), |row| i64::from(row.alarm.priority.unwrap_or(5))),
            &column(rows.iter(), |row| row.alarm.changed_us),
        ],
    )
    .await?;
    // The newest that a cursor may still ask for stays.
    let sql = "delete from alarm_version old using (
            select alarm_id, max(version) as newest from alarm_version
            where alarm_id = any($1) and version <= (select max(version) from alarm_version) - $2 group by alarm_id) kept
        where old.alarm_id = kept.alarm_id and old.version < kept.newest";
    execute(client, sql, &[&ids, &VERSIONS]).await?;
    Ok(())
}

fn alarm(row: &Row) -> Result<AlarmRow, Error> {
    let id: Uuid = row.try_get(0)?;
    let text = match (row.try_get(3)?, row.try_get(4)?) {
        (Some(en), Some(ko)) => Some(wire::AlertText { en, ko }),
        _ => None,
    };
    Ok(AlarmRow {
        id,
        alarm: serde_json::from_str(row.try_get(1)?).map_err(|_| Error::Damaged(format!("alarm {id}")))?,
        alert: row.try_get(2)?,
        text,
        group: row.try_get(5)?,
    })
}
