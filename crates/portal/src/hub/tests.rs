//! The stream over a real store.

use super::*;
use catalog::{Catalogue, MachineId};
use engine::Live;
use store::{NewEvent, Record};

struct Stream {
    _folder: tempfile::TempDir,
    store: Store,
    live: LiveValues,
    hub: Arc<Hub>,
    closed: CancellationToken,
}

impl Stream {
    fn new() -> Stream {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let (live, closed) = (LiveValues::default(), CancellationToken::new());
        let hub = Arc::new(Hub::new(store.clone(), live.clone(), closed.clone()));
        Stream { _folder: folder, store, live, hub, closed }
    }

    /// Writes events, not yet told.
    async fn write(&self, count: usize) -> Vec<StoredEvent> {
        let events = vec![NewEvent { kind: "alarm".into(), data: r#"{"a":1}"#.into() }; count];
        self.store.record(Record { events, ..Record::default() }).await.unwrap()
    }
}

async fn seqs(follower: &mut Follower, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        seqs.push(follower.next().await.unwrap().seq);
    }
    seqs
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

#[tokio::test]
async fn who_comes_back_gets_the_rest_and_then_what_comes() {
    let stream = Stream::new();
    stream.write(600).await;
    let mut follower = stream.hub.follow(Some(10)).await.unwrap();
    assert_eq!(seqs(&mut follower, 100).await, range(11, 110));
    // Told and untold ones come while it still reads.
    stream.hub.publish(&stream.write(5).await);
    stream.write(5).await;
    assert_eq!(seqs(&mut follower, 500).await, range(111, 610));
    stream.hub.publish(&stream.write(1).await);
    assert_eq!(seqs(&mut follower, 1).await, [611]);
}

#[tokio::test]
async fn from_now_is_what_comes() {
    let stream = Stream::new();
    stream.write(3).await;
    let mut follower = stream.hub.follow(None).await.unwrap();
    stream.hub.publish(&stream.write(1).await);
    let frame = follower.next().await.unwrap();
    assert_eq!(&*frame.json, r#"{"seq":4,"type":"alarm","data":{"a":1}}"#);
}

#[tokio::test]
async fn events_told_out_of_order_arrive_in_order() {
    let stream = Stream::new();
    let mut follower = stream.hub.follow(None).await.unwrap();
    let (first, second) = (stream.write(2).await, stream.write(2).await);
    stream.hub.publish(&second);
    stream.hub.publish(&first);
    stream.hub.publish(&stream.write(1).await);
    assert_eq!(seqs(&mut follower, 5).await, range(1, 5));
}

#[tokio::test]
async fn slow_followers_are_served_from_the_store_and_hold_a_page_at_most() {
    let stream = Stream::new();
    let mut followers = Vec::new();
    for _ in 0..500 {
        followers.push(stream.hub.follow(Some(0)).await.unwrap());
    }
    for _ in 0..4 {
        stream.hub.publish(&stream.write(EVENTS).await);
    }
    for follower in &mut followers[..20] {
        assert_eq!(seqs(follower, 4 * EVENTS).await, range(1, 4 * EVENTS as u64));
        assert!(follower.backlog.len() <= PAGE);
    }
}

#[tokio::test]
async fn a_follower_that_is_behind_holds_few_bytes_and_misses_nothing() {
    let stream = Stream::new();
    let data = format!(r#"{{"a":"{}"}}"#, "x".repeat(10_000));
    let events = vec![NewEvent { kind: "alarm".into(), data }; 200];
    stream.store.record(Record { events, ..Record::default() }).await.unwrap();
    let mut follower = stream.hub.follow(Some(0)).await.unwrap();
    for seq in 1..=200 {
        assert_eq!(follower.next().await.unwrap().seq, seq);
        let held: usize = follower.backlog.iter().map(|frame| frame.json.len()).sum();
        assert!(held < BACKLOG_BYTES + 11_000, "{held}");
    }
    // One event that is larger than all of it is handed out alone.
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(2 * BACKLOG_BYTES));
    let events = vec![NewEvent { kind: "alarm".into(), data: large }; 3];
    stream.store.record(Record { events, ..Record::default() }).await.unwrap();
    let mut follower = stream.hub.follow(Some(200)).await.unwrap();
    assert_eq!(seqs(&mut follower, 3).await, range(201, 203));
}

#[tokio::test]
async fn what_is_no_more_is_a_resync() {
    let stream = Stream::new();
    stream.write(20).await;
    stream.store.prune_events(10).await.unwrap();
    for (after, first) in [
        (Some(9), "resync"),
        (Some(10), "alarm"),
        (Some(21), "resync"),
        (Some(0), "resync"),
        (Some(u64::MAX), "resync"),
    ] {
        let mut follower = stream.hub.follow(after).await.unwrap();
        let frame = follower.next().await.unwrap();
        assert_eq!(&*frame.kind, first, "{after:?}");
        if first == "resync" {
            assert_eq!(&*frame.json, r#"{"seq":20,"type":"resync","data":{}}"#);
        }
    }
    // Pruned under a follower.
    let mut follower = stream.hub.follow(Some(12)).await.unwrap();
    stream.store.prune_events(20).await.unwrap();
    assert_eq!(&*follower.next().await.unwrap().kind, "resync");
    stream.hub.publish(&stream.write(1).await);
    assert_eq!(seqs(&mut follower, 1).await, [21]);
}

#[tokio::test]
async fn a_call_that_is_cut_loses_nothing() {
    let stream = Stream::new();
    stream.write(300).await;
    let mut follower = stream.hub.follow(Some(0)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 300 {
        let cut = tokio::time::timeout(Duration::from_micros(seen.len() as u64 % 7 * 10), follower.next()).await;
        if let Ok(Some(frame)) = cut {
            seen.push(frame.seq);
        }
    }
    assert_eq!(seen, range(1, 300));
}

#[tokio::test]
async fn followers_end_when_the_portal_closes() {
    let stream = Stream::new();
    let mut follower = stream.hub.follow(None).await.unwrap();
    stream.closed.cancel();
    assert_eq!(follower.next().await, None);
}

fn live(machine: &str, torque: i64) -> Live {
    let class = Catalogue::builtin().default_class().clone();
    let at = class.channel_index("torque_nm").unwrap();
    let mut values = vec![0; class.channels.len()];
    values[at] = torque;
    Live {
        machine: MachineId::try_from(machine).unwrap(),
        state: catalog::State::Running,
        last_seen_us: 1_762_528_201_000_000,
        arrived_us: 0,
        values,
        // Its first channel is missing.
        quality: 3,
        windows: vec![],
        derived: vec![],
        score: Some(f64::NAN),
        learned_us: 0,
        conditions: vec![],
        class,
    }
}

#[tokio::test]
async fn live_values_come_coalesced_with_the_seq_that_the_follower_has() {
    let stream = Stream::new();
    let events = stream.write(2).await;
    let hub = stream.hub.clone();
    let task = tokio::spawn(async move { hub.send_live().await });
    let mut follower = stream.hub.follow(None).await.unwrap();
    // The task must follow before anything changes.
    tokio::task::yield_now().await;
    for torque in 0..100 {
        stream.live.put(vec![live("m1", torque), live("m2", 4280)]);
        if torque % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    stream.hub.publish(&events);
    let mut newest = None;
    let began = std::time::Instant::now();
    while newest != Some(serde_json::json!(0.99)) {
        assert!(began.elapsed() < Duration::from_secs(10));
        let frame = follower.next().await.unwrap();
        assert_eq!((&*frame.kind, frame.seq), ("live", 2));
        let json: serde_json::Value = serde_json::from_str(&frame.json).unwrap();
        let machines = json["data"]["machines"].as_array().unwrap();
        let machine = machines.iter().find(|machine| machine["machine_id"] == "m1").unwrap();
        assert_eq!(machine["last_seen"], "2025-11-07T15:10:01Z");
        assert_eq!(
            (&machine["score"], &machine["values"]["air_temp_k"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
        assert_eq!(machine["state"], "running");
        newest = Some(machine["values"]["torque_nm"].clone());
    }
    stream.closed.cancel();
    task.await.unwrap();
}

#[test]
fn the_longest_waiting_machines_go_first() {
    let mut pending = Pending::default();
    for (machine, torque) in [("a", 1), ("b", 1), ("c", 1), ("a", 2)] {
        pending.put(Arc::new(live(machine, torque)));
    }
    let names = |machines: Vec<Arc<Live>>| machines.iter().map(|live| live.machine.to_string()).collect::<Vec<_>>();
    assert_eq!(names(pending.take(2)), ["a", "b"]);
    pending.put(Arc::new(live("a", 3)));
    assert_eq!(names(pending.take(9)), ["c", "a"]);
    assert!(pending.take(9).is_empty());
}
