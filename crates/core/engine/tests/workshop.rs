//! Machines that the scenarios run: what each reads in health and in each of its troubles.

use crate::{lots::Lots, readings::Row};
use catalog::{Class, MachineId, State};
use wire::{Quality, ReadingBatch};

/// One machine of a scenario.
pub struct Machine {
    pub id: MachineId,
    pub class: &'static str,
    /// It has sent a reading, so its class is known.
    pub is_seen: bool,
    /// Event time of its newest reading that was no trouble of the sender.
    pub newest_us: i64,
    /// Sends nothing for so many ticks.
    pub quiet: u32,
    /// Refused for so many readings: (channel, how many).
    pub refused: (usize, u32),
    /// A reading that was overtaken.
    pub held: Option<Row>,
    /// What it sent, for those who send twice.
    pub sent: Vec<Row>,
    trouble: u64,
    left: u32,
    wear: f64,
    strokes: f64,
    force: f64,
    seq: Option<i64>,
    state: (u8, u32),
    quality: (usize, Quality, u32),
    is_terse: bool,
    /// The values of the stuck sensor.
    stuck: Option<f64>,
}

impl Machine {
    pub fn new(id: MachineId, class: &'static str, lots: &mut Lots) -> Machine {
        Machine {
            id,
            class,
            is_seen: false,
            newest_us: i64::MIN,
            quiet: 0,
            refused: (0, 0),
            held: None,
            sent: Vec::new(),
            trouble: 0,
            left: 10,
            wear: lots.between(0, 198) as f64,
            strokes: lots.between(4800, 5010) as f64,
            force: 500.0,
            seq: lots.percent(30).then_some(7),
            state: (ReadingBatch::NONE, 0),
            quality: (0, Quality::Good, 0),
            is_terse: false,
            stuck: None,
        }
    }

    /// Puts the machine into a trouble of its class for so many readings.
    pub fn break_down(&mut self, trouble: u64, readings: u32) {
        (self.trouble, self.left) = (trouble, readings);
    }

    /// From here on it says nothing of its own state and sensors, so that what it has can be told for long.
    pub fn keep_quiet_about_itself(&mut self) {
        self.is_terse = true;
    }

    /// Its next reading.
    pub fn reading(&mut self, class: &Class, timestamp_us: i64, lots: &mut Lots) -> Row {
        self.next_trouble(lots);
        let values = match self.class {
            "mill" => self.mill(lots),
            "pump" => self.pump(lots),
            "press" => self.press(lots),
            _ => self.cell(lots),
        };
        let mut row = Row {
            machine: self.id.clone(),
            timestamp_us,
            values: Vec::new(),
            quality: 0,
            seq: self.seq,
            attributes: class.attributes.iter().map(|_| lots.pick(&[0, 1, 0, ReadingBatch::NONE]).to_owned()).collect(),
            state: ReadingBatch::NONE,
            links: lots.percent(3).then_some(r#"{"waveform":"s3://plant/a"}"#),
        };
        self.seq = self.seq.map(|seq| seq + 1);
        for (at, channel) in class.channels.iter().enumerate() {
            let Some(value) = values.get(at).copied().flatten() else {
                row.values.push(0);
                row.quality |= Quality::Missing.bits(at);
                continue;
            };
            let scaled = (value * 10f64.powi(i32::from(channel.scale))).round() as i64;
            let scaled = scaled.clamp(channel.range.0, channel.range.1);
            row.values.push(scaled);
            if !(channel.plausible.0..=channel.plausible.1).contains(&scaled) {
                row.quality |= Quality::Bad.bits(at);
            }
        }
        self.mark(&mut row, class.channels.len(), lots);
        row
    }

    /// States that the reading gives itself, and sensors that say that they are bad.
    fn mark(&mut self, row: &mut Row, channels: usize, lots: &mut Lots) {
        if self.is_terse {
            return;
        }
        if self.state.1 == 0 && lots.percent(1) {
            let state = *lots.pick(&[State::Maintenance, State::Idle, State::Running, State::Off, State::Warmup]);
            self.state = (state as u8, lots.between(2, 12) as u32);
        }
        if self.state.1 > 0 {
            self.state.1 -= 1;
            row.state = self.state.0;
        }
        if self.quality.2 == 0 && lots.percent(2) {
            let quality = *lots.pick(&[Quality::Bad, Quality::Bad, Quality::Uncertain]);
            self.quality = (lots.below(channels as u64) as usize, quality, lots.between(1, 8) as u32);
        }
        if self.quality.2 > 0 {
            self.quality.2 -= 1;
            let (channel, quality, _) = self.quality;
            if Quality::of(row.quality, channel) == Quality::Good {
                row.quality |= quality.bits(channel);
            }
        }
    }

    fn next_trouble(&mut self, lots: &mut Lots) {
        if self.left > 0 {
            self.left -= 1;
            return;
        }
        self.stuck = None;
        // Cells learn what is normal: nothing unusual happens to them before it is asked for.
        let (share, first) = if self.class == "cell" { (30, 4) } else { (60, 1) };
        if self.trouble == 0 && lots.percent(share) {
            self.break_down(lots.between(first, 9) as u64, lots.between(3, 45) as u32);
        } else {
            self.break_down(0, lots.between(5, 30) as u32);
        }
    }

    /// air, process, rpm, torque, wear
    fn mill(&mut self, lots: &mut Lots) -> Vec<Option<f64>> {
        self.wear += f64::from(u8::from(lots.percent(5)));
        let (mut air, mut dt, mut rpm, mut torque) =
            (lots.real(297.0, 299.0), lots.real(9.5, 10.5), lots.real(1400.0, 1600.0), lots.real(30.0, 42.0));
        match self.trouble {
            1 => (dt, rpm) = (lots.real(7.9, 8.5), lots.real(1300.0, 1379.0)),
            2 => (rpm, torque) = (1400.0, lots.real(66.0, 70.0)),
            3 => (rpm, torque) = (1500.0, lots.real(18.0, 21.0)),
            4 => {
                self.wear = self.wear.max(196.0);
                (rpm, torque) = (1320.0, lots.real(57.0, 62.0));
            }
            // A tool change: a stop and a new tool.
            5 => {
                self.wear = 0.0;
                (rpm, torque) = (0.0, 0.0);
            }
            6 => (rpm, torque) = (0.0, 0.0),
            // Over the limit and back, reading by reading.
            7 if lots.percent(50) => (rpm, torque) = (1400.0, 68.0),
            // At the very limits: 8.6 K as doubles have it, 1380 rpm.
            8 => {
                air = (air * 10.0).round() / 10.0;
                (dt, rpm) = (lots.between(85, 87) as f64 / 10.0, lots.between(1379, 1381) as f64);
            }
            // A smaller fall than a reset.
            9 if self.left == 1 => self.wear = (self.wear - 20.0).max(0.0),
            _ => {}
        }
        vec![Some(air), Some(air + dt), Some(rpm), Some(torque), Some(self.wear)]
    }

    /// vib, discharge, flow, current, bearing, suction; the other three are never there
    fn pump(&mut self, lots: &mut Lots) -> Vec<Option<f64>> {
        let mut vib = lots.real(1.6, 2.0);
        let (mut discharge, mut flow, mut current) =
            (lots.real(5.35, 5.45), lots.real(98.0, 102.0), lots.real(36.1, 37.1));
        let mut suction = Some(lots.real(0.45, 0.55));
        match self.trouble {
            1 => (suction, flow) = (Some(-0.75), 90.0),
            2 => (flow, discharge, current) = (1.5, 6.4, 22.0),
            3 => (flow, discharge, current) = (0.5, 0.8, 14.0),
            4 => current = lots.real(44.5, 47.0),
            // Worse and worse.
            5 => current = if self.left > 15 { 46.0 } else { 52.0 },
            6 => vib = if self.left > 12 { 6.0 } else { 9.5 },
            7 => (flow, discharge, current, vib) = (0.0, 0.5, 0.0, 0.1),
            8 => suction = None,
            9 => flow = lots.real(20.0, 28.0),
            _ => {}
        }
        vec![Some(vib), Some(discharge), Some(flow), Some(current), Some(lots.real(54.0, 56.0)), suction]
    }

    /// force, speed, oil, strokes
    fn press(&mut self, lots: &mut Lots) -> Vec<Option<f64>> {
        self.strokes += lots.between(0, 2) as f64;
        let mut speed = lots.between(55, 65) as f64;
        let mut oil = Some(lots.real(50.0, 60.0));
        let goal = match self.trouble {
            1 => 950.0,
            2 => 1100.0,
            3 => 1300.0,
            // Better and worse by turns.
            4 => [950.0, 1100.0, 1250.0, 885.0][(self.left / 6) as usize % 4],
            _ => 500.0,
        };
        self.force += (goal - self.force).clamp(-250.0, 250.0) * 0.7;
        let mut force = self.force + lots.real(-3.0, 3.0);
        match self.trouble {
            // For longer than a minute.
            5 => {
                self.left = if self.stuck.is_none() { 75 } else { self.left };
                force = *self.stuck.get_or_insert(force);
            }
            6 => (speed, force) = (*lots.pick(&[0.0, 3.0]), 0.0),
            7 => oil = Some(lots.real(81.0, 90.0)),
            8 => oil = None,
            9 if self.left == 1 => self.strokes = 3.0,
            _ => {}
        }
        // A spike, or what the sensor cannot mean.
        match lots.below(80) {
            0 => force += 500.0,
            1 => force = 1600.0,
            _ => {}
        }
        vec![Some(force), Some(speed), oil, Some(self.strokes)]
    }

    /// load, temperature, pressure
    fn cell(&mut self, lots: &mut Lots) -> Vec<Option<f64>> {
        let mut load = lots.real(40.0, 60.0);
        let mut temperature = 20.0 + load + lots.real(-2.0, 2.0);
        let pressure = Some(lots.real(4.0, 5.0));
        match self.trouble {
            // Each alone is usual, together they are not.
            1..=3 => temperature = 140.0 - temperature + lots.real(30.0, 60.0),
            4 => (load, temperature) = (0.0, 20.0),
            5 => {
                self.left = if self.stuck.is_none() { 75 } else { self.left };
                temperature = *self.stuck.get_or_insert(temperature);
            }
            6 => return vec![Some(load), Some(temperature), None],
            _ => {}
        }
        vec![Some(load), Some(temperature), pressure]
    }
}
