//! Slabs as bytes: what a restart begins with instead of the whole bus.
//!
//! A record is its format, a checksum of what follows, and the body. A slab names the offset at which it is true and the
//! catalogue that its class comes from. The shared record names the offset of the whole snapshot and that of each slab's
//! newest record: a slab that it names by the offset that the slab itself has, had not changed since, and is true at the
//! offset of the whole. It comes first, so that a snapshot that was stored in part has it; a slab that is missing then
//! is made again from the offset of the snapshot before, which it names too.

use crate::{
    Engine, Order, SnapshotError,
    condition::{Condition, Gone, Timer, What},
    learning::{Frozen, Learning},
    machine::{Machine, Rare, SLAB, Slab, Trouble, Unusual, handle},
    rules::{Kind, Rules},
    switch::carry_over,
};
use catalog::{Catalogue, MachineId, Severity, State};
use scoring::{Band, Fit, FitSums, Window};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// Number of the format.
const FORMAT: u16 = 1;
/// The record that the partition shares.
const SHARED: u32 = u32::MAX;

impl Engine {
    /// Encodes every slab (4,096 machines each) that changed since it was last encoded: (slab number, bytes).
    /// Slab `u32::MAX` holds what the partition shares (fits, class bands); it comes first and must be stored no later
    /// than the others.
    pub fn snapshot(&mut self) -> Vec<(u32, Vec<u8>)> {
        let next_offset = self.next_offset;
        if self.slabs.iter().all(|slab| !slab.changed) && self.replay_from == next_offset {
            return Vec::new();
        }
        let mut slabs = vec![(SHARED, Vec::new())];
        for (number, slab) in self.slabs.iter_mut().enumerate().filter(|(_, slab)| slab.changed) {
            slab.changed = false;
            slab.saved_at = next_offset;
            slabs.push((number as u32, framed(|out| save_slab(slab, &self.kinds[slab.kind].rules, out))));
        }
        slabs[0].1 = framed(|out| {
            out.i64(next_offset);
            out.i64(self.replay_from);
            out.count(self.slabs.len());
            self.slabs.iter().for_each(|slab| out.i64(slab.saved_at));
            out.count(self.kinds.len());
            for Kind { rules, learning } in &self.kinds {
                out.text(&rules.class.id);
                out.text(&rules.catalogue_hash);
                save_learning(learning, out);
            }
        });
        self.replay_from = next_offset;
        slabs
    }

    /// Rebuilds an engine from all its slabs. The catalogue of each slab is found by hash with `catalogues`.
    ///
    /// # Errors
    /// A slab is damaged or of an unknown format: the caller rebuilds from the bus and says so.
    pub fn restore(
        partition: u16,
        catalogue: Arc<Catalogue>,
        slabs: &[(u32, Vec<u8>)],
        catalogues: &dyn Fn(&str) -> Option<Arc<Catalogue>>,
    ) -> Result<Engine, SnapshotError> {
        let mut engine = Engine::new(partition, Arc::clone(&catalogue));
        if slabs.is_empty() {
            return Ok(engine);
        }
        let damaged = |slab: u32| move || SnapshotError::Damaged(slab);
        let by_number: BTreeMap<u32, &[u8]> = slabs.iter().map(|(number, bytes)| (*number, bytes.as_slice())).collect();
        let shared = *by_number.get(&SHARED).ok_or_else(damaged(SHARED))?;
        let mut from = unframed(SHARED, shared)?;
        let (whole_at, before_at) = from.i64().zip(from.i64()).ok_or_else(damaged(SHARED))?;
        let saved_at = from.list(Bytes::i64).ok_or_else(damaged(SHARED))?;
        let kinds = from.count().ok_or_else(damaged(SHARED))?;
        // Classes as the slabs were written under them; they are carried over to the catalogue in force at the end.
        let found = |slab: u32, hash: &str| {
            if hash == catalogue.hash() {
                return Ok(Arc::clone(&catalogue));
            }
            catalogues(hash).ok_or_else(|| SnapshotError::NoCatalogue { slab, hash: hash.to_owned() })
        };
        for _ in 0..kinds {
            let (class, hash) = from.text().zip(from.text()).ok_or_else(damaged(SHARED))?;
            let written = found(SHARED, &hash)?;
            let class = written.class(&class).ok_or_else(damaged(SHARED))?;
            let rules = Rules::new(Arc::clone(class), &written);
            let learning = load_learning(&mut from, &rules).ok_or_else(damaged(SHARED))?;
            if engine.kind_of.contains_key(&class.id) {
                return Err(SnapshotError::Damaged(SHARED));
            }
            let kind = engine.add_kind(rules);
            engine.kinds[kind].learning = learning;
        }
        if !from.is_empty() {
            return Err(SnapshotError::Damaged(SHARED));
        }
        engine.next_offset = whole_at;
        for (&number, bytes) in by_number.range(..SHARED) {
            if number as usize != engine.slabs.len() {
                return Err(SnapshotError::Damaged(number));
            }
            let mut from = unframed(number, bytes)?;
            let (class, hash) = from.text().zip(from.text()).ok_or_else(damaged(number))?;
            let kind = *engine.kind_of.get(&class).ok_or_else(damaged(number))?;
            let written;
            let rules = &engine.kinds[kind].rules;
            // A snapshot that was stored in part may hold slabs of before a switch.
            let before = if rules.catalogue_hash == hash {
                None
            } else {
                written = found(number, &hash)?;
                let class = written.class(&class).ok_or_else(damaged(number))?;
                Some(Rules::new(Arc::clone(class), &written))
            };
            let mut slab = load_slab(&mut from, before.as_ref().unwrap_or(rules), kind).ok_or_else(damaged(number))?;
            if !from.is_empty() {
                return Err(SnapshotError::Damaged(number));
            }
            match saved_at.get(number as usize) {
                Some(saved_at) if *saved_at == slab.saved_at => slab.true_at = whole_at,
                _ => engine.next_offset = engine.next_offset.min(slab.true_at),
            }
            if slab.true_at > whole_at {
                return Err(SnapshotError::Damaged(SHARED));
            }
            if let Some(before) = before {
                carry_over(&mut slab, &before, rules);
            }
            engine.slabs.push(slab);
        }
        if engine.slabs.len() < saved_at.len() {
            // Never stored: its machines were all seen after the snapshot before.
            engine.next_offset = engine.next_offset.min(before_at);
        }
        engine.name_machines()?;
        engine.learn_from = whole_at;
        engine.replay_from = engine.next_offset;
        if engine.kinds.iter().any(|kind| kind.rules.catalogue_hash != catalogue.hash()) {
            engine.switch(catalogue);
        }
        Ok(engine)
    }

    /// Puts the machines of the slabs in their order of first sight, and finds them by name.
    fn name_machines(&mut self) -> Result<(), SnapshotError> {
        let mut seen = Vec::new();
        for (number, slab) in self.slabs.iter().enumerate() {
            seen.extend(slab.machines.iter().enumerate().map(|(at, machine)| (machine.seen, handle(number, at))));
        }
        seen.sort_unstable();
        for (at, (_, found)) in seen.iter().enumerate() {
            let (slab, of) = crate::machine::place(*found);
            let id = self.slabs[slab].machines[of].id.clone();
            if self.index.find(&self.slabs, &id).is_some() {
                return Err(SnapshotError::Damaged(slab as u32));
            }
            self.slabs[slab].machines[of].seen = at as u32;
            self.index.add(&self.slabs, &id, *found);
            self.seen.push(*found);
        }
        Ok(())
    }
}

/// Puts the format and a checksum before a body.
fn framed(body: impl FnOnce(&mut Out)) -> Vec<u8> {
    let mut out = Out(vec![0; 10]);
    body(&mut out);
    let Out(mut bytes) = out;
    let sum = checksum(&bytes[10..]);
    bytes[..2].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[2..10].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn unframed(slab: u32, bytes: &[u8]) -> Result<Bytes<'_>, SnapshotError> {
    let mut from = Bytes(bytes);
    let found = from.array().map(u16::from_le_bytes).ok_or(SnapshotError::Damaged(slab))?;
    if found == 0 || found > FORMAT {
        return Err(SnapshotError::Format { slab, found, known: FORMAT });
    }
    let sum = from.array().map(u64::from_le_bytes).ok_or(SnapshotError::Damaged(slab))?;
    if sum == checksum(from.0) { Ok(from) } else { Err(SnapshotError::Damaged(slab)) }
}

/// FNV-1a over words of 8 bytes: it finds damage, it does not keep out a forger.
fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    let mut take = |word: u64| {
        sum = (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 29;
    };
    for word in &mut words {
        take(u64::from_le_bytes(word.try_into().expect("a chunk has 8 bytes")));
    }
    words.remainder().iter().for_each(|byte| take(u64::from(*byte)));
    sum
}

fn save_slab(slab: &Slab, rules: &Rules, out: &mut Out) {
    out.text(&rules.class.id);
    out.text(&rules.catalogue_hash);
    out.i64(slab.saved_at);
    out.count(slab.machines.len());
    for machine in &slab.machines {
        save_machine(machine, rules.class.lateness_us, out);
    }
    slab.values.iter().for_each(|value| out.i64(*value));
    out.0.extend(&slab.attributes);
    slab.stuck_us.iter().for_each(|since| out.i64(*since));
    slab.windows.iter().for_each(|window| window.save(&mut out.0));
    slab.bands.iter().for_each(|band| out.band(band));
    slab.band_counts.iter().for_each(|count| out.u32(*count));
}

fn load_slab(from: &mut Bytes<'_>, rules: &Rules, kind: usize) -> Option<Slab> {
    let mut slab = Slab::new(kind);
    slab.saved_at = from.i64()?;
    slab.true_at = slab.saved_at;
    slab.changed = false;
    let machines = from.count()?;
    if machines == 0 || machines > SLAB {
        return None;
    }
    for _ in 0..machines {
        let mut machine = load_machine(from, rules)?;
        machine.own = rules.own_of(&machine.id);
        slab.machines.push(machine);
    }
    slab.values = from.many(machines * rules.class.channels.len(), Bytes::i64)?;
    slab.attributes = from.many(machines * rules.class.attributes.len(), Bytes::u8)?;
    slab.stuck_us = from.many(machines * rules.stuck.len(), Bytes::i64)?;
    slab.windows = from.many(machines * rules.window_channels.len(), |from| Window::load(&mut from.0))?;
    slab.bands = from.many(machines * rules.bands.len(), Bytes::band)?;
    slab.band_counts = from.many(machines * rules.own_counts, Bytes::u32)?;
    Some(slab)
}

fn save_machine(machine: &Machine, lateness_us: i64, out: &mut Out) {
    out.text(&machine.id);
    let mut order = machine.order.clone();
    order.prune(lateness_us);
    order.save(&mut out.0);
    for time in [
        machine.last_us,
        machine.last_offset,
        machine.arrived_us,
        machine.running_us,
        machine.judged_us,
        machine.learned_us,
    ] {
        out.i64(time);
    }
    out.u32(machine.last_index);
    out.u32(machine.seen);
    out.u32(machine.band_count);
    out.u8(machine.state as u8);
    out.option(machine.rare.as_deref(), |out, rare| {
        out.0.extend(rare.quality.to_le_bytes());
        out.option(rare.seq, |out, seq| out.i64(seq));
        out.option(rare.state, |out, state| out.u8(state));
        out.option(rare.links.as_deref(), |out, links| out.text(links));
        out.list(&rare.raw, |out, value| out.i64(*value));
    });
    out.option(machine.trouble.as_deref(), save_trouble);
}

fn load_machine(from: &mut Bytes<'_>, rules: &Rules) -> Option<Machine> {
    let id = MachineId::try_from(from.text()?.as_str()).ok()?;
    let mut machine = Machine::new(id, 0, 0);
    machine.order = Order::load(&mut from.0)?;
    machine.last_us = from.i64()?;
    machine.last_offset = from.i64()?;
    machine.arrived_us = from.i64()?;
    machine.running_us = from.i64()?;
    machine.judged_us = from.i64()?;
    machine.learned_us = from.i64()?;
    machine.last_index = from.u32()?;
    machine.seen = from.u32()?;
    machine.band_count = from.u32()?;
    machine.state = *State::ALL.get(usize::from(from.u8()?))?;
    let channels = rules.class.channels.len();
    let rare = from.option(|from| {
        Some(Rare {
            quality: u128::from_le_bytes(from.array()?),
            seq: from.option(Bytes::i64)?,
            state: from.option(Bytes::u8)?,
            links: from.option(Bytes::text)?,
            raw: from.list(Bytes::i64)?,
        })
    })?;
    let fits = |rare: &Rare| {
        (rare.raw.is_empty() || rare.raw.len() == channels)
            && rare.links.as_ref().is_none_or(|links| serde_json::from_str::<serde::de::IgnoredAny>(links).is_ok())
    };
    if !rare.as_ref().is_none_or(fits) {
        return None;
    }
    machine.rare = rare.map(Box::new);
    machine.trouble = from.option(|from| load_trouble(from, rules))?.map(Box::new);
    Some(machine)
}

fn save_trouble(out: &mut Out, trouble: &Trouble) {
    out.list(&trouble.timers, |out, timer| {
        out.u8(timer.slot);
        out.u8(u8::from(timer.active));
        out.i64(timer.since_us);
        out.i64(timer.last_us);
    });
    out.list(&trouble.conditions, |out, condition| {
        save_what(&condition.what, out);
        out.0.extend(condition.id.as_bytes());
        out.u8(condition.severity as u8);
        out.i64(condition.started_us);
        out.u8(u8::from(condition.suspended));
        out.u8(u8::from(condition.found_late));
    });
    out.list(&trouble.steps, |out, (channel, before)| {
        out.u8(*channel);
        out.i64(*before);
    });
    out.list(&trouble.refused, |out, (channel, count)| {
        out.text(channel);
        out.u8(*count);
    });
    out.i64(trouble.skew_us);
    out.option(trouble.unusual, |out, unusual| {
        out.u32(u32::from(unusual.over));
        out.u8(unusual.seen);
        out.i64(unusual.since_us);
    });
}

fn load_trouble(from: &mut Bytes<'_>, rules: &Rules) -> Option<Trouble> {
    let trouble = Trouble {
        timers: from.list(|from| {
            Some(Timer { slot: from.u8()?, active: from.flag()?, since_us: from.i64()?, last_us: from.i64()? })
        })?,
        conditions: from.list(|from| {
            Some(Condition {
                what: load_what(from, rules)?,
                id: Uuid::from_bytes(from.array()?),
                severity: severity(from.u8()?)?,
                started_us: from.i64()?,
                suspended: from.flag()?,
                found_late: from.flag()?,
            })
        })?,
        steps: from.list(|from| Some((from.u8()?, from.i64()?)))?,
        refused: from.list(|from| Some((from.text()?, from.u8()?)))?,
        skew_us: from.i64()?,
        unusual: from.option(|from| {
            let over = u16::try_from(from.u32()?).ok()?;
            Some(Unusual { over, seen: from.u8()?, since_us: from.i64()? })
        })?,
    };
    let in_place = trouble.timers.iter().all(|timer| usize::from(timer.slot) < rules.slots.len())
        && trouble.timers.is_sorted_by(|before, after| before.slot < after.slot)
        && trouble.steps.iter().all(|(channel, _)| usize::from(*channel) < rules.class.channels.len())
        && trouble.unusual.is_none_or(|unusual| unusual.seen <= 10 && unusual.over < 1 << 10);
    in_place.then_some(trouble)
}

fn save_what(what: &What, out: &mut Out) {
    match what {
        What::Law(law) => {
            out.u8(0);
            out.u32(u32::from(*law));
        }
        What::Model => out.u8(1),
        What::Stuck(channel) => {
            out.u8(2);
            out.u8(*channel);
        }
        What::Quality(channel) => {
            out.u8(3);
            out.u8(*channel);
        }
        What::Refused(channel) => {
            out.u8(4);
            out.text(channel);
        }
        What::ClockSkew => out.u8(5),
        What::NoData => out.u8(6),
        What::Gone(gone) => {
            out.u8(7);
            out.text(&gone.condition);
            out.text(&gone.failure_type);
            out.u8(u8::from(gone.notice));
            out.u8(u8::from(gone.law));
        }
    }
}

fn load_what(from: &mut Bytes<'_>, rules: &Rules) -> Option<What> {
    let channel = |at: u8| (usize::from(at) < rules.class.channels.len()).then_some(at);
    Some(match from.u8()? {
        0 => {
            let law = from.u32()?;
            What::Law(u16::try_from(law).ok().filter(|law| usize::from(*law) < rules.laws.len())?)
        }
        1 => What::Model,
        2 => What::Stuck(channel(from.u8()?)?),
        3 => What::Quality(channel(from.u8()?)?),
        4 => What::Refused(from.text()?),
        5 => What::ClockSkew,
        6 => What::NoData,
        7 => What::Gone(Box::new(Gone {
            condition: from.text()?,
            failure_type: from.text()?,
            notice: from.flag()?,
            law: from.flag()?,
        })),
        _ => return None,
    })
}

fn severity(number: u8) -> Option<Severity> {
    [Severity::Info, Severity::Warning, Severity::Critical].into_iter().find(|severity| *severity as u8 == number)
}

fn save_learning(learning: &Learning, out: &mut Out) {
    learning.sums.save(&mut out.0);
    out.list(&learning.fits, |out, frozen| {
        out.i64(frozen.offset);
        out.u32(frozen.index);
        out.text(&frozen.hash);
        out.list(&frozen.fit.channels, |out, channel| out.text(channel));
        out.i64(frozen.fit.count.cast_signed());
        out.list(&frozen.fit.mean, |out, mean| out.f64(*mean));
        out.list(&frozen.fit.precision, |out, number| out.f64(*number));
        out.f64(frozen.fit.threshold);
    });
    out.list(&learning.bands, |out, band| out.band(band));
    out.list(&learning.band_counts, |out, count| out.u32(*count));
}

fn load_learning(from: &mut Bytes<'_>, rules: &Rules) -> Option<Learning> {
    let of_class = from.0.starts_with(&sums_head(rules));
    let learning = Learning {
        sums: FitSums::load(&mut from.0)?,
        fits: from.list(|from| {
            Some(Frozen {
                offset: from.i64()?,
                index: from.u32()?,
                hash: from.text()?,
                fit: Fit {
                    channels: from.list(Bytes::text)?,
                    count: from.i64()?.cast_unsigned(),
                    mean: from.list(Bytes::f64)?,
                    precision: from.list(Bytes::f64)?,
                    threshold: from.f64()?,
                },
            })
        })?,
        bands: from.list(Bytes::band)?,
        band_counts: from.list(Bytes::u32)?,
    };
    let sizes_fit = learning.fits.iter().all(|Frozen { fit, .. }| {
        fit.mean.len() == fit.channels.len() && fit.precision.len() == fit.channels.len() * fit.channels.len()
    });
    let bands_fit = learning.bands.len() == rules.bands.len() && learning.band_counts.len() == rules.bands.len();
    (sizes_fit && bands_fit && of_class).then_some(learning)
}

/// The bytes with which the sums of a class begin: its channels and their places.
fn sums_head(rules: &Rules) -> Vec<u8> {
    let mut bytes = Vec::new();
    FitSums::new(&rules.class).save(&mut bytes);
    let channels = usize::from(bytes[0]);
    // Two numbers of 8 bytes, then sums and products of 16.
    bytes.truncate(bytes.len() - 16 - 16 * (channels + channels * (channels + 1) / 2));
    bytes
}

/// Bytes being written, little-endian.
struct Out(Vec<u8>);

impl Out {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend(value.to_le_bytes());
    }

    fn f64(&mut self, value: f64) {
        self.0.extend(value.to_le_bytes());
    }

    fn band(&mut self, band: &Band) {
        self.f64(band.mean);
        self.f64(band.m2);
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("fewer than 2^32 of anything"));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut save: impl FnMut(&mut Out, &T)) {
        self.count(items.len());
        items.iter().for_each(|item| save(self, item));
    }

    fn option<T>(&mut self, item: Option<T>, save: impl FnOnce(&mut Out, T)) {
        self.u8(u8::from(item.is_some()));
        if let Some(item) = item {
            save(self, item);
        }
    }
}

/// Bytes being read; `None` where they end too early or are not what was written.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        self.u8().filter(|byte| *byte <= 1).map(|byte| byte == 1)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    fn band(&mut self) -> Option<Band> {
        Some(Band { mean: self.f64()?, m2: self.f64()? })
    }

    fn count(&mut self) -> Option<usize> {
        self.u32().map(|count| count as usize)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    /// Memory is taken as the bytes are read: a damaged count cannot ask for more than they hold.
    fn many<T>(&mut self, count: usize, mut load: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(load(self)?);
        }
        items.shrink_to_fit();
        Some(items)
    }

    fn list<T>(&mut self, load: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        self.many(count, load)
    }

    fn option<T>(&mut self, load: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { load(self).map(Some) } else { Some(None) }
    }
}
