//! Each fault of the simulated plant raises its own condition soon, and nothing on a healthy neighbour.

use crate::{
    arithmetic::Reading,
    line::{Line, second},
    shapes,
};
use catalog::Severity;
use plant::Mode;
use wire::{Alert, Kind};

/// A fault begins here.
const FROM_S: i64 = 300;

/// Runs two machines, the first under a fault, and gives the alerts; the condition must be raised `within` seconds and
/// be cleared when the fault is over.
#[track_caller]
fn check(class: &str, profile: &str, for_s: i64, condition: &str, failure_type: &str, within_s: i64) -> Vec<Alert> {
    for seed in 0..4 {
        let mut line = Line::new(class, 2, seed, Mode::Healthy);
        line.profile(0, profile, FROM_S, for_s);
        line.run(FROM_S + for_s + 1200, |_| ());
        let what = format!("{profile} of {class}, seed {seed}");
        shapes::check(&line.alerts, &line.catalogues(), &what);
        let first = line.plant.machines()[0].to_string();
        assert!(line.alerts.iter().all(|alert| alert.machine_id == first), "{what}: its neighbour is healthy");
        let of = |kind| line.alerts.iter().find(move |alert| alert.condition == condition && alert.kind == kind);
        let said = || line.alerts.iter().map(|alert| (&alert.condition, alert.kind, second(alert))).collect::<Vec<_>>();
        let raised = of(Kind::Raised).unwrap_or_else(|| panic!("{what}: no {condition}, but {:?}", said()));
        assert_eq!(raised.failure_type, failure_type, "{what}");
        let after_s = second(raised) - FROM_S;
        assert!((0..=within_s).contains(&after_s), "{what}: {condition} was raised after {after_s} s");
        let cleared = of(Kind::Cleared).unwrap_or_else(|| panic!("{what}: {condition} stands, {:?}", said()));
        assert!(second(cleared) > second(raised), "{what}");
        let alarms = line.alerts.iter().filter(|alert| alert.kind == Kind::Raised && alert.model == "laws");
        for alert in alarms {
            let breaks = Reading::put_back(alert);
            let breaks = if class == "mill" { breaks.mill() } else { breaks.pump() };
            let breaks: Vec<&str> = breaks.into_iter().filter(|law| alert.notice || is_due(law, alert)).collect();
            assert_eq!(breaks, [""; 0], "{what}: {}", alert.to_json());
            let clears = !alert.reason.counterfactual.is_empty();
            assert!(clears, "{what}: nothing would clear it: {}", alert.to_json());
        }
        if seed == 3 {
            return line.alerts;
        }
    }
    unreachable!("the last seed returns")
}

/// A window that the counterfactual leaves alone does not hold the reading's value: only the alert's own law is due.
fn is_due(law: &str, alert: &Alert) -> bool {
    !matches!(law, "vibration_change" | "efficiency_loss") || law == alert.condition
}

fn severities(alerts: &[Alert], condition: &str) -> Vec<Severity> {
    let of = alerts.iter().filter(|alert| alert.condition == condition && alert.kind != Kind::Cleared);
    of.map(|alert| alert.severity).collect()
}

#[test]
fn faults_of_a_mill_raise_their_laws_within_seconds() {
    for (profile, failure_type) in
        [("overstrain", "Overstrain"), ("heat_dissipation", "HeatDissipation"), ("power_failure", "PowerFailure")]
    {
        let alerts = check("mill", profile, 90, profile, failure_type, 6);
        let alarms: Vec<&str> = alerts.iter().filter(|alert| !alert.notice).map(|alert| &*alert.condition).collect();
        assert!(alarms.iter().all(|condition| *condition == profile), "{profile}: {alarms:?}");
        assert_eq!(severities(&alerts, profile)[0], Severity::Critical);
    }
}

#[test]
fn a_worn_tool_is_a_notice_and_no_alarm() {
    let alerts = check("mill", "tool_wear", 60, "tool_wear", "ToolWear", 2);
    assert!(alerts.iter().all(|alert| alert.notice && alert.condition == "tool_wear"));
}

#[test]
fn a_bad_sensor_is_a_condition_of_the_sensor_and_never_of_the_machine() {
    for (class, condition) in [("mill", "quality:torque_nm"), ("pump", "quality:vib_mm_s")] {
        let alerts = check(class, "sensor_fault", 120, condition, "SensorFault", 2);
        assert!(alerts.iter().all(|alert| alert.condition == condition), "{class}");
    }
}

#[test]
fn faults_of_a_pump_raise_their_laws_after_their_delays() {
    check("pump", "dry_run", 120, "dry_run", "DryRun", 12);
    check("pump", "dead_head", 120, "dead_head", "DeadHead", 40);
    let overload = check("pump", "motor_overload", 180, "motor_overload", "MotorOverload", 70);
    assert!(severities(&overload, "motor_overload").contains(&Severity::Critical));
    let cavitation = check("pump", "cavitation", 240, "cavitation", "Cavitation", 20);
    assert_eq!(severities(&cavitation, "cavitation")[0], Severity::Critical);
}

#[test]
fn a_worn_bearing_shows_as_vibration_within_a_shift() {
    // 0.5 mm/s an hour: 1.28 mm/s of change after 2.6 h, zone C after 6.6 h.
    let alerts = check("pump", "bearing_wear", 8 * 3600, "vibration", "Vibration", 7 * 3600);
    let raised = |condition: &str| {
        let of = alerts.iter().find(|alert| alert.condition == condition && alert.kind == Kind::Raised);
        second(of.unwrap_or_else(|| panic!("{condition} was raised")))
    };
    assert!(raised("vibration_change") < raised("vibration"));
    assert!((2 * 3600..4 * 3600).contains(&(raised("vibration_change") - FROM_S)));
    assert!(raised("bearing_temp") > FROM_S + 3600);
    let told = alerts.iter().find(|alert| alert.condition == "vibration").expect("it was raised");
    assert_eq!(told.reason.adjustable, Some(false), "nobody can set a vibration");
}
