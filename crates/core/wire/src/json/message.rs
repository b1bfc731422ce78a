//! One message as serde_json reads it: the path that knows every form, and that alone refuses.

use super::{
    Bound, Row, nonfinite,
    sorter::{MESSAGE_MAX, Refusal, Sorter},
};
use crate::{ErrorCode, Quality, ScaledError, decimal_text, scaled};
use catalog::{Channel, Class, MachineId, State};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Arrays and objects may lie so deep in each other.
const DEPTH_MAX: usize = 32;

/// Keys of the contract that are no channel and no attribute of a class.
const MACHINE_ID: &str = "machine_id";
const TIMESTAMP: &str = "timestamp";
const CLASS: &str = "class";
const SEQ: &str = "seq";
const MACHINE_STATE: &str = "machine_state";
const QUALITY: &str = "quality";
const LINKS: &str = "links";

/// Reads a message into the row, its class and machine too.
pub(super) fn read(text: &[u8], sorter: &mut Sorter, row: &mut Row, bound: &Bound<'_>) -> Result<(), Refusal> {
    if text.len() > MESSAGE_MAX {
        let error = format!("message has {} bytes, {MESSAGE_MAX} are allowed", text.len());
        return Err(Refusal::new(ErrorCode::TooLong, error));
    }
    if nonfinite::depth(text) > DEPTH_MAX {
        let error = format!("arrays and objects lie more than {DEPTH_MAX} deep in each other");
        return Err(Refusal::new(ErrorCode::TooDeep, error));
    }
    match parse(text) {
        Ok(fields) => fields.into_row(sorter, row, bound),
        Err(refusal) => {
            let replaced = nonfinite::replaced(text).filter(|_| refusal.code == ErrorCode::NotJson);
            let Some(fields) = replaced.as_deref().and_then(|text| parse(text).ok()) else { return Err(refusal) };
            let read = fields.into_row(sorter, row, bound);
            Err(read.err().unwrap_or_else(|| Refusal { machine: Some(row.machine), ..not_finite() }))
        }
    }
}

fn not_finite() -> Refusal {
    Refusal::new(ErrorCode::NotFinite, "NaN and Infinity are no JSON numbers")
}

fn parse(text: &[u8]) -> Result<Fields<'_>, Refusal> {
    let no_json = |error: serde_json::Error| Refusal::new(ErrorCode::NotJson, format!("not JSON: {error}"));
    if text.iter().find(|byte| !super::is_blank(**byte)) != Some(&b'{') {
        serde_json::from_slice::<&RawValue>(text).map_err(no_json)?;
        return Err(Refusal::new(ErrorCode::NotAnObject, "not a JSON object"));
    }
    serde_json::from_slice(text).map_err(no_json)
}

/// The keys of one object in the order in which they stand, values unread.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields<'de>;

            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    fields.push((key, value.get()));
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Visitor)
    }
}

impl<'a> Fields<'a> {
    fn into_row(self, sorter: &mut Sorter, row: &mut Row, bound: &Bound<'_>) -> Result<(), Refusal> {
        row.machine = sorter.machine(self.machine_id()?, bound);
        let result = self.after_machine(sorter, row, bound);
        result.map_err(|refusal| Refusal { machine: Some(row.machine), ..refusal })
    }

    /// What a key of the contract carries; null is as good as no key.
    fn get(&self, key: &str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| *value);
        let value = values.next();
        if values.next().is_some() {
            return Err(duplicate(key));
        }
        Ok(value.filter(|value| *value != "null"))
    }

    fn machine_id(&self) -> Result<MachineId, Refusal> {
        let raw = self.get(MACHINE_ID)?.ok_or_else(|| missing(MACHINE_ID))?;
        let name = string(MACHINE_ID, raw)?;
        MachineId::try_from(&*name).map_err(|error| Refusal::new(ErrorCode::BadMachineId, error.to_string()))
    }

    fn after_machine(&self, sorter: &mut Sorter, row: &mut Row, bound: &Bound<'_>) -> Result<(), Refusal> {
        let named = self.get(CLASS)?.map(|raw| string(CLASS, raw)).transpose()?;
        row.class_named = named.is_some();
        row.class = sorter.class_of(row.machine, named.as_deref(), bound)?;
        let raw = self.get(TIMESTAMP)?.ok_or_else(|| missing(TIMESTAMP))?;
        let stamp = string(TIMESTAMP, raw)?;
        let said_us = crate::parse_time(stamp.as_bytes())
            .map_err(|error| Refusal::new(ErrorCode::BadTime, format!("timestamp {} is {error}", shown(raw))))?;
        row.timestamp_us = sorter.event_time(said_us).ok_or_else(|| sorter.refuse_time(said_us))?;
        self.values(&sorter.classes[row.class].clone(), row)
    }

    /// What the class asks for.
    fn values(&self, class: &Class, row: &mut Row) -> Result<(), Refusal> {
        row.rare.clear(class.attributes.len());
        // Until it is settled, it may hold anything.
        row.rare.any = true;
        (row.rounded, row.unknown_keys) = (0, 0);
        let mut channels = [None; super::row::CHANNELS_MAX];
        for (key, raw) in &self.0 {
            if let Some(at) = class.channel_index(key) {
                if channels[at].replace(*raw).is_some() {
                    return Err(Refusal { channel: Some((row.class, at)), ..duplicate(key) });
                }
            } else if let Some(at) = class.attributes.iter().position(|attribute| attribute.id == **key) {
                let raw = self.get(key)?;
                row.rare.attributes[at] =
                    raw.map_or(Ok(crate::ReadingBatch::NONE), |raw| word(&class.attributes[at], raw))?;
            } else if ![MACHINE_ID, TIMESTAMP, CLASS, SEQ, MACHINE_STATE, QUALITY, LINKS].contains(&&**key) {
                row.unknown_keys += 1;
            }
        }
        for (at, channel) in class.channels.iter().enumerate() {
            let named = |refusal| Refusal { channel: Some((row.class, at)), ..refusal };
            match channels[at].filter(|raw| *raw != "null") {
                Some(raw) => {
                    let (value, was_rounded) = number(channel, raw).map_err(named)?;
                    row.values[at] = value;
                    row.rounded += u32::from(was_rounded);
                    if value < channel.plausible.0 || value > channel.plausible.1 {
                        row.rare.quality |= Quality::Bad.bits(at);
                    }
                }
                None if channel.optional => {
                    row.values[at] = 0;
                    row.rare.quality |= Quality::Missing.bits(at);
                }
                None => return Err(named(missing(&channel.id))),
            }
        }
        row.rare.seq = self.get(SEQ)?.map(seq).transpose()?;
        row.rare.state = self.get(MACHINE_STATE)?.map(state).transpose()?;
        if let Some(raw) = self.get(QUALITY)? {
            row.unknown_keys += qualities(class, raw, row)?;
        }
        if let Some(raw) = self.get(LINKS)? {
            if !raw.starts_with('{') {
                return Err(wrong_type(LINKS, "an object", raw));
            }
            row.rare.links = Some(raw.into());
        }
        row.rare.settle();
        Ok(())
    }
}

fn number(channel: &Channel, raw: &str) -> Result<(i64, bool), Refusal> {
    match scaled(raw.as_bytes(), channel.scale) {
        _ if raw == nonfinite::STAND_IN => {
            Err(Refusal { error: format!("{} is NaN or Infinity, not a number", channel.id), ..not_finite() })
        }
        Ok((value, _)) if value < channel.range.0 || value > channel.range.1 => Err(outside(channel, raw)),
        Ok(number) => Ok(number),
        Err(ScaledError::TooLarge) => Err(outside(channel, raw)),
        Err(ScaledError::NotANumber) => Err(wrong_type(&channel.id, "a number", raw)),
    }
}

/// A number that its channel's range does not allow.
pub(crate) fn outside(channel: &Channel, raw: &str) -> Refusal {
    let (low, high) = (decimal_text(channel.range.0, channel.scale), decimal_text(channel.range.1, channel.scale));
    let unit = if channel.unit == "1" { String::new() } else { format!(" {}", channel.unit) };
    let error = format!("{} is {}, allowed are {low} to {high}{unit}", channel.id, shown(raw));
    Refusal::new(ErrorCode::OutOfRange, error)
}

fn word(attribute: &catalog::Attribute, raw: &str) -> Result<u8, Refusal> {
    let word = string(&attribute.id, raw)?;
    let at = attribute.values.iter().position(|value| *value == *word);
    at.map(|at| at as u8).ok_or_else(|| unknown_word(&attribute.id, raw, attribute.values.iter().map(|value| &**value)))
}

fn seq(raw: &str) -> Result<i64, Refusal> {
    match scaled(raw.as_bytes(), 0) {
        Ok((seq, false)) => Ok(seq),
        Ok((_, true)) | Err(ScaledError::NotANumber) => Err(wrong_type(SEQ, "a whole number", raw)),
        Err(ScaledError::TooLarge) => {
            Err(Refusal::new(ErrorCode::OutOfRange, format!("seq is {}, 64 bits are allowed", shown(raw))))
        }
    }
}

fn state(raw: &str) -> Result<u8, Refusal> {
    let word = string(MACHINE_STATE, raw)?;
    let state = State::from_word(&word);
    state
        .map(|state| state as u8)
        .ok_or_else(|| unknown_word(MACHINE_STATE, raw, State::ALL.iter().map(|state| state.as_str())))
}

/// Enters what the object `quality` says; the worse of it and of the value's own wins. Returns its unknown keys.
fn qualities(class: &Class, raw: &str, row: &mut Row) -> Result<u32, Refusal> {
    if !raw.starts_with('{') {
        return Err(wrong_type(QUALITY, "an object", raw));
    }
    let fields: Fields<'_> =
        serde_json::from_str(raw).map_err(|error| Refusal::new(ErrorCode::NotJson, format!("not JSON: {error}")))?;
    let mut unknown = 0;
    for (key, _) in &fields.0 {
        let Some(at) = class.channel_index(key) else {
            unknown += 1;
            continue;
        };
        let named = |refusal| Refusal { channel: Some((row.class, at)), ..refusal };
        let Some(raw) = fields.get(key).map_err(named)? else { continue };
        let said = match &*string("quality", raw).map_err(named)? {
            "good" => Quality::Good,
            "uncertain" => Quality::Uncertain,
            "bad" => Quality::Bad,
            _ => {
                return Err(named(unknown_word(
                    &format!("quality of {key}"),
                    raw,
                    ["good", "uncertain", "bad"].into_iter(),
                )));
            }
        };
        let own = Quality::of(row.rare.quality, at);
        row.rare.quality ^= own.bits(at) ^ own.max(said).bits(at);
    }
    Ok(unknown)
}

fn string<'a>(key: &str, raw: &'a str) -> Result<Cow<'a, str>, Refusal> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    if !raw.starts_with('"') {
        return Err(wrong_type(key, "a string", raw));
    }
    let text: Text<'a> = serde_json::from_str(raw)
        .map_err(|error| Refusal::new(ErrorCode::NotJson, format!("not JSON: {key}: {error}")))?;
    Ok(text.0)
}

pub(crate) fn missing(key: &str) -> Refusal {
    Refusal::new(ErrorCode::MissingField, format!("{key} is missing"))
}

fn duplicate(key: &str) -> Refusal {
    Refusal::new(ErrorCode::DuplicateKey, format!("key {key} comes twice"))
}

pub(crate) fn wrong_type(key: &str, expected: &str, raw: &str) -> Refusal {
    Refusal::new(ErrorCode::WrongType, format!("{key} is {}, {expected} is expected", shown(raw)))
}

pub(crate) fn unknown_word<'a>(key: &str, raw: &str, known: impl Iterator<Item = &'a str>) -> Refusal {
    let known: Vec<_> = known.collect();
    Refusal::new(ErrorCode::UnknownValue, format!("{key} is {}, allowed are {}", shown(raw), known.join(", ")))
}

/// As much of a value as a sentence takes.
pub(crate) fn shown(raw: &str) -> Cow<'_, str> {
    if raw == nonfinite::STAND_IN {
        return "NaN or Infinity".into();
    }
    if raw.len() <= 40 { raw.into() } else { format!("{}…", &raw[..raw.floor_char_boundary(40)]).into() }
}
