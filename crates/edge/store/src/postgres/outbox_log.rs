//! The outbox as PostgreSQL's log tells of it: transactions in order of commit, by logical replication.
//!
//! One slot keeps the log until [`OutboxLog::confirm`]. Who reads must not trust the slot alone: after a crash of either
//! side it may stand further back than what was published (GUARANTEES.md 1, Relay).

mod bridge;
mod pgoutput;

use super::{Which, pool, tls::Tls};
use futures_util::FutureExt;
use pgoutput::Decoder;
use pgwire_replication::{Lsn, PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent};
use std::{collections::VecDeque, fmt, time::Duration};
use tokio_postgres::config::Host;

/// The publication that the migrations make.
const PUBLICATION: &str = "millwright_outbox";
/// Confirmed positions are told at least so often, and keep the connection alive.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A row is at most this large: PostgreSQL's own limit of a value, well below that of a message.
const MESSAGE_MAX: usize = 256 << 20;
/// A server that hears nothing for so long gives the slot to who asks for it.
const SERVER_OPTIONS: &str = "-c wal_sender_timeout=5s -c lock_timeout=1s";

/// First half of the advisory lock of a slot, which is waited for as long as for any lock.
const LOCKS: i32 = 0x6D77_7273;
/// The server's code for a lock that did not come in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("address of the ai database")]
    Address(#[from] super::Error),
    #[error("the address of the ai database names no host")]
    NoHost,
    #[error("connect to the ai database")]
    Connect(#[from] std::io::Error),
    #[error("logical replication")]
    Replication(#[from] PgWireError),
    #[error("logical replication: {0}")]
    Unexpected(&'static str),
    #[error("decode the outbox")]
    Decode(#[from] pgoutput::Error),
    #[error("the server ended the stream")]
    Ended,
    #[error("another relay is at work on slot {0}")]
    Taken(String),
}

/// Where a transaction ends in the log of one history of one database cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition(u64);

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Lsn::from_u64(self.0).fmt(f)
    }
}

impl std::str::FromStr for LogPosition {
    type Err = ();

    fn from_str(text: &str) -> Result<LogPosition, ()> {
        Lsn::parse(text).map(|lsn| LogPosition(lsn.as_u64())).map_err(|_| ())
    }
}

/// A row of the outbox, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of the outbox")]
pub struct OutboxRow {
    pub id: String,
    pub aggregateid: String,
    pub kind: String,
    /// The text of the jsonb, byte for byte as PostgreSQL writes it.
    pub payload: String,
    pub traceparent: Option<String>,
}

/// What the log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub enum Logged {
    /// A transaction that was committed; without rows where it touched other tables only.
    Transaction { end: LogPosition, rows: Vec<OutboxRow> },
    /// Nothing came up to here that was not told before.
    Idle { at: LogPosition },
}

/// Whose log it is: positions of another cluster or timeline say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Cluster {
    pub system_id: String,
    pub timeline: u32,
}

/// The state of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// It keeps the log from where it was confirmed.
    Kept,
    /// It is there, and what it should have kept is gone.
    Lost,
    /// There is none.
    None,
}

/// A slot that was made: its snapshot shows everything that the slot will not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Made {
    pub from: LogPosition,
    /// For `set transaction snapshot`, until the session does anything else.
    pub snapshot: String,
}

/// A session that has not begun to stream.
pub struct Session {
    client: ReplicationClient,
    slot: String,
}

impl Session {
    /// Connects to the AI database; `slot` is made of lower-case letters, digits and `_`. The slot is this session's until
    /// it ends: whoever makes it, heals or streams has nobody beside it.
    ///
    /// # Errors
    /// [`Error::Taken`]; the address is none, or the server refuses.
    pub fn connect(url: &str, slot: &str) -> impl Future<Output = Result<Session, Error>> {
        let config = replication(url, slot);
        let slot = slot.to_owned();
        async move {
            let (config, tls) = config?;
            let mut client = ReplicationClient::connect_gated(bridge::over_tls(config, &tls).await?).await?;
            match client.simple_query(&format!("select pg_advisory_lock({LOCKS}, hashtext('{slot}'))")).await {
                Ok(_) => Ok(Session { client, slot }),
                Err(PgWireError::Server(told)) if told.contains(LOCK_NOT_AVAILABLE) => Err(Error::Taken(slot)),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Whose log it is.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn cluster(&mut self) -> Result<Cluster, Error> {
        let system = self.client.identify_system().await?;
        Ok(Cluster { system_id: system.system_id, timeline: system.timeline })
    }

    /// How the slot stands.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn slot(&mut self) -> Result<Slot, Error> {
        let sql = format!(
            "select wal_status from pg_replication_slots where slot_name = '{}' and database = current_database()",
            self.slot
        );
        let rows = self.client.simple_query(&sql).await?;
        Ok(match rows.first().map(|row| row.first().cloned().flatten()) {
            None => Slot::None,
            Some(Some(status)) if &*status == b"lost" => Slot::Lost,
            Some(_) => Slot::Kept,
        })
    }

    /// Makes the slot, in place of one that is there.
    ///
    /// # Errors
    /// The server is gone, has no slot to spare, or another session reads from the slot.
    pub async fn make_slot(&mut self, there: Slot) -> Result<Made, Error> {
        if there != Slot::None {
            self.client.simple_query(&format!("select pg_drop_replication_slot('{}')", self.slot)).await?;
        }
        // Commands of the replication protocol are known in capitals only.
        let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')", self.slot);
        let rows = self.client.simple_query(&sql).await?;
        let text = |at: usize| {
            let value = rows.first().and_then(|row| row.get(at)).cloned().flatten();
            value.and_then(|value| String::from_utf8(value.to_vec()).ok())
        };
        let from = text(1).and_then(|text| text.parse().ok());
        match (from, text(2)) {
            (Some(from), Some(snapshot)) => Ok(Made { from, snapshot }),
            _ => Err(Error::Unexpected("the answer to CREATE_REPLICATION_SLOT has another form")),
        }
    }

    /// Streams from where the slot was confirmed.
    ///
    /// # Errors
    /// Another session reads from the slot, or the server is gone.
    pub async fn stream(mut self) -> Result<OutboxLog, Error> {
        self.client.start().await?;
        self.client.wait_started().await?;
        Ok(OutboxLog { client: self.client, decoder: Decoder::default(), open: None, told: VecDeque::new() })
    }
}

fn replication(url: &str, slot: &str) -> Result<(ReplicationConfig, Tls), Error> {
    let (config, tls) = pool::config(url, Which::Ai)?;
    let host = config.get_hosts().first().ok_or(Error::NoHost)?;
    let host = match host {
        Host::Tcp(host) => host.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let user = config.get_user().unwrap_or("postgres").to_owned();
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let database = config.get_dbname().unwrap_or(&user).to_owned();
    let replication = ReplicationConfig::new(host, user, password, database, slot, PUBLICATION)
        .with_port(config.get_ports().first().copied().unwrap_or(5432))
        .with_status_interval(STATUS_EVERY)
        .with_wakeup_interval(STATUS_EVERY)
        .with_max_message_size(MESSAGE_MAX)
        .with_options(SERVER_OPTIONS)
        .with_application_name("millwright relay");
    Ok((replication, tls))
}

/// A running stream.
pub struct OutboxLog {
    client: ReplicationClient,
    decoder: Decoder,
    /// Rows of the transaction that is being told.
    open: Option<Vec<OutboxRow>>,
    told: VecDeque<Logged>,
}

impl OutboxLog {
    /// Everything that has come, at least one; waits for it. At most about `rows` rows. Cancel-safe.
    ///
    /// # Errors
    /// The server is gone, or says what this does not understand.
    pub async fn next(&mut self, rows: usize) -> Result<Vec<Logged>, Error> {
        while self.told.is_empty() {
            let event = self.client.recv().await?.ok_or(Error::Ended)?;
            self.take(event)?;
        }
        let mut count = 0;
        while count < rows
            && let Some(event) = self.client.recv().now_or_never()
        {
            self.take(event?.ok_or(Error::Ended)?)?;
            count += 1;
        }
        Ok(self.told.drain(..).collect())
    }

    fn take(&mut self, event: ReplicationEvent) -> Result<(), Error> {
        match event {
            ReplicationEvent::Begin { .. } => self.open = Some(Vec::new()),
            ReplicationEvent::XLogData { data, .. } => {
                if let Some(row) = self.decoder.decode(&data)?
                    && row.relation.table == "public.outbox"
                {
                    let row = OutboxRow {
                        id: row.need("id")?.to_owned(),
                        aggregateid: row.need("aggregateid")?.to_owned(),
                        kind: row.need("type")?.to_owned(),
                        payload: row.need("payload")?.to_owned(),
                        traceparent: row.get("traceparent")?.map(str::to_owned),
                    };
                    let open = self.open.as_mut();
                    open.ok_or(Error::Unexpected("a row stands outside a transaction"))?.push(row);
                }
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                let rows = self.open.take().ok_or(Error::Unexpected("a commit without its begin"))?;
                self.told.push_back(Logged::Transaction { end: LogPosition(end_lsn.as_u64()), rows });
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                // While a transaction is being told, its end will say more.
                if self.open.is_none() {
                    self.told.push_back(Logged::Idle { at: LogPosition(wal_end.as_u64()) });
                }
            }
            ReplicationEvent::Message { .. } => {}
            ReplicationEvent::StoppedAt { .. } => return Err(Error::Ended),
        }
        Ok(())
    }

    /// Everything up to here is published: the server need not keep it.
    pub fn confirm(&self, at: LogPosition) {
        self.client.update_applied_lsn(Lsn::from_u64(at.0));
    }
}

#[cfg(test)]
mod tests;
