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
    let Message { machine_id, condition, severity, kind, text, action, .. } = message;
    let action = |of: fn(&wire::AlertText) -> &String| {
        action.as_ref().map_or(String::new(), |action| format!(" -> {}", of(action)))
    };
    tracing::warn!(
        machine.id = %machine_id,
        condition,
        severity,
        kind,
        notification.id = %key,
        "alarm {machine_id}: {}{} / 알람 {machine_id}: {}{}",
        text.en,
        action(|action| &action.en),
        text.ko,
        action(|action| &action.ko),
    );
}
