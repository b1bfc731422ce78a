//! Windows in which machines are worked on, in the main database.

use super::{Error, Postgres, connect, execute, query};
use crate::store::{MaintenanceRow, maintenance::role};
use deadpool_postgres::GenericClient;

impl Postgres {
    pub(in crate::store) async fn maintenance_after(&self, at_us: i64) -> Result<Vec<MaintenanceRow>, Error> {
        self.maintenance_where("until_us", at_us).await
    }

    pub(super) async fn maintenance_since(&self, edition: i64) -> Result<Vec<MaintenanceRow>, Error> {
        self.maintenance_where("edition", edition).await
    }

    async fn maintenance_where(&self, column: &str, above: i64) -> Result<Vec<MaintenanceRow>, Error> {
        let client = connect(&self.main.read).await?;
        let sql = format!(
            "select machine_id, from_us, until_us, reason, by, role from maintenance where {column} > $1
             order by machine_id, from_us"
        );
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
        query(&client, &sql, &[&above]).await?.iter().map(row).collect()
    }
}

pub(super) async fn put(client: &impl GenericClient, row: &MaintenanceRow, edition: i64) -> Result<(), Error> {
    let MaintenanceRow { machine_id, from_us, until_us, reason, by, role } = row;
    let sql = "insert into maintenance (machine_id, from_us, until_us, reason, by, role, edition)
            values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (machine_id, from_us) do update set until_us = excluded.until_us, reason = excluded.reason,
            by = excluded.by, role = excluded.role, edition = excluded.edition";
    execute(client, sql, &[machine_id, from_us, until_us, reason, by, &role.as_str(), &edition]).await?;
    Ok(())
}
