//! Judging a lot under its partition's lock: placed row by row, older duplicates looked up where the history lies.

use super::{
    Error, Lot,
    machines::Machines,
    partition::{Judged, Partition},
};
use catalog::{Catalogue, Class};
use engine::Identity;
use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};
use wire::ReadingBatch;

/// A partition and who may append to it.
pub(super) struct Shard {
    /// Held while a lot is appended.
    pub(super) appending: tokio::sync::Mutex<Option<Pending>>,
    state: Mutex<Partition>,
}

/// A lot that was judged and is not stored: its look-up failed, or nobody waited for it. Judging moved the orders, so
/// that the same lot goes on from here.
pub(super) struct Pending {
    offsets: Range<i64>,
    judged: Vec<Judged>,
}

impl Pending {
    fn is_of(&self, lot: &Lot<'_>) -> bool {
        let rows = || lot.batches.iter().map(ReadingBatch::rows);
        self.offsets == lot.offsets && self.judged.iter().map(Judged::rows).eq(rows())
    }
}

/// Where rows lie that are not in memory.
pub(super) trait Stored {
    /// Identities and flags of the rows of machines of a class from an event time on.
    async fn read_back(
        &self,
        shard: &Shard,
        class: &Arc<Class>,
        wanted: &[(u32, i64)],
    ) -> Result<Vec<(u32, Identity, u8)>, Error>;

    /// Which of the late rows are stored, at whatever age.
    async fn find(
        &self,
        shard: &Shard,
        batches: &[ReadingBatch],
        judged: &[Judged],
    ) -> Result<HashSet<(u32, Identity)>, Error>;
}

impl Shard {
    pub(super) fn new(partition: Partition) -> Shard {
        Shard { appending: tokio::sync::Mutex::default(), state: Mutex::new(partition) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Partition> {
        self.state.lock().expect("never poisoned")
    }

    /// Whether a lot must still be stored.
    pub(super) fn awaits(&self, lot: &Lot<'_>) -> bool {
        let next = self.state().appended();
        let below = lot.offsets.start < next;
        assert!(!below || lot.offsets.end <= next, "lots come in order: {:?} after {next}", lot.offsets);
        !below
    }

    /// Judges the batches of a lot, which must be stored next.
    pub(super) async fn judge(
        &self,
        pending: &mut Option<Pending>,
        lot: &Lot<'_>,
        machines: &Machines,
        catalogue: &Catalogue,
        stored: &impl Stored,
    ) -> Result<Vec<Judged>, Error> {
        let batches = lot.batches;
        let mut judged = match pending.take().filter(|pending| pending.is_of(lot)) {
            Some(pending) => pending.judged,
            None => self.place(lot, machines, catalogue, stored).await?,
        };
        if judged.iter().any(|judged| !judged.late().is_empty()) {
            self.state().find_repeated(batches, &mut judged);
        }
        if judged.iter().any(|judged| !judged.late().is_empty()) {
            let kept = pending.insert(Pending { offsets: lot.offsets.clone(), judged });
            let found = stored.find(self, batches, &kept.judged).await?;
            kept.judged.iter_mut().for_each(|judged| judged.repeated(&found));
            judged = pending.take().map(|pending| pending.judged).expect("put there above");
        }
        Ok(judged)
    }

    /// Places every row; what a restart left unread is read first.
    async fn place(
        &self,
        lot: &Lot<'_>,
        machines: &Machines,
        catalogue: &Catalogue,
        stored: &impl Stored,
    ) -> Result<Vec<Judged>, Error> {
        let batches = lot.batches;
        let (mut judged, unread) = {
            let mut state = self.state();
            let judged: Vec<Judged> = batches.iter().map(|batch| state.find(batch, machines, catalogue)).collect();
            let unread: Vec<_> =
                batches.iter().zip(&judged).map(|(batch, judged)| state.unread(batch, judged)).collect();
            (judged, unread)
        };
        for (batch, unread) in batches.iter().zip(&unread).filter(|(_, unread)| !unread.is_empty()) {
            let rows = stored.read_back(self, &batch.class, unread).await?;
            self.state().remember(batch.class.lateness_us, unread, rows);
        }
        let mut state = self.state();
        for (batch, judged) in batches.iter().zip(&mut judged) {
            state.judge(batch, judged);
        }
        Ok(judged)
    }
}
