//! The simulated plant in real time, with a fault now and then.

use crate::{now_us, record::outgoing};
use bus::{Bus, Outgoing};
use plant::{Config, Plant};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use wire::Values;

/// Source of its readings.
pub const SOURCE: &str = "simulate";
/// A plant so far behind the clock (the machine slept) goes on from now.
const BEHIND_MAX_US: i64 = 10_000_000;
/// Pause before a full bus is asked again.
const RETRY: Duration = Duration::from_millis(50);
/// A plant above this is sampled apart from the runtime.
const SAMPLE_APART: u32 = 2_000;

/// A simulated plant, shared by its loop and by whoever changes a machine's profile. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    config: Arc<Config>,
    plant: Arc<Mutex<Plant>>,
}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("send to the bus")]
    Bus(#[from] bus::Error),
    #[error("make the plant anew")]
    Plant(#[from] plant::Error),
    #[error("the plant panicked")]
    Panicked,
}

impl Control {
    /// A plant that begins with `config.start_us`.
    ///
    /// # Errors
    /// The class cannot be simulated.
    pub fn new(config: Config) -> Result<Control, plant::Error> {
        let plant = Plant::new(config.clone())?;
        Ok(Control { config: Arc::new(config), plant: Arc::new(Mutex::new(plant)) })
    }

    /// Puts a machine under a profile from one event time to another.
    ///
    /// # Errors
    /// No such machine, or a profile of another class.
    pub fn set_profile(&self, machine: &str, profile: &str, from_us: i64, until_us: i64) -> Result<(), plant::Error> {
        self.plant().set_profile(machine, profile, from_us, until_us)
    }

    fn plant(&self) -> MutexGuard<'_, Plant> {
        // What a panicking holder left is replaced by `renew` at the next start of the loop.
        self.plant.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins anew at a time.
    fn renew(&self, start_us: i64) -> Result<(), plant::Error> {
        *self.plant() = Plant::new(Config { start_us, ..(*self.config).clone() })?;
        Ok(())
    }
}

/// Sends the plant's readings as their time comes, until `stop`. With `demo` a machine has a fault now and then.
///
/// # Errors
/// The bus is closed or cannot be written: start again.
pub async fn run(control: Control, bus: Bus, demo: bool, stop: CancellationToken) -> Result<(), Error> {
    let began_us = now_us();
    control.renew(began_us)?;
    let mut demos = Demos { began_us, next: if demo { Some(0) } else { None } };
    loop {
        let due_us = control.plant().next_us();
        let now = now_us();
        if now - due_us > BEHIND_MAX_US {
            tracing::info!(
                "the simulated plant is {} s behind the clock and goes on from now",
                (now - due_us) / 1_000_000
            );
            control.renew(now)?;
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_micros((due_us - now).max(0).cast_unsigned())) => {}
        }
        demos.start_due(&control, due_us);
        let values = bus.values();
        let records = if control.config.machines > SAMPLE_APART {
            let control = control.clone();
            tokio::task::spawn_blocking(move || tick(&control, values)).await.map_err(|_| Error::Panicked)?
        } else {
            tick(&control, values)
        };
        loop {
            match bus.send(records.clone()).await {
                Ok(_) => break,
                Err(bus::Error::Full { .. } | bus::Error::Busy) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

/// One reading of every machine.
fn tick(control: &Control, values: Values) -> Vec<Outgoing> {
    let batches = control.plant().next_batch();
    let (arrived_us, source) = (now_us(), Arc::from(SOURCE));
    batches.iter().flat_map(|(partition, batch)| outgoing(*partition, arrived_us, &source, batch, values)).collect()
}

/// Demonstration faults still to come.
struct Demos {
    began_us: i64,
    next: Option<u64>,
}

impl Demos {
    fn start_due(&mut self, control: &Control, now_us: i64) {
        let Config { seed, class, machines, .. } = &*control.config;
        while let Some(number) = self.next {
            let Some(demo) = plant::demo(*seed, &class.id, *machines, number) else {
                self.next = None;
                return;
            };
            if self.began_us + demo.after_us > now_us {
                return;
            }
            self.next = Some(number + 1);
            let machine = control.plant().machines()[demo.machine as usize].clone();
            match control.set_profile(&machine, demo.profile, now_us, now_us + demo.for_us) {
                Ok(()) => tracing::info!(machine.id = %machine, "{machine} is under {} for a while", demo.profile),
                Err(error) => tracing::error!("no demonstration fault: {error}"),
            }
        }
    }
}
