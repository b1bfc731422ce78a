//! Profiles: what is wrong with a machine, from when to when, and how strongly.

/// Profiles of class `mill`.
pub const MILL: [&str; 7] =
    ["normal", "overstrain", "heat_dissipation", "power_failure", "tool_wear", "sensor_fault", "stop"];
/// Profiles of class `pump`.
pub const PUMP: [&str; 8] =
    ["normal", "bearing_wear", "cavitation", "dead_head", "dry_run", "motor_overload", "stop", "sensor_fault"];

/// A fault comes and goes over so long.
const RAMP_US: i64 = 4_000_000;

/// How far a fault has come, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Strength(pub(crate) f64);

/// A profile in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) from_us: i64,
    pub(crate) until_us: i64,
}

impl Profile {
    /// Its strength at a time; `None` once it has gone.
    pub(crate) fn at(&self, now_us: i64) -> Option<Strength> {
        if self.name == "normal" || now_us < self.from_us || now_us >= self.until_us {
            return None;
        }
        let ramp = |passed: i64| (passed as f64 / RAMP_US as f64).clamp(0.0, 1.0);
        Some(Strength(ramp(now_us - self.from_us + 1_000_000).min(ramp(self.until_us - now_us))))
    }
}
