//! Against a real PostgreSQL.

use super::super::{migrate, scratch::Scratch};
use super::*;
use tokio::time::timeout;
use tokio_postgres::Client;

/// What is awaited comes within this, or the test fails.
const SOON: Duration = Duration::from_secs(20);

struct Rig {
    scratch: Scratch,
    client: Client,
    slot: String,
}

impl Rig {
    async fn new() -> Option<Rig> {
        let scratch = Scratch::new(Which::Ai).await?;
        migrate(&scratch.url(), Which::Ai).await.unwrap();
        let client = pool::connect(&scratch.url(), Which::Ai).await.unwrap();
        let slot = format!("mw_test_{}", uuid::Uuid::now_v7().simple());
        Some(Rig { scratch, client, slot })
    }

    async fn session(&self) -> Session {
        Session::connect(&self.scratch.url(), &self.slot).await.unwrap()
    }

    /// Inserts rows in one transaction.
    async fn insert(&self, rows: std::ops::Range<i64>, payload: &str) {
        let sql = "insert into outbox (id, aggregatetype, aggregateid, type, payload, traceparent, position)
                   select gen_random_uuid(), 'machine', 'm-' || n, 'raised', $3::text::jsonb, null, n
                   from generate_series($1::bigint, $2::bigint - 1) n";
        self.client.execute(sql, &[&rows.start, &rows.end, &payload]).await.unwrap();
    }

    /// Where the slot is confirmed.
    async fn confirmed(&self) -> LogPosition {
        let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
        self.client.query_one(sql, &[&self.slot]).await.unwrap().get::<_, String>(0).parse().unwrap()
    }

    /// Ends the test: a slot outlives its session.
    async fn end(self) {
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        for _ in 0..200 {
            if self.client.execute(sql, &[&self.slot]).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the slot is in use");
    }
}

/// Transactions with rows until `count` rows came, and the last end.
async fn rows(log: &mut OutboxLog, count: usize) -> (Vec<Vec<OutboxRow>>, LogPosition) {
    let (mut found, mut last) = (Vec::new(), LogPosition(0));
    while found.iter().map(Vec::len).sum::<usize>() < count {
        for logged in timeout(SOON, log.next(1000)).await.unwrap().unwrap() {
            if let Logged::Transaction { end, rows } = logged
                && !rows.is_empty()
            {
                assert!(end > last, "in order of commit");
                last = end;
                found.push(rows);
            }
        }
    }
    (found, last)
}

#[tokio::test]
async fn the_log_tells_each_transaction_whole_and_again_until_it_is_confirmed() {
    let Some(rig) = Rig::new().await else { return };
    rig.insert(0..3, "{}").await;
    let mut session = rig.session().await;
    assert_eq!(session.slot().await.unwrap(), Slot::None);
    let cluster = session.cluster().await.unwrap();
    assert!(!cluster.system_id.is_empty() && cluster.timeline >= 1);
    let made = session.make_slot(Slot::None).await.unwrap();
    // The snapshot shows what the slot will not tell.
    let snapshot = format!(
        "begin isolation level repeatable read; set transaction snapshot '{}'; select count(*) from outbox",
        made.snapshot
    );
    rig.insert(3..5, r#"{"b": 0.970, "text": "방열 불량 \u0041 \"q\"", "n": [1, 0.5, 1e2, null]}"#).await;
    let counted = pool::connect(&rig.scratch.url(), Which::Ai).await.unwrap().simple_query(&snapshot).await.unwrap();
    let count = counted.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    assert_eq!(count.as_deref(), Some("3"));

    let mut log = session.stream().await.unwrap();
    rig.insert(5..6, "{}").await;
    let (found, last) = rows(&mut log, 3).await;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    let text: String =
        rig.client.query_one("select payload::text from outbox where position = 3", &[]).await.unwrap().get(0);
    assert_eq!((&*found[0][0].payload, &*found[0][0].aggregateid, &*found[0][0].kind), (&*text, "m-3", "raised"));
    assert!(text.contains("0.970") && text.contains("방열 불량 A"), "{text}");
    assert!(rig.confirmed().await < last, "nothing was confirmed");
    drop(log);

    // Whoever comes next is told again, once the server has noticed that nobody reads.
    let session = async {
        loop {
            match Session::connect(&rig.scratch.url(), &rig.slot).await {
                Err(Error::Taken(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                session => return session.unwrap(),
            }
        }
    };
    let mut again = timeout(SOON, session).await.unwrap().stream().await.unwrap();
    let second = Session::connect(&rig.scratch.url(), &rig.slot).await.map(|_| ());
    assert!(matches!(&second, Err(Error::Taken(slot)) if *slot == rig.slot), "{second:?}");
    let (told, end) = rows(&mut again, 3).await;
    assert_eq!((told, end), (found, last));
    again.confirm(end);
    // Deleted rows and rows that were rolled back are not told, and the slot moves on while nothing is told.
    rig.client.batch_execute("delete from outbox").await.unwrap();
    let rolled_back =
        "begin; insert into outbox select gen_random_uuid(), 'machine', 'x', 'raised', '{}', null, 99; rollback";
    rig.client.batch_execute(rolled_back).await.unwrap();
    let moved = async {
        while rig.confirmed().await <= end {
            // A quiet server that is told the position says nothing more.
            let Ok(told) = timeout(Duration::from_millis(100), again.next(1000)).await else { continue };
            for logged in told.unwrap() {
                match logged {
                    Logged::Transaction { rows, .. } if !rows.is_empty() => panic!("told {rows:?}"),
                    Logged::Transaction { end: at, .. } | Logged::Idle { at } => again.confirm(at),
                }
            }
        }
    };
    timeout(SOON, moved).await.expect("an idle slot keeps no log");
    drop(again);
    rig.end().await;
}
