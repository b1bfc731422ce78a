//! Answers as JSON texts: values that are exact decimals must not pass through a float.

use crate::problem::Problem;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

/// A JSON text as an answer.
pub(crate) fn json(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A value as an answer, 200.
pub(crate) fn value(value: &impl Serialize) -> Response {
    json(StatusCode::OK, serde_json::to_string(value).expect("string keys and finite numbers are JSON"))
}

/// A page: `{"<name>":[...],"next_cursor":...}`.
pub(crate) fn page<T: Serialize>(name: &str, rows: &[T], next_cursor: Option<&str>) -> Response {
    let rows = serde_json::to_string(rows).expect("string keys and finite numbers are JSON");
    let next = serde_json::to_string(&next_cursor).expect("a text is JSON");
    json(StatusCode::OK, format!("{{\"{name}\":{rows},\"next_cursor\":{next}}}"))
}

/// A JSON text that is written as it is.
pub(crate) fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("made by a writer of JSON")
}

/// A moment as it is written, or null.
pub(crate) fn time(us: Option<i64>) -> Value {
    us.map_or(Value::Null, |us| wire::format_time(us).into())
}

/// A float; null where it is none.
pub(crate) fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// An object out of its keys.
pub(crate) fn object<const N: usize>(keys: [(&str, Value); N]) -> Map<String, Value> {
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What a handler answers.
pub(crate) type Answer = Result<Response, Problem>;
