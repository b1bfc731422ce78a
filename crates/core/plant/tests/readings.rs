//! What a plant of machines gives: jobs in time, tool changes, profiles, the same for ever.

use catalog::Catalogue;
use plant::{Config, Error, Job, Jobs, MILL, Mode, PUMP, Plant};
use std::collections::BTreeMap;
use wire::{Quality, READINGS_PARTITIONS, ReadingBatch};

const START_US: i64 = 1_762_500_000_000_000;
const SECOND: i64 = 1_000_000;

fn plant(class: &str, machines: u32, seed: u64, mode: Mode) -> Plant {
    let class = Catalogue::builtin().class(class).expect("it is built in").clone();
    let partitions = READINGS_PARTITIONS;
    Plant::new(Config { class, machines, rate_hz: 1.0, seed, start_us: START_US, mode, partitions })
        .expect("built-in classes can be simulated")
}

/// Readings of so many ticks by machine: (second, channels in their units, quality, product type).
type Readings = BTreeMap<String, Vec<(i64, Vec<f64>, u128, Option<u8>)>>;

fn run(plant: &mut Plant, ticks: u32) -> Readings {
    let mut found = Readings::new();
    for _ in 0..ticks {
        for (partition, batch) in plant.next_batch() {
            for row in 0..batch.rows() {
                let name = batch.machine_of(row);
                assert_eq!(wire::partition_of(name, READINGS_PARTITIONS), partition);
                let values = batch.class.channels.iter().zip(&batch.values);
                let values =
                    values.map(|(channel, column)| column[row] as f64 / 10f64.powi(i32::from(channel.scale))).collect();
                let second = (batch.timestamp_us[row] - START_US) / SECOND;
                let kind = batch.attributes.first().and_then(|column| column.get(row)).copied();
                found.entry(name.to_string()).or_default().push((second, values, batch.quality_of(row), kind));
            }
        }
    }
    found
}

fn bytes(plant: &mut Plant, ticks: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..ticks {
        plant.next_batch().iter().for_each(|(_, batch)| batch.encode(&mut out));
    }
    out
}

#[test]
fn a_seed_gives_the_same_readings_for_ever_and_another_seed_others() {
    for class in ["mill", "pump"] {
        let of = |seed| bytes(&mut plant(class, 12, seed, Mode::Healthy), 300);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}

/// What a mill should read at each second: its jobs one after the other, `into` seconds of the first already done.
fn timeline(machine: u64, seed: u64, into: usize, seconds: usize) -> Vec<Option<(Job, i64)>> {
    let mut jobs = Jobs::new(seed, machine, Mode::Ai4i);
    let mut found = Vec::new();
    while found.len() < seconds + into {
        let job = jobs.next_job();
        found.extend((0..job.minutes() * 60).map(|second| Some((job, job.wear_min + second / 60))));
        if job.last_of_tool {
            found.extend([None; 60]);
        }
    }
    found.drain(..into);
    found
}

#[test]
fn a_mill_runs_its_jobs_for_their_wear_minutes_with_small_noise_and_stands_a_minute_for_each_tool_change() {
    const SECONDS: usize = 6 * 3600;
    let readings = run(&mut plant("mill", 6, 11, Mode::Ai4i), SECONDS as u32);
    let (mut torque, mut speed, mut changes) = (Vec::new(), Vec::new(), 0);
    for (machine, rows) in (0..).zip(readings.values()) {
        let fits = |plan: &[Option<(Job, i64)>]| {
            rows.iter().zip(plan).all(|((_, values, _, kind), planned)| match planned {
                None => values[2] == 0.0 && values[3] == 0.0 && values[4] == 0.0,
                Some((job, wear)) => {
                    *kind == Some(job.product_type)
                        && values[4] == *wear as f64
                        && (values[3] - job.torque_nm).abs() < 2.0
                        && (values[2] - job.rpm).abs() < 20.0
                }
            })
        };
        // Machines do not begin their jobs together; no job is longer than 5 min.
        let plan = (0..300).map(|into| timeline(machine, 11, into, SECONDS)).find(|plan| fits(plan));
        let plan = plan.unwrap_or_else(|| panic!("machine {machine} does not run the jobs that it drew"));
        for ((_, values, _, _), planned) in rows.iter().zip(plan) {
            if let Some((job, _)) = planned {
                torque.push(values[3] - job.torque_nm);
                speed.push(values[2] - job.rpm);
            }
        }
        changes += rows.windows(2).filter(|pair| pair[1].1[4] < pair[0].1[4]).count();
    }
    let sd = |noise: &[f64]| (noise.iter().map(|noise| noise * noise).sum::<f64>() / noise.len() as f64).sqrt();
    println!("{changes} tool changes, noise sd {:.3} Nm and {:.3} rpm", sd(&torque), sd(&speed));
    assert!((sd(&torque) - 0.3).abs() < 0.01 && (sd(&speed) - 3.0).abs() < 0.1 && changes > 5);
}

#[test]
fn readings_lie_inside_range_and_the_normal_pump_inside_its_normal_values() {
    let readings = run(&mut plant("pump", 3, 3, Mode::Healthy), 4 * 3600);
    // vib, discharge, flow, current, bearing: normal and spread; a rare reading may lie a little outside.
    let normal = [(1.8, 0.2), (5.4, 0.05), (100.0, 2.0), (36.6, 0.5), (55.0, 0.5)];
    for rows in readings.values() {
        for (at, (mean, spread)) in normal.iter().enumerate() {
            let outside = rows.iter().filter(|row| (row.1[at] - mean).abs() > *spread).count();
            assert!(outside * 100 < rows.len(), "channel {at}: {outside} of {} outside", rows.len());
            assert!(rows.iter().all(|row| (row.1[at] - mean).abs() <= 2.0 * spread), "channel {at}");
        }
        let missing = |channel| rows.iter().all(|row| Quality::of(row.2, channel) == Quality::Missing);
        assert!(missing(6) && missing(7) && missing(8) && !missing(5));
    }
}

#[test]
fn a_profile_ends_when_it_should_and_one_of_another_class_is_refused() {
    let mut mill = plant("mill", 2, 5, Mode::Healthy);
    assert_eq!(mill.profiles(), MILL);
    assert_eq!(plant("pump", 1, 5, Mode::Healthy).profiles(), PUMP);
    let wrong = mill.set_profile("machine-001", "dry_run", 0, 1).expect_err("a mill cannot run dry");
    assert!(matches!(wrong, Error::Profile { .. }) && wrong.to_string().contains("overstrain"), "{wrong}");
    assert!(matches!(mill.set_profile("machine-009", "stop", 0, 1), Err(Error::Machine(_))));
    mill.set_profile("machine-001", "stop", START_US + 30 * SECOND, START_US + 50 * SECOND).expect("a mill can stop");
    let stopped = run(&mut mill, 120);
    let plain = run(&mut plant("mill", 2, 5, Mode::Healthy), 120);
    assert_eq!(stopped["machine-002"], plain["machine-002"]);
    for (row, undisturbed) in stopped["machine-001"].iter().zip(&plain["machine-001"]) {
        if (30..50).contains(&row.0) {
            assert_eq!((row.1[2], row.1[3]), (0.0, 0.0));
        } else {
            assert_eq!(row, undisturbed);
        }
    }
}

#[test]
fn a_plant_of_many_machines_has_one_reading_of_each_a_tick() {
    let mut many = plant("pump", 10_000, 1, Mode::Healthy);
    let batches = many.next_batch();
    let rows: usize = batches.iter().map(|(_, batch): &(u16, ReadingBatch)| batch.rows()).sum();
    assert_eq!((rows, batches.len()), (10_000, usize::from(READINGS_PARTITIONS)));
}
