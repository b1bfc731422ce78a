//! The engines that tests ask for, and the environment that tells tests where they are.

use crate::{
    certificates::Certificates,
    engines::{Setup, connect, jars::Jars, kafka, postgres, redis, registry},
    folder::{Draft, Folder, State},
    process::{Running, clear_cluster, end, kill},
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::process::Signal;
use std::{fmt::Write as _, fs, path::Path, thread, time::Duration};

/// An engine, as `--only` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Engine {
    /// Both clusters.
    Postgres,
    /// The single server.
    Redis,
    /// Three masters.
    RedisCluster,
    /// One broker or three.
    Kafka,
    /// Kafka Connect with Debezium; needs Kafka and PostgreSQL.
    Connect,
    /// Apicurio.
    Registry,
}

/// How long our own processes may take to stop: a little more than they give themselves.
const GRACE: Duration = Duration::from_secs(12);

/// Groups of processes, with the variable that tells tests where each answers; over TLS, and the folder of its certificates.
const VARIABLES: [(&str, &str); 11] = [
    ("kafka", "MILLWRIGHT_TEST_KAFKA"),
    ("kafka_tls", "MILLWRIGHT_TEST_KAFKA_TLS"),
    ("postgres_main", "MILLWRIGHT_TEST_POSTGRES_MAIN"),
    ("postgres_ai", "MILLWRIGHT_TEST_POSTGRES_AI"),
    ("redis", "MILLWRIGHT_TEST_REDIS"),
    ("redis_tls", "MILLWRIGHT_TEST_REDIS_TLS"),
    ("redis_cluster", "MILLWRIGHT_TEST_REDIS_CLUSTER"),
    ("redis_cluster_tls", "MILLWRIGHT_TEST_REDIS_CLUSTER_TLS"),
    ("connect", "MILLWRIGHT_TEST_CONNECT"),
    ("registry", "MILLWRIGHT_TEST_REGISTRY"),
    ("tls", "MILLWRIGHT_TEST_TLS"),
];

/// Starts what is asked for and not yet there; what was started before and died comes back with its data.
pub fn start(folder: &Folder, jars: &Jars, brokers: u16, engines: &[Engine]) -> Result<State> {
    let _lock = folder.lock()?;
    if folder.load()?.processes.is_empty() {
        folder.clear_logs()?;
    }
    let draft = Draft::load(folder)?;
    let certificates = Certificates::of(folder)?;
    draft.change(|state| state.addresses.insert("tls".to_owned(), certificates.folder().display().to_string()))?;
    start_engines(Setup { draft: &draft, jars, brokers, durable: false, tls: Some(&certificates) }, engines)?;
    Ok(draft.state())
}

type Start = fn(Setup) -> Result<()>;

/// What starts at the same time; Connect comes after them.
const STARTS: [(Engine, &str, Start); 6] = [
    (Engine::Kafka, "Kafka", kafka::start),
    (Engine::Postgres, "PostgreSQL", |setup| postgres::start(setup, "postgres_main")),
    (Engine::Postgres, "PostgreSQL for AI", |setup| postgres::start(setup, "postgres_ai")),
    (Engine::Redis, "Redis", redis::start),
    (Engine::RedisCluster, "the Redis cluster", redis::start_cluster),
    (Engine::Registry, "the registry", registry::start),
];

/// Starts engines, and waits until all answer.
pub fn start_engines(setup: Setup, engines: &[Engine]) -> Result<()> {
    let connect = engines.contains(&Engine::Connect);
    let wanted = |engine| engines.contains(&engine) || connect && matches!(engine, Engine::Postgres | Engine::Kafka);
    let failed: Vec<String> = thread::scope(|scope| {
        let starts = STARTS.iter().filter(|(engine, ..)| wanted(*engine));
        let threads: Vec<_> = starts.map(|(_, name, start)| (name, scope.spawn(move || start(setup)))).collect();
        let ended = threads.into_iter().map(|(name, thread)| (name, thread.join().expect("a start does not panic")));
        ended.filter_map(|(name, result)| Some(format!("start {name}: {:#}", result.err()?))).collect()
    });
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    if connect { connect::start(setup).context("start Kafka Connect") } else { Ok(()) }
}

/// Fetches what the engines need from Maven Central.
pub fn fetch(jars: &Jars, engines: &[Engine]) -> Result<()> {
    if engines.contains(&Engine::Kafka) || engines.contains(&Engine::Connect) {
        jars.libraries("kafka")?;
    }
    if engines.contains(&Engine::Connect) {
        jars.libraries("connect")?;
        jars.unpacked("debezium")?;
    }
    if engines.contains(&Engine::Registry) {
        jars.unpacked("registry")?;
    }
    Ok(())
}

/// Stops everything and removes its data; the logs stay.
pub fn stop(folder: &Folder) -> Result<usize> {
    let _lock = folder.lock()?;
    let state = folder.load()?;
    // Under the lock it is not in the middle of a start that the state does not know of.
    kill(state.supervisor.into_iter());
    let alive = || state.processes.iter().filter(|process| process.running.alive());
    let count = alive().count();
    let ours: Vec<Running> =
        alive().filter(|process| !is_engine(&process.recipe.group)).map(|process| process.running).collect();
    end(&ours, Signal::TERM, GRACE);
    // The engines' data goes too, so they need not leave it tidy.
    kill(alive().map(|process| process.running));
    for data in state.processes.iter().filter_map(|process| process.recipe.cluster.as_ref()) {
        clear_cluster(data);
        fs::remove_dir_all(data).with_context(|| format!("remove {}", data.display()))?;
    }
    folder.clear()?;
    Ok(count)
}

fn is_engine(group: &str) -> bool {
    VARIABLES.iter().any(|(engine, _)| *engine == group)
}

/// The environment of the tests, as lines for a shell to evaluate: where engines answer, and the rig that kills and starts them.
pub fn environment(state: &State, rig: &Path, folder: &Folder) -> String {
    let known = |(group, variable): &(&str, &'static str)| Some((*variable, state.addresses.get(*group)?.clone()));
    let own = [("MILLWRIGHT_TEST_RIG", rig.to_owned()), ("MILLWRIGHT_SERVICES", folder.at(""))];
    let own = own.map(|(variable, path)| (variable, path.display().to_string()));
    VARIABLES.iter().filter_map(known).chain(own).fold(String::new(), |mut text, (variable, value)| {
        let _ = writeln!(text, "export {variable}='{value}'");
        text
    })
}

/// A line for each process: name, pid, where it answers.
pub fn table(state: &State) -> String {
    if state.processes.is_empty() {
        return "nothing runs\n".to_owned();
    }
    state.processes.iter().fold(String::new(), |mut text, process| {
        let alive = if process.running.alive() { process.running.pid.to_string() } else { "down".to_owned() };
        let address = state.addresses.get(&process.recipe.group).map_or("", String::as_str);
        let _ =
            writeln!(text, "{:<16} {alive:>8}  {:>5} MB  {address}", process.recipe.name, memory_mb(process.running));
        text
    })
}

fn memory_mb(running: Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<u64>().ok());
    resident.filter(|_| running.alive()).unwrap_or_default() / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_what_runs_and_nothing_else() {
        let mut state = State::default();
        state.addresses.insert("kafka".to_owned(), "127.0.0.1:1,127.0.0.1:2".to_owned());
        state.addresses.insert("portal".to_owned(), "http://127.0.0.1:3".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let environment = environment(&state, Path::new("/bin/rig"), &Folder::open(folder.path()).unwrap());
        let lines: Vec<&str> = environment.lines().collect();
        assert_eq!(
            lines[..2],
            ["export MILLWRIGHT_TEST_KAFKA='127.0.0.1:1,127.0.0.1:2'", "export MILLWRIGHT_TEST_RIG='/bin/rig'"]
        );
        assert!(lines.len() == 3 && lines[2].starts_with("export MILLWRIGHT_SERVICES='/"), "{environment}");
    }
}
