//! Alarms over a real store.

mod shared;
mod told;

use super::*;
use ::alarm::Role;
use engine::Effects;
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::{AuditRow, LiveValues, Step as DetectStep};
use tokio_util::sync::CancellationToken;
use wire::{Kind, Position, READINGS_TOPIC, Reason};

const SECOND: i64 = 1_000_000;
/// Where the tests' event time begins.
const BEGIN: i64 = 1_762_528_200 * SECOND;

/// A portal over a store in a folder of its own.
struct Portal {
    folder: tempfile::TempDir,
    store: Store,
    hub: Arc<Hub>,
    alarms: Alarms,
    offset: i64,
    quiet: QuietArrivals,
    raised: BTreeMap<(String, String), Uuid>,
}

impl Portal {
    async fn new() -> Portal {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        Portal::over(folder, store).await
    }

    async fn over(folder: tempfile::TempDir, store: Store) -> Portal {
        let quiet = QuietArrivals::default();
        let (hub, alarms) = open(&store, &quiet).await;
        Portal { folder, store, hub, alarms, offset: 0, quiet, raised: BTreeMap::new() }
    }

    /// As after a kill: nothing is left but the file.
    async fn restart(&mut self) {
        self.store = Store::open(&self.folder.path().join("store.db")).unwrap();
        (self.hub, self.alarms) = open(&self.store, &self.quiet).await;
    }

    async fn confirm(&self, machines: &[&str], class: &str) {
        let row = |name: &&str| MachineRow { confirmed: true, ..MachineRow::new(name, class) };
        self.store.register(machines.iter().map(row).collect()).await.unwrap();
    }

    /// An alert at a second after [`BEGIN`]; what it raises is remembered for what follows.
    fn alert(&mut self, told: (&str, &str, Kind, Severity), second: i64) -> Alert {
        let (machine, condition, kind, severity) = told;
        self.offset += 1;
        let timestamp = BEGIN + second * SECOND;
        let position = Position { topic: READINGS_TOPIC.into(), partition: 0, offset: self.offset, index: 0 };
        let id = wire::alert_id(machine, condition, kind, timestamp, &position);
        let key = (machine.to_owned(), condition.to_owned());
        if kind == Kind::Raised {
            self.raised.insert(key.clone(), id);
        }
        Alert {
            alert_id: id,
            machine_id: machine.into(),
            class: if machine.starts_with("pump") { "pump" } else { "mill" }.into(),
            failure_type: "Overstrain".into(),
            kind,
            severity,
            score: 0.5,
            model: "laws".into(),
            model_version: "v".into(),
            condition: condition.into(),
            condition_id: self.raised.get(&key).copied().unwrap_or(id),
            timestamp,
            arrived_at: timestamp + 5,
            started_at: timestamp,
            position,
            reading: None,
            reason: Reason::default(),
            text: AlertText { en: format!("{condition} en"), ko: format!("{condition} ko") },
            suspended: None,
            caught_up: None,
            notice: false,
        }
    }

    /// Detect commits alerts.
    async fn detect(&self, alerts: Vec<Alert>) {
        let from = self.store.positions([0]).await.unwrap()[0];
        let effects = Effects { alerts, ..Effects::default() };
        let step = DetectStep { partition: 0, from, to: from + 1, effects: &effects, sources: &[], activation: None };
        self.store.commit(vec![step]).await.unwrap();
    }

    /// Delivers what waits, so many alerts at a time.
    async fn deliver(&self, most: usize) {
        loop {
            let position = self.alarms.position(0).await.unwrap();
            let batch = self.store.outbox_after(position, most).await.unwrap();
            if batch.is_empty() {
                return;
            }
            self.alarms.deliver(0, batch).await.unwrap();
        }
    }

    /// One alert, from the reading to the alarm.
    async fn tell(&mut self, told: (&str, &str, Kind, Severity), second: i64) -> Alert {
        let alert = self.alert(told, second);
        self.detect(vec![alert.clone()]).await;
        self.deliver(100).await;
        alert
    }

    async fn row(&self, machine: &str, condition: &str) -> AlarmRow {
        self.store.alarm(store::alarm_id(machine, condition)).await.unwrap().unwrap()
    }

    /// What waits on a channel, as "machine condition kind".
    async fn waiting(&self, channel: &str) -> Vec<String> {
        let rows = self.store.lease_notifications(channel, i64::MAX / 2, 0, 100).await.unwrap();
        let mut told = Vec::new();
        for row in rows {
            let message: notify::Message = serde_json::from_str(&row.payload).unwrap();
            told.push(format!("{} {} {}", message.machine_id, message.condition, message.kind));
            self.store.attempted(row.id, 0, Attempted::Sent).await.unwrap();
        }
        told
    }
}

async fn open(store: &Store, quiet: &QuietArrivals) -> (Arc<Hub>, Alarms) {
    let hub = Arc::new(Hub::new(store.clone(), LiveValues::default(), CancellationToken::new()));
    let catalogue = watch::Sender::new(Arc::new(Catalogue::builtin()));
    let channels = vec!["log".to_owned(), "hook".to_owned()];
    let alarms =
        Alarms::open(store.clone(), catalogue.subscribe(), channels, quiet.clone(), hub.clone()).await.unwrap();
    (hub, alarms)
}

fn order(action: Action, second: i64) -> Command {
    Command { by: "kim".into(), role: Role::Engineer, at_us: BEGIN + second * SECOND, action }
}

fn acknowledge() -> Action {
    Action::Acknowledge { comment: "going".into() }
}

use Severity::{Critical, Info, Warning};

#[tokio::test]
async fn a_raise_becomes_an_alarm_an_audit_line_events_and_notifications() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1"], "mill").await;
    let mut follower = portal.hub.follow(None).await.unwrap();
    let alert = portal.tell(("m1", "overstrain", Kind::Raised, Critical), 0).await;

    let row = portal.row("m1", "overstrain").await;
    assert_eq!((row.alarm.state.as_str(), row.alarm.count), ("unacknowledged", 1));
    assert_eq!(row.alert.as_deref(), Some(&*alert.to_json()));
    let audit = portal.store.audit(None, 10, None).await.unwrap().rows;
    assert_eq!((audit.len(), &*audit[0].subject), (1, &*format!("alarm:{}", row.id)));
    let frames = [follower.next().await.unwrap(), follower.next().await.unwrap()];
    assert_eq!(frames.each_ref().map(|frame| (frame.seq, &*frame.kind)), [(1, "alert"), (2, "alarm")]);
    assert_eq!(&*frames[0].json, format!(r#"{{"seq":1,"type":"alert","data":{}}}"#, alert.to_json()));
    let shown: serde_json::Value = serde_json::from_str(&frames[1].json).unwrap();
    assert_eq!(shown["data"]["state"], "unacknowledged");
    assert_eq!(shown["data"]["first_raised"], "2025-11-07T15:10:00Z");
    assert_eq!(shown["data"]["text"]["ko"], "overstrain ko");
    assert_eq!(shown["data"]["alert"]["alert_id"], alert.alert_id.to_string());

    for channel in ["log", "hook"] {
        let rows = portal.store.lease_notifications(channel, i64::MAX / 2, 0, 100).await.unwrap();
        assert_eq!(rows.len(), 1);
        let message: notify::Message = serde_json::from_str(&rows[0].payload).unwrap();
        assert_eq!((&*message.kind, &*message.timestamp), ("raised", "2025-11-07T15:10:00Z"));
        assert!(message.action.is_some_and(|action| !action.ko.is_empty()));
    }
}

#[tokio::test]
async fn nobody_is_notified_of_machines_that_no_person_confirmed_nor_of_a_replayed_file() {
    let mut portal = Portal::new().await;
    portal.tell(("m1", "overstrain", Kind::Raised, Critical), 0).await;
    assert_eq!(portal.waiting("log").await, [""; 0]);
    portal.confirm(&["m2"], "mill").await;
    let replayed = portal.alert(("m2", "overstrain", Kind::Raised, Critical), 0);
    portal.quiet.add(replayed.arrived_at);
    portal.detect(vec![replayed]).await;
    portal.deliver(10).await;
    assert_eq!(portal.waiting("log").await, [""; 0]);
    assert_eq!(portal.row("m2", "overstrain").await.alarm.state.as_str(), "unacknowledged");
    let id = store::alarm_id("m2", "overstrain");
    let shelve = Action::Shelve { until_us: BEGIN + 60 * SECOND, reason: "parts".into() };
    portal.alarms.command(id, order(shelve, 10)).await.unwrap();
    portal.alarms.clock(BEGIN + 60 * SECOND).await.unwrap();
    assert_eq!(portal.row("m2", "overstrain").await.alarm.state.as_str(), "unacknowledged");
    assert_eq!(portal.waiting("log").await, [""; 0], "nor of what the clock makes of it");
    // A live reading of the same machine, and a moment later.
    portal.tell(("m2", "power", Kind::Raised, Critical), 600).await;
    assert_eq!(portal.waiting("log").await, ["m2 power raised"]);
}

#[tokio::test]
async fn infos_and_notices_are_events_and_ask_nobody() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1"], "mill").await;
    portal.tell(("m1", "model:x", Kind::Raised, Info), 0).await;
    let mut notice = portal.alert(("m1", "tool_wear", Kind::Raised, Warning), 1);
    notice.notice = true;
    portal.detect(vec![notice]).await;
    portal.deliver(10).await;
    assert_eq!(portal.waiting("log").await, [""; 0]);
    let kinds: Vec<_> = portal.store.events_after(0, 10).await.unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["alert", "alarm", "alert", "alarm"]);
    assert!(portal.row("m1", "tool_wear").await.alarm.is_on_worklist());
}

#[tokio::test]
async fn an_order_is_audited_with_its_change_and_told() {
    let mut portal = Portal::new().await;
    portal.tell(("m1", "overstrain", Kind::Raised, Critical), 0).await;
    let mut follower = portal.hub.follow(None).await.unwrap();
    let id = store::alarm_id("m1", "overstrain");
    let row = portal.alarms.command(id, order(acknowledge(), 9)).await.unwrap();
    assert_eq!(row.alarm.state.as_str(), "acknowledged");
    assert_eq!(portal.row("m1", "overstrain").await, row);
    assert!(follower.next().await.unwrap().json.contains(r#""by":"kim""#));
    let audit = &portal.store.audit(None, 1, None).await.unwrap().rows[0];
    assert_eq!((&*audit.audit.action, audit.audit.why.as_deref()), ("acknowledge", Some("going")));

    let again = portal.alarms.command(id, order(acknowledge(), 10)).await;
    assert!(matches!(again, Err(CommandError::Illegal(alarm::Illegal::Edge { .. }))));
    let missing = portal.alarms.command(Uuid::nil(), order(acknowledge(), 10)).await;
    assert!(matches!(missing, Err(CommandError::Missing(_))));
    assert_eq!(portal.store.audit(None, 10, None).await.unwrap().rows.len(), 2);
}

#[tokio::test]
async fn an_order_is_told_also_when_whoever_gave_it_went_away() {
    let mut portal = Portal::new().await;
    portal.tell(("m1", "overstrain", Kind::Raised, Critical), 0).await;
    let mut follower = portal.hub.follow(None).await.unwrap();
    let id = store::alarm_id("m1", "overstrain");
    {
        let command = std::pin::pin!(portal.alarms.command(id, order(acknowledge(), 9)));
        let waker = std::task::Waker::noop();
        let polled = command.poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
    }
    assert_eq!(&*follower.next().await.unwrap().kind, "alarm");
    let row = portal.alarms.command(id, order(Action::Comment { comment: "on it".into() }, 10)).await.unwrap();
    assert_eq!(row.alarm.state.as_str(), "acknowledged");
}

#[tokio::test]
async fn a_portal_that_was_overtaken_writes_nothing_and_goes_on_from_what_is_there() {
    let mut portal = Portal::new().await;
    let (_, other) = open(&portal.store, &portal.quiet).await;
    portal.tell(("m1", "overstrain", Kind::Raised, Critical), 0).await;
    let batch = portal.store.outbox_after(0, 10).await.unwrap();
    assert!(matches!(other.deliver(0, batch.clone()).await, Err(store::Error::Fenced { .. })));
    other.deliver(0, batch).await.unwrap();
    assert_eq!(other.position(0).await.unwrap(), 1);
    assert_eq!(portal.row("m1", "overstrain").await.alarm.count, 1);
    assert_eq!(portal.store.events_after(0, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_alert_that_a_relay_tells_twice_counts_once() {
    let mut portal = Portal::new().await;
    let alert = portal.alert(("m1", "overstrain", Kind::Raised, Critical), 0);
    let json = alert.to_json();
    portal.alarms.deliver(2, vec![(1, json.clone()), (2, json)]).await.unwrap();
    assert_eq!((portal.alarms.position(2).await.unwrap(), portal.alarms.position(0).await.unwrap()), (2, 0));
    assert_eq!(portal.row("m1", "overstrain").await.alarm.count, 1);
    assert_eq!(portal.store.events_after(0, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_cause_explains_joins_it_silently() {
    let mut portal = Portal::new().await;
    portal.confirm(&["pump-1"], "pump").await;
    portal.tell(("pump-1", "dead_head", Kind::Raised, Critical), 0).await;
    // Long after, while the cause stands; then within 10 min of its end; then later.
    portal.tell(("pump-1", "vibration", Kind::Raised, Warning), 3_600).await;
    assert_eq!(portal.waiting("log").await, ["pump-1 dead_head raised"]);
    let first = store::alarm_id("pump-1", "dead_head");
    assert_eq!(portal.row("pump-1", "vibration").await.group, Some(first));
    let audit = &portal.store.audit(None, 1, None).await.unwrap().rows[0];
    assert!(!audit.audit.annunciates, "the audit log says that nobody was told");
    portal.tell(("pump-1", "dead_head", Kind::Cleared, Critical), 3_700).await;
    portal.tell(("pump-1", "low_flow", Kind::Raised, Critical), 3_700 + 600).await;
    assert_eq!(portal.row("pump-1", "low_flow").await.group, Some(first));
    portal.tell(("pump-1", "low_flow", Kind::Cleared, Critical), 5_000).await;
    portal.tell(("pump-1", "low_flow", Kind::Raised, Critical), 6_000).await;
    assert_eq!(portal.row("pump-1", "low_flow").await.group, None);
    assert_eq!(portal.waiting("log").await, ["pump-1 low_flow raised"]);
}

#[tokio::test]
async fn conditions_within_a_minute_are_one_trouble() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1", "m2"], "mill").await;
    portal.tell(("m1", "power", Kind::Raised, Warning), 0).await;
    portal.tell(("m1", "heat", Kind::Raised, Warning), 60).await;
    portal.tell(("m2", "heat", Kind::Raised, Warning), 30).await;
    portal.tell(("m1", "late", Kind::Raised, Warning), 61).await;
    assert_eq!(portal.waiting("log").await, ["m1 power raised", "m2 heat raised", "m1 late raised"]);
    let first = store::alarm_id("m1", "power");
    assert_eq!(portal.row("m1", "heat").await.group, Some(first));
    assert_eq!(portal.row("m1", "late").await.group, None, "the minute is counted from the first");
    // A member that becomes worse than what people were told, and one that comes worse.
    portal.tell(("m1", "heat", Kind::Changed, Critical), 65).await;
    portal.tell(("m2", "power", Kind::Raised, Critical), 40).await;
    portal.tell(("m2", "third", Kind::Raised, Critical), 50).await;
    assert_eq!(portal.waiting("log").await, ["m1 heat changed", "m2 power raised"]);
    assert_eq!(portal.row("m2", "third").await.group, Some(store::alarm_id("m2", "heat")));
}

#[tokio::test]
async fn first_out_is_the_cause_else_the_earliest() {
    let mut portal = Portal::new().await;
    portal.confirm(&["pump-1", "m1"], "pump").await;
    portal.tell(("pump-1", "vibration", Kind::Raised, Warning), 0).await;
    portal.tell(("pump-1", "bearing_temp", Kind::Raised, Warning), 10).await;
    portal.tell(("pump-1", "cavitation", Kind::Raised, Warning), 20).await;
    let first = Some(store::alarm_id("pump-1", "cavitation"));
    assert_eq!(portal.row("pump-1", "cavitation").await.group, None);
    assert_eq!(portal.row("pump-1", "vibration").await.group, first);
    assert_eq!(portal.row("pump-1", "bearing_temp").await.group, first);
    assert_eq!(portal.waiting("log").await, ["pump-1 vibration raised", "pump-1 cavitation raised"]);

    portal.tell(("m1", "power", Kind::Raised, Warning), 100).await;
    portal.tell(("m1", "heat", Kind::Raised, Warning), 90).await;
    assert_eq!(portal.row("m1", "power").await.group, Some(store::alarm_id("m1", "heat")));
    assert_eq!(portal.row("m1", "heat").await.group, None);
    assert_eq!(portal.waiting("log").await, ["m1 power raised"]);
}

#[tokio::test]
async fn a_source_that_falls_silent_is_one_alarm() {
    let mut portal = Portal::new().await;
    let machines = ["m1", "m2", "m3", "m4", "m5"];
    let sources = ["simulate"; 5].map(Arc::from);
    let seen = Effects {
        machines: machines.map(|name| (catalog::MachineId::try_from(name).unwrap(), "mill".to_owned(), BEGIN)).to_vec(),
        ..Effects::default()
    };
    let step = DetectStep { partition: 1, from: 0, to: 1, effects: &seen, sources: &sources, activation: None };
    portal.store.commit(vec![step]).await.unwrap();

    let silent: Vec<Alert> =
        machines[..4].iter().map(|machine| portal.alert((machine, "no_data", Kind::Raised, Warning), 0)).collect();
    portal.detect(silent).await;
    portal.deliver(100).await;
    assert_eq!(portal.waiting("log").await, ["source:simulate no_data_storm raised"]);
    let storm = store::alarm_id("source:simulate", "no_data_storm");
    let row = portal.row("source:simulate", "no_data_storm").await;
    assert_eq!((row.alarm.subject, row.alarm.state.as_str()), (alarm::Subject::System, "unacknowledged"));
    assert_eq!(row.text.unwrap().ko, "출처 simulate: 설비 4대 데이터 끊김");
    for machine in &machines[..4] {
        assert_eq!(portal.row(machine, "no_data").await.group, Some(storm));
    }
    portal.restart().await;
    portal.tell(("m5", "no_data", Kind::Raised, Warning), 10).await;
    assert_eq!(portal.row("m5", "no_data").await.group, Some(storm));
    assert_eq!(portal.waiting("log").await, [""; 0]);
    for (machine, second) in machines.iter().zip(100..) {
        assert!(portal.row("source:simulate", "no_data_storm").await.alarm.standing);
        portal.tell((machine, "no_data", Kind::Cleared, Warning), second).await;
    }
    assert!(!portal.row("source:simulate", "no_data_storm").await.alarm.standing);
    assert_eq!(portal.waiting("log").await, [""; 0]);
}

#[tokio::test]
async fn three_silent_machines_or_four_one_by_one_are_no_storm() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1", "m2", "m3", "m4"], "mill").await;
    for (machine, second) in [("m1", 0), ("m2", 20), ("m3", 40), ("m4", 60)] {
        portal.tell((machine, "no_data", Kind::Raised, Warning), second).await;
    }
    assert_eq!(portal.waiting("log").await.len(), 4);
    assert_eq!(portal.store.alarm(store::alarm_id("source:simulate", "no_data_storm")).await.unwrap(), None);
}

#[tokio::test]
async fn a_storm_that_is_seen_one_by_one_takes_in_those_before() {
    let mut portal = Portal::new().await;
    let row = |name: &str| MachineRow { confirmed: true, ..MachineRow::new(name, "mill") };
    portal.store.register(["m1", "m2", "m3", "m4"].map(row).to_vec()).await.unwrap();
    let seen = Effects {
        machines: ["m1", "m2", "m3", "m4"]
            .map(|name| (catalog::MachineId::try_from(name).unwrap(), "mill".to_owned(), BEGIN))
            .to_vec(),
        ..Effects::default()
    };
    let sources = ["http"; 4].map(Arc::from);
    let step = DetectStep { partition: 1, from: 0, to: 1, effects: &seen, sources: &sources, activation: None };
    portal.store.commit(vec![step]).await.unwrap();
    for (machine, second) in [("m1", 0), ("m2", 10), ("m3", 20), ("m4", 30)] {
        portal.tell((machine, "no_data", Kind::Raised, Warning), second).await;
    }
    let told = ["m1 no_data raised", "m2 no_data raised", "m3 no_data raised", "source:http no_data_storm raised"];
    assert_eq!(portal.waiting("log").await, told);
    let storm = Some(store::alarm_id("source:http", "no_data_storm"));
    assert_eq!(portal.row("m1", "no_data").await.group, storm);
    assert_eq!(portal.row("m4", "no_data").await.group, storm);
}

#[tokio::test]
async fn maintenance_holds_for_alarms_that_are_and_that_come() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1"], "mill").await;
    portal.tell(("m1", "power", Kind::Raised, Warning), 0).await;
    portal.waiting("log").await;
    // Longer than the test runs by the wall clock, which a restart asks.
    let end = crate::delivery::now_us() + 3_600 * SECOND;
    let begin = Action::BeginMaintenance { until_us: end, reason: "bearing".into() };
    let viewer = Command { role: Role::Viewer, ..order(begin.clone(), 10) };
    assert!(matches!(portal.alarms.maintenance("m1", viewer).await, Err(CommandError::Illegal(_))));
    let changed = portal.alarms.maintenance("m1", order(begin, 10)).await.unwrap();
    assert_eq!(changed.iter().map(|row| row.alarm.state.as_str()).collect::<Vec<_>>(), ["suppressed"]);
    portal.restart().await;
    portal.tell(("m1", "heat", Kind::Raised, Critical), 20).await;
    assert_eq!(portal.row("m1", "heat").await.alarm.state.as_str(), "suppressed");
    assert_eq!(portal.waiting("log").await, [""; 0]);
    let about: Vec<_> = portal.store.audit(Some("machine:m1"), 9, None).await.unwrap().rows;
    assert_eq!(about.iter().map(|row| &*row.audit.action).collect::<Vec<_>>(), ["begin_maintenance"]);

    portal.alarms.clock(BEGIN + 30 * SECOND).await.unwrap();
    assert_eq!(portal.store.audit(None, 9, None).await.unwrap().rows.len(), 5, "what has begun does not begin again");
    assert_eq!(*portal.alarms.due().borrow(), Some(end));
    portal.alarms.clock(end - 1).await.unwrap();
    assert_eq!(portal.row("m1", "heat").await.alarm.state.as_str(), "suppressed");
    portal.alarms.clock(end).await.unwrap();
    assert_eq!(portal.row("m1", "heat").await.alarm.state.as_str(), "unacknowledged");
    assert_eq!(portal.row("m1", "power").await.alarm.state.as_str(), "unacknowledged");
    assert_eq!(*portal.alarms.due().borrow(), None);
    let told = portal.waiting("log").await;
    assert!(told.contains(&"m1 heat maintenance_ended".to_owned()), "{told:?}");
}

#[tokio::test]
async fn a_planned_window_begins_by_the_clock_also_after_a_restart() {
    for restarted in [false, true] {
        let mut portal = Portal::new().await;
        portal.confirm(&["m1"], "mill").await;
        portal.tell(("m1", "power", Kind::Raised, Warning), 0).await;
        portal.waiting("log").await;
        // Ahead of the wall clock, which a restart asks.
        let from = crate::delivery::now_us() + 3_600 * SECOND;
        let until_us = from + 600 * SECOND;
        let begin = |until_us, reason: &str| order(Action::BeginMaintenance { until_us, reason: reason.into() }, 10);
        for (until_us, reason) in [(from, "over as it begins"), (until_us, " ")] {
            let refused = portal.alarms.plan("m1", from, begin(until_us, reason)).await;
            assert!(matches!(refused, Err(CommandError::Illegal(_))), "{reason}");
        }
        let alarms = portal.alarms.plan("m1", from, begin(until_us, "bearing")).await.unwrap();
        assert_eq!(alarms.iter().map(|row| row.alarm.state.as_str()).collect::<Vec<_>>(), ["unacknowledged"]);
        let audit = portal.store.audit(Some("machine:m1"), 9, None).await.unwrap().rows;
        let line = &audit[0].audit;
        assert_eq!((audit.len(), &*line.action, line.at_us), (1, "plan_maintenance", BEGIN + 10 * SECOND));
        assert!(line.why.as_ref().is_some_and(|why| why.ends_with(": bearing")) && line.until_us == Some(until_us));
        if restarted {
            portal.restart().await;
        }
        assert_eq!(*portal.alarms.due().borrow(), Some(from));
        portal.alarms.clock(from - 1).await.unwrap();
        assert_eq!(portal.row("m1", "power").await.alarm.state.as_str(), "unacknowledged");
        portal.alarms.clock(from).await.unwrap();
        let row = portal.row("m1", "power").await;
        assert_eq!((row.alarm.state.as_str(), row.alarm.changed_us), ("suppressed", from));
        let second = (from - BEGIN) / SECOND + 1;
        portal.tell(("m1", "heat", Kind::Raised, Critical), second).await;
        assert_eq!(portal.row("m1", "heat").await.alarm.state.as_str(), "suppressed");
        assert_eq!(portal.waiting("log").await, [""; 0]);
        assert_eq!(*portal.alarms.due().borrow(), Some(until_us));
        portal.alarms.clock(until_us).await.unwrap();
        assert_eq!(portal.row("m1", "power").await.alarm.state.as_str(), "unacknowledged");
    }
}

#[tokio::test]
async fn a_planned_window_is_called_off_and_adds_to_one_that_stands() {
    let mut portal = Portal::new().await;
    portal.tell(("m1", "power", Kind::Raised, Warning), 0).await;
    let at = |second: i64| BEGIN + second * SECOND;
    let begin =
        |until: i64, second| order(Action::BeginMaintenance { until_us: at(until), reason: "x".into() }, second);
    let state = async |portal: &Portal| portal.row("m1", "power").await.alarm.state.as_str().to_owned();
    portal.alarms.plan("m1", at(100), begin(200, 10)).await.unwrap();
    portal.alarms.maintenance("m1", order(Action::EndMaintenance, 20)).await.unwrap();
    assert_eq!(*portal.alarms.due().borrow(), Some(at(100)));
    portal.alarms.clock(at(150)).await.unwrap();
    assert_eq!(state(&portal).await, "unacknowledged", "called off");

    // One inside the standing one changes nothing, one beyond its end keeps the alarm silent.
    portal.alarms.maintenance("m1", begin(400, 300)).await.unwrap();
    portal.alarms.plan("m1", at(310), begin(350, 300)).await.unwrap();
    portal.alarms.plan("m1", at(390), begin(500, 300)).await.unwrap();
    for second in [310, 350, 390, 400, 499] {
        portal.alarms.clock(at(second)).await.unwrap();
        assert_eq!(state(&portal).await, "suppressed", "{second}");
    }
    portal.alarms.clock(at(500)).await.unwrap();
    assert_eq!(state(&portal).await, "unacknowledged");
}

#[tokio::test]
async fn after_maintenance_the_first_out_alone_annunciates() {
    for by_clock in [true, false] {
        let mut portal = Portal::new().await;
        portal.confirm(&["m1"], "mill").await;
        let until_us = BEGIN + 3_600 * SECOND;
        let begin = Action::BeginMaintenance { until_us, reason: "bearing".into() };
        portal.alarms.maintenance("m1", order(begin, -10)).await.unwrap();
        for (condition, second) in [("power", 0), ("a", 5), ("heat", 10), ("z", 20)] {
            portal.tell(("m1", condition, Kind::Raised, Warning), second).await;
        }
        if by_clock {
            portal.alarms.clock(until_us).await.unwrap();
        } else {
            portal.alarms.maintenance("m1", order(Action::EndMaintenance, 60)).await.unwrap();
        }
        let how = if by_clock { "maintenance_ended" } else { "end_maintenance" };
        assert_eq!(portal.waiting("log").await, [format!("m1 power {how}")]);
        assert_eq!(portal.row("m1", "heat").await.alarm.state.as_str(), "unacknowledged");
    }
}

#[tokio::test]
async fn maintenance_ends_early_and_only_where_it_is() {
    let mut portal = Portal::new().await;
    portal.tell(("m1", "power", Kind::Raised, Warning), 0).await;
    let end = order(Action::EndMaintenance, 20);
    let none = portal.alarms.maintenance("m1", end.clone()).await;
    assert!(matches!(none, Err(CommandError::Illegal(alarm::Illegal::Edge { .. }))));
    let until_us = BEGIN + 3_600 * SECOND;
    let begin = order(Action::BeginMaintenance { until_us, reason: "x".into() }, 10);
    portal.alarms.maintenance("m1", begin.clone()).await.unwrap();
    assert_eq!(portal.alarms.maintenance("m2", begin).await.unwrap(), []);
    assert_eq!(portal.alarms.maintenance("m1", end).await.unwrap()[0].alarm.state.as_str(), "unacknowledged");
    portal.tell(("m1", "heat", Kind::Raised, Warning), 30).await;
    assert_eq!(portal.row("m1", "heat").await.alarm.state.as_str(), "unacknowledged");
    portal.tell(("m2", "heat", Kind::Raised, Warning), 30).await;
    assert_eq!(portal.row("m2", "heat").await.alarm.state.as_str(), "suppressed");
}

#[tokio::test]
async fn a_shelf_ends_by_the_clock_and_asks_again() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1"], "mill").await;
    portal.tell(("m1", "power", Kind::Raised, Warning), 0).await;
    portal.waiting("log").await;
    let until_us = BEGIN + 3_600 * SECOND;
    let shelve = Action::Shelve { until_us, reason: "known".into() };
    portal.alarms.command(store::alarm_id("m1", "power"), order(shelve, 10)).await.unwrap();
    portal.restart().await;
    assert_eq!(*portal.alarms.due().borrow(), Some(until_us));
    portal.alarms.clock(until_us + 5).await.unwrap();
    assert_eq!(portal.row("m1", "power").await.alarm.state.as_str(), "unacknowledged");
    assert_eq!(portal.waiting("log").await, ["m1 power shelf_expired"]);
}

#[tokio::test]
async fn a_machine_that_matters_more_moves_its_alarms_up() {
    let mut portal = Portal::new().await;
    portal.tell(("m1", "power", Kind::Raised, Critical), 0).await;
    assert_eq!(portal.row("m1", "power").await.alarm.priority, Some(2));
    let row = MachineRow { criticality: Some("A".into()), confirmed: true, ..MachineRow::new("m1", "mill") };
    portal.alarms.register(vec![row], vec![], vec![]).await.unwrap();
    assert_eq!(portal.row("m1", "power").await.alarm.priority, Some(1));
    assert!(portal.store.confirmed("m1"));
    portal.tell(("m1", "heat", Kind::Raised, Critical), 100).await;
    assert_eq!(portal.row("m1", "heat").await.alarm.priority, Some(1));
}

#[tokio::test]
async fn a_dead_notification_is_an_alarm_on_the_other_channels() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1"], "mill").await;
    portal.tell(("m1", "power", Kind::Raised, Critical), 0).await;
    portal.waiting("log").await;
    let lease = |portal: &Portal| {
        let store = portal.store.clone();
        async move { store.lease_notifications("hook", i64::MAX / 2, 0, 9).await.unwrap() }
    };
    let rows = lease(&portal).await;
    portal.alarms.dead(&rows[0], BEGIN, "410".into()).await.unwrap();
    assert_eq!(portal.waiting("log").await, ["channel:hook notification_dead raised"]);
    assert!(lease(&portal).await.is_empty());
    portal.tell(("m1", "heat", Kind::Raised, Critical), 100).await;
    portal.alarms.sent(&lease(&portal).await[0], BEGIN + 1).await.unwrap();
    let row = portal.row("channel:hook", "notification_dead").await;
    assert_eq!(row.alarm.state.as_str(), "returned_unacknowledged");
}

/// One thing that happens in a random life.
#[derive(Debug, Clone)]
enum Thing {
    Alert { machine: usize, condition: usize, kind: Kind, critical: bool },
    Order { machine: usize, condition: usize, action: Action },
    Deliver(usize),
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let at = || (0..2_usize, 0..3_usize);
    let kind = prop::sample::select(vec![Kind::Raised, Kind::Raised, Kind::Changed, Kind::Cleared]);
    let alert = (at(), kind, any::<bool>()).prop_map(|((machine, condition), kind, critical)| Thing::Alert {
        machine,
        condition,
        kind,
        critical,
    });
    let shelve = Action::Shelve { until_us: BEGIN + 7_200 * SECOND, reason: "x".into() };
    let action = prop::sample::select(vec![acknowledge(), shelve, Action::Unshelve]);
    let order = (at(), action).prop_map(|((machine, condition), action)| Thing::Order { machine, condition, action });
    let thing = prop_oneof![6 => alert, 2 => order, 1 => (1..4_usize).prop_map(Thing::Deliver)];
    prop::collection::vec(thing, 1..40)
}

const MACHINES: [&str; 2] = ["pump-1", "m1"];
const CONDITIONS: [&str; 3] = ["dead_head", "vibration", "bearing_temp"];

/// What a life leaves behind.
#[derive(Debug, PartialEq)]
struct Left {
    alarms: Vec<AlarmRow>,
    audit: Vec<AuditRow>,
    events: Vec<(u64, String, String)>,
    notifications: Vec<Uuid>,
}

/// Lives a life; a portal that is killed comes back before each delivery of `step` alerts.
async fn live(things: &[Thing], step: usize, killed: bool) -> Left {
    let mut portal = Portal::new().await;
    portal.confirm(&MACHINES, "mill").await;
    for (thing, second) in things.iter().zip((0..).step_by(7)) {
        match thing {
            Thing::Alert { machine, condition, kind, critical } => {
                let severity = if *critical { Critical } else { Warning };
                let alert = portal.alert((MACHINES[*machine], CONDITIONS[*condition], *kind, severity), second);
                portal.detect(vec![alert]).await;
            }
            Thing::Order { machine, condition, action } => {
                // Orders find the same alarms whatever the batches are.
                portal.deliver(step).await;
                let id = store::alarm_id(MACHINES[*machine], CONDITIONS[*condition]);
                let _ = portal.alarms.command(id, order(action.clone(), second)).await;
            }
            Thing::Deliver(most) => portal.deliver(*most).await,
        }
        if killed {
            portal.restart().await;
        }
    }
    portal.deliver(step).await;
    assert_eq!(portal.store.verify_audit().await.unwrap().1, None);
    let mut notifications: Vec<Uuid> = Vec::new();
    loop {
        let rows = portal.store.lease_notifications("log", i64::MAX / 2, 0, 100).await.unwrap();
        if rows.is_empty() {
            break;
        }
        for row in rows {
            portal.store.attempted(row.id, 0, Attempted::Sent).await.unwrap();
            notifications.push(row.id);
        }
    }
    notifications.sort_unstable();
    let events = portal.store.events_after(0, 10_000).await.unwrap();
    Left {
        alarms: portal.store.alarms().await.unwrap(),
        audit: portal.store.audit(None, 1_000, None).await.unwrap().rows,
        events: events.into_iter().map(|event| (event.seq, event.kind, event.data)).collect(),
        notifications,
    }
}

/// The alarms by `alarm::Alarm` alone, over the alerts of the stream and the orders of the audit log.
fn reference(left: &Left) -> BTreeMap<Uuid, Alarm> {
    let alerts = left.events.iter().filter(|event| event.1 == "alert").map(|event| Alert::from_json(&event.2).unwrap());
    let by_id: BTreeMap<Uuid, Alert> = alerts.map(|alert| (alert.alert_id, alert)).collect();
    let mut alarms: BTreeMap<Uuid, Alarm> = BTreeMap::new();
    for line in left.audit.iter().rev() {
        let id: Uuid = line.subject.strip_prefix("alarm:").unwrap().parse().unwrap();
        let event = match line.audit.alert_id {
            Some(alert) => {
                let alert = &by_id[&alert];
                alarms.entry(id).or_insert_with(|| Alarm::of(alert, Criticality::B));
                Event::Engine(alarm::Transition::from(alert))
            }
            None => {
                let reason = line.audit.why.clone().unwrap_or_default();
                let action = match &*line.audit.action {
                    "acknowledge" => Action::Acknowledge { comment: reason },
                    "shelve" => Action::Shelve { until_us: line.audit.until_us.unwrap(), reason },
                    _ => Action::Unshelve,
                };
                let by = line.audit.by.clone();
                Event::Person(Command { by, role: line.audit.role.unwrap(), at_us: line.audit.at_us, action })
            }
        };
        let alarm = alarms.get_mut(&id).unwrap();
        let before = alarm.clone();
        let audit = alarm.apply(&event).unwrap().audit.unwrap();
        // Groups silence; they make nothing ring.
        if !line.audit.annunciates {
            alarm.untold(&before);
        }
        assert!(audit.annunciates || !line.audit.annunciates);
        assert_eq!(alarm::Audit { annunciates: line.audit.annunciates, ..audit }, line.audit);
    }
    alarms
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_batches_and_any_kill_leave_the_same(things in things()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let once = runtime.block_on(live(&things, 100, false));
        prop_assert_eq!(&once, &runtime.block_on(live(&things, 1, true)));
        let seqs: Vec<u64> = once.events.iter().map(|event| event.0).collect();
        prop_assert_eq!(seqs, (1..=once.events.len() as u64).collect::<Vec<_>>());
        let alarms: BTreeMap<Uuid, Alarm> = once.alarms.iter().map(|row| (row.id, row.alarm.clone())).collect();
        prop_assert_eq!(reference(&once), alarms);
        let told = once.audit.iter().filter(|line| line.audit.annunciates).count();
        prop_assert_eq!(told, once.notifications.len());
    }
}

/// Found by the property: alarms that follow a new first-out were told in the order in which the step found them.
#[tokio::test]
async fn who_follows_is_told_in_one_order_whatever_the_batches_are() {
    let raise = |condition| Thing::Alert { machine: 0, condition, kind: Kind::Raised, critical: false };
    let nothing = Thing::Order { machine: 0, condition: 0, action: acknowledge() };
    let things = [raise(1), nothing, raise(2), raise(0), raise(0)];
    assert_eq!(live(&things, 100, false).await, live(&things, 1, true).await);
}

#[tokio::test]
async fn machines_on_two_partitions_are_one_alarm_as_long_as_they_come_on_both() {
    let portal = Portal::new().await;
    let on_both = |name: &str, apart| Scattered {
        machine_id: name.into(),
        partitions: vec![4, 1],
        newest_us: (BEGIN, BEGIN - apart * SECOND),
    };
    let (old, both) = (on_both("m0", 3_601), [on_both("m1", 3_600), on_both("m2", 0), on_both("m3", 7)]);
    let everywhere: Vec<Scattered> = [old.clone()].into_iter().chain(both).collect();
    let standing = async || portal.row("topic:sensor-raw-data", "two_partitions").await.alarm.standing;

    portal.alarms.scattered(std::slice::from_ref(&old), BEGIN).await.unwrap();
    assert_eq!(portal.waiting("log").await, [""; 0], "it was mended");
    for second in 0..2 {
        portal.alarms.scattered(&everywhere, BEGIN + second * SECOND).await.unwrap();
    }
    assert_eq!(portal.waiting("log").await, ["topic:sensor-raw-data two_partitions raised"]);
    let row = portal.row("topic:sensor-raw-data", "two_partitions").await;
    assert_eq!((row.alarm.subject, row.alarm.severity), (alarm::Subject::System, Severity::Critical));
    let text = row.text.unwrap();
    assert!(text.en.starts_with("machine m1 and 2 more: readings come on partitions 4 and 1 of"), "{}", text.en);
    assert!(text.ko.starts_with("설비 m1 외 2대: 데이터가 sensor-raw-data의 파티션 4, 1에"), "{}", text.ko);
    portal.alarms.scattered(&[old], BEGIN + 9 * SECOND).await.unwrap();
    assert!(!standing().await);
    portal.alarms.scattered(&everywhere, BEGIN + 10 * SECOND).await.unwrap();
    assert!(standing().await);
    // Nobody has answered the first one yet.
    assert_eq!(portal.waiting("log").await, [""; 0]);
    assert_eq!(portal.row("topic:sensor-raw-data", "two_partitions").await.alarm.count, 2);
}
