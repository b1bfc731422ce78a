//! Event times: RFC 3339 in all its forms, to microseconds since 1970 UTC.

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2025-11-07T15:10:01Z")]
pub struct TimeError;

/// Microseconds of a day.
const DAY_US: i64 = 86_400 * 1_000_000;

/// Parses RFC 3339: with or without fraction and offset (none: UTC), `T`, `t` or a blank between date and time, leap
/// second as the second before; digits finer than microseconds are cut. Years 0000 to 9999.
///
/// # Errors
/// It is not such a time.
pub fn parse_time(text: &[u8]) -> Result<i64, TimeError> {
    let (local_us, offset_us) = parse_local(text)?;
    Ok(local_us - offset_us.unwrap_or(0))
}

/// Writes `2025-11-07T15:10:01Z`, with 3 or 6 digits of fraction where there is one.
///
/// A year outside 0000 to 9999, which no reading has, is written with a sign, as ISO 8601 does.
pub fn format_time(us: i64) -> String {
    let mut text = String::with_capacity(27);
    write_time(us, &mut text);
    text
}

/// Appends [`format_time`] to a text.
pub(crate) fn write_time(us: i64, to: &mut String) {
    use std::fmt::Write;
    let (days, of_day) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let (year, month, day) = date_of(days);
    let (second, micro) = (of_day / 1_000_000, of_day % 1_000_000);
    if (0..=9999).contains(&year) {
        digits(year, 4, to);
    } else {
        write!(to, "{year:+07}").expect("a String takes all");
    }
    for (mark, part) in [('-', month), ('-', day), ('T', second / 3600), (':', second / 60 % 60), (':', second % 60)] {
        to.push(mark);
        digits(part, 2, to);
    }
    if micro % 1000 != 0 {
        to.push('.');
        digits(micro, 6, to);
    } else if micro != 0 {
        to.push('.');
        digits(micro / 1000, 3, to);
    }
    to.push('Z');
}

/// Parses like [`parse_time`] to the local time as it is written and the offset, where it has one, both microseconds.
pub(crate) fn parse_local(text: &[u8]) -> Result<(i64, Option<i64>), TimeError> {
    let (head, rest) = text.split_first_chunk::<19>().ok_or(TimeError)?;
    if head[4] != b'-'
        || head[7] != b'-'
        || !matches!(head[10], b'T' | b't' | b' ')
        || head[13] != b':'
        || head[16] != b':'
    {
        return Err(TimeError);
    }
    let year = two(head, 0)? * 100 + two(head, 2)?;
    let (month, day) = (two(head, 5)?, two(head, 8)?);
    let (hour, minute, second) = (two(head, 11)?, two(head, 14)?, two(head, 17)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return Err(TimeError);
    }
    let (micro, rest) = fraction(rest)?;
    let offset_us = offset(rest)?;
    // 60 is written for a leap second alone, and that ends a day of UTC.
    if second == 60 && (hour * 60 + minute - offset_us.unwrap_or(0) / 60_000_000).rem_euclid(1440) != 1439 {
        return Err(TimeError);
    }
    let of_day = (hour * 60 + minute) * 60 + second.min(59);
    Ok((days_of(year, month, day) * DAY_US + of_day * 1_000_000 + micro, offset_us))
}

/// Two digits at a place.
fn two(text: &[u8; 19], at: usize) -> Result<i64, TimeError> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    if tens > 9 || ones > 9 {
        return Err(TimeError);
    }
    Ok(i64::from(tens * 10 + ones))
}

/// The fraction in microseconds and what follows it.
fn fraction(text: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    let Some((b'.', rest)) = text.split_first() else { return Ok((0, text)) };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return Err(TimeError);
    }
    let micro = (0..6).fold(0, |micro, at| micro * 10 + if at < length { i64::from(rest[at] - b'0') } else { 0 });
    Ok((micro, &rest[length..]))
}

/// The offset in microseconds, where there is one.
fn offset(text: &[u8]) -> Result<Option<i64>, TimeError> {
    match text {
        [] => Ok(None),
        [b'Z' | b'z'] => Ok(Some(0)),
        &[sign @ (b'+' | b'-'), a, b, b':', c, d] if [a, b, c, d].iter().all(u8::is_ascii_digit) => {
            let number = |tens: u8, ones: u8| i64::from((tens - b'0') * 10 + (ones - b'0'));
            let (hour, minute) = (number(a, b), number(c, d));
            if hour > 23 || minute > 59 {
                return Err(TimeError);
            }
            let us = (hour * 60 + minute) * 60_000_000;
            Ok(Some(if sign == b'-' { -us } else { us }))
        }
        _ => Err(TimeError),
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar; the year is taken to begin in March, so that the
/// leap day is its last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, day) = (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn digits(number: i64, count: u32, to: &mut String) {
    for place in (0..count).rev() {
        let digit = (number / 10_i64.pow(place) % 10) as u8;
        to.push(char::from(b'0' + digit));
    }
}

/// `#[serde(with)]`: microseconds here, RFC 3339 in JSON.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes [`super::format_time`].
    pub fn serialize<S: Serializer>(us: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_time(*us))
    }

    /// Reads [`super::parse_time`].
    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<i64, D::Error> {
        let text = <std::borrow::Cow<'a, str>>::deserialize(from)?;
        super::parse_time(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, written: &str) {
        let us = parse_time(text.as_bytes()).unwrap_or_else(|_| panic!("{text} is a time"));
        assert_eq!(format_time(us), written);
    }

    #[track_caller]
    fn refuse(text: &str) {
        assert_eq!(parse_time(text.as_bytes()), Err(TimeError), "{text}");
    }

    #[test]
    fn the_examples_of_the_rfc() {
        check("1985-04-12T23:20:50.52Z", "1985-04-12T23:20:50.520Z");
        check("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57Z");
        check("1937-01-01T12:00:27.87+00:20", "1937-01-01T11:40:27.870Z");
    }

    #[test]
    fn the_epoch_is_zero_and_known_instants_are_exact() {
        assert_eq!(parse_time(b"1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(parse_time(b"2025-11-07T15:10:01Z"), Ok(1_762_528_201_000_000));
        assert_eq!(parse_time(b"1969-12-31T23:59:59.999999Z"), Ok(-1));
        assert_eq!(parse_time(b"2000-02-29 00:00:00"), Ok(951_782_400_000_000));
    }

    #[test]
    fn separators_case_and_missing_offset() {
        for text in ["2025-11-07T15:10:01Z", "2025-11-07t15:10:01z", "2025-11-07 15:10:01Z", "2025-11-07T15:10:01"] {
            check(text, "2025-11-07T15:10:01Z");
        }
        check("2025-11-08T00:10:01+09:00", "2025-11-07T15:10:01Z");
        check("2025-11-07T15:10:01-00:00", "2025-11-07T15:10:01Z");
    }

    #[test]
    fn fractions_of_any_length_are_cut_to_microseconds() {
        check("2025-11-07T15:10:01.5Z", "2025-11-07T15:10:01.500Z");
        check("2025-11-07T15:10:01.000001Z", "2025-11-07T15:10:01.000001Z");
        check("2025-11-07T15:10:01.1234569Z", "2025-11-07T15:10:01.123456Z");
        check(&format!("2025-11-07T15:10:01.{}Z", "9".repeat(100)), "2025-11-07T15:10:01.999999Z");
        check("2025-11-07T15:10:01.000000999Z", "2025-11-07T15:10:01Z");
    }

    #[test]
    fn a_leap_second_is_the_second_before_and_only_ends_a_day() {
        check("1990-12-31T23:59:60Z", "1990-12-31T23:59:59Z");
        check("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59Z");
        check("2017-01-01T08:59:60.25+09:00", "2016-12-31T23:59:59.250Z");
        refuse("1990-12-31T23:58:60Z");
        refuse("1990-12-31T23:59:60+01:00");
        refuse("1990-12-31T23:59:61Z");
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for text in ["2025-02-29", "2100-02-29", "2025-04-31", "2025-00-01", "2025-13-01", "2025-01-00", "2025-01-32"] {
            refuse(&format!("{text}T00:00:00Z"));
        }
        check("2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z");
        check("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2025-11-07",
            "2025-11-07T15:10",
            "2025-11-07T15:10:01.",
            "2025-11-07T15:10:01,5Z",
            "2025-11-07T24:00:00Z",
            "2025-11-07T15:60:00Z",
            "2025-11-07T15:10:01+0900",
            "2025-11-07T15:10:01+09",
            "2025-11-07T15:10:01+24:00",
            "2025-11-07T15:10:01+09:60",
            "2025-11-07T15:10:01ZZ",
            " 2025-11-07T15:10:01Z",
            "2025-11-07T15:10:01Z ",
            "2025-11-07_15:10:01Z",
            "25-11-07T15:10:01Z",
            "2025-1-07T15:10:01Z",
            "+2025-11-07T15:10:01Z",
            "2025-11-07T15:10:-1Z",
            "2025-11-07T15:10:01.5.5Z",
            "２025-11-07T15:10:01Z",
        ] {
            refuse(text);
        }
    }

    #[test]
    fn every_day_of_the_years_0000_to_9999_goes_there_and_back() {
        let mut us = parse_time(b"0000-01-01T00:00:00Z").unwrap();
        let end = parse_time(b"9999-12-31T00:00:00Z").unwrap();
        while us <= end {
            let text = format_time(us);
            assert_eq!(parse_time(text.as_bytes()), Ok(us), "{text}");
            us += DAY_US;
        }
    }

    #[test]
    fn years_beyond_four_digits_are_written_with_a_sign() {
        assert_eq!(format_time(parse_time(b"9999-12-31T23:59:59Z").unwrap() + 1_000_000), "+010000-01-01T00:00:00Z");
        assert_eq!(format_time(parse_time(b"0000-01-01T00:00:00Z").unwrap() - 1), "-000001-12-31T23:59:59.999999Z");
        assert!(format_time(i64::MIN).starts_with("-290308-") && format_time(i64::MAX).starts_with("+294247-"));
    }
}
