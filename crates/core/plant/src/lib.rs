//! A simulated plant: a seed and a profile give the same readings for ever.
//!
//! Machines of class `mill` follow AI4I 2020, machines of class `pump` the class file's normal values. Readings come as
//! batches, as from any other source. Does not know the bus or a clock.

mod demo;
mod draw;
mod mill;
mod profile;
mod pump;

pub use demo::{Demo, demo};
pub use mill::{Job, Jobs};
pub use profile::{MILL, PUMP};

use catalog::{Class, MachineId};
use draw::Draw;
use profile::Profile;
use std::{collections::BTreeMap, sync::Arc};
use wire::{Quality, ReadingBatch};

/// How the jobs of a mill are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No job breaks a law and tools are changed in time: an alarm is a fault.
    Healthy,
    /// The recipe of AI4I 2020, in which 3 % of the jobs break a law on their own.
    Ai4i,
}

/// Which plant.
#[derive(Debug, Clone)]
pub struct Config {
    /// `mill` or `pump`, or a class file that takes its place.
    pub class: Arc<Class>,
    /// 1 to 1,000,000.
    pub machines: u32,
    /// Readings per second and machine; above 0.
    pub rate_hz: f64,
    /// The same seed gives the same readings.
    pub seed: u64,
    /// Event time of the first reading, microseconds since 1970.
    pub start_us: i64,
    /// How jobs are drawn.
    pub mode: Mode,
    /// Partitions of the readings' topic.
    pub partitions: u16,
}

/// Why there is no such plant or profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("class {0} cannot be simulated; mill and pump can")]
    Class(String),
    #[error("class {class} needs the channel {channel}, which cannot be simulated")]
    Channel { class: String, channel: String },
    #[error("class {class} has no profile `{profile}`; it has {allowed}")]
    Profile { class: String, profile: String, allowed: String },
    #[error("there is no simulated machine `{0}`")]
    Machine(String),
}

/// A plant. Readings of all machines come tick by tick.
#[derive(Debug, Clone)]
pub struct Plant {
    config: Config,
    names: Vec<MachineId>,
    partitions: Vec<u16>,
    machines: Machines,
    /// By place of the machine.
    profiles: BTreeMap<usize, Profile>,
    /// Place of each simulated channel in the class.
    columns: Vec<usize>,
    product_type: Option<usize>,
    tick: u64,
}

#[derive(Debug, Clone)]
enum Machines {
    Mills(Vec<mill::Mill>),
    Pumps(Vec<pump::Pump>),
}

const MILL_CHANNELS: [&str; 5] = ["air_temp_k", "process_temp_k", "rpm", "torque_nm", "tool_wear_min"];
const PUMP_CHANNELS: [&str; 6] =
    ["vib_mm_s", "discharge_bar", "flow_m3h", "motor_current_a", "bearing_temp_c", "suction_bar"];

impl Plant {
    /// A plant before its first tick.
    ///
    /// # Errors
    /// The class cannot be simulated.
    pub fn new(config: Config) -> Result<Plant, Error> {
        let class = &config.class;
        let (machines, channels): (Machines, &[&str]) = match class.id.as_str() {
            "mill" => {
                let mill = |machine| mill::Mill::new(config.seed, u64::from(machine), config.mode, config.start_us);
                (Machines::Mills((0..config.machines).map(mill).collect()), &MILL_CHANNELS)
            }
            "pump" => {
                (Machines::Pumps(vec![pump::Pump::new(config.start_us); config.machines as usize]), &PUMP_CHANNELS)
            }
            other => return Err(Error::Class(other.to_owned())),
        };
        let missing = |channel: &str| Error::Channel { class: class.id.clone(), channel: channel.to_owned() };
        let columns: Vec<usize> = channels
            .iter()
            .map(|channel| class.channel_index(channel).ok_or_else(|| missing(channel)))
            .collect::<Result<_, _>>()?;
        if let Some((_, channel)) =
            class.channels.iter().enumerate().find(|(at, channel)| !channel.optional && !columns.contains(at))
        {
            return Err(missing(&channel.id));
        }
        let prefix = if class.id == "mill" { "machine" } else { "pump" };
        let names: Vec<MachineId> = (1..=config.machines)
            .map(|number| MachineId::try_from(&*format!("{prefix}-{number:03}")).expect("a short name is an id"))
            .collect();
        Ok(Plant {
            partitions: names.iter().map(|name| wire::partition_of(name, config.partitions)).collect(),
            product_type: class.attributes.iter().position(|attribute| attribute.id == "product_type"),
            names,
            machines,
            profiles: BTreeMap::new(),
            columns,
            tick: 0,
            config,
        })
    }

    /// Names of the machines, `machine-001` or `pump-001` and so on.
    pub fn machines(&self) -> &[MachineId] {
        &self.names
    }

    /// Profiles that its machines know.
    pub fn profiles(&self) -> &'static [&'static str] {
        match self.machines {
            Machines::Mills(_) => &MILL,
            Machines::Pumps(_) => &PUMP,
        }
    }

    /// Puts a machine under a profile from one event time to another; what it was under before ends.
    ///
    /// # Errors
    /// No such machine, or a profile of another class.
    pub fn set_profile(&mut self, machine: &str, profile: &str, from_us: i64, until_us: i64) -> Result<(), Error> {
        let place = self.names.iter().position(|name| **name == *machine);
        let place = place.ok_or_else(|| Error::Machine(machine.to_owned()))?;
        let name = self.profiles().iter().find(|name| **name == profile).ok_or_else(|| Error::Profile {
            class: self.config.class.id.clone(),
            profile: profile.to_owned(),
            allowed: self.profiles().join(", "),
        })?;
        self.profiles.insert(place, Profile { name, from_us, until_us });
        Ok(())
    }

    /// Event time of the next tick, microseconds since 1970.
    pub fn next_us(&self) -> i64 {
        self.config.start_us + (self.tick as f64 * 1e6 / self.config.rate_hz).round() as i64
    }

    /// One reading of every machine at the next tick, by partition.
    pub fn next_batch(&mut self) -> Vec<(u16, ReadingBatch)> {
        let now_us = self.next_us();
        let mut batches: BTreeMap<u16, ReadingBatch> = BTreeMap::new();
        for place in 0..self.names.len() {
            let mut noise = Draw::new(self.config.seed, place as u64, 8, self.tick);
            let profile = self.profiles.get(&place);
            let profile = profile.and_then(|profile| Some((profile.name, profile.at(now_us)?)));
            let class = &self.config.class;
            let partition = self.partitions[place];
            let batch = batches.entry(partition).or_insert_with(|| ReadingBatch::new(class.clone()));
            let row = batch.rows();
            let (values, bad, product_type) = match &mut self.machines {
                Machines::Mills(mills) => {
                    let s = mills[place].sample(now_us, profile, &mut noise);
                    let values = [s.air_k, s.process_k, s.rpm, s.torque_nm, s.wear_min, 0.0];
                    (values, s.torque_bad.then_some(3), Some(s.product_type))
                }
                Machines::Pumps(pumps) => {
                    let s = pumps[place].sample(now_us, profile, &mut noise);
                    let values =
                        [s.vib_mm_s, s.discharge_bar, s.flow_m3h, s.motor_current_a, s.bearing_temp_c, s.suction_bar];
                    (values, s.vib_bad.then_some(0), None)
                }
            };
            batch.machine.push(row as u32);
            batch.machines.push(self.names[place].clone());
            batch.timestamp_us.push(now_us);
            batch.index.push(row as u32);
            let mut quality = 0;
            for (at, channel) in class.channels.iter().enumerate() {
                match self.columns.iter().position(|column| *column == at) {
                    Some(which) => {
                        let scaled = (values[which] * 10f64.powi(i32::from(channel.scale))).round() as i64;
                        batch.values[at].push(scaled.clamp(channel.range.0, channel.range.1));
                        if bad == Some(which) {
                            quality |= Quality::Bad.bits(at);
                        }
                    }
                    None => {
                        batch.values[at].push(0);
                        quality |= Quality::Missing.bits(at);
                    }
                }
            }
            if quality != 0 || !batch.quality.is_empty() {
                batch.quality.resize(row, 0);
                batch.quality.push(quality);
            }
            if let (Some(at), Some(product_type)) = (self.product_type, product_type) {
                batch.attributes[at].push(product_type);
            }
        }
        self.tick += 1;
        batches.into_iter().collect()
    }
}
