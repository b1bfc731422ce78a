//! What goes wrong, as RFC 9457 problems: every error of the API has one shape and a stable code.

pub(crate) use dependency::chain;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::error;

/// An error as it is answered.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// `urn:millwright:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened, and what to do about it.
    detail: String,
    /// Stable; programs look at this.
    code: &'static str,
    /// The keys that are wrong, each with its why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<KeyProblem>,
    /// Seconds after which it is worth trying again; the header `Retry-After` says the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u32>,
}

/// One key of a body that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct KeyProblem {
    /// E.g. `parameters.i_rated`.
    pub(crate) key: String,
    /// What is wrong, what is allowed.
    pub(crate) message: String,
}

impl Problem {
    /// A problem with a status, a code and a sentence.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:millwright:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            problems: Vec::new(),
            retry_after_s: None,
        }
    }

    /// 400: the request cannot be read.
    pub(crate) fn bad(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404.
    pub(crate) fn missing(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 422: the request can be read and is wrong.
    pub(crate) fn wrong(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 422 that names keys.
    pub(crate) fn keys(problems: Vec<KeyProblem>) -> Problem {
        let detail: Vec<String> =
            problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect();
        Problem { problems, ..Problem::wrong("bad_key", detail.join("; ")) }
    }

    /// 500: our fault, or the machine's; `what` was being done.
    pub(crate) fn internal(what: &str, error: &dyn std::error::Error) -> Problem {
        error!(error = chain(error), "could not {what}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("could not {what}; the log says why"))
    }

    /// Says when to try again.
    pub(crate) fn after(self, seconds: u32) -> Problem {
        Problem { retry_after_s: Some(seconds), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("made from a status");
        let body = serde_json::to_string(&self).expect("texts and numbers are JSON");
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Problem {
        match error {
            store::Error::Cursor => bad_cursor(),
            store::Error::Closed => closing(),
            error => Problem::internal("read or write the store", &error),
        }
    }
}

impl From<store::history::Error> for Problem {
    fn from(error: store::history::Error) -> Problem {
        match error {
            store::history::Error::Cursor => bad_cursor(),
            store::history::Error::Closed => closing(),
            error => Problem::internal("read or write the history", &error),
        }
    }
}

fn bad_cursor() -> Problem {
    Problem::bad("bad_cursor", "cursor is not one of ours: pass next_cursor of the page before as it is")
}

fn closing() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the service is closing").after(2)
}
