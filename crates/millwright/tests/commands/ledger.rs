//! Bad input by the million: the ledger balances to the unit, and every reject can be read with its reason.

use crate::product::{Up, wait_for};
use std::{collections::BTreeMap, fmt::Write};

/// Messages; fewer where the program under test is not optimised.
const MESSAGES: u64 = if cfg!(debug_assertions) { 40_000 } else { 1_000_000 };
const PER_BODY: u64 = 5_000;
const MACHINES: u64 = 50;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Lots(u64);

impl Lots {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn line(machine: u64, second: u64, lot: u64, start_us: i64) -> String {
    let time = wire::format_time(start_us + second as i64 * 1_000_000);
    format!(
        r#"{{"machine_id":"m-{machine:02}","timestamp":"{time}","air_temp_k":298.{},"process_temp_k":308.{},"rpm":{},"torque_nm":4{}.5,"tool_wear_min":{}}}"#,
        lot % 10,
        5 + lot % 5,
        1400 + lot % 200,
        lot % 5,
        second / 60 % 150
    )
}

#[test]
fn a_million_messages_balance_and_every_reject_says_why() {
    let up = Up::start(&["--no-simulate"]);
    let now_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    // The newest second of the run lies an hour back.
    let seconds = MESSAGES / MACHINES + 1;
    let start_us = (now_us / 1_000_000 - 3600 - seconds as i64) * 1_000_000;
    let mut lots = Lots(20_261_126);
    let (mut good, mut doubled, mut late, mut bad) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    // By machine: its next second, its last line, seconds it has skipped so far.
    let mut next = vec![0_u64; MACHINES as usize];
    let mut last: Vec<Option<String>> = vec![None; MACHINES as usize];
    let mut skipped: Vec<Vec<u64>> = vec![Vec::new(); MACHINES as usize];
    let mut sent = 0;
    while sent < MESSAGES {
        let mut body = String::new();
        let (mut bad_here, mut first_bad) = (0, None);
        for nth in 0..PER_BODY.min(MESSAGES - sent) {
            let machine = lots.below(MACHINES);
            let at = machine as usize;
            let text = match lots.below(100) {
                // A second that was skipped a good while ago: late, stored all the same.
                0..3 if skipped[at].first().is_some_and(|second| second + 10 < next[at]) => {
                    let second = skipped[at].remove(0);
                    late += 1;
                    good += 1;
                    line(machine, second, lots.below(1000), start_us)
                }
                3..6 if last[at].is_some() => {
                    doubled += 1;
                    last[at].clone().unwrap()
                }
                kind @ 6..16 => {
                    bad += 1;
                    bad_here += 1;
                    first_bad.get_or_insert(nth);
                    let whole = line(machine, next[at], lots.below(1000), start_us);
                    let (reason, text) = match kind {
                        6 => ("not_json", whole[..whole.len() - 5].to_owned()),
                        7 => ("missing_field", whole.replace(r#""rpm""#, r#""speed""#)),
                        8 => ("wrong_type", whole.replace(r#""rpm":1"#, r#""rpm":"fast","was":1"#)),
                        9 => ("out_of_range", whole.replace(r#""rpm":1"#, r#""rpm":901"#)),
                        10 => ("bad_time", whole.replace("T", "t o'clock ")),
                        11 => ("in_future", {
                            // Neither near a whole half hour: that would be told as local time.
                            let ahead = now_us + 86_400_000_000 + 700_000_000;
                            let time = whole.split('"').nth(7).unwrap().to_owned();
                            whole.replace(&time, &wire::format_time(ahead))
                        }),
                        12 => ("bad_machine_id", whole.replace(&format!("m-{machine:02}"), "")),
                        13 => ("not_finite", whole.replace(r#""torque_nm":4"#, r#""torque_nm":NaN,"was":4"#)),
                        14 => ("not_an_object", "42".to_owned()),
                        _ => ("too_old", whole.replace(&whole.split('"').nth(7).unwrap()[..4], "1999")),
                    };
                    *reasons.entry(reason).or_default() += 1;
                    text
                }
                16..18 => {
                    // Skips a second, to be sent late.
                    skipped[at].push(next[at]);
                    next[at] += 1;
                    let text = line(machine, next[at], lots.below(1000), start_us);
                    next[at] += 1;
                    last[at] = Some(text.clone());
                    good += 1;
                    text
                }
                _ => {
                    let text = line(machine, next[at], lots.below(1000), start_us);
                    next[at] += 1;
                    last[at] = Some(text.clone());
                    good += 1;
                    text
                }
            };
            writeln!(body, "{text}").unwrap();
        }
        let messages = PER_BODY.min(MESSAGES - sent);
        let told = up.lines(&body);
        assert_eq!(told["rejected"], bad_here, "{}", &told.to_string()[..200.min(told.to_string().len())]);
        assert_eq!(told["accepted"], messages - bad_here);
        assert_eq!(told["errors"][0]["index"].as_u64(), first_bad, "the first reject of the body");
        sent += messages;
    }
    wait_for("rest", || {
        let sum = up.ledger();
        sum("in_flight") == 0 && sum("received") == MESSAGES
    });
    let sum = up.ledger();
    assert_eq!(
        (sum("received"), sum("stored"), sum("duplicate"), sum("rejected")),
        (MESSAGES, good, doubled, bad),
        "{late} late readings are stored"
    );
    let letters = up.pages("/api/dead-letters", "dead_letters");
    assert_eq!(letters.len() as u64, bad);
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for letter in &letters {
        assert!(letter["error"].as_str().is_some_and(|error| error.len() > 5), "{letter}");
        assert!(letter["payload"].is_string() || letter["payload_base64"].is_string(), "{letter}");
        *found.entry(letter["error_code"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let reasons: BTreeMap<String, u64> = reasons.into_iter().map(|(code, count)| (code.to_owned(), count)).collect();
    assert_eq!(found, reasons);
    let logs = up.pages("/api/machines/m-07/logs?from=2020-01-01T00:00:00Z", "logs");
    let mut times: Vec<&str> = logs.iter().map(|log| log["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older));
    times.dedup();
    assert_eq!(times.len(), logs.len(), "each second of a machine stands once");
}
