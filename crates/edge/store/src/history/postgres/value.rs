//! Values as PostgreSQL has them in binary.

use std::error::Error;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;
/// The first time that PostgreSQL has, in its own count; what is before is minus infinity.
const FIRST_US: i64 = -211_813_488_000_000_000;

/// A time as `timestamp`, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Micros(pub(super) i64);

impl Micros {
    pub(super) fn to_binary(self) -> i64 {
        let since_2000 = self.0.saturating_sub(EPOCH_US);
        if since_2000 < FIRST_US { i64::MIN } else { since_2000 }
    }
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.to_binary().to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMP);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Micros, Box<dyn Error + Sync + Send>> {
        Ok(Micros(i64::from_be_bytes(raw.try_into()?).saturating_add(EPOCH_US)))
    }

    accepts!(TIMESTAMP);
}

/// Appends the binary `numeric` of `value / 10^scale` with its length before it; every digit is kept.
///
/// Groups of four decimal digits, the highest first, aligned at the point; zero groups at both ends are left out.
pub(super) fn write_numeric(negative: bool, value: u128, scale: u8, out: &mut Vec<u8>) {
    let spare = (4 - u32::from(scale) % 4) % 4;
    let after_point = (u32::from(scale) + spare) / 4;
    // 39 digits make ten groups, and a scale up to 9 at most one more.
    let mut groups = [0_u16; 12];
    let mut count = 0;
    let mut push = |group: u16| {
        groups[count] = group;
        count += 1;
    };
    // The lowest group is filled up with zeros after the last digit.
    let low = 10_u128.pow(4 - spare);
    let mut rest = value;
    if spare > 0 {
        push((rest % low) as u16 * 10_u16.pow(spare));
        rest /= low;
    }
    if let Ok(mut small) = u64::try_from(rest) {
        while small > 0 {
            push((small % 10_000) as u16);
            small /= 10_000;
        }
    } else {
        while rest > 0 {
            push((rest % 10_000) as u16);
            rest /= 10_000;
        }
    }
    let groups = &groups[..count];
    let highest = groups.iter().rposition(|group| *group != 0).map_or(0, |at| at + 1);
    let lowest = groups.iter().position(|group| *group != 0).unwrap_or(highest);
    let kept = &groups[lowest.min(highest)..highest];
    let weight = if kept.is_empty() { 0 } else { highest as i16 - 1 - after_point as i16 };
    out.extend_from_slice(&(8 + 2 * kept.len() as i32).to_be_bytes());
    out.extend_from_slice(&(kept.len() as i16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    let sign: u16 = if negative && !kept.is_empty() { 0x4000 } else { 0 };
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&u16::from(scale).to_be_bytes());
    for group in kept.iter().rev() {
        out.extend_from_slice(&group.to_be_bytes());
    }
}
