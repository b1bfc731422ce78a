//! Catalogue documents by hash, and where each took effect.

use super::{Error, Postgres, connect, execute, query, query_opt};
use crate::store::Activation;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use wire::READINGS_TOPIC;

impl Postgres {
    pub(in crate::store) async fn activations(&self, partition: u16) -> Result<Vec<Activation>, Error> {
        let client = connect(&self.ai.read).await?;
        let sql = "select partition, from_offset, catalogue_hash from activation
                   where topic = $1 and partition = $2 order by from_offset";
        query(&client, sql, &[&READINGS_TOPIC, &i32::from(partition)]).await?.iter().map(activation).collect()
    }

    pub(in crate::store) async fn latest_activations(&self) -> Result<Vec<Activation>, Error> {
        let client = connect(&self.ai.read).await?;
        let sql = "select distinct on (partition) partition, from_offset, catalogue_hash from activation
                   where topic = $1 order by partition, from_offset desc";
        query(&client, sql, &[&READINGS_TOPIC]).await?.iter().map(activation).collect()
    }

    pub(in crate::store) async fn catalogue(&self, hash: &str) -> Result<Option<String>, Error> {
        let client = connect(&self.ai.read).await?;
        let row = query_opt(&client, "select document from catalogue where hash = $1", &[&hash]).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }
}

fn activation(row: &Row) -> Result<Activation, Error> {
    let partition: i32 = row.try_get(0)?;
    let damaged = |_| Error::Damaged(format!("activation of partition {partition}"));
    Ok(Activation {
        partition: partition.try_into().map_err(damaged)?,
        from_offset: row.try_get(1)?,
        catalogue_hash: row.try_get(2)?,
    })
}

/// Records a catalogue and where it takes effect. Two switches at one offset leave the second: nothing lay between.
pub(super) async fn activate(
    transaction: &Transaction<'_>,
    activation: &Activation,
    document: &str,
) -> Result<(), Error> {
    let Activation { partition, from_offset, catalogue_hash } = activation;
    let sql = "insert into catalogue (hash, document) values ($1, $2) on conflict do nothing";
    execute(transaction, sql, &[catalogue_hash, &document]).await?;
    let sql = "insert into activation (topic, partition, from_offset, catalogue_hash) values ($1, $2, $3, $4)
               on conflict (topic, partition, from_offset) do update set catalogue_hash = excluded.catalogue_hash";
    execute(transaction, sql, &[&READINGS_TOPIC, &i32::from(*partition), from_offset, catalogue_hash]).await?;
    Ok(())
}
