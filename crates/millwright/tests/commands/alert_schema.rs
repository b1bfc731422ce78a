//! docs/alert.schema.json says exactly what an alert is.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use wire::{
    Alert, AlertText, Contribution, CounterfactualStep, Direction, Kind, LimitSource, Position, Reason, ReasonTerm,
    alert_id,
};

fn schema() -> Value {
    wire::alert_schema()
}

/// An alert with every key.
fn whole() -> Alert {
    let position = Position { topic: "sensor-raw-data".into(), partition: 3, offset: 7, index: 2 };
    let id = alert_id("machine-001", "overstrain", Kind::Changed, 1_762_528_201_000_000, &position);
    let reading = json!({ "machine_id": "machine-001", "torque_nm": 60.5 }).to_string();
    Alert {
        alert_id: id,
        machine_id: "machine-001".into(),
        class: "mill".into(),
        failure_type: "Overstrain".into(),
        kind: Kind::Changed,
        severity: catalog::Severity::Critical,
        timestamp: 1_762_528_201_000_000,
        score: 0.25,
        model: "laws".into(),
        model_version: "00ff".into(),
        arrived_at: 1_762_528_201_500_000,
        condition: "overstrain".into(),
        condition_id: id,
        started_at: 1_762_528_201_000_000,
        position,
        reading: Some(serde_json::value::RawValue::from_string(reading).unwrap()),
        reason: Reason {
            law: Some("overstrain".into()),
            terms: vec![ReasonTerm {
                quantity: "strain_min_nm".into(),
                term: "strain_min_nm".into(),
                measured: 12_500.0,
                limit: 11_000.0,
                unit: "min Nm".into(),
                direction: Direction::Above,
                margin: 1500.0,
                limit_source: LimitSource::Class,
            }],
            contributions: vec![Contribution {
                quantity: "torque_nm".into(),
                value: 60.5,
                unit: "Nm".into(),
                normal_low: Some(20.0),
                normal_high: None,
                share: Some(0.5),
            }],
            counterfactual: vec![CounterfactualStep {
                channel: "torque_nm".into(),
                from: 60.5,
                to: 52.0,
                unit: "Nm".into(),
                change_percent: Some(-14.0),
            }],
            adjustable: Some(true),
            time_to_limit_s: Some(60.0),
            notes: vec!["product_type_default".into()],
        },
        text: AlertText { en: "overstrain".into(), ko: "공구 과부하".into() },
        suspended: Some(true),
        caught_up: Some(true),
        notice: false,
    }
}

/// An alert with nothing that can be left out.
fn bare() -> Alert {
    let reason = Reason::default();
    Alert { kind: Kind::Cleared, reading: None, reason, suspended: None, caught_up: None, ..whole() }
}

fn value(alert: &Alert) -> Value {
    serde_json::from_str(&alert.to_json()).unwrap()
}

#[test]
fn an_alert_has_exactly_the_keys_of_its_schema() {
    let schema = schema();
    let (whole, bare) = (value(&whole()), value(&bare()));
    assert_eq!(check(&whole, &schema, &schema, "alert"), Ok(()));
    assert_eq!(check(&bare, &schema, &schema, "alert"), Ok(()));
    let definition = |name: &str| &schema["definitions"][name];
    for (whole, bare, schema) in [
        (&whole, Some(&bare), &schema),
        (&whole["text"], Some(&bare["text"]), &schema["properties"]["text"]),
        (&whole["position"], Some(&bare["position"]), definition("position")),
        (&whole["reason"], Some(&bare["reason"]), definition("reason")),
        (&whole["reason"]["terms"][0], None, definition("term")),
        (&whole["reason"]["contributions"][0], None, definition("contribution")),
        (&whole["reason"]["counterfactual"][0], None, definition("step")),
    ] {
        assert_eq!(keys(whole), keys(&schema["properties"]));
        let required: BTreeSet<&str> =
            schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(keys(bare.unwrap_or(whole)), required);
    }
}

#[test]
fn the_schema_refuses_what_is_no_alert() {
    let schema = schema();
    let changed = |change: fn(&mut Map<String, Value>)| {
        let mut alert = value(&whole());
        change(alert.as_object_mut().unwrap());
        check(&alert, &schema, &schema, "alert")
    };
    for change in [
        |alert: &mut Map<String, Value>| drop(alert.remove("alert_id")),
        |alert: &mut Map<String, Value>| drop(alert.insert("more".into(), json!(1))),
        |alert: &mut Map<String, Value>| drop(alert.insert("kind".into(), json!("lowered"))),
        |alert: &mut Map<String, Value>| drop(alert.insert("score".into(), json!("high"))),
        |alert: &mut Map<String, Value>| drop(alert.insert("reading".into(), json!(7))),
        |alert: &mut Map<String, Value>| alert["reason"]["terms"][0]["direction"] = json!("beside"),
    ] {
        assert!(changed(change).is_err());
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// As much of JSON Schema as the file uses; a word that this does not know is an error.
fn check(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$schema" | "$id" | "definitions" | "title" | "description" | "format" => {}
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(value, root.pointer(pointer).unwrap(), root, at)?;
            }
            "type" => {
                let allowed = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                let fits = allowed.iter().any(|kind| match kind.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                });
                if !fits {
                    return Err(format!("{at} is {value}, not {rule}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => return Err(format!("{at} is {value}, not {rule}")),
            "enum" => {}
            "minimum" if value.as_f64() < rule.as_f64() => return Err(format!("{at} is {value}, below {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => return Err(format!("{at} is {value}, above {rule}")),
            "minimum" | "maximum" => {}
            "minLength" | "maxLength" => {
                let (length, limit) = (value.as_str().unwrap().chars().count() as u64, rule.as_u64().unwrap());
                if if word == "minLength" { length < limit } else { length > limit } {
                    return Err(format!("{at} has {length} characters"));
                }
            }
            "properties" => {
                for (key, value) in value.as_object().unwrap() {
                    if let Some(schema) = rule.get(key) {
                        check(value, schema, root, &format!("{at}.{key}"))?;
                    }
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    value.get(key.as_str().unwrap()).ok_or_else(|| format!("{at} lacks {key}"))?;
                }
            }
            "additionalProperties" => {
                let known = keys(&schema["properties"]);
                if let Some(key) = keys(value).difference(&known).next() {
                    return Err(format!("{at} has {key}"));
                }
            }
            "items" => {
                for value in value.as_array().unwrap() {
                    check(value, rule, root, &format!("{at}[]"))?;
                }
            }
            other => panic!("the schema has `{other}`"),
        }
    }
    Ok(())
}
