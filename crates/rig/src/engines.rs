//! The engines: what each needs, how it is started and when it answers. `postgres`, `redis`, `kafka` and `connect` hold one kind each.

pub mod connect;
pub mod jars;
pub mod kafka;
pub mod postgres;
pub mod redis;
pub mod registry;

use crate::{
    certificates::Certificates,
    folder::Draft,
    process::{Recipe, Running},
};
use anyhow::{Result, bail};
use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long an engine may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an engine is started with.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// What runs already, and where this is noted.
    pub draft: &'a Draft<'a>,
    /// Where archives of Maven Central are kept.
    pub jars: &'a jars::Jars,
    /// Kafka's brokers, 1 or 3.
    pub brokers: u16,
    /// Whether PostgreSQL forces its writes to the disk. Without it data still outlives a killed process, not a lost machine.
    pub durable: bool,
    /// What engines are reached over TLS with, beside the way without it.
    pub tls: Option<&'a Certificates>,
}

impl Setup<'_> {
    /// The processes of a group that were started before are started again where they died; false when there are none.
    pub fn revived(&self, group: &str) -> Result<bool> {
        let state = self.draft.state();
        for process in state.group(group).filter(|process| !process.running.alive()) {
            self.draft.start(process.recipe.clone())?;
        }
        Ok(state.group(group).next().is_some())
    }

    /// Waits until something answers, or what should answer dies.
    pub fn wait(&self, group: &str, answers: impl Fn() -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !answers() {
            let state = self.draft.state();
            if let Some(dead) = state.group(group).find(|process| !process.running.alive()) {
                bail!("{} died: {}", dead.recipe.name, dead.recipe.last_words());
            }
            if Instant::now() > until {
                let logs = self.draft.folder.at("logs");
                bail!("{group} does not answer after {} s; see {}", PATIENCE.as_secs(), logs.display());
            }
            thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    /// Starts one process of a group.
    pub fn start(&self, group: &str, name: &str, program: impl Into<PathBuf>, args: Vec<String>) -> Result<Running> {
        self.draft.start(self.recipe(group, name, program, args))
    }

    /// A recipe with nothing out of the ordinary.
    pub fn recipe(&self, group: &str, name: &str, program: impl Into<PathBuf>, args: Vec<String>) -> Recipe {
        Recipe {
            name: name.to_owned(),
            group: group.to_owned(),
            program: program.into(),
            args,
            env: [].into(),
            log: self.draft.folder.log(name),
            user: None,
            cluster: None,
        }
    }

    /// Notes where an engine answers.
    pub fn address(&self, name: &str, address: String) -> Result<()> {
        self.draft.change(|state| state.addresses.insert(name.to_owned(), address))?;
        Ok(())
    }
}

/// The port at the end of `host:port`, with or without what a URL has around it.
pub fn port_of(address: &str) -> Option<u16> {
    let digits = address.rsplit_once(':')?.1;
    digits.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// A Java process: what it may hold of memory, where its classes lie, its main class and arguments. Short lives and many neighbours
/// want a cheap start more than the last word in speed; `MILLWRIGHT_RIG_JAVA` names other flags.
pub fn java(recipe: Recipe, heap: &str, classes: &Path, main: &[&str]) -> Recipe {
    let flags =
        std::env::var("MILLWRIGHT_RIG_JAVA").unwrap_or_else(|_| "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC".to_owned());
    let mut args = vec![format!("-Xmx{heap}")];
    args.extend(flags.split_whitespace().map(str::to_owned));
    // One that is out of memory would hang on; one that ends can be restarted.
    args.push("-XX:+ExitOnOutOfMemoryError".to_owned());
    args.push("-Dorg.apache.logging.log4j.level=WARN".to_owned());
    args.extend(main.iter().map(|&word| word.to_owned()));
    // Through the environment: a command line with a star would be expanded by a shell on the way.
    let classpath = format!("{}/*", classes.display());
    Recipe { program: "java".into(), args, env: [("CLASSPATH".to_owned(), classpath)].into(), ..recipe }
}

#[cfg(test)]
mod tests {
    use super::port_of;

    #[test]
    fn a_port_is_found_in_an_address() {
        assert_eq!(port_of("127.0.0.1:9092"), Some(9092));
        assert_eq!(port_of("http://127.0.0.1:8083"), Some(8083));
        assert_eq!(port_of("postgresql://postgres@127.0.0.1:5432/postgres"), Some(5432));
        assert_eq!(port_of("localhost"), None);
    }
}
