//! The cold-start detector: Mahalanobis distance with a shrunk covariance, on a class's channels.

use catalog::Class;

/// Running sums of readings that break no law, in a fixed order, until a fit is made.
#[derive(Debug, Clone, PartialEq)]
pub struct FitSums {}

impl FitSums {
    /// Empty sums for a class.
    pub fn new(class: &Class) -> FitSums {
        let _ = class;
        todo!()
    }

    /// Takes one reading's channels, in their units; rows with a NaN are skipped.
    pub fn push(&mut self, channels: &[f64]) {
        let _ = channels;
        todo!()
    }

    /// Readings taken.
    pub fn count(&self) -> u64 {
        todo!()
    }

    /// Makes the fit; `None` below two readings or where every channel is constant.
    pub fn fit(&self) -> Option<Fit> {
        todo!()
    }

    /// Appends an encoding.
    pub fn save(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Reads [`FitSums::save`] and moves `bytes` past it.
    pub fn load(bytes: &mut &[u8]) -> Option<FitSums> {
        let _ = bytes;
        todo!()
    }
}

/// A frozen fit: mean, inverse shrunk covariance, threshold. Stored by hash.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fit {
    /// Channel ids, in class order, that the fit uses (no counters).
    pub channels: Vec<String>,
    /// Readings it was made of.
    pub count: u64,
    /// Mean per channel.
    pub mean: Vec<f64>,
    /// Inverse of the shrunk covariance, row by row.
    pub precision: Vec<f64>,
    /// A score above it is unusual.
    pub threshold: f64,
}

impl Fit {
    /// Squared Mahalanobis distance divided by the number of channels; NaN where a channel is NaN.
    /// `channels` is the whole reading, in class order.
    pub fn score(&self, class: &Class, channels: &[f64]) -> f64 {
        let _ = (class, channels);
        todo!()
    }

    /// Contribution of each of its channels to the score: d_i * (P d)_i over the sum, negative ones as 0.
    pub fn shares(&self, class: &Class, channels: &[f64]) -> Vec<(usize, f64)> {
        let _ = (class, channels);
        todo!()
    }

    /// Lowercase hexadecimal SHA-256 of its JSON.
    pub fn hash(&self) -> String {
        todo!()
    }
}
