//! What happens on one partition: a pure function of the seed.

use crate::{
    classes::{self, CELL, PRESS},
    lots::Lots,
    readings::{Record, Row},
    workshop::Machine,
};
use catalog::{Catalogue, Class, MachineId, MachineSettings};
use std::{collections::BTreeMap, sync::Arc};

/// One thing after the other.
pub enum Step {
    Record(Record),
    /// Another catalogue, in force from the next record on.
    Use(Arc<Catalogue>),
    /// The wall clock.
    Silence(i64),
}

pub struct Scenario {
    pub partition: u16,
    /// In force from offset 0.
    pub first: Arc<Catalogue>,
    pub steps: Vec<Step>,
    /// By hash, the first among them.
    pub catalogues: BTreeMap<String, Arc<Catalogue>>,
}

const PARTITIONS: u16 = 6;
const START_US: i64 = 1_762_500_000_000_000;
const SECOND: i64 = 1_000_000;

impl Scenario {
    /// The scenario of a seed; every eighth trains a detector, every fortieth holds its finding for long.
    pub fn new(seed: u64) -> Scenario {
        let learns = seed % 8 == 5;
        let mut maker = Maker::new(seed, learns);
        let ticks = maker.lots.between(90, 190);
        let mut switches: Vec<i64> = (0..maker.lots.between(1, 3)).map(|_| maker.lots.between(10, ticks)).collect();
        let pause = maker.lots.percent(30).then(|| maker.lots.between(15, ticks - 10));
        for tick in 0..ticks {
            if pause == Some(tick) {
                maker.pause();
            }
            if let Some(at) = switches.iter().position(|at| *at == tick) {
                switches.remove(at);
                let to = maker.lots.below(10);
                maker.switch_to(to);
            }
            maker.tick(800, 1600, |_| true);
        }
        if learns {
            for _ in 0..maker.lots.between(340, 380) {
                maker.tick(1000, 1800, |class| class == "cell");
            }
            let (ticks, step) = if seed % 40 == 5 { (250, 3000) } else { (60, 1800) };
            if let Some(cell) = maker.machines.iter_mut().find(|machine| machine.class == "cell") {
                cell.break_down(1, ticks - 10);
                if seed % 40 == 5 {
                    cell.keep_quiet_about_itself();
                }
            }
            let change = maker.lots.percent(30).then(|| maker.lots.between(20, i64::from(ticks) - 10));
            for tick in 0..ticks {
                if change == Some(i64::from(tick)) {
                    maker.switch_to(8);
                }
                maker.tick(step - 300, step, |class| class == "cell");
            }
        }
        maker.scenario
    }

    /// The catalogue in force for the record at an offset.
    pub fn catalogue_at(&self, offset: i64) -> Arc<Catalogue> {
        let before =
            self.steps.iter().take_while(|step| !matches!(step, Step::Record(record) if record.offset >= offset));
        let used = before.filter_map(|step| if let Step::Use(catalogue) = step { Some(catalogue) } else { None });
        used.last().unwrap_or(&self.first).clone()
    }
}

struct Maker {
    lots: Lots,
    scenario: Scenario,
    catalogue: Arc<Catalogue>,
    machines: Vec<Machine>,
    now_us: i64,
    offset: i64,
}

impl Maker {
    fn new(seed: u64, learns: bool) -> Maker {
        let mut lots = Lots::new(seed, 1);
        let partition = (seed % u64::from(PARTITIONS)) as u16;
        let catalogue = classes::catalogue();
        let mut classes = vec!["mill", "mill", "pump", "press"];
        if learns {
            classes.extend(["cell"; 3]);
        }
        let names = (0..).map(|number| MachineId::try_from(&*format!("m-{number}")).expect("a short name is an id"));
        let here = names.filter(|name| wire::partition_of(name, PARTITIONS) == partition);
        let machines = here.zip(classes).map(|(id, class)| Machine::new(id, class, &mut lots)).collect();
        let scenario = Scenario {
            partition,
            first: catalogue.clone(),
            steps: Vec::new(),
            catalogues: [(catalogue.hash().to_owned(), catalogue.clone())].into(),
        };
        Maker { lots, scenario, catalogue, machines, now_us: START_US, offset: 0 }
    }

    fn class(&self, id: &str) -> Arc<Class> {
        self.catalogue.class(id).expect("no switch takes a class away").clone()
    }

    /// About a reading of every machine of these classes, between so many milliseconds after the last.
    fn tick(&mut self, least_ms: i64, most_ms: i64, takes_part: impl Fn(&str) -> bool) {
        self.now_us += self.lots.between(least_ms, most_ms) * 1000;
        if self.lots.percent(5) {
            self.scenario.steps.push(Step::Silence(self.now_us));
        }
        let mut classes = ["mill", "pump", "press", "cell"];
        let swapped = self.lots.below(3) as usize;
        classes.swap(swapped, swapped + 1);
        for id in classes.into_iter().filter(|id| takes_part(id)) {
            let class = self.class(id);
            let mut sent = Vec::new();
            for at in 0..self.machines.len() {
                if self.machines[at].class == id {
                    self.send(at, &class, &mut sent);
                }
            }
            if sent.len() > 1 && self.lots.percent(40) {
                let rest = sent.split_off(self.lots.below(sent.len() as u64) as usize);
                self.record(&class, sent);
                self.now_us += 1000;
                self.record(&class, rest);
            } else {
                self.record(&class, sent);
            }
        }
    }

    /// What a machine sends in a tick, its troubles with sending included.
    fn send(&mut self, at: usize, class: &Arc<Class>, sent: &mut Vec<Sent>) {
        let (lots, machine) = (&mut self.lots, &mut self.machines[at]);
        if machine.quiet > 0 {
            machine.quiet -= 1;
            return;
        }
        if lots.below(200) == 0 {
            machine.quiet = lots.between(3, 50) as u32;
        }
        if machine.refused.1 == 0 && lots.percent(1) {
            machine.refused = (lots.below(class.channels.len() as u64) as usize, lots.between(1, 5) as u32);
        }
        if machine.refused.1 > 0 && machine.is_seen {
            machine.refused.1 -= 1;
            sent.push(Sent::Refused(machine.id.clone(), class.channels[machine.refused.0].id.clone()));
            return;
        }
        let timestamp_us = (self.now_us - lots.between(20, 600) * 1000).max(machine.newest_us.saturating_add(1000));
        machine.newest_us = timestamp_us;
        machine.is_seen = true;
        let row = machine.reading(class, timestamp_us, lots);
        // Only readings of the class that is in force can be sent again.
        machine.sent.retain(|row| row.values.len() == class.channels.len());
        let overtaken = machine.held.take();
        match lots.below(100) {
            0..4 if overtaken.is_none() => machine.held = Some(row.clone()),
            4..6 => sent.extend([Sent::Good(row.clone()), Sent::Good(row.clone())]),
            6..8 if !machine.sent.is_empty() => {
                let again = lots.pick(&machine.sent).clone();
                sent.extend([Sent::Good(row.clone()), Sent::Good(again)]);
            }
            8 => {
                let late_us = timestamp_us - lots.between(5_100, 90_000) * 1000;
                let late = Row { timestamp_us: late_us, ..machine.reading(class, late_us, lots) };
                sent.extend([Sent::Good(row.clone()), Sent::Good(late)]);
            }
            9 if lots.percent(50) => {
                let ahead_us = self.now_us + lots.between(5_100, 290_000) * 1000;
                let ahead = Row { timestamp_us: ahead_us, ..machine.reading(class, ahead_us, lots) };
                sent.extend([Sent::Good(ahead), Sent::Good(row.clone())]);
            }
            _ => sent.push(Sent::Good(row.clone())),
        }
        sent.extend(overtaken.map(Sent::Good));
        machine.sent.push(row);
        if machine.sent.len() > 4 {
            machine.sent.remove(0);
        }
        // Under the name of a machine of another class.
        if lots.below(300) == 0 {
            let other = lots.below(self.machines.len() as u64) as usize;
            let (impostor, stamp) = (&self.machines[other], self.now_us - 1000);
            if impostor.class != self.machines[at].class && impostor.is_seen {
                let machine = impostor.id.clone();
                let row = self.machines[at].reading(class, stamp, &mut self.lots);
                sent.push(Sent::Good(Row { machine, ..row }));
            }
        }
    }

    fn record(&mut self, class: &Arc<Class>, sent: Vec<Sent>) {
        let mut record = Record {
            class: class.clone(),
            offset: self.offset,
            arrived_us: self.now_us,
            rows: Vec::new(),
            refused: Vec::new(),
        };
        for message in sent {
            match message {
                Sent::Good(row) => record.rows.push(row),
                Sent::Refused(machine, channel) => record.refused.push((record.rows.len() as u32, machine, channel)),
            }
        }
        if record.rows.is_empty() && record.refused.is_empty() {
            return;
        }
        self.offset += 1;
        self.scenario.steps.push(Step::Record(record));
    }

    /// The network is gone for minutes; then everything comes, and one machine brings what it kept, with a fault in it.
    fn pause(&mut self) {
        for seconds in [1, 20, 36, 60] {
            self.scenario.steps.push(Step::Silence(self.now_us + seconds * SECOND));
        }
        self.now_us += self.lots.between(360, 420) * SECOND;
        let id = *self.lots.pick(&["mill", "mill", "press", "pump"]);
        let class = self.class(id);
        let at = self.machines.iter().position(|machine| machine.class == id).expect("every class has a machine");
        if self.machines[at].newest_us == i64::MIN {
            return;
        }
        if self.lots.percent(80) {
            self.machines[at].break_down(2, 150);
        }
        while self.machines[at].newest_us < self.now_us - 6 * SECOND {
            let rows = self.lots.between(5, 20);
            let mut sent = Vec::new();
            for _ in 0..rows {
                let (lots, machine) = (&mut self.lots, &mut self.machines[at]);
                let timestamp_us = machine.newest_us + lots.between(3000, 4500) * 1000;
                if timestamp_us < self.now_us {
                    machine.newest_us = timestamp_us;
                    sent.push(Sent::Good(machine.reading(&class, timestamp_us, lots)));
                }
            }
            self.now_us += self.lots.between(20, 200) * 1000;
            self.record(&class, sent);
        }
    }

    /// Another catalogue: limits and parameters of a machine, a law gone, come or changed, a channel of another scale.
    fn switch_to(&mut self, which: u64) {
        let base = Catalogue::clone(&self.catalogue);
        let own =
            |class: &str| self.machines.iter().find(|machine| machine.class == class).map(|found| found.id.clone());
        let (mill, pump) = (own("mill").expect("there is a mill"), own("pump").expect("there is a pump"));
        let settings = |class: &str| MachineSettings { class: Some(class.to_owned()), ..Default::default() };
        let limit = |class: &str, key: &str, value| MachineSettings {
            limits: [(key.to_owned(), value)].into(),
            ..settings(class)
        };
        let parameters = [("i_rated".to_owned(), 33.0)].into();
        let changed = match which {
            0 => base.with_machine(mill, limit("mill", "overstrain.strain_min_nm", 6000.0)),
            1 => base.with_machine(mill, limit("mill", "power_failure.high", 7000.0)),
            2 => base.with_machine(pump, limit("pump", "vibration.warning.vib_mm_s", 1.7)),
            3 => base.with_machine(pump, MachineSettings { parameters, ..settings("pump") }),
            4 => Ok(base.with_class(classes::parse(&without_law(PRESS, "overload")))),
            5 => Ok(base.with_class(classes::parse(&without_law(PRESS, "ramp")))),
            6 => Ok(base.with_class(classes::parse(&PRESS.replacen("scale = 1", "scale = 2", 1)))),
            7 => Ok(base.with_class(classes::parse(&PRESS.replace("lateness = \"5s\"", "lateness = \"2s\"")))),
            8 => Ok(base.with_class(classes::parse(&CELL.replace("unit = \"A\"", "unit = \"kA\"")))),
            _ => Ok(base.with_class(classes::parse(&PRESS.replace("above = 1200", "above = 400")))),
        };
        let changed = Arc::new(changed.expect("every switch is a valid catalogue"));
        if changed.hash() == self.catalogue.hash() {
            return;
        }
        self.catalogue = changed;
        // What was written down under the class before cannot be sent under this one.
        for machine in &mut self.machines {
            machine.held = None;
            machine.sent.clear();
        }
        self.scenario.catalogues.insert(self.catalogue.hash().to_owned(), self.catalogue.clone());
        self.scenario.steps.push(Step::Use(self.catalogue.clone()));
    }
}

enum Sent {
    Good(Row),
    Refused(MachineId, String),
}

/// A class file without one of its laws.
fn without_law(text: &str, law: &str) -> String {
    let mut parts = text.split("\n[[law]]\n");
    let head = parts.next().unwrap_or_default();
    let kept: Vec<&str> = parts.filter(|part| !part.starts_with(&format!("id = \"{law}\"\n"))).collect();
    let text = std::iter::once(head).chain(kept).collect::<Vec<_>>().join("\n[[law]]\n");
    text.replace(&format!("caused_by = [\"{law}\"]\n"), "")
}
