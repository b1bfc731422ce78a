//! What only the database does: exact columns, days, fences, a commit whose outcome is unknown.

use super::*;
use crate::history::{
    History, LetterFilter, Scattered,
    tests::{Reading, SECOND, START, all, batch_of, id, ledger_of, mills, options, reading, reject},
};
use crate::postgres::{Which, scratch::Scratch};
use std::fmt::Write;
use tokio_postgres::{Client, NoTls};
use wire::{ReadingBatch, Reject};

async fn open(scratch: &Scratch) -> History {
    let catalogue = Arc::new(Catalogue::builtin());
    let history =
        History::open_postgres(&scratch.url(), "test", catalogue, options(), &Dependency::default()).await.unwrap();
    for partition in 0..2 {
        history.assign(partition).await.unwrap();
    }
    history
}

/// Another program's connection.
async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn inner(history: &History) -> &Inner {
    match history {
        History::Postgres(postgres) => &postgres.inner,
        History::Sqlite(_) => unreachable!("opened in a database"),
    }
}

async fn text_of(client: &Client, sql: &str) -> String {
    let mut out = String::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let words: Vec<String> =
            (0..row.len()).map(|at| row.get::<_, Option<String>>(at).unwrap_or_default()).collect();
        writeln!(out, "{}", words.join(" ")).unwrap();
    }
    out
}

const COLUMNS: &str = "
    select a.attname::text, format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' end,
        pg_get_expr(d.adbin, d.adrelid)
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = '?'::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum";

#[tokio::test]
async fn sensor_log_is_exactly_what_other_programs_know() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let history = open(&scratch).await;
    let client = connect(&scratch.url()).await;
    let frame = "\
seq bigint  
quality integer  
flags smallint  
bus_partition smallint  
bus_offset bigint  
bus_index integer  
";
    let mill = format!(
        "\
id bigint not null nextval('sensor_log_id_seq'::regclass)
machine_id character varying(50) not null 
timestamp timestamp without time zone not null 
air_temp_k numeric(10,2)  
process_temp_k numeric(10,2)  
rpm integer  
torque_nm numeric(10,2)  
tool_wear_min integer  
created_at timestamp without time zone  CURRENT_TIMESTAMP
product_type character varying(8)  
{frame}"
    );
    assert_eq!(text_of(&client, &COLUMNS.replace('?', "sensor_log")).await, mill);

    let mut batch = mills(&[reading("m1", START, 4280)]).remove(0);
    batch.attributes[0] = vec![1];
    batch.quality = vec![wire::Quality::Bad.bits(3)];
    history.append_record(0, 7, "http", START + SECOND, &[batch], &[]).await.unwrap();
    history.append_record(1, 0, "http", START, &[batch_of("pump", &[reading("p1", START, 0)])], &[]).await.unwrap();
    history.commit().await.unwrap();
    let row = "select id::text, machine_id, timestamp::text, air_temp_k::text, rpm::text, torque_nm::text,
                   tool_wear_min::text, created_at::text, product_type, seq::text, quality::text, flags::text,
                   bus_partition::text, bus_offset::text, bus_index::text, tableoid::regclass::text
               from sensor_log";
    let expected = "1 m1 2025-11-07 15:10:01 200.00 0 42.80 0 2025-11-07 15:10:02 M  128  0 7 0 sensor_log_20251107\n";
    assert_eq!(text_of(&client, row).await, expected);
    let pump = text_of(&client, &COLUMNS.replace('?', "sensor_log_pump")).await;
    assert!(pump.starts_with("id bigint not null nextval('sensor_log_pump_id_seq'::regclass)\nmachine_id "), "{pump}");
    assert!(pump.ends_with(frame), "{pump}");
    assert_eq!(
        text_of(&client, "select tableoid::regclass::text from sensor_log_pump").await,
        "sensor_log_20251107_pump\n"
    );

    // The seed's own writer: names and types only.
    let foreign =
        "insert into sensor_log (machine_id, timestamp, air_temp_k, process_temp_k, rpm, torque_nm, tool_wear_min)
                   values ('m1', '2025-11-07 16:00:00', 299.1, 309.5, 1500, 42.8, 5)";
    client.batch_execute(foreign).await.unwrap();
    let rows = history.logs(&id("m1"), 0, i64::MAX, 10, None).await.unwrap().rows;
    assert_eq!(rows[0].values, [29910, 30950, 1500, 4280, 5]);
    assert_eq!((rows[1].attributes[0], rows[1].quality, rows[1].arrived_us), (1, 128, START + SECOND));
    assert_eq!(history.newest("m1").await.unwrap(), Some(rows[0].timestamp_us));
}

#[tokio::test]
async fn a_new_channel_adds_a_column_and_a_changed_scale_is_refused() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let history = open(&scratch).await;
    let class = |channels: &str| {
        let text = format!("[class]\nid = \"lathe\"\n{channels}");
        Arc::new(Catalogue::builtin().with_class(catalog::Class::parse("lathe.toml", &text).unwrap()))
    };
    let channel =
        |id: &str, more: &str| format!("[[channel]]\nid = \"{id}\"\nunit = \"1\"\nrange = [0, 100]\n{more}\n");
    let batch = |catalogue: &Catalogue, machine: &str, time: i64, value: i64| {
        let class = catalogue.class("lathe").unwrap().clone();
        let mut batch = ReadingBatch::new(class);
        batch.machines.push(id(machine));
        batch.machine.push(0);
        batch.timestamp_us.push(time);
        batch.index.push(0);
        batch.values.iter_mut().for_each(|values| values.push(value));
        batch
    };
    let one = class(&channel("user", "scale = 0"));
    history.switch(one.clone()).await.unwrap();
    history.append_record(0, 0, "file", START, &[batch(&one, "l1", START, 7)], &[]).await.unwrap();
    history.commit().await.unwrap();
    let two = class(&(channel("user", "scale = 0") + &channel("load", "scale = 3")));
    history.switch(two.clone()).await.unwrap();
    history.append_record(0, 1, "file", START, &[batch(&two, "l1", START + SECOND, 9)], &[]).await.unwrap();
    history.commit().await.unwrap();
    let rows = history.logs(&id("l1"), 0, i64::MAX, 10, None).await.unwrap().rows;
    let values: Vec<_> = rows.iter().map(|row| (row.values.clone(), row.quality)).collect();
    assert_eq!(values, [(vec![9, 9], 0), (vec![7, 0], wire::Quality::Missing.bits(1))]);
    let chart = history.chart(&id("l1"), "load", START, START + 9 * SECOND, 4).await.unwrap();
    assert_eq!((chart.len(), chart[0].max), (1, 0.009));

    let finer = class(&(channel("user", "scale = 2") + &channel("load", "scale = 3")));
    history.switch(finer.clone()).await.unwrap();
    history.append_record(0, 2, "file", START, &[batch(&finer, "l1", START + 2 * SECOND, 9)], &[]).await.unwrap();
    let refused = history.commit().await;
    assert!(matches!(refused, Err(Error::Column { column, .. }) if column == "user"));
}

#[tokio::test]
async fn a_numeric_has_the_text_that_postgresql_gives_it() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let client = connect(&scratch.url()).await;
    client.batch_execute("create table n (at integer, scale integer, value numeric)").await.unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let edges = [0, 1, 9, 10, 99, 100, 9_999, 10_000, 10_001, 99_999_999, 100_000_000, u64::MAX.into(), u128::MAX];
    let mut values: Vec<(bool, u128, u8)> =
        edges.iter().flat_map(|value| (0..=9).map(move |scale| (value % 2 == 1, *value, scale))).collect();
    for _ in 0..5_000 {
        let value = u128::from(draw() >> (draw() % 64));
        values.push((draw() % 2 == 0, value, (draw() % 10) as u8));
    }
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for (at, (negative, value, scale)) in (0_i32..).zip(&values) {
        bytes.extend_from_slice(&3_i16.to_be_bytes());
        for number in [at, i32::from(*scale)] {
            bytes.extend_from_slice(&4_i32.to_be_bytes());
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        value::write_numeric(*negative, *value, *scale, &mut bytes);
    }
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    let sink = client.copy_in::<_, std::io::Cursor<Vec<u8>>>("copy n from stdin (format binary)").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    futures_util::SinkExt::send(&mut sink, std::io::Cursor::new(bytes)).await.unwrap();
    sink.finish().await.unwrap();
    let rows = client.query("select value::text from n order by at", &[]).await.unwrap();
    assert_eq!(rows.len(), values.len());
    for (row, (negative, value, scale)) in rows.iter().zip(values) {
        let digits = format!("{value:0width$}", width = usize::from(scale) + 1);
        let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
        let sign = if negative && value > 0 { "-" } else { "" };
        let point = if scale > 0 { "." } else { "" };
        assert_eq!(row.get::<_, &str>(0), format!("{sign}{whole}{point}{part}"));
    }
    // And in the form that PostgreSQL itself sends, so that equal numbers are equal bytes.
    let differ = "select count(*) from n where numeric_send(value) <> numeric_send(value::text::numeric)";
    assert_eq!(client.query_one(differ, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn of_two_writers_one_loses_and_goes_on_from_the_database() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let (zombie, successor) = (open(&scratch).await, open(&scratch).await);
    let record = |offset: i64| mills(&[reading("m1", START + offset * SECOND, offset)]);
    let mut fenced = 0;
    let (mut at, mut goals) = ([0, 0], [0, 0]);
    while at.iter().any(|offset| *offset < 60) {
        for (who, history) in [&zombie, &successor].into_iter().enumerate() {
            let offset = at[who];
            history.append_record(0, offset, "http", START + offset * SECOND, &record(offset), &[]).await.unwrap();
        }
        let (one, other) = tokio::join!(zombie.commit(), successor.commit());
        for (who, (history, outcome)) in [(&zombie, one), (&successor, other)].into_iter().enumerate() {
            match outcome {
                Ok(()) => {
                    at[who] += 1;
                    goals[who] += 1;
                }
                Err(Error::Fenced { partition: 0, .. }) => {
                    fenced += 1;
                    let again = history.append_record(0, at[who] + 1, "http", START, &record(at[who] + 1), &[]).await;
                    assert!(matches!(again, Err(Error::Fenced { .. })), "{again:?}");
                    at[who] = history.assign(0).await.unwrap();
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    assert!(fenced > 0);
    assert_eq!(goals.iter().sum::<i64>(), *at.iter().max().unwrap(), "each position was moved once");
    let rows: Vec<i64> = all(&successor, "m1").await.iter().rev().map(|row| row.1).collect();
    assert_eq!(rows, (0..*at.iter().max().unwrap()).collect::<Vec<_>>(), "0 lost, 0 doubled");
    successor.revoke(0).await;
    let unassigned = successor.append_record(0, 99, "http", START, &record(99), &[]).await;
    assert!(matches!(unassigned, Err(Error::Unassigned(0))));
}

#[tokio::test]
async fn a_paused_writer_holds_its_successor_for_seconds_only() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let (zombie, successor) = (open(&scratch).await, open(&scratch).await);
    let mut paused = inner(&zombie).pools.write.get().await.unwrap();
    let transaction = paused.transaction().await.unwrap();
    transaction.execute("update consumer_offset set next_offset = 1 where partition = 0", &[]).await.unwrap();
    successor.append_record(0, 0, "http", START, &mills(&[reading("m1", START, 1)]), &[]).await.unwrap();
    let started = std::time::Instant::now();
    while let Err(error) = successor.commit().await {
        let code = match &error {
            Error::Postgres(crate::postgres::Error::Client(error)) => error.code().cloned(),
            _ => None,
        };
        assert_eq!(code, Some(tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    println!("taken over after {:?}", started.elapsed());
    assert!(transaction.commit().await.is_err(), "its session was ended");
    assert_eq!(all(&successor, "m1").await, [(START, 1, 0)]);
}

/// Passes bytes between a client and the database until told to cut a commit short.
async fn proxy(to: String, cut: Arc<std::sync::atomic::AtomicU8>) -> u16 {
    use std::sync::atomic::Ordering::SeqCst;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (to, cut) = (to.clone(), cut.clone());
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(to).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                let mut lost = false;
                loop {
                    tokio::select! {
                        length = from_client.read(&mut asked) => {
                            let Ok(length @ 1..) = length else { return };
                            let commits = asked[..length].windows(6).any(|bytes| bytes == b"COMMIT");
                            match (commits, cut.load(SeqCst)) {
                                // Before the database has it.
                                (true, 1) => { cut.store(0, SeqCst); return }
                                // After: what it answers is lost.
                                (true, 2) => { cut.store(0, SeqCst); lost = true; }
                                _ => {}
                            }
                            if to_server.write_all(&asked[..length]).await.is_err() { return }
                        }
                        length = from_server.read(&mut answered) => {
                            let Ok(length @ 1..) = length else { return };
                            if lost { return }
                            if to_client.write_all(&answered[..length]).await.is_err() { return }
                        }
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_commit_that_nobody_answered_counts_once() {
    use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let url = scratch.url();
    let config: tokio_postgres::Config = url.parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else { panic!("{url} is not TCP") };
    let server = format!("{host}:{}", config.get_ports()[0]);
    let cut = Arc::new(AtomicU8::new(0));
    let port = proxy(server.clone(), cut.clone()).await;
    // The proxy reads what passes.
    let through = format!("{}?sslmode=disable", url.replace(&server, &format!("127.0.0.1:{port}")));
    let history =
        History::open_postgres(&through, "test", Arc::new(Catalogue::builtin()), options(), &Dependency::default())
            .await
            .unwrap();
    history.assign(0).await.unwrap();
    history.assign(1).await.unwrap();
    for offset in 0..9 {
        let batches = mills(&[reading("m1", START + offset * SECOND, offset)]);
        history.append_record(0, offset, "http", START + offset * SECOND, &batches, &[reject(1, "x")]).await.unwrap();
        history
            .append_record(1, offset, "http", START, &mills(&[reading("m2", START + offset * SECOND, 0)]), &[])
            .await
            .unwrap();
        cut.store((offset % 3) as u8, SeqCst);
        // A pool that has not seen the cut yet may give the dead connection once more.
        let mut tries = 0;
        while let Err(error) = history.commit().await {
            tries += 1;
            assert!(tries < 20 && matches!(error, Error::Postgres(_)), "{error:?}");
        }
        assert_eq!(cut.load(SeqCst), 0, "the commit was cut short");
        assert_eq!(history.positions().await.unwrap(), [offset + 1, offset + 1]);
    }
    let rows: Vec<i64> = all(&history, "m1").await.iter().map(|row| row.1).collect();
    assert_eq!(rows, (0..9).rev().collect::<Vec<_>>());
    assert_eq!(ledger_of(&history, "http").await, [27, 18, 9, 0]);
    assert_eq!(history.dead_letters(&LetterFilter::default(), 100, None).await.unwrap().rows.len(), 9);
}

#[tokio::test]
async fn days_are_made_at_once_by_many_and_dropped_by_arrival() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let histories = [open(&scratch).await, open(&scratch).await];
    const DAY: i64 = 86_400 * SECOND;
    for (partition, history) in (0_u16..).zip(&histories) {
        history.revoke(1 - partition).await;
        let row = |day: i64| reading(&format!("m{partition}"), START - day * DAY, day);
        let batches = mills(&(0..5).rev().map(row).collect::<Vec<_>>());
        history.append_record(partition, 0, "file", START, &batches, &[]).await.unwrap();
    }
    let (one, other) = tokio::join!(histories[0].commit(), histories[1].commit());
    one.unwrap();
    other.unwrap();
    let client = connect(&scratch.url()).await;
    let days = "select inhrelid::regclass::text from pg_inherits where inhparent = 'sensor_log'::regclass order by 1";
    assert_eq!(text_of(&client, days).await.lines().count(), 5);

    // One day has newer arrivals of another partition.
    let later = mills(&[reading("m1", START - 2 * DAY + SECOND, 1)]);
    histories[1].append_record(1, 1, "file", START + 50 * 60 * SECOND, &later, &[]).await.unwrap();
    histories[1].commit().await.unwrap();
    let kept = Options { retention_us: 100 * 60 * SECOND, ..options() };
    let catalogue = Arc::new(Catalogue::builtin());
    let dropper =
        History::open_postgres(&scratch.url(), "test", catalogue, kept, &Dependency::default()).await.unwrap();
    inner(&dropper).drop_old(START + 120 * 60 * SECOND).await.unwrap();
    assert_eq!(text_of(&client, days).await, "sensor_log_20251105\n");
    assert_eq!(all(&histories[1], "m1").await.len(), 2);
    assert_eq!(ledger_of(&histories[0], "file").await, [11, 11, 0, 0]);

    // Its maker does not know that the day is gone, and makes it again.
    let again = mills(&[reading("m0", START + SECOND, 9)]);
    histories[0].append_record(0, 1, "file", START + 130 * 60 * SECOND, &again, &[]).await.unwrap();
    histories[0].commit().await.unwrap();
    assert_eq!(text_of(&client, days).await, "sensor_log_20251105\nsensor_log_20251107\n");
    inner(&dropper).drop_old(START + 160 * 60 * SECOND).await.unwrap();
    assert_eq!(text_of(&client, days).await, "sensor_log_20251107\n");
}

#[tokio::test]
async fn a_switch_is_recorded_with_the_commit_that_covers_it() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let history = open(&scratch).await;
    let client = connect(&scratch.url()).await;
    let activations = "select partition::text, from_offset::text, catalogue_hash from activation order by 1, 2";
    let second = Catalogue::builtin().with_default("pump").unwrap();
    let (old, new) = (Catalogue::builtin().hash().to_owned(), second.hash().to_owned());
    history.append_record(0, 0, "http", START, &mills(&[reading("m1", START, 1)]), &[]).await.unwrap();
    history.switch(Arc::new(second.clone())).await.unwrap();
    assert_eq!(text_of(&client, activations).await, "");
    history.commit().await.unwrap();
    assert_eq!(text_of(&client, activations).await, format!("0 0 {old}\n0 1 {new}\n1 0 {new}\n"));
    history.assign(0).await.unwrap();
    history.commit().await.unwrap();
    assert_eq!(text_of(&client, activations).await.lines().count(), 3);
}

#[tokio::test]
async fn a_process_that_only_reads_sees_what_another_committed() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let ingest = open(&scratch).await;
    let catalogue = Arc::new(Catalogue::builtin());
    let portal =
        History::open_postgres(&scratch.url(), "portal", catalogue, options(), &Dependency::default()).await.unwrap();
    ingest.append_record(0, 0, "http", START, &mills(&[reading("m1", START, 1)]), &[]).await.unwrap();
    assert_eq!(portal.newest("m1").await.unwrap(), None);
    ingest.commit().await.unwrap();
    inner(&portal).refresh().await.unwrap();
    assert_eq!(portal.class_of("m1").as_deref(), Some("mill"));
    assert_eq!(portal.newest("m1").await.unwrap(), Some(START));
    assert_eq!(portal.appended().await.unwrap(), [1, 0]);
    portal.refuse("http", START, &[reject(0, "a\0b"), Reject { error: "a\0b".into(), ..reject(1, "") }]).await.unwrap();
    assert_eq!(ledger_of(&portal, "http").await, [3, 1, 2, 0]);
    assert_eq!(portal.dead_letters(&LetterFilter::default(), 10, None).await.unwrap().rows[0].payload.len() % 3, 0);
    portal.close().await.unwrap();
    assert!(portal.ledger().await.is_err());
    ingest.close().await.unwrap();
}

#[tokio::test]
async fn a_million_rows_are_copied_and_found() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let history = open(&scratch).await;
    const MACHINES: i64 = 1_000;
    const ROUNDS: i64 = 1_000;
    let time = |round: i64, at: i64| START + (round * 5 + at) * SECOND;
    let rows = |round: i64| -> Vec<_> {
        let row = |at: i64, machine: i64| {
            reading(&format!("machine-{machine:04}"), time(round, at), (at * machine * 7919) % 9_000)
        };
        (0..5).flat_map(|at| (0..MACHINES).map(move |machine| row(at, machine))).collect()
    };
    let records: Vec<_> = (0..ROUNDS / 5).map(|round| mills(&rows(round))).collect();
    let started = std::time::Instant::now();
    let mut taken = Duration::ZERO;
    for (round, batches) in (0..).zip(&records) {
        let from = std::time::Instant::now();
        let appended = history.append_record(0, round, "file", time(round, 5), batches, &[]).await.unwrap();
        assert_eq!(appended.stored, 5 * MACHINES as u64);
        taken += from.elapsed();
        if round % 20 == 19 {
            history.commit().await.unwrap();
        }
    }
    println!("{} rows in {:?}, of which judged in {taken:?}", MACHINES * ROUNDS, started.elapsed());
    let started = std::time::Instant::now();
    let machine = id("machine-0500");
    let chart = history.chart(&machine, "torque_nm", START, START + ROUNDS * SECOND, 10).await.unwrap();
    assert_eq!(chart.iter().map(|bucket| bucket.count).sum::<u64>(), ROUNDS as u64);
    assert_eq!(history.logs(&machine, START, i64::MAX, 1_000, None).await.unwrap().rows.len(), 1_000);
    println!("read in {:?}", started.elapsed());
    // Old and new rows in one record: one look-up.
    let started = std::time::Instant::now();
    let again = history.append_record(0, ROUNDS / 5, "file", time(ROUNDS, 5), &records[3], &[]).await.unwrap();
    assert_eq!(again.duplicate, 5 * MACHINES as u64);
    println!("{} older duplicates found in {:?}", again.duplicate, started.elapsed());
}

#[tokio::test]
async fn a_machine_whose_readings_lie_on_two_partitions_is_told_of() {
    let Some(scratch) = Scratch::new(Which::Main).await else { return };
    let history = open(&scratch).await;
    let append = async |partition, offset, readings: &[Reading]| {
        history.append_record(partition, offset, "http", START, &mills(readings), &[]).await.unwrap();
        history.commit().await.unwrap();
    };
    append(0, 0, &[reading("m0", START, 1), reading("m1", START, 1), reading("m2", START, 1)]).await;
    append(1, 0, &[reading("m3", START, 1)]).await;
    inner(&history).refresh().await.unwrap();
    assert_eq!(history.scattered().await.unwrap(), []);
    append(1, 1, &[reading("m1", START + SECOND, 1), reading("m0", START - SECOND, 1)]).await;
    let of = |name: &str, partitions, newest_us| Scattered { machine_id: name.into(), partitions, newest_us };
    let expected = [of("m0", vec![0, 1], (START, START - SECOND)), of("m1", vec![1, 0], (START + SECOND, START))];
    inner(&history).refresh().await.unwrap();
    assert_eq!(history.scattered().await.unwrap(), expected);
    // Another process finds them when it starts.
    assert_eq!(open(&scratch).await.scattered().await.unwrap(), expected);
}
