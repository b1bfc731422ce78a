//! Event times: RFC 3339 in all its forms, to microseconds since 1970 UTC.

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2025-11-07T15:10:01Z")]
pub struct TimeError;

/// Parses RFC 3339: with or without fraction and offset (none: UTC), `T`, `t` or a blank between date and time, leap
/// second as the second before; digits finer than microseconds are cut. Years 0000 to 9999.
///
/// # Errors
/// It is not such a time.
pub fn parse_time(text: &[u8]) -> Result<i64, TimeError> {
    let _ = text;
    todo!()
}

/// Writes `2025-11-07T15:10:01Z`, with 3 or 6 digits of fraction where there is one.
pub fn format_time(us: i64) -> String {
    let _ = us;
    todo!()
}

/// `#[serde(with)]`: microseconds here, RFC 3339 in JSON.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes [`super::format_time`].
    pub fn serialize<S: Serializer>(us: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_time(*us))
    }

    /// Reads [`super::parse_time`].
    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<i64, D::Error> {
        let text = <std::borrow::Cow<'a, str>>::deserialize(from)?;
        super::parse_time(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}
