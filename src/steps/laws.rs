//! The checks that every step must pass, whatever goes wrong with whichever of its calls.
//!
//! For each step of the list, each call that it makes, and each way in which that call can fail: the run goes on until it is
//! done, with the same output and one effect; and a cancel right after the failure leaves nothing. A look changes nothing,
//! and what was taken back can be taken back again. What each step does in an odd world is in `starts.rs`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    cloud::{Limiter, Orchestration},
    model::{Attach, Capture, Credential, Profile},
    policy::canary::{Canary, Limits},
    sim::{Fault, Line, Newcomer, Outcome, Scene, Session, SimCloud, SimCluster, Stop, World, spec},
    workflow::{
        self, ATTACHED, Event, LIVE, LIVE_CANARY, OnFailure, Ports, RunState, STOP, Undone, find, plan, stages,
    },
};

/// A step's calls in an undisturbed run: number and crash point of each.
type Calls = Vec<(u64, u64)>;

fn simulated(scene: &Scene, prepare: impl FnOnce(&mut Session)) -> (Outcome, Vec<Line>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(async {
        let mut session = Session::new(scene.clone());
        session.shared.crash.trace();
        prepare(&mut session);
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        let traced = session.shared.crash.traced();
        (outcome, session.lines(), traced)
    })
}

/// All calls of steps among the points that were passed. What is told on a node is no step's, and nothing depends on it.
fn calls(traced: &[String]) -> Calls {
    let calls = (1..).zip((1..).zip(traced).filter(|(_, name)| name.ends_with(": before")));
    calls.filter(|(_, (_, name))| !name.starts_with("tell:")).map(|(call, (point, _))| (call, point)).collect()
}

/// The calls of each step, and its output.
fn rehearsal(scene: &Scene) -> (BTreeMap<String, Calls>, BTreeMap<String, Value>) {
    let (outcome, lines, traced) = simulated(scene, |_| {});
    let points = calls(&traced);
    let mut steps: BTreeMap<String, Calls> = BTreeMap::new();
    let mut from = 0;
    for line in &lines {
        if let (Some(step), Event::Confirmed { .. }) = (&line.step, &line.event) {
            let within = points.iter().filter(|(_, point)| (from..=line.point).contains(point)).copied();
            steps.insert(step.clone(), within.collect());
            from = line.point + 1;
        }
    }
    (steps, outcome.run.expect("a run").outputs)
}

/// Everything but what a failure moves: times, and ids that the world drew at some time.
fn timeless(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Value::from("an id")
        }
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => Value::from("a time"),
        Value::Array(items) => items.iter().map(timeless).collect(),
        Value::Object(fields) => fields
            .iter()
            // When each boot was seen, in a form of its own.
            .map(|(name, field)| (name.clone(), if name == "boots" { "boots".into() } else { timeless(field) }))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// It ended as it does in that scene when nothing goes wrong.
fn well(scene: &Scene, outcome: &Outcome) -> bool {
    match outcome.run.as_ref().map(|run| &run.state) {
        Some(RunState::Ended(workflow::Outcome::Done)) => scene.newcomer == Newcomer::Good,
        Some(RunState::Ended(workflow::Outcome::NeedsPerson { why })) => {
            scene.newcomer != Newcomer::Good && why.contains("is withdrawn")
        }
        Some(
            RunState::Running { .. }
            | RunState::Waiting { .. }
            | RunState::Parked { .. }
            | RunState::Paused { .. }
            | RunState::NeedsApproval { .. }
            | RunState::Ended(_),
        )
        | None => false,
    }
}

/// The stages of a list, unless it is watched how the first node does.
const ALL: &[&str] = &["choose", "prepare", "capture", "publish", "switch", "tidy"];

/// Scenes in which, together, every step has something to do, and makes every call that it ever makes; and the stages that are
/// looked at in each: the others are as in a scene before.
fn scenes() -> [(Scene, &'static [&'static str]); 8] {
    let limits = Limits { ready_within_seconds: 300, stays_seconds: 60, ..Limits::default() };
    let watched = Scene { canary: Canary::FirstNode(limits), adopted: true, seed: 5, ..Scene::nominal() };
    [
        (Scene { profile: Profile::AksEngine, ..Scene::nominal() }, ALL),
        (Scene { adopted: true, seed: 3, ..Scene::nominal() }, &["switch", "tidy"]),
        (Scene { capture: Capture::Stop, ..Scene::nominal() }, &["capture", "publish"]),
        (Scene { capture: Capture::Stop, credential: Credential::Rebootstrap, ..Scene::nominal() }, &["capture"]),
        (Scene { attach: Attach::Instance { path: "/dev/disk/lun{lun}".into() }, ..Scene::nominal() }, &["capture"]),
        (Scene { orchestration: Orchestration::Flexible, seed: 4, ..Scene::nominal() }, &["choose", "tidy"]),
        (Scene { newcomer: Newcomer::NeverReady, ..watched.clone() }, &["canary", "withdraw"]),
        (watched, &["canary", "withdraw"]),
    ]
}

/// Whether a step is in one of these stages.
fn is_in(scene: &Scene, step: &str, looked_at: &[&str]) -> bool {
    let mut of_list = stages(&spec(scene)).iter();
    of_list.any(|stage| looked_at.contains(&stage.name) && stage.steps.iter().any(|it| it.name() == step))
}

/// [`rehearsal`], of the steps of these stages.
fn rehearsal_of(scene: &Scene, looked_at: &[&str]) -> (BTreeMap<String, Calls>, BTreeMap<String, Value>) {
    let (mut steps, outputs) = rehearsal(scene);
    steps.retain(|step, _| is_in(scene, step, looked_at));
    (steps, outputs)
}

#[test]
fn whatever_goes_wrong_with_one_call_the_run_is_done_with_the_same_outputs() {
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for (scene, looked_at) in scenes() {
        let (steps, outputs) = rehearsal_of(&scene, looked_at);
        for (step, calls) in steps {
            for (call, _) in calls {
                for fault in [Fault::Throttled, Fault::LostRequest, Fault::LostAnswer, Fault::Busy] {
                    let (outcome, _, _) = simulated(&scene, |session| {
                        session.shared.world().script.insert(call, fault);
                    });
                    let what = format!("{step}, call {call}, {fault:?}");
                    assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
                    assert!(well(&scene, &outcome), "{what}: {:#?}\n{}", outcome.summary, outcome.log.join("\n"));
                    let after = &outcome.run.as_ref().expect("a run").outputs[&step];
                    assert_eq!(timeless(after), timeless(&outputs[&step]), "{what}: another output");
                    *checked.entry(step.clone()).or_default() += 1;
                }
            }
        }
    }
    every_step_is_in(&checked);
}

/// No step of either list was forgotten.
fn every_step_is_in(checked: &BTreeMap<String, u32>) {
    for planned in [LIVE, STOP, LIVE_CANARY, ATTACHED].into_iter().flat_map(plan) {
        let times = checked.get(&planned.name).copied().unwrap_or_default();
        assert!(times > 0, "{} was not checked: {checked:?}", planned.name);
    }
}

#[test]
fn whichever_call_the_process_dies_in_the_run_is_done_with_the_same_outputs() {
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for (scene, looked_at) in scenes() {
        let (steps, outputs) = rehearsal_of(&scene, looked_at);
        for (step, calls) in steps {
            for (call, before) in calls {
                // Before it arrives, with its effect but no answer, and with an answer that nobody has recorded.
                for point in before..before + 3 {
                    let (outcome, _, _) = simulated(&scene, |session| session.shared.crash.arm(point));
                    let what = format!("{step}, call {call}, crash at point {point}");
                    assert_eq!(outcome.crashes, 1, "{what}");
                    assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
                    assert!(well(&scene, &outcome), "{what}: {:#?}\n{}", outcome.summary, outcome.log.join("\n"));
                    let after = &outcome.run.as_ref().expect("a run").outputs[&step];
                    assert_eq!(timeless(after), timeless(&outputs[&step]), "{what}: another output");
                    *checked.entry(step.clone()).or_default() += 1;
                }
            }
        }
    }
    every_step_is_in(&checked);
}

/// What a request would have changed.
fn asked(world: &World) -> usize {
    world.accepted.len() + world.jobs.len()
}

#[test]
fn a_look_changes_nothing_and_what_is_taken_back_can_be_taken_back_again() {
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for (scene, looked_at) in scenes() {
        let (_, lines, _) = simulated(&scene, |_| {});
        // After each event of each effect: nothing asked, asked, and done.
        let moments = lines.iter().filter(|line| !matches!(line.event, Event::Started { .. } | Event::Ended { .. }));
        for line in moments {
            let name = line.step.clone().expect("a step");
            if !is_in(&scene, &name, looked_at) {
                continue;
            }
            let list = stages(&spec(&scene));
            let planned = plan(list).into_iter().find(|planned| planned.name == name).expect("a step of the list");
            let (_, step) = find(list, &planned).expect("a step");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let looked = runtime.expect("a runtime can be built").block_on(async {
                let session = Session::new(scene.clone());
                let outcome = session.run(Stop::AtPoint(line.point + 1)).await.expect("the store never fails");
                let input = outcome.run.expect("a run").inputs.get(&name)?.clone();
                let shared = &session.shared;
                let clock = shared.world().clock.clone();
                let ports = Ports {
                    cloud: &SimCloud::new(Arc::clone(shared), Arc::new(Limiter::default())),
                    cluster: &SimCluster::new(Arc::clone(shared)),
                    clock: &clock,
                };
                let what = format!("{name}, after {}", line.event.kind());
                let before = asked(&shared.world());
                for _ in 0..2 {
                    step.observe(ports, &input).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                }
                assert_eq!(asked(&shared.world()), before, "{what}: a look asked for something");
                let mut turns = 0;
                loop {
                    match step.undo(ports, &input).await {
                        Ok(Undone::Gone) => break,
                        Ok(Undone::Going(_)) => {}
                        Err(error) => assert!(error.class == crate::model::Class::Busy, "{what}: {error}"),
                    }
                    turns += 1;
                    assert!(turns < 1000, "{what}: the undo does not end");
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
                let before = asked(&shared.world());
                let again = step.undo(ports, &input).await.expect("nothing is left");
                assert_eq!((again, asked(&shared.world())), (Undone::Gone, before), "{what}: undone twice");
                Some(())
            });
            if looked.is_some() {
                *checked.entry(name).or_default() += 1;
            }
        }
    }
    let choose = ["Preflight", "RankNodes", "ChooseNames"];
    let rest = ["VerifyVersion", "ReadModel", "PlanPrune", "PlanScaleOut"];
    for (list, capture) in [(LIVE, &[][..]), (STOP, &["ReadNode"][..])] {
        let (effects, decisions): (Vec<String>, Vec<String>) =
            plan(list).into_iter().map(|planned| planned.name).partition(|name| checked.contains_key(name));
        let decided = [&choose[..], capture, &rest[..]].concat();
        assert_eq!(decisions, decided, "decisions have nothing to look for; these effects were checked: {effects:?}");
    }
    for step in ["AwaitNode", "CanaryNode", "WithdrawVersion", "AttachCopy", "FreeCopy"] {
        assert!(checked.contains_key(step), "{step} is an effect and was not checked");
    }
}

#[test]
fn a_missing_right_parks_stops_or_is_reported_and_granted_the_run_goes_on() {
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for (scene, looked_at) in scenes() {
        for (step, calls) in rehearsal_of(&scene, looked_at).0 {
            let list = stages(&spec(&scene));
            let planned = plan(list).into_iter().find(|planned| planned.name == step).expect("a step of the list");
            let (stage, _) = find(list, &planned).expect("a stage");
            // While a node is out of service nobody is waited for: it is given back, and all is undone.
            let held = scene.capture == Capture::Stop && stage.name == "capture" && step != "ReadNode";
            // A bad version is withdrawn, unless the watch ends before there is a verdict.
            let bad = scene.newcomer != Newcomer::Good;
            let early = bad && stage.name == "canary";
            for (call, _) in calls {
                let run = |resumes| {
                    simulated(&scene, |session| {
                        session.shared.world().script.insert(call, Fault::Denied);
                        session.resumes = resumes;
                    })
                    .0
                };
                let outcome = run(0);
                let end = outcome.summary.as_ref().map(|summary| summary.state.clone()).unwrap_or_default();
                let what = format!("{step}, call {call}: {end}");
                assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
                let expected = match stage.on_failure {
                    OnFailure::Stop => "undone",
                    OnFailure::Undo if held => "undone",
                    OnFailure::Undo | OnFailure::Forward | OnFailure::Insist => "parked",
                    OnFailure::Report if bad && !(early && end == "done") => "needs-person",
                    OnFailure::Report => "done",
                };
                assert_eq!(end, expected, "{what}\n{}", outcome.log.join("\n"));
                *ends.entry(expected).or_default() += 1;
                if expected == "parked" {
                    let why = outcome.summary.and_then(|summary| summary.why).unwrap_or_default();
                    assert!(why.contains("not allowed"), "{what}: {why}");
                    let resumed = run(1);
                    assert!(
                        well(&scene, &resumed) && resumed.violations.is_empty(),
                        "{what}, then resumed: {:#?}",
                        resumed.summary
                    );
                }
            }
        }
    }
    assert_eq!(ends.len(), 4, "each answer must have been seen: {ends:?}");
}

#[test]
fn a_cancel_right_after_a_failed_call_leaves_nothing() {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for (scene, looked_at) in scenes() {
        for (step, calls) in rehearsal_of(&scene, looked_at).0 {
            for (call, point) in calls {
                for fault in [Fault::Throttled, Fault::LostRequest, Fault::LostAnswer] {
                    let (outcome, _, _) = simulated(&scene, |session| {
                        session.shared.world().script.insert(call, fault);
                        session.cancel_at = Some(point + 3);
                    });
                    let what = format!("{step}, call {call}, {fault:?}, then cancelled");
                    assert!(
                        outcome.violations.is_empty(),
                        "{what}: {:#?}\n{}",
                        outcome.violations,
                        outcome.log.join("\n")
                    );
                    let state = outcome.summary.map(|summary| summary.state).unwrap_or_default();
                    let bad = scene.newcomer != Newcomer::Good && state == "needs-person";
                    assert!(bad || ["cancelled", "done"].contains(&state.as_str()), "{what}: {state}");
                    *ends.entry(state).or_default() += 1;
                    *checked.entry(step.clone()).or_default() += 1;
                }
            }
        }
    }
    every_step_is_in(&checked);
    assert!(ends.len() == 3, "some cancelled, some past the point of no return, some bad: {ends:?}");
}

#[test]
fn whatever_goes_wrong_with_one_call_of_an_undo_nothing_is_left() {
    let scene = Scene::nominal();
    let (steps, _) = rehearsal(&scene);
    // While the pod cleans, and when there is a version.
    for step in ["CleanCopy", "VerifyVersion"] {
        let (_, cancelled) = *steps[step].last().expect("a call");
        let (outcome, _, traced) = simulated(&scene, |session| session.cancel_at = Some(cancelled));
        assert_eq!(outcome.summary.map(|summary| summary.state).as_deref(), Some("cancelled"), "{step}");
        let undo: Calls = calls(&traced).into_iter().filter(|(_, point)| *point > cancelled).collect();
        assert!(undo.len() > 8, "{step}: only {} calls", undo.len());
        for (call, before) in undo {
            let left = |what: &str, prepare: &dyn Fn(&mut Session)| {
                let (outcome, _, _) = simulated(&scene, |session| {
                    session.cancel_at = Some(cancelled);
                    prepare(session);
                });
                let what = format!("cancelled in {step}, call {call}, {what}");
                assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
                let state = outcome.summary.map(|summary| summary.state).unwrap_or_default();
                assert_eq!(state, "cancelled", "{what}:\n{}", outcome.log.join("\n"));
            };
            for fault in [Fault::Throttled, Fault::LostRequest, Fault::LostAnswer, Fault::Busy, Fault::Denied] {
                left(&format!("{fault:?}"), &|session| {
                    session.shared.world().script.insert(call, fault);
                });
            }
            for point in before..before + 3 {
                left(&format!("crash at point {point}"), &|session| session.shared.crash.arm(point));
            }
        }
    }
}
