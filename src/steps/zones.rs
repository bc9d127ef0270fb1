//! Versions in zone-redundant storage where there is none; and scale sets that grow: over every crash, once.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use crate::{
    cloud::Provisioning,
    model::VersionId,
    sim::{Crash, Faults, Outcome, Scene, Session, Stop, World, spec},
    store::Journal,
};

fn scene() -> Scene {
    Scene { zone_redundant: true, zones: false, ..Scene::nominal() }
}

/// A run under paused time; dies at that point, if at one.
fn run(scene: &Scene, crash: Option<u64>) -> (Outcome, Session) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(async {
        let session = Session::new(scene.clone());
        if let Some(point) = crash {
            session.shared.crash.arm(point);
        }
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        (outcome, session)
    })
}

/// A run in a world that is changed before it.
fn run_in(scene: &Scene, change: impl FnOnce(&mut World)) -> (Outcome, Session) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(async {
        let session = Session::new(scene.clone());
        change(&mut session.shared.world());
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        (outcome, session)
    })
}

fn state(outcome: &Outcome) -> String {
    outcome.summary.as_ref().map(|summary| summary.state.clone()).unwrap_or_default()
}

/// What was asked of versions, and of the copy's tags, in order.
fn asked(session: &Session) -> Vec<&'static str> {
    let world = session.shared.world();
    let about = ["begin_version", "begin_tag_disk", "begin_delete_version"];
    world.accepted.iter().map(|it| it.verb).filter(|verb| about.contains(verb)).collect()
}

/// In which storage the run's version is.
fn storage(session: &Session, outcome: &Outcome) -> Option<String> {
    let run = outcome.run.as_ref()?.id;
    let world = session.shared.world();
    let mut ours = world.versions.values().filter(|version| version.value.run == Some(run));
    let storage = ours.next()?.value.storage.clone();
    assert!(ours.next().is_none(), "one version");
    storage
}

/// What is remembered beyond the run.
fn facts(session: &Session) -> Vec<(String, Value)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(async {
        let quiet = Arc::new(Crash::default());
        let (journal, committer) = Journal::open(session.disk.tree(quiet), uuid::Uuid::nil()).expect("a journal");
        tokio::select! {
            biased;
            ended = committer.run() => panic!("the committer ended: {ended:?}"),
            facts = journal.facts("memory/no-zrs/") => facts.expect("facts"),
        }
    })
}

#[test]
fn where_there_are_no_zones_the_version_is_made_in_one_place_and_that_is_remembered() {
    let (outcome, session) = run(&scene(), None);
    assert_eq!(state(&outcome), "done", "{}", outcome.log.join("\n"));
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    assert_eq!(asked(&session), ["begin_version", "begin_tag_disk", "begin_delete_version", "begin_version"]);
    assert_eq!(storage(&session, &outcome).as_deref(), Some("Standard_LRS"));
    let verified = &outcome.run.as_ref().expect("a run").outputs["VerifyVersion"];
    assert!(verified["checks"].to_string().contains("it is in Standard_LRS"), "{verified}");
    let facts = facts(&session);
    let subscription = spec(&scene()).scale_set.subscription().to_owned();
    assert_eq!(facts.len(), 1, "{facts:?}");
    assert_eq!(facts[0].0, format!("memory/no-zrs/{subscription}/northeurope,westeurope"));
}

/// Azure's reason may be with the operation alone, which a crash may have lost: it is tried, and not believed for a month.
#[test]
fn a_failure_without_a_reason_falls_back_too_and_is_not_remembered() {
    let (outcome, session) = run_in(&scene(), |world| world.zrs_silent = true);
    assert_eq!(state(&outcome), "done", "{}", outcome.log.join("\n"));
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    assert_eq!(asked(&session), ["begin_version", "begin_tag_disk", "begin_delete_version", "begin_version"]);
    assert_eq!(storage(&session, &outcome).as_deref(), Some("Standard_LRS"));
    let verified = &outcome.run.as_ref().expect("a run").outputs["VerifyVersion"];
    assert!(verified["checks"].to_string().contains("Azure did not say why"), "{verified}");
    assert!(facts(&session).is_empty());
}

#[test]
fn where_there_are_zones_nothing_falls_back_and_nothing_is_remembered() {
    let (outcome, session) = run(&Scene { zones: true, ..scene() }, None);
    assert_eq!((state(&outcome).as_str(), asked(&session)), ("done", vec!["begin_version"]));
    assert_eq!(storage(&session, &outcome).as_deref(), Some("Standard_ZRS"));
    assert!(facts(&session).is_empty());
}

#[test]
fn what_is_learnt_of_zones_survives_a_crash_at_every_point() {
    let (_, session) = run(&scene(), None);
    let at = |step: &str| {
        let lines = session.lines();
        lines.iter().find(|line| line.step.as_deref() == Some(step)).expect("it was there").point
    };
    let mut ends = BTreeSet::new();
    for point in at("CreateVersion")..=at("PublishVersion") {
        let (outcome, session) = run(&scene(), Some(point));
        assert_eq!(state(&outcome), "done", "point {point}: {}", outcome.log.join("\n"));
        assert!(outcome.violations.is_empty(), "point {point}: {:#?}", outcome.violations);
        assert_eq!(storage(&session, &outcome).as_deref(), Some("Standard_LRS"), "point {point}");
        ends.insert(asked(&session).len());
    }
    assert!(ends.contains(&4), "{ends:?}");
}

#[test]
fn bad_days_without_zones_end_well_too() {
    let mut fell_back = 0;
    for seed in 0..40 {
        let scene = Scene { zone_redundant: true, zones: false, ..Scene::of_seed(seed, Faults::bad_day()) };
        let (outcome, session) = run(&scene, None);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        if state(&outcome) == "done" {
            assert_eq!(storage(&session, &outcome).as_deref(), Some("Standard_LRS"), "seed {seed}");
            fell_back += 1;
        }
    }
    assert!(fell_back > 20, "{fell_back}");
}

/// What another left under the next number, failed or not, stays, and the number after it is taken.
#[test]
fn a_version_of_somebody_elses_is_left_alone_and_the_next_number_is_taken() {
    let scene = Scene { adopted: true, ..Scene::nominal() };
    let (plain, _) = run(&scene, None);
    let name = |outcome: &Outcome| {
        let names = &outcome.run.as_ref().expect("a run").outputs["ChooseNames"];
        VersionId::parse(names["version"].as_str().expect("an id")).expect("an id")
    };
    let usual = name(&plain);
    for provisioning in [Provisioning::Failed, Provisioning::Succeeded, Provisioning::Running] {
        let (outcome, session) = run_in(&scene, |world| {
            let mut foreign = world.versions.values().next().expect("a version").clone();
            foreign.value.id = usual.clone();
            foreign.value.provisioning = provisioning.clone();
            foreign.value.excluded_from_latest = true;
            foreign.value.run = None;
            world.versions.insert(usual.key(), foreign);
        });
        assert_eq!(state(&outcome), "done", "{provisioning:?}: {}", outcome.log.join("\n"));
        assert!(outcome.violations.is_empty(), "{provisioning:?}: {:#?}", outcome.violations);
        let (usual_number, ours) = (usual.version().expect("a number"), name(&outcome).version().expect("a number"));
        assert!(ours > usual_number, "{provisioning:?}: {ours} after {usual_number}");
        assert!(session.shared.world().versions.contains_key(&usual.key()), "{provisioning:?}: it is left");
    }
}

#[test]
fn a_scale_set_grows_once_whenever_the_process_dies() {
    let scene = Scene { adopted: true, ..Scene::nominal() };
    let id = spec(&scene).scale_set.key();
    let capacity = |session: &Session| session.shared.world().scale_sets[&id].value["sku"]["capacity"].as_u64();
    let (whole, session) = run(&scene, None);
    assert_eq!((state(&whole).as_str(), capacity(&session)), ("done", Some(4)), "{}", whole.log.join("\n"));
    let begun = session.lines().iter().find(|line| line.step.as_deref() == Some("PlanScaleOut")).map(|line| line.point);
    for point in begun.expect("it is planned").saturating_sub(5)..=whole.points {
        let (outcome, session) = run(&scene, Some(point));
        assert_eq!((state(&outcome).as_str(), capacity(&session)), ("done", Some(4)), "point {point}");
        assert!(outcome.violations.is_empty(), "point {point}: {:#?}", outcome.violations);
    }
}
