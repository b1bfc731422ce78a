//! Live values in Redis: written by the process that judges, read by the process that shows.
//!
//! Redis is a mirror that can be lost: what it held is written again from memory, and nothing else waits for it. Keys of a
//! machine, ids literally as they are:
//!
//! | key | holds |
//! |---|---|
//! | `machine:ID:last_torque`, `:temp_1m_avg`, `:rpm_variance` | decimal text, for readers of the seed's contract |
//! | `machine:ID:status` | a hash for people and other programs; its field `live` is what the portal reads |
//! | `{KEY}:at` | arrival of the reading that KEY tells of: an older value never wins (same slot as KEY in a cluster) |
//! | `millwright:machines` | ids, for a reader that begins |
//! | `millwright:mirror:WRITER` | gone after a flush, so that the writer sees it |
//!
//! Changes are also published on `millwright:live`.

mod look;

pub use look::Node;

use super::{LiveValues, record};
use catalog::{Catalogue, Class};
use dependency::Dependency;
use engine::Live;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, Pipeline, RedisError, RedisFuture, Script, ScriptInvocation,
    TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use wire::decimal_text;

/// Where changes are published.
const CHANNEL: &str = "millwright:live";
/// Ids of every machine.
const MACHINES: &str = "millwright:machines";
/// Changes are gathered for so long.
const GATHER: Duration = Duration::from_millis(100);
/// How often it is asked whether the mirror was flushed.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A machine that says nothing stays so long.
const TTL_S: u64 = 24 * 3600;
/// Machines in one round trip.
const LOT: usize = 500;
/// Commands that are under way at once where they cannot share a pipeline.
const SIDE_BY_SIDE: usize = 64;
/// An answer that takes longer counts as none.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Why the mirror ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("redis")]
    Redis(#[from] RedisError),
    #[error("redis does not answer within {ANSWER_MAX:?}")]
    Silent,
    #[error("redis: the subscription ended")]
    Unsubscribed,
    #[error("read {0}")]
    File(String, #[source] std::io::Error),
    #[error("{0} holds no certificate (PEM)")]
    Empty(String),
    #[error("a certificate and its key go together")]
    Half,
    #[error("certificates have no effect with redis://: write rediss://")]
    Plain,
}

/// PEM files for `rediss://`. An empty path is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsFiles<'a> {
    /// Authorities that servers are checked against, in place of the system's.
    pub ca: &'a str,
    /// This client's certificate, where a server asks for one.
    pub cert: &'a str,
    /// Its key.
    pub key: &'a str,
}

impl TlsFiles<'_> {
    /// What they hold; `None` where there are none.
    fn read(self) -> Result<Option<TlsCertificates>, Error> {
        let read = |path: &str| std::fs::read(path).map_err(|error| Error::File(path.to_owned(), error));
        let client_tls = match (self.cert, self.key) {
            ("", "") => None,
            ("", _) | (_, "") => return Err(Error::Half),
            (cert, key) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        };
        let root_cert = match self.ca {
            "" => None,
            path => {
                let pem = read(path)?;
                // An empty store would be found out with the first connection only.
                if CertificateDer::pem_slice_iter(&pem).next().is_none() {
                    return Err(Error::Empty(path.to_owned()));
                }
                Some(pem)
            }
        };
        Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
    }
}

/// How Redis is reached: one address, or several of a cluster.
#[derive(Debug, Clone)]
pub struct Redis {
    urls: Vec<String>,
    certificates: Option<TlsCertificates>,
    told: Dependency,
}

impl Redis {
    /// From addresses separated by commas, `redis://` or `rediss://` (TLS); more than one is a cluster.
    ///
    /// # Errors
    /// One of them is no such address, or a file of `files` holds nothing that can be used.
    pub fn new(urls: &str, files: TlsFiles) -> Result<Redis, Error> {
        let urls: Vec<String> = urls.split(',').map(|url| url.trim().to_owned()).collect();
        let certificates = files.read()?;
        if certificates.is_some() && urls.iter().any(|url| !url.starts_with("rediss://")) {
            return Err(Error::Plain);
        }
        let redis = Redis { urls, certificates, told: Dependency::default() };
        for url in &redis.urls {
            redis.client(url)?;
        }
        Ok(redis)
    }

    fn client(&self, url: &str) -> Result<Client, Error> {
        Ok(match &self.certificates {
            Some(certificates) => Client::build_with_tls(url, certificates.clone())?,
            None => Client::open(url)?,
        })
    }

    /// The same, which tells whether it answers.
    #[must_use]
    pub fn looked_after(self, redis: &Dependency) -> Redis {
        Redis { told: redis.clone(), ..self }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let connecting = async {
            match self.urls.as_slice() {
                [url] => {
                    let config = AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(ANSWER_MAX))
                        .set_response_timeout(Some(ANSWER_MAX));
                    let client = self.client(url)?;
                    Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
                }
                urls => {
                    let mut builder = ClusterClient::builder(urls.iter().map(String::as_str))
                        .connection_timeout(ANSWER_MAX)
                        .response_timeout(ANSWER_MAX);
                    if let Some(certificates) = &self.certificates {
                        builder = builder.certs(certificates.clone());
                    }
                    let client = builder.build()?;
                    Ok(Connection::Cluster(client.get_async_connection().await?))
                }
            }
        };
        timeout(ANSWER_MAX * 2, connecting).await.map_err(|_| Error::Silent)?
    }

    /// A subscription, at the first node that answers: a cluster passes what is published on to all of its nodes.
    async fn subscribe(&self) -> Result<redis::aio::PubSub, Error> {
        let mut last = Error::Unsubscribed;
        for url in &self.urls {
            match timeout(ANSWER_MAX, self.client(url)?.get_async_pubsub()).await {
                Ok(Ok(subscription)) => return Ok(subscription),
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = Error::Silent,
            }
        }
        Err(last)
    }
}

/// A connection to one server or to a cluster.
#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Connection::Single(connection) => connection.req_packed_command(cmd),
            Connection::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Connection::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Connection::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Connection::Single(connection) => connection.get_db(),
            Connection::Cluster(connection) => connection.get_db(),
        }
    }
}

/// `KEYS` a value and its `at`; `ARGV` at, time to live, then the value, or the fields of a hash. 0: a newer one is there.
const SET: &str = "
local there = redis.call('get', KEYS[2])
if there and tonumber(there) > tonumber(ARGV[1]) then return 0 end
if #ARGV == 2 then
  redis.call('del', KEYS[1])
elseif #ARGV == 3 then
  redis.call('set', KEYS[1], ARGV[3], 'ex', ARGV[2])
else
  redis.call('hset', KEYS[1], unpack(ARGV, 3))
  redis.call('expire', KEYS[1], ARGV[2])
end
redis.call('set', KEYS[2], ARGV[1], 'ex', ARGV[2])
return 1";

/// Mirrors what `live` takes into Redis until `stop`. `writer` tells this process from others.
///
/// # Errors
/// Redis is gone: start again; then everything in memory is written anew.
pub async fn mirror(live: LiveValues, redis: Redis, writer: &str, stop: CancellationToken) -> Result<(), Error> {
    let told = redis.told.clone();
    mirror_until_lost(live, redis, writer, stop).await.inspect_err(|error| told.failed(error))
}

async fn mirror_until_lost(live: LiveValues, redis: Redis, writer: &str, stop: CancellationToken) -> Result<(), Error> {
    // Before the first look at what is there: a change after it is heard of.
    let mut changes = live.changes();
    let script = Arc::new(Script::new(SET));
    let mut connection = redis.connect().await?;
    script.load_async(&mut connection).await?;
    let mut writer = Writer { connection, script, mark: format!("millwright:mirror:{writer}") };
    let mut ask = interval(ASK_EVERY);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pending: BTreeMap<catalog::MachineId, Arc<Live>> = BTreeMap::new();
    let mut write_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ask.tick() => {
                let marked = writer.is_marked().await?;
                redis.told.answered();
                if !marked {
                    writer.write(live.all()).await?;
                    writer.set_mark().await?;
                }
            }
            () = sleep_until(write_at), if !pending.is_empty() => {
                writer.write(std::mem::take(&mut pending).into_values().collect()).await?;
                write_at = Instant::now() + GATHER;
            }
            changed = changes.recv() => match changed {
                Ok(machines) => pending.extend(machines.iter().map(|live| (live.machine.clone(), live.clone()))),
                Err(RecvError::Lagged(_)) => {
                    pending.extend(live.all().into_iter().map(|live| (live.machine.clone(), live)));
                }
                Err(RecvError::Closed) => break,
            },
        }
    }
    writer.write(pending.into_values().collect()).await
}

struct Writer {
    connection: Connection,
    script: Arc<Script>,
    mark: String,
}

impl Writer {
    async fn is_marked(&mut self) -> Result<bool, Error> {
        Ok(redis::cmd("EXISTS").arg(&self.mark).query_async(&mut self.connection).await?)
    }

    async fn set_mark(&mut self) -> Result<(), Error> {
        Ok(redis::cmd("SET").arg(&self.mark).arg(1).arg("EX").arg(TTL_S).query_async(&mut self.connection).await?)
    }

    async fn write(&mut self, machines: Vec<Arc<Live>>) -> Result<(), Error> {
        for lot in machines.chunks(LOT) {
            let lines: Vec<String> = lot.iter().map(|live| record::encode(live)).collect();
            let sets = lot.iter().zip(&lines).flat_map(|(live, line)| sets(live, line)).collect();
            run(&mut self.connection, &self.script, sets).await?;
            let mut tell = redis::cmd("SADD");
            tell.arg(MACHINES);
            lot.iter().for_each(|live| {
                tell.arg(live.machine.as_str());
            });
            let () = tell.query_async(&mut self.connection).await?;
            let message = format!("[{}]", lines.join(","));
            let () = redis::cmd("PUBLISH").arg(CHANNEL).arg(message).query_async(&mut self.connection).await?;
        }
        Ok(())
    }
}

/// A key and what it is to hold: nothing, a text, or the fields of a hash.
struct Set {
    key: String,
    at_us: i64,
    values: Vec<String>,
}

impl Set {
    fn invocation<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut set = script.prepare_invoke();
        set.key(&self.key).key(format!("{{{}}}:at", self.key)).arg(self.at_us).arg(TTL_S).arg(&self.values);
        set
    }
}

/// The keys of one machine; `line` is what the portal reads.
fn sets(live: &Live, line: &str) -> Vec<Set> {
    let set = |name: &str, values: Vec<String>| Set {
        key: format!("machine:{}:{name}", live.machine.as_str()),
        at_us: live.arrived_us,
        values,
    };
    let seed = seed(live);
    let conditions: Vec<&str> = live.conditions.iter().map(|standing| standing.condition.as_str()).collect();
    let mut status = vec![
        ("machine_id", live.machine.as_str().to_owned()),
        ("class", live.class.id.clone()),
        ("state", live.state.as_str().to_owned()),
        ("last_seen", wire::format_time(live.last_seen_us)),
        ("arrived_at", wire::format_time(live.arrived_us)),
        ("score", live.score.map(|score| score.to_string()).unwrap_or_default()),
        ("conditions", conditions.join(",")),
    ];
    status.extend(seed.iter().map(|(name, value)| (*name, value.clone().unwrap_or_default())));
    status.push(("live", line.to_owned()));
    let status = status.into_iter().flat_map(|(field, value)| [field.to_owned(), value]).collect();
    let seed = seed.into_iter().map(|(name, value)| set(name, value.into_iter().collect()));
    seed.chain([set("status", status)]).collect()
}

/// The seed's three values; `None` where the class lacks the channel or the value.
fn seed(live: &Live) -> [(&'static str, Option<String>); 3] {
    let class: &Class = &live.class;
    let at = |channel: &str| class.channels.iter().position(|candidate| candidate.id == channel);
    let window = |channel: &str| at(channel).and_then(|at| live.windows.get(at).copied().flatten());
    let torque = at("torque_nm").filter(|at| wire::Quality::of(live.quality, *at) != wire::Quality::Missing);
    let torque = torque.and_then(|at| Some(decimal_text(*live.values.get(at)?, class.channels[at].scale)));
    [
        ("last_torque", torque),
        ("temp_1m_avg", window("process_temp_k").map(|window| window.mean.to_string())),
        ("rpm_variance", window("rpm").map(|window| window.variance.to_string())),
    ]
}

/// Sets keys: in one pipeline, or in a cluster side by side, each at its own node.
async fn run(connection: &mut Connection, script: &Arc<Script>, sets: Vec<Set>) -> Result<(), Error> {
    let Connection::Cluster(cluster) = connection else {
        let mut pipeline = redis::pipe();
        for set in &sets {
            pipeline.invoke_script(&set.invocation(script)).ignore();
        }
        return Ok(pipeline.query_async(connection).await?);
    };
    let one = |set: Set| {
        let (script, mut node) = (script.clone(), cluster.clone());
        async move { set.invocation(&script).invoke_async::<i64>(&mut node).await.map(|_| ()) }
    };
    Ok(stream::iter(sets).map(one).buffer_unordered(SIDE_BY_SIDE).try_collect().await?)
}

/// Fills `live` from Redis until `stop`; while Redis is gone, `live` says that it is stale.
///
/// # Errors
/// Redis is gone: start again; then everything is read anew.
pub async fn follow(
    live: LiveValues,
    redis: Redis,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let done = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        done = follow_until_lost(&live, &redis, &catalogue) => done,
    };
    live.set_stale(true);
    done.inspect_err(|error| redis.told.failed(error))
}

async fn follow_until_lost(
    live: &LiveValues,
    redis: &Redis,
    catalogue: &watch::Receiver<Arc<Catalogue>>,
) -> Result<(), Error> {
    // First the subscription: what changes while the rest is read is heard of.
    let mut subscription = redis.subscribe().await?;
    timeout(ANSWER_MAX, subscription.subscribe(CHANNEL)).await.map_err(|_| Error::Silent)??;
    let mut connection = redis.connect().await?;
    let machines: Vec<String> = redis::cmd("SMEMBERS").arg(MACHINES).query_async(&mut connection).await?;
    for lot in machines.chunks(LOT) {
        let lines = read(&mut connection, lot).await?;
        take(live, lines.iter().map(String::as_str), &catalogue.borrow());
    }
    live.set_stale(false);
    let mut messages = subscription.on_message();
    let mut ask = interval(ASK_EVERY);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.next() => {
                let message: String = message.ok_or(Error::Unsubscribed)?.get_payload()?;
                let lines: Vec<&RawValue> = serde_json::from_str(&message).unwrap_or_default();
                take(live, lines.iter().map(|line| line.get()), &catalogue.borrow());
            }
            // A subscription alone does not notice that the other side is gone.
            _ = ask.tick() => {
                let () = redis::cmd("PING").query_async(&mut connection).await?;
                redis.told.answered();
            }
        }
    }
}

/// What the status hashes of these machines hold for the portal.
async fn read(connection: &mut Connection, machines: &[String]) -> Result<Vec<String>, Error> {
    let get = |machine: String| {
        let mut node = connection.clone();
        let mut get = redis::cmd("HGET");
        get.arg(format!("machine:{machine}:status")).arg("live");
        async move { get.query_async::<Option<String>>(&mut node).await }
    };
    let lines: Vec<Option<String>> =
        stream::iter(machines.to_vec()).map(get).buffered(SIDE_BY_SIDE).try_collect().await?;
    Ok(lines.into_iter().flatten().collect())
}

fn take<'a>(live: &LiveValues, lines: impl Iterator<Item = &'a str>, catalogue: &Catalogue) {
    let newer = |machine: &Live| live.get(&machine.machine).is_none_or(|there| there.arrived_us <= machine.arrived_us);
    live.put(lines.filter_map(|line| record::decode(line, catalogue)).filter(newer).collect());
}

#[cfg(test)]
mod tests;
