//! The milling machine of AI4I 2020 as a process that goes on for ever (S. Matzka, CC BY 4.0).
//!
//! One row of the data set is one job: type, torque and speed are drawn once a job, the temperatures walk on from job
//! to job, and the wear grows by the job's minutes. Constants are read off the published file.

use crate::{Mode, draw::Draw, profile::Strength};

/// Speed that belongs to a torque, Nm and rpm: the knots of the file's own curve.
const SPEED: [(f64, f64); 20] = [
    (4.0, 2870.0),
    (7.5, 2775.0),
    (10.0, 2702.0),
    (12.5, 2565.0),
    (15.0, 2348.0),
    (17.5, 2145.0),
    (20.0, 1995.0),
    (22.5, 1892.0),
    (25.0, 1802.0),
    (27.5, 1729.0),
    (30.0, 1666.0),
    (35.0, 1574.0),
    (40.0, 1500.0),
    (45.0, 1443.0),
    (50.0, 1399.0),
    (55.0, 1364.0),
    (60.0, 1331.0),
    (65.0, 1306.0),
    (70.0, 1288.0),
    (76.0, 1270.0),
];

/// A tool change stops the machine for so long.
const CHANGE_US: i64 = 60_000_000;
const MINUTE_US: i64 = 60_000_000;

/// One job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    /// 0 L, 1 M, 2 H.
    pub product_type: u8,
    /// K.
    pub air_k: f64,
    /// K.
    pub process_k: f64,
    /// Nm.
    pub torque_nm: f64,
    /// 1/min.
    pub rpm: f64,
    /// Wear before the job, min.
    pub wear_min: i64,
    /// The tool is changed after it.
    pub last_of_tool: bool,
    /// The tool failed at its change (AI4I's TWF).
    pub tool_failed: bool,
}

impl Job {
    /// Minutes of wear that the job adds: L 2, M 3, H 5.
    pub fn minutes(&self) -> i64 {
        [2, 3, 5][usize::from(self.product_type)]
    }
}

/// The jobs of one machine, one after the other.
#[derive(Debug, Clone)]
pub struct Jobs {
    seed: u64,
    machine: u64,
    mode: Mode,
    number: u64,
    tool: u64,
    wear: i64,
    /// Deviations of the two walks from their means, K.
    air: f64,
    dt: f64,
}

impl Jobs {
    /// Jobs of a machine from its first.
    pub fn new(seed: u64, machine: u64, mode: Mode) -> Jobs {
        let mut draw = Draw::new(seed, machine, 0, 0);
        let (air, dt) = (draw.normal(0.0, 2.0), draw.normal(0.0, 1.0));
        // A healthy plant's tools are of every age when it is first looked at.
        let wear = if mode == Mode::Healthy { draw.below(150) as i64 } else { 0 };
        Jobs { seed, machine, mode, number: 0, tool: 0, wear, air, dt }
    }

    /// Wear at which the present tool is changed, min.
    fn life(&self) -> f64 {
        let mut draw = Draw::new(self.seed, self.machine, 1, self.tool);
        match self.mode {
            Mode::Ai4i => draw.normal(216.0, 11.0).max(200.0),
            // Changed in time: before the notice at 200 min.
            Mode::Healthy => draw.normal(180.0, 6.0).clamp(160.0, 192.0),
        }
    }

    /// Puts in a new tool.
    fn change_tool(&mut self) {
        self.wear = 0;
        self.tool += 1;
    }

    /// The next job.
    pub fn next_job(&mut self) -> Job {
        let mut draw = Draw::new(self.seed, self.machine, 2, self.number);
        self.number += 1;
        let product_type = match draw.below(10) {
            0..=5 => 0,
            6..=8 => 1,
            _ => 2,
        };
        // AR(1) with the file's correlation from row to row, kept within three standard deviations.
        let mut walk = |at: f64, phi: f64, sd: f64| {
            (phi * at + draw.normal(0.0, sd * (1.0 - phi * phi).sqrt())).clamp(-3.0 * sd, 3.0 * sd)
        };
        self.air = walk(self.air, 0.99963, 2.0);
        self.dt = walk(self.dt, 0.99909, 1.0);
        let dt = if self.mode == Mode::Healthy { self.dt.max(-1.0) } else { self.dt };
        let mut job = Job {
            product_type,
            air_k: tenth(300.0 + self.air),
            process_k: tenth(310.0 + self.air + dt),
            torque_nm: 0.0,
            rpm: 0.0,
            wear_min: self.wear,
            last_of_tool: false,
            tool_failed: false,
        };
        let wear_after = self.wear + job.minutes();
        // In a healthy plant a job that would break a law is not run; the last resort is a light one.
        for attempt in 0..20 {
            job.torque_nm = if attempt == 19 { 35.0 } else { tenth(draw.normal(40.0, 10.0)) };
            job.rpm = (speed(job.torque_nm) + draw.normal(0.0, 50.0)).round();
            let usual = job.torque_nm >= 3.8;
            if usual && (self.mode == Mode::Ai4i || is_safe(&job, wear_after)) {
                break;
            }
        }
        job.last_of_tool = wear_after as f64 >= self.life();
        if job.last_of_tool {
            job.tool_failed = draw.uniform() < 0.39;
            self.change_tool();
        } else {
            self.wear = wear_after;
        }
        job
    }
}

/// Far enough from every limit of class `mill`, noise included.
fn is_safe(job: &Job, wear_after: i64) -> bool {
    let power = job.torque_nm * job.rpm * 2.0 * std::f64::consts::PI / 60.0;
    let limit = [11_000.0, 12_000.0, 13_000.0][usize::from(job.product_type)];
    let strain = job.torque_nm * wear_after as f64;
    (3900.0..8600.0).contains(&power) && strain < 0.92 * limit && job.rpm > 300.0
}

fn speed(torque: f64) -> f64 {
    let at = SPEED.partition_point(|(knot, _)| *knot < torque).clamp(1, SPEED.len() - 1);
    let ((x0, y0), (x1, y1)) = (SPEED[at - 1], SPEED[at]);
    y0 + (y1 - y0) * (torque - x0) / (x1 - x0)
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// One reading in its units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) air_k: f64,
    pub(crate) process_k: f64,
    pub(crate) rpm: f64,
    pub(crate) torque_nm: f64,
    pub(crate) wear_min: f64,
    pub(crate) product_type: u8,
    /// The torque sensor says of itself that it is bad.
    pub(crate) torque_bad: bool,
}

/// One machine in time.
#[derive(Debug, Clone)]
pub(crate) struct Mill {
    jobs: Jobs,
    job: Job,
    /// Event time at which the job began.
    begun_us: i64,
    /// Standing still for a tool change until then.
    change_until_us: i64,
    /// A fault has worn the tool out: it is changed when the fault ends.
    worn_out: bool,
}

impl Mill {
    pub(crate) fn new(seed: u64, machine: u64, mode: Mode, start_us: i64) -> Mill {
        let mut jobs = Jobs::new(seed, machine, mode);
        let job = jobs.next_job();
        // Machines do not begin their jobs together.
        let into = Draw::new(seed, machine, 3, 0).below(job.minutes() as u64 * 60) as i64 * 1_000_000;
        Mill { jobs, job, begun_us: start_us - into, change_until_us: i64::MIN, worn_out: false }
    }

    /// The reading at a time; times only go forward. `noise` is that reading's own.
    pub(crate) fn sample(&mut self, now_us: i64, profile: Option<(&str, Strength)>, noise: &mut Draw) -> Sample {
        while now_us >= self.begun_us + self.job.minutes() * MINUTE_US {
            let end = self.begun_us + self.job.minutes() * MINUTE_US;
            let change = self.job.last_of_tool;
            self.begun_us = if change { end + CHANGE_US } else { end };
            if change {
                self.change_until_us = self.begun_us;
            }
            self.job = self.jobs.next_job();
        }
        if self.worn_out && profile.is_none() {
            self.worn_out = false;
            self.jobs.change_tool();
            self.change_until_us = now_us + CHANGE_US;
            self.begun_us = self.change_until_us;
            self.job = self.jobs.next_job();
        }
        let into_min = ((now_us - self.begun_us).max(0) / MINUTE_US).min(self.job.minutes() - 1);
        let mut sample = Sample {
            air_k: self.job.air_k + noise.normal(0.0, 0.02),
            process_k: self.job.process_k + noise.normal(0.0, 0.02),
            rpm: self.job.rpm + noise.normal(0.0, 3.0),
            torque_nm: (self.job.torque_nm + noise.normal(0.0, 0.3)).max(0.0),
            wear_min: (self.job.wear_min + into_min) as f64,
            product_type: self.job.product_type,
            torque_bad: false,
        };
        if now_us < self.change_until_us {
            (sample.rpm, sample.torque_nm) = (0.0, 0.0);
            sample.wear_min = 0.0;
        }
        if let Some((name, strength)) = profile {
            self.bend(&mut sample, name, strength, noise);
        }
        sample
    }

    /// Bends a healthy sample towards a fault.
    fn bend(&mut self, sample: &mut Sample, profile: &str, strength: Strength, noise: &mut Draw) {
        let share = strength.0;
        let toward = |from: f64, to: f64| from + (to - from) * share;
        let (torque_noise, rpm_noise) = (noise.normal(0.0, 0.3), noise.normal(0.0, 3.0));
        match profile {
            "stop" => (sample.rpm, sample.torque_nm) = (0.0, 0.0),
            "overstrain" => {
                // A worn tool under load, with power still inside its range: 61 Nm x 195 min = 11,895.
                self.worn_out = true;
                sample.product_type = 0;
                sample.wear_min = sample.wear_min.max(195.0);
                sample.torque_nm = toward(45.0, 61.0) + torque_noise;
                sample.rpm = toward(1400.0, 1320.0) + rpm_noise;
            }
            "heat_dissipation" => {
                sample.process_k = sample.air_k + toward(9.5, 8.1);
                sample.rpm = toward(1450.0, 1330.0) + rpm_noise;
                sample.torque_nm = toward(45.0, 50.0) + torque_noise;
            }
            // Whichever side of the range does not strain the tool: 20 Nm at 1,500 rpm is 3,142 W.
            "power_failure" if sample.wear_min > 140.0 => {
                sample.torque_nm = toward(35.0, 20.0) + torque_noise;
                sample.rpm = 1500.0 + rpm_noise;
            }
            "power_failure" => {
                sample.torque_nm = toward(50.0, 68.0) + torque_noise;
                sample.rpm = 1400.0 + rpm_noise;
            }
            "tool_wear" => {
                self.worn_out = true;
                sample.wear_min = sample.wear_min.max(204.0);
                sample.torque_nm = sample.torque_nm.min(42.0);
                sample.rpm = sample.rpm.clamp(1400.0, 1600.0);
                sample.torque_nm = sample.torque_nm.max(32.0);
            }
            "sensor_fault" => {
                sample.torque_bad = true;
                sample.torque_nm = 199.0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Moments {
        mean: f64,
        sd: f64,
    }

    fn moments(values: &[f64]) -> Moments {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        Moments { mean, sd: (squares / (values.len() - 1) as f64).sqrt() }
    }

    /// The check table of the data set's description, one reading a job: 20 files of 10,000 rows.
    #[test]
    fn jobs_have_the_moments_and_failure_rates_of_the_data_set() {
        let files: Vec<Vec<Job>> = (0..20)
            .map(|machine| {
                let mut jobs = Jobs::new(5, machine, Mode::Ai4i);
                (0..10_000).map(|_| jobs.next_job()).collect()
            })
            .collect();
        let all: Vec<Job> = files.concat();
        let column = |of: &dyn Fn(&Job) -> f64| moments(&all.iter().map(of).collect::<Vec<_>>());
        let near =
            |what: &str, value: f64, low: f64, high: f64| assert!((low..=high).contains(&value), "{what}: {value}");
        let torque = column(&|job| job.torque_nm);
        near("torque mean", torque.mean, 39.8, 40.2);
        near("torque sd", torque.sd, 9.8, 10.15);
        let rpm = column(&|job| job.rpm);
        near("rpm mean", rpm.mean, 1535.0, 1545.0);
        near("rpm sd", rpm.sd, 174.0, 188.0);
        let power = |job: &Job| job.torque_nm * job.rpm * 2.0 * std::f64::consts::PI / 60.0;
        near("power mean", column(&power).mean, 6260.0, 6315.0);
        near("power sd", column(&power).sd, 1050.0, 1085.0);
        let strain = |job: &Job| job.torque_nm * job.wear_min as f64;
        near("strain mean", column(&strain).mean, 4240.0, 4360.0);
        near("air sd", column(&|job| job.air_k).sd, 1.2, 2.8);
        near("dT mean", column(&|job| job.process_k - job.air_k).mean, 9.6, 10.4);
        let share = |of: &dyn Fn(&Job) -> bool| all.iter().filter(|job| of(job)).count() as f64 / files.len() as f64;
        near("type L", share(&|job| job.product_type == 0), 5850.0, 6150.0);
        near("rpm < 1380", share(&|job| job.rpm < 1380.0), 1260.0, 1410.0);
        near("tool changes", share(&|job| job.last_of_tool), 116.0, 122.0);
        near("TWF", share(&|job| job.tool_failed), 41.0, 52.0);
        near("PWF", share(&|job| !(3500.0..=9000.0).contains(&power(job))), 95.0, 114.0);
        let limit = |job: &Job| [11_000.0, 12_000.0, 13_000.0][usize::from(job.product_type)];
        near("OSF", share(&|job| strain(job) > limit(job)), 82.0, 103.0);
        // One excursion of a slow walk: loosely.
        near("HDF", share(&|job| job.process_k - job.air_k < 8.6 && job.rpm < 1380.0), 5.0, 300.0);
    }

    #[test]
    fn the_same_seed_and_machine_give_the_same_jobs() {
        let first = |seed, machine| {
            let mut jobs = Jobs::new(seed, machine, Mode::Healthy);
            (0..50).map(|_| jobs.next_job()).collect::<Vec<_>>()
        };
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(2, 2));
        assert_ne!(first(1, 2), first(1, 3));
    }
}
