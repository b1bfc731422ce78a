//! What a value of a topic may hold, as schemas for a registry.
//!
//! The JSON Schema is the source: that of an alert is a document of its own, that of a reading is made from the classes.
//! The Avro schema is made from it ([`avro_schema`]), so that the two say the same.

use catalog::Catalogue;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Marks a text that is JSON itself, as in JSON Schema; in Avro it stands at the field.
pub const CONTENT: (&str, &str) = ("contentMediaType", "application/json");

/// The JSON Schema of an alert, `docs/alert.schema.json`.
pub fn alert_schema() -> Value {
    serde_json::from_str(include_str!("../../../../docs/alert.schema.json")).expect("a test reads it")
}

/// The JSON Schema of a reading of any class of a catalogue. A class asks for more than it says: which channels a reading
/// must have, and in which range.
pub fn reading_schema(catalogue: &Catalogue) -> Value {
    let mut properties = Map::new();
    let mut add = |id: &str, kind: &str, says: String| {
        let property = properties.entry(id).or_insert_with(|| json!({ "type": [], "description": "" }));
        let kinds = property["type"].as_array_mut().expect("made above");
        if !kinds.contains(&json!(kind)) {
            // Null comes last.
            kinds.push(json!(kind));
        }
        let description = property["description"].as_str().expect("made above");
        property["description"] = match description {
            "" => json!(says),
            said if said.split("; ").any(|said| said == says) => json!(said),
            said => json!(format!("{said}; {says}")),
        };
    };
    for class in catalogue.classes() {
        for channel in &class.channels {
            add(&channel.id, "number", format!("{}: {}", class.id, channel.unit));
        }
        for attribute in &class.attributes {
            add(&attribute.id, "string", format!("{}: {}", class.id, attribute.values.join(", ")));
        }
    }
    add("class", "string", "Id of the machine's class, where the machine is not known yet.".into());
    add("seq", "integer", "Sequence number of the device: tells repeats from equal readings.".into());
    add("machine_state", "string", "What the machine does, where it says so itself.".into());
    add("quality", "object", "Per channel good, uncertain or bad.".into());
    add("links", "object", "Where more of this reading lies, e.g. a stored waveform.".into());
    for property in properties.values_mut() {
        property["type"].as_array_mut().expect("made above").push(json!("null"));
    }
    properties["quality"]["additionalProperties"] = json!({ "type": "string" });
    properties.insert("machine_id".into(), json!({ "type": "string", "minLength": 1, "maxLength": 50 }));
    properties
        .insert("timestamp".into(), json!({ "type": "string", "format": "date-time", "description": "Event time." }));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "urn:millwright:reading",
        "title": "Reading",
        "description": "One sample of a machine's channels. One value of the topic sensor-raw-data, keyed by machine_id.",
        "type": "object",
        "properties": properties,
        "required": ["machine_id", "timestamp"],
        "additionalProperties": false,
    })
}

/// The Avro schema of what a JSON Schema describes, as far as the two above use JSON Schema.
///
/// What may be left out is null by default (a list: empty); times are `timestamp-micros`; words of a list are texts, so
/// that a new one breaks no reader; an object without known keys is its own JSON text, marked by [`CONTENT`].
pub fn avro_schema(schema: &Value) -> Value {
    let title = schema["title"].as_str().unwrap_or_default();
    let mut record = Avro { root: schema, made: BTreeSet::new() }.record(title, schema);
    record["namespace"] = json!("millwright");
    record
}

struct Avro<'a> {
    root: &'a Value,
    /// Records that were written; from then on their name is enough.
    made: BTreeSet<String>,
}

impl Avro<'_> {
    fn record(&mut self, name: &str, schema: &Value) -> Value {
        let name = capital(name);
        if !self.made.insert(name.clone()) {
            return json!(name);
        }
        let required = schema["required"].as_array();
        let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|required| required == key));
        let properties = schema["properties"].as_object().into_iter().flatten();
        let fields: Vec<Value> =
            properties.map(|(key, property)| self.field(key, property, is_required(key))).collect();
        json!({ "type": "record", "name": name, "doc": schema["description"].as_str().unwrap_or_default(), "fields": fields })
    }

    fn field(&mut self, key: &str, property: &Value, required: bool) -> Value {
        let mut kinds = self.kinds(key, property);
        let is_list = kinds.iter().any(|kind| kind["type"] == "array");
        if !required && !is_list && !kinds.contains(&json!("null")) {
            kinds.push(json!("null"));
        }
        // The default's kind comes first.
        kinds.sort_by_key(|kind| *kind != "null");
        let kind = if kinds.len() == 1 { kinds.remove(0) } else { Value::Array(kinds) };
        let mut field = json!({ "name": key, "type": kind });
        if !required {
            field["default"] = if is_list { json!([]) } else { Value::Null };
        }
        if let Some(says) = property.get("description") {
            field["doc"] = says.clone();
        }
        if holds_json(property) {
            field[CONTENT.0] = json!(CONTENT.1);
        }
        field
    }

    fn kinds(&mut self, key: &str, schema: &Value) -> Vec<Value> {
        if let Some(pointer) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            let name = pointer.rsplit('/').next().unwrap_or(key);
            let found = self.root.pointer(pointer).expect("a test follows every reference");
            return vec![self.record(name, found)];
        }
        types(schema)
            .map(|kind| match kind {
                "integer" => json!("long"),
                "number" => json!("double"),
                "array" => json!({ "type": "array", "items": self.kinds(key, &schema["items"]).remove(0) }),
                "object" if schema.get("properties").is_some() => self.record(key, schema),
                "object" if schema["additionalProperties"].is_object() => {
                    let values = self.kinds(key, &schema["additionalProperties"]).remove(0);
                    json!({ "type": "map", "values": values })
                }
                "string" if schema["format"] == "date-time" => {
                    json!({ "type": "long", "logicalType": "timestamp-micros" })
                }
                "object" => json!("string"),
                other => json!(other),
            })
            .collect()
    }
}

/// An object whose keys the schema does not know.
fn holds_json(schema: &Value) -> bool {
    types(schema).any(|kind| kind == "object")
        && schema.get("properties").is_none()
        && !schema["additionalProperties"].is_object()
}

/// The types that a schema allows; one that only lists words allows texts.
fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let several = schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let one = schema["type"].as_str().or(schema.get("enum").map(|_| "string"));
    several.chain(one)
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(schema: &'a Value, name: &str) -> &'a Value {
        let fields = schema["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == name).unwrap()
    }

    #[test]
    fn a_reading_may_have_the_channels_of_every_class_and_must_have_machine_and_time() {
        let schema = reading_schema(&Catalogue::builtin());
        let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let expected = [
            "air_temp_k",
            "bearing_temp_c",
            "class",
            "discharge_bar",
            "flow_m3h",
            "links",
            "machine_id",
            "machine_state",
            "motor_current_a",
            "process_temp_k",
            "product_type",
            "quality",
            "rpm",
            "seq",
            "timestamp",
            "tool_wear_min",
            "torque_nm",
            "vib_mm_s",
        ];
        assert!(expected.iter().all(|key| keys.iter().any(|found| found == key)), "{keys:?}");
        assert_eq!(schema["required"], json!(["machine_id", "timestamp"]));
        assert_eq!(schema["properties"]["torque_nm"]["type"], json!(["number", "null"]));
        assert_eq!(schema["properties"]["torque_nm"]["description"], "mill: Nm");
    }

    #[test]
    fn avro_says_what_json_schema_says() {
        let reading = avro_schema(&reading_schema(&Catalogue::builtin()));
        assert_eq!((&reading["name"], &reading["namespace"]), (&json!("Reading"), &json!("millwright")));
        assert_eq!(field(&reading, "machine_id"), &json!({ "name": "machine_id", "type": "string" }));
        assert_eq!(field(&reading, "timestamp")["type"], json!({ "type": "long", "logicalType": "timestamp-micros" }));
        let torque = json!({ "name": "torque_nm", "type": ["null", "double"], "default": null, "doc": "mill: Nm" });
        assert_eq!(field(&reading, "torque_nm"), &torque);
        assert_eq!(field(&reading, "quality")["type"], json!(["null", { "type": "map", "values": "string" }]));
        assert_eq!(field(&reading, "links")["type"], json!(["null", "string"]));
        assert_eq!(field(&reading, "links")[CONTENT.0], CONTENT.1);

        let alert = avro_schema(&alert_schema());
        assert_eq!(field(&alert, "kind"), &json!({ "name": "kind", "type": "string" }));
        let reason = &field(&alert, "reason")["type"];
        // Required and null at times: no default, or it could be left out.
        assert_eq!(field(reason, "law")["type"], json!(["null", "string"]));
        assert_eq!(field(reason, "law").get("default"), None);
        assert_eq!(field(reason, "adjustable")["default"], Value::Null);
        assert_eq!(field(reason, "notes")["default"], json!([]));
        assert_eq!(field(reason, "terms")["type"]["items"]["name"], "Term");
        assert_eq!(field(&alert, "reading")[CONTENT.0], CONTENT.1);
    }
}
