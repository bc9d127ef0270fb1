//! Stores of earlier releases: each holds a run that was left in the middle of a step, and today's binary finishes it.
//!
//! `tests/stores/v1` is one real store directory with a run for every step. Its world is not frozen: the simulation is
//! brought to the same point by the same seed, and then the frozen journal takes the place of the one that it wrote.
//! `UPDATE_STORES=1` writes the store anew; do that only for a format that no release has written yet.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kamino_wf::{
    clock::Clock as _,
    cloud::{Cloud as _, Limiter},
    model::RunId,
    sim::{Crash, Line, Scene, Session, Shared, SimCloud, SimCluster, SimDisk, Stop},
    store::{Fence, Holder, Journal, NewRecord, Revision, open_dir},
    workflow::{
        self, Authority, Driver, Engine, EngineError, Event, LIVE, Next, Pace, Parts, Rejected, Run, RunState, Summary,
        events, plan,
    },
};
use uuid::Uuid;

use crate::harness::simulated;

const STORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stores/v1");

/// Steps that are younger than the store: its runs are done without them.
const YOUNGER: [&str; 2] = ["PlanScaleOut", "ScaleOut"];

/// Every step of the store's list, with the scene in which it has something to do, and a seed of its own so that its run has too.
fn left_at() -> Vec<(String, Scene)> {
    let steps = plan(LIVE).into_iter().map(|step| step.name).filter(|step| !YOUNGER.contains(&step.as_str()));
    (1..)
        .zip(steps)
        .map(|(seed, step)| {
            let adopted = step == "PruneVersions" || step == "PlanPrune";
            (step, Scene { seed, adopted, ..Scene::nominal() })
        })
        .collect()
}

/// The point in the middle of a step: after its request was recorded, or between the reads of a decision.
fn middle(lines: &[Line], step: &str) -> u64 {
    let asked = |line: &&Line| line.step.as_deref() == Some(step) && matches!(line.event, Event::Asked { .. });
    let done = |line: &&Line| line.step.as_deref() == Some(step) && matches!(line.event, Event::Confirmed { .. });
    if let Some(line) = lines.iter().find(asked) {
        return line.point + 1;
    }
    let end = lines.iter().position(|line| done(&line)).unwrap_or_else(|| panic!("{step} is never done"));
    lines[end - 1].point + 2
}

/// A world with a run in the middle of a step.
async fn simulated_to(step: &str, scene: &Scene) -> Session {
    let rehearsal = Session::new(scene.clone());
    rehearsal.run(Stop::AtRest).await.expect("the update ends");
    let point = middle(&rehearsal.lines(), step);
    let session = Session::new(scene.clone());
    session.run(Stop::AtPoint(point)).await.expect("the update gets there");
    session.disk.power_cut();
    session
}

/// All runs of a journal.
async fn all(journal: &Journal) -> Vec<(Uuid, Vec<Event>)> {
    let mut runs = Vec::new();
    for head in journal.heads().await.expect("heads") {
        let (_, events) = events(journal, head.run).await.expect("readable").expect("a run");
        runs.push((head.run, events));
    }
    runs
}

/// Reads a simulated disk as a process would.
async fn on<T>(disk: &Arc<SimDisk>, body: impl AsyncFnOnce(Journal) -> T) -> T {
    let (journal, committer) =
        Journal::open(disk.tree(Arc::new(Crash::default())), Uuid::nil()).expect("a sound journal");
    tokio::select! {
        biased;
        ended = committer.run() => panic!("the committer ended: {ended:?}"),
        result = body(journal) => result,
    }
}

/// Writes a run, an event a commit, as the engine does.
async fn write(journal: &Journal, run: Uuid, events: &[Event]) {
    let mut so_far: Option<Run> = None;
    for (revision, event) in (0..).zip(events) {
        match &mut so_far {
            Some(run) => run.apply(event.clone()).expect("a legal event"),
            None => so_far = Some(Run::begin(RunId(run), event.clone()).expect("a first event")),
        }
        let summary = serde_json::to_value(Summary::of(so_far.as_ref().expect("begun"))).expect("json");
        let record = NewRecord { kind: event.kind(), payload: serde_json::to_value(event).expect("json") };
        journal.commit(run, Revision(revision), Fence(0), vec![record], summary).await.expect("committed");
    }
}

/// A real store, opened outside paused time: its committer is a thread.
fn real<T>(dir: &Path, body: impl AsyncFnOnce(&Journal) -> T) -> T {
    let holder = Holder { pid: 0, since: Timestamp::UNIX_EPOCH, socket: None, release: "test".into() };
    let (journal, guard) = open_dir(dir, &holder).expect("a sound store");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
    let result = runtime.block_on(body(&journal));
    drop(journal);
    guard.close().expect("closed in order");
    result
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the frozen store") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The frozen runs, read from a copy.
fn frozen() -> Vec<(Uuid, Vec<Event>)> {
    let dir = tempfile::tempdir().expect("a directory");
    let copy: PathBuf = dir.path().join("store");
    copied(Path::new(STORE), &copy);
    real(&copy, async |journal| all(journal).await)
}

#[test]
fn every_frozen_run_is_finished_by_todays_binary() {
    if std::env::var_os("UPDATE_STORES").is_some() {
        freeze();
    }
    let frozen = frozen();
    assert_eq!(frozen.len(), left_at().len(), "a run for every step");
    for (step, scene) in left_at() {
        simulated(async || {
            let session = simulated_to(&step, &scene).await;
            let written = on(&session.disk, async |journal| all(&journal).await).await;
            let [(id, _)] = written.as_slice() else { panic!("{step}: one run") };
            let (_, events) = frozen.iter().find(|(run, _)| run == id).unwrap_or_else(|| {
                panic!("{step}: run {id} is not in the frozen store: the simulation has changed, see above")
            });
            let at = Run::fold(RunId(*id), events.clone()).expect("a legal run");
            assert_eq!(at.step_name(), Some(step.as_str()), "where it was left");
            same_disk(&session, &at);

            let disk = Arc::new(SimDisk::default());
            on(&disk, async |journal| write(&journal, *id, events).await).await;
            let resumed = Session::going_on(scene.clone(), Arc::clone(&session.shared), disk);
            let outcome = resumed.run(Stop::AtRest).await.expect("the store never fails");
            assert!(outcome.violations.is_empty(), "{step}: {:#?}\n{}", outcome.violations, outcome.log.join("\n"));
            let run = outcome.run.expect("a run");
            assert_eq!(run.state, RunState::Ended(workflow::Outcome::Done), "{step}");
            let after = on(&resumed.disk, async |journal| all(&journal).await).await;
            assert!(after[0].1.starts_with(events), "{step}: what was stored has changed");
        });
    }
}

/// A release that asks one thing more draws other numbers from the same seed: the copy gets the one by which the frozen run
/// knows it. Everything else that a run knows by number was there before its first call, or is drawn apart.
fn same_disk(session: &Session, run: &Run) {
    let Some(copied) = run.outputs.get("CopyDisk") else { return };
    let text = |field: &str| copied[field].as_str().expect("a text").to_owned();
    let mut world = session.shared.world();
    let disk = world.disks.get_mut(&text("disk").to_ascii_lowercase());
    if let Some(disk) = disk {
        disk.value.unique_id = text("unique_id");
    }
}

/// Makes the frozen store.
fn freeze() {
    let runs: Vec<(Uuid, Vec<Event>)> = left_at()
        .into_iter()
        .flat_map(|(step, scene)| {
            simulated(async || {
                let session = simulated_to(&step, &scene).await;
                on(&session.disk, async |journal| all(&journal).await).await
            })
        })
        .collect();
    drop(std::fs::remove_dir_all(STORE));
    std::fs::create_dir_all(Path::new(STORE).parent().expect("a parent")).expect("a directory");
    real(Path::new(STORE), async |journal| {
        for (run, events) in &runs {
            write(journal, *run, events).await;
        }
    });
    // Room that is set aside for a full disk: made again at every start, and too large to keep.
    std::fs::remove_file(Path::new(STORE).join("ballast")).expect("the ballast");
}

/// An engine over a world.
async fn engine(shared: &Arc<Shared>, journal: Journal, runs_at_once: usize) -> Result<Engine, EngineError> {
    let limiter = Arc::new(Limiter::default());
    let clock = shared.world().clock.clone();
    Engine::open(Parts {
        authority: Arc::new(Authority::unlimited(Fence(0))),
        runs_at_once,
        cloud: Arc::new(SimCloud::new(Arc::clone(shared), Arc::clone(&limiter))),
        cluster: Arc::new(SimCluster::new(Arc::clone(shared))),
        clock: Arc::new(clock),
        journal,
        limiter,
        pace: Pace::default(),
        release: "0.1.0".into(),
        observer: Box::new(|_, _| {}),
    })
    .await
}

#[test]
fn a_run_with_a_step_of_another_release_is_left_alone_and_says_which_release() {
    let (step, scene) = left_at().swap_remove(8);
    simulated(async || {
        let session = simulated_to(&step, &scene).await;
        let (id, mut events) = on(&session.disk, async |journal| all(&journal).await.swap_remove(0)).await;
        let Some(Event::Started { plan, release, .. }) = events.first_mut() else { panic!("no start") };
        plan[10].version = 99;
        *release = "9.9.9".into();
        let disk = Arc::new(SimDisk::default());
        on(&disk, async |journal| write(&journal, id, &events).await).await;
        let before = session.shared.world().accepted.len();
        on(&disk, async |journal| {
            let engine = engine(&session.shared, journal, usize::MAX);
            let engine = Arc::new(engine.await.expect("opened"));
            Driver::new(Arc::clone(&engine)).run_to_rest().await.expect("at rest");
            let rejected =
                engine.resume(RunId(id), "me").await.expect("the store works").expect_err("not by this release");
            assert!(matches!(&rejected, Rejected::NeedsRelease { release, .. } if release == "9.9.9"), "{rejected}");
            assert!(rejected.to_string().contains("/99"), "{rejected}");
        })
        .await;
        assert_eq!(session.shared.world().accepted.len(), before, "nothing was asked for");
    });
}

/// What a release that lacks a step sees of a run: the step is of a version that it does not have.
fn of_a_newer_release(events: &[Event], step: usize) -> Vec<Event> {
    let mut events = events.to_vec();
    let Some(Event::Started { plan, release, .. }) = events.first_mut() else { panic!("no start") };
    plan[step].version += 98;
    *release = "9.9.9".into();
    events
}

/// The same under the release that has it: this one stands in for that.
fn under_that_release(events: &[Event], step: usize) -> Vec<Event> {
    let mut events = events.to_vec();
    let Some(Event::Started { plan, .. }) = events.first_mut() else { panic!("no start") };
    plan[step].version -= 98;
    events
}

/// A run in the middle of its ninth step, with the step at `lacking` of a newer release: how it is once nothing moves any more,
/// and how many things of it are left; under this release, where a person may cancel it, and afterwards under the other, where
/// they may resume it.
fn downgraded_and_back(lacking: usize, cancels: bool, resumes: bool) -> [(Vec<Event>, Run, usize); 2] {
    let (step, scene) = left_at().swap_remove(8);
    simulated(async || {
        let session = simulated_to(&step, &scene).await;
        let (id, events) = on(&session.disk, async |journal| all(&journal).await.swap_remove(0)).await;
        let lived = async |events: &[Event], cancels: bool, resumes: bool| {
            let disk = Arc::new(SimDisk::default());
            on(&disk, async |journal| write(&journal, id, events).await).await;
            on(&disk, async |journal| {
                let engine = Arc::new(engine(&session.shared, journal, usize::MAX).await.expect("opened"));
                if cancels {
                    engine.cancel(RunId(id), "me").await.expect("the store works").expect("it may be");
                }
                if resumes {
                    engine.resume(RunId(id), "me").await.expect("the store works").expect("it may be");
                }
                Driver::new(Arc::clone(&engine)).run_to_rest().await.expect("at rest");
            })
            .await;
            let events = on(&disk, async |journal| all(&journal).await.swap_remove(0).1).await;
            let run = Run::fold(RunId(id), events.clone()).expect("a legal run");
            let cloud = SimCloud::new(Arc::clone(&session.shared), Arc::new(Limiter::default()));
            // Lists lag behind.
            tokio::time::sleep(Duration::from_mins(5)).await;
            let left = cloud.leftovers(&run.spec.scale_set.group()).await.expect("it answers");
            let left = left.disks.len() + left.snapshots.len();
            (events, run, left)
        };
        let first = lived(&of_a_newer_release(&events, lacking), cancels, false).await;
        let second = lived(&under_that_release(&first.0, lacking), false, resumes).await;
        [first, second]
    })
}

const AT: usize = 8;
const AHEAD: usize = 10;

/// The older release writes nothing, so the newer one goes on as if it had never been away.
#[test]
fn a_run_of_a_newer_release_is_resumed_by_that_release() {
    for lacking in [AT, AHEAD] {
        let [(_, run, left), (_, again, _)] = downgraded_and_back(lacking, false, false);
        assert!(matches!(run.state, RunState::Running { .. }), "{:?}", run.state);
        assert!(left > 0, "what it has made is left to it");
        assert_eq!(again.state, RunState::Ended(workflow::Outcome::Done));
    }
}

/// What has to be undone was all done by steps that the older release knows: it may.
#[test]
fn a_run_whose_newer_step_is_ahead_is_undone_by_the_older_release() {
    let [(_, run, left), (_, again, _)] = downgraded_and_back(AHEAD, true, false);
    assert_eq!(run.state, RunState::Ended(workflow::Outcome::Cancelled));
    assert_eq!(left, 0);
    assert_eq!(again.state, run.state);
}

/// It can't be undone by who does not know what was done: a person is asked, who is told which release to use.
#[test]
fn a_run_that_is_at_a_newer_step_is_parked_by_a_cancel_and_undone_by_its_release() {
    let [(_, run, left), (_, again, none_left)] = downgraded_and_back(AT, true, true);
    let RunState::Parked { why, .. } = &run.state else { panic!("{:?}", run.state) };
    assert!(why.contains("9.9.9") && why.contains("/99"), "{why}");
    assert!(left > 0);
    assert_eq!(again.state, RunState::Ended(workflow::Outcome::Cancelled));
    assert_eq!(none_left, 0);
}

/// Of another pool: the same run until it is about to touch something for the first time.
fn about_to_begin(events: &[Event]) -> Vec<Event> {
    let confirmed = |(_, event): &(usize, &Event)| matches!(event, Event::Confirmed { .. });
    let (third, _) = events.iter().enumerate().filter(confirmed).nth(2).expect("all is chosen");
    let mut events = events[..=third].to_vec();
    let Some(Event::Started { spec, .. }) = events.first_mut() else { panic!("no start") };
    spec.scale_set = spec.scale_set.as_str().replace("pool1", "pool2").parse().expect("another scale set");
    events
}

/// What the first turn of the second pool's run does, with one of the first pool under way, or parked.
fn second_of(runs_at_once: usize, parked: bool) -> (Next, Option<String>) {
    let (step, scene) = left_at().swap_remove(5);
    simulated(async || {
        let session = simulated_to(&step, &scene).await;
        let (first, mut events) = on(&session.disk, async |journal| all(&journal).await.swap_remove(0)).await;
        let second = session.shared.world().clock.new_run();
        let waiting = about_to_begin(&events);
        if parked {
            let at = events.last().expect("an event").at();
            events.push(Event::Parked { at, why: "a person is needed".into() });
        }
        let disk = Arc::new(SimDisk::default());
        on(&disk, async |journal| {
            write(&journal, first, &events).await;
            write(&journal, second.0, &waiting).await;
        })
        .await;
        on(&disk, async |journal| {
            let engine = engine(&session.shared, journal, runs_at_once);
            let engine = engine.await.expect("opened");
            let next = engine.turn(second).await.expect("a turn");
            let described = engine.describe(second).await.expect("the store works").expect("the run");
            (next, described.summary.why)
        })
        .await
    })
}

#[test]
fn no_more_runs_are_beyond_choosing_than_may_be_and_a_parked_one_keeps_nobody_waiting() {
    let (next, why) = second_of(1, false);
    assert!(matches!(next, Next::After(_)), "{next:?}");
    assert_eq!(why.as_deref(), Some("waits for other runs: 1 under way, at most 1 at a time"));
    assert_eq!(second_of(2, false), (Next::Now, None), "there is room for two");
    assert_eq!(second_of(1, true), (Next::Now, None), "the other is parked");
}
