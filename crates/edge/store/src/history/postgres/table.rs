//! `sensor_log` and its like: which table a class has, its columns, its days.
//!
//! A table is made, and gets a column for a new channel, when the first commit needs it; a day's partition when its first
//! reading comes. Several processes may do so at once: each holds an advisory lock meanwhile. A day is made beside its
//! table and attached then, as this waits for no reader or writer.

use super::{Error, Inner};
use catalog::{Channel, Class};
use deadpool_postgres::GenericClient;
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};
use wire::format_time;

/// Held by who makes a table or a day: "MWlg".
const LOCK: i64 = 0x4d57_6c67;
/// The class whose table carries no name of a class.
const MILL: &str = "mill";
const DAY_US: i64 = 86_400_000_000;
/// More channels than this do not fit the two bits each of an integer `quality`.
const NARROW_CHANNELS: usize = 15;

/// How a column holds a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SmallInt,
    Integer,
    BigInt,
    Numeric { precision: u32, scale: u32 },
    Double,
}

/// A class's table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) class: Arc<Class>,
    pub(super) name: String,
    /// By channel; nothing where the table has no such column.
    pub(super) channels: Vec<Option<Kind>>,
    /// By attribute: the table has it.
    pub(super) attributes: Vec<bool>,
    pub(super) quality: Kind,
}

/// What is known of the tables.
#[derive(Default)]
pub(super) struct Tables {
    by_class: Mutex<BTreeMap<String, Arc<Table>>>,
    /// (table, day).
    days: Mutex<HashSet<(String, i64)>>,
}

/// A column as it is.
struct Column {
    kind: Option<Kind>,
    text: String,
    /// Most characters.
    length: Option<i32>,
}

pub(super) fn name_of(class: &str) -> String {
    if class == MILL { "sensor_log".to_owned() } else { format!("sensor_log_{class}") }
}

/// The number of the day that a time lies in.
pub(super) fn day_of(timestamp_us: i64) -> i64 {
    timestamp_us.div_euclid(DAY_US)
}

/// A class's id begins with a letter, so no other class's table is called so.
pub(super) fn day_name(class: &str, day: i64) -> String {
    let date = date(day).replace('-', "");
    if class == MILL { format!("sensor_log_{date}") } else { format!("sensor_log_{date}_{class}") }
}

fn date(day: i64) -> String {
    let mut text = format_time(day * DAY_US);
    text.truncate("2025-11-07".len());
    text
}

impl Kind {
    fn parse(sql: &str) -> Option<Kind> {
        let sql: String = sql.to_ascii_lowercase().split_whitespace().collect();
        Some(match &*sql {
            "smallint" | "int2" => Kind::SmallInt,
            "integer" | "int" | "int4" => Kind::Integer,
            "bigint" | "int8" => Kind::BigInt,
            "doubleprecision" | "float8" => Kind::Double,
            sql => {
                let inner = sql.strip_prefix("decimal(").or_else(|| sql.strip_prefix("numeric("))?.strip_suffix(')')?;
                let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
                Kind::Numeric { precision: precision.parse().ok()?, scale: scale.parse().ok()? }
            }
        })
    }

    fn sql(self) -> String {
        match self {
            Kind::SmallInt => "smallint".to_owned(),
            Kind::Integer => "integer".to_owned(),
            Kind::BigInt => "bigint".to_owned(),
            Kind::Numeric { precision, scale } => format!("decimal({precision},{scale})"),
            Kind::Double => "double precision".to_owned(),
        }
    }

    /// Every value of the channel's range lies in it unchanged.
    fn holds(self, channel: &Channel) -> bool {
        let whole = |least: i64, most: i64| channel.scale == 0 && channel.range.0 >= least && channel.range.1 <= most;
        let largest = channel.range.0.unsigned_abs().max(channel.range.1.unsigned_abs());
        match self {
            Kind::SmallInt => whole(i16::MIN.into(), i16::MAX.into()),
            Kind::Integer => whole(i32::MIN.into(), i32::MAX.into()),
            Kind::BigInt => whole(i64::MIN, i64::MAX),
            Kind::Numeric { precision, scale } => {
                let shift = scale.checked_sub(channel.scale.into()).and_then(|spare| 10_u128.checked_pow(spare));
                let most = 10_u128.checked_pow(precision).unwrap_or(u128::MAX);
                shift.and_then(|shift| u128::from(largest).checked_mul(shift)).is_some_and(|value| value < most)
            }
            Kind::Double => largest < 1 << 53,
        }
    }

    /// The type of a new column.
    fn of(channel: &Channel) -> Kind {
        if let Some(kind) = Kind::parse(&channel.sql).filter(|kind| kind.holds(channel)) {
            return kind;
        }
        let wide = match channel.scale {
            0 => Kind::BigInt,
            scale => Kind::Numeric { precision: 19, scale: scale.into() },
        };
        let (channel, given, wide_sql) = (&channel.id, &channel.sql, wide.sql());
        tracing::warn!("channel {channel}: {given} does not hold its range, so its column is {wide_sql}");
        wide
    }
}

impl Inner {
    /// A class's table for writing: made where it is not there, widened where the class has a new channel.
    pub(super) async fn table_to_write(&self, class: &Arc<Class>) -> Result<Arc<Table>, Error> {
        if let Some(table) = self.tables.known(class)
            && table.channels.iter().all(Option::is_some)
            && table.attributes.iter().all(|there| *there)
        {
            return Ok(table);
        }
        let name = name_of(&class.id);
        let mut client = self.pools.write.get().await?;
        let transaction = client.transaction().await?;
        transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        let mut columns = columns(&transaction, &name).await?;
        let changes = if columns.is_empty() { create(class, &name) } else { widen(class, &name, &columns) };
        if !changes.is_empty() {
            transaction.batch_execute(&changes).await?;
            columns = self::columns(&transaction, &name).await?;
        }
        transaction.commit().await?;
        let table = Table::new(class, name, &columns)?;
        Ok(self.tables.enter(table))
    }

    /// A class's table for reading; nothing where it was not made yet.
    pub(super) async fn table_to_read(&self, class: &Arc<Class>) -> Result<Option<Arc<Table>>, Error> {
        if let Some(table) = self.tables.known(class) {
            return Ok(Some(table));
        }
        let name = name_of(&class.id);
        let client = self.pools.read.get().await?;
        let columns = columns(&client, &name).await?;
        if columns.is_empty() {
            return Ok(None);
        }
        let table = Table::new(class, name, &columns)?;
        // What ingest has yet to add is looked for again.
        let whole = table.channels.iter().all(Option::is_some) && table.attributes.iter().all(|there| *there);
        Ok(Some(if whole { self.tables.enter(table) } else { Arc::new(table) }))
    }

    /// Makes the days that a commit needs.
    pub(super) async fn make_days(&self, table: &Table, days: impl Iterator<Item = &i64>) -> Result<(), Error> {
        let known = |day: &i64| self.tables.days.lock().expect("never poisoned").contains(&(table.name.clone(), *day));
        let missing: Vec<i64> = days.copied().filter(|day| !known(day)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut client = self.pools.write.get().await?;
        for day in missing {
            let (parent, name) = (&table.name, day_name(&table.class.id, day));
            let transaction = client.transaction().await?;
            transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            let there = transaction.query_one("select to_regclass($1::text) is not null", &[&name]).await?;
            if !there.try_get::<_, bool>(0)? {
                let (from, to) = (date(day), date(day + 1));
                let make = format!(
                    "create table {name} (like {parent} including defaults);
                     alter table {parent} attach partition {name} for values from ('{from}') to ('{to}')"
                );
                transaction.batch_execute(&make).await?;
            }
            transaction.commit().await?;
            self.tables.days.lock().expect("never poisoned").insert((table.name.clone(), day));
        }
        Ok(())
    }

    /// Drops the days whose newest arrival is older than what is kept.
    pub(super) async fn drop_old(&self, now_us: i64) -> Result<(), Error> {
        let before = now_us.saturating_sub(self.options.retention_us);
        let mut client = self.pools.write.get().await?;
        let old = client
            .query(
                "select class, day from sensor_day group by class, day having max(newest_arrival_us) < $1",
                &[&before],
            )
            .await?;
        for row in old {
            let (class, day): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let name = day_name(&class, day);
            let transaction = client.transaction().await?;
            transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            let there = transaction.query_one("select to_regclass($1::text) is not null", &[&name]).await?;
            if there.try_get::<_, bool>(0)? {
                // Whoever writes to the day has said so in `sensor_day` once this lock is had.
                transaction.batch_execute(&format!("lock table {name} in access exclusive mode")).await?;
                let sql = "select max(newest_arrival_us) < $3 from sensor_day where class = $1 and day = $2";
                let still = transaction.query_one(sql, &[&class, &day, &before]).await?;
                if still.try_get::<_, Option<bool>>(0)? != Some(true) {
                    continue;
                }
                transaction.batch_execute(&format!("drop table {name}")).await?;
            }
            transaction.execute("delete from sensor_day where class = $1 and day = $2", &[&class, &day]).await?;
            transaction.commit().await?;
            self.tables.days.lock().expect("never poisoned").remove(&(name_of(&class), day));
            tracing::info!("dropped {name}, whose newest reading came before what is kept");
        }
        Ok(())
    }
}

impl Tables {
    fn known(&self, class: &Arc<Class>) -> Option<Arc<Table>> {
        let by_class = self.by_class.lock().expect("never poisoned");
        let same = |table: &&Arc<Table>| Arc::ptr_eq(&table.class, class) || table.class.document == class.document;
        by_class.get(&class.id).filter(same).cloned()
    }

    fn enter(&self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        self.by_class.lock().expect("never poisoned").insert(table.class.id.clone(), table.clone());
        table
    }

    /// Forgets which days there are: another process dropped one.
    pub(super) fn forget_days(&self) {
        self.days.lock().expect("never poisoned").clear();
    }
}

impl Table {
    fn new(class: &Arc<Class>, name: String, columns: &BTreeMap<String, Column>) -> Result<Table, Error> {
        let mut channels = Vec::new();
        for channel in &class.channels {
            let column = columns.get(&channel.id);
            let kind = column.and_then(|column| column.kind).filter(|kind| kind.holds(channel));
            if let (Some(column), None) = (column, kind) {
                let (column, found) = (channel.id.clone(), column.text.clone());
                return Err(Error::Column { table: name, column, found });
            }
            channels.push(kind);
        }
        let attributes = class.attributes.iter().map(|attribute| columns.contains_key(&attribute.id)).collect();
        let quality = columns.get("quality").and_then(|column| column.kind).unwrap_or(Kind::Integer);
        Ok(Table { class: class.clone(), name, channels, attributes, quality })
    }
}

async fn columns(client: &impl GenericClient, table: &str) -> Result<BTreeMap<String, Column>, Error> {
    let sql = "select column_name::text, data_type::text, numeric_precision::integer, numeric_scale::integer,
                   character_maximum_length::integer
               from information_schema.columns where table_schema = 'public' and table_name = $1";
    let mut columns = BTreeMap::new();
    for row in client.query(sql, &[&table]).await? {
        let (name, mut text): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if text == "numeric" {
            let [precision, scale] = [row.try_get(2)?, row.try_get(3)?];
            text = match (precision, scale) {
                (Some::<i32>(precision), Some::<i32>(scale)) => format!("numeric({precision},{scale})"),
                // Without bounds it holds whatever comes.
                _ => "numeric(131072,16383)".to_owned(),
            };
        }
        columns.insert(name, Column { kind: Kind::parse(&text), text, length: row.try_get(4)? });
    }
    Ok(columns)
}

fn quality_type(class: &Class) -> &'static str {
    if class.channels.len() <= NARROW_CHANNELS { "integer" } else { "numeric(39)" }
}

fn create(class: &Class, name: &str) -> String {
    let channels = class.channels.iter().map(|channel| format!("\"{}\" {}", channel.id, Kind::of(channel).sql()));
    let attributes = class.attributes.iter().map(|attribute| format!("\"{}\" text", attribute.id));
    let fixed = |columns: &[&str]| columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>();
    let quality = format!("quality {}", quality_type(class));
    let columns: Vec<String> =
        fixed(&["id bigserial", "machine_id varchar(50) collate \"C\" not null", "timestamp timestamp not null"])
            .into_iter()
            .chain(channels)
            .chain(fixed(&["created_at timestamp default current_timestamp"]))
            .chain(attributes)
            .chain(fixed(&[
                "seq bigint",
                &quality,
                "flags smallint",
                "bus_partition smallint",
                "bus_offset bigint",
                "bus_index integer",
            ]))
            .collect();
    format!(
        "create table {name} ({}) partition by range (timestamp);
         create index {name}_machine on {name} (machine_id, timestamp)",
        columns.join(", ")
    )
}

/// What a table lacks for a class as it is.
fn widen(class: &Class, name: &str, columns: &BTreeMap<String, Column>) -> String {
    let mut changes = Vec::new();
    for channel in class.channels.iter().filter(|channel| !columns.contains_key(&channel.id)) {
        changes.push(format!("add column \"{}\" {}", channel.id, Kind::of(channel).sql()));
    }
    for attribute in &class.attributes {
        let longest = attribute.values.iter().map(|word| word.chars().count()).max().unwrap_or(0);
        match columns.get(&attribute.id) {
            None => changes.push(format!("add column \"{}\" text", attribute.id)),
            Some(column) if column.length.is_some_and(|length| (length as usize) < longest) => {
                changes.push(format!("alter column \"{}\" type text", attribute.id));
            }
            Some(_) => {}
        }
    }
    let narrow = columns.get("quality").is_some_and(|column| column.kind == Some(Kind::Integer));
    if narrow && class.channels.len() > NARROW_CHANNELS {
        changes.push(format!("alter column quality type {}", quality_type(class)));
    }
    if changes.is_empty() { String::new() } else { format!("alter table {name} {}", changes.join(", ")) }
}
