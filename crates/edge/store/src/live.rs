//! Newest values of every machine, a mirror that can be lost and rebuilt: memory, embedded.

use engine::Live;
use std::sync::Arc;

/// Newest values of every machine.
#[derive(Clone, Default)]
pub struct LiveValues {}

impl LiveValues {
    /// Takes what changed.
    pub fn put(&self, machines: Vec<Live>) {
        let _ = machines;
        todo!()
    }

    /// One machine.
    pub fn get(&self, machine: &str) -> Option<Arc<Live>> {
        let _ = machine;
        todo!()
    }

    /// Every machine, by id.
    pub fn all(&self) -> Vec<Arc<Live>> {
        todo!()
    }
}
