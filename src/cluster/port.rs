//! The `Cluster` port and the few types that steps need of Kubernetes' objects.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Budget, ClusterError, Eviction, Pod, PodRef, Rival};
use crate::model::{Credential, DiskId, NodeName, Profile, Region, RunId};

/// A node, as far as ranking needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the node's, read one by one by ranking")]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The object's uid: differs when a name is used again.
    pub uid: String,
    /// `metadata.resourceVersion`, the precondition of a write.
    #[serde(default)]
    pub version: String,
    /// `spec.providerID` without its `azure://`, in the case it was written; empty for a node of no cloud.
    pub provider_id: String,
    /// `status.nodeInfo.bootID`: a new one is the only proof of a reboot.
    pub boot_id: String,
    /// `status.nodeInfo.machineID`: two nodes with the same one are taken for one system.
    #[serde(default)]
    pub machine_id: String,
    /// `status.nodeInfo.systemUUID`.
    pub system_uuid: String,
    /// `status.nodeInfo.kernelVersion`.
    pub kernel: String,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet: String,
    /// Condition `Ready` is true.
    pub ready: bool,
    /// When that condition last turned.
    pub ready_since: Option<Timestamp>,
    /// When the kubelet last renewed its lease.
    pub lease_renewed: Option<Timestamp>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// A control plane node, by either label.
    pub control_plane: bool,
    /// `kubernetes.io/os` is linux.
    pub linux: bool,
    /// True for a condition that says the node is short of something (memory, disk, process ids, network).
    pub under_pressure: Vec<String>,
    /// The types of all conditions that are true, whoever sets them.
    pub conditions: Vec<String>,
    /// The keys of its taints.
    pub taints: Vec<String>,
    /// The zone's number, as in `1` of `westeurope-1`.
    pub zone: Option<String>,
    /// When the object was made.
    pub created: Option<Timestamp>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The API server's time when it answered with it, to a second; `None` where it does not say.
    pub seen: Option<Timestamp>,
}

/// What a cleaning pod, its claim and its volume are made from. All three have the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleaningSpec {
    /// The name of pod, claim and volume, chosen once by the run.
    pub name: String,
    /// The namespace of pod and claim, as in `kamino-wf-clean`.
    pub namespace: String,
    /// The run, in label `kamino-wf.io/run`.
    pub run: RunId,
    /// The copied disk.
    pub disk: DiskId,
    /// Its region.
    pub region: Region,
    /// Its zone, for a zonal one: the volume's node affinity is `<region>-<zone>`.
    pub zone: Option<String>,
    /// The disk's size.
    pub size_gib: u32,
    /// The image of the pod: our own.
    pub image: String,
    /// Where the disk is attached; none where the cluster's driver does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Attached>,
    /// Which manifest applies.
    pub profile: Profile,
    /// Chosen once by the run: a report that does not repeat it is not this run's.
    pub nonce: String,
}

/// A node that has a disk already, and where it shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The node's name.
    pub node: NodeName,
    /// The device's path there.
    pub path: String,
}

/// What a cleaning pod on a donor is made from (`capture: stop`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DonorCleaning {
    /// The pod's name, chosen once by the run.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The run, in label `kamino-wf.io/run`.
    pub run: RunId,
    /// The node that it is bound to.
    pub node: NodeName,
    /// That node's uid: on another one the cleaner does nothing.
    pub node_uid: String,
    /// That node's boot: in another one the cleaner does nothing.
    pub boot_id: String,
    /// That machine's own id: on another one the cleaner does nothing.
    pub product_uuid: String,
    /// The image of the pod: our own.
    pub image: String,
    /// Which manifest applies.
    pub profile: Profile,
    /// What becomes of the kubelet's credential.
    #[serde(default, skip_serializing_if = "Credential::is_keep")]
    pub credential: Credential,
    /// Chosen once by the run: a proof that does not repeat it is not this run's.
    pub nonce: String,
}

impl DonorCleaning {
    /// What the token for its new credential is bound to.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            run: self.run,
            node: self.node.clone(),
            node_uid: self.node_uid.clone(),
        }
    }
}

/// The empty Secret to whose life the token for a donor's new credential is bound (`credential: rebootstrap`): the token is dead
/// when it is deleted. It belongs to the node, and goes with it at the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Its name, which is the cleaning pod's.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The run, in label `kamino-wf.io/run`.
    pub run: RunId,
    /// The node that it belongs to.
    pub node: NodeName,
    /// That node's uid.
    pub node_uid: String,
}

/// A change of a node: all in one write, over the version that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    /// Its name.
    pub name: NodeName,
    /// The version that was seen; `Preempted` when it is another by now.
    pub version: String,
    /// `spec.unschedulable` from now on.
    pub unschedulable: bool,
    /// Annotations to set, and those to take away.
    pub annotations: BTreeMap<String, Option<String>>,
}

/// What is told on a node, as an Event of it: `kubectl describe node` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNote {
    /// The node's name.
    pub node: NodeName,
    /// Its uid.
    pub node_uid: String,
    /// The run.
    pub run: RunId,
    /// In one word, as in `SwitchedOff`. Each is told once a run.
    pub reason: &'static str,
    /// In words.
    pub words: String,
    /// Somebody should look.
    pub warning: bool,
    /// When it happened.
    pub at: Timestamp,
}

/// Whose an object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Its uid, the precondition of its deletion.
    pub uid: String,
    /// Label `kamino-wf.io/run`, if it has one that is a run's.
    pub run: Option<String>,
    /// It has a deletion timestamp.
    pub deleting: bool,
}

/// Where a pod is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodPhase {
    /// Not on a node, or its image or volume isn't there; why, in the cluster's words.
    Pending(String),
    /// Its container runs.
    Running,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended otherwise; why, in the cluster's words.
    Failed(String),
}

/// A cleaning pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleaningPod {
    /// Whose it is.
    pub owned: Owned,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// The container's termination message: the cleaner's report.
    pub report: Option<String>,
    /// The container's exit code.
    pub exit_code: Option<i32>,
    /// The node it is bound to.
    pub node: Option<String>,
}

/// The three objects of a cleaning, as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CleaningView {
    /// The volume.
    pub volume: Option<Owned>,
    /// The claim.
    pub claim: Option<Owned>,
    /// The pod.
    pub pod: Option<CleaningPod>,
}

/// One of a cleaning's three objects, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub owned: Owned,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Of a pod: its container runs.
    pub running: bool,
}

/// What in a cluster carries a run's label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Remains {
    /// Pods of the namespace.
    pub pods: Vec<Leftover>,
    /// Claims of the namespace.
    pub claims: Vec<Leftover>,
    /// Volumes for claims of the namespace; others are another installation's.
    pub volumes: Vec<Leftover>,
    /// Runs whose proof is still there; none where that may not be read, as nobody cleans donors there.
    #[serde(default)]
    pub proofs: Vec<RunId>,
}

/// The Lease, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it; empty for nobody.
    pub holder: String,
    /// How long it lasts without being renewed.
    pub duration: Duration,
    /// `leaseTransitions`: grows with every new holder, and fences the store.
    pub epoch: u64,
    /// Changes with every write; a write names the one that it goes over.
    pub version: String,
}

/// What is to be written into the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseClaim {
    /// Who holds it from now on; empty gives it back.
    pub holder: String,
    /// How long it lasts.
    pub duration: Duration,
    /// Its epoch.
    pub epoch: u64,
    /// It was another's, or nobody's, before.
    pub taken: bool,
}

/// The cluster port. Every read is a fresh one.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// The uid of namespace kube-system: which cluster this is.
    async fn cluster_id(&self) -> Result<String, ClusterError>;
    /// All nodes, with their leases' last renewal.
    async fn nodes(&self) -> Result<Vec<Node>, ClusterError>;
    /// One node.
    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError>;
    /// Pod, claim and volume of that name.
    async fn cleaning(&self, namespace: &str, name: &str) -> Result<CleaningView, ClusterError>;

    /// What of the Python tool (kamino's `vmss-prototype`) is installed: its `CronJobs` and Jobs, in all namespaces.
    async fn rivals(&self) -> Result<Vec<Rival>, ClusterError>;

    /// Pods and claims of a namespace that carry a run's label, and the volumes for such claims.
    async fn leftovers(&self, namespace: &str) -> Result<Remains, ClusterError>;

    /// Makes the static volume for the copied disk: raw block, retained, bound to the claim of the same name.
    async fn create_volume(&self, want: &CleaningSpec) -> Result<(), ClusterError>;
    /// Makes the claim.
    async fn create_claim(&self, want: &CleaningSpec) -> Result<(), ClusterError>;
    /// Makes the pod.
    async fn create_pod(&self, want: &CleaningSpec) -> Result<(), ClusterError>;
    /// Deletes the pod with that uid, at once and without grace. One that is gone already is no error, here and below.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError>;
    /// Deletes the claim with that uid.
    async fn delete_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError>;
    /// Deletes the volume with that uid; the disk stays.
    async fn delete_volume(&self, name: &str, uid: &str) -> Result<(), ClusterError>;

    /// Changes a node's cordon and annotations, in one write over the version that was seen.
    async fn change_node(&self, want: &NodeChange) -> Result<(), ClusterError>;
    /// Tells something on a node. Told before is no error.
    async fn tell(&self, note: &NodeNote) -> Result<(), ClusterError>;
    /// Makes the pod that cleans a donor's disk from the donor itself.
    async fn create_donor_pod(&self, want: &DonorCleaning) -> Result<(), ClusterError>;
    /// Whether an anchor is there; nobody reads it.
    async fn has_anchor(&self, anchor: &Anchor) -> Result<bool, ClusterError>;
    /// Makes an anchor.
    async fn create_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError>;
    /// Deletes an anchor, and with it the token that is bound to it. One that is gone already is no error.
    async fn delete_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError>;
    /// What a donor's cleaner has left as proof, once its kubelet and runtime were down.
    async fn proof(&self, namespace: &str, run: RunId) -> Result<Option<String>, ClusterError>;
    /// Takes a run's proof away, and no other's. One that is not there is no error.
    async fn forget_proof(&self, namespace: &str, run: RunId) -> Result<(), ClusterError>;

    /// The Lease of that name.
    async fn lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, ClusterError>;
    /// Writes the Lease over the version that was seen, or makes it; `Preempted` or `Exists` when another was quicker.
    async fn write_lease(
        &self,
        namespace: &str,
        name: &str,
        want: &LeaseClaim,
        over: Option<&str>,
    ) -> Result<Lease, ClusterError>;

    // Emptying a node.

    /// All pods that are bound to a node, of every namespace.
    async fn pods_on(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError>;
    /// The pod of that name.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ClusterError>;
    /// Whether there is a `DaemonSet` of that name.
    async fn daemon_set_exists(&self, namespace: &str, name: &str) -> Result<bool, ClusterError>;
    /// The budgets of a namespace.
    async fn budgets(&self, namespace: &str) -> Result<Vec<Budget>, ClusterError>;
    /// Asks a pod to go, with its own grace, unless a budget says no.
    async fn evict(&self, pod: &PodRef) -> Result<Eviction, ClusterError>;
    /// Deletes a pod with its own grace, past every budget. One that is gone already is no error.
    async fn delete_gently(&self, pod: &PodRef) -> Result<(), ClusterError>;
}
