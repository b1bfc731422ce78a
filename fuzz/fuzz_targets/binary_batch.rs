//! Any bytes are a batch or an error, and a batch is written again as what it was read as.
#![no_main]

use catalog::Catalogue;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use wire::ReadingBatch;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::builtin);

fuzz_target!(|data: &[u8]| {
    let Ok(batch) = ReadingBatch::decode(data, &CATALOGUE) else { return };
    assert!(ReadingBatch::is_encoded(data));
    let mut written = Vec::new();
    batch.encode(&mut written);
    let again = ReadingBatch::decode(&written, &CATALOGUE).expect("what was written can be read");
    let mut twice = Vec::new();
    again.encode(&mut twice);
    assert_eq!(written, twice);
});
