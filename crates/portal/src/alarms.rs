//! The alarms, in memory and in the store: one lock, one transaction a step.

use crate::hub::Hub;
use alarm::Command;
use std::sync::Arc;
use store::AlarmRow;
use uuid::Uuid;

/// Every alarm. Whoever changes one holds the lock until the change is durable.
pub(crate) struct Alarms {}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("there is no alarm {0}")]
    Missing(Uuid),
    #[error(transparent)]
    Illegal(#[from] alarm::Illegal),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Alarms {
    /// Reads every alarm from the store.
    pub(crate) async fn load(parts: &crate::Parts, hub: Arc<Hub>) -> Result<Alarms, store::Error> {
        let _ = (parts, hub);
        todo!()
    }

    /// Carries out a person's order: alarm, audit and event in one transaction, then told on the stream.
    pub(crate) async fn command(&self, id: Uuid, command: Command) -> Result<AlarmRow, CommandError> {
        let _ = (id, command);
        todo!()
    }

    /// A machine's maintenance window begins (`Action::BeginMaintenance`) or ends early (`Action::EndMaintenance`):
    /// every alarm of it, and those to come.
    pub(crate) async fn maintenance(&self, machine: &str, command: Command) -> Result<Vec<AlarmRow>, CommandError> {
        let _ = (machine, command);
        todo!()
    }
}
