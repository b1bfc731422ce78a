//! Against a real Redis, one server and a cluster.

use super::*;
use catalog::MachineId;
use engine::LiveCondition;
use scoring::WindowStats;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Addresses of the engines that this test needs; `None`, and a line that says so, where there are none.
fn engine(name: &str) -> Option<Redis> {
    let set = std::env::var(name);
    assert!(set.is_ok() || std::env::var_os("MILLWRIGHT_TEST_REQUIRED").is_none(), "{name} is not set");
    match set {
        Ok(urls) => Some(Redis::new(&urls, TlsFiles::default()).unwrap()),
        Err(_) => {
            eprintln!("skipped: {name} is not set (./dev services start)");
            None
        }
    }
}

fn machine(name: &str, arrived_us: i64, torque: i64) -> Live {
    let class = Catalogue::builtin().default_class().clone();
    let place = class.channel_index("torque_nm").unwrap();
    let mut values = vec![0; class.channels.len()];
    values[place] = torque;
    let stats = WindowStats {
        count: 60,
        mean: 309.55,
        variance: 2.25,
        min: 300.0,
        max: 310.0,
        slope_per_min: None,
        judged: true,
    };
    Live {
        machine: MachineId::try_from(name).unwrap(),
        state: catalog::State::Running,
        last_seen_us: arrived_us - 5,
        arrived_us,
        values,
        quality: 0,
        windows: class.channels.iter().map(|channel| channel.window.then_some(stats)).collect(),
        derived: vec![f64::NAN; class.derived.len()],
        score: Some(0.25),
        learned_us: 7,
        conditions: vec![LiveCondition {
            condition: "overstrain".into(),
            condition_id: wire::AlertId::from_u128(42),
            failure_type: "Overstrain".into(),
            severity: catalog::Severity::Critical,
            since_us: 1,
            suspended: false,
        }],
        class,
    }
}

#[test]
fn a_line_gives_the_machine_again() {
    let (catalogue, before) = (Catalogue::builtin(), machine("a \"ü\" {}", 17, 4280));
    let after = record::decode(&record::encode(&before), &catalogue).unwrap();
    assert_eq!((&after.machine, after.state, after.values), (&before.machine, before.state, before.values));
    assert_eq!((after.last_seen_us, after.arrived_us, after.learned_us), (12, 17, 7));
    assert_eq!((&after.conditions, after.score), (&before.conditions, before.score));
    assert!(after.derived.iter().all(|value| value.is_nan()));
    assert_eq!(after.windows[1].map(|window| window.mean), before.windows[1].map(|window| window.mean));
    let foreign = record::encode(&Live { values: vec![1], ..before });
    assert!(record::decode(&foreign, &catalogue).is_none(), "another form of the class");
}

/// A process of the plant.
struct Process {
    live: LiveValues,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Process {
    fn writer(redis: &Redis, name: &str) -> Process {
        let (live, stop) = (LiveValues::default(), CancellationToken::new());
        let (values, redis, stopping, name) = (live.clone(), redis.clone(), stop.clone(), name.to_owned());
        let task = tokio::spawn(async move { mirror(values, redis, &name, stopping).await });
        Process { live, stop, task }
    }

    fn reader(redis: &Redis) -> Process {
        let (live, stop) = (LiveValues::default(), CancellationToken::new());
        live.set_stale(true);
        let (_, catalogue) = watch::channel(Arc::new(Catalogue::builtin()));
        let task = tokio::spawn(follow(live.clone(), redis.clone(), catalogue, stop.clone()));
        Process { live, stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Waits until it is so, 10 s at most.
async fn soon<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so().await {
        assert!(Instant::now() < until, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn get(connection: &Connection, machine: &str, key: &str) -> Option<String> {
    let key = format!("machine:{machine}:{key}");
    redis::cmd("GET").arg(key).query_async(&mut connection.clone()).await.unwrap()
}

async fn ttl(connection: &Connection, machine: &str, key: &str) -> i64 {
    let key = format!("machine:{machine}:{key}");
    redis::cmd("TTL").arg(key).query_async(&mut connection.clone()).await.unwrap()
}

/// Drops the keys of one machine and the mark of its writer, as a flush does for all.
async fn forget(connection: &Connection, machine: &str, writer: &str) {
    let names = ["last_torque", "temp_1m_avg", "rpm_variance", "status"].map(|key| format!("machine:{machine}:{key}"));
    let marks = names.iter().map(|key| format!("{{{key}}}:at")).chain([format!("millwright:mirror:{writer}")]);
    for key in names.iter().cloned().chain(marks) {
        let () = redis::cmd("DEL").arg(key).query_async(&mut connection.clone()).await.unwrap();
    }
}

async fn mirrors(redis: Redis) {
    let name = format!("m-{}", uuid::Uuid::now_v7());
    let connection = redis.connect().await.unwrap();
    let writer = Process::writer(&redis, &name);
    writer.live.put(vec![machine(&name, 1_000, 4280)]);
    soon("the seed's keys", async || get(&connection, &name, "last_torque").await.as_deref() == Some("42.8")).await;
    soon("all of them", async || ttl(&connection, &name, "status").await > 600).await;
    assert_eq!(get(&connection, &name, "temp_1m_avg").await.as_deref(), Some("309.55"));
    assert_eq!(get(&connection, &name, "rpm_variance").await.as_deref(), Some("2.25"));
    assert!(ttl(&connection, &name, "last_torque").await > 600);

    // One that begins later reads what is there, then hears of what changes.
    let reader = Process::reader(&redis);
    soon("the reader has it", async || reader.live.get(&name).is_some_and(|live| live.values[3] == 4280)).await;
    soon("the reader knows that it is up to date", async || !reader.live.is_stale()).await;
    writer.live.put(vec![machine(&name, 2_000, 5000)]);
    soon("the change", async || reader.live.get(&name).is_some_and(|live| live.values[3] == 5000)).await;

    // A process that was stopped and goes on tells of the past.
    let zombie = Process::writer(&redis, &format!("{name}-zombie"));
    zombie.live.put(vec![machine(&name, 1_500, 100)]);
    zombie.end().await;
    assert_eq!(get(&connection, &name, "last_torque").await.as_deref(), Some("50"));
    assert_eq!(reader.live.get(&name).unwrap().values[3], 5000);

    forget(&connection, &name, &name).await;
    soon("written again", async || get(&connection, &name, "last_torque").await.as_deref() == Some("50")).await;
    soon("the hash too", async || ttl(&connection, &name, "status").await > 600).await;
    forget(&connection, &name, &name).await;
    reader.end().await;
    writer.end().await;
}

#[tokio::test]
async fn one_server_mirrors_the_live_values() {
    if let Some(redis) = engine("MILLWRIGHT_TEST_REDIS") {
        mirrors(redis).await;
    }
}

#[tokio::test]
async fn a_cluster_mirrors_the_live_values() {
    if let Some(redis) = engine("MILLWRIGHT_TEST_REDIS_CLUSTER") {
        mirrors(redis).await;
    }
}

#[tokio::test]
async fn without_redis_a_reader_says_that_its_values_are_stale() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let redis = Redis::new(&format!("redis://{address}"), TlsFiles::default()).unwrap();
    let (live, (_, catalogue)) = (LiveValues::default(), watch::channel(Arc::new(Catalogue::builtin())));
    let done = follow(live.clone(), redis, catalogue, CancellationToken::new()).await;
    assert!(done.is_err() && live.is_stale());
}

#[test]
fn files_that_would_not_be_used_are_refused() {
    let refused = |url: &str, files: TlsFiles| Redis::new(url, files).unwrap_err().to_string();
    let ca = TlsFiles { ca: "/no/such.pem", ..TlsFiles::default() };
    assert_eq!(refused("rediss://127.0.0.1:1", ca), "read /no/such.pem");
    let half = TlsFiles { cert: "/no/such.pem", ..TlsFiles::default() };
    assert_eq!(refused("rediss://127.0.0.1:1", half), "a certificate and its key go together");
    let file = tempfile::NamedTempFile::new().unwrap();
    let ca = TlsFiles { ca: file.path().to_str().unwrap(), ..TlsFiles::default() };
    assert!(refused("rediss://127.0.0.1:1", ca).ends_with("holds no certificate (PEM)"));
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert_eq!(refused("redis://127.0.0.1:1", ca), "certificates have no effect with redis://: write rediss://");
}

#[tokio::test]
async fn servers_are_reached_over_tls_and_only_those_that_are_trusted() {
    for (plain, secure) in [
        ("MILLWRIGHT_TEST_REDIS", "MILLWRIGHT_TEST_REDIS_TLS"),
        ("MILLWRIGHT_TEST_REDIS_CLUSTER", "MILLWRIGHT_TEST_REDIS_CLUSTER_TLS"),
    ] {
        let Some(_) = engine(plain) else { return };
        let (urls, folder) = (std::env::var(secure).unwrap(), std::env::var("MILLWRIGHT_TEST_TLS").unwrap());
        let [ca, stranger, cert, key] =
            ["ca.pem", "stranger.pem", "client.pem", "client.key"].map(|name| format!("{folder}/{name}"));
        let set = |files: TlsFiles| {
            let redis = Redis::new(&urls, files).unwrap();
            async move {
                let mut connection = redis.connect().await?;
                let key = format!("test:{}", uuid::Uuid::now_v7());
                redis::cmd("SET").arg(&key).arg("1").arg("EX").arg("5").query_async::<()>(&mut connection).await?;
                redis.subscribe().await?;
                let nodes = redis.look().await;
                assert!(nodes.iter().all(|(_, node)| node.is_ok()), "{nodes:?}");
                Ok::<(), Error>(())
            }
        };
        set(TlsFiles { ca: &ca, ..TlsFiles::default() }).await.unwrap();
        set(TlsFiles { ca: &ca, cert: &cert, key: &key }).await.unwrap();
        for files in [TlsFiles { ca: &stranger, ..TlsFiles::default() }, TlsFiles::default()] {
            let refused = dependency::chain(&set(files).await.unwrap_err());
            assert!(refused.contains("UnknownIssuer"), "{refused}");
        }
    }
}
