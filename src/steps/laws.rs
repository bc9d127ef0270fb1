//! The checks that every step must pass, whatever goes wrong with whichever of its calls.
//!
//! For each step of the list, each call that it makes, and each way in which that call can fail: the run goes on until it is
//! done, with the same output and one effect; and a cancel right after the failure leaves nothing. Crashes at each point of
//! each call are in `tests/update.rs`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    model::Profile,
    sim::{Fault, Line, Outcome, Scene, Session, Stop},
    workflow::{self, Event, LIVE, OnFailure, RunState, find, plan},
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

/// The calls of each step, and its output.
fn rehearsal(scene: &Scene) -> (BTreeMap<String, Calls>, BTreeMap<String, Value>) {
    let (outcome, lines, traced) = simulated(scene, |_| {});
    let points: Calls =
        (1..).zip((1..).zip(&traced).filter(|(_, name)| name.ends_with(": before")).map(|(point, _)| point)).collect();
    let mut calls: BTreeMap<String, Calls> = BTreeMap::new();
    let mut from = 0;
    for line in &lines {
        if let (Some(step), Event::Confirmed { .. }) = (&line.step, &line.event) {
            let within = points.iter().filter(|(_, point)| (from..=line.point).contains(point)).copied();
            calls.insert(step.clone(), within.collect());
            from = line.point + 1;
        }
    }
    (calls, outcome.run.expect("a run").outputs)
}

/// Everything but what a failure moves: times, and ids that the world drew at some time.
fn timeless(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Value::from("an id")
        }
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => Value::from("a time"),
        Value::Array(items) => items.iter().map(timeless).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), timeless(field))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn done(outcome: &Outcome) -> bool {
    outcome.run.as_ref().is_some_and(|run| run.state == RunState::Ended(workflow::Outcome::Done))
}

/// Scenes in which, together, every step has something to do.
fn scenes() -> [Scene; 2] {
    [Scene { profile: Profile::AksEngine, ..Scene::nominal() }, Scene { adopted: true, seed: 3, ..Scene::nominal() }]
}

#[test]
fn whatever_goes_wrong_with_one_call_the_run_is_done_with_the_same_outputs() {
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for scene in scenes() {
        let (steps, outputs) = rehearsal(&scene);
        for (step, calls) in steps {
            for (call, _) in calls {
                for fault in [Fault::Throttled, Fault::LostRequest, Fault::LostAnswer, Fault::Busy] {
                    let (outcome, _, _) = simulated(&scene, |session| {
                        session.shared.world().script.insert(call, fault);
                    });
                    let what = format!("{step}, call {call}, {fault:?}");
                    assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
                    assert!(done(&outcome), "{what}: {:#?}\n{}", outcome.summary, outcome.log.join("\n"));
                    let after = &outcome.run.as_ref().expect("a run").outputs[&step];
                    assert_eq!(timeless(after), timeless(&outputs[&step]), "{what}: another output");
                    *checked.entry(step.clone()).or_default() += 1;
                }
            }
        }
    }
    for planned in plan(LIVE) {
        assert!(
            checked.get(&planned.name).is_some_and(|times| *times > 0),
            "{} was not checked: {checked:?}",
            planned.name
        );
    }
}

#[test]
fn a_missing_right_parks_stops_or_is_reported_and_granted_the_run_goes_on() {
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for scene in scenes() {
        for (step, calls) in rehearsal(&scene).0 {
            let planned = plan(LIVE).into_iter().find(|planned| planned.name == step).expect("a step of the list");
            let (stage, _) = find(LIVE, &planned).expect("a stage");
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
                    OnFailure::Undo | OnFailure::Forward => "parked",
                    OnFailure::Report => "done",
                };
                assert_eq!(end, expected, "{what}\n{}", outcome.log.join("\n"));
                *ends.entry(expected).or_default() += 1;
                if expected == "parked" {
                    let why = outcome.summary.and_then(|summary| summary.why).unwrap_or_default();
                    assert!(why.contains("not allowed"), "{what}: {why}");
                    let resumed = run(1);
                    assert!(
                        done(&resumed) && resumed.violations.is_empty(),
                        "{what}, then resumed: {:#?}",
                        resumed.summary
                    );
                }
            }
        }
    }
    assert_eq!(ends.len(), 3, "each answer must have been seen: {ends:?}");
}

#[test]
fn a_cancel_right_after_a_failed_call_leaves_nothing() {
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for scene in scenes() {
        for (step, calls) in rehearsal(&scene).0 {
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
                    assert!(["cancelled", "done"].contains(&state.as_str()), "{what}: {state}");
                    *checked.entry(state).or_default() += 1;
                }
            }
        }
    }
    assert!(checked.len() == 2, "some cancelled, some past the point of no return: {checked:?}");
}
