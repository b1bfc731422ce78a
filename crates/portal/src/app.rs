//! What every handler is given.

use crate::{
    Parts,
    alarms::Alarms,
    hub::Hub,
    intake::{Budget, Decoders},
};
use alarm::Role;
use std::{ops::Deref, sync::Arc};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Streams open at once; each holds a connection and a little memory.
const STREAMS_MAX: usize = 1_000;

/// What every handler is given; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) alarms: Alarms,
    pub(crate) hub: Arc<Hub>,
    pub(crate) decoders: Decoders,
    pub(crate) budget: Budget,
    /// Held while a machine's row and the catalogue are changed together.
    pub(crate) machines: Mutex<()>,
    /// Room for event streams.
    pub(crate) streams: Arc<Semaphore>,
    /// Connections that left HTTP; the portal waits for their end.
    pub(crate) upgraded: TaskTracker,
    /// Streams end when it is cancelled.
    pub(crate) stop: CancellationToken,
    /// The port that `Host` must name.
    pub(crate) port: u16,
}

impl App {
    pub(crate) fn new(parts: Parts, alarms: Alarms, hub: Arc<Hub>, port: u16, stop: CancellationToken) -> App {
        App(Arc::new(Inner {
            parts,
            alarms,
            hub,
            decoders: Decoders::default(),
            budget: Budget::default(),
            machines: Mutex::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            upgraded: TaskTracker::new(),
            stop,
            port,
        }))
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Who orders, as long as nobody has to sign in: the portal answers on loopback alone.
pub(crate) const LOCAL: &str = "local";
/// With whose rights.
pub(crate) const LOCAL_ROLE: Role = Role::Admin;
