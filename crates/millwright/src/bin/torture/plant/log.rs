//! What a topic holds, read from where it ended when the run began.

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const ANSWER: Duration = Duration::from_secs(10);

/// A record of the topic.
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub value: Vec<u8>,
    pub headers: BTreeMap<String, String>,
}

/// A topic from some offsets on.
pub struct Log {
    consumer: BaseConsumer,
    pub topic: &'static str,
    /// By partition.
    pub next: Vec<i64>,
    pub records: Vec<Seen>,
}

impl Log {
    /// From where it ends now.
    pub fn from_end(brokers: &str, topic: &'static str) -> Result<Log> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "torture").set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "error").set("reconnect.backoff.max.ms", "200");
        let consumer: BaseConsumer = config.create().context("make a consumer")?;
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).with_context(|| format!("look at {topic}"))?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let mut log = Log { consumer, topic, next: vec![0; partitions], records: Vec::new() };
        log.next = log.ends()?;
        Ok(log)
    }

    fn ends(&self) -> Result<Vec<i64>> {
        let end = |partition| Ok(self.consumer.fetch_watermarks(self.topic, partition as i32, ANSWER)?.1);
        (0..self.next.len()).map(end).collect::<Result<_>>().with_context(|| format!("ends of {}", self.topic))
    }

    /// Reads on to the end.
    pub fn catch_up(&mut self) -> Result<()> {
        let ends = self.ends()?;
        let mut from = TopicPartitionList::new();
        for (partition, (next, end)) in self.next.iter().zip(&ends).enumerate() {
            if next < end {
                from.add_partition_offset(self.topic, partition as i32, Offset::Offset(*next))?;
            }
        }
        if from.count() == 0 {
            return Ok(());
        }
        self.consumer.assign(&from)?;
        let until = Instant::now() + Duration::from_secs(30);
        while self.next.iter().zip(&ends).any(|(next, end)| next < end) {
            if Instant::now() > until {
                bail!("{} is not read to its end in 30 s", self.topic);
            }
            // Errors are of brokers that were away since the last look.
            let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(200)) else { continue };
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = headers.map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())));
            self.records.push(Seen {
                partition: message.partition(),
                offset: message.offset(),
                value: message.payload().unwrap_or_default().to_vec(),
                headers: headers.collect(),
            });
            self.next[message.partition() as usize] = message.offset() + 1;
        }
        Ok(())
    }
}
