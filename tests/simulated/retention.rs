//! Which image versions go, over everything that may change or break between the plan and the deletion.

mod history;
mod person;
mod sweeps;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use kamino_wf::{
    cloud::{ImageRef, Instance, Machine, Version},
    model::{InstanceId, ResourceId, ScaleSetId, VersionId, VersionName},
    policy::{provenance::PINNED, retention::Because},
    sim::{Outcome, Scene, Session, Stop, World, spec},
    steps::PrunePlan,
    workflow::{self, Event, RunState},
};

use crate::harness::simulated;

/// Two versions of kamino's, four of ours; the update makes a seventh, three are kept: two go.
fn later() -> Scene {
    Scene { adopted: true, ..Scene::nominal() }
}

const OLDEST: &str = "2026.07.01000";
const OLDER: &str = "2026.08.01000";

fn version_id(name: &str) -> VersionId {
    let spec = spec(&later());
    let definition = spec.gallery.definition(&spec.definition).expect("a definition");
    definition.version(&VersionName::parse(name).expect("a version"))
}

fn version<'a>(world: &'a mut World, name: &str) -> &'a mut Version {
    &mut world.versions.get_mut(&version_id(name).key()).expect("the version").value
}

fn there(world: &World, name: &str) -> bool {
    world.versions.contains_key(&version_id(name).key())
}

/// An update in a world that is changed before it, or as soon as a step is done.
fn update(at: Option<&'static str>, change: impl Fn(&mut World) + Send + Sync + 'static) -> (Outcome, Arc<Session>) {
    simulated(async || {
        let session = Session::new(later());
        let shared = Arc::clone(&session.shared);
        let times = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&times);
        if at.is_none() {
            change(&mut shared.world());
            counted.fetch_add(1, Ordering::Relaxed);
        }
        let session = session.watched(Arc::new(move |_, line| {
            if at.is_some() && line.step.as_deref() == at && matches!(line.event, Event::Confirmed { .. }) {
                change(&mut shared.world());
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        assert_eq!(times.load(Ordering::Relaxed), 1, "the moment {at:?} must have come once");
        assert!(outcome.violations.is_empty(), "{:#?}\n{}", outcome.violations, outcome.log.join("\n"));
        let run = outcome.run.as_ref().expect("a run");
        assert_eq!(run.state, RunState::Ended(workflow::Outcome::Done), "{}", outcome.log.join("\n"));
        (outcome, Arc::new(session))
    })
}

fn warnings(outcome: &Outcome) -> String {
    outcome.run.as_ref().expect("a run").warnings.join("\n")
}

fn plan(outcome: &Outcome) -> PrunePlan {
    let run = outcome.run.as_ref().expect("a run");
    serde_json::from_value(run.outputs["PlanPrune"].clone()).expect("a plan")
}

#[test]
fn the_plan_has_a_reason_for_each_version() {
    let (outcome, session) = update(None, |_| {});
    let PrunePlan { verdicts } = plan(&outcome);
    let because: Vec<Because> = verdicts.iter().filter_map(|verdict| verdict.because).collect();
    let expected = [
        Because::Newest,
        // Instances were made from it.
        Because::InUse,
        Because::Newest,
        Because::Excess,
        Because::Excess,
        Because::Kamino,
        Because::Kamino,
    ];
    assert_eq!(because, expected, "{verdicts:#?}");
    let world = session.shared.world();
    assert!(!there(&world, OLDEST) && !there(&world, OLDER) && there(&world, "2026.03.01"));
    assert_eq!(warnings(&outcome), "");
}

/// Somebody changes something between the plan and the first deletion: each is seen, and only what is still right goes.
#[test]
fn what_changes_between_plan_and_deletion_is_seen() {
    type Change = fn(&mut World);
    let rows: [(&str, Change, [bool; 2], &str); 6] = [
        (
            "an instance is made from it",
            |world| {
                let instance = world.instances.values_mut().next().expect("an instance");
                instance.image = ImageRef::Version(version_id(OLDEST));
            },
            [true, false],
            "instance pool1/0 uses it",
        ),
        (
            "an instance of another pool, which does not follow the definition",
            |world| {
                let neighbour = ScaleSetId::parse(&spec(&later()).scale_set.to_string().replace("/pool1", "/xpool1"));
                let id = InstanceId::parse(&format!("{}/virtualMachines/7", neighbour.expect("an id"))).expect("an id");
                let like = world.instances.values().next().expect("an instance").clone();
                let value = Instance { id: id.clone(), image: ImageRef::Version(version_id(OLDEST)), ..like };
                world.instances.insert(id.key(), value);
            },
            [true, false],
            "instance xpool1/7 uses it",
        ),
        (
            "a machine of its own",
            |world| {
                let set = spec(&later()).scale_set;
                let (subscription, group) = (set.subscription(), set.resource_group());
                let id = format!(
                    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/bastion"
                );
                let id = ResourceId::parse(&id).expect("an id");
                world.virtual_machines.push(Machine { id, image: ImageRef::Version(version_id(OLDER)) });
            },
            [false, true],
            "machine bastion uses it",
        ),
        (
            "a person pins it",
            |world| {
                version(world, OLDEST).tags.insert(PINNED.into(), "by ann".into());
            },
            [true, false],
            "it is pinned (by ann)",
        ),
        (
            "newer ones are taken back: the old ones are needed as a way back",
            |world| {
                for name in ["2026.09.01000", "2026.10.01000"] {
                    version(world, name).excluded_from_latest = true;
                }
            },
            [true, true],
            "it is among the newest published",
        ),
        (
            "a model points at it",
            |world| {
                let own = spec(&later()).scale_set.key();
                let other = world.scale_sets.iter_mut().find(|(key, _)| **key != own).expect("the neighbour").1;
                other.value["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] =
                    serde_json::json!({ "id": version_id(OLDER).as_str() });
            },
            [false, true],
            "the model of scale set xpool1 uses it",
        ),
    ];
    for (what, change, stay, words) in rows {
        let (outcome, session) = update(Some("PlanPrune"), change);
        let world = session.shared.world();
        assert_eq!([there(&world, OLDEST), there(&world, OLDER)], stay, "{what}\n{}", outcome.log.join("\n"));
        let warnings = warnings(&outcome);
        assert!(warnings.contains("PruneVersions: KW0250") && warnings.contains(words), "{what}: {warnings}");
    }
}

#[test]
fn a_lock_and_a_policy_are_skipped_and_reported_and_the_others_go() {
    for code in ["ScopeLocked", "RequestDisallowedByPolicy"] {
        let (outcome, session) = update(None, move |world| {
            world.locked.insert(version_id(OLDEST).key(), code);
        });
        let world = session.shared.world();
        assert!(there(&world, OLDEST) && !there(&world, OLDER), "{}", outcome.log.join("\n"));
        let warnings = warnings(&outcome);
        for word in ["PruneVersions: KW0501", OLDEST, code] {
            assert!(warnings.contains(word), "no {word:?} in {warnings}");
        }
    }
}

#[test]
fn while_somebody_may_not_be_looked_at_nothing_goes() {
    let (outcome, session) = update(None, |world| {
        let neighbour = spec(&later()).scale_set.key().replace("/pool1", "/xpool1");
        world.forbidden.insert(("instances", neighbour));
    });
    let PrunePlan { verdicts } = plan(&outcome);
    assert!(verdicts.iter().all(|verdict| !verdict.delete), "{verdicts:#?}");
    let of_oldest = verdicts.iter().find(|verdict| verdict.version.name() == OLDEST).expect("a verdict");
    assert_eq!(of_oldest.because, Some(Because::Unseen));
    assert!(of_oldest.reason.contains("scale set xpool1") && of_oldest.reason.contains("AuthorizationFailed"));
    assert!(there(&session.shared.world(), OLDEST));
    assert_eq!(warnings(&outcome), "", "nothing was to be done, and nothing failed");
}

/// The right to read machines is needed only where a Flexible scale set follows the definition.
#[test]
fn machines_that_may_not_be_read_matter_where_a_flexible_scale_set_follows() {
    let deny = |world: &mut World| {
        world.forbidden.insert(("machines", String::new()));
    };
    let (_, session) = update(None, deny);
    assert!(!there(&session.shared.world(), OLDEST), "no Flexible scale set follows");
    let (outcome, session) = update(None, move |world| {
        deny(world);
        let spec = spec(&later());
        let definition = spec.gallery.definition(&spec.definition).expect("a definition");
        let own = spec.scale_set.key();
        let other = world.scale_sets.iter_mut().find(|(key, _)| **key != own).expect("the neighbour").1;
        other.value["properties"]["orchestrationMode"] = "Flexible".into();
        other.value["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] =
            serde_json::json!({ "id": definition.as_str() });
    });
    assert!(there(&session.shared.world(), OLDEST), "{}", outcome.log.join("\n"));
}

/// From the plan to the end, with one version locked: killed at every point, it goes on where it was.
#[test]
fn a_crash_at_any_point_of_pruning_changes_nothing() {
    let locked = |world: &mut World| {
        world.locked.insert(version_id(OLDEST).key(), "ScopeLocked");
    };
    let (outcome, session) = update(None, locked);
    let planned = session
        .lines()
        .into_iter()
        .find(|line| line.step.as_deref() == Some("PlanPrune") && matches!(line.event, Event::Confirmed { .. }));
    let (from, to) = (planned.expect("a plan").point, outcome.points);
    println!("points {from} to {to}");
    assert!(to - from > 20, "only {} points", to - from);
    for point in from..=to {
        simulated(async || {
            let session = Session::new(later());
            locked(&mut session.shared.world());
            session.shared.crash.arm(point);
            let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
            let what = format!("crash at point {point}\n{}", outcome.log.join("\n"));
            assert_eq!(outcome.crashes, 1, "{what}");
            assert!(outcome.violations.is_empty(), "{:#?}\n{what}", outcome.violations);
            let world = session.shared.world();
            assert!(there(&world, OLDEST) && !there(&world, OLDER) && there(&world, "2026.03.01"), "{what}");
            assert!(warnings(&outcome).contains("KW0501"), "{what}");
        });
    }
}
