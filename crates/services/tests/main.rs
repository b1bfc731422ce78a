//! The loops on real files.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod debezium;
mod detect;
mod ingest;
mod kafka;
mod registry;
mod relay;
mod replay;
mod room;
mod simulate;
