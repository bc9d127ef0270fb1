//! A new version's first node is watched: a good one lets the version stay, a bad one has it withdrawn, and where none is made
//! the run says that nobody has tried it.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use kamino_wf::{
    cloud::{Orchestration, Version},
    model::{Capture, VersionId},
    policy::{
        canary::{Canary, Limits},
        gates::Gate,
        provenance::{QUARANTINED, tag},
    },
    sim::{Fault, Faults, Newcomer, Nursery, Outcome, Scene, Session, Stop, Word, World, spec},
    steps::{Verdict, Withdrawn},
    workflow::{self, Event, RunState},
};
use serde::de::DeserializeOwned;

use crate::harness::{points, run, simulated, state};

/// The scale set grows by one after the switch: that one is watched. Versions from before are published.
fn later() -> Scene {
    Scene { adopted: true, canary: Canary::FirstNode(Limits::default()), ..Scene::nominal() }
}

/// The same in less looks, where it is done hundreds of times.
fn hasty() -> Scene {
    let limits = Limits { ready_within_seconds: 300, stays_seconds: 60, ..Limits::default() };
    Scene { canary: Canary::FirstNode(limits), ..later() }
}

/// A first update: its version is the only one, and nothing grows unless an autoscaler makes it.
fn first() -> Scene {
    Scene { adopted: false, ..later() }
}

/// A run in a world that is changed before it.
fn run_in(scene: &Scene, change: impl FnOnce(&mut World)) -> (Outcome, Session) {
    run(scene, |session| change(&mut session.shared.world()))
}

fn nursery(world: &mut World) -> &mut Nursery {
    world.nursery.as_mut().expect("nodes are made here")
}

fn made(scene: &Scene, newcomer: Newcomer) -> Scene {
    Scene { newcomer, ..scene.clone() }
}

fn why(outcome: &Outcome) -> String {
    outcome.summary.as_ref().and_then(|summary| summary.why.clone()).unwrap_or_default()
}

fn good(outcome: &Outcome, what: &str) {
    assert!(outcome.violations.is_empty(), "{what}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
}

fn output<T: DeserializeOwned>(outcome: &Outcome, step: &str) -> Option<T> {
    let output = outcome.run.as_ref().expect("a run").outputs.get(step)?;
    Some(serde_json::from_value(output.clone()).expect("readable"))
}

/// The run's version, as it is.
fn version(outcome: &Outcome, session: &Session) -> Version {
    let names = &outcome.run.as_ref().expect("a run").outputs["ChooseNames"];
    let id = VersionId::parse(names["version"].as_str().expect("an id")).expect("an id");
    session.shared.world().versions[&id.key()].value.clone()
}

/// What new nodes are made from now: the name of the newest published version.
fn latest(session: &Session) -> String {
    let world = session.shared.world();
    let published = world.versions.values().filter(|it| !it.value.excluded_from_latest);
    published.map(|it| it.value.id.name().to_owned()).max().expect("one is published")
}

/// The order in which things were asked for, without what is made before the switch.
fn asked(session: &Session) -> Vec<&'static str> {
    let about = ["begin_publish", "begin_scale_out", "begin_withdraw", "begin_tag_version", "begin_delete_version"];
    session.shared.world().accepted.iter().map(|it| it.verb).filter(|verb| about.contains(verb)).collect()
}

const BEFORE: &str = "2026.10.01000";

#[test]
fn a_good_first_node_lets_the_version_stay_and_the_run_says_how_quick_it_was() {
    for capture in [Capture::Live, Capture::Stop] {
        for orchestration in [Orchestration::Uniform, Orchestration::Flexible] {
            for dated in [true, false] {
                let what = format!("{capture:?}, {orchestration:?}, dated {dated}");
                let scene = Scene { capture, orchestration, ..later() };
                let (outcome, session) = run_in(&scene, |world| nursery(world).dated = dated);
                good(&outcome, &what);
                assert_eq!(state(&outcome), "done", "{what}: {}\n{}", why(&outcome), outcome.log.join("\n"));
                let verdict: Verdict = output(&outcome, "CanaryNode").expect("a verdict");
                let Verdict::Passed { node, checks, ready_after_seconds } = &verdict else {
                    unreachable!("{what}: {verdict:?}")
                };
                assert_eq!((node.as_str(), checks.len()), ("pool1-vmss000003", 5), "{what}: {checks:?}");
                // Azure says when it was made, or else it was seen some time later.
                assert!(*ready_after_seconds == 130 || !dated && *ready_after_seconds < 130, "{what}: {verdict:?}");
                assert_eq!(output(&outcome, "WithdrawVersion"), Some(Withdrawn::NotNeeded), "{what}");
                assert_eq!(latest(&session), version(&outcome, &session).id.name(), "{what}");
            }
        }
    }
}

/// What is old is the way back, and what the scale set grows by is what tries the version.
#[test]
fn the_scale_set_grows_before_the_verdict_and_old_versions_go_after_it() {
    let (outcome, session) = run(&later(), |_| {});
    good(&outcome, "undisturbed");
    let asked = asked(&session);
    assert_eq!(asked[..2], ["begin_publish", "begin_scale_out"], "{asked:?}");
    assert_eq!(asked.iter().filter(|verb| **verb == "begin_delete_version").count(), asked.len() - 2, "{asked:?}");
    let steps: Vec<String> = outcome
        .run
        .expect("a run")
        .plan
        .into_iter()
        .map(|step| step.name)
        .skip_while(|it| it != "PatchModel")
        .collect();
    let expected = [
        "PatchModel",
        "PlanScaleOut",
        "ScaleOut",
        "AwaitNode",
        "CanaryNode",
        "WithdrawVersion",
        "DeleteTemporaries",
        "PlanPrune",
        "PruneVersions",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_pool_that_does_not_ask_for_it_has_none_of_these_steps() {
    let (outcome, _) = run(&Scene { canary: Canary::None, ..later() }, |_| {});
    good(&outcome, "none");
    let plan = outcome.run.expect("a run").plan;
    assert!(!plan.iter().any(|step| ["AwaitNode", "CanaryNode", "WithdrawVersion"].contains(&step.name.as_str())));
    let stored = serde_json::to_string(&spec(&Scene::nominal())).expect("JSON");
    assert!(!stored.contains("canary"), "an older release can read it: {stored}");
}

const WAYS: [(Newcomer, &str); 8] = [
    (Newcomer::NeverJoins, "there is no Node with its providerID 20 min after it was made"),
    (Newcomer::GivenUp, "it was taken away"),
    (Newcomer::NeverReady, "it is not Ready"),
    (Newcomer::FallsSilent, "it is not Ready"),
    (Newcomer::UnderPressure, "its conditions say DiskPressure"),
    (Newcomer::SameMachineId, "its machine id is that of the donor"),
    (Newcomer::SameSystemUuid, "its system UUID is that of the donor"),
    (Newcomer::OtherKubelet, "its kubelet is v1.32.0, and the donor's is v1.33.4"),
];

#[test]
fn a_bad_first_node_has_the_version_withdrawn_and_a_person_is_asked() {
    for (makes, words) in WAYS {
        let (outcome, session) = run(&made(&later(), makes), |_| {});
        let (what, why) = (format!("{makes:?}"), why(&outcome));
        good(&outcome, &what);
        assert_eq!(state(&outcome), "needs-person", "{what}: {why}\n{}", outcome.log.join("\n"));
        assert!(why.starts_with("KW0260: version ") && why.contains(words), "{what}: no {words:?} in {why}");
        assert!(why.contains("pool1/3"), "{what}: which machine? {why}");
        let version = version(&outcome, &session);
        assert!(version.excluded_from_latest, "{what}");
        let reason = tag(&version, QUARANTINED).expect("a reason");
        let run = outcome.run.as_ref().expect("a run").id.short();
        assert!(reason.contains(&run) && reason.contains(words), "{what}: {reason}");
        assert_eq!(latest(&session), BEFORE, "{what}: new nodes come from the version before");
        let asked = asked(&session);
        assert_eq!(
            asked[..4],
            ["begin_publish", "begin_scale_out", "begin_withdraw", "begin_tag_version"],
            "{what}: {asked:?}"
        );
        // The node is left for a person to look at, and so is what it was made from.
        let world = session.shared.world();
        assert_eq!(world.nodes.len(), if ["NeverJoins", "GivenUp"].contains(&what.as_str()) { 3 } else { 4 }, "{what}");
        assert!(world.disks.len() == 3 && world.snapshots.is_empty(), "{what}: snapshot and copy are gone");
    }
}

/// Withdrawing it would leave a scale set from which no node can be made.
#[test]
fn the_only_published_version_stays_and_the_run_says_so_loudly() {
    let (outcome, session) = run_in(&first(), |world| {
        let nursery = nursery(world);
        (nursery.makes, nursery.autoscaler) = (Newcomer::NeverReady, Some(SignedDuration::from_hours(3)));
    });
    let why = why(&outcome);
    good(&outcome, "the only one");
    assert_eq!(state(&outcome), "needs-person", "{why}\n{}", outcome.log.join("\n"));
    assert!(why.starts_with("KW0262") && why.contains("STAYS PUBLISHED") && why.contains("not Ready"), "{why}");
    let version = version(&outcome, &session);
    assert!(!version.excluded_from_latest && tag(&version, QUARANTINED).is_none());
    assert!(!asked(&session).contains(&"begin_withdraw"));
}

#[test]
fn where_no_node_is_made_the_run_is_done_and_says_that_nobody_tried_it() {
    let (outcome, session) = run(&first(), |_| {});
    good(&outcome, "nobody");
    assert_eq!(state(&outcome), "done", "{}", why(&outcome));
    let run = outcome.run.as_ref().expect("a run");
    let warning = run.warnings.iter().find(|warning| warning.starts_with("AwaitNode")).expect("a warning");
    assert!(warning.contains("KW0261") && warning.contains("not tried by any node") && warning.contains("24 h"));
    assert_eq!(output(&outcome, "CanaryNode"), Some(Verdict::Untried));
    assert!(!version(&outcome, &session).excluded_from_latest);
    // It waited in the store, and looked seldom: a day is not worth more.
    let waits = session.lines().iter().filter(|line| matches!(line.event, Event::Waiting { .. })).count();
    assert!((100..=150).contains(&waits), "{waits} waits");
    let asked = Limits::default().within();
    let took = run.moved.duration_since(run.started);
    assert!(took > SignedDuration::try_from(asked).expect("a span"), "{took}");
}

#[test]
fn a_node_that_an_autoscaler_makes_hours_later_is_watched_too() {
    for (makes, end) in [(Newcomer::Good, "done"), (Newcomer::SameMachineId, "needs-person")] {
        let (outcome, session) = run_in(&later(), |world| {
            // Nothing grows by itself.
            let id = spec(&later()).scale_set.key();
            let set = world.scale_sets.get_mut(&id).expect("the pool");
            set.value["tags"]["cluster-autoscaler-enabled"] = "true".into();
            let nursery = nursery(world);
            (nursery.makes, nursery.autoscaler) = (makes, Some(SignedDuration::from_hours(5)));
        });
        good(&outcome, end);
        assert_eq!(state(&outcome), end, "{}\n{}", why(&outcome), outcome.log.join("\n"));
        let run = outcome.run.as_ref().expect("a run");
        assert!(run.warnings.iter().any(|warning| warning.contains("KW0303")), "{:?}", run.warnings);
        assert_eq!(latest(&session) == BEFORE, end == "needs-person");
    }
}

/// The point at which a step begins.
fn begins(scene: &Scene, step: &str) -> u64 {
    let (_, session) = run(scene, |_| {});
    let lines = session.lines();
    let before = lines.iter().position(|line| line.step.as_deref() == Some(step)).expect("it was there");
    lines[before.saturating_sub(1)].point
}

#[test]
fn a_crash_at_any_point_changes_nothing() {
    for (makes, end) in [(Newcomer::Good, "done"), (Newcomer::NeverReady, "needs-person")] {
        let scene = made(&hasty(), makes);
        let places = points(&scene);
        // What comes before the growth is the same with and without: update.rs.
        let from = begins(&scene, "PlanScaleOut");
        let due: Vec<(u64, &String)> = (1_u64..).zip(&places).filter(|(number, _)| *number >= from).collect();
        println!("{} crash points with {makes:?}", due.len());
        assert!(due.len() >= 60, "only {} crash points", due.len());
        for (number, place) in due {
            let (outcome, session) = run(&scene, |session| session.shared.crash.arm(number));
            let what = format!("{makes:?}, crash at point {number} ({place})");
            assert_eq!(outcome.crashes, 1, "{what} must be passed");
            good(&outcome, &what);
            assert_eq!(state(&outcome), end, "{what}: {}\n{}", why(&outcome), outcome.log.join("\n"));
            assert_eq!(latest(&session) == BEFORE, end == "needs-person", "{what}");
        }
    }
}

#[test]
fn a_crash_after_every_single_event_changes_nothing() {
    for (makes, end) in [(Newcomer::Good, "done"), (Newcomer::OtherKubelet, "needs-person")] {
        let (outcome, _) = run(&hasty(), |session| {
            nursery(&mut session.shared.world()).makes = makes;
            session.shared.crash.arm_every(1);
        });
        good(&outcome, end);
        assert_eq!(state(&outcome), end, "{}", why(&outcome));
    }
}

/// While it is watched a cancel ends the watching; what is known to be bad is withdrawn all the same.
#[test]
fn a_cancel_at_any_point_stops_the_watch_and_never_the_withdrawal() {
    for makes in [Newcomer::Good, Newcomer::NeverReady] {
        let scene = made(&hasty(), makes);
        let places = points(&scene);
        let from = begins(&scene, "PlanScaleOut");
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        for number in from..=u64::try_from(places.len()).expect("few") {
            let (outcome, session) = run(&scene, |session| session.cancel_at = Some(number));
            let what = format!("{makes:?}, cancel at point {number}");
            good(&outcome, &what);
            let bad = matches!(output(&outcome, "CanaryNode"), Some(Verdict::Failed { .. }));
            assert_eq!(state(&outcome), if bad { "needs-person" } else { "done" }, "{what}: {}", why(&outcome));
            assert_eq!(latest(&session) == BEFORE, bad, "{what}");
            *ends.entry(state(&outcome)).or_default() += 1;
        }
        println!("{makes:?}: {ends:?}");
        assert_eq!(ends.len(), if makes == Newcomer::Good { 1 } else { 2 }, "{ends:?}");
    }
}

#[test]
fn a_cancel_while_it_is_watched_is_told_as_a_warning() {
    let (_, whole) = run(&first(), |_| {});
    let lines = whole.lines();
    let waits = lines.iter().filter(|line| matches!(line.event, Event::Waiting { .. }));
    let point = waits.map(|line| line.point).nth(20).expect("it waits for hours");
    let (outcome, session) = run(&first(), |session| session.cancel_at = Some(point));
    good(&outcome, "cancelled");
    assert_eq!(state(&outcome), "done");
    let run = outcome.run.as_ref().expect("a run");
    assert!(
        run.warnings.iter().any(|it| it.starts_with("AwaitNode: not finished: cancelled by")),
        "{:?}",
        run.warnings
    );
    assert!(!version(&outcome, &session).excluded_from_latest);
}

/// A pause would leave every new node a bad one for as long as it lasts.
#[test]
fn a_pause_comes_after_the_withdrawal() {
    let scene = made(&later(), Newcomer::NeverReady);
    let point = begins(&scene, "CanaryNode") + 3;
    let (outcome, session) = run(&scene, |session| session.said_at = Some((point, Word::Pause)));
    assert_eq!((state(&outcome).as_str(), latest(&session).as_str()), ("paused", BEFORE));
    assert_eq!(outcome.summary.as_ref().and_then(|it| it.stage.clone()).as_deref(), Some("tidy"));
}

#[test]
fn whoever_approves_is_told_what_is_tried_and_sees_the_verdict_before_anything_old_goes() {
    let scene = Scene { approve: vec![Gate::Switch, Gate::Tidy], ..later() };
    let (outcome, session) = run(&scene, |session| session.answers = vec![Word::Approve, Word::Approve]);
    good(&outcome, "approved");
    assert_eq!(state(&outcome), "done", "{}", outcome.log.join("\n"));
    let asks: Vec<(String, String)> = session
        .lines()
        .into_iter()
        .filter_map(|line| {
            let Event::ApprovalAsked { why, .. } = line.event else { return None };
            Some((line.step.unwrap_or_default(), why))
        })
        .collect();
    assert_eq!(asks.len(), 2, "{asks:?}");
    assert!(asks[0].1.contains("1 instances more; the first of them is watched"), "{asks:?}");
    assert!(asks[1].0 == "DeleteTemporaries" && !asks[1].1.contains("instances more"), "{asks:?}");
}

/// Who may not do it is asked for as long as it takes: every new node is a bad one meanwhile.
#[test]
fn a_missing_right_to_withdraw_parks_the_run_and_granted_it_goes_on() {
    for verb in ["begin_withdraw", "begin_tag_version"] {
        let scene = made(&later(), Newcomer::NeverReady);
        let places = points(&scene);
        let mut calls = (1_u64..).zip(places.iter().filter(|place| place.ends_with(": before")));
        let (call, _) = calls.find(|(_, place)| place.starts_with(verb)).expect("it was asked for");
        for resumes in [0, 1] {
            let (outcome, session) = run(&scene, |session| {
                session.shared.world().script.insert(call, Fault::Denied);
                session.resumes = resumes;
            });
            let (state, why) = (state(&outcome), why(&outcome));
            good(&outcome, verb);
            if resumes == 0 {
                assert_eq!(state, "parked", "{verb}: {why}");
                assert!(why.contains("KW0300") && why.contains("not allowed"), "{verb}: {why}");
            } else {
                assert_eq!((state.as_str(), latest(&session).as_str()), ("needs-person", BEFORE), "{verb}: {why}");
            }
        }
    }
}

/// Somebody may have put it right, or wrong, before.
#[test]
fn a_version_that_somebody_deleted_or_took_over_is_left_to_them() {
    let bad = |change: fn(&mut World, &str)| {
        simulated(async || {
            let session = Session::new(made(&later(), Newcomer::NeverReady));
            let shared = std::sync::Arc::clone(&session.shared);
            let session = session.watched(std::sync::Arc::new(move |run, line| {
                if line.step.as_deref() == Some("CanaryNode") && matches!(line.event, Event::Confirmed { .. }) {
                    let id = run.outputs["ChooseNames"]["version"].as_str().expect("an id").to_lowercase();
                    change(&mut shared.world(), &id);
                }
            }));
            session.run(Stop::AtRest).await.expect("the store never fails for good")
        })
    };
    let deleted = bad(|world, id| drop(world.versions.remove(id)));
    assert_eq!(state(&deleted), "needs-person");
    assert!(why(&deleted).contains("deleted by somebody"), "{}", why(&deleted));
    let taken = bad(|world, id| world.versions.get_mut(id).expect("it").value.run = None);
    assert_eq!(state(&taken), "parked");
    assert!(why(&taken).contains("KW0004") && why(&taken).contains("not this run's any more"), "{}", why(&taken));
}

#[test]
fn bad_days_break_nothing() {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..60 {
        let capture = if seed % 4 == 3 { Capture::Stop } else { Capture::Live };
        let canary = Canary::FirstNode(Limits::default());
        let scene = Scene { capture, adopted: seed % 3 != 0, canary, ..Scene::of_seed(seed, Faults::bad_day()) };
        let ways: Vec<Newcomer> = [Newcomer::Good].into_iter().chain(WAYS.map(|(way, _)| way)).collect();
        let (outcome, _) = run(&scene, |session| {
            let mut world = session.shared.world();
            let nursery = nursery(&mut world);
            nursery.makes = ways[usize::try_from(seed).expect("few") % ways.len()];
            nursery.dated = seed % 2 == 0;
            nursery.autoscaler = (seed % 3 == 0).then_some(SignedDuration::from_hours(2));
            drop(world);
            if seed % 3 == 1 {
                session.shared.crash.arm_every(1 + seed % 7);
            }
        });
        good(&outcome, &format!("seed {seed}"));
        *ends.entry(state(&outcome)).or_default() += 1;
    }
    println!("60 seeds ended: {ends:?}");
    for end in ["done", "needs-person"] {
        assert!(ends.get(end).is_some_and(|count| *count > 3), "{ends:?}");
    }
}

/// Of two that are at an end, only one went well; `auto` and scripts can tell.
#[test]
fn an_end_that_needs_a_person_is_no_success() {
    let (outcome, _) = run(&made(&later(), Newcomer::NeverReady), |_| {});
    let ended = &outcome.run.expect("a run").state;
    assert!(matches!(ended, RunState::Ended(workflow::Outcome::NeedsPerson { .. })), "{ended:?}");
}
