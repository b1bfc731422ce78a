//! Laws of `mill` and `pump` as DOMAIN.md and SPEC.md 3.3 write them, in f64, from a reading's JSON: nothing of the
//! product is asked.

use serde_json::Value;
use std::collections::BTreeMap;
use wire::Alert;

/// Channels of a reading, and its product type.
#[derive(Debug, Clone)]
pub struct Reading {
    pub channels: BTreeMap<String, f64>,
    pub product_type: Option<String>,
}

impl Reading {
    /// The reading of an alert with its counterfactual put into it.
    pub fn put_back(alert: &Alert) -> Reading {
        let json = alert.reading.as_ref().expect("a law is raised by a reading").get();
        let json: Value = serde_json::from_str(json).expect("a reading is JSON");
        let numbers = json.as_object().expect("a reading is an object").iter();
        let mut channels: BTreeMap<String, f64> =
            numbers.filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect();
        for step in &alert.reason.counterfactual {
            let before = channels.insert(step.channel.clone(), step.to);
            assert_eq!(before, Some(step.from), "{}: moves what is not there", alert.to_json());
        }
        Reading { channels, product_type: json["product_type"].as_str().map(str::to_owned) }
    }

    fn get(&self, channel: &str) -> f64 {
        self.channels.get(channel).copied().unwrap_or(f64::NAN)
    }

    /// Laws of `mill` that it breaks, notices apart.
    pub fn mill(&self) -> Vec<&'static str> {
        let (rpm, torque) = (self.get("rpm"), self.get("torque_nm"));
        let watts = torque * rpm * 2.0 * std::f64::consts::PI / 60.0;
        let limit = match self.product_type.as_deref() {
            Some("H") => 13_000.0,
            Some("M") => 12_000.0,
            _ => 11_000.0,
        };
        let laws = [
            ("heat_dissipation", self.get("process_temp_k") - self.get("air_temp_k") < 8.6 && rpm < 1380.0),
            ("power_failure", !(3500.0..=9000.0).contains(&watts)),
            ("overstrain", torque * self.get("tool_wear_min") > limit),
        ];
        laws.into_iter().filter(|law| law.1).map(|law| law.0).collect()
    }

    /// Laws of `pump` that it breaks if it stays as it is (a window then holds the value throughout).
    pub fn pump(&self) -> Vec<&'static str> {
        let (vib, flow, current) = (self.get("vib_mm_s"), self.get("flow_m3h"), self.get("motor_current_a"));
        let dp = self.get("discharge_bar") - 0.5;
        let (q_ratio, load) = (flow / 100.0, current / 42.0);
        let efficiency = 100.0 * (flow * dp / 36.0) / (1.732 * 380.0 * current * 0.85 / 1000.0);
        let npsha = (self.get("suction_bar") + 1.013 - 0.023) * 100_000.0 / (998.0 * 9.81);
        let laws = [
            ("vibration", vib > 5.1),
            ("vibration_change", (vib - 1.8).abs() > 1.28),
            ("bearing_temp", self.get("bearing_temp_c") > 82.0),
            ("low_flow", q_ratio < 0.7),
            ("high_flow", q_ratio > 1.2),
            ("dead_head", q_ratio < 0.05 && dp > 0.95 * 6.0),
            ("dry_run", q_ratio < 0.05 && dp < 0.3 * 4.9 && load < 0.5),
            ("cavitation", npsha < 1.1 * 3.0),
            ("motor_overload", load > 1.05),
            ("efficiency_loss", (0.7..=1.2).contains(&q_ratio) && efficiency < 61.0),
        ];
        laws.into_iter().filter(|law| law.1).map(|law| law.0).collect()
    }
}
