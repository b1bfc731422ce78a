//! Windows in which machines are worked on, in the main database.

use super::{Error, Postgres, connect, execute, query};
use crate::store::{MaintenanceRow, maintenance::role};
use deadpool_postgres::GenericClient;

impl Postgres {
    pub(in crate::store) async fn maintenance_after(&self, at_us: i64) -> Result<Vec<MaintenanceRow>, Error> {
        let client = connect(&self.main.read).await?;
        let sql = "select machine_id, from_us, until_us, reason, by, role from maintenance where until_us > $1
                   order by machine_id, from_us";
        let row = |row: &tokio_postgres::Row| {
            let machine_id: String = row.try_get(0)?;
            Ok(MaintenanceRow {
                from_us: row.try_get(1)?,
                until_us: row.try_get(2)?,
                reason: row.try_get(3)?,
                by: row.try_get(4)?,
                role: role(row.try_get(5)?, &machine_id)?,
                machine_id,
            })
        };
        query(&client, sql, &[&at_us]).await?.iter().map(row).collect()
    }
}

pub(super) async fn put(client: &impl GenericClient, row: &MaintenanceRow) -> Result<(), Error> {
    let MaintenanceRow { machine_id, from_us, until_us, reason, by, role } = row;
    let sql =
        "insert into maintenance (machine_id, from_us, until_us, reason, by, role) values ($1, $2, $3, $4, $5, $6)
        on conflict (machine_id, from_us) do update set until_us = excluded.until_us, reason = excluded.reason,
            by = excluded.by, role = excluded.role";
    execute(client, sql, &[machine_id, from_us, until_us, reason, by, &role.as_str()]).await?;
    Ok(())
}
