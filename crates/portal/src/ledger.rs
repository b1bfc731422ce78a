//! The ledger: received = stored + rejected + duplicate for every source, and what is on its way beside it.

use crate::{
    answer::{self, Answer},
    app::App,
    problem::Problem,
};
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use store::history::LedgerRow;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Ledger {
    /// By name.
    sources: Vec<Source>,
    /// Every source balances.
    balanced: bool,
}

#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Source {
    source: String,
    received: u64,
    stored: u64,
    rejected: u64,
    duplicate: u64,
    /// On the bus, not yet taken; counted nowhere else.
    in_flight: u64,
}

/// What became of everything that was received, by source.
#[utoipa::path(get, path = "/api/ledger", tag = "readings", responses((status = 200, description = "Ledger", body = Ledger)))]
pub(crate) async fn ledger(State(app): State<App>) -> Answer {
    // The place first: what is taken between the two is counted twice at most for a moment, never missed.
    let appended = app.parts.history.appended().await?;
    let bus = app.parts.bus.clone();
    let in_flight = tokio::task::spawn_blocking(move || bus.rows_from(&appended))
        .await
        .map_err(|error| Problem::internal("read the ledger", &error))?;
    let rows = app.parts.history.ledger().await?;
    let in_flight = in_flight.map_err(|error| Problem::internal("read the bus", &error))?;
    Ok(answer::value(&merge(rows, in_flight.iter().map(|(source, rows)| (&**source, *rows)))))
}

fn merge<'a>(rows: Vec<LedgerRow>, in_flight: impl Iterator<Item = (&'a str, u64)>) -> Ledger {
    let mut sources: BTreeMap<String, Source> = BTreeMap::new();
    for LedgerRow { source, received, stored, rejected, duplicate } in rows {
        sources.insert(source.clone(), Source { source, received, stored, rejected, duplicate, in_flight: 0 });
    }
    for (source, rows) in in_flight.filter(|(_, rows)| *rows > 0) {
        let entry = sources.entry(source.to_owned());
        entry.or_insert_with(|| Source { source: source.to_owned(), ..Source::default() }).in_flight += rows;
    }
    let sources: Vec<Source> = sources.into_values().collect();
    let balanced = sources.iter().all(|row| row.received == row.stored + row.rejected + row.duplicate);
    Ledger { sources, balanced }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(source: &str, received: u64, stored: u64) -> LedgerRow {
        LedgerRow { source: source.to_owned(), received, stored, ..LedgerRow::default() }
    }

    #[test]
    fn sources_that_are_only_on_their_way_are_there_too() {
        let ledger = merge(vec![row("http", 5, 5)], [("simulate", 3), ("http", 2), ("file", 0)].into_iter());
        let found: Vec<_> = ledger.sources.iter().map(|row| (&*row.source, row.received, row.in_flight)).collect();
        assert_eq!(found, [("http", 5, 2), ("simulate", 0, 3)]);
        assert!(ledger.balanced);
    }

    #[test]
    fn a_source_that_does_not_add_up_unbalances() {
        assert!(!merge(vec![row("http", 5, 4)], std::iter::empty()).balanced);
    }
}
