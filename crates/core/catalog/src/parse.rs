//! From the text of a class file to a checked [`Class`], every mistake with its place.

use crate::Class;

/// One mistake in a file, with its place and a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// As the caller named the file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what is allowed there.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Every mistake that was found, in file order; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl std::fmt::Display for Mistakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (nth, mistake) in self.0.iter().enumerate() {
            let Mistake { file, line, column, message, hint } = mistake;
            let newline = if nth == 0 { "" } else { "\n" };
            write!(f, "{newline}{file}:{line}:{column}: {message}")?;
            if let Some(hint) = hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl Class {
    /// Parses and checks the text of a class file. `file` is its name in mistakes.
    ///
    /// # Errors
    /// Every mistake that is found, with file:line:column and a hint.
    pub fn parse(file: &str, text: &str) -> Result<Class, Mistakes> {
        let _ = (file, text);
        todo!()
    }
}
