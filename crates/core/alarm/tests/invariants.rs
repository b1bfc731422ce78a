//! Random lives keep what an alarm promises.

use crate::script::run;
use alarm::{Alarm, State};
use proptest::prelude::*;

const WORDS: [&str; 26] = [
    "raise",
    "raise:warning",
    "raise:info",
    "clear",
    "clear",
    "rise",
    "fall",
    "change:info",
    "suspend",
    "resume",
    "caught_up",
    "late:raise",
    "late:rise",
    "late:clear",
    "ack",
    "ack",
    "shelve:1h",
    "unshelve",
    "oos",
    "return",
    "maintain:1h",
    "end",
    "+5m",
    "+3h",
    "+9h",
    "comment",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_random_life_keeps_the_invariants(
        setup in prop::sample::select(vec!["", "A", "notice"]),
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 1..60),
    ) {
        let script = format!("{setup} {}", words.join(" "));
        let (alarm, outcomes) = run(&script);
        holds(&alarm)?;
        let mut before = State::Normal;
        for outcome in outcomes.into_iter().flatten() {
            prop_assert_eq!(&outcome.from, &before, "{}", script);
            if outcome.annunciates {
                prop_assert_eq!(&outcome.to, &State::Unacknowledged, "{}", script);
                prop_assert!(setup != "notice", "{}", script);
            }
            if outcome.from != outcome.to {
                let audit = outcome.audit.as_ref().expect("a transition is audited");
                prop_assert_eq!((audit.from.as_str(), audit.to.as_str()), (outcome.from.as_str(), outcome.to.as_str()));
            }
            before = outcome.to;
        }
        prop_assert_eq!(before, alarm.state);
    }

    #[test]
    fn every_prefix_holds_too(words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 1..25)) {
        for end in 1..=words.len() {
            holds(&run(&words[..end].join(" ")).0)?;
        }
    }
}

fn holds(alarm: &Alarm) -> Result<(), TestCaseError> {
    let (active, suppressed) = (alarm.is_active(), alarm.is_suppressed());
    let right = match alarm.state {
        State::Shelved { .. } | State::OutOfService { .. } => true,
        State::Suppressed => suppressed,
        State::Unacknowledged | State::Acknowledged => active && !suppressed,
        State::Normal | State::ReturnedUnacknowledged => !active && !suppressed,
    };
    prop_assert!(right, "{alarm:?}");
    prop_assert_eq!(alarm.acknowledged.is_some(), alarm.state == State::Acknowledged, "{:?}", alarm);
    prop_assert!(alarm.standing || !alarm.suspended && !alarm.found_late, "{alarm:?}");
    prop_assert!(!alarm.standing || alarm.count > 0, "{alarm:?}");
    prop_assert_eq!(alarm.priority, alarm::priority(alarm.severity, alarm.criticality));
    prop_assert_eq!(alarm.annunciated.is_some(), alarm.annunciated_us.is_some());
    Ok(())
}
