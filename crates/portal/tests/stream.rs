use crate::rig::{Rig, reading};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    time::timeout,
};

struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    async fn open(rig: &Rig, path: &str, headers: &str) -> Events {
        let mut stream = rig.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert!(lines.next_line().await.unwrap().unwrap().contains(" 200"));
        Events(lines)
    }

    /// The next frame that is not `live`; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let mut id = None;
        loop {
            let line = timeout(Duration::from_secs(20), self.0.next_line()).await.expect("a frame in time").unwrap()?;
            if let Some(said) = line.strip_prefix("id:") {
                id = said.trim().parse::<u64>().ok();
            }
            if let Some(data) = line.strip_prefix("data:") {
                let frame: Value = serde_json::from_str(data.trim()).unwrap();
                assert_eq!(frame["seq"].as_u64(), id, "the id is the seq");
                if frame["type"] != "live" {
                    return Some(frame);
                }
            }
        }
    }
}

#[tokio::test]
async fn events_are_gapless_and_resume_from_a_seq() {
    let rig = Rig::start().await;
    let mut live = Events::open(&rig, "/api/events", "").await;
    rig.lines(&[reading("m-1", 2, 70.0)]).await;
    let (mut seqs, mut types) = (Vec::new(), Vec::new());
    while !types.contains(&"alert".to_owned()) || !types.contains(&"alarm".to_owned()) {
        let frame = live.next().await.unwrap();
        seqs.push(frame["seq"].as_u64().unwrap());
        types.push(frame["type"].as_str().unwrap().to_owned());
    }
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");

    let mut again = Events::open(&rig, "/api/events?after=0", "").await;
    for seq in 1..=*seqs.last().unwrap() {
        assert_eq!(again.next().await.unwrap()["seq"], seq);
    }
    // A browser asks for the same address again and says what it has seen since.
    let mut resumed = Events::open(&rig, "/api/events?after=0", "last-event-id: 1\r\n").await;
    assert_eq!(resumed.next().await.unwrap()["seq"], 2);
    let mut stranger = Events::open(&rig, "/api/events?after=999999", "").await;
    assert_eq!(stranger.next().await.unwrap()["type"], "resync", "a seq of another database");

    rig.stop().await;
    while again.next().await.is_some() {}
}

#[tokio::test]
async fn a_websocket_carries_the_same_frames() {
    let rig = Rig::start().await;
    rig.lines(&[reading("m-1", 2, 70.0)]).await;
    rig.until("/api/alarms", |list| list["alarms"][0]["standing"] == json!(true)).await;
    let mut stream = rig.connect().await;
    let head = "GET /ws?after=0 HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).await.unwrap();
    assert!(line.contains(" 101"), "{line}");
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line).await.unwrap();
    }
    let mut seqs = Vec::new();
    while seqs.len() < 2 {
        let (code, data) = message(&mut reader).await;
        if code != 1 {
            continue;
        }
        let frame: Value = serde_json::from_slice(&data).unwrap();
        if frame["type"] != "live" {
            seqs.push(frame["seq"].as_u64().unwrap());
        }
    }
    assert_eq!(seqs, [1, 2]);
    let stop = tokio::spawn(rig.stop());
    while message(&mut reader).await.0 != 8 {}
    drop(reader);
    stop.await.unwrap();
}

/// One message of a server: its code and data, unmasked and never in parts.
async fn message(reader: &mut BufReader<TcpStream>) -> (u8, Vec<u8>) {
    let read = async {
        let (first, length) = (reader.read_u8().await?, reader.read_u8().await?);
        let length = match length {
            126 => u64::from(reader.read_u16().await?),
            127 => reader.read_u64().await?,
            short => u64::from(short),
        };
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data).await?;
        Ok::<_, std::io::Error>((first & 15, data))
    };
    timeout(Duration::from_secs(20), read).await.expect("a message in time").unwrap()
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_hold_up_the_end() {
    let rig = Rig::start().await;
    // More than the buffers of a connection hold, so that the portal is in the middle of a frame.
    let lines: Vec<String> = (0..6_000).map(|at| reading(&format!("m-{at}"), 2, 70.0)).collect();
    rig.lines(&lines).await;
    rig.stored(6_000).await;
    rig.until("/api/alarms?limit=1&open=true", |page| page["next_cursor"].is_string()).await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = rig.connect().await;
        let head = "GET /ws?after=0 HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 101");
        idle.push(stream);
    }
    // Until the buffers are full.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = std::time::Instant::now();
    rig.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
