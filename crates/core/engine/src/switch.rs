//! Another catalogue comes in force: what is known of a machine is kept by id.

use crate::{
    Engine,
    condition::{Gone, NEVER, What},
    learning::Learning,
    machine::{NO_VALUE, Slab},
    rules::{Kind, Rules},
};
use catalog::{Catalogue, Class, Expr, Quantity};
use scoring::{Band, Window};
use std::sync::Arc;
use wire::{Quality, ReadingBatch};

impl Engine {
    pub(crate) fn switch(&mut self, catalogue: Arc<Catalogue>) {
        for kind in 0..self.kinds.len() {
            let old = &self.kinds[kind].rules;
            // A class once in force stays so when its file is no longer given.
            let (class, hash) = match catalogue.class(&old.class.id) {
                Some(class) => (class, catalogue.hash()),
                None => (&old.class, old.catalogue_hash.as_str()),
            };
            let mut rules = Rules::new(Arc::clone(class), &catalogue);
            rules.catalogue_hash = hash.to_owned();
            for slab in self.slabs.iter_mut().filter(|slab| slab.kind == kind) {
                carry_over(slab, old, &rules);
            }
            let Kind { rules: old, learning } = &mut self.kinds[kind];
            learning.carry_over(old, &rules);
            *old = rules;
        }
        self.silence_is_due();
        self.catalogue = catalogue;
    }
}

/// What of a class is the same in another version of it.
pub(crate) struct Changes {
    /// By channel: its place before, where it means the same.
    pub(crate) channels: Vec<Option<usize>>,
    /// By attribute: its place before, and its words by the numbers that they had.
    pub(crate) attributes: Vec<Option<(usize, Vec<u8>)>>,
    /// By derived quantity: its place before, where it and all that it is made of mean the same.
    derived: Vec<Option<usize>>,
}

impl Changes {
    pub(crate) fn new(old: &Class, new: &Class) -> Changes {
        let same_channel = |channel: &catalog::Channel| {
            old.channels.iter().position(|before| {
                before.id == channel.id
                    && before.unit == channel.unit
                    && before.scale == channel.scale
                    && before.kind == channel.kind
            })
        };
        let mut changes = Changes {
            channels: new.channels.iter().map(same_channel).collect(),
            attributes: new
                .attributes
                .iter()
                .map(|attribute| {
                    let at = old.attributes.iter().position(|before| before.id == attribute.id)?;
                    let word = |word: &String| {
                        let place = attribute.values.iter().position(|value| value == word);
                        place.map_or(ReadingBatch::NONE, |place| place as u8)
                    };
                    Some((at, old.attributes[at].values.iter().map(word).collect()))
                })
                .collect(),
            derived: Vec::new(),
        };
        for derived in &new.derived {
            let same = old.derived.iter().position(|before| {
                before.id == derived.id
                    && before.unit == derived.unit
                    && before.scale == derived.scale
                    && before.text == derived.text
            });
            let mut is_same = true;
            derived.expression.walk(&mut |leaf| {
                if let Expr::Quantity(quantity) | Expr::Window(_, quantity) = leaf {
                    is_same &= changes.quantity(*quantity).is_some();
                }
            });
            changes.derived.push(same.filter(|_| is_same));
        }
        changes
    }

    /// What a quantity was before, where it means the same.
    fn quantity(&self, quantity: Quantity) -> Option<Quantity> {
        match quantity {
            Quantity::Channel(at) => self.channels[at].map(Quantity::Channel),
            Quantity::Derived(at) => self.derived[at].map(Quantity::Derived),
        }
    }
}

/// Moves a slab's machines to another version of their class.
pub(crate) fn carry_over(slab: &mut Slab, old: &Rules, new: &Rules) {
    slab.changed = true;
    for machine in &mut slab.machines {
        machine.own = new.own_of(&machine.id);
    }
    if old.class.document == new.class.document {
        return;
    }
    let changes = Changes::new(&old.class, &new.class);
    let mut held =
        std::mem::replace(slab, Slab { true_at: slab.true_at, saved_at: slab.saved_at, ..Slab::new(slab.kind) });
    slab.machines = std::mem::take(&mut held.machines);
    let machines = slab.machines.len();
    let (old_class, new_class) = (&*old.class, &*new.class);
    let windows: Vec<Option<usize>> = new
        .program
        .windowed()
        .iter()
        .map(|quantity| changes.quantity(*quantity).and_then(|before| old.window_of(before)))
        .collect();
    let bands = BandChanges::new(&changes, old, new);
    let stuck: Vec<Option<usize>> = new
        .stuck
        .iter()
        .map(|(channel, _)| {
            let before = changes.channels[*channel]?;
            old.stuck.iter().position(|(stuck, _)| *stuck == before)
        })
        .collect();
    for at in 0..machines {
        for from in &changes.channels {
            slab.values.push(from.map_or(NO_VALUE, |from| held.values[at * old_class.channels.len() + from]));
        }
        for from in &changes.attributes {
            let word = from.as_ref().and_then(|(from, words)| {
                words.get(usize::from(held.attributes[at * old_class.attributes.len() + from])).copied()
            });
            slab.attributes.push(word.unwrap_or(ReadingBatch::NONE));
        }
        for from in &stuck {
            slab.stuck_us.push(from.map_or(NEVER, |from| held.stuck_us[at * old.stuck.len() + from]));
        }
        for from in &windows {
            let window = |from: usize| std::mem::take(&mut held.windows[at * old.window_channels.len() + from]);
            slab.windows.push(from.map_or_else(Window::new, window));
        }
        for band in bands.of(|before| held.bands[at * old.bands.len() + before]) {
            slab.bands.push(band);
        }
        for from in &bands.own_counts {
            slab.band_counts.push(from.map_or(0, |from| held.band_counts[at * old.own_counts + from]));
        }
        let machine = &mut slab.machines[at];
        if !bands.shared {
            machine.band_count = 0;
        }
        if old_class.lateness_us != new_class.lateness_us {
            machine.order.prune(old_class.lateness_us);
        }
        if let Some(rare) = machine.rare.as_deref_mut() {
            let raw = std::mem::take(&mut rare.raw);
            let quality = std::mem::take(&mut rare.quality);
            if !raw.is_empty() {
                for (channel, from) in changes.channels.iter().enumerate() {
                    rare.raw.push(from.map_or(0, |from| raw[from]));
                    let of = from.map_or(Quality::Missing, |from| Quality::of(quality, from));
                    rare.quality |= of.bits(channel);
                }
            }
        }
        let Some(trouble) = machine.trouble.as_deref_mut() else { continue };
        trouble.timers.retain_mut(|timer| match slot_of(old, new, usize::from(timer.slot)) {
            Some(slot) => {
                timer.slot = slot as u8;
                true
            }
            None => false,
        });
        trouble.timers.sort_unstable_by_key(|timer| timer.slot);
        trouble.steps.retain_mut(|(channel, _)| {
            let to = changes.channels.iter().position(|from| *from == Some(usize::from(*channel)));
            *channel = to.unwrap_or(0) as u8;
            to.is_some()
        });
        if !new_class.laws.is_empty() || !keeps_fits(old_class, new_class) {
            trouble.unusual = None;
        }
        for condition in &mut trouble.conditions {
            condition.what = what_of(&condition.what, old_class, new_class);
        }
        machine.settle_trouble();
    }
}

/// Where the bands of a class come from.
struct BandChanges {
    /// By band: its place before.
    from: Vec<Option<usize>>,
    /// By band that counts its own readings: the place of its count before.
    own_counts: Vec<Option<usize>>,
    /// The bands that count together are the same.
    shared: bool,
}

impl BandChanges {
    fn new(changes: &Changes, old: &Rules, new: &Rules) -> BandChanges {
        let mut from: Vec<Option<usize>> = new
            .bands
            .iter()
            .map(|band| {
                let before = old.band_of(changes.quantity(band.quantity)?)?;
                (old.bands[before].own_count.is_some() == band.own_count.is_some()).then_some(before)
            })
            .collect();
        let shared = new.bands.iter().zip(&from).all(|(band, from)| band.own_count.is_some() || from.is_some());
        let mut own_counts = Vec::new();
        for (band, from) in new.bands.iter().zip(&mut from) {
            if band.own_count.is_some() {
                own_counts.push(from.and_then(|before| old.bands[before].own_count));
            } else if !shared {
                *from = None;
            }
        }
        BandChanges { from, own_counts, shared }
    }

    fn of(&self, held: impl Fn(usize) -> Band) -> impl Iterator<Item = Band> {
        self.from.iter().map(move |from| from.map_or_else(Band::default, &held))
    }
}

impl Learning {
    /// What the class learned holds on as long as its channels mean the same.
    fn carry_over(&mut self, old: &Rules, new: &Rules) {
        if old.class.document == new.class.document {
            return;
        }
        let changes = Changes::new(&old.class, &new.class);
        let held = std::mem::replace(self, Learning::new(&new.class, &new.bands));
        for (place, band) in new.bands.iter().enumerate() {
            let before = changes.quantity(band.quantity).and_then(|before| old.band_of(before));
            if let Some(before) = before {
                self.bands[place] = held.bands[before];
                self.band_counts[place] = held.band_counts[before];
            }
        }
        if keeps_fits(&old.class, &new.class) {
            self.sums = held.sums;
            self.fits = held.fits;
        }
    }
}

/// What was learned of one version of a class is true of the other.
fn keeps_fits(old: &Class, new: &Class) -> bool {
    old.channels.len() == new.channels.len()
        && old.channels.iter().zip(&new.channels).all(|(old, new)| {
            (&old.id, &old.unit, old.scale, old.kind, old.optional)
                == (&new.id, &new.unit, new.scale, new.kind, new.optional)
        })
}

/// The slot of the same law and severity.
fn slot_of(old: &Rules, new: &Rules, slot: usize) -> Option<usize> {
    let slot = old.program.slots()[slot];
    let law = &old.class.laws[slot.law];
    let severity = law.levels[slot.level].severity;
    let to = new.class.law_index(&law.id)?;
    let level = new.class.laws[to].levels.iter().position(|level| level.severity == severity)?;
    Some(new.laws[to].first + level)
}

fn what_of(what: &What, old: &Class, new: &Class) -> What {
    let gone = |law: bool| {
        What::Gone(Box::new(Gone {
            condition: what.name(old),
            failure_type: what.failure_type(old),
            notice: what.is_notice(old),
            law,
        }))
    };
    let channel = |at: u8| new.channel_index(&old.channels[usize::from(at)].id).map(|at| at as u8);
    match what {
        What::Law(law) => {
            new.law_index(&old.laws[usize::from(*law)].id).map_or_else(|| gone(true), |law| What::Law(law as u16))
        }
        What::Stuck(at) => channel(*at).map_or_else(|| gone(false), What::Stuck),
        What::Quality(at) => channel(*at).map_or_else(|| gone(false), What::Quality),
        What::Model if !new.laws.is_empty() || !keeps_fits(old, new) => gone(false),
        What::Gone(old) if old.law => {
            new.law_index(&old.condition).map_or_else(|| what.clone(), |law| What::Law(law as u16))
        }
        _ => what.clone(),
    }
}
