//! Numbered migrations, each in its own transaction; `schema_migration` holds those that were applied.
//!
//! Each works while the previous release still runs, so a database that is ahead of this release is no error.

use super::{Error, Which, pool};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Name and text, in order; the name begins with the number. Never edited once released.
type Files = &'static [(&'static str, &'static str)];

const MAIN: Files = &[
    ("0001_main", include_str!("../../migrations/postgres/main/0001_main.sql")),
    ("0002_portal", include_str!("../../migrations/postgres/main/0002_portal.sql")),
    ("0003_alert_time", include_str!("../../migrations/postgres/main/0003_alert_time.sql")),
    ("0004_portals", include_str!("../../migrations/postgres/main/0004_portals.sql")),
];
const AI: Files = &[
    ("0001_detect", include_str!("../../migrations/postgres/ai/0001_detect.sql")),
    ("0002_relay", include_str!("../../migrations/postgres/ai/0002_relay.sql")),
];

/// Held by who migrates: "MWmi". Databases have their locks apart.
const LOCK: i64 = 0x4d57_6d69;

const BOOKS: &str = "create table if not exists schema_migration (
    number     integer     not null primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now()
)";

/// A migration that this release has or that the database has applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Migration {
    pub number: u32,
    pub name: String,
    /// Microseconds since 1970; `None`: not applied.
    pub applied_us: Option<i64>,
    /// A later release's.
    pub newer: bool,
}

/// Brings a database to this release's schema; the names of what was applied. Several may call it at once.
///
/// # Errors
/// The database is not reachable or refuses a migration (which then leaves nothing), or an applied one was edited.
pub async fn migrate(url: &str, which: Which) -> Result<Vec<&'static str>, Error> {
    let mut client = pool::connect(url, which).await?;
    // Who may not make tables can still start where nothing is to be made.
    let mut applied = applied(&client).await?;
    check(which, &applied)?;
    let mut done = Vec::new();
    for (number, (name, sql)) in numbered(which) {
        if applied.contains_key(&number) {
            continue;
        }
        let transaction = client.transaction().await?;
        transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        transaction.batch_execute(BOOKS).await?;
        // Another process may have been faster.
        let missing = transaction
            .execute(
                "insert into schema_migration (number, name, checksum) values ($1, $2, $3) on conflict do nothing",
                &[&number.cast_signed(), name, &checksum(sql)],
            )
            .await?;
        if missing == 1 {
            transaction.batch_execute(sql).await?;
            done.push(*name);
        }
        transaction.commit().await?;
        if missing == 0 {
            applied = self::applied(&client).await?;
            check(which, &applied)?;
        }
    }
    Ok(done)
}

/// Every migration of this release, and those of later ones that were applied, in order.
///
/// # Errors
/// The database is not reachable, or an applied migration was edited.
pub async fn status(url: &str, which: Which) -> Result<Vec<Migration>, Error> {
    let client = pool::connect(url, which).await?;
    let mut applied = applied(&client).await?;
    check(which, &applied)?;
    let known = numbered(which).map(|(number, (name, _))| Migration {
        number,
        name: (*name).to_owned(),
        applied_us: applied.remove(&number).map(|applied| applied.at_us),
        newer: false,
    });
    let mut all: Vec<Migration> = known.collect();
    all.extend(applied.into_iter().map(|(number, Applied { name, at_us, .. })| Migration {
        number,
        name,
        applied_us: Some(at_us),
        newer: true,
    }));
    Ok(all)
}

struct Applied {
    name: String,
    checksum: String,
    at_us: i64,
}

fn files(which: Which) -> Files {
    match which {
        Which::Main => MAIN,
        Which::Ai => AI,
    }
}

/// Number, name and text.
fn numbered(which: Which) -> impl Iterator<Item = (u32, &'static (&'static str, &'static str))> {
    files(which).iter().map(|file| {
        let (number, _) = file.0.split_once('_').expect("a name is NNNN_words");
        (number.parse().expect("a name begins with a number"), file)
    })
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn applied(client: &Client) -> Result<BTreeMap<u32, Applied>, Error> {
    let there: bool = client.query_one("select to_regclass('schema_migration') is not null", &[]).await?.try_get(0)?;
    if !there {
        return Ok(BTreeMap::new());
    }
    let sql = "select number, name, checksum, (extract(epoch from applied_at) * 1000000)::bigint from schema_migration";
    let rows = client.query(sql, &[]).await?;
    let read = |row: &tokio_postgres::Row| {
        let number: i32 = row.try_get(0)?;
        Ok((
            number.cast_unsigned(),
            Applied { name: row.try_get(1)?, checksum: row.try_get(2)?, at_us: row.try_get(3)? },
        ))
    };
    rows.iter().map(read).collect()
}

fn check(which: Which, applied: &BTreeMap<u32, Applied>) -> Result<(), Error> {
    for (number, (name, sql)) in numbered(which) {
        if applied.get(&number).is_some_and(|applied| applied.checksum != checksum(sql)) {
            return Err(Error::Edited { which, name: (*name).to_owned() });
        }
    }
    Ok(())
}
