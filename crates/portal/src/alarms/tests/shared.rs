//! Several portals on one main database.

use super::*;
use crate::hub::Frame;
use store::postgres::{Pools, Sizes, Which, migrate};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// A database of a test's own.
struct Database {
    server: Client,
    name: String,
    url: String,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Database {
    async fn new() -> Option<Database> {
        let Ok(address) = std::env::var("MILLWRIGHT_TEST_POSTGRES_MAIN") else {
            assert!(std::env::var("MILLWRIGHT_TEST_REQUIRED").is_err(), "MILLWRIGHT_TEST_POSTGRES_MAIN is not set");
            eprintln!("skipped: MILLWRIGHT_TEST_POSTGRES_MAIN is not set (./dev services start)");
            return None;
        };
        let name = format!("mw_test_{}", Uuid::now_v7().simple());
        let server = connect(&address).await;
        server.batch_execute(&format!("create database {name}")).await.unwrap();
        let url = format!("{}/{name}", address.rsplit_once('/').unwrap().0);
        migrate(&url, Which::Main).await.unwrap();
        Some(Database { server, name, url })
    }

    /// A portal as in a process of its own, and what keeps it up with the others.
    async fn portal(&self) -> (Portal, JoinHandle<()>) {
        let pools = |url: &str, which| Pools::new(url, which, "test", Sizes { write: 2, read: 2 }).unwrap();
        let nowhere = "postgresql://nobody@127.0.0.1:1/nothing";
        let store = Store::postgres(pools(nowhere, Which::Ai), pools(&self.url, Which::Main));
        let portal = Portal::over(tempfile::tempdir().unwrap(), store).await;
        let alarms = portal.alarms.clone();
        (portal, tokio::spawn(async move { alarms.keep_up().await }))
    }

    async fn drop(self) {
        self.server.batch_execute(&format!("drop database {} with (force)", self.name)).await.unwrap();
    }
}

const MACHINES: usize = 40;

/// Delivers a raise of each machine of a partition; people at the other portal acknowledge each.
async fn work(partition: u16, portal: &mut Portal, people: Alarms) {
    for number in 0..MACHINES {
        let machine = format!("m-{partition}-{number}");
        let raised = portal.alert((&machine, "overstrain", Kind::Raised, Critical), number as i64 * 1_000);
        portal.alarms.deliver(partition, vec![(number as i64 + 1, raised.to_json())]).await.unwrap();
        // Known there at once, though it was written here.
        let id = store::alarm_id(&machine, "overstrain");
        let row = loop {
            match people.command(id, order(acknowledge(), 100_000)).await {
                Err(CommandError::Missing(_)) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                done => break done.unwrap(),
            }
        };
        assert_eq!(row.alarm.state.as_str(), "acknowledged");
    }
}

async fn frames(mut follower: crate::hub::Follower, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(20), follower.next());
        frames.push(frame.await.expect("the others' events come too").unwrap());
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_that_work_at_once_lose_and_double_nothing_and_tell_one_stream() {
    let Some(database) = Database::new().await else { return };
    let (mut one, keeps_one) = database.portal().await;
    let (mut two, keeps_two) = database.portal().await;
    let followers = [one.hub.follow(Some(0)).await.unwrap(), two.hub.follow(Some(0)).await.unwrap()];
    let [people_one, people_two] = [one.alarms.clone(), two.alarms.clone()];
    tokio::join!(work(0, &mut one, people_two), work(1, &mut two, people_one));

    // A raise is two events, the alert and its alarm; an acknowledgement one.
    let events = 2 * MACHINES * 3;
    let [one_told, two_told] = followers.map(|follower| frames(follower, events));
    let (one_told, two_told) = tokio::join!(one_told, two_told);
    assert_eq!(one_told, two_told);
    assert!(one_told.iter().zip(1..).all(|(frame, seq)| frame.seq == seq));
    let rows = one.store.alarms().await.unwrap();
    assert_eq!(rows.len(), 2 * MACHINES);
    assert!(rows.iter().all(|row| (row.alarm.state.as_str(), row.alarm.count) == ("acknowledged", 1)));
    let audit = one.store.audit(None, 1_000, None).await.unwrap().rows;
    assert_eq!(audit.len(), 2 * 2 * MACHINES, "each raise and each acknowledgement once");

    // The group gives a partition to the other portal, which goes on where the first one stood.
    assert_eq!(two.alarms.position(0).await.unwrap(), MACHINES as i64);
    let again = two.alert(("m-0-0", "overstrain", Kind::Raised, Critical), 9_000);
    two.alarms.deliver(0, vec![(1, again.to_json())]).await.unwrap();
    assert_eq!(two.row("m-0-0", "overstrain").await.alarm.count, 1, "it was taken by the first");

    for keeps in [keeps_one, keeps_two] {
        keeps.abort();
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_clock_has_to_do_is_done_by_a_portal_that_is_left() {
    let Some(database) = Database::new().await else { return };
    let (mut one, keeps_one) = database.portal().await;
    let (two, keeps_two) = database.portal().await;
    let raised = one.alert(("m1", "overstrain", Kind::Raised, Critical), 0);
    one.alarms.deliver(0, vec![(1, raised.to_json())]).await.unwrap();
    let until_us = BEGIN + 60 * SECOND;
    let id = store::alarm_id("m1", "overstrain");
    one.alarms.command(id, order(Action::Shelve { until_us, reason: "parts".into() }, 10)).await.unwrap();
    keeps_one.abort();
    drop(one);

    let mut due = two.alarms.due();
    let told = due.wait_for(|due_us| *due_us == Some(until_us));
    tokio::time::timeout(std::time::Duration::from_secs(20), told).await.expect("it hears of the shelf").unwrap();
    // Both clocks may be late or early by their own: whoever is first does it.
    let (_, other) = open(&two.store, &two.quiet).await;
    let both = tokio::join!(two.alarms.clock(until_us), other.clock(until_us));
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    assert_eq!(two.row("m1", "overstrain").await.alarm.state.as_str(), "unacknowledged");
    let audit = two.store.audit(None, 10, None).await.unwrap().rows;
    assert_eq!(audit.len(), 3, "raised, shelved, and once off the shelf");
    keeps_two.abort();
    database.drop().await;
}
