//! Decoders that wait for the next body. Each knows the machines it has seen, so keeping them is worth it.

use catalog::Catalogue;
use std::{
    sync::{Arc, Mutex},
    thread::available_parallelism,
};
use wire::{Decoder, READINGS_PARTITIONS};

/// A decoder and the catalogue that it decodes by.
pub(crate) struct Pooled {
    pub(crate) decoder: Decoder,
    catalogue: Arc<Catalogue>,
}

/// Idle decoders, the one used last on top.
pub(crate) struct Decoders {
    idle: Mutex<Vec<Pooled>>,
    max: usize,
}

impl Default for Decoders {
    fn default() -> Decoders {
        Decoders { idle: Mutex::default(), max: 2 * available_parallelism().map_or(2, usize::from) }
    }
}

impl Decoders {
    /// A decoder for a catalogue; those of others are dropped.
    pub(crate) fn take(&self, catalogue: &Arc<Catalogue>) -> Pooled {
        let mut idle = self.idle.lock().expect("nothing panics while it is held");
        while let Some(pooled) = idle.pop() {
            if pooled.catalogue.hash() == catalogue.hash() {
                return pooled;
            }
        }
        Pooled { decoder: Decoder::new(catalogue.clone(), READINGS_PARTITIONS), catalogue: catalogue.clone() }
    }

    /// Gives a decoder back.
    pub(crate) fn put(&self, pooled: Pooled) {
        let mut idle = self.idle.lock().expect("nothing panics while it is held");
        if idle.len() < self.max {
            idle.push(pooled);
        }
    }
}
