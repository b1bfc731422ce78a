//! A progress bar on stderr, where that is a terminal.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// How far something of a known size has come.
pub struct Progress {
    total: u64,
    shown: Option<Instant>,
    is_terminal: bool,
}

const WIDTH: usize = 40;

impl Progress {
    /// Nothing is done of `total`.
    pub fn new(total: u64) -> Progress {
        Progress { total: total.max(1), shown: None, is_terminal: std::io::stderr().is_terminal() }
    }

    /// So much is done. Drawn ten times a second at most.
    pub fn set(&mut self, done: u64) {
        if !self.is_terminal || self.shown.is_some_and(|shown| shown.elapsed() < Duration::from_millis(100)) {
            return;
        }
        self.shown = Some(Instant::now());
        let share = (done as f64 / self.total as f64).min(1.0);
        let filled = (share * WIDTH as f64) as usize;
        eprint!("\r[{}{}] {:3.0} %", "#".repeat(filled), " ".repeat(WIDTH - filled), share * 100.0);
        // A terminal that cannot be written to shows no progress; nothing else depends on it.
        let _ = std::io::stderr().flush();
    }

    /// Wipes the bar.
    pub fn end(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r{}\r", " ".repeat(WIDTH + 8));
        }
    }
}
