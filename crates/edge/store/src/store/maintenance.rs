//! Windows in which machines are worked on.

use super::{Error, Sqlite};
use alarm::Role;
use rusqlite::{Transaction, params};

/// A window in which a person works on a machine: its alarms are silent by design.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct MaintenanceRow {
    pub machine_id: String,
    pub from_us: i64,
    /// Where it ended early, when.
    pub until_us: i64,
    pub reason: String,
    pub by: String,
    pub role: Role,
}

impl Sqlite {
    pub(super) async fn maintenance_after(&self, at_us: i64) -> Result<Vec<MaintenanceRow>, Error> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "select machine_id, from_us, until_us, reason, by, role from maintenance where until_us > ?1
                 order by machine_id, from_us",
            )?;
            let mut rows = query.query([at_us])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let machine_id: String = row.get(0)?;
                let role: String = row.get(5)?;
                found.push(MaintenanceRow {
                    from_us: row.get(1)?,
                    until_us: row.get(2)?,
                    reason: row.get(3)?,
                    by: row.get(4)?,
                    role: self::role(&role, &machine_id)?,
                    machine_id,
                });
            }
            Ok(found)
        })
        .await
    }
}

/// A role as it is written.
pub(super) fn role(word: &str, machine_id: &str) -> Result<Role, Error> {
    [Role::Viewer, Role::Operator, Role::Engineer, Role::Admin]
        .into_iter()
        .find(|known| known.as_str() == word)
        .ok_or_else(|| Error::Damaged(format!("maintenance of {machine_id}")))
}

pub(super) fn put(transaction: &Transaction<'_>, row: &MaintenanceRow) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "insert into maintenance (machine_id, from_us, until_us, reason, by, role) values (?1, ?2, ?3, ?4, ?5, ?6)
             on conflict do update set until_us = excluded.until_us, reason = excluded.reason, by = excluded.by,
                 role = excluded.role",
        )?
        .execute(params![row.machine_id, row.from_us, row.until_us, row.reason, row.by, row.role.as_str()])?;
    Ok(())
}
