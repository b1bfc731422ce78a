//! Which class a machine has and how new its newest reading is, for whoever asks at the door.

use catalog::MachineId;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicI64, Ordering},
    },
};

/// Who asks waits for a newcomer of its own shard only.
const SHARDS: usize = 16;

/// A machine that has readings.
pub(super) struct Known {
    /// Id of its class; it keeps it.
    pub(super) class: Arc<str>,
    /// Event time of its newest stored reading, `i64::MIN` before one.
    newest_us: AtomicI64,
    /// The partition that it was first found on.
    partition: OnceLock<u16>,
}

impl Known {
    fn new(class: &str) -> Known {
        Known { class: class.into(), newest_us: AtomicI64::new(i64::MIN), partition: OnceLock::new() }
    }

    /// Notes a partition on which it has readings; whether they lie on another one too.
    pub(super) fn is_also_on(&self, partition: u16) -> bool {
        *self.partition.get_or_init(|| partition) != partition
    }

    pub(super) fn newest_us(&self) -> i64 {
        self.newest_us.load(Ordering::Relaxed)
    }

    pub(super) fn raise_newest(&self, timestamp_us: i64) {
        self.newest_us.fetch_max(timestamp_us, Ordering::Relaxed);
    }
}

type Shard = RwLock<HashMap<MachineId, Arc<Known>>>;

/// Every machine, whatever its partition.
pub(super) struct Machines {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

impl Machines {
    pub(super) fn new() -> Machines {
        Machines { shards: std::array::from_fn(|_| RwLock::default()), hasher: RandomState::new() }
    }

    fn shard(&self, machine: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(machine) as usize % SHARDS]
    }

    pub(super) fn get(&self, machine: &str) -> Option<Arc<Known>> {
        self.shard(machine).read().expect("never poisoned").get(machine).cloned()
    }

    /// The machine, which gets this class where it has none.
    pub(super) fn enter(&self, machine: &MachineId, class: &str) -> Arc<Known> {
        let mut shard = self.shard(machine).write().expect("never poisoned");
        let known = shard.entry(machine.clone()).or_insert_with(|| Arc::new(Known::new(class)));
        known.clone()
    }

    pub(super) fn class_of(&self, machine: &str) -> Option<String> {
        self.shard(machine).read().expect("never poisoned").get(machine).map(|known| known.class.to_string())
    }

    pub(super) fn newest(&self, machine: &str) -> Option<i64> {
        let newest = self.shard(machine).read().expect("never poisoned").get(machine)?.newest_us();
        (newest != i64::MIN).then_some(newest)
    }
}
