//! Partitions that end below the position of who reads them: whether records are lost is for a person to say, so they
//! stand still, and the others go on.

use crate::{Bus, Topic};
use dependency::Dependency;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A broker that comes back tells for a moment of an end that lies before the true one; a log that was cut stays so.
const DOUBT: Duration = Duration::from_secs(30);

/// The partitions of a topic that stand still for one reader. As long as there is one, the reader's dependency `positions`
/// is away.
#[derive(Debug)]
pub struct Stopped {
    topic: Topic,
    /// What readiness is told by.
    positions: Dependency,
    partitions: BTreeMap<u16, Standing>,
}

/// One that stands still.
#[derive(Debug)]
struct Standing {
    ends: Ends,
    since: Instant,
}

/// Where a log ends that is cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "partition {partition} of {topic} stands still: it ends at {end}, below the position {position}; its log was cut or made anew, and \
     `millwright topics resume` goes on"
)]
struct Ends {
    topic: &'static str,
    partition: u16,
    end: i64,
    /// As the database has it: another one means that a person moved it.
    position: i64,
}

impl Stopped {
    /// None stands still.
    pub fn new(topic: Topic, positions: Dependency) -> Stopped {
        positions.answered();
        Stopped { topic, positions, partitions: BTreeMap::new() }
    }

    /// A partition ends below the position that the database has.
    pub fn stop(&mut self, partition: u16, end: i64, position: i64) {
        let ends = Ends { topic: self.topic.name(), partition, end, position };
        let stood = self.partitions.get(&partition).filter(|standing| standing.ends.position == position);
        let since = stood.map_or_else(Instant::now, |standing| standing.since);
        if stood.is_none() {
            tracing::error!(partition, end, position, "{ends}");
        }
        self.partitions.insert(partition, Standing { ends, since });
        self.tell();
    }

    /// It goes on, or is another reader's.
    pub fn release(&mut self, partition: u16) {
        if self.partitions.remove(&partition).is_some() && self.partitions.is_empty() {
            self.positions.answered();
        }
    }

    /// Whether one still is this reader's, the next assignment tells.
    pub fn release_all(&mut self) {
        self.partitions.clear();
        self.positions.answered();
    }

    /// None stands still.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Partitions that stand still, each with the position that it stands at; to be asked for again and again.
    pub fn standing(&self) -> Vec<(u16, i64)> {
        self.tell();
        self.partitions.iter().map(|(partition, standing)| (*partition, standing.ends.position)).collect()
    }

    /// Those that reach their positions after all, as a broker that came back tells; nothing of them is missing.
    pub async fn mistaken(&self, bus: &Bus) -> Vec<u16> {
        let mut reached = Vec::new();
        for (partition, Standing { ends, since }) in &self.partitions {
            if since.elapsed() < DOUBT
                && bus.bounds(self.topic, *partition).await.is_ok_and(|(_, end)| end >= ends.position)
            {
                reached.push(*partition);
            }
        }
        reached
    }

    fn tell(&self) {
        if let Some(standing) = self.partitions.values().next() {
            self.positions.failed(&standing.ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dependency::Dependencies;

    #[test]
    fn a_reader_is_not_ready_while_a_partition_stands_still() {
        let all = Dependencies::default();
        let mut stopped = Stopped::new(Topic::Readings, all.needed("positions"));
        assert_eq!(stopped.standing(), []);
        stopped.stop(2, 10, 20);
        stopped.stop(4, 0, 7);
        assert_eq!(stopped.standing(), [(2, 20), (4, 7)]);
        let away = all.states()[0].away.clone().unwrap();
        assert!(away.error.starts_with("partition 2 of sensor-raw-data stands still: it ends at 10, below"), "{away}");
        stopped.release(2);
        stopped.release(3);
        assert_eq!(stopped.standing(), [(4, 7)]);
        assert!(all.states()[0].away.as_ref().unwrap().error.contains("partition 4 of sensor-raw-data"));
        stopped.release(4);
        assert_eq!(all.states()[0].away, None);
    }
}
