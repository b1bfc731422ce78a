//! `millwright doctor` on real engines: MILLWRIGHT_TEST_KAFKA, _POSTGRES_MAIN, _POSTGRES_AI, _REDIS.

use crate::run::{failure, file, millwright};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

/// What the environment names; where it does not, says so (and fails where it must).
fn engine(name: &str) -> Option<String> {
    let variable = format!("MILLWRIGHT_TEST_{name}");
    let Ok(address) = std::env::var(&variable) else {
        assert!(std::env::var_os("MILLWRIGHT_TEST_REQUIRED").is_none(), "{variable} is not set");
        println!("skipped: {variable} is not set (./dev services start)");
        return None;
    };
    Some(address)
}

/// A loopback port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn configuration(folder: &tempfile::TempDir, kafka: &str, main: &str, ai: &str, redis: &str) -> String {
    let text = format!(
        "[portal]\nport = {}\n[bus]\nkind = \"kafka\"\nbrokers = \"{kafka}\"\n[postgres]\nmain = \"{main}\"\nai = \"{ai}\"\n\
         [redis]\nurl = \"{redis}\"\n",
        closed_port()
    );
    file(folder, "plant.toml", &text)
}

/// Exit code and checks.
fn doctor(config: &str) -> (i32, Vec<Value>) {
    let output = millwright(["doctor", "--config", config, "--output", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let failed = document["checks"].as_array().unwrap().iter().filter(|check| check["state"] == "fail").count();
    assert_eq!((document["failed"].as_u64(), document["ok"].as_bool()), (Some(failed as u64), Some(failed == 0)));
    assert_eq!(output.status.code(), Some(if failed == 0 { 0 } else { 4 }), "{document}");
    (output.status.code().unwrap(), document["checks"].as_array().unwrap().clone())
}

#[track_caller]
fn line<'a>(checks: &'a [Value], check: &str) -> &'a Value {
    checks.iter().find(|line| line["check"] == check).unwrap_or_else(|| panic!("no {check}: {checks:#?}"))
}

/// A broker as a wrong advertised.listeners makes it: what it says of its own address leads to a port where nobody is.
fn misnamed(broker: &str, nobody: u16) -> String {
    let (host, port) = broker.rsplit_once(':').unwrap();
    let named = |port: u16| [host.as_bytes(), &i32::from(port).to_be_bytes()].concat();
    let (from, to) = (named(port.parse().unwrap()), named(nobody));
    let broker = broker.to_owned();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, TcpStream::connect(&broker)) else { return };
            let (mut asks, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut asks, &mut asked);
                let _ = asked.shutdown(Shutdown::Write);
            });
            let (from, to) = (from.clone(), to.clone());
            thread::spawn(move || {
                // An answer is its length, then so many bytes.
                let mut length = [0; 4];
                while server.read_exact(&mut length).is_ok() {
                    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
                    server.read_exact(&mut answer).unwrap();
                    for at in 0..=answer.len().saturating_sub(from.len()) {
                        if answer[at..].starts_with(&from) {
                            answer[at..at + to.len()].copy_from_slice(&to);
                        }
                    }
                    if client.write_all(&[&length[..], &answer].concat()).is_err() {
                        return;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn real_engines_are_looked_at() {
    let engines = ["KAFKA", "POSTGRES_MAIN", "POSTGRES_AI", "REDIS"].map(engine);
    let [Some(kafka), Some(main), Some(ai), Some(redis)] = engines else { return };
    let folder = tempfile::tempdir().unwrap();

    let (_, checks) = doctor(&configuration(&folder, &kafka, &main, &ai, &redis));
    for check in
        ["kafka", "kafka advertised.listeners", "kafka groups", "postgres.main", "postgres.ai", "postgres.ai wal_level"]
    {
        assert_eq!(line(&checks, check)["state"], "ok", "{checks:#?}");
    }
    assert_eq!(line(&checks, "kafka groups")["says"], "the newer protocol (KIP-848) is in use");
    let node = checks.iter().find(|line| line["check"].as_str().unwrap().starts_with("redis ")).unwrap();
    assert_eq!(node["state"], "ok");
    // In the databases of this name nobody has made our tables; the topics are there or not.
    for check in ["postgres.main tables", "postgres.ai tables"] {
        let tables = line(&checks, check);
        assert_eq!(
            (&tables["state"], &tables["next"]),
            (&"fail".into(), &"`millwright db migrate`, also while everything runs".into())
        );
    }
    let topic = line(&checks, "topic sensor-raw-data");
    assert!(topic["state"] == "ok" || topic["next"].as_str().unwrap().contains("topics apply"), "{topic}");

    // The classic mistake.
    let (one, nobody) = (kafka.split(',').next().unwrap(), closed_port());
    let bootstrap = misnamed(one, nobody);
    let (code, checks) = doctor(&configuration(&folder, &bootstrap, &main, &ai, &redis));
    assert_eq!(code, 4);
    let listeners = line(&checks, "kafka advertised.listeners");
    let says = listeners["says"].as_str().unwrap();
    assert!(says.starts_with(&format!("{bootstrap} answers")) && says.contains(&format!(":{nobody}")), "{says}");
    assert!(listeners["next"].as_str().unwrap().starts_with("set advertised.listeners of broker"), "{listeners}");
}

#[test]
fn engines_that_are_away_are_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let port = closed_port();
    let url = format!("postgresql://plant:geheim@127.0.0.1:{port}/plant");
    let config = configuration(&folder, &format!("127.0.0.1:{port}"), &url, &url, &format!("redis://127.0.0.1:{port}"));
    let (_, checks) = doctor(&config);
    for check in ["kafka", "postgres.main", "postgres.ai"] {
        assert_eq!(line(&checks, check)["state"], "fail", "{checks:#?}");
    }
    assert_eq!(line(&checks, "portal")["state"], "ok");
    let output = millwright(["doctor", "--config", &config]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("FAIL  kafka: nobody accepts connections at 127.0.0.1:{port}")), "{text}");
    assert!(text.lines().count() == checks.len() && !text.contains("geheim"), "{text}");
    let (code, said) = failure(["doctor", "--config", &config]);
    assert!(code == 4 && said.contains("MW-0065") && said.contains("4 of 5 checks failed"), "{code} {said}");
    let (code, said) = failure(["doctor"]);
    assert!(code == 3 && said.contains("bus.kind is embedded"), "{code} {said}");
}
