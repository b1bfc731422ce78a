//! What was refused, as a record of the topic of dead letters.

use crate::{Message, Record};

/// A refused message. The topic holds it on the partition that it came from.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it lay in the topic of readings.
    pub partition: u16,
    /// Its record.
    pub offset: i64,
    /// Its place in the record's value.
    pub index: u32,
    /// When its record arrived, microseconds.
    pub arrived_us: i64,
    /// Its record's key, untouched.
    pub key: Option<Vec<u8>>,
    /// The record's value where that is one message, else the message's own bytes.
    pub value: Vec<u8>,
    /// Stable code of the refusal.
    pub code: &'static str,
    /// The refusal in a sentence.
    pub error: String,
}

/// Headers of a letter that tell which message it is of.
const OFFSET: &str = "x-orig-offset";
const INDEX: &str = "x-orig-index";

impl DeadLetter {
    /// Its record, as `service` of `version` writes it.
    pub fn message(self, topic: &str, service: &str, version: &str) -> Message {
        let headers = [
            ("x-error-code", self.code.to_owned()),
            ("x-error", self.error),
            ("x-orig-topic", topic.to_owned()),
            ("x-orig-partition", self.partition.to_string()),
            (OFFSET, self.offset.to_string()),
            (INDEX, self.index.to_string()),
            // As Kafka counts time.
            ("x-orig-ts", (self.arrived_us / 1000).to_string()),
            ("x-service", service.to_owned()),
            ("x-version", version.to_owned()),
        ];
        Message {
            partition: self.partition,
            key: self.key,
            headers: headers.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))).into(),
            value: Some(self.value),
        }
    }

    /// Offset and index of the message that a letter on the bus is of; `None` where another program wrote it.
    pub fn origin(letter: &Record) -> Option<(i64, u32)> {
        Some((letter.header(OFFSET)?.parse().ok()?, letter.header(INDEX)?.parse().ok()?))
    }
}
