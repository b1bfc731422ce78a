//! Bus to conditions: one engine a partition; what it finds and the position that led there share one transaction.
//!
//! [`lane`] is the plain part, one partition without a runtime; [`restore`] gives the lanes as the store knows them; here
//! is the loop that feeds them, commits what they find, saves their state and shows their live values.

mod lane;
mod restore;

use crate::{apart::ByIngest, now_us};
use bus::{Bus, Consumer, Event, Record, Stopped, Topic};
use catalog::Catalogue;
use dependency::Dependency;
use lane::{Found, Lane};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{LiveValues, Step, Store};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use wire::Clocks;

/// Group of the consumers.
pub const GROUP: &str = "detector-group";
/// Bytes of values that are taken at once.
const LOT_BYTES: usize = 2 << 20;
/// A lot above this is judged apart from the runtime, its partitions side by side.
const APART_BYTES: usize = 64 << 10;
/// Live values are shown so often at most.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// Showing takes at most one part in so many of the time.
const SHOW_SHARE: u32 = 50;
/// Silence is looked for and snapshots are thought of so often.
const SECOND: Duration = Duration::from_secs(1);
/// How often it is asked whether a partition that stands still is to go on.
const GO_ON_EVERY: Duration = Duration::from_millis(200);
/// A partition that was given readings is saved after this time ...
const SAVE_AFTER: Duration = Duration::from_secs(30);
/// ... or after so many readings: what a restart may have to replay.
const SAVE_ROWS: u64 = 2_000_000;
/// Alerts that may gather while a commit is being written.
const GATHER_ALERTS: usize = 4096;
/// A stop takes what waits on the bus along, for no longer than this.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What detect is given.
#[derive(Clone)]
pub struct Parts {
    /// Where readings come from.
    pub bus: Bus,
    /// Where effects and positions go.
    pub store: Store,
    /// Where live values are shown.
    pub live: LiveValues,
    /// What is in force.
    pub catalogue: watch::Receiver<Arc<Catalogue>>,
    /// Next offset per partition: all before it is judged, and what it led to is durable. 0 of one that is not ours.
    pub passed: watch::Sender<Vec<i64>>,
    /// Told once the partitions are known and judged.
    pub ready: Arc<watch::Sender<bool>>,
    /// Away while a partition stands still.
    pub positions: Dependency,
    /// As ingest's.
    pub clocks: Arc<Clocks>,
    /// What ingest had taken before.
    pub taken: ByIngest,
}

/// Why detect ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("read from the bus")]
    Bus(#[from] bus::Error),
    #[error("write to the store")]
    Store(#[from] store::Error),
    #[error("catalogue {hash}, which was in force")]
    Catalogue { hash: String, source: catalog::ClassError },
    #[error("catalogue {0} was in force and is not stored")]
    NoCatalogue(String),
    #[error("the engine panicked: {0}")]
    Panicked(#[from] JoinError),
}

/// Judges the readings of the bus until `stop`; then what waits is judged, committed and saved.
///
/// # Errors
/// The bus or the store failed, or embedded another detector went on from the same position: start again from the store.
pub async fn run(mut parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    let catalogue = parts.catalogue.borrow_and_update().clone();
    let mut changes = parts.catalogue.clone();
    let mut consumer = parts.bus.consumer(Topic::Readings, GROUP)?;
    let mut detector = Detector::new(parts, catalogue);
    let mut second = interval(SECOND);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut go_on = interval(GO_ON_EVERY);
    go_on.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            done = end_of(&mut detector.commit) => detector.committed(done),
            done = end_of(&mut detector.save) => detector.saved(done),
            Ok(()) = changes.changed() => {
                let catalogue = changes.borrow_and_update().clone();
                detector.switch(&catalogue).await
            }
            () = tokio::time::sleep_until(detector.show_at), if detector.touched() => {
                detector.show();
                Ok(())
            }
            _ = second.tick() => detector.tick(&consumer).await,
            _ = go_on.tick(), if !detector.stopped.is_empty() => detector.go_on(&mut consumer).await,
            event = consumer.next(LOT_BYTES) => match event {
                // Those that are cut stand still from the next assignment on.
                Err(bus::Error::Truncated { .. }) if !detector.parts.bus.is_embedded() => {
                    detector.join_anew(&mut consumer).await
                }
                event => detector.take(&mut consumer, event?).await,
            },
        };
        match done {
            Err(Error::Store(store::Error::Fenced { .. })) if !detector.parts.bus.is_embedded() => {
                detector.start_over(&mut consumer).await?;
            }
            done => done?,
        }
    }
    let is_embedded = detector.parts.bus.is_embedded();
    match finish(detector, consumer).await {
        // Nothing of that commit was written: whoever has the partitions next goes on from where the store stands.
        Err(Error::Store(store::Error::Fenced { partition, expected, found })) if !is_embedded => {
            tracing::warn!(
                partition,
                expected,
                found,
                "another detector went on from a position of this one, which stops"
            );
            metrics::counter!("millwright_detect_fenced_total").increment(1);
            Ok(())
        }
        finished => finished,
    }
}

/// Judges what waits, for a moment, commits and saves it.
async fn finish(mut detector: Detector, mut consumer: Consumer) -> Result<(), Error> {
    let until = Instant::now() + DRAIN_MAX;
    while !consumer.caught_up() && Instant::now() < until {
        let Ok(event) = tokio::time::timeout_at(until, consumer.next(LOT_BYTES)).await else { break };
        detector.take(&mut consumer, event?).await?;
    }
    detector.finish().await
}

/// The end of a task that may not have been started.
async fn end_of<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(running) => {
            let done = running.await;
            *task = None;
            done
        }
        None => std::future::pending().await,
    }
}

struct Detector {
    parts: Parts,
    /// What is in force.
    catalogue: Arc<Catalogue>,
    /// What the group gave us, a lane or none yet.
    assigned: BTreeSet<u16>,
    stopped: Stopped,
    /// By partition; `None` of one that is not ours, and while a worker has it.
    lanes: Vec<Option<Lane>>,
    /// At most one commit is being written; the next lot is judged meanwhile.
    commit: Option<JoinHandle<Result<Vec<Found>, store::Error>>>,
    /// At most one partition's state is being saved.
    save: Option<JoinHandle<Result<Saved, store::Error>>>,
    show_at: Instant,
}

/// State that was saved: a restart of this partition needs the bus from here.
struct Saved {
    partition: u16,
    replay_from: i64,
}

impl Detector {
    fn new(parts: Parts, catalogue: Arc<Catalogue>) -> Detector {
        Detector {
            stopped: Stopped::new(Topic::Readings, parts.positions.clone()),
            parts,
            catalogue,
            assigned: BTreeSet::new(),
            lanes: Vec::new(),
            commit: None,
            save: None,
            show_at: Instant::now(),
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut().flatten()
    }

    async fn take(&mut self, consumer: &mut Consumer, event: Event) -> Result<(), Error> {
        match event {
            Event::Assigned(partitions) => {
                self.assigned.extend(&partitions);
                for lane in restore::lanes(&self.parts, &self.catalogue, &partitions).await? {
                    let place = usize::from(lane.partition());
                    self.lanes.resize_with(self.lanes.len().max(place + 1), || None);
                    self.lanes[place] = Some(lane);
                }
                self.hold();
                for partition in partitions {
                    self.start(consumer, partition).await?;
                }
                self.parts.ready.send_replace(true);
                self.submit().await
            }
            Event::Revoked(partitions) => {
                // First: who was overtaken meanwhile starts over without them.
                self.assigned.retain(|partition| !partitions.contains(partition));
                partitions.iter().for_each(|partition| self.stopped.release(*partition));
                self.give_away(consumer, &partitions).await
            }
            Event::Records(records) => self.judge(records).await,
        }
    }

    /// What is due every second.
    async fn tick(&mut self, consumer: &Consumer) -> Result<(), Error> {
        if consumer.caught_up() {
            self.find_silent().await?;
            self.commit_positions();
        }
        self.save_one().await?;
        consumer.commit(&self.positions());
        Ok(())
    }

    /// Another detector went on from a position of ours, so nothing of that commit was written: what is still ours is
    /// judged again from where the store stands now.
    async fn start_over(&mut self, consumer: &mut Consumer) -> Result<(), Error> {
        tracing::warn!("another detector went on from a position of this one: it starts over from the store");
        metrics::counter!("millwright_detect_fenced_total").increment(1);
        consumer.overtaken();
        // What is still on its way may be overtaken too.
        for done in [self.settle().await, self.settle_save().await] {
            match done {
                Err(Error::Store(store::Error::Fenced { .. })) => {}
                done => done?,
            }
        }
        self.lanes.clear();
        let ours = self.assigned.iter().copied().collect();
        self.take(consumer, Event::Assigned(ours)).await
    }

    /// Lets go of everything and joins the group as another: a client that has read a topic may not find the one that was
    /// made in its place.
    async fn join_anew(&mut self, consumer: &mut Consumer) -> Result<(), Error> {
        let ours = self.assigned.iter().copied().collect();
        self.take(consumer, Event::Revoked(ours)).await?;
        *consumer = self.parts.bus.consumer(Topic::Readings, GROUP)?;
        Ok(())
    }

    /// Goes on where a partition that stands still is whole after all, or a person has moved its position.
    async fn go_on(&mut self, consumer: &mut Consumer) -> Result<(), Error> {
        let mistaken = self.stopped.mistaken(&self.parts.bus).await;
        if !mistaken.is_empty() {
            self.take(consumer, Event::Assigned(mistaken)).await?;
        }
        let standing = self.stopped.standing();
        let positions = self.parts.store.positions(standing.iter().map(|(partition, _)| *partition)).await?;
        if standing.iter().zip(positions).all(|((_, stood), position)| position == *stood) {
            return Ok(());
        }
        self.join_anew(consumer).await
    }

    /// Starts a partition where its lane stands.
    async fn start(&mut self, consumer: &mut Consumer, partition: u16) -> Result<(), Error> {
        // A replay begins below the position, as far as a log that was cut may reach.
        let position = self.lane(usize::from(partition)).position();
        match consumer.start(partition, position).await {
            Err(bus::Error::Truncated { end, .. }) if !self.parts.bus.is_embedded() => {
                self.lanes[usize::from(partition)] = None;
                self.stopped.stop(partition, end, position);
                return Ok(());
            }
            Ok(()) | Err(bus::Error::Gap { .. }) => self.stopped.release(partition),
            Err(error) => return Err(error.into()),
        }
        loop {
            let from = self.lane(usize::from(partition)).next();
            match consumer.start(partition, from).await {
                Err(bus::Error::Gap { begin, position, .. }) => {
                    tracing::error!(
                        partition,
                        begin,
                        position,
                        "partition {partition}: records {position} to {begin} are gone from the bus before they were judged"
                    );
                    metrics::counter!("millwright_detect_gap_records_total")
                        .increment((begin - position).max(0) as u64);
                    self.lane(usize::from(partition)).skip_to(begin);
                }
                started => return Ok(started?),
            }
        }
    }

    /// Commits what was judged and lets go of partitions: who has them next goes on from there.
    async fn give_away(&mut self, consumer: &Consumer, partitions: &[u16]) -> Result<(), Error> {
        self.settle().await?;
        self.settle_save().await?;
        self.show();
        let mut found = Vec::new();
        for partition in partitions {
            let lane = self.lanes.get_mut(usize::from(*partition)).and_then(Option::take);
            let Some(mut lane) = lane else { continue };
            found.extend(lane.take_effects());
            found.extend(lane.take_position());
            consumer.commit(&[(*partition, lane.next())]);
        }
        match commit(self.parts.store.clone(), found).await {
            Ok(found) => self.note(found),
            // They were lost a while ago, and who has them now was quicker.
            Err(store::Error::Fenced { partition, expected, found }) => {
                tracing::warn!(partition, expected, found, "another detector went on from what this one gives away");
            }
            Err(error) => return Err(error.into()),
        }
        self.hold();
        self.submit().await
    }

    /// Where each partition stands, its last commit counted.
    fn positions(&self) -> Vec<(u16, i64)> {
        self.lanes().map(|lane| (lane.partition(), lane.next())).collect()
    }

    /// Tells the bus what a restart would need.
    fn hold(&self) {
        if self.parts.bus.is_embedded() {
            let from: Vec<i64> = self.lanes().map(Lane::needs).collect();
            self.parts.bus.hold("detect", &from);
        }
    }

    /// Judges records and hands what they lead to to the store.
    async fn judge(&mut self, records: Vec<Record>) -> Result<(), Error> {
        let bytes: usize = records.iter().map(|record| record.value.len()).sum();
        let lots = records.chunk_by(|a, b| a.partition == b.partition);
        if bytes <= APART_BYTES {
            for lot in lots {
                self.lane(usize::from(lot[0].partition)).apply(lot);
            }
        } else {
            let mut workers = JoinSet::new();
            for lot in lots {
                let lot = lot.to_vec();
                let place = usize::from(lot[0].partition);
                let mut lane = self.lanes[place].take().expect("records of a partition stand together");
                workers.spawn_blocking(move || {
                    lane.apply(&lot);
                    lane
                });
            }
            while let Some(lane) = workers.join_next().await {
                let lane = lane?;
                let place = usize::from(lane.partition());
                self.lanes[place] = Some(lane);
            }
        }
        self.submit().await
    }

    /// Hands what was found to the store, unless a commit is being written: then it goes with the next.
    async fn submit(&mut self) -> Result<(), Error> {
        if self.commit.is_some() {
            if self.lanes().map(Lane::alerts).sum::<usize>() < GATHER_ALERTS {
                return Ok(());
            }
            self.settle().await?;
        }
        self.start_commit();
        Ok(())
    }

    fn start_commit(&mut self) {
        let found: Vec<Found> = self.lanes_mut().flat_map(Lane::take_effects).collect();
        if found.is_empty() {
            self.tell_passed();
        } else {
            self.commit = Some(tokio::spawn(commit(self.parts.store.clone(), found)));
        }
    }

    /// Waits for the commit that is being written.
    async fn settle(&mut self) -> Result<(), Error> {
        if self.commit.is_some() {
            let done = end_of(&mut self.commit).await;
            self.note(done??);
        }
        Ok(())
    }

    /// Waits for the state that is being saved.
    async fn settle_save(&mut self) -> Result<(), Error> {
        if self.save.is_some() {
            let done = end_of(&mut self.save).await;
            self.saved(done)?;
        }
        Ok(())
    }

    /// What gathered during a commit goes with the next.
    fn committed(&mut self, done: Result<Result<Vec<Found>, store::Error>, JoinError>) -> Result<(), Error> {
        self.note(done??);
        self.start_commit();
        Ok(())
    }

    /// Measures what became durable.
    fn note(&self, found: Vec<Found>) {
        let now = now_us();
        let latency = metrics::histogram!("millwright_alert_seconds");
        for alert in found.iter().flat_map(|found| &found.effects.alerts) {
            metrics::counter!("millwright_alerts_total", "kind" => alert.kind.as_str()).increment(1);
            latency.record((now - alert.arrived_at).max(0) as f64 / 1e6);
        }
    }

    /// Tells how far everything is judged and durable.
    fn tell_passed(&self) {
        let next = |lane: &Option<Lane>| lane.as_ref().map_or(0, Lane::next);
        let passed: Vec<i64> = self.lanes.iter().map(next).collect();
        self.parts.passed.send_if_modified(|last| {
            let changed = *last != passed;
            *last = passed;
            changed
        });
    }

    /// Another catalogue is in force from here on; the activation is durable with the position at which it begins.
    async fn switch(&mut self, catalogue: &Arc<Catalogue>) -> Result<(), Error> {
        self.catalogue = catalogue.clone();
        self.lanes_mut().for_each(|lane| lane.switch(catalogue));
        self.submit().await
    }

    async fn find_silent(&mut self) -> Result<(), Error> {
        let store = self.parts.store.clone();
        let now = now_us();
        self.lanes_mut().for_each(|lane| lane.find_silent(now, &|machine| store.confirmed(machine)));
        self.submit().await
    }

    /// Readings that led to nothing move the position too: in a plant others look at it, and a new owner begins there.
    fn commit_positions(&mut self) {
        if self.parts.bus.is_embedded() || self.commit.is_some() {
            return;
        }
        let mut found: Vec<Found> = self.lanes_mut().flat_map(Lane::take_effects).collect();
        found.extend(self.lanes_mut().filter_map(Lane::take_position));
        if !found.is_empty() {
            self.commit = Some(tokio::spawn(commit(self.parts.store.clone(), found)));
        }
    }

    fn touched(&self) -> bool {
        self.lanes().any(Lane::touched)
    }

    /// Shows the live values of the machines that changed.
    fn show(&mut self) {
        let began = Instant::now();
        let machines = self.lanes_mut().flat_map(Lane::take_live).collect();
        self.parts.live.put(machines);
        let took = began.elapsed();
        self.show_at = began + SHOW_EVERY.max(took * SHOW_SHARE);
    }

    /// Saves the state of one partition for which it is time, in the background.
    async fn save_one(&mut self) -> Result<(), Error> {
        if self.save.is_some() {
            return Ok(());
        }
        let due = |lane: &Lane| lane.unsaved(SAVE_AFTER, SAVE_ROWS);
        let Some(place) = self.lanes.iter().position(|lane| lane.as_ref().is_some_and(due)) else { return Ok(()) };
        // A snapshot may be saved only once what it knows of is committed.
        self.settle().await?;
        let snapshot = self.snapshot(place).await?;
        let found: Vec<Found> = self.lanes_mut().flat_map(Lane::take_effects).collect();
        let found = found.into_iter().chain(self.lane(place).take_position()).collect();
        let found = commit(self.parts.store.clone(), found).await?;
        self.note(found);
        self.tell_passed();
        let store = self.parts.store.clone();
        self.save = Some(tokio::spawn(snapshot.save(store)));
        Ok(())
    }

    fn lane(&mut self, place: usize) -> &mut Lane {
        self.lanes[place].as_mut().expect("it is ours and no worker runs")
    }

    /// Encodes the state of a partition, apart from the runtime.
    async fn snapshot(&mut self, place: usize) -> Result<Snapshot, Error> {
        let mut lane = self.lanes[place].take().expect("no worker runs");
        let encode = move || {
            let (slabs, offset, replay_from) = lane.snapshot();
            let partition = lane.partition();
            (lane, Snapshot { partition, slabs, offset, replay_from })
        };
        let (lane, snapshot) = tokio::task::spawn_blocking(encode).await?;
        self.lanes[place] = Some(lane);
        Ok(snapshot)
    }

    fn saved(&mut self, done: Result<Result<Saved, store::Error>, JoinError>) -> Result<(), Error> {
        let Saved { partition, replay_from } = done??;
        // Its partition may have been given away meanwhile.
        if let Some(lane) = self.lanes.get_mut(usize::from(partition)).and_then(Option::as_mut) {
            lane.saved(replay_from);
        }
        self.hold();
        Ok(())
    }

    /// Commits and saves everything, so that a start after this replays nothing.
    async fn finish(mut self) -> Result<(), Error> {
        self.settle().await?;
        self.settle_save().await?;
        self.show();
        let mut found: Vec<Found> = self.lanes_mut().flat_map(Lane::take_effects).collect();
        found.extend(self.lanes_mut().filter_map(Lane::take_position));
        let found = commit(self.parts.store.clone(), found).await?;
        self.note(found);
        self.tell_passed();
        let mut saves = JoinSet::new();
        let ours: Vec<usize> = self.lanes().map(|lane| usize::from(lane.partition())).collect();
        for place in ours {
            let snapshot = self.snapshot(place).await?;
            saves.spawn(snapshot.save(self.parts.store.clone()));
        }
        while let Some(done) = saves.join_next().await {
            self.saved(done)?;
        }
        Ok(())
    }
}

/// Encoded state of a partition.
struct Snapshot {
    partition: u16,
    slabs: Vec<(u32, Vec<u8>)>,
    /// The slabs are true here.
    offset: i64,
    replay_from: i64,
}

impl Snapshot {
    async fn save(self, store: Store) -> Result<Saved, store::Error> {
        let Snapshot { partition, slabs, offset, replay_from } = self;
        store.save_slabs(partition, slabs, offset).await?;
        Ok(Saved { partition, replay_from })
    }
}

/// Writes steps in one transaction.
async fn commit(store: Store, found: Vec<Found>) -> Result<Vec<Found>, store::Error> {
    if !found.is_empty() {
        let steps: Vec<Step<'_>> = found.iter().map(Found::step).collect();
        store.commit(steps).await?;
    }
    Ok(found)
}
