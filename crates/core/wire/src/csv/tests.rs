use super::*;
use crate::{ErrorCode, Quality, format_time};
use catalog::Catalogue;

const ARRIVED_US: i64 = 1_800_000_000_000_000;
const HEADER: &str = "timestamp,machine_id,air_temp_k,process_temp_k,rpm,torque_nm,tool_wear_min,Type";

fn options() -> CsvOptions {
    CsvOptions {
        time_column: None,
        machine_column: None,
        interval_us: 1_000_000,
        machine: MachineId::try_from("file").unwrap(),
        labels: Vec::new(),
    }
}

fn decoder_with(class: &str, options: CsvOptions) -> CsvDecoder {
    let catalogue = Arc::new(Catalogue::builtin());
    let class = catalogue.class(class).unwrap().clone();
    CsvDecoder::new(catalogue, class, 1, options)
}

fn decode_with(class: &str, options: CsvOptions, text: &[u8]) -> Result<CsvRows, CsvError> {
    // Nine hours ahead of UTC.
    let zone = |local_us: i64| local_us - 9 * 3_600_000_000;
    decoder_with(class, options).decode(text, true, usize::MAX, ARRIVED_US, &zone, &|_| None)
}

#[track_caller]
fn decode(text: &str) -> CsvRows {
    decode_with("mill", options(), text.as_bytes()).unwrap()
}

/// One row of `HEADER`, decoded: time, machine, values, attribute; or its refusal with its place.
fn row(cells: &str) -> Result<String, String> {
    shown(&decode(&format!("{HEADER}\n{cells}\n")))
}

fn shown(rows: &CsvRows) -> Result<String, String> {
    assert_eq!(rows.decoded.messages, 1);
    if let (Some(reject), Some(place)) = (rows.decoded.rejects.first(), rows.places.first()) {
        return Err(format!("{}:{} {}: {}", place.line, place.column, reject.code.as_str(), reject.error));
    }
    let batch = &rows.decoded.batches[0].1;
    let values: Vec<i64> = batch.values.iter().map(|column| column[0]).collect();
    let word = batch.attributes[0].first().map_or(String::new(), |word| format!(" {word}"));
    Ok(format!("{} {} {values:?}{word}", format_time(batch.timestamp_us[0]), batch.machine_of(0)))
}

#[test]
fn a_row_is_a_reading() {
    assert_eq!(
        row("2020-03-01T15:44:06Z,m1,298.1,308.6,1551,42.8,0,M"),
        Ok("2020-03-01T15:44:06Z m1 [29810, 30860, 1551, 4280, 0] 1".into())
    );
    assert_eq!(
        row("2020-03-01T15:44:06.5+09:00, m 1 ,298.1 ,308.6,1551.0,42.8,0.0,"),
        Ok("2020-03-01T06:44:06.500Z m 1 [29810, 30860, 1551, 4280, 0]".into())
    );
}

#[test]
fn times_without_a_zone_are_the_callers() {
    for (time, utc) in [
        ("2020-03-01 15:44:06", "2020-03-01T06:44:06Z"),
        ("2020-03-01T15:44:06", "2020-03-01T06:44:06Z"),
        ("1583077446", "2020-03-01T15:44:06Z"),
        ("1583077446.25", "2020-03-01T15:44:06.250Z"),
        ("1583077446.1234569", "2020-03-01T15:44:06.123456Z"),
        ("1583077446000", "2020-03-01T15:44:06Z"),
        ("1583077446250.5", "2020-03-01T15:44:06.250500Z"),
    ] {
        let read = row(&format!("{time},m1,298.1,308.6,1551,42.8,0,M")).unwrap();
        assert!(read.starts_with(utc), "{time}: {read}");
    }
}

#[test]
fn numbers_are_rounded_on_their_decimal_text() {
    for (text, scaled) in [("1.005", 101), ("1.0049999999999999999", 100), ("+7", 700), (".5", 50), ("4.28e1", 4280)] {
        let read = row(&format!("2020-03-01T15:44:06Z,m1,298.1,308.6,1551,{text},0,M")).unwrap();
        assert!(read.contains(&format!("1551, {scaled}, 0]")), "{text}: {read}");
    }
    assert_eq!(decode(&format!("{HEADER}\n2020-03-01T15:44:06Z,m1,298.1,308.6,1551,1.005,0,M")).decoded.rounded, 1);
}

#[test]
fn what_json_refuses_is_refused() {
    let good = ["2020-03-01T15:44:06Z", "m1", "298.1", "308.6", "1551", "42.8", "0", "M"];
    for (at, cell, error) in [
        (
            0,
            "yesterday",
            "2:1 bad_time: timestamp is yesterday, expected is a time such as 2025-11-07T15:10:01Z or 2025-11-07 15:10:01, or Unix seconds or milliseconds",
        ),
        (0, "", "2:1 missing_field: timestamp is missing"),
        (0, "1999-12-31T23:59:59Z", "2:1 too_old: timestamp 1999-12-31T23:59:59Z is before 2000"),
        (1, "", "2:22 missing_field: machine_id is missing"),
        (1, &"m".repeat(51), "2:22 bad_machine_id: machine_id has 51 characters, 50 are allowed"),
        (2, "500", "2:25 out_of_range: air_temp_k is 500, allowed are 200 to 400 K"),
        (2, "1e300", "2:25 out_of_range: air_temp_k is 1e300, allowed are 200 to 400 K"),
        (3, "", "2:31 missing_field: process_temp_k is missing"),
        (4, "fast", "2:37 wrong_type: rpm is fast, a number is expected"),
        (5, "NaN", "2:42 not_finite: torque_nm is NaN, a finite number is expected"),
        (5, "\"42,8\"", "2:42 wrong_type: torque_nm is 42,8, a number is expected"),
        (7, "X", "2:49 unknown_value: product_type is X, allowed are L, M, H"),
        (7, "M,extra", "2:1 not_csv: the row has 9 cells, the header 8"),
    ] {
        let mut cells = good;
        cells[at] = cell;
        assert_eq!(row(&cells.join(",")), Err(error.to_owned()));
    }
    let future = decode(&format!("{HEADER}\n2030-03-01T15:44:06Z,m1,298.1,308.6,1551,42.8,0,M"));
    assert_eq!(future.decoded.rejects[0].code, ErrorCode::InFuture);
}

#[test]
fn a_refused_row_keeps_its_text_and_leaves_its_marker() {
    let rows = decode(&format!("{HEADER}\r\n2020-03-01T15:44:06Z,\"m1\",298.1,308.6,1551,9999,0,M\r\n"));
    let reject = &rows.decoded.rejects[0];
    assert_eq!(reject.payload, b"2020-03-01T15:44:06Z,\"m1\",298.1,308.6,1551,9999,0,M");
    assert_eq!((reject.machine.as_deref(), reject.channel.as_deref()), (Some("m1"), Some("torque_nm")));
    assert_eq!(rows.decoded.batches[0].1.markers.len(), 1);
}

#[test]
fn the_published_form_is_read() {
    let text = "\u{feff}UID,Product ID,Type,Air temperature [K],Process temperature [K],Rotational speed [rpm],\
                Torque [Nm],Tool wear [min],Machine failure,RNF\r\n1,M14860,M,298.1,308.6,1551,42.8,0,0,0\r\n\
                2,L47181,L,298.2,308.7,1408,46.3,3,1,\r\n";
    let mut decoder = decoder_with("mill", CsvOptions { labels: vec!["machine failure".into()], ..options() });
    let rows = decoder.decode(text.as_bytes(), true, 100, ARRIVED_US, &|us| us, &|_| None).unwrap();
    assert_eq!(rows.bytes, text.len());
    let batch = &rows.decoded.batches[0].1;
    assert_eq!(batch.values, [vec![29810, 29820], vec![30860, 30870], vec![1551, 1408], vec![4280, 4630], vec![0, 3]]);
    assert_eq!(batch.attributes, [[1, 0]]);
    assert_eq!(batch.machine_of(1).as_str(), "file");
    assert_eq!(format_time(batch.timestamp_us[1]), "2020-01-01T00:00:01Z");
    assert_eq!(decoder.ignored(), ["UID", "Product ID", "RNF"]);
    assert_eq!(decoder.labels().collect::<Vec<_>>(), ["machine failure"]);
    assert_eq!(rows.labels, [[Some(false), Some(true)]]);
}

#[test]
fn semicolons_quotes_blanks_and_shuffled_columns() {
    let text = "\n\" TOOL_WEAR_MIN \";Rotational Speed [RPM];torque_nm;Process temperature [K];air_temp_k;note, or not\n\
                7;1500;42,8;309,5;299;\"a;b\nc\"\n";
    let rows = decode(text);
    assert_eq!(shown(&rows), Ok("2020-01-01T00:00:00Z file [29900, 30950, 1500, 4280, 7]".into()));
}

#[test]
fn one_file_has_one_decimal_mark() {
    let header = "air_temp_k;process_temp_k;rpm;torque_nm;tool_wear_min";
    let rows = decode(&format!("{header}\n299,1;309,5;1500;42,8;7\n299.1;309,5;1500;42,8;7\n299;309,5;1.500,0;42,8;7"));
    assert_eq!(rows.decoded.batches[0].1.rows(), 1);
    let errors: Vec<&str> = rows.decoded.rejects.iter().map(|reject| &*reject.error).collect();
    assert_eq!(
        errors,
        [
            "air_temp_k is 299.1, but earlier numbers of the file have a comma before their decimals",
            "rpm is 1.500,0, a number is expected"
        ]
    );
    assert_eq!(rows.places[1], CsvPlace { line: 4, column: 11 });
}

#[test]
fn columns_may_be_named() {
    let text = "when,which,vib_mm_s,discharge_bar,flow_m3h,motor_current_a,bearing_temp_c,seq,machine_state\n\
                1583077446,p1,1.8,5.4,100,36.6,55,7,idle\n";
    let named = CsvOptions { time_column: Some("When ".into()), machine_column: Some("which".into()), ..options() };
    let rows = decode_with("pump", named.clone(), text.as_bytes()).unwrap();
    let batch = &rows.decoded.batches[0].1;
    assert_eq!(batch.machine_of(0).as_str(), "p1");
    assert_eq!(Quality::of(batch.quality_of(0), 5), Quality::Missing);
    assert_eq!((batch.seq_of(0), &*batch.state), (Some(7), &[catalog::State::Idle as u8][..]));
    let wrong = CsvOptions { time_column: Some("time".into()), ..named };
    let error = decode_with("pump", wrong, text.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "there is no column `time`");
}

#[test]
fn a_file_that_cannot_be_read_says_where() {
    let error = |text: &str| decode_with("mill", options(), text.as_bytes()).unwrap_err();
    assert_eq!(error("").problem, CsvProblem::Empty);
    assert_eq!(error("\u{feff}\r\n\r\n").problem, CsvProblem::Empty);
    let missing = error("air_temp_k,process_temp_k,torque_nm,tool_wear_min\n");
    assert_eq!(missing.to_string(), "no column for rpm or Rotational speed [rpm]");
    let twice = error("air_temp_k,process_temp_k,rpm,torque_nm,tool_wear_min,é,Torque [Nm]\n");
    assert_eq!(twice.to_string(), "the columns `torque_nm` and `Torque [Nm]` both hold torque_nm");
    assert_eq!(twice.place, CsvPlace { line: 1, column: 57 });
    let labelled = CsvOptions { labels: vec!["failed".into()], ..options() };
    let text =
        "air_temp_k,process_temp_k,rpm,torque_nm,tool_wear_min,failed\n299,309,1500,42,7,TRUE\n299,309,1500,42,7,2\n";
    let error = decode_with("mill", labelled, text.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "column `failed` is `2`, 0 or 1 is expected");
    assert_eq!(error.place, CsvPlace { line: 3, column: 19 });
}

#[test]
fn a_quote_that_is_never_closed_ends_the_file() {
    let text = format!("{HEADER}\n\"{}", "x\n".repeat(CsvDecoder::TEXT_MIN));
    let mut decoder = decoder_with("mill", options());
    let error = decoder.decode(text.as_bytes(), false, 10, ARRIVED_US, &|us| us, &|_| None).unwrap_err();
    assert_eq!((error.place.line, error.problem), (2, CsvProblem::TooLong));
    // With nothing more to come, it is one long row.
    let rows = decode(&format!("{HEADER}\n\"{}", "x\n".repeat(200_000)));
    assert_eq!(rows.decoded.rejects[0].code, ErrorCode::TooLong);
}

/// However the text is cut, the rows are the same.
#[test]
fn pieces_give_the_same_rows_as_the_whole() {
    let mut text = format!("\u{feff}{HEADER}\r\n");
    for row in 0..200 {
        let end = ["\r\n", "\n", "\r\n\r\n"][row % 3];
        let torque = ["42.8", "\"41.5\"", "9999", ""][row % 4];
        text += &format!("158307{:04},\"m\"\"{}\",298.1,308.6,1551,{torque},0,M{end}", 1000 + row, row % 7);
    }
    let whole = decode(&text);
    let text = text.as_bytes();
    for piece in [1, 7, 64, 1000] {
        let mut decoder = decoder_with("mill", options());
        let (mut at, mut until, mut rows, mut lines, mut times) = (0, 0, 0, Vec::new(), Vec::new());
        while at < text.len() {
            until = (until + piece).min(text.len());
            let took =
                decoder.decode(&text[at..until], until == text.len(), 3, ARRIVED_US, &|us| us, &|_| None).unwrap();
            assert_eq!(took.first_row, rows);
            rows += u64::from(took.decoded.messages);
            lines.extend(took.places.iter().map(|place| place.line));
            times.extend(took.decoded.batches.iter().flat_map(|(_, batch)| batch.timestamp_us.clone()));
            at += took.bytes;
            if until == text.len() && took.decoded.messages == 0 {
                break;
            }
        }
        assert_eq!(rows, 200);
        assert_eq!(lines, whole.places.iter().map(|place| place.line).collect::<Vec<_>>());
        assert_eq!(times, whole.decoded.batches[0].1.timestamp_us);
    }
}
