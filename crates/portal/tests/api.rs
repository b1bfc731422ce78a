use crate::rig::{Rig, reading};
use serde_json::Value;
use std::collections::BTreeSet;

#[tokio::test]
async fn every_error_is_a_problem() {
    let rig = Rig::start().await;
    rig.lines(&[reading("m-1", 30, 40.0)]).await;
    rig.stored(1).await;
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "no_such_route"),
        ("GET", "/web/nothing.js", 404, "no_such_file"),
        ("DELETE", "/api/alerts", 405, "no_such_method"),
        ("GET", "/api/alerts?cursor=mine", 400, "bad_cursor"),
        ("GET", "/api/alarms?cursor=mine", 400, "bad_cursor"),
        ("GET", "/api/audit?cursor=mine", 400, "bad_cursor"),
        ("GET", "/api/machines?cursor=mine", 400, "bad_cursor"),
        ("GET", "/api/machines/m-1/logs?cursor=mine", 400, "bad_cursor"),
        ("GET", "/api/dead-letters?cursor=mine", 400, "bad_cursor"),
        ("GET", "/api/alerts?limit=many", 400, "bad_query"),
        ("GET", "/api/alerts?limit=-1", 400, "bad_query"),
        ("GET", "/api/alerts?severity=loud", 400, "bad_query"),
        ("GET", "/api/alarms?state=odd", 400, "bad_query"),
        ("GET", "/api/alarms?open=maybe", 400, "bad_query"),
        ("GET", "/api/alerts?from=yesterday", 400, "bad_time"),
        ("GET", "/api/alerts?from=-1h&to=-2h", 400, "bad_time"),
        ("GET", "/api/alarms?from=garbage", 400, "bad_time"),
        ("GET", "/api/alarms?limit=abc", 400, "bad_query"),
        ("GET", "/api/alarms?severity=loud", 400, "bad_query"),
        ("GET", "/api/dead-letters?from=garbage", 400, "bad_time"),
        ("GET", "/api/dead-letters?to=garbage", 400, "bad_time"),
        ("GET", "/api/dead-letters?limit=abc", 400, "bad_query"),
        ("GET", "/api/machines/m-1/logs?from=garbage", 400, "bad_time"),
        ("GET", "/api/machines/m-1/logs?limit=abc", 400, "bad_query"),
        ("GET", "/api/machines/m-1/events?limit=abc", 400, "bad_query"),
        ("GET", "/api/machines/m-1/chart?channel=rpm&points=abc", 400, "bad_query"),
        ("GET", "/api/machines?offset=5", 400, "bad_query"),
        ("GET", "/api/alarms?severty=critical", 400, "bad_query"),
        ("GET", "/api/alerts?machine=m-1", 400, "bad_query"),
        ("GET", "/api/audit?alarm=7", 400, "bad_query"),
        ("GET", "/api/dead-letters?code=not_json", 400, "bad_query"),
        ("GET", "/api/machines/m-1/logs?since=-1h", 400, "bad_query"),
        ("GET", "/api/events?from=1", 400, "bad_query"),
        ("GET", "/api/alerts?limit=%zz&from=%ff", 400, "bad_time"),
        ("PATCH", "/", 405, "no_such_method"),
        ("POST", "/openapi.json", 405, "no_such_method"),
        ("PUT", "/web/live.js", 405, "no_such_method"),
        ("GET", "/api/machines/nobody", 404, "no_such_machine"),
        ("GET", "/api/machines/nobody/logs", 404, "no_such_machine"),
        ("GET", "/api/machines/nobody/status", 404, "no_such_machine"),
        ("GET", "/api/machines/nobody/chart?channel=rpm", 404, "no_such_machine"),
        ("GET", "/api/machines/nobody/events", 404, "no_such_machine"),
        ("GET", "/api/machines/m-1/chart", 422, "bad_key"),
        ("GET", "/api/machines/m-1/chart?channel=speed", 422, "bad_key"),
        ("GET", "/api/machines/m-1/logs%00", 404, "no_such_route"),
        ("GET", "/api/machines/%00", 422, "bad_machine_id"),
        ("GET", "/api/machines/%ff", 400, "bad_path"),
        ("GET", "/api/alarms/7", 404, "no_such_id"),
        ("GET", "/api/alerts/00000000-0000-0000-0000-000000000000", 404, "no_such_alert"),
        ("GET", "/api/events?after=x", 400, "bad_query"),
        ("GET", "/ws", 400, "no_websocket"),
        ("POST", "/train-model", 501, "no_training"),
        ("POST", "/simulate/m-1?profile=stop", 409, "no_plant"),
    ] {
        assert_eq!(rig.request(method, path, &[], b"").await.problem(), (status, code.to_owned()), "{method} {path}");
    }
    let answer = rig.request("DELETE", "/api/alerts", &[], b"").await;
    assert!(answer.headers["allow"].contains("GET"), "{:?}", answer.headers);
    rig.stop().await;
}

#[tokio::test]
async fn only_loopback_names_and_our_own_pages_are_answered() {
    let rig = Rig::start().await;
    let port = rig.port();
    let ask = async |headers: &[(&str, &str)]| rig.request("GET", "/livez", headers, b"").await.status;
    assert_eq!(ask(&[("host", &format!("localhost:{port}"))]).await, 200);
    assert_eq!(ask(&[("host", "127.0.0.1")]).await, 200);
    assert_eq!(
        ask(&[("host", &format!("evil.example:{port}"))]).await,
        403,
        "a name that its owner points at loopback"
    );
    assert_eq!(ask(&[("host", "localhost:1")]).await, 403);
    let (own, host) = (format!("http://localhost:{port}"), format!("localhost:{port}"));
    assert_eq!(ask(&[("host", &host), ("origin", &own)]).await, 200);
    assert_eq!(ask(&[("host", &host), ("origin", "http://evil.example")]).await, 403);
    assert_eq!(ask(&[("host", &host), ("origin", "null")]).await, 403);
    assert_eq!(ask(&[("host", &host), ("origin", "http://localhost:1")]).await, 403, "another service of this machine");
    let refused = rig.request("POST", "/api/readings", &[("origin", "http://evil.example")], b"{}").await;
    assert_eq!(refused.problem(), (403, "not_this_host".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn the_document_tells_every_route_and_pages_are_strict() {
    let rig = Rig::start().await;
    let document = rig.json("/openapi.json").await;
    let routes: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for route in [
        "/api/machines/{machineId}/logs",
        "/api/machines/{machineId}/status",
        "/api/alerts",
        "/train-model",
        "/simulate/{machineId}",
        "/api/readings",
        "/api/ledger",
        "/api/dead-letters/{id}/replay",
        "/api/events",
        "/ws",
        "/readyz",
        "/metrics",
    ] {
        assert!(routes.contains(route), "{route}");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in ["get", "put", "post", "delete"].iter().filter_map(|method| item.get(method)) {
            assert!(operation["x-role"].is_string(), "{path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
        }
    }
    let files = [
        "/",
        "/api-docs",
        "/web/live.js",
        "/web/chart.js",
        "/web/words.js",
        "/web/theme.js",
        "/web/live.css",
        "/web/api.js",
        "/web/icon.svg",
    ];
    for path in files {
        let answer = rig.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let policy = &answer.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn ready_is_when_ingest_detect_and_portal_run() {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/livez").await.status, 200);
    assert_eq!(rig.json("/readyz").await["status"], "ready");
    rig.health.send_modify(|parts| drop(parts.insert("simulate", Some("no such class".to_owned()))));
    assert_eq!(rig.get("/readyz").await.status, 200, "a plant that is not simulated disturbs nothing");
    rig.health.send_modify(|parts| drop(parts.insert("detect", Some("store.db".to_owned()))));
    let answer = rig.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["failed"][0]), (503, &Value::from("detect")));
    rig.health.send_modify(|parts| drop(parts.remove("detect")));
    assert_eq!(rig.get("/readyz").await.status, 503, "not started yet");
    assert_eq!(rig.get("/metrics").await.status, 200);
    rig.stop().await;
}
