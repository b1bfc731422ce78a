//! Waiting for a database that is away, is restarted, or whose locks a paused process holds.

use super::Error;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// First wait; each next is twice as long.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// Waits between attempts at one transaction.
pub(super) struct Patience {
    what: &'static str,
    wait: Duration,
    unsure: bool,
}

impl Patience {
    pub(super) fn new(what: &'static str) -> Patience {
        Patience { what, wait: FIRST, unsure: false }
    }

    /// Whether an attempt ended in a way that does not tell if it was committed.
    pub(super) fn unsure(&self) -> bool {
        self.unsure
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error, where another attempt would meet it again.
    pub(super) async fn after(&mut self, error: Error) -> Result<(), Error> {
        if !passes(&error) {
            return Err(error);
        }
        self.unsure = true;
        if self.wait == FIRST || self.wait == LONGEST {
            tracing::warn!(error = &error as &dyn std::error::Error, "{} waits for its database", self.what);
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST);
        Ok(())
    }
}

/// Whether the cause passes without anybody changing what was asked.
fn passes(error: &Error) -> bool {
    use crate::postgres::Error as Postgres;
    use deadpool_postgres::PoolError;
    let client = match error {
        Error::Postgres(Postgres::Client(client) | Postgres::Pool(PoolError::Backend(client))) => client,
        Error::Postgres(Postgres::Pool(PoolError::Timeout(_)) | Postgres::Away(_)) => return true,
        _ => return false,
    };
    let Some(state) = client.code() else {
        // Nothing of the server's: the connection is gone, or was never made.
        return client.is_closed()
            || std::error::Error::source(client).is_some_and(|source| source.is::<std::io::Error>());
    };
    // Connection, resources (a full disk too), transaction rollback; operator intervention; timeouts of GUARANTEES.md 1.
    ["08", "53", "40", "57"].contains(&&state.code()[..2])
        || [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ]
        .contains(state)
}
