//! TOML with the place of everything: typed look-ups that tell their own mistakes.

use super::{Teller, did_you_mean, duration};
use crate::Text;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Parses TOML; syntax errors are told.
pub(super) fn parse<'a>(text: &'a str, tell: &'a Teller<'a>) -> Option<Fields<'a>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        tell.tell(error.span().map_or(0, |span| span.start), error.message().replace('\n', ", "), None);
    }
    errors.is_empty().then(|| Fields { table: root.into_inner(), at: 0, tell })
}

/// A table with its place.
pub(super) struct Fields<'a> {
    table: DeTable<'a>,
    /// Byte where it begins.
    pub at: usize,
    tell: &'a Teller<'a>,
}

/// An array of tables.
pub(super) type Tables<'a> = Vec<Fields<'a>>;

impl<'a> Fields<'a> {
    /// Tells every key that is not allowed.
    pub fn only(&self, allowed: &[&str]) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !allowed.contains(&name) {
                let hint = match did_you_mean(name, allowed.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("allowed are {}", allowed.join(", ")),
                };
                self.tell.tell(key.span().start, format!("unknown key `{name}`"), Some(hint));
            }
        }
    }

    /// Keys in file order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.table.keys().map(|key| (key.span().start, key.get_ref().to_string())).collect();
        keys.sort();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Byte of a key's value, else of the table.
    pub fn place(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.at, |value| value.span().start)
    }

    fn wrong<T>(&self, value: &Spanned<DeValue<'a>>, key: &str, wants: &str) -> Option<T> {
        let found = value.get_ref().type_str();
        self.tell.tell(value.span().start, format!("`{key}` wants {wants}, here stands a {found}"), None);
        None
    }

    /// A text and the byte of its first character.
    pub fn text(&self, key: &str) -> Option<(String, usize)> {
        let value = self.table.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), value.span().start + 1)),
            _ => self.wrong(value, key, "a text"),
        }
    }

    /// A text that must be there.
    pub fn required_text(&self, key: &str) -> Option<(String, usize)> {
        self.required(key)?;
        self.text(key)
    }

    fn required(&self, key: &str) -> Option<()> {
        if self.has(key) {
            return Some(());
        }
        self.tell.tell(self.at, format!("`{key}` is missing"), None);
        None
    }

    /// Words of a list.
    pub fn texts(&self, key: &str) -> Vec<String> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong::<()>(value, key, "a list of texts");
            return Vec::new();
        };
        array
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => self.wrong(item, key, "texts"),
            })
            .collect()
    }

    /// One word or a list of them, each with its place.
    pub fn text_or_texts(&self, key: &str) -> Vec<(String, usize)> {
        match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::String(_)) => self.text(key).into_iter().collect(),
            _ => self.texts(key).into_iter().map(|text| (text, self.place(key))).collect(),
        }
    }

    /// `{ en, ko }`; ko falls back to en, en to `id`.
    pub fn words(&self, key: &str, id: &str) -> Text {
        self.optional_words(key, id).unwrap_or_else(|| Text { en: id.to_owned(), ko: id.to_owned() })
    }

    /// `{ en, ko }` where it is there.
    pub fn optional_words(&self, key: &str, id: &str) -> Option<Text> {
        let inner = self.table(key)?;
        inner.only(&["en", "ko"]);
        let en = inner.text("en").map_or_else(|| id.to_owned(), |(text, _)| text);
        let ko = inner.text("ko").map_or_else(|| en.clone(), |(text, _)| text);
        Some(Text { en, ko })
    }

    /// An inner table.
    pub fn table(&self, key: &str) -> Option<Fields<'a>> {
        let value = self.table.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Fields { table: table.clone(), at: value.span().start, tell: self.tell }),
            _ => self.wrong(value, key, "a table"),
        }
    }

    /// `[[key]]`, or an inline list of tables.
    pub fn tables(&self, key: &str) -> Tables<'a> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.tell.tell(
                value.span().start,
                format!("`{key}` may stand several times"),
                Some(format!("write [[{key}]]")),
            );
            return Vec::new();
        };
        array
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::Table(table) => Some(Fields { table: table.clone(), at: item.span().start, tell: self.tell }),
                _ => self.wrong(item, key, "tables"),
            })
            .collect()
    }

    /// `true` or `false`; absent is false.
    pub fn flag(&self, key: &str) -> bool {
        let Some(value) = self.table.get(key) else { return false };
        value.get_ref().as_bool().or_else(|| self.wrong(value, key, "true or false")).unwrap_or(false)
    }

    /// One of some words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let (word, at) = self.text(key)?;
        let found = choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.tell.tell(at, format!("`{key}` cannot be `{word}`"), Some(format!("one of {}", names.join(", "))));
        }
        found
    }

    /// A time in microseconds, or the default.
    pub fn duration(&self, key: &str, default: i64) -> i64 {
        self.optional_duration(key).unwrap_or(default)
    }

    /// A time in microseconds.
    pub fn optional_duration(&self, key: &str) -> Option<i64> {
        let (text, at) = self.text(key)?;
        let found = duration(&text);
        if found.is_none() {
            self.tell.tell(at, format!("`{text}` is no time"), Some("write 500ms, 10s, 5m or 8h".to_owned()));
        }
        found
    }

    /// A number and its place.
    pub fn number(&self, key: &str) -> Option<(f64, usize)> {
        let value = self.table.get(key)?;
        match number(value.get_ref()) {
            Some(number) => Some((number, value.span().start)),
            None => self.wrong(value, key, "a finite number"),
        }
    }

    /// A number that must be there.
    pub fn required_number(&self, key: &str) -> Option<(f64, usize)> {
        self.required(key)?;
        self.number(key)
    }

    /// Decimals kept, 0 to 9.
    pub fn scale(&self, key: &str) -> Option<u8> {
        let value = self.table.get(key)?;
        let scale = value.get_ref().as_integer().and_then(|digits| digits.as_str().parse::<u8>().ok());
        scale.filter(|scale| *scale <= 9).or_else(|| self.wrong(value, key, "a whole number from 0 to 9"))
    }

    /// Decimals kept, which must be there.
    pub fn required_scale(&self, key: &str) -> Option<u8> {
        self.required(key)?;
        self.scale(key)
    }

    /// `[low, high]`.
    pub fn pair(&self, key: &str) -> Option<(f64, f64)> {
        let value = self.table.get(key)?;
        let items: Option<Vec<f64>> =
            value.get_ref().as_array().and_then(|array| array.iter().map(|item| number(item.get_ref())).collect());
        match items.as_deref() {
            Some([low, high]) if low <= high => Some((*low, *high)),
            _ => self.wrong(value, key, "[lowest, highest]"),
        }
    }

    /// `[low, high]` as scaled integers.
    pub fn scaled_pair(&self, key: &str, scale: u8) -> Option<(i64, i64)> {
        let (low, high) = self.pair(key)?;
        match (scaled(low, scale), scaled(high, scale)) {
            (Some(low), Some(high)) => Some((low, high)),
            _ => {
                let message = format!("`{key}` does not fit 64 bits at scale {scale}");
                self.tell.tell(self.place(key), message, Some("give a narrower range or a smaller scale".to_owned()));
                None
            }
        }
    }

    /// A number as a scaled integer.
    pub fn scaled(&self, key: &str, scale: u8) -> Option<i64> {
        let (value, at) = self.number(key)?;
        let found = scaled(value, scale);
        if found.is_none() {
            self.tell.tell(at, format!("`{key}` does not fit 64 bits at scale {scale}"), None);
        }
        found
    }

    /// A number or a text, where limits stand: (number, or text with its place).
    pub fn limit(&self, key: &str) -> Option<LimitText<'a>> {
        let value = self.table.get(key)?;
        let at = value.span().start;
        match value.get_ref() {
            DeValue::String(text) => Some(LimitText::Text(text.to_string(), at + 1)),
            DeValue::Table(table) => Some(LimitText::Table(Fields { table: table.clone(), at, tell: self.tell })),
            other => match number(other) {
                Some(number) => Some(LimitText::Number(number)),
                None => self.wrong(value, key, "a number, an expression over parameters, or a table by attribute"),
            },
        }
    }
}

/// What may stand as a limit.
pub(super) enum LimitText<'a> {
    Number(f64),
    Text(String, usize),
    Table(Fields<'a>),
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    let text = match value {
        DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str(),
        DeValue::Float(digits) => digits.as_str(),
        _ => return None,
    };
    text.replace('_', "").parse::<f64>().ok().filter(|number| number.is_finite())
}

/// round(value x 10^scale), where it fits 62 bits: sums of two never overflow.
fn scaled(value: f64, scale: u8) -> Option<i64> {
    let scaled = (value * 10f64.powi(i32::from(scale))).round();
    (scaled.abs() < (1i64 << 62) as f64).then_some(scaled as i64)
}
