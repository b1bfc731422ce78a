//! What the portal writes.

use super::*;
use room::contract;

contract! {
    a_step_of_the_portal_is_one_transaction_behind_a_fence,
    seqs_have_no_gap_whatever_fails_between,
    an_alert_is_in_the_stream_once,
    pruned_events_leave_the_last_seq,
    the_audit_log_is_chained_and_append_only,
    pages_of_alarms_neither_skip_nor_repeat_while_alarms_move,
    old_versions_of_the_list_go,
    a_dead_sender_s_notification_is_leased_again_under_its_key,
    what_follows_on_an_alarm_never_overtakes,
    maintenance_windows_are_kept,
    two_portals_at_once_number_without_a_gap,
}
use ::alarm::{Alarm, Audit, Criticality, Role};
use uuid::Uuid;

fn row(machine: &str, state: ::alarm::State, priority: u8, changed_us: i64) -> AlarmRow {
    let mut alarm = Alarm::new(machine, "overstrain", "Overstrain", Criticality::B);
    alarm.state = state;
    alarm.priority = Some(priority);
    alarm.changed_us = changed_us;
    AlarmRow { id: alarm_id(machine, "overstrain"), alarm, alert: Some("{}".into()), text: None, group: None }
}

fn line(subject: &str, action: &str, notify: Vec<NewNotification>) -> NewAudit {
    let audit = Audit {
        at_us: 5,
        by: "김".into(),
        role: Some(Role::Operator),
        action: action.into(),
        from: "normal".into(),
        to: "unacknowledged".into(),
        why: Some("점검 \"A\"\n".into()),
        until_us: None,
        alert_id: Some(Uuid::from_u128(7)),
        annunciates: true,
    };
    NewAudit { subject: subject.into(), audit, notify }
}

fn event(kind: &str, data: &str) -> NewEvent {
    NewEvent { kind: kind.into(), data: data.into() }
}

fn notification(channel: &str, alarm: u128, payload: &str) -> NewNotification {
    NewNotification {
        channel: channel.into(),
        alarm: Uuid::from_u128(alarm),
        alert: Uuid::from_u128(9),
        payload: payload.into(),
    }
}

fn notifying(notifications: Vec<NewNotification>) -> Record {
    Record { audit: vec![line("alarm:a", "raised", notifications)], ..Record::default() }
}

async fn a_step_of_the_portal_is_one_transaction_behind_a_fence(room: Room) {
    let store = room.open();
    let step = |from, to| Record {
        position: Some((from, to)),
        alarms: vec![row("m1", ::alarm::State::Unacknowledged, 2, 1)],
        audit: vec![line("alarm:a", "raised", vec![notification("log", 1, "{}")])],
        events: vec![event("alarm", "{}")],
        machines: vec![MachineRow { confirmed: true, ..MachineRow::new("m1", "mill") }],
        ..Record::default()
    };
    let events = store.record(step(0, 4)).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1]);
    assert!(matches!(store.record(step(0, 4)).await, Err(Error::Fenced { expected: 0, found: 4, .. })));
    let again = room.open();
    assert_eq!(again.portal_position(0).await.unwrap(), 4);
    assert_eq!(again.event_range().await.unwrap(), (1, 1));
    assert_eq!(again.audit(None, 10, None).await.unwrap().rows.len(), 1);
    assert_eq!(again.lease_notifications("log", 0, 1, 10).await.unwrap().len(), 1);
    assert_eq!(again.alarms().await.unwrap(), [row("m1", ::alarm::State::Unacknowledged, 2, 1)]);
    let id = alarm_id("m1", "overstrain");
    assert_eq!(again.alarm(id).await.unwrap(), Some(row("m1", ::alarm::State::Unacknowledged, 2, 1)));
    again.refresh_confirmed().await.unwrap();
    assert!(again.confirmed("m1") && store.confirmed("m1"));
}

async fn seqs_have_no_gap_whatever_fails_between(room: Room) {
    let store = room.open();
    let good = |name: &str| Record { events: vec![event(name, "{}"), event(name, "{}")], ..Record::default() };
    let fenced = Record { position: Some((9, 10)), ..good("fenced") };
    let bad = Record {
        events: vec![event("bad", "{}")],
        machines: vec![MachineRow { criticality: Some("Z".into()), ..MachineRow::new("x", "mill") }],
        ..Record::default()
    };
    let all = tokio::join!(
        store.record(good("a")),
        store.record(fenced),
        store.record(good("b")),
        store.record(bad),
        store.record(good("c"))
    );
    assert!(all.0.is_ok() && all.1.is_err() && all.2.is_ok() && all.3.is_err() && all.4.is_ok());
    let seqs: Vec<_> = store.events_after(0, 100).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
    assert_eq!(store.events_after(4, 1).await.unwrap()[0].seq, 5);
}

async fn an_alert_is_in_the_stream_once(room: Room) {
    let store = room.open();
    let alert = r#"{"alert_id":"a"}"#;
    let events = vec![event("alert", alert), event("alarm", alert), event("alert", alert), event("alarm", alert)];
    let written = store.record(Record { events, ..Record::default() }).await.unwrap();
    let told: Vec<_> = written.iter().map(|event| (event.seq, &*event.kind)).collect();
    assert_eq!(told, [(1, "alert"), (2, "alarm"), (3, "alarm")]);
}

async fn pruned_events_leave_the_last_seq(room: Room) {
    let store = room.open();
    assert_eq!(store.event_range().await.unwrap(), (1, 0));
    let events = vec![event("a", "{}"); 3];
    store.record(Record { events: events.clone(), ..Record::default() }).await.unwrap();
    assert_eq!(store.event_since(0).await.unwrap(), 1);
    assert_eq!(store.event_since(i64::MAX).await.unwrap(), 4);
    assert_eq!(store.prune_events(2).await.unwrap(), 2);
    assert_eq!(store.event_range().await.unwrap(), (3, 3));
    assert_eq!(store.prune_events(u64::MAX).await.unwrap(), 1);
    assert_eq!(room.open().event_range().await.unwrap(), (4, 3));
    assert_eq!(store.record(Record { events, ..Record::default() }).await.unwrap()[0].seq, 4);
}

async fn the_audit_log_is_chained_and_append_only(room: Room) {
    let store = room.open();
    assert_eq!(store.verify_audit().await.unwrap(), (0, None));
    for action in ["raised", "acknowledge", "cleared"] {
        let audit = vec![line("alarm:a", action, vec![]), line("machine:m", action, vec![])];
        store.record(Record { audit, ..Record::default() }).await.unwrap();
    }
    assert_eq!(store.verify_audit().await.unwrap(), (6, None));
    let first = store.audit(Some("alarm:a"), 2, None).await.unwrap();
    assert_eq!(first.rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [5, 3]);
    assert_eq!(first.rows[0].audit, line("", "cleared", vec![]).audit);
    let second = store.audit(Some("alarm:a"), 2, first.next_cursor.as_deref()).await.unwrap();
    assert_eq!(second.rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1]);
    assert_eq!(second.next_cursor, None);
    assert!(matches!(store.audit(None, 2, Some("u01")).await, Err(Error::Cursor)));

    assert!(room.raw("update audit set line = '' where sequence = 1").await.is_err());
    assert!(room.raw("delete from audit").await.is_err());
    room.unlock_audit().await;
    room.raw("delete from audit where sequence = 6").await.unwrap();
    assert_eq!(store.verify_audit().await.unwrap(), (5, Some(6)));
    room.raw("update audit set line = replace(line, 'acknowledge', 'shelve') where sequence = 3").await.unwrap();
    assert_eq!(store.verify_audit().await.unwrap(), (2, Some(3)));
}

async fn pages_of_alarms_neither_skip_nor_repeat_while_alarms_move(room: Room) {
    use ::alarm::State::{Acknowledged, Normal, ReturnedUnacknowledged, Unacknowledged};
    let store = room.open();
    let rows = [
        ("m1", Unacknowledged, 3, 10),
        ("m2", Acknowledged, 1, 99),
        ("m3", Unacknowledged, 1, 5),
        ("m4", Unacknowledged, 3, 20),
        ("m5", ReturnedUnacknowledged, 1, 50),
        ("m6", Normal, 1, 70),
    ];
    let record = |rows: &[(&str, ::alarm::State, u8, i64)]| Record {
        alarms: rows.iter().map(|(machine, state, priority, at)| row(machine, state.clone(), *priority, *at)).collect(),
        ..Record::default()
    };
    store.record(record(&rows)).await.unwrap();
    let names = |page: &crate::history::Page<AlarmRow>| -> Vec<String> {
        page.rows.iter().map(|row| row.alarm.machine_id.clone()).collect()
    };
    let query = |cursor, open, limit| AlarmQuery { cursor, open, limit, ..AlarmQuery::default() };
    let whole = store.alarm_page(query(None, true, 10)).await.unwrap();
    assert_eq!(names(&whole), ["m3", "m4", "m1", "m5", "m2"]);
    assert_eq!(whole.next_cursor, None);

    let mut page = store.alarm_page(query(None, false, 2)).await.unwrap();
    let mut seen = names(&page);
    // One that was shown goes down, two that were not go up, and a new one comes.
    let moved = [
        ("m3", Acknowledged, 4, 100),
        ("m2", Unacknowledged, 1, 101),
        ("m6", Unacknowledged, 1, 102),
        ("m7", Unacknowledged, 1, 103),
    ];
    store.record(record(&moved)).await.unwrap();
    while let Some(cursor) = page.next_cursor {
        page = store.alarm_page(query(Some(cursor), false, 2)).await.unwrap();
        seen.extend(names(&page));
    }
    assert_eq!(seen, ["m3", "m4", "m1", "m5", "m2", "m6"]);

    let one = AlarmQuery { machine_id: Some("m3".into()), state: Some("acknowledged".into()), ..query(None, true, 9) };
    assert_eq!(names(&store.alarm_page(one).await.unwrap()), ["m3"]);
    let none = AlarmQuery { subject: Some("system".into()), ..query(None, false, 9) };
    assert!(store.alarm_page(none).await.unwrap().rows.is_empty());
    let changed = AlarmQuery { from_us: Some(50), to_us: Some(102), ..query(None, false, 9) };
    assert_eq!(names(&store.alarm_page(changed).await.unwrap()), ["m2", "m5", "m3"]);
    let refused = store.alarm_page(query(Some("l0.0.0.x.1".into()), false, 9)).await;
    assert!(matches!(refused, Err(Error::Cursor)));
}

async fn old_versions_of_the_list_go(room: Room) {
    let store = room.open();
    let busy = vec![row("m1", ::alarm::State::Unacknowledged, 2, 1); 6_000];
    store
        .record(Record { alarms: vec![row("m2", ::alarm::State::Unacknowledged, 2, 1)], ..Record::default() })
        .await
        .unwrap();
    let old = store.alarm_page(AlarmQuery { limit: 1, ..AlarmQuery::default() }).await.unwrap();
    assert_eq!(old.next_cursor, None);
    for _ in 0..3 {
        store.record(Record { alarms: busy.clone(), ..Record::default() }).await.unwrap();
    }
    let kept = room.raw("select count(*) from alarm_version").await.unwrap();
    assert_eq!(kept, [Some((10_000 + 2).to_string())]);
    let page = store.alarm_page(AlarmQuery { limit: 10, ..AlarmQuery::default() }).await.unwrap();
    assert_eq!(page.rows.len(), 2, "an alarm that never changes stays in the list");
}

async fn a_dead_sender_s_notification_is_leased_again_under_its_key(room: Room) {
    let store = room.open();
    store.record(notifying(vec![notification("hook", 1, "{}"), notification("log", 1, "{}")])).await.unwrap();
    let first = store.lease_notifications("hook", 100, 50, 10).await.unwrap();
    assert_eq!((first.len(), first[0].attempts), (1, 0));
    assert!(store.lease_notifications("hook", 149, 50, 10).await.unwrap().is_empty());
    assert_eq!(store.notification_due("hook").await.unwrap(), Some(150));
    // The process died between attempt and result: the next one finds the lease ended.
    let again = room.open().lease_notifications("hook", 150, 50, 10).await.unwrap();
    assert_eq!((again[0].id, again[0].attempts), (first[0].id, 1));
    store.attempted(first[0].id, 160, Attempted::Retry(1_000, "500".into())).await.unwrap();
    assert!(store.lease_notifications("hook", 999, 50, 10).await.unwrap().is_empty());
    assert_eq!(store.lease_notifications("hook", 1_000, 50, 10).await.unwrap()[0].attempts, 2);
    store.attempted(first[0].id, 1_010, Attempted::Sent).await.unwrap();
    // A result that comes late does not bring it back.
    store.attempted(first[0].id, 1_020, Attempted::Retry(0, "late".into())).await.unwrap();
    assert!(store.lease_notifications("hook", i64::MAX / 2, 50, 10).await.unwrap().is_empty());
    assert_eq!(store.notification_due("hook").await.unwrap(), None);
    assert_ne!(store.lease_notifications("log", 0, 1, 1).await.unwrap()[0].id, first[0].id);
    let sql =
        format!("select result from notification_attempt where notification_id = '{}' order by attempt", first[0].id);
    let results = room.raw(&sql).await.unwrap();
    assert_eq!(results, [None, Some("500".into()), Some("sent".into())]);
    assert_eq!(store.prune_notifications(i64::MAX).await.unwrap(), 1);
}

async fn what_follows_on_an_alarm_never_overtakes(room: Room) {
    let store = room.open();
    for (alarm, payload) in [(1, "raised 1"), (2, "raised 2"), (1, "cleared 1")] {
        store.record(notifying(vec![notification("hook", alarm, payload)])).await.unwrap();
    }
    let lease = |now| store.lease_notifications("hook", now, 50, 10);
    let rows = lease(0).await.unwrap();
    assert_eq!(rows.iter().map(|row| &*row.payload).collect::<Vec<_>>(), ["raised 1", "raised 2"]);
    store.attempted(rows[0].id, 1, Attempted::Retry(500, "503".into())).await.unwrap();
    store.attempted(rows[1].id, 1, Attempted::Sent).await.unwrap();
    assert!(lease(499).await.unwrap().is_empty());
    assert_eq!(store.notification_due("hook").await.unwrap(), Some(500));
    let rows = lease(500).await.unwrap();
    assert_eq!(rows[0].payload, "raised 1");
    store.attempted(rows[0].id, 501, Attempted::Dead("410".into())).await.unwrap();
    assert_eq!(lease(502).await.unwrap()[0].payload, "cleared 1");
}

async fn maintenance_windows_are_kept(room: Room) {
    let store = room.open();
    let window = |machine: &str, from_us, until_us| MaintenanceRow {
        machine_id: machine.into(),
        from_us,
        until_us,
        reason: "bearing".into(),
        by: "kim".into(),
        role: Role::Engineer,
    };
    let maintenance = vec![window("m1", 0, 10), window("m2", 5, 20)];
    store.record(Record { maintenance, ..Record::default() }).await.unwrap();
    assert_eq!(store.maintenance_after(10).await.unwrap(), [window("m2", 5, 20)]);
    store.record(Record { maintenance: vec![window("m2", 5, 9)], ..Record::default() }).await.unwrap();
    assert_eq!(store.maintenance_after(9).await.unwrap(), [window("m1", 0, 10)]);
}

async fn two_portals_at_once_number_without_a_gap(room: Room) {
    let stores = [room.open(), room.open()];
    let record = |name: &str| Record {
        audit: vec![line("alarm:a", name, vec![]), line("alarm:b", name, vec![])],
        events: vec![event(name, "{}"), event("alert", r#"{"alert_id":"a"}"#)],
        ..Record::default()
    };
    let write = async |store: &Store, name: &str| {
        for _ in 0..20 {
            store.record(record(name)).await.unwrap();
        }
    };
    tokio::join!(write(&stores[0], "a"), write(&stores[1], "b"));
    let seqs: Vec<_> = stores[0].events_after(0, 1_000).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=41).collect::<Vec<_>>(), "the alert is told once");
    assert_eq!(stores[1].verify_audit().await.unwrap(), (80, None));
}

#[tokio::test]
async fn what_another_sender_leases_is_left_to_it() {
    let Some(room) = Room::plant().await else { return };
    let Room::Plant { main, .. } = &room else { unreachable!() };
    let store = room.open();
    let both = vec![notification("hook", 1, "one"), notification("hook", 2, "two")];
    let both = both.into_iter().zip(1..).map(|(new, alert)| NewNotification { alert: Uuid::from_u128(alert), ..new });
    store.record(notifying(both.collect())).await.unwrap();
    let other = room::connect(main).await;
    other.batch_execute("begin; select 1 from notification where payload = 'one' for update").await.unwrap();
    let leased = store.lease_notifications("hook", 0, 50, 10).await.unwrap();
    assert_eq!(leased.iter().map(|row| &*row.payload).collect::<Vec<_>>(), ["two"]);
    other.batch_execute("commit").await.unwrap();
    assert_eq!(store.lease_notifications("hook", 0, 50, 10).await.unwrap()[0].payload, "one");
}
