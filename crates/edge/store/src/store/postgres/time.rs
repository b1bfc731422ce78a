//! `timestamp` columns as microseconds since 1970 UTC, exact.

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// 2000-01-01, from which PostgreSQL counts.
const EPOCH_US: i64 = 946_684_800_000_000;
/// 4713 BC: nothing is earlier for PostgreSQL.
const EARLIEST_US: i64 = -210_866_803_200_000_000;

/// Microseconds since 1970; what no `timestamp` can hold is the nearest that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Micros(pub(super) i64);

impl ToSql for Micros {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        (self.0.max(EARLIEST_US) - EPOCH_US).to_sql(of, out)
    }

    accepts!(TIMESTAMP);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Micros, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Micros(i64::from_sql(of, raw)?.saturating_add(EPOCH_US)))
    }

    accepts!(TIMESTAMP);
}
