//! `millwright up`, as a newcomer and as an operator meet it.

use crate::product::{Up, millwright, run, wait_for};
use serde_json::Value;
use std::process::Stdio;

/// A class of a user's own: other channels, other laws, no line of code.
const COMPRESSOR: &str = r#"
[class]
id = "compressor"
name = { en = "Screw compressor", ko = "스크루 압축기" }

[[parameter]]
id = "p_max"
default = 9.5
unit = "bar"
range = [1, 20]

[[channel]]
id = "outlet_bar"
unit = "bar"
scale = 2
range = [0, 40]
adjust = "set"
name = { en = "Outlet pressure", ko = "토출 압력" }

[[channel]]
id = "oil_temp_c"
unit = "degC"
scale = 1
range = [-40, 250]
name = { en = "Oil temperature", ko = "오일 온도" }

[[law]]
id = "overpressure"
failure_type = "Overpressure"
severity = "critical"
all = [{ quantity = "outlet_bar", above = "p_max" }]
off_delay = "5s"
name = { en = "Overpressure", ko = "과압" }
action = { en = "unload the compressor, check the relief valve", ko = "압축기 무부하 전환, 안전 밸브 점검" }
source = "rule of thumb"
"#;

fn now_us() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64
}

fn raised(up: &Up, failure_type: &str) -> Vec<Value> {
    let alerts = up.pages(&format!("/api/alerts?failure_type={failure_type}"), "alerts");
    alerts.into_iter().filter(|alert| alert["kind"] == "raised").collect()
}

#[test]
fn a_class_of_a_users_own_works_from_reading_to_explained_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compressor.toml");
    std::fs::write(&file, COMPRESSOR).unwrap();
    let mut up = Up::start(&["--no-simulate", "--class", file.to_str().unwrap()]);
    let start = now_us() - 60_000_000;
    let line = |second: i64, bar: f64| {
        let time = wire::format_time(start + second * 1_000_000);
        format!(r#"{{"machine_id":"comp-1","timestamp":"{time}","outlet_bar":{bar},"oil_temp_c":71.3}}"#)
    };
    let body: Vec<String> = (0..10).map(|second| line(second, if second == 7 { 10.25 } else { 8.0 })).collect();
    assert_eq!(up.lines(&body.join("\n"))["accepted"], 10);
    wait_for("alert", || !raised(&up, "Overpressure").is_empty());
    let alert = raised(&up, "Overpressure").remove(0);
    assert_eq!(alert["class"], "compressor");
    assert_eq!(alert["reason"]["terms"][0]["measured"], 10.25);
    assert_eq!(alert["reason"]["terms"][0]["limit"], 9.5);
    let step = &alert["reason"]["counterfactual"][0];
    assert_eq!(step["channel"], "outlet_bar");
    assert!(step["to"].as_f64().unwrap() <= 9.5, "{step}");
    assert!(alert["text"]["ko"].as_str().unwrap().contains("과압"), "{alert}");
    let status = up.get("/api/machines/comp-1/status");
    assert_eq!(status["last_torque"], Value::Null, "the class has no torque");
    assert_eq!(status["values"]["outlet_bar"]["last"], 8.0);
    let logs = up.get("/api/machines/comp-1/logs?limit=100");
    assert_eq!(logs["logs"].as_array().unwrap().len(), 10);
    assert_eq!(logs["logs"][0]["oil_temp_c"], 71.3);

    // A limit of the machine's own takes effect with the next reading, and the alert says whose it is.
    let machine = r#"{"class":"compressor","parameters":{"p_max":7.5},"criticality":"A"}"#;
    let (status, told) = up.request("PUT", "/api/machines/comp-1", "application/json", machine.as_bytes());
    assert_eq!(status, 200, "{told}");
    let (status, told) = up.request(
        "PUT",
        "/api/machines/comp-1",
        "application/json",
        br#"{"class":"compressor","parameters":{"p_maximum":7.5}}"#,
    );
    assert_eq!(status, 422, "{told}");
    assert!(told.contains("p_maximum"), "{told}");
    // The off delay of the first alarm has run out by the last of these.
    let body: Vec<String> = (10..30).map(|second| line(second, if second == 29 { 7.75 } else { 7.0 })).collect();
    up.lines(&body.join("\n"));
    wait_for("second alert", || raised(&up, "Overpressure").len() == 2);
    let alert = raised(&up, "Overpressure").remove(0);
    assert_eq!(alert["reason"]["terms"][0]["limit"], 7.5);
    assert_eq!(alert["reason"]["terms"][0]["limit_source"], "machine");

    // What was set and what was seen outlives a restart.
    let data = up.folder.clone();
    assert_eq!(up.stop(), Some(0));
    let again = Up::start_in(data, &["--no-simulate", "--class", file.to_str().unwrap()]);
    assert_eq!(raised(&again, "Overpressure").len(), 2);
    let machine = again.get("/api/machines/comp-1");
    assert_eq!(machine["parameters"]["p_max"], 7.5, "{machine}");
}

#[test]
fn a_parameter_of_a_machine_whose_readings_name_its_class_outlives_a_restart() {
    let mut up = Up::start(&["--no-simulate"]);
    let line = |ago_s: i64, current: f64| {
        let time = wire::format_time(now_us() - ago_s * 1_000_000);
        format!(
            r#"{{"machine_id":"p-1","class":"pump","timestamp":"{time}","vib_mm_s":1.8,"discharge_bar":5.4,"flow_m3h":100,"motor_current_a":{current},"bearing_temp_c":55}}"#
        )
    };
    assert_eq!(up.lines(&line(100, 36.6))["accepted"], 1);
    wait_for("machine", || up.request("GET", "/api/machines/p-1", "", b"").0 == 200);
    let own = br#"{"parameters":{"i_rated":20}}"#;
    let (status, told) = up.request("PUT", "/api/machines/p-1", "application/json", own);
    assert_eq!(status, 200, "{told}");
    let hash = up.get("/api/machines/p-1")["catalogue_hash"].clone();
    assert!(hash.is_string());
    let data = up.folder.clone();
    assert_eq!(up.stop(), Some(0));
    let again = Up::start_in(data, &["--no-simulate"]);
    assert_eq!(again.get("/api/machines/p-1")["catalogue_hash"], hash);
    // 36.6 A of 20 A is an overload for a minute: of the usual 42 A it would be none.
    let body: Vec<String> = (1..70).rev().map(|ago_s| line(ago_s, 36.6)).collect();
    again.lines(&body.join("\n"));
    wait_for("overload", || !raised(&again, "MotorOverload").is_empty());
    assert_eq!(raised(&again, "MotorOverload")[0]["reason"]["terms"][0]["limit"], 1.2);
}

#[test]
fn an_alarm_of_a_confirmed_machine_reaches_the_webhook() {
    let hook = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millwright.toml");
    let url = format!("http://{}/hook", hook.local_addr().unwrap());
    let config = format!("[[webhooks]]\nname = \"people\"\nurl = \"{url}\"\nallow_private = true\n");
    std::fs::write(&file, config).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in hook.incoming().flatten() {
            let mut reader = std::io::BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") && std::io::BufRead::read_line(&mut reader, &mut head).unwrap() > 0 {
                let last = head.lines().last().unwrap_or_default().to_ascii_lowercase();
                length = last.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            std::io::Read::read_exact(&mut reader, &mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            std::io::Write::write_all(reader.get_mut(), answer).unwrap();
            let _ = told.send((head, serde_json::from_slice::<Value>(&body).unwrap()));
        }
    });
    let up = Up::start(&["--no-simulate", "--config", file.to_str().unwrap()]);
    let line = |ago_s: i64, torque: f64| {
        let time = wire::format_time(now_us() - ago_s * 1_000_000);
        format!(
            r#"{{"machine_id":"machine-001","timestamp":"{time}","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":{torque},"tool_wear_min":5}}"#
        )
    };
    up.lines(&line(2, 42.8));
    wait_for("machine", || up.request("POST", "/api/machines/machine-001/confirm", "application/json", b"{}").0 == 200);
    up.lines(&line(1, 70.0));
    let (head, body) = heard.recv_timeout(crate::product::PATIENCE).unwrap();
    assert!(head.starts_with("POST /hook") && head.to_ascii_lowercase().contains("idempotency-key:"), "{head}");
    assert_eq!(
        (body["machine_id"].as_str(), body["failure_type"].as_str()),
        (Some("machine-001"), Some("PowerFailure"))
    );
}

#[test]
fn local_time_sent_as_utc_is_told_and_an_offset_of_the_source_mends_it() {
    let seconds = now_us() / 1_000_000 * 1_000_000;
    let nine_hours_us = 9 * 3_600_000_000;
    let line = format!(
        r#"{{"machine_id":"m","timestamp":"{}","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5}}"#,
        wire::format_time(seconds + nine_hours_us)
    );
    let mut up = Up::start(&["--no-simulate"]);
    let told = up.lines(&line);
    assert_eq!(told["errors"][0]["error_code"], "local_time", "{told}");
    assert!(told["errors"][0]["error"].as_str().unwrap().contains("clock_offset"), "{told}");
    let letter = up.pages("/api/dead-letters", "dead_letters").remove(0);
    let data = up.folder.clone();
    assert_eq!(up.stop(), Some(0));
    let file = data.join("sources.toml");
    let sources = ["http", "mended"].map(|name| format!("[[sources]]\nname = \"{name}\"\nclock_offset = \"9h\"\n"));
    std::fs::write(&file, sources.concat()).unwrap();
    let again = Up::start_in(data, &["--no-simulate", "--config", file.to_str().unwrap()]);
    let replay = format!("/api/dead-letters/{}/replay", letter["id"].as_str().unwrap());
    let (status, told) = again.request("POST", &replay, "application/json", line.as_bytes());
    assert_eq!(status, 202, "{told}");
    wait_for("reading", || again.ledger()("stored") == 1);
    let logs = again.pages("/api/machines/m/logs", "logs");
    assert_eq!(logs[0]["timestamp"], wire::format_time(seconds));
}

#[test]
fn a_second_start_on_the_same_folder_is_refused_and_says_so() {
    let up = Up::start(&["--no-simulate"]);
    let second =
        millwright().args(["up", "--no-simulate", "--port", "0", "--data-dir"]).arg(&up.folder).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(said.contains(up.folder.to_str().unwrap()) && said.contains("MW-"), "{said}");
    assert_eq!(up.request("GET", "/livez", "", b"").0, 200, "the first one goes on");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let tried = millwright().args(["up", "--no-simulate", "--port", &port, "--data-dir"]).arg(folder.path()).output();
    let tried = tried.unwrap();
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    assert!(!tried.status.success());
    assert!(said.contains(&port) && said.contains("MW-"), "{said}");
}

#[test]
fn a_wrong_setting_names_its_line_and_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millwright.toml");
    std::fs::write(&file, "[portal]\nport = 8080\nprot = 1\n").unwrap();
    let tried = run(&["up", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    assert_eq!(tried.status.code(), Some(3), "{said}");
    assert!(said.contains("millwright.toml:3"), "{said}");
    let tried = run(&["up", "--data-dir", folder.path().to_str().unwrap(), "--class", "mil"]);
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    assert_eq!(tried.status.code(), Some(3), "{said}");
    assert!(said.contains("mill"), "{said}");
    assert!(!folder.path().join("bus.db").exists());
}

#[test]
fn acknowledge_shelve_and_what_is_not_allowed() {
    let mut up = Up::start(&["--no-simulate"]);
    let line = |second: i64, torque: f64| {
        let time = wire::format_time(now_us() / 1_000_000 * 1_000_000 - 60_000_000 + second * 1_000_000);
        format!(
            r#"{{"machine_id":"machine-001","timestamp":"{time}","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":{torque},"tool_wear_min":5}}"#
        )
    };
    let post = |up: &Up, path: &str, body: &str| up.request("POST", path, "application/json", body.as_bytes());
    up.lines(&line(0, 42.8));
    let (status, told) = post(&up, "/api/machines/machine-001/confirm", "{}");
    assert_eq!(status, 200, "{told}");
    up.lines(&line(1, 70.0));
    wait_for("alarm", || !up.pages("/api/alarms", "alarms").is_empty());
    let alarm = up.pages("/api/alarms", "alarms").remove(0);
    assert_eq!((alarm["state"].as_str(), alarm["priority"].as_u64()), (Some("unacknowledged"), Some(2)), "{alarm}");
    let id = alarm["alarm_id"].as_str().unwrap();
    let (status, told) = post(&up, &format!("/api/alarms/{id}/unshelve"), "{}");
    assert_eq!(status, 409, "{told}");
    let (status, told) = post(&up, &format!("/api/alarms/{id}/ack"), r#"{"comment":"on my way"}"#);
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("\"acknowledged\""), "{told}");
    let (status, told) = post(&up, &format!("/api/alarms/{id}/shelve"), r#"{"minutes":10,"reason":"tool on order"}"#);
    assert_eq!(status, 200, "{told}");
    let (status, told) = post(&up, &format!("/api/alarms/{id}/shelve"), r#"{"minutes":10}"#);
    assert!(status == 409 || status == 422, "{status} {told}");
    let (status, _) = post(&up, "/api/alarms/00000000-0000-0000-0000-000000000000/ack", "{}");
    assert_eq!(status, 404);
    // A shelf and its audit outlive kill -9.
    let data = up.folder.clone();
    up.kill();
    let again = Up::start_in(data, &["--no-simulate"]);
    let alarm = again.get(&format!("/api/alarms/{id}"));
    assert_eq!(alarm["state"], "shelved", "{alarm}");
    let audit = again.pages("/api/audit", "audit").iter().map(Value::to_string).collect::<String>();
    assert!(audit.contains("on my way") && audit.contains("tool on order"), "{audit}");
}

#[test]
fn the_seeds_paths_and_the_documents_of_the_api() {
    let up = Up::start(&["--machines", "3", "--rate", "20"]);
    wait_for("readings", || up.ledger()("stored") > 30);
    let (status, told) = up.request("POST", "/train-model", "application/json", b"{}");
    assert_eq!(status, 501, "{told}");
    let (status, told) = up.request("POST", "/simulate/machine-002?profile=power_failure&duration_sec=30", "", b"");
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("machine-002"), "{told}");
    wait_for("alert", || raised(&up, "PowerFailure").iter().any(|alert| alert["machine_id"] == "machine-002"));
    let (status, told) = up.request("POST", "/simulate/machine-002?profile=dry_run&duration_sec=30", "", b"");
    assert_eq!(status, 422, "{told}");
    let (status, told) = up.request("POST", "/simulate/machine-999?profile=stop&duration_sec=30", "", b"");
    assert_eq!(status, 404, "{told}");
    let openapi = up.get("/openapi.json");
    for path in [
        "/api/machines/{machineId}/logs",
        "/api/machines/{machineId}/status",
        "/api/alerts",
        "/train-model",
        "/simulate/{machineId}",
        "/api/readings",
        "/api/ledger",
        "/api/dead-letters",
    ] {
        assert!(openapi["paths"].get(path).is_some(), "{path} is not in {}", openapi["paths"]);
    }
    for path in ["/", "/api-docs", "/metrics", "/livez"] {
        let (status, body) = up.request("GET", path, "", b"");
        assert_eq!(status, 200, "{path}");
        assert!(!body.contains("https://cdn") && !body.contains("//unpkg"), "{path} works without internet");
    }
    assert!(up.greeting.iter().any(|line| line.contains("http://127.0.0.1")));
}

/// Two hundred rows of a mill, some broken, in a file of their own.
fn labelled(broken: impl Fn(u32) -> bool) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mill.csv");
    let mut text = String::from(
        "Type,Air temperature [K],Process temperature [K],Rotational speed [rpm],Torque [Nm],Tool wear [min],Machine failure,PWF\n",
    );
    for row in 0..200 {
        let broken = broken(row);
        text += &format!(
            "M,298.1,308.6,1500,{},{},{},{}\n",
            if broken { 70.0 } else { 40.5 },
            row % 100,
            u8::from(broken),
            u8::from(broken)
        );
    }
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

/// What `up --replay` prints of such a file until a line has `end`.
fn replayed(broken: impl Fn(u32) -> bool, flags: &[&str], end: &str) -> Vec<String> {
    let (_sample, file) = labelled(broken);
    let data = tempfile::tempdir().unwrap();
    let mut command = millwright();
    command.args(["up", "--port", "0", "--data-dir"]).arg(data.path()).arg("--replay").arg(&file).args(flags);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut said = Vec::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for line in lines.by_ref() {
        let line = line.unwrap();
        let is_end = line.contains(end);
        said.push(line);
        if is_end {
            break;
        }
    }
    assert_eq!(crate::product::end(child), Some(0));
    said
}

#[test]
fn a_replayed_file_ends_with_the_table_of_its_labels() {
    let said = replayed(|row| row % 50 == 49, &[], "PWF").join("\n");
    assert!(said.contains("200 stored, 0 duplicate"), "{said}");
    let modes = said.lines().last().unwrap();
    assert_eq!(modes.matches('4').count(), 2, "4 of 4: {modes}");
}

#[test]
fn at_a_pace_the_table_comes_below_the_alarms_that_it_sums_up() {
    // The last row is the one that raises.
    let said = replayed(|row| row == 199, &["--speed", "1000"], "PWF");
    let place = |word: &str| said.iter().position(|line| line.contains(word));
    assert!(place("raised").is_some() && place("raised") < place("is replayed"), "{}", said.join("\n"));
}

#[test]
fn a_replay_prints_a_document_a_line() {
    let said = replayed(|row| row % 50 == 49, &["--output", "json"], "\"replayed\"");
    let documents: Vec<Value> = said.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [ready, table] = &documents[..] else { panic!("{said:?}") };
    assert_eq!(ready["type"], "ready");
    assert_eq!((&table["type"], &table["rows"], &table["stored"]), (&"replayed".into(), &200.into(), &200.into()));
    assert_eq!(table["evaluation"]["modes"]["PWF"], serde_json::json!({ "label": 4, "found": 4 }), "{table}");
    assert_eq!(table["error"], Value::Null);
}
