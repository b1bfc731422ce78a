use crate::rig::{Rig, reading};
use serde_json::{Value, json};
use std::{io::Write, sync::Arc};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// (accepted, indices of the refused) of an answer that must be 202.
#[track_caller]
fn taken(answer: &crate::rig::Answer) -> (u64, Vec<u64>) {
    assert_eq!(answer.status, 202, "{}", answer.text());
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap();
    assert_eq!(body["rejected"], errors.len());
    for error in errors {
        assert!(error["error_code"].is_string() && error["error"].is_string(), "{error}");
    }
    (body["accepted"].as_u64().unwrap(), errors.iter().map(|error| error["index"].as_u64().unwrap()).collect())
}

#[tokio::test]
async fn readings_come_as_object_array_or_lines() {
    let rig = Rig::start().await;
    let (a, b, c) = (reading("m-1", 30, 40.0), reading("m-1", 29, 41.5), reading("m-2", 28, 42.25));
    let json = [("content-type", "application/json")];
    let post = async |headers: &[(&str, &str)], body: String| {
        taken(&rig.request("POST", "/api/readings", headers, body.as_bytes()).await)
    };
    assert_eq!(post(&json, a.clone()).await, (1, vec![]));
    assert_eq!(post(&json, format!("[{a}, {b}]")).await, (2, vec![]));
    assert_eq!(post(&[("content-type", "application/x-ndjson")], format!("\n{b}\r\n\n{c}\n")).await, (2, vec![]));
    assert_eq!(post(&[], format!("[{c}]")).await, (1, vec![]), "the first byte decides");
    assert_eq!(
        post(&[("content-type", "text/plain")], format!("{a}\n{b}")).await,
        (2, vec![]),
        "the first byte decides"
    );

    let ledger = rig.stored(3).await;
    assert_eq!(ledger["balanced"], true);
    let http = json!({"source": "http", "received": 8, "stored": 3, "rejected": 0, "duplicate": 5, "in_flight": 0});
    assert_eq!(ledger["sources"], json!([http]));

    let logs = rig.json("/api/machines/m-1/logs").await;
    let rows = logs["logs"].as_array().unwrap().iter();
    let torques: Vec<f64> = rows.map(|row| row["torque_nm"].as_f64().unwrap()).collect();
    assert_eq!(torques, [41.5, 40.0], "newest first");
    rig.stop().await;
}

#[tokio::test]
async fn each_line_is_judged_alone() {
    let rig = Rig::start().await;
    let broken = reading("m-1", 10, 40.0).replace("\"torque_nm\":40", "\"torque_nm\":1e300");
    let lines = [
        reading("m-1", 30, 40.0),
        "[]".to_owned(),
        "42".to_owned(),
        "{".to_owned(),
        broken.clone(),
        String::new(),
        reading("m-1", 29, 40.0),
    ];
    assert_eq!(taken(&rig.lines(&lines).await), (2, vec![1, 2, 3, 4]), "blank lines are no messages");
    let mut raw = b"\xff\xfe\n".to_vec();
    raw.extend_from_slice(reading("m-1", 28, 40.0).as_bytes());
    let answer = rig.request("POST", "/api/readings", &[("content-type", "application/x-ndjson")], &raw).await;
    assert_eq!(taken(&answer), (1, vec![0]));
    assert_eq!(taken(&rig.lines(&["[]".to_owned()]).await), (0, vec![0]), "all bad is still taken");

    let letters = rig.pages("/api/dead-letters", "dead_letters", 2).await;
    assert_eq!(letters.len(), 6);
    let payloads: Vec<&str> = letters.iter().filter_map(|letter| letter["payload"].as_str()).collect();
    for sent in ["[]", "42", "{", &broken] {
        assert!(payloads.contains(&sent), "{sent}");
    }
    assert!(letters.iter().any(|letter| letter["payload_base64"] == "//4=" && letter.get("payload").is_none()));
    let ledger = rig.stored(3).await;
    assert_eq!((&ledger["sources"][0]["rejected"], &ledger["balanced"]), (&json!(6), &json!(true)));
    rig.stop().await;
}

#[tokio::test]
async fn what_is_no_list_of_readings_is_refused_whole() {
    let rig = Rig::start().await;
    let json = [("content-type", "application/json")];
    let good = reading("m-1", 30, 40.0);
    let bodies: [Vec<u8>; 9] = [
        vec![],
        b" \n\t ".to_vec(),
        vec![b'['; 100_000],
        vec![b'{'; 50_000],
        br#"{"a":"#.repeat(5000),
        vec![0xff; 1000],
        [b"\"".to_vec(), vec![b'a'; 2_000_000]].concat(),
        b"42".to_vec(),
        format!("[{good},").into_bytes(),
    ];
    for body in &bodies {
        let answer = rig.request("POST", "/api/readings", &json, body).await;
        assert_eq!(answer.problem().0, 400, "{}", String::from_utf8_lossy(&body[..body.len().min(20)]));
    }
    assert_eq!(rig.json("/api/ledger").await["sources"], json!([]), "nothing of them is counted");
    assert_eq!(rig.json("/api/dead-letters").await["dead_letters"], json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn bodies_come_packed_and_bombs_do_not_go_off() {
    let rig = Rig::start().await;
    let body = (1..=200).map(|at| reading("m-1", at, 40.0)).collect::<Vec<_>>().join("\n");
    let post = async |coding: &str, body: &[u8]| {
        let headers = [("content-type", "application/x-ndjson"), ("content-encoding", coding)];
        rig.request("POST", "/api/readings", &headers, body).await
    };
    assert_eq!(taken(&post("gzip", &gzip(body.as_bytes())).await).0, 200);
    assert_eq!(taken(&post("zstd", &zstd::encode_all(body.as_bytes(), 3).unwrap()).await).0, 200);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..300 {
        bomb.write_all(&[b' '; 1_000_000]).unwrap();
    }
    assert_eq!(post("gzip", &bomb.finish().unwrap()).await.problem(), (413, "too_large".to_owned()));
    assert_eq!(post("gzip", b"no gzip").await.problem(), (400, "bad_encoding".to_owned()));
    assert_eq!(post("br", body.as_bytes()).await.problem(), (415, "bad_encoding".to_owned()));
    let large = vec![b' '; 16 * 1024 * 1024 + 1];
    assert_eq!(post("identity", &large).await.problem(), (413, "too_large".to_owned()));
    rig.stored(200).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_full_bus_takes_nothing_and_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let full = bus::Bus::open(bus::Options {
        path: folder.path().join("bus.db"),
        partitions: wire::READINGS_PARTITIONS,
        retention_us: i64::MAX,
        retention_bytes: 1,
    })
    .unwrap();
    full.hold("nobody", &[0; 6]);
    let rig = Rig::with(|parts| parts.bus = full).await;
    let lines = vec![reading("m-1", 30, 40.0), "{".to_owned()];
    // What makes it full may have to be there first.
    let mut answer = rig.lines(&lines).await;
    for _ in 0..10 {
        if answer.status != 202 {
            break;
        }
        answer = rig.lines(&lines).await;
    }
    let before = rig.json("/api/dead-letters?limit=1000").await["dead_letters"].as_array().unwrap().len();
    let answer = rig.lines(&lines).await;
    assert_eq!(answer.problem(), (503, "bus_full".to_owned()));
    assert!(answer.headers["retry-after"].parse::<u32>().unwrap() > 0);
    let after = rig.json("/api/dead-letters?limit=1000").await["dead_letters"].as_array().unwrap().len();
    assert_eq!(before, after, "the bad line of a body that was not taken is no dead letter");
    rig.stop().await;
}

#[tokio::test]
async fn a_mended_reading_tells_the_time_of_its_own_clock() {
    let rig = Rig::with(|parts| {
        let settings = Arc::get_mut(&mut parts.settings).expect("nobody else has them yet");
        settings.clock_offsets.insert("http".to_owned(), 9 * 3_600_000_000);
    })
    .await;
    let local = reading("m-1", 30 - 9 * 3_600, 40.0);
    assert_eq!(taken(&rig.lines(&[local.replace("\"rpm\":1500", "\"rpm\":\"fast\"")]).await), (0, vec![0]));
    let letters = rig.json("/api/dead-letters").await;
    let path = format!("/api/dead-letters/{}/replay", letters["dead_letters"][0]["id"].as_str().unwrap());
    let answer = rig.post(&path, &local).await;
    assert_eq!(taken(&answer), (1, vec![]), "{}", answer.text());
    rig.stop().await;
}

#[tokio::test]
async fn a_dead_letter_is_mended_and_replayed() {
    let rig = Rig::start().await;
    let good = reading("m-1", 30, 40.0);
    let bad = good.replace("\"rpm\":1500", "\"rpm\":\"fast\"");
    assert_eq!(taken(&rig.lines(std::slice::from_ref(&bad)).await), (0, vec![0]));
    let letters = rig.json("/api/dead-letters").await;
    let letter = &letters["dead_letters"][0];
    assert_eq!((letter["payload"].as_str(), &letter["replayed_at"]), (Some(&*bad), &Value::Null));
    let path = format!("/api/dead-letters/{}", letter["id"].as_str().unwrap());

    let still_bad = rig.post(&format!("{path}/replay"), &bad).await;
    assert_eq!(taken(&still_bad), (0, vec![0]));
    assert_eq!(rig.json(&path).await["replayed_at"], Value::Null, "nothing was accepted");
    assert_eq!(taken(&rig.post(&format!("{path}/replay"), &good).await), (1, vec![]));
    assert!(rig.json(&path).await["replayed_at"].is_string());
    assert_eq!(rig.post(&format!("{path}/replay"), "").await.problem().0, 400);

    let ledger = rig.stored(1).await;
    let row = |source: &str| {
        let rows = ledger["sources"].as_array().unwrap();
        rows.iter().find(|row| row["source"] == source).unwrap_or_else(|| panic!("{source}: {ledger}")).clone()
    };
    assert_eq!(
        (&row("mended")["stored"], &row("mended")["rejected"], &row("http")["rejected"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let unknown = "/api/dead-letters/00000000-0000-0000-0000-000000000000";
    assert_eq!(rig.get(unknown).await.problem(), (404, "no_such_dead_letter".to_owned()));
    assert_eq!(rig.post(&format!("{unknown}/replay"), &good).await.problem().0, 404);
    assert_eq!(rig.get("/api/dead-letters/7").await.problem().0, 404);
    rig.stop().await;
}

#[tokio::test]
async fn dead_letters_come_strictly_newest_first_also_under_concurrent_posts() {
    let rig = Rig::start().await;
    let post = async |from: usize| {
        for at in from..from + 20 {
            let lines = [format!("bad {at} a"), format!("bad {at} b")];
            assert_eq!(taken(&rig.lines(&lines).await), (0, vec![0, 1]));
        }
    };
    tokio::join!(post(0), post(20), post(40), post(60));
    let letters = rig.pages("/api/dead-letters?source=http&error_code=not_json", "dead_letters", 7).await;
    let keys: Vec<(&str, &str)> =
        letters.iter().map(|row| (row["arrived_at"].as_str().unwrap(), row["id"].as_str().unwrap())).collect();
    assert_eq!(keys.len(), 160, "pages neither skip nor repeat");
    // Six decimals at most, none where they are zero: compared as moments.
    let moment = |text: &str| wire::parse_time(text.as_bytes()).unwrap();
    let keys: Vec<(i64, &str)> = keys.into_iter().map(|(arrived, id)| (moment(arrived), id)).collect();
    assert!(keys.windows(2).all(|pair| pair[0] > pair[1]), "{keys:?}");
    let middle = letters[80]["arrived_at"].as_str().unwrap();
    let older = rig.pages(&format!("/api/dead-letters?to={middle}"), "dead_letters", 50).await;
    let newer = rig.pages(&format!("/api/dead-letters?from={middle}"), "dead_letters", 50).await;
    assert_eq!(older.len() + newer.len(), 160);
    assert!(newer.iter().any(|row| row["id"] == letters[80]["id"]) && !older.is_empty());
    assert!(rig.pages("/api/dead-letters?error_code=too_old", "dead_letters", 50).await.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_that_begins_closes_the_door_for_readings_and_no_other() {
    let rig = Rig::start().await;
    assert_eq!(taken(&rig.lines(&[reading("m-1", 30, 40.0)]).await), (1, vec![]));
    // A body that is still on its way then is not waited for.
    let mut slow = rig.connect().await;
    let head = "POST /api/readings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{";
    tokio::io::AsyncWriteExt::write_all(&mut slow, head.as_bytes()).await.unwrap();
    rig.parts.closing.cancel();
    let mut first = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut slow, &mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 503");
    let answer = rig.lines(&[reading("m-1", 29, 40.0)]).await;
    assert_eq!(answer.problem(), (503, "closing".to_owned()));
    assert!(answer.headers["retry-after"].parse::<u32>().unwrap() > 0);
    assert_eq!(rig.stored(1).await["balanced"], true, "the rest of the portal answers");
    rig.stop().await;
}
