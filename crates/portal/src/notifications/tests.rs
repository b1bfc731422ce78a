//! Senders over a real store.

use super::*;
use crate::hub::Hub;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use catalog::Catalogue;
use notify::{Webhook, WebhookOptions};
use std::sync::{Arc, Mutex};
use store::{LiveValues, NewAudit, NewNotification, Record};
use uuid::Uuid;

type Kept = Arc<Mutex<Vec<(Uuid, Message)>>>;

struct Desk {
    _folder: tempfile::TempDir,
    store: Store,
    alarms: Alarms,
    stop: CancellationToken,
}

impl Desk {
    async fn new(channels: &[&str]) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let hub = Arc::new(Hub::new(store.clone(), LiveValues::default(), CancellationToken::new()));
        let catalogue = tokio::sync::watch::Sender::new(Arc::new(Catalogue::builtin()));
        let channels = channels.iter().map(|name| (*name).to_owned()).collect();
        let alarms = Alarms::open(store.clone(), catalogue.subscribe(), channels, crate::QuietArrivals::default(), hub)
            .await
            .unwrap();
        Desk { _folder: folder, store, alarms, stop: CancellationToken::new() }
    }

    /// Queues notifications of different alarms.
    async fn queue(&self, channel: &str, count: u128) {
        let notification = |alarm: u128| NewNotification {
            channel: channel.into(),
            alarm: Uuid::from_u128(alarm),
            alert: Uuid::from_u128(alarm),
            payload: serde_json::to_string(&message(&alarm.to_string())).unwrap(),
        };
        let audit = NewAudit {
            subject: "alarm:a".into(),
            audit: alarm::Audit {
                at_us: 0,
                by: "engine".into(),
                role: None,
                action: "raised".into(),
                from: "normal".into(),
                to: "unacknowledged".into(),
                why: None,
                until_us: None,
                alert_id: None,
                annunciates: true,
            },
            notify: (0..count).map(notification).collect(),
        };
        self.store.record(Record { audit: vec![audit], ..Record::default() }).await.unwrap();
    }

    /// Sends until `done`.
    async fn send_until(&self, notifiers: &[(&str, Notifier)], done: impl Fn() -> bool) {
        let notifiers: Vec<_> =
            notifiers.iter().map(|(name, notifier)| ((*name).to_owned(), notifier.clone())).collect();
        let stop = self.stop.child_token();
        let watch = async {
            let began = std::time::Instant::now();
            while !done() {
                assert!(began.elapsed() < Duration::from_secs(20), "not done");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let (sent, ()) = tokio::join!(run(&self.store, &self.alarms, &notifiers, &stop), watch);
        sent.unwrap();
    }
}

fn message(machine: &str) -> Message {
    let text = wire::AlertText { en: "en".into(), ko: "ko".into() };
    Message {
        machine_id: machine.into(),
        condition: "overstrain".into(),
        failure_type: "Overstrain".into(),
        severity: "critical".into(),
        priority: Some(2),
        kind: "raised".into(),
        state: "unacknowledged".into(),
        timestamp: "2025-11-07T15:10:01Z".into(),
        text,
        action: None,
        alert: None,
    }
}

fn memory() -> (Kept, Notifier) {
    let kept = Kept::default();
    (kept.clone(), Notifier::Memory(kept))
}

fn webhook(url: String) -> Notifier {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Notifier::Webhook(Arc::new(Webhook::new(WebhookOptions { url, secret: None, allow_private: true }).unwrap()))
}

/// A webhook of this machine; the idempotency keys that it got.
async fn target(answer: fn(usize) -> Response) -> (Arc<Mutex<Vec<String>>>, Notifier) {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let handler = move |State(keys): State<Arc<Mutex<Vec<String>>>>, headers: HeaderMap| async move {
        let mut keys = keys.lock().unwrap();
        keys.push(headers["idempotency-key"].to_str().unwrap().to_owned());
        answer(keys.len())
    };
    let router = Router::new().route("/", post(handler)).with_state(keys.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (keys, webhook(url))
}

#[tokio::test]
async fn what_is_queued_is_sent_once() {
    let desk = Desk::new(&["memory"]).await;
    desk.queue("memory", 20).await;
    let (kept, notifier) = memory();
    desk.send_until(&[("memory", notifier)], || kept.lock().unwrap().len() == 20).await;
    let mut keys: Vec<Uuid> = kept.lock().unwrap().iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 20);
    assert_eq!(desk.store.notification_due("memory").await.unwrap(), None);
}

#[tokio::test]
async fn an_attempt_whose_process_died_is_made_again_under_the_same_key() {
    let desk = Desk::new(&["memory"]).await;
    desk.queue("memory", 1).await;
    let lost = desk.store.lease_notifications("memory", now_us(), 0, 9).await.unwrap();
    let (kept, notifier) = memory();
    desk.send_until(&[("memory", notifier)], || !kept.lock().unwrap().is_empty()).await;
    let kept = kept.lock().unwrap();
    assert_eq!((kept.len(), kept[0].0), (1, lost[0].id));
}

#[tokio::test]
async fn a_failing_target_gets_the_same_key_until_it_takes_it() {
    let desk = Desk::new(&["hook"]).await;
    desk.queue("hook", 1).await;
    let (keys, notifier) = target(|count| match count {
        1 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        2 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    desk.send_until(&[("hook", notifier)], || keys.lock().unwrap().len() == 3).await;
    let keys = keys.lock().unwrap().clone();
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(desk.store.notification_due("hook").await.unwrap(), None);
}

#[tokio::test]
async fn a_stuck_channel_slows_no_other() {
    let desk = Desk::new(&["stuck", "memory"]).await;
    desk.queue("stuck", 20).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stuck = webhook(format!("http://{}/", listener.local_addr().unwrap()));
    let (kept, notifier) = memory();
    desk.queue("memory", 20).await;
    let began = std::time::Instant::now();
    let took = Mutex::new(None);
    let done = || {
        let done = kept.lock().unwrap().len() == 20;
        if done {
            took.lock().unwrap().get_or_insert(began.elapsed());
        }
        done
    };
    desk.send_until(&[("stuck", stuck), ("memory", notifier)], done).await;
    let took = took.lock().unwrap().expect("done");
    assert!(took < Duration::from_secs(4), "{took:?}");
    // What was being sent is finished and noted; the circuit is open and holds the rest back.
    let waiting = desk.store.lease_notifications("stuck", i64::MAX / 2, 0, 100).await.unwrap();
    assert_eq!(waiting.len(), 20);
    assert_eq!(waiting.iter().filter(|row| row.attempts == 1).count(), AT_ONCE);
}

#[tokio::test]
async fn what_a_target_refuses_for_good_is_told_on_another_channel() {
    let desk = Desk::new(&["hook", "memory"]).await;
    desk.queue("hook", 1).await;
    let (_, gone) = target(|_| StatusCode::GONE.into_response()).await;
    let (kept, notifier) = memory();
    desk.send_until(&[("hook", gone), ("memory", notifier)], || !kept.lock().unwrap().is_empty()).await;
    let told = kept.lock().unwrap()[0].1.clone();
    assert_eq!((&*told.machine_id, &*told.condition), ("channel:hook", "notification_dead"));
    assert!(told.text.ko.contains("알림 전달 실패"));
    assert_eq!(desk.store.notification_due("hook").await.unwrap(), None);
}

#[test]
fn again_is_within_a_day_and_not_before_the_target_said() {
    let row = NotificationRow {
        id: Uuid::nil(),
        channel: "hook".into(),
        alarm: Uuid::nil(),
        payload: String::new(),
        attempts: 0,
        created_us: 0,
    };
    let again = |now_us, after_s| again_us(&row, now_us, after_s, u64::MAX);
    assert_eq!(again(0, None), Some(999_999));
    assert_eq!(again(0, Some(60)), Some(60_000_000));
    assert_eq!(again(DEAD_US - 1, None), Some(DEAD_US));
    assert_eq!(again(0, Some(u64::MAX)), Some(DEAD_US));
    assert_eq!(again(DEAD_US, None), None);
    let tenth = NotificationRow { attempts: 9, ..row.clone() };
    assert_eq!(again_us(&tenth, 0, None, u64::MAX), Some(299_999_999));
}
