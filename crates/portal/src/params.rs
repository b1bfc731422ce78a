//! What requests carry beside the path: query parameters, small JSON bodies, names of machines.

use crate::problem::Problem;
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{StatusCode, header, request::Parts},
};
use catalog::MachineId;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// A page has at most so many rows; a limit above is lowered.
pub(crate) const LIMIT_MAX: usize = 1_000;
/// Rows of a page where nobody says how many.
const LIMIT_DEFAULT: usize = 100;
/// Largest body of an order; readings have their own limit.
const BODY_MAX: usize = 1024 * 1024;
/// Objects and arrays inside each other in a body.
const DEPTH_MAX: usize = 32;
/// A body must have come within so long.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Microseconds since 1970, by the wall clock.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The query string.
pub(crate) struct Params(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params, Problem> {
        let query = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let query = query.map_err(|error| Problem::bad("bad_query", error.body_text()))?;
        // `cursor=` and `from=` mean the same as nothing at all.
        Ok(Params(query.0.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }
}

impl Params {
    /// Refuses what a route does not know: a filter that is misspelt must not look like one that found everything.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let known = known.join(", ");
                Err(Problem::bad("bad_query", format!("{name}: is no parameter of this route; it has {known}")))
            }
            None => Ok(()),
        }
    }

    /// A parameter as it was written.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// As [`Params::get`], owned.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// One of a few words.
    pub(crate) fn word(&self, name: &str, allowed: &[&str]) -> Result<Option<String>, Problem> {
        match self.get(name) {
            Some(word) if !allowed.contains(&word) => {
                Err(Problem::bad("bad_query", format!("{name}: `{word}` is none of {}", allowed.join(", "))))
            }
            word => Ok(word.map(str::to_owned)),
        }
    }

    /// `true` or `false`; absent is `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.word(name, &["true", "false"])?.as_deref() == Some("true"))
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let read = |text: &str| {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Problem::bad("bad_query", format!("{name}: `{text}` is not a whole number")));
            }
            // More digits than fit are a very large number all the same.
            Ok(text.parse().unwrap_or(u64::MAX))
        };
        self.get(name).map(read).transpose()
    }

    /// Rows of a page: `limit`, lowered to what is allowed.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        match self.number("limit")? {
            Some(0) => Err(Problem::bad("bad_query", "limit: 1 at least")),
            Some(limit) => Ok(usize::try_from(limit).unwrap_or(LIMIT_MAX).min(LIMIT_MAX)),
            None => Ok(LIMIT_DEFAULT),
        }
    }

    /// A moment: RFC 3339, or so long ago (`-90s`, `-15m`, `-1h`, `-7d`).
    pub(crate) fn time(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        moment(text, now_us()).map(Some).ok_or_else(|| {
            Problem::bad(
                "bad_time",
                format!("{name}: `{text}` is neither RFC 3339 nor a span such as -90s, -15m, -1h, -7d"),
            )
        })
    }

    /// `from` (inclusive) and `to` (exclusive).
    pub(crate) fn range(&self) -> Result<(Option<i64>, Option<i64>), Problem> {
        let (from, to) = (self.time("from")?, self.time("to")?);
        match (from, to) {
            (Some(from), Some(to)) if from > to => Err(Problem::bad("bad_time", "from lies after to")),
            range => Ok(range),
        }
    }
}

/// Reads a moment.
fn moment(text: &str, now_us: i64) -> Option<i64> {
    if let Some(span) = text.strip_prefix('-')
        && let Some((at, unit)) = span.char_indices().last()
        && at > 0
    {
        let second = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        let count: i64 = span[..at].bytes().all(|byte| byte.is_ascii_digit()).then(|| span[..at].parse().ok())??;
        return now_us.checked_sub(count.checked_mul(second * 1_000_000)?);
    }
    // A `+` that was not escaped reads as a space.
    let mut text = text.as_bytes().to_vec();
    text.iter_mut().skip(19).filter(|byte| **byte == b' ').for_each(|byte| *byte = b'+');
    wire::parse_time(&text).ok()
}

/// The machine that the path names.
pub(crate) struct Machine(pub(crate) MachineId);

impl<S: Send + Sync> FromRequestParts<S> for Machine {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Machine, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad("bad_path", error.body_text()))?;
        let id =
            MachineId::try_from(name.as_str()).map_err(|error| Problem::wrong("bad_machine_id", error.to_string()))?;
        Ok(Machine(id))
    }
}

/// The UUID that the path names.
pub(crate) struct Id(pub(crate) uuid::Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad("bad_path", error.body_text()))?;
        let id = text.parse().map_err(|_| Problem::missing("no_such_id", format!("`{text}` is not an id")))?;
        Ok(Id(id))
    }
}

/// A small JSON object; an empty body is an empty object.
pub(crate) struct Object(pub(crate) serde_json::Map<String, serde_json::Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Object, Problem> {
        let coded = request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        if coded {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "bad_encoding",
                "orders are sent uncompressed",
            ));
        }
        let body = read(request.into_body(), BODY_MAX).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Object(serde_json::Map::new()));
        }
        if depth(&body) > DEPTH_MAX {
            return Err(Problem::bad(
                "too_deep",
                format!("more than {DEPTH_MAX} objects and arrays inside each other"),
            ));
        }
        match serde_json::from_slice(&body) {
            Ok(serde_json::Value::Object(object)) => Ok(Object(object)),
            Ok(_) => Err(Problem::bad("not_an_object", "the body must be a JSON object")),
            Err(error) => Err(Problem::bad("not_json", format!("the body is not JSON: {error}"))),
        }
    }
}

/// Reads a whole body of at most `max` bytes.
async fn read(body: Body, max: usize) -> Result<axum::body::Bytes, Problem> {
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is larger than {max} bytes or was cut off"),
        )
    };
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, max)).await {
        Ok(body) => body.map_err(|_| too_large()),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", "the body did not come within 30 s")),
    }
}

/// How deep objects and arrays of a JSON text lie inside each other.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_so_long_ago() {
        let now = 1_700_000_000_000_000;
        assert_eq!(moment("-1h", now), Some(now - 3_600_000_000));
        assert_eq!(moment("-90s", now), Some(now - 90_000_000));
        assert_eq!(moment("-7d", now), Some(now - 7 * 86_400_000_000));
        let noon = wire::parse_time(b"2025-11-07T12:00:00Z").ok();
        assert_eq!(moment("2025-11-07T12:00:00Z", now), noon);
        assert_eq!(moment("2025-11-07T21:00:00+09:00", now), noon);
        assert_eq!(moment("2025-11-07T21:00:00 09:00", now), noon, "a plus sign that was not escaped");
        for wrong in [
            "",
            "-",
            "-h",
            "-1",
            "-1w",
            "--1h",
            "-1.5h",
            "-99999999999999999999d",
            "-9223372036854775807d",
            "now",
            "-시",
        ] {
            assert_eq!(moment(wrong, now), None, "{wrong}");
        }
    }

    #[test]
    fn depth_does_not_count_brackets_in_texts() {
        assert_eq!(depth(br#"{"a":[1,{"b":"[[[[\"["}]}"#), 3);
        assert_eq!(depth(b"[[[["), 4);
    }

    #[test]
    fn a_limit_is_lowered_never_refused() {
        let limit = |text: &str| Params([("limit".to_owned(), text.to_owned())].into()).limit().ok();
        assert_eq!((limit("5"), limit("1001"), limit("99999999999999999999999")), (Some(5), Some(1000), Some(1000)));
        assert_eq!((limit("0"), limit("-1"), limit("many")), (None, None, None));
    }
}
