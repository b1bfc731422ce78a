//! What both variants of the store do, and that they do the same.

use super::{
    Activation, AlarmQuery, AlarmRow, AlertQuery, Attempted, AuditRow, Error, MachineRow, MaintenanceRow,
    NotificationRow, Record, Step, Store, StoredEvent, Variant, postgres::Postgres, sqlite::Sqlite,
};
use crate::{history::Page, postgres::Pools};
use engine::MachineEvent;
use std::{collections::BTreeSet, path::Path};
use uuid::Uuid;
use wire::Alert;

macro_rules! each {
    ($store:expr, $variant:ident => $call:expr) => {
        match &$store.0 {
            Variant::Sqlite($variant) => $call,
            Variant::Postgres($variant) => $call,
        }
    };
}

impl Store {
    /// Opens or makes `store.db`; starts its one writer thread: group commit, `synchronous=FULL`.
    ///
    /// # Errors
    /// The file cannot be opened, is not ours or is of a later release.
    pub fn open(path: &Path) -> Result<Store, Error> {
        Ok(Store(Variant::Sqlite(Sqlite::open(path)?)))
    }

    /// The two databases of a plant, whose schema `postgres::migrate` made; a process connects to what it uses, when it
    /// first does.
    pub fn postgres(ai: Pools, main: Pools) -> Store {
        Store(Variant::Postgres(Postgres::new(ai, main)))
    }

    /// Finishes what waits, writes the log into the file and closes it.
    pub async fn close(&self) {
        each!(self, store => store.close().await);
    }

    /// Where detect goes on: next offset of each of these partitions, as of one moment; 0 before the first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn positions(&self, partitions: impl IntoIterator<Item = u16>) -> Result<Vec<i64>, Error> {
        let partitions: Vec<u16> = partitions.into_iter().collect();
        each!(self, store => store.positions(partitions).await)
    }

    /// Writes the steps of detect in one transaction: compare-and-set of each position FIRST, then history, outbox (only
    /// for history rows really inserted), events, machines, fits, activations. Wakes whoever waits for the outbox.
    ///
    /// A step without effects need not be committed by itself: until the next one with effects commits it along, a
    /// restart replays its records, which gives nothing again. So a quiet plant costs detect no fsync a batch.
    ///
    /// # Errors
    /// [`Error::Fenced`]: start over from the database's position. Nothing of any step was written.
    pub async fn commit(&self, steps: Vec<Step<'_>>) -> Result<(), Error> {
        each!(self, store => store.commit(steps).await)
    }

    /// Alerts with an outbox position above `after`, in commit order: (position, alert's JSON).
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn outbox_after(&self, after: i64, limit: usize) -> Result<Vec<(i64, String)>, Error> {
        each!(self, store => store.outbox_after(after, limit).await)
    }

    /// The last position of the outbox that is durable; changes with each commit that wrote alerts.
    pub fn outbox_grown(&self) -> tokio::sync::watch::Receiver<i64> {
        each!(self, store => store.outbox_grown())
    }

    /// Drops outbox rows up to a position that every reader has passed; the history keeps what they announced.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn prune_outbox(&self, through: i64) -> Result<usize, Error> {
        each!(self, store => store.prune_outbox(through).await)
    }

    /// A fit by its hash.
    ///
    /// # Errors
    /// The store cannot be read, or the fit in it is damaged.
    pub async fn fit(&self, hash: &str) -> Result<Option<scoring::Fit>, Error> {
        each!(self, store => store.fit(hash).await)
    }

    /// Alerts, newest first by event time, then by commit order.
    ///
    /// # Errors
    /// The store cannot be read, or the cursor is not ours.
    pub async fn alerts(&self, query: AlertQuery) -> Result<Page<Alert>, Error> {
        each!(self, store => store.alerts(query).await)
    }

    /// One alert.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn alert(&self, id: wire::AlertId) -> Result<Option<Alert>, Error> {
        each!(self, store => store.alert(id).await)
    }

    /// The conditions that stand by the history, by the last transition of each but a clear, in commit order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn standing(&self) -> Result<Vec<Alert>, Error> {
        each!(self, store => store.standing().await)
    }

    /// As [`Store::standing`], of one partition of the readings.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn standing_on(&self, partition: u16) -> Result<Vec<Alert>, Error> {
        each!(self, store => store.standing_on(partition).await)
    }

    /// Counter resets and state changes of a machine with `from_us <= timestamp < to_us`, newest first.
    ///
    /// # Errors
    /// The store cannot be read, or the cursor is not ours.
    pub async fn machine_events(
        &self,
        machine: &str,
        from_us: i64,
        to_us: i64,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<MachineEvent>, Error> {
        each!(self, store => store.machine_events(machine, from_us, to_us, limit, cursor).await)
    }

    /// Every activation of a partition, by offset.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn activations(&self, partition: u16) -> Result<Vec<Activation>, Error> {
        each!(self, store => store.activations(partition).await)
    }

    /// The latest activation of each partition that has one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn latest_activations(&self) -> Result<Vec<Activation>, Error> {
        each!(self, store => store.latest_activations().await)
    }

    /// The document of a catalogue.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn catalogue(&self, hash: &str) -> Result<Option<String>, Error> {
        each!(self, store => store.catalogue(hash).await)
    }

    /// Saves slabs of a partition that are true at `offset`. Returns once all are durable; between them commits of detect
    /// go on. A slab that is newer already stays: a detector that was fenced off writes its state too late.
    ///
    /// # Errors
    /// [`Error::Fenced`]: the committed position is below `offset`, so that a restart from these slabs would skip
    /// effects. Else the store cannot be written.
    pub async fn save_slabs(&self, partition: u16, slabs: Vec<(u32, Vec<u8>)>, offset: i64) -> Result<(), Error> {
        each!(self, store => store.save_slabs(partition, slabs, offset).await)
    }

    /// The slabs of a partition, as [`engine::Engine::snapshot`] gave them.
    ///
    /// # Errors
    /// The store cannot be read, or a slab cannot be unpacked.
    pub async fn load_slabs(&self, partition: u16) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        each!(self, store => store.load_slabs(partition).await)
    }

    /// Forgets the snapshot of a partition, when it cannot be read.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn drop_slabs(&self, partition: u16) -> Result<(), Error> {
        each!(self, store => store.drop_slabs(partition).await)
    }

    /// Every machine, by id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn registry(&self) -> Result<Vec<MachineRow>, Error> {
        each!(self, store => store.registry().await)
    }

    /// One machine.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn registered(&self, machine: &str) -> Result<Option<MachineRow>, Error> {
        each!(self, store => store.registered(machine).await)
    }

    /// Those of some machines that are registered, in the order asked for.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn registered_of(&self, machines: Vec<String>) -> Result<Vec<MachineRow>, Error> {
        each!(self, store => store.registered_of(machines).await)
    }

    /// Writes machines as people or an import describe them, all or none; when they were first seen and by which source
    /// stays as it is.
    ///
    /// # Errors
    /// The store cannot be written, or a criticality is none of A, B, C.
    pub async fn register(&self, rows: Vec<MachineRow>) -> Result<(), Error> {
        each!(self, store => store.register(rows).await)
    }

    /// Confirms a machine; `false` when there is none of that name.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn confirm_machine(&self, machine: &str) -> Result<bool, Error> {
        each!(self, store => store.confirm_machine(machine).await)
    }

    /// Reads again which machines are confirmed: in the plant another process confirms them. Embedded nothing is to be read.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn refresh_confirmed(&self) -> Result<(), Error> {
        match &self.0 {
            Variant::Sqlite(_) => Ok(()),
            Variant::Postgres(store) => store.refresh_confirmed().await,
        }
    }

    /// Whether a machine is confirmed; from memory.
    pub fn confirmed(&self, machine: &str) -> bool {
        each!(self, store => store.confirmed(machine))
    }

    /// The portal's position in a partition of the alerts; 0 before the first. The outbox is partition 0.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn portal_position(&self, partition: u16) -> Result<i64, Error> {
        each!(self, store => store.portal_position(partition).await)
    }

    /// Writes one step of the portal; the events with their seqs, durable. An alert that the stream has already is left
    /// out.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Overtaken`]: another portal went on from here; nothing was written.
    pub async fn record(&self, record: Record) -> Result<Vec<StoredEvent>, Error> {
        each!(self, store => store.record(record).await)
    }

    /// Which of these alerts were recorded before. Embedded none: the outbox tells each once.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn known_alerts(&self, ids: Vec<wire::AlertId>) -> Result<BTreeSet<wire::AlertId>, Error> {
        match &self.0 {
            Variant::Sqlite(_) => Ok(BTreeSet::new()),
            Variant::Postgres(store) => store.known_alerts(ids).await,
        }
    }

    /// The edition of the alarms, which every step raises by one; `None` where a file has one portal.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn edition(&self) -> Result<Option<i64>, Error> {
        match &self.0 {
            Variant::Sqlite(_) => Ok(None),
            Variant::Postgres(store) => store.edition().await.map(Some),
        }
    }

    /// Alarms and maintenance windows that steps after an edition changed.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn changed_since(&self, edition: i64) -> Result<(Vec<AlarmRow>, Vec<MaintenanceRow>), Error> {
        match &self.0 {
            Variant::Sqlite(_) => Ok(Default::default()),
            Variant::Postgres(store) => store.changed_since(edition).await,
        }
    }

    /// Every alarm, by machine and condition.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn alarms(&self) -> Result<Vec<AlarmRow>, Error> {
        each!(self, store => store.alarms().await)
    }

    /// A page of alarms: unacknowledged first (those that returned last among them), then by priority, then newest change
    /// first; what asks nothing of anybody comes last. The order is that of the moment when paging began, a row shows the
    /// alarm as it is.
    ///
    /// # Errors
    /// The store cannot be read, or the cursor is not ours.
    pub async fn alarm_page(&self, query: AlarmQuery) -> Result<Page<AlarmRow>, Error> {
        each!(self, store => store.alarm_page(query).await)
    }

    /// One alarm.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn alarm(&self, id: Uuid) -> Result<Option<AlarmRow>, Error> {
        each!(self, store => store.alarm(id).await)
    }

    /// The audit log, newest first, of one subject or of all.
    ///
    /// # Errors
    /// The store cannot be read, or the cursor is not ours.
    pub async fn audit(
        &self,
        subject: Option<&str>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<AuditRow>, Error> {
        each!(self, store => store.audit(subject, limit, cursor).await)
    }

    /// Recomputes the chain of hashes: lines checked, and the first that does not fit. A line that is missing does not
    /// fit either, the last ones included.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn verify_audit(&self) -> Result<(u64, Option<i64>), Error> {
        each!(self, store => store.verify_audit().await)
    }

    /// Events with a seq above `after`, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        each!(self, store => store.events_after(after, limit).await)
    }

    /// (oldest seq kept or newest + 1 where none is, newest seq ever given).
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn event_range(&self) -> Result<(u64, u64), Error> {
        each!(self, store => store.event_range().await)
    }

    /// The first event kept that was written at `from_us` or later; newest + 1 where there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn event_since(&self, from_us: i64) -> Result<u64, Error> {
        each!(self, store => store.event_since(from_us).await)
    }

    /// Drops events up to a seq.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn prune_events(&self, through: u64) -> Result<usize, Error> {
        each!(self, store => store.prune_events(through).await)
    }

    /// Drops the alerts of the topic that were told before a time; one of them that comes once more is told again.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn prune_alerts(&self, before_us: i64) -> Result<usize, Error> {
        each!(self, store => store.prune_alerts(before_us).await)
    }

    /// Leases due notifications of a channel, oldest first, a `cleared` never before its `raised`; each lease counts as an
    /// attempt begun and is written before this returns.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn lease_notifications(
        &self,
        channel: &str,
        now_us: i64,
        lease_us: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, Error> {
        each!(self, store => store.lease_notifications(channel, now_us, lease_us, limit).await)
    }

    /// When the next notification of a channel is due, microseconds since 1970; a leased one at the end of its lease.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn notification_due(&self, channel: &str) -> Result<Option<i64>, Error> {
        each!(self, store => store.notification_due(channel).await)
    }

    /// Notes how an attempt ended.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn attempted(&self, id: Uuid, at_us: i64, how: Attempted) -> Result<(), Error> {
        each!(self, store => store.attempted(id, at_us, how).await)
    }

    /// Drops notifications that ended and were made before a time, with their attempts.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn prune_notifications(&self, before_us: i64) -> Result<usize, Error> {
        each!(self, store => store.prune_notifications(before_us).await)
    }

    /// Windows that end after `at_us`, by machine and beginning.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn maintenance_after(&self, at_us: i64) -> Result<Vec<MaintenanceRow>, Error> {
        each!(self, store => store.maintenance_after(at_us).await)
    }
}
