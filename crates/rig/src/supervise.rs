//! Restarts what dies, engines too: at once, as often as it takes, on the same ports and data.

use crate::{engines::connect, folder::Folder, process::wait_readable};
use anyhow::{Context, Result};
use rustix::process::{WaitOptions, setsid, wait};
use std::{
    collections::BTreeMap,
    process, thread,
    time::{Duration, Instant},
};

/// Between two starts of the same process; it never grows.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until it is killed, or until the state names another supervisor or none.
pub fn run(folder: &Folder) -> Result<()> {
    setsid().context("leave the session")?;
    let own_pid = process::id().cast_signed();
    let mut tried: BTreeMap<String, Instant> = BTreeMap::new();
    let mut mender = None;
    loop {
        // Held while something is started and noted: who takes the plant down waits for that and then knows of it.
        let lock = folder.lock()?;
        let mut state = folder.load()?;
        if state.supervisor.map(|supervisor| supervisor.pid) != Some(own_pid) {
            return Ok(());
        }
        let mut waiting = false;
        for index in 0..state.processes.len() {
            let process = &mut state.processes[index];
            if process.running.alive() {
                continue;
            }
            if tried.get(&process.recipe.name).is_some_and(|at| at.elapsed() < PAUSE) {
                waiting = true;
                continue;
            }
            tried.insert(process.recipe.name.clone(), Instant::now());
            match process.recipe.start() {
                Ok(running) => {
                    eprintln!("restarted {} as {}", process.recipe.name, running.pid);
                    process.running = running;
                    folder.save(&state)?;
                }
                Err(error) => eprintln!("restart {}: {error:#}", process.recipe.name),
            }
        }
        drop(lock);
        if let Some(address) = state.addresses.get("connect").filter(|_| mender.is_none()) {
            mender = Some(mend(address.clone()));
        }
        let handles: Vec<_> = state.processes.iter().filter_map(|process| process.running.handle()).collect();
        // One that died since it was looked at has no handle.
        let all_alive = !waiting && handles.len() == state.processes.len();
        let limit = if all_alive { Duration::from_secs(1) } else { Duration::from_millis(20) };
        wait_readable(&handles.iter().collect::<Vec<_>>(), limit);
        reap();
    }
}

fn mend(address: String) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        loop {
            connect::mend(&address);
            thread::sleep(Duration::from_secs(1));
        }
    })
}

/// Lets go of children that ended.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
