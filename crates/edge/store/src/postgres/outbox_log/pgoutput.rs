//! What PostgreSQL's output plugin `pgoutput` says inside a transaction (protocol 1): relations and inserted rows.
//!
//! PostgreSQL 15 documentation, 55.9 "Logical Replication Message Formats". Begin and commit are taken off before this;
//! a message of a kind that this does not know is an error, since to skip it could lose an alert.

use std::collections::BTreeMap;

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("pgoutput message ends early")]
    Short,
    #[error("pgoutput message is followed by {0} bytes")]
    Long(usize),
    #[error("pgoutput message of kind {0:?}, which nothing in the publication can cause")]
    Kind(char),
    #[error("row of relation {0}, which was not described")]
    Relation(u32),
    #[error("row of {found} columns, {table} has {wanted}")]
    Columns { table: String, found: usize, wanted: usize },
    #[error("column {column} of {table} is sent as {kind:?}, not as text")]
    Form { table: String, column: String, kind: char },
    #[error("{table} has no column {column}")]
    Missing { table: String, column: &'static str },
    #[error("column {column} of {table} is null")]
    Null { table: String, column: &'static str },
    #[error("text is not UTF-8")]
    Utf8,
}

/// A table as it was described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// A row that was inserted, column by column; `None` is null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inserted<'a> {
    pub(super) relation: &'a Relation,
    pub(super) values: Vec<Option<&'a str>>,
}

impl<'a> Inserted<'a> {
    /// A column that may be null.
    pub(super) fn get(&self, column: &'static str) -> Result<Option<&'a str>, Error> {
        let place = self.relation.columns.iter().position(|name| name == column);
        let place = place.ok_or_else(|| Error::Missing { table: self.relation.table.clone(), column })?;
        Ok(self.values[place])
    }

    /// A column that may not.
    pub(super) fn need(&self, column: &'static str) -> Result<&'a str, Error> {
        self.get(column)?.ok_or_else(|| Error::Null { table: self.relation.table.clone(), column })
    }
}

/// Keeps the relations that were described.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    relations: BTreeMap<u32, Relation>,
}

impl Decoder {
    /// Reads one message; `None` where it holds no row.
    pub(super) fn decode<'a>(&'a mut self, message: &'a [u8]) -> Result<Option<Inserted<'a>>, Error> {
        let mut rest = Bytes(message);
        match rest.u8()? {
            b'R' => {
                let id = rest.u32()?;
                let (schema, table) = (rest.text()?, rest.text()?);
                let table = format!("{schema}.{table}");
                // How a row is told apart in updates, of which there are none.
                rest.u8()?;
                let count = rest.u16()?;
                let mut columns = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    // Whether it is part of the key.
                    rest.u8()?;
                    columns.push(rest.text()?.to_owned());
                    // Its type and that type's modifier.
                    rest.take(8)?;
                }
                rest.end()?;
                self.relations.insert(id, Relation { table, columns });
                Ok(None)
            }
            b'I' => {
                let id = rest.u32()?;
                let relation = self.relations.get(&id).ok_or(Error::Relation(id))?;
                match rest.u8()? {
                    b'N' => {}
                    kind => return Err(Error::Kind(char::from(kind))),
                }
                let found = usize::from(rest.u16()?);
                if found != relation.columns.len() {
                    let (table, wanted) = (relation.table.clone(), relation.columns.len());
                    return Err(Error::Columns { table, found, wanted });
                }
                let mut values = Vec::with_capacity(found);
                for column in &relation.columns {
                    values.push(match rest.u8()? {
                        b'n' => None,
                        b't' => {
                            let length = rest.u32()? as usize;
                            Some(std::str::from_utf8(rest.take(length)?).map_err(|_| Error::Utf8)?)
                        }
                        kind => {
                            let (table, column) = (relation.table.clone(), column.clone());
                            return Err(Error::Form { table, column, kind: char::from(kind) });
                        }
                    });
                }
                rest.end()?;
                Ok(Some(Inserted { relation, values }))
            }
            // The origin of a transaction that was itself replicated, and the name of a type.
            b'O' => {
                rest.take(8)?;
                rest.text()?;
                rest.end().map(|()| None)
            }
            b'Y' => {
                rest.u32()?;
                rest.text()?;
                rest.text()?;
                rest.end().map(|()| None)
            }
            kind => Err(Error::Kind(char::from(kind))),
        }
    }
}

/// What is left of a message.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Up to a zero byte.
    fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or(Error::Short)?;
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| Error::Utf8)
    }

    fn end(&self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Long(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }

    fn relation(id: u32, columns: &[&str]) -> Vec<u8> {
        let mut bytes = vec![b'R'];
        bytes.extend(id.to_be_bytes());
        text(&mut bytes, "public");
        text(&mut bytes, "outbox");
        bytes.push(b'd');
        bytes.extend((columns.len() as u16).to_be_bytes());
        for column in columns {
            bytes.push(1);
            text(&mut bytes, column);
            bytes.extend(25_u32.to_be_bytes());
            bytes.extend((-1_i32).to_be_bytes());
        }
        bytes
    }

    fn insert(id: u32, values: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = vec![b'I'];
        bytes.extend(id.to_be_bytes());
        bytes.push(b'N');
        bytes.extend((values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                None => bytes.push(b'n'),
                Some(value) => {
                    bytes.push(b't');
                    bytes.extend((value.len() as u32).to_be_bytes());
                    bytes.extend(value.as_bytes());
                }
            }
        }
        bytes
    }

    #[test]
    fn a_row_comes_under_the_names_of_its_columns() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&relation(7, &["id", "payload"])), Ok(None));
        let message = insert(7, &[Some("a"), None]);
        let row = decoder.decode(&message).unwrap().unwrap();
        assert_eq!(row.relation.table, "public.outbox");
        assert_eq!((row.need("id"), row.get("payload")), (Ok("a"), Ok(None)));
        assert!(matches!(row.need("payload"), Err(Error::Null { column: "payload", .. })));
        assert!(matches!(row.get("type"), Err(Error::Missing { column: "type", .. })));
        // The table was altered.
        assert_eq!(decoder.decode(&relation(7, &["id", "payload", "extra"])), Ok(None));
        assert!(matches!(decoder.decode(&message), Err(Error::Columns { found: 2, wanted: 3, .. })));
    }

    #[test]
    fn what_cannot_be_read_whole_is_an_error_at_every_length() {
        let message = insert(7, &[Some("value"), None]);
        for length in 0..message.len() {
            let mut decoder = Decoder::default();
            decoder.decode(&relation(7, &["id", "payload"])).unwrap();
            assert_eq!(decoder.decode(&message[..length]), Err(Error::Short), "{length}");
        }
        let mut decoder = Decoder::default();
        decoder.decode(&relation(7, &["id", "payload"])).unwrap();
        assert_eq!(decoder.decode(&[&message[..], b"x"].concat()), Err(Error::Long(1)));
        assert_eq!(decoder.decode(&insert(8, &[])), Err(Error::Relation(8)));
        assert_eq!(decoder.decode(b"U"), Err(Error::Kind('U')));
        assert_eq!(decoder.decode(b"T"), Err(Error::Kind('T')));
        let mut unchanged = insert(7, &[Some("value"), None]);
        *unchanged.last_mut().unwrap() = b'u';
        assert!(matches!(decoder.decode(&unchanged), Err(Error::Form { kind: 'u', .. })));
    }
}
