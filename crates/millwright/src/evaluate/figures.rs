//! What the figures are made of.

use super::{
    Request,
    report::{Mode, Report},
    rows::{Judged, Labels},
};
use crate::cli::Detector;
use catalog::{Class, MachineId};
use std::collections::BTreeMap;

/// A week in microseconds.
const WEEK_US: f64 = 7.0 * 86_400.0 * 1e6;

/// A failure mode: a label column, and the laws that answer to it.
#[derive(Debug, Clone)]
pub(super) struct ModeCount {
    pub(super) name: String,
    laws: u64,
    has_column: bool,
    labelled: u64,
    found: u64,
}

/// The modes that a class's laws name, in class order.
pub(super) fn modes(class: &Class) -> Vec<ModeCount> {
    let mut modes: Vec<ModeCount> = Vec::new();
    for (at, law) in class.laws.iter().enumerate() {
        let Some(label) = &law.label else { continue };
        match modes.iter_mut().find(|mode| mode.name == *label) {
            Some(mode) => mode.laws |= 1 << at,
            None => {
                modes.push(ModeCount { name: label.clone(), laws: 1 << at, has_column: false, labelled: 0, found: 0 })
            }
        }
    }
    modes
}

/// Counts of the rows that were scored.
pub(super) struct Tally {
    label: Option<String>,
    interval_us: i64,
    modes: Vec<ModeCount>,
    rows: u64,
    anomalies: u64,
    counts: Counts,
    /// Of rows with a label: score, and whether it is a failure.
    ranked: Vec<(f64, bool)>,
    /// Per machine: oldest and newest event time.
    spans: BTreeMap<MachineId, (i64, i64)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    tp: u64,
    fp: u64,
    fn_: u64,
    tn: u64,
}

impl Tally {
    pub(super) fn new(class: &Class, modes: Vec<ModeCount>, label: Option<String>) -> Tally {
        Tally {
            label,
            interval_us: class.interval_us,
            modes,
            rows: 0,
            anomalies: 0,
            counts: Counts::default(),
            ranked: Vec::new(),
            spans: BTreeMap::new(),
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Counts a row.
    pub(super) fn add(&mut self, row: &Judged<'_>, anomaly: bool, detector: Detector, labels: &Labels<'_>) {
        self.rows += 1;
        self.anomalies += u64::from(anomaly);
        match self.spans.get_mut(row.machine) {
            Some(span) => *span = (span.0.min(row.timestamp_us), span.1.max(row.timestamp_us)),
            None => {
                self.spans.insert(row.machine.clone(), (row.timestamp_us, row.timestamp_us));
            }
        }
        if let Some(failed) = self.label.as_deref().and_then(|label| labels.get(label)) {
            let count = match (anomaly, failed) {
                (true, true) => &mut self.counts.tp,
                (true, false) => &mut self.counts.fp,
                (false, true) => &mut self.counts.fn_,
                (false, false) => &mut self.counts.tn,
            };
            *count += 1;
            self.ranked.push((row.score.unwrap_or(f64::NEG_INFINITY), failed));
        }
        for mode in &mut self.modes {
            // A learned detector does not say which mode it found.
            let found = match detector {
                Detector::Laws => row.verdict.broken & mode.laws != 0,
                Detector::Mahalanobis => anomaly,
            };
            mode.has_column |= labels.has(&mode.name);
            let labelled = labels.get(&mode.name) == Some(true);
            mode.labelled += u64::from(labelled);
            mode.found += u64::from(found && (labelled || !labels.has(&mode.name)));
        }
    }

    /// The figures.
    pub(super) fn report(self, request: &Request, threshold: Option<f64>, refused: u64) -> Report {
        let has_labels = !self.ranked.is_empty();
        let known = |count: u64| has_labels.then_some(count);
        let Counts { tp, fp, fn_, tn } = self.counts;
        let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
        let curve = Curve::new(self.ranked);
        // A machine's last row stands for one interval too.
        let spans = self.spans.values();
        let weeks: f64 = spans.map(|(from, to)| (to.saturating_sub(*from) + self.interval_us) as f64 / WEEK_US).sum();
        Report {
            file: request.readings.display().to_string(),
            class: request.class.id.clone(),
            detector: request.detector,
            label: self.label.filter(|_| has_labels),
            rows: self.rows,
            refused,
            anomalies: self.anomalies,
            positives: known(tp + fn_),
            tp: known(tp),
            fp: known(fp),
            fn_: known(fn_),
            precision: share(tp, tp + fp),
            recall: share(tp, tp + fn_),
            f1: share(2 * tp, 2 * tp + fp + fn_).filter(|_| tp + fn_ > 0),
            pr_auc: curve.average_precision(),
            recall_at_1pct_far: curve.recall_at(0.01, tp + fn_, fp + tn),
            false_alarms_per_machine_week: known(fp).map(|fp| fp as f64 / weeks),
            threshold,
            modes: self
                .modes
                .into_iter()
                .map(|mode| Mode {
                    // Without the column, only laws know what they found.
                    found: (mode.has_column || request.detector == Detector::Laws).then_some(mode.found),
                    label: mode.has_column.then_some(mode.labelled),
                    name: mode.name,
                })
                .collect(),
        }
    }
}

/// The score that so large a share of scores lies above, as near as whole rows allow, never more.
pub(super) fn threshold(mut scores: Vec<f64>, rate: f64) -> Option<f64> {
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    let above = (rate * scores.len() as f64).floor() as usize;
    scores.get(above.min(scores.len().checked_sub(1)?)).copied()
}

/// Rows by falling score, those of one score together: found failures and false alarms up to and with each score.
struct Curve(Vec<(u64, u64)>);

impl Curve {
    fn new(mut ranked: Vec<(f64, bool)>) -> Curve {
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut points: Vec<(u64, u64)> = Vec::new();
        let (mut found, mut false_alarms) = (0, 0);
        for (at, (score, failed)) in ranked.iter().enumerate() {
            if *failed {
                found += 1
            } else {
                false_alarms += 1
            }
            if ranked.get(at + 1).is_none_or(|(next, _)| next != score) {
                points.push((found, false_alarms));
            }
        }
        Curve(points)
    }

    /// Sum over the scores of precision x gain in recall; none without a failure.
    fn average_precision(&self) -> Option<f64> {
        let positives = self.0.last().map(|(found, _)| *found).filter(|positives| *positives > 0)?;
        let mut before = 0;
        let mut sum = 0.0;
        for (found, false_alarms) in &self.0 {
            sum += (found - before) as f64 * (*found as f64 / (found + false_alarms) as f64);
            before = *found;
        }
        Some(sum / positives as f64)
    }

    /// The largest recall that costs no more than a share of the good rows.
    fn recall_at(&self, rate: f64, positives: u64, negatives: u64) -> Option<f64> {
        if positives == 0 || negatives == 0 {
            return None;
        }
        let fits = |point: &&(u64, u64)| point.1 as f64 <= rate * negatives as f64;
        let found = self.0.iter().take_while(fits).map(|(found, _)| *found).last().unwrap_or(0);
        Some(found as f64 / positives as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_order_has_an_average_precision_of_one() {
        let curve = Curve::new(vec![(0.1, false), (3.0, true), (2.0, true), (0.5, false)]);
        assert_eq!(curve.average_precision(), Some(1.0));
        assert_eq!(curve.recall_at(0.01, 2, 2), Some(1.0));
    }

    /// scikit-learn 1.5: `average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])` is 0.8333.
    #[test]
    fn average_precision_is_scikit_learns() {
        let curve = Curve::new(vec![(0.1, false), (0.4, false), (0.35, true), (0.8, true)]);
        assert!((curve.average_precision().unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(curve.recall_at(0.01, 2, 2), Some(0.5));
        assert_eq!(curve.recall_at(0.5, 2, 2), Some(1.0));
    }

    #[test]
    fn rows_of_one_score_count_together() {
        let curve = Curve::new(vec![(1.0, true), (1.0, false), (1.0, false), (1.0, false)]);
        assert_eq!(curve.average_precision(), Some(0.25));
        assert_eq!(curve.recall_at(0.5, 1, 3), Some(0.0));
    }

    #[test]
    fn without_failures_there_is_no_figure() {
        let curve = Curve::new(vec![(1.0, false)]);
        assert_eq!((curve.average_precision(), curve.recall_at(0.01, 0, 1)), (None, None));
        assert_eq!(Curve::new(Vec::new()).average_precision(), None);
    }

    #[test]
    fn a_threshold_leaves_at_most_its_share_above() {
        let scores: Vec<f64> = (1..=200).map(f64::from).collect();
        let limit = threshold(scores.clone(), 0.01).unwrap();
        assert_eq!(scores.iter().filter(|score| **score > limit).count(), 2);
        assert_eq!(threshold(vec![1.0; 50], 0.01), Some(1.0));
        assert_eq!(threshold(Vec::new(), 0.01), None);
    }
}
