//! Any bytes are rows or an error, the same however they are cut, and an accepted row is the JSON message with its
//! values.
#![no_main]

use catalog::{Catalogue, MachineId};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use wire::{CsvDecoder, CsvOptions, Decoded, Decoder, Framing};

/// 2025-11-07T15:10:02Z
const ARRIVED_US: i64 = 1_762_528_202_000_000;

const HEADERS: [&[u8]; 3] = [
    b"",
    b"timestamp,machine_id,air_temp_k,process_temp_k,rpm,torque_nm,tool_wear_min,Type,seq,machine_state\n",
    b"datetime;machineID;air_temp_k;process_temp_k;rpm;torque_nm;tool_wear_min;Type;seq;machine_state\n",
];

static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(Catalogue::builtin()));

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else { return };
    let text = [HEADERS[usize::from(first % 3)], text].concat();
    let piece = usize::from(first / 3) + 1;
    let (whole, cut) = (decode(&text, text.len()), decode(&text, piece));
    assert_eq!(whole, cut);
});

/// Everything that is read of a text given piece by piece, as text.
fn decode(text: &[u8], piece: usize) -> Vec<String> {
    let class = CATALOGUE.default_class().clone();
    let options = CsvOptions {
        time_column: None,
        machine_column: None,
        interval_us: 1_000_000,
        machine: MachineId::try_from("fuzz").expect("a short name is an id"),
        labels: vec!["label".to_owned()],
    };
    let mut decoder = CsvDecoder::new(CATALOGUE.clone(), class, 1, options);
    let (mut at, mut until, mut told) = (0, 0, Vec::new());
    loop {
        until = (until + piece).min(text.len());
        let is_end = until == text.len();
        match decoder.decode(&text[at..until], is_end, 3, ARRIVED_US, &|us| us, &|_| None) {
            Err(error) => {
                // How many of the rows before it were returned depends on the pieces.
                return vec![format!("{error} at {:?}", error.place)];
            }
            Ok(took) => {
                at += took.bytes;
                for (reject, place) in took.decoded.rejects.iter().zip(&took.places) {
                    let row = took.first_row + u64::from(reject.index);
                    told.push(format!("{row} {place:?} {:?}", (&reject.code, &reject.error, &reject.payload)));
                }
                check(&took.decoded, took.first_row, &mut told);
                if is_end && took.decoded.messages == 0 {
                    told.sort();
                    return told;
                }
            }
        }
    }
}

/// Writes the accepted rows as JSON, which must read back as the same rows.
fn check(decoded: &Decoded, first_row: u64, told: &mut Vec<String>) {
    let mut json = Decoder::new(CATALOGUE.clone(), 1);
    for (_, batch) in &decoded.batches {
        for row in 0..batch.rows() {
            let mut message = String::new();
            batch.write_json(row, None, &mut message);
            let read = json.decode(message.as_bytes(), Framing::Json, ARRIVED_US, &|_| None).expect("an object");
            assert!(read.rejects.is_empty(), "{message}: {:?}", read.rejects);
            let mut again = String::new();
            read.batches[0].1.write_json(0, None, &mut again);
            assert_eq!(message, again);
            told.push(format!("{} {message}", first_row + u64::from(batch.index[row])));
        }
    }
}
