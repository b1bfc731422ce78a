//! The event stream: durable events in commit order with their seq, live values between them.
//!
//! The store is the stream; what is broadcast is a shortcut for followers that keep up. A follower holds a few frames of
//! its own, bounded in bytes, so that slow ones cost little memory.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write,
    sync::Arc,
    time::Duration,
};
use store::{LiveValues, Store, StoredEvent};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// Events that a follower may lag behind before it reads from the store.
const EVENTS: usize = 256;
/// Events read from the store at once,
const PAGE: usize = 64;
/// of which a follower keeps so many bytes, and one event more at most; the rest is read again.
const BACKLOG_BYTES: usize = 64 * 1024;
/// Live frames that a follower may lag behind before it misses one: newer values make it worthless.
const LIVE_FRAMES: usize = 2;
/// How often live values are sent.
const LIVE_EVERY: Duration = Duration::from_millis(250);
/// Machines in one live frame; more wait for the next.
const LIVE_MACHINES: usize = 500;

/// One frame: `{"seq","type","data"}`. `live` frames are not stored and carry the last durable seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) seq: u64,
    /// `alert`, `alarm`, `machine`, `live`, `resync`.
    pub(crate) kind: Arc<str>,
    /// The whole frame as JSON.
    pub(crate) json: Arc<str>,
}

/// Hands frames to whoever follows.
pub(crate) struct Hub {
    store: Store,
    live: LiveValues,
    events: broadcast::Sender<Frame>,
    /// `data` of live frames.
    live_data: broadcast::Sender<Arc<str>>,
    closed: CancellationToken,
}

/// One follower: what it missed from the store, then what comes. A follower that lags behind is served from the store.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    events: broadcast::Receiver<Frame>,
    live_data: broadcast::Receiver<Arc<str>>,
    /// Seq of the last durable frame that was handed out.
    after: u64,
    /// Read from the store, to be handed out.
    backlog: VecDeque<Frame>,
    /// The store has, or may have, more than the backlog.
    behind: bool,
}

impl Hub {
    /// A hub that nobody follows; followers end at `closed`.
    pub(crate) fn new(store: Store, live: LiveValues, closed: CancellationToken) -> Hub {
        let (events, live_data) = (broadcast::Sender::new(EVENTS), broadcast::Sender::new(LIVE_FRAMES));
        Hub { store, live, events, live_data, closed }
    }

    /// Tells followers of events that are durable. Whoever writes events calls this after the commit.
    pub(crate) fn publish(&self, events: &[StoredEvent]) {
        if self.events.receiver_count() == 0 {
            return;
        }
        for event in events {
            // Nobody may be left; the store has it.
            let _ = self.events.send(Frame::of(event));
        }
    }

    /// A follower from after `after`, or from now. Older than what is kept: its first frame is `resync`.
    pub(crate) async fn follow(self: &Arc<Self>, after: Option<u64>) -> Result<Follower, store::Error> {
        // Subscribed before the store is read: what is committed between is seen twice, not never.
        let (events, live_data) = (self.events.subscribe(), self.live_data.subscribe());
        let (oldest, newest) = self.store.event_range().await?;
        let mut follower = Follower {
            hub: self.clone(),
            events,
            live_data,
            after: after.unwrap_or(newest),
            backlog: VecDeque::new(),
            behind: after.is_some(),
        };
        // A seq that was never given is another database's.
        if after.is_some_and(|after| after > newest || after + 1 < oldest) {
            follower.resync(newest);
        }
        Ok(follower)
    }

    /// Sends live values to followers, coalesced, until `closed`.
    pub(crate) async fn send_live(&self) {
        let mut changes = self.live.changes();
        let mut pending = Pending::default();
        let mut tick = tokio::time::interval(LIVE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.closed.cancelled() => return,
                changed = changes.recv() => match changed {
                    Ok(machines) => machines.iter().for_each(|machine| pending.put(machine.clone())),
                    Err(RecvError::Lagged(_)) => self.live.all().into_iter().for_each(|machine| pending.put(machine)),
                    Err(RecvError::Closed) => return,
                },
                _ = tick.tick() => {
                    let machines = pending.take(LIVE_MACHINES);
                    if !machines.is_empty() && self.live_data.receiver_count() > 0 {
                        let _ = self.live_data.send(live_data(&machines));
                    }
                }
            }
        }
    }
}

impl Follower {
    /// The next frame; `None` when the portal closes. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.backlog.pop_front() {
                self.after = frame.seq;
                return Some(frame);
            }
            if self.behind {
                let read = self.read();
                if let Err(error) = read.await {
                    tracing::error!(error = &error as &dyn std::error::Error, "read the event stream");
                    return None;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.hub.closed.cancelled() => return None,
                event = self.events.recv() => match event {
                    Ok(frame) if frame.seq <= self.after => {}
                    Ok(frame) if frame.seq == self.after + 1 => {
                        self.after = frame.seq;
                        return Some(frame);
                    }
                    // Told out of order, or some were missed: the store has them in order.
                    Ok(_) | Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return None,
                },
                data = self.live_data.recv() => match data {
                    // With the seq that this follower has: who comes back with it misses nothing.
                    Ok(data) => return Some(Frame::new(self.after, "live", &data)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    /// Reads the next page of the store into the backlog.
    async fn read(&mut self) -> Result<(), store::Error> {
        let events = self.hub.store.events_after(self.after, PAGE).await?;
        let gap = match events.first() {
            Some(first) => first.seq > self.after + 1,
            None => self.hub.store.event_range().await?.1 > self.after,
        };
        if gap {
            // Pruned under a follower that was very slow.
            let (_, newest) = self.hub.store.event_range().await?;
            self.resync(newest);
            return Ok(());
        }
        let mut bytes = 0;
        let kept = events.iter().map(Frame::of).take_while(|frame| {
            let fits = bytes < BACKLOG_BYTES;
            bytes += frame.json.len();
            fits
        });
        self.backlog = kept.collect();
        self.behind = self.backlog.len() == PAGE || self.backlog.len() < events.len();
        Ok(())
    }

    fn resync(&mut self, newest: u64) {
        self.backlog = VecDeque::from([Frame::new(newest, "resync", "{}")]);
        self.behind = false;
    }
}

impl Frame {
    fn of(event: &StoredEvent) -> Frame {
        Frame::new(event.seq, &event.kind, &event.data)
    }

    fn new(seq: u64, kind: &str, data: &str) -> Frame {
        Frame {
            seq,
            kind: kind.into(),
            json: format!(r#"{{"seq":{seq},"type":{},"data":{data}}}"#, quoted(kind)).into(),
        }
    }
}

/// Machines whose values changed, each once, the longest waiting first.
#[derive(Default)]
struct Pending {
    newest: HashMap<catalog::MachineId, Arc<engine::Live>>,
    order: VecDeque<catalog::MachineId>,
}

impl Pending {
    fn put(&mut self, live: Arc<engine::Live>) {
        let machine = live.machine.clone();
        if self.newest.insert(machine.clone(), live).is_none() {
            self.order.push_back(machine);
        }
    }

    fn take(&mut self, most: usize) -> Vec<Arc<engine::Live>> {
        let count = most.min(self.order.len());
        self.order.drain(..count).filter_map(|machine| self.newest.remove(&machine)).collect()
    }
}

/// `{"machines":[..]}`; a missing value is null, numbers have the decimals of their channel.
fn live_data(machines: &[Arc<engine::Live>]) -> Arc<str> {
    let mut json = String::from(r#"{"machines":["#);
    for (at, live) in machines.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let (machine, class) = (quoted(&live.machine), quoted(&live.class.id));
        let (state, last_seen) = (live.state.as_str(), wire::format_time(live.last_seen_us));
        let _ = write!(
            json,
            r#"{comma}{{"machine_id":{machine},"class":{class},"state":"{state}","last_seen":"{last_seen}","values":{{"#
        );
        for (at, channel) in live.class.channels.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let known = wire::Quality::of(live.quality, at) != wire::Quality::Missing;
            let value = live.values.get(at).filter(|_| known);
            let value = value.map_or("null".to_owned(), |value| wire::decimal_text(*value, channel.scale));
            let _ = write!(json, "{comma}{}:{value}", quoted(&channel.id));
        }
        let score = live.score.filter(|score| score.is_finite()).map_or("null".to_owned(), |score| score.to_string());
        let _ = write!(json, r#"}},"score":{score},"conditions":["#);
        for (at, standing) in live.conditions.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let severity = standing.severity.as_str();
            let _ = write!(json, r#"{comma}{{"condition":{},"severity":"{severity}"}}"#, quoted(&standing.condition));
        }
        json.push_str("]}");
    }
    json.push_str("]}");
    json.into()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

#[cfg(test)]
mod tests;
