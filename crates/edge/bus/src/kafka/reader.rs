//! Reading without a group: the last record of a partition, or a stretch of it.

use super::{ANSWER_MAX, Error, Inner, SOURCE_HEADER, client};
use crate::{Record, Topic};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The last record that is there. The last offsets may hold none, where a transaction ended or a compaction was.
pub(super) fn last(inner: &Inner, topic: Topic, partition: u16) -> Result<Option<Record>, Error> {
    let (begin, end) = inner.bounds_now(topic, partition)?;
    let (mut from, mut back) = (end, 1);
    while from > begin {
        from = (end - back).max(begin);
        let found = stretch(inner, topic, partition, (from, end), usize::MAX)?;
        if let Some(last) = found.into_iter().next_back() {
            return Ok(Some(last));
        }
        back *= 4;
    }
    Ok(None)
}

/// Records from an offset up to the end as it is now.
pub(super) fn read(inner: &Inner, topic: Topic, partition: u16, from: i64, bytes: usize) -> Result<Vec<Record>, Error> {
    let (begin, end) = inner.bounds_now(topic, partition)?;
    let from = from.max(begin);
    if from >= end { Ok(Vec::new()) } else { stretch(inner, topic, partition, (from, end), bytes) }
}

fn stretch(
    inner: &Inner,
    topic: Topic,
    partition: u16,
    (from, end): (i64, i64),
    bytes: usize,
) -> Result<Vec<Record>, Error> {
    let consumer: BaseConsumer<client::Context> = client::reader(&inner.options)?;
    let mut place = TopicPartitionList::new();
    let name = inner.options.topic(topic);
    place.add_partition_offset(&name, i32::from(partition), Offset::Offset(from)).map_err(Error::Read)?;
    consumer.assign(&place).map_err(Error::Read)?;
    let mut to_record = ToRecord::new(topic);
    let (mut records, mut taken) = (Vec::new(), 0_usize);
    let until = Instant::now() + ANSWER_MAX;
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                taken = taken.saturating_add(message.payload_len());
                if message.offset() >= end || taken > bytes && !records.is_empty() {
                    return Ok(records);
                }
                let last = message.offset() + 1 >= end;
                records.push(to_record.of(&message));
                if last {
                    return Ok(records);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
            Some(Err(error)) if super::consumer::passes(&error) => {}
            Some(Err(error)) => return Err(Error::Read(error)),
            None if Instant::now() > until => return Err(Error::NoRecord(partition)),
            None => {}
        }
    }
}

/// Makes records of what librdkafka lends.
pub(super) struct ToRecord {
    /// Neighbours mostly share their source.
    source: Arc<str>,
    topic: Arc<str>,
}

impl ToRecord {
    pub(super) fn new(topic: Topic) -> ToRecord {
        let topic: Arc<str> = topic.name().into();
        ToRecord { source: topic.clone(), topic }
    }

    pub(super) fn of(&mut self, message: &BorrowedMessage<'_>) -> Record {
        let mut source = None;
        let mut headers = Vec::new();
        for header in message.headers().into_iter().flat_map(Headers::iter) {
            match (header.key, header.value.map(std::str::from_utf8)) {
                (SOURCE_HEADER, Some(Ok(name))) => source = Some(name),
                (name, _) => headers.push((name.to_owned(), header.value.map(<[u8]>::to_vec))),
            }
        }
        let source = match source {
            Some(name) if *self.source == *name => self.source.clone(),
            Some(name) => {
                self.source = name.into();
                self.source.clone()
            }
            None => self.topic.clone(),
        };
        Record {
            partition: u16::try_from(message.partition()).unwrap_or_default(),
            offset: message.offset(),
            arrived_us: message.timestamp().to_millis().unwrap_or_default() * 1000,
            source,
            rows: 1,
            key: message.key().map(Arc::from),
            headers,
            value: message.payload().unwrap_or_default().into(),
        }
    }
}
