//! Everything that an engine said, in one piece, so that two runs can be compared to the bit.

use engine::{Counts, Effects, Engine, MachineEvent};
use wire::{Alert, Position};

/// The effects of a run, however they were cut into batches.
#[derive(Debug, Default, Clone)]
pub struct Journal {
    pub alerts: Vec<Alert>,
    pub events: Vec<MachineEvent>,
    pub machines: Vec<(String, String, i64)>,
    /// (Name, hash, content).
    pub fits: Vec<(String, String, String)>,
    /// Each machine once, in the order of the first time.
    pub touched: Vec<String>,
    pub rejects: Vec<(Position, String)>,
    pub counts: Counts,
}

impl Journal {
    /// Takes what one commit would.
    pub fn take(&mut self, effects: Effects) {
        self.alerts.extend(effects.alerts);
        self.events.extend(effects.events);
        self.machines
            .extend(effects.machines.into_iter().map(|(id, class, first_us)| (id.to_string(), class, first_us)));
        self.fits.extend(effects.fits.into_iter().map(|(name, fit)| {
            let content = serde_json::to_string(&fit).expect("a fit is JSON");
            (name, fit.hash(), content)
        }));
        for machine in effects.touched {
            if !self.touched.iter().any(|known| **known == *machine) {
                self.touched.push(machine.to_string());
            }
        }
        self.rejects.extend(effects.rejects.into_iter().map(|(position, reject)| (position, format!("{reject:?}"))));
        let (sum, more) = (&mut self.counts, effects.counts);
        sum.in_order += more.in_order;
        sum.out_of_order += more.out_of_order;
        sum.late += more.late;
        sum.ahead += more.ahead;
        sum.duplicate += more.duplicate;
        sum.refused += more.refused;
        sum.spikes += more.spikes;
        sum.counter_falls += more.counter_falls;
    }

    /// Without what the wall clock gave.
    pub fn without_no_data(mut self) -> Journal {
        self.alerts.retain(|alert| alert.condition != "no_data");
        self
    }

    /// Fails at the first difference.
    #[track_caller]
    pub fn assert_same(&self, other: &Journal, what: &str) {
        let json = |journal: &Journal| journal.alerts.iter().map(Alert::to_json).collect::<Vec<_>>();
        same(what, "alert", &json(self), &json(other));
        same(what, "event", &self.events, &other.events);
        same(what, "machine", &self.machines, &other.machines);
        same(what, "fit", &self.fits, &other.fits);
        same(what, "reject", &self.rejects, &other.rejects);
        assert_eq!(self.counts, other.counts, "{what}: counts");
    }
}

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, kind: &str, left: &[T], right: &[T]) {
    let at = left.iter().zip(right).position(|(left, right)| left != right).unwrap_or(left.len().min(right.len()));
    assert!(
        left.len() == right.len() && at == left.len(),
        "{what}: {kind} {at} of {} and {} differs:\n  {:?}\n  {:?}",
        left.len(),
        right.len(),
        left.get(at),
        right.get(at)
    );
}

/// What screens show of every machine; `with_no_data` false leaves that condition out.
pub fn lives(engine: &Engine, with_no_data: bool) -> Vec<String> {
    let machines = engine.machines();
    let live = |machine| {
        let mut live = engine.live(machine).expect("a machine that was seen has a live view");
        live.conditions.retain(|standing| with_no_data || standing.condition != "no_data");
        let class = &live.class.id;
        assert_eq!(engine.class_of(machine), Some(class.as_str()));
        format!(
            "{:?} {class} {:?} {} {} {:?} {:x} {:?} {:?} {:?} {} {:?}",
            live.machine,
            live.state,
            live.last_seen_us,
            live.arrived_us,
            live.values,
            live.quality,
            live.windows,
            live.derived,
            live.score,
            live.learned_us,
            live.conditions
        )
    };
    machines.iter().map(|machine| live(machine)).collect()
}
