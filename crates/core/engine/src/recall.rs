//! What stands by the history, for an engine that could not see it being raised.

use crate::{
    Engine,
    condition::{Condition, Gone, NEVER, What},
    engine::add_machine,
    laws::FOUND_LATE_US,
    machine::{Slab, place},
    rules::Rules,
};
use catalog::{Class, MachineId, Severity};
use std::sync::Arc;
use wire::{Alert, AlertId};

impl Engine {
    /// A `no_data` that stands in the history since before this engine: its machine's next reading clears it. Nothing
    /// where the machine is unknown, has talked since, or the engine knows already.
    pub fn recall_no_data(&mut self, machine: &str, condition_id: AlertId, started_us: i64) {
        let Some(found) = self.index.find(&self.slabs, machine) else { return };
        let (slab, at) = place(found);
        let slab = &mut self.slabs[slab];
        let machine = &mut slab.machines[at];
        if machine.last_us != started_us || machine.standing(&What::NoData).is_some() {
            return;
        }
        slab.changed = true;
        machine.trouble().stand(Condition {
            what: What::NoData,
            id: condition_id,
            severity: Severity::Warning,
            started_us,
            suspended: false,
            found_late: false,
        });
    }

    /// Lets exactly these conditions stand, each by its last alert, of an engine that was given only the end of what led
    /// to them. Nothing is told: what stands is cleared under the id under which it was raised, and what stands by those
    /// readings alone is raised when one says so again. What lies below `offset` was given, or is gone.
    pub fn recall(&mut self, standing: &[Alert], offset: i64) {
        self.next_offset = self.next_offset.max(offset);
        for slab in &mut self.slabs {
            for trouble in slab.machines.iter_mut().filter_map(|machine| machine.trouble.as_deref_mut()) {
                slab.changed |= !trouble.conditions.is_empty();
                trouble.conditions.clear();
            }
        }
        for alert in standing {
            if let Some((slab, at)) = self.machine_of(alert) {
                let slab = &mut self.slabs[slab];
                let rules = &self.kinds[slab.kind].rules;
                stand(rules, slab, at, alert);
            }
        }
        for slab in &mut self.slabs {
            let rules = &self.kinds[slab.kind].rules;
            for machine in &mut slab.machines {
                let Some(trouble) = machine.trouble.as_deref_mut() else { continue };
                let laws = trouble.conditions.iter().filter_map(|condition| condition.what.law());
                let standing = laws.fold(0, |mask, law| mask | rules.laws[law].mask);
                trouble.timers.retain(|timer| !timer.active || standing >> timer.slot & 1 == 1);
                machine.settle_trouble();
            }
        }
    }

    /// The machine of an alert, made where none of its readings is left; `None` where its class is gone.
    fn machine_of(&mut self, alert: &Alert) -> Option<(usize, usize)> {
        if let Some(found) = self.index.find(&self.slabs, &alert.machine_id) {
            return Some(place(found));
        }
        let id = MachineId::try_from(&*alert.machine_id).ok()?;
        let class = Arc::clone(self.catalogue.class(&alert.class)?);
        let kind = self.kind(&class);
        let rules = &self.kinds[kind].rules;
        Some(place(add_machine(rules, kind, &mut self.slabs, &mut self.seen, &mut self.index, &id)))
    }
}

fn stand(rules: &Rules, slab: &mut Slab, at: usize, alert: &Alert) {
    let class = &rules.class;
    let what = what_of(alert, class);
    slab.changed = true;
    let machine = &mut slab.machines[at];
    let newest_us = machine.order.newest_us;
    let trouble = machine.trouble();
    if let Some(law) = what.law() {
        let of = &rules.laws[law];
        if !trouble.timers.iter().any(|timer| timer.active && of.mask >> timer.slot & 1 == 1) {
            // The levels below the one that was told hold as well; off_delay starts at the next unbroken reading.
            let levels = &class.laws[law].levels;
            let told = levels.iter().rposition(|level| level.severity <= alert.severity).unwrap_or(0);
            for slot in of.first..=of.first + told {
                let timer = trouble.timer(slot);
                timer.active = true;
                timer.since_us = NEVER;
            }
        }
    }
    if what == What::ClockSkew {
        trouble.skew_us = newest_us;
    }
    trouble.stand(Condition {
        what,
        id: alert.condition_id,
        severity: alert.severity,
        started_us: alert.started_at,
        suspended: alert.suspended == Some(true),
        found_late: alert.caught_up.is_none() && alert.timestamp < alert.arrived_at.saturating_sub(FOUND_LATE_US),
    });
}

/// The condition that an alert names, as its class has it.
fn what_of(alert: &Alert, class: &Class) -> What {
    let is_law = alert.model == "laws";
    let (kind, of) = alert.condition.split_once(':').unwrap_or((&alert.condition, ""));
    let channel = class.channel_index(of).map(|channel| channel as u8);
    let found = match (kind, channel) {
        _ if is_law => class.law_index(&alert.condition).map(|law| What::Law(law as u16)),
        ("model", _) => class.laws.is_empty().then_some(What::Model),
        ("stuck", Some(channel)) => Some(What::Stuck(channel)),
        ("quality", Some(channel)) => Some(What::Quality(channel)),
        ("refused", _) => Some(What::Refused(of.to_owned())),
        ("clock_skew", _) => Some(What::ClockSkew),
        ("no_data", _) => Some(What::NoData),
        _ => None,
    };
    found.unwrap_or_else(|| {
        What::Gone(Box::new(Gone {
            condition: alert.condition.clone(),
            failure_type: alert.failure_type.clone(),
            notice: alert.notice,
            law: is_law,
        }))
    })
}
