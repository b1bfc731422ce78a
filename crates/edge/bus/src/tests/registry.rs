//! Values that name their schema, on a real registry (`MILLWRIGHT_TEST_REGISTRY`, its address) and a real cluster.

use super::{
    contract::{Harness, Limits, next_records, offsets, started, take},
    kafka::Cluster,
};
use crate::{
    Bus, Error, Event, Message, Outgoing, Topic, kafka,
    registry::{self, Format, Options, Subject, admin},
};
use catalog::Catalogue;
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use wire::{alert_schema, avro_schema, reading_schema};

const READING: &str = r#"{"machine_id":"machine-001","timestamp":"2025-11-07T15:10:01Z","class":"mill","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5}"#;

fn url() -> Option<String> {
    let url = std::env::var("MILLWRIGHT_TEST_REGISTRY").ok();
    assert!(url.is_some() || std::env::var("MILLWRIGHT_TEST_REQUIRED").is_err(), "MILLWRIGHT_TEST_REGISTRY is not set");
    if url.is_none() {
        eprintln!("skipped: MILLWRIGHT_TEST_REGISTRY is not set (./dev services start)");
    }
    url
}

fn subject(format: Format, schema: &Value) -> Subject {
    let schema = match format {
        Format::Json => schema.to_string(),
        Format::Avro => avro_schema(schema).to_string(),
    };
    Subject { topic: Topic::Readings, format, schema, named: true }
}

fn options(url: &str, subjects: Vec<Subject>) -> Options {
    Options { url: url.to_owned(), credentials: None, ca: None, refuse_unknown: false, subjects }
}

fn reading() -> Outgoing {
    Outgoing {
        partition: 1,
        arrived_us: 0,
        source: "simulate".into(),
        rows: 1,
        key: Some("machine-001".into()),
        value: READING.into(),
    }
}

fn raw(value: impl Into<Vec<u8>>) -> Message {
    Message { partition: 1, value: Some(value.into()), ..Message::default() }
}

/// A value that names a schema.
fn naming(id: u32, content: &[u8]) -> Message {
    raw([&[0], &id.to_be_bytes()[..], content].concat())
}

async fn cluster_and_url() -> Option<(Cluster, String)> {
    let url = url()?;
    Some((Cluster::new().await?, url))
}

/// A cluster whose readings are written by a schema that was registered.
async fn written(cluster: &mut Cluster, url: &str, format: Format) -> Bus {
    let registry = options(url, vec![subject(format, &reading_schema(&Catalogue::builtin()))]);
    let topic = |topic| cluster.options.topic(topic);
    let refused = Bus::connect(crate::kafka::Options { registry: Some(registry.clone()), ..cluster.options.clone() });
    assert!(matches!(refused.await.map(|_| ()), Err(Error::Registry(registry::Error::NotRegistered(_)))));
    let changes = admin::difference(&registry, topic).await.unwrap();
    assert_eq!(changes.len(), 2, "{changes:?}");
    admin::apply(&registry, &changes).await.unwrap();
    let changes = admin::difference(&registry, topic).await.unwrap();
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(admin::check(&registry, topic).await.unwrap()[0].1, None);
    cluster.options.registry = Some(registry);
    cluster.open(Limits::WIDE).await
}

async fn a_reading_is_read_as_it_was_sent(format: Format) {
    let Some((mut cluster, url)) = cluster_and_url().await else { return };
    let bus = written(&mut cluster, &url, format).await;
    bus.send(vec![reading(), reading()]).await.unwrap();
    // Beside them what names no schema.
    bus.publish(Topic::DeadLetters, vec![raw("no reading")]).await.unwrap();
    cluster.options.registry = Some(options(&url, Vec::new()));
    let other = cluster.open(Limits::WIDE).await;
    other.publish(Topic::Readings, vec![raw(READING), raw([0, 0]), raw("")]).await.unwrap();
    let mut consumer = started(&other, &[0; 3]).await.unwrap();
    let records = take(&mut consumer, 5).await;
    let content: Vec<Result<Cow<'_, [u8]>, String>> = records
        .iter()
        .map(|record| other.schemas().content(&record.value).map(|json| json.into_owned().into()))
        .collect();
    let value = |content: &Result<Cow<'_, [u8]>, String>| -> Value {
        serde_json::from_slice(content.as_ref().unwrap()).unwrap()
    };
    let sent: Value = serde_json::from_str(READING).unwrap();
    for (content, record) in content.iter().zip(&records).take(2) {
        assert_eq!((record.value[0], record.key.as_deref()), (0, Some(&b"machine-001"[..])));
        assert_eq!(value(content), sent);
    }
    assert_eq!(value(&content[2]), sent);
    assert_eq!(content[3], Err("it begins as with a schema's id and is cut short".to_owned()));
    assert_eq!(content[4], Ok(Cow::Borrowed(&[][..])));
    let letter = bus.last(Topic::DeadLetters, 1).await.unwrap().unwrap();
    assert_eq!(&*letter.value, b"no reading");
    other.close().await;
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_reading_by_a_json_schema_is_read_as_it_was_sent() {
    a_reading_is_read_as_it_was_sent(Format::Json).await;
}

#[tokio::test]
async fn a_reading_by_an_avro_schema_is_read_as_it_was_sent() {
    a_reading_is_read_as_it_was_sent(Format::Avro).await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for_and_nothing_is_passed_over() {
    let Some((mut cluster, url)) = cluster_and_url().await else { return };
    let bus = written(&mut cluster, &url, Format::Avro).await;
    let id = {
        bus.send(vec![reading()]).await.unwrap();
        let named = bus.last(Topic::Readings, 1).await.unwrap().unwrap();
        u32::from_be_bytes(named.value[1..5].try_into().unwrap())
    };
    cluster.options.registry = None;
    let plain = cluster.open(Limits::WIDE).await;
    plain.publish(Topic::Readings, vec![naming(id, &[1]), raw(READING)]).await.unwrap();
    plain.close().await;
    // What stands before the registry lets nobody through yet.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    let (registry_at, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let (is_back, to) = (Arc::new(AtomicBool::new(false)), registry_at.to_owned());
    let lets_through = is_back.clone();
    let forward = tokio::spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            if lets_through.load(Ordering::Relaxed) {
                let mut far = TcpStream::connect(&to).await.unwrap();
                open.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        }
    });
    let told = dependency::Dependencies::default().needed("registry");
    let reached = options(&format!("http://{place}/{path}"), Vec::new());
    cluster.options.schemas = told.clone();
    cluster.options.registry = Some(reached.clone());
    let away = cluster.open(Limits::WIDE).await;
    let mut consumer = started(&away, &[0; 3]).await.unwrap();
    for _ in 0..2 {
        let next = next_records(&mut consumer, 1 << 20).await;
        assert!(matches!(next, Err(Error::Registry(registry::Error::NoAnswer(_)))), "{next:?}");
        assert!(!consumer.caught_up());
    }
    assert!(told.away().is_some() && registry::answers(&reached).await.is_err());
    is_back.store(true, Ordering::Relaxed);
    registry::answers(&reached).await.unwrap();
    // The same consumer goes on.
    let records = take(&mut consumer, 3).await;
    assert_eq!(offsets(&records), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(told.away(), None);
    let content = |at: usize| away.schemas().content(&records[at].value).map(Cow::into_owned);
    let value: Value = serde_json::from_slice(&content(0).unwrap()).unwrap();
    assert_eq!(value, serde_json::from_str::<Value>(READING).unwrap());
    // Bytes that the schema does not fit refuse their own record only.
    assert!(content(1).unwrap_err().starts_with(&format!("by schema {id}: ")));
    assert_eq!(content(2).unwrap(), READING.as_bytes());
    forward.abort();
    drop(consumer);
    away.close().await;
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn an_id_that_the_registry_does_not_have_is_waited_for_or_refused_as_configured() {
    const NOBODYS: u32 = u32::MAX >> 1;
    let Some((mut cluster, url)) = cluster_and_url().await else { return };
    cluster.options.registry = Some(options(&url, Vec::new()));
    let bus = cluster.open(Limits::WIDE).await;
    bus.publish(Topic::Readings, vec![raw("before"), naming(NOBODYS, b"{}"), raw("after")]).await.unwrap();
    let mut consumer = started(&bus, &[0; 3]).await.unwrap();
    assert_eq!(offsets(&take(&mut consumer, 1).await), [(1, 0)]);
    let next = next_records(&mut consumer, 1 << 20).await;
    assert!(matches!(next, Err(Error::Registry(registry::Error::Unknown(NOBODYS)))), "{next:?}");
    drop(consumer);
    bus.close().await;
    cluster.options.registry = Some(Options { refuse_unknown: true, ..options(&url, Vec::new()) });
    let bus = cluster.open(Limits::WIDE).await;
    let mut consumer = started(&bus, &[0, 1, 0]).await.unwrap();
    let records = take(&mut consumer, 2).await;
    assert_eq!(bus.schemas().content(&records[0].value), Err(format!("the registry has no schema {NOBODYS}")));
    drop(consumer);
    bus.close().await;
    cluster.end().await;
}

/// What CI stands on: a schema that would break its readers is not taken.
#[tokio::test]
async fn a_schema_that_would_break_its_readers_is_refused() {
    let Some(url) = url() else { return };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    for format in [Format::Json, Format::Avro] {
        let topic = |_| format!("evolve-{now}-{}", format.as_str());
        let of = |schema: &Value| options(&url, vec![subject(format, schema)]);
        let schema = reading_schema(&Catalogue::builtin());
        let first = of(&schema);
        admin::apply(&first, &admin::difference(&first, topic).await.unwrap()).await.unwrap();

        let mut more = schema.clone();
        more["properties"]["humidity"] = json!({ "type": ["number", "null"] });
        let mut less = schema.clone();
        less["properties"].as_object_mut().unwrap().remove("machine_id");
        less["required"] = json!(["timestamp"]);
        let mut demanding = more.clone();
        demanding["required"] = json!(["machine_id", "timestamp", "humidity"]);
        for broken in [&less, &demanding] {
            let broken = of(broken);
            let why = admin::check(&broken, topic).await.unwrap().remove(0).1;
            assert!(why.is_some_and(|why| !why.is_empty()), "{format:?}");
            let changes = admin::difference(&broken, topic).await.unwrap();
            let refused = admin::apply(&broken, &changes).await;
            assert!(matches!(refused, Err(registry::Error::Refused { status, .. }) if status == 409), "{refused:?}");
        }
        let more = of(&more);
        assert_eq!(admin::check(&more, topic).await.unwrap()[0].1, None);
        let changes = admin::difference(&more, topic).await.unwrap();
        let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(told, [format!("{}-value: register the {} schema", topic(Topic::Readings), format.as_str())]);
        admin::apply(&more, &changes).await.unwrap();
    }
}

/// `deploy/schemas` holds what the last release registered (`millwright schemas show`); it is renewed with a release.
#[tokio::test]
async fn the_schemas_fit_those_of_the_last_release() {
    let Some(url) = url() else { return };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let (reading, alert) = (reading_schema(&Catalogue::builtin()), alert_schema());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../deploy/schemas");
    for (topic, format, file, schema) in [
        (Topic::Readings, Format::Json, "sensor-raw-data-value.json", reading.clone()),
        (Topic::Readings, Format::Avro, "sensor-raw-data-value.avsc", avro_schema(&reading)),
        (Topic::Alerts, Format::Json, "anomaly-alerts-value.json", alert.clone()),
        (Topic::Alerts, Format::Avro, "anomaly-alerts-value.avsc", avro_schema(&alert)),
    ] {
        let name = |topic: Topic| format!("release-{now}-{}-{}", format.as_str(), topic.name());
        let of = |schema: String| options(&url, vec![Subject { topic, format, schema, named: true }]);
        let released = of(std::fs::read_to_string(folder.join(file)).unwrap());
        admin::apply(&released, &admin::difference(&released, name).await.unwrap()).await.unwrap();
        let told = admin::check(&of(schema.to_string()), name).await.unwrap();
        assert_eq!(told, [(format!("{}-value", name(topic)), None)], "{file}");
        // Whatever is required of an alert or a reading stays.
        let mut less: Value = schema.clone();
        match format {
            Format::Json => {
                less["properties"].as_object_mut().unwrap().remove("machine_id");
                less["required"].as_array_mut().unwrap().retain(|key| key != "machine_id");
            }
            Format::Avro => less["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "machine_id"),
        }
        assert!(admin::check(&of(less.to_string()), name).await.unwrap()[0].1.is_some(), "{file}");
    }
}

#[tokio::test]
async fn alerts_name_their_schema_where_they_are_to() {
    let Some((mut cluster, url)) = cluster_and_url().await else { return };
    let schema = avro_schema(&alert_schema()).to_string();
    let alerts = Subject { topic: Topic::Alerts, format: Format::Avro, schema, named: true };
    let registry = options(&url, vec![alerts]);
    let changes = admin::difference(&registry, |topic| cluster.options.topic(topic)).await.unwrap();
    admin::apply(&registry, &changes).await.unwrap();
    cluster.options.registry = Some(registry);
    let bus = cluster.open(Limits::WIDE).await;
    let id = "d9b6a1e0-0000-5000-8000-000000000000";
    let alert = json!({
        "alert_id": id, "machine_id": "machine-001", "class": "mill", "failure_type": "NoData", "kind": "raised",
        "severity": "warning", "timestamp": "2025-11-07T15:10:01Z", "score": 0, "model": "sensors", "model_version": "00ff",
        "arrived_at": "2025-11-07T15:10:01.500Z", "condition": "no_data", "condition_id": id,
        "started_at": "2025-11-07T15:10:01Z", "reading": null, "notice": false, "text": { "en": "silent", "ko": "무응답" },
        "position": { "topic": "sensor-raw-data", "partition": 3, "offset": 7, "index": 2 },
        "reason": { "law": null, "terms": [], "contributions": [], "counterfactual": [], "time_to_limit_s": null },
    });
    let headers = vec![("id".to_owned(), Some(id.into()))];
    bus.publish(Topic::Alerts, vec![Message { headers, ..raw(alert.to_string()) }]).await.unwrap();
    // What is no alert is not sent.
    let refused = bus.publish(Topic::Alerts, vec![raw("{}")]).await;
    assert!(matches!(refused, Err(Error::Registry(registry::Error::Value { .. }))), "{refused:?}");
    let mut consumer = bus.consumer(Topic::Alerts, "test").unwrap();
    let records = loop {
        match consumer.next(1 << 20).await.unwrap() {
            Event::Records(records) => break records,
            Event::Assigned(partitions) => {
                for partition in partitions {
                    consumer.start(partition, 0).await.unwrap();
                }
            }
            Event::Revoked(_) => {}
        }
    };
    assert_eq!((records.len(), records[0].value[0], records[0].header("id")), (1, 0, Some(id)));
    let schemas = bus.schemas();
    let content: Value = serde_json::from_slice(&schemas.content(&records[0].value).unwrap()).unwrap();
    assert_eq!(content, alert);
    drop(consumer);
    bus.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn what_is_no_registry_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert!(near.read_buf(&mut asked).await.unwrap() > 0);
            }
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnope";
            near.write_all(answer).await.unwrap();
            near.shutdown().await.unwrap();
        }
    });
    let options = options(&format!("http://{place}"), vec![subject(Format::Json, &json!({}))]);
    let told = admin::check(&options, |topic| topic.name().to_owned()).await.unwrap_err();
    assert_eq!(told.to_string(), "it answers 404 Not Found: that is no registry's answer");
}

#[tokio::test]
async fn a_registry_is_trusted_by_who_signed_its_certificate() {
    if url().is_none() {
        return;
    }
    let folder = std::env::var("MILLWRIGHT_TEST_TLS").unwrap();
    // Another server with TLS stands in for it: what it says after the handshake is no registry's answer.
    let place = std::env::var("MILLWRIGHT_TEST_REDIS_TLS").unwrap().replace("rediss://", "https://");
    for (authority, trusted) in [(Some("ca.pem"), true), (Some("stranger.pem"), false), (None, false)] {
        let mut options = options(&place, vec![subject(Format::Json, &json!({}))]);
        options.ca = authority.map(|name| std::fs::read(Path::new(&folder).join(name)).unwrap());
        let told = admin::difference(&options, |topic| topic.name().to_owned()).await;
        let told = dependency::chain(&told.map(|_| ()).unwrap_err());
        assert_eq!(told.contains("UnknownIssuer"), !trusted, "{authority:?}: {told}");
    }
    let told = dependency::Dependencies::default().needed("registry");
    let mut writing = options(&place, vec![subject(Format::Json, &json!({}))]);
    writing.ca = Some(std::fs::read(Path::new(&folder).join("stranger.pem")).unwrap());
    for _ in 0..dependency::AWAY_AFTER {
        let refused = Bus::connect(kafka::Options {
            registry: Some(writing.clone()),
            schemas: told.clone(),
            ..kafka::Options::default()
        });
        assert!(refused.await.is_err());
    }
    assert!(told.away().is_some_and(|away| away.error.contains("UnknownIssuer")), "who writes tells it too");
    let mut empty = options(&place, vec![subject(Format::Json, &json!({}))]);
    empty.ca = Some(b"no certificate".to_vec());
    let told = admin::difference(&empty, |topic| topic.name().to_owned()).await;
    assert!(matches!(told, Err(registry::Error::NoAuthorities)), "{told:?}");
}
