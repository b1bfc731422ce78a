//! Under which catalogues ingest took the records of a partition.

use super::{Error, History};
use crate::Activation;
use rusqlite::params;
use wire::READINGS_TOPIC;

impl History {
    /// Every activation of a partition that is flushed, by offset.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn activations(&self, partition: u16) -> Result<Vec<Activation>, Error> {
        self.inner
            .read(move |connection| {
                let mut query = connection.prepare_cached(
                    "select from_offset, catalogue_hash from activation where topic = ?1 and partition = ?2
                     order by from_offset",
                )?;
                let rows = query.query_map(params![READINGS_TOPIC, partition], |row| {
                    Ok(Activation { partition, from_offset: row.get(0)?, catalogue_hash: row.get(1)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}
