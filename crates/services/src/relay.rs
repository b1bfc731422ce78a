//! Outbox to `anomaly-alerts`: every alert on the topic exactly once, whatever dies.
//!
//! The slot of the database is not trusted alone: it may stand further back than what was published. Each record carries
//! where its row stands in the log (`mw-lsn`), so the last record of a partition tells what that partition has. Where the
//! log does not reach back to it (the slot is new or lost, another cluster or timeline took over, another relay wrote to
//! the topic), the history is held against the topic and what is missing there is published first (GUARANTEES.md 1).

use bus::{Bus, Message, Record, Topic};
use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};
use store::{
    postgres::outbox_log::{self, Cluster, LogPosition, Logged, OutboxLog, OutboxRow, Session, Slot},
    relay::{Books, Told},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::partition_of;

/// Rows published at once.
const LOT: usize = 2_000;
/// Bytes of a topic read at once.
const READ_BYTES: usize = 4 << 20;
/// Rows of the history read at once.
const PAGE: i64 = 1_000;
/// What the topic keeps (`topics apply`); older alerts are not published once more.
const KEPT_US: i64 = 7 * 86_400 * 1_000_000;
/// The header that tells where a record's row stands in the log.
const LSN_HEADER: &str = "mw-lsn";

/// What the relay is given.
#[derive(Clone)]
pub struct Parts {
    /// Where alerts go.
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
    let done = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        done = relay(&parts) => done,
    };
    parts.ready.send_replace(false);
    done
}

async fn relay(parts: &Parts) -> Result<(), Error> {
    let mut session = Session::connect(&parts.url, &parts.slot).await?;
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
    let mut log = session.stream().await?;
    parts.ready.send_replace(true);
    loop {
        forward(parts, &mut log, &cluster, &tails).await?;
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
    metrics::counter!("millwright_relay_published_total").increment(messages.len() as u64);
    parts.bus.publish(Topic::Alerts, messages).await?;
    if let Some(at) = upto {
        log.confirm(at);
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
    let Parts { bus, books, .. } = parts;
    tracing::warn!(
        slot = parts.slot,
        "the log does not reach back to what the topic holds ({slot:?}): comparing the history with the topic"
    );
    // While this is not done, every start does it anew.
    books.forget(&parts.slot).await?;
    let made = session.make_slot(slot).await?;
    let snapshot = books.snapshot(&made.snapshot).await?;
    let held = held(bus).await?;
    let mut after = match snapshot.first_of(&held.oldest).await? {
        Some(first) => first,
        // The topic never held anything that the history knows: all of it, but for what would have gone already.
        None if held.was_cut => snapshot.before(crate::now_us() - KEPT_US).await?,
        None => 0,
    };
    let mut index = 0;
    let mut published = 0_u64;
    loop {
        let page = snapshot.after(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        let mut messages = Vec::new();
        for Told { row, .. } in page {
            if Uuid::parse_str(&row.id).is_ok_and(|id| held.ids.contains(&id)) {
                continue;
            }
            messages.push(message(row, &Place { cluster: cluster.clone(), end: made.from, index }));
            index += 1;
        }
        published += messages.len() as u64;
        bus.publish(Topic::Alerts, messages).await?;
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
    /// The first ids of each partition.
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
        held.was_cut |= next > 0;
        let mut oldest = 0;
        loop {
            let records = bus.read(Topic::Alerts, partition, next, READ_BYTES).await?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            for id in records.iter().filter_map(id_of) {
                if oldest < OLDEST {
                    oldest += 1;
                    held.oldest.push(id);
                }
                held.ids.insert(id);
            }
        }
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
