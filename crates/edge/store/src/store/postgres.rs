//! The plant's variant: what detect writes lies in the AI database, what the portal writes in the main database.
//!
//! A process connects to what it uses, when it first does. What moves a position waits for a database that is away
//! (`Patience`); everything else says so at once.

mod alarms;
mod alerts;
mod audit;
mod catalogues;
pub(super) mod commit;
mod events;
mod machine_events;
mod machines;
mod maintenance;
mod notifications;
mod patience;
pub mod relay;
mod snapshots;
mod time;

use super::{Error, machines::Confirmed};
use crate::postgres::{Pool, Pools};
use deadpool_postgres::{GenericClient, Object};
use patience::Patience;
use std::sync::Arc;
use time::Micros;
use tokio::sync::{Mutex, watch};
use tokio_postgres::{Row, types::ToSql};

/// Values of a statement, in the order of their numbers.
type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Two databases. Clones share their connections.
#[derive(Clone)]
pub(super) struct Postgres {
    ai: Pools,
    main: Pools,
    /// Last position of the outbox that this process knows to be durable.
    outbox: watch::Sender<i64>,
    confirmed: Arc<Confirmed>,
    refreshing: Arc<Mutex<()>>,
}

impl Postgres {
    pub(super) fn new(ai: Pools, main: Pools) -> Postgres {
        Postgres { ai, main, outbox: watch::Sender::new(0), confirmed: Arc::default(), refreshing: Arc::default() }
    }

    pub(super) async fn close(&self) {
        for Pools { write, read } in [&self.ai, &self.main] {
            write.close();
            read.close();
        }
    }
}

async fn connect(pool: &Pool) -> Result<Object, Error> {
    Ok(pool.get().await?)
}

async fn query(client: &impl GenericClient, sql: &str, values: Values<'_>) -> Result<Vec<Row>, Error> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, values).await?)
}

async fn execute(client: &impl GenericClient, sql: &str, values: Values<'_>) -> Result<u64, Error> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, values).await?)
}

/// The row, or none, that a statement answers with.
async fn query_opt(client: &impl GenericClient, sql: &str, values: Values<'_>) -> Result<Option<Row>, Error> {
    Ok(query(client, sql, values).await?.into_iter().next())
}

/// Rows that one statement deletes: after a long pause there may be more than it has time for.
const PRUNED: i64 = 5_000;

/// Deletes up to `bound` ($1) by a statement that takes so many rows at once ($2).
async fn prune(client: &impl GenericClient, sql: &str, bound: &(dyn ToSql + Sync)) -> Result<usize, Error> {
    let mut pruned = 0;
    loop {
        let now = execute(client, sql, &[bound, &PRUNED]).await? as usize;
        pruned += now;
        if now < PRUNED as usize {
            return Ok(pruned);
        }
    }
}

/// One column of rows, as an array: a statement writes many rows at once.
fn column<R, T>(rows: impl Iterator<Item = R>, of: impl Fn(R) -> T) -> Vec<T> {
    rows.map(of).collect()
}

/// Next offset of a consumer of this database.
async fn next_offset(client: &impl GenericClient, topic: &str, partition: u16) -> Result<i64, Error> {
    let sql = "select next_offset from consumer_offset where topic = $1 and partition = $2";
    let row = query_opt(client, sql, &[&topic, &i32::from(partition)]).await?;
    row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
}

/// Moves a consumer's position, by compare-and-set: it takes the row's lock, and who does not stand where he thinks he
/// does is fenced off. A position that was never written is 0.
async fn advance(client: &impl GenericClient, topic: &str, partition: u16, from: i64, to: i64) -> Result<(), Error> {
    let number = i32::from(partition);
    let sql = "update consumer_offset set next_offset = $4 where topic = $1 and partition = $2 and next_offset = $3";
    #[cfg(feature = "planted")]
    let sql = if crate::planted("no_fence") { crate::UNFENCED } else { sql };
    if execute(client, sql, &[&topic, &number, &from, &to]).await? == 1 {
        return Ok(());
    }
    let sql = "insert into consumer_offset (topic, partition, next_offset) values ($1, $2, $3) on conflict do nothing";
    if from == 0 && execute(client, sql, &[&topic, &number, &to]).await? == 1 {
        return Ok(());
    }
    Err(Error::Fenced { partition, expected: from, found: next_offset(client, topic, partition).await? })
}
