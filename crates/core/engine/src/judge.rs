//! The row loop: what one reading does to its machine.

use crate::{
    Identity, Place,
    alert::{Desk, Moment, Reading, Said, Turn},
    condition::{Condition, NEVER, is_gap},
    laws::Bits,
    learning::Learning,
    machine::{NO_VALUE, Rare, Slab, is_usable},
    rules::{Rules, bits},
    sensors::Watched,
};
use catalog::{MachineId, State};
use scoring::{RowWindows, Verdicts, Window, WindowStats};
use wire::{Quality, ReadingBatch};

/// A machine nearer to its arrival has caught up.
const CAUGHT_UP_US: i64 = 30 * 1_000_000;

/// One batch of one class while its rows are judged.
pub(crate) struct Judge<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) learning: &'a mut Learning,
    /// What the class learned holds the records below it.
    pub(crate) learn_from: i64,
    pub(crate) batch: &'a ReadingBatch,
    pub(crate) verdicts: &'a mut Verdicts,
    pub(crate) desk: Desk<'a>,
    /// One reading's channels.
    pub(crate) channels: &'a mut Vec<f64>,
}

/// The windows of one machine while one of its readings is judged.
struct Held<'a> {
    rules: &'a Rules,
    windows: &'a mut [Window],
    timestamp_us: i64,
    in_order: bool,
}

impl RowWindows for Held<'_> {
    fn push_derived(&mut self, windowed: usize, value: i64) {
        let window = &mut self.windows[windowed];
        if self.in_order {
            window.push(self.timestamp_us, value);
        } else {
            window.insert(self.timestamp_us, value);
        }
    }

    fn stats(&self, windowed: usize) -> Option<WindowStats> {
        let quantity = self.rules.program.windowed()[windowed];
        self.windows[windowed].stats(self.rules.class.quantity_scale(quantity))
    }
}

impl Judge<'_> {
    /// Takes one row.
    pub(crate) fn take(&mut self, slab: &mut Slab, at: usize, moment: &Moment, hash: u64) {
        slab.changed = true;
        let machine = &mut slab.machines[at];
        let before_us = machine.order.newest_us;
        let identity = Identity { timestamp_us: moment.timestamp_us, hash };
        let place = machine.order.place(self.rules.class.lateness_us, moment.arrived_us, identity);
        machine.last_us = moment.timestamp_us;
        machine.last_offset = moment.offset;
        machine.last_index = moment.index;
        machine.arrived_us = moment.arrived_us;
        if machine.trouble.is_some() {
            self.clear_no_data(slab, at, moment);
        }
        if !moment.silent {
            let counts = &mut self.desk.effects.counts;
            *match place {
                Place::InOrder => &mut counts.in_order,
                Place::OutOfOrder => &mut counts.out_of_order,
                Place::Ahead => &mut counts.ahead,
                Place::Late => &mut counts.late,
                Place::Duplicate => &mut counts.duplicate,
            } += 1;
        }
        match place {
            Place::InOrder => self.in_order(slab, at, moment, before_us),
            Place::OutOfOrder => {
                self.insert(slab, at, moment.row);
                self.beside(slab, at, moment, true);
            }
            Place::Ahead => {
                self.see_ahead(slab, at, moment);
                self.beside(slab, at, moment, false);
            }
            Place::Late | Place::Duplicate => {}
        }
        let machine = &mut slab.machines[at];
        machine.settle_trouble();
    }

    fn in_order(&mut self, slab: &mut Slab, at: usize, moment: &Moment, before_us: i64) {
        let row = moment.row;
        let rules = self.rules;
        let class = &*rules.class;
        let quality = self.batch.quality_of(row);
        let timestamp_us = moment.timestamp_us;
        if slab.machines[at].trouble.is_some() {
            self.clear_by_in_order(slab, at, moment, quality);
        }
        self.push_windows(slab, at, row, quality);
        // State.
        let was_running = slab.machines[at].state == State::Running;
        let given = self.batch.state.get(row).copied().filter(|state| *state != ReadingBatch::NONE);
        let state = State::ALL.get(usize::from(given.unwrap_or(self.verdicts.state[row]))).copied();
        if let Some(state) = state
            && state != slab.machines[at].state
        {
            self.change_state(slab, at, moment, state);
        }
        let machine = &mut slab.machines[at];
        let passed_us = if before_us == NEVER { 0 } else { timestamp_us.saturating_sub(before_us) };
        let gap = is_gap(class.interval_us, passed_us);
        if was_running && machine.state == State::Running {
            let counted_us = if gap { class.interval_us } else { passed_us };
            machine.learned_us = machine.learned_us.saturating_add(counted_us);
        }
        let settled = machine.is_settled(timestamp_us, class.settle_us);
        if settled {
            if machine.judged_us == NEVER {
                machine.judged_us = timestamp_us;
            } else if gap {
                machine.judged_us = machine.judged_us.saturating_add(passed_us - class.interval_us);
            }
        }
        // Counters, stuck, spikes, quality.
        for &channel in &rules.counters {
            self.watch_counter(slab, at, moment, channel, quality);
        }
        if quality != 0 {
            self.watch_quality(slab, at, moment, quality);
        }
        for place in 0..rules.stuck.len() {
            self.watch_stuck(slab, at, moment, place, quality, Watched { settled, gap });
        }
        let withheld = if rules.steps.is_empty() { 0 } else { self.watch_steps(slab, at, moment, quality, settled) };
        self.keep_reading(slab, at, row, quality);
        // Laws.
        let machine = &slab.machines[at];
        let applies = self.applies(slab, at, moment, machine.state == State::Running, settled);
        let judged = self.verdicts.judged[row] & applies & !withheld;
        let found = Bits { judged, broken: self.verdicts.broken[row] & judged, held: self.verdicts.held[row] & judged };
        if found.broken != 0 || machine.trouble.is_some() {
            self.judge_laws(slab, at, moment, found, settled);
        }
        if settled {
            if found.broken == 0 {
                self.learn(slab, at, moment);
            }
            if class.laws.is_empty() && !self.learning.fits.is_empty() {
                self.watch_score(slab, at, moment);
            }
        }
        if slab.machines[at].trouble.is_some() && moment.arrived_us.saturating_sub(timestamp_us) < CAUGHT_UP_US {
            self.catch_up(slab, at, moment);
        }
        self.touch(slab, at, moment);
    }

    /// A reading out of order, or ahead: it may raise what needs no delay, and does nothing else.
    fn beside(&mut self, slab: &mut Slab, at: usize, moment: &Moment, with_windows: bool) {
        let row = moment.row;
        let rules = self.rules;
        let machine = &slab.machines[at];
        let given = self.batch.state.get(row).copied().filter(|state| *state != ReadingBatch::NONE);
        let state = State::ALL.get(usize::from(given.unwrap_or(self.verdicts.state[row]))).copied();
        // Both its own time and the machine's present must be ones at which laws are judged.
        let running = machine.state == State::Running && state.is_none_or(|state| state == State::Running);
        let settled = running && machine.is_settled(moment.timestamp_us, rules.class.settle_us);
        let applies = self.applies(slab, at, moment, running, settled);
        let broken = self.verdicts.judged[row] & self.verdicts.broken[row] & applies & !rules.delayed_slots;
        if broken == 0 {
            return;
        }
        let machine = &mut slab.machines[at];
        let (judged_us, newest_us) = (machine.judged_us, machine.order.newest_us);
        let trouble = machine.trouble();
        for slot in bits(broken) {
            let timer = trouble.timer(slot);
            if !timer.active {
                // In order it has been unbroken since its run was first judged, or for longer than its off_delay.
                timer.active = true;
                timer.since_us = judged_us;
                timer.last_us = newest_us;
            }
        }
        self.tell_laws(slab, at, moment, with_windows);
        self.touch(slab, at, moment);
    }

    /// Slots that are judged for a row.
    fn applies(&self, slab: &Slab, at: usize, moment: &Moment, running: bool, settled: bool) -> u64 {
        let rules = self.rules;
        let mut applies = if settled { rules.plain_slots } else { 0 };
        for &law in &rules.special_laws {
            let of = &rules.class.laws[law];
            let stands_in = match of.when {
                Some(_) => self.verdicts.when[moment.row] >> law & 1 == 1,
                None => running,
            };
            let is_settled = match of.settle_us {
                Some(settle_us) => !running || slab.machines[at].is_settled(moment.timestamp_us, settle_us),
                None => of.when.is_some() || settled,
            };
            if stands_in && is_settled {
                applies |= rules.laws[law].mask;
            }
        }
        applies
    }

    /// Windows move with the in-order reading; what needs them is judged.
    fn push_windows(&mut self, slab: &mut Slab, at: usize, row: usize, quality: u128) {
        let rules = self.rules;
        let timestamp_us = self.batch.timestamp_us[row];
        let own = slab.machines[at].own;
        let windows = slab.windows_mut(rules, at);
        for (window, channel) in windows.iter_mut().zip(&rules.window_channels) {
            match channel {
                Some(channel) if is_usable(Quality::of(quality, *channel)) => {
                    window.push(timestamp_us, self.batch.values[*channel][row]);
                }
                _ => window.advance(timestamp_us),
            }
        }
        if rules.program.needs_windows() {
            let mut held = Held { rules, windows, timestamp_us, in_order: true };
            rules.program.judge_windowed(self.batch, row, rules.settings(own), &mut held, self.verdicts);
        }
    }

    /// An out-of-order reading takes its own place in the windows.
    fn insert(&mut self, slab: &mut Slab, at: usize, row: usize) {
        let rules = self.rules;
        let timestamp_us = self.batch.timestamp_us[row];
        let quality = self.batch.quality_of(row);
        let own = slab.machines[at].own;
        let windows = slab.windows_mut(rules, at);
        for (window, channel) in windows.iter_mut().zip(&rules.window_channels) {
            if let Some(channel) = channel
                && is_usable(Quality::of(quality, *channel))
            {
                window.insert(timestamp_us, self.batch.values[*channel][row]);
            }
        }
        if rules.program.needs_windows() {
            let mut held = Held { rules, windows, timestamp_us, in_order: false };
            rules.program.judge_windowed(self.batch, row, rules.settings(own), &mut held, self.verdicts);
        }
    }

    /// Keeps the reading as the machine's newest.
    fn keep_reading(&mut self, slab: &mut Slab, at: usize, row: usize, quality: u128) {
        let batch = self.batch;
        let many = batch.values.len();
        let values = &mut slab.values[at * many..][..many];
        if quality == 0 {
            for (value, column) in values.iter_mut().zip(&batch.values) {
                *value = column[row];
            }
        } else {
            for (channel, (value, column)) in values.iter_mut().zip(&batch.values).enumerate() {
                if is_usable(Quality::of(quality, channel)) {
                    *value = column[row];
                }
            }
        }
        let many = batch.attributes.len();
        let attributes = &mut slab.attributes[at * many..][..many];
        for (word, column) in attributes.iter_mut().zip(&batch.attributes) {
            *word = column.get(row).copied().unwrap_or(ReadingBatch::NONE);
        }
        let machine = &mut slab.machines[at];
        let seq = batch.seq_of(row);
        let state = batch.state.get(row).copied().filter(|state| *state != ReadingBatch::NONE);
        let links = if batch.links.is_empty() { None } else { batch.links.get(&(row as u32)) };
        if quality == 0 && seq.is_none() && state.is_none() && links.is_none() {
            machine.rare = None;
            return;
        }
        let rare = machine.rare.get_or_insert_with(Box::<Rare>::default);
        rare.quality = quality;
        rare.seq = seq;
        rare.state = state;
        rare.links = links.map(|links| links.to_string());
        rare.raw.clear();
        if quality != 0 {
            rare.raw.extend(batch.values.iter().map(|column| column[row]));
        }
    }

    fn change_state(&mut self, slab: &mut Slab, at: usize, moment: &Moment, state: State) {
        let rules = self.rules;
        let machine = &mut slab.machines[at];
        let was = std::mem::replace(&mut machine.state, state);
        if !moment.silent {
            let detail = format!(r#"{{"from":"{}","to":"{}"}}"#, was.as_str(), state.as_str());
            self.desk.event(&machine.id, "state", moment, detail);
        }
        if state == State::Running {
            machine.running_us = if was == State::Unknown { NEVER } else { moment.timestamp_us };
        }
        machine.judged_us = NEVER;
        if was != State::Running {
            return;
        }
        let Some(trouble) = &mut machine.trouble else { return };
        for timer in trouble.timers.iter_mut().filter(|timer| rules.running_slots >> timer.slot & 1 == 1) {
            timer.since_us = NEVER;
            timer.last_us = NEVER;
        }
        trouble.timers.retain(|timer| !timer.is_idle());
        trouble.steps.clear();
        trouble.unusual = None;
        let mut suspended = Vec::new();
        for condition in &mut trouble.conditions {
            if condition.what.stops_with_machine(&rules.class) && !condition.suspended {
                condition.suspended = true;
                suspended.push(condition.clone());
            }
        }
        for condition in suspended {
            self.tell_stop(slab, at, moment, &condition, Some(state));
        }
    }

    /// A reading that breaks no law is what is normal.
    fn learn(&mut self, slab: &mut Slab, at: usize, moment: &Moment) {
        let row = moment.row;
        let rules = self.rules;
        let verdicts = &*self.verdicts;
        let (bands, counts) = (rules.bands.len(), rules.own_counts);
        let whole =
            rules.bands.iter().all(|band| band.own_count.is_some() || !verdicts.value(band.quantity, row).is_nan());
        if whole {
            let machine = &mut slab.machines[at];
            machine.band_count = machine.band_count.saturating_add(1);
        }
        let part = 1.0 / f64::from(slab.machines[at].band_count);
        let own_counts = &mut slab.band_counts[at * counts..][..counts];
        for (band, rule) in slab.bands[at * bands..][..bands].iter_mut().zip(&rules.bands) {
            let value = verdicts.value(rule.quantity, row);
            match rule.own_count {
                None if whole => band.push_part(part, value),
                Some(own) if !value.is_nan() => {
                    own_counts[own] = own_counts[own].saturating_add(1);
                    band.push(own_counts[own], value);
                }
                _ => {}
            }
        }
        if self.learning.is_open() && moment.offset >= self.learn_from {
            verdicts.reading(row, self.channels);
            let values = rules.bands.iter().map(|band| verdicts.value(band.quantity, row));
            let effects = (!moment.silent).then_some(&mut *self.desk.effects);
            self.learning.take(self.channels, values, (moment.offset, moment.index), effects);
        }
    }

    /// Tells a transition that a row caused.
    pub(crate) fn tell(&mut self, machine: &MachineId, condition: &Condition, turn: Turn, moment: &Moment, said: Said) {
        let class = &*self.rules.class;
        let reading = Reading::of_row(self.batch, moment.row).json(class, machine);
        self.desk.tell(class, machine, condition, turn, moment, said.caused_by(reading));
    }

    /// The live values of the machine changed.
    pub(crate) fn touch(&mut self, slab: &mut Slab, at: usize, moment: &Moment) {
        let machine = &mut slab.machines[at];
        if !moment.silent && machine.touched != self.desk.round {
            machine.touched = self.desk.round;
            self.desk.effects.touched.push(machine.id.clone());
        }
    }
}

/// The value of a channel before a reading; `None` before one.
pub(crate) fn value_before(slab: &Slab, rules: &Rules, at: usize, channel: usize) -> Option<i64> {
    Some(slab.values(rules, at)[channel]).filter(|value| *value != NO_VALUE)
}
