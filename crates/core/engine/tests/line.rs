//! The simulated plant in front of an engine.

use catalog::Catalogue;
use engine::{Effects, Engine, Input};
use plant::{Config, Mode, Plant};
use std::{collections::BTreeMap, sync::Arc};
use wire::{Alert, Kind, ReadingBatch, Span};

pub const START_US: i64 = 1_762_500_000_000_000;
pub const SECOND: i64 = 1_000_000;

/// A plant of one class at 1 Hz on one partition.
pub struct Line {
    pub plant: Plant,
    pub engine: Engine,
    pub alerts: Vec<Alert>,
    pub catalogue: Arc<Catalogue>,
    offset: i64,
}

impl Line {
    pub fn new(class: &str, machines: u32, seed: u64, mode: Mode) -> Line {
        let catalogue = Arc::new(Catalogue::builtin());
        let class = catalogue.class(class).expect("it is built in").clone();
        let config = Config { class, machines, rate_hz: 1.0, seed, start_us: START_US, mode, partitions: 1 };
        Line {
            plant: Plant::new(config).expect("built-in classes can be simulated"),
            engine: Engine::new(0, catalogue.clone()),
            alerts: Vec::new(),
            catalogue,
            offset: 0,
        }
    }

    /// Puts a machine (from 0) under a profile, seconds after the start.
    pub fn profile(&mut self, machine: usize, profile: &str, from_s: i64, for_s: i64) {
        let name = self.plant.machines()[machine].clone();
        let (from_us, until_us) = (START_US + from_s * SECOND, START_US + (from_s + for_s) * SECOND);
        self.plant.set_profile(&name, profile, from_us, until_us).expect("the class has the profile");
    }

    /// Runs until so many seconds after the start; `each` sees every batch.
    pub fn run(&mut self, until_s: i64, mut each: impl FnMut(&ReadingBatch)) {
        while self.plant.next_us() < START_US + until_s * SECOND {
            let arrived_us = self.plant.next_us() + 40_000;
            for (_, mut batch) in self.plant.next_batch() {
                batch.spans = vec![Span { first_row: 0, offset: self.offset, arrived_us, source: "simulate".into() }];
                self.offset += 1;
                each(&batch);
                let mut effects = Effects::default();
                self.engine.apply(Input::Readings(&batch), &mut effects);
                self.alerts.extend(effects.alerts);
            }
        }
    }

    /// Every catalogue that was in force.
    pub fn catalogues(&self) -> BTreeMap<String, Arc<Catalogue>> {
        [(self.catalogue.hash().to_owned(), self.catalogue.clone())].into()
    }

    /// (Machine, condition, kind, second) of every alert that is no notice, suspensions apart.
    pub fn alarms(&self) -> Vec<(String, String, Kind, i64)> {
        let alarms = self.alerts.iter().filter(|alert| !alert.notice && alert.suspended.is_none());
        alarms.map(|alert| (alert.machine_id.clone(), alert.condition.clone(), alert.kind, second(alert))).collect()
    }
}

/// Seconds after the start.
pub fn second(alert: &Alert) -> i64 {
    (alert.timestamp - START_US) / SECOND
}
