//! Outbox to `anomaly-alerts`: every alert on the topic exactly once, whatever dies.
//!
//! The slot of the database is not trusted alone: it may stand further back than what was published. Each record carries
//! where its row stands in the log (`mw-lsn`), so the last record of a partition tells what that partition has. Where the
//! log does not reach back to it (the slot is new or lost, another cluster or timeline took over, another relay wrote to
//! the topic), the history is held against the topic and what is missing there is published first (GUARANTEES.md 1).

use bus::{Bus, Message, Record, Topic, kafka::admin::Retention};
use std::{collections::HashSet, fmt, str::FromStr, sync::Arc, time::Duration};
use store::{
    postgres::outbox_log::{self, Cluster, LogPosition, Logged, OutboxLog, OutboxRow, Session, Slot},
    relay::{Books, Told},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::partition_of;

/// Rows published at once,
const LOT: usize = 2_000;
/// but no more bytes than these and one row.
const LOT_BYTES: usize = 16 << 20;
/// A lot that takes longer waits for brokers that are away.
const PUBLISHED: Duration = Duration::from_secs(2);
/// Bytes of a topic read at once.
const READ_BYTES: usize = 4 << 20;
/// Rows of the history read at once.
const PAGE: i64 = 1_000;
/// The header that tells where a record's row stands in the log.
const LSN_HEADER: &str = "mw-lsn";

/// What the relay is given.
#[derive(Clone)]
pub struct Parts {
    /// Where alerts go, without a gap (`kafka::Options::gapless`): what the last record of a partition tells rests on it.
    pub bus: Bus,
    /// Address of the AI database.
    pub url: String,
    /// The slot that keeps the log.
    pub slot: String,
    /// What the database knows of the relay.
    pub books: Books,
    /// Told while it streams.
    pub ready: Arc<watch::Sender<bool>>,
}

/// Why the relay ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("write to the bus")]
    Bus(#[from] bus::Error),
    #[error("read the outbox")]
    Log(#[from] outbox_log::Error),
    #[error("ask the ai database")]
    Store(#[from] store::Error),
}

/// Publishes what is committed until `stop`.
///
/// # Errors
/// The database or the brokers are gone, or another relay has the slot: start again; nothing is lost or doubled by it.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        done = relay(&parts) => done,
    }
}

async fn relay(parts: &Parts) -> Result<(), Error> {
    let mut session = session(parts).await?;
    let cluster = session.cluster().await?;
    let slot = session.slot().await?;
    let mut tails = tails(&parts.bus).await?;
    if slot != Slot::Kept
        || parts.books.healed(&parts.slot).await?.as_ref() != Some(&cluster)
        || !tails.iter().all(|tail| tail.is_of(&cluster))
    {
        heal(parts, &mut session, slot, &cluster).await?;
        tails = self::tails(&parts.bus).await?;
    }
    #[cfg(feature = "planted")]
    if bus::planted("no_tail_read") {
        tails.fill(Tail::Empty);
    }
    let mut log = session.stream().await?;
    parts.ready.send_replace(true);
    loop {
        forward(parts, &mut log, &cluster, &tails).await?;
    }
}

/// A session that has the slot to itself; waits while another relay has it.
async fn session(parts: &Parts) -> Result<Session, Error> {
    let mut waits = false;
    loop {
        match Session::connect(&parts.url, &parts.slot).await {
            Err(error @ outbox_log::Error::Taken(_)) => {
                if !waits {
                    tracing::info!("{error}: this one waits for its end");
                }
                waits = true;
            }
            session => return Ok(session?),
        }
    }
}

/// Publishes what has come, then confirms it.
async fn forward(parts: &Parts, log: &mut OutboxLog, cluster: &Cluster, tails: &[Tail]) -> Result<(), Error> {
    let mut messages = Vec::new();
    let mut upto = None;
    for logged in log.next(LOT).await? {
        match logged {
            Logged::Idle { at } => upto = Some(at),
            Logged::Transaction { end, rows } => {
                upto = Some(end);
                for (index, row) in rows.into_iter().enumerate() {
                    let place = Place { cluster: cluster.clone(), end, index: index as u64 };
                    let message = message(row, &place);
                    if !tails[usize::from(message.partition)].has(&place) {
                        messages.push(message);
                    }
                }
            }
        }
    }
    #[cfg(feature = "planted")]
    if let Some(at) = upto.filter(|_| bus::planted("confirm_before_publish")) {
        log.confirm(at);
    }
    let published = messages.len() as u64;
    publish(parts, messages).await?;
    metrics::counter!("millwright_relay_published_total").increment(published);
    if let Some(at) = upto {
        log.confirm(at);
    }
    Ok(())
}

/// Publishes in order; meanwhile the relay is not ready where that takes long.
async fn publish(parts: &Parts, messages: Vec<Message>) -> Result<(), Error> {
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let mut bytes = 0;
        let mut lot = Vec::new();
        while let Some(message) = messages.next_if(|_| bytes < LOT_BYTES) {
            bytes += message.value.as_ref().map_or(0, Vec::len);
            lot.push(message);
        }
        let mut published = std::pin::pin!(parts.bus.publish(Topic::Alerts, lot));
        if let Ok(published) = tokio::time::timeout(PUBLISHED, &mut published).await {
            published?;
            continue;
        }
        tracing::warn!("alerts wait for the brokers");
        let was = parts.ready.send_replace(false);
        published.await?;
        parts.ready.send_replace(was);
    }
    Ok(())
}

/// A record as Debezium's EventRouter writes it, and where its row stands.
fn message(row: OutboxRow, place: &Place) -> Message {
    let OutboxRow { id, aggregateid, kind, payload, traceparent } = row;
    Message {
        partition: partition_of(&aggregateid, Topic::Alerts.partitions()),
        headers: vec![
            ("id".to_owned(), Some(id.into_bytes())),
            ("eventType".to_owned(), Some(kind.into_bytes())),
            ("traceparent".to_owned(), traceparent.map(String::into_bytes)),
            (LSN_HEADER.to_owned(), Some(place.to_string().into_bytes())),
        ],
        key: Some(aggregateid.into_bytes()),
        value: Some(payload.into_bytes()),
    }
}

/// Makes a new slot and publishes what the topic should have and has not.
async fn heal(parts: &Parts, session: &mut Session, slot: Slot, cluster: &Cluster) -> Result<(), Error> {
    let books = &parts.books;
    tracing::warn!(
        slot = parts.slot,
        "the log does not reach back to what the topic holds ({slot:?}): comparing the history with the topic"
    );
    // While this is not done, every start does it anew.
    books.forget(&parts.slot).await?;
    let made = session.make_slot(slot).await?;
    let snapshot = books.snapshot(&made.snapshot).await?;
    let held = held(&parts.bus).await?;
    // By partition: at and before this place nothing is missing. A relay that died may have been further in one of them.
    let mut has = Vec::new();
    for Partition { oldest, was_cut } in &held.partitions {
        has.push(match snapshot.first_of(oldest).await? {
            Some(first) => first,
            // It never held anything that the history knows: all of it, but for what would have gone already.
            None if *was_cut => snapshot.before(crate::now_us() - Retention::default().alerts_ms * 1000).await?,
            None => 0,
        });
    }
    let mut after = has.iter().copied().min().unwrap_or(0);
    let mut index = 0;
    let mut published = 0_u64;
    loop {
        let page = snapshot.after(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        let mut messages = Vec::new();
        for Told { position, row } in page {
            let there = Uuid::parse_str(&row.id).is_ok_and(|id| held.ids.contains(&id));
            let message = message(row, &Place { cluster: cluster.clone(), end: made.from, index });
            if !there && position > has[usize::from(message.partition)] {
                messages.push(message);
                index += 1;
            }
        }
        published += messages.len() as u64;
        publish(parts, messages).await?;
    }
    books.set_healed(&parts.slot, cluster).await?;
    tracing::warn!(slot = parts.slot, published, "{published} alerts of the history were not on the topic");
    metrics::counter!("millwright_relay_healed_total").increment(published);
    Ok(())
}

/// What the topic holds.
#[derive(Default)]
struct Held {
    ids: HashSet<Uuid>,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    /// Its first ids.
    oldest: Vec<Uuid>,
    /// Records are gone from its beginning.
    was_cut: bool,
}

/// First ids of a partition that are looked for in the history; a stranger's record may stand before ours.
const OLDEST: usize = 100;

async fn held(bus: &Bus) -> Result<Held, Error> {
    let mut held = Held::default();
    for partition in 0..Topic::Alerts.partitions() {
        let (mut next, _) = bus.bounds(Topic::Alerts, partition).await?;
        let mut found = Partition { oldest: Vec::new(), was_cut: next > 0 };
        loop {
            let records = bus.read(Topic::Alerts, partition, next, READ_BYTES).await?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            for id in records.iter().filter_map(id_of) {
                if found.oldest.len() < OLDEST {
                    found.oldest.push(id);
                }
                held.ids.insert(id);
            }
        }
        held.partitions.push(found);
    }
    Ok(held)
}

fn id_of(record: &Record) -> Option<Uuid> {
    Uuid::parse_str(record.header("id")?).ok()
}

/// Where a row stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    cluster: Cluster,
    end: LogPosition,
    /// In its transaction.
    index: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cluster { system_id, timeline } = &self.cluster;
        write!(f, "{system_id}:{timeline}:{}:{}", self.end, self.index)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Place, ()> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(());
        let cluster = Cluster { system_id: next()?.to_owned(), timeline: next()?.parse().map_err(|_| ())? };
        let place = Place { cluster, end: next()?.parse()?, index: next()?.parse().map_err(|_| ())? };
        if parts.next().is_some() { Err(()) } else { Ok(place) }
    }
}

/// What the last record of a partition tells.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tail {
    /// There is none.
    Empty,
    /// Ours.
    At(Place),
    /// Another relay's.
    Foreign,
}

impl Tail {
    /// The log of this cluster goes on from here.
    fn is_of(&self, cluster: &Cluster) -> bool {
        match self {
            Tail::Empty => true,
            Tail::At(place) => place.cluster == *cluster,
            Tail::Foreign => false,
        }
    }

    /// The partition has this row; both are of one log.
    fn has(&self, place: &Place) -> bool {
        matches!(self, Tail::At(last) if (place.end, place.index) <= (last.end, last.index))
    }
}

async fn tails(bus: &Bus) -> Result<Vec<Tail>, Error> {
    let mut tails = Vec::new();
    for partition in 0..Topic::Alerts.partitions() {
        tails.push(match bus.last(Topic::Alerts, partition).await? {
            None => Tail::Empty,
            Some(record) => {
                record.header(LSN_HEADER).and_then(|text| text.parse().ok()).map_or(Tail::Foreign, Tail::At)
            }
        });
    }
    Ok(tails)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(timeline: u32, end: &str, index: u64) -> Place {
        let cluster = Cluster { system_id: "7243".to_owned(), timeline };
        Place { cluster, end: end.parse().unwrap(), index }
    }

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let written = place(1, "1A/16B3748", 42);
        assert_eq!(written.to_string(), "7243:1:1A/16B3748:42");
        assert_eq!(written.to_string().parse(), Ok(written));
        for wrong in ["", "7243", "7243:1:1A/16B3748", "7243:1:1A/16B3748:42:1", "7243:x:1A/16B3748:42", "7243:1:zz:42"]
        {
            assert_eq!(wrong.parse::<Place>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_partition_has_what_stands_up_to_its_last_record() {
        let tail = Tail::At(place(1, "0/100", 5));
        for (end, index, has) in
            [("0/FF", 9, true), ("0/100", 4, true), ("0/100", 5, true), ("0/100", 6, false), ("0/101", 0, false)]
        {
            assert_eq!(tail.has(&place(1, end, index)), has, "{end} {index}");
        }
        assert!(!Tail::Empty.has(&place(1, "0/1", 0)));
        let cluster = place(1, "0/1", 0).cluster;
        assert!(tail.is_of(&cluster) && Tail::Empty.is_of(&cluster) && !Tail::Foreign.is_of(&cluster));
        assert!(!Tail::At(place(2, "0/100", 5)).is_of(&cluster), "after a failover positions say nothing");
    }
}
