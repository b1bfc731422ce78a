//! Bytes that are read from the front, every step checked.

use super::BinaryError;

/// What is left to read, and where it stands in the whole.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes` from place `at`, which they have.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { rest: &bytes[at..], at }
    }

    /// The error that names this place.
    pub(super) fn malformed(&self) -> BinaryError {
        BinaryError::Malformed(self.at)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], BinaryError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BinaryError> {
        Ok(self.take(N)?.try_into().expect("as long as was asked for"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, BinaryError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, BinaryError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, BinaryError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A number of things that take so many bytes each at least: never more than are left.
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<usize, BinaryError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / bytes_each {
            return Err(self.malformed());
        }
        Ok(count)
    }

    /// A text with its length in one byte.
    pub(super) fn text(&mut self) -> Result<&'a str, BinaryError> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed())
    }

    /// The next section: its tag and its content.
    pub(super) fn section(&mut self) -> Result<Option<(u8, Cursor<'a>)>, BinaryError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, length) = (self.byte()?, self.u32()? as usize);
        let at = self.at;
        Ok(Some((tag, Cursor { rest: self.take(length)?, at })))
    }

    pub(super) fn skip_rest(&mut self) -> Result<(), BinaryError> {
        self.take(self.rest.len()).map(|_| ())
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), BinaryError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}
