//! What travels: reading batches, rejects and alerts, as JSON, CSV and our binary batch.
//!
//! A change here reaches users. Does not know about topics, tables or HTTP.

mod alert;
mod batch;
mod binary;
mod csv;
mod json;
mod number;
mod partition;
mod reject;
mod schema;
#[cfg(test)]
mod testing;
mod time;

pub use alert::{
    Alert, AlertId, AlertText, Contribution, CounterfactualStep, Direction, Kind, LimitSource, Position, Reason,
    ReasonTerm, alert_id,
};
pub use batch::{Marker, Quality, ReadingBatch, Span, Values};
pub use binary::BinaryError;
pub use csv::{CsvDecoder, CsvError, CsvOptions, CsvPlace, CsvProblem, CsvRows};

pub use json::{Clocks, Decoded, Decoder, Framing, NotReadings, Run};
pub use number::{ScaledError, decimal_text, scaled};
pub use partition::partition_of;
pub use reject::{ErrorCode, Reject};
pub use schema::{CONTENT, alert_schema, avro_schema, reading_schema};
pub use time::{TimeError, format_time, parse_time, rfc3339};

/// Topic of the readings.
pub const READINGS_TOPIC: &str = "sensor-raw-data";
/// Topic of the alerts.
pub const ALERTS_TOPIC: &str = "anomaly-alerts";
/// Partitions of [`READINGS_TOPIC`].
pub const READINGS_PARTITIONS: u16 = 6;
/// Longest that an event time may lie ahead of its arrival, microseconds; beyond it the reading is refused.
pub const AHEAD_REFUSED_US: i64 = 5 * 60 * 1_000_000;
