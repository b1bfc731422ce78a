//! When to try again.

/// Longest wait before the second attempt, microseconds.
pub const BACKOFF_FIRST_US: i64 = 1_000_000;
/// Longest wait before any attempt, microseconds.
pub const BACKOFF_MAX_US: i64 = 5 * 60 * 1_000_000;

/// The wait after a number of failed attempts, microseconds: full jitter, anywhere up to a bound that doubles from
/// [`BACKOFF_FIRST_US`] to [`BACKOFF_MAX_US`], so that those who failed together do not come back together. `random` is
/// any 64 random bits.
pub fn backoff_us(attempts: u32, random: u64) -> i64 {
    let doublings = attempts.saturating_sub(1).min(20);
    let bound = (BACKOFF_FIRST_US << doublings).min(BACKOFF_MAX_US);
    // The upper bits of the product are `random` scaled to 0..bound.
    ((u128::from(random) * bound as u128) >> 64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_from_a_second_to_five_minutes() {
        let bounds: Vec<i64> =
            [0, 1, 2, 3, 8, 9, 10, 11, u32::MAX].map(|attempts| backoff_us(attempts, u64::MAX) + 1).to_vec();
        let seconds = [1, 1, 2, 4, 128, 256, 300, 300, 300].map(|second| second * 1_000_000);
        assert_eq!(bounds, seconds);
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(backoff_us(3, 0), 0);
        assert_eq!(backoff_us(3, u64::MAX / 2), 1_999_999);
        let mut last = 0;
        for random in (0..=u64::MAX).step_by(1 << 56) {
            let wait = backoff_us(20, random);
            assert!((last..BACKOFF_MAX_US).contains(&wait));
            last = wait;
        }
    }
}
