//! One alarm and its edges.

use crate::{
    ANNUNCIATE_EVERY_US, Action, Audit, Change, Command, Criticality, Event, FOUND_LATE_US, Illegal, Maintenance,
    Outcome, REALARM_US, Role, SHELVE_MAX_CRITICAL_US, SHELVE_MAX_US, State, Subject, Transition, priority,
};
use catalog::Severity;
use serde::{Deserialize, Serialize};
use wire::{Alert, AlertId};

/// One alarm: a condition of a machine as people see it.
///
/// While it is neither shelved nor out of service, its state follows from the condition: `Suppressed` while
/// [`Alarm::is_suppressed`]; else `Unacknowledged` or `Acknowledged` while [`Alarm::is_active`]; else `Normal` or
/// `ReturnedUnacknowledged`. [`Alarm::apply`] keeps that; whoever writes a field by hand answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its machine; for a system alarm what the portal calls the part.
    pub machine_id: String,
    /// The condition: a law's id, `stuck:CHANNEL`, ...
    pub condition: String,
    /// What kind of failure it is.
    pub failure_type: String,
    /// Whose list it is on.
    pub subject: Subject,
    /// Maintenance due: it goes to the worklist, asks for no answer and never annunciates.
    pub notice: bool,
    /// How much the plant depends on the machine.
    pub criticality: Criticality,
    /// The condition's; of the last raise where it is gone.
    #[serde(with = "crate::severity::word")]
    pub severity: Severity,
    /// 1 (first) to 4; none for `info`.
    pub priority: Option<u8>,
    /// Where it stands.
    pub state: State,
    /// The condition stands, whatever people did.
    pub standing: bool,
    /// The condition stands frozen, because its machine does not run.
    pub suspended: bool,
    /// The machine is worked on.
    pub maintenance: Option<Maintenance>,
    /// Raises since it last left `Normal`.
    pub count: u32,
    /// Alert id of the last raise.
    pub condition_id: Option<AlertId>,
    /// Event time of the first raise since it last left `Normal`, microseconds since 1970.
    pub first_raised_us: Option<i64>,
    /// Event time of the last raise, microseconds since 1970.
    pub last_raised_us: Option<i64>,
    /// Event time of the last clear, microseconds since 1970.
    pub cleared_us: Option<i64>,
    /// The standing condition was found late and nobody was told yet.
    pub found_late: bool,
    /// When people were last told, microseconds since 1970.
    pub annunciated_us: Option<i64>,
    /// How bad it was then.
    #[serde(with = "crate::severity::word_or_null")]
    pub annunciated: Option<Severity>,
    /// Who took it, where the state is `Acknowledged`.
    pub acknowledged: Option<Acknowledged>,
    /// When it last changed, microseconds since 1970 (arrival, not event time).
    pub changed_us: i64,
}

/// Who took an alarm, when, and what they said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct Acknowledged {
    pub by: String,
    /// Microseconds since 1970.
    pub at_us: i64,
    pub comment: String,
}

/// How strictly the 10-minute rule binds an annunciation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ring {
    /// A person or the clock made it a new question.
    Always,
    /// At most once in [`ANNUNCIATE_EVERY_US`], unless it is worse than what people were told.
    Seldom,
}

impl Alarm {
    /// An alarm that has not been raised yet.
    pub fn new(machine_id: &str, condition: &str, failure_type: &str, criticality: Criticality) -> Alarm {
        Alarm {
            machine_id: machine_id.into(),
            condition: condition.into(),
            failure_type: failure_type.into(),
            subject: Subject::of_condition(condition),
            notice: false,
            criticality,
            severity: Severity::Info,
            priority: None,
            state: State::Normal,
            standing: false,
            suspended: false,
            maintenance: None,
            count: 0,
            condition_id: None,
            first_raised_us: None,
            last_raised_us: None,
            cleared_us: None,
            found_late: false,
            annunciated_us: None,
            annunciated: None,
            acknowledged: None,
            changed_us: 0,
        }
    }

    /// The alarm that an alert's condition belongs to, not raised yet: [`Alarm::apply`] the alert to it.
    pub fn of(alert: &Alert, criticality: Criticality) -> Alarm {
        let mut alarm = Alarm::new(&alert.machine_id, &alert.condition, &alert.failure_type, criticality);
        alarm.notice = alert.notice;
        alarm
    }

    /// An alarm about the system itself.
    pub fn of_system(part: &str, condition: &str, failure_type: &str) -> Alarm {
        let mut alarm = Alarm::new(part, condition, failure_type, Criticality::B);
        alarm.subject = Subject::System;
        alarm
    }

    /// The condition stands and asks for an answer: it is neither `info` nor a notice.
    pub fn is_active(&self) -> bool {
        self.standing && self.asks()
    }

    /// Silent by design: in maintenance, or standing frozen on a stopped machine.
    pub fn is_suppressed(&self) -> bool {
        self.maintenance.is_some() || (self.suspended && self.is_active())
    }

    /// Stands on the worklist.
    pub fn is_on_worklist(&self) -> bool {
        self.notice && self.standing
    }

    /// Changes how much the plant depends on the machine.
    pub fn set_criticality(&mut self, criticality: Criticality) {
        self.criticality = criticality;
        self.priority = priority(self.severity, criticality);
    }

    /// Nobody was told what an event annunciated: people know enough of it, or nobody listens. The alarm rings next time
    /// as if that event had been silent; `before` is how it stood then.
    pub fn untold(&mut self, before: &Alarm) {
        self.annunciated_us = before.annunciated_us;
        self.annunciated = before.annunciated;
    }

    /// When the clock has something to say, microseconds since 1970: apply [`Event::Clock`] then, and again while this
    /// is in the past (one call does one thing).
    pub fn due_us(&self) -> Option<i64> {
        [self.shelf_ends(), self.maintenance_ends(), self.realarms()].into_iter().flatten().min()
    }

    /// Carries an event out.
    ///
    /// An event of the engine or the clock never fails: one that does not fit (a clear of a condition that does not
    /// stand, a repeated raise) changes nothing and says so by an outcome without audit line.
    ///
    /// # Errors
    /// The order is not allowed in this state, to this person, or in itself. The alarm is as it was.
    pub fn apply(&mut self, event: &Event) -> Result<Outcome, Illegal> {
        let from = self.state.clone();
        let audit = match event {
            Event::Engine(transition) => self.apply_transition(transition),
            Event::Person(command) => Some(self.apply_command(command)?),
            Event::Clock { now_us } => self.apply_clock(*now_us),
        };
        let Some(mut audit) = audit else {
            return Ok(Outcome { to: from.clone(), from, annunciates: false, audit: None });
        };
        self.changed_us = audit.at_us;
        if !matches!(self.state, State::Acknowledged) {
            self.acknowledged = None;
        }
        audit.from = from.as_str().into();
        audit.to = self.state.as_str().into();
        Ok(Outcome { from, to: self.state.clone(), annunciates: audit.annunciates, audit: Some(audit) })
    }

    fn apply_transition(&mut self, transition: &Transition) -> Option<Audit> {
        let Transition { change, alert_id, condition_id, severity, event_us, arrived_us } = *transition;
        let mine = self.standing && self.condition_id == Some(condition_id);
        // A second raise with an id of its own comes from a machine that is seen on two partitions: the newer counts.
        let fits = if change == Change::Raised { !mine } else { mine };
        if !fits {
            return None;
        }
        let late = arrived_us - event_us > FOUND_LATE_US;
        let rose = severity > self.severity;
        let was_waiting = self.found_late;
        self.severity = severity;
        self.priority = priority(severity, self.criticality);
        match change {
            Change::Raised => self.raise(condition_id, event_us),
            Change::Severity => {}
            Change::Suspended => self.suspended = true,
            Change::Resumed => self.suspended = false,
            Change::CaughtUp => self.found_late = false,
            Change::Cleared => self.clear(event_us),
        }
        let mut annunciates = self.follow(arrived_us, late, rose);
        if change == Change::CaughtUp && was_waiting && self.state == State::Unacknowledged && !annunciates {
            annunciates = self.annunciate(arrived_us, late, Ring::Always);
        }
        let mut audit = line("engine", change.as_str(), arrived_us, annunciates);
        audit.alert_id = Some(alert_id);
        Some(audit)
    }

    fn raise(&mut self, condition_id: AlertId, event_us: i64) {
        if self.state == State::Normal {
            self.count = 0;
        }
        if self.count == 0 {
            self.first_raised_us = Some(event_us);
        }
        self.count += 1;
        self.last_raised_us = Some(event_us);
        self.condition_id = Some(condition_id);
        self.standing = true;
        self.suspended = false;
        self.found_late = false;
    }

    fn clear(&mut self, event_us: i64) {
        self.standing = false;
        self.suspended = false;
        self.found_late = false;
        self.cleared_us = Some(event_us);
    }

    /// Brings the state to what the condition asks for; says whether that annunciates.
    fn follow(&mut self, at_us: i64, late: bool, rose: bool) -> bool {
        if matches!(self.state, State::Shelved { .. } | State::OutOfService { .. }) {
            return false;
        }
        if self.is_suppressed() {
            if self.state == State::Normal && !self.standing {
                self.count = 0;
            }
            self.state = State::Suppressed;
            return false;
        }
        let active = self.is_active();
        let (to, ring) = match (&self.state, active) {
            (State::Normal, true) => (State::Unacknowledged, Some(Ring::Always)),
            (State::Suppressed | State::ReturnedUnacknowledged, true) => (State::Unacknowledged, Some(Ring::Seldom)),
            (State::Acknowledged, true) if rose => (State::Unacknowledged, Some(Ring::Seldom)),
            (State::Unacknowledged, true) if rose => (State::Unacknowledged, Some(Ring::Seldom)),
            (State::Unacknowledged, false) => (State::ReturnedUnacknowledged, None),
            (State::Acknowledged | State::Suppressed, false) => (State::Normal, None),
            (same, _) => (same.clone(), None),
        };
        self.state = to;
        ring.is_some_and(|ring| self.annunciate(at_us, late, ring))
    }

    /// People are told, unless they were told just as bad a thing a moment ago, or the thing is long past.
    fn annunciate(&mut self, at_us: i64, late: bool, ring: Ring) -> bool {
        if late {
            self.found_late = true;
            return false;
        }
        let lately = self.annunciated_us.is_some_and(|told_us| at_us - told_us < ANNUNCIATE_EVERY_US);
        let worse = self.annunciated.is_none_or(|told| self.severity > told);
        if ring == Ring::Seldom && lately && !worse {
            return false;
        }
        self.found_late = false;
        self.annunciated_us = Some(at_us);
        self.annunciated = Some(self.severity);
        true
    }

    fn apply_command(&mut self, command: &Command) -> Result<Audit, Illegal> {
        let Command { by, role, at_us, action } = command;
        self.check(*role, *at_us, action)?;
        let mut annunciates = false;
        let mut audit = line(by, action.as_str(), *at_us, false);
        audit.role = Some(*role);
        match action {
            Action::Acknowledge { comment } => {
                self.state = if self.is_active() { State::Acknowledged } else { State::Normal };
                self.acknowledged = Some(Acknowledged { by: by.clone(), at_us: *at_us, comment: comment.clone() });
                audit.why = Some(comment.clone());
            }
            Action::Shelve { until_us, reason } => {
                self.leave_normal();
                self.state = State::Shelved { until_us: *until_us, reason: reason.clone(), by: by.clone() };
                audit.why = Some(reason.clone());
                audit.until_us = Some(*until_us);
            }
            Action::Unshelve => {
                self.state = self.freed(State::Acknowledged);
                self.acknowledged = Some(Acknowledged { by: by.clone(), at_us: *at_us, comment: String::new() });
            }
            Action::TakeOutOfService { reason } => {
                self.leave_normal();
                self.state = State::OutOfService { reason: reason.clone(), by: by.clone() };
                audit.why = Some(reason.clone());
            }
            Action::ReturnToService => annunciates = self.free(*at_us),
            Action::BeginMaintenance { until_us, reason } => {
                self.maintenance = Some(Maintenance { until_us: *until_us, reason: reason.clone(), by: by.clone() });
                self.follow(*at_us, false, false);
                audit.why = Some(reason.clone());
                audit.until_us = Some(*until_us);
            }
            Action::EndMaintenance => {
                self.maintenance = None;
                annunciates = self.follow(*at_us, false, false);
            }
            Action::Comment { comment } => audit.why = Some(comment.clone()),
        }
        audit.why = audit.why.filter(|why| !why.trim().is_empty());
        audit.annunciates = annunciates;
        Ok(audit)
    }

    fn check(&self, role: Role, at_us: i64, action: &Action) -> Result<(), Illegal> {
        let name = action.as_str();
        let strict = self.severity == Severity::Critical && self.criticality == Criticality::A;
        let needs = match action {
            Action::Shelve { .. } if strict => Role::Engineer,
            Action::Acknowledge { .. } | Action::Shelve { .. } | Action::Unshelve | Action::Comment { .. } => {
                Role::Operator
            }
            Action::TakeOutOfService { .. } | Action::ReturnToService => Role::Engineer,
            Action::BeginMaintenance { .. } | Action::EndMaintenance => Role::Engineer,
        };
        if role < needs {
            return Err(Illegal::Role { action: name, needs, has: role });
        }
        let fits = match action {
            Action::Acknowledge { .. } => matches!(self.state, State::Unacknowledged | State::ReturnedUnacknowledged),
            Action::Shelve { .. } => !matches!(self.state, State::Shelved { .. } | State::OutOfService { .. }),
            Action::Unshelve => matches!(self.state, State::Shelved { .. }),
            Action::TakeOutOfService { .. } => !matches!(self.state, State::OutOfService { .. }),
            Action::ReturnToService => matches!(self.state, State::OutOfService { .. }),
            Action::EndMaintenance => self.maintenance.is_some(),
            Action::BeginMaintenance { .. } | Action::Comment { .. } => true,
        };
        if !fits {
            return Err(Illegal::Edge { action: name, state: self.state.as_str() });
        }
        if let Action::Shelve { reason: why, .. }
        | Action::TakeOutOfService { reason: why }
        | Action::BeginMaintenance { reason: why, .. }
        | Action::Comment { comment: why } = action
            && why.trim().is_empty()
        {
            return Err(Illegal::Reason { action: name });
        }
        if let Action::Shelve { until_us, .. } | Action::BeginMaintenance { until_us, .. } = action
            && *until_us <= at_us
        {
            return Err(Illegal::Past);
        }
        let longest = if strict { SHELVE_MAX_CRITICAL_US } else { SHELVE_MAX_US };
        if let Action::Shelve { until_us, .. } = action
            && until_us.saturating_sub(at_us) > longest
        {
            return Err(Illegal::TooLong { hours: longest / 3_600_000_000 });
        }
        Ok(())
    }

    fn apply_clock(&mut self, now_us: i64) -> Option<Audit> {
        let due = |at: Option<i64>| at.is_some_and(|at| at <= now_us);
        let (action, annunciates) = if due(self.maintenance_ends()) {
            self.maintenance = None;
            ("maintenance_ended", self.follow(now_us, false, false))
        } else if due(self.shelf_ends()) {
            ("shelf_expired", self.free(now_us))
        } else if due(self.realarms()) {
            self.state = State::Unacknowledged;
            ("realarm", self.annunciate(now_us, false, Ring::Always))
        } else {
            return None;
        };
        Some(line("clock", action, now_us, annunciates))
    }

    /// Leaves the shelf or comes back to service as a new question; says whether that annunciates.
    fn free(&mut self, at_us: i64) -> bool {
        self.state = self.freed(State::Unacknowledged);
        // Found late and not caught up yet: the catching up tells people.
        let late = self.found_late;
        self.state == State::Unacknowledged && self.annunciate(at_us, late, Ring::Always)
    }

    /// The state of an alarm that a person silenced no more.
    fn freed(&self, standing: State) -> State {
        match (self.is_suppressed(), self.is_active()) {
            (true, _) => State::Suppressed,
            (false, true) => standing,
            (false, false) => State::Normal,
        }
    }

    /// A silenced alarm counts the raises of its silence from 0.
    fn leave_normal(&mut self) {
        if self.state == State::Normal && !self.standing {
            self.count = 0;
        }
    }

    fn asks(&self) -> bool {
        !self.notice && self.severity > Severity::Info
    }

    fn shelf_ends(&self) -> Option<i64> {
        match self.state {
            State::Shelved { until_us, .. } => Some(until_us),
            _ => None,
        }
    }

    fn maintenance_ends(&self) -> Option<i64> {
        self.maintenance.as_ref().map(|maintenance| maintenance.until_us)
    }

    fn realarms(&self) -> Option<i64> {
        let first = self.state == State::Acknowledged && self.priority == Some(1);
        self.acknowledged.as_ref().filter(|_| first).map(|acknowledged| acknowledged.at_us + REALARM_US)
    }
}

/// An audit line; the states are filled in by [`Alarm::apply`].
fn line(by: &str, action: &str, at_us: i64, annunciates: bool) -> Audit {
    Audit {
        at_us,
        by: by.into(),
        role: None,
        action: action.into(),
        from: String::new(),
        to: String::new(),
        why: None,
        until_us: None,
        alert_id: None,
        annunciates,
    }
}
