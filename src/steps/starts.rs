//! What each step does in a world that is not as it left it: something by its name that is another's, a failed attempt of
//! its own, and what others do between its look and the plan. Every effect of the list has a row of each kind.

#![expect(clippy::expect_used, reason = "a test says what should have held")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Names, PrunePlan, Ranked};
use crate::{
    cloud::{Disk, DiskState, ImageRef, Provisioning, Replication, Snapshot, Version},
    cluster::CleaningSpec,
    model::{RunId, VersionId},
    sim::{Kind, Object, Outcome, Pod, Resource, Says, Scene, Session, Stop, World, spec},
    workflow::{Event, LIVE, Run, plan},
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

    fn names(&self) -> Names {
        self.output("ChooseNames")
    }

    fn ours(&self) -> Option<RunId> {
        Some(self.0.id)
    }

    fn cleaning(&self) -> CleaningSpec {
        serde_json::from_value(self.0.inputs["CleanCopy"].clone()).expect("readable")
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

fn stranger() -> Option<RunId> {
    Some(RunId(uuid::Uuid::from_u128(7)))
}

fn settled<T>(world: &World, value: T) -> Resource<T> {
    Resource { value, operation: None, visible: world.now() }
}

fn snapshot(world: &mut World, known: &Known, run: Option<RunId>, change: impl FnOnce(&mut Snapshot)) {
    let Ranked { donor, .. } = known.output("RankNodes");
    let mut value = Snapshot {
        id: known.names().snapshot,
        provisioning: Provisioning::Succeeded,
        source: Some(donor.disk),
        created: Some(world.now()),
        size_gib: 64,
        run,
    };
    change(&mut value);
    world.snapshots.insert(value.id.key(), settled(world, value));
}

fn disk(world: &mut World, known: &Known, run: Option<RunId>, change: impl FnOnce(&mut Disk)) {
    let Ranked { donor, .. } = known.output("RankNodes");
    let mut value = Disk {
        id: known.names().disk,
        unique_id: "planted".into(),
        managed: false,
        state: DiskState::Unattached,
        source: Some(known.names().snapshot.to_string()),
        run,
        ..world.disks[&donor.disk.key()].value.clone()
    };
    change(&mut value);
    world.disks.insert(value.id.key(), settled(world, value));
}

fn version(world: &mut World, known: &Known, run: Option<RunId>, change: impl FnOnce(&mut Version)) {
    let mut value = Version {
        id: known.names().version,
        provisioning: Provisioning::Succeeded,
        replication: Replication::Completed,
        excluded_from_latest: true,
        regions: vec![],
        source: Some(known.names().disk.to_string()),
        size_gib: Some(64),
        created: Some(world.now()),
        tags: crate::cloud::Tags::new(),
        run,
    };
    change(&mut value);
    world.versions.insert(value.id.key(), settled(world, value));
}

fn pod(world: &mut World, known: &Known, run: RunId) {
    let spec = CleaningSpec { run, ..known.cleaning() };
    let (runs_at, ends_at) = (world.now(), world.now());
    let pod = Pod { spec, uid: "planted".into(), runs_at, ends_at, killed: true, gone_at: None };
    world.pods.insert(known.path(), pod);
}

fn object(run: Option<RunId>) -> Object {
    Object { run: run.expect("a run").short(), uid: "planted".into(), gone_at: None }
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

use Start::{Broken, Foreign};

struct Row {
    step: &'static str,
    start: Start,
    scene: fn() -> Scene,
    /// When: before the run, or as soon as this step is done.
    at: Option<&'static str>,
    change: fn(&mut World, &Known),
    end: &'static str,
    /// What the run says of it, in the end or as a warning.
    says: &'static [&'static str],
    /// What is there afterwards.
    left: fn(&World, &Known) -> bool,
}

fn first() -> Scene {
    Scene::nominal()
}

fn later() -> Scene {
    Scene { adopted: true, seed: 3, ..Scene::nominal() }
}

fn anything(_: &World, _: &Known) -> bool {
    true
}

const ROWS: &[Row] = &[
    Row {
        step: "EnsureGallery",
        start: Foreign,
        scene: later,
        at: None,
        change: |world, _| {
            world.galleries.values_mut().for_each(|gallery| gallery.value.provisioning = Provisioning::Failed);
        },
        end: "undone",
        says: &["KW0004", "state Failed", "repair or delete"],
        left: |world, _| world.galleries.len() == 1 && world.accepted.is_empty(),
    },
    Row {
        step: "EnsureDefinition",
        start: Foreign,
        scene: later,
        at: None,
        change: |world, _| {
            world.definitions.values_mut().for_each(|found| found.value.provisioning = Provisioning::Failed);
        },
        end: "undone",
        says: &["KW0004", "state Failed", "repair or delete"],
        left: |world, _| world.definitions.len() == 1 && world.accepted.is_empty(),
    },
    Row {
        step: "SnapshotDisk",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| snapshot(world, known, stranger(), |_| {}),
        end: "undone",
        says: &["KW0004", "is not this run's"],
        left: |world, known| world.snapshots.contains_key(&known.names().snapshot.key()),
    },
    Row {
        step: "SnapshotDisk",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| {
            let long_ago = world.now() - SignedDuration::from_mins(10);
            snapshot(world, known, known.ours(), |snapshot| snapshot.created = Some(long_ago));
        },
        end: "undone",
        says: &["KW0004", "older than this run"],
        left: anything,
    },
    Row {
        step: "SnapshotDisk",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| snapshot(world, known, known.ours(), |snapshot| snapshot.source = None),
        end: "undone",
        says: &["KW0004", "of another disk"],
        left: anything,
    },
    Row {
        step: "SnapshotDisk",
        start: Broken,
        scene: first,
        at: None,
        change: |world, known| {
            snapshot(world, known, known.ours(), |snapshot| snapshot.provisioning = Provisioning::Failed);
        },
        end: "done",
        says: &["SnapshotDisk", "failed"],
        left: |world, _| world.snapshots.is_empty(),
    },
    Row {
        step: "CopyDisk",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| disk(world, known, stranger(), |_| {}),
        end: "undone",
        says: &["KW0004", "is not this run's"],
        left: |world, known| world.disks.contains_key(&known.names().disk.key()) && world.snapshots.is_empty(),
    },
    Row {
        step: "CopyDisk",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| disk(world, known, known.ours(), |disk| disk.source = None),
        end: "undone",
        says: &["KW0004", "a copy of something else"],
        left: anything,
    },
    Row {
        step: "CopyDisk",
        start: Broken,
        scene: first,
        at: None,
        change: |world, known| disk(world, known, known.ours(), |disk| disk.provisioning = Provisioning::Failed),
        end: "done",
        says: &["CopyDisk", "failed"],
        left: |world, known| !world.disks.contains_key(&known.names().disk.key()),
    },
    Row {
        step: "CopyDisk",
        start: Broken,
        scene: first,
        at: None,
        change: |world, known| disk(world, known, known.ours(), |disk| disk.zone = Some("9".into())),
        end: "done",
        says: &["CopyDisk", "zone"],
        left: |world, known| !world.disks.contains_key(&known.names().disk.key()),
    },
    Row {
        step: "CleanCopy",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| drop(world.volumes.insert(known.cleaning().name, object(stranger()))),
        end: "undone",
        says: &["KW0004", "volume", "is not this run's"],
        left: |world, _| world.volumes.len() == 1,
    },
    Row {
        step: "CleanCopy",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| drop(world.claims.insert(known.path(), object(stranger()))),
        end: "undone",
        says: &["KW0004", "claim", "is not this run's"],
        left: |world, _| world.claims.len() == 1,
    },
    Row {
        step: "CleanCopy",
        start: Foreign,
        scene: first,
        at: None,
        change: |world, known| pod(world, known, stranger().expect("a run")),
        // The stranger's pod has our copy: it can't be deleted, and a person is asked.
        end: "needs-person",
        says: &["KW0004", "pod", "is not this run's", "still attached"],
        left: |world, _| world.pods.len() == 1,
    },
    Row {
        step: "CleanCopy",
        start: Broken,
        scene: first,
        at: None,
        change: |world, known| {
            world.volumes.insert(known.cleaning().name, object(known.ours()));
            world.claims.insert(known.path(), object(known.ours()));
            pod(world, known, known.0.id);
        },
        end: "done",
        says: &["CleanCopy", "the cleaner failed", "137"],
        left: |world, _| world.pods.is_empty() && world.claims.is_empty() && world.volumes.is_empty(),
    },
    Row {
        step: "DetachCopy",
        start: Foreign,
        scene: first,
        at: Some("CleanCopy"),
        change: |world, known| {
            world.pods.get_mut(&known.path()).expect("the pod").spec.run = stranger().expect("a run");
        },
        end: "needs-person",
        says: &["KW0003", "Attached"],
        left: |world, _| world.pods.values().all(|pod| pod.gone_at.is_none()) && world.pods.len() == 1,
    },
    Row {
        step: "DetachCopy",
        start: Broken,
        scene: first,
        at: Some("CleanCopy"),
        change: |world, known| {
            let soon = world.now() + SignedDuration::from_secs(5);
            world.pods.get_mut(&known.path()).expect("the pod").gone_at = Some(soon);
        },
        end: "done",
        says: &[],
        left: |world, _| world.pods.is_empty() && world.claims.is_empty() && world.volumes.is_empty(),
    },
    Row {
        step: "CreateVersion",
        start: Foreign,
        scene: first,
        at: Some("EnsureDefinition"),
        change: |world, known| version(world, known, stranger(), |_| {}),
        end: "undone",
        says: &["KW0004", "is not this run's"],
        left: |world, known| world.versions.contains_key(&known.names().version.key()),
    },
    Row {
        step: "CreateVersion",
        start: Foreign,
        scene: first,
        at: Some("EnsureDefinition"),
        change: |world, known| version(world, known, known.ours(), |version| version.source = None),
        end: "undone",
        says: &["KW0004", "made from something else"],
        left: anything,
    },
    Row {
        step: "CreateVersion",
        start: Broken,
        scene: first,
        at: Some("EnsureDefinition"),
        change: |world, known| {
            version(world, known, known.ours(), |version| version.provisioning = Provisioning::Failed);
        },
        end: "done",
        says: &["CreateVersion", "failed"],
        left: |world, _| world.versions.len() == 1,
    },
    Row {
        step: "CreateVersion",
        start: Broken,
        scene: first,
        at: Some("EnsureDefinition"),
        change: |world, known| {
            let failed = Replication::Failed("northeurope is full".into());
            version(world, known, known.ours(), |version| version.replication = failed);
        },
        end: "done",
        says: &["CreateVersion", "northeurope is full"],
        left: |world, _| world.versions.len() == 1,
    },
    Row {
        step: "PublishVersion",
        start: Foreign,
        scene: first,
        at: Some("VerifyVersion"),
        change: |world, known| made(world, known).run = stranger(),
        end: "parked",
        says: &["KW0004", "not this run's any more"],
        left: |world, known| world.versions[&known.names().version.key()].value.excluded_from_latest,
    },
    Row {
        step: "PublishVersion",
        start: Broken,
        scene: first,
        at: Some("VerifyVersion"),
        change: |world, known| made(world, known).provisioning = Provisioning::Failed,
        end: "done",
        says: &[],
        left: |world, known| !world.versions[&known.names().version.key()].value.excluded_from_latest,
    },
    Row {
        step: "PatchModel",
        start: Foreign,
        scene: first,
        at: Some("ReadModel"),
        change: |world, _| {
            let key = spec(&first()).scale_set.key();
            let model = &mut world.scale_sets.get_mut(&key).expect("the pool").value;
            model["properties"]["virtualMachineProfile"]["networkProfile"]["healthProbe"] = json!({ "id": "x" });
        },
        end: "parked",
        says: &["KW0004", "virtualMachineProfile/networkProfile", "resume"],
        left: anything,
    },
    Row {
        step: "PatchModel",
        start: Broken,
        scene: first,
        at: Some("ReadModel"),
        change: |world, _| {
            let key = spec(&first()).scale_set.key();
            let model = &mut world.scale_sets.get_mut(&key).expect("the pool").value;
            model["properties"]["provisioningState"] = json!("Failed");
        },
        end: "done",
        says: &[],
        left: anything,
    },
    Row {
        step: "DeleteTemporaries",
        start: Foreign,
        scene: first,
        at: Some("PatchModel"),
        change: |world, known| {
            let key = known.names().snapshot.key();
            world.snapshots.get_mut(&key).expect("the snapshot").value.run = stranger();
            world.made.retain(|(_, made)| *made != key);
        },
        end: "done",
        says: &[],
        left: |world, known| world.snapshots.contains_key(&known.names().snapshot.key()),
    },
    Row {
        step: "DeleteTemporaries",
        start: Broken,
        scene: first,
        at: Some("PatchModel"),
        change: |world, known| {
            let disk = world.disks.get_mut(&known.names().disk.key()).expect("the copy");
            disk.value.provisioning = Provisioning::Failed;
        },
        end: "done",
        says: &[],
        left: |world, known| !world.disks.contains_key(&known.names().disk.key()) && world.snapshots.is_empty(),
    },
    Row {
        step: "PruneVersions",
        start: Foreign,
        scene: later,
        at: Some("PlanPrune"),
        change: |world, known| {
            world.versions.get_mut(&known.pruned().key()).expect("a version that goes").value.run = None;
        },
        end: "done",
        says: &[],
        left: |world, known| world.versions.contains_key(&known.pruned().key()),
    },
    Row {
        step: "PruneVersions",
        start: Foreign,
        scene: later,
        at: Some("PlanPrune"),
        change: |world, known| {
            let instance = world.instances.values_mut().next().expect("an instance");
            instance.image = ImageRef::Version(known.pruned());
        },
        end: "done",
        says: &["PruneVersions", "KW0250", "came into use after the plan"],
        left: |world, known| world.versions.contains_key(&known.pruned().key()),
    },
    Row {
        step: "PruneVersions",
        start: Broken,
        scene: later,
        at: Some("PlanPrune"),
        change: |world, known| {
            let version = world.versions.get_mut(&known.pruned().key()).expect("a version that goes");
            version.value.provisioning = Provisioning::Failed;
        },
        end: "done",
        says: &[],
        left: |world, known| !world.versions.contains_key(&known.pruned().key()),
    },
];

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
    let (nominal, adopted) = (Known::of(&first()), Known::of(&later()));
    let mut checked = BTreeSet::new();
    for row in ROWS {
        let scene = (row.scene)();
        let known = if scene.adopted { adopted.clone() } else { nominal.clone() };
        let (inner, change) = (known.clone(), row.change);
        let (outcome, session) = run(&scene, row.at, move |world| change(world, &inner));
        let what = format!("{:?} start of {}, {:?}", row.start, row.step, row.says);
        check(&outcome, row.end, row.says, &what);
        assert!((row.left)(&session.shared.world(), &known), "{what}: {}", outcome.log.join("\n"));
        checked.insert((row.step, row.start));
    }
    for step in plan(LIVE) {
        let effect = nominal.0.inputs.contains_key(&step.name);
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
            made(world, known).run = stranger();
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
