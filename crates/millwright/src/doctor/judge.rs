//! What facts about a plant's engines mean: one line a check. Pure.

use crate::config::{GroupProtocol, RelayKind};
use bus::{
    kafka::{admin::Change, look::Cluster},
    registry,
};
use std::{fmt, net::SocketAddr};
use store::{
    live::redis::Node,
    postgres::{Migration, Server, SlotState, Which},
};

/// From here on a clock's difference shows: readings arrive before they happened, silence is found too early or too late.
const CLOCK_WARN_US: i64 = 1_000_000;
/// The allowed lateness of readings: beyond it they change class.
const CLOCK_FAIL_US: i64 = 5_000_000;
/// PostgreSQL 14: `wal_status` and logical replication as they are used here.
const VERSION_MIN: u32 = 140_000;
/// Where slots have no bound, from here on what one keeps is worth a word.
const RETAINED_WARN: u64 = 1 << 30;
/// Copies of each partition where there are so many brokers.
const COPIES: usize = 3;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Works, and will not for ever or not as well as it could.
    Warn,
    /// Something does not work.
    Fail,
}

impl State {
    /// Its name in documents.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// What was looked at.
    pub(super) check: String,
    pub(super) state: State,
    pub(super) says: String,
    /// What to do; there is something unless it is ok.
    pub(super) next: Option<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.state == State::Fail { "FAIL" } else { self.state.as_str() };
        write!(f, "{state:4}  {}: {}", self.check, self.says)?;
        self.next.iter().try_for_each(|next| write!(f, "; next: {next}"))
    }
}

/// Everything that was found.
pub(super) struct Facts {
    pub(super) kafka: Kafka,
    pub(super) main: Database,
    pub(super) ai: Database,
    /// The slot of who brings alerts to the topic.
    pub(super) slot: String,
    pub(super) relay: RelayKind,
    /// Each node by its address; none is configured where it is empty.
    pub(super) redis: Vec<(String, Result<Node, String>)>,
    /// Where one is configured.
    pub(super) registry: Option<Registry>,
    pub(super) portal: Portal,
    /// Positions above the end of their log; `None`: not known.
    pub(super) cut: Option<Vec<String>>,
}

/// What was found of the brokers. `None`: not asked, since something before it failed.
pub(super) struct Kafka {
    /// Each address of `bus.brokers`, and why nobody accepts connections there.
    pub(super) seeds: Vec<(String, Option<String>)>,
    pub(super) cluster: Option<Result<Cluster, String>>,
    /// Brokers that cannot be reached where they say they are, and why.
    pub(super) away: Vec<(i32, String)>,
    /// The topics that there should be.
    pub(super) topics: Vec<String>,
    /// What differs from how they should be.
    pub(super) changes: Option<Result<Vec<Change>, String>>,
    /// The group protocols that a broker speaks, where it says so.
    pub(super) protocols: Option<Result<Option<String>, String>>,
    /// The groups of the services, and why no broker coordinates one.
    pub(super) groups: Vec<(&'static str, Option<String>)>,
    /// `bus.group_protocol`
    pub(super) wanted: GroupProtocol,
}

/// What was found of a database.
pub(super) struct Database {
    pub(super) which: Which,
    /// Without secrets.
    pub(super) place: String,
    pub(super) server: Result<Server, String>,
    pub(super) migrations: Option<Result<Vec<Migration>, String>>,
}

/// What was found of the schema registry.
pub(super) struct Registry {
    pub(super) place: String,
    /// What differs from how its subjects should be.
    pub(super) changes: Result<Vec<registry::admin::Change>, String>,
    /// What is sent names schemas: without them nothing is.
    pub(super) named: bool,
}

/// Where the portal is to listen.
pub(super) struct Portal {
    pub(super) address: SocketAddr,
    pub(super) port: Port,
}

/// Who has its port.
pub(super) enum Port {
    /// Nobody.
    Free,
    /// A portal; what its `/readyz` says is wrong where it is not ready.
    Ours { wrong: Option<String> },
    /// Another program.
    Stranger,
    /// The system does not let it be used.
    Refused(String),
}

/// One line a check, in the order in which the engines matter.
pub(super) fn judge(facts: &Facts) -> Vec<Line> {
    let mut lines = Lines::default();
    lines.kafka(&facts.kafka);
    lines.database(&facts.main);
    lines.database(&facts.ai);
    if let Ok(server) = &facts.ai.server {
        lines.log(server, &facts.slot, facts.relay);
    }
    facts.cut.iter().for_each(|cut| lines.positions(cut));
    lines.redis(&facts.redis);
    facts.registry.iter().for_each(|registry| lines.registry(registry));
    lines.portal(&facts.portal);
    lines.0
}

/// What to do where the brokers, or TLS on the way to them, refuse this client, by the words that librdkafka has for it.
fn let_in(wrong: &str) -> Option<&'static str> {
    if wrong.contains("certificate verify failed") {
        Some(
            "set ssl.ca.location in bus.settings to the authority (PEM) that signed the brokers' certificates, and name the \
             brokers in bus.brokers and advertised.listeners as their certificates do",
        )
    } else if wrong.contains("Authentication failed") {
        Some("set sasl.mechanism, sasl.username and sasl.password in bus.settings to what the brokers know")
    } else if wrong.contains("do not let this client in") {
        Some("do as it says in bus.settings (docs/security.md)")
    } else {
        None
    }
}

/// What to do where a server's certificate is not good, by the words that rustls has for it; `authorities` is the setting that
/// names them.
fn trust(wrong: &str, authorities: &str) -> Option<String> {
    if wrong.contains("UnknownIssuer") {
        Some(format!("set {authorities} to the authority (PEM) that signed its certificate (docs/security.md)"))
    } else if wrong.contains("certificate not valid for name") {
        Some(
            "write its address with a name that is in its certificate, or give it a certificate with this one"
                .to_owned(),
        )
    } else if wrong.contains("certificate expired") {
        Some("give it a new certificate".to_owned())
    } else if wrong.contains("does not support TLS") {
        Some("let it have TLS (ssl = on), or write sslmode=disable where the way to it is safe".to_owned())
    } else if wrong.contains("InvalidContentType") {
        Some("name the port where it speaks TLS, or write redis:// where the way to it is safe".to_owned())
    } else {
        None
    }
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn ok(&mut self, check: impl Into<String>, says: impl Into<String>) {
        self.0.push(Line { check: check.into(), state: State::Ok, says: says.into(), next: None });
    }

    fn warn(&mut self, check: impl Into<String>, says: impl Into<String>, next: impl Into<String>) {
        self.0.push(Line { check: check.into(), state: State::Warn, says: says.into(), next: Some(next.into()) });
    }

    fn fail(&mut self, check: impl Into<String>, says: impl Into<String>, next: impl Into<String>) {
        self.0.push(Line { check: check.into(), state: State::Fail, says: says.into(), next: Some(next.into()) });
    }

    fn kafka(&mut self, kafka: &Kafka) {
        let dead = kafka.seeds.iter().filter_map(|(seed, wrong)| Some((seed, wrong.as_ref()?)));
        let dead: Vec<String> = dead.map(|(seed, wrong)| format!("{seed} ({wrong})")).collect();
        let Some(cluster) = &kafka.cluster else {
            let says = format!("nobody accepts connections at {}", dead.join(", "));
            return self.fail("kafka", says, "start the brokers, or set bus.brokers to where they are");
        };
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(wrong) => {
                if let Some(next) = let_in(wrong) {
                    return self.fail("kafka", wrong.as_str(), next);
                }
                let says =
                    format!("something accepts connections at bus.brokers and does not answer as a broker: {wrong}");
                let next = "name a client port of the brokers, not one of the controllers; where they want TLS or a password, \
                            set security.protocol and sasl.* in bus.settings (docs/security.md)";
                return self.fail("kafka", says, next);
            }
        };
        let count = cluster.brokers.len();
        if dead.is_empty() {
            self.ok("kafka", format!("{} at bus.brokers", counted(count, "broker", "answers", "answer")));
        } else {
            let says = format!("{}, and not at {}", counted(count, "broker", "answers", "answer"), dead.join(", "));
            self.warn("kafka", says, "start that broker, or take its address out of bus.brokers");
        }
        self.listeners(kafka, cluster);
        self.topics(kafka, cluster);
        self.groups(kafka);
    }

    /// The bootstrap address answers, and names brokers where clients are to go.
    fn listeners(&mut self, kafka: &Kafka, cluster: &Cluster) {
        let seeds: Vec<&str> =
            kafka.seeds.iter().filter(|(_, wrong)| wrong.is_none()).map(|(seed, _)| seed.as_str()).collect();
        let seeds = seeds.join(", ");
        for broker in &cluster.brokers {
            let place = format!("{}:{}", broker.host, broker.port);
            if let Some((_, wrong)) = kafka.away.iter().find(|(id, _)| *id == broker.id) {
                let says = format!(
                    "{seeds} answers and tells clients that broker {} is at {place}, which this machine cannot reach: {wrong}",
                    broker.id
                );
                let next = format!(
                    "set advertised.listeners of broker {} to a host and port that every machine of the plant reaches (if \
                     it listens at {seeds}, name that) and restart it; if {place} is right, start that broker or open the \
                     way to it",
                    broker.id
                );
                self.fail("kafka advertised.listeners", says, next);
            }
        }
        if kafka.away.is_empty() {
            let places: Vec<String> =
                cluster.brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
            self.ok("kafka advertised.listeners", format!("{} can be reached", places.join(", ")));
        }
    }

    fn topics(&mut self, kafka: &Kafka, cluster: &Cluster) {
        let (topics, changes) = match (&cluster.topics, &kafka.changes) {
            // No broker can be reached, which is told already.
            (None, _) | (_, None) => return,
            (_, Some(Err(wrong))) => {
                return self.fail(
                    "kafka topics",
                    wrong.as_str(),
                    "`millwright topics apply --dry-run` shows what differs",
                );
            }
            (Some(topics), Some(Ok(changes))) => (topics, changes),
        };
        for name in &kafka.topics {
            let check = format!("topic {name}");
            let Some(state) = topics.get(name) else {
                self.fail(check, "does not exist", "make it with `millwright topics apply`");
                continue;
            };
            let of_topic = |change: &&Change| matches!(change, Change::Set { topic, .. } if topic == name);
            let differs: Vec<&Change> = changes.iter().filter(of_topic).collect();
            let says = differs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let wanted = COPIES.min(cluster.brokers.len());
            if state.leaderless > 0 {
                let says = format!("{} without a leader", counted(state.leaderless, "partition", "is", "are"));
                self.fail(check, says, "start the brokers that hold them");
            } else if !differs.is_empty() {
                let next = "`millwright topics apply` sets it";
                let matters =
                    |change: &&Change| !matches!(change, Change::Set { setting, .. } if setting == "retention.ms");
                if differs.iter().any(matters) {
                    self.fail(check, says, next);
                } else {
                    self.warn(check, says, format!("leave it where it is meant, else {next}"));
                }
            } else if state.copies < wanted {
                let says = format!("{} of each partition on {} brokers", copies(state.copies), cluster.brokers.len());
                let next = format!(
                    "raise it to {wanted} with kafka-reassign-partitions.sh, or a lost broker stops its partitions"
                );
                self.warn(check, says, next);
            } else if state.in_sync < state.copies {
                let says = format!("{} in sync of {}", state.in_sync, copies(state.copies));
                let next = "look at the brokers that are behind or down; below min.insync.replicas nothing is taken";
                self.warn(check, says, next);
            } else {
                self.ok(check, format!("{}, all in sync, settings as they should be", copies(state.copies)));
            }
        }
    }

    fn groups(&mut self, kafka: &Kafka) {
        let check = "kafka groups";
        let lost = kafka.groups.iter().filter_map(|(group, wrong)| Some(format!("{group} ({})", wrong.as_ref()?)));
        let lost: Vec<String> = lost.collect();
        if !lost.is_empty() {
            let next = "start the brokers again, one after the other; where that changes nothing, the runbook's page on a group that no \
                        broker coordinates mends it. The services go on by other names of their groups meanwhile";
            return self.fail(check, format!("no broker coordinates {}", lost.join(", ")), next);
        }
        let newer = match &kafka.protocols {
            None => return,
            Some(Err(wrong)) => {
                let says = format!("which group protocols the brokers speak cannot be told: {wrong}");
                return self.warn(check, says, "let this user describe the brokers' settings, or ignore it");
            }
            Some(Ok(protocols)) => {
                protocols.as_ref().map(|protocols| protocols.split(',').any(|one| one.trim() == "consumer"))
            }
        };
        match (newer, kafka.wanted) {
            (Some(true), GroupProtocol::Classic) => {
                self.ok(check, "classic, as bus.group_protocol says; these brokers have the newer one, which takes over faster");
            }
            (Some(true), _) => self.ok(check, "the newer protocol (KIP-848) is in use"),
            (Some(false), GroupProtocol::Consumer) => self.fail(
                check,
                "bus.group_protocol is consumer, and the brokers do not have it",
                "set bus.group_protocol = \"auto\", or add consumer to group.coordinator.rebalance.protocols of the brokers",
            ),
            (None, GroupProtocol::Consumer) => self.warn(
                check,
                "bus.group_protocol is consumer, and the brokers do not say that they have it",
                "set bus.group_protocol = \"auto\" if ingest, detect and portal do not get partitions",
            ),
            (Some(false) | None, _) => self.ok(check, "the classic protocol is in use"),
        }
    }

    fn database(&mut self, database: &Database) {
        let Database { which, place, server, migrations } = database;
        let check = format!("postgres.{}", which.as_str());
        let server = match server {
            Ok(server) => server,
            Err(wrong) => {
                if let Some(next) = trust(wrong, &format!("sslrootcert in {check}")) {
                    return self.fail(check, format!("{place} is not trusted: {wrong}"), next);
                }
                let next = format!("start it, or set {check} to where it is; does its pg_hba.conf let this user in?");
                return self.fail(check, format!("{place} does not answer: {wrong}"), next);
            }
        };
        let version = server.version;
        let named = format!("{place}, PostgreSQL {}.{}", version / 10_000, version % 10_000);
        if version < VERSION_MIN {
            self.fail(&*check, format!("{named} is too old"), "upgrade it to 14 or later");
        } else if server.standby {
            let next = format!("set {check} to the primary, or wait until it has recovered");
            self.fail(&*check, format!("{named} takes no writes: it is a standby or recovers"), next);
        } else {
            self.ok(&*check, named);
        }
        self.clock(&check, server);
        self.tables(&format!("{check} tables"), migrations.as_ref());
    }

    fn clock(&mut self, check: &str, server: &Server) {
        let check = format!("{check} clock");
        // What is sure of it.
        let off = (server.ahead_us.abs() - server.ahead_unsure_us).max(0);
        let direction = if server.ahead_us < 0 { "behind" } else { "ahead of" };
        let says = format!("{:.3} s {direction} this machine's", server.ahead_us.abs() as f64 / 1e6);
        let next = "let chrony or another NTP client set the clocks of all machines, in UTC";
        if off > CLOCK_FAIL_US {
            self.fail(check, says, next);
        } else if off > CLOCK_WARN_US {
            self.warn(check, says, next);
        } else {
            self.ok(check, says);
        }
    }

    fn tables(&mut self, check: &str, migrations: Option<&Result<Vec<Migration>, String>>) {
        let migrations = match migrations {
            None => return,
            Some(Err(wrong)) => {
                let next = "restore the table schema_migration, or use the release that wrote it; `millwright db status` tells more";
                return self.fail(check, wrong.as_str(), next);
            }
            Some(Ok(migrations)) => migrations,
        };
        let names = |which: fn(&&Migration) -> bool| {
            migrations.iter().filter(which).map(|migration| migration.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let missing = names(|migration| migration.applied_us.is_none());
        let newer = names(|migration| migration.newer);
        if !missing.is_empty() {
            self.fail(check, format!("not applied: {missing}"), "`millwright db migrate`, also while everything runs");
        } else if !newer.is_empty() {
            self.warn(
                check,
                format!("of a later release: {newer}"),
                "finish the upgrade: this program is older than the tables",
            );
        } else {
            self.ok(check, format!("all {} migrations are applied", migrations.len()));
        }
    }

    /// What the relay, or Debezium, needs of the AI database.
    fn log(&mut self, server: &Server, slot: &str, relay: RelayKind) {
        let check = "postgres.ai wal_level";
        if server.wal_level == "logical" {
            self.ok(check, "logical");
        } else {
            let says = format!("{}: the outbox cannot be read from the log", server.wal_level);
            self.fail(check, says, "set wal_level = logical in its postgresql.conf and restart it");
        }
        if !server.may_replicate {
            let next = "`alter role ... replication`, or name another user in postgres.ai";
            self.fail("postgres.ai role", "its user may not read from a replication slot", next);
        }
        let check = "postgres.ai max_slot_wal_keep_size";
        match server.slots_keep {
            Some(bytes) => self.ok(check, format!("{bytes} bytes")),
            None => self.warn(
                check,
                "not set: a slot that nobody reads keeps the log until the disk is full",
                "set it in its postgresql.conf, well below the free disk, e.g. 20GB, and reload",
            ),
        }
        match server.slots.iter().find(|there| there.name == slot) {
            Some(there) => self.slot(there, server.slots_keep),
            None => {
                let next = match relay {
                    RelayKind::Millwright => "start `millwright relay`: it makes the slot",
                    RelayKind::Debezium => "start the connector of deploy/debezium: it makes the slot",
                };
                self.warn(format!("postgres.ai slot {slot}"), "not there yet", next);
            }
        }
        for stranger in server.slots.iter().filter(|there| there.name != slot && !there.active) {
            let next = format!("if nobody will read it again: select pg_drop_replication_slot('{}')", stranger.name);
            let says = format!("nobody reads it, and it keeps {} bytes of the log", stranger.retained);
            self.warn(format!("postgres.ai slot {}", stranger.name), says, next);
        }
    }

    fn slot(&mut self, slot: &SlotState, keep: Option<u64>) {
        let check = format!("postgres.ai slot {}", slot.name);
        let reader = if slot.active { "is read" } else { "nobody reads it" };
        let share = keep.map(|keep| slot.retained.saturating_mul(100) / keep.max(1));
        let of = share.map(|share| format!(" ({share} % of max_slot_wal_keep_size)")).unwrap_or_default();
        let says = format!("{reader}, {}, keeps {} bytes of the log{of}", slot.status, slot.retained);
        let start = "start `millwright relay`, or the connector: the log goes as soon as it is read";
        if slot.status == "lost" {
            let next =
                "start `millwright relay`: it makes a new slot and publishes what the topic lacks from the history";
            self.fail(check, says, next);
        } else if share.is_some_and(|share| share >= 80) {
            self.fail(check, says, start);
        } else if share.is_some_and(|share| share >= 50)
            || keep.is_none() && slot.retained > RETAINED_WARN
            || !slot.active
        {
            self.warn(check, says, start);
        } else {
            self.ok(check, says);
        }
    }

    fn positions(&mut self, cut: &[String]) {
        if cut.is_empty() {
            return self.ok("positions", "every one lies on its log");
        }
        let next = "these partitions stand still until a person says from where to go on: docs/runbook/topic-deleted.md, then \
            `millwright topics resume --dry-run`";
        self.fail("positions", format!("the log ends below them: {}", cut.join("; ")), next);
    }

    fn redis(&mut self, nodes: &[(String, Result<Node, String>)]) {
        if nodes.is_empty() {
            let next = "set redis.url, or the portal shows no values between alerts";
            return self.warn("redis", "redis.url is empty", next);
        }
        for (place, node) in nodes {
            let check = format!("redis {place}");
            let node = match node {
                Ok(node) => node,
                Err(wrong) => {
                    if let Some(next) = trust(wrong, "redis.ca") {
                        self.fail(check, format!("is not trusted: {wrong}"), next);
                        continue;
                    }
                    let next = "start it, or set redis.url to where it is; nothing but the newest values waits for it";
                    self.fail(check, format!("does not answer: {wrong}"), next);
                    continue;
                }
            };
            let Node { version, replica, used, max, policy, cluster_ok } = node;
            let full = *max > 0 && *used >= max / 100 * 80;
            if *replica {
                self.fail(check, "is a replica and takes no writes", "set redis.url to the primary");
            } else if *cluster_ok == Some(false) {
                self.fail(
                    check,
                    "its cluster does not serve all slots",
                    "start the missing masters, or `redis-cli --cluster fix`",
                );
            } else if full {
                let next = "raise maxmemory: full, it refuses values or forgets them, and the page shows old ones";
                self.warn(check, format!("{used} of {max} bytes are used ({policy})"), next);
            } else if *max > 0 && policy != "noeviction" {
                let says = format!("maxmemory-policy is {policy}: values of machines vanish when it is full");
                self.warn(check, says, "set maxmemory-policy to noeviction");
            } else {
                let bound = if *max == 0 { "without bound".to_owned() } else { format!("of {max} bytes") };
                self.ok(check, format!("Redis {version}, {used} bytes used {bound}, {policy}"));
            }
        }
    }

    fn registry(&mut self, registry: &Registry) {
        let (check, place) = ("registry", &registry.place);
        let changes = match &registry.changes {
            Ok(changes) => changes,
            Err(wrong) => {
                if let Some(next) = trust(wrong, "registry.ca") {
                    return self.fail(check, format!("{place} is not trusted: {wrong}"), next);
                }
                let next = "start it, or set registry.url to where it is (of Apicurio with /apis/ccompat/v7): readings whose \
                            schema is not known yet wait for it";
                return self.fail(check, format!("{place} is of no use: {wrong}"), next);
            }
        };
        let says = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let next = "`millwright schemas apply` makes it so";
        if changes.is_empty() {
            self.ok(check, format!("{place} has the schemas of readings and alerts"));
        } else if registry.named {
            self.fail(check, says, next);
        } else {
            self.warn(check, says, next);
        }
    }

    fn portal(&mut self, portal: &Portal) {
        let (check, address) = ("portal", portal.address);
        match &portal.port {
            Port::Free => self.ok(check, format!("{address} is free: no portal runs there yet")),
            Port::Ours { wrong: None } => self.ok(check, format!("a portal is ready at http://{address}")),
            Port::Ours { wrong: Some(wrong) } => {
                let says = format!("the portal at http://{address} is not ready: {wrong}");
                self.warn(check, says, "mend what it names; it goes on by itself");
            }
            Port::Stranger => {
                let next = "set portal.port to another, or end that program";
                self.fail(check, format!("another program has {address}"), next);
            }
            Port::Refused(wrong) => {
                self.fail(
                    check,
                    format!("{address} cannot be used: {wrong}"),
                    "set portal.host and portal.port to a free address",
                );
            }
        }
    }
}

fn copies(count: usize) -> String {
    if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") }
}

fn counted(count: usize, noun: &str, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {noun} {one}") } else { format!("{count} {noun}s {many}") }
}

#[cfg(test)]
mod tests;
