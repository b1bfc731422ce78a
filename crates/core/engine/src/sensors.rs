//! Conditions of sensors and clocks, counters and spikes (DOMAIN.md 3).

use crate::{
    alert::{Desk, Moment, Reading, Said, Turn, with_evidence},
    condition::{Condition, NEVER, What},
    judge::{Judge, value_before},
    machine::{Slab, Unusual, is_usable},
    rules::{Rules, bits},
};
use catalog::{Severity, State};
use scoring::{ClearedBy, SensorFault, explain_learned, no_value_text, sensor_text};
use wire::{Kind, Marker, Quality};

/// Refused readings of a channel in a row that raise.
const REFUSED_IN_A_ROW: u8 = 3;
/// Event time without a reading ahead that clears `clock_skew`.
const SKEW_CLEAR_US: i64 = 60 * 1_000_000;
/// Newest readings that the detector looks at, and how many of them must be over its threshold.
const SCORED: u8 = 10;
const SCORED_OVER: u32 = 8;
/// Event time that a machine must be unusual before it is told.
const UNUSUAL_US: i64 = 30 * 1_000_000;
/// Longer than this an unusual machine is a warning.
const UNUSUAL_WARNING_US: i64 = 10 * 60 * 1_000_000;

/// How an in-order reading comes after the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    /// Its machine runs, and has settled.
    pub(crate) settled: bool,
    /// The time since the last is a gap.
    pub(crate) gap: bool,
}

impl Judge<'_> {
    /// Any reading ends silence.
    pub(crate) fn clear_no_data(&mut self, slab: &mut Slab, at: usize, moment: &Moment) {
        self.clear(slab, at, moment, &What::NoData, ClearedBy::GoodValue);
    }

    /// What an in-order reading of this quality clears by being there.
    pub(crate) fn clear_by_in_order(&mut self, slab: &mut Slab, at: usize, moment: &Moment, quality: u128) {
        let class = &*self.rules.class;
        let Some(trouble) = &mut slab.machines[at].trouble else { return };
        let is_good = |channel: usize| is_usable(Quality::of(quality, channel));
        let is_good_by_id = |id: &str| class.channel_index(id).is_none_or(is_good);
        trouble.refused.retain(|(channel, _)| !is_good_by_id(channel));
        if trouble.skew_us == NEVER {
            trouble.skew_us = moment.timestamp_us;
        }
        let skew_over = moment.timestamp_us.saturating_sub(trouble.skew_us) >= SKEW_CLEAR_US;
        let over: Vec<(What, ClearedBy)> = trouble
            .conditions
            .iter()
            .filter_map(|condition| match &condition.what {
                What::Gone(_) => Some((condition.what.clone(), ClearedBy::LawRemoved)),
                What::Refused(channel) if is_good_by_id(channel) => {
                    Some((condition.what.clone(), ClearedBy::GoodValue))
                }
                What::Quality(channel) if is_good(usize::from(*channel)) => {
                    Some((condition.what.clone(), ClearedBy::GoodValue))
                }
                What::ClockSkew if skew_over => Some((What::ClockSkew, ClearedBy::GoodValue)),
                _ => None,
            })
            .collect();
        for (what, by) in over {
            self.clear(slab, at, moment, &what, by);
        }
    }

    /// A reading is further ahead of its arrival than the lateness.
    pub(crate) fn see_ahead(&mut self, slab: &mut Slab, at: usize, moment: &Moment) {
        let machine = &mut slab.machines[at];
        let newest_us = machine.order.newest_us;
        machine.trouble().skew_us = newest_us;
        if machine.standing(&What::ClockSkew).is_some() {
            return;
        }
        let fault = SensorFault::ClockSkew { ahead_us: moment.timestamp_us - moment.arrived_us };
        let said = self.sensor_said(slab, at, moment, &fault);
        self.raise(slab, at, moment, What::ClockSkew, Severity::Warning, said);
        self.touch(slab, at, moment);
    }

    /// A counter that falls was reset, or is wrong.
    pub(crate) fn watch_counter(&mut self, slab: &mut Slab, at: usize, moment: &Moment, channel: usize, quality: u128) {
        let value = self.batch.values[channel][moment.row];
        let Some(before) = value_before(slab, self.rules, at, channel) else { return };
        if value >= before || !is_usable(Quality::of(quality, channel)) {
            return;
        }
        if i128::from(value) * 10 >= i128::from(before) {
            self.desk.effects.counts.counter_falls += u64::from(!moment.silent);
            return;
        }
        let of = &self.rules.class.channels[channel];
        if !moment.silent {
            let detail = format!(
                r#"{{"channel":"{}","from":{},"to":{}}}"#,
                of.id,
                wire::decimal_text(before, of.scale),
                wire::decimal_text(value, of.scale)
            );
            self.desk.event(&slab.machines[at].id, "counter_reset", moment, detail);
        }
        let slots = self.rules.program.slots_of_channel(channel);
        if slab.machines[at].trouble.is_none() {
            return;
        }
        let laws = &self.rules.class.laws;
        let over: Vec<usize> =
            (0..laws.len()).filter(|&law| laws[law].notice && self.rules.laws[law].mask & slots != 0).collect();
        for law in over {
            let mask = self.rules.laws[law].mask;
            if let Some(trouble) = &mut slab.machines[at].trouble {
                trouble.timers.retain(|timer| mask >> timer.slot & 1 == 0);
            }
            self.clear(slab, at, moment, &What::Law(law as u16), ClearedBy::CounterReset);
        }
    }

    /// Values that are there and no good.
    pub(crate) fn watch_quality(&mut self, slab: &mut Slab, at: usize, moment: &Moment, quality: u128) {
        let class = &*self.rules.class;
        for (channel, of) in class.channels.iter().enumerate() {
            let found = Quality::of(quality, channel);
            let faulty = found == Quality::Bad || found == Quality::Missing && !of.optional;
            let what = What::Quality(channel as u8);
            if !faulty || slab.machines[at].standing(&what).is_some() {
                continue;
            }
            let value = self.batch.values[channel][moment.row];
            let said = self.quality_said(slab, at, moment, channel, found, value);
            self.raise(slab, at, moment, what, Severity::Warning, said);
        }
    }

    fn quality_said(
        &self,
        slab: &Slab,
        at: usize,
        moment: &Moment,
        channel: usize,
        quality: Quality,
        value: i64,
    ) -> Option<Said> {
        if quality == Quality::Missing && !moment.silent {
            return Some(Said::plain(None, no_value_text(&self.rules.class, &slab.machines[at].id, channel)));
        }
        self.sensor_said(slab, at, moment, &SensorFault::Quality { channel, value })
    }

    /// A gauge that says the same for too long while its machine works. What it said during a gap nobody knows: there the
    /// time starts again, unless it is known to be stuck.
    pub(crate) fn watch_stuck(
        &mut self,
        slab: &mut Slab,
        at: usize,
        moment: &Moment,
        place: usize,
        quality: u128,
        watched: Watched,
    ) {
        let Watched { settled, gap } = watched;
        let (channel, after_us) = self.rules.stuck[place];
        if !is_usable(Quality::of(quality, channel)) {
            return;
        }
        let value = self.batch.values[channel][moment.row];
        let same = slab.values[at * self.batch.values.len() + channel] == value;
        let what = What::Stuck(channel as u8);
        let starts_again = gap && slab.machines[at].standing(&what).is_none();
        let since = &mut slab.stuck_us[at * self.rules.stuck.len() + place];
        if !settled {
            *since = NEVER;
        } else if !same || starts_again || *since == NEVER {
            *since = moment.timestamp_us;
        }
        let for_us = if *since == NEVER { 0 } else { moment.timestamp_us.saturating_sub(*since) };
        if !same {
            if slab.machines[at].trouble.is_some() {
                self.clear(slab, at, moment, &what, ClearedBy::GoodValue);
            }
        } else if settled && for_us >= after_us && slab.machines[at].standing(&what).is_none() {
            let said = self.sensor_said(slab, at, moment, &SensorFault::Stuck { channel, for_us, value });
            self.raise(slab, at, moment, what, Severity::Warning, said);
        }
    }

    /// Values that step too far. Gives the slots from which the reading is withheld: what has an on_delay waits for the
    /// next reading, and counts from there if that stays away.
    pub(crate) fn watch_steps(
        &mut self,
        slab: &mut Slab,
        at: usize,
        moment: &Moment,
        quality: u128,
        settled: bool,
    ) -> u64 {
        let mut withheld = 0;
        if !settled {
            return withheld;
        }
        for &(channel, step) in &self.rules.steps {
            if !is_usable(Quality::of(quality, channel)) {
                continue;
            }
            let value = self.batch.values[channel][moment.row];
            let near = |before: i64| value.abs_diff(before) <= step.unsigned_abs();
            let before = value_before(slab, self.rules, at, channel);
            let machine = &mut slab.machines[at];
            let pending = machine.trouble.as_mut().and_then(|trouble| {
                let place = trouble.steps.iter().position(|(stepped, _)| usize::from(*stepped) == channel)?;
                Some(trouble.steps.remove(place).1)
            });
            if let Some(before) = pending {
                self.desk.effects.counts.spikes += u64::from(near(before) && !moment.silent);
            } else if let Some(before) = before
                && !near(before)
            {
                machine.trouble().steps.push((channel as u8, before));
                withheld |= self.rules.program.slots_of_channel(channel) & self.rules.delayed_slots;
            }
        }
        withheld
    }

    /// Scores a reading of a class without laws, and raises when 8 of 10 readings and 30 s are over the threshold. It
    /// clears when, of ten readings since the machine is judged, fewer than 8 are.
    pub(crate) fn watch_score(&mut self, slab: &mut Slab, at: usize, moment: &Moment) {
        let rules = self.rules;
        let Some(frozen) = self.learning.fit_at(moment.offset, moment.index) else { return };
        self.verdicts.reading(moment.row, self.channels);
        let score = frozen.fit.score(&rules.class, self.channels);
        if score.is_nan() {
            return;
        }
        let threshold = frozen.fit.threshold;
        let is_over = score > threshold;
        let machine = &mut slab.machines[at];
        let standing = machine.standing(&What::Model).map(|condition| (condition.severity, condition.started_us));
        if !is_over && standing.is_none() && machine.trouble.as_ref().is_none_or(|trouble| trouble.unusual.is_none()) {
            return;
        }
        let learned = machine.learned_us >= rules.class.baseline_us;
        let fresh = Unusual { over: 0, seen: 0, since_us: NEVER };
        let unusual = machine.trouble().unusual.get_or_insert(fresh);
        unusual.take(is_over, moment.timestamp_us);
        let Unusual { over, seen, since_us } = *unusual;
        if over == 0 && standing.is_none() {
            machine.trouble().unusual = None;
        }
        let enough = over.count_ones() >= SCORED_OVER;
        match standing {
            None if enough
                && learned
                && since_us != NEVER
                && moment.timestamp_us.saturating_sub(since_us) >= UNUSUAL_US =>
            {
                let said = self.score_said(slab, at, moment);
                self.raise(slab, at, moment, What::Model, Severity::Info, said);
            }
            Some(_) if !enough && seen == SCORED => {
                self.clear(slab, at, moment, &What::Model, ClearedBy::Readings);
            }
            Some((Severity::Info, started_us))
                if enough && moment.timestamp_us.saturating_sub(started_us) > UNUSUAL_WARNING_US =>
            {
                let said = self.score_said(slab, at, moment);
                self.change_severity(slab, at, moment, &What::Model, Severity::Warning, said);
            }
            _ => {}
        }
    }

    /// What the detector says of a reading; `None` where nobody is told.
    fn score_said(&mut self, slab: &Slab, at: usize, moment: &Moment) -> Option<Said> {
        let frozen = self.learning.fit_at(moment.offset, moment.index).filter(|_| !moment.silent)?;
        self.verdicts.reading(moment.row, self.channels);
        let score = frozen.fit.score(&self.rules.class, self.channels);
        let reading = Reading::of_row(self.batch, moment.row);
        let explained = with_evidence(self.rules, self.learning, slab, at, &reading, true, |evidence| {
            explain_learned(evidence, &frozen.fit, score, frozen.fit.threshold)
        });
        Some(Said {
            score: if explained.score.is_finite() { explained.score } else { 0.0 },
            fit: Some(frozen.hash.clone()),
            reading: None,
            reason: explained.reason,
            text: explained.text,
        })
    }

    /// What is told of a condition that was found late and still stands; `None` for those that never are.
    pub(crate) fn say_again(&mut self, slab: &Slab, at: usize, moment: &Moment, condition: &Condition) -> Option<Said> {
        match condition.what {
            What::Model => self.score_said(slab, at, moment),
            What::Stuck(channel) => {
                let channel = usize::from(channel);
                let place = self.rules.stuck.iter().position(|(stuck, _)| *stuck == channel)?;
                let since_us = slab.stuck_us[at * self.rules.stuck.len() + place];
                let for_us = if since_us == NEVER { 0 } else { moment.timestamp_us.saturating_sub(since_us) };
                let value = self.batch.values[channel][moment.row];
                self.sensor_said(slab, at, moment, &SensorFault::Stuck { channel, for_us, value })
            }
            What::Quality(channel) => {
                let channel = usize::from(channel);
                let quality = Quality::of(self.batch.quality_of(moment.row), channel);
                self.quality_said(slab, at, moment, channel, quality, self.batch.values[channel][moment.row])
            }
            _ => None,
        }
    }

    fn sensor_said(&self, slab: &Slab, at: usize, moment: &Moment, fault: &SensorFault<'_>) -> Option<Said> {
        if moment.silent {
            return None;
        }
        Some(Said::plain(None, sensor_text(&self.rules.class, &slab.machines[at].id, fault)))
    }
}

impl Unusual {
    fn take(&mut self, is_over: bool, timestamp_us: i64) {
        self.over = (self.over << 1 | u16::from(is_over)) & ((1 << SCORED) - 1);
        self.seen = SCORED.min(self.seen + 1);
        let misses = bits(u64::from(self.over)).last().map_or(0, |oldest| oldest as u32 + 1) - self.over.count_ones();
        if misses > u32::from(SCORED) - SCORED_OVER {
            self.since_us = NEVER;
        } else if is_over && self.since_us == NEVER {
            self.since_us = timestamp_us;
        }
    }
}

/// A refused reading of a known machine: the third in a row of one channel raises.
pub(crate) fn refuse(rules: &Rules, slab: &mut Slab, at: usize, marker: &Marker, moment: &Moment, desk: &mut Desk<'_>) {
    slab.changed = true;
    let machine = &mut slab.machines[at];
    let trouble = machine.trouble();
    let place = match trouble.refused.iter().position(|(channel, _)| *channel == marker.channel) {
        Some(place) => place,
        None => {
            trouble.refused.push((marker.channel.clone(), 0));
            trouble.refused.len() - 1
        }
    };
    let count = &mut trouble.refused[place].1;
    *count = count.saturating_add(1);
    let what = What::Refused(marker.channel.clone());
    if *count < REFUSED_IN_A_ROW || trouble.conditions.iter().any(|condition| condition.what == what) {
        return;
    }
    let class = &*rules.class;
    let fault = SensorFault::Refused { channel: &marker.channel, code: &marker.code };
    let text = (!moment.silent).then(|| sensor_text(class, &machine.id, &fault));
    raise_apart(rules, slab, at, moment, what, desk, text.map(|text| Said::plain(None, text).with_note(&marker.code)));
}

/// A machine has been silent for too long.
pub(crate) fn raise_no_data(
    rules: &Rules,
    slab: &mut Slab,
    at: usize,
    partition: u16,
    silent_us: i64,
    desk: &mut Desk<'_>,
) {
    slab.changed = true;
    let machine = &slab.machines[at];
    let moment = Moment {
        row: 0,
        timestamp_us: machine.last_us,
        arrived_us: machine.arrived_us,
        offset: machine.last_offset,
        index: machine.last_index,
        partition,
        silent: false,
    };
    let text = sensor_text(&rules.class, &machine.id, &SensorFault::NoData { silent_us });
    raise_apart(rules, slab, at, &moment, What::NoData, desk, Some(Said::plain(None, text)));
}

/// A machine in this state need not talk.
pub(crate) fn may_be_silent(state: State) -> bool {
    matches!(state, State::Off | State::Maintenance)
}

/// A condition that no reading raises: its alert carries the newest good one.
fn raise_apart(
    rules: &Rules,
    slab: &mut Slab,
    at: usize,
    moment: &Moment,
    what: What,
    desk: &mut Desk<'_>,
    said: Option<Said>,
) {
    let class = &*rules.class;
    let reading = said.as_ref().and_then(|_| Reading::newest(slab, rules, at));
    let machine = &mut slab.machines[at];
    let condition = Condition {
        id: moment.alert_id(&machine.id, &what.name(class), Kind::Raised),
        what,
        severity: Severity::Warning,
        started_us: moment.timestamp_us,
        suspended: false,
        found_late: false,
    };
    machine.trouble().stand(condition.clone());
    if let Some(said) = said {
        let reading = reading.map(|reading| reading.json(class, &machine.id));
        desk.tell(class, &machine.id, &condition, Turn::RAISED, moment, Said { reading, ..said });
        if machine.touched != desk.round {
            machine.touched = desk.round;
            desk.effects.touched.push(machine.id.clone());
        }
    }
}
