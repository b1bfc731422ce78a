//! What the decoder takes, refuses and says.

use crate::show::{assert_same, summary};
use catalog::Catalogue;
use std::{collections::BTreeMap, sync::Arc};
use wire::{
    Decoded, Decoder, ErrorCode, Framing, NotReadings, ReadingBatch, Run, Span, Values, parse_time, partition_of,
};

const GOOD: &str = r#"{"machine_id":"machine-001","timestamp":"2025-11-07T15:10:01Z","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5}"#;
const ROW: &str = "mill machine-001 2025-11-07T15:10:01Z 299.1 309.5 1500 42.8 5";

fn arrived() -> i64 {
    parse_time(b"2025-11-07T15:10:02Z").expect("a time")
}

/// Decodes by both paths, each value three times so that the fast path knows it, and holds them against each other.
#[track_caller]
fn decode_bound(
    value: &[u8],
    framing: Framing,
    bound: &dyn Fn(&str) -> Option<String>,
) -> Result<Decoded, NotReadings> {
    let catalogue = Arc::new(Catalogue::builtin());
    let slow = Decoder::without_fast_path(catalogue.clone(), 6).decode(value, framing, arrived(), bound);
    let mut decoder = Decoder::new(catalogue, 6);
    for _ in 0..3 {
        assert_same(&decoder.decode(value, framing, arrived(), bound), &slow, value);
    }
    slow
}

#[track_caller]
fn decode(value: impl AsRef<[u8]>, framing: Framing) -> Result<Decoded, NotReadings> {
    decode_bound(value.as_ref(), framing, &|_| None)
}

#[track_caller]
fn check(framing: Framing, value: impl AsRef<[u8]>, expected: &str) {
    assert_eq!(summary(&decode(value, framing)), expected);
}

/// One message with something in the place of something else.
#[track_caller]
fn check_changed(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "{from}");
    check(Framing::Lines, GOOD.replacen(from, to, 1), &format!("0 {expected}"));
}

#[test]
fn the_contract_example_is_a_reading() {
    check(Framing::Lines, GOOD, &format!("0 {ROW}"));
    check(Framing::Json, GOOD, &format!("0 {ROW}"));
    check(Framing::Auto, GOOD, &format!("0 {ROW}"));
}

#[test]
fn optional_keys_ride_along() {
    let with = |more: &str| GOOD.replace('}', &format!(",{more}}}"));
    check(Framing::Lines, with(r#""product_type":"M","seq":7"#), &format!("0 {ROW} seq=7 product_type=M"));
    check(
        Framing::Lines,
        with(r#""seq":-9223372036854775808,"class":"mill""#),
        &format!("0 {ROW} seq=-9223372036854775808"),
    );
    check(Framing::Lines, with(r#""machine_state":"tool_change""#), &format!("0 {ROW} state=tool_change"));
    check(Framing::Lines, with(r#""links":{"wave": ["a"]}"#), &format!(r#"0 {ROW} links={{"wave": ["a"]}}"#));
    check(
        Framing::Lines,
        with(r#""seq":null,"product_type":null,"links":null,"quality":null,"class":null,"machine_state":null"#),
        &format!("0 {ROW}"),
    );
    check(
        Framing::Lines,
        with(r#""quality":{"rpm":"bad","torque_nm":"uncertain","air_temp_k":"good","process_temp_k":null,"other":1}"#),
        "0 mill machine-001 2025-11-07T15:10:01Z 299.1 309.5 1500! 42.8? 5",
    );
}

#[test]
fn numbers_of_any_form_are_rounded_to_the_scale() {
    for (text, value) in [
        ("42.80", "42.8"),
        ("4.28e1", "42.8"),
        ("428E-1", "42.8"),
        ("42.805", "42.81"),
        ("42.8049999999999999999", "42.8"),
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("-0.004", "0"),
        ("1e2", "100"),
        ("200.004", "200"),
        ("43", "43"),
    ] {
        check_changed("42.8", text, &format!("mill machine-001 2025-11-07T15:10:01Z 299.1 309.5 1500 {value} 5"));
    }
    check_changed("1500", "1500.0", ROW);
    check_changed("1500", "1499.5", ROW);
    let decoded = decode(GOOD.replace("42.8", "42.801").replace("1500", "1500.0"), Framing::Lines).unwrap();
    assert_eq!(decoded.rounded, 1);
}

#[test]
fn times_in_all_forms() {
    for (text, time) in [
        ("2025-11-07T15:10:01.5Z", "2025-11-07T15:10:01.500Z"),
        ("2025-11-07T15:10:01.123Z", "2025-11-07T15:10:01.123Z"),
        ("2025-11-07T15:10:01.123456789Z", "2025-11-07T15:10:01.123456Z"),
        ("2025-11-08T00:10:01+09:00", "2025-11-07T15:10:01Z"),
        ("2025-11-07t15:10:01z", "2025-11-07T15:10:01Z"),
        ("2025-11-07 15:10:01", "2025-11-07T15:10:01Z"),
        ("2025-11-07T15:\\u00310:01Z", "2025-11-07T15:10:01Z"),
        ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z"),
        ("2025-11-07T15:15:02Z", "2025-11-07T15:15:02Z"),
    ] {
        check_changed("2025-11-07T15:10:01Z", text, &format!("mill machine-001 {time} 299.1 309.5 1500 42.8 5"));
    }
    for (text, code) in [
        ("yesterday", "bad_time"),
        ("", "bad_time"),
        ("2025-02-29T00:00:00Z", "bad_time"),
        ("2025-11-07T15:10:01Z ", "bad_time"),
        ("1999-12-31T23:59:59.999999Z", "too_old"),
        ("2025-11-07T15:15:02.000001Z", "in_future"),
        ("2025-11-08T15:10:02Z", "in_future"),
        ("2025-11-08T00:10:02Z", "local_time"),
        ("9999-12-31T23:59:59Z", "in_future"),
    ] {
        check_changed("2025-11-07T15:10:01Z", text, &format!("{code} machine-001 -"));
    }
}

#[test]
fn a_lead_of_half_hours_names_the_zone() {
    let error = |stamp: &str, source: bool| {
        let mut decoder = Decoder::new(Arc::new(Catalogue::builtin()), 6);
        if source {
            decoder.set_source("line-3", 0);
        }
        let value = GOOD.replace("2025-11-07T15:10:01Z", stamp);
        decoder.decode(value.as_bytes(), Framing::Lines, arrived(), &|_| None).unwrap().rejects.remove(0)
    };
    let korea = error("2025-11-08T00:11:40Z", true);
    assert_eq!(korea.code, ErrorCode::LocalTime);
    assert!(
        korea.error.ends_with("looks like local time sent as UTC (+9 h): set clock_offset of source line-3"),
        "{}",
        korea.error
    );
    assert!(error("2025-11-07T20:40:00Z", false).error.contains("(+5.5 h): set clock_offset of its source"));
    assert_eq!(error("2025-11-07T20:36:00Z", true).code, ErrorCode::InFuture);
    assert_eq!(error("2025-11-08T05:40:02Z", true).code, ErrorCode::InFuture);
}

#[test]
fn the_clock_offset_of_a_source_is_taken_off() {
    let mut decoder = Decoder::new(Arc::new(Catalogue::builtin()), 6);
    decoder.set_source("line-3", 9 * 3_600_000_000);
    let value = format!("{0}\n{0}\n", GOOD.replace("2025-11-07T15:10:01Z", "2025-11-08T00:10:01Z"));
    let decoded = decoder.decode(value.as_bytes(), Framing::Lines, arrived(), &|_| None);
    assert_eq!(summary(&decoded), format!("0 {ROW}\n1 {ROW}"));
}

#[test]
fn in_a_run_the_clock_offset_of_each_source_is_taken_off() {
    let ahead = GOOD.replace("2025-11-07T15:10:01Z", "2025-11-08T00:10:01Z");
    let clocks = Arc::new(BTreeMap::from([("plc".to_owned(), 9 * 3_600_000_000)]));
    let mut decoder = Decoder::new(Arc::new(Catalogue::builtin()), 1);
    decoder.set_clocks(clocks);
    let run = decoder.decode_run(records(&[&ahead, GOOD, &ahead, &ahead]), &|_| None);
    assert_eq!(run.batches[0].timestamp_us, [parse_time(b"2025-11-07T15:10:01Z").unwrap(); 3]);
    // The fourth is of a source without one.
    let (place, refused) = &run.rejects[0];
    assert_eq!((run.rejects.len(), *place, refused.code), (1, 3, ErrorCode::LocalTime));
    assert!(refused.error.ends_with("set clock_offset of source http"), "{}", refused.error);
}

#[test]
fn refusals_name_what_is_wrong() {
    for (from, to, expected) in [
        ("\"rpm\":1500,", "", "missing_field machine-001 rpm"),
        ("1500", "null", "missing_field machine-001 rpm"),
        ("1500", "\"fast\"", "wrong_type machine-001 rpm"),
        ("1500", "\"1500\"", "wrong_type machine-001 rpm"),
        ("1500", "true", "wrong_type machine-001 rpm"),
        ("1500", "[1500]", "wrong_type machine-001 rpm"),
        ("1500", "{}", "wrong_type machine-001 rpm"),
        ("1500", "-1", "out_of_range machine-001 rpm"),
        ("1500", "-0.5", "out_of_range machine-001 rpm"),
        ("1500", "1e300", "out_of_range machine-001 rpm"),
        ("1500", "20000.5", "out_of_range machine-001 rpm"),
        ("1500", "99999999999999999999", "out_of_range machine-001 rpm"),
        ("1500", "NaN", "not_finite machine-001 rpm"),
        ("1500", "-Infinity", "not_finite machine-001 rpm"),
        ("1500", "inf", "not_finite machine-001 rpm"),
        ("1500", "1500,\"x\":NaN", "not_finite machine-001 -"),
        ("1500", "nine", "not_json - -"),
        ("1500", "01500", "not_json - -"),
        ("1500", "+1500", "not_json - -"),
        ("1500", "1500.", "not_json - -"),
        ("1500", ".5", "not_json - -"),
        ("1500", "0x10", "not_json - -"),
        ("1500", "1500,\"rpm\":1500", "duplicate_key machine-001 rpm"),
        ("1500", "1500,\"seq\":1,\"seq\":1", "duplicate_key machine-001 -"),
        ("1500", "1500,\"product_type\":\"L\",\"product_type\":\"L\"", "duplicate_key machine-001 -"),
        ("1500", "1500,\"machine_id\":\"b\"", "duplicate_key - -"),
        ("1500", "1500,\"product_type\":\"X\"", "unknown_value machine-001 -"),
        ("1500", "1500,\"product_type\":1", "wrong_type machine-001 -"),
        ("1500", "1500,\"seq\":1.5", "wrong_type machine-001 -"),
        ("1500", "1500,\"seq\":\"1\"", "wrong_type machine-001 -"),
        ("1500", "1500,\"seq\":9223372036854775808", "out_of_range machine-001 -"),
        ("1500", "1500,\"machine_state\":\"busy\"", "unknown_value machine-001 -"),
        ("1500", "1500,\"quality\":{\"rpm\":\"ok\"}", "unknown_value machine-001 rpm"),
        ("1500", "1500,\"quality\":\"good\"", "wrong_type machine-001 -"),
        ("1500", "1500,\"links\":[]", "wrong_type machine-001 -"),
        ("1500", "1500,\"class\":\"lathe\"", "unknown_class machine-001 -"),
        ("1500", "1500,\"class\":7", "wrong_type machine-001 -"),
        ("1500", "1500,\"class\":\"pump\"", "missing_field machine-001 vib_mm_s"),
        ("\"machine-001\"", "\"\"", "bad_machine_id - -"),
        ("\"machine-001\"", "\"a\\u0000b\"", "bad_machine_id - -"),
        ("\"machine-001\"", "null", "missing_field - -"),
        ("\"machine-001\"", "1", "wrong_type - -"),
        ("\"machine-001\"", "\"\\ud800\"", "not_json - -"),
        ("\"2025-11-07T15:10:01Z\"", "1762528201", "wrong_type machine-001 -"),
        ("\"timestamp\":\"2025-11-07T15:10:01Z\",", "", "missing_field machine-001 -"),
        ("5}", "5", "not_json - -"),
        ("5}", "5,}", "not_json - -"),
        ("5}", "5}}", "not_json - -"),
        ("5}", "5} x", "not_json - -"),
        ("5}", "'5'}", "not_json - -"),
    ] {
        check_changed(from, to, expected);
    }
    let long = "x".repeat(51);
    check_changed("machine-001", &long, "bad_machine_id - -");
    check_changed("machine-001", &"설".repeat(51), "bad_machine_id - -");
    let nested = |depth: usize| format!("1500,\"x\":{}{}", "[".repeat(depth), "]".repeat(depth));
    check_changed("1500", &nested(31), ROW);
    check_changed("1500", &nested(32), "too_deep - -");
    check(Framing::Lines, "[".repeat(100_000), "0 too_deep - -");
}

#[test]
fn ids_of_any_script_are_ids() {
    for id in ["설비-1", "a b", "{}", "x\\\"y", "a\\\\", "\\u0041", "\u{7f}"] {
        let decoded = decode(format!("{0}\n{0}", GOOD.replace("machine-001", id)), Framing::Lines).unwrap();
        assert_eq!(decoded.batches[0].1.rows(), 2, "{id}");
    }
    // 50 characters of three bytes each.
    check_changed("machine-001", &"설".repeat(50), &ROW.replace("machine-001", &"설".repeat(50)));
    check_changed("machine-001", "a\tb", "not_json - -");
}

#[test]
fn unknown_keys_are_counted_and_ignored() {
    let value = GOOD.replace('{', r#"{"fw":"1.2\n","vib_mm_s":3,"nested":{"a":[1,{"b":null}]},"#);
    let decoded = decode(&value, Framing::Lines);
    assert_eq!(summary(&decoded), format!("0 {ROW}"));
    assert_eq!(decoded.unwrap().unknown_keys, 3);
}

#[test]
fn keys_in_any_order_and_with_any_blanks() {
    let reversed = r#"{"tool_wear_min":5,"torque_nm":42.8,"rpm":1500,"process_temp_k":309.5,"air_temp_k":299.1,"timestamp":"2025-11-07T15:10:01Z","machine_id":"machine-001"}"#;
    let spaced = GOOD.replace(':', " : ").replace(" : 10 : 01", ":10:01").replace(',', " ,\t");
    check(
        Framing::Lines,
        format!("{GOOD}\n{reversed}\n  {spaced}  \r\n{GOOD}"),
        &format!("0 {ROW}\n1 {ROW}\n2 {ROW}\n3 {ROW}"),
    );
}

#[test]
fn every_line_that_is_not_blank_is_one_message() {
    let value = format!("\n{GOOD}\r\n  \n[]\n42\n\"x\"\nnull\n{{\n\n\0\u{1}\n[{GOOD}]\n{GOOD}");
    let not = |code: &str, index: usize| format!("{index} {code} - -");
    let expected = [
        format!("0 {ROW}"),
        not("not_an_object", 1),
        not("not_an_object", 2),
        not("not_an_object", 3),
        not("not_an_object", 4),
        not("not_json", 5),
        not("not_json", 6),
        not("not_an_object", 7),
        format!("8 {ROW}"),
    ];
    check(Framing::Lines, value, &expected.join("\n"));
    check(Framing::Lines, "", "");
    check(Framing::Lines, "\n \r\n\t\n", "");
}

#[test]
fn a_reject_keeps_the_text_as_it_was_sent() {
    let lines = ["  {\"machine_id\": 7 } ", "[]\t", "\u{feff}x", "{\"a\":\"\\u00e9\"}"];
    let decoded = decode(lines.join("\r\n"), Framing::Lines).unwrap();
    let payloads: Vec<_> =
        decoded.rejects.iter().map(|reject| String::from_utf8(reject.payload.clone()).unwrap()).collect();
    assert_eq!(payloads, lines);
    let decoded = decode(b"{\"machine_id\":\"\xff\"}\n", Framing::Lines).unwrap();
    assert_eq!(
        (decoded.rejects[0].code, &*decoded.rejects[0].payload),
        (ErrorCode::NotJson, &b"{\"machine_id\":\"\xff\"}"[..])
    );
    let elements = r#" [ {"machine_id" : 7} , 42,"x" ] "#;
    let decoded = decode(elements, Framing::Json).unwrap();
    let payloads: Vec<_> = decoded.rejects.iter().map(|reject| reject.payload.clone()).collect();
    assert_eq!(payloads, [&b"{\"machine_id\" : 7}"[..], b"42", b"\"x\""]);
}

#[test]
fn a_line_above_256_kib_keeps_its_first_4_kib() {
    let limit = 256 * 1024;
    let fill = |length: usize| GOOD.replace('}', &format!(",\"x\":\"{}\"}}", "é".repeat(length)));
    let shell = fill(0).len();
    let fits = fill((limit - shell) / 2);
    assert!(decode(&fits, Framing::Lines).unwrap().rejects.is_empty());
    let long = fill((limit - shell) / 2 + 1);
    let rejects = decode(format!("{long}\n{GOOD}"), Framing::Lines).unwrap().rejects;
    assert_eq!((rejects.len(), rejects[0].code), (1, ErrorCode::TooLong));
    assert!((4095..=4096).contains(&rejects[0].payload.len()) && long.as_bytes().starts_with(&rejects[0].payload));
    assert!(std::str::from_utf8(&rejects[0].payload).is_ok());
    // Blanks count too, whichever path reads the message.
    let blanks = format!("{GOOD}\n{GOOD}{}\n{GOOD}", " ".repeat(limit));
    check(Framing::Lines, blanks, &format!("0 {ROW}\n1 too_long - -\n2 {ROW}"));
}

#[test]
fn json_is_one_object_or_an_array() {
    check(
        Framing::Json,
        format!(" [{GOOD} ,\n{GOOD},{{}}, 1 ]\n"),
        &format!("0 {ROW}\n1 {ROW}\n2 missing_field - -\n3 not_an_object - -"),
    );
    check(Framing::Json, "[]", "");
    check(Framing::Json, " [ ] ", "");
    check(Framing::Json, "{}", "0 missing_field - -");
    check(Framing::Json, GOOD.replace(',', ",\n  "), &format!("0 {ROW}"));
    for value in [
        String::new(),
        " ".into(),
        "42".into(),
        "null".into(),
        "\"x\"".into(),
        "{".into(),
        "\0".into(),
        format!("{GOOD}\n{GOOD}"),
        format!("[{GOOD}"),
        format!("[{GOOD},"),
        format!("[{GOOD},]"),
        format!("[{GOOD} {GOOD}]"),
        format!("[{GOOD}]]"),
        format!("[{GOOD}] x"),
        format!("[{GOOD},{{\"a\":NaN}}]"),
        format!("[{GOOD},{{\"a\":\"\u{1}\"}}]"),
        "[".repeat(100_000),
        "{\"a\":".repeat(5000),
        "[,]".into(),
        "[1 2]".into(),
        "[truefalse]".into(),
    ] {
        check(Framing::Json, value, "not readings");
    }
    assert!(decode(b"[\"\xff\"]", Framing::Json).is_err());
}

#[test]
fn the_first_byte_decides() {
    check(Framing::Auto, format!(" \n[{GOOD}]"), &format!("0 {ROW}"));
    check(Framing::Auto, format!("{GOOD}\n{GOOD}\n"), &format!("0 {ROW}\n1 {ROW}"));
    check(Framing::Auto, GOOD.replace(',', ",\n  "), &format!("0 {ROW}"));
    check(Framing::Auto, format!("\u{feff}{GOOD}"), &format!("0 {ROW}"));
    check(Framing::Auto, "{\n}\n{}", "0 not_json - -\n1 not_json - -\n2 missing_field - -");
    check(Framing::Auto, "42", "0 not_an_object - -");
    check(Framing::Auto, "[1", "not readings");
    check(Framing::Auto, "", "not readings");
}

const PUMP: &str = r#"{"machine_id":"p1","timestamp":"2025-11-07T15:10:01Z","class":"pump","vib_mm_s":1.8,"discharge_bar":5.4,"flow_m3h":-100,"motor_current_a":36.6,"bearing_temp_c":55}"#;
const PUMP_ROW: &str = "pump p1 2025-11-07T15:10:01Z 1.8 5.4 -100! 36.6 55 - - - -";

#[test]
fn a_machine_keeps_its_class() {
    let unnamed = PUMP.replace("\"class\":\"pump\",", "");
    let mill = GOOD.replace("machine-001", "p1");
    let says_mill = mill.replace('}', ",\"class\":\"mill\"}");
    // The first reading of a machine that nothing binds decides for the rest of the value.
    check(
        Framing::Lines,
        [PUMP, &unnamed, &mill, &says_mill, PUMP].join("\n"),
        &format!("0 {PUMP_ROW}\n1 {PUMP_ROW}\n2 missing_field p1 vib_mm_s\n3 class_changed p1 -\n4 {PUMP_ROW}"),
    );
    check(Framing::Lines, &unnamed, "0 missing_field p1 air_temp_k");
    let bound = |class: &'static str| move |_: &str| Some(class.to_owned());
    let with = |value: &str, class| summary(&decode_bound(value.as_bytes(), Framing::Lines, &bound(class)));
    assert_eq!(with(&unnamed, "pump"), format!("0 {PUMP_ROW}"));
    assert_eq!(with(PUMP, "mill"), "0 class_changed p1 -");
    assert_eq!(with(&unnamed, "gone"), "0 unknown_class p1 -");
    assert_eq!(with(PUMP, "gone"), "0 class_changed p1 -");
}

#[test]
fn optional_channels_may_be_null_or_absent() {
    let with = |more: &str| PUMP.replace('}', &format!(",{more}}}"));
    check(
        Framing::Lines,
        [with("\"rpm\":null,\"suction_bar\":0.5"), with("\"rpm\":1480,\"suction_bar\":null"), PUMP.into()].join("\n"),
        &[
            "0 pump p1 2025-11-07T15:10:01Z 1.8 5.4 -100! 36.6 55 0.5 - - -",
            "1 pump p1 2025-11-07T15:10:01Z 1.8 5.4 -100! 36.6 55 - - - 1480",
            &format!("2 {PUMP_ROW}"),
        ]
        .join("\n"),
    );
}

#[test]
fn batches_hold_one_class_and_one_partition_in_order() {
    let mut lines = Vec::new();
    for nth in 0..600 {
        let text = if nth % 3 == 0 { PUMP } else { GOOD };
        lines.push(text.replace("\"machine_id\":\"", &format!("\"machine_id\":\"{}", nth % 20)));
        if nth % 50 == 0 {
            lines.push("{}".into());
        }
    }
    let decoded = decode(lines.join("\n"), Framing::Lines).unwrap();
    assert_eq!(decoded.messages as usize, lines.len());
    let mut indices: Vec<u32> = decoded.rejects.iter().map(|reject| reject.index).collect();
    for (partition, batch) in &decoded.batches {
        assert!(batch.machines.iter().all(|machine| partition_of(machine, 6) == *partition));
        assert!(batch.index.is_sorted());
        let mut machines = batch.machines.clone();
        machines.sort();
        machines.dedup();
        assert_eq!(machines.len(), batch.machines.len());
        assert!(batch.quality.is_empty() || batch.quality.len() == batch.rows());
        indices.extend(&batch.index);
    }
    let mut pairs: Vec<_> = decoded.batches.iter().map(|(partition, batch)| (&batch.class.id, *partition)).collect();
    pairs.sort();
    pairs.dedup();
    assert_eq!(pairs.len(), decoded.batches.len());
    indices.sort_unstable();
    assert!(indices.into_iter().eq(0..lines.len() as u32));
}

#[test]
fn a_refusal_that_names_a_channel_leaves_a_marker() {
    let bad = GOOD.replace("1500", "-1");
    let value = [GOOD, &bad, "{}", &GOOD.replace("2025", "1925"), GOOD, &bad].join("\n");
    let decoded = decode(value, Framing::Lines).unwrap();
    let markers: Vec<_> = decoded.batches[0]
        .1
        .markers
        .iter()
        .map(|marker| (marker.index, marker.before_row, &*marker.channel, &*marker.code))
        .collect();
    assert_eq!(markers, [(1, 1, "rpm", "out_of_range"), (5, 2, "rpm", "out_of_range")]);
    assert_eq!(decoded.batches[0].1.markers[0].arrived_us, arrived());
    // A batch of markers alone.
    let decoded = decode(&bad, Framing::Lines).unwrap();
    assert_eq!((decoded.batches.len(), decoded.batches[0].1.rows(), decoded.batches[0].1.markers.len()), (1, 0, 1));
}

#[test]
fn columns_that_most_readings_lack_are_filled_from_their_first_row_on() {
    let typed = GOOD.replace('}', ",\"product_type\":\"H\"}");
    let decoded = decode([GOOD, &typed, GOOD].join("\n"), Framing::Lines);
    assert_eq!(summary(&decoded), format!("0 {ROW}\n1 {ROW} product_type=H\n2 {ROW}"));
    let batch = &decoded.unwrap().batches[0].1;
    assert_eq!((batch.attributes[0].len(), batch.seq.len(), batch.quality.len()), (3, 0, 0));
}

/// Records of a run, from offset 10 on, a second apart.
fn records<'a>(values: &'a [&'a str]) -> impl Iterator<Item = (&'a [u8], Span)> + Clone {
    let span = |at: usize| Span {
        first_row: 0,
        offset: 10 + at as i64,
        arrived_us: arrived() + at as i64 * 1_000_000,
        source: if at.is_multiple_of(2) { "plc".into() } else { "http".into() },
    };
    values.iter().enumerate().map(move |(at, value)| (value.as_bytes(), span(at)))
}

fn decode_run(values: &[&str]) -> Run {
    Decoder::new(Arc::new(Catalogue::builtin()), 1).decode_run(records(values), &|_| None)
}

#[test]
fn a_run_of_records_is_one_batch_whose_rows_know_their_record() {
    let other = GOOD.replace("machine-001", "m-2");
    let bad = GOOD.replace("1500", "-1");
    let lines = [GOOD, "{", &other].join("\n");
    let pretty = GOOD.replace(',', ",\n");
    let run = decode_run(&[GOOD, &other, &bad, &lines, " \n", &pretty, "7"]);
    let [batch] = &run.batches[..] else { panic!("{:?}", run.batches) };
    let rows: Vec<_> = (0..batch.rows())
        .map(|row| {
            let span = batch.span_of(row).unwrap();
            (&**batch.machine_of(row), span.offset, batch.index[row], &*span.source)
        })
        .collect();
    let expected = [
        ("machine-001", 10, 0, "plc"),
        ("m-2", 11, 0, "http"),
        ("machine-001", 13, 0, "http"),
        ("m-2", 13, 2, "http"),
        ("machine-001", 15, 0, "http"),
    ];
    assert_eq!(rows, expected);
    // The refused reading of a known machine stands between them, with a span of its own.
    let marker = &batch.markers[0];
    assert_eq!((marker.index, marker.before_row, marker.arrived_us), (0, 2, arrived() + 2_000_000));
    let spans: Vec<_> = batch.spans.iter().map(|span| (span.first_row, span.offset)).collect();
    assert_eq!(spans, [(0, 10), (1, 11), (2, 12), (2, 13), (4, 15)]);
    let refused: Vec<_> = run.rejects.iter().map(|(at, reject)| (*at, reject.index, reject.code)).collect();
    let expected = [
        (2, 0, ErrorCode::OutOfRange),
        (3, 1, ErrorCode::NotJson),
        (4, 0, ErrorCode::Empty),
        (6, 0, ErrorCode::NotAnObject),
    ];
    assert_eq!(refused, expected);
    assert_eq!(run.messages, [1, 1, 1, 3, 1, 1, 1]);
}

#[test]
fn a_record_of_a_run_is_judged_by_its_own_arrival() {
    let later = GOOD.replace("15:10:01", "15:15:03");
    let run = decode_run(&[&later, &later]);
    assert_eq!(run.batches[0].rows(), 1, "301 s ahead, then 300");
    assert_eq!(run.rejects[0].1.code, ErrorCode::InFuture);
}

#[test]
fn a_machine_keeps_its_class_through_a_run() {
    let pump = r#"{"machine_id":"p","timestamp":"2025-11-07T15:10:01Z","class":"pump"}"#;
    let named = decode_run(&[GOOD, &GOOD.replace('}', r#","class":"pump"}"#), pump]);
    assert_eq!(named.rejects[0].1.code, ErrorCode::ClassChanged);
}

#[test]
fn an_array_stands_alone_and_is_refused_as_a_whole_where_it_breaks_off() {
    assert!(!Decoder::joins(b" [1]") && Decoder::joins(GOOD.as_bytes()) && Decoder::joins(b""));
    let run = decode_run(&[&format!("[{GOOD},{GOOD}]")]);
    assert_eq!((run.batches[0].rows(), &run.batches[0].index[..], &run.messages[..]), (2, &[0, 1][..], &[2][..]));
    let run = decode_run(&[&format!("[{GOOD},{GOOD}")]);
    assert_eq!((run.batches.len(), run.rejects.len(), run.messages[0]), (0, 1, 1));
    assert_eq!((run.rejects[0].1.index, run.rejects[0].1.code), (0, ErrorCode::NotJson));
}

#[test]
fn a_batch_comes_back_from_values_of_every_form() {
    let typed = GOOD.replace('}', r#","product_type":"H","seq":7}"#).replace("machine-001", "m-2");
    let run = decode_run(&[GOOD, &typed]);
    let sent = &run.batches[0];
    let same = |batch: &ReadingBatch| {
        let row = |batch: &ReadingBatch, row: usize| {
            let values: Vec<i64> = batch.values.iter().map(|channel| channel[row]).collect();
            (batch.machine_of(row).to_string(), batch.timestamp_us[row], values, batch.seq_of(row))
        };
        assert_eq!((row(batch, 0), row(batch, 1)), (row(sent, 0), row(sent, 1)));
        assert_eq!(batch.attributes, sent.attributes);
    };
    for (values, count) in [(Values::Reading, 2), (Values::Lines, 1)] {
        let made = sent.to_values(values);
        assert_eq!((made.len(), made.iter().map(|(_, rows, _)| rows).sum::<u32>()), (count, 2));
        let texts: Vec<&str> = made.iter().map(|(.., value)| std::str::from_utf8(value).unwrap()).collect();
        same(&decode_run(&texts).batches[0]);
    }
    let keys: Vec<_> = sent.to_values(Values::Reading).into_iter().map(|(machine, ..)| machine.unwrap()).collect();
    assert_eq!(keys.iter().map(|key| &**key).collect::<Vec<_>>(), ["machine-001", "m-2"]);
    let [(None, 2, binary)] = &sent.to_values(Values::Binary)[..] else { panic!("one record") };
    same(&ReadingBatch::decode(binary, &Catalogue::builtin()).unwrap());
}
