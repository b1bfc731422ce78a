//! The embedded bus.
/// `bus.db`.
#[derive(Clone)]
pub struct SqliteBus {}
