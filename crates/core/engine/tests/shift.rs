//! Hours of healthy work raise no alarm, and stops change nothing of what faults raise.

use crate::{line::Line, lots::Lots, shapes};
use plant::Mode;
use std::collections::BTreeMap;

const SHIFT_S: i64 = 8 * 3600;
const MILLS: usize = 10;

/// One profile of one machine: from second, for seconds.
type Plan = Vec<(usize, &'static str, i64, i64)>;

/// Twenty stops of half a minute to ten minutes, spread over the shift and the machines.
fn stops(seed: u64) -> Plan {
    let mut lots = Lots::new(seed, 20);
    (0..20)
        .map(|nth| (nth % MILLS, "stop", 600 + nth as i64 * 1300 + lots.between(0, 300), lots.between(30, 600)))
        .collect()
}

/// Runs a shift of healthy mills under a plan, whose entries of one machine do not overlap.
fn shift(seed: u64, mut plan: Plan) -> Line {
    plan.sort_by_key(|entry| entry.2);
    let mut line = Line::new("mill", MILLS as u32, seed, Mode::Healthy);
    for (machine, profile, from_s, for_s) in plan {
        // A machine is under one profile at a time, so each is given as it begins.
        line.run(from_s, |_| ());
        line.profile(machine, profile, from_s, for_s);
    }
    line.run(SHIFT_S, |_| ());
    line
}

#[test]
fn a_shift_with_stops_tool_changes_and_starts_raises_no_alarm() {
    let mut tool_changes = 0;
    for seed in 0..3 {
        let mut line = Line::new("mill", MILLS as u32, seed, Mode::Healthy);
        let mut wear: BTreeMap<String, i64> = BTreeMap::new();
        let mut plan = stops(seed);
        plan.sort_by_key(|entry| entry.2);
        let mut count = |batch: &wire::ReadingBatch| {
            for row in 0..batch.rows() {
                let now = batch.values[4][row];
                let before = wear.insert(batch.machine_of(row).to_string(), now);
                tool_changes += u32::from(before.is_some_and(|before| now < before));
            }
        };
        for (machine, profile, from_s, for_s) in plan {
            line.run(from_s, &mut count);
            line.profile(machine, profile, from_s, for_s);
        }
        line.run(SHIFT_S, &mut count);
        assert_eq!(line.alarms(), [], "seed {seed}");
        assert_eq!(line.alerts.len(), 0, "seed {seed}: tools are changed before the notice");
    }
    println!("{tool_changes} tool changes in 3 shifts");
    assert!(tool_changes > 30);
}

#[test]
fn a_shift_with_faults_raises_the_same_alarms_with_and_without_stops() {
    for seed in 0..2 {
        let stops = stops(seed);
        let mut lots = Lots::new(seed, 21);
        let mut faults: Plan = Vec::new();
        while faults.len() < 12 {
            let machine = lots.below(MILLS as u64) as usize;
            let (from_s, for_s) = (lots.between(100, SHIFT_S - 1500), lots.between(40, 200));
            // A fault with its tool change and clearing lies well apart from every stop and every other fault.
            let apart = |(other, _, from, duration): &(usize, &str, i64, i64)| {
                *other != machine || from_s + for_s + 400 < *from || *from + *duration + 400 < from_s
            };
            if stops.iter().chain(&faults).all(apart) {
                faults.push((
                    machine,
                    *lots.pick(&["overstrain", "overstrain", "power_failure", "heat_dissipation"]),
                    from_s,
                    for_s,
                ));
            }
        }
        let without = shift(seed, faults.clone());
        let with = shift(seed, [stops, faults.clone()].concat());
        println!("seed {seed}: {} alarm transitions of {} faults", with.alarms().len(), faults.len());
        assert_eq!(with.alarms(), without.alarms(), "seed {seed}");
        assert_eq!(with.alarms().len(), 2 * faults.len(), "seed {seed}: each fault is raised and cleared once");
        for (machine, condition, _, second) in with.alarms() {
            let during = |(at, profile, from, duration): &(usize, &str, i64, i64)| {
                with.plant.machines()[*at].as_str() == machine
                    && *profile == condition
                    && (*from..=*from + *duration + 200).contains(&second)
            };
            assert!(faults.iter().any(during), "seed {seed}: {condition} of {machine} at {second} s is no fault");
        }
        shapes::check(&with.alerts, &with.catalogues(), "a shift with faults");
    }
}

#[test]
fn a_pump_runs_a_day_without_an_alarm() {
    let mut line = Line::new("pump", 3, 1, Mode::Healthy);
    line.run(24 * 3600, |_| ());
    assert_eq!(line.alerts.iter().map(wire::Alert::to_json).collect::<Vec<_>>(), [""; 0]);
}
