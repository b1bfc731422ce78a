//! Readings as JSON: one object, an array, or lines; a schema-driven fast path, serde_json for everything else.

use crate::{ReadingBatch, Reject};
use catalog::Catalogue;
use std::sync::Arc;

/// How messages lie in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One object or an array of them (`application/json`).
    Json,
    /// Every non-blank line is one message (`application/x-ndjson`).
    Lines,
    /// The first byte that is no white space decides: `[` is [`Framing::Json`], else lines; a single pretty-printed
    /// object over several lines is one message.
    Auto,
}

/// A value that is neither array nor object nor lines: nothing of it can be counted as a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither a JSON object, an array nor JSON lines: {0}")]
pub struct NotReadings(pub String);

/// What a value held.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Batches of one class and one partition each: (partition, batch). Rows keep their order.
    pub batches: Vec<(u16, ReadingBatch)>,
    /// What was refused, in order.
    pub rejects: Vec<Reject>,
    /// Messages in the value: rows of all batches + rejects.
    pub messages: u32,
    /// Keys that no class key or contract key knows.
    pub unknown_keys: u64,
    /// Values that were rounded to their channel's scale.
    pub rounded: u64,
}

/// Decodes readings under one catalogue. Keeps buffers between calls; one per thread.
pub struct Decoder {
    catalogue: Arc<Catalogue>,
    partitions: u16,
}

impl Decoder {
    /// A decoder for a catalogue and a number of partitions.
    pub fn new(catalogue: Arc<Catalogue>, partitions: u16) -> Decoder {
        Decoder { catalogue, partitions }
    }

    /// Decodes a value that arrived at `arrived_us`. `bound` names the class that a machine already has.
    ///
    /// # Errors
    /// The value is neither object, array nor lines (only with [`Framing::Json`], and with [`Framing::Auto`] that chose it).
    pub fn decode(
        &mut self,
        value: &[u8],
        framing: Framing,
        arrived_us: i64,
        bound: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Decoded, NotReadings> {
        let _ = (value, framing, arrived_us, bound, &self.catalogue, self.partitions);
        todo!()
    }
}
