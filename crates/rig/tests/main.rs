//! The rig as its callers see it. A script stands in for the product; engines take part where the tests' environment names some.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PRODUCT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/product");

/// A plant in a folder of its own, taken down at the end.
struct Plant {
    folder: TempDir,
}

impl Plant {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL's own user goes through it.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rig"));
        command.current_dir(ROOT).env("MILLWRIGHT_PLANT", self.at("plant")).env("MILLWRIGHT_BIN", PRODUCT);
        command.args(["plant", "--output", "json"]).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it, and reads the document it prints.
    fn document(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn pids(&self, group: &str) -> Vec<i64> {
        let document = self.document(&["status"]);
        document["pids"][group].as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect()
    }

    /// Kills the first of a group in the given ways, one after the other; how long until another has taken its place.
    fn replaced(&self, group: &str, signals: &[&str]) -> Duration {
        let before = self.pids(group);
        for signal in signals {
            send(signal, before[0]);
        }
        let begun = Instant::now();
        loop {
            let now = self.pids(group);
            if now.len() == before.len() && now != before {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{group} did not come back");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.at("plant/millwright.toml.calls")).unwrap_or_default();
        calls.lines().map(|line| line.split(" --config").next().unwrap().to_owned()).collect()
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

fn send(signal: &str, pid: i64) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

fn exists(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Whether the process holds one of these files open.
fn holds(pid: i64, files: &[PathBuf]) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| files.contains(&target))
}

#[test]
fn a_plant_comes_up_is_described_and_goes_down() {
    let plant = Plant::new();
    let document =
        plant.document(&["up", "--leave-out", "engines", "--ingestors", "2", "--detectors", "3", "--brokers", "3"]);
    let keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["connect", "kafka", "pids", "portal", "postgres_ai", "postgres_main", "redis"]);
    assert!(document["portal"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    let pids = document["pids"].as_object().unwrap();
    let counts: Vec<(&str, usize)> =
        pids.iter().map(|(group, pids)| (group.as_str(), pids.as_array().unwrap().len())).collect();
    let expected = [
        ("connect", 0),
        ("detect", 3),
        ("ingest", 2),
        ("kafka", 0),
        ("portal", 1),
        ("postgres_ai", 0),
        ("postgres_main", 0),
        ("redis", 0),
        ("relay", 1),
    ];
    assert_eq!(counts, expected);
    assert_eq!(plant.document(&["status"]), document);
    let calls = plant.calls();
    assert_eq!(calls[..2], ["db migrate", "topics apply"]);
    assert_eq!(calls.iter().filter(|call| *call == "detect").count(), 3);

    let again = plant.run(&["up", "--leave-out", "engines"]);
    assert!(!again.status.success(), "a second plant in the same folder is refused");

    // Without supervision what died stays away, and the document says so.
    let ingest = plant.pids("ingest");
    send("KILL", ingest[0]);
    while plant.pids("ingest").len() == 2 {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(plant.pids("ingest"), ingest[1..]);
    send("STOP", ingest[1]);
    assert!(plant.run(&["down"]).status.success());
    assert!(!exists(ingest[1]), "a stopped process is taken down too");
    assert!(plant.run(&["down"]).status.success(), "there may be nothing to take down");
    assert_eq!(plant.document(&["status"])["pids"]["ingest"], Value::Array(Vec::new()));
}

#[test]
fn debezium_stands_in_for_the_relay() {
    let plant = Plant::new();
    let document = plant.document(&["up", "--leave-out", "engines", "--relay", "debezium", "--simulate"]);
    assert_eq!(document["pids"]["relay"], Value::Array(Vec::new()));
    assert_eq!(document["pids"]["simulate"].as_array().unwrap().len(), 1);
    assert!(fs::read_to_string(plant.at("plant/millwright.toml")).unwrap().contains("kind = \"debezium\""));
}

#[test]
fn a_supervised_process_is_back_within_half_a_second_however_often_it_dies() {
    let plant = Plant::new();
    let files = [plant.at("stdout"), plant.at("stderr")];
    let [stdout, stderr] = files.clone().map(|path| fs::File::create(path).unwrap());
    let mut up = plant.command(&["up", "--leave-out", "engines", "--supervise"]);
    assert!(up.stdout(stdout).stderr(stderr).status().unwrap().success());

    let state: Value = serde_json::from_slice(&fs::read(plant.at("plant/state.json")).unwrap()).unwrap();
    let supervisor = state["supervisor"]["pid"].as_i64().unwrap();
    let session = fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
    let session = session.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, supervisor.to_string(), "it has a session of its own");
    for pid in [supervisor, plant.pids("portal")[0], plant.pids("detect")[0]] {
        assert!(!holds(pid, &files), "{pid} holds an output of `up`");
    }

    let portal = plant.document(&["status"])["portal"].clone();
    for signals in [&["KILL"][..], &["STOP", "KILL"], &["TERM"], &["KILL"], &["KILL"]] {
        let took = plant.replaced("portal", signals);
        assert!(took < Duration::from_millis(500), "{signals:?}: {took:?}");
    }
    assert_eq!(plant.document(&["status"])["portal"], portal, "on the same port");
    let replaced = plant.pids("portal")[0];
    assert!(!holds(replaced, &files));

    assert!(plant.run(&["down"]).status.success());
    assert!(!exists(replaced) && !exists(supervisor));
}

#[test]
fn a_service_that_cannot_start_is_told_and_leaves_nothing_behind() {
    for (words, message) in [("topics", "asked to fail"), ("portal", "portal-1 died: asked to fail")] {
        let plant = Plant::new();
        let output = plant.command(&["up", "--leave-out", "engines"]).env("STUB_FAILS", words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{words}: {error}");
        assert!(!Path::new(&plant.at("plant/state.json")).exists());
    }
}

#[test]
fn killed_engines_come_back_with_their_data() {
    if env::var_os("MILLWRIGHT_TEST_POSTGRES_MAIN").is_none() || env::var_os("MILLWRIGHT_TEST_KAFKA").is_none() {
        assert!(env::var_os("MILLWRIGHT_TEST_REQUIRED").is_none(), "MILLWRIGHT_TEST_POSTGRES_MAIN is not set");
        println!("skipped: MILLWRIGHT_TEST_POSTGRES_MAIN is not set (./dev services start)");
        return;
    }
    let plant = Plant::new();
    let at = plant.document(&["up", "--leave-out", "product", "--supervise"]);
    let sql = |group: &str, statement: &str| {
        let output = Command::new("psql").args(["-XAtc", statement, at[group].as_str().unwrap()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let redis = |words: &[&str]| {
        let output =
            Command::new("redis-cli").args(["-u", at["redis"].as_str().unwrap()]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let eventually = |what: &str, holds: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come back");
            thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(redis(&["set", "key", "kept"]), "OK");
    for group in ["postgres_main", "postgres_ai"] {
        assert_eq!(sql(group, "create table kept as select 7 as value"), "SELECT 1");
        // A session at work, and a stopped one, outlive their postmaster and hold its shared memory.
        let busy = "begin; lock table kept; select count(*) from generate_series(1, 1000000000)";
        let url = at[group].as_str().unwrap();
        let mut sessions = [(); 2].map(|()| Command::new("psql").args(["-XAtqc", busy, url]).spawn().unwrap());
        let servers = "select pid from pg_stat_activity where query like 'begin; lock%' and pid <> pg_backend_pid()";
        eventually("the session", &|| sql(group, servers).lines().count() == 2);
        send("STOP", sql(group, servers).lines().next().unwrap().parse().unwrap());
        assert!(plant.replaced(group, &["KILL"]) < Duration::from_millis(500));
        eventually(group, &|| sql(group, "select value from kept") == "7");
        for session in &mut sessions {
            assert!(!session.wait().unwrap().success());
        }
    }
    assert!(plant.replaced("redis", &["STOP", "KILL"]) < Duration::from_millis(500));
    eventually("redis", &|| redis(&["get", "key"]) == "kept");
    assert!(plant.replaced("kafka", &["KILL"]) < Duration::from_millis(500));
}
