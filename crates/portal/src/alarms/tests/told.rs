//! Nobody is left out: whoever was silenced tells nothing, and what nobody heard of is no reason to be silent later.

use super::*;

#[tokio::test]
async fn a_silent_follower_is_told_when_it_comes_again_alone() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1"], "mill").await;
    portal.tell(("m1", "power", Kind::Raised, Warning), 0).await;
    portal.tell(("m1", "heat", Kind::Raised, Warning), 5).await;
    portal.tell(("m1", "power", Kind::Cleared, Warning), 20).await;
    portal.tell(("m1", "heat", Kind::Cleared, Warning), 20).await;
    assert_eq!(portal.waiting("log").await, ["m1 power raised"]);
    portal.tell(("m1", "heat", Kind::Raised, Warning), 140).await;
    assert_eq!(portal.waiting("log").await, ["m1 heat raised"]);
    assert_eq!(portal.row("m1", "heat").await.group, None);
}

#[tokio::test]
async fn what_a_person_silenced_speaks_for_no_other() {
    let mut portal = Portal::new().await;
    portal.confirm(&["m1", "m2"], "mill").await;
    let shelve = Action::Shelve { until_us: BEGIN + 7_200 * SECOND, reason: "known".into() };
    let out = Action::TakeOutOfService { reason: "no spare part".into() };
    for (machine, action) in [("m1", shelve), ("m2", out)] {
        portal.tell((machine, "power", Kind::Raised, Warning), 0).await;
        let id = store::alarm_id(machine, "power");
        portal.alarms.command(id, order(action, 1)).await.unwrap();
        portal.tell((machine, "power", Kind::Cleared, Warning), 10).await;
        portal.waiting("log").await;
        portal.tell((machine, "power", Kind::Raised, Warning), 1_000).await;
        portal.tell((machine, "heat", Kind::Raised, Warning), 1_005).await;
        assert_eq!(portal.waiting("log").await, [format!("{machine} heat raised")]);
        assert_eq!(portal.row(machine, "heat").await.group, None);
    }
}

#[tokio::test]
async fn a_cause_that_nobody_heard_of_silences_nothing() {
    let mut portal = Portal::new().await;
    portal.confirm(&["pump-1"], "pump").await;
    let mut late = portal.alert(("pump-1", "dead_head", Kind::Raised, Critical), 0);
    late.arrived_at += 600 * SECOND;
    let mut gone = portal.alert(("pump-1", "dead_head", Kind::Cleared, Critical), 60);
    gone.arrived_at += 550 * SECOND;
    portal.detect(vec![late, gone]).await;
    portal.deliver(100).await;
    portal.tell(("pump-1", "vibration", Kind::Raised, Warning), 620).await;
    assert_eq!(portal.waiting("log").await, ["pump-1 vibration raised"]);
    assert_eq!(portal.row("pump-1", "vibration").await.group, Some(store::alarm_id("pump-1", "dead_head")));
}

#[tokio::test]
async fn a_machine_that_is_confirmed_is_heard_at_its_next_raise() {
    let mut portal = Portal::new().await;
    portal.tell(("m1", "power", Kind::Raised, Critical), 0).await;
    let audit = &portal.store.audit(None, 1, None).await.unwrap().rows[0];
    assert!(!audit.audit.annunciates, "the audit log says that nobody was told");
    portal.confirm(&["m1"], "mill").await;
    portal.tell(("m1", "power", Kind::Cleared, Critical), 60).await;
    portal.tell(("m1", "power", Kind::Raised, Critical), 120).await;
    assert_eq!(portal.waiting("log").await, ["m1 power raised"]);
    assert_eq!(portal.row("m1", "power").await.alarm.count, 2);
}

/// A portal that knows machines of one source.
async fn with_source(machines: &[&str]) -> Portal {
    let portal = Portal::new().await;
    let sources: Vec<Arc<str>> = machines.iter().map(|_| "simulate".into()).collect();
    let id = |name: &&str| (catalog::MachineId::try_from(*name).unwrap(), "mill".to_owned(), BEGIN);
    let seen = Effects { machines: machines.iter().map(id).collect(), ..Effects::default() };
    let step = DetectStep { partition: 1, from: 0, to: 1, effects: &seen, sources: &sources, activation: None };
    portal.store.commit(vec![step]).await.unwrap();
    portal
}

/// What machines say of their silence, in one batch.
async fn silence(portal: &mut Portal, machines: &[&str], kind: Kind, second: i64) {
    let alerts = machines.iter().map(|machine| portal.alert((machine, "no_data", kind, Warning), second)).collect();
    portal.detect(alerts).await;
    portal.deliver(100).await;
}

#[tokio::test]
async fn a_machine_of_a_storm_that_falls_silent_alone_is_told() {
    let machines = ["m1", "m2", "m3", "m4"];
    let mut portal = with_source(&machines).await;
    silence(&mut portal, &machines, Kind::Raised, 0).await;
    silence(&mut portal, &machines, Kind::Cleared, 60).await;
    assert_eq!(portal.waiting("log").await, ["source:simulate no_data_storm raised"]);
    silence(&mut portal, &["m2"], Kind::Raised, 120).await;
    assert_eq!(portal.waiting("log").await, ["m2 no_data raised"]);
}

#[tokio::test]
async fn a_machine_that_stays_silent_after_a_storm_hides_no_later_silence() {
    let machines = ["m1", "m2", "m3", "m4", "m5", "m6"];
    let mut portal = with_source(&machines).await;
    let storm = store::alarm_id("source:simulate", "no_data_storm");
    silence(&mut portal, &machines[..4], Kind::Raised, 0).await;
    silence(&mut portal, &machines[4..5], Kind::Raised, 30).await;
    silence(&mut portal, &machines[1..5], Kind::Cleared, 60).await;
    assert_eq!(portal.waiting("log").await, ["source:simulate no_data_storm raised"]);
    silence(&mut portal, &["m2"], Kind::Raised, 3_600).await;
    assert_eq!(portal.waiting("log").await, ["m2 no_data raised"]);
    assert_eq!(portal.row("m2", "no_data").await.group, None);
    // Many at once are a storm again, although the first one never ended.
    silence(&mut portal, &machines[2..6], Kind::Raised, 3_700).await;
    assert_eq!(portal.waiting("log").await, ["source:simulate no_data_storm raised"]);
    assert_eq!(portal.row("m3", "no_data").await.group, Some(storm));
    assert_eq!(portal.row("source:simulate", "no_data_storm").await.alarm.count, 2);
}
