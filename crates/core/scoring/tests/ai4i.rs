//! The AI4I 2020 file and its failure rules, as its description has them: nothing of the product is asked.

use std::{fs, path::Path};

/// One row in the file's units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// From 1.
    pub udi: u32,
    /// 0 L, 1 M, 2 H.
    pub product_type: u8,
    pub air: f64,
    pub process: f64,
    pub rpm: f64,
    pub torque: f64,
    pub wear: f64,
    pub hdf: bool,
    pub pwf: bool,
    pub osf: bool,
}

impl Row {
    /// dT < 8.6 K and speed < 1380 rpm.
    pub fn overheats(&self) -> bool {
        self.process - self.air < 8.6 && self.rpm < 1380.0
    }

    /// Power outside 3500..9000 W.
    pub fn fails_power(&self) -> bool {
        let watts = self.torque * self.rpm * 2.0 * std::f64::consts::PI / 60.0;
        !(3500.0..=9000.0).contains(&watts)
    }

    /// Strain above the limit of its product type.
    pub fn overstrains(&self) -> bool {
        self.torque * self.wear > [11_000.0, 12_000.0, 13_000.0][usize::from(self.product_type)]
    }

    pub fn breaks_a_law(&self) -> bool {
        self.overheats() || self.fails_power() || self.overstrains()
    }
}

/// Every row of the file; `None` where this machine does not have it.
pub fn rows() -> Option<Vec<Row>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("crates/core/scoring lies in the root");
    let text = ["../shared", "../../shared"]
        .iter()
        .find_map(|shared| fs::read_to_string(root.join(shared).join("data/ai4i2020.csv")).ok())?;
    Some(text.lines().skip(1).map(row).collect())
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_end().split(',').collect();
    let number = |at: usize| cells[at].parse::<f64>().expect("the file holds numbers");
    Row {
        udi: cells[0].parse().expect("the file holds numbers"),
        product_type: ["L", "M", "H"].iter().position(|word| *word == cells[2]).expect("a type is L, M or H") as u8,
        air: number(3),
        process: number(4),
        rpm: number(5),
        torque: number(6),
        wear: number(7),
        hdf: cells[10] == "1",
        pwf: cells[11] == "1",
        osf: cells[12] == "1",
    }
}
