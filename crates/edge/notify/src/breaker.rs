//! A circuit breaker: a channel that fails again and again is left alone for a while, then tried with one message.

/// Failures in a row that open the circuit.
pub const BREAKER_FAILURES: u32 = 5;
/// How long it stays open, microseconds.
pub const BREAKER_OPEN_US: i64 = 30 * 1_000_000;

/// The circuit of one channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// Since when the circuit is open.
    opened_us: Option<i64>,
}

impl Breaker {
    /// How many messages may be tried at a time: none while the circuit is open, one when it is half-open, else `most`.
    pub fn allows(&self, now_us: i64, most: usize) -> usize {
        match self.tries_us() {
            None => most,
            Some(tries_us) if tries_us <= now_us => most.min(1),
            Some(_) => 0,
        }
    }

    /// When an open circuit lets one message through, microseconds since 1970; `None` while it is closed.
    pub fn tries_us(&self) -> Option<i64> {
        self.opened_us.map(|opened_us| opened_us + BREAKER_OPEN_US)
    }

    /// The target answered.
    pub fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    /// The target did not take a message; says whether that opened the circuit.
    pub fn failed(&mut self, now_us: i64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let was_closed = self.opened_us.is_none();
        if self.failures >= BREAKER_FAILURES {
            self.opened_us = Some(now_us);
        }
        was_closed && self.opened_us.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        assert!((0..4).all(|at| !breaker.failed(at)));
        breaker.succeeded();
        assert!((0..4).all(|at| !breaker.failed(at)));
        assert_eq!(breaker.allows(4, 8), 8);
        assert!(breaker.failed(4));
        assert_eq!(breaker.allows(5, 8), 0);
        assert_eq!(breaker.tries_us(), Some(4 + BREAKER_OPEN_US));
    }

    #[test]
    fn half_open_tries_one_and_closes_or_opens_again() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|at| {
            breaker.failed(at);
        });
        let half_open_us = 4 + BREAKER_OPEN_US;
        assert_eq!((breaker.allows(half_open_us - 1, 8), breaker.allows(half_open_us, 8)), (0, 1));
        assert!(!breaker.failed(half_open_us), "it was open already");
        assert_eq!(breaker.allows(half_open_us + 1, 8), 0);
        assert_eq!(breaker.allows(half_open_us + BREAKER_OPEN_US, 8), 1);
        breaker.succeeded();
        assert_eq!(breaker.allows(half_open_us + BREAKER_OPEN_US, 8), 8);
    }
}
