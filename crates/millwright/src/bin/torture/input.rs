//! What is sent, from the seed alone.

use serde_json::Value;

/// Machines a client.
pub const MACHINES: u64 = 4;
/// Event-time seconds of one machine in a body.
pub const SECONDS: u64 = 15;

/// The whole input: a pure function of the seed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub t0: i64,
}

/// One line of a body.
pub struct Line {
    pub text: String,
    /// What a good line says; `None`: it must be refused.
    pub reading: Option<Reading>,
}

/// A good reading, as it must be stored: (second, air x 100, process x 100, rpm, torque x 100, wear).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    pub second: i64,
    pub air: i64,
    pub process: i64,
    pub rpm: i64,
    pub torque: i64,
    pub wear: i64,
}

impl Reading {
    /// Power outside 3500..9000 W (SPEC of class mill), in f64 of the decimals.
    pub fn breaks_power(&self) -> bool {
        let power = self.torque as f64 / 100.0 * self.rpm as f64 * 2.0 * std::f64::consts::PI / 60.0;
        !(3500.0..=9000.0).contains(&power)
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): draws that depend on a seed alone.
pub struct Lots(pub u64);

impl Lots {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn machine_name(client: u64, machine: u64) -> String {
    format!("t-{client}-{machine}")
}

impl Plan {
    /// The reading of a machine at a second. Breaks the power law in short spells.
    pub fn reading(self, client: u64, machine: u64, second: u64) -> Reading {
        let mut lots = Lots(self.seed ^ (client << 40) ^ (machine << 48) ^ second.wrapping_mul(0xd134_2543_de82_ef95));
        let mut spell = Lots(
            self.seed ^ 0xb0 ^ (client << 40) ^ (machine << 48) ^ (second / 50).wrapping_mul(0x9e6c_63d0_876a_68ee),
        );
        let broken = spell.below(3) == 0 && {
            let from = spell.below(45);
            (from..from + 1 + spell.below(5)).contains(&(second % 50))
        };
        let air = 29_700 + lots.below(600) as i64;
        Reading {
            second: self.t0 + second as i64,
            air,
            process: air + 950 + lots.below(150) as i64,
            rpm: if broken { 1500 } else { 1400 + lots.below(200) as i64 },
            torque: if broken { 7000 } else { 3500 + lots.below(1000) as i64 },
            wear: (second / 60 % 150) as i64,
        }
    }

    /// The second that a time stamp of this input names.
    pub fn second_of(self, timestamp: &str) -> Option<u64> {
        let at: jiff::Timestamp = timestamp.parse().ok()?;
        (at.subsec_nanosecond() == 0).then(|| u64::try_from(at.as_second() - self.t0).ok())?
    }

    /// The `number`-th body of a client: seconds of each of its machines, some out of order, some lines bad.
    pub fn body(self, client: u64, number: u64) -> Vec<Line> {
        let mut lots = Lots(self.seed ^ 0xb0d7 ^ (client << 32) ^ number.wrapping_mul(0xa076_1d64_78bd_642f));
        let mut lines = Vec::new();
        for machine in 0..MACHINES {
            let mut seconds: Vec<u64> = (number * SECONDS..(number + 1) * SECONDS).collect();
            // Neighbours swapped: out of order, far inside the allowed lateness of 5 s.
            if lots.below(3) == 0 {
                let at = lots.below(SECONDS - 1) as usize;
                seconds.swap(at, at + 1);
            }
            for second in seconds {
                let reading = self.reading(client, machine, second);
                let name = machine_name(client, machine);
                lines.push(Line { text: json(&name, &reading), reading: Some(reading) });
                if lots.below(40) == 0 {
                    let tag = format!("{client}.{number}.{machine}.{second}");
                    lines.push(Line { text: bad(&mut lots, &name, &tag, &reading), reading: None });
                }
            }
        }
        lines
    }
}

pub fn json(machine: &str, reading: &Reading) -> String {
    let hundredths = |value: i64| format!("{}.{:02}", value / 100, value % 100);
    format!(
        r#"{{"machine_id":"{machine}","timestamp":"{}","air_temp_k":{},"process_temp_k":{},"rpm":{},"torque_nm":{},"tool_wear_min":{}}}"#,
        rfc3339(reading.second),
        hundredths(reading.air),
        hundredths(reading.process),
        reading.rpm,
        hundredths(reading.torque),
        reading.wear
    )
}

/// A line that must be refused; `tag` makes each one its own, so that it can be found again.
pub fn bad(lots: &mut Lots, machine: &str, tag: &str, reading: &Reading) -> String {
    let good = json(machine, reading);
    match lots.below(4) {
        0 => format!(r#"{{"tag":"{tag}","#),
        1 => format!(r#"{{"tag":"{tag}","machine_id":"{machine}"}}"#),
        2 => good
            .replace(r#""machine_id":"#, &format!(r#""tag":"{tag}","machine_id":"#))
            .replace(r#""rpm":"#, r#""rpm":"fast","was":"#),
        _ => good
            .replace(r#""machine_id":""#, &format!(r#""tag":"{tag}","machine_id":""#))
            .replace(":\"t-", ":\"\\u0000t-"),
    }
}

/// UTC seconds as RFC 3339 (Howard Hinnant's civil_from_days).
pub fn rfc3339(second: i64) -> String {
    let (days, rest) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A stored reading, comparable.
pub fn cells(log: &Value) -> String {
    let hundredths = |key: &str| (log[key].as_f64().unwrap_or(f64::NAN) * 100.0).round() as i64;
    let second = log["timestamp"].as_str().unwrap_or_default();
    format!(
        "{second} {} {} {} {} {}",
        hundredths("air_temp_k"),
        hundredths("process_temp_k"),
        log["rpm"],
        hundredths("torque_nm"),
        log["tool_wear_min"]
    )
}

pub fn cells_of(reading: &Reading) -> String {
    let Reading { second, air, process, rpm, torque, wear } = reading;
    format!("{} {air} {process} {rpm} {torque} {wear}", rfc3339(*second))
}

/// The clock of this machine.
pub fn unix_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is after 1970");
    since.as_micros() as i64
}
