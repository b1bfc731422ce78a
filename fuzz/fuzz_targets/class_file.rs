//! Any text is a class or a list of mistakes, each with its place.
#![no_main]

use catalog::{Catalogue, Class};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Class::parse("fuzz.toml", text) {
        Ok(class) => {
            let id = class.id.clone();
            let catalogue = Catalogue::builtin().with_class(class);
            let again = Catalogue::from_document(&catalogue.document()).expect("what was written can be read");
            assert_eq!(again.hash(), catalogue.hash());
            assert!(again.class(&id).is_some());
        }
        Err(mistakes) => assert!(mistakes.to_string().contains("fuzz.toml:")),
    }
});
