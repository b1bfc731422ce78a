//! The path that knows messages written like the last one, and serde_json: the same verdict and the same bits.
#![no_main]

use catalog::Catalogue;
use libfuzzer_sys::fuzz_target;
use std::{
    cell::RefCell,
    sync::{Arc, LazyLock},
};
use wire::{Decoder, Framing};

/// 2025-11-07T15:10:02Z
const ARRIVED_US: i64 = 1_762_528_202_000_000;

/// Two messages before the fuzzed ones, so that the fast path has learnt something to go by.
const LEARNT: &str = r#"{"machine_id":"machine-001","timestamp":"2025-11-07T15:10:01Z","air_temp_k":299.1,"process_temp_k":309.5,"rpm":1500,"torque_nm":42.8,"tool_wear_min":5}
{"machine_id":"p1","timestamp":"2025-11-07T15:10:01Z","vib_mm_s":1.8,"discharge_bar":5.4,"flow_m3h":100,"motor_current_a":36.6,"bearing_temp_c":55,"suction_bar":0.5,"seq":7,"quality":{"flow_m3h":"bad"}}
"#;

static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(Catalogue::builtin()));

thread_local! {
    static SLOW: RefCell<Decoder> = RefCell::new(Decoder::without_fast_path(CATALOGUE.clone(), 6));
}

fuzz_target!(|data: &[u8]| {
    let bound = |id: &str| id.starts_with('p').then(|| "pump".to_owned());
    let mut fast = Decoder::new(CATALOGUE.clone(), 6);
    fast.decode(LEARNT.as_bytes(), Framing::Lines, ARRIVED_US, &bound).expect("lines are lines");
    for framing in [Framing::Lines, Framing::Auto, Framing::Json] {
        let fast = fast.decode(data, framing, ARRIVED_US, &bound);
        let slow = SLOW.with_borrow_mut(|slow| slow.decode(data, framing, ARRIVED_US, &bound));
        match (fast, slow) {
            (Ok(fast), Ok(slow)) => {
                assert_eq!(fast.rejects, slow.rejects);
                assert_eq!(
                    (fast.messages, fast.unknown_keys, fast.rounded),
                    (slow.messages, slow.unknown_keys, slow.rounded)
                );
                assert_eq!(fast.batches.len(), slow.batches.len());
                for ((fast_partition, fast), (slow_partition, slow)) in fast.batches.iter().zip(&slow.batches) {
                    assert_eq!(fast_partition, slow_partition);
                    let mut bytes = [Vec::new(), Vec::new()];
                    fast.encode(&mut bytes[0]);
                    slow.encode(&mut bytes[1]);
                    assert_eq!(bytes[0], bytes[1]);
                }
            }
            (Err(fast), Err(slow)) => assert_eq!(fast, slow),
            (fast, slow) => panic!("one path takes what the other refuses: {} {}", fast.is_ok(), slow.is_ok()),
        }
    }
});
