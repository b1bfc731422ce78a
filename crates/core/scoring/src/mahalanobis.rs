//! The cold-start detector: Mahalanobis distance with a shrunk covariance, on a class's channels.
//!
//! Sums are whole numbers, so that they do not depend on the order of the readings; what follows is plain arithmetic
//! and square roots, which IEEE 754 defines to the bit: the same readings give the same fit on every machine.

use crate::interval::{Interval, Truth};
use catalog::{ChannelKind, Class};
use sha2::{Digest, Sha256};

/// Raised conditions that a machine may cost a week (DOMAIN.md 4).
const RAISES_A_WEEK: f64 = 0.25;
/// A raise needs 8 of 10 readings over the threshold, and at least so long, microseconds.
const RAISE_US: i64 = 30_000_000;
const RAISE_READINGS: i64 = 8;
const WEEK_US: f64 = 7.0 * 86_400.0 * 1e6;

/// Running sums of readings that break no law, in a fixed order, until a fit is made.
#[derive(Debug, Clone, PartialEq)]
pub struct FitSums {
    /// Gauges that every reading has, in class order.
    channels: Vec<FitChannel>,
    /// The shortest run of readings that can raise, microseconds.
    raise_us: i64,
    count: u64,
    /// Per channel, of scaled integers.
    sums: Vec<i128>,
    /// Per pair of channels, lower triangle row by row.
    products: Vec<i128>,
}

#[derive(Debug, Clone, PartialEq)]
struct FitChannel {
    id: String,
    place: usize,
    unit: f64,
}

impl FitSums {
    /// Empty sums for a class. Counters grow by nature and optional channels may never come: neither takes part.
    pub fn new(class: &Class) -> FitSums {
        let takes_part = |channel: &catalog::Channel| channel.kind == ChannelKind::Gauge && !channel.optional;
        let channels: Vec<FitChannel> = (0..class.channels.len())
            .filter(|&place| takes_part(&class.channels[place]))
            .map(|place| FitChannel {
                id: class.channels[place].id.clone(),
                place,
                unit: 10f64.powi(i32::from(class.channels[place].scale)),
            })
            .collect();
        let size = channels.len();
        FitSums {
            channels,
            raise_us: RAISE_US.max(class.interval_us.saturating_mul(RAISE_READINGS - 1)),
            count: 0,
            sums: vec![0; size],
            products: vec![0; size * (size + 1) / 2],
        }
    }

    /// Takes one reading's channels, in their units; rows with a NaN are skipped.
    pub fn push(&mut self, channels: &[f64]) {
        if self.channels.iter().any(|channel| channels[channel.place].is_nan()) {
            return;
        }
        self.count += 1;
        let mut pair = 0;
        for (row, of) in self.channels.iter().enumerate() {
            let value = of.scaled(channels);
            self.sums[row] += i128::from(value);
            for other in &self.channels[..=row] {
                self.products[pair] =
                    self.products[pair].wrapping_add(i128::from(value) * i128::from(other.scaled(channels)));
                pair += 1;
            }
        }
    }

    /// Readings taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Makes the fit; `None` below two readings or where every channel is constant.
    ///
    /// The correlation matrix is shrunk towards the identity by the oracle approximating estimator (Chen, Wiesel,
    /// Eldar, Hero: Shrinkage algorithms for MMSE covariance estimation, IEEE Trans. Signal Processing 58, 2010,
    /// eq. 23), which needs nothing but the matrix and the count. A constant channel has no scale and is left out.
    pub fn fit(&self) -> Option<Fit> {
        if self.count < 2 {
            return None;
        }
        let count = self.count as f64;
        let moving: Vec<usize> = (0..self.channels.len()).filter(|&at| self.scatter(at, at) > 0.0).collect();
        let size = moving.len();
        if size == 0 {
            return None;
        }
        let sd: Vec<f64> = moving.iter().map(|&at| (self.scatter(at, at) / (count * (count - 1.0))).sqrt()).collect();
        let mut correlation = vec![0.0; size * size];
        for (row, &a) in moving.iter().enumerate() {
            for (column, &b) in moving.iter().enumerate() {
                let both = (self.scatter(a, a) * self.scatter(b, b)).sqrt();
                correlation[row * size + column] = if row == column { 1.0 } else { self.scatter(a, b) / both };
            }
        }
        shrink(&mut correlation, size, count);
        let mut precision = inverse(&correlation, size)?;
        for row in 0..size {
            for column in 0..size {
                let units = self.channels[moving[row]].unit * self.channels[moving[column]].unit;
                precision[row * size + column] *= units / (sd[row] * sd[column]);
            }
        }
        Some(Fit {
            channels: moving.iter().map(|&at| self.channels[at].id.clone()).collect(),
            count: self.count,
            mean: moving.iter().map(|&at| self.sums[at] as f64 / (count * self.channels[at].unit)).collect(),
            precision,
            threshold: self.threshold(size),
        })
    }

    /// count x sum of products - product of sums, which is count x (count - 1) x covariance, of scaled integers.
    fn scatter(&self, a: usize, b: usize) -> f64 {
        let (row, column) = (a.max(b), a.min(b));
        let product = self.products[row * (row + 1) / 2 + column];
        let exact = product.checked_mul(i128::from(self.count)).zip(self.sums[a].checked_mul(self.sums[b]));
        match exact.and_then(|(products, sums)| products.checked_sub(sums)) {
            Some(exact) => exact as f64,
            // Beyond 128 bits a double is near enough.
            None => product as f64 * self.count as f64 - self.sums[a] as f64 * self.sums[b] as f64,
        }
    }

    /// The score that a normal machine holds for one raise in four weeks.
    ///
    /// A raise takes a run of at least `raise_us`. Readings of one run are taken as one (the slow channels of a machine
    /// hardly move within it), runs as independent: so of the week's runs 0.25 may lie over the threshold, which is the
    /// quantile of chi-square with a degree of freedom per channel, divided by the channels as the score is.
    fn threshold(&self, size: usize) -> f64 {
        let runs = WEEK_US / self.raise_us as f64;
        chi_square_over((RAISES_A_WEEK / runs).min(0.5), size) / size as f64
    }

    /// Appends an encoding.
    pub fn save(&self, out: &mut Vec<u8>) {
        out.push(u8::try_from(self.channels.len()).expect("a class has at most 64 channels"));
        for channel in &self.channels {
            out.push(u8::try_from(channel.id.len()).expect("an id has at most 32 characters"));
            out.extend(channel.id.as_bytes());
            out.push(u8::try_from(channel.place).expect("a class has at most 64 channels"));
            out.extend(channel.unit.to_le_bytes());
        }
        out.extend(self.raise_us.to_le_bytes());
        out.extend(self.count.to_le_bytes());
        self.sums.iter().chain(&self.products).for_each(|sum| out.extend(sum.to_le_bytes()));
    }

    /// Reads [`FitSums::save`] and moves `bytes` past it.
    pub fn load(bytes: &mut &[u8]) -> Option<FitSums> {
        let [size] = take(bytes)?;
        let size = usize::from(size);
        let mut channels = Vec::new();
        for _ in 0..size {
            let [length] = take(bytes)?;
            let (id, rest) = bytes.split_at_checked(usize::from(length))?;
            let id = std::str::from_utf8(id).ok()?.to_owned();
            *bytes = rest;
            let [place] = take(bytes)?;
            channels.push(FitChannel { id, place: usize::from(place), unit: f64::from_le_bytes(take(bytes)?) });
        }
        let raise_us = i64::from_le_bytes(take(bytes)?);
        let count = u64::from_le_bytes(take(bytes)?);
        let mut numbers =
            |many: usize| (0..many).map(|_| take(bytes).map(i128::from_le_bytes)).collect::<Option<Vec<i128>>>();
        let sums = numbers(size)?;
        let products = numbers(size * (size + 1) / 2)?;
        (raise_us > 0).then_some(FitSums { channels, raise_us, count, sums, products })
    }
}

impl FitChannel {
    /// The whole number that the decimal was made of.
    fn scaled(&self, channels: &[f64]) -> i64 {
        let scaled = channels[self.place] * self.unit;
        // The product lies next to a whole number; `round` would be a call.
        (scaled + 0.5f64.copysign(scaled)) as i64
    }
}

/// A frozen fit: mean, inverse shrunk covariance, threshold. Stored by hash.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fit {
    /// Channel ids, in class order, that the fit uses (gauges that every reading has and that moved).
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
    /// `channels` is the whole reading, in class order. For many readings take a [`Scorer`].
    pub fn score(&self, class: &Class, channels: &[f64]) -> f64 {
        self.scorer(class).score(channels)
    }

    /// The fit with its channels found in a class, for scoring many readings. A channel that the class does not have
    /// counts as missing.
    pub fn scorer(&self, class: &Class) -> Scorer<'_> {
        Scorer {
            fit: self,
            places: self.channels.iter().map(|id| class.channel_index(id).unwrap_or(usize::MAX)).collect(),
        }
    }

    /// Contribution of each of its channels to the score: d_i * (P d)_i over the sum, negative ones as 0.
    pub fn shares(&self, class: &Class, channels: &[f64]) -> Vec<(usize, f64)> {
        let scorer = self.scorer(class);
        let parts: Vec<f64> = (0..self.mean.len())
            .map(|row| scorer.away(channels, row) * scorer.row(channels, row))
            .map(|part| part.max(0.0))
            .collect();
        let sum: f64 = parts.iter().sum();
        let share = |part: f64| if sum > 0.0 { part / sum } else { 0.0 };
        scorer
            .places
            .iter()
            .zip(parts)
            .map(|(&place, part)| (place, share(part)))
            .filter(|entry| entry.0 != usize::MAX)
            .collect()
    }

    /// Lowercase hexadecimal SHA-256 of its JSON.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("a fit has string keys and finite numbers");
        Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A fit ready to score the readings of a class.
#[derive(Debug, Clone)]
pub struct Scorer<'a> {
    fit: &'a Fit,
    /// Per channel of the fit: its place in the class.
    places: Vec<usize>,
}

impl Scorer<'_> {
    /// As [`Fit::score`].
    pub fn score(&self, channels: &[f64]) -> f64 {
        let size = self.fit.mean.len();
        let mut sum = 0.0;
        for row in 0..size {
            sum += self.away(channels, row) * self.row(channels, row);
        }
        sum / size as f64
    }

    /// Scores every row of a batch's columns (see `Verdicts::channels`).
    pub fn score_rows(&self, channels: &[Vec<f64>], out: &mut Vec<f64>) {
        let mut reading = vec![0.0; channels.len()];
        out.clear();
        for row in 0..channels.first().map_or(0, Vec::len) {
            reading.iter_mut().zip(channels).for_each(|(value, column)| *value = column[row]);
            out.push(self.score(&reading));
        }
    }

    /// Whether the score is not over a threshold, over ranges of the channels.
    pub(crate) fn is_usual(&self, channels: &[Interval], threshold: f64) -> Truth {
        let values: Vec<f64> =
            channels.iter().map(|range| if range.low == range.high { range.low } else { f64::NAN }).collect();
        let score = self.score(&values);
        if !score.is_nan() {
            return Truth { must: score <= threshold, can: score <= threshold };
        }
        let size = self.fit.mean.len();
        let Some(ranges) = self.places.iter().map(|&place| channels.get(place)).collect::<Option<Vec<_>>>() else {
            return Truth::YES.not();
        };
        if ranges.iter().any(|range| range.low > range.high || range.missing) {
            return Truth::YES.not();
        }
        let low = |row: usize| ranges[row].low - self.fit.mean[row];
        let high = |row: usize| ranges[row].high - self.fit.mean[row];
        let is_fixed = |row: &usize| ranges[*row].low == ranges[*row].high;
        let precision = |row: usize, column: usize| self.fit.precision[row * size + column];
        let (mut least, mut most, mut largest) = (0.0, 0.0, 0.0f64);
        let mut add = |ends: [f64; 2]| {
            least += ends[0];
            most += ends[1];
            largest = largest.max(ends[0].abs()).max(ends[1].abs());
        };
        for row in 0..size {
            if is_fixed(&row) {
                let fixed: f64 = (0..size).filter(is_fixed).map(|column| precision(row, column) * low(column)).sum();
                add([low(row) * fixed; 2]);
                continue;
            }
            // A parabola in this channel: its ends, and its lowest point where that lies between.
            let slope: f64 = (0..size).filter(is_fixed).map(|column| 2.0 * precision(row, column) * low(column)).sum();
            let at = |away: f64| (precision(row, row) * away + slope) * away;
            let lowest = (-slope / (2.0 * precision(row, row))).clamp(low(row), high(row));
            add([at(lowest), at(low(row)).max(at(high(row)))]);
            for other in (0..row).filter(|other| !is_fixed(other)) {
                let corner = |a: f64, b: f64| 2.0 * precision(row, other) * a * b;
                let corners = [
                    corner(low(row), low(other)),
                    corner(low(row), high(other)),
                    corner(high(row), low(other)),
                    corner(high(row), high(other)),
                ];
                add([
                    corners.into_iter().fold(f64::INFINITY, f64::min),
                    corners.into_iter().fold(f64::NEG_INFINITY, f64::max),
                ]);
            }
        }
        // The sums are taken in another order than the score's own.
        let slack = largest * 1e-9;
        let threshold = threshold * size as f64;
        Truth { must: most + slack <= threshold, can: least - slack <= threshold }
    }

    fn away(&self, channels: &[f64], row: usize) -> f64 {
        channels.get(self.places[row]).copied().unwrap_or(f64::NAN) - self.fit.mean[row]
    }

    fn row(&self, channels: &[f64], row: usize) -> f64 {
        let size = self.fit.mean.len();
        let precision = &self.fit.precision[row * size..][..size];
        precision.iter().enumerate().map(|(column, precision)| precision * self.away(channels, column)).sum()
    }
}

/// Shrinks a correlation matrix of `count` readings towards the identity.
fn shrink(correlation: &mut [f64], size: usize, count: f64) {
    let channels = size as f64;
    let squares: f64 = correlation.iter().map(|value| value * value).sum();
    let trace_squared = channels * channels;
    let top = (1.0 - 2.0 / channels) * squares + trace_squared;
    let bottom = (count + 1.0 - 2.0 / channels) * (squares - trace_squared / channels);
    // No correlation at all: the target is the matrix itself.
    let weight = if bottom > 0.0 { (top / bottom).clamp(0.0, 1.0) } else { 1.0 };
    for row in 0..size {
        for column in (0..size).filter(|&column| column != row) {
            correlation[row * size + column] *= 1.0 - weight;
        }
    }
}

/// Inverse of a symmetric positive definite matrix by Cholesky; `None` where it is not one.
fn inverse(matrix: &[f64], size: usize) -> Option<Vec<f64>> {
    let mut lower = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..=row {
            let known: f64 = (0..column).map(|at| lower[row * size + at] * lower[column * size + at]).sum();
            let left = matrix[row * size + column] - known;
            lower[row * size + column] = if row == column {
                if left <= 0.0 {
                    return None;
                }
                left.sqrt()
            } else {
                left / lower[column * size + column]
            };
        }
    }
    let mut inverse = vec![0.0; size * size];
    for unit in 0..size {
        let mut solution = vec![0.0; size];
        for row in 0..size {
            let known: f64 = (0..row).map(|at| lower[row * size + at] * solution[at]).sum();
            solution[row] = (f64::from(u8::from(row == unit)) - known) / lower[row * size + row];
        }
        for row in (0..size).rev() {
            let known: f64 = (row + 1..size).map(|at| lower[at * size + row] * solution[at]).sum();
            solution[row] = (solution[row] - known) / lower[row * size + row];
        }
        for row in 0..size {
            inverse[row * size + unit] = solution[row];
        }
    }
    Some(inverse)
}

/// The value that chi-square exceeds with a probability.
fn chi_square_over(probability: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, 2.0);
    while chi_square_tail(high, freedom) > probability {
        high *= 2.0;
    }
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if chi_square_tail(middle, freedom) > probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Probability that chi-square exceeds a value: Q(1, x/2) = e^(-x/2) or Q(1/2, x/2) = erfc(sqrt(x/2)), then
/// Q(a + 1, y) = Q(a, y) + y^a e^-y / gamma(a + 1).
fn chi_square_tail(value: f64, freedom: usize) -> f64 {
    let half = value / 2.0;
    let decay = exp_minus(half);
    let (mut order, mut tail, mut term) = if freedom.is_multiple_of(2) {
        (1.0, decay, decay * half)
    } else {
        let root = half.sqrt();
        // gamma(3/2) = sqrt(pi) / 2
        (0.5, erfc(root, decay), decay * root * std::f64::consts::FRAC_2_SQRT_PI)
    };
    while 2.0 * order < freedom as f64 {
        tail += term;
        order += 1.0;
        term *= half / order;
    }
    tail
}

/// erfc(x) for x >= 0, given e^(-x^2): its series near 0, its continued fraction beyond.
fn erfc(x: f64, decay: f64) -> f64 {
    if x < 2.0 {
        let (mut sum, mut term, mut nth) = (x, x, 0.0);
        while term > sum * 1e-17 {
            nth += 1.0;
            term *= 2.0 * x * x / (2.0 * nth + 1.0);
            sum += term;
        }
        return 1.0 - std::f64::consts::FRAC_2_SQRT_PI * decay * sum;
    }
    let fraction = (1..=60).rev().fold(x, |below, nth| x + f64::from(nth) / 2.0 / below);
    decay * std::f64::consts::FRAC_2_SQRT_PI / 2.0 / fraction
}

/// e^-x for x >= 0 by plain arithmetic: a series for x / 1024, squared ten times.
fn exp_minus(x: f64) -> f64 {
    let small = x / 1024.0;
    let series = (1..=16).rev().fold(1.0, |sum, nth| 1.0 + small / f64::from(nth) * sum);
    let mut result = 1.0 / series;
    for _ in 0..10 {
        result *= result;
    }
    result
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::Catalogue;

    fn mill() -> std::sync::Arc<Class> {
        std::sync::Arc::clone(Catalogue::builtin().default_class())
    }

    /// Readings of a mill around (300 K, 310 K, 1500 rpm, 40 Nm), from a fixed generator.
    fn readings(many: usize) -> Vec<[f64; 5]> {
        let mut state = 88_172_645_463_325_252u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        let mut normal = || (0..12).map(|_| uniform()).sum::<f64>();
        (0..many)
            .map(|wear| {
                let (air, torque) = (normal(), normal());
                let rpm = (1500.0 - 100.0 * torque + 40.0 * normal()).round();
                let cents = |value: f64| (value * 100.0).round() / 100.0;
                [
                    cents(300.0 + 2.0 * air),
                    cents(310.0 + 1.5 * air + normal()),
                    rpm,
                    cents(40.0 + 10.0 * torque),
                    wear as f64,
                ]
            })
            .collect()
    }

    fn fitted(many: usize) -> (std::sync::Arc<Class>, FitSums, Fit) {
        let class = mill();
        let mut sums = FitSums::new(&class);
        readings(many).iter().for_each(|reading| sums.push(reading));
        let fit = sums.fit().expect("the readings vary");
        (class, sums, fit)
    }

    #[test]
    fn chi_square_has_its_textbook_quantiles() {
        let table = [
            (0.05, 1, 3.841_458_8),
            (0.05, 2, 5.991_464_5),
            (0.01, 3, 11.344_867),
            (0.001, 4, 18.466_827),
            (0.5, 7, 6.345_811),
        ];
        for (probability, freedom, quantile) in table {
            let got = chi_square_over(probability, freedom);
            assert!((got - quantile).abs() < 1e-5, "{probability} {freedom}: {got}");
        }
    }

    #[test]
    fn a_normal_reading_scores_one_on_average() {
        let (class, _, fit) = fitted(4_000);
        assert_eq!(fit.channels, ["air_temp_k", "process_temp_k", "rpm", "torque_nm"]);
        let scores: Vec<f64> = readings(4_000).iter().map(|reading| fit.score(&class, reading)).collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert!(scores.iter().all(|&score| score < fit.threshold));
    }

    #[test]
    fn a_broken_correlation_is_unusual() {
        let (class, _, fit) = fitted(4_000);
        // Each value alone is ordinary; a slow spindle with a low torque is not.
        let reading = [300.0, 310.0, 1380.0, 28.0, 5.0];
        assert!(fit.score(&class, &reading) > fit.threshold, "{} {}", fit.score(&class, &reading), fit.threshold);
        let shares = fit.shares(&class, &reading);
        assert!((shares.iter().map(|share| share.1).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(shares[0].1 < 0.05 && shares[1].1 < 0.05, "{shares:?}");
    }

    #[test]
    fn the_order_of_the_readings_does_not_matter() {
        let class = mill();
        let (_, _, fit) = fitted(500);
        let mut backwards = FitSums::new(&class);
        readings(500).iter().rev().for_each(|reading| backwards.push(reading));
        assert_eq!(backwards.fit().map(|fit| fit.hash()), Some(fit.hash()));
    }

    #[test]
    fn sums_are_read_back() {
        let (_, sums, fit) = fitted(100);
        let mut bytes = Vec::new();
        sums.save(&mut bytes);
        bytes.push(7);
        let mut left = &bytes[..];
        let read = FitSums::load(&mut left).expect("what was saved");
        assert_eq!((&read, left), (&sums, &[7u8][..]));
        assert_eq!(read.fit(), Some(fit));
        for end in 0..bytes.len() - 1 {
            assert_eq!(FitSums::load(&mut &bytes[..end]), None);
        }
    }

    #[test]
    fn a_reading_with_a_missing_channel_is_skipped() {
        let (class, mut sums, fit) = fitted(10);
        sums.push(&[300.0, f64::NAN, 1500.0, 40.0, 0.0]);
        assert_eq!(sums.count(), 10);
        assert!(fit.score(&class, &[300.0, f64::NAN, 1500.0, 40.0, 0.0]).is_nan());
    }

    #[test]
    fn constant_channels_are_left_out() {
        let class = mill();
        let mut sums = FitSums::new(&class);
        sums.push(&[300.0, 310.0, 1500.0, 40.0, 0.0]);
        assert_eq!(sums.fit(), None);
        sums.push(&[300.0, 310.0, 1500.0, 40.0, 1.0]);
        assert_eq!(sums.fit(), None);
        sums.push(&[300.0, 310.0, 1501.0, 40.0, 2.0]);
        assert_eq!(sums.fit().map(|fit| fit.channels), Some(vec!["rpm".to_owned()]));
    }

    #[test]
    fn a_fit_survives_its_json() {
        let (_, _, fit) = fitted(100);
        let json = serde_json::to_string(&fit).expect("it serialises");
        assert_eq!(serde_json::from_str::<Fit>(&json).ok(), Some(fit.clone()));
        assert_eq!(fit.hash().len(), 64);
    }
}
