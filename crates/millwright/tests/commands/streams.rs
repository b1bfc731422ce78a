//! `millwright simulate`, `replay` and `health`.

use crate::run::{data, failure, file, json, millwright};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Command, Stdio},
    thread::JoinHandle,
};

fn lines(output: &[u8]) -> Vec<Value> {
    output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn a_seed_gives_the_same_readings() {
    let run = |seed: &str| {
        millwright(["simulate", "--machines", "3", "--seconds", "5", "--start", "2025-01-01T00:00:00Z", "--seed", seed])
            .stdout
    };
    let first = run("7");
    assert_eq!(first, run("7"));
    assert_ne!(first, run("8"));
    let readings = lines(&first);
    assert_eq!(readings.len(), 15);
    assert_eq!(readings[14]["timestamp"], "2025-01-01T00:00:04Z");
    assert!(readings.iter().all(|reading| reading["rpm"].is_u64() && reading["class"].is_null()));
}

#[test]
fn a_profile_shows() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("readings.jsonl");
    let to = to.to_str().unwrap();
    let run = ["simulate", "--machines", "2", "--seconds", "60", "--to", to];
    let (summary, _) = json(run.into_iter().chain(["--class", "pump", "--profile", "dry_run"]));
    assert_eq!((&summary["readings"], &summary["class"]), (&json!(120), &json!("pump")));
    let (report, _) = json(["evaluate", "--class", "pump", "--readings", to]);
    assert!(report["anomalies"].as_u64().unwrap() > 80, "{report}");
    json(run.into_iter().chain(["--class", "pump"]));
    assert_eq!(json(["evaluate", "--class", "pump", "--readings", to]).0["anomalies"], json!(0));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_millwright"))
        .args(["simulate", "--machines", "1000", "--seconds", "1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"machine_id\":"));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_is_replayed_as_json_lines() {
    let (class, readings) = (data("compressor.toml"), data("compressor.csv"));
    let output = millwright(["replay", &readings, "--class", &class, "--time-zone", "Asia/Seoul"]);
    let readings = lines(&output.stdout);
    assert_eq!(readings.len(), 800);
    assert_eq!(
        (&readings[0]["machine_id"], &readings[0]["timestamp"]),
        (&json!("C-1"), &json!("2025-02-28T21:00:00Z"))
    );
    assert_eq!((&readings[1]["cooling"], &readings[1]["class"]), (&json!("water"), &json!("compressor")));

    let output = millwright(["replay", &data("mill.csv"), "--machine", "press-7", "--interval", "1m"]);
    let readings = lines(&output.stdout);
    assert_eq!(
        (&readings[797]["machine_id"], &readings[797]["timestamp"]),
        (&json!("press-7"), &json!("2020-01-01T13:17:00Z"))
    );
    // Replaying what was replayed changes nothing.
    let folder = tempfile::tempdir().unwrap();
    let copy = file(&folder, "copy.jsonl", std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(millwright(["replay", &*copy]).stdout, output.stdout);
}

#[test]
fn one_name_does_not_fit_two_machines() {
    let (class, readings) = (data("compressor.toml"), data("compressor.csv"));
    let (code, said) = failure(["replay", &readings, "--class", &class, "--machine", "press-7"]);
    assert!(code == 2 && said.contains("more than one machine, C-1 and C-2"), "{code} {said}");
}

#[test]
fn readings_keep_their_distance() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data("mill.csv")).unwrap();
    let few: Vec<&str> = text.lines().take(4).collect();
    let begun = std::time::Instant::now();
    let output = millwright(["replay", &file(&folder, "few.csv", &few.join("\n")), "--speed", "10"]);
    assert_eq!(lines(&output.stdout).len(), 3);
    assert!(begun.elapsed().as_millis() >= 190, "two seconds at ten times the speed");
}

/// An instance that gives these answers, one a connection, and returns the bodies that it was sent.
fn instance(answers: &'static [&'static str]) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let mut bodies = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            bodies.push(String::from_utf8(body).unwrap());
            let (head, body) = answer.split_once('|').unwrap();
            let length = body.len();
            write!(stream.get_mut(), "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
                .unwrap();
        }
        bodies
    };
    (url, std::thread::spawn(serve))
}

#[test]
fn a_busy_instance_is_asked_again() {
    let (url, bodies) = instance(&[
        "503 Service Unavailable\r\nretry-after: 0|{}",
        "429 Too Many Requests\r\nretry-after: 0|{}",
        "202 Accepted|{\"accepted\":9,\"rejected\":1,\"errors\":[]}",
    ]);
    let (summary, _) =
        json(["simulate", "--machines", "2", "--seconds", "5", "--start", "2025-01-01T00:00:00Z", "--to", &url]);
    assert_eq!((&summary["readings"], &summary["rejected"]), (&json!(10), &json!(1)));
    let bodies = bodies.join().unwrap();
    assert!(bodies[0] == bodies[2] && lines(bodies[2].as_bytes()).len() == 10);
}

#[test]
fn a_refusal_of_the_instance_is_told() {
    let (url, _bodies) =
        instance(&["413 Payload Too Large|{\"title\":\"too large\",\"detail\":\"a body may have 1 byte\"}"]);
    let (code, said) = failure(["replay", &data("mill.csv"), "--to", &url]);
    assert!(code == 1 && said.contains("413") && said.contains("a body may have 1 byte"), "{code} {said}");
}

#[test]
fn health_is_asked_of_an_instance() {
    let (url, _bodies) = instance(&["200 OK|ok", "503 Service Unavailable|the bus is not open yet"]);
    assert_eq!(json(["health", &url]).0, json!({ "url": url, "ready": true, "status": 200 }));
    let (code, said) = failure(["health", &url]);
    assert!(code == 1 && said.contains("not ready") && said.contains("the bus is not open yet"), "{code} {said}");
    for command in [vec!["health"], vec!["replay", &data("mill.csv"), "--to"]] {
        let (code, said) = failure(command.into_iter().chain(["http://127.0.0.1:1"]));
        assert!(code == 4 && said.contains("MW-0040") && said.contains("millwright up"), "{code} {said}");
    }
}
