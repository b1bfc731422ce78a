//! The audit log: append-only, each line chained to the one before it.

use super::{
    Error, NewNotification, Sqlite,
    alarms::{counter, raise_counter},
};
use crate::history::Page;
use alarm::Audit;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A line of the audit log to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAudit {
    /// What it is about: `alarm:ID`, `machine:ID`.
    pub subject: String,
    /// Who, what, when, why.
    pub audit: Audit,
    /// One notification per channel of these follows from it.
    pub notify: Vec<NewNotification>,
}

/// A stored line of the audit log; `hash` is over the line and the one before it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is what it is called")]
pub struct AuditRow {
    pub sequence: i64,
    pub subject: String,
    pub audit: Audit,
    /// Lowercase hexadecimal SHA-256.
    pub hash: String,
}

/// The canonical line: its JSON, keys in this order, is what is hashed and stored.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) sequence: i64,
    pub(super) subject: String,
    #[serde(flatten)]
    pub(super) audit: Audit,
}

impl Sqlite {
    pub(super) async fn audit(
        &self,
        subject: Option<&str>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<AuditRow>, Error> {
        let before = cursor.map(|text| parse_cursor(text).ok_or(Error::Cursor)).transpose()?.unwrap_or(i64::MAX);
        let subject = subject.map(str::to_owned);
        let limit = limit.clamp(1, 1_000);
        self.read(move |connection| page(connection, subject.as_deref(), before, limit)).await
    }

    pub(super) async fn verify_audit(&self) -> Result<(u64, Option<i64>), Error> {
        self.read(verify).await
    }
}

/// Appends a line; its sequence.
pub(super) fn append(transaction: &Transaction<'_>, new: &NewAudit) -> Result<i64, Error> {
    let before = raise_counter(transaction, "audit", 1)?;
    let previous: Option<String> = transaction
        .prepare_cached("select hash from audit where sequence = ?1")?
        .query_row([before], |row| row.get(0))
        .optional()?;
    if previous.is_none() && before > 0 {
        return Err(Error::Damaged(format!("line {before} of the audit log")));
    }
    let line = Line { sequence: before + 1, subject: new.subject.clone(), audit: new.audit.clone() };
    let text = serde_json::to_string(&line).expect("an audit line has string keys");
    let hash = chain(previous.as_deref().unwrap_or(""), &text);
    transaction.prepare_cached("insert into audit (sequence, line, hash) values (?1, ?2, ?3)")?.execute(params![
        line.sequence,
        text,
        hash
    ])?;
    Ok(line.sequence)
}

/// Hash of a line: over the hash before it, a line feed, and its JSON.
pub(super) fn chain(previous: &str, line: &str) -> String {
    let digest = Sha256::new().chain_update(previous).chain_update(b"\n").chain_update(line).finalize();
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn page(connection: &Connection, subject: Option<&str>, before: i64, limit: usize) -> Result<Page<AuditRow>, Error> {
    let mut query = connection.prepare_cached(if subject.is_some() {
        "select sequence, line, hash from audit where subject = ?1 and sequence < ?2 order by sequence desc limit ?3"
    } else {
        "select sequence, line, hash from audit where ?1 is null and sequence < ?2 order by sequence desc limit ?3"
    })?;
    let mut found = query.query(params![subject, before, limit as i64 + 1])?;
    let (mut rows, mut next_cursor) = (Vec::new(), None);
    while let Some(row) = found.next()? {
        if rows.len() == limit {
            next_cursor = rows.last().map(|last: &AuditRow| format!("u{}", last.sequence));
            break;
        }
        let sequence: i64 = row.get(0)?;
        let damaged = || Error::Damaged(format!("line {sequence} of the audit log"));
        let line: Line =
            serde_json::from_str(row.get_ref(1)?.as_str().map_err(|_| damaged())?).map_err(|_| damaged())?;
        rows.push(AuditRow { sequence, subject: line.subject, audit: line.audit, hash: row.get(2)? });
    }
    Ok(Page { rows, next_cursor })
}

pub(super) fn parse_cursor(text: &str) -> Option<i64> {
    let sequence: i64 = text.strip_prefix('u')?.parse().ok()?;
    (format!("u{sequence}") == text).then_some(sequence)
}

fn verify(connection: &Connection) -> Result<(u64, Option<i64>), Error> {
    let mut query = connection.prepare("select sequence, line, hash from audit order by sequence")?;
    let mut found = query.query([])?;
    let mut checked = Chain::default();
    while let Some(row) = found.next()? {
        let (sequence, line, hash): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !checked.fits(sequence, &line, &hash) {
            return Ok(checked.broken());
        }
    }
    Ok(checked.end(counter(connection, "audit")?))
}

/// A check of the log, line after line.
#[derive(Default)]
pub(super) struct Chain {
    checked: i64,
    /// Hash of the last line that fitted.
    previous: String,
}

impl Chain {
    /// Takes the next line, where it fits.
    pub(super) fn fits(&mut self, sequence: i64, line: &str, hash: &str) -> bool {
        let numbered = serde_json::from_str::<Line>(line).is_ok_and(|line| line.sequence == sequence);
        let fits = sequence == self.checked + 1 && numbered && hash == chain(&self.previous, line);
        if fits {
            self.checked = sequence;
            hash.clone_into(&mut self.previous);
        }
        fits
    }

    /// Lines that fitted.
    pub(super) fn checked(&self) -> i64 {
        self.checked
    }

    /// The answer where a line does not fit.
    pub(super) fn broken(&self) -> (u64, Option<i64>) {
        (self.checked as u64, Some(self.checked + 1))
    }

    /// The answer behind the last line that is there, of `given` that were written.
    pub(super) fn end(&self, given: i64) -> (u64, Option<i64>) {
        if given > self.checked { self.broken() } else { (self.checked as u64, None) }
    }
}
