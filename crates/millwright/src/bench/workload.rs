//! Readings of class `mill` as JSON lines, from a number alone, so that every run measures the same bytes.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Event time of the first reading: 2026-01-01T00:00:00Z.
pub const START_S: i64 = 1_767_225_600;

/// Which readings.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Machines; reading `n` is of machine `n % machines` (or in a fixed shuffled order), at second `n / machines`.
    pub machines: u64,
    /// Every so many readings one breaks the power law; 0: none.
    pub broken_every: u64,
    /// Machines in shuffled order, so that their states lie far apart.
    pub shuffled: bool,
}

/// W1 of docs/performance.md: 1,000 machines at 1 Hz.
pub const SEED: Workload = Workload { machines: 1000, broken_every: 997, shuffled: false };

impl Workload {
    /// Appends readings `from..to` as JSON lines, second 0 at `start_s`.
    pub fn lines(&self, start_s: i64, from: u64, to: u64, out: &mut String) {
        for n in from..to {
            let second = start_s + (n / self.machines) as i64;
            let turn = n % self.machines;
            // A prime above every count visits every machine once.
            let machine = if self.shuffled { turn.wrapping_mul(1_000_003) % self.machines } else { turn };
            let lot = mix(n);
            let broken = self.broken_every > 0 && n % self.broken_every == self.broken_every - 1;
            let air = 2970 + lot % 60;
            let process = air + 95 + (lot >> 8) % 15;
            let rpm = if broken { 1500 } else { 1400 + (lot >> 16) % 200 };
            let torque = if broken { 700 } else { 350 + (lot >> 32) % 100 };
            let wear = (n / self.machines / 60) % 150;
            let _ = writeln!(
                out,
                r#"{{"machine_id":"machine-{machine:06}","timestamp":"{}","air_temp_k":{}.{},"process_temp_k":{}.{},"rpm":{rpm},"torque_nm":{}.{},"tool_wear_min":{wear}}}"#,
                &wire::format_time(second * 1_000_000),
                air / 10,
                air % 10,
                process / 10,
                process % 10,
                torque / 10,
                torque % 10,
            );
        }
    }

    /// Readings `0..count` in bodies of `per` lines.
    pub fn bodies(&self, count: u64, per: u64) -> Vec<String> {
        (0..count.div_ceil(per))
            .map(|body| {
                let mut text = String::with_capacity(per as usize * 160);
                self.lines(START_S, body * per, ((body + 1) * per).min(count), &mut text);
                text
            })
            .collect()
    }
}

/// SHA-256 of bodies, so that a reader knows that two runs measured the same input.
pub fn hash<'a>(bodies: impl IntoIterator<Item = &'a String>) -> String {
    let mut sha = Sha256::new();
    for body in bodies {
        sha.update(body.as_bytes());
    }
    sha.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SplitMix64's finaliser.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
