//! In which order a machine's readings count: duplicate, ahead, late, out of order, in order (GUARANTEES.md 1).
//!
//! Used by `detect` through the engine and by ingest through the history store, so that both decide alike.

/// Identity of a reading of one machine: event time, and a 64-bit hash of its `seq`, or of its values without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "said above")]
pub struct Identity {
    pub timestamp_us: i64,
    pub hash: u64,
}

/// The identity of a row of a batch.
pub fn identity(batch: &wire::ReadingBatch, row: usize) -> Identity {
    let _ = (batch, row);
    todo!()
}

/// What a reading is to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words of GUARANTEES.md 1")]
pub enum Place {
    /// Seen already, inside the lateness.
    Duplicate,
    /// Further ahead of its arrival than the allowed lateness (and at most 5 min).
    Ahead,
    /// Older than the newest by more than the allowed lateness. May be a duplicate of something older: `Order` cannot know.
    Late,
    OutOfOrder,
    InOrder,
}

/// The order of one machine's readings.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Event time of the newest in-order reading; `i64::MIN` before the first.
    pub newest_us: i64,
}

impl Order {
    /// Before the first reading.
    pub fn new() -> Order {
        todo!()
    }

    /// Places a reading and remembers it.
    pub fn place(&mut self, lateness_us: i64, arrived_us: i64, identity: Identity) -> Place {
        let _ = (lateness_us, arrived_us, identity);
        todo!()
    }

    /// Remembers a reading that the history holds (read back at assignment), in any order.
    pub fn remember(&mut self, lateness_us: i64, identity: Identity, place: Place) {
        let _ = (lateness_us, identity, place);
        todo!()
    }

    /// Appends an encoding.
    pub fn save(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Reads [`Order::save`] and moves `bytes` past it.
    pub fn load(bytes: &mut &[u8]) -> Option<Order> {
        let _ = bytes;
        todo!()
    }
}
