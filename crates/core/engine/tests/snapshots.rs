//! A snapshot that cannot be read says so; it never gives an engine that is wrong.

use crate::{
    lots::Lots,
    readings,
    scenario::{Scenario, Step},
};
use engine::{Effects, Engine, Input, SnapshotError};

fn engine_of(scenario: &Scenario) -> Engine {
    let mut engine = Engine::new(scenario.partition, scenario.first.clone());
    for step in &scenario.steps {
        let mut effects = Effects::default();
        match step {
            Step::Record(record) => engine.apply(Input::Readings(&readings::batch(&[record])), &mut effects),
            Step::Use(catalogue) => engine.apply(Input::Use { catalogue: catalogue.clone() }, &mut effects),
            Step::Silence(now_us) => {
                engine.apply(Input::Silence { now_us: *now_us, confirmed: &|_| true }, &mut effects)
            }
        }
    }
    engine
}

#[test]
fn a_damaged_snapshot_is_told_and_never_read() {
    let scenario = Scenario::new(5);
    let slabs = engine_of(&scenario).snapshot();
    assert!(!slabs.is_empty());
    let catalogues = |hash: &str| scenario.catalogues.get(hash).cloned();
    let restore =
        |slabs: &[(u32, Vec<u8>)]| Engine::restore(scenario.partition, scenario.first.clone(), slabs, &catalogues);
    assert!(restore(&slabs).is_ok());
    let mut lots = Lots::new(1, 9);
    for (at, (number, bytes)) in slabs.iter().enumerate() {
        for _ in 0..200 {
            let mut damaged = slabs.clone();
            let place = lots.below(bytes.len() as u64) as usize;
            if lots.percent(50) {
                damaged[at].1.truncate(place);
            } else {
                damaged[at].1[place] ^= 1 << lots.below(8);
            }
            let error = restore(&damaged).err();
            assert!(error.is_some(), "slab {number} with byte {place} damaged was read");
        }
    }
}

#[test]
fn a_snapshot_under_a_catalogue_that_is_not_stored_is_told() {
    let scenario = Scenario::new(6);
    let slabs = engine_of(&scenario).snapshot();
    let error = Engine::restore(scenario.partition, scenario.first.clone(), &slabs, &|_| None).err();
    assert!(matches!(error, Some(SnapshotError::NoCatalogue { .. })), "{error:?}");
}

#[test]
fn a_slab_that_did_not_change_is_not_written_again() {
    let scenario = Scenario::new(7);
    let mut engine = engine_of(&scenario);
    assert!(!engine.snapshot().is_empty());
    assert!(engine.snapshot().iter().all(|(number, _)| *number == u32::MAX), "machines changed by themselves");
}
