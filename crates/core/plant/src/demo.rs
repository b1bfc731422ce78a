//! Which fault shows itself when, so that a newcomer sees an alarm within a minute and no more than a handful an hour.

use crate::draw::Draw;

/// One demonstration fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demo {
    /// After the start, microseconds.
    pub after_us: i64,
    /// Place of the machine, from 0.
    pub machine: u32,
    /// Its profile.
    pub profile: &'static str,
    /// How long, microseconds.
    pub for_us: i64,
}

const SECOND: i64 = 1_000_000;

/// The `number`-th demonstration fault of a plant: the first 20 s after the start, then six an hour, no two at once.
pub fn demo(seed: u64, class: &str, machines: u32, number: u64) -> Option<Demo> {
    let profiles: &[&'static str] = match class {
        "mill" => &["overstrain", "power_failure", "heat_dissipation"],
        "pump" => &["dry_run", "dead_head", "cavitation", "motor_overload"],
        _ => return None,
    };
    let mut draw = Draw::new(seed, 0, 9, number);
    let jitter = if number == 0 { 0 } else { draw.below(240) as i64 * SECOND };
    Some(Demo {
        after_us: 20 * SECOND + number as i64 * 600 * SECOND + jitter,
        machine: u32::try_from(draw.below(u64::from(machines.max(1)))).unwrap_or(0),
        profile: profiles[(number % profiles.len() as u64) as usize],
        for_us: 90 * SECOND,
    })
}
