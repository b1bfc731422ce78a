//! What the relay asks the AI database: whether the topic was held against the history, and what the history tells.

use super::{
    Error, Micros,
    alerts::{self, COLUMNS},
    connect, execute, query_opt,
};
use crate::postgres::{
    Pools, Sizes, Which,
    outbox_log::{Cluster, OutboxRow},
};
use deadpool_postgres::{ClientWrapper, Object};
use dependency::Dependency;
use uuid::Uuid;

/// The relay's side of the AI database.
#[derive(Clone)]
pub struct Books(Pools);

/// The history as it was when a slot was made; everything later comes from the slot.
pub struct Snapshot(ClientWrapper);

/// A row of the history, written again as it was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Told {
    /// Its place in the order of commit.
    pub position: i64,
    pub row: OutboxRow,
}

impl Books {
    /// Connects when first asked.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(url: &str, database: &Dependency) -> Result<Books, crate::postgres::Error> {
        Ok(Books(Pools::new(url, Which::Ai, "relay", Sizes { write: 1, read: 2 })?.looked_after(database)))
    }

    /// In whose log the topic has everything up to where the slot was made; `None`: that was never seen to its end.
    ///
    /// # Errors
    /// The database is gone.
    pub async fn healed(&self, slot: &str) -> Result<Option<Cluster>, Error> {
        let client = connect(&self.0.read).await?;
        let row = query_opt(&client, "select system_id, timeline from relay where slot = $1", &[&slot]).await?;
        row.map(|row| Ok(Cluster { system_id: row.try_get(0)?, timeline: row.try_get::<_, i32>(1)?.cast_unsigned() }))
            .transpose()
    }

    /// From here on it is not known.
    ///
    /// # Errors
    /// The database is gone.
    pub async fn forget(&self, slot: &str) -> Result<(), Error> {
        let client = connect(&self.0.write).await?;
        execute(&client, "delete from relay where slot = $1", &[&slot]).await?;
        Ok(())
    }

    /// The topic has everything up to where the slot was made.
    ///
    /// # Errors
    /// The database is gone.
    pub async fn set_healed(&self, slot: &str, cluster: &Cluster) -> Result<(), Error> {
        let client = connect(&self.0.write).await?;
        let sql = "insert into relay (slot, system_id, timeline) values ($1, $2, $3)
            on conflict (slot) do update set system_id = excluded.system_id, timeline = excluded.timeline";
        execute(&client, sql, &[&slot, &cluster.system_id, &cluster.timeline.cast_signed()]).await?;
        Ok(())
    }

    /// Opens the snapshot that a new slot exported, while that slot's session does nothing else.
    ///
    /// # Errors
    /// The database is gone, or the snapshot.
    pub async fn snapshot(&self, name: &str) -> Result<Snapshot, Error> {
        // It never goes back to the pool, so its transaction ends with it.
        let client = Object::take(connect(&self.0.read).await?);
        let name = name.replace('\'', "''");
        // Between two questions the topic is read, or brokers are waited for.
        let sql = format!(
            "begin isolation level repeatable read; set transaction snapshot '{name}';
             set local idle_in_transaction_session_timeout = 0"
        );
        client.batch_execute(&sql).await?;
        Ok(Snapshot(client))
    }
}

impl Snapshot {
    /// The lowest place of those ids that the history has.
    ///
    /// # Errors
    /// The database is gone.
    pub async fn first_of(&self, ids: &[Uuid]) -> Result<Option<i64>, Error> {
        let sql = "select min(position) from anomaly_history where id = any($1)";
        let row = self.0.query_one(sql, &[&ids]).await?;
        Ok(row.try_get(0)?)
    }

    /// The last place before this time of arrival, microseconds; 0 where there is none.
    ///
    /// # Errors
    /// The database is gone.
    pub async fn before(&self, arrived_us: i64) -> Result<i64, Error> {
        let sql = "select coalesce(max(position), 0) from anomaly_history where arrived_at < $1";
        Ok(self.0.query_one(sql, &[&Micros(arrived_us)]).await?.try_get(0)?)
    }

    /// What follows a place, in order, at most `limit` rows.
    ///
    /// # Errors
    /// The database is gone, or a row is damaged.
    pub async fn after(&self, position: i64, limit: i64) -> Result<Vec<Told>, Error> {
        let sql = format!(
            "select {COLUMNS} from anomaly_history history where history.position > $1 order by history.position limit $2"
        );
        let rows = self.0.query(&sql, &[&position, &limit]).await?;
        let alerts = rows.iter().map(alerts::alert).collect::<Result<Vec<_>, Error>>()?;
        // As the column of the outbox gives it: the database's own text.
        let payloads: Vec<String> = alerts.iter().map(|(_, alert)| alert.to_json()).collect();
        let sql =
            "select payload::jsonb::text from unnest($1::text[]) with ordinality told (payload, place) order by place";
        let payloads = self.0.query(sql, &[&payloads]).await?;
        let told = alerts.into_iter().zip(payloads).map(|((position, alert), payload)| {
            let row = OutboxRow {
                id: alert.alert_id.to_string(),
                aggregateid: alert.machine_id,
                kind: alert.kind.as_str().to_owned(),
                payload: payload.try_get(0)?,
                traceparent: None,
            };
            Ok(Told { position, row })
        });
        told.collect()
    }
}
