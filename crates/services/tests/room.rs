//! A data folder, and readings of mills for its bus.

use bus::{Bus, Outgoing};
use catalog::Catalogue;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{History, Store, history};
use tempfile::TempDir;
use tokio::sync::watch;
use wire::{Decoder, Framing, READINGS_PARTITIONS};

/// Event time of second 0.
pub const T0: i64 = 1_767_225_600;

/// A folder whose files are opened again and again.
pub struct Room {
    pub folder: TempDir,
    pub catalogue: watch::Sender<Arc<Catalogue>>,
}

/// Its files, open.
pub struct Open {
    pub bus: Bus,
    pub store: Store,
}

impl Room {
    pub fn new() -> Room {
        Room { folder: tempfile::tempdir().unwrap(), catalogue: watch::Sender::new(Arc::new(Catalogue::builtin())) }
    }

    pub fn open(&self) -> Open {
        let file = |name: &str| self.folder.path().join(name);
        Open { bus: open_bus(&file("bus.db")), store: Store::open(&file("store.db")).unwrap() }
    }

    pub fn open_history(&self) -> History {
        let options = history::Options {
            partitions: READINGS_PARTITIONS,
            flush_bytes: 32 << 20,
            flush_after_us: 30_000_000,
            retention_us: i64::MAX,
            dead_letter_retention_us: i64::MAX,
        };
        History::open(&self.folder.path().join("history.db"), self.catalogue.borrow().clone(), options).unwrap()
    }
}

pub fn open_bus(path: &Path) -> Bus {
    open_bus_keeping(path, i64::MAX)
}

/// A bus that drops what is older and needed by nobody.
pub fn open_bus_keeping(path: &Path, retention_us: i64) -> Bus {
    Bus::open(bus::Options {
        path: path.to_owned(),
        partitions: READINGS_PARTITIONS,
        retention_us,
        retention_bytes: 1 << 30,
    })
    .unwrap()
}

impl Open {
    /// Frees the files for the next one.
    pub async fn close(self) {
        self.bus.close().await;
        self.store.close().await;
    }
}

/// A reading of a mill as JSON; at 70 Nm it breaks the power law, at 40 Nm none.
pub fn line(machine: &str, second: i64, torque_nm: f64) -> String {
    let timestamp = wire::format_time((T0 + second) * 1_000_000);
    format!(
        r#"{{"machine_id":"{machine}","timestamp":"{timestamp}","air_temp_k":300.0,"process_temp_k":310.0,"rpm":1500,"torque_nm":{torque_nm},"tool_wear_min":5}}"#
    )
}

/// Records of some readings, as the intake makes them.
pub fn records(lines: &[String]) -> Vec<Outgoing> {
    let mut decoder = Decoder::new(Arc::new(Catalogue::builtin()), READINGS_PARTITIONS);
    let arrived_us = (T0 + 100_000) * 1_000_000;
    let decoded = decoder.decode(lines.join("\n").as_bytes(), Framing::Lines, arrived_us, &|_| None).unwrap();
    assert_eq!(decoded.rejects, []);
    let record = |(partition, batch): (u16, wire::ReadingBatch)| {
        let mut value = Vec::new();
        batch.encode(&mut value);
        Outgoing { partition, arrived_us, source: "http".into(), rows: batch.rows() as u32, key: None, value }
    };
    decoded.batches.into_iter().map(record).collect()
}

/// Waits for what must come soon.
pub async fn soon(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(30), what, holds).await;
}

/// Waits for what must come within a time.
pub async fn within(time: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + time;
    while !holds().await {
        assert!(Instant::now() < until, "it does not come: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
