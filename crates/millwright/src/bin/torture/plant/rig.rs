//! The plant under test: started and stopped by the rig, whose supervisor restarts what dies.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where everything answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Addresses {
    pub kafka: String,
    pub postgres_main: String,
    pub postgres_ai: String,
    pub redis: String,
    pub portal: String,
}

#[derive(Deserialize)]
struct Document {
    pids: BTreeMap<String, Vec<i32>>,
}

/// A running plant; it ends with this.
pub struct Rig {
    program: PathBuf,
    folder: PathBuf,
    /// Names the planted bug to services that start from now on.
    bug: PathBuf,
    pub at: Addresses,
}

impl Rig {
    /// Starts everything below a folder: two of each service that shares work.
    pub fn up(program: &Path, folder: &Path, brokers: u16, product: &Path, hook: &str, planted: bool) -> Result<Rig> {
        let bug = folder.join("bug");
        std::fs::write(&bug, "").context("write the name of the bug")?;
        let mut started = product.to_owned();
        if planted {
            // In place of the program: it takes the bug from the file, so that a restart is enough to have another one.
            started = folder.join("millwright-with-bug");
            let text = format!(
                "#!/bin/sh\nMILLWRIGHT_PLANTED=$(cat '{}')\nexport MILLWRIGHT_PLANTED\nexec '{}' \"$@\"\n",
                bug.display(),
                product.display()
            );
            std::fs::write(&started, text).context("write the script of the planted program")?;
            std::fs::set_permissions(&started, std::fs::Permissions::from_mode(0o755))?;
        }
        let mut rig = Command::new(program);
        let folder = folder.join("plant");
        rig.args(["plant", "--output", "json", "--folder"]).arg(&folder).env_remove("MILLWRIGHT_PLANTED");
        rig.args(["up", "--supervise", "--ingestors", "2", "--detectors", "2", "--brokers", &brokers.to_string()]);
        rig.args(["--webhook", hook, "--program"]).arg(&started);
        let up = rig.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("run the rig")?;
        if !up.status.success() {
            bail!("the plant does not come up: {}", up.status);
        }
        let at = serde_json::from_slice(&up.stdout).context("read what the rig says of the plant")?;
        Ok(Rig { program: program.to_owned(), folder, bug, at })
    }

    /// Services that start from now on have this bug.
    pub fn plant(&self, bug: &str) -> Result<()> {
        std::fs::write(&self.bug, bug).context("write the name of the bug")
    }

    /// Pids of a group that are alive now.
    pub fn pids(&self, group: &str) -> Result<Vec<i32>> {
        let mut rig = Command::new(&self.program);
        rig.args(["plant", "status", "--output", "json", "--folder"]).arg(&self.folder);
        let status = rig.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("ask the rig")?;
        let mut document: Document = serde_json::from_slice(&status.stdout).context("read the pids of the plant")?;
        Ok(document.pids.remove(group).unwrap_or_default())
    }

    /// How often a text stands in the logs of a service.
    pub fn told(&self, service: &str, text: &str) -> usize {
        let logs = std::fs::read_dir(self.folder.join("logs")).into_iter().flatten().flatten();
        let of_service = logs.filter(|log| log.file_name().to_string_lossy().starts_with(service));
        let texts = of_service.filter_map(|log| std::fs::read(log.path()).ok());
        texts.map(|log| String::from_utf8_lossy(&log).matches(text).count()).sum()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let mut rig = Command::new(&self.program);
        rig.args(["plant", "down", "--folder"]).arg(&self.folder).stdin(Stdio::null());
        if !rig.status().is_ok_and(|status| status.success()) {
            eprintln!("torture: the plant in {} could not be stopped", self.folder.display());
        }
    }
}

/// Sends a signal; that the process has ended already is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
