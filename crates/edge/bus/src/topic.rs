//! The topics of the house.

use wire::{ALERTS_TOPIC, READINGS_PARTITIONS, READINGS_TOPIC};

/// A topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// `sensor-raw-data`; the only one that the embedded bus has.
    Readings,
    /// `anomaly-alerts`.
    Alerts,
    /// `sensor-raw-data.dlq`: what was refused, on the partition it came from.
    DeadLetters,
}

impl Topic {
    /// All of them.
    pub const ALL: [Topic; 3] = [Topic::Readings, Topic::Alerts, Topic::DeadLetters];

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Readings => READINGS_TOPIC,
            Topic::Alerts => ALERTS_TOPIC,
            Topic::DeadLetters => "sensor-raw-data.dlq",
        }
    }

    /// Partitions that it is made with.
    pub fn partitions(self) -> u16 {
        match self {
            Topic::Readings | Topic::DeadLetters => READINGS_PARTITIONS,
            Topic::Alerts => 3,
        }
    }
}
