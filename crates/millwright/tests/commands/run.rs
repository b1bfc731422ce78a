//! Runs the program on files.

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Runs `millwright` in an environment without settings.
pub(crate) fn millwright<'a>(args: impl IntoIterator<Item = &'a str>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millwright")).args(args).env_remove("MILLWRIGHT_CONFIG").output().unwrap()
}

/// Its one JSON document, and what it said on stderr.
#[track_caller]
pub(crate) fn json<'a>(args: impl IntoIterator<Item = &'a str>) -> (Value, String) {
    let output = millwright(args.into_iter().chain(["--output", "json"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

/// What it says when it fails: exit code and stderr.
#[track_caller]
pub(crate) fn failure<'a>(args: impl IntoIterator<Item = &'a str>) -> (i32, String) {
    let output = millwright(args);
    assert!(!output.status.success());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A file that comes with the tests.
pub(crate) fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    path.to_str().unwrap().to_owned()
}

/// The published data set, where somebody has put it beside the checkout.
pub(crate) fn ai4i() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = ["../shared", "../../shared"].map(|folder| root.join(folder).join("data/ai4i2020.csv"));
    let found = places.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("skipped: ai4i2020.csv is not in ../shared/data");
    }
    found
}

/// A text as a file.
pub(crate) fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
