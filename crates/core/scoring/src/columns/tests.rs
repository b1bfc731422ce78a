use super::*;
use crate::{Evidence, Window, logic, present::Present};
use catalog::{Catalogue, MachineId, MachineSettings};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Uses everything that an expression, a limit and a logic may hold.
const THIRD: &str = r#"
[class]
id = "press"

[state]
off = { all = [{ quantity = "force_kn", at_most = 0 }] }
running = { any = [{ quantity = "force_kn", above = 5 }, { quantity = "speed", above = "v_min" }] }

[[parameter]]
id = "v_min"
default = 2
range = [0, 100]

[[parameter]]
id = "factor"
default = 1.5

[[channel]]
id = "force_kn"
unit = "kN"
scale = 3
range = [-10, 50]

[[channel]]
id = "speed"
unit = "1/min"
scale = 0
range = [-100, 100]
optional = true

[[attribute]]
id = "grade"
values = ["a", "b"]

[[attribute]]
id = "die"
values = ["x", "y", "z"]
default = "y"

[[derived]]
id = "ratio"
unit = "1"
expression = "force_kn / speed"

[[derived]]
id = "work"
unit = "1"
expression = "-min(force_kn * factor, abs(speed), 20 - 2 * speed) + sqrt(speed) + max(pi, 3 + v_min) / 7"

[[derived]]
id = "slow"
unit = "1"
expression = "mean60(ratio) + max60(force_kn) - min60(force_kn) + std60(speed) / 10 + slope60(force_kn)"

[[law]]
id = "two"
failure_type = "Two"
action = { en = "a" }
deadband = 0.5

[[law.level]]
severity = "warning"
any = [{ quantity = "work", above = "factor * 2" }, { quantity = "ratio", at_most = { "a/x" = 1, "b/y" = 2, "b/z" = "v_min" }, by = ["grade", "die"] }]

[[law.level]]
severity = "critical"
all = [{ quantity = "force_kn", at_least = 10 }, { quantity = "speed", below = { a = 30, default = 20 }, by = "grade" }]

[[law]]
id = "windowed"
failure_type = "Windowed"
severity = "info"
all = [{ quantity = "slow", above = 12 }]
when = { all = [{ quantity = "force_kn", above = 0 }] }
"#;

fn class(id: &str) -> Arc<Class> {
    if id == "press" {
        return Arc::new(Class::parse("press.toml", THIRD).unwrap_or_else(|mistakes| panic!("{mistakes}")));
    }
    Arc::clone(Catalogue::builtin().class(id).expect("it is built in"))
}

/// Rows of a few machines, one after the other, a second apart, with gaps of quality and attributes.
fn batch(class: &Arc<Class>, seed: u64, rows: usize, machines: usize) -> ReadingBatch {
    let mut state = seed | 1;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    let mut batch = ReadingBatch::new(Arc::clone(class));
    batch.machines = (0..machines).map(|nth| MachineId::try_from(&*format!("m-{nth}")).expect("short")).collect();
    // Few values around typical ones, so that limits are met from both sides.
    let middle: Vec<i64> = class
        .channels
        .iter()
        .map(|channel| (channel.range.0 + (channel.range.1 - channel.range.0) / 8).max(1))
        .collect();
    for row in 0..rows {
        batch.machine.push(next(machines as u64) as u32);
        batch.timestamp_us.push(1_762_528_201_000_000 + row as i64 * 1_000_000);
        batch.index.push(row as u32);
        let mut quality = 0u128;
        for (at, channel) in class.channels.iter().enumerate() {
            let span = (middle[at].unsigned_abs() * 2).max(2);
            let value = middle[at] - span as i64 / 2 + next(span) as i64;
            batch.values[at].push(value.clamp(channel.range.0, channel.range.1));
            quality |= [Quality::Good, Quality::Uncertain, Quality::Bad, Quality::Missing]
                [if next(8) == 0 { next(4) as usize } else { 0 }]
            .bits(at);
        }
        batch.quality.push(quality);
        for (at, attribute) in class.attributes.iter().enumerate() {
            let value = next(attribute.values.len() as u64 + 1) as u8;
            batch.attributes[at].push(if usize::from(value) == attribute.values.len() {
                ReadingBatch::NONE
            } else {
                value
            });
        }
    }
    match seed % 3 {
        0 => batch.quality.clear(),
        1 => batch.attributes.iter_mut().for_each(Vec::clear),
        _ => {}
    }
    batch
}

struct Held<'a>(&'a Program, &'a mut [Window], i64);

impl RowWindows for Held<'_> {
    fn push_derived(&mut self, windowed: usize, value: i64) {
        self.1[windowed].push(self.2, value);
    }

    fn stats(&self, windowed: usize) -> Option<WindowStats> {
        self.1[windowed].stats(self.0.class().quantity_scale(self.0.windowed()[windowed]))
    }
}

/// Judges a batch by columns, and each row anew by the scalar evaluation that explanations use: same bits.
fn check(id: &str, seed: u64, rows: usize, machines: usize, own: &[MachineSettings]) {
    let class = class(id);
    let program = Program::new(Arc::clone(&class));
    let batch = batch(&class, seed, rows, machines);
    let resolved: Vec<Settings> = std::iter::once(Settings::resolve(&class, None))
        .chain(own.iter().map(|own| Settings::resolve(&class, Some(own))))
        .collect();
    let settings: Vec<&Settings> = (0..machines).map(|nth| &resolved[nth % resolved.len()]).collect();
    let mut out = Verdicts::default();
    // A buffer that held another batch before.
    program.judge(&self::batch(&class, seed + 7, rows / 2 + 1, machines), &settings, &mut out);
    program.judge(&batch, &settings, &mut out);
    let mut windows: Vec<Vec<Window>> = vec![vec![Window::new(); program.windowed().len()]; machines];
    for row in 0..rows {
        let machine = batch.machine[row] as usize;
        let us = batch.timestamp_us[row];
        for (place, quantity) in program.windowed().iter().enumerate() {
            match quantity {
                Quantity::Channel(at) if !out.channels[*at][row].is_nan() => {
                    windows[machine][place].push(us, batch.values[*at][row])
                }
                _ => windows[machine][place].advance(us),
            }
        }
        if program.needs_windows() {
            program.judge_windowed(
                &batch,
                row,
                settings[machine],
                &mut Held(&program, &mut windows[machine], us),
                &mut out,
            );
        }
        let attributes: Vec<Option<u8>> =
            (0..class.attributes.len()).map(|at| attribute_of(&batch, row, settings[machine], at)).collect();
        let stats = |quantity: Quantity| {
            let place = program.windowed().iter().position(|&windowed| windowed == quantity)?;
            windows[machine][place].stats(class.quantity_scale(quantity))
        };
        let evidence = Evidence {
            class: &class,
            machine: "m",
            settings: settings[machine],
            values: &batch.values.iter().map(|column| column[row]).collect::<Vec<_>>(),
            quality: batch.quality_of(row),
            attributes: &attributes,
            attribute_given: &vec![true; attributes.len()],
            windows: &stats,
            normal: &|_| None,
        };
        let present = Present::of(&evidence);
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        for (at, value) in present.channels.iter().enumerate() {
            assert!(same(out.channels[at][row], *value), "row {row} {}", class.channels[at].id);
        }
        for (at, value) in present.derived.iter().enumerate() {
            assert!(
                same(out.derived[at][row], *value),
                "row {row} {}: {} {value}",
                class.derived[at].id,
                out.derived[at][row]
            );
        }
        let value = |quantity| present.value(quantity);
        for (bit, slot) in program.slots().iter().enumerate() {
            let level = &class.laws[slot.law].levels[slot.level];
            let want = logic::judge(&level.logic, &settings[machine].limits[bit], value, |at| attributes[at]);
            let got = [out.judged[row], out.broken[row], out.held[row]].map(|bits| bits >> bit & 1 == 1);
            assert_eq!(got, [want.judged, want.broken, want.held], "row {row} {slot:?}");
            assert!(!want.broken || want.held);
        }
        for (law, of) in class.laws.iter().enumerate() {
            let judge =
                |when| logic::judge(when, &settings[machine].when_limits[law], value, |at| attributes[at]).broken;
            assert_eq!(out.when[row] >> law & 1 == 1, of.when.as_ref().is_none_or(judge), "row {row} {}", of.id);
        }
        let state = state_of(&class, settings[machine], value, |at| attributes[at]);
        assert_eq!(out.state[row], state.map_or(ReadingBatch::NONE, |state| state as u8), "row {row}");
    }
}

fn own(parameters: &[(&str, f64)], limits: &[(&str, f64)], attributes: &[(&str, &str)]) -> MachineSettings {
    let words =
        |pairs: &[(&str, f64)]| pairs.iter().map(|(id, value)| ((*id).to_owned(), *value)).collect::<BTreeMap<_, _>>();
    MachineSettings {
        class: None,
        parameters: words(parameters),
        limits: words(limits),
        attributes: attributes.iter().map(|(id, word)| ((*id).to_owned(), (*word).to_owned())).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn columns_and_rows_give_the_same_bits(seed in 1u64..1 << 40, rows in 1usize..900, machines in 1usize..5) {
        check("mill", seed, rows, machines, &[]);
        check("pump", seed, rows, machines, &[]);
        check("press", seed, rows, machines, &[]);
    }

    #[test]
    fn machines_of_their_own_settings_too(seed in 1u64..1 << 40, rows in 1usize..900) {
        check("mill", seed, rows, 3, &[own(&[], &[("overstrain.strain_min_nm", 9000.0)], &[("product_type", "H")])]);
        check("pump", seed, rows, 3, &[own(&[("i_rated", 38.0)], &[("vibration.warning.vib_mm_s", 3.0)], &[("category", "I")])]);
        check("press", seed, rows, 3, &[own(&[("v_min", 7.0), ("factor", 0.5)], &[], &[("grade", "b")])]);
    }
}

#[test]
fn the_mill_judges_in_doubles_of_the_decimals() {
    let class = class("mill");
    let program = Program::new(Arc::clone(&class));
    let settings = Settings::resolve(&class, None);
    let mut batch = ReadingBatch::new(Arc::clone(&class));
    batch.machines.push(MachineId::try_from("m").expect("short"));
    // Both differences are 8.6 in decimals; the first is below it in IEEE doubles (data/AI4I.md).
    for (air, process) in [(30230, 31090), (30240, 31100)] {
        batch.machine.push(0);
        batch.timestamp_us.push(0);
        batch.index.push(0);
        for (column, value) in batch.values.iter_mut().zip([air, process, 1350, 4000, 0]) {
            column.push(value);
        }
    }
    let mut out = Verdicts::default();
    program.judge(&batch, &[&settings], &mut out);
    assert_eq!(out.broken.iter().map(|bits| bits & 1).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(out.state, [State::Running as u8; 2]);
    assert!(!program.needs_windows());
    assert_eq!(program.windowed(), [Quantity::Channel(1), Quantity::Channel(2)]);
}

#[test]
fn slots_know_their_channels() {
    let class = class("pump");
    let program = Program::new(Arc::clone(&class));
    let of = |id: &str| program.slots_of_channel(class.channel_index(id).expect("it is there"));
    let law = |id: &str| {
        let at = class.law_index(id).expect("it is there");
        program
            .slots()
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.law == at)
            .fold(0, |bits, (bit, _)| bits | 1u64 << bit)
    };
    assert_eq!(of("vib_mm_s"), law("vibration") | law("vibration_change"));
    assert_eq!(of("suction_bar"), law("cavitation"));
    assert_eq!(of("motor_current_a"), law("dry_run") | law("motor_overload") | law("efficiency_loss"));
    assert_eq!(of("ambient_temp_c"), 0);
    assert!(program.needs_windows());
}
