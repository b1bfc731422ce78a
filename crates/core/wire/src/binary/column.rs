//! Columns of numbers in a frame of reference: the lowest value, a common divisor of the distances from it, and each
//! distance in the narrowest of 0, 1, 2, 4 or 8 bytes.
//!
//! Bytes: base (8), divisor (8), width (1), then the distances.

use super::{BinaryError, Cursor};

/// Distances that event times have in common: seconds, milliseconds.
const TIME_DIVISORS: [u64; 2] = [1_000_000, 1_000];

/// Writes a column.
pub(super) fn write(values: &[i64], out: &mut Vec<u8>) {
    let (base, span) = frame(values);
    write_divided::<1>(values, base, span, 0, out);
}

/// Writes a column of event times, which often lie on whole seconds or milliseconds from each other.
pub(super) fn write_times(values: &[i64], out: &mut Vec<u8>) {
    let (base, span) = frame(values);
    // A constant divisor makes the test a multiplication.
    let divides = |divisor: fn(u64) -> bool| values.iter().all(|value| divisor(value.wrapping_sub(base) as u64));
    if divides(|distance| distance.is_multiple_of(TIME_DIVISORS[0])) {
        write_divided::<{ TIME_DIVISORS[0] }>(values, base, span, 0, out);
    } else if divides(|distance| distance.is_multiple_of(TIME_DIVISORS[1])) {
        write_divided::<{ TIME_DIVISORS[1] }>(values, base, span, 0, out);
    } else {
        write_divided::<1>(values, base, span, 0, out);
    }
}

/// Writes places in a dictionary, in one byte or more a row.
pub(super) fn write_at_least_a_byte(places: &[u32], out: &mut Vec<u8>) {
    let highest = places.iter().fold(0, |highest, at| highest.max(*at));
    let places: Vec<i64> = places.iter().map(|at| i64::from(*at)).collect();
    write_divided::<1>(&places, 0, u64::from(highest), 1, out);
}

/// Writes numbers that mostly grow by little: each as its step from the one before.
pub(super) fn write_ascending(numbers: &[u32], out: &mut Vec<u8>) {
    let mut last = 0;
    let steps: Vec<i64> = numbers
        .iter()
        .map(|number| {
            let step = number.wrapping_sub(last);
            last = *number;
            i64::from(step)
        })
        .collect();
    write(&steps, out);
}

/// The lowest value and the distance of the highest from it.
fn frame(values: &[i64]) -> (i64, u64) {
    let (low, high) =
        values.iter().fold((i64::MAX, i64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    if values.is_empty() { (0, 0) } else { (low, high.wrapping_sub(low) as u64) }
}

fn write_divided<const DIVISOR: u64>(values: &[i64], base: i64, span: u64, least_width: u8, out: &mut Vec<u8>) {
    let span = span / DIVISOR;
    let needed = match span {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    let width = least_width.max(needed);
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&DIVISOR.to_le_bytes());
    out.push(width);
    let from = out.len();
    out.resize(from + values.len() * usize::from(width), 0);
    let bytes = &mut out[from..];
    let distances = values.iter().map(|value| value.wrapping_sub(base) as u64 / DIVISOR);
    match width {
        0 => {}
        1 => bytes.iter_mut().zip(distances).for_each(|(byte, distance)| *byte = distance as u8),
        2 => bytes
            .chunks_exact_mut(2)
            .zip(distances)
            .for_each(|(to, distance)| to.copy_from_slice(&(distance as u16).to_le_bytes())),
        4 => bytes
            .chunks_exact_mut(4)
            .zip(distances)
            .for_each(|(to, distance)| to.copy_from_slice(&(distance as u32).to_le_bytes())),
        _ => bytes
            .chunks_exact_mut(8)
            .zip(distances)
            .for_each(|(to, distance)| to.copy_from_slice(&distance.to_le_bytes())),
    }
}

/// Reads a column of so many rows, which are known to have a byte each elsewhere; returns its lowest and highest value.
pub(super) fn read(content: &mut Cursor<'_>, rows: usize, to: &mut Vec<i64>) -> Result<(i64, i64), BinaryError> {
    let (base, divisor, width) = (content.i64()?, content.i64()?, content.byte()?);
    if !matches!(width, 0 | 1 | 2 | 4 | 8) {
        return Err(content.malformed());
    }
    let bytes = content.take(rows.checked_mul(usize::from(width)).ok_or_else(|| content.malformed())?)?;
    let value = |distance: u64| base.wrapping_add((distance as i64).wrapping_mul(divisor));
    to.reserve_exact(rows);
    let highest = match width {
        0 => {
            to.resize(rows, base);
            0
        }
        1 => {
            to.extend(bytes.iter().map(|byte| value(u64::from(*byte))));
            u64::from(bytes.iter().fold(0, |high, byte| high.max(*byte)))
        }
        2 => widen(bytes, u16::from_le_bytes, value, to),
        4 => widen(bytes, u32::from_le_bytes, value, to),
        _ => widen(bytes, u64::from_le_bytes, value, to),
    };
    // In a sound column the distances do not wrap; in an unsound one only a look at all values tells.
    let span =
        highest.checked_mul(divisor as u64).filter(|_| divisor > 0).and_then(|span| base.checked_add_unsigned(span));
    Ok(match span {
        Some(high) => (base, high),
        None => to.iter().fold((i64::MAX, i64::MIN), |(low, high), value| (low.min(*value), high.max(*value))),
    })
}

/// Reads distances of `N` bytes; returns the highest.
fn widen<const N: usize, T: Copy + Ord + Into<u64>>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> T,
    value: impl Fn(u64) -> i64,
    to: &mut Vec<i64>,
) -> u64 {
    let distances = bytes.as_chunks::<N>().0;
    to.extend(distances.iter().map(|bytes| value(number(*bytes).into())));
    distances.iter().map(|bytes| number(*bytes)).max().map_or(0, Into::into)
}

/// Reads what [`write_at_least_a_byte`] wrote; the bytes prove that there are so many rows.
pub(super) fn read_at_least_a_byte(content: &mut Cursor<'_>, rows: usize) -> Result<Vec<u32>, BinaryError> {
    let (base, divisor, width) = (content.i64()?, content.i64()?, content.byte()?);
    if base != 0 || divisor != 1 || !matches!(width, 1 | 2 | 4) {
        return Err(content.malformed());
    }
    let bytes = content.take(rows.checked_mul(usize::from(width)).ok_or_else(|| content.malformed())?)?;
    Ok(match width {
        1 => bytes.iter().map(|byte| u32::from(*byte)).collect(),
        2 => bytes.as_chunks::<2>().0.iter().map(|bytes| u32::from(u16::from_le_bytes(*bytes))).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
    })
}

/// Reads what [`write_ascending`] wrote.
pub(super) fn read_ascending(content: &mut Cursor<'_>, rows: usize) -> Result<Vec<u32>, BinaryError> {
    let mut steps = Vec::new();
    read(content, rows, &mut steps)?;
    let mut last = 0_u32;
    Ok(steps
        .into_iter()
        .map(|step| {
            last = last.wrapping_add(step as u32);
            last
        })
        .collect())
}
