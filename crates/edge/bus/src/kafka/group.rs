//! The group that a consumer is a member of: by which name, and whether the brokers still coordinate it.
//!
//! A broker that was killed may never again load what `__consumer_offsets` says of a group (seen with Kafka 4.3.1: heartbeats
//! that came while it was loading went into the log, and every load since then ends at them). Its members are then given no
//! partition, for good. Positions lie in the databases of the effects, and who goes on from one that is not its own any
//! more writes nothing, so another name does as well: every member tries the same names in the same order.

use super::{Error, Inner, Options, client};
use crate::Topic;
use rdkafka::{TopicPartitionList, consumer::Consumer, error::KafkaError};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// How often a group that gives nothing is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// So often in a row nothing is right: what takes longer than an election or a load.
const LOOKS: u32 = 3;
/// The group's own name and those that are tried after it.
const NAMES: usize = 5;
/// A coordinator that answers does so within this time.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A consumer's membership.
pub(super) struct Group {
    home: String,
    /// Which of the names it joined by; 0 is its own.
    nth: usize,
    look_at: Instant,
    looking: Option<JoinHandle<Result<Seen, Error>>>,
    /// Someone else went on from a position of this consumer: both may be in groups of different names.
    overtaken: bool,
    /// Looks in a row that found nothing right.
    unwell: u32,
    /// What the group had committed at the last look.
    committed: Vec<i64>,
}

/// What a consumer has of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// No partition.
    Nothing,
    /// Records that do not come lie on one of its partitions.
    Waiting,
    /// All that there is.
    All,
}

/// What a look at the brokers found.
#[derive(Debug)]
pub(super) struct Seen {
    /// The first of the names that is coordinated.
    first: Option<usize>,
    /// What the members by this consumer's name have committed, by partition, unless no broker coordinates it.
    committed: Result<Vec<i64>, KafkaError>,
    /// The ends of the topic's partitions.
    pub(super) ends: Vec<i64>,
}

impl Group {
    pub(super) fn new(home: &str) -> Group {
        Group {
            home: home.to_owned(),
            nth: 0,
            look_at: Instant::now() + LOOK_EVERY,
            looking: None,
            overtaken: false,
            unwell: 0,
            committed: Vec::new(),
        }
    }

    /// The name that is joined.
    pub(super) fn name(&self) -> String {
        named(&self.home, self.nth)
    }

    /// It gave what a consumer waits for. Who was overtaken has partitions and may still be the one to move.
    pub(super) fn gave(&mut self) {
        if !self.overtaken {
            self.unwell = 0;
            self.look_at = Instant::now() + LOOK_EVERY;
        }
    }

    /// Someone else went on from a position of this consumer.
    pub(super) fn overtaken(&mut self) {
        if !self.overtaken && self.nth != 0 {
            // Its own name may do again; there is nothing to wait for.
            self.look_at = Instant::now();
        }
        self.overtaken = true;
    }

    /// Looks at the brokers when it is time, unless the consumer `has` all that was there when it last heard, or the brokers do
    /// not answer. Cancel-safe.
    pub(super) async fn look(&mut self, bus: &Arc<Inner>, topic: Topic, has: bool) -> Result<Seen, Error> {
        loop {
            if self.looking.is_none() {
                sleep_until(self.look_at).await;
                self.look_at = Instant::now() + LOOK_EVERY;
                if has && !self.overtaken || bus.ends_lately().is_none() {
                    self.unwell = 0;
                    sleep_until(self.look_at).await;
                    continue;
                }
                let (bus, home, nth) = (bus.clone(), self.home.clone(), self.nth);
                self.looking = Some(tokio::task::spawn_blocking(move || look(&bus, topic, &home, nth)));
            }
            if let Some(looking) = &mut self.looking {
                let seen = looking.await;
                self.looking = None;
                return seen.map_err(|_| Error::Panicked)?;
            }
        }
    }

    /// By which name the group is to be joined anew, if at all.
    pub(super) fn judge(&mut self, holds: Holds, seen: Seen) -> Option<usize> {
        let overtaken = self.overtaken;
        self.overtaken = overtaken && seen.committed.is_err();
        if let Some(first) = seen.first.filter(|first| overtaken && *first < self.nth) {
            let (name, joined) = (self.name(), named(&self.home, first));
            tracing::warn!("group {name}: another consumer goes on without being its member; {joined} is joined");
            return Some(first);
        }
        let trouble = match (&seen.committed, holds) {
            (Err(error), _) if overtaken || holds == Holds::Nothing => {
                Some((seen.first, format!("no broker coordinates it ({error})")))
            }
            (Ok(committed), Holds::Nothing) => {
                let waits = committed.iter().zip(&seen.ends).any(|(next, end)| *next.max(&0) < *end);
                let next = Some((self.nth + 1) % NAMES);
                (waits && *committed == self.committed)
                    .then(|| (next, "it gives no partition, and no member goes on".to_owned()))
            }
            (_, Holds::Waiting) => Some((Some(self.nth), "what lies on its partitions does not come".to_owned())),
            (_, Holds::Nothing | Holds::All) => None,
        };
        self.committed = seen.committed.unwrap_or_default();
        let Some((target, why)) = trouble else {
            self.unwell = 0;
            return None;
        };
        self.unwell += 1;
        if self.unwell < LOOKS {
            return None;
        }
        let name = self.name();
        match target.map(|target| named(&self.home, target)) {
            Some(joined) => tracing::error!("group {name}: {why}; {joined} is joined"),
            None => tracing::error!("group {name}: {why}, nor any of the names that would do as well"),
        }
        target
    }

    /// It is joined by this name from now on.
    pub(super) fn joined(&mut self, nth: usize) {
        *self = Group { nth, ..Group::new(&self.home) };
        metrics::gauge!("millwright_kafka_spare_group", "group" => self.home.clone()).set(nth as f64);
    }
}

fn named(home: &str, nth: usize) -> String {
    if nth == 0 { home.to_owned() } else { format!("{home}-{}", nth + 1) }
}

fn look(bus: &Inner, topic: Topic, home: &str, nth: usize) -> Result<Seen, Error> {
    let partitions = if topic == Topic::Readings { bus.partitions } else { topic.partitions() };
    let ends = (0..partitions).map(|partition| Ok(bus.bounds_now(topic, partition)?.1));
    let ends = ends.collect::<Result<_, Error>>()?;
    let of = |nth: usize| committed(&bus.options, topic, &named(home, nth), partitions);
    let committed = of(nth);
    let first = (0..NAMES).find(|other| if *other == nth { committed.is_ok() } else { of(*other).is_ok() });
    Ok(Seen { first, committed, ends })
}

/// What a group has committed of a topic, by partition; -1 where nothing.
pub(super) fn committed(options: &Options, topic: Topic, group: &str, partitions: u16) -> Result<Vec<i64>, KafkaError> {
    let outsider = client::outsider(options, group).map_err(|_| KafkaError::Canceled)?;
    let mut list = TopicPartitionList::new();
    let name = options.topic(topic);
    (0..partitions).for_each(|partition| {
        list.add_partition(&name, i32::from(partition));
    });
    let found = outsider.committed_offsets(list, ANSWER_MAX)?;
    found.elements().iter().map(|one| one.error().map(|()| one.offset().to_raw().unwrap_or(-1).max(-1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaErrorCode;

    fn seen(first: Option<usize>, committed: Option<i64>, end: i64) -> Seen {
        let none = KafkaError::OffsetFetch(RDKafkaErrorCode::NotCoordinator);
        Seen { first, committed: committed.map(|next| vec![next]).ok_or(none), ends: vec![end] }
    }

    #[test]
    fn a_group_that_no_broker_coordinates_is_left_for_the_first_name_that_one_does() {
        let mut group = Group::new("g");
        assert_eq!(group.judge(Holds::Nothing, seen(Some(2), None, 9)), None);
        assert_eq!(group.judge(Holds::Nothing, seen(Some(2), None, 9)), None);
        assert_eq!(group.judge(Holds::Nothing, seen(Some(2), None, 9)), Some(2));
        group.joined(2);
        assert_eq!(group.name(), "g-3");
        // None would do: it is asked again and again.
        let mut group = Group::new("g");
        for _ in 0..5 {
            assert_eq!(group.judge(Holds::Nothing, seen(None, None, 9)), None);
        }
        assert_eq!(group.judge(Holds::Nothing, seen(Some(0), None, 9)), Some(0));
    }

    #[test]
    fn a_member_that_is_not_needed_stays() {
        let mut group = Group::new("g");
        for next in 0..20 {
            assert_eq!(group.judge(Holds::Nothing, seen(Some(0), Some(next), 100)), None, "others go on");
        }
        for _ in 0..20 {
            assert_eq!(group.judge(Holds::Nothing, seen(Some(0), Some(100), 100)), None, "nothing waits");
            assert_eq!(group.judge(Holds::All, seen(None, None, 100)), None, "nothing is missing");
        }
    }

    #[test]
    fn a_group_in_which_nobody_goes_on_is_left() {
        let mut group = Group::new("g");
        assert_eq!(group.judge(Holds::Nothing, seen(Some(0), Some(5), 100)), None);
        for _ in 1..LOOKS {
            assert_eq!(group.judge(Holds::Nothing, seen(Some(0), Some(5), 100)), None);
        }
        assert_eq!(group.judge(Holds::Nothing, seen(Some(0), Some(5), 100)), Some(1));
    }

    #[test]
    fn who_waits_for_what_is_there_joins_again() {
        let mut group = Group::new("g");
        for _ in 1..LOOKS {
            assert_eq!(group.judge(Holds::Waiting, seen(Some(0), Some(5), 100)), None);
        }
        group.gave();
        for _ in 1..LOOKS {
            assert_eq!(group.judge(Holds::Waiting, seen(Some(0), Some(5), 100)), None);
        }
        assert_eq!(group.judge(Holds::Waiting, seen(Some(0), Some(5), 100)), Some(0));
    }

    #[test]
    fn who_was_overtaken_goes_where_all_others_go() {
        let mut group = Group::new("g");
        group.overtaken();
        assert_eq!(group.judge(Holds::All, seen(Some(0), Some(5), 9)), None);
        // No coordinator: an election, or a group that is lost.
        group.overtaken();
        for _ in 1..LOOKS {
            assert_eq!(group.judge(Holds::All, seen(Some(1), None, 9)), None);
            group.gave();
        }
        assert_eq!(group.judge(Holds::All, seen(Some(1), None, 9)), Some(1));
        group.joined(1);
        group.overtaken();
        assert_eq!(group.judge(Holds::All, seen(Some(1), Some(5), 9)), None);
        group.overtaken();
        assert_eq!(group.judge(Holds::All, seen(Some(0), Some(5), 9)), Some(0), "at once");
        // The election is over before anything is done.
        let mut group = Group::new("g");
        group.overtaken();
        assert_eq!(group.judge(Holds::All, seen(Some(1), None, 9)), None);
        assert_eq!(group.judge(Holds::All, seen(Some(0), Some(5), 9)), None);
        for _ in 0..LOOKS {
            assert_eq!(group.judge(Holds::All, seen(Some(1), None, 9)), None, "it is not overtaken any more");
        }
    }
}
