//! Machines by name.

use crate::machine::{Handle, Slab, place};
use catalog::MachineId;
use std::hash::{BuildHasher, RandomState};

/// No machine.
pub(crate) const NOBODY: Handle = Handle::MAX;
/// Names that are looked up together.
const CHUNK: usize = 32;

/// Open addressing over (tag, handle + 1); 0 is empty. Names lie with their machines; only found, never walked.
pub(crate) struct Index {
    cells: Vec<u64>,
    used: usize,
    /// Unknown to whoever chooses the names.
    hasher: RandomState,
}

impl Index {
    pub(crate) fn new() -> Index {
        Index { cells: vec![0; 16], used: 0, hasher: RandomState::new() }
    }

    pub(crate) fn find(&self, slabs: &[Slab], name: &str) -> Option<Handle> {
        self.find_hashed(slabs, name, self.hasher.hash_one(name))
    }

    fn find_hashed(&self, slabs: &[Slab], name: &str, hash: u64) -> Option<Handle> {
        let mask = self.cells.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let cell = self.cells[at];
            if cell == 0 {
                return None;
            }
            if cell >> 32 == hash >> 32 {
                let found = (cell as u32) - 1;
                let (slab, of) = place(found);
                if slabs[slab].machines[of].id.as_str() == name {
                    return Some(found);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Finds many names, `None` as [`NOBODY`]. Each step is taken for all of them, so that the waiting for far memory
    /// overlaps.
    pub(crate) fn find_all(&self, slabs: &[Slab], names: &[MachineId], found: &mut Vec<Handle>) {
        let mask = self.cells.len() - 1;
        found.clear();
        for names in names.chunks(CHUNK) {
            let mut hashes = [0; CHUNK];
            let mut cells = [0; CHUNK];
            for (hash, name) in hashes.iter_mut().zip(names) {
                *hash = self.hasher.hash_one(name.as_str());
            }
            for (cell, hash) in cells.iter_mut().zip(&hashes[..names.len()]) {
                *cell = self.cells[*hash as usize & mask];
            }
            // The length of a name lies with the machine, its letters elsewhere.
            let mut lengths = 0;
            let mut letters = 0;
            for first in [true, false] {
                for cell in cells[..names.len()].iter().filter(|cell| **cell != 0) {
                    let (slab, of) = place((*cell as u32) - 1);
                    let name = &slabs[slab].machines[of].id;
                    if first {
                        lengths += name.len();
                    } else {
                        letters ^= name.as_bytes()[0];
                    }
                }
            }
            std::hint::black_box((lengths, letters));
            let handles = names.iter().zip(&hashes).map(|(name, hash)| self.find_hashed(slabs, name, *hash));
            found.extend(handles.map(|handle| handle.unwrap_or(NOBODY)));
        }
    }

    /// Adds a name that is not there.
    pub(crate) fn add(&mut self, slabs: &[Slab], name: &str, handle: Handle) {
        if (self.used + 1) * 4 > self.cells.len() * 3 {
            let held = std::mem::take(&mut self.cells);
            self.cells = vec![0; held.len() * 2];
            for cell in held.into_iter().filter(|cell| *cell != 0) {
                let (slab, of) = place((cell as u32) - 1);
                let hash = self.hasher.hash_one(slabs[slab].machines[of].id.as_str());
                self.put(hash, cell);
            }
        }
        let hash = self.hasher.hash_one(name);
        self.put(hash, hash >> 32 << 32 | u64::from(handle + 1));
        self.used += 1;
    }

    fn put(&mut self, hash: u64, cell: u64) {
        let mask = self.cells.len() - 1;
        let mut at = hash as usize & mask;
        while self.cells[at] != 0 {
            at = (at + 1) & mask;
        }
        self.cells[at] = cell;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<u64>()
    }
}
