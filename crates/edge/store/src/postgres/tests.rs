//! Migrations and sessions against a real PostgreSQL.

use super::{scratch::Scratch, *};
use std::time::Duration;

#[tokio::test]
async fn migrations_run_once_however_many_start_them() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let url = scratch.url();
    let before = status(&url, Which::Main).await.unwrap();
    assert!(before.iter().all(|migration| migration.applied_us.is_none() && !migration.newer));
    let (a, b, c) = tokio::join!(migrate(&url, Which::Main), migrate(&url, Which::Main), migrate(&url, Which::Main));
    let mut done = [a.unwrap(), b.unwrap(), c.unwrap()].concat();
    done.sort_unstable();
    let names: Vec<&str> = before.iter().map(|migration| &*migration.name).collect();
    assert_eq!(done, names);
    let after = status(&url, Which::Main).await.unwrap();
    assert!(after.iter().all(|migration| migration.applied_us.is_some()));
    assert!(migrate(&url, Which::Main).await.unwrap().is_empty());

    let client = pool::connect(&url, Which::Main).await.unwrap();
    let later = "insert into schema_migration (number, name, checksum) values (9999, '9999_later', '')";
    client.batch_execute(later).await.unwrap();
    let newest = status(&url, Which::Main).await.unwrap().pop().unwrap();
    assert_eq!((newest.number, newest.newer), (9999, true));
    assert!(migrate(&url, Which::Main).await.unwrap().is_empty(), "a later release's schema is no error");

    client.batch_execute("update schema_migration set checksum = 'x' where number = 1").await.unwrap();
    assert!(matches!(migrate(&url, Which::Main).await, Err(Error::Edited { name, .. }) if name == "0001_main"));
    assert!(matches!(status(&url, Which::Main).await, Err(Error::Edited { .. })));
}

#[tokio::test]
async fn sessions_have_the_settings_of_the_guarantees() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let pools = Pools::new(&scratch.url(), Which::Main, "ingest", Sizes { write: 1, read: 1 }).unwrap();
    let show = async |pool: &Pool, name: &str| -> String {
        let client = pool.get().await.unwrap();
        client.query_one(&format!("show {name}"), &[]).await.unwrap().get(0)
    };
    for (name, write, read) in [
        ("idle_in_transaction_session_timeout", "2s", "10s"),
        ("lock_timeout", "1s", "0"),
        ("statement_timeout", "10s", "10s"),
        ("tcp_keepalives_idle", "5", "5"),
        ("timezone", "UTC", "UTC"),
        ("search_path", "public", "public"),
        ("default_transaction_read_only", "off", "on"),
        ("application_name", "millwright ingest write", "millwright ingest read"),
    ] {
        assert_eq!((&*show(&pools.write, name).await, &*show(&pools.read, name).await), (write, read), "{name}");
    }
    let held = pools.write.get().await.unwrap();
    let error = pools.write.get().await.err().unwrap();
    assert!(
        matches!(error, Error::Pool(deadpool_postgres::PoolError::Timeout(_))),
        "who waits for a connection is told"
    );
    drop(held);
    assert!(matches!(
        Pools::new("postgresql://[", Which::Ai, "detect", Sizes { write: 1, read: 1 }),
        Err(Error::Address { which: Which::Ai, .. })
    ));
}

#[tokio::test]
async fn nobody_waits_for_a_database_that_is_known_to_be_away() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let all = dependency::Dependencies::default();
    let database = all.needed("postgres_main");
    let pools = Pools::new(&scratch.url(), Which::Main, "test", Sizes { write: 1, read: 1 }).unwrap();
    let pools = pools.looked_after(&database);
    let lost = std::io::Error::other("lost");
    (0..dependency::AWAY_AFTER).for_each(|_| database.failed(&lost));
    let error = pools.write.get().await.err().unwrap();
    assert!(matches!(error, Error::Away(dependency::Away { name: "postgres_main", .. })), "{error:?}");
    // Whoever looks after it finds that it answers, and counts.
    let url = scratch.url();
    let look = watch(&url, Which::Main, "test", Some(Waiting::OutboxLog), &all, &database);
    look_until(look, || database.away().is_none()).await;
    assert_eq!(all.buffered(), [("outbox_log_bytes", Some(0))].into());
    let _ = pools.write.get().await.unwrap();
    // Nobody listens there.
    let nowhere = all.needed("postgres_ai");
    let look = watch("postgresql://127.0.0.1:1/x", Which::Ai, "test", Some(Waiting::Notifications), &all, &nowhere);
    look_until(look, || nowhere.away().is_some()).await;
    assert_eq!(all.buffered()["notifications"], None, "it cannot be told");
}

/// Looks after a database until something holds.
async fn look_until(look: impl Future<Output = ()>, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = look => unreachable!("it has no end"),
        held = tokio::time::timeout(Duration::from_secs(20), held) => held.expect("it comes soon"),
    }
}

#[tokio::test]
async fn positions_move_all_or_none_and_what_was_said_of_the_old_log_is_forgotten() {
    let Some(scratch) = Scratch::new(Which::Ai).await else { return };
    let url = scratch.url();
    migrate(&url, Which::Ai).await.unwrap();
    let client = pool::connect(&url, Which::Ai).await.unwrap();
    client
        .batch_execute(
            "insert into consumer_offset values ('sensor-raw-data', 1, 20), ('sensor-raw-data', 2, 30);
             insert into catalogue (hash, document) values ('h', '{}');
             insert into activation (topic, partition, from_offset, catalogue_hash)
                 values ('sensor-raw-data', 1, 0, 'h'), ('sensor-raw-data', 2, 0, 'h');
             insert into snapshot values (1, 0, 20, ''), (2, 0, 30, '')",
        )
        .await
        .unwrap();
    let place = |partition, next_offset| Place { topic: "sensor-raw-data".to_owned(), partition, next_offset };
    assert_eq!(places(&url, Which::Ai).await.unwrap(), [place(1, 20), place(2, 30)]);
    let held = async || -> (i64, i64) {
        let sql = "select (select count(*) from activation), (select count(*) from snapshot)";
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let overtaken = resume(&url, Which::Ai, &[(place(1, 20), 0), (place(2, 29), 0)]).await;
    assert!(matches!(overtaken, Err(Error::Moved { partition: 2, position: 29, .. })), "{overtaken:?}");
    assert_eq!((places(&url, Which::Ai).await.unwrap()[0].clone(), held().await), (place(1, 20), (2, 2)));
    resume(&url, Which::Ai, &[(place(1, 20), 7)]).await.unwrap();
    assert_eq!(places(&url, Which::Ai).await.unwrap(), [place(1, 7), place(2, 30)]);
    assert_eq!(held().await, (1, 1));
}
