//! A cluster without a disk driver: the copy is attached to another node of the pool for as long as it is cleaned.

use std::collections::BTreeMap;

use kamino_wf::{
    cloud::{DiskState, Orchestration},
    model::{Attach, Capture, InstanceId},
    policy::canary::{Canary, Limits},
    sim::{Faults, Outcome, Scene, Session, World, spec},
    steps::Helper,
};

use crate::harness::{done, points, run, state, trouble};

fn scene() -> Scene {
    Scene { attach: Attach::Instance { path: "/dev/disk/azure/scsi1/lun{lun}".into() }, ..Scene::nominal() }
}

fn run_in(scene: &Scene, change: impl FnOnce(&mut World)) -> (Outcome, Session) {
    run(scene, |session| change(&mut session.shared.world()))
}

fn helper(outcome: &Outcome) -> Helper {
    let helper = &outcome.run.as_ref().expect("a run").outputs["ChooseHelper"];
    serde_json::from_value(helper.clone()).expect("a helper")
}

fn why(outcome: &Outcome) -> String {
    outcome.summary.as_ref().and_then(|summary| summary.why.clone()).unwrap_or_default()
}

#[test]
fn the_copy_is_attached_to_another_node_and_detached_again() {
    for orchestration in [Orchestration::Uniform, Orchestration::Flexible] {
        for canary in [Canary::None, Canary::FirstNode(Limits::default())] {
            let what = format!("{orchestration:?}, {canary:?}");
            let adopted = canary != Canary::None;
            let (outcome, session) = run(&Scene { orchestration, canary, adopted, ..scene() }, |_| {});
            assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
            assert!(done(&outcome), "{what}: {}\n{}", why(&outcome), outcome.log.join("\n"));
            let Helper { instance, lun, at } = helper(&outcome);
            let donor = &outcome.run.as_ref().expect("a run").outputs["RankNodes"]["donor"];
            let of_donor = InstanceId::parse(donor["instance"].as_str().expect("an id")).expect("an instance");
            assert_ne!(instance, of_donor, "{what}: the donor is only read");
            assert_eq!((lun, at.path.as_str()), (63, "/dev/disk/azure/scsi1/lun63"), "{what}");
            let world = session.shared.world();
            let asked: Vec<(&str, &str)> = world.accepted.iter().map(|it| (it.verb, it.key.as_str())).collect();
            let (attach, detach) = (("begin_attach", instance.key()), ("begin_detach", instance.key()));
            let at = |(verb, key): &(&str, String)| asked.iter().position(|it| *it == (*verb, key.as_str()));
            let pod = asked.iter().position(|(verb, _)| *verb == "create_pod");
            let gone = asked.iter().position(|(verb, _)| *verb == "delete_volume");
            assert!(at(&attach) < pod && pod < gone && gone < at(&detach), "{what}: {asked:#?}");
            assert!(world.attachments.is_empty() && world.instances.values().all(|it| it.luns.is_empty()), "{what}");
        }
    }
}

#[test]
fn a_number_that_is_taken_is_not_chosen_and_the_driver_is_asked_for_nothing() {
    let (outcome, _) = run_in(&scene(), |world| world.instances.values_mut().for_each(|it| it.luns = vec![0, 63, 62]));
    assert!(done(&outcome) && outcome.violations.is_empty(), "{}: {:#?}", why(&outcome), outcome.violations);
    assert_eq!(helper(&outcome).lun, 61);
    let volume = outcome.run.expect("a run").inputs["CleanCopy"].clone();
    assert_eq!(volume["at"]["path"], "/dev/disk/azure/scsi1/lun61", "{volume}");
}

#[test]
fn where_no_other_node_can_help_the_run_is_undone_and_says_why_of_each() {
    type Change = fn(&mut World);
    let rows: [(Change, &str); 5] = [
        (|world| world.nodes.iter_mut().skip(1).for_each(|it| it.zone = Some("3".into())), "it is in another zone"),
        (|world| world.nodes.iter_mut().skip(1).for_each(|it| it.unschedulable = true), "it is cordoned"),
        (|world| world.nodes.iter_mut().skip(1).for_each(|it| it.taints = vec!["dedicated".into()]), "it is tainted"),
        (|world| world.nodes.truncate(1), "it is the donor"),
        (|world| world.instances.values_mut().for_each(|it| it.luns = (0..64).collect()), "has 64 data disks"),
    ];
    for (change, words) in rows {
        // The first is the donor, whatever else is wrong with the others.
        let (outcome, session) = run_in(&scene(), |world| {
            let long_ago = world.nodes[0].ready_since;
            world
                .nodes
                .iter_mut()
                .skip(1)
                .for_each(|it| it.ready_since = long_ago.map(|at| at - jiff::SignedDuration::from_hours(500)));
            change(world);
        });
        assert_eq!(state(&outcome), "undone", "{words}: {}", why(&outcome));
        assert!(why(&outcome).contains("KW0237") && why(&outcome).contains(words), "{words}: {}", why(&outcome));
        assert!(outcome.violations.is_empty(), "{words}: {:#?}", outcome.violations);
        let made = ["begin_snapshot", "begin_copy_disk", "begin_attach"];
        assert!(
            !session.shared.world().accepted.iter().any(|it| made.contains(&it.verb)),
            "{words}: nothing was captured"
        );
    }
}

#[test]
fn a_crash_at_any_point_changes_nothing() {
    let places = points(&scene());
    println!("{} crash points", places.len());
    assert!(places.len() >= 200, "only {} crash points", places.len());
    let captured = |place: &str| !place.contains("version");
    for (number, place) in (1_u64..).zip(&places).filter(|(_, place)| captured(place)) {
        let (outcome, _) = run(&scene(), |session| session.shared.crash.arm(number));
        assert_eq!(outcome.crashes, 1, "point {number} ({place}) must be passed");
        assert!(
            outcome.violations.is_empty() && done(&outcome),
            "crash at point {number} ({place}): {:#?} {}\n{}",
            outcome.violations,
            why(&outcome),
            outcome.log.join("\n")
        );
    }
}

#[test]
fn a_cancel_at_any_point_leaves_no_disk_and_nobody_with_it() {
    let places = points(&scene());
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for (number, place) in (1_u64..).zip(&places).step_by(2) {
        let (outcome, session) = run(&scene(), |session| session.cancel_at = Some(number));
        assert!(outcome.violations.is_empty(), "cancel at {number} ({place}): {:#?}", outcome.violations);
        let world = session.shared.world();
        let ours = |disk: &kamino_wf::cloud::Disk| disk.run.is_some() && disk.state == DiskState::Attached;
        assert!(world.attachments.is_empty(), "cancel at {number} ({place}): {:?}", world.attachments);
        assert!(!world.disks.values().any(|it| ours(&it.value)), "cancel at {number} ({place})");
        *ends.entry(state(&outcome)).or_default() += 1;
    }
    assert!(ends.get("cancelled").is_some_and(|it| *it > 50) && ends.contains_key("done"), "{ends:?}");
}

#[test]
fn bad_days_break_nothing() {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..60 {
        let scene = Scene { attach: scene().attach, ..Scene::of_seed(seed, Faults::bad_day()) };
        let (outcome, _) = run(&scene, |session| {
            trouble(session, seed);
        });
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
        *ends.entry(state(&outcome)).or_default() += 1;
    }
    println!("60 seeds ended: {ends:?}");
    assert!(ends.get("done").is_some_and(|count| *count > 20), "{ends:?}");
}

#[test]
fn a_run_by_the_driver_stores_nothing_of_it() {
    let stored = serde_json::to_string(&spec(&Scene::nominal())).expect("JSON");
    assert!(!stored.contains("attach"), "an older release can read it: {stored}");
    let (outcome, _) = run(&Scene { capture: Capture::Stop, ..scene() }, |_| {});
    assert!(done(&outcome) && outcome.violations.is_empty(), "there is no copy to attach: {:#?}", outcome.violations);
}
