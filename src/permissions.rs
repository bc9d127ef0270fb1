//! Every right that kamino-wf needs, in Kubernetes and in Azure: one list, from which roles, role definitions and
//! `docs/permissions.md` are made.
//!
//! One entry is one verb on one resource, with the steps that cannot do without it. What is not here is not asked for: no
//! secret to read, no exec; and for who does not use `capture: stop` no write to a Node, no eviction, no power action on any instance. A
//! right that nobody uses is a bug, as is one that is missing: `tests/kubernetes/` takes each Kubernetes entry away in turn and
//! sees the call that it is for refused.

mod attach;
mod contact;
mod drain;
mod rebootstrap;
mod render;
mod stop;

pub use attach::ATTACH_AZURE;
pub use contact::FIRST_CONTACT;
pub use drain::{DRAIN, FORCED_DRAIN};
pub use rebootstrap::{BOOTSTRAP, REBOOTSTRAP};
pub use render::{Installation, Places, azure_roles, document, kubernetes_roles};
pub use stop::{CLEANER, EVENTS, PROOFS, STOP, STOP_AZURE};

/// What a right is for. Each part has roles of its own, so that nobody gives what is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everybody.
    Every,
    /// Pools with `capture: stop`.
    Stop,
    /// Those of them with `drain.force`.
    ForcedDrain,
    /// Those of them with `credential: rebootstrap`.
    Rebootstrap,
    /// Clusters with `cleaning.attach: instance`.
    Attach,
}

/// What an installation, or some of its pools, uses besides what everybody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a part that is used or not")]
pub struct Uses {
    /// A pool says `capture: stop`.
    pub stop: bool,
    /// One of those says `drain.force`.
    pub forced_drain: bool,
    /// One of those says `credential: rebootstrap`.
    pub rebootstrap: bool,
    /// The copy is attached to another node of the pool (`cleaning.attach: instance`).
    pub attach: bool,
}

impl Uses {
    /// What either uses.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            stop: self.stop || other.stop,
            forced_drain: self.forced_drain || other.forced_drain,
            rebootstrap: self.rebootstrap || other.rebootstrap,
            attach: self.attach || other.attach,
        }
    }

    /// Whether rights of this part are needed.
    #[must_use]
    pub fn needs(self, part: Part) -> bool {
        match part {
            Part::Every => true,
            Part::Stop => self.stop,
            Part::ForcedDrain => self.stop && self.forced_drain,
            Part::Rebootstrap => self.stop && self.rebootstrap,
            Part::Attach => self.attach,
        }
    }
}

/// All rights in the cluster, whatever is used.
pub fn in_kubernetes() -> impl Iterator<Item = &'static ClusterRight> {
    [KUBERNETES, STOP, DRAIN, FORCED_DRAIN, REBOOTSTRAP].into_iter().flatten()
}

/// All rights in Azure, whatever is used.
pub fn in_azure() -> impl Iterator<Item = &'static AzureRight> {
    AZURE.iter().chain(STOP_AZURE).chain(ATTACH_AZURE)
}

/// Where a Kubernetes right is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterScope {
    /// In the whole cluster, as the resource belongs to no namespace.
    Cluster,
    /// In `kube-node-lease`, where kubelets keep their leases.
    NodeLeases,
    /// In the namespace of cleaning pods, where nothing else lives.
    Cleaning,
    /// In the controller's own namespace.
    Own,
    /// In `default`, where events of what belongs to no namespace are kept.
    Default,
}

/// One verb on one resource of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterRight {
    /// The API group, empty for the core one.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// The only objects that it is for, by name; empty for all.
    pub names: &'static [&'static str],
    /// The verb.
    pub verb: &'static str,
    /// Where.
    pub scope: ClusterScope,
    /// What it is for.
    pub part: Part,
    /// The steps that need it, and whatever else does.
    pub steps: &'static [&'static str],
    /// What they do with it.
    pub why: &'static str,
}

const CORE: &str = "";
const COORDINATION: &str = "coordination.k8s.io";
const BATCH: &str = "batch";

/// Shortens the list below to what differs.
const fn live(
    (group, resource, verb): (&'static str, &'static str, &'static str),
    scope: ClusterScope,
    steps: &'static [&'static str],
    why: &'static str,
) -> ClusterRight {
    ClusterRight { group, resource, names: &[], verb, scope, part: Part::Every, steps, why }
}

const MAKING: &[&str] = &["CleanCopy"];
const CLEANING: &[&str] = &["CleanCopy", "DetachCopy", "the janitor"];
const CHOOSE_NODES: &[&str] = &["Preflight", "RankNodes", "CanaryNode"];
const LOOK_AT_NODE: &[&str] = &["CanaryNode"];
/// No step: `serve` itself.
const DAEMON: &[&str] = &["the daemon"];
/// No step: what `serve` does every hour about what is left of runs.
const JANITOR: &[&str] = &["the janitor"];

const TAKEOVER: &[&str] = &["Preflight", "status"];

/// The Lease's name, unless settings give it another: the roles have to follow them then.
pub const LEASE: &str = "kamino-wf";
const LEASE_NAMES: &[&str] = &[LEASE];

/// The rights in the cluster.
pub const KUBERNETES: &[ClusterRight] = &[
    ClusterRight {
        names: &["kube-system"],
        ..live(
            (CORE, "namespaces", "get"),
            ClusterScope::Cluster,
            &["Preflight"],
            "its uid says which cluster this is, in every run, tag and lock",
        )
    },
    live(
        (CORE, "nodes", "list"),
        ClusterScope::Cluster,
        CHOOSE_NODES,
        "find the pool's nodes and rank them; find a version's first node, and whose twin it is",
    ),
    live(
        (CORE, "nodes", "get"),
        ClusterScope::Cluster,
        LOOK_AT_NODE,
        "see that a node is still the one that was chosen, and how a version's first node is",
    ),
    live(
        (CORE, "persistentvolumes", "get"),
        ClusterScope::Cluster,
        CLEANING,
        "see whether the copy's volume is there, whose it is, and that it went",
    ),
    live(
        (CORE, "persistentvolumes", "list"),
        ClusterScope::Cluster,
        JANITOR,
        "find volumes with a run's label that no run takes away",
    ),
    live(
        (CORE, "persistentvolumes", "create"),
        ClusterScope::Cluster,
        MAKING,
        "make a static volume of the copied disk",
    ),
    live((CORE, "persistentvolumes", "delete"), ClusterScope::Cluster, CLEANING, "remove it again; the disk stays"),
    live(
        (COORDINATION, "leases", "list"),
        ClusterScope::NodeLeases,
        CHOOSE_NODES,
        "see which kubelets are alive right now",
    ),
    live(
        (COORDINATION, "leases", "get"),
        ClusterScope::NodeLeases,
        LOOK_AT_NODE,
        "see that one kubelet is alive right now",
    ),
    live(
        (CORE, "persistentvolumeclaims", "get"),
        ClusterScope::Cleaning,
        CLEANING,
        "see whether the claim is there, whose it is, and that it went",
    ),
    live((CORE, "persistentvolumeclaims", "list"), ClusterScope::Cleaning, JANITOR, "the same, for claims"),
    live(
        (CORE, "persistentvolumeclaims", "create"),
        ClusterScope::Cleaning,
        MAKING,
        "claim the copy's volume for the pod",
    ),
    live((CORE, "persistentvolumeclaims", "delete"), ClusterScope::Cleaning, CLEANING, "give the volume back"),
    live(
        (CORE, "pods", "get"),
        ClusterScope::Cleaning,
        CLEANING,
        "see how the cleaning goes and read its report, the termination message",
    ),
    live((CORE, "pods", "list"), ClusterScope::Cleaning, JANITOR, "the same, for pods"),
    live(
        (CORE, "pods", "create"),
        ClusterScope::Cleaning,
        MAKING,
        "clean the copy on whatever node the scheduler likes",
    ),
    live(
        (CORE, "pods", "delete"),
        ClusterScope::Cleaning,
        CLEANING,
        "remove the pod when it ended, or when the run is cancelled",
    ),
    live(
        (CORE, "events", "list"),
        ClusterScope::Cleaning,
        MAKING,
        "say why a pod does not start: an attachment that fails is told in events only",
    ),
    live(
        (BATCH, "cronjobs", "list"),
        ClusterScope::Cluster,
        TAKEOVER,
        "refuse a run while the Python tool (kamino) would update the same pools; it may be in any namespace",
    ),
    live((BATCH, "jobs", "list"), ClusterScope::Cluster, TAKEOVER, "the same, for its Jobs, by their label"),
    live((COORDINATION, "leases", "create"), ClusterScope::Own, DAEMON, "make the Lease that one of us holds"),
    ClusterRight {
        names: LEASE_NAMES,
        ..live(
            (COORDINATION, "leases", "get"),
            ClusterScope::Own,
            DAEMON,
            "see who holds the Lease, before each change of anything",
        )
    },
    ClusterRight {
        names: LEASE_NAMES,
        ..live((COORDINATION, "leases", "update"), ClusterScope::Own, DAEMON, "take it, renew it, and give it back")
    },
];

/// Where an Azure role is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AzureScope {
    /// The subscription of the scale sets.
    Subscription,
    /// The resource group of the scale sets, and of their instances' disks.
    ScaleSets,
    /// The resource group of snapshots and copies: the scale sets' own, unless settings name another.
    Temporaries,
    /// The resource group of the gallery; the gallery itself if it is made beforehand.
    Gallery,
    /// What the scale set's model refers to: its network's and its identities' resource groups.
    Linked,
}

/// One action on one kind of Azure resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AzureRight {
    /// The action, as a role definition spells it.
    pub action: &'static str,
    /// Where.
    pub scope: AzureScope,
    /// What it is for.
    pub part: Part,
    /// The steps that need it.
    pub steps: &'static [&'static str],
    /// What they do with it.
    pub why: &'static str,
}

const fn azure(
    scope: AzureScope,
    action: &'static str,
    steps: &'static [&'static str],
    why: &'static str,
) -> AzureRight {
    AzureRight { action, scope, part: Part::Every, steps, why }
}

const PRUNE: &[&str] = &["PlanPrune", "PruneVersions", "images"];
const SWITCH: &[&str] = &["PatchModel", "ScaleOut"];

/// The rights in Azure. Checked against documents and issues, not against a subscription yet (`docs/ASSUMPTIONS.md`).
pub const AZURE: &[AzureRight] = &[
    azure(
        AzureScope::Subscription,
        "Microsoft.Compute/virtualMachineScaleSets/read",
        &[
            "Preflight",
            "PublishVersion",
            "ReadModel",
            "PatchModel",
            "PlanPrune",
            "PruneVersions",
            "PlanScaleOut",
            "ScaleOut",
            "WithdrawVersion",
        ],
        "read the model, and every other scale set that follows the same image definition",
    ),
    azure(
        AzureScope::Subscription,
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
        PRUNE,
        "see which version each instance was made from; while some may not be read, no version is deleted",
    ),
    azure(
        AzureScope::Subscription,
        "Microsoft.Compute/virtualMachines/read",
        PRUNE,
        "the same, for machines of Flexible scale sets and those that stand alone; not needed where no Flexible scale set \
         follows the definition",
    ),
    azure(
        AzureScope::Subscription,
        "Microsoft.Compute/locations/operations/read",
        &["every step that changes something in Azure"],
        "ask how far an accepted operation is",
    ),
    azure(
        AzureScope::Subscription,
        "Microsoft.Compute/locations/diskOperations/read",
        &["SnapshotDisk", "CopyDisk", "DeleteTemporaries"],
        "the same, for disks and snapshots",
    ),
    azure(
        AzureScope::Subscription,
        "Microsoft.Compute/locations/capsOperations/read",
        &["EnsureGallery", "EnsureDefinition", "CreateVersion", "PublishVersion", "WithdrawVersion", "PruneVersions"],
        "the same, for galleries",
    ),
    azure(
        AzureScope::Subscription,
        "Microsoft.Insights/autoscaleSettings/read",
        &["PlanScaleOut"],
        "see whether Azure Monitor scales the scale set that is to grow (scaleOut); without it, that is not looked at",
    ),
    azure(
        AzureScope::ScaleSets,
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
        &["RankNodes", "SnapshotDisk", "PlanPrune", "AwaitNode", "CanaryNode"],
        "find the node's instance, its OS disk, the image versions in use, and the first instance of a new one",
    ),
    azure(
        AzureScope::ScaleSets,
        "Microsoft.Compute/virtualMachines/read",
        &["Preflight", "RankNodes", "SnapshotDisk", "AwaitNode", "CanaryNode", "status"],
        "the same, where the scale set is Flexible, and which machines belong to it; not needed for a Uniform one",
    ),
    azure(
        AzureScope::ScaleSets,
        "Microsoft.Compute/disks/read",
        &["RankNodes", "SnapshotDisk", "VerifyVersion"],
        "read the donor's OS disk: generation, architecture, security type, plan",
    ),
    azure(
        AzureScope::ScaleSets,
        "Microsoft.Compute/disks/beginGetAccess/action",
        &["SnapshotDisk"],
        "a snapshot reads the donor's disk with this right of ours",
    ),
    azure(
        AzureScope::ScaleSets,
        "Microsoft.Compute/virtualMachineScaleSets/write",
        SWITCH,
        "make new nodes use the image; it can change everything else in the model too, so the change is compared afterwards",
    ),
    azure(
        AzureScope::Temporaries,
        "Microsoft.Compute/snapshots/read",
        &["SnapshotDisk", "DeleteTemporaries", "the janitor"],
        "look before and after; list those with a run's tag",
    ),
    azure(AzureScope::Temporaries, "Microsoft.Compute/snapshots/write", &["SnapshotDisk"], "make the snapshot"),
    azure(
        AzureScope::Temporaries,
        "Microsoft.Compute/snapshots/delete",
        &["SnapshotDisk", "DeleteTemporaries", "the janitor"],
        "remove the snapshot",
    ),
    azure(
        AzureScope::Temporaries,
        "Microsoft.Compute/disks/read",
        &["CopyDisk", "DetachCopy", "VerifyVersion", "DeleteTemporaries", "the janitor"],
        "see that the copy is there, and detached again; list those with a run's tag",
    ),
    azure(
        AzureScope::Temporaries,
        "Microsoft.Compute/disks/write",
        &["CopyDisk", "CreateVersion"],
        "make the copy, and note on it what was learnt of its region; Azure also wants it of whoever makes a version from a disk",
    ),
    azure(
        AzureScope::Temporaries,
        "Microsoft.Compute/disks/delete",
        &["CopyDisk", "DeleteTemporaries", "the janitor"],
        "remove the copy; a disk that a node uses is attached, and Azure refuses to delete those",
    ),
    azure(AzureScope::Gallery, "Microsoft.Compute/galleries/read", &["Preflight", "EnsureGallery"], "find the gallery"),
    azure(
        AzureScope::Gallery,
        "Microsoft.Compute/galleries/write",
        &["EnsureGallery"],
        "make the gallery; not needed when it is made beforehand",
    ),
    azure(
        AzureScope::Gallery,
        "Microsoft.Compute/galleries/images/read",
        &["EnsureDefinition"],
        "find the image definition",
    ),
    azure(
        AzureScope::Gallery,
        "Microsoft.Compute/galleries/images/write",
        &["EnsureDefinition"],
        "make the definition; not needed when it is made beforehand",
    ),
    azure(
        AzureScope::Gallery,
        "Microsoft.Compute/galleries/images/versions/read",
        &[
            "RankNodes",
            "ChooseNames",
            "CreateVersion",
            "VerifyVersion",
            "PublishVersion",
            "WithdrawVersion",
            "PlanPrune",
            "PruneVersions",
        ],
        "list versions and see their replication; a scale set's new nodes need it too",
    ),
    azure(
        AzureScope::Gallery,
        "Microsoft.Compute/galleries/images/versions/write",
        &["CreateVersion", "PublishVersion", "WithdrawVersion"],
        "make a version, and take it in or out of latest",
    ),
    azure(
        AzureScope::Gallery,
        "Microsoft.Compute/galleries/images/versions/delete",
        &["CreateVersion", "PruneVersions", "images", "the janitor"],
        "remove versions of ours that nothing uses, or that a run took back",
    ),
    azure(
        AzureScope::Gallery,
        "Microsoft.Resources/tags/write",
        &["WithdrawVersion", "images"],
        "set the one tag that says why a version was withdrawn, and the one that pins it; not needed without a pool's `canary` \
         and `images pin`",
    ),
    azure(
        AzureScope::Linked,
        "Microsoft.Network/virtualNetworks/subnets/join/action",
        SWITCH,
        "Azure checks it for every subnet in the model that is sent",
    ),
    azure(
        AzureScope::Linked,
        "Microsoft.Network/networkSecurityGroups/join/action",
        SWITCH,
        "the same, for security groups",
    ),
    azure(
        AzureScope::Linked,
        "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
        SWITCH,
        "the same, for load balancers",
    ),
    azure(
        AzureScope::Linked,
        "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
        SWITCH,
        "the same, for the nodes' identities",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_writes_to_a_node_or_reads_a_secret() {
        let reads = ["get", "list", "watch"];
        for right in KUBERNETES {
            assert!(!right.resource.starts_with("nodes") || reads.contains(&right.verb), "{right:?}");
            assert!(!["secrets", "configmaps"].contains(&right.resource) && !right.resource.contains('/'), "{right:?}");
            assert_eq!(right.part, Part::Every, "{right:?}");
        }
        let mut of_secrets = in_kubernetes().filter(|right| right.resource == "secrets");
        assert!(of_secrets.all(|right| right.part == Part::Rebootstrap && !reads.contains(&right.verb)));
    }

    #[test]
    fn what_is_not_used_is_not_needed() {
        let uses = |stop, forced_drain| {
            let uses = Uses { stop, forced_drain, ..Uses::default() };
            [Part::Every, Part::Stop, Part::ForcedDrain].map(|part| uses.needs(part))
        };
        assert_eq!(uses(false, false), [true, false, false]);
        assert_eq!(uses(false, true), [true, false, false], "nobody is drained");
        assert_eq!(uses(true, false), [true, true, false]);
        assert_eq!(uses(true, true), [true, true, true]);
        let renews = |stop| Uses { stop, rebootstrap: true, ..Uses::default() }.needs(Part::Rebootstrap);
        assert_eq!([renews(false), renews(true)], [false, true]);
    }

    #[test]
    fn live_capture_asks_for_no_power_over_instances() {
        for right in AZURE {
            let harmful =
                ["/start/", "/powerOff/", "/deallocate/", "/restart/", "/reimage", "/runCommand", "/extensions/"];
            assert!(!harmful.iter().any(|part| right.action.contains(part)), "{right:?}");
            assert!(!right.action.contains('*'), "{right:?}");
            let on_instances = right.action.contains("/virtualMachineScaleSets/virtualMachines/");
            assert!(!on_instances || right.action.ends_with("/read"), "{right:?}");
        }
    }

    #[test]
    fn every_right_is_listed_once_and_says_what_for() {
        for (index, right) in in_kubernetes().enumerate() {
            let twin = in_kubernetes().take(index).any(|other| {
                (other.group, other.resource, other.verb, other.scope)
                    == (right.group, right.resource, right.verb, right.scope)
            });
            assert!(!twin && !right.steps.is_empty() && !right.why.is_empty(), "{right:?}");
        }
        for (index, right) in in_azure().enumerate() {
            let twin = in_azure().take(index).any(|other| (other.action, other.scope) == (right.action, right.scope));
            assert!(!twin && !right.steps.is_empty() && !right.why.is_empty(), "{right:?}");
        }
    }
}
