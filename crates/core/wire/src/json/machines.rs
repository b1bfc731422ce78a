//! The machines that a decoder has seen: a hash table by the bytes of their names.

use catalog::MachineId;
use std::hash::{BuildHasher, RandomState};

/// Beyond so many machines the table starts afresh with the next value, so that invented names cannot fill the memory.
const MACHINES_MAX: usize = 1 << 18;

/// No class, no batch.
pub(super) const NOTHING: u32 = u32::MAX;

/// A machine and what the present value has told of it.
pub(super) struct Machine {
    pub(super) id: MachineId,
    hash: u64,
    pub(super) partition: u16,
    /// The id stands in JSON as it is.
    plain: bool,
    /// Its class where nothing binds one, [`NOTHING`] where the catalogue has none.
    pub(super) default: u32,
    /// `bound` was named by who knows, and stays.
    pub(super) settled: bool,
    /// The value for which the following is true; 0 before any.
    pub(super) value: u32,
    /// The class that it has, [`NOTHING`] where none is bound.
    pub(super) bound: u32,
    /// The class of a reading that names none, [`NOTHING`] where the catalogue has none for it.
    pub(super) unnamed: u32,
    /// The batch that its last reading went into, [`NOTHING`] before one did.
    pub(super) batch: u32,
    /// Its place among that batch's machines.
    pub(super) place: u32,
}

/// The table. Its hash is keyed by random numbers, which decide where a machine lies in it and nothing else.
pub(super) struct Machines {
    machines: Vec<Machine>,
    /// Place in `machines` + 1; 0 is free. A power of two long, at most half full.
    slots: Vec<u32>,
    key: [u64; 2],
}

impl Machines {
    pub(super) fn new() -> Machines {
        let random = RandomState::new();
        let key = [random.hash_one(0_u8), random.hash_one(1_u8) | 1];
        Machines { machines: Vec::new(), slots: vec![0; 64], key }
    }

    /// Starts afresh where the table is too large.
    pub(super) fn trim(&mut self) {
        if self.machines.len() > MACHINES_MAX {
            *self = Machines::new();
        }
    }

    pub(super) fn get(&self, at: usize) -> &Machine {
        &self.machines[at]
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut Machine {
        &mut self.machines[at]
    }

    /// The machine whose name in JSON begins the text, up to a quote, where it is known: (place, length).
    pub(super) fn read(&self, text: &[u8]) -> Option<(usize, usize)> {
        let mut hash = self.key[0];
        // A name has at most 200 bytes.
        for (nth, word) in text.as_chunks::<8>().0.iter().take(26).enumerate() {
            let word = u64::from_le_bytes(*word);
            let quotes = zero_bytes(word ^ u64::from_le_bytes([b'"'; 8]));
            if quotes != 0 {
                let bytes = quotes.trailing_zeros() as usize / 8;
                let name = &text[..nth * 8 + bytes];
                hash = self.step(hash, word & !(u64::MAX << (bytes * 8)));
                let at = self.at(self.finish(hash, name.len()), name)?;
                return self.machines[at].plain.then_some((at, name.len()));
            }
            hash = self.step(hash, word);
        }
        None
    }

    /// The place of a machine, which is made where there is none.
    pub(super) fn find(&mut self, id: MachineId, partition_of: impl Fn(&str) -> u16) -> usize {
        let hash = self.hash(id.as_bytes());
        if let Some(at) = self.at(hash, id.as_bytes()) {
            return at;
        }
        let plain = id.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
        let partition = partition_of(&id);
        let (settled, value, place) = (false, 0, 0);
        let [default, bound, unnamed, batch] = [NOTHING; 4];
        self.machines.push(Machine {
            id,
            hash,
            partition,
            plain,
            default,
            settled,
            value,
            bound,
            unnamed,
            batch,
            place,
        });
        if self.machines.len() * 2 > self.slots.len() {
            self.grow();
        } else {
            self.place(self.machines.len() - 1);
        }
        self.machines.len() - 1
    }

    fn at(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let at = (self.slots[slot] as usize).checked_sub(1)?;
            let machine = &self.machines[at];
            if machine.hash == hash && machine.id.as_bytes() == name {
                return Some(at);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn place(&mut self, at: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = self.machines[at].hash as usize & mask;
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = at as u32 + 1;
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 4;
        self.slots.clear();
        self.slots.resize(slots, 0);
        for at in 0..self.machines.len() {
            self.place(at);
        }
    }

    fn hash(&self, name: &[u8]) -> u64 {
        let (words, rest) = name.as_chunks::<8>();
        let hash = words.iter().fold(self.key[0], |hash, word| self.step(hash, u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.finish(self.step(hash, u64::from_le_bytes(last)), name.len())
    }

    fn step(&self, hash: u64, word: u64) -> u64 {
        let product = u128::from(hash ^ word) * u128::from(self.key[1]);
        (product as u64) ^ (product >> 64) as u64
    }

    fn finish(&self, hash: u64, length: usize) -> u64 {
        hash ^ length as u64
    }
}

/// Bit 7 of each byte that is zero; above the first one it may err.
fn zero_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_found_again_by_what_stands_before_the_quote() {
        let mut machines = Machines::new();
        let names: Vec<String> = (0..5000).map(|at| format!("m{}-{at}", "x".repeat(at % 40))).collect();
        for name in &names {
            machines.find(MachineId::try_from(&**name).unwrap(), |_| 0);
        }
        for (at, name) in names.iter().enumerate() {
            assert_eq!(machines.read(format!("{name}\", and more text").as_bytes()), Some((at, name.len())));
            assert_eq!(machines.find(MachineId::try_from(&**name).unwrap(), |_| 0), at);
        }
        assert_eq!(machines.read(b"unknown\",       "), None);
        assert_eq!(machines.read(b"no quote at all, and so on"), None);
    }

    #[test]
    fn names_that_json_must_escape_are_not_found_as_they_are() {
        let mut machines = Machines::new();
        for name in ["a\\", "a\u{1}", "설비"] {
            machines.find(MachineId::try_from(name).unwrap(), |_| 0);
        }
        assert_eq!(machines.read(b"a\\\"                "), None);
        assert_eq!(machines.read(b"a\x01\"                "), None);
        assert_eq!(machines.read("설비\"                ".as_bytes()), Some((2, 6)));
    }
}
