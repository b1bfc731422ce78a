//! A centrifugal pump of 22 kW, 100 m3/h at 50 m: values of its class file in health, and how each fault bends them.

use crate::{draw::Draw, profile::Strength};

/// One reading in its units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) vib_mm_s: f64,
    pub(crate) discharge_bar: f64,
    pub(crate) flow_m3h: f64,
    pub(crate) motor_current_a: f64,
    pub(crate) bearing_temp_c: f64,
    pub(crate) suction_bar: f64,
    /// The vibration sensor says of itself that it is bad.
    pub(crate) vib_bad: bool,
}

/// Time constant of the bearing's temperature.
const BEARING_US: f64 = 15.0 * 60e6;
const HOUR_US: f64 = 3600e6;

/// One pump in time.
#[derive(Debug, Clone)]
pub(crate) struct Pump {
    bearing_c: f64,
    last_us: i64,
    /// How far the bearing has worn, hours of the profile.
    wear_h: f64,
}

impl Pump {
    pub(crate) fn new(start_us: i64) -> Pump {
        Pump { bearing_c: 55.0, last_us: start_us, wear_h: 0.0 }
    }

    /// The reading at a time; times only go forward.
    pub(crate) fn sample(&mut self, now_us: i64, profile: Option<(&str, Strength)>, noise: &mut Draw) -> Sample {
        let passed = (now_us - self.last_us).max(0) as f64;
        self.last_us = now_us;
        let (name, share) = profile.map_or(("normal", 0.0), |(name, strength)| (name, strength.0));
        // Normal values of class `pump`; the given spread is three standard deviations, so a day stays inside.
        let mut sample = Sample {
            vib_mm_s: 1.8 + noise.normal(0.0, 0.2 / 3.0),
            discharge_bar: 5.4 + noise.normal(0.0, 0.05 / 3.0),
            flow_m3h: 100.0 + noise.normal(0.0, 2.0 / 3.0),
            motor_current_a: 36.6 + noise.normal(0.0, 0.5 / 3.0),
            bearing_temp_c: 0.0,
            suction_bar: 0.5 + noise.normal(0.0, 0.01),
            vib_bad: false,
        };
        let mut bearing_goal = 55.0;
        let toward = |value: &mut f64, to: f64| *value += (to - *value) * share;
        match name {
            "bearing_wear" => {
                self.wear_h += passed / HOUR_US;
                bearing_goal += 6.0 * self.wear_h;
            }
            "cavitation" => {
                // 0.24 bar absolute at the flange leaves 2.2 m of head where 3.0 m are required.
                toward(&mut sample.suction_bar, -0.75);
                toward(&mut sample.vib_mm_s, 4.2);
                toward(&mut sample.flow_m3h, 90.0);
                toward(&mut sample.discharge_bar, 4.9);
            }
            "dead_head" => {
                toward(&mut sample.flow_m3h, 1.5);
                toward(&mut sample.discharge_bar, 6.4);
                toward(&mut sample.motor_current_a, 22.0);
                toward(&mut sample.vib_mm_s, 3.2);
                bearing_goal = 62.0;
            }
            "dry_run" => {
                toward(&mut sample.flow_m3h, 0.5);
                toward(&mut sample.discharge_bar, 0.8);
                toward(&mut sample.motor_current_a, 14.0);
                toward(&mut sample.vib_mm_s, 3.5);
                bearing_goal = 65.0;
            }
            "motor_overload" => {
                toward(&mut sample.motor_current_a, 52.0);
                bearing_goal = 60.0;
            }
            "stop" => {
                sample.flow_m3h = 0.0;
                sample.motor_current_a = 0.0;
                sample.discharge_bar = 0.5;
                sample.vib_mm_s = 0.1;
                bearing_goal = 25.0;
            }
            "sensor_fault" => {
                sample.vib_bad = true;
                sample.vib_mm_s = 49.0;
            }
            _ => {}
        }
        if name != "bearing_wear" {
            self.wear_h = 0.0;
        }
        sample.vib_mm_s += 0.5 * self.wear_h;
        self.bearing_c += (bearing_goal - self.bearing_c) * (1.0 - (-passed / BEARING_US).exp());
        sample.bearing_temp_c = self.bearing_c + noise.normal(0.0, 0.05);
        sample
    }
}
