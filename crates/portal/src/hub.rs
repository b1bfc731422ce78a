//! The event stream: durable events in commit order with their seq, live values between them.

use std::sync::Arc;

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
pub(crate) struct Hub {}

/// One follower: what it missed from the store, then what comes. A follower that lags behind is served from the store.
pub(crate) struct Follower {}

impl Hub {
    /// A follower from after `after`, or from now. Older than what is kept: its first frame is `resync`.
    pub(crate) async fn follow(self: &Arc<Self>, after: Option<u64>) -> Result<Follower, store::Error> {
        let _ = after;
        todo!()
    }
}

impl Follower {
    /// The next frame; `None` when the portal closes. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        todo!()
    }
}
