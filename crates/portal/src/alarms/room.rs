//! Every alarm in memory, as the store has it, with what is asked of all of them at once.

use bus::Topic;
use std::collections::{BTreeMap, BTreeSet};
use store::{AlarmRow, MaintenanceRow, Store};
use uuid::Uuid;

/// What the lock guards.
pub(super) struct Room {
    /// The portal's position in each partition of the alerts; the outbox is one.
    positions: BTreeMap<u16, i64>,
    /// What the store has is not known: it must be read again.
    pub(super) stale: bool,
    /// The edition of the alarms that this is; `None`: nobody else writes them.
    edition: Option<i64>,
    rows: BTreeMap<Uuid, AlarmRow>,
    by_machine: BTreeMap<String, BTreeSet<Uuid>>,
    /// What the clock waits for.
    due: BTreeSet<(i64, Uuid)>,
    /// Standing alarms of the condition `no_data`.
    silent: BTreeSet<Uuid>,
    /// Maintenance windows of each machine, by their beginning.
    windows: BTreeMap<String, BTreeMap<i64, MaintenanceRow>>,
    /// Beginnings that the clock waits for, of windows in `windows`.
    begins: BTreeSet<(i64, String)>,
}

impl Room {
    pub(super) async fn load(store: &Store) -> Result<Room, store::Error> {
        let mut room = Room {
            positions: BTreeMap::new(),
            stale: false,
            // Before what it stands for: what is changed meanwhile is read again, not missed.
            edition: store.edition().await?,
            rows: BTreeMap::new(),
            by_machine: BTreeMap::new(),
            due: BTreeSet::new(),
            silent: BTreeSet::new(),
            windows: BTreeMap::new(),
            begins: BTreeSet::new(),
        };
        let windows = store.maintenance_after(crate::delivery::now_us()).await?;
        room.take(store.alarms().await?, windows);
        room.read_positions(store).await?;
        Ok(room)
    }

    /// Reads again what the store has.
    pub(super) async fn refresh(&mut self, store: &Store) -> Result<(), store::Error> {
        let Some(edition) = self.edition else {
            *self = Room::load(store).await?;
            return Ok(());
        };
        let newest = store.edition().await?;
        let (changed, mut windows) = store.changed_since(edition).await?;
        // The beginning of one may have been told to a step that was not written.
        windows.extend(store.maintenance_after(crate::delivery::now_us()).await?);
        self.read_positions(store).await?;
        self.take(changed, windows);
        self.edition = newest;
        self.stale = false;
        Ok(())
    }

    async fn read_positions(&mut self, store: &Store) -> Result<(), store::Error> {
        for partition in 0..Topic::Alerts.partitions() {
            self.positions.insert(partition, store.portal_position(partition).await?);
        }
        Ok(())
    }

    /// Takes a step that was written, judged on this edition.
    pub(super) fn took(&mut self, position: Option<(u16, i64)>, changed: Vec<AlarmRow>, windows: Vec<MaintenanceRow>) {
        self.positions.extend(position);
        self.take(changed, windows);
        self.edition = self.edition.map(|edition| edition + 1);
        self.stale = false;
    }

    fn take(&mut self, changed: Vec<AlarmRow>, windows: Vec<MaintenanceRow>) {
        for row in changed {
            let id = row.id;
            if let Some(due_us) = self.rows.get(&id).and_then(|old| old.alarm.due_us()) {
                self.due.remove(&(due_us, id));
            }
            if let Some(due_us) = row.alarm.due_us() {
                self.due.insert((due_us, id));
            }
            if row.alarm.standing && row.alarm.condition == "no_data" {
                self.silent.insert(id);
            } else {
                self.silent.remove(&id);
            }
            self.by_machine.entry(row.alarm.machine_id.clone()).or_default().insert(id);
            self.rows.insert(id, row);
        }
        for window in windows {
            // One that has begun is found to be in force already: to be told of it again changes nothing.
            self.begins.insert((window.from_us, window.machine_id.clone()));
            self.windows.entry(window.machine_id.clone()).or_default().insert(window.from_us, window);
        }
    }

    /// The edition of the alarms that this is; `None`: nobody else writes them.
    pub(super) fn edition(&self) -> Option<i64> {
        self.edition
    }

    /// Where the portal stands in a partition.
    pub(super) fn position(&self, partition: u16) -> i64 {
        self.positions.get(&partition).copied().unwrap_or(0)
    }

    pub(super) fn row(&self, id: Uuid) -> Option<&AlarmRow> {
        self.rows.get(&id)
    }

    pub(super) fn of_machine(&self, machine: &str) -> impl Iterator<Item = &AlarmRow> {
        self.by_machine.get(machine).into_iter().flatten().filter_map(|id| self.rows.get(id))
    }

    /// Standing alarms of the condition `no_data`.
    pub(super) fn silent(&self) -> impl Iterator<Item = &AlarmRow> {
        self.silent.iter().filter_map(|id| self.rows.get(id))
    }

    /// The maintenance window in which a machine is at a time; of several the one that ends last.
    pub(super) fn window(&self, machine: &str, at_us: i64) -> Option<&MaintenanceRow> {
        let begun = self.windows.get(machine)?.range(..=at_us).map(|(_, window)| window);
        begun.filter(|window| at_us < window.until_us).max_by_key(|window| window.until_us)
    }

    /// The next maintenance window that a machine is to have after a time.
    pub(super) fn planned(&self, machine: &str, at_us: i64) -> Option<&MaintenanceRow> {
        let later = self.windows.get(machine)?.range(at_us + 1..).map(|(_, window)| window);
        later.into_iter().find(|window| window.from_us < window.until_us)
    }

    /// Windows that have begun by `now_us`, each told once. Those that are over are forgotten.
    pub(super) fn begun_by(&mut self, now_us: i64) -> Vec<MaintenanceRow> {
        let mut begun = Vec::new();
        while self.begins.first().is_some_and(|(from_us, _)| *from_us <= now_us) {
            let Some((from_us, machine)) = self.begins.pop_first() else { break };
            let Some(windows) = self.windows.get_mut(&machine) else { continue };
            windows.retain(|_, window| window.until_us > now_us);
            begun.extend(windows.get(&from_us).cloned());
        }
        begun
    }

    pub(super) fn due_us(&self) -> Option<i64> {
        let due = self.due.first().map(|(due_us, _)| *due_us);
        let begins = self.begins.first().map(|(from_us, _)| *from_us);
        due.into_iter().chain(begins).min()
    }

    /// Alarms for which the clock has come.
    pub(super) fn due_by(&self, now_us: i64) -> Vec<Uuid> {
        self.due.range(..=(now_us, Uuid::max())).map(|(_, id)| *id).collect()
    }
}
