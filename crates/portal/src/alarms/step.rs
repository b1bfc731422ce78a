//! One step: events applied to copies of the alarms they concern, and what is to be written for them.

use super::{Rules, groups, room::Room, view};
use alarm::{Action, Alarm, Audit, Change, Command, Criticality, Event, Illegal, Maintenance, Subject, Transition};
use catalog::Severity;
use notify::Message;
use std::collections::BTreeMap;
use store::{AlarmRow, MachineRow, MaintenanceRow, NewAudit, NewEvent, NewNotification, Record};
use uuid::Uuid;
use wire::{Alert, AlertText};

/// Machines of the registry, by id, that a step may ask for.
pub(super) type Registry = BTreeMap<String, MachineRow>;

/// A step in the making. The room stays as it is until the step is durable.
pub(super) struct Step<'a> {
    room: &'a Room,
    rules: &'a Rules,
    changed: BTreeMap<Uuid, AlarmRow>,
    pub(super) record: Record,
}

impl<'a> Step<'a> {
    pub(super) fn new(room: &'a Room, rules: &'a Rules) -> Step<'a> {
        let record = Record { edition: room.edition(), ..Record::default() };
        Step { room, rules, changed: BTreeMap::new(), record }
    }

    /// What is to be written, and the rows to be taken into the room then.
    pub(super) fn done(self) -> (Record, Vec<AlarmRow>) {
        let rows: Vec<AlarmRow> = self.changed.into_values().collect();
        (Record { alarms: rows.clone(), ..self.record }, rows)
    }

    /// An alarm as it is in this step.
    pub(super) fn row(&self, id: Uuid) -> Option<&AlarmRow> {
        self.changed.get(&id).or_else(|| self.room.row(id))
    }

    /// Alarms of a machine as they are in this step, in an order that does not depend on where steps are cut.
    pub(super) fn of_machine(&self, machine: &str) -> Vec<&AlarmRow> {
        let new = self.changed.values().filter(|row| row.alarm.machine_id == machine);
        self.together(self.room.of_machine(machine), new)
    }

    /// Standing alarms of the condition `no_data` as they are in this step, in such an order too.
    pub(super) fn silent(&self) -> Vec<&AlarmRow> {
        let new = self.changed.values().filter(|row| row.alarm.standing && row.alarm.condition == "no_data");
        self.together(self.room.silent(), new)
    }

    fn together<'r>(
        &'r self,
        old: impl Iterator<Item = &'r AlarmRow>,
        new: impl Iterator<Item = &'r AlarmRow>,
    ) -> Vec<&'r AlarmRow> {
        let mut rows: Vec<&AlarmRow> = old.filter(|row| !self.changed.contains_key(&row.id)).chain(new).collect();
        rows.sort_unstable_by_key(|row| row.id);
        rows
    }

    /// The engine tells of a condition.
    pub(super) fn alert(&mut self, alert: &Alert, json: &str, registry: &Registry) {
        self.record.events.push(NewEvent { kind: "alert".into(), data: json.to_owned() });
        let id = store::alarm_id(&alert.machine_id, &alert.condition);
        let criticality = registry.get(&alert.machine_id).map_or(Criticality::default(), criticality);
        let mut row = match self.row(id) {
            Some(row) => row.clone(),
            None => self.first(id, Alarm::of(alert, criticality), alert.arrived_at),
        };
        let transition = Transition::from(alert);
        let change = transition.change;
        if change == Change::Raised {
            row.alarm.set_criticality(criticality);
        }
        let outcome = row.alarm.apply(&Event::Engine(transition)).expect("an event of the engine never fails");
        let Some(mut audit) = outcome.audit else { return };
        if matches!(change, Change::Raised | Change::Severity) {
            row.alert = Some(json.to_owned());
        }
        if change == Change::Raised {
            let catalogue = self.rules.catalogue.borrow().clone();
            let place = groups::place(self, &row, catalogue.class(&alert.class), alert.timestamp, alert.arrived_at);
            row.group = place.group;
            for follower in place.follow {
                self.join(follower, place.group.unwrap_or(id));
            }
            audit.annunciates &= !place.silent;
        } else {
            audit.annunciates &= !groups::is_silent(self, &row, alert.arrived_at);
        }
        self.change(row, audit, "");
    }

    /// A condition of the system itself, which the portal raises and clears; `by` is what it follows from. The channel
    /// `but` is not notified.
    pub(super) fn system(
        &mut self,
        mut row: AlarmRow,
        change: Change,
        by: Uuid,
        severity: Severity,
        at_us: i64,
        but: &str,
    ) {
        let name = format!("{}|{by}", change.as_str());
        let alert_id = Uuid::new_v5(&row.id, name.as_bytes());
        let condition_id = match change {
            Change::Raised => alert_id,
            _ => row.alarm.condition_id.unwrap_or(alert_id),
        };
        let transition = Transition { change, alert_id, condition_id, severity, event_us: at_us, arrived_us: at_us };
        let outcome = row.alarm.apply(&Event::Engine(transition)).expect("an event of the engine never fails");
        if let Some(audit) = outcome.audit {
            self.change(row, audit, but);
        }
    }

    /// A person orders; the alarm as it is then.
    pub(super) fn order(&mut self, mut row: AlarmRow, command: &Command) -> Result<AlarmRow, Illegal> {
        let outcome = row.alarm.apply(&Event::Person(command.clone()))?;
        let Some(mut audit) = outcome.audit else { return Ok(row) };
        if matches!(command.action, Action::EndMaintenance) {
            audit.annunciates &= !groups::is_silent(self, &row, command.at_us);
        }
        Ok(self.change(row, audit, ""))
    }

    /// A maintenance window has begun: alarms that it does not hold yet come into it.
    pub(super) fn begin(&mut self, window: &MaintenanceRow, now_us: i64) {
        let action = Action::BeginMaintenance { until_us: window.until_us, reason: window.reason.clone() };
        let command = Command { by: window.by.clone(), role: window.role, at_us: now_us, action };
        let outside =
            |row: &&AlarmRow| row.alarm.maintenance.as_ref().is_none_or(|standing| standing.until_us < window.until_us);
        let rows: Vec<AlarmRow> = self.of_machine(&window.machine_id).into_iter().filter(outside).cloned().collect();
        for row in rows {
            self.order(row, &command).expect("it was allowed when it was planned, and is not over");
        }
    }

    /// The clock has come to `now_us`.
    pub(super) fn clock(&mut self, id: Uuid, now_us: i64) {
        let Some(mut row) = self.row(id).cloned() else { return };
        while row.alarm.due_us().is_some_and(|due_us| due_us <= now_us) {
            let outcome = row.alarm.apply(&Event::Clock { now_us }).expect("the clock never fails");
            let Some(mut audit) = outcome.audit else { return };
            if audit.action == "maintenance_ended" {
                audit.annunciates &= !groups::is_silent(self, &row, now_us);
            }
            row = self.change(row, audit, "");
        }
    }

    /// The registry says how much the plant depends on a machine.
    pub(super) fn set_criticality(&mut self, machine: &MachineRow) {
        let criticality = criticality(machine);
        let differ = |row: &&AlarmRow| row.alarm.criticality != criticality && row.alarm.subject != Subject::System;
        let rows: Vec<AlarmRow> = self.of_machine(&machine.machine_id).into_iter().filter(differ).cloned().collect();
        for mut row in rows {
            row.alarm.set_criticality(criticality);
            self.show(row);
        }
    }

    /// An alarm follows another, which was first; or itself is the first.
    pub(super) fn join(&mut self, id: Uuid, first: Uuid) {
        let group = (id != first).then_some(first);
        if let Some(row) = self.row(id).filter(|row| row.group != group) {
            let row = AlarmRow { group, ..row.clone() };
            self.show(row);
        }
    }

    /// What was to be told of an alarm in this step is not told.
    pub(super) fn silence(&mut self, id: Uuid) {
        let subject = subject(id);
        for line in self.record.audit.iter_mut().filter(|line| line.subject == subject) {
            line.audit.annunciates = false;
            line.notify.clear();
        }
        if let Some(row) = self.changed.get_mut(&id) {
            untold(&mut row.alarm, self.room.row(id));
        }
    }

    /// A line of the audit log that changes no alarm.
    pub(super) fn note(&mut self, subject: String, audit: Audit) {
        self.record.audit.push(NewAudit { subject, audit, notify: Vec::new() });
    }

    /// An alarm that was never raised: while its machine is worked on it begins in the window.
    fn first(&mut self, id: Uuid, alarm: Alarm, at_us: i64) -> AlarmRow {
        let mut row = AlarmRow { id, alarm, alert: None, text: None, group: None };
        let Some(window) = self.room.window(&row.alarm.machine_id, at_us).cloned() else { return row };
        let action = Action::BeginMaintenance { until_us: window.until_us, reason: window.reason };
        let command = Command { by: window.by, role: window.role, at_us, action };
        if let Ok(outcome) = row.alarm.apply(&Event::Person(command))
            && let Some(audit) = outcome.audit
        {
            row = self.change(row, audit, "");
        }
        row
    }

    /// An alarm changed: its audit line, who is told, its event.
    fn change(&mut self, mut row: AlarmRow, mut audit: Audit, but: &str) -> AlarmRow {
        if row.alarm.state == alarm::State::Normal {
            row.group = None;
        }
        audit.annunciates &= self.tells(&row);
        if !audit.annunciates {
            untold(&mut row.alarm, self.row(row.id));
        }
        let notify = if audit.annunciates { self.notifications(&row, &audit, but) } else { Vec::new() };
        self.record.audit.push(NewAudit { subject: subject(row.id), audit, notify });
        self.show(row.clone());
        row
    }

    /// An alarm looks otherwise from here.
    fn show(&mut self, row: AlarmRow) {
        self.record.events.push(NewEvent { kind: "alarm".into(), data: view(&row) });
        self.changed.insert(row.id, row);
    }

    /// People hear of this alarm at all.
    fn tells(&self, row: &AlarmRow) -> bool {
        let alarm = &row.alarm;
        let known = alarm.subject == Subject::System || self.rules.store.confirmed(&alarm.machine_id);
        let alert: Option<serde_json::Value> = row.alert.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let arrived = alert.as_ref().and_then(|alert| alert["arrived_at"].as_str());
        let arrived_us = arrived.and_then(|arrived| wire::parse_time(arrived.as_bytes()).ok());
        known && !arrived_us.is_some_and(|arrived_us| self.rules.quiet.holds(arrived_us))
    }

    /// One notification a channel.
    fn notifications(&self, row: &AlarmRow, audit: &Audit, but: &str) -> Vec<NewNotification> {
        let alarm = &row.alarm;
        let alert: Option<serde_json::Value> = row.alert.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let text = |key: &str| {
            let text = alert.as_ref().and_then(|alert| alert["text"][key].as_str());
            text.unwrap_or(&alarm.condition).to_owned()
        };
        let class = alert.as_ref().and_then(|alert| alert["class"].as_str()).unwrap_or_default();
        let action = self.rules.catalogue.borrow().class(class).and_then(|class| {
            let law = &class.laws[class.law_index(&alarm.condition)?];
            law.action.as_ref().map(|action| AlertText { en: action.en.clone(), ko: action.ko.clone() })
        });
        // Event time where the engine told it; a person or the clock acts by the wall.
        let told_by_engine = audit.by == "engine";
        let event_us = if told_by_engine { self.event_us(row, audit) } else { audit.at_us };
        let message = Message {
            machine_id: alarm.machine_id.clone(),
            condition: alarm.condition.clone(),
            failure_type: alarm.failure_type.clone(),
            severity: alarm.severity.as_str().to_owned(),
            priority: alarm.priority,
            kind: if audit.action == Change::Severity.as_str() { "changed".into() } else { audit.action.clone() },
            state: alarm.state.as_str().to_owned(),
            timestamp: wire::format_time(event_us),
            text: row.text.clone().unwrap_or_else(|| AlertText { en: text("en"), ko: text("ko") }),
            action,
            alert,
        };
        let payload = serde_json::to_string(&message).expect("a message has string keys");
        let alert_id = audit.alert_id.or(alarm.condition_id).unwrap_or(row.id);
        let notification = |channel: &String| NewNotification {
            channel: channel.clone(),
            alarm: row.id,
            alert: alert_id,
            payload: payload.clone(),
        };
        self.rules.channels.iter().filter(|channel| *channel != but).map(notification).collect()
    }

    /// Event time of the transition that an audit line tells.
    fn event_us(&self, row: &AlarmRow, audit: &Audit) -> i64 {
        #[derive(serde::Deserialize)]
        struct Told {
            alert_id: Uuid,
            #[serde(with = "wire::rfc3339")]
            timestamp: i64,
        }
        let told: Option<Told> = row.alert.as_deref().and_then(|json| serde_json::from_str(json).ok());
        match told {
            Some(told) if Some(told.alert_id) == audit.alert_id => told.timestamp,
            _ => audit.at_us,
        }
    }
}

/// The window as an alarm has it.
pub(super) fn maintenance_of(window: &MaintenanceRow) -> Maintenance {
    Maintenance { until_us: window.until_us, reason: window.reason.clone(), by: window.by.clone() }
}

/// What an alarm annunciated since `before` was told to nobody.
fn untold(alarm: &mut Alarm, before: Option<&AlarmRow>) {
    match before {
        Some(before) => alarm.untold(&before.alarm),
        None => alarm.untold(&Alarm::new("", "", "", Criticality::default())),
    }
}

fn subject(id: Uuid) -> String {
    format!("alarm:{id}")
}

fn criticality(machine: &MachineRow) -> Criticality {
    machine.criticality.as_deref().and_then(Criticality::from_word).unwrap_or_default()
}
