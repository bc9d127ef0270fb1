//! Machines and the nodes on them, for `capture: stop`: they take their time to stop and to start, come back in another boot,
//! and say that they are away for longer than they are.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::world::World;
use crate::{
    cloud::Power,
    cluster::{DonorCleaning, Node},
    model::{Credential, NodeName},
    policy::obligations::SCALE_DOWN_DISABLED,
};

/// A node is called `NotReady` so long after its kubelet's last word (`node-monitor-grace-period`).
const GRACE: SignedDuration = SignedDuration::from_secs(50);
/// Until somebody has looked into it.
const A_PERSON: SignedDuration = SignedDuration::from_hours(3);
/// What the cloud provider marks a stopped machine with.
const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";
/// What the node controller marks a silent kubelet with.
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The node on it.
    pub node: NodeName,
    /// Its OS disk.
    pub disk: String,
    /// Its power.
    pub power: Power,
    /// What its power will be, and when.
    pub turning: Option<(Timestamp, Power)>,
    /// Since when its kubelet has been silent.
    pub silent: Option<Timestamp>,
    /// When its kubelet will speak again.
    pub speaks: Option<Timestamp>,
    /// When the cloud provider will see that it runs again.
    pub unmarked: Option<Timestamp>,
    /// How often it was booted.
    pub boots: u32,
    /// What its kubelet asks for a credential with at its next boot, if it has none: alive as long as the anchor of this name.
    pub asks: Option<String>,
}

impl Machine {
    /// A machine that runs.
    #[must_use]
    pub fn running(node: NodeName, disk: String) -> Self {
        let (power, turning, silent, speaks, unmarked, boots) = (Power::Running, None, None, None, None, 1);
        Self { node, disk, power, turning, silent, speaks, unmarked, boots, asks: None }
    }
}

/// A pod that cleans a donor from inside.
#[derive(Debug, Clone)]
pub struct DonorPod {
    /// What it was made from.
    pub spec: DonorCleaning,
    /// Its uid.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it will run.
    pub runs_at: Timestamp,
    /// When it will have left its proof.
    pub proves_at: Timestamp,
    /// It will be killed half-way.
    pub killed: bool,
    /// Set when it is being deleted: gone after this.
    pub gone_at: Option<Timestamp>,
}

impl World {
    /// An order to stop or to start. One that is there already is accepted to no effect, as Azure does it.
    pub fn turn(&mut self, key: &str, on: bool) -> bool {
        let now = self.now();
        let (busy, span) = if on { (Power::Starting, 20..90) } else { (Power::Stopping, 10..60) };
        let due = now + self.span(span);
        let chance = self.faults.failures;
        let fails = on && {
            let Self { faults, rng, .. } = self;
            faults.strikes(chance, rng)
        };
        let Some(machine) = self.machines.get_mut(key) else { return false };
        let there = if on { Power::Running } else { Power::Stopped };
        if machine.power != there && machine.power != busy {
            machine.power = busy;
            // No room on its host: it stays off, and the operation says so.
            machine.turning = Some((due, if fails { Power::Stopped } else { there }));
            if !on {
                machine.silent.get_or_insert(now);
            }
        }
        true
    }

    /// An order to boot anew. A machine that is off stays off.
    pub fn restart(&mut self, key: &str) -> bool {
        let now = self.now();
        let due = now + self.span(10..60);
        let Some(machine) = self.machines.get_mut(key) else { return false };
        if machine.power == Power::Running {
            machine.turning = Some((due, Power::Running));
            machine.silent.get_or_insert(now);
        }
        true
    }

    /// What happens to machines, nodes and donors' pods as time passes.
    pub(super) fn pass_machines(&mut self) {
        let now = self.now();
        self.pass_donor_pods(now);
        let keys: Vec<String> = self.machines.keys().cloned().collect();
        for key in keys {
            let Some((due, power)) = self.machines[&key].turning.clone() else { continue };
            if due > now {
                continue;
            }
            let speaks = due + self.span(5..30);
            let unmarked = speaks + self.span(5..300);
            self.note(format!("machine {} is {power:?}", super::world::name(&key)));
            let Some(machine) = self.machines.get_mut(&key) else { continue };
            machine.turning = None;
            machine.power = power;
            if machine.power == Power::Running {
                machine.boots += 1;
                (machine.speaks, machine.unmarked) = (Some(speaks), Some(unmarked));
                // What it writes while it runs is not clean.
                let disk = machine.disk.clone();
                self.cleaned.remove(&disk);
            }
        }
        for (key, machine) in &mut self.machines {
            let Some(node) = self.nodes.iter_mut().find(|node| node.name == machine.node) else { continue };
            let dead = machine.asks.as_ref().filter(|anchor| !self.anchors.contains_key(*anchor));
            if machine.speaks.is_some_and(|at| at <= now) && dead.is_some() {
                // By itself never; a person at its console has given it another.
                (machine.speaks, machine.asks) = (Some(now + A_PERSON), None);
                self.harm.push(("I2", format!("the token of {} is dead: it does not come back", machine.node)));
            }
            if machine.speaks.is_some_and(|at| at <= now) {
                machine.silent = None;
                machine.speaks = None;
                machine.asks = None;
                node.boot_id = format!("{:0>32}", format!("{}{}", machine.boots, node.boot_id.get(..8).unwrap_or("b")));
                node.ready = true;
                node.ready_since = Some(now);
                mark(node, UNREACHABLE, false);
            }
            let off = machine.power != Power::Running;
            if machine.silent.is_some_and(|since| since + GRACE <= now) {
                node.ready = false;
                mark(node, UNREACHABLE, true);
            }
            let shutdown = off && machine.silent.is_some_and(|since| since + GRACE + GRACE <= now);
            if shutdown {
                mark(node, SHUTDOWN, true);
            } else if machine.unmarked.is_some_and(|at| at <= now) {
                machine.unmarked = None;
                mark(node, SHUTDOWN, false);
            }
            // I6: while it is away, autoscalers are kept off it.
            let held = node.annotations.get(SCALE_DOWN_DISABLED).map(String::as_str) == Some("true");
            if off && (!held || !node.unschedulable) {
                let text = format!("{} is {:?} and not held", super::world::name(key), machine.power);
                self.harm.push(("I6", text));
            }
        }
    }

    fn pass_donor_pods(&mut self, now: Timestamp) {
        self.donor_pods.retain(|_, pod| pod.gone_at.is_none_or(|at| at > now));
        let due: Vec<DonorPod> = self
            .donor_pods
            .values()
            .filter(|pod| pod.proves_at <= now && !pod.killed && !self.proofs.contains_key(&pod.spec.run.short()))
            .cloned()
            .collect();
        for pod in due {
            let spec = &pod.spec;
            let Some(node) = self.nodes.iter().find(|node| node.name == spec.node) else { continue };
            let Some(machine) = self.machines.values_mut().find(|machine| machine.node == spec.node) else { continue };
            // In another boot, or on another machine, it does nothing.
            let same = node.boot_id == spec.boot_id && node.uid == spec.node_uid;
            if machine.power != Power::Running || !same {
                continue;
            }
            machine.silent.get_or_insert(pod.proves_at);
            let disk = machine.disk.clone();
            let anchor = format!("{}/{}", spec.namespace, spec.name);
            let renews = spec.credential == Credential::Rebootstrap;
            let (verdict, reason) = match &self.cleaner_fails {
                Some(reason) => ("failed", Some(reason.as_str())),
                None if renews && !self.anchors.contains_key(&anchor) => ("failed", Some("there is no such secret")),
                None => ("clean", None),
            };
            if reason.is_none() && renews {
                machine.asks = Some(anchor);
            }
            if reason.is_none() {
                self.cleaned.insert(disk, spec.nonce.clone());
            }
            let proof = json!({ "version": 1, "run": spec.run.0, "nonce": spec.nonce, "profile": spec.profile.name(),
                                "nodeUid": spec.node_uid, "productUuid": spec.product_uuid, "bootId": spec.boot_id,
                                "verdict": verdict, "reason": reason });
            self.proofs.insert(spec.run.short(), proof.to_string());
        }
    }

    /// A node as the API server shows it: with its kubelet's last word, in a version that each of them changes.
    #[must_use]
    pub fn shown(&self, node: &Node) -> Node {
        let now = self.now();
        let machine = self.machines.values().find(|machine| machine.node == node.name);
        let renewed = machine.and_then(|machine| machine.silent).unwrap_or(now);
        let beat = self.clock.elapsed().as_secs() / 10;
        // One whose kubelet was never heard stays so.
        let renewed = node.lease_renewed.map(|_| renewed);
        Node { lease_renewed: renewed, seen: Some(now), version: format!("{}{beat:05}", node.version), ..node.clone() }
    }
}

fn mark(node: &mut Node, taint: &str, on: bool) {
    let there = node.taints.iter().position(|found| found == taint);
    match (there, on) {
        (None, true) => node.taints.push(taint.to_owned()),
        (Some(at), false) => drop(node.taints.remove(at)),
        (None, false) | (Some(_), true) => {}
    }
}

/// Machines by their instances' keys.
pub(super) type Machines = BTreeMap<String, Machine>;
