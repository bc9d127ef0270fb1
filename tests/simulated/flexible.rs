//! A scale set with Flexible orchestration: its instances are machines of their own, whose ids do not say whose they are.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use kamino_wf::{
    cloud::{ImageRef, Instance, Orchestration},
    cluster::Node,
    model::{Capture, InstanceId, NodeName, Profile, ScaleSetId, VersionName},
    sim::{Faults, Outcome, Scene, Session, World, spec},
    steps::PrunePlan,
};
use serde_json::json;

use crate::harness::{done, points, run, state, trouble};

fn scene() -> Scene {
    Scene { orchestration: Orchestration::Flexible, ..Scene::nominal() }
}

/// A run in a world that is changed before it.
fn run_in(scene: &Scene, change: impl FnOnce(&mut World)) -> (Outcome, Session) {
    run(scene, |session| change(&mut session.shared.world()))
}

#[test]
fn a_whole_update_ends_well_whichever_way_the_disk_is_captured() {
    for capture in [Capture::Live, Capture::Stop] {
        for profile in [Profile::Kubeadm, Profile::AksEngine] {
            for adopted in [false, true] {
                let what = format!("{capture:?}, {profile}, adopted {adopted}");
                let (outcome, session) = run(&Scene { capture, profile: profile.clone(), adopted, ..scene() }, |_| {});
                assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
                assert!(done(&outcome), "{what}: {:#?}\n{}", outcome.summary, outcome.log.join("\n"));
                let donor = &outcome.run.as_ref().expect("a run").outputs["RankNodes"]["donor"];
                let instance = InstanceId::parse(donor["instance"].as_str().expect("an id")).expect("an instance");
                assert!(matches!(instance, InstanceId::Flexible(_)), "{what}: {instance}");
                // The orders went to the machine, under its own name.
                let world = session.shared.world();
                let orders = world.accepted.iter().filter(|it| it.verb.starts_with("begin_power_off"));
                let orders: Vec<&str> = orders.map(|it| it.key.as_str()).collect();
                let expected = if capture == Capture::Stop { vec![instance.key()] } else { vec![] };
                assert_eq!(orders, expected, "{what}");
            }
        }
    }
}

/// A node of another Flexible scale set, and one on a machine that stands alone, both patched after all of the pool's.
fn strangers(world: &mut World) {
    let like: Instance = world.instances.values().next().expect("an instance").clone();
    let node: Node = world.nodes[0].clone();
    let other = ScaleSetId::parse(&spec(&scene()).scale_set.to_string().replace("/pool1", "/xpool1")).expect("an id");
    let since = world.now() - SignedDuration::from_mins(90);
    for (name, member_of) in [("xpool1_1", Some(other)), ("alone", None)] {
        let id = like.id.to_string().replace(like.id.name(), name);
        let id = InstanceId::parse(&id).expect("an id");
        world.nodes.push(Node {
            name: NodeName::parse(&format!("stranger-{}", name.replace('_', "-"))).expect("a name"),
            uid: format!("uid of {name}"),
            provider_id: id.to_string().to_lowercase(),
            ready_since: Some(since),
            ..node.clone()
        });
        world.instances.insert(id.key(), Instance { id, member_of, ..like.clone() });
    }
}

#[test]
fn nodes_on_machines_of_others_are_none_of_the_pools() {
    let (outcome, _) = run_in(&scene(), strangers);
    assert!(done(&outcome) && outcome.violations.is_empty(), "{:#?}\n{}", outcome.violations, outcome.log.join("\n"));
    let ranked = &outcome.run.expect("a run").outputs["RankNodes"];
    let names: Vec<&str> =
        ranked["verdicts"].as_array().expect("verdicts").iter().filter_map(|it| it["node"].as_str()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("pool1-vmss")), "{names:?}");
}

#[test]
fn who_may_not_read_its_machines_touches_nothing_and_is_told_so() {
    let (outcome, session) = run_in(&scene(), |world| {
        world.forbidden.insert(("instances", spec(&scene()).scale_set.key()));
    });
    let why = outcome.summary.as_ref().and_then(|summary| summary.why.clone()).unwrap_or_default();
    assert_eq!(state(&outcome), "undone", "{why}");
    assert!(why.contains("AuthorizationFailed") && why.contains("instances pool1"), "{why}");
    assert!(session.shared.world().accepted.is_empty());
}

/// Machines are pruned around as instances are.
#[test]
fn a_version_that_one_of_its_machines_was_made_from_stays() {
    let scene = Scene { adopted: true, ..scene() };
    let oldest = {
        let spec = spec(&scene);
        let definition = spec.gallery.definition(&spec.definition).expect("a definition");
        definition.version(&VersionName::parse("2026.07.01000").expect("a version"))
    };
    for used in [false, true] {
        let (outcome, session) = run_in(&scene, |world| {
            let instance = world.instances.values_mut().next().expect("an instance");
            if used {
                instance.image = ImageRef::Version(oldest.clone());
            }
        });
        assert!(done(&outcome) && outcome.violations.is_empty(), "{:#?}", outcome.violations);
        assert_eq!(session.shared.world().versions.contains_key(&oldest.key()), used);
        let PrunePlan { verdicts } =
            serde_json::from_value(outcome.run.expect("a run").outputs["PlanPrune"].clone()).expect("a plan");
        let verdict = verdicts.iter().find(|verdict| verdict.version == oldest).expect("a verdict");
        assert_eq!(verdict.reason == "machine pool1_3f2a0000 uses it", used, "{verdict:?}");
    }
}

#[test]
fn an_upgrade_policy_that_is_shown_has_to_be_manual() {
    for (mode, good) in [("Manual", true), ("Rolling", false), ("Automatic", false)] {
        let (outcome, _) = run_in(&scene(), |world| {
            let set = world.scale_sets.get_mut(&spec(&scene()).scale_set.key()).expect("the pool");
            set.value["properties"]["upgradePolicy"] = json!({ "mode": mode });
        });
        assert!(outcome.violations.is_empty(), "{mode}: {:#?}", outcome.violations);
        let why = outcome.summary.as_ref().and_then(|summary| summary.why.clone()).unwrap_or_default();
        assert_eq!((done(&outcome), why.contains("KW0201")), (good, !good), "{mode}: {why}");
    }
}

#[test]
fn a_crash_at_every_third_point_changes_nothing() {
    for capture in [Capture::Live, Capture::Stop] {
        let scene = Scene { capture, ..scene() };
        let places = points(&scene);
        println!("{} crash points with {capture:?}", places.len());
        assert!(places.len() >= 200, "only {} crash points", places.len());
        let mut exercised: BTreeMap<&'static str, u64> = BTreeMap::new();
        // `update` and `stop` pass all of them; here it is how machines are named that differs.
        for (number, place) in (1_u64..).zip(&places).step_by(3) {
            let (outcome, session) = run(&scene, |session| session.shared.crash.arm(number));
            assert_eq!(outcome.crashes, 1, "{capture:?}, point {number} ({place}) must be passed");
            assert!(
                outcome.violations.is_empty() && done(&outcome),
                "{capture:?}, crash at point {number} ({place}): {:#?} {:#?}\n{}",
                outcome.violations,
                outcome.summary,
                outcome.log.join("\n")
            );
            for (name, times) in &session.shared.world().exercised {
                *exercised.entry(name).or_default() += times;
            }
        }
        let own: &[&str] = if capture == Capture::Stop { &["I2", "I6"] } else { &["donor"] };
        for name in ["I1", "I5", "I7", "I8", "I9", "I13", "end"].iter().chain(own) {
            assert!(exercised.get(name).is_some_and(|times| *times > 0), "{name} was never exercised: {exercised:?}");
        }
    }
}

#[test]
fn bad_days_break_nothing() {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..60 {
        let capture = if seed % 2 == 0 { Capture::Live } else { Capture::Stop };
        let scene =
            Scene { capture, orchestration: Orchestration::Flexible, ..Scene::of_seed(seed, Faults::bad_day()) };
        let (outcome, _) = run(&scene, |session| {
            trouble(session, seed);
        });
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
        *ends.entry(state(&outcome)).or_default() += 1;
    }
    println!("60 seeds ended: {ends:?}");
    assert!(ends.get("done").is_some_and(|count| *count > 20), "{ends:?}");
}
