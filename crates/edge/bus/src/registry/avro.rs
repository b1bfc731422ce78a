//! Avro values as JSON texts and back, by the schema that they are written with.
//!
//! Times become RFC 3339, decimals numbers with all their digits, a text that is marked as JSON is put in as it stands. A
//! field that has the default which says that there is nothing (null, an empty list) is left out.

use apache_avro::{
    Decimal, Schema,
    schema::{Name, NamesRef, RecordField, RecordSchema, ResolvedSchema},
    types::Value,
};
use serde_json::{Value as Json, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap, fmt::Write};
use wire::{CONTENT, format_time, parse_time};

/// No part of a value is longer: a reading has at most 256 KiB.
const BYTES_MAX: usize = 1 << 20;

/// A schema that values can be read and written by.
pub(super) struct Avro(Schema);

impl Avro {
    /// Reads a schema. One that could make a short value endless in memory is refused.
    pub(super) fn parse(text: &str) -> Result<Avro, String> {
        apache_avro::util::max_allocation_bytes(BYTES_MAX);
        let schema = Schema::parse_str(text).map_err(|error| error.to_string())?;
        let resolved = ResolvedSchema::try_from(&schema).map_err(|error| error.to_string())?;
        bounded(&schema, resolved.get_names(), &mut Vec::new())?;
        Ok(Avro(schema))
    }

    /// A value as JSON.
    pub(super) fn to_json(&self, mut bytes: &[u8]) -> Result<String, String> {
        let value = apache_avro::from_avro_datum(&self.0, &mut bytes, None).map_err(|error| error.to_string())?;
        if !bytes.is_empty() {
            return Err(format!("{} bytes follow the value", bytes.len()));
        }
        let resolved = ResolvedSchema::try_from(&self.0).map_err(|error| error.to_string())?;
        let mut text = String::with_capacity(256);
        write(&value, &self.0, resolved.get_names(), &mut text)?;
        Ok(text)
    }

    /// The value that JSON says.
    pub(super) fn of_json(&self, json: &[u8]) -> Result<Vec<u8>, String> {
        let json: &RawValue = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let resolved = ResolvedSchema::try_from(&self.0).map_err(|error| error.to_string())?;
        let value = read(json.get(), &self.0, resolved.get_names())?;
        apache_avro::to_avro_datum(&self.0, value).map_err(|error| error.to_string())
    }
}

/// Refuses a record inside itself, which a value could nest without end, and a list of what takes no byte, which could be
/// as long as it likes. Tells whether a value takes a byte.
fn bounded<'a>(schema: &'a Schema, names: &NamesRef<'a>, inside: &mut Vec<&'a Name>) -> Result<bool, String> {
    let items = |items, inside: &mut Vec<&'a Name>| match bounded(items, names, inside)? {
        true => Ok(true),
        false => Err("it has a list of what takes no byte".to_owned()),
    };
    match schema {
        Schema::Null => Ok(false),
        Schema::Array(array) => items(&array.items, inside),
        Schema::Map(map) => bounded(&map.types, names, inside).map(|_| true),
        Schema::Union(union) => {
            union.variants().iter().try_for_each(|variant| bounded(variant, names, inside).map(drop))?;
            Ok(true)
        }
        Schema::Record(RecordSchema { name, fields, .. }) => {
            inside.push(name);
            let mut takes = false;
            for field in fields {
                takes |= bounded(&field.schema, names, inside)?;
            }
            inside.pop();
            Ok(takes)
        }
        Schema::Fixed(fixed) => Ok(fixed.size > 0),
        Schema::Ref { name } if inside.contains(&name) => Err(format!("{} lies inside itself", name.fullname(None))),
        Schema::Ref { name } => bounded(named(name, names)?, names, inside),
        _ => Ok(true),
    }
}

fn named<'a>(name: &Name, names: &NamesRef<'a>) -> Result<&'a Schema, String> {
    names.get(name).copied().ok_or_else(|| format!("no schema is named {}", name.fullname(None)))
}

fn write(value: &Value, schema: &Schema, names: &NamesRef<'_>, to: &mut String) -> Result<(), String> {
    match (value, schema) {
        (value, Schema::Ref { name }) => return write(value, named(name, names)?, names, to),
        (Value::Union(at, value), Schema::Union(union)) => {
            let variant = union.variants().get(*at as usize).ok_or("a union has no such branch")?;
            return write(value, variant, names, to);
        }
        (Value::Record(values), Schema::Record(record)) => {
            let mut before = '{';
            for ((name, value), field) in values.iter().zip(&record.fields) {
                if is_nothing(value, field) {
                    continue;
                }
                to.push(before);
                before = ',';
                write_text(name, to);
                to.push(':');
                match unwrapped(value) {
                    Value::String(json) if is_json(field) => {
                        let json: &RawValue = serde_json::from_str(json).map_err(|error| format!("{name}: {error}"))?;
                        to.push_str(json.get());
                    }
                    _ => write(value, &field.schema, names, to).map_err(|error| format!("{name}: {error}"))?,
                }
            }
            if before == '{' {
                to.push('{');
            }
            to.push('}');
        }
        (Value::Map(values), Schema::Map(map)) => {
            // In one order, whatever the map's is.
            let values: BTreeMap<&String, &Value> = values.iter().collect();
            to.push('{');
            for (at, (name, value)) in values.into_iter().enumerate() {
                if at > 0 {
                    to.push(',');
                }
                write_text(name, to);
                to.push(':');
                write(value, &map.types, names, to)?;
            }
            to.push('}');
        }
        (Value::Array(values), Schema::Array(array)) => {
            to.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    to.push(',');
                }
                write(value, &array.items, names, to)?;
            }
            to.push(']');
        }
        (Value::Decimal(decimal), Schema::Decimal(of)) => write_decimal(decimal, of.scale, to)?,
        (value, _) => write_plain(value, to)?,
    }
    Ok(())
}

fn write_plain(value: &Value, to: &mut String) -> Result<(), String> {
    let time = |us: Option<i64>| us.map(format_time).ok_or("a time is out of range");
    let written = match value {
        Value::Null => write!(to, "null"),
        Value::Boolean(is) => write!(to, "{is}"),
        Value::Int(number) | Value::Date(number) | Value::TimeMillis(number) => write!(to, "{number}"),
        Value::Long(number) | Value::TimeMicros(number) => write!(to, "{number}"),
        // As JSON does not allow and its decoder knows to refuse.
        Value::Float(number) if !number.is_finite() => return write_not_finite(f64::from(*number), to),
        Value::Double(number) if !number.is_finite() => return write_not_finite(*number, to),
        Value::Float(number) => write!(to, "{number}"),
        Value::Double(number) => write!(to, "{number}"),
        Value::BigDecimal(number) => write!(to, "{number}"),
        Value::Uuid(id) => write!(to, "\"{id}\""),
        Value::TimestampMillis(ms) => write!(to, "\"{}\"", time(ms.checked_mul(1000))?),
        Value::TimestampMicros(us) => write!(to, "\"{}\"", time(Some(*us))?),
        Value::TimestampNanos(ns) => write!(to, "\"{}\"", time(Some(ns.div_euclid(1000)))?),
        // Without a zone: the reader's rule for such times holds.
        Value::LocalTimestampMillis(ms) => {
            write!(to, "\"{}\"", time(ms.checked_mul(1000))?.trim_end_matches('Z'))
        }
        Value::LocalTimestampMicros(us) => write!(to, "\"{}\"", time(Some(*us))?.trim_end_matches('Z')),
        Value::LocalTimestampNanos(ns) => {
            write!(to, "\"{}\"", time(Some(ns.div_euclid(1000)))?.trim_end_matches('Z'))
        }
        Value::String(text) | Value::Enum(_, text) => {
            write_text(text, to);
            Ok(())
        }
        // As Avro's own JSON has them: a character a byte.
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => {
            write_text(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>(), to);
            Ok(())
        }
        _ => return Err("the value does not fit its schema".into()),
    };
    written.map_err(|error| error.to_string())
}

fn write_not_finite(number: f64, to: &mut String) -> Result<(), String> {
    to.push_str(if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    });
    Ok(())
}

fn write_text(text: &str, to: &mut String) {
    to.push_str(&serde_json::to_string(text).expect("a text is JSON"));
}

fn write_decimal(decimal: &Decimal, scale: usize, to: &mut String) -> Result<(), String> {
    let bytes = <Vec<u8>>::try_from(decimal).map_err(|error| error.to_string())?;
    let number = match bytes.len() {
        0..=16 => {
            bytes.iter().fold(if bytes.first().is_some_and(|byte| *byte > 127) { -1_i128 } else { 0 }, |all, byte| {
                all << 8 | i128::from(*byte)
            })
        }
        _ => return Err("a decimal has more than 38 digits".into()),
    };
    let digits = format!("{:0width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if number < 0 { "-" } else { "" };
    let point = if part.is_empty() { "" } else { "." };
    write!(to, "{sign}{whole}{point}{part}").map_err(|error| error.to_string())
}

/// Whether a field need not be written: its reader takes what lacks for this.
fn is_nothing(value: &Value, field: &RecordField) -> bool {
    match (unwrapped(value), &field.default) {
        (Value::Null, Some(Json::Null)) => true,
        (Value::Array(values), Some(Json::Array(default))) => values.is_empty() && default.is_empty(),
        _ => false,
    }
}

fn unwrapped(value: &Value) -> &Value {
    match value {
        Value::Union(_, value) => value,
        value => value,
    }
}

fn is_json(field: &RecordField) -> bool {
    field.custom_attributes.get(CONTENT.0).is_some_and(|content| content == CONTENT.1)
}

fn read(json: &str, schema: &Schema, names: &NamesRef<'_>) -> Result<Value, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    Ok(match schema {
        Schema::Ref { name } => read(json, named(name, names)?, names)?,
        Schema::Union(union) => {
            // The first that takes it: what our schemas put beside each other differ in JSON's types.
            let fits = |(at, variant)| Some(Value::Union(at, Box::new(read(json, variant, names).ok()?)));
            let read = (0_u32..).zip(union.variants()).find_map(fits);
            read.ok_or_else(|| format!("{json} fits no branch"))?
        }
        Schema::Record(record) => {
            let mut keys: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(json).map_err(wrong)?;
            let mut values = Vec::with_capacity(record.fields.len());
            for field in &record.fields {
                let json = keys.remove(&*field.name);
                let value = read_field(json, field, names).map_err(|error| format!("{}: {error}", field.name))?;
                values.push((field.name.clone(), value));
            }
            if let Some(key) = keys.keys().next() {
                return Err(format!("the schema has no {key}"));
            }
            Value::Record(values)
        }
        Schema::Map(map) => {
            let values: BTreeMap<String, &RawValue> = serde_json::from_str(json).map_err(wrong)?;
            let values = values.into_iter().map(|(key, json)| Ok((key, read(json.get(), &map.types, names)?)));
            Value::Map(values.collect::<Result<_, String>>()?)
        }
        Schema::Array(array) => {
            let values: Vec<&RawValue> = serde_json::from_str(json).map_err(wrong)?;
            let values = values.into_iter().map(|json| read(json.get(), &array.items, names));
            Value::Array(values.collect::<Result<_, String>>()?)
        }
        Schema::Null if json == "null" => Value::Null,
        Schema::Boolean => Value::Boolean(serde_json::from_str(json).map_err(wrong)?),
        Schema::Long => Value::Long(serde_json::from_str(json).map_err(wrong)?),
        Schema::Double => Value::Double(serde_json::from_str(json).map_err(wrong)?),
        Schema::String => Value::String(serde_json::from_str(json).map_err(wrong)?),
        Schema::TimestampMicros => {
            let text: Cow<'_, str> = serde_json::from_str(json).map_err(wrong)?;
            Value::TimestampMicros(parse_time(text.as_bytes()).map_err(|error| error.to_string())?)
        }
        _ => return Err(format!("{json} does not fit its type")),
    })
}

fn read_field(json: Option<&RawValue>, field: &RecordField, names: &NamesRef<'_>) -> Result<Value, String> {
    let default;
    let json = match (json, &field.default) {
        (Some(json), _) => json.get(),
        (None, Some(value)) => {
            default = value.to_string();
            &default
        }
        (None, None) => return Err("it lacks".into()),
    };
    if is_json(field) && json != "null" {
        let text = serde_json::to_string(json).map_err(|error| error.to_string())?;
        return read(&text, &field.schema, names);
    }
    read(json, &field.schema, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::Catalogue;
    use wire::{alert_schema, avro_schema, reading_schema};

    fn both_ways(schema: &Json, json: &str) -> String {
        let avro = Avro::parse(&avro_schema(schema).to_string()).unwrap();
        avro.to_json(&avro.of_json(json.as_bytes()).unwrap()).unwrap()
    }

    #[track_caller]
    fn check(schema: &Json, json: &str) {
        let back = both_ways(schema, json);
        let value = |json: &str| serde_json::from_str::<Json>(json).unwrap();
        assert_eq!(value(&back), value(json));
    }

    #[test]
    fn a_reading_comes_back_with_every_digit() {
        let schema = reading_schema(&Catalogue::builtin());
        let bare = r#"{"machine_id":"machine-001","timestamp":"2025-11-07T15:10:01Z","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5}"#;
        check(&schema, bare);
        let whole = r#"{"machine_id":"설비 \"1\"","timestamp":"2025-11-07T15:10:01.000001Z","class":"mill","rpm":1500,"torque_nm":-0.01,"product_type":"H","seq":-7,"machine_state":"tool_change","quality":{"rpm":"uncertain","torque_nm":"bad"},"links":{"wave": "s3://x"}}"#;
        check(&schema, whole);
        // What is JSON itself is not written anew.
        assert!(both_ways(&schema, whole).contains(r#""links":{"wave": "s3://x"}"#));
    }

    #[test]
    fn an_alert_comes_back_whole_and_bare() {
        let whole = r#"{"alert_id":"d9b6a1e0-0000-5000-8000-000000000000","machine_id":"m","class":"mill","failure_type":"Overstrain","kind":"changed","severity":"critical","timestamp":"2025-11-07T15:10:01Z","score":0.25,"model":"laws","model_version":"00ff","arrived_at":"2025-11-07T15:10:01.5Z","condition":"overstrain","condition_id":"d9b6a1e0-0000-5000-8000-000000000000","started_at":"2025-11-07T15:10:01Z","position":{"topic":"sensor-raw-data","partition":3,"offset":7,"index":2},"reading":{"machine_id":"m","torque_nm":60.50},"reason":{"law":"overstrain","terms":[{"quantity":"strain","term":"strain","measured":12500,"limit":11000,"unit":"min Nm","direction":"above","margin":1500,"limit_source":"class"}],"contributions":[{"quantity":"torque_nm","value":60.5,"unit":"Nm","normal_low":20,"normal_high":null,"share":0.5}],"counterfactual":[{"channel":"torque_nm","from":60.5,"to":52,"unit":"Nm","change_percent":-14}],"adjustable":true,"time_to_limit_s":60,"notes":["product_type_default"]},"text":{"en":"overstrain","ko":"공구 과부하"},"suspended":true,"caught_up":true,"notice":false}"#;
        let whole = whole.replace("01.5Z", "01.500Z");
        check(&alert_schema(), &whole);
        assert!(both_ways(&alert_schema(), &whole).contains(r#"{"machine_id":"m","torque_nm":60.50}"#));
        let mut bare: Json = serde_json::from_str(&whole).unwrap();
        for key in ["suspended", "caught_up"] {
            bare.as_object_mut().unwrap().remove(key);
        }
        bare["reading"] = Json::Null;
        bare["reason"] = serde_json::json!({ "law": null, "terms": [], "contributions": [], "counterfactual": [], "time_to_limit_s": null });
        check(&alert_schema(), &bare.to_string());
    }

    #[test]
    fn what_the_schema_does_not_know_is_not_written() {
        let avro = Avro::parse(&avro_schema(&reading_schema(&Catalogue::builtin())).to_string()).unwrap();
        let refused = |json: &str| avro.of_json(json.as_bytes()).unwrap_err();
        let unknown = r#"{"machine_id":"m","timestamp":"2025-11-07T15:10:01Z","strange":1}"#;
        assert_eq!(refused(unknown), "the schema has no strange");
        assert_eq!(refused(r#"{"machine_id":"m"}"#), "timestamp: it lacks");
        assert_eq!(
            refused(r#"{"machine_id":"m","timestamp":"2025-11-07T15:10:01Z","rpm":"fast"}"#),
            "rpm: \"fast\" fits no branch"
        );
    }

    #[test]
    fn types_of_other_programs_are_read() {
        let field = |kind: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{kind}}}]}}"#);
        let check = |kind: &str, bytes: &[u8], expected: &str| {
            let read = Avro::parse(&field(kind)).unwrap().to_json(bytes);
            assert_eq!(read.as_deref(), Ok(format!("{{\"a\":{expected}}}").as_str()), "{kind}");
        };
        check(r#""float""#, &42.8_f32.to_le_bytes(), "42.8");
        check(r#""double""#, &f64::NAN.to_le_bytes(), "NaN");
        check(r#""double""#, &f64::NEG_INFINITY.to_le_bytes(), "-Infinity");
        check(r#"{"type":"long","logicalType":"timestamp-millis"}"#, &[0xd0, 0x0f], "\"1970-01-01T00:00:01Z\"");
        check(r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, &[0xd0, 0x0f], "\"1970-01-01T00:00:01\"");
        let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#;
        check(decimal, &[4, 0x10, 0xb8], "42.80");
        check(decimal, &[2, 0xff], "-0.01");
        check(r#"{"type":"enum","name":"E","symbols":["L","M"]}"#, &[2], "\"M\"");
        check(r#""bytes""#, &[4, 0x41, 0xff], "\"A\u{ff}\"");
    }

    /// As the AvroSerializer of Python's confluent-kafka 2.16 wrote it.
    #[test]
    fn a_reading_of_another_program_is_read() {
        let schema = r#"{"type":"record","name":"Sample","namespace":"plc","fields":[{"name":"machine_id","type":"string"},{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"air_temp_k","type":"float"},{"name":"process_temp_k","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},{"name":"rpm","type":["null","int"]},{"name":"torque_nm","type":"double"},{"name":"tool_wear_min","type":"long"},{"name":"product_type","type":{"type":"enum","name":"Kind","symbols":["L","M","H"]}}]}"#;
        let bytes = b"\x16machine-001\xb8\xac\xf0\xed\xcb\x66\xcd\x8c\x95\x43\x04\x78\xe6\x02\xb8\x17\x66\x66\x66\x66\x66\x66\x45\x40\x0a\x02";
        let expected = r#"{"machine_id":"machine-001","timestamp":"2025-11-07T15:10:01.500Z","air_temp_k":299.1,"process_temp_k":309.50,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5,"product_type":"M"}"#;
        assert_eq!(Avro::parse(schema).unwrap().to_json(bytes).as_deref(), Ok(expected));
    }

    #[test]
    fn what_could_be_endless_is_refused() {
        let inside = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
        assert_eq!(Avro::parse(inside).err().as_deref(), Some("L lies inside itself"));
        let nothing = r#"{"type":"array","items":"null"}"#;
        assert_eq!(Avro::parse(nothing).err().as_deref(), Some("it has a list of what takes no byte"));
        let text = Avro::parse("\"string\"").unwrap();
        // It claims a gigabyte.
        assert!(text.to_json(&[0x80, 0x80, 0x80, 0x80, 0x08]).is_err());
        assert_eq!(text.to_json(&[2, b'a', b'b']), Err("1 bytes follow the value".to_owned()));
    }
}
