//! `--output json`: one JSON document on stdout, whatever comes of the command.

use crate::run::{data, file, json, millwright};
use serde_json::Value;

#[test]
fn classes_and_configuration_are_told_as_documents() {
    let folder = tempfile::tempdir().unwrap();
    let (listed, _) = json(["class", "list"]);
    assert_eq!(listed["classes"][0]["class"], "mill");
    let (shown, _) = json(["class", "show", "pump"]);
    let document = shown["document"].as_str().unwrap();
    assert!(document.contains("[class]"));
    let (checked, _) = json(["class", "check", &file(&folder, "pump.toml", document)]);
    assert_eq!((&checked["ok"], &checked["classes"][0]["class"]), (&true.into(), &"pump".into()));

    let path = folder.path().join("millwright.toml");
    let path = path.to_str().unwrap();
    let (written, _) = json(["config", "init", path]);
    assert_eq!(written["file"], path);
    let (checked, _) = json(["config", "check", path]);
    assert_eq!(checked["ok"], true);
    let (text, _) = json(["config", "init", "-"]);
    assert_eq!(text["document"].as_str().unwrap(), std::fs::read_to_string(path).unwrap());
}

#[test]
fn a_configuration_is_checked_as_up_would_run_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = file(&folder, "millwright.toml", "[portal]\nport = 9000\n");
    let check = |file: &str, environment: [(&str, &str); 1]| {
        let mut command = crate::product::millwright();
        let output = command.args(["config", "check", file, "--output", "json"]).envs(environment).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, fine) = check(&settings, [("MILLWRIGHT_PORTAL__PORT", "9001")]);
    assert_eq!((code, &fine["environment"][0]), (Some(0), &"MILLWRIGHT_PORTAL__PORT".into()), "{fine}");
    for (name, value, error) in [
        ("MILLWRIGHT_PORTAL__PORT", "x", "MW-0013"),
        ("MILLWRIGHT_PORTAL__HOST", "0.0.0.0", "MW-0015"),
        ("MILLWRIGHT_CLASSES", "nope", "MW-0021"),
        ("MILLWRIGHT_LOG__LEVEL", "a=b=c", "MW-0024"),
    ] {
        let (code, told) = check(&settings, [(name, value)]);
        assert_eq!((code, &told["error"]["code"]), (Some(3), &error.into()), "{name}: {told}");
        assert!(told["error"]["message"].as_str().unwrap().contains(&format!("environment {name}")), "{told}");
    }
    let class = file(&folder, "class.toml", "classes = [\"nope\"]\n");
    let (code, told) = check(&class, [("MILLWRIGHT_PORTAL__PORT", "9001")]);
    assert_eq!(code, Some(3));
    assert!(told["error"]["message"].as_str().unwrap().contains("class.toml:1:1"), "{told}");
}

#[test]
fn a_failure_is_a_document_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = file(&folder, "millwright.toml", "[portal]\nprot = 3\n");
    let embedded = file(&folder, "embedded.toml", "[portal]\nport = 9000\n");
    let left_to_debezium = "
        bus = { kind = 'kafka', brokers = '127.0.0.1:1' }
        postgres = { main = 'postgresql://a@127.0.0.1:1/a', ai = 'postgresql://a@127.0.0.1:1/a' }
        redis = { url = 'redis://127.0.0.1:1' }
        relay = { kind = 'debezium' }";
    let left_to_debezium = file(&folder, "debezium.toml", left_to_debezium);
    let gone = "http://127.0.0.1:1";
    let readings = data("mill.csv");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["evaluate", "--readings", &readings, "--labels", "nope"], 2, "MW-0033"),
        (&["config", "check", &settings], 3, "MW-0012"),
        (&["class", "show", "nope"], 3, "MW-0021"),
        (&["relay", "--config", &embedded], 3, "MW-0060"),
        (&["relay", "--config", &left_to_debezium], 3, "MW-0061"),
        (&["health", gone], 4, "MW-0040"),
        (&["evaluate", "--readings", "nope.csv"], 5, "MW-0030"),
    ];
    for (args, exit, code) in cases {
        let output = millwright(args.iter().copied().chain(["--output", "json"]));
        assert_eq!(output.status.code(), Some(exit), "{args:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&document["error"]["code"], &document["error"]["exit"]), (&code.into(), &exit.into()), "{args:?}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with(&format!("error {code}: ")), "{args:?}");
    }
}

/// The shape alone: how fast this machine is at this moment is no test.
#[test]
fn drills_answer_in_the_shape_of_their_contract() {
    let folder = tempfile::tempdir().unwrap();
    let report = file(&folder, "report.md", "# Before\n");
    for name in ["floor", "cold", "embedded", "alert"] {
        let (told, _) = json(["bench", name, "--seconds", "1", "--report", &report]);
        assert_eq!(told["name"], name);
        assert!(told["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0), "{told}");
        let rows = told["rows"].as_array().unwrap();
        assert!(!rows.is_empty(), "{told}");
        for row in rows {
            assert!(row["goal"].is_string() && row["unit"].is_string() && row["value"].is_number(), "{row}");
            let (value, must) = (row["value"].as_f64().unwrap(), row["must"].as_f64());
            let reached = match row["better"].as_str() {
                Some("higher") => must.is_none_or(|must| value >= must),
                Some("lower") => must.is_none_or(|must| value <= must),
                better => panic!("{better:?} is no direction"),
            };
            assert_eq!((&row["ok"], row["ambition"].is_number()), (&reached.into(), must.is_some()), "{row}");
        }
        let text = std::fs::read_to_string(&report).unwrap();
        assert!(text.starts_with("# Before\n") && text.contains(&format!("<!-- end {name} -->")), "{text}");
    }
}
