//! The folder a rig lives in: its state file, its lock, its data and its logs.
//!
//! The state is written whole to a new file that then takes the old one's place, so it can be read without the lock; who changes what
//! runs holds the lock.

use crate::process::{Recipe, Running};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// What runs, and where it answers.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct State {
    /// In the order in which they were started.
    pub processes: Vec<Process>,
    /// Where each engine answers: `kafka`, `postgres_main`, …
    pub addresses: BTreeMap<String, String>,
    /// Restarts what dies.
    pub supervisor: Option<Running>,
}

/// A process of the state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// How it is started.
    pub recipe: Recipe,
    /// The last that was started.
    pub running: Running,
}

/// The folder of one rig.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens the folder, making it where there is none.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.join("logs")).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path: path.canonicalize()? })
    }

    /// A place inside it.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Waits until nobody else changes what runs. The lock goes with the file, so with a killed holder too.
    pub fn lock(&self) -> Result<File> {
        let file = File::create(self.at("lock"))?;
        file.lock().context("lock the state")?;
        Ok(file)
    }

    /// What runs; nothing where nothing was started.
    pub fn load(&self) -> Result<State> {
        match fs::read(self.at("state.json")) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("read {}", self.at("state.json").display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(error).context("read the state"),
        }
    }

    /// Writes what runs.
    pub fn save(&self, state: &State) -> Result<()> {
        fs::write(self.at("state.json.new"), serde_json::to_vec_pretty(state)?)?;
        fs::rename(self.at("state.json.new"), self.at("state.json")).context("write the state")
    }

    /// Forgets what ran and removes its data; the logs stay until the next start.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() == "logs" || entry.file_name() == "lock" {
                continue;
            }
            let removed = if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            removed.with_context(|| format!("remove {}", entry.path().display()))?;
        }
        Ok(())
    }

    /// Removes the logs of what ran before.
    pub fn clear_logs(&self) -> Result<()> {
        fs::remove_dir_all(self.at("logs"))?;
        fs::create_dir(self.at("logs")).context("make the folder of the logs")
    }
}

impl State {
    /// Pids of a group that are alive.
    pub fn pids(&self, group: &str) -> Vec<i32> {
        self.group(group)
            .map(|process| process.running)
            .filter(|running| running.alive())
            .map(|running| running.pid)
            .collect()
    }

    /// The processes of a group.
    pub fn group(&self, group: &str) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |process| process.recipe.group == group)
    }
}

/// The state while several threads start engines, on disk after each step so that a killed rig leaves nothing unknown behind.
pub struct Draft<'a> {
    /// Where it lies.
    pub folder: &'a Folder,
    state: Mutex<State>,
}

impl<'a> Draft<'a> {
    /// Goes on from what runs.
    pub fn load(folder: &'a Folder) -> Result<Self> {
        Ok(Self { folder, state: Mutex::new(folder.load()?) })
    }

    /// A copy of it.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where something answers.
    pub fn address(&self, name: &str) -> Option<String> {
        self.state().addresses.get(name).cloned()
    }

    /// Changes it, in memory and on disk.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let value = change(&mut state);
        self.folder.save(&state)?;
        Ok(value)
    }

    /// Starts a process, in place of one of the same name that has ended.
    pub fn start(&self, recipe: Recipe) -> Result<Running> {
        let running = recipe.start()?;
        self.change(|state| {
            state.processes.retain(|process| process.recipe.name != recipe.name);
            state.processes.push(Process { recipe, running });
        })?;
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_lists_only_the_living() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        assert!(folder.load().unwrap().processes.is_empty());
        let draft = Draft::load(&folder).unwrap();
        let sleeper = |name: &str, time: &str| Recipe {
            name: name.to_owned(),
            group: "sleepers".to_owned(),
            program: "sleep".into(),
            args: vec![time.to_owned()],
            env: BTreeMap::new(),
            log: folder.log(name),
            user: None,
            cluster: None,
        };
        let short = draft.start(sleeper("short", "0")).unwrap();
        let long = draft.start(sleeper("long", "60")).unwrap();
        draft.change(|state| state.addresses.insert("redis".to_owned(), "redis://127.0.0.1:1".to_owned())).unwrap();
        assert!(short.ended_within(std::time::Duration::from_secs(5)));
        let read = folder.load().unwrap();
        assert_eq!(read.addresses["redis"], "redis://127.0.0.1:1");
        assert_eq!(read.processes[0].recipe, sleeper("short", "0"));
        assert_eq!(read.pids("sleepers"), [long.pid]);
        long.signal(rustix::process::Signal::KILL);
        assert!(long.ended_within(std::time::Duration::from_secs(5)));
    }
}
