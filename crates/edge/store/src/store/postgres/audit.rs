//! The audit log, in the main database; its lines and hashes are those of the file.

use super::{Error, Postgres, connect, execute, query, query_opt};
use crate::{
    history::Page,
    store::{
        AuditRow, NewAudit,
        audit::{Chain, Line, chain, parse_cursor},
    },
};
use deadpool_postgres::Transaction;

/// Lines that a check reads at a time.
const PAGE: i64 = 10_000;

impl Postgres {
    pub(in crate::store) async fn audit(
        &self,
        subject: Option<&str>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<AuditRow>, Error> {
        let before = cursor.map(|text| parse_cursor(text).ok_or(Error::Cursor)).transpose()?.unwrap_or(i64::MAX);
        let limit = limit.clamp(1, 1_000);
        let client = connect(&self.main.read).await?;
        let sql = "select sequence, line, hash from audit where ($1::text is null or subject = $1) and sequence < $2
                   order by sequence desc limit $3";
        let found = query(&client, sql, &[&subject, &before, &(limit as i64 + 1)]).await?;
        let row = |row: &tokio_postgres::Row| {
            let sequence: i64 = row.try_get(0)?;
            let damaged = |_| Error::Damaged(format!("line {sequence} of the audit log"));
            let line: Line = serde_json::from_str(row.try_get(1)?).map_err(damaged)?;
            Ok(AuditRow { sequence, subject: line.subject, audit: line.audit, hash: row.try_get(2)? })
        };
        let rows = found.iter().take(limit).map(row).collect::<Result<Vec<_>, Error>>()?;
        let last = rows.last().filter(|_| found.len() > limit);
        Ok(Page { next_cursor: last.map(|last| format!("u{}", last.sequence)), rows })
    }

    pub(in crate::store) async fn verify_audit(&self) -> Result<(u64, Option<i64>), Error> {
        let mut client = connect(&self.main.read).await?;
        let transaction =
            client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead).start().await?;
        let mut checked = Chain::default();
        loop {
            // What lies before the first line does not fit either.
            let after = if checked.checked() == 0 { i64::MIN } else { checked.checked() };
            let sql = "select sequence, line, hash from audit where sequence > $1 order by sequence limit $2";
            let rows = query(&transaction, sql, &[&after, &PAGE]).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                if !checked.fits(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?) {
                    return Ok(checked.broken());
                }
            }
        }
        let sql = "select value from counter where name = 'audit'";
        let given = query_opt(&transaction, sql, &[]).await?.ok_or_else(lost)?.try_get(0)?;
        Ok(checked.end(given))
    }
}

fn lost() -> Error {
    Error::Damaged("counter audit".to_owned())
}

/// Appends lines; the sequence of the first.
pub(super) async fn append(transaction: &Transaction<'_>, lines: &[NewAudit]) -> Result<i64, Error> {
    let sql = "update counter set value = value + $1 where name = 'audit' returning value - $1";
    let before: i64 = query_opt(transaction, sql, &[&(lines.len() as i64)]).await?.ok_or_else(lost)?.try_get(0)?;
    if lines.is_empty() {
        return Ok(before + 1);
    }
    let row = query_opt(transaction, "select hash from audit where sequence = $1", &[&before]).await?;
    let mut previous: String = match row {
        Some(row) => row.try_get(0)?,
        None if before == 0 => String::new(),
        None => return Err(Error::Damaged(format!("line {before} of the audit log"))),
    };
    let (mut sequences, mut texts, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for (sequence, new) in (before + 1..).zip(lines) {
        let line = Line { sequence, subject: new.subject.clone(), audit: new.audit.clone() };
        let text = serde_json::to_string(&line).expect("an audit line has string keys");
        previous = chain(&previous, &text);
        sequences.push(sequence);
        texts.push(text);
        hashes.push(previous.clone());
    }
    let sql = "insert into audit (sequence, line, hash) select * from unnest($1::bigint[], $2::text[], $3::text[])";
    execute(transaction, sql, &[&sequences, &texts, &hashes]).await?;
    Ok(before + 1)
}
