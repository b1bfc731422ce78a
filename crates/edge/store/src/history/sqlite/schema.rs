//! Numbered migrations of `history.db`; `user_version` is the number of the last one.

use super::Error;
use rusqlite::{Connection, TransactionBehavior};

/// In order; never edited once released.
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/sqlite/history/0001_history.sql")];

/// Marks the file as ours: "MWhi".
const APPLICATION_ID: i64 = 0x4d57_6869;

/// Brings a file to the newest schema, each migration in its own transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: u32 = connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(Error::NotOurs);
    }
    let known = MIGRATIONS.len() as u32;
    if found > known {
        return Err(Error::Schema { known, found });
    }
    for (number, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have migrated since the version was read.
        if transaction.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))? < number {
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
        transaction.commit()?;
    }
    Ok(())
}
