//! The life of a condition: delays of its levels, what stands, and what it is called.

use catalog::{Class, Severity};
use wire::AlertId;

/// A gap of so many usual intervals is one.
const GAP_INTERVALS: i64 = 5;
/// No time.
pub(crate) const NEVER: i64 = i64::MIN;

/// Whether the time since the last reading is a gap.
pub(crate) fn is_gap(interval_us: i64, passed_us: i64) -> bool {
    passed_us > interval_us.saturating_mul(GAP_INTERVALS)
}

/// The delays of one level of one law of one machine. Kept only while the level stands or counts towards standing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timer {
    /// Place of the level.
    pub(crate) slot: u8,
    /// The level stands.
    pub(crate) active: bool,
    /// Event time from which it is broken (or, active, not held), moved by what gaps do not count; [`NEVER`]: it is not.
    pub(crate) since_us: i64,
    /// Event time at which it was judged last.
    pub(crate) last_us: i64,
}

impl Timer {
    /// A level that nothing is known of.
    pub(crate) fn new(slot: usize) -> Timer {
        Timer { slot: slot as u8, active: false, since_us: NEVER, last_us: NEVER }
    }

    /// Takes an in-order reading that judges the level.
    pub(crate) fn judge(&mut self, timestamp_us: i64, verdict: Verdict, delays: Delays) {
        let passed_us = if self.last_us == NEVER { 0 } else { timestamp_us.saturating_sub(self.last_us) };
        let gap = is_gap(delays.interval_us, passed_us);
        self.last_us = timestamp_us;
        let wanted = if self.active { !verdict.held } else { verdict.broken };
        if !wanted {
            self.since_us = NEVER;
            return;
        }
        if self.since_us == NEVER {
            self.since_us = timestamp_us;
        } else if gap && self.active {
            // It counts towards off_delay as one interval.
            self.since_us = self.since_us.saturating_add(passed_us - delays.interval_us);
        } else if gap {
            self.since_us = timestamp_us;
        }
        let delay_us = if self.active { delays.off_us } else { delays.on_us };
        if timestamp_us.saturating_sub(self.since_us) >= delay_us {
            self.active = !self.active;
            self.since_us = NEVER;
        }
    }

    /// Nothing is lost with it.
    pub(crate) fn is_idle(&self) -> bool {
        !self.active && self.since_us == NEVER
    }
}

/// What a reading says of a level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) broken: bool,
    /// Broken with each limit moved back by its deadband.
    pub(crate) held: bool,
}

/// Of one level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delays {
    pub(crate) on_us: i64,
    pub(crate) off_us: i64,
    pub(crate) interval_us: i64,
}

/// A standing condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) what: What,
    pub(crate) id: AlertId,
    pub(crate) severity: Severity,
    /// Event time of the raise.
    pub(crate) started_us: i64,
    pub(crate) suspended: bool,
    /// Raised more than 5 min behind its arrival, and the machine has not caught up since.
    pub(crate) found_late: bool,
}

/// Which condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Place of the law in the class.
    Law(u16),
    /// The cold-start detector.
    Model,
    /// Places of channels.
    Stuck(u8),
    Quality(u8),
    /// The channel as the marker names it.
    Refused(String),
    ClockSkew,
    NoData,
    /// Its law or channel is no more in the class: cleared at the next in-order reading.
    Gone(Box<Gone>),
}

/// What is left of a condition whose law or channel is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) condition: String,
    pub(crate) failure_type: String,
    pub(crate) notice: bool,
    /// It was a law.
    pub(crate) law: bool,
}

impl What {
    /// As the alert names it.
    pub(crate) fn name(&self, class: &Class) -> String {
        match self {
            What::Law(law) => class.laws[usize::from(*law)].id.clone(),
            What::Model => "model:mahalanobis".to_owned(),
            What::Stuck(channel) => format!("stuck:{}", class.channels[usize::from(*channel)].id),
            What::Quality(channel) => format!("quality:{}", class.channels[usize::from(*channel)].id),
            What::Refused(channel) => format!("refused:{channel}"),
            What::ClockSkew => "clock_skew".to_owned(),
            What::NoData => "no_data".to_owned(),
            What::Gone(gone) => gone.condition.clone(),
        }
    }

    pub(crate) fn failure_type(&self, class: &Class) -> String {
        match self {
            What::Law(law) => class.laws[usize::from(*law)].failure_type.clone(),
            What::Model => "Anomaly".to_owned(),
            What::NoData => "NoData".to_owned(),
            What::Stuck(_) | What::Quality(_) | What::Refused(_) | What::ClockSkew => "SensorFault".to_owned(),
            What::Gone(gone) => gone.failure_type.clone(),
        }
    }

    pub(crate) fn is_notice(&self, class: &Class) -> bool {
        match self {
            What::Law(law) => class.laws[usize::from(*law)].notice,
            What::Gone(gone) => gone.notice,
            _ => false,
        }
    }

    /// Place of its law.
    pub(crate) fn law(&self) -> Option<usize> {
        match self {
            What::Law(law) => Some(usize::from(*law)),
            _ => None,
        }
    }

    /// A stop of the machine suspends it: it is judged in running alone.
    pub(crate) fn stops_with_machine(&self, class: &Class) -> bool {
        match self {
            What::Law(law) => class.laws[usize::from(*law)].when.is_none(),
            What::Model => true,
            _ => false,
        }
    }
}
