//! A machine's new description out of its old one and a body; every bad key is named.

use crate::problem::{KeyProblem, Problem};
use alarm::Criticality;
use catalog::{Catalogue, ClassChoice, ClassError, MachineId};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use store::MachineRow;

/// Keys of an answer that nobody can set; a client may send back what it got.
const READ_ONLY: [&str; 9] =
    ["state", "last_seen", "stale", "severity", "conditions", "first_seen", "source", "catalogue_hash", "machine_id"];
/// Keys that a body may have.
const KEYS: &str =
    "class, name_en, name_ko, site, line, cell, criticality, asset_no, parameters, limits, attributes, confirmed";
/// Longest name, in characters.
const NAME_MAX: usize = 200;

/// The row that a body makes of what was there, and the keys that it changes. `bound` is the class of the machine's
/// readings.
pub(super) fn edit(
    catalogue: &Catalogue,
    machine: &MachineId,
    before: Option<&MachineRow>,
    bound: Option<&str>,
    body: Map<String, Value>,
) -> Result<(MachineRow, Vec<String>), Problem> {
    let own = before.filter(|row| row.class_given).map(|row| row.class.as_str());
    let class = match catalogue.class_of(machine, bound.or(own), None) {
        ClassChoice::Class(class) => class.id.clone(),
        ClassChoice::Unknown(class) | ClassChoice::Changed(class, _) => class,
    };
    let old = before.cloned().unwrap_or_else(|| MachineRow::new(machine, &class));
    let mut row = MachineRow { class, ..old.clone() };
    let mut problems = Vec::new();
    let mut changed = Vec::new();
    for (key, value) in body {
        let kept = row.clone();
        if let Err((at, message)) = set(&mut row, catalogue, bound, &key, value) {
            problems.push(KeyProblem { key: at, message });
        } else if row != kept {
            changed.push(key);
        }
    }
    if problems.is_empty() { Ok((row, changed)) } else { Err(Problem::keys(problems)) }
}

/// The catalogue with a machine as its row says.
pub(super) fn in_force(catalogue: &Catalogue, machine: &MachineId, row: &MachineRow) -> Result<Catalogue, Problem> {
    let mut settings = row.settings();
    // Limits and parameters are those of a class: of the one that its readings have, where nobody names another.
    let own = settings.parameters.len() + settings.limits.len() + settings.attributes.len() > 0;
    if own && settings.class.is_none() {
        settings.class = Some(row.class.clone());
    }
    catalogue.clone().with_machine(machine.clone(), settings).map_err(|error| match error {
        ClassError::Machine { problems, .. } => {
            let told = problems.into_iter().map(|problem| KeyProblem { key: problem.key, message: problem.message });
            Problem::keys(told.collect())
        }
        error => Problem::keys(vec![KeyProblem { key: "class".to_owned(), message: error.to_string() }]),
    })
}

/// Sets one key; else the key and what is wrong with it.
fn set(
    row: &mut MachineRow,
    catalogue: &Catalogue,
    bound: Option<&str>,
    key: &str,
    value: Value,
) -> Result<(), (String, String)> {
    let wrong = |message: String| (key.to_owned(), message);
    match key {
        "class" => {
            let Value::String(class) = value else { return Err(wrong("must be the id of a class".to_owned())) };
            if catalogue.class(&class).is_none() {
                let known: Vec<&str> = catalogue.classes().map(|class| class.id.as_str()).collect();
                return Err(wrong(format!("there is no class `{class}`; there are {}", known.join(", "))));
            }
            if let Some(bound) = bound.filter(|bound| *bound != class) {
                return Err(wrong(format!("its readings are of class {bound}: a machine keeps its class")));
            }
            (row.class, row.class_given) = (class, true);
        }
        "name_en" => row.name_en = text(value).map_err(wrong)?,
        "name_ko" => row.name_ko = text(value).map_err(wrong)?,
        "site" => row.site = text(value).map_err(wrong)?,
        "line" => row.line = text(value).map_err(wrong)?,
        "cell" => row.cell = text(value).map_err(wrong)?,
        "asset_no" => row.asset_no = text(value).map_err(wrong)?,
        "criticality" => {
            let word = text(value).map_err(wrong)?;
            if let Some(word) = &word
                && Criticality::from_word(word).is_none()
            {
                return Err(wrong(format!("`{word}` is none of A, B, C")));
            }
            row.criticality = word;
        }
        "confirmed" => {
            row.confirmed = value.as_bool().ok_or_else(|| wrong("must be true or false".to_owned()))?;
        }
        "parameters" => row.parameters = map(key, value, "a number", Value::as_f64)?,
        "limits" => row.limits = map(key, value, "a number", Value::as_f64)?,
        "attributes" => row.attributes = map(key, value, "a text", |value| value.as_str().map(str::to_owned))?,
        "machine_id" if value.as_str() != Some(&row.machine_id) => {
            return Err(wrong("is not the machine of the path".to_owned()));
        }
        key if READ_ONLY.contains(&key) => {}
        _ => return Err(wrong(format!("is no key of a machine; it has {KEYS}"))),
    }
    Ok(())
}

/// A text; none where it is null or blank.
fn text(value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.contains('\0') => Err("holds a NUL character".to_owned()),
        Value::String(text) if text.chars().count() > NAME_MAX => Err(format!("longer than {NAME_MAX} characters")),
        Value::String(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        _ => Err("must be a text".to_owned()),
    }
}

/// An object of values of one kind; null is an empty one, a null value takes its key away.
fn map<T>(
    key: &str,
    value: Value,
    kind: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, (String, String)> {
    let object = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(object) => object,
        _ => return Err((key.to_owned(), "must be an object".to_owned())),
    };
    let values = object.into_iter().filter(|(_, value)| !value.is_null());
    values
        .map(|(id, value)| match read(&value) {
            Some(value) => Ok((id, value)),
            None => Err((format!("{key}.{id}"), format!("must be {kind}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id() -> MachineId {
        MachineId::try_from("m 1").unwrap()
    }

    #[track_caller]
    fn refused(bound: Option<&str>, body: Value) -> String {
        let Value::Object(body) = body else { panic!("an object") };
        let catalogue = Catalogue::builtin();
        let made = edit(&catalogue, &id(), None, bound, body).and_then(|(row, _)| in_force(&catalogue, &id(), &row));
        let problem = serde_json::to_value(made.expect_err("it is refused")).unwrap();
        problem["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["key"].as_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_bad_key_or_value_is_named() {
        assert_eq!(refused(None, json!({"colour": "red", "criticality": "D"})), "colour criticality");
        assert_eq!(refused(None, json!({"parameters": {"speed": 1}})), "parameters.speed");
        assert_eq!(refused(None, json!({"limits": {"overstrain": "low"}})), "limits.overstrain");
        assert_eq!(refused(None, json!({"limits": {"no_law.x": 1}})), "limits.no_law.x");
        assert_eq!(refused(None, json!({"class": "boat"})), "class");
        assert_eq!(refused(Some("mill"), json!({"class": "pump"})), "class");
        assert_eq!(refused(None, json!({"machine_id": "other"})), "machine_id");
        assert_eq!(refused(None, json!({"confirmed": 1, "name_en": 5})), "confirmed name_en");
    }

    #[test]
    fn absent_keys_stay_and_null_takes_away() {
        let catalogue = Catalogue::builtin();
        let before = MachineRow {
            name_en: Some("Mill".to_owned()),
            line: Some("L1".to_owned()),
            ..MachineRow::new("m 1", "mill")
        };
        let Value::Object(body) = json!({"line": null, "criticality": "A", "state": "running"}) else { panic!() };
        let (row, changed) = edit(&catalogue, &id(), Some(&before), Some("mill"), body).unwrap();
        assert_eq!(
            (row.name_en.as_deref(), row.line.as_deref(), row.criticality.as_deref()),
            (Some("Mill"), None, Some("A"))
        );
        assert_eq!(changed, ["criticality", "line"]);
        assert_eq!(
            in_force(&catalogue, &id(), &row).unwrap().hash(),
            catalogue.hash(),
            "names are outside the catalogue"
        );
    }

    #[test]
    fn a_limit_of_its_own_makes_another_catalogue() {
        let catalogue = Catalogue::builtin();
        let law = &catalogue.class("pump").unwrap().laws[0];
        let key = law.limit_key(&law.levels[0], &law.levels[0].logic.terms[0]);
        let Value::Object(body) = json!({"class": "pump", "limits": {key: 7.5}}) else { panic!() };
        let (row, _) = edit(&catalogue, &id(), None, None, body).unwrap();
        assert_ne!(in_force(&catalogue, &id(), &row).unwrap().hash(), catalogue.hash());
    }
}
