//! Connections and their settings: one pool for writing, one for reading, so that readers never take a writer's place.

use super::{
    Error, Which,
    tls::{self, Tls},
};
use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use dependency::{Dependencies, Dependency};
use std::time::Duration;
use tokio_postgres::Config;

/// Longest wait for a free connection.
const ACQUIRE: Duration = Duration::from_secs(3);
/// Longest wait for a new one.
const CONNECT: Duration = Duration::from_secs(3);
/// Silence after which either side asks whether the other is there, and between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Unacknowledged bytes for so long: the connection is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// The server asks too: a paused writer would hold its locks (GUARANTEES.md 1). Times are UTC and tables lie in `public`,
/// whatever the role's own settings say.
const ALWAYS: &str = "-c timezone=UTC -c search_path=public -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 \
                      -c tcp_keepalives_count=2";
const WRITING: &str =
    "-c idle_in_transaction_session_timeout=2s -c lock_timeout=1s -c statement_timeout=10s -c synchronous_commit=on";
const READING: &str =
    "-c idle_in_transaction_session_timeout=10s -c statement_timeout=10s -c default_transaction_read_only=on";
/// Migrations may rewrite a table; what they wait for, others wait for behind them.
const MIGRATING: &str = "-c lock_timeout=10s -c statement_timeout=0";

/// Most connections of each pool.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Sizes {
    pub write: usize,
    pub read: usize,
}

/// Connections for one kind of work. As long as the database is known to be away nobody waits for one.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    database: Dependency,
}

impl Pool {
    /// A connection.
    ///
    /// # Errors
    /// The database is away, or gives none in time.
    pub async fn get(&self) -> Result<Object, Error> {
        match self.database.away() {
            Some(away) => Err(Error::Away(away)),
            None => Ok(self.connections.get().await?),
        }
    }

    /// Gives no connection any more.
    pub fn close(&self) {
        self.connections.close();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.connections.is_closed()
    }
}

/// The pools of a database. Clones share them.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Pools {
    pub write: Pool,
    pub read: Pool,
}

impl Pools {
    /// Pools that connect when first asked; `service` is told to the database as who it is.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(url: &str, which: Which, service: &str, sizes: Sizes) -> Result<Pools, Error> {
        let (config, tls) = config(url, which)?;
        let pool = |what: &str, settings: &str, size: usize| {
            let mut config = config.clone();
            config.application_name(format!("millwright {service} {what}"));
            set(&mut config, settings);
            let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
            let connections = deadpool_postgres::Pool::builder(Manager::from_config(config, tls.connect(), manager))
                .max_size(size)
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(ACQUIRE))
                .create_timeout(Some(CONNECT))
                .recycle_timeout(Some(CONNECT))
                .build()
                .expect("timeouts have a runtime");
            Pool { connections, database: Dependency::default() }
        };
        Ok(Pools { write: pool("write", WRITING, sizes.write), read: pool("read", READING, sizes.read) })
    }

    /// The same, of a database that is looked after ([`watch`]).
    #[must_use]
    pub fn looked_after(mut self, database: &Dependency) -> Pools {
        self.write.database = database.clone();
        self.read.database = database.clone();
        self
    }
}

/// What of a database's rows waits for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Messages to people that no channel has taken yet; in the main database.
    Notifications,
    /// Bytes of log that logical slots keep; in the AI database that is what no relay has passed on.
    OutboxLog,
}

impl Waiting {
    /// As readiness shows it.
    fn name(self) -> &'static str {
        match self {
            Waiting::Notifications => "notifications",
            Waiting::OutboxLog => "outbox_log_bytes",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Waiting::Notifications => "select count(*) from notification where state = 'waiting'",
            Waiting::OutboxLog => {
                "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::bigint
                 from pg_replication_slots where database = current_database() and slot_type = 'logical'"
            }
        }
    }
}

/// Asks a database again and again whether it answers, on a connection of its own, for as long as it is polled; what waits
/// in it is counted for `all`.
pub async fn watch(
    url: &str,
    which: Which,
    service: &str,
    waiting: Option<Waiting>,
    all: &Dependencies,
    database: &Dependency,
) {
    let mut connection: Option<tokio_postgres::Client> = None;
    let sql = waiting.map_or("select 0::bigint", Waiting::sql);
    let count = |found| {
        if let Some(waiting) = waiting {
            all.buffer(waiting.name(), found);
        }
    };
    let ask = async || {
        // Taken out: one that does not answer in time is not asked again.
        let client = match connection.take() {
            Some(client) => client,
            None => {
                count(None);
                let (mut config, tls) = config(url, which)?;
                config.application_name(format!("millwright {service} watch"));
                set(&mut config, READING);
                let (client, connection) = match config.connect(tls.connect()).await {
                    Err(error) if !is_away(&error) => return Ok(()),
                    connected => connected?,
                };
                tokio::spawn(connection);
                client
            }
        };
        let found = client.query_one(sql, &[]).await.and_then(|row| row.try_get(0));
        count(found.as_ref().ok().copied());
        match found {
            Err(error) if is_away(&error) => return Err(Error::Client(error)),
            _ => connection = Some(client),
        }
        Ok(())
    };
    database.watch(ask).await;
}

/// Whether nobody answered, or one who is going or not there yet; a refusal is an answer.
fn is_away(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P") || code.code().starts_with("08"))
}

/// A connection of its own, for migrations.
pub(super) async fn connect(url: &str, which: Which) -> Result<tokio_postgres::Client, Error> {
    let (mut config, tls) = config(url, which)?;
    config.application_name(format!("millwright migrate {}", which.as_str()));
    set(&mut config, MIGRATING);
    let (client, connection) = config.connect(tls.connect()).await?;
    // It ends with the client, which then says why.
    tokio::spawn(connection);
    Ok(client)
}

pub(super) fn config(url: &str, which: Which) -> Result<(Config, Tls), Error> {
    let (mut config, tls) = tls::address(url, which)?;
    config
        .connect_timeout(CONNECT)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(2)
        .tcp_user_timeout(UNACKNOWLEDGED);
    set(&mut config, ALWAYS);
    Ok((config, tls))
}

/// Adds settings of the session to those that the address gives.
fn set(config: &mut Config, settings: &str) {
    let options = config.get_options().map_or_else(|| settings.to_owned(), |given| format!("{given} {settings}"));
    config.options(options);
}
