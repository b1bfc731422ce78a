//! Alarms, and the portal's step: alarms, audit, notifications and events in one transaction with its position.

use super::{
    Attempted, Error, MachineRow, MaintenanceRow, NewAudit, NewEvent, Sqlite, StoredEvent, audit, commit, events,
    machines, maintenance, notifications,
};
use crate::history::Page;
use alarm::{Alarm, State};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter, types::Value};
use uuid::Uuid;
use wire::ALERTS_TOPIC;

/// Name space of alarm ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x5e1b7a0c_93d4_5f26_8c11_d2a94be3076f);
/// Changes for which the list as it was is kept; an older cursor is refused.
pub(super) const VERSIONS: i64 = 10_000;

/// The id of the alarm of a machine and condition: UUIDv5, the same in every process.
pub fn alarm_id(machine: &str, condition: &str) -> Uuid {
    // A condition holds no `|`, so the name is read in one way only.
    Uuid::new_v5(&NAMESPACE, format!("{machine}|{condition}").as_bytes())
}

/// An alarm as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmRow {
    /// See [`alarm_id`].
    pub id: Uuid,
    /// Its state.
    pub alarm: Alarm,
    /// JSON of the alert that last raised its condition or changed its severity: reason and text. `None`: a system alarm.
    pub alert: Option<String>,
    /// Words of a system alarm; `None`: the alert has them.
    pub text: Option<wire::AlertText>,
    /// The alarm whose group it joined (first-out); `None`: it is the first, or alone.
    pub group: Option<Uuid>,
}

/// Which alarms.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "parameters of /api/alarms")]
pub struct AlarmQuery {
    pub machine_id: Option<String>,
    /// One of `alarm::State::WORDS`.
    pub state: Option<String>,
    pub subject: Option<String>,
    pub severity: Option<String>,
    /// `true`: all but `normal`; `false`: all.
    pub open: bool,
    /// Last change, inclusive.
    pub from_us: Option<i64>,
    /// Last change, exclusive.
    pub to_us: Option<i64>,
    pub limit: usize,
    pub cursor: Option<String>,
}

/// One step of the portal: everything in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The portal's position in its partition, compare-and-set: (from, to).
    pub position: Option<(i64, i64)>,
    /// The partition of `wire::ALERTS_TOPIC`; the outbox is partition 0.
    pub partition: u16,
    /// The edition of the alarms on which it was judged ([`crate::Store::edition`]), compare-and-set; `None`: nobody else
    /// writes them.
    pub edition: Option<i64>,
    /// Alarms as they are from here.
    pub alarms: Vec<AlarmRow>,
    /// Lines of the audit log, with their notifications.
    pub audit: Vec<NewAudit>,
    /// Events, in order.
    pub events: Vec<NewEvent>,
    /// Registry rows, as [`crate::Store::register`] writes them.
    pub machines: Vec<MachineRow>,
    /// Maintenance windows that begin, or end early.
    pub maintenance: Vec<MaintenanceRow>,
    /// How attempts to notify ended, as [`crate::Store::attempted`] writes them: (notification, when, how).
    pub attempted: Vec<(Uuid, i64, Attempted)>,
}

/// Where a page ended: the order of the list, and the version at which paging began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) rank: i64,
    pub(super) priority: i64,
    pub(super) changed_us: i64,
    pub(super) id: Uuid,
    pub(super) as_of: i64,
}

impl Sqlite {
    pub(super) async fn portal_position(&self, partition: u16) -> Result<i64, Error> {
        self.read(move |connection| commit::next_offset(connection, ALERTS_TOPIC, partition)).await
    }

    pub(super) async fn record(&self, record: Record) -> Result<Vec<StoredEvent>, Error> {
        let confirmed: Vec<(String, bool)> =
            record.machines.iter().map(|row| (row.machine_id.clone(), row.confirmed)).collect();
        let store = self.clone();
        self.write_then(
            move |transaction| write_record(transaction, &record),
            move |_| {
                for (machine, yes) in &confirmed {
                    store.note_confirmed(machine, *yes);
                }
            },
        )
        .await
    }

    pub(super) async fn alarms(&self) -> Result<Vec<AlarmRow>, Error> {
        self.read(|connection| {
            rows(connection, &format!("select {COLUMNS} from alarm order by machine_id, condition"), [])
        })
        .await
    }

    pub(super) async fn alarm_page(&self, query: AlarmQuery) -> Result<Page<AlarmRow>, Error> {
        self.read(move |connection| page(connection, &query)).await
    }

    pub(super) async fn alarm(&self, id: Uuid) -> Result<Option<AlarmRow>, Error> {
        self.read(move |connection| {
            let sql = format!("select {COLUMNS} from alarm where id = ?1");
            Ok(rows(connection, &sql, [id.to_string().into()])?.pop())
        })
        .await
    }
}

fn write_record(transaction: &Transaction<'_>, record: &Record) -> Result<Vec<StoredEvent>, Error> {
    // The fence before any effect: a portal that was overtaken writes nothing.
    if let Some((from, to)) = record.position {
        commit::advance(transaction, ALERTS_TOPIC, record.partition, from, to)?;
    }
    for row in &record.machines {
        machines::put(transaction, row)?;
    }
    for row in &record.alarms {
        put(transaction, row)?;
    }
    for row in &record.maintenance {
        maintenance::put(transaction, row)?;
    }
    for (id, at_us, how) in &record.attempted {
        notifications::end_attempt(transaction, *id, *at_us, how)?;
    }
    for line in &record.audit {
        let sequence = audit::append(transaction, line)?;
        for notification in &line.notify {
            notifications::queue(transaction, notification, sequence)?;
        }
    }
    events::append(transaction, &record.events)
}

/// The columns that [`alarm`] reads, in its order.
const COLUMNS: &str = "alarm.id, alarm.state, alarm.alert, alarm.text_en, alarm.text_ko, alarm.group_id";

fn put(transaction: &Transaction<'_>, row: &AlarmRow) -> Result<(), Error> {
    let AlarmRow { id, alarm, alert, text, group } = row;
    let id = id.to_string();
    let state = serde_json::to_string(alarm).expect("an alarm has string keys");
    transaction
        .prepare_cached(
            "insert into alarm (id, machine_id, condition, state, alert, text_en, text_ko, group_id)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             on conflict (id) do update set state = excluded.state, alert = excluded.alert, text_en = excluded.text_en,
                 text_ko = excluded.text_ko, group_id = excluded.group_id",
        )?
        .execute(params![
            id,
            alarm.machine_id,
            alarm.condition,
            state,
            alert,
            text.as_ref().map(|text| &text.en),
            text.as_ref().map(|text| &text.ko),
            group.map(|group| group.to_string()),
        ])?;
    transaction
        .prepare_cached(
            "insert into alarm_version (alarm_id, machine_id, state, subject, severity, rank, priority, changed_us)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            id,
            alarm.machine_id,
            alarm.state.as_str(),
            alarm.subject.as_str(),
            alarm.severity.as_str(),
            rank(&alarm.state),
            // Below all that asks to act.
            alarm.priority.unwrap_or(5),
            alarm.changed_us,
        ])?;
    let version = transaction.last_insert_rowid();
    // The newest that a cursor may still ask for stays.
    transaction
        .prepare_cached(
            "delete from alarm_version where alarm_id = ?1 and version <
                 (select max(version) from alarm_version where alarm_id = ?1 and version <= ?2)",
        )?
        .execute(params![id, version - VERSIONS])?;
    Ok(())
}

pub(super) fn rank(state: &State) -> i64 {
    match state {
        State::Unacknowledged => 0,
        State::ReturnedUnacknowledged => 1,
        State::Acknowledged | State::Shelved { .. } | State::Suppressed | State::OutOfService { .. } => 2,
        State::Normal => 3,
    }
}

fn page(connection: &Connection, query: &AlarmQuery) -> Result<Page<AlarmRow>, Error> {
    let cursor = query.cursor.as_deref().map(|text| Cursor::parse(text).ok_or(Error::Cursor)).transpose()?;
    let newest: i64 = connection
        .prepare_cached("select coalesce(max(version), 0) from alarm_version")?
        .query_row([], |row| row.get(0))?;
    let as_of = cursor.map_or(newest, |cursor| cursor.as_of);
    if as_of < newest - VERSIONS {
        return Err(Error::Cursor);
    }
    let limit = query.limit.clamp(1, 1_000);

    let mut sql = format!(
        "select {COLUMNS}, listed.rank, listed.priority, listed.changed_us
         from alarm_version listed join alarm on alarm.id = listed.alarm_id
         where listed.version = (select max(version) from alarm_version
             where alarm_id = listed.alarm_id and version <= ?)"
    );
    let mut values: Vec<Value> = vec![as_of.into()];
    let texts = [
        (" and listed.machine_id = ?", &query.machine_id),
        (" and listed.state = ?", &query.state),
        (" and listed.subject = ?", &query.subject),
        (" and listed.severity = ?", &query.severity),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            sql += condition;
            values.push(value.clone().into());
        }
    }
    for (condition, at_us) in
        [(" and listed.changed_us >= ?", query.from_us), (" and listed.changed_us < ?", query.to_us)]
    {
        if let Some(at_us) = at_us {
            sql += condition;
            values.push(at_us.into());
        }
    }
    if query.open {
        sql += " and listed.state <> 'normal'";
    }
    if let Some(Cursor { rank, priority, changed_us, id, .. }) = cursor {
        sql += " and (listed.rank, listed.priority, -listed.changed_us, listed.alarm_id) > (?, ?, ?, ?)";
        values.extend([rank.into(), priority.into(), (-changed_us).into(), id.to_string().into()]);
    }
    // One row more than asked for tells whether there is a next page.
    sql += " order by listed.rank, listed.priority, listed.changed_us desc, listed.alarm_id limit ?";
    values.push((limit as i64 + 1).into());

    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut shown: Vec<(AlarmRow, Cursor)> = Vec::new();
    let mut more = false;
    while let Some(row) = found.next()? {
        if shown.len() == limit {
            more = true;
            break;
        }
        let alarm = alarm(row)?;
        let cursor = Cursor { rank: row.get(6)?, priority: row.get(7)?, changed_us: row.get(8)?, id: alarm.id, as_of };
        shown.push((alarm, cursor));
    }
    let next_cursor = shown.last().filter(|_| more).map(|(_, cursor)| cursor.text());
    Ok(Page { rows: shown.into_iter().map(|(row, _)| row).collect(), next_cursor })
}

fn rows(connection: &Connection, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<Vec<AlarmRow>, Error> {
    let mut query = connection.prepare_cached(sql)?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(alarm(row)?);
    }
    Ok(found)
}

fn alarm(row: &Row<'_>) -> Result<AlarmRow, Error> {
    let id: String = row.get(0)?;
    let damaged = || Error::Damaged(format!("alarm {id}"));
    let text = match (row.get(3)?, row.get(4)?) {
        (Some(en), Some(ko)) => Some(wire::AlertText { en, ko }),
        _ => None,
    };
    let group: Option<String> = row.get(5)?;
    Ok(AlarmRow {
        alarm: serde_json::from_str(row.get_ref(1)?.as_str().map_err(|_| damaged())?).map_err(|_| damaged())?,
        alert: row.get(2)?,
        text,
        group: group.map(|group| group.parse()).transpose().map_err(|_| damaged())?,
        id: id.parse().map_err(|_| damaged())?,
    })
}

/// Raises a counter that has no gaps by `by`; its value before.
pub(super) fn raise_counter(transaction: &Transaction<'_>, name: &str, by: i64) -> Result<i64, Error> {
    Ok(transaction
        .prepare_cached("update counter set value = value + ?2 where name = ?1 returning value - ?2")?
        .query_row(params![name, by], |row| row.get(0))?)
}

/// Last number that a counter gave.
pub(super) fn counter(connection: &Connection, name: &str) -> Result<i64, Error> {
    let value = connection
        .prepare_cached("select value from counter where name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    value.ok_or_else(|| Error::Damaged(format!("counter {name}")))
}

impl Cursor {
    pub(super) fn text(self) -> String {
        let Cursor { rank, priority, changed_us, id, as_of } = self;
        format!("l{rank}.{priority}.{changed_us}.{}.{as_of}", id.simple())
    }

    pub(super) fn parse(text: &str) -> Option<Cursor> {
        let mut parts = text.strip_prefix('l')?.split('.');
        let mut number = || parts.next()?.parse().ok();
        let (rank, priority, changed_us) = (number()?, number()?, number()?);
        let cursor =
            Cursor { rank, priority, changed_us, id: parts.next()?.parse().ok()?, as_of: parts.next()?.parse().ok()? };
        // `+1` and `01` read as numbers too; only what was written by `text` is a cursor.
        (cursor.text() == text).then_some(cursor)
    }
}
