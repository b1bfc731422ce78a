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
    let _ = (text, scale);
    todo!()
}

/// Writes a scaled integer as decimal text: 4280 at scale 2 is `42.8`, 1500 at scale 0 is `1500`.
pub fn decimal_text(value: i64, scale: u8) -> String {
    let _ = (value, scale);
    todo!()
}
