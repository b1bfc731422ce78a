//! Detect's transaction: position, history, outbox, events, machines, fits and activations together.

use super::{Activation, Error, Sqlite, catalogues, machines};
use engine::{Effects, MachineEvent};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::sync::Arc;
use uuid::Uuid;
use wire::{Alert, READINGS_TOPIC};

/// One step of detect on one partition.
pub struct Step<'a> {
    /// The partition of `wire::READINGS_TOPIC`.
    pub partition: u16,
    /// Where it stood.
    pub from: i64,
    /// Where it stands then.
    pub to: i64,
    /// What the records between lead to.
    pub effects: &'a Effects,
    /// Source of the first reading of each of `effects.machines`.
    pub sources: &'a [Arc<str>],
    /// A catalogue that takes effect at `from`: (hash, document).
    pub activation: Option<(&'a str, &'a str)>,
}

/// A step that owns what its transaction needs of it.
pub(super) struct OwnedStep {
    pub(super) partition: u16,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) alerts: Vec<AlertRow>,
    pub(super) events: Vec<MachineEvent>,
    pub(super) machines: Vec<machines::FirstSight>,
    /// (hash, name, document)
    pub(super) fits: Vec<(String, String, String)>,
    /// (hash, document)
    pub(super) activation: Option<(String, String)>,
}

/// An alert with its columns encoded, so that the transaction only binds them.
pub(super) struct AlertRow {
    pub(super) alert: Alert,
    pub(super) reason: String,
    pub(super) payload: String,
}

impl Sqlite {
    pub(super) async fn positions(&self, partitions: Vec<u16>) -> Result<Vec<i64>, Error> {
        self.read(move |connection| {
            // One transaction sees one moment.
            let transaction = connection.unchecked_transaction()?;
            partitions.iter().map(|partition| next_offset(&transaction, READINGS_TOPIC, *partition)).collect()
        })
        .await
    }

    pub(super) async fn commit(&self, steps: Vec<Step<'_>>) -> Result<(), Error> {
        let steps: Vec<OwnedStep> = steps.iter().map(OwnedStep::new).collect();
        let outbox = self.outbox.clone();
        let confirmed = self.confirmed.clone();
        let job = move |transaction: &Transaction<'_>| write_steps(transaction, &steps);
        self.write_then(job, move |written: &Written| {
            confirmed.set(written.confirmed.iter().map(|machine| (machine.as_str(), true)));
            if let Some(last) = written.outbox {
                outbox.send_replace(last);
            }
        })
        .await
        .map(|_| ())
    }

    pub(super) async fn outbox_after(&self, after: i64, limit: usize) -> Result<Vec<(i64, String)>, Error> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "select position, payload from outbox where position > ?1 order by position limit ?2",
            )?;
            let rows = query.query_map(params![after, limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub(super) fn outbox_grown(&self) -> tokio::sync::watch::Receiver<i64> {
        self.outbox.subscribe()
    }

    pub(super) async fn prune_outbox(&self, through: i64) -> Result<usize, Error> {
        // The newest row stays: a start reads the last position from it.
        self.write(move |transaction| {
            Ok(transaction.execute(
                "delete from outbox where position <= ?1 and position < (select max(position) from outbox)",
                [through],
            )?)
        })
        .await
    }

    pub(super) async fn fit(&self, hash: &str) -> Result<Option<scoring::Fit>, Error> {
        let hash = hash.to_owned();
        self.read(move |connection| {
            let document: Option<String> = connection
                .prepare_cached("select document from fit where hash = ?1")?
                .query_row([&hash], |row| row.get(0))
                .optional()?;
            document
                .map(|text| serde_json::from_str(&text).map_err(|_| Error::Damaged(format!("fit {hash}"))))
                .transpose()
        })
        .await
    }
}

impl OwnedStep {
    pub(super) fn new(step: &Step<'_>) -> OwnedStep {
        let Step { partition, from, to, effects, sources, activation } = step;
        let row = |alert: &Alert| AlertRow {
            alert: alert.clone(),
            reason: serde_json::to_string(&alert.reason).expect("a reason has string keys and finite numbers"),
            payload: alert.to_json(),
        };
        let first_sight = |(at, (machine, class, first_seen)): (usize, &(catalog::MachineId, String, i64))| {
            let source = sources.get(at).map(|source| source.to_string());
            machines::FirstSight { machine: machine.to_string(), class: class.clone(), first_seen: *first_seen, source }
        };
        let fit = |(name, fit): &(String, scoring::Fit)| {
            let document = serde_json::to_string(fit).expect("a fit has string keys and finite numbers");
            (fit.hash(), name.clone(), document)
        };
        OwnedStep {
            partition: *partition,
            from: *from,
            to: *to,
            alerts: effects.alerts.iter().map(row).collect(),
            events: effects.events.clone(),
            machines: effects.machines.iter().enumerate().map(first_sight).collect(),
            fits: effects.fits.iter().map(fit).collect(),
            activation: activation.map(|(hash, document)| (hash.to_owned(), document.to_owned())),
        }
    }
}

/// What a commit leads to once it is durable.
struct Written {
    /// Last outbox row written.
    outbox: Option<i64>,
    /// Machines that were confirmed at first sight.
    confirmed: Vec<String>,
}

fn write_steps(transaction: &Transaction<'_>, steps: &[OwnedStep]) -> Result<Written, Error> {
    // Every fence before any effect: a detector that was overtaken writes nothing.
    for step in steps {
        advance(transaction, READINGS_TOPIC, step.partition, step.from, step.to)?;
    }
    let mut written = Written { outbox: None, confirmed: Vec::new() };
    for step in steps {
        if let Some((hash, document)) = &step.activation {
            let activation =
                Activation { partition: step.partition, from_offset: step.from, catalogue_hash: hash.clone() };
            catalogues::activate(transaction, &activation, document)?;
        }
        for first in &step.machines {
            if machines::see(transaction, first)? {
                written.confirmed.push(first.machine.clone());
            }
        }
        for fit in &step.fits {
            transaction
                .prepare_cached("insert into fit (hash, name, document) values (?1, ?2, ?3) on conflict do nothing")?
                .execute(params![fit.0, fit.1, fit.2])?;
        }
        for event in &step.events {
            insert_event(transaction, event)?;
        }
        for row in &step.alerts {
            written.outbox = insert_alert(transaction, row)?.or(written.outbox);
        }
    }
    Ok(written)
}

/// Next offset of a consumer of this file.
pub(super) fn next_offset(connection: &Connection, topic: &str, partition: u16) -> Result<i64, Error> {
    let next = connection
        .prepare_cached("select next_offset from consumer_offset where topic = ?1 and partition = ?2")?
        .query_row(params![topic, partition], |row| row.get(0))
        .optional()?;
    Ok(next.unwrap_or(0))
}

/// Moves a consumer's position, by compare-and-set: who does not stand where he thinks he does is fenced off. A position
/// that was never written is 0.
pub(crate) fn advance(
    transaction: &Transaction<'_>,
    topic: &str,
    partition: u16,
    from: i64,
    to: i64,
) -> Result<(), Error> {
    let moved = transaction
        .prepare_cached(
            "update consumer_offset set next_offset = ?4 where topic = ?1 and partition = ?2 and next_offset = ?3",
        )?
        .execute(params![topic, partition, from, to])?;
    if moved == 1 {
        return Ok(());
    }
    let begun = from == 0
        && transaction
            .prepare_cached(
                "insert into consumer_offset (topic, partition, next_offset) values (?1, ?2, ?3) on conflict do nothing",
            )?
            .execute(params![topic, partition, to])?
            == 1;
    if begun {
        return Ok(());
    }
    Err(Error::Fenced { partition, expected: from, found: next_offset(transaction, topic, partition)? })
}

/// The same for an event that is told again.
pub(super) fn event_id(event: &MachineEvent) -> Uuid {
    let MachineEvent { machine_id, kind, timestamp_us, position, detail } = event;
    let wire::Position { topic, partition, offset, index } = position;
    let name = format!("{machine_id}|{kind}|{timestamp_us}|{topic}|{partition}|{offset}|{index}|{detail}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

fn insert_event(transaction: &Transaction<'_>, event: &MachineEvent) -> Result<(), Error> {
    let MachineEvent { machine_id, kind, timestamp_us, position, detail } = event;
    let wire::Position { topic, partition, offset, index } = position;
    let id = event_id(event).to_string();
    transaction
        .prepare_cached(
            r#"insert into machine_event (id, machine_id, kind, timestamp, topic, partition, "offset", "index", detail)
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) on conflict do nothing"#,
        )?
        .execute(params![id, machine_id, kind, timestamp_us, topic, partition, offset, index, detail])?;
    Ok(())
}

/// The outbox position of the alert, or nothing when the history had it.
fn insert_alert(transaction: &Transaction<'_>, row: &AlertRow) -> Result<Option<i64>, Error> {
    let AlertRow { alert, reason, payload } = row;
    let id = alert.alert_id.to_string();
    let inserted = transaction
        .prepare_cached(
            r#"insert into anomaly_history (id, machine_id, class, failure_type, kind, severity, score, condition,
                   condition_id, started_at, timestamp, arrived_at, model, model_version, topic, partition, "offset",
                   "index", reason, reading, text_en, text_ko, suspended, caught_up, notice)
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                   ?22, ?23, ?24, ?25) on conflict do nothing"#,
        )?
        .execute(params![
            id,
            alert.machine_id,
            alert.class,
            alert.failure_type,
            alert.kind.as_str(),
            alert.severity.as_str(),
            alert.score,
            alert.condition,
            alert.condition_id.to_string(),
            alert.started_at,
            alert.timestamp,
            alert.arrived_at,
            alert.model,
            alert.model_version,
            alert.position.topic,
            alert.position.partition,
            alert.position.offset,
            alert.position.index,
            reason,
            alert.reading.as_ref().map(|reading| reading.get()),
            alert.text.en,
            alert.text.ko,
            alert.suspended,
            alert.caught_up,
            alert.notice,
        ])?;
    if inserted == 0 {
        return Ok(None);
    }
    let position = transaction.last_insert_rowid();
    transaction
        .prepare_cached(
            "insert into outbox (position, id, aggregatetype, aggregateid, type, payload) values (?1, ?2, 'alert', ?3, ?4, ?5)",
        )?
        .execute(params![position, id, alert.machine_id, alert.kind.as_str(), payload])?;
    Ok(Some(position))
}
