//! What only two databases over a network can do wrong.

use super::{
    room::{Room, connect},
    *,
};
use crate::{
    postgres::{Pools, Sizes, Which},
    store::postgres::commit::OUTBOX_LOCK,
};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Count of rows of a table of the AI database.
async fn count(room: &Room, table: &str) -> String {
    room.raw_ai(&format!("select count(*) from {table}")).await.remove(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_detectors_that_race_from_one_position_one_wins_each_step() {
    let Some(room) = Room::plant().await else { return };
    let race = |store: Store| async move {
        let (mut won, mut lost) = (0, 0);
        let mut position = store.positions([0]).await.unwrap()[0];
        while position < 40 {
            // The same reading gives both the same alert; a second one is of this detector's own batch.
            let effects = raised(vec![alert("m1", Kind::Raised, position + 1, position)]);
            match store.commit(vec![step(0, position, position + 1, &effects)]).await {
                Ok(()) => won += 1,
                Err(Error::Fenced { expected, found, .. }) => {
                    assert!(expected == position && found > position);
                    lost += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
            position = store.positions([0]).await.unwrap()[0];
        }
        (won, lost)
    };
    let racers = [(); 3].map(|()| tokio::spawn(race(room.open())));
    let (mut won, mut lost) = (0, 0);
    for racer in racers {
        let (wins, losses) = racer.await.unwrap();
        won += wins;
        lost += losses;
    }
    assert_eq!(won, 40, "each step was won once");
    assert!(lost > 0, "nobody raced");
    assert_eq!(count(&room, "anomaly_history").await, "40");
    assert_eq!(count(&room, "outbox").await, "40");
}

#[tokio::test]
async fn the_outbox_announces_only_what_the_history_took() {
    let Some(room) = Room::plant().await else { return };
    let store = room.open();
    let known = alert("m1", Kind::Raised, 1, 1);
    store.commit(vec![step(0, 0, 2, &raised(vec![known.clone()]))]).await.unwrap();
    // A row that is announced no more is not announced again.
    room.raw_ai("delete from outbox").await;
    let new = alert("m2", Kind::Raised, 2, 2);
    store.commit(vec![step(0, 2, 3, &raised(vec![known, new.clone(), new.clone()]))]).await.unwrap();
    assert_eq!(room.raw_ai("select id from outbox").await, [Some(new.alert_id.to_string())]);
    assert_eq!(*store.outbox_grown().borrow(), store.outbox_after(0, 9).await.unwrap()[0].0);
    let columns = "select string_agg(column_name, ' ' order by ordinal_position) from information_schema.columns
        where table_name = 'outbox' and ordinal_position <= 6";
    let expected = "id aggregatetype aggregateid type payload traceparent";
    assert_eq!(room.raw_ai(columns).await, [Some(expected.to_owned())]);
    let row = "select aggregatetype || ' ' || aggregateid || ' ' || type from outbox";
    assert_eq!(room.raw_ai(row).await, [Some("alert m2 raised".to_owned())]);
    let published = "select pubinsert and not pubupdate and not pubdelete and not pubtruncate from pg_publication
        join pg_publication_tables using (pubname) where tablename = 'outbox'";
    assert_eq!(room.raw_ai(published).await, [Some("t".to_owned())]);
}

#[tokio::test]
async fn announced_rows_stay_for_a_day() {
    let Some(room) = Room::plant().await else { return };
    let store = room.open();
    let effects = raised((1..=3).map(|at| alert("m1", Kind::Raised, at, at)).collect());
    store.commit(vec![step(0, 0, 4, &effects)]).await.unwrap();
    assert_eq!(store.prune_outbox(i64::MAX).await.unwrap(), 0);
    room.raw_ai("update outbox set created_at = created_at - interval '25 hours' where position < 3").await;
    assert_eq!(store.prune_outbox(i64::MAX).await.unwrap(), 2);
    assert_eq!(count(&room, "anomaly_history").await, "3");
}

#[tokio::test]
async fn alerts_that_were_told_long_ago_go() {
    let Some(room) = Room::plant().await else { return };
    let store = room.open();
    let event = |id: usize| NewEvent { kind: "alert".into(), data: format!(r#"{{"alert_id":"{id}"}}"#) };
    store.record(Record { events: (0..6_000).map(event).collect(), ..Record::default() }).await.unwrap();
    assert_eq!(store.prune_alerts(0).await.unwrap(), 0);
    // More than one statement takes.
    assert_eq!(store.prune_alerts(i64::MAX).await.unwrap(), 6_000);
    assert_eq!(store.prune_alerts(i64::MAX).await.unwrap(), 0);
}

#[tokio::test]
async fn a_paused_detector_s_lock_is_waited_for() {
    let Some(room) = Room::plant().await else { return };
    let store = room.open();
    assert_eq!(store.positions([0, 5]).await.unwrap(), [0, 0]);
    let Room::Plant { ai, .. } = &room else { unreachable!() };
    let paused = connect(ai).await;
    paused.batch_execute("set idle_in_transaction_session_timeout = '2s'; begin").await.unwrap();
    paused.batch_execute("update consumer_offset set next_offset = 9 where partition = 0").await.unwrap();
    let effects = raised(vec![alert("m1", Kind::Raised, 1, 1)]);
    // Longer than a lock is waited for: the server ends the paused session, whose step is gone.
    store.commit(vec![step(0, 0, 2, &effects)]).await.unwrap();
    assert!(paused.batch_execute("commit").await.is_err());
    assert_eq!(store.positions([0]).await.unwrap(), [2]);
    assert_eq!(count(&room, "outbox").await, "1");
}

/// A wire to the AI database that breaks at the first COMMIT: before it arrives, or before its answer does.
async fn breaking_wire(server: (String, u16), arrives: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let broken = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect((server.0.as_str(), server.1)).await.unwrap();
            tokio::spawn(carry(near, far, broken.clone(), arrives));
        }
    });
    port
}

async fn carry(mut near: TcpStream, mut far: TcpStream, broken: Arc<AtomicBool>, arrives: bool) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = near.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let commits = asked[..length].windows(7).any(|bytes| bytes == b"COMMIT\0");
                if commits && !broken.swap(true, Ordering::Relaxed) {
                    if arrives {
                        far.write_all(&asked[..length]).await.unwrap();
                        // Its answer is read, and told to nobody.
                        assert!(far.read(&mut answered).await.unwrap() > 0);
                    }
                    return;
                }
                far.write_all(&asked[..length]).await.unwrap();
            }
            read = far.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if near.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_commit_of_which_nobody_knows_how_it_ended_counts_once() {
    for arrives in [true, false] {
        let Some(room) = Room::plant().await else { return };
        let Room::Plant { ai, main } = &room else { unreachable!() };
        let config: tokio_postgres::Config = ai.url().parse().unwrap();
        let [tokio_postgres::config::Host::Tcp(host)] = config.get_hosts() else { panic!("not over TCP") };
        let server = config.get_ports()[0];
        let port = breaking_wire((host.clone(), server), arrives).await;
        let url = ai.url().replacen(&format!(":{server}/"), &format!(":{port}/"), 1);
        let sizes = Sizes { write: 1, read: 1 };
        let pools = |url: &str, which| Pools::new(url, which, "test", sizes).unwrap();
        let store = Store::postgres(pools(&url, Which::Ai), pools(&main.url(), Which::Main));
        let effects = raised(vec![alert("m1", Kind::Raised, 1, 1)]);
        store.commit(vec![step(0, 0, 1, &effects), step(0, 1, 2, &Effects::default())]).await.unwrap();
        assert_eq!(store.positions([0]).await.unwrap(), [2], "{arrives}");
        assert_eq!(count(&room, "anomaly_history").await, "1");
        assert_eq!(count(&room, "outbox").await, "1");
        assert_eq!(*store.outbox_grown().borrow(), store.outbox_after(0, 9).await.unwrap()[0].0);
    }
}

#[tokio::test]
async fn alerts_do_not_wait_for_the_main_database() {
    let Some(room) = Room::plant().await else { return };
    let Room::Plant { ai, .. } = &room else { unreachable!() };
    let sizes = Sizes { write: 1, read: 1 };
    let nowhere = "postgresql://nobody@127.0.0.1:1/nothing";
    let ai = Pools::new(&ai.url(), Which::Ai, "test", sizes).unwrap();
    let store = Store::postgres(ai, Pools::new(nowhere, Which::Main, "test", sizes).unwrap());
    let effects = raised(vec![alert("m1", Kind::Raised, 1, 1)]);
    store.commit(vec![step(0, 0, 2, &effects)]).await.unwrap();
    assert_eq!(all(&store, AlertQuery::default()).await.len(), 1);
    assert!(matches!(store.registry().await, Err(Error::Postgres(_))));
}

#[tokio::test]
async fn positions_of_the_outbox_are_given_in_commit_order() {
    let Some(room) = Room::plant().await else { return };
    let Room::Plant { ai, .. } = &room else { unreachable!() };
    let store = room.open();
    // Another detector has positions and has not committed them.
    let other = connect(ai).await;
    other.batch_execute("begin").await.unwrap();
    other.execute("select pg_advisory_xact_lock($1)", &[&OUTBOX_LOCK]).await.unwrap();
    let effects = raised(vec![alert("m1", Kind::Raised, 1, 1)]);
    let later = store.commit(vec![step(0, 0, 1, &effects)]);
    tokio::pin!(later);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), &mut later).await.is_err());
    store.commit(vec![step(1, 0, 1, &Effects::default())]).await.unwrap();
    assert_eq!(count(&room, "outbox").await, "0");
    other.batch_execute("commit").await.unwrap();
    later.await.unwrap();
    assert_eq!(count(&room, "outbox").await, "1");
}

#[tokio::test]
async fn all_time_can_be_asked_for() {
    let Some(room) = Room::plant().await else { return };
    let store = room.open();
    let effects = raised(vec![alert("m1", Kind::Raised, -1, 1), alert("m1", Kind::Cleared, 4_102_444_799_999_999, 2)]);
    store.commit(vec![step(0, 0, 3, &effects)]).await.unwrap();
    let query = AlertQuery { from_us: Some(i64::MIN), to_us: Some(i64::MAX), ..AlertQuery::default() };
    let times: Vec<_> = all(&store, query).await.iter().map(|alert| alert.timestamp).collect();
    assert_eq!(times, [4_102_444_799_999_999, -1]);
    assert!(store.machine_events("m1", i64::MIN, i64::MAX, 10, None).await.unwrap().rows.is_empty());
    let cursor = AlertQuery { cursor: Some(format!("a{}.1.1", i64::MIN)), ..AlertQuery::default() };
    assert!(all(&store, cursor).await.is_empty());
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let Some(room) = Room::plant().await else { return };
    let store = room.open();
    store.close().await;
    assert!(matches!(store.registry().await, Err(Error::Closed)));
    assert!(matches!(store.commit(vec![step(0, 0, 1, &Effects::default())]).await, Err(Error::Closed)));
}
