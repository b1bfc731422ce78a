//! The life cycle in short scripts: each word is an event, one minute after the one before.

mod edges;
mod invariants;
mod script;

use script::{check, rings, run};

#[test]
fn clear_before_ack_still_asks_for_an_ack() {
    check("raise clear ack", "Unacknowledged > ReturnedUnacknowledged > Normal");
}

#[test]
fn ack_before_clear_ends_with_the_clear() {
    check("raise ack clear", "Unacknowledged > Acknowledged > Normal");
}

#[test]
fn a_raise_before_the_ack_is_the_same_alarm_again() {
    check("raise clear raise", "Unacknowledged > ReturnedUnacknowledged > Unacknowledged");
    let alarm = run("raise clear raise clear raise").0;
    assert_eq!(alarm.count, 3);
    assert!(alarm.first_raised_us < alarm.last_raised_us);
}

#[test]
fn a_raise_after_the_ack_counts_from_one() {
    assert_eq!(run("raise clear ack raise").0.count, 1);
    assert_eq!(run("raise clear raise ack clear raise").0.count, 1);
}

#[test]
fn a_chattering_alarm_annunciates_once_in_ten_minutes() {
    rings("raise clear raise clear raise", "yes no no no no");
    rings("raise clear +10m raise", "yes no no yes");
    rings("raise clear +7m raise", "yes no no no");
}

#[test]
fn an_answered_alarm_that_comes_back_annunciates_at_once() {
    rings("raise ack clear raise", "yes no no yes");
}

#[test]
fn what_is_worse_annunciates_within_the_ten_minutes() {
    rings("raise:warning rise", "yes yes");
    rings("raise:warning clear raise:critical", "yes no yes");
    rings("raise:warning rise fall rise", "yes yes no no");
    check("raise:warning ack rise", "Unacknowledged > Acknowledged > Unacknowledged");
    rings("raise:warning ack rise", "yes no yes");
    check("raise ack fall", "Unacknowledged > Acknowledged > Acknowledged");
}

#[test]
fn info_is_an_event() {
    check("raise:info clear", "Normal > Normal");
    rings("raise:info clear", "no no");
    check("raise:info change:warning change:info ack", "Normal > Unacknowledged > ReturnedUnacknowledged > Normal");
    check("raise:info change:warning ack change:info", "Normal > Unacknowledged > Acknowledged > Normal");
    check("raise:info ack", "Normal > Edge");
}

#[test]
fn a_notice_goes_to_the_worklist_and_is_silent() {
    check("notice raise:warning clear", "Normal > Normal");
    rings("notice raise:warning rise clear", "no no no");
    assert!(run("notice raise:warning").0.is_on_worklist());
    assert!(!run("notice raise:warning clear").0.is_on_worklist());
}

#[test]
fn a_shelf_is_silent_until_it_ends() {
    check("raise shelve:2h +1h +1h", "Unacknowledged > Shelved > Shelved > Unacknowledged");
    rings("raise shelve:5m +5m", "yes no yes");
    check("raise shelve:2h clear +2h", "Unacknowledged > Shelved > Shelved > Normal");
    check("raise shelve:2h clear raise clear +2h", "Unacknowledged > Shelved > Shelved > Shelved > Shelved > Normal");
    rings("raise shelve:2h clear raise", "yes no no no");
    check("shelve:2h raise +2h", "Shelved > Shelved > Unacknowledged");
}

#[test]
fn who_unshelves_has_seen_it() {
    check("raise shelve:2h unshelve", "Unacknowledged > Shelved > Acknowledged");
    check("raise shelve:2h clear unshelve", "Unacknowledged > Shelved > Shelved > Normal");
    rings("raise shelve:2h unshelve", "yes no no");
}

#[test]
fn a_stopped_machine_suppresses_its_alarm() {
    check("raise suspend resume", "Unacknowledged > Suppressed > Unacknowledged");
    check(
        "raise ack suspend resume clear",
        "Unacknowledged > Acknowledged > Suppressed > Unacknowledged > ReturnedUnacknowledged",
    );
    check("raise suspend clear", "Unacknowledged > Suppressed > Normal");
    rings("raise suspend resume", "yes no no");
    rings("raise suspend +10m resume", "yes no no yes");
    check(
        "raise suspend shelve:2h unshelve resume",
        "Unacknowledged > Suppressed > Shelved > Suppressed > Unacknowledged",
    );
    check("raise shelve:2h suspend resume unshelve", "Unacknowledged > Shelved > Shelved > Shelved > Acknowledged");
    check("raise:info suspend resume", "Normal > Normal > Normal");
}

#[test]
fn maintenance_suppresses_what_comes() {
    check("maintain:2h raise +2h", "Suppressed > Suppressed > Unacknowledged");
    rings("maintain:2h raise +2h", "no no yes");
    check("raise maintain:2h clear end", "Unacknowledged > Suppressed > Suppressed > Normal");
    check("raise clear maintain:2h end", "Unacknowledged > ReturnedUnacknowledged > Suppressed > Normal");
    check(
        "raise suspend maintain:2h resume +2h",
        "Unacknowledged > Suppressed > Suppressed > Suppressed > Unacknowledged",
    );
}

#[test]
fn out_of_service_lasts_until_it_is_returned() {
    check("raise oos +100h return", "Unacknowledged > OutOfService > OutOfService > Unacknowledged");
    check("raise oos clear return", "Unacknowledged > OutOfService > OutOfService > Normal");
    check("oos raise return", "OutOfService > OutOfService > Unacknowledged");
    check("raise shelve:2h oos", "Unacknowledged > Shelved > OutOfService");
    rings("raise oos return", "yes no yes");
}

#[test]
fn found_late_annunciates_when_the_machine_has_caught_up() {
    check("late:raise caught_up", "Unacknowledged > Unacknowledged");
    rings("late:raise caught_up", "no yes");
    rings("late:raise late:clear late:raise caught_up", "no no no yes");
    rings("late:raise clear", "no no");
    rings("late:raise ack caught_up", "no no no");
    rings("raise caught_up", "yes no");
    rings("late:raise:warning rise caught_up", "no yes no");
    rings("late:raise shelve:5m +5m caught_up", "no no no yes");
    rings("late:raise suspend caught_up resume", "no no no yes");
}

#[test]
fn the_first_priority_asks_again_after_eight_hours() {
    check("A raise ack +7h +1h", "Unacknowledged > Acknowledged > Acknowledged > Unacknowledged");
    rings("A raise ack +8h", "yes no yes");
    check("raise ack +20h", "Unacknowledged > Acknowledged > Acknowledged");
    check("A raise:warning ack +20h", "Unacknowledged > Acknowledged > Acknowledged");
}

#[test]
fn what_the_clock_owes_is_said_beforehand() {
    for (script, due) in [
        ("raise", None),
        ("raise shelve:2h", Some(121)),
        ("raise shelve:2h maintain:1h", Some(62)),
        ("A raise ack", Some(481)),
        ("raise ack", None),
    ] {
        assert_eq!(run(script).0.due_us().map(|us| us / script::MINUTE), due, "{script}");
    }
}

#[test]
fn two_partitions_that_both_raise_are_one_alarm() {
    check("raise raise clear", "Unacknowledged > Unacknowledged > ReturnedUnacknowledged");
    check("raise ack raise clear", "Unacknowledged > Acknowledged > Acknowledged > Normal");
}

#[test]
fn an_alarm_reads_back_from_its_json() {
    for script in [
        "raise",
        "raise ack",
        "late:raise:warning",
        "raise shelve:2h",
        "raise oos",
        "A raise suspend",
        "raise:info",
        "maintain:2h",
    ] {
        let alarm = run(script).0;
        let json = serde_json::to_string(&alarm).unwrap();
        assert_eq!(serde_json::from_str::<alarm::Alarm>(&json).unwrap(), alarm, "{json}");
    }
}

#[test]
fn every_change_has_its_audit_line() {
    let (_, outcomes) = run("raise ack shelve:2h +2h clear");
    let lines: Vec<String> = outcomes
        .into_iter()
        .map(|outcome| {
            let audit = outcome.unwrap().audit.unwrap();
            let bell = if audit.annunciates { " !" } else { "" };
            format!("{}m {} {} {}>{}{bell}", audit.at_us / script::MINUTE, audit.by, audit.action, audit.from, audit.to)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "0m engine raised normal>unacknowledged !",
            "1m kim acknowledge unacknowledged>acknowledged",
            "2m kim shelve acknowledged>shelved",
            "122m clock shelf_expired shelved>unacknowledged !",
            "123m engine cleared unacknowledged>returned_unacknowledged",
        ]
    );
}
