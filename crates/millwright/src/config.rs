//! The configuration: one commented file of defaults, a file of the user's, the environment, flags; each value knows
//! where it came from. All of it is checked before a port opens.

use crate::failure::{Failure, did_you_mean};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// The commented file that `config init` writes; it holds every default.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// Keys of the tables that may be given several times.
const LISTS: [(&str, &[&str]); 3] = [
    ("machines", &["match", "class"]),
    ("sources", &["name", "clock_offset"]),
    ("webhooks", &["name", "url", "secret", "allow_private"]),
];

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: String,
    pub classes: Vec<PathBuf>,
    pub shutdown_grace: Span,
    pub portal: Portal,
    pub bus: Bus,
    pub history: History,
    pub postgres: Postgres,
    pub redis: Redis,
    pub registry: Registry,
    pub relay: Relay,
    pub simulate: Simulate,
    pub site: Site,
    pub log: Log,
    #[serde(default)]
    pub machines: Vec<Rule>,
    #[serde(default)]
    pub sources: Vec<Source>,
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Portal {
    pub host: std::net::IpAddr,
    pub port: u16,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Bus {
    pub kind: BusKind,
    pub brokers: String,
    pub settings: Vec<String>,
    pub group_protocol: GroupProtocol,
    pub values: BusValues,
    pub retention: Span,
    pub retention_bytes: Size,
}

/// What carries readings.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum BusKind {
    Embedded,
    Kafka,
}

/// How members of a Kafka group agree.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    Auto,
    Consumer,
    Classic,
}

/// What a record of a plant holds.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum BusValues {
    Reading,
    Lines,
    Binary,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Postgres {
    pub main: String,
    pub ai: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Redis {
    pub url: String,
    pub ca: String,
    pub cert: String,
    pub key: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Registry {
    pub url: String,
    pub credentials: String,
    pub ca: String,
    pub readings: Written,
    pub alerts: Written,
    pub unknown_id: UnknownId,
}

/// How values of a topic are written.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Written {
    Plain,
    Json,
    Avro,
}

/// What becomes of a record whose schema the registry does not have.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UnknownId {
    Wait,
    Refuse,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Relay {
    pub kind: RelayKind,
    pub slot: String,
}

/// What brings alerts from the AI database to the topic.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RelayKind {
    Millwright,
    Debezium,
}

#[derive(Debug, Clone, Deserialize)]
pub struct History {
    pub flush_bytes: Size,
    pub flush_after: Span,
    pub retention: Span,
    pub dead_letter_retention: Span,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Simulate {
    pub enabled: bool,
    pub machines: u32,
    pub rate_hz: f64,
    pub seed: u64,
    pub demo: bool,
    pub address: String,
}

impl Simulate {
    /// Host and port of the service that simulates, where there is one.
    pub fn at(&self) -> Option<String> {
        let at = self.address.strip_prefix("http://")?;
        Some(at.strip_suffix('/').unwrap_or(at).to_owned())
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Site {
    pub timezone: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    #[serde(rename = "match")]
    pub pattern: String,
    pub class: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    pub name: String,
    pub clock_offset: Offset,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Webhook {
    pub name: String,
    pub url: String,
    #[serde(default)]
    pub secret: Option<String>,
    #[serde(default)]
    pub allow_private: bool,
}

/// A time such as `30s`, `8h`, `7d`, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub i64);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        let units = [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
        with_unit(&text, &units).map(Span).ok_or_else(|| format!("`{text}` is no time; write 30s, 5m, 8h or 7d"))
    }
}

/// How far a clock is ahead of UTC, such as `9h` or `-30m`, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Offset(pub i64);

impl TryFrom<String> for Offset {
    type Error = String;

    fn try_from(text: String) -> Result<Offset, String> {
        let (sign, span) = match text.strip_prefix('-') {
            Some(span) => (-1, span),
            None => (1, text.strip_prefix('+').unwrap_or(&text)),
        };
        match Span::try_from(span.to_owned()) {
            Ok(span) => Ok(Offset(sign * span.0)),
            Err(_) => Err(format!("`{text}` is no offset; write 9h or -30m")),
        }
    }
}

/// A size such as `32MiB`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Size, String> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        with_unit(&text, &units)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .map(Size)
            .ok_or_else(|| format!("`{text}` is no size; write 64KiB, 32MiB or 8GiB"))
    }
}

/// A whole number above 0 and a unit.
fn with_unit(text: &str, units: &[(&str, i64)]) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<i64>().ok().filter(|number| *number > 0)?.checked_mul(*factor)
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(String),
    Environment(String),
    Flag,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(place) => f.write_str(place),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// Every value by its dotted key, with its origin.
pub type Origins = BTreeMap<String, (Value, Origin)>;

/// Reads the configuration: defaults, then `file`, then `environment`, then `flags` (dotted keys).
///
/// # Errors
/// Every mistake, with its place and a hint, as one failure that exits with 3.
pub fn load(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[(&str, Value)],
) -> Result<(Config, Origins)> {
    let mut table: Table = DEFAULTS.parse().expect("the default configuration is TOML, a test holds it");
    let mut origins = Origins::new();
    flatten("", &table, &mut |key, value| {
        origins.insert(key.to_owned(), (value.clone(), Origin::Default));
    });
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::configuration("MW-0010", format!("read the configuration {}: {error}", file.display()))
                .hint("name another file with --config, or write one with `millwright config init`")
        })?;
        let own = read(file, &text, &table)?;
        flatten("", &own, &mut |key, value| {
            let place = format!("{}:{}", file.display(), line_of(&text, key));
            origins.insert(key.to_owned(), (value.clone(), Origin::File(place)));
        });
        merge(&mut table, own);
    }
    for (name, text) in environment {
        let Some(key) = name.strip_prefix("MILLWRIGHT_").map(|key| key.to_lowercase().replace("__", ".")) else {
            continue;
        };
        let Some((default, _)) = origins.get(&key) else {
            // A name without `__` may belong to a script around us (MILLWRIGHT_BIN).
            if !name.contains("__") {
                continue;
            }
            let near = did_you_mean(&key, origins.keys().map(String::as_str));
            return Err(Failure::configuration("MW-0012", format!("environment {name}: there is no key `{key}`"))
                .hint(near.map_or("`millwright config explain` lists every key".to_owned(), |near| {
                    format!("did you mean MILLWRIGHT_{}?", near.to_uppercase().replace('.', "__"))
                }))
                .into());
        };
        let value = typed(text, default).ok_or_else(|| {
            Failure::configuration("MW-0013", format!("environment {name}: `{text}` is no {}", default.type_str()))
        })?;
        set(&mut table, &key, value.clone());
        origins.insert(key, (value, Origin::Environment(name.clone())));
    }
    for (key, value) in flags {
        set(&mut table, key, value.clone());
        origins.insert((*key).to_owned(), (value.clone(), Origin::Flag));
    }
    let config: Config = Value::Table(table).try_into().map_err(|error: toml::de::Error| {
        let told = error.to_string();
        let key = origins.keys().find(|key| told.contains(&format!("`{key}`")));
        let place = key.map(|key| origin_of(&origins, key)).unwrap_or_default();
        Failure::configuration("MW-0014", format!("configuration{place}: {}", told.trim()))
    })?;
    check(&config, &origins)?;
    Ok((config, origins))
}

/// Where the value of a key came from, to stand behind what is wrong with it; nothing for a default.
pub fn origin_of(origins: &Origins, key: &str) -> String {
    match origins.get(key) {
        None | Some((_, Origin::Default)) => String::new(),
        Some((_, origin)) => format!(" ({origin})"),
    }
}

/// What types cannot say.
fn check(config: &Config, origins: &Origins) -> Result<()> {
    let origin = |key: &str| origin_of(origins, key);
    if !config.portal.host.is_loopback() {
        return Err(Failure::configuration(
            "MW-0015",
            format!("portal.host {} is not a loopback address{}", config.portal.host, origin("portal.host")),
        )
        .hint("this release listens on loopback only: put a reverse proxy with TLS and sign-in before it")
        .into());
    }
    if !(config.simulate.rate_hz > 0.0 && config.simulate.rate_hz <= 1000.0) {
        let origin = origin("simulate.rate_hz");
        let wrong = format!("simulate.rate_hz must lie above 0 and at most at 1000{origin}");
        return Err(Failure::configuration("MW-0016", wrong).into());
    }
    if config.simulate.machines == 0 || config.simulate.machines > 1_000_000 {
        let origin = origin("simulate.machines");
        let wrong = format!("simulate.machines must lie between 1 and 1000000{origin}");
        return Err(Failure::configuration("MW-0016", wrong).into());
    }
    let is_address = |at: String| {
        let parts = at.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok())
    };
    if !config.simulate.address.is_empty() && !config.simulate.at().is_some_and(is_address) {
        let wrong = format!("simulate.address is no http://HOST:PORT{}", origin("simulate.address"));
        return Err(Failure::configuration("MW-0016", wrong).into());
    }
    check_registry(config, &origin)?;
    jiff::tz::TimeZone::get(&config.site.timezone)
        .map_err(|_| {
            Failure::configuration(
                "MW-0017",
                format!(
                    "site.timezone `{}` is no time zone that this machine knows{}",
                    config.site.timezone,
                    origin("site.timezone")
                ),
            )
            .hint("use an IANA name such as Asia/Seoul, Europe/Berlin or UTC")
        })
        .context("check the configuration")?;
    Ok(())
}

fn check_registry(config: &Config, origin: &dyn Fn(&str) -> String) -> Result<()> {
    let registry = &config.registry;
    let wrong = |key: &str, says: &str, hint: &str| {
        Err(Failure::configuration("MW-0066", format!("{key} {says}{}", origin(key))).hint(hint).into())
    };
    if !registry.url.is_empty() && !["http://", "https://"].iter().any(|scheme| registry.url.starts_with(scheme)) {
        return wrong("registry.url", "is no http:// or https:// address", "of Apicurio it ends with /apis/ccompat/v7");
    }
    for (key, written) in [("registry.readings", registry.readings), ("registry.alerts", registry.alerts)] {
        if written != Written::Plain && registry.url.is_empty() {
            return wrong(key, "needs a registry", "set registry.url, or leave the values plain");
        }
    }
    if registry.readings != Written::Plain && config.bus.values != BusValues::Reading {
        return wrong("registry.readings", "needs one reading a record", "set bus.values = \"reading\"");
    }
    if registry.alerts != Written::Plain && config.relay.kind == RelayKind::Debezium {
        let hint = "Debezium writes alerts as they are: leave registry.alerts = \"plain\"";
        return wrong("registry.alerts", "needs relay.kind = \"millwright\"", hint);
    }
    Ok(())
}

/// Parses a user's file and holds its keys and types against the defaults.
fn read(file: &Path, text: &str, defaults: &Table) -> Result<Table> {
    let name = file.display();
    let own: Table = text.parse().map_err(|error: toml::de::Error| {
        let (line, column) = error.span().map_or((1, 1), |span| place_of(text, span.start));
        Failure::configuration("MW-0011", format!("{name}:{line}:{column}: {}", error.message()))
    })?;
    let mut problems: Vec<String> = Vec::new();
    let mut hint = None;
    compare("", &own, defaults, &mut |key, problem, near| {
        problems.push(format!("{name}:{}: {problem}", line_of(text, key)));
        hint = hint.take().or(near);
    });
    if problems.is_empty() {
        return Ok(own);
    }
    let failure = Failure::configuration("MW-0012", problems.join("\n  "));
    Err(match hint {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`millwright config explain` lists every key"),
    }
    .into())
}

/// Tells each key that the defaults do not have and each value of another type: (key, problem, nearest key).
fn compare(prefix: &str, own: &Table, defaults: &Table, tell: &mut dyn FnMut(&str, String, Option<String>)) {
    for (name, value) in own {
        let key = format!("{prefix}{name}");
        if let Some((_, fields)) = LISTS.iter().find(|(list, _)| *list == key) {
            for entry in value.as_array().into_iter().flatten().filter_map(Value::as_table) {
                for field in entry.keys().filter(|field| !fields.contains(&field.as_str())) {
                    let near = did_you_mean(field, fields.iter().copied()).map(str::to_owned);
                    tell(field, format!("[[{key}]] has no key `{field}`; it has {}", fields.join(", ")), near);
                }
            }
            if !value.is_array() {
                tell(&key, format!("`{key}` is a list of tables: write [[{key}]]"), None);
            }
            continue;
        }
        match (defaults.get(name), value) {
            (None, _) => {
                let near = did_you_mean(name, defaults.keys().map(String::as_str).chain(LISTS.map(|(list, _)| list)));
                tell(&key, format!("there is no key `{key}`"), near.map(|near| format!("{prefix}{near}")));
            }
            (Some(Value::Table(inner)), Value::Table(value)) => compare(&format!("{key}."), value, inner, tell),
            (Some(Value::Float(_)), Value::Integer(_)) => {}
            (Some(default), value) if default.type_str() != value.type_str() => {
                tell(&key, format!("`{key}` is a {}, here stands a {}", default.type_str(), value.type_str()), None);
            }
            _ => {}
        }
    }
}

/// Line and column (from 1) of a byte.
fn place_of(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte.min(text.len())];
    let line = before.matches('\n').count() + 1;
    (line, before.chars().rev().take_while(|c| *c != '\n').count() + 1)
}

/// `line:column` where a dotted key stands in a TOML text.
fn line_of(text: &str, key: &str) -> String {
    let (section, name) = key.rsplit_once('.').map_or(("", key), |(section, name)| (section, name));
    let mut at = "";
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim();
        if bare.starts_with('[') {
            at = bare.trim_matches(['[', ']']).trim();
        }
        let starts = bare.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='));
        if starts && (at == section || section.is_empty()) || at == key && bare.starts_with('[') {
            let column = line.len() - line.trim_start().len() + 1;
            return format!("{}:{column}", number + 1);
        }
    }
    "1:1".to_owned()
}

/// Calls `each` with every dotted key that holds no table.
fn flatten(prefix: &str, table: &Table, each: &mut dyn FnMut(&str, &Value)) {
    for (name, value) in table {
        match value {
            Value::Table(inner) => flatten(&format!("{prefix}{name}."), inner, each),
            value => each(&format!("{prefix}{name}"), value),
        }
    }
}

/// Lays one table over another.
fn merge(under: &mut Table, over: Table) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(name, value);
            }
        }
    }
}

/// Sets a dotted key whose tables exist.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        Some((section, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(section) {
                set(inner, rest, value);
            }
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

/// Reads a text as the type that the default has.
fn typed(text: &str, default: &Value) -> Option<Value> {
    Some(match default {
        Value::Integer(_) => Value::Integer(text.parse().ok()?),
        Value::Float(_) => Value::Float(text.parse().ok()?),
        Value::Boolean(_) => Value::Boolean(text.parse().ok()?),
        Value::Array(_) => Value::Array(
            text.split(',').filter(|part| !part.is_empty()).map(|part| Value::String(part.trim().to_owned())).collect(),
        ),
        _ => Value::String(text.to_owned()),
    })
}

/// Resolves `env:NAME` and `file:PATH`; anything else is the secret itself.
///
/// # Errors
/// The variable is not set, or the file cannot be read.
pub fn secret(text: &str) -> Result<String> {
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| {
            Failure::configuration("MW-0018", format!("the secret env:{name} is not set in the environment")).into()
        });
    }
    if let Some(path) = text.strip_prefix("file:") {
        let content = std::fs::read_to_string(path)
            .map_err(|error| Failure::configuration("MW-0018", format!("read the secret file:{path}: {error}")))?;
        return Ok(content.trim_end().to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file, loads it, and gives the first line of the failure, or "" where it is fine.
    fn check_file(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        std::fs::write(&file, text).unwrap();
        match load(Some(&file), &[], &[]) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}").replace(&format!("{}", file.display()), "m.toml"),
        }
    }

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let (config, origins) = load(None, &[], &[]).unwrap();
        assert_eq!(config.portal.port, 8080);
        assert_eq!(config.history.flush_after, Span(30_000_000));
        assert_eq!(config.history.dead_letter_retention, Span(90 * 86_400_000_000));
        assert_eq!(config.bus.retention_bytes, Size(8 << 30));
        assert!(origins.values().all(|(_, origin)| *origin == Origin::Default));
    }

    #[test]
    fn a_clock_may_be_ahead_of_utc_or_behind() {
        let offset = |text: &str| Offset::try_from(text.to_owned()).map(|offset| offset.0).ok();
        assert_eq!(offset("9h"), Some(9 * 3_600_000_000));
        assert_eq!(offset("+30m"), Some(1_800_000_000));
        assert_eq!(offset("-30m"), Some(-1_800_000_000));
        assert_eq!(offset("9"), None);
        assert_eq!(check_file("[[sources]]\nname = \"http\"\nclock_offset = \"9h\"\n"), "");
        let wrong = check_file("[[sources]]\nname = \"http\"\nclock_ofset = \"9h\"\n");
        assert!(wrong.contains("m.toml:3") && wrong.contains("clock_ofset"), "{wrong}");
        assert!(check_file("[[sources]]\nname = \"http\"\nclock_offset = \"9\"\n").contains("write 9h or -30m"));
    }

    #[test]
    fn a_mistake_names_file_line_and_column() {
        assert_eq!(check_file("[portal]\nport = 9000\n"), "");
        assert_eq!(check_file("[portal]\n  prot = 9000\n"), "m.toml:2:3: there is no key `portal.prot`");
        assert_eq!(
            check_file("[portal]\nport = \"x\"\n"),
            "m.toml:2:1: `portal.port` is a integer, here stands a string"
        );
        assert!(check_file("[portal\n").starts_with("m.toml:1:8: "), "{}", check_file("[portal\n"));
        assert!(check_file("[bus]\nretention = \"7 days\"\n").contains("`7 days` is no time"));
        assert!(check_file("[portal]\nhost = \"0.0.0.0\"\n").contains("not a loopback address"));
        assert!(
            check_file("[[machines]]\nmatsch = \"a\"\nclass = \"mill\"\n").contains("[[machines]] has no key `matsch`")
        );
        assert!(
            check_file("[registry]\nreadings = \"avro\"\n").starts_with("registry.readings needs a registry (m.toml:2")
        );
        let registry = "[registry]\nurl = \"http://127.0.0.1:1\"\n";
        assert_eq!(check_file(registry), "");
        let debezium = format!("{registry}alerts = \"json\"\n[relay]\nkind = \"debezium\"\n");
        assert!(check_file(&debezium).starts_with("registry.alerts needs relay.kind = \"millwright\""));
        let batches = format!("{registry}readings = \"json\"\n[bus]\nvalues = \"binary\"\n");
        assert!(check_file(&batches).starts_with("registry.readings needs one reading a record"));
        assert!(check_file("[registry]\nurl = \"127.0.0.1\"\n").contains("no http:// or https:// address"));
        assert!(check_file("[site]\ntimezone = \"Mars/Olympus\"\n").contains("no time zone"));
    }

    #[test]
    fn environment_overrides_the_file_and_a_flag_overrides_both() {
        let environment = vec![("MILLWRIGHT_PORTAL__PORT".to_owned(), "7000".to_owned())];
        let (config, origins) = load(None, &environment, &[]).unwrap();
        assert_eq!(config.portal.port, 7000);
        assert_eq!(origins["portal.port"].1, Origin::Environment("MILLWRIGHT_PORTAL__PORT".to_owned()));
        let (config, origins) = load(None, &environment, &[("portal.port", Value::Integer(0))]).unwrap();
        assert_eq!((config.portal.port, &origins["portal.port"].1), (0, &Origin::Flag));
    }

    #[test]
    fn a_bad_value_of_the_environment_is_named_with_it() {
        let failure = |name: &str, value: &str| {
            let environment = [(name.to_owned(), value.to_owned())];
            format!("{:#}", load(None, &environment, &[]).unwrap_err())
        };
        for (name, value) in [
            ("MILLWRIGHT_PORTAL__HOST", "0.0.0.0"),
            ("MILLWRIGHT_PORTAL__PORT", "70000"),
            ("MILLWRIGHT_BUS__RETENTION", "7 days"),
            ("MILLWRIGHT_BUS__RETENTION_BYTES", "8 giga"),
            ("MILLWRIGHT_SIMULATE__RATE_HZ", "0"),
            ("MILLWRIGHT_SIMULATE__MACHINES", "0"),
            ("MILLWRIGHT_SITE__TIMEZONE", "Mars/Olympus"),
            ("MILLWRIGHT_LOG__FORMAT", "xml"),
        ] {
            let told = failure(name, value);
            assert!(told.contains(&format!("(environment {name})")), "{told}");
        }
    }

    #[test]
    fn an_unknown_name_in_the_environment_is_refused_unless_it_is_a_strangers() {
        let refused = load(None, &[("MILLWRIGHT_PORTAL__PROT".to_owned(), "1".to_owned())], &[]).unwrap_err();
        assert_eq!(
            refused.downcast_ref::<Failure>().unwrap().hint.as_deref(),
            Some("did you mean MILLWRIGHT_PORTAL__PORT?")
        );
        load(None, &[("MILLWRIGHT_BIN".to_owned(), "/x".to_owned())], &[]).unwrap();
    }
}
