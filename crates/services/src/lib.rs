//! One loop each: simulate, replay, ingest, detect, relay; and what keeps them running.
//!
//! A loop is given what it needs and a token that stops it between two batches; it ends with its error, and
//! [`supervise()`] starts it again from where its effects were committed. Does not know HTTP or the command line.

pub mod apart;
mod clock;
pub mod detect;
pub mod ingest;
mod record;
pub mod relay;
pub mod replay;
pub mod simulate;
pub mod supervise;

pub use clock::now_us;
pub use supervise::{Health, supervise};
