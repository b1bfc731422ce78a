//! The store against real files and real databases.

mod plant_only;
mod portal;
mod room;

use super::*;
use engine::{Effects, MachineEvent};
use room::{Room, contract};
use wire::{Alert, AlertText, Direction, Kind, LimitSource, Position, READINGS_TOPIC, Reason, ReasonTerm};

contract! {
    what_was_answered_is_there_after_reopening,
    the_history_writes_each_alert_again_byte_for_byte,
    an_overtaken_detector_writes_nothing_and_the_winner_writes_once,
    two_detectors_from_zero_cannot_both_begin,
    a_commit_wakes_who_waits_for_the_outbox,
    pages_neither_skip_nor_repeat_while_alerts_come_in,
    foreign_cursors_are_refused,
    filters_narrow,
    standing_conditions_are_those_not_cleared,
    first_sight_fills_the_registry_and_a_person_s_row_wins,
    catalogues_and_activations_are_kept,
    events_are_kept_once,
    slabs_come_back_and_never_run_ahead_of_the_position,
    fits_are_kept,
}

fn alert(machine: &str, kind: Kind, timestamp: i64, offset: i64) -> Alert {
    let position = Position { topic: READINGS_TOPIC.into(), partition: 0, offset, index: 3 };
    let id = wire::alert_id(machine, "overstrain", kind, timestamp, &position);
    Alert {
        alert_id: id,
        machine_id: machine.into(),
        class: "mill".into(),
        failure_type: "Overstrain".into(),
        kind,
        severity: catalog::Severity::Critical,
        score: 1.0 / 3.0,
        model: "laws".into(),
        model_version: "abc".into(),
        condition: "overstrain".into(),
        condition_id: id,
        timestamp,
        arrived_at: timestamp + 5,
        started_at: timestamp,
        position,
        reading: Some(serde_json::value::RawValue::from_string(r#"{"torque_nm":42.80}"#.into()).unwrap()),
        reason: reason(),
        text: AlertText { en: "torque".into(), ko: "토크".into() },
        suspended: None,
        caught_up: (kind == Kind::Changed).then_some(true),
        notice: false,
    }
}

/// With numbers of which a careless reader of decimals loses the last bit.
fn reason() -> Reason {
    let term = |measured: f64| ReasonTerm {
        quantity: "strain".into(),
        term: "strain_min_nm".into(),
        measured,
        limit: 11_000.0,
        unit: "min*Nm".into(),
        direction: Direction::Above,
        margin: measured - 11_000.0,
        limit_source: LimitSource::Class,
    };
    let hard = [0.1 + 0.2, 299.1 - 290.49999999999994, 1e300, 5e-324, 1e16, 123_456_789.123_456_79, 8.41e21, 1e-7];
    Reason {
        law: Some("overstrain".into()),
        terms: hard.into_iter().map(term).collect(),
        notes: vec!["a \"b\"".into()],
        ..Reason::default()
    }
}

fn raised(alerts: Vec<Alert>) -> Effects {
    Effects { alerts, ..Effects::default() }
}

fn step(partition: u16, from: i64, to: i64, effects: &Effects) -> Step<'_> {
    Step { partition, from, to, effects, sources: &[], activation: None }
}

async fn all(store: &Store, query: AlertQuery) -> Vec<Alert> {
    store.alerts(AlertQuery { limit: 1000, ..query }).await.unwrap().rows
}

async fn what_was_answered_is_there_after_reopening(room: Room) {
    let store = room.open();
    let effects = raised(vec![alert("m1", Kind::Raised, 2_000_000, 7)]);
    store.commit(vec![step(0, 0, 8, &effects), step(3, 0, 5, &Effects::default())]).await.unwrap();
    // Not closed: a second connection sees what a crash would leave.
    let again = room.open();
    assert_eq!(again.positions(0..6).await.unwrap(), [8, 0, 0, 5, 0, 0]);
    let outbox = again.outbox_after(0, 10).await.unwrap();
    assert_eq!(outbox, [(1, room.announced(&effects.alerts[0].to_json()).await)]);
    assert_eq!(*store.outbox_grown().borrow(), 1);
}

async fn the_history_writes_each_alert_again_byte_for_byte(room: Room) {
    let store = room.open();
    let alerts: Vec<Alert> = [Kind::Raised, Kind::Changed, Kind::Cleared]
        .into_iter()
        .zip(1..)
        .map(|(kind, at)| alert("m1", kind, at * 1_234_567, at))
        .collect();
    let effects = raised(alerts.clone());
    store.commit(vec![step(0, 0, 9, &effects)]).await.unwrap();
    let outbox = store.outbox_after(0, 10).await.unwrap();
    for (alert, (_, announced)) in alerts.iter().zip(&outbox) {
        let again = store.alert(alert.alert_id).await.unwrap().unwrap().to_json();
        assert_eq!(room.announced(&again).await, *announced);
        assert_eq!(room.announced(&alert.to_json()).await, *announced);
    }
}

async fn an_overtaken_detector_writes_nothing_and_the_winner_writes_once(room: Room) {
    let (first, second) = (room.open(), room.open());
    let effects = raised(vec![alert("m1", Kind::Raised, 2_000_000, 7)]);
    first.commit(vec![step(0, 0, 8, &effects)]).await.unwrap();
    let quiet = Effects::default();
    let fenced = second.commit(vec![step(1, 0, 4, &quiet), step(0, 0, 9, &effects)]).await;
    assert!(matches!(fenced, Err(Error::Fenced { partition: 0, expected: 0, found: 8 })), "{fenced:?}");
    assert_eq!(second.positions(0..2).await.unwrap(), [8, 0], "no step of the loser stays");
    // The same transition told again, by a detector that replayed: history and outbox keep one.
    second.commit(vec![step(0, 8, 9, &effects)]).await.unwrap();
    assert_eq!(second.outbox_after(0, 10).await.unwrap().len(), 1);
    assert_eq!(all(&second, AlertQuery::default()).await.len(), 1);
}

async fn two_detectors_from_zero_cannot_both_begin(room: Room) {
    let (first, second) = (room.open(), room.open());
    let quiet = Effects::default();
    let both = tokio::join!(first.commit(vec![step(0, 0, 5, &quiet)]), second.commit(vec![step(0, 0, 6, &quiet)]));
    assert_eq!([both.0.is_ok(), both.1.is_ok()].iter().filter(|won| **won).count(), 1);
}

#[tokio::test]
async fn a_failing_job_does_not_disturb_its_group() {
    let room = Room::file();
    let store = room.open();
    let put = |store: &Store, id: &str| {
        let (store, row) = (store.clone(), MachineRow::new(id, "mill"));
        async move { store.register(vec![row]).await }
    };
    let bad = MachineRow { criticality: Some("Z".into()), ..MachineRow::new("bad", "mill") };
    let Variant::Sqlite(file) = &store.0 else { unreachable!("it was opened as a file") };
    let panicking = file.write(|_| -> Result<(), Error> { panic!("a bug") });
    let (a, b, c, d) = tokio::join!(
        put(&store, "a"),
        store.register(vec![MachineRow::new("x", "mill"), bad]),
        panicking,
        put(&store, "b")
    );
    a.unwrap();
    assert!(matches!(b, Err(Error::Sqlite(_))));
    assert!(matches!(c, Err(Error::Panicked)));
    d.unwrap();
    let names: Vec<_> = store.registry().await.unwrap().into_iter().map(|row| row.machine_id).collect();
    assert_eq!(names, ["a", "b"]);
}

async fn a_commit_wakes_who_waits_for_the_outbox(room: Room) {
    let store = room.open();
    let mut outbox = store.outbox_grown();
    let quiet = Effects::default();
    store.commit(vec![step(0, 0, 1, &quiet)]).await.unwrap();
    assert!(!outbox.has_changed().unwrap());
    let effects = raised(vec![alert("m1", Kind::Raised, 1, 1), alert("m2", Kind::Raised, 1, 1)]);
    store.commit(vec![step(0, 1, 2, &effects)]).await.unwrap();
    assert_eq!(*outbox.borrow_and_update(), 2);
}

async fn pages_neither_skip_nor_repeat_while_alerts_come_in(room: Room) {
    let store = room.open();
    // Event times out of commit order, with ties.
    let times = [50, 10, 30, 30, 20, 50, 40, 30];
    let effects = raised((0..).zip(times).map(|(at, time)| alert("m1", Kind::Raised, time, at)).collect());
    store.commit(vec![step(0, 0, 100, &effects)]).await.unwrap();
    let expected: Vec<_> = all(&store, AlertQuery::default()).await.iter().map(|alert| alert.alert_id).collect();
    let order: Vec<_> =
        all(&store, AlertQuery::default()).await.iter().map(|a| (a.timestamp, a.position.offset)).collect();
    assert_eq!(order, [(50, 5), (50, 0), (40, 6), (30, 7), (30, 3), (30, 2), (20, 4), (10, 1)]);

    let (mut seen, mut cursor, mut position) = (Vec::new(), None, 100);
    loop {
        let query = AlertQuery { limit: 3, cursor, ..AlertQuery::default() };
        let page = store.alerts(query).await.unwrap();
        seen.extend(page.rows.iter().map(|alert| alert.alert_id));
        // An alert older than what was shown, and one newer.
        let new = raised(vec![alert("m2", Kind::Raised, 15, position), alert("m2", Kind::Raised, 60, position)]);
        store.commit(vec![step(0, position, position + 1, &new)]).await.unwrap();
        position += 1;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected);
}

async fn foreign_cursors_are_refused(room: Room) {
    let store = room.open();
    for cursor in ["", "a", "a1.2", "a1.2.3.4", "a01.2.3", "b1.2.3", "a1.2.x"] {
        let query = AlertQuery { cursor: Some(cursor.into()), limit: 1, ..AlertQuery::default() };
        assert!(matches!(store.alerts(query).await, Err(Error::Cursor)), "{cursor:?}");
    }
}

async fn filters_narrow(room: Room) {
    let store = room.open();
    let mut warning = alert("m2", Kind::Raised, 20, 2);
    warning.severity = catalog::Severity::Warning;
    warning.failure_type = "NoData".into();
    let effects = raised(vec![alert("m1", Kind::Raised, 10, 1), warning, alert("m1", Kind::Cleared, 30, 3)]);
    store.commit(vec![step(0, 0, 4, &effects)]).await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let cases = [
        (AlertQuery::default(), vec![3, 2, 1]),
        (AlertQuery { machine_id: text("m1"), ..AlertQuery::default() }, vec![3, 1]),
        (AlertQuery { machine_id: text("m1"), from_us: Some(11), ..AlertQuery::default() }, vec![3]),
        (AlertQuery { from_us: Some(10), to_us: Some(30), ..AlertQuery::default() }, vec![2, 1]),
        (AlertQuery { severity: text("warning"), ..AlertQuery::default() }, vec![2]),
        (AlertQuery { failure_type: text("Overstrain"), to_us: Some(30), ..AlertQuery::default() }, vec![1]),
        (AlertQuery { failure_type: text("' or 1=1"), ..AlertQuery::default() }, vec![]),
    ];
    for (query, expected) in cases {
        let found: Vec<_> = all(&store, query.clone()).await.iter().map(|alert| alert.position.offset).collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

async fn standing_conditions_are_those_not_cleared(room: Room) {
    let store = room.open();
    let open = alert("m1", Kind::Raised, 10, 1);
    let mut changed = alert("m1", Kind::Changed, 20, 2);
    changed.condition_id = open.alert_id;
    let gone = alert("m2", Kind::Raised, 10, 1);
    let mut cleared = alert("m2", Kind::Cleared, 40, 4);
    cleared.condition_id = gone.alert_id;
    let effects = raised(vec![open, changed.clone(), gone, cleared]);
    store.commit(vec![step(0, 0, 5, &effects)]).await.unwrap();
    let standing: Vec<_> = store.standing_on(0).await.unwrap().iter().map(|alert| alert.alert_id).collect();
    assert_eq!(standing, [changed.alert_id]);
    assert!(store.standing_on(1).await.unwrap().is_empty());
}

async fn first_sight_fills_the_registry_and_a_person_s_row_wins(room: Room) {
    let store = room.open();
    let described =
        MachineRow { site: Some("Ulsan".into()), criticality: Some("A".into()), ..MachineRow::new("m2", "pump") };
    store.register(vec![described]).await.unwrap();
    let machine = |name: &str| catalog::MachineId::try_from(name).unwrap();
    let seen = |time| Effects {
        machines: ["m1", "m2", "m3"].map(|name| (machine(name), "mill".to_owned(), time)).to_vec(),
        ..Effects::default()
    };
    let sources = ["simulate", "http", "file"].map(Arc::from);
    store.commit(vec![Step { sources: &sources, ..step(0, 0, 1, &seen(5)) }]).await.unwrap();
    store.commit(vec![Step { sources: &sources, ..step(0, 1, 2, &seen(9)) }]).await.unwrap();
    let rows = store.registry().await.unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                &*row.machine_id,
                &*row.class,
                row.site.as_deref(),
                row.first_seen_us,
                row.source.as_deref(),
                row.confirmed,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("m1", "mill", None, Some(5), Some("simulate"), true),
            ("m2", "mill", Some("Ulsan"), Some(5), Some("http"), false),
            ("m3", "mill", None, Some(5), Some("file"), false),
        ]
    );
    assert!(store.confirm_machine("m3").await.unwrap());
    assert!(!store.confirm_machine("m4").await.unwrap());
    let confirmed = |store: &Store| ["m1", "m2", "m3", "m4"].map(|name| store.confirmed(name));
    assert_eq!(confirmed(&store), [true, false, true, false]);
    let again = room.open();
    again.refresh_confirmed().await.unwrap();
    assert_eq!(confirmed(&again), [true, false, true, false]);
    let asked = ["m3", "m4", "m1"].map(String::from).to_vec();
    let told: Vec<_> = again.registered_of(asked).await.unwrap().into_iter().map(|row| row.machine_id).collect();
    assert_eq!(told, ["m3", "m1"]);
}

async fn catalogues_and_activations_are_kept(room: Room) {
    let store = room.open();
    let quiet = Effects::default();
    store.commit(vec![Step { activation: Some(("h1", "d1")), ..step(2, 0, 0, &quiet) }]).await.unwrap();
    store.commit(vec![Step { activation: Some(("h2", "d2")), ..step(2, 0, 7, &quiet) }]).await.unwrap();
    store.commit(vec![Step { activation: Some(("h1", "d1")), ..step(2, 7, 7, &quiet) }]).await.unwrap();
    let told: Vec<_> =
        store.activations(2).await.unwrap().into_iter().map(|row| (row.from_offset, row.catalogue_hash)).collect();
    assert_eq!(told, [(0, "h2".to_owned()), (7, "h1".to_owned())]);
    assert_eq!(
        store.latest_activations().await.unwrap(),
        [Activation { partition: 2, from_offset: 7, catalogue_hash: "h1".into() }]
    );
    assert_eq!(store.catalogue("h2").await.unwrap().as_deref(), Some("d2"));
    assert_eq!(store.catalogue("h3").await.unwrap(), None);
}

async fn events_are_kept_once(room: Room) {
    let store = room.open();
    let event = MachineEvent {
        machine_id: "m1".into(),
        kind: "counter_reset".into(),
        timestamp_us: 5,
        position: Position { topic: READINGS_TOPIC.into(), partition: 0, offset: 1, index: 0 },
        detail: r#"{"channel":"tool_wear_min","from":211,"to":0}"#.into(),
    };
    let effects = Effects { events: vec![event.clone(), event.clone()], ..Effects::default() };
    store.commit(vec![step(0, 0, 2, &effects)]).await.unwrap();
    assert_eq!(store.machine_events("m1", 0, 6, 10, None).await.unwrap().rows, [event]);
}

async fn slabs_come_back_and_never_run_ahead_of_the_position(room: Room) {
    let store = room.open();
    let quiet = Effects::default();
    store.commit(vec![step(1, 0, 10, &quiet)]).await.unwrap();
    let big = vec![7; super::snapshots::TRANSACTION_BYTES + 1];
    let slabs = vec![(0, b"zero".to_vec()), (1, big.clone()), (u32::MAX, b"shared".to_vec())];
    store.save_slabs(1, slabs.clone(), 10).await.unwrap();
    assert_eq!(store.load_slabs(1).await.unwrap(), slabs);
    assert!(store.load_slabs(0).await.unwrap().is_empty());

    assert!(matches!(store.save_slabs(1, vec![(0, vec![])], 11).await, Err(Error::Fenced { .. })));
    store.save_slabs(1, vec![(0, b"stale".to_vec())], 9).await.unwrap();
    assert_eq!(store.load_slabs(1).await.unwrap(), slabs, "an older slab does not take the place of a newer");
    store.drop_slabs(1).await.unwrap();
    assert!(store.load_slabs(1).await.unwrap().is_empty());
}

async fn fits_are_kept(room: Room) {
    let store = room.open();
    let fit = scoring::Fit {
        channels: vec!["vib_mm_s".into()],
        count: 1_000,
        mean: vec![0.1 + 0.2],
        precision: vec![123_456_789.123_456_79],
        threshold: 299.1 - 290.49999999999994,
    };
    let effects = Effects { fits: vec![("pump".into(), fit.clone())], ..Effects::default() };
    store.commit(vec![step(0, 0, 1, &effects)]).await.unwrap();
    assert_eq!(store.fit(&fit.hash()).await.unwrap(), Some(fit));
    assert!(store.fit("none").await.unwrap().is_none());
}

#[tokio::test]
async fn pruning_keeps_the_last_position() {
    let room = Room::file();
    let store = room.open();
    let effects = raised((1..=3).map(|at| alert("m1", Kind::Raised, at, at)).collect());
    store.commit(vec![step(0, 0, 4, &effects)]).await.unwrap();
    assert_eq!(store.prune_outbox(3).await.unwrap(), 2);
    assert_eq!(*room.open().outbox_grown().borrow(), 3);
    assert_eq!(all(&store, AlertQuery::default()).await.len(), 3);
}

#[tokio::test]
async fn a_closed_store_says_so_and_leaves_one_file() {
    let room = Room::file();
    let store = room.open();
    store.register(vec![MachineRow::new("m1", "mill")]).await.unwrap();
    store.registry().await.unwrap();
    store.close().await;
    assert!(matches!(store.register(vec![]).await, Err(Error::Closed)));
    assert!(matches!(store.registry().await, Err(Error::Closed)));
    let files: Vec<_> =
        std::fs::read_dir(room.path().parent().unwrap()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["store.db"]);
    assert_eq!(room.open().registry().await.unwrap().len(), 1);
}

#[test]
fn later_schemas_and_foreign_files_are_refused() {
    let room = Room::file();
    drop(room.open());
    let path = room.path();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Schema { found: 999, .. })));
    let other = path.with_file_name("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("create table t (a)").unwrap();
    assert!(matches!(Store::open(&other), Err(Error::NotOurs)));
}
