//! The loops over a real store.

use super::*;
use catalog::{Catalogue, Severity};
use engine::Effects;
use std::future::Future;
use store::{LiveValues, NewEvent, Record, Step};
use wire::{Alert, AlertText, Kind, Position, READINGS_TOPIC, Reason};

struct Room {
    _folder: tempfile::TempDir,
    store: Store,
    alarms: Alarms,
    stop: CancellationToken,
}

impl Room {
    async fn new() -> Room {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let stop = CancellationToken::new();
        let hub = Arc::new(Hub::new(store.clone(), LiveValues::default(), stop.clone()));
        let catalogue = tokio::sync::watch::Sender::new(Arc::new(Catalogue::builtin()));
        let alarms = Alarms::open(store.clone(), catalogue.subscribe(), vec![], crate::QuietArrivals::default(), hub)
            .await
            .unwrap();
        Room { _folder: folder, store, alarms, stop }
    }

    async fn detect(&self, offsets: std::ops::Range<i64>) {
        let alerts = offsets.clone().map(raise).collect();
        let effects = Effects { alerts, ..Effects::default() };
        let (from, to) = (offsets.start, offsets.end);
        let step = Step { partition: 0, from, to, effects: &effects, sources: &[], activation: None };
        self.store.commit(vec![step]).await.unwrap();
    }
}

fn raise(offset: i64) -> Alert {
    let machine = format!("m{}", offset % 10);
    let timestamp = now_us();
    let position = Position { topic: READINGS_TOPIC.into(), partition: 0, offset, index: 0 };
    let id = wire::alert_id(&machine, "power", Kind::Raised, timestamp, &position);
    Alert {
        alert_id: id,
        machine_id: machine,
        class: "mill".into(),
        failure_type: "PowerFailure".into(),
        kind: Kind::Raised,
        severity: Severity::Warning,
        score: 0.5,
        model: "laws".into(),
        model_version: "v".into(),
        condition: "power".into(),
        condition_id: id,
        timestamp,
        arrived_at: timestamp,
        started_at: timestamp,
        position,
        reading: None,
        reason: Reason::default(),
        text: AlertText { en: "en".into(), ko: "ko".into() },
        suspended: None,
        caught_up: None,
        notice: false,
    }
}

/// Waits until it holds.
async fn until_holds<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let began = std::time::Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "does not hold");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn alerts_are_delivered_as_they_are_committed_and_the_outbox_stays_short() {
    let room = Room::new().await;
    let work = async {
        for from in (0..1_500).step_by(100) {
            room.detect(from..from + 100).await;
        }
        until_holds(|| async { room.store.portal_position(0).await.unwrap() == 1_500 }).await;
        let kept = PRUNE_OUTBOX as usize;
        until_holds(|| async { room.store.outbox_after(0, 2_000).await.unwrap().len() <= kept }).await;
        // It sleeps, and wakes.
        room.detect(1_500..1_501).await;
        until_holds(|| async { room.store.portal_position(0).await.unwrap() == 1_501 }).await;
        room.stop.cancel();
    };
    let (delivered, ()) = tokio::join!(deliver(&room.store, &room.alarms, &room.stop), work);
    delivered.unwrap();
    let alerts = room.store.events_after(0, 10_000).await.unwrap();
    assert_eq!(alerts.iter().filter(|event| event.kind == "alert").count(), 1_501);
    assert_eq!(alerts.last().unwrap().seq, alerts.len() as u64);
    let counts: u32 = room.store.alarms().await.unwrap().iter().map(|row| row.alarm.count).sum();
    assert_eq!(counts, 1_501);
}

#[tokio::test]
async fn the_clock_wakes_when_a_shelf_ends() {
    let room = Room::new().await;
    room.detect(0..1).await;
    let batch = room.store.outbox_after(0, 10).await.unwrap();
    let id = store::alarm_id("m0", "power");
    let work = async {
        room.alarms.deliver(0, batch).await.unwrap();
        let (at_us, reason) = (now_us(), "known".to_owned());
        let action = alarm::Action::Shelve { until_us: at_us + 500_000, reason };
        let command = alarm::Command { by: "kim".into(), role: alarm::Role::Operator, at_us, action };
        room.alarms.command(id, command).await.unwrap();
        let state = || async { room.store.alarm(id).await.unwrap().unwrap().alarm.state };
        assert_eq!(state().await.as_str(), "shelved");
        until_holds(|| async { state().await == alarm::State::Unacknowledged }).await;
        room.stop.cancel();
    };
    let (ticked, ()) = tokio::join!(clock(&room.alarms, &room.stop), work);
    ticked.unwrap();
}

#[tokio::test]
async fn old_events_go_and_young_ones_stay() {
    let room = Room::new().await;
    let events = vec![NewEvent { kind: "alarm".into(), data: "{}".into() }; 12_000];
    room.store.record(Record { events, ..Record::default() }).await.unwrap();
    tidy_once(&room.store, now_us() + EVENTS_US - 60_000_000, &room.stop).await.unwrap();
    assert_eq!(room.store.event_range().await.unwrap(), (1, 12_000));
    tidy_once(&room.store, now_us() + EVENTS_US + 60_000_000, &room.stop).await.unwrap();
    assert_eq!(room.store.event_range().await.unwrap(), (12_001, 12_000));
}
