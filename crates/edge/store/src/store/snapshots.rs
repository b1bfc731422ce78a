//! Saved engine state, in slabs.

use super::{Error, Sqlite, commit::next_offset};
use rusqlite::params;
use wire::READINGS_TOPIC;

/// Bytes of slabs that one transaction writes: an alert's commit waits for no more than this.
pub(super) const TRANSACTION_BYTES: usize = 4 << 20;
/// Fast, and a slab of like machines shrinks to a third.
const ZSTD_LEVEL: i32 = 1;

impl Sqlite {
    pub(super) async fn save_slabs(
        &self,
        partition: u16,
        slabs: Vec<(u32, Vec<u8>)>,
        offset: i64,
    ) -> Result<(), Error> {
        let mut packs = Packs::new(slabs);
        while let Some(packed) = packs.next().await? {
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

    pub(super) async fn load_slabs(&self, partition: u16) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("select slab, bytes from snapshot where partition = ?1 order by slab")?;
            let mut rows = query.query([partition])?;
            let mut slabs = Vec::new();
            while let Some(row) = rows.next()? {
                let slab: u32 = row.get(0)?;
                let packed = row.get_ref(1)?.as_blob().unwrap_or_default();
                slabs.push((slab, unpack(partition, slab, packed)?));
            }
            Ok(slabs)
        })
        .await
    }

    pub(super) async fn drop_slabs(&self, partition: u16) -> Result<(), Error> {
        self.write(move |transaction| {
            transaction.execute("delete from snapshot where partition = ?1", [partition])?;
            Ok(())
        })
        .await
    }
}

/// Slabs, packed in the portions that one transaction writes.
pub(super) struct Packs(std::iter::Peekable<std::vec::IntoIter<(u32, Vec<u8>)>>);

impl Packs {
    pub(super) fn new(slabs: Vec<(u32, Vec<u8>)>) -> Packs {
        Packs(slabs.into_iter().peekable())
    }

    /// The next portion.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<(u32, Vec<u8>)>>, Error> {
        let mut some = Vec::new();
        let mut bytes = 0;
        while let Some(slab) = self.0.next_if(|(_, slab)| some.is_empty() || bytes + slab.len() <= TRANSACTION_BYTES) {
            bytes += slab.1.len();
            some.push(slab);
        }
        if some.is_empty() {
            return Ok(None);
        }
        tokio::task::spawn_blocking(move || pack(some).map(Some)).await.map_err(|_| Error::Panicked)?
    }
}

fn pack(slabs: Vec<(u32, Vec<u8>)>) -> Result<Vec<(u32, Vec<u8>)>, Error> {
    let pack = |(slab, bytes): (u32, Vec<u8>)| {
        let packed = zstd::bulk::compress(&bytes, ZSTD_LEVEL);
        Ok((slab, packed.map_err(|_| Error::Damaged(format!("snapshot slab {slab}")))?))
    };
    slabs.into_iter().map(pack).collect()
}

pub(super) fn unpack(partition: u16, slab: u32, packed: &[u8]) -> Result<Vec<u8>, Error> {
    zstd::stream::decode_all(packed)
        .map_err(|_| Error::Damaged(format!("snapshot slab {slab} of partition {partition}")))
}
