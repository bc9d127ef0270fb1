//! The odd worlds, a row each.

use jiff::SignedDuration;
use serde_json::json;

use super::{
    Known,
    Start::{self, Broken, Foreign},
    disk, made, object, pod, snapshot, stranger, version,
};
use crate::{
    cloud::{Autoscale, ImageRef, Provisioning, Replication},
    sim::{Scene, World, spec},
};

pub(super) struct Row {
    pub(super) step: &'static str,
    pub(super) start: Start,
    pub(super) scene: fn() -> Scene,
    /// When: before the run, or as soon as this step is done.
    pub(super) at: Option<&'static str>,
    pub(super) change: fn(&mut World, &Known),
    pub(super) end: &'static str,
    /// What the run says of it, in the end or as a warning.
    pub(super) says: &'static [&'static str],
    /// What is there afterwards.
    pub(super) left: fn(&World, &Known) -> bool,
}

pub(super) fn first() -> Scene {
    Scene::nominal()
}

pub(super) fn later() -> Scene {
    Scene { adopted: true, seed: 3, ..Scene::nominal() }
}

fn model(world: &mut World) -> &mut serde_json::Value {
    let id = spec(&later()).scale_set;
    &mut world.scale_sets.get_mut(&id.key()).expect("the scale set").value
}

fn capacity(world: &World) -> u64 {
    let id = spec(&later()).scale_set;
    world.scale_sets[&id.key()].value["sku"]["capacity"].as_u64().expect("a number")
}

fn anything(_: &World, _: &Known) -> bool {
    true
}

pub(super) const ROWS: &[Row] = &[
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
        change: |world, known| pod(world, known, stranger()),
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
            pod(world, known, known.ours());
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
            world.pods.get_mut(&known.path()).expect("the pod").spec.run = stranger();
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
        change: |world, known| made(world, known).run = Some(stranger()),
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
            world.snapshots.get_mut(&key).expect("the snapshot").value.run = Some(stranger());
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
        says: &["PruneVersions", "KW0250", "stays after all: instance pool1/0 uses it"],
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
    Row {
        step: "ScaleOut",
        start: Foreign,
        scene: later,
        at: Some("PlanScaleOut"),
        change: |world, _| model(world)["sku"]["capacity"] = 2.into(),
        end: "done",
        says: &["KW0004", "somebody has set scale set pool1 from 3 to 2"],
        left: |world, _| capacity(world) == 2,
    },
    Row {
        step: "ScaleOut",
        start: Foreign,
        scene: later,
        at: Some("PlanScaleOut"),
        change: |world, _| model(world)["sku"]["capacity"] = 9.into(),
        end: "done",
        says: &[],
        left: |world, _| capacity(world) == 9,
    },
    Row {
        step: "ScaleOut",
        start: Foreign,
        scene: later,
        at: Some("PruneVersions"),
        change: |world, _| model(world)["tags"]["Cluster-Autoscaler-Enabled"] = "true".into(),
        end: "done",
        says: &["KW0303", "tag cluster-autoscaler-enabled", "set scaleOut to 0"],
        left: |world, _| capacity(world) == 3,
    },
    Row {
        step: "ScaleOut",
        start: Foreign,
        scene: later,
        at: Some("PruneVersions"),
        change: |world, _| {
            let target = model(world)["id"].as_str().expect("an id").to_uppercase();
            world.autoscale = vec![Autoscale { name: "cpu".into(), target, enabled: true }];
        },
        end: "done",
        says: &["KW0303", "autoscale setting cpu"],
        left: |world, _| capacity(world) == 3,
    },
    Row {
        step: "ScaleOut",
        start: Broken,
        scene: later,
        at: Some("PlanScaleOut"),
        change: |world, _| model(world)["properties"]["provisioningState"] = "Failed".into(),
        end: "done",
        says: &[],
        left: |world, _| capacity(world) == 4,
    },
];
