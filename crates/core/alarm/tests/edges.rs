//! Every edge: each event in each state.

use crate::script::{check, run};
use alarm::Illegal;

/// How to come to each state: a script, its last state.
const STATES: [(&str, &str); 7] = [
    ("", "Normal"),
    ("raise", "Unacknowledged"),
    ("raise ack", "Acknowledged"),
    ("raise clear", "ReturnedUnacknowledged"),
    ("raise shelve:2h", "Shelved"),
    ("raise suspend", "Suppressed"),
    ("raise oos", "OutOfService"),
];

/// What each event leads to from the states above, in their order. `-`: refused with 409; `=`: nothing changes.
const EDGES: [(&str, [&str; 7]); 14] = [
    ("raise", ["U", "U", "A", "U", "Sh", "U", "O"]),
    ("fall", ["=", "U", "A", "=", "Sh", "Su", "O"]),
    ("clear", ["=", "R", "N", "=", "Sh", "N", "O"]),
    ("suspend", ["=", "Su", "Su", "=", "Sh", "Su", "O"]),
    ("resume", ["=", "U", "A", "=", "Sh", "U", "O"]),
    ("caught_up", ["=", "U", "A", "=", "Sh", "Su", "O"]),
    ("ack", ["-", "A", "-", "N", "-", "-", "-"]),
    ("shelve:1h", ["Sh", "Sh", "Sh", "Sh", "-", "Sh", "-"]),
    ("unshelve", ["-", "-", "-", "-", "A", "-", "-"]),
    ("oos", ["O", "O", "O", "O", "O", "O", "-"]),
    ("return", ["-", "-", "-", "-", "-", "-", "U"]),
    ("maintain:1h", ["Su", "Su", "Su", "Su", "Sh", "Su", "O"]),
    ("end", ["-", "-", "-", "-", "-", "-", "-"]),
    ("comment", ["N", "U", "A", "R", "Sh", "Su", "O"]),
];

#[test]
fn every_event_in_every_state() {
    for (event, row) in EDGES {
        for ((before, state), short) in STATES.iter().zip(row) {
            let (_, outcomes) = run(&format!("{before} {event}"));
            let found = match outcomes.last().unwrap() {
                Ok(outcome) if outcome.changed() => short_name(outcome.to.as_str()),
                Ok(outcome) => {
                    assert_eq!(outcome.from, outcome.to);
                    "="
                }
                Err(Illegal::Edge { .. }) => "-",
                Err(other) => panic!("{event} in {state}: {other}"),
            };
            assert_eq!(found, short, "{event} in {state}");
        }
    }
}

#[test]
fn the_clock_moves_only_what_it_owes() {
    for (before, state) in STATES {
        let alarm = run(before).0;
        let mut after = alarm.clone();
        let outcome = after.apply(&alarm::Event::Clock { now_us: i64::MAX }).unwrap();
        let moves = matches!(state, "Shelved");
        assert_eq!((outcome.changed(), after == alarm), (moves, !moves), "{state}");
    }
}

#[test]
fn a_refused_order_leaves_the_alarm_as_it_was() {
    for (before, order) in [
        ("raise ack", "ack"),
        ("raise", "shelve:13h"),
        ("raise viewer", "ack"),
        ("raise", "unshelve"),
        ("raise", "shelve_silently"),
    ] {
        let (alarm, outcomes) = run(&format!("{before} {order}"));
        assert!(outcomes.last().unwrap().is_err(), "{before} {order}");
        assert_eq!(alarm, run(before).0, "{before} {order}");
    }
}

#[test]
fn a_shelf_has_a_longest() {
    check("raise shelve:12h", "Unacknowledged > Shelved");
    check("raise shelve:13h", "Unacknowledged > TooLong");
    check("A raise shelve:3h", "Unacknowledged > TooLong");
    check("A raise shelve:2h", "Unacknowledged > Shelved");
    check("A raise:warning shelve:12h", "Unacknowledged > Shelved");
    check("raise shelve:0h", "Unacknowledged > Past");
    check("raise shelve_silently", "Unacknowledged > Reason");
}

#[test]
fn roles_bind() {
    check("viewer raise ack comment", "Unacknowledged > Role > Role");
    check("operator raise ack", "Unacknowledged > Acknowledged");
    check("operator raise shelve:1h unshelve", "Unacknowledged > Shelved > Acknowledged");
    check("operator A raise shelve:1h", "Unacknowledged > Role");
    check("engineer A raise shelve:1h", "Unacknowledged > Shelved");
    check("operator raise oos maintain:1h", "Unacknowledged > Role > Role");
    check("engineer raise oos return maintain:1h", "Unacknowledged > OutOfService > Unacknowledged > Suppressed");
}

#[test]
fn refusals_have_their_status_and_words() {
    for (script, status, words) in [
        ("raise ack ack", 409, "cannot acknowledge an alarm that is acknowledged"),
        ("raise viewer ack", 403, "acknowledge needs role operator, not viewer"),
        ("raise shelve_silently", 422, "shelve needs a reason"),
        ("raise shelve:0h", 422, "until is not after now"),
        ("A raise shelve:3h", 422, "this alarm is shelved for 2 h at most"),
    ] {
        let refusal = run(script).1.pop().unwrap().unwrap_err();
        assert_eq!((refusal.status(), refusal.to_string().as_str()), (status, words), "{script}");
    }
}

fn short_name(state: &str) -> &'static str {
    match state {
        "normal" => "N",
        "unacknowledged" => "U",
        "acknowledged" => "A",
        "returned_unacknowledged" => "R",
        "shelved" => "Sh",
        "suppressed" => "Su",
        _ => "O",
    }
}
