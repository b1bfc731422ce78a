//! A look at a server from outside: what it is set to, what its slots keep, how its clock stands. Changes nothing.

use super::{Error, Which, pool};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_postgres::{Client, config::Host};

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As PostgreSQL counts: 150004 is 15.4.
    pub version: u32,
    /// It takes no writes: a standby, or one that is still recovering.
    pub standby: bool,
    /// `replica`, `logical`, ...
    pub wal_level: String,
    /// `max_slot_wal_keep_size`, bytes; `None`: without bound.
    pub slots_keep: Option<u64>,
    /// The role may read from a slot.
    pub may_replicate: bool,
    /// How far its clock is ahead of this machine's, microseconds.
    pub ahead_us: i64,
    /// So much the time of the answer leaves open, microseconds.
    pub ahead_unsure_us: i64,
    /// Its slots, of every database.
    pub slots: Vec<SlotState>,
}

/// How a replication slot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Its name.
    pub name: String,
    /// Somebody reads from it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub status: String,
    /// Bytes of the log that it keeps.
    pub retained: u64,
}

/// Where an address leads, as it may be shown: host, port and database, no name and no secret.
pub fn place(url: &str, which: Which) -> Option<String> {
    let (config, _) = pool::config(url, which).ok()?;
    let host = match config.get_hosts().first()? {
        Host::Tcp(host) => host.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    Some(format!("{host}:{port}/{}", config.get_dbname().or(config.get_user()).unwrap_or("postgres")))
}

/// Asks a server how it is.
///
/// # Errors
/// It is not reachable, or refuses.
pub async fn look(url: &str, which: Which) -> Result<Server, Error> {
    let client = pool::connect(url, which).await?;
    let row = client
        .query_one(
            "select current_setting('server_version_num')::integer, pg_is_in_recovery(), current_setting('wal_level'), \
             (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'), \
             (select rolsuper or rolreplication from pg_roles where rolname = current_user)",
            &[],
        )
        .await?;
    let (version, standby, wal_level): (i32, bool, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    // Megabytes, -1 without bound; releases before 13 do not know it.
    let keep: Option<i64> = row.try_get(3)?;
    let (ahead_us, ahead_unsure_us) = clock(&client).await?;
    Ok(Server {
        version: version.cast_unsigned(),
        standby,
        wal_level,
        slots_keep: keep.and_then(|megabytes| u64::try_from(megabytes).ok()).map(|megabytes| megabytes << 20),
        may_replicate: row.try_get::<_, Option<bool>>(4)?.unwrap_or(false),
        ahead_us,
        ahead_unsure_us,
        // Releases before 13 do not tell how a slot stands.
        slots: if version >= 130_000 { slots(&client, standby).await? } else { Vec::new() },
    })
}

/// How far the server's clock is ahead, and how unsure that is.
async fn clock(client: &Client) -> Result<(i64, i64), Error> {
    let sql = client.prepare("select (extract(epoch from clock_timestamp()) * 1000000)::bigint").await?;
    let before = now_us();
    let there: i64 = client.query_one(&sql, &[]).await?.try_get(0)?;
    let unsure = (now_us() - before) / 2;
    Ok((there - before - unsure, unsure))
}

async fn slots(client: &Client, standby: bool) -> Result<Vec<SlotState>, Error> {
    let end = if standby { "pg_last_wal_receive_lsn()" } else { "pg_current_wal_lsn()" };
    let sql = format!(
        "select slot_name::text, active, coalesce(wal_status, 'reserved'), \
         greatest(coalesce(pg_wal_lsn_diff({end}, restart_lsn), 0), 0)::bigint \
         from pg_replication_slots order by slot_name"
    );
    let read = |row: &tokio_postgres::Row| {
        let retained: i64 = row.try_get(3)?;
        Ok(SlotState {
            name: row.try_get(0)?,
            active: row.try_get(1)?,
            status: row.try_get(2)?,
            retained: retained.cast_unsigned(),
        })
    };
    client.query(&sql, &[]).await?.iter().map(read).collect()
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_no_secret() {
        let place = |url| place(url, Which::Ai);
        assert_eq!(place("postgresql://mw:geheim@db.plant:5433/ai").as_deref(), Some("db.plant:5433/ai"));
        assert_eq!(place("postgresql://mw:geheim@db.plant").as_deref(), Some("db.plant:5432/mw"));
        assert_eq!(place("nonsense"), None);
    }
}
