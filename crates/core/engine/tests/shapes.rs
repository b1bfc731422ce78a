//! Alerts as SPEC.md 3.6 has them: keys, ids, the order of a condition's life, and texts.

use catalog::{Catalogue, Severity};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;
use wire::{Alert, Kind};

const NAMESPACE: &str = "b1c6e4a2-7c0e-5d53-9a57-2f1f0a9d6e31";
const KEYS: [&str; 16] = [
    "alert_id",
    "machine_id",
    "failure_type",
    "kind",
    "severity",
    "timestamp",
    "score",
    "model",
    "model_version",
    "arrived_at",
    "condition",
    "condition_id",
    "position",
    "reading",
    "reason",
    "text",
];

/// A standing condition.
struct Standing<'a> {
    raised: &'a Alert,
    severity: Severity,
    suspended: bool,
}

/// Holds the alerts of one partition, in the order in which they came.
#[track_caller]
pub fn check(alerts: &[Alert], catalogues: &BTreeMap<String, Arc<Catalogue>>, what: &str) {
    let mut ids = BTreeSet::new();
    let mut standing: BTreeMap<(&str, &str), Standing<'_>> = BTreeMap::new();
    for alert in alerts {
        let json: Value = serde_json::from_str(&alert.to_json()).expect("an alert is JSON");
        let at = format!("{what}: {json}");
        assert!(ids.insert(alert.alert_id), "{at}: an id twice");
        check_keys(&json, &at);
        check_id(&json, &at);
        check_words(alert, catalogues, &at);
        check_reason(alert, &json, &at);
        check_text(alert, &at);
        let key = (&*alert.machine_id, &*alert.condition);
        match alert.kind {
            Kind::Raised => {
                assert_eq!(alert.condition_id, alert.alert_id, "{at}");
                assert_eq!(alert.started_at, alert.timestamp, "{at}");
                assert!(alert.suspended.is_none() && alert.caught_up.is_none(), "{at}");
                let begun = Standing { raised: alert, severity: alert.severity, suspended: false };
                assert!(standing.insert(key, begun).is_none(), "{at}: raised while it stood");
            }
            Kind::Changed => {
                let of = standing.get_mut(&key).unwrap_or_else(|| panic!("{at}: changed while it did not stand"));
                assert_eq!((alert.condition_id, alert.started_at), (of.raised.alert_id, of.raised.timestamp), "{at}");
                let told = alert.suspended.is_some() || alert.caught_up.is_some() || alert.severity != of.severity;
                assert!(told && alert.caught_up != Some(false), "{at}: nothing changed");
                assert_ne!(alert.suspended, Some(of.suspended), "{at}: as it was before");
                of.suspended = alert.suspended.unwrap_or(of.suspended);
                of.severity = alert.severity;
            }
            Kind::Cleared => {
                let of = standing.remove(&key).unwrap_or_else(|| panic!("{at}: cleared while it did not stand"));
                assert_eq!((alert.condition_id, alert.started_at), (of.raised.alert_id, of.raised.timestamp), "{at}");
            }
        }
    }
}

fn check_keys(json: &Value, at: &str) {
    for key in KEYS {
        assert!(json.get(key).is_some(), "{at}: no {key}");
    }
    for key in ["topic", "partition", "offset", "index"] {
        assert!(json["position"].get(key).is_some(), "{at}: no position.{key}");
    }
    assert_eq!(json["position"]["topic"], "sensor-raw-data", "{at}");
    for key in ["law", "terms", "contributions", "counterfactual"] {
        assert!(json["reason"].get(key).is_some(), "{at}: no reason.{key}");
    }
    let each = |list: &str, keys: &[&str]| {
        for entry in json["reason"][list].as_array().unwrap_or_else(|| panic!("{at}: reason.{list} is a list")) {
            keys.iter().for_each(|key| assert!(entry.get(key).is_some(), "{at}: no {key} in {list}"));
        }
    };
    each("terms", &["quantity", "measured", "limit", "unit", "direction", "margin", "limit_source"]);
    each("contributions", &["quantity", "value", "unit", "normal_low", "normal_high", "share"]);
    each("counterfactual", &["channel", "from", "to", "unit", "change_percent"]);
}

/// By the words of SPEC.md 3.6, from the JSON alone.
fn check_id(json: &Value, at: &str) {
    let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{at}: {key} is no text")).to_owned();
    let position = |key: &str| json["position"][key].to_string().replace('"', "");
    let name = [
        text("machine_id"),
        text("condition"),
        text("kind"),
        microseconds(&text("timestamp")).to_string(),
        position("topic"),
        position("partition"),
        position("offset"),
        position("index"),
    ]
    .join("|");
    let id = Uuid::new_v5(&NAMESPACE.parse().expect("a UUID"), name.as_bytes());
    assert_eq!(text("alert_id"), id.to_string(), "{at}: the id of {name}");
    microseconds(&text("arrived_at"));
    text("condition_id").parse::<Uuid>().unwrap_or_else(|error| panic!("{at}: {error}"));
}

/// `2025-11-07T15:10:01Z`, with or without a fraction (days by Howard Hinnant's days_from_civil).
fn microseconds(time: &str) -> i64 {
    let (date, clock) = time.strip_suffix('Z').and_then(|time| time.split_once('T')).expect("RFC 3339 in UTC");
    let numbers =
        |text: &str, by| text.split(by).map(|part| part.parse::<i64>().expect("a number")).collect::<Vec<_>>();
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(date, '-')[..] else { panic!("{time}") };
    let [hour, minute, second] = numbers(clock, ':')[..] else { panic!("{time}") };
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let micros: i64 = format!("{fraction:0<6}").parse().expect("microseconds at most");
    (days * 86_400 + hour * 3600 + minute * 60 + second) * 1_000_000 + micros
}

/// failure_type, model, model_version, severity and score by the kind of condition.
fn check_words(alert: &Alert, catalogues: &BTreeMap<String, Arc<Catalogue>>, at: &str) {
    let (family, of) = alert.condition.split_once(':').unwrap_or((&alert.condition, ""));
    assert!(alert.score.is_finite(), "{at}");
    if !matches!(family, "model") {
        assert!(catalogues.contains_key(&alert.model_version), "{at}: model_version is no catalogue");
    }
    match family {
        "stuck" | "quality" | "refused" | "clock_skew" | "no_data" => {
            let failure_type = if family == "no_data" { "NoData" } else { "SensorFault" };
            assert_eq!(alert.failure_type, failure_type, "{at}");
            assert_eq!((&*alert.model, alert.score), ("sensors", 0.0), "{at}");
            assert_eq!((alert.severity, &alert.reason.law), (Severity::Warning, &None), "{at}");
            assert_eq!(matches!(family, "stuck" | "quality" | "refused"), !of.is_empty(), "{at}");
        }
        "model" => {
            assert_eq!((&*alert.failure_type, &alert.reason.law), ("Anomaly", &None), "{at}");
            assert!(alert.severity < Severity::Critical && !alert.notice, "{at}");
            assert!(!alert.model_version.is_empty() && !of.is_empty(), "{at}");
        }
        law => {
            assert_eq!((&*alert.model, alert.reason.law.as_deref()), ("laws", Some(law)), "{at}");
            let class = catalogues[&alert.model_version].class(&alert.class);
            let known = class.and_then(|class| class.laws.iter().find(|known| known.id == law));
            // A law that is gone is cleared under the catalogue that lacks it.
            if alert.kind != Kind::Cleared || known.is_some() {
                let known = known.unwrap_or_else(|| panic!("{at}: no such law"));
                assert_eq!((&known.failure_type, known.notice), (&alert.failure_type, alert.notice), "{at}");
                assert!(known.levels.iter().any(|level| level.severity == alert.severity), "{at}");
            }
        }
    }
}

fn check_reason(alert: &Alert, json: &Value, at: &str) {
    let reason = &alert.reason;
    if alert.kind == Kind::Cleared {
        assert!(reason.terms.is_empty() && reason.counterfactual.is_empty(), "{at}: a cleared condition has no terms");
    }
    if alert.kind == Kind::Raised && alert.model == "laws" {
        let broken = reason.terms.first().unwrap_or_else(|| panic!("{at}: a law is raised by its terms"));
        assert!(broken.margin >= 0.0 && alert.score >= 0.0, "{at}");
    }
    let shares: Vec<f64> = reason.contributions.iter().filter_map(|part| part.share).collect();
    assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares.iter().sum::<f64>() < 1.0 + 1e-9, "{at}");
    assert!(shares.is_empty() || shares.len() == reason.contributions.len() && shares[0] > 0.0, "{at}");
    assert!(reason.contributions.is_sorted_by(|one, next| one.share >= next.share), "{at}: largest share first");
    let reading = &json["reading"];
    let may_lack = matches!(alert.condition.split(':').next(), Some("refused" | "no_data"));
    assert!(reading.is_object() || reading.is_null() && may_lack, "{at}");
    if reading.is_object() {
        assert_eq!(reading["machine_id"], *alert.machine_id, "{at}");
        let time = microseconds(reading["timestamp"].as_str().unwrap_or_else(|| panic!("{at}: when was the reading")));
        assert!(time == alert.timestamp || may_lack, "{at}: another reading's time");
    }
}

fn check_text(alert: &Alert, at: &str) {
    let wire::AlertText { en, ko } = &alert.text;
    assert!(en.contains(&alert.machine_id) && ko.contains(&alert.machine_id), "{at}");
    assert!(ko.chars().any(|letter| ('가'..='힣').contains(&letter)), "{at}");
    for open in ["이(가)", "을(를)", "은(는)", "와(과)", "가(이)", "를(을)", "는(은)", "과(와)", "(으)로", "{", "}"]
    {
        assert!(!ko.contains(open) && !en.contains(open), "{at}: {open}");
    }
}
