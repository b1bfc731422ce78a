//! The lanes as the store knows them: engines from their snapshots, else rebuilt from what is left of the bus.

use super::{
    Error, Parts,
    lane::{Lane, Recall, Switch},
};
use crate::record::Reader;
use bus::Topic;
use catalog::Catalogue;
use engine::{Engine, SnapshotError};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use store::{Activation, Store};
use tokio::task::JoinSet;
use wire::READINGS_TOPIC;

/// The condition that no reading raises.
const NO_DATA: &str = "no_data";

/// The lanes of these partitions; `current` takes effect at their positions where another was in force.
pub(super) async fn lanes(parts: &Parts, current: &Arc<Catalogue>, partitions: &[u16]) -> Result<Vec<Lane>, Error> {
    let positions = parts.store.positions(partitions.iter().copied()).await?;
    let mut restoring = JoinSet::new();
    for (partition, position) in partitions.iter().copied().zip(positions) {
        restoring.spawn(lane(parts.clone(), current.clone(), partition, position));
    }
    let mut lanes = Vec::new();
    while let Some(lane) = restoring.join_next().await {
        let mut lane = lane??;
        lane.compare_with(parts.taken.clone());
        lanes.push(lane);
    }
    lanes.sort_unstable_by_key(Lane::partition);
    Ok(lanes)
}

async fn lane(parts: Parts, current: Arc<Catalogue>, partition: u16, position: i64) -> Result<Lane, Error> {
    let Parts { bus, store, clocks, .. } = parts;
    let mut past = Past { activations: store.activations(partition).await?, known: BTreeMap::new(), store };
    past.known.insert(current.hash().to_owned(), current.clone());
    let mut standing = past.store.standing_on(partition).await?;
    let saved = past.saved(partition, position).await?;
    let from = match &saved {
        Some(engine) => engine.replay_from(),
        None => bus.bounds(Topic::Readings, partition).await?.0.min(position),
    };
    let is_whole = saved.is_some() || from == 0;
    let engine = match saved {
        Some(engine) => engine,
        None => Engine::new(partition, past.in_force(from, &current).await?),
    };
    if !is_whole {
        let standing = standing.len();
        tracing::warn!(
            partition,
            "the state of partition {partition} is rebuilt from what is left of the bus, from {READINGS_TOPIC} {from} on; \
             {standing} conditions stand by the history"
        );
    }
    let catalogue = past.in_force(from, &current).await?;
    let mut switches = VecDeque::new();
    let later: Vec<Activation> =
        past.activations.iter().filter(|activation| activation.from_offset > from).cloned().collect();
    for Activation { from_offset, catalogue_hash, .. } in later {
        switches.push_back(Switch { at: from_offset, catalogue: past.catalogue(&catalogue_hash).await? });
    }
    let recorded = past.activations.last().is_some_and(|last| last.catalogue_hash == current.hash());
    let reader = Reader::new(&bus, catalogue, clocks);
    let mut lane = Lane::new(partition, engine, reader, switches, position, from);
    lane.recall(if is_whole {
        standing.retain(|alert| alert.condition == NO_DATA);
        Recall::Silence(standing)
    } else {
        Recall::All(standing)
    });
    if !recorded {
        lane.activate(&current);
    }
    Ok(lane)
}

/// A snapshot that cannot be read is forgotten, and said so.
async fn unreadable(store: &Store, partition: u16, error: &(dyn std::error::Error + Sync)) -> Result<(), Error> {
    tracing::error!(partition, "the snapshot of partition {partition} cannot be read: {error}");
    metrics::counter!("millwright_snapshots_unreadable_total").increment(1);
    Ok(store.drop_slabs(partition).await?)
}

/// What was in force on a partition.
struct Past {
    store: Store,
    /// By offset.
    activations: Vec<Activation>,
    /// Catalogues that were read, by hash.
    known: BTreeMap<String, Arc<Catalogue>>,
}

impl Past {
    /// The engine that was saved, where one was and it can be read.
    async fn saved(&mut self, partition: u16, position: i64) -> Result<Option<Engine>, Error> {
        match self.store.load_slabs(partition).await {
            Ok(slabs) if slabs.is_empty() => return Ok(None),
            Ok(slabs) => match self.restore(partition, position, slabs).await? {
                Ok(engine) => return Ok(Some(engine)),
                Err(error) => unreadable(&self.store, partition, &error).await?,
            },
            Err(error @ store::Error::Damaged(_)) => unreadable(&self.store, partition, &error).await?,
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }

    /// An engine from its slabs; its catalogue is what was in force where the oldest of them is true.
    async fn restore(
        &mut self,
        partition: u16,
        position: i64,
        slabs: Vec<(u32, Vec<u8>)>,
    ) -> Result<Result<Engine, SnapshotError>, Error> {
        let slabs = Arc::new(slabs);
        let mut at = position;
        loop {
            let newest = self.activations.last().map(|last| last.catalogue_hash.clone());
            let catalogue = match self.hash_at(at).or(newest) {
                Some(hash) => self.catalogue(&hash).await?,
                None => return Ok(Err(SnapshotError::Damaged(0))),
            };
            let (given, known) = (slabs.clone(), self.known.clone());
            let restore = move || Engine::restore(partition, catalogue, &given, &|hash| known.get(hash).cloned());
            match tokio::task::spawn_blocking(restore).await? {
                // What the slabs were written under is read when they ask for it.
                Err(SnapshotError::NoCatalogue { slab, hash }) if !self.known.contains_key(&hash) => {
                    match self.catalogue(&hash).await {
                        Ok(_) => {}
                        Err(Error::NoCatalogue(_)) => {
                            return Ok(Err(SnapshotError::NoCatalogue { slab, hash }));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(engine) if self.hash_at(engine.replay_from()) != self.hash_at(at) => at = engine.replay_from(),
                done => return Ok(done),
            }
        }
    }

    /// Hash of what was in force for the record at an offset.
    fn hash_at(&self, offset: i64) -> Option<String> {
        let before = self.activations.iter().rev().find(|activation| activation.from_offset <= offset);
        before.map(|activation| activation.catalogue_hash.clone())
    }

    async fn in_force(&mut self, offset: i64, current: &Arc<Catalogue>) -> Result<Arc<Catalogue>, Error> {
        // Records from before the first activation were judged under it too: there was none before.
        let first = self.activations.first().map(|first| first.catalogue_hash.clone());
        match self.hash_at(offset).or(first) {
            Some(hash) => self.catalogue(&hash).await,
            None => Ok(current.clone()),
        }
    }

    async fn catalogue(&mut self, hash: &str) -> Result<Arc<Catalogue>, Error> {
        if let Some(known) = self.known.get(hash) {
            return Ok(known.clone());
        }
        let document = self.store.catalogue(hash).await?.ok_or_else(|| Error::NoCatalogue(hash.to_owned()))?;
        let catalogue =
            Catalogue::from_document(&document).map_err(|source| Error::Catalogue { hash: hash.to_owned(), source })?;
        let catalogue = Arc::new(catalogue);
        self.known.insert(hash.to_owned(), catalogue.clone());
        Ok(catalogue)
    }
}
