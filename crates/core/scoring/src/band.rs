//! This machine's own normal: mean and spread of its unbroken readings.

/// Running mean and sum of squared deviations (Welford, Technometrics 4, 1962), in the quantity's unit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(missing_docs, reason = "said above")]
pub struct Band {
    pub mean: f64,
    pub m2: f64,
}

impl Band {
    /// Takes the `count`-th value (from 1).
    pub fn push(&mut self, count: u32, value: f64) {
        self.push_part(1.0 / f64::from(count), value);
    }

    /// As [`Band::push`], given 1 / count: several bands of one count share the division.
    #[inline]
    pub fn push_part(&mut self, part: f64, value: f64) {
        let delta = value - self.mean;
        self.mean += delta * part;
        self.m2 += delta * (value - self.mean);
    }

    /// Sample standard deviation after `count` values; 0 below two.
    pub fn sd(&self, count: u32) -> f64 {
        if count < 2 { 0.0 } else { (self.m2 / f64::from(count - 1)).max(0.0).sqrt() }
    }
}
