use crate::rig::{Rig, reading};
use serde_json::{Value, json};

/// A rig with an alarm that stands unacknowledged: (rig, path of the alarm).
async fn alarmed() -> (Rig, String) {
    let rig = Rig::start().await;
    rig.lines(&[reading("m-1", 2, 70.0)]).await;
    let alarms = rig.until("/api/alarms?open=true", |list| list["alarms"][0]["state"] == "unacknowledged").await;
    let path = format!("/api/alarms/{}", alarms["alarms"][0]["alarm_id"].as_str().unwrap());
    (rig, path)
}

#[tokio::test]
async fn a_broken_law_is_told_with_its_reason() {
    let (rig, path) = alarmed().await;
    let alerts = rig.json("/api/alerts?machine_id=m-1&failure_type=PowerFailure&severity=critical&from=-1h").await;
    let alert = &alerts["alerts"][0];
    assert_eq!((&alert["kind"], &alert["reading"]["torque_nm"].as_f64()), (&json!("raised"), &Some(70.0)));
    assert!(!alert["reason"]["terms"].as_array().unwrap().is_empty());
    assert!(!alert["text"]["ko"].as_str().unwrap().is_empty());
    assert_eq!(&rig.json(&format!("/api/alerts/{}", alert["alert_id"].as_str().unwrap())).await, alert);
    assert_eq!(rig.json("/api/alerts?severity=warning").await["alerts"], json!([]));
    let alarm = rig.json(&path).await;
    assert_eq!(
        (&alarm["machine_id"], &alarm["subject"], &alarm["alert"]["alert_id"]),
        (&json!("m-1"), &json!("machine"), &alert["alert_id"])
    );
    assert_eq!(rig.json("/api/alarms?state=acknowledged").await["alarms"], json!([]));
    let status = rig.json("/api/machines/m-1/status").await;
    assert_eq!(status["conditions"][0]["failure_type"], "PowerFailure");
    rig.stop().await;
}

#[tokio::test]
async fn people_answer_and_illegal_edges_are_409() {
    let (rig, path) = alarmed().await;
    let order = async |what: &str, body: Value| rig.post(&format!("{path}/{what}"), &body.to_string()).await;
    assert_eq!(order("unshelve", json!({})).await.problem(), (409, "illegal_edge".to_owned()));
    let taken = order("ack", json!({"comment": "on my way"})).await;
    assert_eq!((taken.status, &taken.json()["state"]), (200, &json!("acknowledged")));
    assert_eq!(taken.json()["acknowledged"]["comment"], "on my way");
    assert_eq!(order("ack", json!({})).await.problem(), (409, "illegal_edge".to_owned()));

    assert_eq!(order("shelve", json!({"minutes": 30})).await.problem().0, 422, "a reason is needed");
    for (body, key) in [
        (json!({"reason": "x"}), "until"),
        (json!({"reason": "x", "minutes": "ten"}), "minutes"),
        (json!({"reason": "x", "minutes": -1}), "minutes"),
        (json!({"reason": "x", "until": "tomorrow"}), "until"),
        (json!({"reason": "x", "minutes": 5, "until": "2099-01-01T00:00:00Z"}), "minutes"),
        (json!({"reason": "x", "minutes": 5, "colour": "red"}), "colour"),
        (json!({"reason": 5, "minutes": 5}), "reason"),
    ] {
        let answer = order("shelve", body).await;
        assert_eq!(answer.problem(), (422, "bad_key".to_owned()));
        assert_eq!(answer.json()["problems"][0]["key"], key);
    }
    assert_eq!(order("shelve", json!({"reason": "x", "minutes": 900})).await.problem(), (422, "bad_order".to_owned()));
    assert_eq!(order("shelve", json!({"reason": "x", "until": "2020-01-01T00:00:00Z"})).await.problem().0, 422);
    let shelved = order("shelve", json!({"reason": "sensor swap", "minutes": 30})).await.json();
    assert_eq!((&shelved["state"], &shelved["reason"]), (&json!("shelved"), &json!("sensor swap")));
    assert_eq!(order("unshelve", json!({})).await.json()["state"], "acknowledged");
    assert_eq!(order("out-of-service", json!({})).await.problem().0, 422);
    assert_eq!(order("out-of-service", json!({"reason": "rebuilt"})).await.json()["state"], "out_of_service");
    assert_eq!(order("return-to-service", json!({})).await.json()["state"], "unacknowledged");
    assert_eq!(order("comment", json!({"comment": "bearing ordered"})).await.status, 200);
    assert_eq!(order("comment", json!({})).await.problem().0, 422);
    let nobody = "/api/alarms/00000000-0000-0000-0000-000000000000/ack";
    assert_eq!(rig.post(nobody, "").await.problem(), (404, "no_such_alarm".to_owned()));

    let id = path.rsplit('/').next().unwrap();
    let audit = rig.pages(&format!("/api/audit?subject=alarm:{id}"), "audit", 3).await;
    let actions: Vec<&str> = audit.iter().rev().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions[1..],
        ["acknowledge", "shelve", "unshelve", "take_out_of_service", "return_to_service", "comment"]
    );
    assert!(audit.iter().rev().skip(1).all(|line| line["by"] == "local"), "{audit:?}");
    rig.stop().await;
}

#[tokio::test]
async fn maintenance_suppresses_by_design() {
    let (rig, path) = alarmed().await;
    let window = "/api/machines/m-1/maintenance";
    assert_eq!(rig.post(window, r#"{"minutes":30}"#).await.problem().0, 422, "a reason is needed");
    assert_eq!(rig.post(window, r#"{"reason":"x"}"#).await.problem().0, 422, "an end is needed");
    let later = r#"{"reason":"x","from":"2099-01-01T00:00:00Z","to":"2099-01-02T00:00:00Z"}"#;
    let planned = rig.post(window, later).await;
    assert_eq!(planned.json()["alarms"][0]["state"], "unacknowledged", "{}", planned.text());
    let over = later.replace("2099-01-02", "2098-01-02");
    assert_eq!(rig.post(window, &over).await.problem().0, 422, "it would end before it begins");
    assert_eq!(rig.post("/api/machines/nobody/maintenance", r#"{"reason":"x","minutes":5}"#).await.problem().0, 404);
    let begun = rig.post(window, r#"{"reason":"tool change","minutes":30}"#).await;
    assert_eq!(begun.json()["alarms"][0]["state"], "suppressed", "{}", begun.text());
    let ended = rig.request("DELETE", window, &[], b"").await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    assert_eq!(rig.json(&path).await["state"], "unacknowledged");
    assert_eq!(rig.request("DELETE", window, &[], b"").await.status, 200, "the planned one is called off");
    assert_eq!(rig.request("DELETE", window, &[], b"").await.problem().0, 409, "there is no window");
    rig.stop().await;
}
