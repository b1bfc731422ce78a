//! Small plants of one or two machines, played second by second.
//!
//! A script is readings `second:value` of machine `m`: `7:85` is 85 at second 7. `n.7:85` is of machine `n`, `7@9:85`
//! arrives at second 9, `7:85b` is of bad quality, `7:-` lacks the value, `7:85=idle` carries a machine state, `!7` is a
//! refused reading that arrives at second 7. Each is a bus record of its own.

use crate::{Counts, Effects, Engine, Input, SnapshotError};
use catalog::{Catalogue, Class, MachineId, MachineSettings, State};
use std::{collections::BTreeMap, fmt::Write, sync::Arc};
use wire::{Alert, Kind, Marker, Quality, ReadingBatch, Span};

const START_US: i64 = 1_762_528_200_000_000;
const SECOND: i64 = 1_000_000;

/// A class of one gauge `temp`; the lines go into its channel, the laws behind it.
fn class(channel: &str, laws: &str) -> Class {
    let text = format!(
        r#"
[class]
id = "oven"
baseline = "20s"
no_data = "30s"
[[channel]]
id = "temp"
unit = "degC"
scale = 0
range = [-1000, 1000000]
plausible = [-500, 100000]
optional = true
{channel}
{laws}
"#
    );
    Class::parse("oven.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn law(lines: &str) -> String {
    format!("[[law]]\nid = \"hot\"\nfailure_type = \"Hot\"\naction = {{ en = \"Open it\" }}\n{lines}\n")
}

fn one_level(lines: &str) -> String {
    law(&format!("severity = \"warning\"\nall = [{{ quantity = \"temp\", above = 80 }}]\n{lines}"))
}

fn catalogue(class: Class) -> Arc<Catalogue> {
    Arc::new(Catalogue::builtin().with_class(class))
}

fn second_us(text: &str) -> i64 {
    START_US + text.parse::<i64>().unwrap_or_else(|_| panic!("{text} is a second")) * SECOND
}

/// Scripted readings as one batch; the first is record `offset`.
fn batch(class: &Arc<Class>, offset: i64, tokens: &[&str]) -> ReadingBatch {
    let mut batch = ReadingBatch::new(Arc::clone(class));
    for (nth, token) in tokens.iter().enumerate() {
        let row = batch.rows();
        let mut span =
            Span { first_row: row as u32, offset: offset + nth as i64, arrived_us: 0, source: "test".into() };
        if let Some(arrival) = token.strip_prefix('!') {
            span.arrived_us = second_us(arrival);
            batch.markers.push(Marker {
                machine: MachineId::try_from("m").unwrap(),
                channel: "temp".to_owned(),
                code: "out_of_range".to_owned(),
                arrived_us: span.arrived_us,
                index: 0,
                before_row: row as u32,
            });
            batch.spans.push(span);
            continue;
        }
        let (machine, reading) = token.split_once('.').unwrap_or(("m", token));
        let (time, value) = reading.split_once(':').unwrap_or_else(|| panic!("{token} is a reading"));
        let (time, arrival) = time.split_once('@').unwrap_or((time, time));
        let (value, state) = value.split_once('=').map_or((value, None), |(value, state)| (value, Some(state)));
        let (value, quality) = match value.strip_suffix('b') {
            Some(value) => (value, Quality::Bad),
            None if value == "-" => ("0", Quality::Missing),
            None => (value, Quality::Good),
        };
        span.arrived_us = second_us(arrival);
        batch.spans.push(span);
        let place = batch.machines.iter().position(|id| id.as_str() == machine).unwrap_or_else(|| {
            batch.machines.push(MachineId::try_from(machine).unwrap());
            batch.machines.len() - 1
        });
        batch.machine.push(place as u32);
        batch.timestamp_us.push(second_us(time));
        batch.index.push(0);
        batch.values[0].push(value.parse().unwrap_or_else(|_| panic!("{token} has a value")));
        batch.quality.push(quality.bits(0));
        let state = state.map_or(ReadingBatch::NONE, |state| State::from_word(state).unwrap() as u8);
        batch.state.push(state);
    }
    batch
}

fn told(alerts: &[Alert]) -> String {
    let mut out = String::new();
    for alert in alerts {
        let second = (alert.timestamp - START_US) / SECOND;
        let kind = match (alert.kind, alert.suspended, alert.caught_up) {
            (Kind::Raised, ..) => "raised",
            (Kind::Cleared, ..) => "cleared",
            (Kind::Changed, Some(true), _) => "suspended",
            (Kind::Changed, Some(false), _) => "resumed",
            (Kind::Changed, None, Some(_)) => "caught_up",
            (Kind::Changed, None, None) => "changed",
        };
        write!(out, "{second} {kind} {} {}, ", alert.condition, alert.severity.as_str()).unwrap();
    }
    out.trim_end_matches(", ").to_owned()
}

fn play(class: Class, script: &str) -> (Engine, Effects) {
    let catalogue = catalogue(class);
    let of = Arc::clone(catalogue.class("oven").unwrap());
    let mut engine = Engine::new(3, catalogue);
    let mut effects = Effects::default();
    for (offset, token) in script.split_whitespace().enumerate() {
        engine.apply(Input::Readings(&batch(&of, offset as i64, &[token])), &mut effects);
    }
    (engine, effects)
}

#[track_caller]
fn check(class: Class, script: &str, expected: &str) -> Effects {
    let (_, effects) = play(class, script);
    assert_eq!(told(&effects.alerts), expected, "{script}");
    effects
}

/// `from..=to` readings of one value, a second apart.
fn run(from: i64, to: i64, value: i64) -> String {
    (from..=to).fold(String::new(), |mut script, second| {
        write!(script, "{second}:{value} ").unwrap();
        script
    })
}

#[test]
fn without_delays_a_law_is_raised_and_cleared_at_once() {
    let effects =
        check(class("", &one_level("")), "1:80 2:81 3:82 4:80", "2 raised hot warning, 4 cleared hot warning");
    let [raised, cleared] = &effects.alerts[..] else { panic!("two") };
    assert_eq!((raised.condition_id, cleared.condition_id), (raised.alert_id, raised.alert_id));
    assert_eq!((cleared.started_at, cleared.position.offset, cleared.position.partition), (raised.timestamp, 3, 3));
    assert_eq!((raised.model.as_str(), raised.model_version.len(), raised.score), ("laws", 64, 1.0 / 80.0));
    assert_eq!(
        raised.reading.as_ref().unwrap().get(),
        r#"{"machine_id":"m","timestamp":"2025-11-07T15:10:02Z","temp":81}"#
    );
    assert_eq!((raised.reason.terms.len(), cleared.reason.terms.len()), (1, 0));
    assert_eq!(cleared.reason.law.as_deref(), Some("hot"));
}

#[test]
fn on_delay_asks_every_judged_reading() {
    let oven = || class("", &one_level("on_delay = \"3s\""));
    check(oven(), "1:81 2:81 3:81 4:81", "4 raised hot warning");
    check(oven(), "1:81 2:81 3:80 4:81 5:81 6:81 7:81", "7 raised hot warning");
    // Not judged: neither here nor there.
    check(oven(), "1:81 2:- 3:- 4:81", "4 raised hot warning");
}

#[test]
fn off_delay_begins_with_the_first_unbroken_reading() {
    let oven = || class("", &one_level("off_delay = \"3s\""));
    check(oven(), "1:81 2:80 3:80 4:80 5:80", "1 raised hot warning, 5 cleared hot warning");
    check(oven(), "1:81 2:80 3:81 4:80 5:80 6:80 7:80", "1 raised hot warning, 7 cleared hot warning");
}

#[test]
fn a_deadband_holds_what_stands() {
    let oven = || class("", &one_level("deadband = 5"));
    check(oven(), "1:78 2:81 3:78 4:76 5:75", "2 raised hot warning, 5 cleared hot warning");
}

#[test]
fn levels_are_one_condition_whose_severity_moves() {
    let levels = law(
        "off_delay = \"2s\"\n[[law.level]]\nseverity = \"warning\"\nall = [{ quantity = \"temp\", above = 80 }]\non_delay = \"4s\"\n\
         [[law.level]]\nseverity = \"critical\"\nall = [{ quantity = \"temp\", above = 90 }]\non_delay = \"1s\"",
    );
    check(
        class("", &levels),
        "1:81 2:91 3:91 4:91 5:81 6:81 7:81 8:70 9:70 10:70",
        "3 raised hot critical, 7 changed hot warning, 10 cleared hot warning",
    );
}

#[test]
fn a_gap_restarts_on_delay_and_counts_as_one_interval_of_off_delay() {
    check(class("", &one_level("on_delay = \"3s\"")), "1:81 2:81 10:81 11:81 12:81 13:81", "13 raised hot warning");
    check(
        class("", &one_level("off_delay = \"4s\"")),
        "1:81 2:80 3:80 30:80 31:80 32:80",
        "1 raised hot warning, 32 cleared hot warning",
    );
}

#[test]
fn a_stop_freezes_and_the_next_run_judges_afresh() {
    let delayed = class("", &one_level("on_delay = \"2s\"\noff_delay = \"2s\""));
    check(
        delayed.clone(),
        "1:81=running 2:81 3:81 4:0=idle 9:0=idle 10:70=running 11:70 12:70",
        "3 raised hot warning, 4 suspended hot warning, 10 resumed hot warning, 12 cleared hot warning",
    );
    // What counted before the stop counts no more.
    check(delayed.clone(), "1:81=running 2:81 3:0=idle 4:81=running 5:81 6:81", "6 raised hot warning");
    check(
        delayed,
        "1:81=running 2:81 3:81 4:70 5:0=idle 6:70=running 7:70 8:70",
        "3 raised hot warning, 5 suspended hot warning, 6 resumed hot warning, 8 cleared hot warning",
    );
}

#[test]
fn settling_counts_from_an_observed_change_to_running() {
    let oven = |script: &str, expected: &str| {
        let state = "[state]\nrunning = { all = [{ quantity = \"temp\", above = 10 }] }\nsettle = \"3s\"\n";
        check(class("", &format!("{state}{}", one_level(""))), script, expected)
    };
    oven("1:81", "1 raised hot warning");
    let effects = oven("1:0 2:81 3:81 4:81 5:81", "5 raised hot warning");
    let events: Vec<&str> = effects.events.iter().map(|event| event.detail.as_str()).collect();
    assert_eq!(events, [r#"{"from":"unknown","to":"idle"}"#, r#"{"from":"idle","to":"running"}"#]);
    // A state that cannot be judged stays.
    oven("1:0 2:81 3:- 4:81 5:81", "5 raised hot warning");
}

#[test]
fn a_counter_reset_clears_its_notices_in_every_state() {
    let notice = one_level("notice = true\noff_delay = \"60s\"");
    let effects = check(
        class("kind = \"counter\"", &notice),
        "1:79 2:81 3:79 4:82 5:7=tool_change 6:8=running",
        "2 raised hot warning, 5 suspended hot warning, 5 cleared hot warning",
    );
    assert_eq!(effects.counts.counter_falls, 1);
    let reset: Vec<_> = effects.events.iter().filter(|event| event.kind == "counter_reset").collect();
    assert_eq!(reset.len(), 1);
    assert_eq!(reset[0].detail, r#"{"channel":"temp","from":82,"to":7}"#);
    assert!(effects.alerts[0].notice && effects.alerts[2].reason.notes == ["counter_reset"]);
}

#[test]
fn a_gauge_that_says_the_same_is_stuck_while_its_machine_runs() {
    let oven = || class("stuck_after = \"3s\"", "");
    check(oven(), "1:5 2:5 3:5 4:5 5:5 6:6", "4 raised stuck:temp warning, 6 cleared stuck:temp warning");
    check(oven(), "1:5=running 2:5 3:5=idle 4:5=idle 9:5=running 10:5 11:5 12:5", "12 raised stuck:temp warning");
    check(class("stuck_after = \"3s\"\nkind = \"counter\"", ""), &run(1, 9, 5), "");
}

#[test]
fn two_equal_readings_across_an_outage_are_no_stuck_gauge() {
    let oven = || class("stuck_after = \"3s\"", "");
    // 5 s between two readings are no gap, 6 s are one: the time starts again behind it.
    check(oven(), "1:5 6:5", "6 raised stuck:temp warning");
    check(oven(), "1:5 2:5 8:5 9:5 10:5 11:5", "11 raised stuck:temp warning");
    check(oven(), "1:5 3600:5 3601:5 3602:6", "");
    check(oven(), "1:5 2:5 3:5 4:5 3600:5 3601:6", "4 raised stuck:temp warning, 3601 cleared stuck:temp warning");
}

#[test]
fn a_spike_is_withheld_from_laws_with_an_on_delay() {
    let oven = |on_delay: &str| class("max_step = 10", &one_level(&format!("on_delay = \"{on_delay}\"")));
    let effects = check(oven("1s"), "1:79 2:99 3:79 4:80", "");
    assert_eq!(effects.counts.spikes, 1);
    // It stays away: it counts from the reading that decided.
    let effects = check(oven("1s"), "1:79 2:99 3:99 4:99", "4 raised hot warning");
    assert_eq!(effects.counts.spikes, 0);
    check(oven("0s"), "1:79 2:99 3:79", "2 raised hot warning, 3 cleared hot warning");
}

#[test]
fn a_bad_value_is_told_and_not_judged() {
    check(
        class("", &one_level("")),
        "1:70 2:900b 3:900b 4:- 5:70",
        "2 raised quality:temp warning, 5 cleared quality:temp warning",
    );
}

#[test]
fn three_refused_readings_in_a_row_are_told() {
    let effects = check(
        class("", ""),
        "1:7 !2 !3 4:8 !5 !6 !7 !8 9:9",
        "7 raised refused:temp warning, 9 cleared refused:temp warning",
    );
    let raised = &effects.alerts[0];
    assert_eq!((raised.model.as_str(), raised.failure_type.as_str(), raised.score), ("sensors", "SensorFault", 0.0));
    assert!(raised.reading.as_ref().unwrap().get().ends_with(r#""temp":8}"#));
    // A machine of which nothing is known has no sensor either.
    check(class("", ""), "!1 !2 !3", "");
}

#[test]
fn a_reading_ahead_raises_clock_skew_and_may_raise_a_law() {
    let script = format!("1:70 100@2:81 {}", run(3, 61, 70));
    let effects = check(
        class("", &one_level("off_delay = \"100s\"")),
        &script,
        "100 raised clock_skew warning, 100 raised hot warning, 61 cleared clock_skew warning",
    );
    assert_eq!((effects.counts.ahead, effects.counts.in_order), (1, 60));
}

#[test]
fn a_reading_out_of_order_may_raise_and_does_nothing_else() {
    let oven = |lines: &str| class("", &one_level(lines));
    check(oven(""), "1:70 3:70 2:81 4:70", "2 raised hot warning, 4 cleared hot warning");
    check(oven("on_delay = \"1s\""), "1:70 3:70 2:81 4:70", "");
    check(oven(""), "1:81 3:81 2:70 4:81", "1 raised hot warning");
    // It does not move the timer: in order the law is unbroken since second 1.
    check(oven("off_delay = \"4s\""), "1:70 2:70 4:70 3:81 5:70", "3 raised hot warning, 5 cleared hot warning");
    // A moment of standstill that comes late is not judged as if the machine ran.
    check(oven(""), "1:70=running 3:70 2:90=idle", "");
}

#[test]
fn late_and_duplicate_readings_do_nothing() {
    let effects = check(class("", &one_level("")), "1:70 20:70 10:99 20:70 20:99", "20 raised hot warning");
    let expected = Counts { in_order: 3, late: 1, duplicate: 1, ..Counts::default() };
    assert_eq!(effects.counts, expected);
}

#[test]
fn what_is_found_late_is_told_again_when_the_machine_has_caught_up() {
    check(
        class("", &one_level("")),
        "1@400:81 2@401:81 380@402:82 381@403:82 382@404:70",
        "1 raised hot warning, 380 caught_up hot warning, 382 cleared hot warning",
    );
}

#[test]
fn silence_of_confirmed_machines_is_told_once() {
    let (mut engine, mut effects) = play(class("", ""), "1:7 n.1:7 2:8=off");
    effects.alerts.clear();
    let mut silence = |engine: &mut Engine, second: i64, who: &str| {
        let input = Input::Silence { now_us: START_US + second * SECOND, confirmed: &|machine| machine == who };
        engine.apply(input, &mut effects);
    };
    silence(&mut engine, 20, "n");
    silence(&mut engine, 49, "n");
    // Off is no silence, and nobody confirmed `m`.
    silence(&mut engine, 50, "m");
    silence(&mut engine, 51, "n");
    silence(&mut engine, 60, "n");
    let of = Arc::clone(engine.catalogue.class("oven").unwrap());
    engine.apply(Input::Readings(&batch(&of, 9, &["n.70:7"])), &mut effects);
    assert_eq!(told(&effects.alerts), "1 raised no_data warning, 70 cleared no_data warning");
    let raised = &effects.alerts[0];
    assert_eq!((raised.machine_id.as_str(), raised.failure_type.as_str()), ("n", "NoData"));
    assert_eq!((raised.position.offset, raised.arrived_at), (1, START_US + SECOND));
}

#[test]
fn silence_is_found_of_machines_that_came_after_it_was_looked_for_first() {
    let catalogue = catalogue(class("", ""));
    let of = Arc::clone(catalogue.class("oven").unwrap());
    let (mut engine, mut effects) = (Engine::new(0, catalogue), Effects::default());
    let mut silence = |engine: &mut Engine, second: i64| {
        engine.apply(Input::Silence { now_us: START_US + second * SECOND, confirmed: &|_| true }, &mut effects);
    };
    silence(&mut engine, 0);
    engine.apply(Input::Readings(&batch(&of, 0, &["1:7"])), &mut Effects::default());
    silence(&mut engine, 30);
    silence(&mut engine, 31);
    assert_eq!(told(&effects.alerts), "1 raised no_data warning");
}

#[test]
fn silence_that_stood_before_a_restart_ends_with_the_next_reading() {
    let (mut engine, mut effects) = play(class("", ""), "1:7");
    engine.recall_no_data("m", uuid::Uuid::from_u128(7), START_US + SECOND);
    let of = Arc::clone(engine.catalogue.class("oven").unwrap());
    engine.apply(Input::Readings(&batch(&of, 1, &["70:7"])), &mut effects);
    assert_eq!(told(&effects.alerts), "70 cleared no_data warning");
    assert_eq!(effects.alerts[0].condition_id, uuid::Uuid::from_u128(7));
}

#[test]
fn an_engine_without_its_past_lets_what_the_history_knows_stand() {
    let of = || class("", &one_level("off_delay = \"2s\""));
    let (_, before) = play(of(), "1:85 n.1:5b p.1:85");
    let catalogue = catalogue(of());
    let oven = Arc::clone(catalogue.class("oven").unwrap());
    let mut engine = Engine::new(3, catalogue);
    let mut effects = Effects::default();
    engine.silent_below(6);
    // What is left of the bus raises m under another id, o without anybody having been told, and shows nothing of n and p.
    engine.apply(Input::Readings(&batch(&oven, 4, &["2:85", "o.2:85"])), &mut effects);
    engine.recall(&before.alerts, 8);
    assert_eq!(engine.next_offset(), 8, "a snapshot from here on needs nothing that is gone");
    let after = ["3:70", "n.3:5", "o.3:85", "p.3:85", "4:70", "5:70", "p.5:70", "p.7:70"];
    engine.apply(Input::Readings(&batch(&oven, 8, &after)), &mut effects);
    assert_eq!(
        told(&effects.alerts),
        "3 cleared quality:temp warning, 3 raised hot warning, 5 cleared hot warning, 7 cleared hot warning"
    );
    let ids = |alerts: &[Alert]| alerts.iter().map(|alert| alert.condition_id).collect::<Vec<_>>();
    let [m, n, p] = ids(&before.alerts)[..] else { panic!("three stand") };
    let found = ids(&effects.alerts);
    assert_eq!([found[0], found[2], found[3]], [n, m, p]);
    assert!(engine.live("m").unwrap().conditions.is_empty());
}

#[test]
fn shares_are_unknown_until_something_is_normal() {
    let shares = |script: &str| {
        let (_, effects) = play(class("", &one_level("")), script);
        let contributions = &effects.alerts.last().expect("it is raised").reason.contributions;
        contributions.iter().map(|part| (part.normal_low.is_some(), part.share)).collect::<Vec<_>>()
    };
    assert_eq!(shares("1:85"), [(false, None)]);
    assert_eq!(shares(&format!("{} 200:85", run(1, 150, 5))), [(true, Some(1.0))]);
}

#[test]
fn a_machine_keeps_its_class() {
    let catalogue = Arc::new(Catalogue::builtin());
    let mut engine = Engine::new(0, Arc::clone(&catalogue));
    let mut effects = Effects::default();
    for (offset, id) in ["mill", "pump"].into_iter().enumerate() {
        let mut batch = ReadingBatch::new(Arc::clone(catalogue.class(id).unwrap()));
        batch.machines.push(MachineId::try_from("m").unwrap());
        batch.machine.push(0);
        batch.timestamp_us.push(START_US);
        batch.index.push(4);
        batch.values.iter_mut().for_each(|column| column.push(30_000));
        batch.spans.push(Span { first_row: 0, offset: offset as i64, arrived_us: START_US, source: "test".into() });
        engine.apply(Input::Readings(&batch), &mut effects);
    }
    assert_eq!(engine.class_of("m"), Some("mill"));
    assert_eq!(effects.machines, [(MachineId::try_from("m").unwrap(), "mill".to_owned(), START_US)]);
    let [(position, reject)] = &effects.rejects[..] else { panic!("one") };
    assert_eq!((position.offset, position.index, reject.code), (1, 4, wire::ErrorCode::ClassChanged));
    assert_eq!((effects.counts.refused, engine.next_offset()), (1, 2));
}

#[test]
fn a_switch_keeps_timers_and_clears_what_is_gone() {
    let (mut engine, mut effects) = play(class("", &one_level("on_delay = \"3s\"")), "1:81 2:81");
    let use_class = |engine: &mut Engine, effects: &mut Effects, class: Class, offset: i64, token: &str| {
        let catalogue = catalogue(class);
        let of = Arc::clone(catalogue.class("oven").unwrap());
        engine.apply(Input::Use { catalogue }, effects);
        engine.apply(Input::Readings(&batch(&of, offset, &[token])), effects);
    };
    let longer = class("", &one_level("on_delay = \"2s\"\noff_delay = \"9s\""));
    use_class(&mut engine, &mut effects, longer, 2, "3:81");
    use_class(&mut engine, &mut effects, class("", ""), 3, "4:81");
    assert_eq!(told(&effects.alerts), "3 raised hot warning, 4 cleared hot warning");
    assert_eq!(effects.alerts[1].reason.notes, ["law_removed"]);
    assert_eq!(effects.alerts[1].failure_type, "Hot");
}

#[test]
fn a_channel_of_another_unit_starts_anew() {
    let (mut engine, mut effects) = play(class("window = true", ""), &run(1, 40, 5));
    let windows = |engine: &Engine| engine.live("m").unwrap().windows[0].map(|stats| stats.count);
    assert_eq!(windows(&engine), Some(40));
    engine.apply(Input::Use { catalogue: catalogue(class("window = true\nstuck_after = \"9s\"", "")) }, &mut effects);
    assert_eq!(windows(&engine), Some(40));
    let mut other = class("window = true", "").document.replace("degC", "K");
    other = other.replace("[class]", "\n[class]");
    let other = Class::parse("oven.toml", &other).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    engine.apply(Input::Use { catalogue: catalogue(other) }, &mut effects);
    assert_eq!(engine.live("m").map(|live| live.windows), None);
}

#[test]
fn a_limit_of_the_machine_is_judged() {
    let of = class("", &one_level(""));
    let limits = [("hot.temp".to_owned(), 90.0)].into();
    let own = MachineSettings { class: Some("oven".to_owned()), limits, ..MachineSettings::default() };
    let catalogue = Catalogue::builtin().with_class(of).with_machine(MachineId::try_from("m").unwrap(), own).unwrap();
    let of = Arc::clone(catalogue.class("oven").unwrap());
    let mut engine = Engine::new(0, Arc::new(catalogue));
    let mut effects = Effects::default();
    engine.apply(Input::Readings(&batch(&of, 0, &["1:85", "n.1:85", "2:91"])), &mut effects);
    assert_eq!(told(&effects.alerts), "1 raised hot warning, 2 raised hot warning");
    assert_eq!(effects.alerts[1].reason.terms[0].limit_source, wire::LimitSource::Machine);
}

/// A long script: a plant with stops, spikes, bad and refused values, disorder, and a detector's fit.
fn long_script() -> Vec<String> {
    let mut state = 42u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut script = Vec::new();
    for second in 1..1500i64 {
        for machine in ["m", "n"] {
            let value = 60 + draw(26) as i64;
            let state = if (second / 50) % 7 == 6 { "=idle" } else { "=running" };
            script.push(match draw(60) {
                0 => format!("{machine}.{}:{value}{state}", second - draw(9) as i64),
                1 => format!("{machine}.{second}:-{state}"),
                2 => format!("{machine}.{second}:{value}b{state}"),
                3 => format!("{machine}.{}@{second}:{value}{state}", second + 20),
                4 => format!("!{second}"),
                5 => format!("{machine}.{}@{}:{value}{state}", second, second + 400),
                _ => format!("{machine}.{second}:{value}{state}"),
            });
        }
    }
    script
}

fn rich() -> Class {
    class(
        "window = true\nmax_step = 22\nstuck_after = \"2s\"",
        &format!(
            "[[channel]]\nid = \"load\"\nunit = \"1\"\nscale = 0\nrange = [0, 9]\n[[derived]]\nid = \"mean\"\nunit = \"degC\"\nexpression = \"mean60(temp)\"\n{}{}",
            law(
                "off_delay = \"3s\"\ndeadband = 2\n[[law.level]]\nseverity = \"warning\"\nall = [{ quantity = \"temp\", above = 76 }]\non_delay = \"1s\"\n\
                 [[law.level]]\nseverity = \"critical\"\nall = [{ quantity = \"temp\", above = 82 }]"
            ),
            "[[law]]\nid = \"warm\"\nfailure_type = \"Warm\"\nseverity = \"info\"\nall = [{ quantity = \"mean\", above = 73 }]\n",
        ),
    )
}

/// As `batch`, with the second channel filled from the time.
fn rich_batch(class: &Arc<Class>, offset: i64, tokens: &[&str]) -> ReadingBatch {
    let mut batch = batch(class, offset, tokens);
    let loads = batch.timestamp_us.iter().map(|us| us / SECOND * 7 % 10).collect();
    batch.values[1] = loads;
    batch
}

fn printed(effects: &Effects) -> String {
    let alerts: Vec<String> = effects.alerts.iter().map(Alert::to_json).collect();
    format!("{}\n{:?}\n{:?}\n{:?}", alerts.join("\n"), effects.events, effects.fits, effects.counts)
}

#[test]
fn any_split_into_batches_gives_the_same_effects() {
    let script = long_script();
    let tokens: Vec<&str> = script.iter().map(String::as_str).collect();
    let catalogue = catalogue(rich());
    let of = Arc::clone(catalogue.class("oven").unwrap());
    let play = |most: usize| {
        let mut engine = Engine::new(0, Arc::clone(&catalogue));
        let mut effects = Effects::default();
        let mut at = 0;
        while at < tokens.len() {
            let end = tokens.len().min(at + 1 + at % most);
            engine.apply(Input::Readings(&rich_batch(&of, at as i64, &tokens[at..end])), &mut effects);
            at = end;
        }
        (printed(&effects), engine.snapshot())
    };
    let (one, slabs) = play(1);
    assert!(one.lines().count() > 200, "{}", one.lines().count());
    for kind in ["raised", "changed", "cleared", "suspended", "stuck:temp", "quality:temp", "clock_skew", "caught_up"] {
        assert!(one.contains(kind), "{kind}");
    }
    for most in [2, 7, 97, 5000] {
        let (split, split_slabs) = play(most);
        assert!(split == one && split_slabs == slabs, "{most}");
    }
}

#[test]
fn a_crash_anywhere_changes_nothing() {
    let script = long_script();
    let tokens: Vec<&str> = script.iter().map(String::as_str).collect();
    let catalogue = catalogue(rich());
    let of = Arc::clone(catalogue.class("oven").unwrap());
    let whole = {
        let mut engine = Engine::new(0, Arc::clone(&catalogue));
        let mut effects = Effects::default();
        for (at, token) in tokens.iter().enumerate() {
            engine.apply(Input::Readings(&rich_batch(&of, at as i64, &[token])), &mut effects);
        }
        (printed(&effects), engine.snapshot())
    };
    let mut engine = Engine::new(0, Arc::clone(&catalogue));
    let mut effects = Effects::default();
    let mut stored: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut committed = 0;
    let mut at = 0;
    while at < tokens.len() {
        engine.apply(Input::Readings(&rich_batch(&of, at as i64, &[tokens[at]])), &mut effects);
        at += 1;
        if at <= committed {
            continue;
        }
        committed = at;
        if at % 211 == 0 {
            // Every other crash comes when only the first record is stored.
            let records = if at % 422 == 211 { 1 } else { 2 };
            stored.extend(engine.snapshot().into_iter().take(records));
        }
        if at % 373 == 0 {
            let slabs: Vec<_> = stored.iter().map(|(number, bytes)| (*number, bytes.clone())).collect();
            engine = Engine::restore(0, Arc::clone(&catalogue), &slabs, &|_| None).unwrap();
            engine.silent_below(committed as i64);
            assert_eq!(engine.next_offset(), engine.replay_from());
            at = engine.replay_from() as usize;
            assert!(at < committed);
        }
    }
    let slabs: Vec<_> = engine.snapshot();
    assert!(printed(&effects) == whole.0);
    // The first record names the snapshot before, of which the whole had none.
    assert!(slabs[1..] == whole.1[1..]);
}

#[test]
fn damaged_slabs_are_told() {
    let script = long_script();
    let tokens: Vec<&str> = script.iter().take(900).map(String::as_str).collect();
    let catalogue = catalogue(rich());
    let of = Arc::clone(catalogue.class("oven").unwrap());
    let mut engine = Engine::new(0, Arc::clone(&catalogue));
    engine.apply(Input::Readings(&rich_batch(&of, 0, &tokens)), &mut Effects::default());
    let slabs = engine.snapshot();
    assert_eq!(slabs.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [u32::MAX, 0]);
    assert_eq!(engine.snapshot(), []);
    let restore = |slabs: &[(u32, Vec<u8>)]| Engine::restore(0, Arc::clone(&catalogue), slabs, &|_| None).map(|_| ());
    assert_eq!(restore(&slabs), Ok(()));
    for which in 0..2 {
        for at in (0..slabs[which].1.len()).step_by(7) {
            let mut wrong = slabs.clone();
            wrong[which].1[at] ^= 0x5a;
            assert!(restore(&wrong).is_err());
            wrong[which].1.truncate(at);
            assert!(restore(&wrong).is_err());
        }
    }
    let mut newer = slabs.clone();
    newer[1].1[0] = 9;
    assert_eq!(restore(&newer), Err(SnapshotError::Format { slab: 0, found: 9, known: 1 }));
    let other = Arc::new(Catalogue::builtin());
    let found = Engine::restore(0, other, &slabs, &|_| None).map(|_| ());
    assert!(matches!(found, Err(SnapshotError::NoCatalogue { .. })), "{found:?}");
}

#[test]
fn a_class_without_laws_learns_and_tells_what_is_unusual() {
    let catalogue = catalogue(class("", "[[channel]]\nid = \"load\"\nunit = \"1\"\nscale = 0\nrange = [0, 90]"));
    let of = Arc::clone(catalogue.class("oven").unwrap());
    let mut engine = Engine::new(0, catalogue);
    let mut effects = Effects::default();
    for second in 0..2000i64 {
        let mut batch = batch(&of, second, &[&format!("{second}:5")]);
        let unusual = (1200..1900).contains(&second);
        batch.values[1].push(if unusual { 85 } else { 10 + second * 7 % 11 });
        engine.apply(Input::Readings(&batch), &mut effects);
    }
    assert_eq!(
        told(&effects.alerts),
        "1230 raised model:mahalanobis info, 1831 changed model:mahalanobis warning, 1902 cleared model:mahalanobis warning"
    );
    assert_eq!(effects.fits.len(), 1);
    assert_eq!(effects.alerts[0].model_version, effects.fits[0].0);
    assert_eq!(effects.alerts[0].failure_type, "Anomaly");
    let live = engine.live("m").unwrap();
    assert!(live.score.is_some_and(|score| score > 0.0) && live.learned_us == 1999 * SECOND);
}

#[test]
fn a_mill_of_one_reading_a_second_is_small() {
    let catalogue = Arc::new(Catalogue::builtin());
    let class = Arc::clone(catalogue.default_class());
    let mut engine = Engine::new(0, catalogue);
    let mut effects = Effects::default();
    for second in 0..120i64 {
        let mut batch = ReadingBatch::new(Arc::clone(&class));
        for machine in 0..100u32 {
            batch.machines.push(MachineId::try_from(&*format!("machine-{machine:03}")).unwrap());
            batch.machine.push(machine);
            batch.timestamp_us.push(START_US + second * SECOND);
            batch.index.push(machine);
            let values = [29_800, 30_900, 1500 + second % 7, 4000 + second, second / 60];
            batch.values.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        let arrived_us = START_US + second * SECOND;
        batch.spans.push(Span { first_row: 0, offset: second, arrived_us, source: "test".into() });
        engine.apply(Input::Readings(&batch), &mut effects);
    }
    assert_eq!(effects.counts.in_order, 12_000);
    assert_eq!(effects.touched.len(), 100);
    let (machines, bytes) = engine.state_bytes();
    assert!(machines == 100 && bytes / machines <= 900, "{} B a machine", bytes / machines);
}
