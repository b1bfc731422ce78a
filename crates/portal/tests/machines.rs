use crate::rig::{Rig, reading};
use portal::{Ops, SimulateControl, Simulated, serve_ops};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn pages_neither_skip_nor_repeat() {
    let rig = Rig::start().await;
    let lines: Vec<String> = (0..57).map(|at| reading("m-1", 100 - at, 40.0)).collect();
    rig.lines(&lines).await;
    rig.stored(57).await;
    let logs = rig.pages("/api/machines/m-1/logs?from=-1h", "logs", 10).await;
    let times: BTreeSet<&str> = logs.iter().map(|row| row["timestamp"].as_str().unwrap()).collect();
    assert_eq!((logs.len(), times.len()), (57, 57));
    assert!(logs.is_sorted_by(|a, b| a["timestamp"].as_str() > b["timestamp"].as_str()), "newest first");
    assert_eq!(rig.json("/api/machines/m-1/logs?limit=5000").await["logs"].as_array().unwrap().len(), 57);
    assert_eq!(rig.json("/api/machines/m-1/logs?to=-1h").await["logs"], json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn a_status_tells_the_last_minute() {
    let rig = Rig::start().await;
    rig.lines(&[reading("m-1", 3, 40.0), reading("m-1", 2, 41.0), reading("m-1", 1, 42.5)]).await;
    let status = rig
        .until("/api/machines/m-1/status", |status| status["last_torque"] == 42.5 && status["state"] == "running")
        .await;
    assert_eq!(
        (&status["stale"], &status["class"], &status["state"]),
        (&json!(false), &json!("mill"), &json!("running"))
    );
    assert_eq!((&status["temp_1m_avg"], &status["rpm_variance"]), (&json!(309.5), &json!(0.0)));
    assert_eq!(
        (&status["values"]["torque_nm"]["unit"], &status["values"]["rpm"]["mean_60s"]),
        (&json!("Nm"), &json!(1500.0))
    );
    assert!(status["derived"].as_object().is_some_and(|derived| !derived.is_empty()));
    let machines = rig.until("/api/machines", |list| list["machines"][0]["confirmed"] == false).await;
    assert_eq!(machines["machines"][0]["machine_id"], "m-1");
    assert_eq!(machines["machines"][0]["state"], "running");
    rig.stop().await;
}

#[tokio::test]
async fn a_chart_loses_no_peak() {
    let rig = Rig::start().await;
    let lines: Vec<String> =
        (0..600).map(|at| reading("m-1", 700 - at, if at == 333 { 48.75 } else { 40.0 })).collect();
    rig.lines(&lines).await;
    rig.stored(600).await;
    let chart = rig.json("/api/machines/m-1/chart?channel=torque_nm&points=20").await;
    let buckets = chart["buckets"].as_array().unwrap();
    assert!(buckets.len() <= 20 && chart["unit"] == "Nm", "{}", buckets.len());
    let peak = buckets.iter().map(|bucket| bucket["max"].as_f64().unwrap()).fold(0.0, f64::max);
    let count: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
    assert_eq!((peak, count), (48.75, 600), "the default range ends at the newest reading and takes it along");
    rig.stop().await;
}

#[tokio::test]
async fn a_machine_is_described_and_its_limits_are_in_force() {
    let rig = Rig::start().await;
    let before = rig.parts.catalogue.borrow().hash().to_owned();
    let put = async |body: &str| {
        rig.request("PUT", "/api/machines/m-1", &[("content-type", "application/json")], body.as_bytes()).await
    };

    let named = put(r#"{"name_en":"First mill","name_ko":"1호 밀링","criticality":"A","line":"L1"}"#).await;
    assert_eq!(named.status, 200, "{}", named.text());
    assert_eq!(named.json()["catalogue_hash"], *before, "names are outside the catalogue");

    let law = rig.parts.catalogue.borrow().class("mill").unwrap().laws[0].clone();
    let key = law.limit_key(&law.levels[0], &law.levels[0].logic.terms[0]);
    let limited = put(&json!({"limits": {key.clone(): 9.5}}).to_string()).await.json();
    let after = rig.parts.catalogue.borrow().hash().to_owned();
    assert_ne!(before, after);
    assert_eq!(
        (&limited["catalogue_hash"], &limited["limits"][&key], &limited["line"]),
        (&json!(after), &json!(9.5), &json!("L1"))
    );
    assert_eq!(rig.json("/api/machines/m-1").await["name_ko"], "1호 밀링");

    for (body, key) in [
        (json!({"limits": {"no_law.x": 1}}), "limits.no_law.x"),
        (json!({"parameters": {"speed": 1}}), "parameters.speed"),
        (json!({"colour": "red"}), "colour"),
        (json!({"criticality": "Z"}), "criticality"),
        (json!({"class": "boat"}), "class"),
    ] {
        let answer = put(&body.to_string()).await;
        assert_eq!(answer.problem(), (422, "bad_key".to_owned()));
        assert_eq!(answer.json()["problems"][0]["key"], key);
    }
    assert_eq!(put("[1]").await.problem().0, 400);
    assert_eq!(put("{").await.problem().0, 400);
    assert_eq!(put(&format!("{}1{}", "[".repeat(40), "]".repeat(40))).await.problem(), (400, "too_deep".to_owned()));
    assert_eq!(*rig.parts.catalogue.borrow().hash(), *after, "what is refused changes nothing");

    let audit = rig.json("/api/audit?subject=machine:m-1").await;
    let why: Vec<&Value> = audit["audit"].as_array().unwrap().iter().map(|line| &line["why"]).collect();
    assert_eq!(why, [&json!("limits"), &json!("criticality, line, name_en, name_ko")]);
    rig.stop().await;
}

#[tokio::test]
async fn a_machine_is_confirmed_once_it_is_known() {
    let rig = Rig::start().await;
    assert_eq!(rig.post("/api/machines/m-1/confirm", "").await.problem().0, 404);
    rig.lines(&[reading("m-1", 3, 40.0)]).await;
    rig.until("/api/machines", |list| list["machines"][0]["machine_id"] == "m-1").await;
    let confirmed = rig.post("/api/machines/m-1/confirm", "").await;
    assert_eq!(confirmed.json()["confirmed"], true, "{}", confirmed.text());
    assert!(rig.parts.store.confirmed("m-1"), "detect is told");
    let keep = rig.request("PUT", "/api/machines/m-1", &[], br#"{"class":"pump"}"#).await;
    assert_eq!(keep.json()["problems"][0]["key"], "class", "a machine keeps the class of its readings");
    rig.stop().await;
}

/// A simulated plant of one machine with one profile.
fn simulated() -> SimulateControl {
    Arc::new(|machine, profile, from_us, until_us| {
        assert!(until_us - from_us == 5_000_000);
        let allowed = "normal, stop".to_owned();
        match (machine, profile) {
            ("machine-001", "stop") => Ok(()),
            ("machine-001", other) => {
                Err(plant::Error::Profile { class: "mill".to_owned(), profile: other.to_owned(), allowed })
            }
            (other, _) => Err(plant::Error::Machine(other.to_owned())),
        }
    })
}

async fn a_profile_is_taken_or_refused(rig: &Rig) {
    let simulate = async |path: &str| rig.post(&format!("/simulate/{path}"), "").await;
    let answer = simulate("machine-001?profile=stop&duration_sec=5").await;
    assert_eq!((answer.status, &answer.json()["profile"]), (200, &json!("stop")));
    assert!(answer.json()["until"].is_string());
    assert_eq!(simulate("machine-009?profile=stop&duration_sec=5").await.problem().0, 404);
    assert_eq!(simulate("machine-001?profile=cavitation&duration_sec=5").await.problem().0, 422);
    assert_eq!(simulate("machine-001?profile=stop&duration_sec=0").await.problem().0, 422);
    assert_eq!(simulate("machine-001").await.problem().0, 422);
}

#[tokio::test]
async fn a_simulated_machine_is_put_under_a_profile() {
    let rig = Rig::with(|parts| parts.simulate = Some(Simulated::Here(simulated()))).await;
    a_profile_is_taken_or_refused(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_plant_that_another_service_simulates_is_asked_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let rig = Rig::with(|parts| parts.simulate = Some(Simulated::At(address))).await;
    let ops = Ops {
        service: "simulate",
        health: rig.parts.health.clone(),
        ready: watch::channel(true).1,
        trouble: watch::channel(None).1,
        dependencies: Default::default(),
        metrics: rig.parts.settings.metrics.clone(),
        simulate: Some(simulated()),
    };
    let stop = CancellationToken::new();
    let service = tokio::spawn(serve_ops(ops, Ok(listener), stop.clone()));
    a_profile_is_taken_or_refused(&rig).await;
    stop.cancel();
    service.await.unwrap().unwrap();
    let away = rig.post("/simulate/machine-001?profile=stop&duration_sec=5", "").await;
    assert_eq!(away.problem(), (503, "plant_away".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn changes_of_state_and_tool_changes_are_told() {
    let rig = Rig::start().await;
    let wear =
        |seconds_ago, wear: u32| reading("m-1", seconds_ago, 40.0).replace("_min\":5", &format!("_min\":{wear}"));
    let stopped = reading("m-1", 70, 0.0).replace("1500", "0");
    rig.lines(&[wear(90, 150), wear(80, 151), stopped, wear(60, 0), wear(50, 1)]).await;
    rig.until("/api/machines/m-1/events", |page| page["events"].as_array().unwrap().len() >= 4).await;
    let events = rig.pages("/api/machines/m-1/events?from=-1h", "events", 1).await;
    assert!(events.is_sorted_by(|a, b| a["timestamp"].as_str() >= b["timestamp"].as_str()), "newest first");
    let kinds: BTreeSet<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["counter_reset", "state"]));
    assert!(events.iter().all(|event| event["detail"].is_object()));
    rig.stop().await;
}
