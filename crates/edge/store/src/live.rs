//! Newest values of every machine, a mirror that can be lost and rebuilt: in memory, and in a plant passed on through Redis.

mod record;
pub mod redis;

use catalog::MachineId;
use engine::Live;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::broadcast;

/// A reader waits for the writer of its own shard only.
const SHARDS: usize = 16;
/// Changes that a slow subscriber may lag behind: at one each 100 ms, some seconds.
const CHANGES: usize = 64;

/// Newest values of every machine.
#[derive(Clone)]
pub struct LiveValues {
    shards: Arc<[Shard; SHARDS]>,
    hasher: RandomState,
    changes: broadcast::Sender<Arc<[Arc<Live>]>>,
    stale: Arc<AtomicBool>,
}

type Shard = RwLock<HashMap<MachineId, Arc<Live>>>;

impl Default for LiveValues {
    fn default() -> LiveValues {
        LiveValues {
            shards: Arc::new(std::array::from_fn(|_| RwLock::default())),
            hasher: RandomState::new(),
            changes: broadcast::Sender::new(CHANGES),
            stale: Arc::default(),
        }
    }
}

impl LiveValues {
    /// Takes what changed.
    pub fn put(&self, machines: Vec<Live>) {
        if machines.is_empty() {
            return;
        }
        let machines: Vec<Arc<Live>> = machines.into_iter().map(Arc::new).collect();
        for live in &machines {
            self.shard(&live.machine).write().expect("never poisoned").insert(live.machine.clone(), live.clone());
        }
        // Nobody may be listening.
        let _ = self.changes.send(machines.into());
    }

    /// One machine.
    pub fn get(&self, machine: &str) -> Option<Arc<Live>> {
        self.shard(machine).read().expect("never poisoned").get(machine).cloned()
    }

    /// Every machine, by id.
    pub fn all(&self) -> Vec<Arc<Live>> {
        let mut machines: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| shard.read().expect("never poisoned").values().cloned().collect::<Vec<_>>())
            .collect();
        machines.sort_unstable_by(|a, b| a.machine.cmp(&b.machine));
        machines
    }

    /// What changes from here on, as it was put. Who lags too far behind misses some and asks for [`LiveValues::all`].
    pub fn changes(&self) -> broadcast::Receiver<Arc<[Arc<Live>]>> {
        self.changes.subscribe()
    }

    /// What feeds these values is gone: they are the last that were known.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    fn set_stale(&self, stale: bool) {
        self.stale.store(stale, Ordering::Relaxed);
    }

    fn shard(&self, machine: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(machine) as usize % SHARDS]
    }
}
