//! What the machines of a class taught: cold-start fits and the class's normal (DOMAIN.md 4, 5).

use crate::{Effects, rules::BandRule};
use catalog::Class;
use scoring::{Band, Fit, FitSums};

/// Readings at which a fit is frozen; the last ends the learning.
const FREEZES: [u64; 3] = [1_000, 8_000, 64_000];

/// Fits and the class's normal of one partition.
pub(crate) struct Learning {
    pub(crate) sums: FitSums,
    /// In the order in which they were frozen.
    pub(crate) fits: Vec<Frozen>,
    /// As the class's band rules; over the readings that the fits saw.
    pub(crate) bands: Vec<Band>,
    pub(crate) band_counts: Vec<u32>,
}

/// A fit and the reading that completed it: those after it are scored by it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frozen {
    pub(crate) offset: i64,
    pub(crate) index: u32,
    pub(crate) hash: String,
    pub(crate) fit: Fit,
}

impl Learning {
    pub(crate) fn new(class: &Class, bands: &[BandRule]) -> Learning {
        Learning {
            sums: FitSums::new(class),
            fits: Vec::new(),
            bands: vec![Band::default(); bands.len()],
            band_counts: vec![0; bands.len()],
        }
    }

    /// Further readings are of use.
    pub(crate) fn is_open(&self) -> bool {
        self.sums.count() < FREEZES[FREEZES.len() - 1]
    }

    /// Takes a reading that breaks no law: its channels, and the values of the quantities that have bands.
    pub(crate) fn take(
        &mut self,
        channels: &[f64],
        values: impl Iterator<Item = f64>,
        position: (i64, u32),
        effects: Option<&mut Effects>,
    ) {
        for ((band, count), value) in self.bands.iter_mut().zip(&mut self.band_counts).zip(values) {
            if !value.is_nan() {
                *count = count.saturating_add(1);
                band.push(*count, value);
            }
        }
        let before = self.sums.count();
        self.sums.push(channels);
        if self.sums.count() == before || !FREEZES.contains(&self.sums.count()) {
            return;
        }
        if let Some(fit) = self.sums.fit() {
            let hash = fit.hash();
            if let Some(effects) = effects {
                effects.fits.push((hash.clone(), fit.clone()));
            }
            self.fits.push(Frozen { offset: position.0, index: position.1, hash, fit });
        }
    }

    /// The fit that scores a reading at a position.
    pub(crate) fn fit_at(&self, offset: i64, index: u32) -> Option<&Frozen> {
        self.fits.iter().rev().find(|frozen| (frozen.offset, frozen.index) < (offset, index))
    }

    /// The class's normal of a quantity: mean, sd.
    pub(crate) fn normal(&self, band: usize) -> Option<(f64, f64)> {
        let count = self.band_counts[band];
        (count > 0).then(|| (self.bands[band].mean, self.bands[band].sd(count)))
    }
}
