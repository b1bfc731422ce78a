//! Readings that name their schema lead to what they lead to without: `MILLWRIGHT_TEST_KAFKA`, `MILLWRIGHT_TEST_REGISTRY`.

use crate::{
    kafka::{alerts, connect, end, ends, open, readings, start_detect, start_ingest},
    room::{Room, soon},
};
use bus::{
    Bus, DeadLetter, Message, Topic,
    registry::{self, Format, Subject, admin},
};
use catalog::Catalogue;
use services::simulate::{self, Control};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A bus like another whose readings name their schema.
async fn naming(options: &bus::kafka::Options, format: Format) -> Option<Bus> {
    let Ok(url) = std::env::var("MILLWRIGHT_TEST_REGISTRY") else {
        assert!(std::env::var("MILLWRIGHT_TEST_REQUIRED").is_err(), "MILLWRIGHT_TEST_REGISTRY is not set");
        eprintln!("skipped: MILLWRIGHT_TEST_REGISTRY is not set (./dev services start)");
        return None;
    };
    let schema = wire::reading_schema(&Catalogue::builtin());
    let schema = match format {
        Format::Json => schema,
        Format::Avro => wire::avro_schema(&schema),
    };
    let subject = Subject { topic: Topic::Readings, format, schema: schema.to_string(), named: true };
    let registry =
        registry::Options { url, credentials: None, ca: None, refuse_unknown: false, subjects: vec![subject] };
    let changes = admin::difference(&registry, |topic| options.topic(topic)).await.unwrap();
    admin::apply(&registry, &changes).await.unwrap();
    Some(Bus::connect(bus::kafka::Options { registry: Some(registry), ..options.clone() }).await.unwrap())
}

/// Sends from the simulated plant until each machine has had several readings.
async fn simulate(bus: &Bus) {
    let records = async || ends(bus).await.iter().sum::<i64>();
    let before = records().await;
    let stop = CancellationToken::new();
    let control = Control::new(crate::simulate::config("mill")).unwrap();
    let task = tokio::spawn(simulate::run(control, bus.clone(), false, stop.clone()));
    soon("the plant sends", async || records().await >= before + 60).await;
    stop.cancel();
    task.await.unwrap().unwrap();
}

/// What the readings of a bus lead to in detect.
async fn detected(bus: &Bus) -> Vec<(String, i64, u32)> {
    let room = Room::new();
    let plant = open(&room, bus);
    let mut running = start_detect(&room, &plant);
    let everything = ends(bus).await;
    let all = running.passed.wait_for(|passed| *passed == everything);
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it is judged").unwrap();
    running.stop.cancel();
    running.task.await.unwrap().unwrap();
    alerts(&plant.store).await
}

async fn readings_by_a_schema_lead_to_the_same(format: Format) {
    let Some((options, plain)) = connect().await else { return };
    let Some(bus) = naming(&options, format).await else { return };
    let given = || readings(0..150);
    bus.publish(Topic::Readings, given()).await.unwrap();
    let lies = plain.last(Topic::Readings, given()[0].partition).await.unwrap().unwrap();
    assert_eq!(lies.value[0], 0, "the record names its schema");
    let found = detected(&bus).await;
    assert_eq!(found.iter().filter(|(what, ..)| what.ends_with("raised")).count(), 12, "{found:?}");
    let (others, other) = connect().await.unwrap();
    other.publish(Topic::Readings, given()).await.unwrap();
    assert_eq!(detected(&other).await, found);
    end(&others, &other).await;

    // The simulated plant, and a record whose content is cut off behind its schema's id.
    simulate(&bus).await;
    let broken = Message { partition: 0, value: Some(lies.value[..7].to_vec()), ..Message::default() };
    plain.publish(Topic::Readings, vec![broken]).await.unwrap();
    let room = Room::new();
    let history = room.open_history();
    let (task, stop) = start_ingest(&room, &bus, &history);
    let ends = ends(&bus).await;
    soon("everything is taken", async || history.appended().await.unwrap() == ends).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    let rows = history.ledger().await.unwrap();
    let of = |source: &str| rows.iter().find(|row| row.source == source).unwrap();
    let sent = given().len() as u64;
    let (foreign, simulated) = (of("sensor-raw-data"), of("simulate"));
    assert_eq!((foreign.received, foreign.stored, foreign.rejected), (sent + 1, sent, 1));
    assert!(simulated.stored >= 60 && simulated.rejected == 0);
    assert_eq!(foreign.received + simulated.received, ends.iter().sum::<i64>() as u64);
    let letter = bus.last(Topic::DeadLetters, 0).await.unwrap().unwrap();
    let code = if format == Format::Avro { "bad_schema" } else { "not_json" };
    assert_eq!(letter.header("x-error-code"), Some(code));
    // As it was received.
    assert_eq!(&*letter.value, &lies.value[..7]);
    assert_eq!(DeadLetter::origin(&letter), Some((ends[0] - 1, 0)));
    bus.close().await;
    end(&options, &plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_by_a_json_schema_lead_to_the_same_as_without() {
    readings_by_a_schema_lead_to_the_same(Format::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_by_an_avro_schema_lead_to_the_same_as_without() {
    readings_by_a_schema_lead_to_the_same(Format::Avro).await;
}
