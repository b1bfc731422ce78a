//! Saved engine state, in slabs.

use super::{Error, Patience, Postgres, column, connect, execute, next_offset, query};
use crate::store::snapshots::{Packs, unpack};
use wire::READINGS_TOPIC;

impl Postgres {
    pub(in crate::store) async fn save_slabs(
        &self,
        partition: u16,
        slabs: Vec<(u32, Vec<u8>)>,
        offset: i64,
    ) -> Result<(), Error> {
        let mut packs = Packs::new(slabs);
        let mut patience = Patience::new("a snapshot");
        while let Some(packed) = packs.next().await? {
            // Written twice it is the same.
            while let Err(error) = self.try_save(partition, &packed, offset).await {
                patience.after(error).await?;
            }
        }
        Ok(())
    }

    async fn try_save(&self, partition: u16, packed: &[(u32, Vec<u8>)], offset: i64) -> Result<(), Error> {
        let mut client = connect(&self.ai.write).await?;
        let transaction = client.transaction().await?;
        let found = next_offset(&transaction, READINGS_TOPIC, partition).await?;
        if found < offset {
            return Err(Error::Fenced { partition, expected: offset, found });
        }
        let sql = r#"insert into snapshot (partition, slab, "offset", bytes)
            select $1, slab, $2, bytes from unnest($3::bigint[], $4::bytea[]) packed (slab, bytes) order by slab
            on conflict (partition, slab) do update set "offset" = excluded."offset", bytes = excluded.bytes
            where excluded."offset" >= snapshot."offset""#;
        let slabs = column(packed.iter(), |(slab, _)| i64::from(*slab));
        let bytes = column(packed.iter(), |(_, bytes)| &**bytes);
        execute(&transaction, sql, &[&i32::from(partition), &offset, &slabs, &bytes]).await?;
        Ok(transaction.commit().await?)
    }

    pub(in crate::store) async fn load_slabs(&self, partition: u16) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let client = connect(&self.ai.read).await?;
        let sql = "select slab, bytes from snapshot where partition = $1 order by slab";
        let rows = query(&client, sql, &[&i32::from(partition)]).await?;
        let slab = |row: &tokio_postgres::Row| {
            let slab: i64 = row.try_get(0)?;
            let slab = u32::try_from(slab).map_err(|_| Error::Damaged(format!("snapshot slab {slab}")))?;
            Ok((slab, unpack(partition, slab, row.try_get(1)?)?))
        };
        rows.iter().map(slab).collect()
    }

    pub(in crate::store) async fn drop_slabs(&self, partition: u16) -> Result<(), Error> {
        let client = connect(&self.ai.write).await?;
        execute(&client, "delete from snapshot where partition = $1", &[&i32::from(partition)]).await?;
        Ok(())
    }
}
