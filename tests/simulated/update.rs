//! A whole update on the simulated world: nominal, crashed at every point, cancelled at every point, on bad days by seed.

use std::collections::BTreeMap;

use kamino_wf::{
    model::Profile,
    sim::{Faults, Scene, checkers},
};

use crate::harness::{done, points, run, trouble};

#[test]
fn a_nominal_update_ends_well_with_one_of_everything() {
    for profile in [Profile::Kubeadm, Profile::AksEngine] {
        for adopted in [false, true] {
            let scene = Scene { profile: profile.clone(), adopted, ..Scene::nominal() };
            let (outcome, _) = run(&scene, |_| {});
            assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
            assert!(done(&outcome), "{:#?}\n{}", outcome.summary, outcome.log.join("\n"));
        }
    }
}

#[test]
fn a_crash_at_any_point_of_the_nominal_update_changes_nothing() {
    let scene = Scene::nominal();
    let places = points(&scene);
    println!("{} crash points in the nominal update", places.len());
    assert!(places.len() >= 200, "only {} crash points", places.len());
    let mut exercised: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (number, place) in (1_u64..).zip(&places) {
        let (outcome, session) = run(&scene, |session| session.shared.crash.arm(number));
        assert_eq!(outcome.crashes, 1, "point {number} ({place}) must be passed");
        assert!(outcome.violations.is_empty(), "crash at point {number} ({place}): {:#?}", outcome.violations);
        assert!(
            done(&outcome),
            "crash at point {number} ({place}): {:#?}\n{}",
            outcome.summary,
            outcome.log.join("\n")
        );
        for (name, times) in session.shared.world().exercised.clone() {
            *exercised.entry(name).or_default() += times;
        }
    }
    for name in ["I1", "I3", "I4", "I5", "I7", "I8", "I9", "I12", "I13", "I16", "donor", "end"] {
        assert!(exercised.get(name).is_some_and(|times| *times > 0), "{name} was never exercised: {exercised:?}");
    }
}

#[test]
fn a_cancel_at_any_point_leaves_nothing_or_is_refused() {
    let scene = Scene::nominal();
    let places = points(&scene);
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for (number, place) in (1_u64..).zip(&places) {
        let (outcome, _) = run(&scene, |session| session.cancel_at = Some(number));
        assert!(
            outcome.violations.is_empty(),
            "cancel at point {number} ({place}): {:#?}\n{}",
            outcome.violations,
            outcome.log.join("\n")
        );
        let state = outcome.summary.map(|summary| summary.state).unwrap_or_default();
        assert!(["cancelled", "done"].contains(&state.as_str()), "cancel at point {number} ({place}) ended {state}");
        *ends.entry(state).or_default() += 1;
    }
    println!("cancelled at each of {} points: {ends:?}", places.len());
    assert!(ends.len() == 2, "some must be cancelled, and some be past the point of no return: {ends:?}");
}

#[test]
fn a_crash_after_every_single_event_changes_nothing() {
    for profile in [Profile::Kubeadm, Profile::AksEngine] {
        let scene = Scene { profile, ..Scene::nominal() };
        let (outcome, _) = run(&scene, |session| session.shared.crash.arm_every(1));
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
        assert!(done(&outcome) && outcome.crashes > 40, "{} crashes, {:#?}", outcome.crashes, outcome.summary);
    }
}

#[test]
fn bad_days_break_nothing() {
    let mut exercised: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..200 {
        let scene = Scene::of_seed(seed, Faults::bad_day());
        eprintln!("seed {seed}");
        let (outcome, session) = run(&scene, |session| {
            trouble(session, seed);
        });
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
        *ends.entry(outcome.summary.map(|summary| summary.state).unwrap_or_default()).or_default() += 1;
        for (name, times) in session.shared.world().exercised.clone() {
            *exercised.entry(name).or_default() += times;
        }
    }
    println!("200 seeds ended: {ends:?}; exercised: {exercised:?}");
    // Nobody is drained with `capture: live`: `stop.rs`.
    for name in checkers::names().into_iter().filter(|name| *name != "I10") {
        assert!(exercised.get(name).is_some_and(|times| *times > 0), "{name} was never exercised: {exercised:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_log_to_the_last_byte() {
    for seed in [1, 7, 42] {
        let scene = Scene::of_seed(seed, Faults::bad_day());
        let (first, _) = run(&scene, |session| session.shared.crash.arm_every(3));
        let (second, _) = run(&scene, |session| session.shared.crash.arm_every(3));
        assert_eq!(first.log, second.log, "seed {seed}");
    }
}
