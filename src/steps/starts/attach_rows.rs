//! The odd worlds of a copy that is attached to another node, a row each.

use super::{
    Known,
    Start::{Broken, Foreign},
    rows::Row,
};
use crate::{
    cloud::DiskState,
    model::{Attach, InstanceId},
    sim::{Attachment, Scene, World},
    steps::Helper,
};

pub(super) fn attached() -> Scene {
    Scene { attach: Attach::Instance { path: "/dev/disk/azure/scsi1/lun{lun}".into() }, ..Scene::nominal() }
}

/// The copy is attached to the instance of that number, behind another lun.
fn held_by(world: &mut World, known: &Known, instance: &InstanceId) {
    let (key, due) = (known.names().disk.key(), world.now());
    let disk = world.disks.get_mut(&key).expect("the copy");
    (disk.value.managed, disk.value.state) = (true, DiskState::Attached);
    disk.value.attached_to = Some(instance.clone());
    world.attachments.insert(key, Attachment { instance: instance.clone(), lun: 3, due, gone_at: None });
}

pub(super) const ATTACH_ROWS: &[Row] = &[
    Row {
        step: "AttachCopy",
        start: Foreign,
        scene: attached,
        at: Some("CopyDisk"),
        change: |world, known| {
            let Helper { instance, .. } = known.output("ChooseHelper");
            let other = world.instances.values().map(|it| it.id.clone()).find(|id| *id != instance).expect("another");
            held_by(world, known, &other);
        },
        // It is somebody's: neither detached nor deleted, and a person is told.
        end: "needs-person",
        says: &["KW0004", "is attached to"],
        left: |world, known| world.disks.contains_key(&known.names().disk.key()),
    },
    Row {
        step: "AttachCopy",
        start: Broken,
        scene: attached,
        at: Some("CopyDisk"),
        // By somebody's hand, or by an attempt that nobody remembers: it is where it should be.
        change: |world, known| {
            let Helper { instance, .. } = known.output("ChooseHelper");
            held_by(world, known, &instance);
        },
        end: "done",
        says: &[],
        left: |world, _| world.attachments.is_empty(),
    },
    Row {
        step: "FreeCopy",
        start: Foreign,
        scene: attached,
        at: Some("DetachCopy"),
        change: |world, known| {
            let Helper { instance, .. } = known.output("ChooseHelper");
            let other = world.instances.values().map(|it| it.id.clone()).find(|id| *id != instance).expect("another");
            world.attachments.clear();
            held_by(world, known, &other);
        },
        end: "needs-person",
        says: &["KW0004", "is attached to"],
        left: |world, known| world.disks.contains_key(&known.names().disk.key()),
    },
    Row {
        step: "FreeCopy",
        start: Broken,
        scene: attached,
        at: Some("DetachCopy"),
        // Somebody was quicker.
        change: |world, known| {
            let disk = &mut world.disks.get_mut(&known.names().disk.key()).expect("the copy").value;
            (disk.managed, disk.state, disk.attached_to) = (false, DiskState::Unattached, None);
            world.attachments.clear();
            world.instances.values_mut().for_each(|it| it.luns.clear());
        },
        end: "done",
        says: &[],
        left: |world, _| world.attachments.is_empty() && !world.accepted.iter().any(|it| it.verb == "begin_detach"),
    },
];
