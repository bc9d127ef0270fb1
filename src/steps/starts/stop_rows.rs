//! The odd worlds of `capture: stop`, a row each.

use super::{
    Known,
    Start::{Broken, Foreign},
    rows::{Row, first},
    stranger,
};
use crate::{
    cloud::Power,
    cluster::{DonorCleaning, Node},
    model::{Capture, NodeName},
    policy::obligations::{CLAIM, Claim, SCALE_DOWN_DISABLED},
    sim::{Again, DonorPod, Machine, Scene, Tenant, World},
    steps::{NodeBefore, hold_node},
};

pub(super) fn stopping() -> Scene {
    Scene { capture: Capture::Stop, ..first() }
}

fn before(known: &Known) -> NodeBefore {
    known.output("ReadNode")
}

fn donor<'a>(world: &'a mut World, known: &Known) -> &'a mut Node {
    let name = before(known).node;
    world.nodes.iter_mut().find(|node| node.name == name).expect("the donor")
}

fn machine<'a>(world: &'a mut World, known: &Known) -> &'a mut Machine {
    let key = before(known).instance.key();
    world.machines.get_mut(&key).expect("its machine")
}

/// In service, with nothing of ours on it.
fn free(world: &World, known: &Known) -> bool {
    let name = before(known).node;
    let node = world.nodes.iter().find(|node| node.name == name);
    node.is_some_and(|node| !node.unschedulable && !node.annotations.contains_key(CLAIM))
}

fn donor_pod(world: &mut World, known: &Known, change: impl FnOnce(&mut DonorPod)) {
    let spec: DonorCleaning = known.input("CleanDisk");
    let path = format!("{}/{}", spec.namespace, spec.name);
    let now = world.now();
    let (killed, gone_at) = (true, None);
    let mut pod = DonorPod { spec, uid: "planted".into(), created: now, runs_at: now, proves_at: now, killed, gone_at };
    change(&mut pod);
    world.donor_pods.insert(path, pod);
}

/// An autoscaler has deleted it, and its node with it.
fn deleted(world: &mut World, known: &Known) {
    let NodeBefore { instance, node, .. } = before(known);
    world.instances.remove(&instance.key());
    world.machines.remove(&instance.key());
    world.nodes.retain(|found| found.name != node);
}

fn gone(world: &World, known: &Known) -> bool {
    let name: NodeName = before(known).node;
    world.nodes.iter().all(|node| node.name != name)
}

pub(super) const STOP_ROWS: &[Row] = &[
    Row {
        step: "HoldNode",
        start: Foreign,
        scene: stopping,
        at: Some("ReadNode"),
        change: |world, known| donor(world, known).unschedulable = true,
        end: "undone",
        says: &["KW0004", "was cordoned or held by somebody"],
        left: |world, known| {
            let name = before(known).node;
            world.nodes.iter().any(|node| node.name == name && node.unschedulable)
        },
    },
    Row {
        step: "HoldNode",
        start: Foreign,
        scene: stopping,
        at: Some("ReadNode"),
        change: |world, known| {
            let hold_node::Input { claim, .. } = known.input("HoldNode");
            let theirs = Claim { run: stranger(), ..claim };
            donor(world, known).annotations.insert(CLAIM.into(), serde_json::to_string(&theirs).expect("JSON"));
        },
        end: "undone",
        says: &["KW0004", "was claimed by run"],
        left: |world, _| world.accepted.iter().all(|accepted| accepted.verb != "change_node"),
    },
    Row {
        step: "HoldNode",
        start: Broken,
        scene: stopping,
        at: Some("ReadNode"),
        // Uncordoned by somebody between the request and the look.
        change: |world, known| {
            let hold_node::Input { claim, .. } = known.input("HoldNode");
            donor(world, known).annotations.insert(CLAIM.into(), serde_json::to_string(&claim).expect("JSON"));
        },
        end: "done",
        says: &[],
        left: free,
    },
    Row {
        step: "DrainNode",
        start: Foreign,
        scene: stopping,
        at: Some("HoldNode"),
        change: |world, known| donor(world, known).unschedulable = false,
        end: "undone",
        says: &["KW0413", "was uncordoned by somebody"],
        left: free,
    },
    Row {
        step: "DrainNode",
        start: Broken,
        scene: stopping,
        at: Some("HoldNode"),
        // One has gone as it was asked to, and another is on its way.
        change: |world, known| {
            let (node, now) = (before(known).node, world.now());
            let mut going = Tenant::new("shop/web-1", "web", &node, now);
            going.again = Again::Elsewhere;
            let id = going.pod.id.clone();
            world.tenants.add(going);
            world.tenants.add(Tenant::new("shop/web-2", "web", &node, now));
            world.tenants.evict(&id, now);
        },
        end: "done",
        says: &[],
        left: free,
    },
    Row {
        step: "CleanDisk",
        start: Foreign,
        scene: stopping,
        at: Some("DrainNode"),
        change: |world, known| donor_pod(world, known, |pod| pod.spec.run = stranger()),
        end: "undone",
        says: &["KW0004", "exists and is not this run's"],
        left: |world, known| world.donor_pods.len() == 1 && free(world, known),
    },
    Row {
        step: "CleanDisk",
        start: Broken,
        scene: stopping,
        at: Some("DrainNode"),
        change: |world, known| donor_pod(world, known, |_| {}),
        end: "done",
        says: &[],
        left: |world, known| world.donor_pods.is_empty() && world.proofs.is_empty() && free(world, known),
    },
    Row {
        step: "StopVm",
        start: Foreign,
        scene: stopping,
        at: Some("CleanDisk"),
        change: deleted,
        end: "undone",
        says: &["KW0233", "is not the machine that was chosen any more"],
        left: gone,
    },
    Row {
        step: "StopVm",
        start: Broken,
        scene: stopping,
        at: Some("CleanDisk"),
        // Off already, by an attempt whose answer was lost, and the pod is there.
        change: |world, known| {
            let machine = machine(world, known);
            machine.power = Power::Stopped;
        },
        end: "done",
        says: &[],
        left: free,
    },
    Row {
        step: "StartVm",
        start: Foreign,
        scene: stopping,
        at: Some("SnapshotDisk"),
        change: deleted,
        end: "done",
        says: &[],
        left: gone,
    },
    Row {
        step: "StartVm",
        start: Broken,
        scene: stopping,
        at: Some("SnapshotDisk"),
        change: |world, known| machine(world, known).power = Power::Deallocated,
        end: "done",
        says: &[],
        left: free,
    },
    Row {
        step: "ReleaseNode",
        start: Foreign,
        scene: stopping,
        at: Some("StartVm"),
        // A person was quicker.
        change: |world, known| {
            let as_found = before(known).as_found;
            let node = donor(world, known);
            node.unschedulable = as_found.unschedulable;
            node.annotations.retain(|name, _| name != CLAIM && name != SCALE_DOWN_DISABLED);
            let mark = crate::policy::obligations::DO_NOT_DISRUPT;
            node.annotations.insert(mark.into(), as_found.do_not_disrupt.expect("it was there"));
        },
        end: "done",
        says: &[],
        left: free,
    },
    Row {
        step: "ReleaseNode",
        start: Broken,
        scene: stopping,
        at: Some("StartVm"),
        change: |world, known| donor(world, known).unschedulable = false,
        end: "done",
        says: &[],
        left: free,
    },
];
