//! The ways an alarm reaches people: the log, and a generic webhook with signature and idempotency key; how often to try
//! again, and when not to. Does not know when to notify, nor what was sent before.

mod address;
mod backoff;
mod breaker;
mod webhook;

pub use backoff::{BACKOFF_FIRST_US, BACKOFF_MAX_US, backoff_us};
pub use breaker::{BREAKER_FAILURES, BREAKER_OPEN_US, Breaker};
pub use webhook::{Webhook, WebhookOptions};

use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// What is sent; its JSON is the webhook's body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the JSON key of that name")]
pub struct Message {
    pub machine_id: String,
    pub condition: String,
    pub failure_type: String,
    pub severity: String,
    pub priority: Option<u8>,
    /// `raised`, `changed`, `cleared`, ... : what annunciates.
    pub kind: String,
    /// State of the alarm.
    pub state: String,
    /// RFC 3339, event time.
    pub timestamp: String,
    pub text: wire::AlertText,
    /// What to do, where the class says.
    pub action: Option<wire::AlertText>,
    /// The alert as it travels; null for a system alarm.
    pub alert: Option<serde_json::Value>,
}

/// A way that messages leave by.
#[derive(Clone)]
pub enum Notifier {
    /// A line in the log.
    Log,
    /// POST of the message.
    Webhook(Arc<Webhook>),
    /// Keeps what would have been sent, for tests.
    Memory(Arc<Mutex<Vec<(Uuid, Message)>>>),
}

/// How sending ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It was taken.
    Ok,
    /// Again later; the target may have said when (seconds).
    Later(Option<u64>, String),
    /// The target refuses it for good.
    Never(String),
}

/// Why a webhook cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("webhook url {0} is neither http nor https")]
    Url(String),
    #[error("webhook client: {0}")]
    Client(String),
}

impl Notifier {
    /// Sends one message under its idempotency key.
    pub async fn send(&self, key: Uuid, message: &Message) -> Sent {
        match self {
            Notifier::Log => {
                log(key, message);
                Sent::Ok
            }
            Notifier::Webhook(webhook) => webhook.send(key, message).await,
            Notifier::Memory(sent) => {
                sent.lock().expect("never poisoned").push((key, message.clone()));
                Sent::Ok
            }
        }
    }
}

fn log(key: Uuid, message: &Message) {
    let Message { machine_id, condition, severity, kind, .. } = message;
    tracing::warn!(
        machine.id = %machine_id,
        condition,
        severity,
        kind,
        notification.id = %key,
        "{}",
        line(message),
    );
}

/// Both languages in one line. An alert's own text begins with its machine and says what to do; any other is given both.
fn line(message: &Message) -> String {
    let Message { machine_id, text, action, .. } = message;
    let said = |text: &str, action: Option<&str>| {
        let machine = if text.starts_with(machine_id.as_str()) { String::new() } else { format!("{machine_id}: ") };
        let action = action.filter(|action| !text.contains(*action));
        format!("{machine}{text}{}", action.map_or(String::new(), |action| format!(" -> {action}")))
    };
    let en = said(&text.en, action.as_ref().map(|action| &*action.en));
    let ko = said(&text.ko, action.as_ref().map(|action| &*action.ko));
    format!("alarm {en} / 알람 {ko}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(en: &str, ko: &str, told: &str) {
        let of = |en: &str, ko: &str| wire::AlertText { en: en.into(), ko: ko.into() };
        let message = Message {
            machine_id: "m-1".into(),
            condition: "overstrain".into(),
            failure_type: "Overstrain".into(),
            severity: "critical".into(),
            priority: Some(2),
            kind: "raised".into(),
            state: "unacknowledged".into(),
            timestamp: "2025-11-07T15:10:01Z".into(),
            text: of(en, ko),
            action: Some(of("Reduce the torque", "토크를 낮추십시오")),
            alert: None,
        };
        assert_eq!(line(&message), told);
    }

    #[test]
    fn a_line_names_the_machine_and_the_action_once() {
        check(
            "m-1: Overstrain, critical. Reduce the torque",
            "m-1: 공구 과부하, 위험. 조치: 토크를 낮추십시오",
            "alarm m-1: Overstrain, critical. Reduce the torque / 알람 m-1: 공구 과부하, 위험. 조치: 토크를 낮추십시오",
        );
        check(
            "still standing",
            "지속 중",
            "alarm m-1: still standing -> Reduce the torque / 알람 m-1: 지속 중 -> 토크를 낮추십시오",
        );
    }
}
