//! An alarm as the API and the stream show it.

use alarm::State;
use serde::Serialize;
use serde_json::value::RawValue;
use store::AlarmRow;
use uuid::Uuid;
use wire::{AlertText, format_time};

#[derive(Serialize)]
struct View<'a> {
    alarm_id: Uuid,
    machine_id: &'a str,
    condition: &'a str,
    failure_type: &'a str,
    subject: &'a str,
    severity: &'a str,
    priority: Option<u8>,
    criticality: &'a str,
    state: &'a str,
    standing: bool,
    suspended: bool,
    notice: bool,
    count: u32,
    condition_id: Option<Uuid>,
    first_raised: Option<String>,
    last_raised: Option<String>,
    cleared: Option<String>,
    changed: String,
    found_late: bool,
    shelved_until: Option<String>,
    /// Why it is shelved or out of service.
    reason: Option<&'a str>,
    reason_by: Option<&'a str>,
    maintenance: Option<Maintenance<'a>>,
    acknowledged: Option<Acknowledged<'a>>,
    group: Option<Uuid>,
    text: Option<AlertText>,
    alert: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Maintenance<'a> {
    until: String,
    reason: &'a str,
    by: &'a str,
}

#[derive(Serialize)]
struct Acknowledged<'a> {
    by: &'a str,
    at: String,
    comment: &'a str,
}

/// The JSON of an alarm: `/api/alarms` and the `data` of an `alarm` frame.
pub(crate) fn view(row: &AlarmRow) -> String {
    let AlarmRow { id, alarm, alert, text, group } = row;
    let (shelved_until, reason, reason_by) = match &alarm.state {
        State::Shelved { until_us, reason, by } => (Some(*until_us), Some(&**reason), Some(&**by)),
        State::OutOfService { reason, by } => (None, Some(&**reason), Some(&**by)),
        _ => (None, None, None),
    };
    let view = View {
        alarm_id: *id,
        machine_id: &alarm.machine_id,
        condition: &alarm.condition,
        failure_type: &alarm.failure_type,
        subject: alarm.subject.as_str(),
        severity: alarm.severity.as_str(),
        priority: alarm.priority,
        criticality: alarm.criticality.as_str(),
        state: alarm.state.as_str(),
        standing: alarm.standing,
        suspended: alarm.suspended,
        notice: alarm.notice,
        count: alarm.count,
        condition_id: alarm.condition_id,
        first_raised: alarm.first_raised_us.map(format_time),
        last_raised: alarm.last_raised_us.map(format_time),
        cleared: alarm.cleared_us.map(format_time),
        changed: format_time(alarm.changed_us),
        found_late: alarm.found_late,
        shelved_until: shelved_until.map(format_time),
        reason,
        reason_by,
        maintenance: alarm.maintenance.as_ref().map(|window| Maintenance {
            until: format_time(window.until_us),
            reason: &window.reason,
            by: &window.by,
        }),
        acknowledged: alarm.acknowledged.as_ref().map(|taken| Acknowledged {
            by: &taken.by,
            at: format_time(taken.at_us),
            comment: &taken.comment,
        }),
        group: *group,
        text: text.clone().or_else(|| alert.as_deref().and_then(text_of)),
        alert: alert.as_deref().and_then(|json| serde_json::from_str(json).ok()),
    };
    serde_json::to_string(&view).expect("an alarm has string keys")
}

fn text_of(alert: &str) -> Option<AlertText> {
    #[derive(serde::Deserialize)]
    struct Told {
        text: AlertText,
    }
    serde_json::from_str::<Told>(alert).ok().map(|told| told.text)
}
