//! What a person reads when a command fails: what, where, what next, with a stable code and an exit code.

use crate::sink;
use std::fmt;

/// A failure with a code of its own. Anything else that fails is `MW-0001` and exits with 1.
#[derive(Debug)]
pub struct Failure {
    /// Stable: `MW-0012`.
    pub code: &'static str,
    /// What the process exits with.
    pub exit: Exit,
    /// What happened, and where.
    pub what: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1
    Failed = 1,
    /// 2
    Usage = 2,
    /// 3
    Configuration = 3,
    /// 4
    Dependency = 4,
    /// 5
    Data = 5,
}

impl Failure {
    /// A command line that cannot be meant.
    pub fn usage(code: &'static str, what: impl Into<String>) -> Failure {
        Failure { code, exit: Exit::Usage, what: what.into(), hint: None }
    }

    /// A bad setting.
    pub fn configuration(code: &'static str, what: impl Into<String>) -> Failure {
        Failure { code, exit: Exit::Configuration, what: what.into(), hint: None }
    }

    /// Input that cannot be used.
    pub fn data(code: &'static str, what: impl Into<String>) -> Failure {
        Failure { code, exit: Exit::Data, what: what.into(), hint: None }
    }

    /// Something outside that is not there.
    pub fn dependency(code: &'static str, what: impl Into<String>) -> Failure {
        Failure { code, exit: Exit::Dependency, what: what.into(), hint: None }
    }

    /// Anything else with a code of its own.
    pub fn failed(code: &'static str, what: impl Into<String>) -> Failure {
        Failure { code, exit: Exit::Failed, what: what.into(), hint: None }
    }

    /// Says what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for Failure {}

/// Tells a failure on stderr and gives the exit code; with `as_document` also as a JSON document on stdout, if nothing
/// has gone there yet.
pub fn tell(error: &anyhow::Error, as_document: bool) -> u8 {
    let coded = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    let code = coded.map_or("MW-0001", |failure| failure.code);
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    let message = chain.join(": ");
    let hint = coded.and_then(|failure| failure.hint.as_ref());
    eprintln!("error {code}: {message}");
    if let Some(hint) = hint {
        eprintln!("  next: {hint}");
    }
    let exit = coded.map_or(Exit::Failed, |failure| failure.exit) as u8;
    if as_document && !sink::has_printed() {
        let error = serde_json::json!({ "code": code, "message": message, "next": hint, "exit": exit });
        // The exit code and stderr have told it; a stdout that is gone changes nothing.
        let _ = sink::print(&format!("{}\n", serde_json::json!({ "error": error })));
    }
    exit
}

/// The nearest of some words to one that is not among them, if it is near enough to be a slip.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(diagonal + usize::from(x != *y));
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["port", "host", "retention"];
        assert_eq!(did_you_mean("prot", known), Some("port"));
        assert_eq!(did_you_mean("retenton", known), Some("retention"));
        assert_eq!(did_you_mean("zebra", known), None);
    }
}
