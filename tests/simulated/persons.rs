//! What people say to runs, on the simulated world: pause, approve, reject, abandon, wherever it finds the run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kamino_wf::{
    clock::Clock as _,
    cloud::Limiter,
    model::Capture,
    policy::gates::{Gate, PATIENCE},
    sim::{Line, Outcome, Scene, Session, SimCloud, SimCluster, Stop, Word},
    store::{Fence, Journal},
    workflow::{self, Authority, Driver, Engine, EngineError, Event, Pace, Parts, RunState},
};

use crate::harness::{run, simulated};

const CAPTURES: [Capture; 2] = [Capture::Live, Capture::Stop];

fn scene(capture: Capture) -> Scene {
    Scene { capture, ..Scene::nominal() }
}

fn gated(capture: Capture, gate: Gate) -> Scene {
    Scene { approve: vec![gate], ..scene(capture) }
}

/// A run, and all that happened to it.
fn told(scene: &Scene, prepare: impl FnOnce(&mut Session)) -> (Outcome, Vec<Line>) {
    let (outcome, session) = run(scene, prepare);
    let lines = session.lines();
    (outcome, lines)
}

/// The state's word; and nothing happened that must not.
fn fine(outcome: &Outcome, what: &str) -> String {
    assert!(outcome.violations.is_empty(), "{what}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
    outcome.summary.as_ref().expect("a run").state.clone()
}

/// The points that a run passes. Of a donor that is taken out of service every seventh: it passes some hundreds, and
/// `stop` is at each of them.
fn points(scene: &Scene, answers: &[Word]) -> impl Iterator<Item = u64> + use<> {
    let all = run(scene, |session| session.answers = answers.to_vec()).0.points;
    assert!(all > 80, "only {all} points");
    (1..=all).step_by(if scene.capture == Capture::Live { 1 } else { 7 })
}

fn at(lines: &[Line], fits: impl Fn(&Event) -> bool) -> usize {
    lines.iter().position(|line| fits(&line.event)).expect("it happened")
}

#[test]
fn a_gate_is_asked_before_its_stage_and_nothing_of_that_goes_out_before_the_answer() {
    for capture in CAPTURES {
        for gate in Gate::ALL {
            let what = format!("{capture:?} {gate:?}");
            let (asking, lines) = told(&gated(capture, gate), |_| {});
            assert_eq!(fine(&asking, &what), "needs-approval", "{what}");
            let run_ = asking.run.expect("a run");
            assert_eq!(run_.debt, None, "{what}: it rests and owes");
            let RunState::NeedsApproval { gate: asked, why, .. } = &run_.state else { panic!("{what}") };
            assert_eq!(*asked, gate);
            assert!(why.contains("pool1") || why.contains("2026.") || why.contains("newest"), "{what}: {why}");
            let before = lines.len();
            let (outcome, lines) = told(&gated(capture, gate), |session| session.answers = vec![Word::Approve]);
            assert_eq!(fine(&outcome, &what), "done", "{what}");
            let asked = at(&lines, |event| matches!(event, Event::ApprovalAsked { .. }));
            assert_eq!(asked + 1, before, "{what}: it rested as soon as it had asked");
            assert!(
                matches!(&lines[before].event, Event::Approved { gate: of, by, .. } if *of == gate && !by.is_empty())
            );
            let approvals = outcome.run.expect("a run").approvals;
            assert_eq!(approvals.iter().map(|it| it.gate).collect::<Vec<_>>(), [gate], "{what}");
        }
    }
}

#[test]
fn a_scale_set_that_follows_the_image_already_is_not_adopted_again() {
    let scene = Scene { adopted: true, ..gated(Capture::Live, Gate::Adopt) };
    let (outcome, lines) = told(&scene, |_| {});
    assert_eq!(fine(&outcome, "adopted"), "done");
    assert!(!lines.iter().any(|line| matches!(line.event, Event::ApprovalAsked { .. })));
}

#[test]
fn a_no_takes_away_what_was_made() {
    for capture in CAPTURES {
        for gate in Gate::ALL {
            let what = format!("{capture:?} {gate:?}");
            let (outcome, _) = run(&gated(capture, gate), |session| session.answers = vec![Word::Reject]);
            // Before tidying the update has succeeded already.
            let expected = if gate == Gate::Tidy { "done" } else { "cancelled" };
            assert_eq!(fine(&outcome, &what), expected, "{what}");
        }
    }
}

/// A daemon on a session's world and store, for so long.
async fn served(session: &Session, time: Duration) {
    let shared = &session.shared;
    let clock = shared.world().clock.clone();
    let tree = session.disk.tree(Arc::clone(&shared.crash));
    let (journal, committer) = Journal::open(tree, clock.new_id()).expect("a sound store");
    let limiter = Arc::new(Limiter::default());
    let life = async {
        let engine = Engine::open(Parts {
            cloud: Arc::new(SimCloud::new(Arc::clone(shared), Arc::clone(&limiter))),
            cluster: Arc::new(SimCluster::new(Arc::clone(shared))),
            clock: Arc::new(clock),
            journal: journal.clone(),
            limiter,
            authority: Arc::new(Authority::unlimited(Fence(0))),
            pace: Pace::default(),
            runs_at_once: 1,
            release: "0.1.0".into(),
            observer: Box::new(|_, _| {}),
        });
        let driver = Driver::new(Arc::new(engine.await.expect("it opens")));
        driver.run_until(tokio::time::sleep(time)).await
    };
    let ended = tokio::select! {
        biased;
        ended = committer.run() => ended.map_err(EngineError::from),
        ended = life => ended,
    };
    ended.expect("the store never fails");
}

#[test]
fn no_answer_is_a_no_for_a_daemon_too_which_looks_at_the_clock() {
    simulated(async || {
        let scene = gated(Capture::Live, Gate::Capture);
        let session = Session::new(scene.clone());
        session.run(Stop::AtRest).await.expect("the store never fails");
        served(&session, PATIENCE + Duration::from_hours(1)).await;
        let again = Session::going_on(scene, Arc::clone(&session.shared), Arc::clone(&session.disk));
        let outcome = again.run(Stop::AtRest).await.expect("the store never fails");
        let summary = outcome.summary.expect("a run");
        assert_eq!(summary.state, "cancelled");
        let took = Duration::try_from(summary.moved.duration_since(summary.started)).expect("it went forward");
        assert!(took < PATIENCE + Duration::from_mins(30), "it was the daemon, in time: {took:?}");
    });
}

#[test]
fn no_answer_is_a_no_in_its_time_over_a_restart() {
    simulated(async || {
        let scene = gated(Capture::Live, Gate::Switch);
        let session = Session::new(scene.clone());
        session.run(Stop::AtRest).await.expect("the store never fails");
        tokio::time::sleep(PATIENCE / 10 * 9).await;
        let again = || Session::going_on(scene.clone(), Arc::clone(&session.shared), Arc::clone(&session.disk));
        let outcome = again().run(Stop::AtRest).await.expect("the store never fails");
        assert_eq!(outcome.summary.expect("a run").state, "needs-approval", "there is time yet");
        tokio::time::sleep(PATIENCE / 10 + Duration::from_hours(1)).await;
        let outcome = again().run(Stop::AtRest).await.expect("the store never fails");
        let summary = outcome.summary.expect("a run");
        assert_eq!(summary.state, "cancelled", "{}", outcome.log.join("\n"));
        assert!(summary.why.is_some_and(|why| why.contains("nobody")));
    });
}

#[test]
fn a_crash_at_any_point_of_a_run_that_asks_changes_nothing() {
    for capture in CAPTURES {
        let scene = Scene { approve: vec![Gate::Capture, Gate::Switch], ..scene(capture) };
        let answers = [Word::Approve, Word::Approve];
        for number in points(&scene, &answers) {
            let (outcome, lines) = told(&scene, |session| {
                session.answers = answers.to_vec();
                session.shared.crash.arm(number);
            });
            let what = format!("{capture:?}, crash at point {number}");
            assert_eq!(fine(&outcome, &what), "done", "{what}: {}", outcome.log.join("\n"));
            let approved = lines.iter().filter(|line| matches!(line.event, Event::Approved { .. })).count();
            assert_eq!(approved, 2, "{what}");
        }
    }
}

#[test]
fn a_pause_at_any_point_stops_before_a_stage_with_no_node_in_hand_and_is_resumed() {
    for capture in CAPTURES {
        let mut before: BTreeMap<String, u64> = BTreeMap::new();
        for number in points(&scene(capture), &[]) {
            let (outcome, lines) = told(&scene(capture), |session| {
                session.said_at = Some((number, Word::Pause));
                session.answers = vec![Word::Resume];
            });
            let what = format!("{capture:?}, paused at point {number}");
            assert_eq!(fine(&outcome, &what), "done", "{what}: {}", outcome.log.join("\n"));
            let paused = lines.iter().position(|line| matches!(line.event, Event::Paused { .. }));
            if let Some(paused) = paused {
                assert!(matches!(lines[paused + 1].event, Event::Resumed { .. }), "{what}: it did not stand");
                *before.entry(lines[paused].step.clone().unwrap_or_default()).or_default() += 1;
            }
        }
        println!("{capture:?}: paused before {before:?}");
        let first = if capture == Capture::Live { "SnapshotDisk" } else { "ReadNode" };
        let stages = ["EnsureGallery", first, "CreateVersion", "PublishVersion", "DeleteTemporaries"];
        let mut expected = stages.map(str::to_owned).to_vec();
        expected.sort();
        assert_eq!(before.into_keys().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_run_that_is_abandoned_at_any_point_gives_the_node_back_and_names_what_it_leaves() {
    for capture in CAPTURES {
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        let mut named: BTreeMap<usize, u64> = BTreeMap::new();
        let mut published = 0;
        for number in points(&scene(capture), &[]) {
            let (outcome, _) = run(&scene(capture), |session| session.said_at = Some((number, Word::Abandon)));
            let what = format!("{capture:?}, abandoned at point {number}");
            let ended = fine(&outcome, &what);
            *ends.entry(ended).or_default() += 1;
            let run = outcome.run.expect("a run");
            assert!(run.ended() && run.debt.is_none(), "{what}");
            if let RunState::Ended(workflow::Outcome::Abandoned { left }) = &run.state {
                *named.entry(left.len()).or_default() += 1;
                published += u64::from(left.iter().any(|what| what.contains("published")));
            }
        }
        println!("{capture:?}: abandoned at each point: {ends:?}, so many things named: {named:?}");
        let words: Vec<&str> = ends.keys().map(String::as_str).collect();
        assert_eq!(words, ["abandoned", "done"], "late, it has ended already");
        // Snapshot, copy and version; a donor that was off needs no copy.
        let most = if capture == Capture::Live { 3 } else { 2 };
        assert!(named.contains_key(&0) && named.contains_key(&most) && published > 0, "{named:?}, {published}");
    }
}

#[test]
fn a_run_that_goes_back_can_be_abandoned_on_the_way() {
    for capture in CAPTURES {
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        for number in points(&scene(capture), &[]).step_by(3) {
            let (outcome, _) = run(&scene(capture), |session| {
                session.cancel_at = Some(number);
                session.said_at = Some((number + 2, Word::Abandon));
            });
            *ends.entry(fine(&outcome, &format!("{capture:?} at point {number}"))).or_default() += 1;
        }
        println!("{capture:?}: cancelled, and abandoned two points later: {ends:?}");
        assert!(ends.contains_key("abandoned"), "{ends:?}");
    }
}
