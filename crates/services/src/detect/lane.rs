//! One partition of detect: its engine, and what it found that is not committed. Plain code; does not know a runtime, a
//! bus or a store.

use crate::{apart::ByIngest, record::Reader};
use bus::Record;
use catalog::{Catalogue, MachineId};
use engine::{Effects, Engine, Input, Live};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use store::Step;
use wire::{Alert, ReadingBatch};

/// A catalogue that takes effect at an offset.
#[derive(Debug, Clone)]
pub(super) struct Switch {
    pub(super) at: i64,
    pub(super) catalogue: Arc<Catalogue>,
}

/// What goes to the store: a step that owns its effects.
pub(super) struct Found {
    pub(super) partition: u16,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) effects: Effects,
    sources: Vec<Arc<str>>,
    /// Takes effect at `from`.
    activation: Option<(Arc<Catalogue>, String)>,
}

impl Found {
    pub(super) fn step(&self) -> Step<'_> {
        Step {
            partition: self.partition,
            from: self.from,
            to: self.to,
            effects: &self.effects,
            sources: &self.sources,
            activation: self.activation.as_ref().map(|(catalogue, document)| (catalogue.hash(), &**document)),
        }
    }
}

pub(super) struct Lane {
    partition: u16,
    engine: Engine,
    /// Decodes records under what is in force.
    reader: Reader,
    /// In order of offset; those below `position` are of the replay.
    switches: VecDeque<Switch>,
    /// Where the store stands, or will when what was taken is committed.
    position: i64,
    /// Next record; below `position` while the replay lasts.
    next: i64,
    effects: Effects,
    /// Source of each of `effects.machines`.
    sources: Vec<Arc<str>>,
    /// Steps with an activation, complete, that wait for the next commit.
    activated: Vec<Found>,
    touched: HashSet<MachineId>,
    /// A restart needs the bus from here.
    needs: i64,
    saved_at: Instant,
    rows_unsaved: u64,
    /// A record came, or silence was found, since the state was saved.
    changed: bool,
    /// What stands by the history, for the engine once it has been given everything below `recall_at`,
    /// where the store stood at the start.
    recall: Option<Recall>,
    recall_at: i64,
    /// What ingest had taken before.
    taken: ByIngest,
}

/// What stands by the history, each condition by its last alert.
pub(super) enum Recall {
    /// `no_data`: silence is not on the bus, so no replay gives it again.
    Silence(Vec<Alert>),
    /// Everything: the replay saw only the end of what led to it.
    All(Vec<Alert>),
}

impl Lane {
    /// A lane whose engine has been given everything below `next`; it stays silent below `position`, where the store
    /// stands. `switches` lie at or above `next`.
    pub(super) fn new(
        partition: u16,
        mut engine: Engine,
        reader: Reader,
        switches: VecDeque<Switch>,
        position: i64,
        next: i64,
    ) -> Lane {
        engine.silent_below(position);
        let touched = engine.machines().into_iter().collect();
        Lane {
            partition,
            engine,
            reader,
            switches,
            position,
            next,
            effects: Effects::default(),
            sources: Vec::new(),
            activated: Vec::new(),
            touched,
            needs: next.min(position),
            // Partitions are saved one after the other, not all at once.
            saved_at: Instant::now() + Duration::from_secs(5) * u32::from(partition),
            rows_unsaved: 0,
            changed: next < position,
            recall: None,
            recall_at: position,
            taken: ByIngest::default(),
        }
    }

    /// Names what ingest had taken before, to be compared with what is decoded here.
    pub(super) fn compare_with(&mut self, taken: ByIngest) {
        self.taken = taken;
    }

    /// Names what stands by the history, before anything is applied.
    pub(super) fn recall(&mut self, standing: Recall) {
        self.recall = Some(standing);
        self.recall_before(self.next);
    }

    /// The replay is over where the next record lies at or above the position at which it began.
    fn recall_before(&mut self, offset: i64) {
        if offset < self.recall_at {
            return;
        }
        match self.recall.take() {
            None => {}
            Some(Recall::Silence(standing)) => {
                for alert in standing {
                    self.engine.recall_no_data(&alert.machine_id, alert.condition_id, alert.started_at);
                }
            }
            Some(Recall::All(standing)) => {
                self.engine.recall(&standing, self.recall_at);
                self.touched = self.engine.machines().into_iter().collect();
                self.changed = true;
            }
        }
    }

    pub(super) fn partition(&self) -> u16 {
        self.partition
    }

    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Where the store stands, or will when what was taken is committed.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    pub(super) fn needs(&self) -> i64 {
        self.needs.min(self.position)
    }

    /// Records up to `offset` are gone.
    pub(super) fn skip_to(&mut self, offset: i64) {
        self.use_up_to(offset);
        self.next = self.next.max(offset);
    }

    /// Judges records of this partition, in order; what lies below the next one was judged already.
    pub(super) fn apply(&mut self, records: &[Record]) {
        let mut refused = 0;
        let judged = records.partition_point(|record| record.offset < self.next);
        let mut rest = &records[judged..];
        while let Some(first) = rest.first() {
            debug_assert_eq!(first.partition, self.partition, "a lane is given its own records");
            self.use_up_to(first.offset);
            self.recall_before(first.offset);
            let until = self.changes_at();
            let alike = rest.partition_point(|record| record.offset < until);
            let engine = &self.engine;
            let bound = |machine: &str| engine.class_of(machine).map(str::to_owned);
            let (count, run) = self.reader.read(&rest[..alike], &bound);
            if first.offset >= self.recall_at {
                self.taken.0.compare(first, &run);
            }
            for batch in &run.batches {
                self.engine.apply(Input::Readings(batch), &mut self.effects);
                self.rows_unsaved += batch.rows() as u64;
                self.note_sources(batch);
                self.touched.extend(self.effects.touched.drain(..));
            }
            // Ingest writes the dead letters; here they are only passed.
            refused += run.rejects.len() as u64;
            self.next = rest[count - 1].offset + 1;
            self.changed = true;
            rest = &rest[count..];
        }
        self.count(refused);
    }

    /// Records from here on are not judged with those before: something changes between them.
    fn changes_at(&self) -> i64 {
        let recall = if self.recall.is_none() { i64::MAX } else { self.recall_at };
        self.switches.front().map_or(recall, |switch| switch.at.min(recall))
    }

    /// Names the source of each machine that the batch brought.
    fn note_sources(&mut self, batch: &ReadingBatch) {
        let new = &self.effects.machines[self.sources.len()..];
        let Some(first) = batch.spans.first() else { return };
        if new.is_empty() || batch.spans.iter().all(|span| span.source == first.source) {
            self.sources.resize_with(self.effects.machines.len(), || first.source.clone());
            return;
        }
        let mut first_row: HashMap<&MachineId, usize> = HashMap::new();
        for row in 0..batch.rows() {
            first_row.entry(batch.machine_of(row)).or_insert(row);
        }
        let source_of = |machine: &MachineId| first_row.get(machine).and_then(|row| batch.span_of(*row));
        let sources = new.iter().map(|(machine, ..)| source_of(machine).unwrap_or(first).source.clone());
        self.sources.extend(sources);
    }

    /// Switches to what takes effect at or below an offset.
    fn use_up_to(&mut self, offset: i64) {
        while let Some(switch) = self.switches.pop_front_if(|switch| switch.at <= offset) {
            self.engine.apply(Input::Use { catalogue: switch.catalogue.clone() }, &mut self.effects);
            self.reader.switch(switch.catalogue);
        }
    }

    fn count(&mut self, undecoded: u64) {
        let counts = mem::take(&mut self.effects.counts);
        self.effects.rejects.clear();
        for (what, rows) in [
            ("in_order", counts.in_order),
            ("out_of_order", counts.out_of_order),
            ("late", counts.late),
            ("ahead", counts.ahead),
            ("duplicate", counts.duplicate),
            ("refused", counts.refused),
            ("spike", counts.spikes),
            ("counter_fall", counts.counter_falls),
            ("undecoded_record", undecoded),
        ] {
            if rows > 0 {
                metrics::counter!("millwright_readings_judged_total", "what" => what).increment(rows);
            }
        }
    }

    /// Another catalogue is in force from the next record that was not judged before.
    pub(super) fn switch(&mut self, catalogue: &Arc<Catalogue>) {
        let last = self.switches.back().map_or(self.reader.catalogue(), |switch| &switch.catalogue);
        if last.hash() != catalogue.hash() {
            self.activate(catalogue);
        }
    }

    /// As [`Lane::switch`]; recorded even where the same one is in force, but was never recorded.
    pub(super) fn activate(&mut self, catalogue: &Arc<Catalogue>) {
        let at = self.next.max(self.position);
        let before = self.take_step();
        self.activated.extend(before);
        self.activated.push(Found {
            partition: self.partition,
            from: at,
            to: at,
            effects: Effects::default(),
            sources: Vec::new(),
            activation: Some((catalogue.clone(), catalogue.document())),
        });
        self.position = at;
        self.switches.push_back(Switch { at, catalogue: catalogue.clone() });
        self.use_up_to(self.next);
    }

    /// Looks for machines that have fallen silent; not while a replay lasts.
    pub(super) fn find_silent(&mut self, now_us: i64, confirmed: &dyn Fn(&str) -> bool) {
        if self.next < self.position {
            return;
        }
        self.recall_before(self.next);
        self.engine.apply(Input::Silence { now_us, confirmed }, &mut self.effects);
        self.touched.extend(self.effects.touched.drain(..));
        if self.has_effects() {
            self.changed = true;
        }
    }

    fn has_effects(&self) -> bool {
        let Effects { alerts, events, machines, fits, .. } = &self.effects;
        !(alerts.is_empty() && events.is_empty() && machines.is_empty() && fits.is_empty())
    }

    /// Alerts that wait for a commit.
    pub(super) fn alerts(&self) -> usize {
        self.effects.alerts.len()
    }

    /// What must be committed now; a lane that found nothing leaves its position for later.
    pub(super) fn take_effects(&mut self) -> Vec<Found> {
        let mut found = mem::take(&mut self.activated);
        if self.has_effects() {
            found.extend(self.take_step());
        }
        found
    }

    /// The position, where it has moved or something was found.
    pub(super) fn take_position(&mut self) -> Option<Found> {
        debug_assert!(self.activated.is_empty(), "effects are taken first");
        self.take_step()
    }

    fn take_step(&mut self) -> Option<Found> {
        let to = self.next.max(self.position);
        if to == self.position && !self.has_effects() {
            return None;
        }
        let from = mem::replace(&mut self.position, to);
        Some(Found {
            partition: self.partition,
            from,
            to,
            effects: mem::take(&mut self.effects),
            sources: mem::take(&mut self.sources),
            activation: None,
        })
    }

    /// Whether machines changed since they were last shown.
    pub(super) fn touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What a screen shows of the machines that changed.
    pub(super) fn take_live(&mut self) -> Vec<Live> {
        let engine = &self.engine;
        self.touched.drain().filter_map(|machine| engine.live(&machine)).collect()
    }

    /// Whether it is time to save the state; never while a replay lasts.
    pub(super) fn unsaved(&self, after: Duration, rows: u64) -> bool {
        self.changed && self.next >= self.position && (self.rows_unsaved >= rows || self.saved_at.elapsed() >= after)
    }

    /// The state: changed slabs, where they are true, and from where a restart that has them replays.
    pub(super) fn snapshot(&mut self) -> (Vec<(u32, Vec<u8>)>, i64, i64) {
        let slabs = self.engine.snapshot();
        self.saved_at = Instant::now();
        self.rows_unsaved = 0;
        self.changed = false;
        (slabs, self.engine.next_offset(), self.engine.replay_from())
    }

    /// The state is saved.
    pub(super) fn saved(&mut self, replay_from: i64) {
        self.needs = replay_from;
    }
}
