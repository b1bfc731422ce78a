//! Catalogue documents by hash, and where each took effect.

use super::{Error, Sqlite};
use rusqlite::{OptionalExtension, Transaction, params};
use wire::READINGS_TOPIC;

/// From which offset of a partition of the readings a catalogue is in force for detect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "columns of DOMAIN.md 1")]
pub struct Activation {
    pub partition: u16,
    pub from_offset: i64,
    pub catalogue_hash: String,
}

impl Sqlite {
    pub(super) async fn activations(&self, partition: u16) -> Result<Vec<Activation>, Error> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "select from_offset, catalogue_hash from activation where topic = ?1 and partition = ?2 order by from_offset",
            )?;
            let rows = query.query_map(params![READINGS_TOPIC, partition], |row| {
                Ok(Activation { partition, from_offset: row.get(0)?, catalogue_hash: row.get(1)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub(super) async fn latest_activations(&self) -> Result<Vec<Activation>, Error> {
        self.read(|connection| {
            // SQLite takes the other columns from the row of the maximum.
            let mut query = connection.prepare_cached(
                "select partition, max(from_offset), catalogue_hash from activation where topic = ?1 group by partition",
            )?;
            let rows = query.query_map([READINGS_TOPIC], |row| {
                Ok(Activation { partition: row.get(0)?, from_offset: row.get(1)?, catalogue_hash: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub(super) async fn catalogue(&self, hash: &str) -> Result<Option<String>, Error> {
        let hash = hash.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached("select document from catalogue where hash = ?1")?;
            Ok(query.query_row([&hash], |row| row.get(0)).optional()?)
        })
        .await
    }
}

/// Records a catalogue and where it takes effect. Two switches at one offset leave the second: nothing lay between.
pub(super) fn activate(transaction: &Transaction<'_>, activation: &Activation, document: &str) -> Result<(), Error> {
    transaction
        .prepare_cached("insert into catalogue (hash, document) values (?1, ?2) on conflict do nothing")?
        .execute([&*activation.catalogue_hash, document])?;
    transaction
        .prepare_cached(
            "insert into activation (topic, partition, from_offset, catalogue_hash) values (?1, ?2, ?3, ?4)
             on conflict do update set catalogue_hash = excluded.catalogue_hash",
        )?
        .execute(params![READINGS_TOPIC, activation.partition, activation.from_offset, activation.catalogue_hash])?;
    Ok(())
}
