//! What both PostgreSQL databases share: addresses, pools, migrations. Does not know what their tables mean.

mod look;
mod migrate;
pub mod outbox_log;
mod pool;
mod resume;
#[cfg(test)]
pub(crate) mod scratch;
#[cfg(test)]
mod tests;
mod tls;

pub use look::{Server, SlotState, look, place};
pub use migrate::{Migration, migrate, status};
pub use pool::{Pool, Pools, Sizes, Waiting, watch};
pub use resume::{Place, places, resume};

/// The two databases of a plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Readings, ledger, dead letters.
    Main,
    /// Alerts and what follows from them.
    Ai,
}

impl Which {
    /// Its name in messages and in `application_name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Which::Main => "main",
            Which::Ai => "ai",
        }
    }
}

/// Why a database did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("address of the {} database", which.as_str())]
    Address { which: Which, source: tokio_postgres::Error },
    #[error("address of the {} database", which.as_str())]
    Tls { which: Which, source: tls::Error },
    #[error("postgresql")]
    Client(#[from] tokio_postgres::Error),
    #[error("postgresql: get a connection")]
    Pool(#[from] deadpool_postgres::PoolError),
    #[error("postgresql")]
    Away(#[from] dependency::Away),
    #[error("{} database: migration {name} was edited after it was applied", which.as_str())]
    Edited { which: Which, name: String },
    #[error("somebody went on from {position} in partition {partition} of {topic}")]
    Moved { topic: String, partition: u16, position: i64 },
}
