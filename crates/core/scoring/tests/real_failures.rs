//! Every failing row of the real data set has a reason whose counterfactual, put back into the row, clears it.

use crate::ai4i::{self, Row};
use catalog::{Catalogue, Class};
use scoring::{Evidence, Explanation, Settings, explain_law};
use std::sync::Arc;
use wire::{CounterfactualStep, LimitSource};

#[test]
fn every_failure_of_the_real_file_is_explained_by_a_change_that_clears_it() {
    let Some(rows) = ai4i::rows() else {
        println!("SKIPPED: shared/data/ai4i2020.csv lies neither beside the checkout nor beside its folder");
        return;
    };
    let mill = Catalogue::builtin().class("mill").expect("mill is built in").clone();
    let (mut heat, mut power, mut strain, mut notices, mut together) = (0, 0, 0, 0, 0);
    for row in &rows {
        assert_eq!((row.overheats(), row.fails_power(), row.overstrains()), (row.hdf, row.pwf, row.osf), "{row:?}");
        for (law, broken, count) in [
            ("heat_dissipation", row.overheats(), &mut heat),
            ("power_failure", row.fails_power(), &mut power),
            ("overstrain", row.overstrains(), &mut strain),
        ] {
            if broken {
                *count += 1;
                together += u32::from(check_law(&mill, row, law));
            }
        }
        if row.wear >= 200.0 {
            notices += 1;
            check_notice(&mill, row);
        }
    }
    println!("explained: HDF {heat}, PWF {power}, OSF {strain}, TWF notices {notices}; {together} need two channels");
    assert_eq!((heat, power, strain), (115, 95, 98));
    assert_eq!(rows.iter().filter(|row| row.breaks_a_law()).count(), 287);
    assert!(heat + power + strain + notices > 330, "{notices} notices");
}

/// Whether the reason had to move more than one channel.
fn check_law(mill: &Arc<Class>, row: &Row, law: &str) -> bool {
    let Explanation { reason, text, score } = explain(mill, row, law);
    let at = format!("row {}, {law}: {reason:?}", row.udi);
    assert_eq!(reason.law.as_deref(), Some(law));
    assert!(score > 0.0, "{at}: score {score}");
    check_terms(
        row,
        law,
        &reason.terms.iter().map(|term| (&*term.term, term.measured, term.limit, term.margin)).collect::<Vec<_>>(),
    );
    assert!(reason.terms.iter().all(|term| term.limit_source == LimitSource::Class), "{at}");
    check_text(&text.en, &text.ko, &at);

    let changed = put_back(row, &reason.counterfactual);
    assert!(!reason.counterfactual.is_empty() && !changed.breaks_a_law(), "{at}: {changed:?}");
    assert!(changed.rpm > 200.0, "{at}: a stopped machine is no mended one");
    assert_eq!(reason.adjustable, None, "{at}");
    let single = nearest_single(row);
    let told: Vec<(&str, f64)> = reason.counterfactual.iter().map(|step| (&*step.channel, step.to)).collect();
    match single {
        Some(best) => assert_eq!(told, [best], "{at}"),
        None => {
            let free = ["rpm", "torque_nm"];
            let parts = ["rpm", "torque_nm", "tool_wear_min"];
            let names: Vec<&str> = told.iter().map(|step| step.0).collect();
            assert!(names.len() > 1, "{at}");
            assert!(names == free || names.iter().all(|name| parts.contains(name)), "{at}");
        }
    }
    single.is_none()
}

fn check_notice(mill: &Arc<Class>, row: &Row) {
    let Explanation { reason, text, .. } = explain(mill, row, "tool_wear");
    let at = format!("row {}, tool_wear: {reason:?}", row.udi);
    assert!(reason.terms[0].margin >= 0.0 && reason.terms[0].limit == 200.0, "{at}");
    assert!(put_back(row, &reason.counterfactual).wear < 200.0, "{at}");
    check_text(&text.en, &text.ko, &at);
}

/// Terms by their own arithmetic: (id, measured, limit, margin).
fn check_terms(row: &Row, law: &str, terms: &[(&str, f64, f64, f64)]) {
    let watts = row.torque * row.rpm * 2.0 * std::f64::consts::PI / 60.0;
    let strain_limit = [11_000.0, 12_000.0, 13_000.0][usize::from(row.product_type)];
    let mut expected = match law {
        "heat_dissipation" => {
            let dt = row.process - row.air;
            vec![("dt_k", dt, 8.6, 8.6 - dt), ("rpm", row.rpm, 1380.0, 1380.0 - row.rpm)]
        }
        "power_failure" => vec![("low", watts, 3500.0, 3500.0 - watts), ("high", watts, 9000.0, watts - 9000.0)],
        _ => {
            let strain = row.torque * row.wear;
            vec![("strain_min_nm", strain, strain_limit, strain - strain_limit)]
        }
    };
    // The broken ones first.
    expected.sort_by_key(|term| term.3 <= 0.0);
    assert_eq!(terms, expected, "row {}, {law}", row.udi);
    assert!(terms[0].3 > 0.0 && (law == "power_failure" || terms.iter().all(|term| term.3 > 0.0)), "row {}", row.udi);
}

/// The single change of speed or torque with the least percent after which no law is broken: every value is tried.
fn nearest_single(row: &Row) -> Option<(&'static str, f64)> {
    let mut best: Option<(f64, &'static str, f64)> = None;
    let mut offer = |channel: &'static str, from: f64, to: f64, changed: &Row| {
        let percent = (to - from).abs() / from * 100.0;
        // Channels are tried in class order, so a tie stays with the first.
        if changed.rpm > 200.0 && !changed.breaks_a_law() && best.is_none_or(|best| percent < best.0) {
            best = Some((percent, channel, to));
        }
    };
    for rpm in 0..=20_000 {
        let rpm = f64::from(rpm);
        offer("rpm", row.rpm, rpm, &Row { rpm, ..*row });
    }
    for torque in 0..=20_000 {
        let torque = f64::from(torque) / 100.0;
        offer("torque_nm", row.torque, torque, &Row { torque, ..*row });
    }
    best.map(|(_, channel, to)| (channel, to))
}

fn put_back(row: &Row, steps: &[CounterfactualStep]) -> Row {
    let mut changed = *row;
    for step in steps {
        let value = match step.channel.as_str() {
            "air_temp_k" => &mut changed.air,
            "process_temp_k" => &mut changed.process,
            "rpm" => &mut changed.rpm,
            "torque_nm" => &mut changed.torque,
            "tool_wear_min" => &mut changed.wear,
            other => panic!("mill has no channel {other}"),
        };
        assert_eq!(*value, step.from, "{step:?}");
        *value = step.to;
    }
    changed
}

fn check_text(en: &str, ko: &str, at: &str) {
    assert!(en.contains("machine-001") && ko.contains("machine-001"), "{at}: {en} {ko}");
    assert!(en.is_ascii(), "{at}: {en}");
    assert!(ko.chars().any(|letter| ('가'..='힣').contains(&letter)), "{at}: {ko}");
    for open in ["이(가)", "을(를)", "은(는)", "와(과)", "가(이)", "를(을)", "는(은)", "과(와)", "(으)로"]
    {
        assert!(!ko.contains(open), "{at}: {ko}");
    }
    assert!(!en.contains('{') && !ko.contains('{'), "{at}: {en} {ko}");
}

fn explain(mill: &Arc<Class>, row: &Row, law: &str) -> Explanation {
    let settings = Settings::resolve(mill, None);
    let values: Vec<i64> = [(row.air, 2), (row.process, 2), (row.rpm, 0), (row.torque, 2), (row.wear, 0)]
        .iter()
        .map(|(value, scale)| (value * 10f64.powi(*scale)).round() as i64)
        .collect();
    let evidence = Evidence {
        class: mill,
        machine: "machine-001",
        settings: &settings,
        values: &values,
        quality: 0,
        attributes: &[Some(row.product_type)],
        attribute_given: &[true],
        windows: &|_| None,
        normal: &|_| None,
    };
    explain_law(&evidence, mill.law_index(law).expect("mill has it"), 0)
}
