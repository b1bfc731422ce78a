//! Every alarm in memory, as the store has it, with what is asked of all of them at once.

use std::collections::{BTreeMap, BTreeSet};
use store::{AlarmRow, MaintenanceRow, Store};
use uuid::Uuid;

/// What the lock guards.
pub(super) struct Room {
    /// The portal's position in the outbox.
    pub(super) position: i64,
    /// What the store has is not known: it must be read again.
    pub(super) stale: bool,
    rows: BTreeMap<Uuid, AlarmRow>,
    by_machine: BTreeMap<String, BTreeSet<Uuid>>,
    /// What the clock waits for.
    due: BTreeSet<(i64, Uuid)>,
    /// Standing alarms of the condition `no_data`.
    silent: BTreeSet<Uuid>,
    /// The last maintenance window of each machine.
    windows: BTreeMap<String, MaintenanceRow>,
}

impl Room {
    pub(super) async fn load(store: &Store) -> Result<Room, store::Error> {
        let position = store.portal_position().await?;
        let mut room = Room {
            position,
            stale: false,
            rows: BTreeMap::new(),
            by_machine: BTreeMap::new(),
            due: BTreeSet::new(),
            silent: BTreeSet::new(),
            windows: BTreeMap::new(),
        };
        let windows = store.maintenance_after(crate::delivery::now_us()).await?;
        room.take(None, store.alarms().await?, windows);
        Ok(room)
    }

    /// Takes what was written.
    pub(super) fn take(&mut self, position: Option<i64>, changed: Vec<AlarmRow>, windows: Vec<MaintenanceRow>) {
        if let Some(position) = position {
            self.position = position;
        }
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
            self.windows.insert(window.machine_id.clone(), window);
        }
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

    /// The maintenance window in which a machine is at a time.
    pub(super) fn window(&self, machine: &str, at_us: i64) -> Option<&MaintenanceRow> {
        self.windows.get(machine).filter(|window| window.from_us <= at_us && at_us < window.until_us)
    }

    pub(super) fn due_us(&self) -> Option<i64> {
        self.due.first().map(|(due_us, _)| *due_us)
    }

    /// Alarms for which the clock has come.
    pub(super) fn due_by(&self, now_us: i64) -> Vec<Uuid> {
        self.due.range(..=(now_us, Uuid::max())).map(|(_, id)| *id).collect()
    }
}
