//! The fast path and serde_json: the same verdict and the same bits on a million generated messages.
//!
//! `MILLWRIGHT_MESSAGES` sets another number; a failing value is printed.

use crate::show::assert_same;
use catalog::Catalogue;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc};
use wire::{Decoder, Framing, format_time, parse_time};

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may be told how long to run")]
fn both_paths_agree() {
    let messages: u64 =
        std::env::var("MILLWRIGHT_MESSAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let catalogue = Arc::new(Catalogue::builtin());
    let arrived_us = parse_time(b"2025-11-07T15:10:02Z").unwrap();
    let bound = |id: &str| id.starts_with('p').then(|| "pump".to_owned());
    let mut slow = Decoder::without_fast_path(catalogue.clone(), 6);
    let mut fast = Decoder::new(catalogue.clone(), 6);
    let mut draw = Draw(1);
    let mut seen = BTreeMap::new();
    let (mut sent, mut accepted, mut arrays) = (0, 0, [0, 0]);
    while sent < messages {
        let count = 1 + draw.below(60);
        let bodies: Vec<Vec<u8>> = (0..count).map(|_| message(&mut draw)).collect();
        sent += count;
        if draw.one_in(50) {
            fast = Decoder::new(catalogue.clone(), 6);
        }
        if draw.one_in(4) {
            let value = [b"[".to_vec(), bodies.join(&b","[..]), b"]".to_vec()].concat();
            let whole = serde_json::from_slice::<Vec<&RawValue>>(&value).is_ok();
            let result = slow.decode(&value, Framing::Json, arrived_us, &bound);
            assert_eq!(result.is_ok(), whole, "{}", String::from_utf8_lossy(&value));
            assert_same(&fast.decode(&value, Framing::Json, arrived_us, &bound), &result, &value);
            arrays[usize::from(whole)] += 1;
        }
        let value = bodies.join(&b"\n"[..]);
        let result = slow.decode(&value, Framing::Lines, arrived_us, &bound);
        assert_same(&fast.decode(&value, Framing::Lines, arrived_us, &bound), &result, &value);
        let result = result.unwrap();
        accepted += u64::from(result.messages) - result.rejects.len() as u64;
        for reject in &result.rejects {
            *seen.entry(reject.code.as_str()).or_insert(0) += 1;
        }
    }
    println!("{sent} messages, {accepted} accepted, arrays broken and whole {arrays:?}, refused {seen:?}");
    for code in [
        "not_json",
        "not_an_object",
        "missing_field",
        "wrong_type",
        "duplicate_key",
        "not_finite",
        "out_of_range",
        "bad_machine_id",
        "bad_time",
        "too_old",
        "in_future",
        "local_time",
        "unknown_class",
        "class_changed",
        "unknown_value",
        "too_deep",
    ] {
        assert!(messages < 100_000 || seen.contains_key(code), "no {code} among the messages");
    }
    assert!(accepted > messages / 3 && arrays.iter().all(|count| *count > 0));
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// A message: mostly good, else changed in one way or another.
fn message(draw: &mut Draw) -> Vec<u8> {
    let mut fields = fields(draw);
    if draw.one_in(10) {
        for at in (1..fields.len()).rev() {
            fields.swap(at, draw.below(at as u64 + 1) as usize);
        }
    }
    if draw.one_in(8) {
        spoil(&mut fields, draw);
    }
    let (colon, comma) = [(":", ","), (": ", ", "), (" :\t", " , ")][[0, 0, 0, 1, 1, 2][draw.below(6) as usize]];
    let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\"{colon}{value}")).collect();
    let mut text = format!("{{{}}}", pairs.join(comma)).into_bytes();
    if draw.one_in(12) {
        mutate(&mut text, draw);
    }
    text
}

type Fields = Vec<(String, String)>;

fn fields(draw: &mut Draw) -> Fields {
    let is_pump = draw.one_in(4);
    let machine = match draw.below(40) {
        0 => draw.of(&["설비-1", "a\\u0041b", "x\\\\", "\\\"q\\\"", "é", "p한글", "a/b", "\u{7f}"]).to_owned(),
        1 => "m".repeat(1 + draw.below(52) as usize),
        2 => draw.of(&["", "a\\u0000", "\\ud83d\\ude00", "\\ud83d"]).to_owned(),
        _ => format!("{}{:03}", if is_pump { "p" } else { "machine-" }, draw.below(30)),
    };
    let mut fields: Fields = vec![("machine_id".into(), format!("\"{machine}\"")), ("timestamp".into(), time(draw))];
    let channels: &[(&str, u64, u32)] = if is_pump {
        &[
            ("vib_mm_s", 5000, 2),
            ("discharge_bar", 4000, 2),
            ("flow_m3h", 20_000, 2),
            ("motor_current_a", 42_000, 2),
            ("bearing_temp_c", 18_000, 2),
        ]
    } else {
        &[
            ("air_temp_k", 31_000, 2),
            ("process_temp_k", 32_000, 2),
            ("rpm", 3000, 0),
            ("torque_nm", 8000, 2),
            ("tool_wear_min", 250, 0),
        ]
    };
    for (channel, high, scale) in channels {
        let low = if channel.ends_with("temp_k") { high - 2000 } else { 0 };
        fields.push(((*channel).into(), number(low + draw.below(high - low), *scale, draw)));
    }
    if is_pump && draw.one_in(2) {
        let value = if draw.one_in(3) { "null".into() } else { number(draw.below(400), 2, draw) };
        fields.push(("suction_bar".into(), value));
    }
    if !is_pump && draw.one_in(3) {
        let kind = draw.of(&["\"L\"", "\"M\"", "\"H\"", "\"\\u004c\"", "null"]);
        fields.push(("product_type".into(), kind.into()));
    }
    for (key, chance, values) in [
        (
            "seq",
            3,
            &["1", "0", "-5", "12345678", "123456789012", "1e3", "7.0", "-0", "null", "9223372036854775807"][..],
        ),
        ("class", 9, &["\"mill\"", "\"pump\"", "null", "\"mi\\u006cl\""]),
        ("machine_state", 9, &["\"running\"", "\"idle\"", "\"tool_change\"", "null"]),
        (
            "quality",
            15,
            &["{\"rpm\":\"bad\"}", "{}", "{\"torque_nm\":\"uncertain\",\"x\":1}", "null", "{\"vib_mm_s\":\"good\"}"],
        ),
        ("links", 20, &["{\"wave\":\"s3://x\"}", "{}", "null"]),
        ("fw", 15, &["\"1.2\"", "3", "[1,2,{\"a\":null}]", "true", "\"\\u12ab\\n\"", "{\"machine_id\":\"x\"}"]),
    ] {
        if draw.one_in(chance) {
            fields.push((key.into(), draw.of(values).into()));
        }
    }
    fields
}

fn number(value: u64, scale: u32, draw: &mut Draw) -> String {
    let one = 10_u64.pow(scale);
    match draw.below(12) {
        0 => format!("{}.{:03}", value / one, draw.below(1000)),
        1 => format!("{value}e-{scale}"),
        2 => format!("{}.{:02}5", value / one, draw.below(100)),
        3 => format!("{}.0", value / one),
        4 => format!("{}.{}", value / one, draw.next()),
        5 => format!("-{}.{}", draw.below(30), draw.below(100)),
        _ if scale == 0 || value.is_multiple_of(one) => format!("{}", value / one),
        6 | 7 => format!("{}.{}", value / one, draw.below(10)),
        _ => format!("{}.{:02}", value / one, value % one),
    }
}

fn time(draw: &mut Draw) -> String {
    let end = parse_time(b"2025-11-07T15:14:00Z").expect("a time");
    let us = end - draw.below(300_000) as i64 * 1000;
    let second = format_time(us - us.rem_euclid(1_000_000));
    let second = second.trim_end_matches('Z');
    let text = match draw.below(16) {
        0 => format!("{second}.{}Z", draw.below(10_000_000_000)),
        1 => format!("{second}.{:06}Z", draw.below(1_000_000)),
        2 => format!("{second}+00:00"),
        3 => second.to_owned(),
        4 => second.replace('T', " ") + "z",
        5..=8 => format_time(us),
        _ => format!("{second}Z"),
    };
    format!("\"{text}\"")
}

/// Changes one field so that the message is probably refused.
fn spoil(fields: &mut Fields, draw: &mut Draw) {
    let at = draw.below(fields.len() as u64) as usize;
    match draw.below(6) {
        0 => drop(fields.remove(at)),
        1 => fields.push(fields[at].clone()),
        2 => fields[at].0 = draw.of(&["", "Rpm", "rpm ", "\\u0072pm", "machine_id", "class"]).into(),
        3 => {
            let nested = draw.below(40) as usize;
            fields.push(("deep".into(), format!("{}{}", "[".repeat(nested), "]".repeat(nested))));
        }
        4 => {
            let stamp = draw.of(&[
                "yesterday",
                "1999-12-31T23:59:59Z",
                "2025-11-08T00:10:00Z",
                "2030-01-01T00:00:00Z",
                "2025-11-07T15:10:60Z",
                "2016-12-31T23:59:60Z",
            ]);
            fields[1].1 = format!("\"{stamp}\"");
        }
        _ => {
            fields[at].1 = draw
                .of(&[
                    "NaN",
                    "Infinity",
                    "-inf",
                    "1e300",
                    "-1e300",
                    "1e-300",
                    "01",
                    "+1",
                    "1.",
                    ".5",
                    "-",
                    "--1",
                    "1e",
                    "0x1",
                    "true",
                    "nul",
                    "null",
                    "{}",
                    "[]",
                    "\"x\"",
                    "\"\"",
                    "\"lathe\"",
                    "\"idle\"",
                    "99999999999999999999999",
                    "1E+2",
                    "-0",
                    "0.0000000000000000000001",
                    "\"\\u0000\"",
                    "\"\\x\"",
                ])
                .into();
        }
    }
}

/// Changes a few bytes.
fn mutate(text: &mut Vec<u8>, draw: &mut Draw) {
    for _ in 0..1 + draw.below(3) {
        let at = draw.below(text.len() as u64) as usize;
        let byte = match draw.below(3) {
            0 => draw.next() as u8,
            1 => b"{}[]\",:\\ .-+eE0129\t\n\r\0\x80"[draw.below(23) as usize],
            _ => text[draw.below(text.len() as u64) as usize],
        };
        match draw.below(4) {
            0 => text.truncate(at.max(1)),
            1 => text.insert(at, byte),
            2 if text.len() > 1 => drop(text.remove(at)),
            _ => text[at] = byte,
        }
    }
}
