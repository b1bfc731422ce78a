//! What is known of each machine, in slabs of machines of one class.

use crate::{
    condition::{Condition, NEVER, Timer, What},
    rules::Rules,
};
use catalog::{MachineId, State};
use scoring::{Band, Window};
use wire::Quality;

use crate::Order;

/// Machines of one slab: what one snapshot record holds.
pub(crate) const SLAB: usize = 4096;
/// No value yet.
pub(crate) const NO_VALUE: i64 = i64::MIN;

/// A machine's place: its slab, then its place there.
pub(crate) type Handle = u32;

pub(crate) fn handle(slab: usize, at: usize) -> Handle {
    (slab * SLAB + at) as Handle
}

pub(crate) fn place(handle: Handle) -> (usize, usize) {
    (handle as usize / SLAB, handle as usize % SLAB)
}

/// Machines of one class; what every machine of the class has as many of lies in one column.
pub(crate) struct Slab {
    /// Place of the class in the engine.
    pub(crate) kind: usize,
    /// Rows of records below it are in the state already.
    pub(crate) true_at: i64,
    /// The offset that its newest encoding names.
    pub(crate) saved_at: i64,
    /// Something changed since it was encoded.
    pub(crate) changed: bool,
    pub(crate) machines: Vec<Machine>,
    /// By channel: the newest good value, scaled; [`NO_VALUE`] before one.
    pub(crate) values: Vec<i64>,
    /// By attribute: the newest in-order reading's.
    pub(crate) attributes: Vec<u8>,
    /// By channel that can be stuck: event time since which its value is the same.
    pub(crate) stuck_us: Vec<i64>,
    pub(crate) windows: Vec<Window>,
    pub(crate) bands: Vec<Band>,
    pub(crate) band_counts: Vec<u32>,
}

/// What every machine has once.
pub(crate) struct Machine {
    pub(crate) id: MachineId,
    pub(crate) order: Order,
    /// Of its newest reading in bus order, whatever became of it.
    pub(crate) last_us: i64,
    pub(crate) last_offset: i64,
    pub(crate) arrived_us: i64,
    /// Event time of the observed change to running; [`NEVER`]: it runs since before anything is known.
    pub(crate) running_us: i64,
    /// Event time of the run's first judged reading, moved by what gaps do not count; [`NEVER`]: none yet.
    pub(crate) judged_us: i64,
    /// Running time towards the baseline.
    pub(crate) learned_us: i64,
    pub(crate) last_index: u32,
    /// Place in the order of first sight.
    pub(crate) seen: u32,
    /// Readings that the bands took.
    pub(crate) band_count: u32,
    /// See [`Rules::own_of`].
    pub(crate) own: u32,
    /// In which round of effects it was touched.
    pub(crate) touched: u32,
    pub(crate) state: State,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) trouble: Option<Box<Trouble>>,
}

/// What most newest in-order readings lack.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rare {
    pub(crate) quality: u128,
    pub(crate) seq: Option<i64>,
    pub(crate) state: Option<u8>,
    pub(crate) links: Option<String>,
    /// All values as read, where one is bad or missing; else empty.
    pub(crate) raw: Vec<i64>,
}

/// What a machine that is well does not have.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Trouble {
    /// Ascending by slot.
    pub(crate) timers: Vec<Timer>,
    /// In the order of their raises.
    pub(crate) conditions: Vec<Condition>,
    /// Values that stepped too far, until the next decides: (channel, value before).
    pub(crate) steps: Vec<(u8, i64)>,
    /// Refused readings in a row, by channel.
    pub(crate) refused: Vec<(String, u8)>,
    /// In-order event time at the newest reading ahead; [`NEVER`]: none before the first in-order reading.
    pub(crate) skew_us: i64,
    pub(crate) unusual: Option<Unusual>,
}

/// The detector's newest readings of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Unusual {
    /// Newest in bit 0; a bit is set where the score was over the threshold.
    pub(crate) over: u16,
    /// Readings looked at since the machine is judged, at most ten.
    pub(crate) seen: u8,
    /// Event time of the first reading over it since which at most two of the newest ten were not; `NEVER`: none.
    pub(crate) since_us: i64,
}

impl Machine {
    pub(crate) fn new(id: MachineId, seen: u32, own: u32) -> Machine {
        Machine {
            id,
            order: Order::new(),
            last_us: NEVER,
            last_offset: 0,
            arrived_us: NEVER,
            running_us: NEVER,
            judged_us: NEVER,
            learned_us: 0,
            last_index: 0,
            seen,
            band_count: 0,
            own,
            touched: 0,
            state: State::Unknown,
            rare: None,
            trouble: None,
        }
    }

    /// The condition, where it stands.
    pub(crate) fn standing(&self, what: &What) -> Option<&Condition> {
        self.trouble.as_ref()?.conditions.iter().find(|condition| condition.what == *what)
    }

    pub(crate) fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// Gives back what holds nothing.
    pub(crate) fn settle_trouble(&mut self) {
        if self.trouble.as_ref().is_some_and(|trouble| trouble.is_empty()) {
            self.trouble = None;
        }
    }

    /// Running, for as long as the law or class asks.
    pub(crate) fn is_settled(&self, timestamp_us: i64, settle_us: i64) -> bool {
        self.state == State::Running
            && (self.running_us == NEVER || timestamp_us.saturating_sub(self.running_us) >= settle_us)
    }

    fn heap_bytes(&self) -> usize {
        // Two counters stand before the name.
        let name = 2 * size_of::<usize>() + self.id.len();
        let rare = self.rare.as_ref().map_or(0, |rare| {
            size_of::<Rare>() + rare.raw.capacity() * size_of::<i64>() + rare.links.as_ref().map_or(0, String::capacity)
        });
        let trouble = self.trouble.as_ref().map_or(0, |trouble| {
            size_of::<Trouble>()
                + trouble.timers.capacity() * size_of::<Timer>()
                + trouble.conditions.capacity() * size_of::<Condition>()
                + trouble.steps.capacity() * size_of::<(u8, i64)>()
                + trouble.refused.capacity() * size_of::<(String, u8)>()
        });
        name + self.order.heap_bytes() + rare + trouble
    }
}

impl Trouble {
    fn is_empty(&self) -> bool {
        self.timers.is_empty()
            && self.conditions.is_empty()
            && self.steps.is_empty()
            && self.refused.is_empty()
            && self.unusual.is_none()
    }

    pub(crate) fn stand(&mut self, condition: Condition) {
        // Mostly there is one.
        if self.conditions.capacity() == 0 {
            self.conditions.reserve_exact(1);
        }
        self.conditions.push(condition);
    }

    /// The timer of a slot, made where it is not there.
    pub(crate) fn timer(&mut self, slot: usize) -> &mut Timer {
        let at = self.timers.partition_point(|timer| usize::from(timer.slot) < slot);
        // Mostly there is one.
        if self.timers.capacity() == 0 {
            self.timers.reserve_exact(1);
        }
        if self.timers.get(at).is_none_or(|timer| usize::from(timer.slot) != slot) {
            self.timers.insert(at, Timer::new(slot));
        }
        &mut self.timers[at]
    }
}

impl Slab {
    pub(crate) fn new(kind: usize) -> Slab {
        Slab {
            kind,
            true_at: 0,
            saved_at: NEVER,
            changed: true,
            machines: Vec::new(),
            values: Vec::new(),
            attributes: Vec::new(),
            stuck_us: Vec::new(),
            windows: Vec::new(),
            bands: Vec::new(),
            band_counts: Vec::new(),
        }
    }

    /// Adds a machine of which nothing is known.
    pub(crate) fn add(&mut self, rules: &Rules, machine: Machine) {
        self.machines.push(machine);
        let machines = self.machines.len();
        self.values.resize(machines * rules.class.channels.len(), NO_VALUE);
        self.attributes.resize(machines * rules.class.attributes.len(), wire::ReadingBatch::NONE);
        self.stuck_us.resize(machines * rules.stuck.len(), NEVER);
        self.windows.resize_with(machines * rules.window_channels.len(), Window::new);
        self.bands.resize(machines * rules.bands.len(), Band::default());
        self.band_counts.resize(machines * rules.own_counts, 0);
    }

    pub(crate) fn values(&self, rules: &Rules, at: usize) -> &[i64] {
        strided(&self.values, rules.class.channels.len(), at)
    }

    pub(crate) fn attributes(&self, rules: &Rules, at: usize) -> &[u8] {
        strided(&self.attributes, rules.class.attributes.len(), at)
    }

    pub(crate) fn windows(&self, rules: &Rules, at: usize) -> &[Window] {
        strided(&self.windows, rules.window_channels.len(), at)
    }

    pub(crate) fn windows_mut(&mut self, rules: &Rules, at: usize) -> &mut [Window] {
        let many = rules.window_channels.len();
        &mut self.windows[at * many..][..many]
    }

    pub(crate) fn bands(&self, rules: &Rules, at: usize) -> &[Band] {
        strided(&self.bands, rules.bands.len(), at)
    }

    /// The newest in-order reading: values as they were read, and their quality.
    pub(crate) fn reading(&self, rules: &Rules, at: usize) -> (Vec<i64>, u128) {
        let rare = self.machines[at].rare.as_deref();
        let mut quality = rare.map_or(0, |rare| rare.quality);
        let mut values = match rare {
            Some(rare) if !rare.raw.is_empty() => rare.raw.clone(),
            _ => self.values(rules, at).to_vec(),
        };
        for (channel, value) in values.iter_mut().enumerate().filter(|(_, value)| **value == NO_VALUE) {
            *value = 0;
            quality |= Quality::Missing.bits(channel);
        }
        (values, quality)
    }

    /// Readings that a band of a machine took.
    pub(crate) fn band_count(&self, rules: &Rules, at: usize, band: usize) -> u32 {
        match rules.bands[band].own_count {
            None => self.machines[at].band_count,
            Some(own) => self.band_counts[at * rules.own_counts + own],
        }
    }

    /// Reads a little of everything that a reading of a machine will need: where many machines lie far apart, the
    /// waiting for one overlaps with that for the next.
    pub(crate) fn warm(&self, rules: &Rules, at: usize, timestamp_us: i64) -> i64 {
        let machine = &self.machines[at];
        let mut seen = machine.order.peek().cast_signed() ^ machine.last_us ^ i64::from(machine.touched);
        seen ^= i64::from(machine.id.as_bytes()[0]) ^ i64::from(machine.trouble.is_some());
        let mut take = |value: Option<i64>| seen ^= value.unwrap_or(0);
        let values = self.values(rules, at);
        take(values.first().copied());
        take(values.last().copied());
        take(self.stuck_us.get(at * rules.stuck.len()).copied());
        for band in self.bands(rules, at).iter().step_by(3) {
            take(Some(band.m2.to_bits().cast_signed()));
        }
        for window in self.windows(rules, at) {
            take(Some(window.peek(timestamp_us)));
        }
        seen
    }

    /// Bytes that the machines take, their heap included.
    pub(crate) fn bytes(&self) -> usize {
        let machines: usize = self.machines.iter().map(Machine::heap_bytes).sum();
        let windows: usize = self.windows.iter().map(|window| window.bytes() - size_of::<Window>()).sum();
        size_of::<Slab>()
            + self.machines.capacity() * size_of::<Machine>()
            + (self.values.capacity() + self.stuck_us.capacity()) * size_of::<i64>()
            + self.attributes.capacity()
            + self.windows.capacity() * size_of::<Window>()
            + self.bands.capacity() * size_of::<Band>()
            + self.band_counts.capacity() * size_of::<u32>()
            + machines
            + windows
    }
}

fn strided<T>(column: &[T], many: usize, at: usize) -> &[T] {
    &column[at * many..][..many]
}

/// A value of this quality says something.
pub(crate) fn is_usable(quality: Quality) -> bool {
    matches!(quality, Quality::Good | Quality::Uncertain)
}
