//! `millwright schemas`, on a real registry where there is one: MILLWRIGHT_TEST_REGISTRY.

use crate::run::{failure, file, json, millwright};
use serde_json::Value;

#[test]
fn the_schema_of_a_topic_holds_the_channels_of_the_users_classes() {
    let folder = tempfile::tempdir().unwrap();
    let class = crate::run::data("compressor.toml");
    let config = file(&folder, "m.toml", &format!("classes = [\"mill\", {class:?}]\n"));
    let shown = |args: &[&str]| -> Value {
        let output = millwright(["schemas", "show"].iter().chain(args).copied());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let builtin = shown(&["readings"]);
    let more = shown(&["readings", "--config", &config]);
    let keys = |schema: &Value| schema["properties"].as_object().unwrap().len();
    assert!(keys(&more) > keys(&builtin));
    assert_eq!(shown(&["alerts"]), wire::alert_schema());
    assert_eq!(shown(&["readings", "--format", "avro"]), wire::avro_schema(&builtin));
}

#[test]
fn without_a_registry_there_is_nothing_to_apply() {
    let (code, said) = failure(["schemas", "apply"]);
    assert_eq!(code, 3);
    assert!(said.contains("registry.url is empty"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let config = file(&folder, "m.toml", "[registry]\nurl = \"http://127.0.0.1:9\"\n");
    let (code, said) = failure(["schemas", "check", "--config", &config]);
    assert_eq!(code, 4);
    assert!(said.contains("it does not answer"), "{said}");
}

#[test]
fn schemas_are_registered_once_and_fit_themselves() {
    let Ok(url) = std::env::var("MILLWRIGHT_TEST_REGISTRY") else {
        assert!(std::env::var_os("MILLWRIGHT_TEST_REQUIRED").is_none(), "MILLWRIGHT_TEST_REGISTRY is not set");
        println!("skipped: MILLWRIGHT_TEST_REGISTRY is not set (./dev services start)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = file(&folder, "m.toml", &format!("[registry]\nurl = {url:?}\n"));
    let run = |args: &[&str]| json(args.iter().copied().chain(["--config", &config])).0;
    let planned = run(&["schemas", "apply", "--dry-run"]);
    assert_eq!(planned["applied"], false);
    let applied = run(&["schemas", "apply"]);
    // A registry that was there before has them.
    assert_eq!(applied["changes"], planned["changes"]);
    assert_eq!(run(&["schemas", "apply"])["changes"], serde_json::json!([]));
    let checked = run(&["schemas", "check"]);
    let told: Vec<(&str, bool)> = checked["subjects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|subject| (subject["subject"].as_str().unwrap(), subject["compatible"].as_bool().unwrap()))
        .collect();
    assert_eq!(told, [("sensor-raw-data-value", true), ("anomaly-alerts-value", true)]);
}
