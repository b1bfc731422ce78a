//! Saved engine state, in slabs.

use super::{Error, Store, commit::next_offset};
use rusqlite::params;
use wire::READINGS_TOPIC;

/// Bytes of slabs that one transaction writes: an alert's commit waits for no more than this.
pub(super) const TRANSACTION_BYTES: usize = 4 << 20;
/// Fast, and a slab of like machines shrinks to a third.
const ZSTD_LEVEL: i32 = 1;

impl Store {
    /// Saves slabs of a partition that are true at `offset`. Returns once all are durable; between them commits of detect
    /// go on. A slab that is newer already stays: a detector that was fenced off writes its state too late.
    ///
    /// # Errors
    /// [`Error::Fenced`]: the committed position is below `offset`, so that a restart from these slabs would skip
    /// effects. Else the file cannot be written.
    pub async fn save_slabs(&self, partition: u16, slabs: Vec<(u32, Vec<u8>)>, offset: i64) -> Result<(), Error> {
        let mut slabs = slabs.into_iter().peekable();
        while slabs.peek().is_some() {
            let mut some = Vec::new();
            let mut bytes = 0;
            while let Some(slab) = slabs.next_if(|(_, slab)| some.is_empty() || bytes + slab.len() <= TRANSACTION_BYTES)
            {
                bytes += slab.1.len();
                some.push(slab);
            }
            let packed = tokio::task::spawn_blocking(move || pack(some)).await.map_err(|_| Error::Panicked)??;
            self.write(move |transaction| {
                let found = next_offset(transaction, READINGS_TOPIC, partition)?;
                if found < offset {
                    return Err(Error::Fenced { partition, expected: offset, found });
                }
                let mut insert = transaction.prepare_cached(
                    r#"insert into snapshot (partition, slab, "offset", bytes) values (?1, ?2, ?3, ?4)
                       on conflict do update set "offset" = excluded."offset", bytes = excluded.bytes
                       where excluded."offset" >= snapshot."offset""#,
                )?;
                for (slab, bytes) in &packed {
                    insert.execute(params![partition, slab, offset, bytes])?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The slabs of a partition, as [`engine::Engine::snapshot`] gave them.
    ///
    /// # Errors
    /// The file cannot be read, or a slab cannot be unpacked.
    pub async fn load_slabs(&self, partition: u16) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("select slab, bytes from snapshot where partition = ?1 order by slab")?;
            let mut rows = query.query([partition])?;
            let mut slabs = Vec::new();
            while let Some(row) = rows.next()? {
                let slab: u32 = row.get(0)?;
                let damaged = || Error::Damaged(format!("snapshot slab {slab} of partition {partition}"));
                let packed = row.get_ref(1)?.as_blob().map_err(|_| damaged())?;
                slabs.push((slab, zstd::stream::decode_all(packed).map_err(|_| damaged())?));
            }
            Ok(slabs)
        })
        .await
    }

    /// Forgets the snapshot of a partition, when it cannot be read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn drop_slabs(&self, partition: u16) -> Result<(), Error> {
        self.write(move |transaction| {
            transaction.execute("delete from snapshot where partition = ?1", [partition])?;
            Ok(())
        })
        .await
    }
}

fn pack(slabs: Vec<(u32, Vec<u8>)>) -> Result<Vec<(u32, Vec<u8>)>, Error> {
    let pack = |(slab, bytes): (u32, Vec<u8>)| {
        let packed = zstd::bulk::compress(&bytes, ZSTD_LEVEL);
        Ok((slab, packed.map_err(|_| Error::Damaged(format!("snapshot slab {slab}")))?))
    };
    slabs.into_iter().map(pack).collect()
}
