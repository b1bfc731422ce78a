//! Finds out which column holds what.

use super::{CsvOptions, CsvProblem, records::Records};
use catalog::Class;

/// What the columns of a file hold.
pub(super) struct Header {
    pub(super) delimiter: u8,
    pub(super) names: Vec<String>,
    pub(super) time: Option<usize>,
    pub(super) machine: Option<usize>,
    pub(super) seq: Option<usize>,
    pub(super) state: Option<usize>,
    /// Per channel of the class; an optional one may have none.
    pub(super) channels: Vec<Option<usize>>,
    /// Per attribute of the class.
    pub(super) attributes: Vec<Option<usize>>,
    pub(super) labels: Vec<Label>,
    pub(super) ignored: Vec<String>,
}

/// A column of 0 and 1.
pub(super) struct Label {
    pub(super) name: String,
    pub(super) cell: usize,
}

/// Columns with the event time, the first that there is.
const TIME: [&str; 2] = ["timestamp", "datetime"];
/// Columns with the machine, the first that there is.
const MACHINE: [&str; 2] = ["machine_id", "machineid"];

impl Header {
    /// Reads the record at hand as the header; a problem comes with the cell that has it.
    pub(super) fn read(
        records: &Records,
        delimiter: u8,
        class: &Class,
        options: &CsvOptions,
    ) -> Result<Header, (CsvProblem, Option<usize>)> {
        let cells = (0..records.cells()).map(|at| records.cell(at).unwrap_or_default());
        let names = cells.map(|cell| std::str::from_utf8(cell).map(|name| name.trim().to_owned()));
        let names: Vec<String> = names.collect::<Result<_, _>>().map_err(|_| (CsvProblem::NotText, None))?;
        let mut columns =
            Columns { keys: names.iter().map(|name| key(name)).collect(), used: vec![false; names.len()] };
        let given = |columns: &Columns, name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => match columns.find(name) {
                Some(at) => Ok(Some(at)),
                None => Err((CsvProblem::NoColumn { name: name.clone(), headers: names.clone() }, None)),
            },
        };
        let labels = options.labels.iter().filter_map(|name| {
            let cell = columns.find(name)?;
            Some(Label { name: name.clone(), cell })
        });
        let labels: Vec<Label> = labels.collect();
        let time = given(&columns, &options.time_column)?;
        let machine = given(&columns, &options.machine_column)?;
        labels.iter().map(|label| label.cell).chain(time).chain(machine).for_each(|cell| columns.used[cell] = true);
        let time = time.or_else(|| columns.take_first(&TIME));
        let machine = machine.or_else(|| columns.take_first(&MACHINE));
        let mut missing = Vec::new();
        let mut channels = Vec::new();
        for channel in &class.channels {
            let cell = columns.take_only(&channel.id, &channel.columns, &names)?;
            if cell.is_none() && !channel.optional {
                missing.push(std::iter::once(&channel.id).chain(&channel.columns).cloned().collect());
            }
            channels.push(cell);
        }
        if !missing.is_empty() {
            return Err((CsvProblem::MissingColumns { missing, headers: names }, None));
        }
        let attributes = class.attributes.iter();
        let attributes = attributes
            .map(|attribute| columns.take_only(&attribute.id, &attribute.columns, &names))
            .collect::<Result<_, _>>()?;
        let seq = columns.take_first(&["seq"]);
        let state = columns.take_first(&["machine_state"]);
        let unused = names.iter().zip(&columns.used).filter(|(_, used)| !**used);
        let ignored = unused.map(|(name, _)| name.clone()).collect();
        Ok(Header { delimiter, names, time, machine, seq, state, channels, attributes, labels, ignored })
    }
}

/// The columns, and which have found their use.
struct Columns {
    keys: Vec<String>,
    used: Vec<bool>,
}

impl Columns {
    fn find(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|candidate| *candidate == key(name))
    }

    /// The free column with the first of these names that there is.
    fn take_first(&mut self, names: &[&str]) -> Option<usize> {
        let cell = names.iter().find_map(|name| self.find(name).filter(|cell| !self.used[*cell]))?;
        self.used[cell] = true;
        Some(cell)
    }

    /// The free column with one of the names of a channel or an attribute; two are one too many.
    fn take_only(
        &mut self,
        id: &str,
        others: &[String],
        headers: &[String],
    ) -> Result<Option<usize>, (CsvProblem, Option<usize>)> {
        let names: Vec<String> = std::iter::once(id).chain(others.iter().map(String::as_str)).map(key).collect();
        let fits = |at: &usize| !self.used[*at] && names.contains(&self.keys[*at]);
        let mut fitting = (0..self.keys.len()).filter(fits);
        let (first, second) = (fitting.next(), fitting.next());
        if let (Some(first), Some(second)) = (first, second) {
            let (first, second, at) = (headers[first].clone(), headers[second].clone(), second);
            return Err((CsvProblem::Twice { what: id.to_owned(), first, second }, Some(at)));
        }
        if let Some(at) = first {
            self.used[at] = true;
        }
        Ok(first)
    }
}

/// What names are compared by: neither case nor outer blanks matter.
fn key(name: &str) -> String {
    name.trim().to_lowercase()
}
