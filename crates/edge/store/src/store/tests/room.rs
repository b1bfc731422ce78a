//! Where a store of a test lives: a file, or two databases of its own.

use super::Store;
use crate::postgres::{Pools, Sizes, Which, migrate, scratch::Scratch};
use std::path::PathBuf;
use tokio_postgres::SimpleQueryMessage;

pub(super) enum Room {
    File(tempfile::TempDir),
    Plant { ai: Scratch, main: Scratch },
}

/// Runs tests of what every variant promises against each.
macro_rules! contract {
    ($($name:ident,)*) => {
        mod file {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Room::file()).await;
            })*
        }
        mod plant {
            $(#[tokio::test]
            async fn $name() {
                if let Some(room) = super::Room::plant().await {
                    super::$name(room).await;
                }
            })*
        }
    };
}
pub(super) use contract;

impl Room {
    pub(super) fn file() -> Room {
        Room::File(tempfile::tempdir().unwrap())
    }

    pub(super) async fn plant() -> Option<Room> {
        let (ai, main) = (Scratch::new(Which::Ai).await?, Scratch::new(Which::Main).await?);
        migrate(&ai.url(), Which::Ai).await.unwrap();
        migrate(&main.url(), Which::Main).await.unwrap();
        Some(Room::Plant { ai, main })
    }

    pub(super) fn open(&self) -> Store {
        match self {
            Room::File(_) => Store::open(&self.path()).unwrap(),
            Room::Plant { ai, main } => {
                let sizes = Sizes { write: 3, read: 3 };
                let pools = |scratch: &Scratch, which| Pools::new(&scratch.url(), which, "test", sizes).unwrap();
                Store::postgres(pools(ai, Which::Ai), pools(main, Which::Main))
            }
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        match self {
            Room::File(folder) => folder.path().join("store.db"),
            Room::Plant { .. } => panic!("a plant is no file"),
        }
    }

    /// The bytes that are announced for an alert: those of `jsonb` in a plant.
    pub(super) async fn announced(&self, json: &str) -> String {
        match self {
            Room::File(_) => json.to_owned(),
            Room::Plant { ai, .. } => {
                let client = connect(ai).await;
                client.query_one("select $1::text::jsonb::text", &[&json]).await.unwrap().get(0)
            }
        }
    }

    /// First column of what a statement about the portal's tables gives.
    pub(super) async fn raw(&self, sql: &str) -> Result<Vec<Option<String>>, String> {
        match self {
            Room::File(_) => {
                let connection = rusqlite::Connection::open(self.path()).unwrap();
                let mut statement = connection.prepare(sql).map_err(|error| error.to_string())?;
                let text = |value: rusqlite::types::Value| match value {
                    rusqlite::types::Value::Integer(number) => Some(number.to_string()),
                    rusqlite::types::Value::Text(text) => Some(text),
                    _ => None,
                };
                let rows = statement.query_map([], |row| row.get(0).map(text)).map_err(|error| error.to_string())?;
                rows.collect::<Result<_, _>>().map_err(|error| error.to_string())
            }
            Room::Plant { main, .. } => raw(main, sql).await,
        }
    }

    /// As [`Room::raw`], in a plant's AI database.
    pub(super) async fn raw_ai(&self, sql: &str) -> Vec<Option<String>> {
        let Room::Plant { ai, .. } = self else { panic!("a file has one database") };
        raw(ai, sql).await.unwrap()
    }

    /// Lets the audit log be changed.
    pub(super) async fn unlock_audit(&self) {
        let triggers: &[&str] = match self {
            Room::File(_) => &["drop trigger audit_is_not_changed", "drop trigger audit_is_not_deleted"],
            Room::Plant { .. } => &["drop trigger audit_is_not_changed on audit"],
        };
        for trigger in triggers {
            self.raw(trigger).await.unwrap();
        }
    }
}

pub(super) async fn connect(scratch: &Scratch) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&scratch.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn raw(scratch: &Scratch, sql: &str) -> Result<Vec<Option<String>>, String> {
    let messages = connect(scratch).await.simple_query(sql).await.map_err(|error| error.to_string())?;
    let first = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(first).collect())
}
