//! The rows of a file, judged.

use super::Request;
use crate::{
    cli::Detector,
    failure::Failure,
    progress::Progress,
    readings_file::{ReadingsFile, Refused, near_column},
};
use anyhow::Result;
use catalog::MachineId;
use scoring::{Fit, Program, RowJudge, RowVerdict, Settings};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Rows that are decoded at once.
const ROWS: usize = 8192;

/// One row and what is found in it.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    /// Its place in the file, from 0.
    pub(super) row: u64,
    pub(super) timestamp_us: i64,
    pub(super) machine: &'a MachineId,
    /// Whether detectors may judge it.
    pub(super) running: bool,
    pub(super) verdict: RowVerdict,
    /// The laws judge, no learned detector.
    pub(super) by_laws: bool,
    /// The detector's score, `None` where it could not judge.
    pub(super) score: Option<f64>,
    /// Channels in their units, in class order; NaN where there is no good value.
    pub(super) channels: &'a [f64],
}

/// A file to read.
pub(super) struct Source<'a> {
    request: &'a Request,
    path: &'a Path,
    labels: Vec<String>,
    column: Option<&'a str>,
}

/// What a file was found to hold.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) labels: Vec<String>,
    pub(super) rows: u64,
    pub(super) refused: Refused,
    ignored: Vec<String>,
    other_class: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(request: &'a Request, path: &'a Path, labels: Vec<String>) -> Source<'a> {
        Source { request, path, labels, column: None }
    }

    /// The file must have this column of labels.
    pub(super) fn with_column(self, column: Option<&'a str>) -> Source<'a> {
        Source { column, ..self }
    }

    /// Judges every row and gives it to `each`, in order, with its labels (by place in the request's columns).
    pub(super) fn read(
        self,
        learnt: Option<&Fit>,
        mut each: impl FnMut(&Judged<'_>, &Labels<'_>) -> Result<()>,
    ) -> Result<Told> {
        let Request { catalogue, class, csv, zone, .. } = self.request;
        let open = ReadingsFile::open_labelled(self.path, catalogue, class, csv, zone, None, self.labels)?;
        let mut file = open.of_any_time();
        let mut progress = Progress::new(file.total());
        let by_laws = self.request.detector == Detector::Laws;
        let scorer = learnt.map(|fit| fit.scorer(class));
        let mut judge = RowJudge::new(Arc::new(Program::new(class.clone())));
        let mut settings: BTreeMap<MachineId, Settings> = BTreeMap::new();
        let mut told = Told::default();
        while let Some(chunk) = file.next(ROWS)? {
            let names = file.labels();
            if let Some(name) = self.column.filter(|name| !names.iter().any(|known| known == name)) {
                let what = format!("{}: there is no column `{name}` for --labels", self.path.display());
                return Err(Failure::usage("MW-0033", what).hint(near_column(name, file.headers())).into());
            }
            told.refused.add(self.path, &chunk);
            let mut judged = Vec::new();
            for (_, batch) in &chunk.decoded.batches {
                if batch.class.id != class.id {
                    told.other_class += batch.rows() as u64;
                    judged.push(None);
                    continue;
                }
                for machine in &batch.machines {
                    if !settings.contains_key(machine) {
                        settings.insert(machine.clone(), Settings::resolve(class, catalogue.machine(machine)));
                    }
                }
                let of_batch: Vec<&Settings> = batch.machines.iter().map(|machine| &settings[machine]).collect();
                let (mut verdicts, mut scores) = (Vec::new(), Vec::new());
                judge.judge(batch, &of_batch, &mut verdicts);
                let columns = judge.verdicts().channels.clone();
                if let Some(scorer) = &scorer {
                    scorer.score_rows(&columns, &mut scores);
                }
                judged.push(Some((verdicts, scores, columns)));
            }
            let mut channels = vec![0.0; class.channels.len()];
            for (index, at, row) in chunk.in_order() {
                let batch = &chunk.decoded.batches[at].1;
                let Some((verdicts, scores, columns)) = &judged[at] else { continue };
                let verdict: RowVerdict = verdicts[row];
                channels.iter_mut().zip(columns).for_each(|(value, column)| *value = column[row]);
                let learnt = scores.get(row).copied().filter(|score: &f64| verdict.running && score.is_finite());
                let judged = Judged {
                    row: chunk.first_row + u64::from(index),
                    timestamp_us: batch.timestamp_us[row],
                    machine: batch.machine_of(row),
                    running: verdict.running,
                    verdict,
                    by_laws,
                    score: if by_laws { verdict.score } else { learnt },
                    channels: &channels,
                };
                each(&judged, &Labels { names: &names, columns: &chunk.labels, row: index as usize })?;
                told.rows += 1;
            }
            progress.set(file.read());
        }
        progress.end();
        (told.labels, told.ignored) = (file.labels(), file.ignored().to_vec());
        Ok(told)
    }
}

/// The labels of a row.
pub(super) struct Labels<'a> {
    names: &'a [String],
    columns: &'a [Vec<Option<bool>>],
    row: usize,
}

impl Labels<'_> {
    /// What a column says; `None` where there is no such column or the cell is empty.
    pub(super) fn get(&self, name: &str) -> Option<bool> {
        let at = self.names.iter().position(|known| known == name)?;
        self.columns[at][self.row]
    }

    /// Whether the file has the column.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

impl Told {
    /// Says on stderr what of the file had no part in the figures.
    pub(super) fn tell(&self, file: &Path, no_label: Option<&String>) {
        let path = file.display();
        if !self.ignored.is_empty() {
            eprintln!("{path}: ignored columns: {}", self.ignored.join(", "));
        }
        self.refused.tell(file);
        if self.other_class > 0 {
            eprintln!("{path}: {} readings are of another class and not judged", self.other_class);
        }
        if let Some(label) = no_label {
            eprintln!("{path}: there is no column `{label}`, so that what is found cannot be compared with it");
        }
    }
}
