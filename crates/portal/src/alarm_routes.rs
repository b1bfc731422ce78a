//! Alarms: what asks people to act, and what they answer; the audit log of both.

use crate::{
    alarms::{CommandError, view},
    alerts::SEVERITIES,
    answer::{self, Answer, time},
    app::{App, LOCAL, LOCAL_ROLE},
    params::{Id, Object, Params, now_us},
    problem::{KeyProblem, Problem},
};
use alarm::{Action, Command, State as AlarmState};
use axum::{extract::State, http::StatusCode};
use serde_json::{Map, Value};
use store::{AlarmQuery, AuditRow};

/// Words of a subject, for filters.
const SUBJECTS: [&str; 3] = ["machine", "sensor", "system"];

/// Alarms: unacknowledged first, then by priority, then newest change first.
#[utoipa::path(
    get,
    path = "/api/alarms",
    tag = "alarms",
    params(
        ("machine_id" = Option<String>, Query, description = "Of this machine"),
        ("state" = Option<String>, Query, description = "normal, unacknowledged, acknowledged, returned_unacknowledged, shelved, suppressed, out_of_service"),
        ("subject" = Option<String>, Query, description = "machine, sensor, system"),
        ("severity" = Option<String>, Query, description = "critical, warning, info"),
        ("open" = Option<bool>, Query, description = "`true`: all but normal"),
        ("from" = Option<String>, Query, description = "Last change, RFC 3339 or `-1h`, inclusive"),
        ("to" = Option<String>, Query, description = "Exclusive"),
        ("limit" = Option<u64>, Query, description = "Default 100, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "`alarms`, `next_cursor`", body = Object),
        (status = 400, description = "Bad query", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&["machine_id", "state", "subject", "severity", "open", "from", "to", "limit", "cursor"])?;
    let (from_us, to_us) = params.range()?;
    let query = AlarmQuery {
        machine_id: params.text("machine_id"),
        state: params.word("state", &AlarmState::WORDS)?,
        subject: params.word("subject", &SUBJECTS)?,
        severity: params.word("severity", &SEVERITIES)?,
        open: params.flag("open")?,
        from_us,
        to_us,
        limit: params.limit()?,
        cursor: params.text("cursor"),
    };
    let page = app.parts.store.alarm_page(query).await?;
    let alarms: Vec<_> = page.rows.iter().map(|row| answer::raw(view(row))).collect();
    Ok(answer::page("alarms", &alarms, page.next_cursor.as_deref()))
}

/// One alarm.
#[utoipa::path(
    get,
    path = "/api/alarms/{id}",
    tag = "alarms",
    params(("id" = String, Path, description = "Alarm")),
    responses(
        (status = 200, description = "The alarm", body = Object),
        (status = 404, description = "No such alarm", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(State(app): State<App>, Id(id): Id) -> Answer {
    let row = app.parts.store.alarm(id).await?;
    let row = row.ok_or_else(|| Problem::missing("no_such_alarm", format!("there is no alarm {id}")))?;
    Ok(answer::json(StatusCode::OK, view(&row)))
}

/// Acknowledge an alarm: somebody has seen it and takes it.
#[utoipa::path(
    post,
    path = "/api/alarms/{id}/ack",
    tag = "alarms",
    params(("id" = String, Path, description = "Alarm")),
    request_body(content = Option<Object>, description = "`comment`"),
    responses(
        (status = 200, description = "The alarm as it is from here", body = Object),
        (status = 404, description = "No such alarm", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Bad key or value", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ack(State(app): State<App>, Id(id): Id, Object(body): Object) -> Answer {
    let mut keys = Keys::new(body);
    let comment = keys.text("comment");
    order(&app, id, keys.end(Action::Acknowledge { comment })?).await
}

/// Shelve an alarm: silence it for a time.
#[utoipa::path(
    post,
    path = "/api/alarms/{id}/shelve",
    tag = "alarms",
    params(("id" = String, Path, description = "Alarm")),
    request_body(content = Object, description = "`reason`, and `until` (RFC 3339) or `minutes`; 12 h at most"),
    responses(
        (status = 200, description = "The alarm as it is from here", body = Object),
        (status = 404, description = "No such alarm", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Bad key or value", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn shelve(State(app): State<App>, Id(id): Id, Object(body): Object) -> Answer {
    let mut keys = Keys::new(body);
    let (until_us, reason) = (keys.until("until", "minutes", now_us()), keys.text("reason"));
    order(&app, id, keys.end(Action::Shelve { until_us, reason })?).await
}

/// End the shelf of an alarm early.
#[utoipa::path(
    post,
    path = "/api/alarms/{id}/unshelve",
    tag = "alarms",
    params(("id" = String, Path, description = "Alarm")),
    responses(
        (status = 200, description = "The alarm as it is from here", body = Object),
        (status = 404, description = "No such alarm", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn unshelve(State(app): State<App>, Id(id): Id, Object(body): Object) -> Answer {
    order(&app, id, Keys::new(body).end(Action::Unshelve)?).await
}

/// Take an alarm out of service until further notice.
#[utoipa::path(
    post,
    path = "/api/alarms/{id}/out-of-service",
    tag = "alarms",
    params(("id" = String, Path, description = "Alarm")),
    request_body(content = Object, description = "`reason`"),
    responses(
        (status = 200, description = "The alarm as it is from here", body = Object),
        (status = 404, description = "No such alarm", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Bad key or value", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn out_of_service(State(app): State<App>, Id(id): Id, Object(body): Object) -> Answer {
    let mut keys = Keys::new(body);
    let reason = keys.text("reason");
    order(&app, id, keys.end(Action::TakeOutOfService { reason })?).await
}

/// Return an alarm to service.
#[utoipa::path(
    post,
    path = "/api/alarms/{id}/return-to-service",
    tag = "alarms",
    params(("id" = String, Path, description = "Alarm")),
    responses(
        (status = 200, description = "The alarm as it is from here", body = Object),
        (status = 404, description = "No such alarm", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn return_to_service(State(app): State<App>, Id(id): Id, Object(body): Object) -> Answer {
    order(&app, id, Keys::new(body).end(Action::ReturnToService)?).await
}

/// Comment on an alarm, for whoever looks next.
#[utoipa::path(
    post,
    path = "/api/alarms/{id}/comment",
    tag = "alarms",
    params(("id" = String, Path, description = "Alarm")),
    request_body(content = Object, description = "`comment`"),
    responses(
        (status = 200, description = "The alarm", body = Object),
        (status = 404, description = "No such alarm", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Bad key or value", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn comment(State(app): State<App>, Id(id): Id, Object(body): Object) -> Answer {
    let mut keys = Keys::new(body);
    let comment = keys.text("comment");
    order(&app, id, keys.end(Action::Comment { comment })?).await
}

/// The audit log, newest first: who did what, when, why.
#[utoipa::path(
    get,
    path = "/api/audit",
    tag = "alarms",
    params(
        ("subject" = Option<String>, Query, description = "`alarm:ID` or `machine:ID`"),
        ("limit" = Option<u64>, Query, description = "Default 100, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "`audit`, `next_cursor`", body = Object),
        (status = 400, description = "Bad query", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn audit(State(app): State<App>, params: Params) -> Answer {
    params.only(&["subject", "limit", "cursor"])?;
    let page = app.parts.store.audit(params.get("subject"), params.limit()?, params.get("cursor")).await?;
    let lines: Vec<_> = page.rows.iter().map(audit_json).collect();
    Ok(answer::page("audit", &lines, page.next_cursor.as_deref()))
}

/// Carries out an order and answers with the alarm.
async fn order(app: &App, id: uuid::Uuid, action: Action) -> Answer {
    let row = app.alarms.command(id, command(action)).await?;
    Ok(answer::json(StatusCode::OK, view(&row)))
}

/// An order of whoever is at this machine.
pub(crate) fn command(action: Action) -> Command {
    Command { by: LOCAL.to_owned(), role: LOCAL_ROLE, at_us: now_us(), action }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Problem {
        match error {
            CommandError::Missing(id) => Problem::missing("no_such_alarm", format!("there is no alarm {id}")),
            CommandError::Illegal(illegal) => {
                let status = StatusCode::from_u16(illegal.status()).unwrap_or(StatusCode::CONFLICT);
                let code = match status {
                    StatusCode::CONFLICT => "illegal_edge",
                    StatusCode::FORBIDDEN => "not_allowed",
                    _ => "bad_order",
                };
                Problem::new(status, code, illegal.to_string())
            }
            CommandError::Store(error) => error.into(),
        }
    }
}

/// The keys of an order, each taken once; what is left over or wrong is told together.
pub(crate) struct Keys {
    body: Map<String, Value>,
    problems: Vec<KeyProblem>,
    known: Vec<&'static str>,
}

impl Keys {
    pub(crate) fn new(body: Map<String, Value>) -> Keys {
        Keys { body, problems: Vec::new(), known: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.body.remove(key).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(KeyProblem { key: key.to_owned(), message: message.into() });
    }

    /// A text; empty where there is none.
    pub(crate) fn text(&mut self, key: &'static str) -> String {
        /// Longest comment or reason, in bytes.
        const TEXT_MAX: usize = 4_000;
        match self.take(key) {
            None => String::new(),
            Some(Value::String(text)) if text.len() <= TEXT_MAX => text.trim().to_owned(),
            Some(Value::String(_)) => {
                self.wrong(key, format!("longer than {TEXT_MAX} bytes"));
                String::new()
            }
            Some(_) => {
                self.wrong(key, "must be a text");
                String::new()
            }
        }
    }

    /// A moment as RFC 3339.
    pub(crate) fn time(&mut self, key: &'static str) -> Option<i64> {
        let value = self.take(key)?;
        let time = value.as_str().and_then(|text| wire::parse_time(text.as_bytes()).ok());
        if time.is_none() {
            self.wrong(key, "must be a time such as 2025-11-07T15:10:01Z");
        }
        time
    }

    /// An end, as a moment or as minutes from `from_us` on; one of them must be there.
    pub(crate) fn until(&mut self, until: &'static str, minutes: &'static str, from_us: i64) -> i64 {
        let failed = self.problems.len();
        let at = self.time(until);
        let span = self.take(minutes);
        let span_us = match &span {
            None => None,
            Some(value) => {
                // A year is longer than any order holds, and far from an overflow.
                let number = value.as_f64().filter(|number| *number > 0.0 && *number <= 525_600.0);
                if number.is_none() {
                    self.wrong(minutes, "must be a number above 0, at most 525600");
                }
                number.map(|number| (number * 60e6) as i64)
            }
        };
        match (at, span_us) {
            (Some(_), Some(_)) => self.wrong(minutes, format!("either {until} or {minutes}")),
            (Some(at), None) => return at,
            (None, Some(span_us)) => return from_us.saturating_add(span_us),
            (None, None) if self.problems.len() == failed => {
                self.wrong(until, format!("{until} or {minutes} must say when it ends"));
            }
            (None, None) => {}
        }
        0
    }

    /// The order, if nothing was wrong and nothing is left over.
    pub(crate) fn end<T>(mut self, order: T) -> Result<T, Problem> {
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        for key in self.body.keys() {
            self.problems
                .push(KeyProblem { key: key.clone(), message: format!("is no key of this order; it has {known}") });
        }
        if self.problems.is_empty() { Ok(order) } else { Err(Problem::keys(self.problems)) }
    }
}

fn audit_json(row: &AuditRow) -> Value {
    let audit = &row.audit;
    Value::Object(answer::object([
        ("sequence", row.sequence.into()),
        ("subject", row.subject.as_str().into()),
        ("at", time(Some(audit.at_us))),
        ("by", audit.by.as_str().into()),
        ("role", audit.role.map(|role| role.as_str()).into()),
        ("action", audit.action.as_str().into()),
        ("from", audit.from.as_str().into()),
        ("to", audit.to.as_str().into()),
        ("why", audit.why.as_deref().into()),
        ("until", time(audit.until_us)),
        ("alert_id", audit.alert_id.map(|id| id.to_string()).into()),
        ("annunciates", audit.annunciates.into()),
        ("hash", row.hash.as_str().into()),
    ]))
}
