//! Decimal text to scaled integers and back, exact.

/// Why a decimal text gives no scaled integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ScaledError {
    #[error("not a number")]
    NotANumber,
    #[error("beyond what 64 bits hold at this scale")]
    TooLarge,
}

/// Reads a JSON number's text at a scale, rounded half away from zero on its decimal digits: (value, was rounded).
///
/// # Errors
/// It is no JSON number, or does not fit.
pub fn scaled(text: &[u8], scale: u8) -> Result<(i64, bool), ScaledError> {
    Number::json(text).ok_or(ScaledError::NotANumber)?.at_scale(scale)
}

/// Reads a number as people write it in CSV: a JSON number, also with `+`, leading zeros, `.5` and `5.`.
pub(crate) fn scaled_loose(text: &[u8], scale: u8) -> Result<(i64, bool), ScaledError> {
    Number::loose(text).ok_or(ScaledError::NotANumber)?.at_scale(scale)
}

/// Writes a scaled integer as decimal text: 4280 at scale 2 is `42.8`, 1500 at scale 0 is `1500`.
pub fn decimal_text(value: i64, scale: u8) -> String {
    let mut text = String::new();
    write_decimal(value, scale, &mut text);
    text
}

/// Appends [`decimal_text`] to a text.
pub(crate) fn write_decimal(value: i64, scale: u8, to: &mut String) {
    use std::fmt::Write;
    // 10^19 is the largest power of ten in 64 bits; a class has at most 9 decimals.
    let one = 10_u64.checked_pow(u32::from(scale)).unwrap_or(u64::MAX);
    let (whole, mut part) = (value.unsigned_abs() / one, value.unsigned_abs() % one);
    if value < 0 {
        to.push('-');
    }
    write!(to, "{whole}").expect("a String takes all");
    if part != 0 {
        let mut width = usize::from(scale);
        while part.is_multiple_of(10) {
            part /= 10;
            width -= 1;
        }
        write!(to, ".{part:0width$}").expect("a String takes all");
    }
}

/// A decimal number taken apart: (-1)^negative x whole.part x 10^exponent.
struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    part: &'a [u8],
    exponent: i64,
}

impl<'a> Number<'a> {
    /// Takes a text apart by the grammar of JSON.
    fn json(text: &'a [u8]) -> Option<Number<'a>> {
        let number = Number::loose(text)?;
        let unsigned = text.strip_prefix(b"-").unwrap_or(text);
        let leading_zero = number.whole.len() > 1 && number.whole[0] == b'0';
        let bare_point = number.part.is_empty() && unsigned.get(number.whole.len()) == Some(&b'.');
        let fits = !number.whole.is_empty() && unsigned[0] != b'+' && !leading_zero && !bare_point;
        fits.then_some(number)
    }

    /// Takes a text apart: sign, digits, point, digits, exponent; at least one digit before the exponent.
    fn loose(text: &'a [u8]) -> Option<Number<'a>> {
        let (negative, rest) = sign(text);
        let (whole, rest) = leading_digits(rest);
        let (part, rest) = rest.strip_prefix(b".").map_or((&rest[..0], rest), leading_digits);
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let exponent = match rest.split_first() {
            None => 0,
            Some((b'e' | b'E', rest)) => {
                let (down, rest) = sign(rest);
                let (digits, rest) = leading_digits(rest);
                if digits.is_empty() || !rest.is_empty() {
                    return None;
                }
                // Beyond 10^15 the digits of no text can bring it back.
                let size = digits
                    .iter()
                    .fold(0, |size: i64, digit| (size * 10 + i64::from(digit - b'0')).min(1_000_000_000_000_000));
                if down { -size } else { size }
            }
            Some(_) => return None,
        };
        Some(Number { negative, whole, part, exponent })
    }

    /// The number x 10^scale, rounded half away from zero.
    fn at_scale(&self, scale: u8) -> Result<(i64, bool), ScaledError> {
        // The digits in a row; `kept` of them, counted from the first, stand before the point of the result.
        let digits = || self.whole.iter().chain(self.part).map(|digit| digit - b'0');
        let kept = self.whole.len() as i64 + self.exponent + i64::from(scale);
        let length = (self.whole.len() + self.part.len()) as i64;
        let mut value: u64 = 0;
        for digit in digits().take(kept.max(0) as usize) {
            let next = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit)));
            value = next.ok_or(ScaledError::TooLarge)?;
        }
        // Zeros that the text leaves to its exponent.
        if value != 0 {
            for _ in length..kept {
                value = value.checked_mul(10).ok_or(ScaledError::TooLarge)?;
            }
        }
        let mut rounded = false;
        if kept < length {
            rounded = digits().skip(kept.max(0) as usize).any(|digit| digit != 0);
            if kept >= 0 && digits().nth(kept as usize).is_some_and(|digit| digit >= 5) {
                value = value.checked_add(1).ok_or(ScaledError::TooLarge)?;
            }
        }
        let signed = if self.negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() };
        Ok((signed.ok_or(ScaledError::TooLarge)?, rounded))
    }
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    }
}

fn leading_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, scale: u8, value: i64, rounded: bool) {
        assert_eq!(scaled(text.as_bytes(), scale), Ok((value, rounded)), "{text} at scale {scale}");
    }

    #[test]
    fn decimals_are_exact_at_their_scale() {
        check("42.8", 2, 4280, false);
        check("299.1", 2, 29910, false);
        check("1500", 0, 1500, false);
        check("1500.0", 0, 1500, false);
        check("-0.01", 2, -1, false);
        check("0", 9, 0, false);
        check("-0", 2, 0, false);
        check("-0.0", 2, 0, false);
        check("0.07", 2, 7, false);
    }

    #[test]
    fn rounding_is_half_away_from_zero_on_the_decimal_digits() {
        check("0.125", 2, 13, true);
        check("-0.125", 2, -13, true);
        check("0.1249999999999999999999999999", 2, 12, true);
        // As an IEEE double 1.005 lies below the half.
        check("1.005", 2, 101, true);
        check("0.5", 0, 1, true);
        check("-0.5", 0, -1, true);
        check("0.49999999999999999999", 0, 0, true);
        check("9.999", 2, 1000, true);
        check("0.05", 0, 0, true);
        check("5e-1", 0, 1, true);
        check("5e-2", 0, 0, true);
    }

    #[test]
    fn exponents_move_the_point() {
        check("1e2", 0, 100, false);
        check("1E+2", 1, 1000, false);
        check("1.5e3", 0, 1500, false);
        check("150000e-2", 0, 1500, false);
        check("12345e-3", 2, 1235, true);
        check("0e999999999999999999999", 2, 0, false);
        check("0.000e-999999999999999999999", 2, 0, false);
        check("1e-999999999999999999999", 2, 0, true);
        check("0.00000000000000000000042e22", 1, 42, false);
    }

    #[test]
    fn what_64_bits_do_not_hold_is_refused() {
        check("9223372036854775807", 0, i64::MAX, false);
        check("-9223372036854775808", 0, i64::MIN, false);
        check("9223372036854775807.4", 0, i64::MAX, true);
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "9223372036854775807.5",
            "1e300",
            "-1e300",
            "1e999999999999",
            "123456789012345678901",
        ] {
            assert_eq!(scaled(text.as_bytes(), 0), Err(ScaledError::TooLarge), "{text}");
        }
    }

    #[test]
    fn only_the_grammar_of_json_is_a_number() {
        for text in [
            "", "-", "+1", "01", "-01", ".5", "5.", "1.e2", "1e", "1e+", "1e2.5", "--1", "1 ", " 1", "0x10", "NaN",
            "1_000", "1,5", "1.2.3", "e5",
        ] {
            assert_eq!(scaled(text.as_bytes(), 2), Err(ScaledError::NotANumber), "{text:?}");
        }
    }

    #[test]
    fn people_write_numbers_in_more_ways() {
        for (text, value) in [("+1", 100), ("007", 700), (".5", 50), ("5.", 500), ("-.25", -25), ("5.e1", 5000)] {
            assert_eq!(scaled_loose(text.as_bytes(), 2), Ok((value, false)), "{text}");
        }
        for text in ["", ".", "+", "1e", "nan", "1 2"] {
            assert_eq!(scaled_loose(text.as_bytes(), 2), Err(ScaledError::NotANumber), "{text}");
        }
    }

    #[test]
    fn decimal_text_has_no_zeros_to_spare() {
        for (value, scale, text) in [
            (4280, 2, "42.8"),
            (1500, 0, "1500"),
            (0, 2, "0"),
            (-1, 2, "-0.01"),
            (29900, 2, "299"),
            (i64::MIN, 9, "-9223372036.854775808"),
        ] {
            assert_eq!(decimal_text(value, scale), text);
        }
    }

    proptest! {
        #[test]
        fn text_goes_there_and_back(value: i64, scale in 0_u8..10) {
            prop_assert_eq!(scaled(decimal_text(value, scale).as_bytes(), scale), Ok((value, false)));
        }

        /// Against arithmetic on 128-bit integers.
        #[test]
        fn rounding_agrees_with_integers(whole in 0_i64..1_000_000, part in 0_i64..1_000_000_000, digits in 1_u32..10, scale in 0_u8..10, exponent in -12_i32..6) {
            let part = part % 10_i64.pow(digits);
            let text = format!("{whole}.{part:0width$}e{exponent}", width = digits as usize);
            // The number is `all` x 10^-shift.
            let all = i128::from(whole) * 10_i128.pow(digits) + i128::from(part);
            let shift = digits as i32 - exponent - i32::from(scale);
            let expected = if shift <= 0 {
                all * 10_i128.pow(-shift as u32)
            } else {
                let unit = 10_i128.pow(shift as u32);
                all / unit + i128::from(all % unit * 2 >= unit)
            };
            let expected = i64::try_from(expected).map_err(|_| ScaledError::TooLarge);
            prop_assert_eq!(scaled(text.as_bytes(), scale).map(|(value, _)| value), expected, "{} at {}", text, scale);
        }
    }
}
