//! A member of a group: told what it is assigned, it begins where its own database says.
//!
//! What the group decides is carried out late. An assignment is taken up at the `next` after the one that told it, when
//! the places to start from are known; a revocation is given in to there, too, when what was in hand is committed.

use super::{
    Error, Inner, Protocol, client,
    group::{Group, Holds, Seen},
    reader::ToRecord,
};
use crate::{Error as BusError, Event, Record, Topic, registry};
use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, StreamConsumer},
    error::KafkaError,
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::{sync::Notify, task::JoinHandle};

/// A consumer of a topic of the cluster.
pub struct KafkaConsumer {
    bus: Arc<Inner>,
    topic: Topic,
    group: Group,
    /// `None` only while it is being dropped.
    stream: Option<StreamConsumer<Member>>,
    changes: Arc<Changes>,
    classic: bool,
    to_record: ToRecord,
    /// Partitions that are this consumer's, and where each stands.
    places: BTreeMap<u16, Place>,
    /// Told and not yet taken up.
    assigned: BTreeSet<u16>,
    /// Told and not yet given in to.
    revoked: Vec<u16>,
    /// Started at another place than they are read from.
    moved: BTreeSet<u16>,
    /// Read and too large for the `next` that read it, or by a schema that is not known yet.
    held: Option<Record>,
    /// Asks for the schema of what is held.
    learning: Option<JoinHandle<Result<(), registry::Error>>>,
    /// Met while more was taken.
    trouble: Option<KafkaError>,
    /// Some partition is asked for what its log does not have.
    doubt: bool,
}

#[derive(Default)]
struct Place {
    /// `None` before it is started.
    next: Option<i64>,
    at_end: bool,
    /// It ends below where it was to be read from: nobody waits for it.
    stopped: bool,
}

impl Place {
    /// Nothing is to come of it, by what was last heard.
    fn passed(&self) -> bool {
        self.at_end || self.stopped
    }
}

/// What the group decided, in order.
#[derive(Default)]
struct Changes {
    waiting: Mutex<VecDeque<Change>>,
    come: Notify,
    /// The consumer leaves: it gives in at once.
    leaving: AtomicBool,
}

enum Change {
    Assigned(Vec<u16>),
    Revoked(Vec<u16>),
    /// With the membership that gave them.
    Lost(Vec<u16>),
}

/// The client's side of a consumer.
pub(super) struct Member {
    told: client::Context,
    changes: Arc<Changes>,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.told.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.told.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.told.stats(statistics);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Member>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<u16> =
            list.elements().iter().filter_map(|element| u16::try_from(element.partition()).ok()).collect();
        let is_assignment = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.changes.leaving.load(Ordering::Acquire) || partitions.is_empty() {
            let done =
                if is_assignment { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            note(done);
            return;
        }
        let change = if is_assignment { Change::Assigned(partitions) } else { Change::Revoked(partitions) };
        self.changes.waiting.lock().expect("never poisoned").push_back(change);
        self.changes.come.notify_one();
    }
}

/// A group that moved on meanwhile refuses what is done for an assignment of before; the next one follows.
fn note(done: Result<(), KafkaError>) {
    if let Err(error) = done {
        tracing::debug!(%error, "a change of the assignment is out of date");
    }
}

impl KafkaConsumer {
    pub(super) fn join(bus: Arc<Inner>, topic: Topic, group: &str) -> Result<KafkaConsumer, Error> {
        let changes = Arc::<Changes>::default();
        let classic = bus.classic.load(Ordering::Relaxed);
        let stream = subscribe(&bus, topic, group, classic, &changes)?;
        Ok(KafkaConsumer {
            bus,
            topic,
            group: Group::new(group),
            stream: Some(stream),
            changes,
            classic,
            to_record: ToRecord::new(topic),
            places: BTreeMap::new(),
            assigned: BTreeSet::new(),
            revoked: Vec::new(),
            moved: BTreeSet::new(),
            held: None,
            learning: None,
            trouble: None,
            doubt: false,
        })
    }

    pub(crate) async fn next(&mut self, bytes: usize) -> Result<Event, BusError> {
        self.take_up()?;
        let mut closed = self.bus.closed.subscribe();
        loop {
            if self.doubt {
                self.find_gap().await?;
            }
            if let Some(error) = self.trouble.take() {
                self.failed(error)?;
                continue;
            }
            if let Some(event) = self.change() {
                return Ok(event);
            }
            if let Some(id) = self.held.as_ref().and_then(|held| self.bus.schemas.missing(&held.value)) {
                let schemas = self.bus.schemas.clone();
                let ask = || tokio::spawn(async move { schemas.learn(id).await });
                let learning = self.learning.get_or_insert_with(ask);
                let changes = self.changes.clone();
                tokio::select! {
                    biased;
                    _ = closed.wait_for(|closed| *closed) => return Err(BusError::Closed),
                    () = changes.come.notified() => {}
                    learned = learning => {
                        self.learning = None;
                        learned.map_err(|_| Error::Panicked)??;
                    }
                }
                continue;
            }
            if self.held.is_some() {
                // To gather a lot takes the thread for milliseconds, on which what the caller has just spawned waits:
                // no other takes it over.
                tokio::task::yield_now().await;
            }
            if let Some(record) = self.held.take() {
                self.group.gave();
                return Ok(Event::Records(self.gather(record, bytes)));
            }
            let changes = self.changes.clone();
            let has = !self.places.is_empty() && self.places.values().all(Place::passed);
            let stream = self.stream.as_ref().expect("it is not being dropped");
            let read = tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => return Err(BusError::Closed),
                () = changes.come.notified() => continue,
                message = stream.recv() => message.map(|message| self.to_record.of(&message)),
                seen = self.group.look(&self.bus, self.topic, has) => {
                    self.judge(seen)?;
                    continue;
                }
            };
            match read {
                Ok(record) if self.pass(&record) => self.held = Some(record),
                Ok(_) => {}
                Err(error) => self.trouble = Some(error),
            }
        }
    }

    pub(crate) async fn start(&mut self, partition: u16, offset: i64) -> Result<(), BusError> {
        let (begin, end) = self.bus.bounds(self.topic, partition).await?;
        let checked = check(partition, offset, (begin, end));
        match &checked {
            Ok(()) => self.place(partition, Place { next: Some(offset), ..Place::default() }),
            Err(BusError::Truncated { .. }) => self.place(partition, Place { stopped: true, ..Place::default() }),
            Err(_) => {}
        }
        checked
    }

    fn place(&mut self, partition: u16, new: Place) {
        // One that was revoked meanwhile is not there, as the next event tells.
        let Some(place) = self.places.get_mut(&partition) else { return };
        *place = new;
        self.held.take_if(|held| held.partition == partition);
        if !self.assigned.contains(&partition) {
            self.moved.insert(partition);
        }
    }

    pub(crate) fn commit(&self, next: &[(u16, i64)]) {
        let list = self.list(next.iter().map(|(partition, offset)| (*partition, Offset::Offset(*offset))));
        if let (Ok(list), Some(stream)) = (list, &self.stream)
            && list.count() > 0
            && let Err(error) = stream.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "the group was not told how far it is");
        }
    }

    /// As of a second ago: where readings come all the time, the very end is never met.
    pub(crate) fn caught_up(&self) -> bool {
        // Brokers that do not answer may have anything.
        let Some(ends) = self.bus.ends_lately() else { return false };
        let end = |partition: u16| match self.topic {
            Topic::Readings => ends.get(usize::from(partition)).copied(),
            _ => None,
        };
        let has_all = |(partition, place): (&u16, &Place)| {
            let started = |next| place.at_end || end(*partition).is_some_and(|end| next >= end);
            place.stopped || place.next.is_some_and(started)
        };
        let waits = !self.assigned.is_empty() || self.held.is_some();
        !waits && !self.places.is_empty() && self.places.iter().all(has_all)
    }

    /// Does what was told before.
    fn take_up(&mut self) -> Result<(), Error> {
        if let Some(stream) = &self.stream
            && !self.revoked.is_empty()
        {
            let list = self.list(self.revoked.iter().map(|partition| (*partition, Offset::Invalid)))?;
            note(stream.incremental_unassign(&list));
        }
        self.revoked.clear();
        if let Some(stream) = &self.stream
            && !self.moved.is_empty()
        {
            let list = self.list(self.moved.iter().map(|partition| (*partition, Offset::Invalid)))?;
            note(stream.incremental_unassign(&list));
            note(stream.incremental_assign(&self.list(self.starts(&self.moved))?));
        }
        self.moved.clear();
        if let Some(stream) = &self.stream
            && !self.assigned.is_empty()
        {
            note(stream.incremental_assign(&self.list(self.starts(&self.assigned))?));
        }
        self.assigned.clear();
        Ok(())
    }

    /// One that is not started waits at its end; what comes of it is not delivered.
    fn starts(&self, partitions: &BTreeSet<u16>) -> impl Iterator<Item = (u16, Offset)> {
        let start = |partition: &u16| self.places.get(partition).and_then(|place| place.next);
        partitions.iter().map(move |partition| (*partition, start(partition).map_or(Offset::End, Offset::Offset)))
    }

    fn list(&self, partitions: impl Iterator<Item = (u16, Offset)>) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::new();
        let name = self.bus.options.topic(self.topic);
        for (partition, offset) in partitions {
            list.add_partition_offset(&name, i32::from(partition), offset).map_err(Error::Read)?;
        }
        Ok(list)
    }

    /// Whether it is time to join the group anew, by this name or by another.
    fn judge(&mut self, seen: Result<Seen, Error>) -> Result<(), Error> {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(%error, "could not look at the group");
                return Ok(());
            }
        };
        let waits = |(partition, place): (&u16, &Place)| {
            let end = seen.ends.get(usize::from(*partition));
            !place.passed() && place.next.zip(end).is_some_and(|(next, end)| next < *end)
        };
        let holds = match self.places.is_empty() {
            true => Holds::Nothing,
            false if self.places.iter().any(waits) => Holds::Waiting,
            false => Holds::All,
        };
        match self.group.judge(holds, seen) {
            Some(nth) => self.join_anew(nth),
            None => Ok(()),
        }
    }

    /// Lets go of everything and becomes another member.
    fn join_anew(&mut self, nth: usize) -> Result<(), Error> {
        let lost: Vec<u16> = self.places.keys().copied().collect();
        self.let_go();
        self.group.joined(nth);
        self.changes = Arc::default();
        if !lost.is_empty() {
            self.changes.waiting.lock().expect("never poisoned").push_back(Change::Lost(lost));
        }
        self.places.clear();
        self.held = None;
        let stream = subscribe(&self.bus, self.topic, &self.group.name(), self.classic, &self.changes)?;
        leave(&self.bus, self.stream.replace(stream));
        Ok(())
    }

    /// The group waits for what was told and not done; what is told from here on is done at once.
    fn let_go(&mut self) {
        self.changes.leaving.store(true, Ordering::Release);
        while self.change().is_some() {}
        if let Err(error) = self.take_up() {
            tracing::debug!(%error, "while a group was left");
        }
    }

    /// Another consumer went on from a position of this one: where it is a member by another name, the two find together.
    pub(crate) fn overtaken(&mut self) {
        self.group.overtaken();
    }

    /// The next thing that the group decided.
    fn change(&mut self) -> Option<Event> {
        let change = self.changes.waiting.lock().expect("never poisoned").pop_front()?;
        Some(match change {
            Change::Assigned(partitions) => {
                self.assigned.extend(&partitions);
                self.places.extend(partitions.iter().map(|partition| (*partition, Place::default())));
                self.group.gave();
                Event::Assigned(partitions)
            }
            Change::Revoked(partitions) => {
                for partition in &partitions {
                    self.places.remove(partition);
                    self.assigned.remove(partition);
                    self.moved.remove(partition);
                }
                self.held.take_if(|held| partitions.contains(&held.partition));
                self.revoked.extend(&partitions);
                Event::Revoked(partitions)
            }
            Change::Lost(partitions) => Event::Revoked(partitions),
        })
    }

    /// Whether a record is to be delivered; then its partition stands after it.
    fn pass(&mut self, record: &Record) -> bool {
        let Some(place) = self.places.get_mut(&record.partition) else { return false };
        match place.next {
            Some(next) if record.offset >= next => {
                *place = Place { next: Some(record.offset + 1), ..Place::default() };
                true
            }
            _ => false,
        }
    }

    /// Takes what is there, without waiting, until the bytes are full.
    fn gather(&mut self, first: Record, bytes: usize) -> Vec<Record> {
        let mut left = bytes.saturating_sub(first.value.len());
        let mut records = vec![first];
        while let Some(stream) = &self.stream {
            let polled = pin!(stream.recv()).poll(&mut Context::from_waker(Waker::noop()));
            let record = match polled {
                Poll::Ready(Ok(message)) => self.to_record.of(&message),
                Poll::Ready(Err(KafkaError::PartitionEOF(partition))) => {
                    self.end(partition);
                    continue;
                }
                Poll::Ready(Err(error)) => {
                    self.trouble = Some(error);
                    break;
                }
                Poll::Pending => break,
            };
            if !self.pass(&record) {
                continue;
            }
            match left.checked_sub(record.value.len()) {
                Some(rest) if self.bus.schemas.missing(&record.value).is_none() => {
                    left = rest;
                    records.push(record);
                }
                _ => {
                    self.held = Some(record);
                    break;
                }
            }
        }
        // Stable: offsets of a partition stay in order.
        records.sort_by_key(|record| record.partition);
        records
    }

    fn end(&mut self, partition: i32) {
        if let Some(place) = u16::try_from(partition).ok().and_then(|partition| self.places.get_mut(&partition)) {
            place.at_end = true;
        }
    }

    fn failed(&mut self, error: KafkaError) -> Result<(), Error> {
        match error {
            KafkaError::PartitionEOF(partition) => self.end(partition),
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.doubt = true,
            error if passes(&error) => {}
            KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code)
                if !self.classic && self.bus.options.protocol == Protocol::Auto && is_unknown_protocol(code) =>
            {
                tracing::info!(
                    "the brokers do not have the newer group protocol: {} uses the classic one",
                    self.group.name()
                );
                self.bus.classic.store(true, Ordering::Relaxed);
                self.classic = true;
                let stream = subscribe(&self.bus, self.topic, &self.group.name(), true, &self.changes)?;
                leave(&self.bus, self.stream.replace(stream));
            }
            error => return Err(Error::Read(error)),
        }
        Ok(())
    }

    /// Finds the partition that is asked for what its log does not have; librdkafka stopped reading it.
    async fn find_gap(&mut self) -> Result<(), BusError> {
        let started: Vec<(u16, i64)> =
            self.places.iter().filter_map(|(partition, place)| Some((*partition, place.next?))).collect();
        let mut bounds = Vec::new();
        for (partition, _) in &started {
            bounds.push(self.bus.bounds(self.topic, *partition).await?);
        }
        self.doubt = false;
        for ((partition, next), bounds) in started.iter().zip(bounds) {
            check(*partition, *next, bounds)?;
        }
        // A replica that was behind for a moment: all are read anew from where they stand.
        self.moved.extend(started.iter().map(|(partition, _)| *partition));
        Ok(self.take_up()?)
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if let Some(learning) = self.learning.take() {
            learning.abort();
        }
        self.let_go();
        leave(&self.bus, self.stream.take());
    }
}

/// Leaves the group apart from the runtime, since that waits for an answer.
fn leave(bus: &Arc<Inner>, stream: Option<StreamConsumer<Member>>) {
    let bus = bus.clone();
    bus.leaving.send_modify(|leaving| *leaving += 1);
    let leave = move || {
        drop(stream);
        bus.leaving.send_modify(|leaving| *leaving -= 1);
    };
    std::thread::Builder::new().name("bus-leave".into()).spawn(leave).expect("the system gives a thread");
}

fn subscribe(
    bus: &Inner,
    topic: Topic,
    group: &str,
    classic: bool,
    changes: &Arc<Changes>,
) -> Result<StreamConsumer<Member>, Error> {
    let member = Member { told: client::Context("consumer"), changes: changes.clone() };
    let stream: StreamConsumer<Member> = client::member(&bus.options, group, classic, member)?;
    stream.subscribe(&[&bus.options.topic(topic)]).map_err(Error::Read)?;
    Ok(stream)
}

fn check(partition: u16, position: i64, (begin, end): (i64, i64)) -> Result<(), BusError> {
    if position > end {
        return Err(BusError::Truncated { partition, end, position });
    }
    if position < begin {
        return Err(BusError::Gap { partition, begin, position });
    }
    Ok(())
}

/// Whether it is over by itself.
pub(super) fn passes(error: &KafkaError) -> bool {
    let (KafkaError::MessageConsumption(code) | KafkaError::MetadataFetch(code)) = error else { return false };
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::PollExceeded
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::OffsetNotAvailable
    )
}

fn is_unknown_protocol(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature)
}
