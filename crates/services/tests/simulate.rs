//! The simulated plant sends every machine's readings as their time comes.

use crate::room::open_bus;
use bus::{Event, Topic};
use services::simulate::{self, Control};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use wire::{READINGS_PARTITIONS, ReadingBatch};

pub fn config(class: &str) -> plant::Config {
    plant::Config {
        class: Arc::new((**catalog::Catalogue::builtin().class(class).unwrap()).clone()),
        machines: 3,
        rate_hz: 50.0,
        seed: 1,
        start_us: services::now_us(),
        mode: plant::Mode::Healthy,
        partitions: READINGS_PARTITIONS,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_come_in_real_time_and_a_profile_changes_them() {
    let folder = tempfile::tempdir().unwrap();
    let bus = open_bus(&folder.path().join("bus.db"));
    let control = Control::new(config("mill")).unwrap();
    assert!(control.set_profile("machine-009", "stop", 0, 1).is_err());
    assert!(control.set_profile("machine-001", "dry_run", 0, 1).is_err());
    let stop = CancellationToken::new();
    let task = tokio::spawn(simulate::run(control.clone(), bus.clone(), true, stop.clone()));
    let mut consumer = bus.consumer(Topic::Readings, "test").unwrap();
    assert!(matches!(consumer.next(1).await, Ok(Event::Assigned(_))));
    for partition in 0..READINGS_PARTITIONS {
        consumer.start(partition, 0).await.unwrap();
    }
    let catalogue = catalog::Catalogue::builtin();
    let (mut stopped, mut rows) = (false, 0);
    while rows < 60 || !stopped {
        let Event::Records(records) = consumer.next(1 << 20).await.unwrap() else { panic!("nothing is revoked") };
        for record in records {
            assert_eq!(&*record.source, "simulate");
            let batch = ReadingBatch::decode(&record.value, &catalogue).unwrap();
            rows += batch.rows();
            let rpm = batch.class.channel_index("rpm").unwrap();
            for row in 0..batch.rows() {
                assert!(batch.timestamp_us[row] <= record.arrived_us + 1_000, "no reading before its time");
                stopped |= &**batch.machine_of(row) == "machine-002" && batch.values[rpm][row] == 0;
            }
        }
        if rows >= 30 {
            control.set_profile("machine-002", "stop", 0, i64::MAX).unwrap();
        }
    }
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[test]
fn a_class_that_cannot_be_simulated_says_so() {
    let mut other = (*config("mill").class).clone();
    other.id = "compressor".to_owned();
    assert!(Control::new(plant::Config { class: Arc::new(other), ..config("mill") }).is_err());
}
