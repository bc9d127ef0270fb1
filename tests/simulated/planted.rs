//! Planted faults of ours, and the checker that has to report each: a checker that nothing can break proves nothing.

mod bent;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bent::{BentCloud, BentCluster, Bug, NeverSynced, phantom};
use jiff::SignedDuration;
use kamino_wf::{
    cloud::{Cloud, ImageRef, Instance},
    cluster::Cluster,
    model::{Capture, Credential, InstanceId},
    policy::canary::{Canary, Limits},
    sim::{Fault, Layers, Line, Newcomer, Outcome, Resource, Scene, Session, Stop, Tenant, checkers, spec},
    store::ByteTree,
    workflow::{EngineError, Event},
};
use serde_json::json;

use crate::harness::simulated;

/// A run of us with that bug.
fn run(scene: &Scene, bug: Bug, prepare: impl FnOnce(&mut Session)) -> Outcome {
    simulated(async || {
        let mut session = Session::new(scene.clone());
        let (below_cloud, below_cluster) = (Arc::clone(&session.shared), Arc::clone(&session.shared));
        session.layers.cloud = Some(Arc::new(move |inner| {
            Arc::new(BentCloud { inner, shared: Arc::clone(&below_cloud), bug, kept: Mutex::default() })
                as Arc<dyn Cloud>
        }));
        session.layers.cluster = Some(Arc::new(move |inner| {
            Arc::new(BentCluster { inner, shared: Arc::clone(&below_cluster), bug }) as Arc<dyn Cluster>
        }));
        prepare(&mut session);
        session.run(Stop::AtRest).await.expect("the store never fails")
    })
}

/// The invariants that were found broken.
fn broken(outcome: &Outcome) -> BTreeSet<String> {
    let name = |text: &String| text.split_once(':').map(|(name, _)| name.to_owned());
    outcome.violations.iter().filter_map(name).collect()
}

fn first() -> Scene {
    Scene::nominal()
}

fn later() -> Scene {
    Scene { adopted: true, seed: 3, ..Scene::nominal() }
}

fn stopped() -> Scene {
    Scene { capture: Capture::Stop, ..Scene::nominal() }
}

fn renewed() -> Scene {
    Scene { credential: Credential::Rebootstrap, ..stopped() }
}

fn watched() -> Scene {
    Scene { canary: Canary::FirstNode(Limits::default()), ..later() }
}

/// What the version makes.
fn makes(session: &mut Session, what: Newcomer) {
    session.shared.world().nursery.as_mut().expect("nodes are made here").makes = what;
}

fn never_ready(session: &mut Session) {
    makes(session, Newcomer::NeverReady);
}

fn twin(session: &mut Session) {
    makes(session, Newcomer::SameMachineId);
}

fn nothing(_: &mut Session) {}

/// Somebody's pods, on each node.
fn tenants(session: &mut Session) {
    let mut world = session.shared.world();
    let long_ago = world.now() - SignedDuration::from_hours(5);
    let nodes: Vec<_> = world.nodes.iter().map(|node| node.name.clone()).collect();
    for (number, node) in nodes.iter().enumerate() {
        world.tenants.add(Tenant::new(&format!("shop/web-{number}"), "web", node, long_ago));
    }
}

fn rolling_pool(session: &mut Session) {
    let key = spec(&first()).scale_set.key();
    let mut world = session.shared.world();
    world.scale_sets.get_mut(&key).expect("the pool").value["properties"]["upgradePolicy"]["mode"] = json!("Rolling");
}

/// As if a clock had been wrong once.
fn version_of_next_year(session: &mut Session) {
    let spec = spec(&later());
    let definition = spec.gallery.definition(&spec.definition).expect("an id");
    let value = phantom(&definition, "2027.01.01000", None);
    let mut world = session.shared.world();
    let visible = world.now();
    world.published.push((value.id.key(), None));
    world.versions.insert(value.id.key(), Resource { value, operation: None, visible });
}

/// A cancel after the copy was made: undoing takes a while to come to the snapshot.
fn cancelled_after_the_copy(session: &mut Session) {
    session.cancel_at = Some(simulated_point(&first(), "CopyDisk"));
}

/// The point at which a step is done.
fn simulated_point(scene: &Scene, step: &str) -> u64 {
    let scene = scene.clone();
    // A runtime of its own: this is called inside another one.
    let lines = std::thread::scope(|scope| {
        let body = || {
            simulated(async || {
                let session = Session::new(scene);
                session.run(Stop::AtRest).await.expect("the update ends");
                session.lines()
            })
        };
        scope.spawn(body).join().expect("no panic")
    });
    let done = |line: &&Line| line.step.as_deref() == Some(step) && matches!(line.event, Event::Confirmed { .. });
    lines.iter().find(done).expect("the step is done").point + 2
}

/// The list of scale sets, which preflight reads, is throttled.
fn throttled(session: &mut Session) {
    session.shared.world().script.insert(3, Fault::Throttled);
}

/// An instance of a pool that does not follow the definition was made from the oldest version of ours.
fn used_next_door(session: &mut Session) {
    let mut world = session.shared.world();
    let like = world.instances.values().next().expect("an instance").clone();
    let id = InstanceId::parse(&like.id.to_string().replace("/pool1/", "/xpool1/")).expect("an id");
    let used = world.versions.values().map(|found| found.value.id.clone()).find(|id| id.name() == "2026.07.01000");
    let value = Instance { id: id.clone(), image: ImageRef::Version(used.expect("the oldest")), ..like };
    world.instances.insert(id.key(), value);
}

/// What is planted, where, what is done there, and who has to see it.
type Planted = (Bug, fn() -> Scene, fn(&mut Session), &'static str);

const PLANTED: [Planted; 24] = [
    (Bug::AsksTwice, first, nothing, "I1"),
    (Bug::SnapshotsAnotherDisk, first, nothing, "I5"),
    (Bug::StopsANeighbourToo, stopped, nothing, "I2"),
    (Bug::ForgetsHowItWas, stopped, nothing, "I2"),
    (Bug::ReleasesTooEarly, stopped, nothing, "I2"),
    (Bug::EndsTheTokenTooEarly, renewed, nothing, "I2"),
    (Bug::LeavesTheToken, renewed, nothing, "I16"),
    (Bug::DropsTheHold, stopped, nothing, "I6"),
    (Bug::DeletesInsteadOfEvicting, stopped, tenants, "I10"),
    (Bug::TakesEveryPoolForManual, first, rolling_pool, "I7"),
    (Bug::PublishesUnproved, first, nothing, "I8"),
    (Bug::BelievesAnUnfinishedPod, first, nothing, "I8"),
    (Bug::DeletesAStrangersVersion, later, nothing, "I9"),
    (Bug::CountsVersionsTwice, later, nothing, "I11"),
    (Bug::ForgetsHigherVersions, later, version_of_next_year, "I12"),
    (Bug::SendsAPartialPatch, first, nothing, "I13"),
    (Bug::GoesOnAfterTheCancel, first, cancelled_after_the_copy, "I14"),
    (Bug::LeavesTheClaim, first, nothing, "I16"),
    (Bug::CopiesOverTheDonor, first, nothing, "donor"),
    (Bug::ForgetsTheRunTag, first, nothing, "end"),
    (Bug::IgnoresRetryAfter, first, throttled, "throttle"),
    (Bug::OverlooksOtherPools, later, used_next_door, "I9"),
    (Bug::TakesEveryNodeForReady, watched, never_ready, "I8"),
    (Bug::OverlooksTwins, watched, twin, "I8"),
];

/// Planted under the journal, in the test below.
const UNDER_THE_JOURNAL: [&str; 2] = ["I3", "I4"];

#[test]
fn each_planted_bug_is_reported_by_the_checker_that_it_breaks() {
    for (bug, scene, prepare, checker) in PLANTED {
        let control = run(&scene(), Bug::Nothing, prepare);
        assert!(control.violations.is_empty(), "without {bug:?}: {:#?}", control.violations);
        let outcome = run(&scene(), bug, prepare);
        let broken = broken(&outcome);
        assert!(broken.contains(checker), "{bug:?} broke {broken:?} only, not {checker}:\n{}", outcome.log.join("\n"));
        println!("{bug:?}: {broken:?}, ended {:?}", outcome.summary.map(|summary| summary.state));
    }
}

#[test]
fn every_checker_is_broken_by_a_planted_bug() {
    let planted: BTreeSet<&str> = PLANTED.iter().map(|(_, _, _, checker)| *checker).chain(UNDER_THE_JOURNAL).collect();
    let all: BTreeSet<&str> = checkers::names().into_iter().collect();
    assert_eq!(planted, all);
}

fn never_synced(forgives: bool) -> Layers {
    let tree = move |inner| Box::new(NeverSynced { inner, forgives }) as Box<dyn ByteTree>;
    Layers { tree: Some(Arc::new(tree)), ..Layers::default() }
}

#[test]
fn a_journal_that_is_not_synced_is_found_to_have_lost_events_and_begun_the_run_again() {
    let point = simulated_point(&first(), "CopyDisk");
    let outcome = simulated(async || {
        let mut session = Session::new(first());
        session.layers = never_synced(true);
        session.shared.crash.arm(point);
        session.run(Stop::AtRest).await.expect("nothing tells it")
    });
    let broken = broken(&outcome);
    for checker in UNDER_THE_JOURNAL {
        assert!(broken.contains(checker), "{checker} is not in {broken:?}");
    }
}

#[test]
fn a_journal_that_is_not_synced_is_refused_when_the_mark_outside_it_says_so() {
    let point = simulated_point(&first(), "CopyDisk");
    let refused = simulated(async || {
        let mut session = Session::new(first());
        session.layers = never_synced(false);
        session.shared.crash.arm(point);
        session.run(Stop::AtRest).await.map(|outcome| outcome.violations)
    });
    match refused {
        Err(EngineError::Store(error)) => println!("refused: {error}"),
        other => panic!("a store that went back in time must be refused: {other:?}"),
    }
}
