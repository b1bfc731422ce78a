//! Readings of a file onto the bus, at the file's own pace times a factor or as fast as they are taken.

use crate::{now_us, record::outgoing};
use bus::{Bus, Outgoing};
use std::{error::Error as StdError, sync::Arc, time::Duration};
use store::History;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::{ReadingBatch, Reject};

/// Source of its readings.
pub const SOURCE: &str = "file";
/// Pause before a full bus is asked again.
const RETRY: Duration = Duration::from_millis(20);
/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// A run of a file's readings, by partition, and what of it cannot be read.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "said above")]
pub struct Piece {
    pub batches: Vec<(u16, ReadingBatch)>,
    pub rejects: Vec<Reject>,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as it is taken.
    Max,
    /// Times the distance of the readings.
    Times(f64),
}

/// How far a replay is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct Progress {
    pub readings: u64,
    pub rejects: u64,
    /// Event time of the newest reading sent.
    pub newest_us: Option<i64>,
    /// `stop` came before the end of the file.
    pub stopped: bool,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("read the file")]
    File(#[source] Box<dyn StdError + Send + Sync>),
    #[error("send to the bus")]
    Bus(#[from] bus::Error),
    #[error("write the refused rows")]
    History(#[from] store::history::Error),
    #[error("reading the file panicked")]
    Panicked,
}

/// Sends what `pieces` yields (on a thread of its own) until its end or `stop`. Readings keep their event time and
/// arrive now: their arrival is told to `arriving` before they are sent, each piece to `progress` once it is durable.
///
/// # Errors
/// A piece cannot be read, or the bus or the history not written.
pub async fn run<I, E>(
    bus: &Bus,
    history: &History,
    pieces: I,
    speed: Speed,
    stop: CancellationToken,
    mut arriving: impl FnMut(i64),
    mut progress: impl FnMut(&Progress),
) -> Result<Progress, Error>
where
    I: IntoIterator<Item = Result<Piece, E>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
{
    let (put, mut pieces) = read_ahead(pieces);
    let mut so_far = Progress::default();
    let mut pace = Pace { speed, first: None };
    loop {
        let piece = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            piece = pieces.recv() => match piece {
                Some(piece) => Some(piece.map_err(|error| Error::File(error.into()))?),
                None => break,
            },
        };
        let Some(piece) = piece else {
            so_far.stopped = true;
            break;
        };
        let oldest = piece.batches.iter().flat_map(|(_, batch)| batch.timestamp_us.iter().copied()).min();
        if let Some(wait) = oldest.and_then(|oldest| pace.wait(oldest, tokio::time::Instant::now())) {
            tokio::select! {
                biased;
                () = stop.cancelled() => { so_far.stopped = true; break }
                () = tokio::time::sleep(wait) => {}
            }
        }
        let arrived_us = now_us();
        arriving(arrived_us);
        if !send(bus, &piece, arrived_us, &stop).await? {
            so_far.stopped = true;
            break;
        }
        if !piece.rejects.is_empty() {
            history.refuse(SOURCE, now_us(), &piece.rejects).await?;
        }
        let newest = piece.batches.iter().flat_map(|(_, batch)| batch.timestamp_us.iter().copied()).max();
        so_far.readings += piece.batches.iter().map(|(_, batch)| batch.rows() as u64).sum::<u64>();
        so_far.rejects += piece.rejects.len() as u64;
        so_far.newest_us = so_far.newest_us.max(newest);
        progress(&so_far);
    }
    // The reader ends at its next piece, since nobody takes it.
    drop(pieces);
    put.await.map_err(|_| Error::Panicked)?;
    Ok(so_far)
}

type Pieces<E> = mpsc::Receiver<Result<Piece, E>>;

/// Reads pieces on a blocking thread, a few ahead.
fn read_ahead<I, E>(pieces: I) -> (tokio::task::JoinHandle<()>, Pieces<E>)
where
    I: IntoIterator<Item = Result<Piece, E>> + Send + 'static,
    E: Send + 'static,
{
    let (put, take) = mpsc::channel(AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        for piece in pieces {
            if put.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    (reader, take)
}

/// Sends one piece; false where `stop` came while the bus was full.
async fn send(bus: &Bus, piece: &Piece, arrived_us: i64, stop: &CancellationToken) -> Result<bool, Error> {
    let (source, values) = (Arc::from(SOURCE), bus.values());
    let batches = piece.batches.iter();
    let records: Vec<Outgoing> =
        batches.flat_map(|(partition, batch)| outgoing(*partition, arrived_us, &source, batch, values)).collect();
    if records.is_empty() {
        return Ok(true);
    }
    loop {
        match bus.send(records.clone()).await {
            Ok(_) => return Ok(true),
            Err(bus::Error::Full { .. } | bus::Error::Busy) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// When a reading is due.
struct Pace {
    speed: Speed,
    /// Event time of the first reading, and when it was sent.
    first: Option<(i64, tokio::time::Instant)>,
}

impl Pace {
    /// How long a reading of this event time has still to wait.
    fn wait(&mut self, event_us: i64, now: tokio::time::Instant) -> Option<Duration> {
        let Speed::Times(times) = self.speed else { return None };
        let (first_us, began) = *self.first.get_or_insert((event_us, now));
        let after = Duration::try_from_secs_f64((event_us - first_us).max(0) as f64 / 1e6 / times).ok()?;
        after.checked_sub(now.duration_since(began)).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reading_is_due_at_its_distance_from_the_first_divided_by_the_speed() {
        let mut pace = Pace { speed: Speed::Times(60.0), first: None };
        let start = tokio::time::Instant::now();
        assert_eq!(pace.wait(5_000_000, start), None);
        assert_eq!(pace.wait(125_000_000, start), Some(Duration::from_secs(2)));
        assert_eq!(pace.wait(125_000_000, start + Duration::from_secs(3)), None);
        assert_eq!(pace.wait(0, start), None, "a reading older than the first is due at once");
        let mut pace = Pace { speed: Speed::Max, first: None };
        assert_eq!(pace.wait(125_000_000, start), None);
    }
}
