//! The compact binary batch: version, class, channels with their scales, columns, CRC.

use crate::ReadingBatch;
use catalog::Catalogue;

/// Why bytes are no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BinaryError {
    #[error("not a reading batch")]
    NotABatch,
    #[error("reading batch of version {0}, this release reads up to {1}")]
    Version(u8, u8),
    #[error("reading batch is damaged: checksum differs")]
    Checksum,
    #[error("reading batch is cut short or inconsistent at byte {0}")]
    Malformed(usize),
    #[error("reading batch is of class {0}, which the catalogue does not have")]
    UnknownClass(String),
    #[error("reading batch does not fit class {class}: {what}")]
    ClassDiffers { class: String, what: String },
}

impl ReadingBatch {
    /// Appends the encoding of this batch to `out`. Spans are not part of it: they are the bus record's own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Reads a batch; columns are matched to the class's channels by name, and a channel with another scale is refused.
    ///
    /// # Errors
    /// What is wrong with the bytes; never panics on any input.
    pub fn decode(bytes: &[u8], catalogue: &Catalogue) -> Result<ReadingBatch, BinaryError> {
        let _ = (bytes, catalogue);
        todo!()
    }
}
