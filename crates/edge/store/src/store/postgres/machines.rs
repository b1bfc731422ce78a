//! The registry of machines, in the main database.

use super::{Error, Postgres, Values, connect, execute, query};
use crate::store::{
    MachineRow,
    machines::{CONFIRMING_SOURCES, FirstSight},
};
use deadpool_postgres::GenericClient;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use tokio_postgres::Row;

const COLUMNS: &str = "machine_id, class, class_given, name_en, name_ko, site, line, cell, criticality, asset_no,
    parameters::text, limits::text, attributes::text, first_seen_us, source, confirmed";

impl Postgres {
    pub(in crate::store) async fn registry(&self) -> Result<Vec<MachineRow>, Error> {
        self.registry_where("true", &[]).await
    }

    pub(in crate::store) async fn registered(&self, machine: &str) -> Result<Option<MachineRow>, Error> {
        Ok(self.registry_where("machine_id = $1", &[&machine]).await?.pop())
    }

    pub(in crate::store) async fn registered_of(&self, machines: Vec<String>) -> Result<Vec<MachineRow>, Error> {
        let known = self.registry_where("machine_id = any($1)", &[&machines]).await?;
        let known: BTreeMap<&str, &MachineRow> = known.iter().map(|row| (&*row.machine_id, row)).collect();
        Ok(machines.iter().filter_map(|machine| known.get(&**machine).map(|row| (*row).clone())).collect())
    }

    async fn registry_where(&self, condition: &str, values: Values<'_>) -> Result<Vec<MachineRow>, Error> {
        let client = connect(&self.main.read).await?;
        let sql = format!("select {COLUMNS} from machine where {condition} order by machine_id");
        let rows = query(&client, &sql, values).await?.iter().map(machine).collect::<Result<Vec<_>, _>>()?;
        self.note_confirmed(&rows);
        Ok(rows)
    }

    pub(in crate::store) async fn register(&self, rows: Vec<MachineRow>) -> Result<(), Error> {
        let mut client = connect(&self.main.write).await?;
        let transaction = client.transaction().await?;
        for row in &rows {
            put(&transaction, row).await?;
        }
        transaction.commit().await?;
        self.note_confirmed(&rows);
        Ok(())
    }

    /// Takes into memory what rows that were read or written say.
    pub(super) fn note_confirmed(&self, rows: &[MachineRow]) {
        self.confirmed.set(rows.iter().map(|row| (row.machine_id.as_str(), row.confirmed)));
    }

    pub(in crate::store) async fn confirm_machine(&self, machine: &str) -> Result<bool, Error> {
        let client = connect(&self.main.write).await?;
        let found = execute(&client, "update machine set confirmed = true where machine_id = $1", &[&machine]).await?;
        if found == 1 {
            self.confirmed.set([(machine, true)].into_iter());
        }
        Ok(found == 1)
    }

    pub(in crate::store) fn confirmed(&self, machine: &str) -> bool {
        self.confirmed.has(machine)
    }

    pub(in crate::store) async fn refresh_confirmed(&self) -> Result<(), Error> {
        // One at a time is enough, however often it is asked for while the database is slow.
        let Ok(_one) = self.refreshing.try_lock() else { return Ok(()) };
        let client = connect(&self.main.read).await?;
        let rows = query(&client, "select machine_id from machine where confirmed", &[]).await?;
        self.confirmed.replace(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?);
        Ok(())
    }

    /// Notes the first readings of machines, and which of them that confirmed. A row that a person wrote beforehand keeps
    /// everything else; its class is what the catalogue gave the engine.
    pub(super) async fn see(&self, machines: impl Iterator<Item = &FirstSight> + Send) -> Result<(), Error> {
        let mut client = None;
        for FirstSight { machine, class, first_seen, source } in machines {
            if client.is_none() {
                client = Some(connect(&self.main.write).await?);
            }
            let Some(client) = &client else { continue };
            let confirms = source.as_deref().is_some_and(|source| CONFIRMING_SOURCES.contains(&source));
            let sql = "insert into machine (machine_id, class, class_given, first_seen_us, source, confirmed)
                values ($1, $2, false, $3, $4, $5)
                on conflict (machine_id) do update set first_seen_us = excluded.first_seen_us, source = excluded.source,
                    class = excluded.class, confirmed = machine.confirmed or excluded.confirmed
                where machine.first_seen_us is null";
            if execute(client, sql, &[machine, class, first_seen, source, &confirms]).await? == 1 && confirms {
                self.confirmed.set([(&**machine, true)].into_iter());
            }
        }
        Ok(())
    }
}

pub(super) async fn put(client: &impl GenericClient, row: &MachineRow) -> Result<(), Error> {
    let sql = "insert into machine (machine_id, class, class_given, name_en, name_ko, site, line, cell, criticality,
            asset_no, parameters, limits, attributes, confirmed)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, $12::text::jsonb, $13::text::jsonb, $14)
        on conflict (machine_id) do update set class = excluded.class, class_given = excluded.class_given,
            name_en = excluded.name_en, name_ko = excluded.name_ko, site = excluded.site, line = excluded.line,
            cell = excluded.cell, criticality = excluded.criticality, asset_no = excluded.asset_no,
            parameters = excluded.parameters, limits = excluded.limits, attributes = excluded.attributes,
            confirmed = excluded.confirmed";
    execute(
        client,
        sql,
        &[
            &row.machine_id,
            &row.class,
            &row.class_given,
            &row.name_en,
            &row.name_ko,
            &row.site,
            &row.line,
            &row.cell,
            &row.criticality,
            &row.asset_no,
            &json(&row.parameters),
            &json(&row.limits),
            &json(&row.attributes),
            &row.confirmed,
        ],
    )
    .await?;
    Ok(())
}

fn json<T: Serialize>(map: &BTreeMap<String, T>) -> String {
    serde_json::to_string(map).expect("a map of strings and numbers is JSON")
}

fn machine(row: &Row) -> Result<MachineRow, Error> {
    let machine_id: String = row.try_get(0)?;
    fn map<T: DeserializeOwned>(row: &Row, at: usize, id: &str) -> Result<BTreeMap<String, T>, Error> {
        serde_json::from_str(row.try_get(at)?).map_err(|_| Error::Damaged(format!("machine {id}")))
    }
    Ok(MachineRow {
        class: row.try_get(1)?,
        class_given: row.try_get(2)?,
        name_en: row.try_get(3)?,
        name_ko: row.try_get(4)?,
        site: row.try_get(5)?,
        line: row.try_get(6)?,
        cell: row.try_get(7)?,
        criticality: row.try_get(8)?,
        asset_no: row.try_get(9)?,
        parameters: map(row, 10, &machine_id)?,
        limits: map(row, 11, &machine_id)?,
        attributes: map(row, 12, &machine_id)?,
        first_seen_us: row.try_get(13)?,
        source: row.try_get(14)?,
        confirmed: row.try_get(15)?,
        machine_id,
    })
}
