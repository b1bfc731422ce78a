//! The alarms, in memory and in the store: one lock, one transaction a step.
//!
//! Several portals may share a database: a step is judged on an edition of the alarms and written only where that is still
//! the newest. Who was overtaken reads what changed and judges again.

mod groups;
mod room;
mod scattered;
mod step;
mod storm;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use view::view;

use crate::{hub::Hub, quiet::QuietArrivals};
use alarm::{Action, Alarm, Audit, Change, Command, Criticality, Event};
use catalog::{Catalogue, Severity};
use room::Room;
use std::{sync::Arc, time::Duration};
use step::Step;
use store::{
    AlarmRow, Attempted, MachineRow, MaintenanceRow, NewAudit, NewEvent, NotificationRow, Record, Store,
    history::Scattered,
};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use uuid::Uuid;
use wire::{Alert, AlertText};

/// How often it is asked what other portals wrote.
const KEEP_UP_EVERY: Duration = Duration::from_millis(50);
/// Events taken onto the stream at once.
const EVENTS: usize = 256;

/// Every alarm. Whoever changes one holds the lock until the change is durable. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Alarms {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    hub: Arc<Hub>,
    rules: Rules,
    room: Arc<Mutex<Room>>,
    /// When the clock has something to say next, microseconds since 1970.
    due: watch::Sender<Option<i64>>,
    /// Changes whenever notifications were queued.
    queued: watch::Sender<()>,
}

/// What decides who is told what.
struct Rules {
    store: Store,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    /// Names of the channels.
    channels: Vec<String>,
    /// Nobody is notified of these.
    quiet: QuietArrivals,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("there is no alarm {0}")]
    Missing(Uuid),
    #[error(transparent)]
    Illegal(#[from] alarm::Illegal),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Whether another portal was quicker: nothing was written, and the step is to be judged again.
trait Overtaken {
    fn overtaken(&self) -> bool;
}

impl Overtaken for store::Error {
    fn overtaken(&self) -> bool {
        matches!(self, store::Error::Overtaken)
    }
}

impl Overtaken for CommandError {
    fn overtaken(&self) -> bool {
        matches!(self, CommandError::Store(error) if error.overtaken())
    }
}

/// Judges and writes a step, again and again while another portal is quicker.
macro_rules! until_written {
    ($step:block) => {
        loop {
            match async { $step }.await {
                Err(error) if Overtaken::overtaken(&error) => {}
                done => break done,
            }
        }
    };
}

impl Alarms {
    /// Reads every alarm from the store.
    pub(crate) async fn load(parts: &crate::Parts, hub: Arc<Hub>) -> Result<Alarms, store::Error> {
        let channels = parts.settings.notifiers.iter().map(|(name, _)| name.clone()).collect();
        Alarms::open(parts.store.clone(), parts.catalogue.subscribe(), channels, parts.settings.quiet.clone(), hub)
            .await
    }

    /// As [`Alarms::load`], by what it needs alone.
    pub(crate) async fn open(
        store: Store,
        catalogue: watch::Receiver<Arc<Catalogue>>,
        channels: Vec<String>,
        quiet: QuietArrivals,
        hub: Arc<Hub>,
    ) -> Result<Alarms, store::Error> {
        let room = Room::load(&store).await?;
        let inner = Inner {
            due: watch::Sender::new(room.due_us()),
            room: Arc::new(Mutex::new(room)),
            queued: watch::Sender::new(()),
            rules: Rules { store: store.clone(), catalogue, channels, quiet },
            store,
            hub,
        };
        Ok(Alarms { inner: Arc::new(inner) })
    }

    /// Carries out a person's order: alarm, audit and event in one transaction, then told on the stream.
    pub(crate) async fn command(&self, id: Uuid, command: Command) -> Result<AlarmRow, CommandError> {
        let inner = self.inner.clone();
        finish(async move {
            until_written!({
                let mut room = inner.enter().await?;
                let mut step = Step::new(&room, &inner.rules);
                let row = step.row(id).cloned().ok_or(CommandError::Missing(id))?;
                let row = step.order(row, &command)?;
                let done = step.done();
                inner.write(&mut room, done).await?;
                Ok(row)
            })
        })
        .await
    }

    /// A machine's maintenance window begins (`Action::BeginMaintenance`) or ends early (`Action::EndMaintenance`):
    /// every alarm of it, and those to come.
    pub(crate) async fn maintenance(&self, machine: &str, command: Command) -> Result<Vec<AlarmRow>, CommandError> {
        let (inner, machine) = (self.inner.clone(), machine.to_owned());
        finish(async move {
            until_written!({
                let mut room = inner.enter().await?;
                let mut standing = room.window(&machine, command.at_us).cloned();
                if matches!(command.action, Action::EndMaintenance) {
                    // Where none stands the next one that is planned is called off.
                    standing = standing.or_else(|| room.planned(&machine, command.at_us).cloned());
                }
                // The window is judged by the rules of an alarm, also where the machine has none yet.
                let mut judged = Alarm::new(&machine, "maintenance", "Maintenance", Criticality::default());
                judged.maintenance = standing.as_ref().map(step::maintenance_of);
                let outcome = judged.apply(&Event::Person(command.clone()))?;

                let mut step = Step::new(&room, &inner.rules);
                if let Some(audit) = outcome.audit {
                    step.note(format!("machine:{machine}"), audit);
                }
                if let Some(window) = window(&machine, standing, &command) {
                    step.record.maintenance.push(window);
                }
                let mut rows: Vec<AlarmRow> = step.of_machine(&machine).into_iter().cloned().collect();
                // Who was first is told first, so that those who follow stay silent.
                rows.sort_by_key(|row| row.group.is_some());
                let mut changed = Vec::with_capacity(rows.len());
                for row in rows {
                    // An alarm that is in no window has none to end.
                    if matches!(command.action, Action::EndMaintenance) && row.alarm.maintenance.is_none() {
                        continue;
                    }
                    changed.push(step.order(row, &command)?);
                }
                let done = step.done();
                inner.write(&mut room, done).await?;
                Ok(changed)
            })
        })
        .await
    }

    /// A machine's maintenance window (`Action::BeginMaintenance`) is to begin at `from_us`, which lies ahead: the clock
    /// begins it. Its alarms as they are.
    pub(crate) async fn plan(
        &self,
        machine: &str,
        from_us: i64,
        command: Command,
    ) -> Result<Vec<AlarmRow>, CommandError> {
        let (inner, machine) = (self.inner.clone(), machine.to_owned());
        finish(async move {
            until_written!({
                let mut room = inner.enter().await?;
                // Judged as it will be when it begins.
                let begin = Command { at_us: from_us, ..command.clone() };
                let outcome = Alarm::new(&machine, "maintenance", "Maintenance", Criticality::default())
                    .apply(&Event::Person(begin.clone()))?;
                let mut step = Step::new(&room, &inner.rules);
                if let Some(audit) = outcome.audit {
                    let why = audit.why.map(|reason| format!("from {}: {reason}", wire::format_time(from_us)));
                    let (action, to) = ("plan_maintenance".to_owned(), audit.from.clone());
                    step.note(format!("machine:{machine}"), Audit { at_us: command.at_us, action, to, why, ..audit });
                }
                step.record.maintenance.extend(window(&machine, None, &begin));
                let rows = step.of_machine(&machine).into_iter().cloned().collect();
                let done = step.done();
                inner.write(&mut room, done).await?;
                Ok(rows)
            })
        })
        .await
    }

    /// Writes registry rows with their audit and events; alarms follow a changed criticality.
    pub(crate) async fn register(
        &self,
        machines: Vec<MachineRow>,
        audit: Vec<NewAudit>,
        events: Vec<NewEvent>,
    ) -> Result<(), store::Error> {
        let inner = self.inner.clone();
        finish(async move {
            until_written!({
                let mut room = inner.enter().await?;
                let mut step = Step::new(&room, &inner.rules);
                step.record.audit = audit.clone();
                step.record.events = events.clone();
                for machine in &machines {
                    step.set_criticality(machine);
                }
                step.record.machines = machines.clone();
                let done = step.done();
                inner.write(&mut room, done).await
            })
        })
        .await
    }

    /// Where the portal stands in a partition of the alerts; the outbox is partition 0.
    pub(crate) async fn position(&self, partition: u16) -> Result<i64, store::Error> {
        let mut room = self.inner.enter().await?;
        if room.edition().is_some() {
            room.refresh(&self.inner.store).await?;
        }
        Ok(room.position(partition))
    }

    /// Takes alerts of a partition in its order: (position after it, alert's JSON). What is not above the portal's
    /// position was taken before, and so was an alert whose id is known: a relay may tell it twice.
    ///
    /// # Errors
    /// Another portal went on from here, or the store failed; nothing was written, or the next call finds it written.
    pub(crate) async fn deliver(&self, partition: u16, batch: Vec<(i64, String)>) -> Result<(), store::Error> {
        until_written!({
            let mut room = self.inner.enter().await?;
            let from = room.position(partition);
            let mut to = from;
            let mut alerts: Vec<(Alert, &str)> = batch
                .iter()
                .filter(|(position, _)| *position > from)
                .filter_map(|(position, json)| {
                    to = *position;
                    Alert::from_json(json)
                        .inspect_err(|error| tracing::error!(partition, position, %error, "this is no alert"))
                        .ok()
                        .map(|alert| (alert, &**json))
                })
                .collect();
            if to <= from {
                return Ok(());
            }
            let ids = alerts.iter().map(|(alert, _)| alert.alert_id).collect();
            let mut known = self.inner.store.known_alerts(ids).await?;
            alerts.retain(|(alert, _)| known.insert(alert.alert_id));
            let registry = storm::registry(&self.inner.store, &room, alerts.iter().map(|(alert, _)| alert)).await?;
            let mut step = Step::new(&room, &self.inner.rules);
            step.record.partition = partition;
            step.record.position = Some((from, to));
            for (alert, json) in &alerts {
                step.alert(alert, json, &registry);
            }
            storm::judge(&mut step, alerts.iter().map(|(alert, _)| alert), &registry);
            let done = step.done();
            self.inner.write(&mut room, done).await
        })
    }

    /// What the clock brings: shelves that end, alarms that ask again, maintenance that begins or is over.
    pub(crate) async fn clock(&self, now_us: i64) -> Result<(), store::Error> {
        until_written!({
            let mut room = self.inner.enter().await?;
            let begun = room.begun_by(now_us);
            // Told to the caller's loop also where nothing is written below.
            self.inner.due.send_replace(room.due_us());
            let mut step = Step::new(&room, &self.inner.rules);
            // Before the end of another window, so that no alarm is told of between the two.
            begun.iter().for_each(|window| step.begin(window, now_us));
            let mut due = room.due_by(now_us);
            if due.is_empty() && step.record.audit.is_empty() {
                return Ok(());
            }
            // Who was first is told first, so that those who follow stay silent.
            due.sort_by_key(|id| step.row(*id).is_some_and(|row| row.group.is_some()));
            for id in due {
                step.clock(id, now_us);
            }
            let done = step.done();
            self.inner.write(&mut room, done).await
        })
    }

    /// Tells of machines whose readings come on two partitions, as long as they do.
    pub(crate) async fn scattered(&self, machines: &[Scattered], at_us: i64) -> Result<(), store::Error> {
        until_written!({
            let mut room = self.inner.enter().await?;
            let mut step = Step::new(&room, &self.inner.rules);
            if !scattered::judge(&mut step, machines, at_us) {
                return Ok(());
            }
            let done = step.done();
            self.inner.write(&mut room, done).await
        })
    }

    /// Takes what other portals write into the room and onto the stream; ends at once where there can be no other.
    pub(crate) async fn keep_up(&self) {
        let mut seen = None;
        let mut failing = false;
        loop {
            match self.catch_up(seen).await {
                Ok(None) => return,
                Ok(newest) => (seen, failing) = (newest, false),
                // Said once, however long it lasts.
                Err(error) if !failing => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "could not ask what other portals wrote");
                    failing = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(KEEP_UP_EVERY).await;
        }
    }

    /// Takes what was written after `seen`, (edition, last seq): the newest of both.
    async fn catch_up(&self, seen: Option<(i64, u64)>) -> Result<Option<(i64, u64)>, store::Error> {
        let Inner { store, hub, room, due, queued, .. } = &*self.inner;
        let Some(newest) = store.edition().await? else { return Ok(None) };
        let mut told = match seen {
            Some((edition, _)) if edition == newest => return Ok(seen),
            Some((_, told)) => told,
            None => store.event_range().await?.1,
        };
        let mut room = room.clone().lock_owned().await;
        if room.edition().is_some_and(|edition| edition < newest) {
            room.refresh(store).await?;
            due.send_replace(room.due_us());
            queued.send_replace(());
        }
        drop(room);
        loop {
            // What this portal told before is known to who follows.
            let events = store.events_after(told, EVENTS).await?;
            let Some(last) = events.last() else { return Ok(Some((newest, told))) };
            told = last.seq;
            hub.publish(&events);
        }
    }

    /// Changes with what the clock waits for.
    pub(crate) fn due(&self) -> watch::Receiver<Option<i64>> {
        self.inner.due.subscribe()
    }

    /// Changes whenever notifications were queued.
    pub(crate) fn queued(&self) -> watch::Receiver<()> {
        self.inner.queued.subscribe()
    }

    /// A notification was taken: its channel is well.
    pub(crate) async fn sent(&self, row: &NotificationRow, at_us: i64) -> Result<(), store::Error> {
        until_written!({
            let mut room = self.inner.enter().await?;
            let mut step = Step::new(&room, &self.inner.rules);
            let (id, _) = channel_alarm(&row.channel);
            let Some(alarm) = step.row(id).filter(|alarm| alarm.alarm.standing).cloned() else {
                drop(room);
                return self.inner.store.attempted(row.id, at_us, Attempted::Sent).await;
            };
            step.record.attempted.push((row.id, at_us, Attempted::Sent));
            step.system(alarm, Change::Cleared, row.id, Severity::Critical, at_us, "");
            let done = step.done();
            self.inner.write(&mut room, done).await
        })
    }

    /// A notification will never arrive: people hear of it on the other channels.
    pub(crate) async fn dead(&self, row: &NotificationRow, at_us: i64, why: String) -> Result<(), store::Error> {
        until_written!({
            let mut room = self.inner.enter().await?;
            let mut step = Step::new(&room, &self.inner.rules);
            let (id, part) = channel_alarm(&row.channel);
            let mut alarm = step.row(id).cloned().unwrap_or_else(|| AlarmRow {
                id,
                alarm: Alarm::of_system(&part, NOTIFICATION_DEAD, "Notification"),
                alert: None,
                text: None,
                group: None,
            });
            alarm.text = Some(AlertText {
                en: format!("channel {}: a notification was not delivered: {why}", row.channel),
                ko: format!("채널 {}: 알림 전달 실패: {why}", row.channel),
            });
            step.record.attempted.push((row.id, at_us, Attempted::Dead(why.clone())));
            step.system(alarm, Change::Raised, row.id, Severity::Critical, at_us, &row.channel);
            let done = step.done();
            self.inner.write(&mut room, done).await
        })
    }
}

impl Inner {
    /// Takes the lock. After a write whose outcome is unknown the store says what is.
    async fn enter(&self) -> Result<OwnedMutexGuard<Room>, store::Error> {
        let mut room = self.room.clone().lock_owned().await;
        if room.stale {
            room.refresh(&self.store).await?;
        }
        Ok(room)
    }

    /// Writes a step, then takes it into the room, then tells of it.
    async fn write(&self, room: &mut Room, (record, changed): (Record, Vec<AlarmRow>)) -> Result<(), store::Error> {
        room.stale = true;
        let position = record.position.map(|(_, to)| (record.partition, to));
        let windows = record.maintenance.clone();
        let notified = record.audit.iter().any(|line| !line.notify.is_empty());
        let events = self.store.record(record).await?;
        room.took(position, changed, windows);
        self.hub.publish(&events);
        self.due.send_replace(room.due_us());
        if notified {
            self.queued.send_replace(());
        }
        Ok(())
    }
}

/// Runs to its end also when the caller goes away: what is written must be told.
async fn finish<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

const NOTIFICATION_DEAD: &str = "notification_dead";

/// Id and part of the system alarm of a channel that fails.
fn channel_alarm(channel: &str) -> (Uuid, String) {
    let part = format!("channel:{channel}");
    (store::alarm_id(&part, NOTIFICATION_DEAD), part)
}

/// The window that an order leads to.
fn window(machine: &str, standing: Option<MaintenanceRow>, command: &Command) -> Option<MaintenanceRow> {
    match &command.action {
        Action::BeginMaintenance { until_us, reason } => Some(MaintenanceRow {
            machine_id: machine.to_owned(),
            // A window that is moved stays the same window.
            from_us: standing.map_or(command.at_us, |window| window.from_us),
            until_us: *until_us,
            reason: reason.clone(),
            by: command.by.clone(),
            role: command.role,
        }),
        Action::EndMaintenance => standing.map(|window| MaintenanceRow { until_us: command.at_us, ..window }),
        _ => None,
    }
}
