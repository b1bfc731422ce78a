//! What travels, seen from outside the crate.

mod json;
mod json_paths;
mod show;
