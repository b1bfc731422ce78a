//! The registry of machines (DOMAIN.md 1).

use super::{Error, Sqlite};
use catalog::MachineSettings;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::{
    collections::{BTreeMap, HashSet},
    sync::RwLock,
};

/// Sources whose machines need no person to confirm them. A replayed file confirms none: when it ends, its machines
/// would all fall silent at once.
pub(super) const CONFIRMING_SOURCES: &[&str] = &["simulate"];

/// A machine, as people describe it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "columns of DOMAIN.md 1")]
pub struct MachineRow {
    pub machine_id: String,
    pub class: String,
    /// A person or an import named the class: it is part of the catalogue. Else its first reading did.
    pub class_given: bool,
    pub name_en: Option<String>,
    pub name_ko: Option<String>,
    pub site: Option<String>,
    pub line: Option<String>,
    pub cell: Option<String>,
    /// `A`, `B` or `C`; nothing where nobody said.
    pub criticality: Option<String>,
    pub asset_no: Option<String>,
    pub parameters: BTreeMap<String, f64>,
    pub limits: BTreeMap<String, f64>,
    pub attributes: BTreeMap<String, String>,
    /// Event time of its first reading.
    pub first_seen_us: Option<i64>,
    /// Source of its first reading.
    pub source: Option<String>,
    /// Raises no-data and notifies.
    pub confirmed: bool,
}

impl MachineRow {
    /// A machine of which only the id and the class are known.
    pub fn new(machine_id: &str, class: &str) -> MachineRow {
        MachineRow {
            machine_id: machine_id.to_owned(),
            class: class.to_owned(),
            class_given: false,
            name_en: None,
            name_ko: None,
            site: None,
            line: None,
            cell: None,
            criticality: None,
            asset_no: None,
            parameters: BTreeMap::new(),
            limits: BTreeMap::new(),
            attributes: BTreeMap::new(),
            first_seen_us: None,
            source: None,
            confirmed: false,
        }
    }

    /// What of it enters the catalogue.
    pub fn settings(&self) -> MachineSettings {
        let has_own = !(self.parameters.is_empty() && self.limits.is_empty() && self.attributes.is_empty());
        MachineSettings {
            // What it has of its own is written in the words of its class, whoever named that.
            class: (self.class_given || has_own).then(|| self.class.clone()),
            parameters: self.parameters.clone(),
            limits: self.limits.clone(),
            attributes: self.attributes.clone(),
        }
    }
}

/// A machine that detect saw for the first time.
pub(super) struct FirstSight {
    pub(super) machine: String,
    pub(super) class: String,
    pub(super) first_seen: i64,
    pub(super) source: Option<String>,
}

/// Confirmed machines, in memory: detect asks for each silent machine once a second.
#[derive(Default)]
pub(super) struct Confirmed(RwLock<HashSet<String>>);

impl Confirmed {
    pub(super) fn load(connection: &Connection) -> Result<Confirmed, Error> {
        let mut query = connection.prepare("select machine_id from machine where confirmed")?;
        let machines = query.query_map([], |row| row.get(0))?;
        Ok(Confirmed(RwLock::new(machines.collect::<Result<_, _>>()?)))
    }

    pub(super) fn has(&self, machine: &str) -> bool {
        self.0.read().expect("never poisoned").contains(machine)
    }

    pub(super) fn replace(&self, machines: HashSet<String>) {
        *self.0.write().expect("never poisoned") = machines;
    }

    pub(super) fn set<'a>(&self, machines: impl Iterator<Item = (&'a str, bool)>) {
        let mut confirmed = self.0.write().expect("never poisoned");
        for (machine, yes) in machines {
            if yes {
                confirmed.insert(machine.to_owned());
            } else {
                confirmed.remove(machine);
            }
        }
    }
}

impl Sqlite {
    pub(super) async fn registry(&self) -> Result<Vec<MachineRow>, Error> {
        self.read(list).await
    }

    pub(super) async fn registered(&self, machine: &str) -> Result<Option<MachineRow>, Error> {
        let machine = machine.to_owned();
        self.read(move |connection| get(connection, &machine)).await
    }

    pub(super) async fn registered_of(&self, machines: Vec<String>) -> Result<Vec<MachineRow>, Error> {
        self.read(move |connection| {
            machines.iter().filter_map(|machine| get(connection, machine).transpose()).collect()
        })
        .await
    }

    pub(super) async fn register(&self, rows: Vec<MachineRow>) -> Result<(), Error> {
        let confirmed = self.confirmed.clone();
        let job = move |transaction: &Transaction<'_>| {
            for row in &rows {
                put(transaction, row)?;
            }
            Ok(rows)
        };
        self.write_then(job, move |rows: &Vec<MachineRow>| {
            confirmed.set(rows.iter().map(|row| (row.machine_id.as_str(), row.confirmed)));
        })
        .await
        .map(|_| ())
    }

    pub(super) async fn confirm_machine(&self, machine: &str) -> Result<bool, Error> {
        let name = machine.to_owned();
        let store = self.clone();
        let noted = name.clone();
        let job = move |transaction: &Transaction<'_>| {
            Ok(transaction
                .prepare_cached("update machine set confirmed = 1 where machine_id = ?1")?
                .execute([&name])?
                == 1)
        };
        self.write_then(job, move |found: &bool| {
            if *found {
                store.note_confirmed(&noted, true);
            }
        })
        .await
    }

    /// Tells detect, after its commit, that a machine was confirmed or is so no more.
    pub(crate) fn note_confirmed(&self, machine: &str, confirmed: bool) {
        self.confirmed.set([(machine, confirmed)].into_iter());
    }

    pub(super) fn confirmed(&self, machine: &str) -> bool {
        self.confirmed.has(machine)
    }
}

/// Notes the first reading of a machine; tells whether that confirmed it.
pub(super) fn see(transaction: &Transaction<'_>, first: &FirstSight) -> Result<bool, Error> {
    let confirms = first.source.as_deref().is_some_and(|source| CONFIRMING_SOURCES.contains(&source));
    // A row that a person wrote beforehand keeps everything else; its class is what the catalogue gave the engine.
    let noted = transaction
        .prepare_cached(
            "insert into machine (machine_id, class, class_given, first_seen_us, source, confirmed)
             values (?1, ?2, 0, ?3, ?4, ?5)
             on conflict do update set first_seen_us = excluded.first_seen_us, source = excluded.source, class = excluded.class,
                 confirmed = max(confirmed, excluded.confirmed)
             where machine.first_seen_us is null",
        )?
        .execute(params![first.machine, first.class, first.first_seen, first.source, confirms])?;
    Ok(confirms && noted == 1)
}

const COLUMNS: &str = "machine_id, class, class_given, name_en, name_ko, site, line, cell, criticality, asset_no,
    parameters, limits, attributes, first_seen_us, source, confirmed";

fn list(connection: &Connection) -> Result<Vec<MachineRow>, Error> {
    let mut query = connection.prepare_cached(&format!("select {COLUMNS} from machine order by machine_id"))?;
    let mut rows = query.query([])?;
    let mut machines = Vec::new();
    while let Some(row) = rows.next()? {
        machines.push(machine(row)?);
    }
    Ok(machines)
}

fn get(connection: &Connection, id: &str) -> Result<Option<MachineRow>, Error> {
    let mut query = connection.prepare_cached(&format!("select {COLUMNS} from machine where machine_id = ?1"))?;
    query.query_row([id], |row| Ok(machine(row))).optional()?.transpose()
}

pub(super) fn put(transaction: &Transaction<'_>, row: &MachineRow) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "insert into machine (machine_id, class, class_given, name_en, name_ko, site, line, cell, criticality,
                 asset_no, parameters, limits, attributes, confirmed)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             on conflict do update set class = excluded.class, class_given = excluded.class_given,
                 name_en = excluded.name_en, name_ko = excluded.name_ko, site = excluded.site, line = excluded.line,
                 cell = excluded.cell, criticality = excluded.criticality, asset_no = excluded.asset_no,
                 parameters = excluded.parameters, limits = excluded.limits, attributes = excluded.attributes,
                 confirmed = excluded.confirmed",
        )?
        .execute(params![
            row.machine_id,
            row.class,
            row.class_given,
            row.name_en,
            row.name_ko,
            row.site,
            row.line,
            row.cell,
            row.criticality,
            row.asset_no,
            json(&row.parameters),
            json(&row.limits),
            json(&row.attributes),
            row.confirmed,
        ])?;
    Ok(())
}

fn json<T: serde::Serialize>(map: &BTreeMap<String, T>) -> String {
    serde_json::to_string(map).expect("a map of strings and numbers is JSON")
}

fn machine(row: &Row<'_>) -> Result<MachineRow, Error> {
    let machine_id: String = row.get(0)?;
    fn map<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize, id: &str) -> Result<BTreeMap<String, T>, Error> {
        let text: String = row.get(at)?;
        serde_json::from_str(&text).map_err(|_| Error::Damaged(format!("machine {id}")))
    }
    Ok(MachineRow {
        class: row.get(1)?,
        class_given: row.get(2)?,
        name_en: row.get(3)?,
        name_ko: row.get(4)?,
        site: row.get(5)?,
        line: row.get(6)?,
        cell: row.get(7)?,
        criticality: row.get(8)?,
        asset_no: row.get(9)?,
        parameters: map(row, 10, &machine_id)?,
        limits: map(row, 11, &machine_id)?,
        attributes: map(row, 12, &machine_id)?,
        first_seen_us: row.get(13)?,
        source: row.get(14)?,
        confirmed: row.get(15)?,
        machine_id,
    })
}
