//! What each step does in a world that is not as it left it: something by its name that is another's, a failed attempt of
//! its own, and what others do between its look and the plan. Every effect of the list has a row of each kind.

#[cfg(test)]
mod attach_rows;
#[cfg(test)]
mod canary_rows;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod stop_rows;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::Start::{Broken, Foreign};
use self::attach_rows::{ATTACH_ROWS, attached};
use self::canary_rows::{CANARY_ROWS, tried};
use self::rows::{ROWS, first, later};
use self::stop_rows::{STOP_ROWS, stopping};
use super::{Names, PrunePlan, Ranked};
use crate::{
    cloud::{Disk, DiskState, Provisioning, Replication, Snapshot, Version},
    cluster::CleaningSpec,
    model::{Capture, RunId, VersionId},
    sim::{Kind, Object, Outcome, Pod, Resource, Says, Scene, Session, Stop, World},
    workflow::{ATTACHED, Event, LIVE, LIVE_CANARY, Run, STOP, plan},
};

/// A run under paused time in a world that is changed at one moment: before it, or as soon as a step is done.
fn run(
    scene: &Scene,
    at: Option<&'static str>,
    change: impl Fn(&mut World) + Send + Sync + 'static,
) -> (Outcome, Arc<Session>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(async {
        let session = Session::new(scene.clone());
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
        (outcome, Arc::new(session))
    })
}

/// What is known beforehand of a run: the same scene gives the same names.
#[derive(Clone)]
struct Known(Arc<Run>);

impl Known {
    fn of(scene: &Scene) -> Self {
        Self(Arc::new(run(scene, None, |_| {}).0.run.expect("a run")))
    }

    fn output<T: DeserializeOwned>(&self, step: &str) -> T {
        serde_json::from_value(self.0.outputs[step].clone()).expect("readable")
    }

    fn input<T: DeserializeOwned>(&self, step: &str) -> T {
        serde_json::from_value(self.0.inputs[step].clone()).expect("readable")
    }

    fn names(&self) -> Names {
        self.output("ChooseNames")
    }

    fn ours(&self) -> RunId {
        self.0.id
    }

    fn cleaning(&self) -> CleaningSpec {
        self.input("CleanCopy")
    }

    /// Namespace and name of pod and claim.
    fn path(&self) -> String {
        let spec = self.cleaning();
        format!("{}/{}", spec.namespace, spec.name)
    }

    /// The version that goes first.
    fn pruned(&self) -> VersionId {
        let PrunePlan { verdicts } = self.output("PlanPrune");
        verdicts.into_iter().rev().find(|verdict| verdict.delete).expect("a version that goes").version
    }
}

fn stranger() -> RunId {
    RunId(uuid::Uuid::from_u128(7))
}

fn settled<T>(world: &World, value: T) -> Resource<T> {
    Resource { value, operation: None, visible: world.now() }
}

fn snapshot(world: &mut World, known: &Known, run: RunId, change: impl FnOnce(&mut Snapshot)) {
    let Ranked { donor, .. } = known.output("RankNodes");
    let mut value = Snapshot {
        id: known.names().snapshot,
        provisioning: Provisioning::Succeeded,
        source: Some(donor.disk),
        created: Some(world.now()),
        size_gib: 64,
        run: Some(run),
        cluster: None,
    };
    change(&mut value);
    world.snapshots.insert(value.id.key(), settled(world, value));
}

fn disk(world: &mut World, known: &Known, run: RunId, change: impl FnOnce(&mut Disk)) {
    let Ranked { donor, .. } = known.output("RankNodes");
    let mut value = Disk {
        id: known.names().disk,
        unique_id: "planted".into(),
        managed: false,
        attached_to: None,
        state: DiskState::Unattached,
        source: Some(known.names().snapshot.to_string()),
        run: Some(run),
        ..world.disks[&donor.disk.key()].value.clone()
    };
    change(&mut value);
    world.disks.insert(value.id.key(), settled(world, value));
}

fn version(world: &mut World, known: &Known, run: RunId, change: impl FnOnce(&mut Version)) {
    let mut value = Version {
        id: known.names().version,
        provisioning: Provisioning::Succeeded,
        replication: Replication::Completed,
        excluded_from_latest: true,
        regions: vec![],
        storage: Some("Standard_LRS".into()),
        source: Some(known.names().disk.to_string()),
        size_gib: Some(64),
        created: Some(world.now()),
        tags: crate::cloud::Tags::new(),
        run: Some(run),
    };
    change(&mut value);
    world.versions.insert(value.id.key(), settled(world, value));
}

fn pod(world: &mut World, known: &Known, run: RunId) {
    let spec = CleaningSpec { run, ..known.cleaning() };
    let (runs_at, ends_at) = (world.now(), world.now());
    let created = world.now();
    let pod = Pod { spec, uid: "planted".into(), created, runs_at, ends_at, killed: true, gone_at: None };
    world.pods.insert(known.path(), pod);
}

fn object(run: RunId) -> Object {
    Object { run: run.short(), uid: "planted".into(), created: jiff::Timestamp::UNIX_EPOCH, gone_at: None }
}

/// The version that a run has made, in the world.
fn made<'a>(world: &'a mut World, known: &Known) -> &'a mut Version {
    &mut world.versions.get_mut(&known.names().version.key()).expect("the version").value
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    /// Something by that name is another's, or became another's.
    Foreign,
    /// An attempt of its own failed, or was left half-way.
    Broken,
}

/// What is failed of these may be others' and hold others' versions: it is never replaced.
const NEVER_REPLACED: [&str; 2] = ["EnsureGallery", "EnsureDefinition"];

/// All that a run says for people, in one text.
fn words(outcome: &Outcome) -> String {
    let why = outcome.summary.as_ref().and_then(|summary| summary.why.clone()).unwrap_or_default();
    let warnings = outcome.run.as_ref().map(|run| run.warnings.join("\n")).unwrap_or_default();
    format!("{why}\n{warnings}")
}

fn check(outcome: &Outcome, end: &str, says: &[&str], what: &str) {
    let words = words(outcome);
    let state = outcome.summary.as_ref().map(|summary| summary.state.clone()).unwrap_or_default();
    assert_eq!(state, end, "{what}: {words}\n{}", outcome.log.join("\n"));
    for word in says {
        assert!(words.contains(word), "{what}: {word:?} is missing in: {words}");
    }
    assert!(outcome.violations.is_empty(), "{what}: {:#?}", outcome.violations);
}

#[test]
fn what_is_anothers_is_left_alone_and_an_own_failed_attempt_is_replaced() {
    let (nominal, adopted, stopped) = (Known::of(&first()), Known::of(&later()), Known::of(&stopping()));
    let helped = Known::of(&attached());
    let mut checked = BTreeSet::new();
    for row in ROWS.iter().chain(STOP_ROWS).chain(CANARY_ROWS).chain(ATTACH_ROWS) {
        let scene = (row.scene)();
        let known = match (scene.capture, scene.adopted) {
            (Capture::Stop, _) => stopped.clone(),
            (Capture::Live, true) => adopted.clone(),
            (Capture::Live, false) if scene.attach.is_csi() => nominal.clone(),
            (Capture::Live, false) => helped.clone(),
        };
        let (inner, change) = (known.clone(), row.change);
        let (outcome, session) = run(&scene, row.at, move |world| change(world, &inner));
        let what = format!("{:?} start of {}, {:?}", row.start, row.step, row.says);
        check(&outcome, row.end, row.says, &what);
        assert!((row.left)(&session.shared.world(), &known), "{what}: {}", outcome.log.join("\n"));
        checked.insert((row.step, row.start));
    }
    let watched = Known::of(&tried());
    let lists = [(LIVE, &nominal), (STOP, &stopped), (LIVE_CANARY, &watched), (ATTACHED, &helped)];
    for (step, known) in lists.into_iter().flat_map(|(list, known)| plan(list).into_iter().map(move |it| (it, known))) {
        let effect = known.0.inputs.contains_key(&step.name);
        let name = step.name.as_str();
        assert!(!effect || checked.contains(&(name, Foreign)), "{name} has no foreign start");
        let replaced = effect && !NEVER_REPLACED.contains(&name);
        assert!(!replaced || checked.contains(&(name, Broken)), "{name} has no broken start");
    }
}

#[test]
fn a_cleaners_report_is_believed_only_when_it_is_this_runs_and_good() {
    let known = Known::of(&first());
    let nonce = known.names().nonce;
    let table: [(bool, Value, &[&str]); 5] = [
        (
            false,
            json!({ "nonce": nonce, "verdict": "refused", "reason": "dpkg was interrupted" }),
            &["KW0240", "refused the copy", "dpkg was interrupted"],
        ),
        (true, json!({ "nonce": "another", "verdict": "clean" }), &["KW0005", "not this run's or not good", "another"]),
        (true, json!({ "nonce": nonce, "verdict": "refused" }), &["KW0005", "not this run's or not good"]),
        (true, json!({ "nonce": nonce }), &["KW0005", "not this run's or not good"]),
        (false, json!({ "nonce": nonce, "verdict": "clean" }), &["KW0005", "the cleaner failed", "exit code 3"]),
    ];
    for (succeeded, report, says) in table {
        let what = format!("report {report}");
        let (outcome, session) = run(&first(), None, move |world| {
            world.cleaner = Some(Says { succeeded, report: report.clone() });
        });
        check(&outcome, "undone", says, &what);
        let world = session.shared.world();
        assert!(!world.accepted.iter().any(|accepted| accepted.verb == "begin_version"), "{what}");
    }
}

#[test]
fn a_version_is_proved_only_when_everything_about_it_is_true() {
    type Change = fn(&mut World, &Known);
    let table: [(&str, &str, Change); 8] = [
        ("the version is this run's", "undone", |world, known| {
            // Somebody else's from now on: it is not ours to take back.
            world.made.retain(|(kind, _)| *kind != Kind::Version);
            made(world, known).run = Some(stranger());
        }),
        ("its source is the cleaned disk", "undone", |world, known| made(world, known).source = None),
        ("that disk is the one that was cleaned", "undone", |world, known| {
            world.disks.get_mut(&known.names().disk.key()).expect("the copy").value.unique_id = "another".into();
        }),
        ("it is in state Succeeded", "undone", |world, known| made(world, known).provisioning = Provisioning::Failed),
        ("it is in every target region", "undone", |world, known| {
            made(world, known).replication = Replication::InProgress(50);
        }),
        // Nodes may come from it by now: it is left, and a person is asked.
        ("it is excluded from latest", "needs-person", |world, known| {
            made(world, known).excluded_from_latest = false;
        }),
        ("it is not smaller than the disk", "undone", |world, known| made(world, known).size_gib = Some(30)),
        ("KW0242", "undone", |world, known| drop(world.versions.remove(&known.names().version.key()))),
    ];
    let known = Known::of(&first());
    for (check_of, end, change) in table {
        let inner = known.clone();
        let (outcome, session) = run(&first(), Some("CreateVersion"), move |world| change(world, &inner));
        let words = words(&outcome);
        let state = outcome.summary.as_ref().map(|summary| summary.state.clone()).unwrap_or_default();
        assert_eq!(state, end, "{check_of}: {words}");
        assert!(words.contains(check_of), "{check_of}: {words}");
        let world = session.shared.world();
        assert!(!world.accepted.iter().any(|accepted| accepted.verb == "begin_publish"), "{check_of}");
    }
}
