//! One process of the rig: how it is started, whether it still is the one that was started, and how it ends.
//!
//! Does not know what the process is for. A pid alone names nobody for long, so each is kept with the start time the kernel gives it.

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Everything needed to start a process, and to start it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Unique within the rig, `kafka-1`; names the log too.
    pub name: String,
    /// What the document lists it under, `kafka`.
    pub group: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it is given beside the environment of the rig.
    pub env: BTreeMap<String, String>,
    /// Both its outputs are appended here.
    pub log: PathBuf,
    /// The user it runs as where that is not the rig's own.
    pub user: Option<User>,
    /// PostgreSQL's data folder: a dead postmaster leaves servers and a pid file behind that keep the next one from starting.
    pub cluster: Option<PathBuf>,
}

/// A user by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A process that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its number.
    pub pid: i32,
    /// Clock ticks between the machine's boot and its start.
    pub started: u64,
}

impl Recipe {
    /// Starts it, holding none of the rig's own inputs and outputs and outside the terminal's foreground group.
    pub fn start(&self) -> Result<Running> {
        if let Some(cluster) = &self.cluster {
            clear_cluster(cluster);
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(&self.env).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        Running::of(child.id().cast_signed()).with_context(|| format!("{} was gone at once", self.name))
    }

    /// The last lines of its log, for a person who asks why it died.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Running {
    /// The process that has this number at present.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.1 })
    }

    /// Whether it still runs. One that ended but was not waited for does not.
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started && state != 'Z' && state != 'X')
    }

    /// A handle that becomes readable when it ends; none when it has.
    pub fn handle(self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Opened first and asked after: the handle cannot be one of a later process with the same number.
        self.alive().then_some(handle)
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.alive()) {
            // It may end between the question and the signal, which is what was wanted.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until it has ended; false when it has not by then.
    pub fn ended_within(self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while let Some(handle) = self.handle() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            wait_readable(&[&handle], left);
        }
        true
    }
}

/// Ends all of them: a request, patience, then force. One that was stopped is woken, so that it can hear the request.
pub fn end(all: &[Running], request: Signal, patience: Duration) {
    for running in all {
        running.signal(request);
        running.signal(Signal::CONT);
    }
    let until = Instant::now() + patience;
    let left = || until.saturating_duration_since(Instant::now());
    let late: Vec<&Running> = all.iter().filter(|running| !running.ended_within(left())).collect();
    kill(late.into_iter().copied());
}

/// Ends all of them by force.
pub fn kill(all: impl Iterator<Item = Running>) {
    let all: Vec<Running> = all.inspect(|running| running.signal(Signal::KILL)).collect();
    for running in all {
        // The kernel ends it as soon as it can; there is nothing more to be done about one that hangs in the kernel.
        running.ended_within(Duration::from_secs(10));
    }
}

/// Waits until one of the handles is readable, at most so long; which of them are.
pub fn wait_readable(handles: &[&OwnedFd], limit: Duration) -> Vec<bool> {
    let mut polled: Vec<PollFd> = handles.iter().map(|handle| PollFd::new(handle, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) };
    // An interrupted wait tells of nothing; the callers ask again.
    let _ = poll(&mut polled, Some(&limit));
    polled.iter().map(|polled| !polled.revents().is_empty()).collect()
}

/// Runs a command to its end; its output, or an error that carries what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("run {}", command.get_program().display()))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        let words = [said(&output.stdout), said(&output.stderr)].join("\n");
        anyhow::bail!("{} {}: {}", command.get_program().display(), ending(output.status), words.trim());
    }
    Ok(said(&output.stdout))
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

/// Makes a data folder ready for a new postmaster after one that was killed: ends the servers it left behind, which hold its shared
/// memory, and removes its pid file. Nothing is touched while a postmaster lives.
pub fn clear_cluster(data: &Path) {
    let pid_file = data.join("postmaster.pid");
    let written = fs::read_to_string(&pid_file).ok();
    let postmaster = written.as_deref().and_then(|text| text.lines().next()?.trim().parse().ok()).and_then(Running::of);
    if postmaster.is_some_and(|postmaster| postmaster.alive() && works_in(postmaster.pid, data)) {
        return;
    }
    let orphans: Vec<Running> = pids().filter(|pid| works_in(*pid, data)).filter_map(Running::of).collect();
    kill(orphans.into_iter());
    // Absent is what is wanted.
    let _ = fs::remove_file(pid_file);
}

/// Every server of a cluster has the data folder as its working folder.
fn works_in(pid: i32, folder: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// State letter and start time of a process. The name between brackets may itself hold brackets and blanks.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start_time() {
        let own = Running::of(std::process::id().cast_signed()).unwrap();
        assert!(own.alive());
        assert!(!Running { started: own.started + 1, ..own }.alive(), "a later process with its number is another one");
    }

    #[test]
    fn one_that_was_not_waited_for_has_ended() {
        let child = Command::new("true").spawn().unwrap();
        let running = Running { pid: child.id().cast_signed(), started: 0 };
        let running = Running::of(running.pid).unwrap_or(running);
        assert!(running.ended_within(Duration::from_secs(5)));
        assert!(!running.alive());
        drop(child);
    }

    #[test]
    fn a_stopped_process_that_ignores_requests_is_ended() {
        let mut child = Command::new("sh").args(["-c", "trap '' TERM; while :; do sleep 1; done"]).spawn().unwrap();
        let running = Running::of(child.id().cast_signed()).unwrap();
        running.signal(Signal::STOP);
        assert!(running.alive());
        end(&[running], Signal::TERM, Duration::from_millis(100));
        assert!(!running.alive());
        child.wait().unwrap();
    }
}
