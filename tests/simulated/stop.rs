//! `capture: stop` on the simulated world: whatever happens, the donor is back in service, as it was found, before anything
//! else is undone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kamino_wf::{
    model::{Capture, Credential, Profile},
    policy::obligations::{CLAIM, Claim, Written},
    sim::{Fault, Faults, Outcome, Scene, Session, Stop, World},
    workflow::{self, Event, RunState},
};

use crate::harness::{done, points, run, simulated, state, trouble};

fn scene() -> Scene {
    Scene { capture: Capture::Stop, ..Scene::nominal() }
}

#[test]
fn a_nominal_update_gives_the_donor_back_and_ends_well() {
    for profile in [Profile::Kubeadm, Profile::AksEngine] {
        for adopted in [false, true] {
            let (outcome, session) = run(&Scene { profile: profile.clone(), adopted, ..scene() }, |_| {});
            assert!(outcome.violations.is_empty(), "{:#?}\n{}", outcome.violations, outcome.log.join("\n"));
            assert!(done(&outcome), "{:#?}\n{}", outcome.summary, outcome.log.join("\n"));
            for name in ["I1", "I2", "I6", "I8"] {
                assert!(
                    session.shared.world().exercised.get(name).is_some_and(|times| *times > 0),
                    "{name} was never exercised"
                );
            }
        }
    }
}

/// The node is to come back with a new credential, and its token is dead before anybody can use the image.
fn renewed() -> Scene {
    Scene { credential: Credential::Rebootstrap, ..scene() }
}

#[test]
fn a_token_lives_until_the_donor_is_back_and_not_until_the_image_is_published() {
    let (outcome, session) = run(&renewed(), |_| {});
    assert!(outcome.violations.is_empty() && done(&outcome), "{:#?} {:#?}", outcome.violations, outcome.summary);
    let world = session.shared.world();
    let first = |verb: &str| world.accepted.iter().position(|it| it.verb == verb).expect(verb);
    let order =
        ["create_anchor", "create_donor_pod", "begin_power_off", "begin_start", "delete_anchor", "begin_publish"];
    let places = order.map(first);
    assert!(places.is_sorted(), "{order:?} at {places:?}");
    assert!(world.machines.values().all(|machine| machine.asks.is_none()), "it has a credential");
}

/// Seed 70 of the sweep: it never came past the first of two requests of one step.
#[test]
fn crashed_after_every_event_it_gets_on() {
    for scene in [scene(), renewed()] {
        let (outcome, _) = run(&scene, |session| session.shared.crash.arm_every(1));
        assert!(outcome.crashes > 20 && outcome.violations.is_empty(), "{:#?}", outcome.violations);
        assert!(done(&outcome), "{:#?}", outcome.summary);
    }
}

#[test]
fn a_crash_at_any_point_changes_nothing() {
    crash_anywhere(&scene());
}

#[test]
fn a_crash_at_any_point_leaves_a_donor_with_a_new_credential_its_token() {
    crash_anywhere(&renewed());
}

fn crash_anywhere(scene: &Scene) {
    let places = points(scene);
    println!("{} crash points", places.len());
    assert!(places.len() >= 200, "only {} crash points", places.len());
    for (number, place) in (1_u64..).zip(&places) {
        let (outcome, _) = run(scene, |session| session.shared.crash.arm(number));
        assert_eq!(outcome.crashes, 1, "point {number} ({place}) must be passed");
        assert!(
            outcome.violations.is_empty() && done(&outcome),
            "crash at point {number} ({place}): {:#?} {:#?}\n{}",
            outcome.violations,
            outcome.summary,
            outcome.log.join("\n")
        );
    }
}

/// What `kubectl describe node` has to say of the donor.
fn told(session: &Session) -> Vec<&'static str> {
    session.shared.world().node_notes.iter().map(|note| note.reason).collect()
}

const TOLD: [&str; 7] =
    ["TakenOutOfService", "Drained", "DiskCleaned", "SwitchedOff", "DiskSnapshotted", "SwitchedOn", "BackInService"];

#[test]
fn the_donors_node_says_what_happens_to_it() {
    let (outcome, session) = run(&scene(), |_| {});
    assert!(done(&outcome), "{:#?}", outcome.summary);
    assert_eq!(told(&session), TOLD);
    let world = session.shared.world();
    let first = &world.node_notes[0];
    let donor = &outcome.run.as_ref().expect("a run").outputs["RankNodes"]["donor"];
    assert_eq!(
        (donor["node"].as_str(), donor["node_uid"].as_str()),
        (Some(first.node.as_str()), Some(&*first.node_uid))
    );
    for word in [&*first.run.short(), "pool1", "45 minutes", "kamino-wf rescue --node"] {
        assert!(first.words.contains(word), "no {word:?} in {}", first.words);
    }
    assert!(world.node_notes.iter().all(|note| !note.warning && note.node == first.node));
    drop(world);
    // A donor that goes on working has nothing to tell, and nobody may write about it.
    assert_eq!(told(&run(&Scene::nominal(), |_| {}).1), [""; 0]);
}

#[test]
fn a_node_that_is_given_back_early_says_why() {
    let (outcome, session) = run(&scene(), |session| session.shared.world().cleaner_fails = Some("no room".into()));
    assert_eq!(state(&outcome), "undone", "{:#?}", outcome.summary);
    let reasons = told(&session);
    assert_eq!(reasons, ["TakenOutOfService", "Drained", "GivingBack", "SwitchedOn", "BackInService"]);
    let world = session.shared.world();
    let why = world.node_notes.iter().find(|note| note.reason == "GivingBack").expect("told");
    assert!(why.warning && why.words.contains("no room"), "{why:?}");
}

/// What can't be told holds nothing up.
#[test]
fn without_the_right_to_tell_the_update_ends_as_well() {
    let (_, rehearsed) = run(&scene(), |session| session.shared.crash.trace());
    let calls = rehearsed.shared.crash.traced();
    let calls = (1..).zip(calls.iter().filter(|it| it.ends_with(": before")));
    let telling: Vec<u64> = calls.filter(|(_, it)| it.starts_with("tell:")).map(|(number, _)| number).collect();
    assert_eq!(telling.len(), TOLD.len());
    for fault in [Fault::Denied, Fault::Throttled, Fault::LostAnswer] {
        let (outcome, session) = run(&scene(), |session| {
            session.shared.world().script.extend(telling.iter().map(|call| (*call, fault)));
        });
        assert!(outcome.violations.is_empty() && done(&outcome), "{fault:?}: {:#?}", outcome.summary);
        assert_eq!(told(&session).len(), if fault == Fault::LostAnswer { TOLD.len() } else { 0 }, "{fault:?}");
    }
}

#[test]
fn a_cancel_at_any_point_gives_the_donor_back_first() {
    cancel_anywhere(&scene());
}

#[test]
fn a_cancel_at_any_point_gives_a_donor_back_with_a_new_credential() {
    cancel_anywhere(&renewed());
}

fn cancel_anywhere(scene: &Scene) {
    let places = points(scene);
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for (number, place) in (1_u64..).zip(&places) {
        let (outcome, _) = run(scene, |session| session.cancel_at = Some(number));
        let state = outcome.summary.as_ref().map(|summary| summary.state.clone()).unwrap_or_default();
        assert!(
            outcome.violations.is_empty() && ["cancelled", "done"].contains(&state.as_str()),
            "cancel at point {number} ({place}) ended {state}: {:#?}\n{}",
            outcome.violations,
            outcome.log.join("\n")
        );
        *ends.entry(state).or_default() += 1;
    }
    println!("cancelled at each of {} points: {ends:?}", places.len());
    assert_eq!(ends.len(), 2, "some must be cancelled, and some be past the point of no return: {ends:?}");
}

/// A machine is called running half a minute and more before its kubelet speaks: that is no reason to restart it.
#[test]
fn a_donor_that_was_started_is_left_to_boot() {
    for seed in 0..20 {
        simulated(async || {
            let session = Session::new(Scene { seed, ..scene() });
            let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
            assert!(done(&outcome), "seed {seed}: {:#?}", outcome.summary);
            let world = session.shared.world();
            let orders = |verb: &str| world.accepted.iter().filter(|it| it.verb == verb).count();
            assert_eq!((orders("begin_start"), orders("begin_restart")), (1, 0), "seed {seed}: {:#?}", world.accepted);
        });
    }
}

/// A whole copy of a store was restored, and a node still carries what it has forgotten.
#[test]
fn a_store_that_went_back_in_time_takes_no_node() {
    let nominal = simulated(async || Session::new(scene()).run(Stop::AtRest).await.expect("the store never fails"));
    let run = nominal.run.expect("a run");
    let donor = run.outputs["RankNodes"]["donor"]["node"].as_str().expect("a donor").to_owned();
    let claim: Claim = serde_json::from_value(run.inputs["HoldNode"]["claim"].clone()).expect("a claim");
    let written = claim.written.expect("the store is said");
    for (later, code) in [(1000, "KW0105"), (0, "")] {
        simulated(async || {
            let session = Session::new(scene());
            let shared = Arc::clone(&session.shared);
            let commit = if later > 0 { written.commit + later } else { 1 };
            let theirs = Claim { written: Some(Written { commit, ..written }), ..claim.clone() };
            let text = serde_json::to_string(&theirs).expect("JSON");
            let donor = donor.clone();
            let session = session.watched(Arc::new(move |_, line| {
                let mut world = shared.world();
                let node = world.nodes.iter_mut().find(|node| node.name.as_str() != donor).expect("another node");
                match line.step.as_deref() {
                    Some("EnsureDefinition") => drop(node.annotations.insert(CLAIM.to_owned(), text.clone())),
                    Some("ReadNode") => drop(node.annotations.remove(CLAIM)),
                    Some(_) | None => {}
                }
            }));
            let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
            let summary = outcome.summary.expect("a summary");
            let why = summary.why.unwrap_or_default();
            assert_eq!(summary.state, if later > 0 { "undone" } else { "done" }, "{why}\n{}", outcome.log.join("\n"));
            assert!(why.contains(code), "{why}");
        });
    }
}

/// What somebody does to the donor's claim as soon as it is drained.
fn meddled(claim: Option<&'static str>, cancel_at: Option<u64>) -> (Outcome, bool) {
    simulated(async || {
        let mut session = Session::new(scene());
        let shared = Arc::clone(&session.shared);
        let asked = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&asked);
        session.cancel_at = cancel_at;
        let session = session.watched(Arc::new(move |_, line| {
            let mut world = shared.world();
            let drained = line.step.as_deref() == Some("DrainNode") && matches!(line.event, Event::Confirmed { .. });
            let person = matches!(line.event, Event::PersonAsked { .. });
            told.fetch_or(person, Ordering::Relaxed);
            for node in world.nodes.iter_mut().filter(|node| node.annotations.contains_key(CLAIM)) {
                match claim {
                    // A person who was asked takes it off.
                    Some(_) if person => drop(node.annotations.remove(CLAIM)),
                    Some(text) if drained => drop(node.annotations.insert(CLAIM.to_owned(), text.to_owned())),
                    None if drained => drop(node.annotations.remove(CLAIM)),
                    Some(_) | None => {}
                }
            }
        }));
        (session.run(Stop::AtRest).await.expect("the store never fails"), asked.load(Ordering::Relaxed))
    })
}

#[test]
fn a_donor_whose_claim_somebody_takes_off_or_spoils_comes_back_all_the_same() {
    let off =
        points(&scene()).iter().position(|place| place.starts_with("begin_power_off")).expect("it is switched off");
    for cancel_at in [None, Some(u64::try_from(off).expect("a small number"))] {
        for (claim, person) in [(None, false), (Some("not ours to read"), true)] {
            let (outcome, asked) = meddled(claim, cancel_at);
            let what = format!("{claim:?}, cancelled at {cancel_at:?}");
            assert!(outcome.violations.is_empty(), "{what}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
            assert_eq!(asked, person, "{what}: a person is asked where nobody else can tell");
            assert!(outcome.run.is_some_and(|run| run.ended() && run.debt.is_none()), "{what}");
        }
    }
}

#[test]
fn bad_days_leave_no_node_out_of_service() {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..200 {
        let scene = Scene { capture: Capture::Stop, ..Scene::of_seed(seed, Faults::bad_day()) };
        let (outcome, _) = run(&scene, |session| {
            trouble(session, seed);
        });
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
        *ends.entry(outcome.summary.map(|summary| summary.state).unwrap_or_default()).or_default() += 1;
    }
    println!("200 seeds ended: {ends:?}");
}

#[test]
fn whoever_lives_on_the_donor_is_asked_to_go_and_the_node_comes_back_all_the_same() {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let mut drained = 0;
    for seed in 0..30 {
        let faults = if seed % 2 == 0 { Faults::none() } else { Faults::bad_day() };
        let scene = Scene { capture: Capture::Stop, ..Scene::of_seed(seed, faults) };
        let (outcome, session) = run(&scene, |session| {
            let mut world = session.shared.world();
            let now = world.now();
            let World { tenants, nodes, rng, .. } = &mut *world;
            for node in nodes.iter() {
                tenants.move_in(&node.name, now, rng);
            }
            drop(world);
            if seed % 3 == 1 {
                session.shared.crash.arm_every(1 + seed % 7);
            }
            if seed % 5 == 2 {
                session.cancel_at = Some(seed * 7 % 600);
            }
        });
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
        *ends.entry(outcome.summary.map(|summary| summary.state).unwrap_or_default()).or_default() += 1;
        drained += session.shared.world().exercised.get("I10").copied().unwrap_or_default();
    }
    println!("30 seeds ended: {ends:?}; {drained} were drained");
    assert!(ends.contains_key("done") && ends.contains_key("undone") && drained > 8, "{ends:?}, {drained} drained");
}

#[test]
fn a_cleaning_that_fails_half_way_is_undone_with_its_reason_and_the_donor_comes_back() {
    let (outcome, _) = run(&scene(), |session| {
        session.shared.world().cleaner_fails = Some("zero the free pages of meta.db: Input/output error".into());
    });
    assert!(outcome.violations.is_empty(), "{:#?}\n{}", outcome.violations, outcome.log.join("\n"));
    let run = outcome.run.expect("a run");
    assert!(
        run.debt.is_none() && matches!(run.state, RunState::Ended(workflow::Outcome::Undone { .. })),
        "{:?}",
        run.state
    );
    let said = outcome.log.join("\n");
    assert!(said.contains("KW0612") && said.contains("Input/output error"), "{said}");
}
