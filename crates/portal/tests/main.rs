//! The API over real connections, with the real bus, history and store in a folder of their own.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod alarms;
mod api;
mod intake;
mod machines;
mod rig;
mod stream;
