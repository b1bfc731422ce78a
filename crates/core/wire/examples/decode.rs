//! How fast readings are decoded and encoded: `cargo run --release -p wire --example decode`.
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "a measurement needs a clock")]

use catalog::Catalogue;
use std::{fmt::Write, hint::black_box, sync::Arc, time::Instant};
use wire::{Decoder, Framing, ReadingBatch, format_time, parse_time};

const ROWS: usize = 20_000;
const ROUNDS: usize = 100;

fn main() {
    let catalogue = Arc::new(Catalogue::builtin());
    let from = parse_time(b"2025-11-07T15:00:00Z").expect("a time");
    for (name, machines, reordered, rich) in [
        ("1,000 machines", 1000, 0, false),
        ("1 machine", 1, 0, false),
        ("1 % reordered", 1000, 100, false),
        ("product_type and seq", 1000, 0, true),
    ] {
        let lines = lines(machines, reordered, rich, from);
        let bytes = lines.len() as f64 / ROWS as f64;
        let mut decoder = Decoder::new(catalogue.clone(), 6);
        let fast =
            measure(|| drop(black_box(decoder.decode(lines.as_bytes(), Framing::Lines, i64::MAX / 2, &|_| None))));
        let mut decoder = Decoder::without_fast_path(catalogue.clone(), 6);
        let slow =
            measure(|| drop(black_box(decoder.decode(lines.as_bytes(), Framing::Lines, i64::MAX / 2, &|_| None))));
        println!("{name:22} {bytes:.0} bytes a line: {fast:.1} M readings/s, by serde_json {slow:.1} M/s");
    }
    let lines = lines(1000, 0, false, from);
    let decoded = Decoder::new(catalogue.clone(), 6).decode(lines.as_bytes(), Framing::Lines, i64::MAX / 2, &|_| None);
    let batches = decoded.expect("lines").batches;
    let mut out = Vec::new();
    let encode = measure(|| {
        out.clear();
        batches.iter().for_each(|(_, batch)| batch.encode(&mut out));
    });
    let encoded: Vec<Vec<u8>> = batches
        .iter()
        .map(|(_, batch)| {
            let mut out = Vec::new();
            batch.encode(&mut out);
            out
        })
        .collect();
    let decode = measure(|| encoded.iter().for_each(|bytes| drop(black_box(ReadingBatch::decode(bytes, &catalogue)))));
    println!(
        "binary, {:.1} bytes a reading: encode {encode:.0} M/s, decode {decode:.0} M/s",
        out.len() as f64 / ROWS as f64
    );
}

/// Millions of readings a second, the best of some rounds.
fn measure(mut run: impl FnMut()) -> f64 {
    let best = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    ROWS as f64 / best.min().expect("rounds").as_secs_f64() / 1e6
}

fn lines(machines: usize, reordered: usize, rich: bool, from: i64) -> String {
    let mut text = String::new();
    let mut state = 1_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for row in 0..ROWS {
        let stamp = format_time(from + (row / machines) as i64 * 1_000_000);
        let (air, process) = (2950 + draw(100), 3050 + draw(90));
        let (rpm, torque, wear) = (1200 + draw(1200), 200 + draw(500), draw(250));
        let head = format!("\"machine_id\":\"machine-{:03}\",\"timestamp\":\"{stamp}\"", row % machines);
        let temps =
            format!("\"air_temp_k\":{}.{},\"process_temp_k\":{}.{}", air / 10, air % 10, process / 10, process % 10);
        let rest = format!("\"rpm\":{rpm},\"torque_nm\":{}.{},\"tool_wear_min\":{wear}", torque / 10, torque % 10);
        let more = if rich {
            format!(",\"product_type\":\"{}\",\"seq\":{row}", ["L", "M", "H"][row % 3])
        } else {
            String::new()
        };
        if reordered > 0 && row % reordered == 0 {
            writeln!(text, "{{{rest},{head},{temps}{more}}}").expect("a String takes all");
        } else {
            writeln!(text, "{{{head},{temps},{rest}{more}}}").expect("a String takes all");
        }
    }
    text
}
