//! Conditions of the laws: their delays move, they are raised, changed and cleared, and it is told once.

use crate::{
    alert::{Moment, Reading, Said, Turn, with_evidence},
    condition::{Condition, Delays, Verdict, What},
    judge::Judge,
    machine::Slab,
    rules::bits,
};
use catalog::{Severity, State};
use scoring::{ClearedBy, cleared_text, explain_law, suspended_text};
use wire::Kind;

/// An alert whose event time lies further behind its arrival was found late.
pub(crate) const FOUND_LATE_US: i64 = 5 * 60 * 1_000_000;

/// What the laws say of a row, where they apply. Bits are slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits {
    pub(crate) judged: u64,
    pub(crate) broken: u64,
    pub(crate) held: u64,
}

impl Judge<'_> {
    /// Tells that a condition is suspended by a state, or judged again.
    pub(crate) fn tell_stop(
        &mut self,
        slab: &Slab,
        at: usize,
        moment: &Moment,
        condition: &Condition,
        left_for: Option<State>,
    ) {
        if moment.silent {
            return;
        }
        let class = &*self.rules.class;
        let machine = &slab.machines[at].id;
        let law = condition.what.law();
        let text = suspended_text(class, machine, &condition.what.name(class), law, left_for);
        let turn = if left_for.is_some() { Turn::SUSPENDED } else { Turn::RESUMED };
        let mut said = Said::plain(law.map(|law| class.laws[law].id.clone()), text);
        if let What::Model = condition.what {
            said.fit = self.learning.fit_at(moment.offset, moment.index).map(|frozen| frozen.hash.clone());
        }
        self.tell(machine, condition, turn, moment, said);
    }

    /// Moves the delays of the levels that the reading judges, and tells what follows.
    pub(crate) fn judge_laws(&mut self, slab: &mut Slab, at: usize, moment: &Moment, found: Bits, settled: bool) {
        let rules = self.rules;
        let interval_us = rules.class.interval_us;
        let trouble = slab.machines[at].trouble();
        let mut resumed = Vec::new();
        for condition in trouble.conditions.iter_mut().filter(|condition| condition.suspended) {
            let judged = match condition.what {
                What::Law(law) => found.judged & rules.laws[usize::from(law)].mask != 0,
                What::Model => settled,
                _ => false,
            };
            if judged {
                condition.suspended = false;
                resumed.push(condition.clone());
            }
        }
        for slot in bits(found.broken) {
            trouble.timer(slot);
        }
        for timer in &mut trouble.timers {
            let slot = usize::from(timer.slot);
            if found.judged >> slot & 1 == 1 {
                let verdict = Verdict { broken: found.broken >> slot & 1 == 1, held: found.held >> slot & 1 == 1 };
                let of = &rules.slots[slot];
                let delays = Delays { on_us: of.on_delay_us, off_us: of.off_delay_us, interval_us };
                timer.judge(moment.timestamp_us, verdict, delays);
            }
        }
        for condition in resumed {
            self.tell_stop(slab, at, moment, &condition, None);
        }
        self.tell_laws(slab, at, moment, true);
        if let Some(trouble) = &mut slab.machines[at].trouble {
            trouble.timers.retain(|timer| !timer.is_idle());
        }
    }

    /// Raises, moves and clears the conditions of the laws as their levels stand.
    pub(crate) fn tell_laws(&mut self, slab: &mut Slab, at: usize, moment: &Moment, with_windows: bool) {
        let rules = self.rules;
        let Some(trouble) = &slab.machines[at].trouble else { return };
        let active =
            trouble.timers.iter().filter(|timer| timer.active).fold(0, |mask, timer| mask | 1u64 << timer.slot);
        let standing = trouble
            .conditions
            .iter()
            .filter_map(|condition| condition.what.law())
            .fold(0, |mask, law| mask | rules.laws[law].mask);
        if active | standing == 0 {
            return;
        }
        for (law, of) in rules.laws.iter().enumerate() {
            if (active | standing) & of.mask == 0 {
                continue;
            }
            let level = bits(active & of.mask).last().map(|slot| slot - of.first);
            let what = What::Law(law as u16);
            let stands = slab.machines[at].standing(&what).map(|condition| condition.severity);
            match (stands, level) {
                (None, Some(level)) => {
                    let severity = rules.class.laws[law].levels[level].severity;
                    let said = self.explain(slab, at, moment, law, level, with_windows);
                    self.raise(slab, at, moment, what, severity, said);
                }
                (Some(severity), Some(level)) if rules.class.laws[law].levels[level].severity != severity => {
                    let severity = rules.class.laws[law].levels[level].severity;
                    let said = self.explain(slab, at, moment, law, level, with_windows);
                    self.change_severity(slab, at, moment, &what, severity, said);
                }
                (Some(_), None) => self.clear(slab, at, moment, &what, ClearedBy::Readings),
                _ => {}
            }
        }
    }

    /// Why a level of a law is broken; `None` where nobody is told.
    fn explain(
        &self,
        slab: &Slab,
        at: usize,
        moment: &Moment,
        law: usize,
        level: usize,
        with_windows: bool,
    ) -> Option<Said> {
        if moment.silent {
            return None;
        }
        let reading = Reading::of_row(self.batch, moment.row);
        let explained = with_evidence(self.rules, self.learning, slab, at, &reading, with_windows, |evidence| {
            explain_law(evidence, law, level)
        });
        Some(Said { score: explained.score, fit: None, reading: None, reason: explained.reason, text: explained.text })
    }

    /// A condition begins to stand; `said` is `None` where nobody is told.
    pub(crate) fn raise(
        &mut self,
        slab: &mut Slab,
        at: usize,
        moment: &Moment,
        what: What,
        severity: Severity,
        said: Option<Said>,
    ) {
        let machine = &mut slab.machines[at];
        let condition = Condition {
            id: moment.alert_id(&machine.id, &what.name(&self.rules.class), Kind::Raised),
            what,
            severity,
            started_us: moment.timestamp_us,
            suspended: false,
            found_late: moment.timestamp_us < moment.arrived_us.saturating_sub(FOUND_LATE_US),
        };
        machine.trouble().stand(condition.clone());
        if let Some(said) = said {
            self.tell(&slab.machines[at].id, &condition, Turn::RAISED, moment, said);
        }
    }

    pub(crate) fn change_severity(
        &mut self,
        slab: &mut Slab,
        at: usize,
        moment: &Moment,
        what: &What,
        severity: Severity,
        said: Option<Said>,
    ) {
        let conditions = &mut slab.machines[at].trouble().conditions;
        let Some(condition) = conditions.iter_mut().find(|condition| condition.what == *what) else { return };
        condition.severity = severity;
        let condition = condition.clone();
        if let Some(said) = said {
            self.tell(&slab.machines[at].id, &condition, Turn::CHANGED, moment, said);
        }
    }

    /// A condition stands no more; nothing where it does not stand.
    pub(crate) fn clear(&mut self, slab: &mut Slab, at: usize, moment: &Moment, what: &What, by: ClearedBy) {
        let class = &*self.rules.class;
        let machine = &mut slab.machines[at];
        let Some(trouble) = &mut machine.trouble else { return };
        let Some(place) = trouble.conditions.iter().position(|condition| condition.what == *what) else { return };
        let condition = trouble.conditions.remove(place);
        if moment.silent {
            return;
        }
        let law = condition.what.law();
        let name = condition.what.name(class);
        let text = cleared_text(class, &machine.id, &name, law, by);
        let law_id = match &condition.what {
            What::Gone(gone) if gone.law => Some(gone.condition.clone()),
            _ => law.map(|law| class.laws[law].id.clone()),
        };
        let mut said = Said::plain(law_id, text);
        if let What::Model = condition.what {
            said.fit = self.learning.fit_at(moment.offset, moment.index).map(|frozen| frozen.hash.clone());
        }
        if by == ClearedBy::LawRemoved {
            said = said.with_note("law_removed");
        } else if by == ClearedBy::CounterReset {
            said = said.with_note("counter_reset");
        }
        self.tell(&slab.machines[at].id, &condition, Turn::CLEARED, moment, said);
    }

    /// The machine has caught up: what was found late and still stands may annunciate now.
    pub(crate) fn catch_up(&mut self, slab: &mut Slab, at: usize, moment: &Moment) {
        let class = &*self.rules.class;
        let Some(trouble) = &mut slab.machines[at].trouble else { return };
        let mut late = Vec::new();
        for condition in trouble.conditions.iter_mut().filter(|condition| condition.found_late) {
            condition.found_late = false;
            late.push(condition.clone());
        }
        if moment.silent {
            return;
        }
        for condition in late {
            let said = match condition.what {
                What::Law(law) => {
                    let law = usize::from(law);
                    let levels = &class.laws[law].levels;
                    let level = levels.iter().rposition(|level| level.severity == condition.severity).unwrap_or(0);
                    self.explain(slab, at, moment, law, level, true)
                }
                _ => self.say_again(slab, at, moment, &condition),
            };
            if let Some(said) = said {
                self.tell(&slab.machines[at].id, &condition, Turn::CAUGHT_UP, moment, said);
            }
        }
    }
}
