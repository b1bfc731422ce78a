//! The figures as JSON and as a table.

use crate::cli::Detector;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What `evaluate` found. A figure is `None` where it cannot be computed: no labels, or nothing to divide by.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The file as it was named.
    pub file: String,
    /// Id of the class.
    pub class: String,
    pub detector: Detector,
    /// The column that the rows were compared with.
    pub label: Option<String>,
    /// Rows that were scored.
    pub rows: u64,
    /// Rows that are no readings of the class.
    pub refused: u64,
    pub anomalies: u64,
    pub positives: Option<u64>,
    pub tp: Option<u64>,
    pub fp: Option<u64>,
    pub fn_: Option<u64>,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    pub pr_auc: Option<f64>,
    pub recall_at_1pct_far: Option<f64>,
    pub false_alarms_per_machine_week: Option<f64>,
    /// A score above it is an anomaly; `None`: the laws' own limits.
    pub threshold: Option<f64>,
    /// In class order.
    pub modes: Vec<Mode>,
}

/// A failure mode that laws of the class answer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// Its label column.
    pub name: String,
    /// Rows that have it; `None`: the file has no such column.
    pub label: Option<u64>,
    /// Of these, those that were found; without the column, all that the laws found, and `None` for another detector.
    pub found: Option<u64>,
}

impl Report {
    /// One JSON document.
    pub fn json(&self) -> Value {
        let modes = self.modes.iter();
        let modes: Map<String, Value> =
            modes.map(|mode| (mode.name.clone(), json!({ "label": mode.label, "found": mode.found }))).collect();
        json!({
            "rows": self.rows,
            "refused": self.refused,
            "anomalies": self.anomalies,
            "positives": self.positives,
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn_,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "pr_auc": self.pr_auc,
            "recall_at_1pct_far": self.recall_at_1pct_far,
            "false_alarms_per_machine_week": self.false_alarms_per_machine_week,
            "threshold": self.threshold,
            "modes": modes,
        })
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        line("rows judged", self.rows.to_string());
        if self.refused > 0 {
            line("rows refused", self.refused.to_string());
        }
        match (&self.label, self.positives, self.tp, self.fp, self.fn_) {
            (Some(label), Some(positives), Some(found), Some(false_alarms), Some(missed)) => {
                line(&format!("failures ({label})"), positives.to_string());
                line("  found", format!("{found} of {positives}"));
                line("  missed", missed.to_string());
                line("false alarms", false_alarms.to_string());
                line("  per machine-week", figure(self.false_alarms_per_machine_week, 2));
                line("precision", figure(self.precision, 3));
                line("recall", figure(self.recall, 3));
                line("F1", figure(self.f1, 3));
                line("PR-AUC", figure(self.pr_auc, 3));
                line("recall at 1 % false alarms", figure(self.recall_at_1pct_far, 3));
            }
            _ => line("anomalies (no labels)", self.anomalies.to_string()),
        }
        if let Some(threshold) = self.threshold {
            line("threshold", figure(Some(threshold), 4));
        }
        for mode in &self.modes {
            let found = match (mode.found, mode.label) {
                (Some(found), Some(label)) => format!("{found} of {label}"),
                (Some(found), None) => found.to_string(),
                (None, _) => continue,
            };
            line(&format!("mode {}", mode.name), found);
        }
        let name_width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let value_width = lines.iter().map(|(_, value)| value.chars().count()).max().unwrap_or(0);
        let detector = match self.detector {
            Detector::Laws => "laws",
            Detector::Mahalanobis => "mahalanobis",
        };
        let mut table = format!("{}: class {}, detector {detector}\n", self.file, self.class);
        for (name, value) in lines {
            writeln!(table, "  {name:name_width$}  {value:>value_width$}").expect("a String takes all");
        }
        table
    }
}

fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}
