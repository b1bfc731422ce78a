//! What the binary batch keeps, and what it makes of bytes that are none.

use super::*;
use crate::testing::{assert_same, attribute, batch, channel, class, mill};
use proptest::prelude::*;

fn encoded(batch: &ReadingBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    batch.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8], class: &Arc<Class>) -> Result<ReadingBatch, BinaryError> {
    ReadingBatch::decode_with(bytes, |id| (id == class.id).then_some(class))
}

/// Writes the checksum that fits.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len().saturating_sub(4);
    bytes.truncate(body);
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

#[track_caller]
fn check(batch: &ReadingBatch) {
    let back = decoded(&encoded(batch), &batch.class).unwrap();
    assert_same(&back, batch);
}

#[test]
fn every_column_comes_back() {
    let mill = Arc::new(mill());
    for (rows, machines) in [(0, 1), (1, 1), (7, 3), (8, 8), (9, 2), (5000, 170), (5000, 300)] {
        check(&batch(&mill, rows, machines, false));
        check(&batch(&mill, rows, machines, true));
    }
}

#[test]
fn every_width_and_the_ends_of_64_bits_come_back() {
    let class = Arc::new(class("wide", vec![channel("x", 0, (i64::MIN, i64::MAX))], Vec::new()));
    for values in [
        vec![5, 5, 5],
        vec![0, 255],
        vec![-1, 255],
        vec![0, 65_535],
        vec![0, 65_536],
        vec![0, i64::from(u32::MAX)],
        vec![0, i64::from(u32::MAX) + 1],
        vec![i64::MIN, i64::MAX, 0],
    ] {
        let mut batch = batch(&class, values.len(), 1, false);
        batch.timestamp_us.clone_from(&values);
        batch.seq = values.iter().map(|value| Some(*value)).collect();
        batch.index = values.iter().map(|value| *value as u32).collect();
        batch.values[0] = values;
        check(&batch);
    }
}

#[test]
fn times_on_whole_seconds_take_a_byte() {
    let mill = Arc::new(mill());
    let seconds = batch(&mill, 1000, 10, false);
    let mut odd = seconds.clone();
    odd.timestamp_us[999] += 1;
    check(&odd);
    assert_eq!(encoded(&odd).len() - encoded(&seconds).len(), 3 * 1000);
    let mut millis = seconds.clone();
    millis.timestamp_us[999] += 1000;
    check(&millis);
}

#[test]
fn a_reading_of_the_mill_takes_under_15_bytes() {
    let bytes = encoded(&batch(&Arc::new(mill()), 5000, 170, false)).len();
    assert!(bytes < 15 * 5000, "{bytes} bytes");
}

#[test]
fn several_batches_can_share_a_buffer() {
    let mill = Arc::new(mill());
    let (first, second) = (batch(&mill, 5, 2, true), batch(&mill, 6, 2, false));
    let mut bytes = encoded(&first);
    let end = bytes.len();
    second.encode(&mut bytes);
    assert_same(&decoded(&bytes[..end], &mill).unwrap(), &first);
    assert_same(&decoded(&bytes[end..], &mill).unwrap(), &second);
}

#[test]
fn sections_of_a_later_release_are_skipped() {
    let mill = Arc::new(mill());
    let batch = batch(&mill, 100, 7, true);
    let mut bytes = encoded(&batch);
    bytes.truncate(bytes.len() - 4);
    section(&mut bytes, 200, |out| out.extend_from_slice(b"a column that nobody thought of"));
    section(&mut bytes, 13, |_| ());
    bytes.extend_from_slice(&[0; 4]);
    assert_same(&decoded(&signed(bytes), &mill).unwrap(), &batch);
}

#[test]
fn a_later_version_is_named() {
    let mill = Arc::new(mill());
    let mut bytes = encoded(&batch(&mill, 1, 1, false));
    bytes[4] = 2;
    assert_eq!(decoded(&signed(bytes), &mill).unwrap_err(), BinaryError::Version(2, 1));
}

/// Bytes that version 1 wrote; they must be read for ever.
#[test]
fn the_first_release_is_read() {
    let mill = Arc::new(mill());
    let mut old = batch(&mill, 2, 2, true);
    old.seq = vec![None, Some(9)];
    let hex = include_str!("version1.hex");
    let bytes: Vec<u8> = hex
        .split_whitespace()
        .flat_map(|line| (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()))
        .collect();
    assert_same(&decoded(&bytes, &mill).unwrap(), &old);
}

#[test]
fn channels_are_matched_by_name() {
    let writer = Arc::new(class(
        "c",
        vec![channel("gone", 0, (0, 9)), channel("b", 1, (0, 999)), channel("a", 0, (0, 999))],
        vec![attribute("old", &["x"]), attribute("grade", &["L", "M", "H"])],
    ));
    let mut new = channel("new", 3, (1, 9));
    new.optional = true;
    let reader = Arc::new(class(
        "c",
        vec![channel("a", 0, (0, 999)), new, channel("b", 1, (0, 999))],
        vec![attribute("grade", &["H", "M", "L"])],
    ));
    let mut sent = batch(&writer, 2, 1, false);
    sent.values = vec![vec![1, 2], vec![10, 20], vec![100, 200]];
    sent.quality = vec![Quality::Bad.bits(2), Quality::Uncertain.bits(1)];
    sent.attributes = vec![vec![0, 0], vec![0, ReadingBatch::NONE]];
    let read = decoded(&encoded(&sent), &reader).unwrap();
    assert_eq!(read.values, [vec![100, 200], vec![0, 0], vec![10, 20]]);
    assert_eq!(read.attributes, [vec![2, ReadingBatch::NONE]]);
    let qualities = |row| [0, 1, 2].map(|at| Quality::of(read.quality_of(row), at));
    assert_eq!(qualities(0), [Quality::Bad, Quality::Missing, Quality::Good]);
    assert_eq!(qualities(1), [Quality::Good, Quality::Missing, Quality::Uncertain]);
}

#[test]
fn a_class_that_does_not_fit_says_why() {
    let writer = Arc::new(class("c", vec![channel("a", 1, (0, 9))], vec![attribute("grade", &["L"])]));
    let mut sent = batch(&writer, 1, 1, false);
    sent.attributes = vec![vec![0]];
    let why = |channels, words: &[&str]| {
        decoded(&encoded(&sent), &Arc::new(class("c", channels, vec![attribute("grade", words)])))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        why(vec![channel("a", 2, (0, 9))], &["L"]),
        "reading batch does not fit class c: channel a has scale 1, the class says 2"
    );
    assert_eq!(
        why(vec![channel("a", 1, (0, 9)), channel("b", 1, (0, 9))], &["L"]),
        "reading batch does not fit class c: channel b is not in it"
    );
    assert_eq!(why(vec![channel("a", 1, (0, 9))], &["M"]), "reading batch does not fit class c: grade L is not in it");
    let other = Arc::new(class("d", Vec::new(), Vec::new()));
    assert_eq!(decoded(&encoded(&sent), &other).unwrap_err(), BinaryError::UnknownClass("c".into()));
}

#[test]
fn values_that_another_catalogue_let_pass_are_bad() {
    let writer = Arc::new(class("c", vec![channel("a", 0, (0, 99))], Vec::new()));
    let reader = Arc::new(class("c", vec![channel("a", 0, (10, 50))], Vec::new()));
    let mut sent = batch(&writer, 4, 1, false);
    sent.values = vec![vec![9, 10, 50, 51]];
    sent.quality = vec![Quality::Missing.bits(0), 0, 0, Quality::Uncertain.bits(0)];
    let read = decoded(&encoded(&sent), &reader).unwrap();
    assert_eq!(read.quality, [Quality::Missing.bits(0), 0, 0, Quality::Bad.bits(0)]);
}

#[test]
fn what_is_no_batch_is_told() {
    let mill = Arc::new(mill());
    let good = encoded(&batch(&mill, 10, 3, true));
    assert_eq!(decoded(b"", &mill).unwrap_err(), BinaryError::NotABatch);
    assert_eq!(decoded(b"{\"machine_id\":1}", &mill).unwrap_err(), BinaryError::NotABatch);
    assert_eq!(decoded(b"MWRB", &mill).unwrap_err(), BinaryError::Malformed(4));
    let mut damaged = good.clone();
    damaged[40] ^= 1;
    assert_eq!(decoded(&damaged, &mill).unwrap_err(), BinaryError::Checksum);
    for length in 4..good.len() {
        assert!(decoded(&good[..length], &mill).is_err());
        // A checksum that fits a shorter batch leaves a batch only where whole optional sections are gone.
        if let Ok(read) = decoded(&signed(good[..length].to_vec()), &mill) {
            assert_eq!(read.rows(), 10);
        }
    }
}

#[test]
fn few_bytes_cannot_claim_many_rows() {
    let mill = Arc::new(mill());
    let one = batch(&mill, 1, 1, false);
    let mut bytes = encoded(&one);
    // The rows are the first number of the head.
    bytes[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decoded(&signed(bytes), &mill), Err(BinaryError::Malformed(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_never_panic(rich: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mill = Arc::new(mill());
        let mut bytes = encoded(&batch(&mill, 20, 3, rich));
        for (at, byte) in changes {
            let at = 5 + at.index(bytes.len() - 9);
            bytes[at] = byte;
        }
        if let Ok(read) = decoded(&signed(bytes), &mill) {
            let mut again = Vec::new();
            read.encode(&mut again);
            prop_assert_eq!(decoded(&again, &mill).unwrap().values, read.values);
        }
    }
}
