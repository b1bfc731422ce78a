//! A class in force: compiled, with what the row loop asks of it looked up once.

use crate::learning::Learning;
use catalog::{Catalogue, ChannelKind, Class, Expr, Function, MachineId, Operator, Quantity};
use scoring::{Program, Settings};
use std::{collections::BTreeMap, sync::Arc};

/// A class and what its machines of this partition taught.
pub(crate) struct Kind {
    pub(crate) rules: Rules,
    pub(crate) learning: Learning,
}

/// A class compiled for the row loop.
pub(crate) struct Rules {
    pub(crate) class: Arc<Class>,
    /// Hash of the catalogue that brought the class; the one in force unless that lacks it.
    pub(crate) catalogue_hash: String,
    pub(crate) program: Program,
    /// Of machines that have nothing of their own.
    settings: Settings,
    own: Vec<Settings>,
    own_of: BTreeMap<MachineId, u32>,
    /// By slot.
    pub(crate) slots: Vec<SlotRule>,
    /// By law.
    pub(crate) laws: Vec<LawRule>,
    /// Slots of laws that are judged in running, after the class's settle.
    pub(crate) plain_slots: u64,
    /// Laws with a `when` or a settle of their own.
    pub(crate) special_laws: Vec<usize>,
    /// Slots with an on_delay.
    pub(crate) delayed_slots: u64,
    /// Slots of laws that a stop suspends: those without a `when`.
    pub(crate) running_slots: u64,
    pub(crate) counters: Vec<usize>,
    /// Gauges that can be stuck: (channel, after).
    pub(crate) stuck: Vec<(usize, i64)>,
    /// Channels with a largest step: (channel, step).
    pub(crate) steps: Vec<(usize, i64)>,
    /// By place of a window: its channel, where it is of one.
    pub(crate) window_channels: Vec<Option<usize>>,
    /// Quantities that have a normal band, in the order in which a machine stores them.
    pub(crate) bands: Vec<BandRule>,
    /// Bands that count their own readings.
    pub(crate) own_counts: usize,
}

pub(crate) struct SlotRule {
    pub(crate) on_delay_us: i64,
    pub(crate) off_delay_us: i64,
}

pub(crate) struct LawRule {
    /// First slot; its levels follow.
    pub(crate) first: usize,
    pub(crate) mask: u64,
}

/// A quantity with a normal band.
pub(crate) struct BandRule {
    pub(crate) quantity: Quantity,
    /// Place among the bands that count their own readings: the quantity may lack a value while the reading is whole.
    pub(crate) own_count: Option<usize>,
}

impl Rules {
    /// Compiles a class of a catalogue.
    pub(crate) fn new(class: Arc<Class>, catalogue: &Catalogue) -> Rules {
        let program = Program::new(Arc::clone(&class));
        let level_of = |slot: &scoring::Slot| &class.laws[slot.law].levels[slot.level];
        let slots: Vec<SlotRule> = program
            .slots()
            .iter()
            .map(level_of)
            .map(|level| SlotRule { on_delay_us: level.on_delay_us, off_delay_us: level.off_delay_us })
            .collect();
        let mut laws = Vec::new();
        let mut first = 0;
        for law in &class.laws {
            let mask = (first..first + law.levels.len()).fold(0, |mask, slot| mask | 1u64 << slot);
            laws.push(LawRule { first, mask });
            first += law.levels.len();
        }
        let slots_of = |wanted: &dyn Fn(usize) -> bool| {
            (0..laws.len()).filter(|&law| wanted(law)).fold(0, |mask, law| mask | laws[law].mask)
        };
        let is_special = |law: usize| class.laws[law].when.is_some() || class.laws[law].settle_us.is_some();
        let channels = || class.channels.iter().enumerate();
        let bands = bands(&class);
        Rules {
            plain_slots: slots_of(&|law| !is_special(law)),
            special_laws: (0..laws.len()).filter(|&law| is_special(law)).collect(),
            delayed_slots: (0..slots.len())
                .filter(|&slot| slots[slot].on_delay_us > 0)
                .fold(0, |mask, slot| mask | 1u64 << slot),
            running_slots: slots_of(&|law| class.laws[law].when.is_none()),
            counters: channels()
                .filter(|(_, channel)| channel.kind == ChannelKind::Counter)
                .map(|(place, _)| place)
                .collect(),
            stuck: channels()
                .filter(|(_, channel)| channel.kind == ChannelKind::Gauge)
                .filter_map(|(place, channel)| Some((place, channel.stuck_after_us?)))
                .collect(),
            steps: channels()
                .filter(|(_, channel)| channel.kind == ChannelKind::Gauge)
                .filter_map(|(place, channel)| Some((place, channel.max_step?)))
                .collect(),
            window_channels: program
                .windowed()
                .iter()
                .map(|quantity| match quantity {
                    Quantity::Channel(channel) => Some(*channel),
                    Quantity::Derived(_) => None,
                })
                .collect(),
            own_counts: bands.iter().filter(|band| band.own_count.is_some()).count(),
            bands,
            settings: Settings::resolve(&class, None),
            own: Vec::new(),
            own_of: BTreeMap::new(),
            catalogue_hash: catalogue.hash().to_owned(),
            slots,
            laws,
            program,
            class,
        }
        .with_machines_of(catalogue)
    }

    /// Takes what a catalogue's machines have of their own.
    pub(crate) fn with_machines_of(mut self, catalogue: &Catalogue) -> Rules {
        self.own.clear();
        self.own_of.clear();
        for (machine, own) in catalogue.machines() {
            let bare = own.parameters.is_empty() && own.limits.is_empty() && own.attributes.is_empty();
            if bare || own.class.as_ref().is_some_and(|class| *class != self.class.id) {
                continue;
            }
            self.own.push(Settings::resolve(&self.class, Some(own)));
            self.own_of.insert(machine.clone(), self.own.len() as u32);
        }
        self
    }

    /// Some machine has settings of its own.
    pub(crate) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// Where a machine's own settings lie, for [`Rules::settings`]; 0: it has none.
    pub(crate) fn own_of(&self, machine: &str) -> u32 {
        if self.own.is_empty() { 0 } else { self.own_of.get(machine).copied().unwrap_or(0) }
    }

    /// A machine's settings.
    pub(crate) fn settings(&self, own: u32) -> &Settings {
        match own.checked_sub(1) {
            None => &self.settings,
            Some(at) => &self.own[at as usize],
        }
    }

    /// Place of a quantity's window.
    pub(crate) fn window_of(&self, quantity: Quantity) -> Option<usize> {
        self.program.windowed().iter().position(|windowed| *windowed == quantity)
    }

    /// Place of a quantity's band.
    pub(crate) fn band_of(&self, quantity: Quantity) -> Option<usize> {
        self.bands.iter().position(|band| band.quantity == quantity)
    }
}

/// A counter grows by nature: it has no normal, and neither has what is made of it.
fn bands(class: &Class) -> Vec<BandRule> {
    let mut own = 0;
    // By derived quantity: it may lack a value in a whole reading; it grows with a counter.
    let mut may_lack: Vec<bool> = Vec::new();
    let mut grows: Vec<bool> = Vec::new();
    let mut bands = Vec::new();
    let mut add = |quantity, lacks: bool| {
        let own_count = lacks.then_some(own);
        own += usize::from(lacks);
        bands.push(BandRule { quantity, own_count });
    };
    for (place, channel) in class.channels.iter().enumerate() {
        if channel.kind == ChannelKind::Gauge {
            add(Quantity::Channel(place), channel.optional);
        }
    }
    for (place, derived) in class.derived.iter().enumerate() {
        let (mut lacks, mut grown) = (false, false);
        derived.expression.walk(&mut |leaf| match leaf {
            Expr::Quantity(Quantity::Channel(channel)) => {
                lacks |= class.channels[*channel].optional;
                grown |= class.channels[*channel].kind == ChannelKind::Counter;
            }
            Expr::Quantity(Quantity::Derived(before)) => {
                lacks |= may_lack[*before];
                grown |= grows[*before];
            }
            Expr::Binary(Operator::Divide, _, by) => lacks |= !matches!(**by, Expr::Number(_)),
            Expr::Window(..) | Expr::Call(Function::Sqrt, _) => lacks = true,
            _ => {}
        });
        may_lack.push(lacks);
        grows.push(grown);
        if !grown {
            add(Quantity::Derived(place), lacks);
        }
    }
    bands
}

/// The places of the bits that are set.
pub(crate) fn bits(mut of: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (of != 0).then(|| of.trailing_zeros() as usize)?;
        of &= of - 1;
        Some(bit)
    })
}
