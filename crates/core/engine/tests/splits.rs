//! The same records in any split into batches, with a crash and a restore anywhere: bit-identical effects.

use crate::{
    journal::{Journal, lives},
    lots::Lots,
    occurrences::Occurrences,
    readings::{self, Record},
    scenario::{Scenario, Step},
    shapes,
};
use engine::{Effects, Engine, Input};
use std::{collections::BTreeMap, sync::Arc};

const SEEDS: u64 = 1000;
const THREADS: u64 = 2;

#[test]
fn any_split_and_any_crash_gives_the_same_effects() {
    let (found, failed) = std::thread::scope(|scope| {
        let share = |thread| scope.spawn(move || check_all((0..SEEDS).filter(|seed| seed % THREADS == thread)));
        let threads: Vec<_> = (0..THREADS).map(share).collect();
        let shares = threads.into_iter().map(|thread| thread.join().expect("a failing seed is caught"));
        shares.fold((Occurrences::default(), Vec::new()), |(found, failed), (more, others)| {
            (found.sum(more), [failed, others].concat())
        })
    });
    println!("occurrences over {SEEDS} seeds:\n{found}");
    assert_eq!(failed, [0; 0], "seeds failed, see above why");
    found.assert_none_is_missing();
}

/// Checks some seeds; gives up after the third that fails.
fn check_all(seeds: impl Iterator<Item = u64>) -> (Occurrences, Vec<u64>) {
    let (mut found, mut failed) = (Occurrences::default(), Vec::new());
    for seed in seeds {
        let passed = std::panic::catch_unwind(|| {
            let mut found = Occurrences::default();
            check(seed, &mut found);
            found
        });
        match passed {
            Ok(more) => found = found.sum(more),
            Err(_) => failed.push(seed),
        }
        if failed.len() == 3 {
            break;
        }
    }
    (found, failed)
}

/// A seed is the same for ever.
fn check(seed: u64, found: &mut Occurrences) {
    let scenario = Scenario::new(seed);
    let (plain, engine) = plainly(&scenario);
    let at_end = lives(&engine, true);

    let (split, in_batches) = in_batches(&scenario, &mut Lots::new(seed, 2), found);
    plain.assert_same(&split, &format!("seed {seed}, in batches"));
    assert_eq!(plain.touched, split.touched, "seed {seed}: touched");
    assert_lives(&at_end, &lives(&in_batches, true), &format!("seed {seed}, in batches"));

    let (crashed, after_crash) = with_crashes(&scenario, &mut Lots::new(seed, 3), found);
    let apart = plain.clone().without_no_data();
    apart.assert_same(&crashed.without_no_data(), &format!("seed {seed}, through crashes"));
    assert_lives(&lives(&engine, false), &lives(&after_crash, false), &format!("seed {seed}, through crashes"));

    shapes::check(&plain.alerts, &scenario.catalogues, &format!("seed {seed}"));
    found.count(&scenario, &plain);
}

#[track_caller]
fn assert_lives(left: &[String], right: &[String], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}: machines");
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right, "{what}: live view");
    }
}

/// Whom the wall clock may accuse: one machine in four was confirmed by nobody.
fn confirmed(machine: &str) -> bool {
    !machine.ends_with(['3', '7'])
}

fn apply(engine: &mut Engine, step: &Step, effects: &mut Effects) {
    match step {
        Step::Record(record) => engine.apply(Input::Readings(&readings::batch(&[record])), effects),
        Step::Use(catalogue) => engine.apply(Input::Use { catalogue: catalogue.clone() }, effects),
        Step::Silence(now_us) => engine.apply(Input::Silence { now_us: *now_us, confirmed: &confirmed }, effects),
    }
}

/// One batch a record, no crash.
fn plainly(scenario: &Scenario) -> (Journal, Engine) {
    let mut engine = Engine::new(scenario.partition, scenario.first.clone());
    let mut journal = Journal::default();
    for step in &scenario.steps {
        let mut effects = Effects::default();
        apply(&mut engine, step, &mut effects);
        journal.take(effects);
        if let Step::Record(record) = step {
            assert_eq!(engine.next_offset(), record.offset + 1);
        }
    }
    (journal, engine)
}

/// The steps from one on that one batch can hold.
fn run_of<'a>(steps: &'a [Step], lots: &mut Lots) -> Vec<&'a Record> {
    let mut run: Vec<&Record> = Vec::new();
    let goes_on = lots.percent(85);
    for step in steps {
        let Step::Record(record) = step else { break };
        let fits = run.last().is_none_or(|last| Arc::ptr_eq(&last.class, &record.class) && !last.ends_refused());
        if !fits || record.rows.is_empty() && !run.is_empty() || !run.is_empty() && (!goes_on || lots.percent(10)) {
            break;
        }
        run.push(record);
    }
    run
}

/// Several records a batch, several batches a commit.
fn in_batches(scenario: &Scenario, lots: &mut Lots, found: &mut Occurrences) -> (Journal, Engine) {
    let mut engine = Engine::new(scenario.partition, scenario.first.clone());
    let (mut journal, mut effects) = (Journal::default(), Effects::default());
    let mut at = 0;
    while at < scenario.steps.len() {
        let run = run_of(&scenario.steps[at..], lots);
        if run.is_empty() {
            apply(&mut engine, &scenario.steps[at], &mut effects);
            at += 1;
        } else {
            found.add("batches of several records", u64::from(run.len() > 1));
            engine.apply(Input::Readings(&readings::batch(&run)), &mut effects);
            at += run.len();
        }
        if lots.percent(30) {
            journal.take(std::mem::take(&mut effects));
        }
    }
    journal.take(effects);
    (journal, engine)
}

/// Snapshots here and there; crashes that throw away what was not committed; what was committed is never said again.
fn with_crashes(scenario: &Scenario, lots: &mut Lots, found: &mut Occurrences) -> (Journal, Engine) {
    let mut engine = Engine::new(scenario.partition, scenario.first.clone());
    let mut journal = Journal::default();
    let mut slabs: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    // Steps whose effects are committed, and the step to apply next: behind it while a restored engine catches up.
    let (mut committed, mut at) = (0, 0);
    // Of 500 chances each, two a batch; of 100. Where crashes are many the last snapshot is near.
    let (crash_share, snapshot_share) = *lots.pick(&[(1, 2), (2, 5), (4, 8), (40, 40)]);
    while at < scenario.steps.len() {
        let run = run_of(&scenario.steps[at..], lots);
        let mut effects = Effects::default();
        let steps = run.len().max(1);
        match &scenario.steps[at] {
            Step::Record(_) => engine.apply(Input::Readings(&readings::batch(&run)), &mut effects),
            // The clock does not strike again.
            Step::Silence(_) if at < committed => {}
            step => apply(&mut engine, step, &mut effects),
        }
        if lots.below(500) < crash_share {
            // Before the commit.
            (engine, at) = restore(scenario, &slabs, committed, found);
            continue;
        }
        journal.take(effects);
        at += steps;
        committed = committed.max(at);
        if at == committed && lots.percent(snapshot_share) {
            slabs.extend(engine.snapshot());
        }
        if lots.below(500) < crash_share {
            // After the commit.
            (engine, at) = restore(scenario, &slabs, committed, found);
        }
    }
    (journal, engine)
}

/// An engine as a restart makes it, and the step that it must be given first.
fn restore(
    scenario: &Scenario,
    slabs: &BTreeMap<u32, Vec<u8>>,
    committed: usize,
    found: &mut Occurrences,
) -> (Engine, usize) {
    let slabs: Vec<(u32, Vec<u8>)> = slabs.iter().map(|(number, bytes)| (*number, bytes.clone())).collect();
    let next_offset = scenario.steps[..committed].iter().rev().find_map(|step| match step {
        Step::Record(record) => Some(record.offset + 1),
        _ => None,
    });
    let next_offset = next_offset.unwrap_or(0);
    let catalogues = |hash: &str| scenario.catalogues.get(hash).cloned();
    found.add("crashes", 1);
    let mut engine = if slabs.is_empty() {
        found.add("crashes before any snapshot", 1);
        Engine::new(scenario.partition, scenario.first.clone())
    } else {
        let from = |catalogue| {
            Engine::restore(scenario.partition, catalogue, &slabs, &catalogues).expect("what we wrote is readable")
        };
        let offset = from(scenario.first.clone()).replay_from();
        from(scenario.catalogue_at(offset))
    };
    engine.silent_below(next_offset);
    let from = engine.replay_from();
    assert!(from <= next_offset, "a snapshot is never ahead of what is committed");
    let at = scenario.steps.iter().position(|step| matches!(step, Step::Record(record) if record.offset >= from));
    let at = at.unwrap_or(scenario.steps.len());
    let replayed = &scenario.steps[at.min(committed)..committed];
    found.add(
        "records replayed in silence",
        replayed.iter().filter(|step| matches!(step, Step::Record(_))).count() as u64,
    );
    found.add("replays across a switch", u64::from(replayed.iter().any(|step| matches!(step, Step::Use(_)))));
    (engine, at)
}
