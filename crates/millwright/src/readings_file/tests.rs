use super::*;
use std::fmt::Write;

const READING: &str = r#"{"machine_id":"m1","timestamp":"2025-11-07T15:10:01Z","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5}"#;

fn csv_args() -> CsvArgs {
    CsvArgs { time_column: None, machine_column: None, interval: "1s".into(), time_zone: None }
}

fn open(folder: &tempfile::TempDir, name: &str, text: &str, machine: Option<&str>) -> Result<ReadingsFile> {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let catalogue = Arc::new(Catalogue::builtin());
    let class = catalogue.default_class().clone();
    ReadingsFile::open(&path, &catalogue, &class, &csv_args(), &TimeZone::UTC, machine)
}

/// Rows and refusals of each chunk: `first_row: rows+refused @lines of the refused`.
#[track_caller]
fn check(text: &str, rows: usize, chunks: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = open(&folder, "file", text, None).unwrap();
    let mut seen = Vec::new();
    while let Some(chunk) = file.next(rows).unwrap() {
        let good: usize = chunk.decoded.batches.iter().map(|(_, batch)| batch.rows()).sum();
        let lines: Vec<u64> = chunk.places.iter().map(|place| place.line).collect();
        assert_eq!(lines.len(), chunk.decoded.rejects.len());
        seen.push(format!("{}: {good}+{} @{lines:?}", chunk.first_row, lines.len()));
    }
    assert_eq!(seen, chunks);
    assert_eq!(file.read(), file.total());
}

#[test]
fn json_lines_come_some_at_a_time() {
    let text = format!("\u{feff}{READING}\n\n{READING}\r\n[]\n{READING}\n42\n\n\n{READING}");
    check(&text, 2, &["0: 2+0 @[]", "2: 1+1 @[4]", "4: 1+1 @[6]"]);
    check(&text, 100, &["0: 4+2 @[4, 6]"]);
    check(&format!("{READING}\n \n"), 1, &["0: 1+0 @[]"]);
}

#[test]
fn an_array_and_a_pretty_object_are_readings_too() {
    check(&format!(" [{READING},\n{READING},7]"), 1, &["0: 2+1 @[1]"]);
    check(&READING.replace(',', ",\n"), 1, &["0: 1+0 @[]"]);
}

#[test]
fn csv_comes_some_at_a_time() {
    let text = "rpm,air_temp_k,process_temp_k,torque_nm,tool_wear_min\n1500,299,309,40,1\n\n-1,299,309,40,1\n1500,299,309,40,1\n";
    check(text, 2, &["0: 1+1 @[4]", "2: 1+0 @[]"]);
    check(text.lines().next().unwrap(), 2, &[]);
}

#[test]
fn a_file_longer_than_the_buffer_is_read_whole() {
    let mut text = String::from("rpm,air_temp_k,process_temp_k,torque_nm,tool_wear_min,note\n");
    let rows = 3 * PIECE / 100;
    for _ in 0..rows {
        writeln!(text, "1500,299,309,40,1,{}", "x".repeat(100)).unwrap();
    }
    let lines = format!("{READING}\n").repeat(3 * PIECE / READING.len());
    for (text, rows) in [(text, rows), (lines, 3 * PIECE / READING.len())] {
        let folder = tempfile::tempdir().unwrap();
        let mut file = open(&folder, "file", &text, None).unwrap().of_any_time();
        let mut seen = 0;
        while let Some(chunk) = file.next(1000).unwrap() {
            assert!(chunk.decoded.rejects.is_empty() && chunk.first_row == seen && chunk.decoded.messages <= 1000);
            seen += u64::from(chunk.decoded.messages);
        }
        assert_eq!(seen, rows as u64);
    }
}

#[test]
fn a_line_longer_than_the_buffer_is_one_refused_reading() {
    let long = format!("{{\"machine_id\":\"{}\"}}", "x".repeat(2 * PIECE));
    check(&format!("{READING}\n{long}\n{READING}\n"), 10, &["0: 1+0 @[]", "1: 1+1 @[2]"]);
}

#[test]
fn what_lies_ahead_of_its_arrival_is_refused_unless_arrival_does_not_matter() {
    let text = READING.replace("2025-11-07", "2999-01-01");
    let folder = tempfile::tempdir().unwrap();
    let rows = |file: &mut ReadingsFile| file.next(10).unwrap().unwrap().decoded.rejects.len();
    assert_eq!(rows(&mut open(&folder, "a", &text, None).unwrap()), 1);
    assert_eq!(rows(&mut open(&folder, "b", &text, None).unwrap().of_any_time()), 0);
}

#[test]
fn one_machine_may_be_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let header = "machine_id,rpm,air_temp_k,process_temp_k,torque_nm,tool_wear_min\n";
    let text = format!("{header}a,1500,299,309,40,1\na,-1,299,309,40,1\n");
    let chunk = open(&folder, "one.csv", &text, Some("b")).unwrap().next(10).unwrap().unwrap();
    let (partition, batch) = &chunk.decoded.batches[0];
    assert_eq!((&*batch.machines[0], *partition), ("b", partition_of("b", READINGS_PARTITIONS)));
    assert_eq!((&*batch.markers[0].machine, chunk.decoded.rejects[0].machine.as_deref()), ("b", Some("b")));
    let mut two = open(&folder, "two.csv", &format!("{text}c,1500,299,309,40,1\n"), Some("b")).unwrap();
    assert!(two.next(10).unwrap_err().to_string().contains("more than one machine, a and c for two"));
}

#[test]
fn a_machine_is_called_as_its_file() {
    for (path, name) in [("/data/ai4i2020.csv", "ai4i2020"), ("프레스 7.csv", "프레스 7"), ("/", "machine")] {
        assert_eq!(&*name_of(Path::new(path)), name);
    }
    assert_eq!(name_of(Path::new(&"x".repeat(80))).len(), 50);
}

#[test]
fn local_times_are_those_of_the_zone() {
    let us = |text: &str| wire::parse_time(text.as_bytes()).unwrap();
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    for (local, utc) in [
        ("2020-03-01T15:44:06Z", "2020-03-01T14:44:06Z"),
        ("2020-07-01T15:44:06Z", "2020-07-01T13:44:06Z"),
        // Skipped, and twice there.
        ("2020-03-29T02:30:00Z", "2020-03-29T01:30:00Z"),
        ("2020-10-25T02:30:00Z", "2020-10-25T00:30:00Z"),
    ] {
        assert_eq!(utc_us(&berlin, us(local)), us(utc), "{local}");
    }
    assert_eq!(utc_us(&berlin, i64::MAX), i64::MAX);
}
