//! The ways an alarm reaches people: the log, and a generic webhook with signature and idempotency key. Does not know when
//! to notify, nor what was sent before.

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

/// A generic webhook: HMAC-SHA256 signature over timestamp and body, idempotency key, checked target, no redirects.
pub struct Webhook {}

/// How a webhook is set up.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the key of that name in the configuration")]
pub struct WebhookOptions {
    pub url: String,
    pub secret: Option<String>,
    /// Private, loopback and link-local targets are allowed.
    pub allow_private: bool,
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

impl Webhook {
    /// Checks the options.
    ///
    /// # Errors
    /// The address is no web address.
    pub fn new(options: WebhookOptions) -> Result<Webhook, Error> {
        let _ = options;
        todo!()
    }
}

impl Notifier {
    /// Sends one message under its idempotency key.
    pub async fn send(&self, key: Uuid, message: &Message) -> Sent {
        let _ = (key, message);
        todo!()
    }
}
