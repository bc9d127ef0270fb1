//! Every clause by which a run is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One reason not to begin, or not to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The page in docs/errors.
    pub code: String,
    /// What is looked at, as Azure or Kubernetes calls it.
    pub field: String,
    /// What it says.
    pub value: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {} [{}]", self.field, self.value, self.remedy, self.code)
    }
}

/// When a clause is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Before anything is touched.
    Choose,
    /// When the image definition is made or found: nothing was captured yet.
    Prepare,
    /// Right before the version becomes what new nodes take.
    Publish,
    /// Right before the model is changed, in the very read whose etag the change names.
    Patch,
}

impl Moment {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Choose => "choose",
            Self::Prepare => "prepare",
            Self::Publish => "publish",
            Self::Patch => "patch",
        }
    }
}

/// A reason to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clause {
    /// The page in docs/errors.
    pub code: &'static str,
    /// What is looked at, as Azure or Kubernetes calls it.
    pub field: &'static str,
    /// What it says when the run is refused.
    pub value: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// When it is looked at.
    pub when: &'static [Moment],
    /// Only for a donor that is taken out of service (`capture: stop`).
    pub stop_only: bool,
    /// The test that sees it refused: its file, and its name.
    pub test: (&'static str, &'static str),
}

impl Clause {
    /// A refusal by this clause, with what was found.
    pub(super) fn found(&self, value: impl fmt::Display) -> Refusal {
        self.at(self.field, value)
    }

    /// The same for a field whose name says more.
    pub(super) fn at(&self, field: impl Into<String>, value: impl fmt::Display) -> Refusal {
        Refusal { code: self.code.into(), field: field.into(), value: value.to_string(), remedy: self.remedy.into() }
    }
}

use Moment::{Choose, Patch, Prepare, Publish};

const EVERYWHERE: &[Moment] = &[Choose, Publish, Patch];
const WITH_THE_MODEL: &[Moment] = &[Choose, Patch];
const UNFIT: (&str, &str) = (
    "tests/simulated/refusals.rs",
    "each_unfit_scale_set_is_refused_with_field_value_and_remedy_and_nothing_is_asked_for",
);

const fn model(
    code: &'static str,
    field: &'static str,
    value: &'static str,
    when: &'static [Moment],
    remedy: &'static str,
) -> Clause {
    Clause { code, field, value, remedy, when, stop_only: false, test: UNFIT }
}

pub(super) const UPGRADE_POLICY: Clause = model(
    "KW0201",
    "upgradePolicy.mode",
    "anything but Manual",
    EVERYWHERE,
    "a changed model takes running nodes down at once; set it to Manual",
);
pub(super) const OS_UPGRADE: Clause = model(
    "KW0202",
    "automaticOSUpgradePolicy.enableAutomaticOSUpgrade",
    "true",
    EVERYWHERE,
    "a new version would replace running nodes; switch it off",
);
pub(super) const REPAIRS: Clause = model(
    "KW0203",
    "automaticRepairsPolicy.enabled",
    "true",
    EVERYWHERE,
    "repairs would replace nodes by the new image unasked; switch them off",
);
pub(super) const NO_PROFILE: Clause = model(
    "KW0204",
    "virtualMachineProfile",
    "not there",
    WITH_THE_MODEL,
    "nothing in this Flexible scale set says what new nodes are made from; use a scale set that has a profile",
);
pub(super) const EPHEMERAL: Clause = model(
    "KW0205",
    "osDisk.diffDiskSettings",
    "set",
    WITH_THE_MODEL,
    "an ephemeral OS disk can't be snapshotted; use a managed OS disk",
);
pub(super) const WINDOWS: Clause =
    model("KW0206", "osDisk.osType", "Windows", WITH_THE_MODEL, "only Linux nodes can be cleaned");
pub(super) const SPOT: Clause = model(
    "KW0207",
    "priority",
    "Spot or Low",
    WITH_THE_MODEL,
    "a Spot node may vanish at any time; choose a regular pool",
);
pub(super) const DATA_DISKS: Clause = model(
    "KW0208",
    "storageProfile.dataDisks",
    "one or more in the model; volumes of pods are none of these",
    WITH_THE_MODEL,
    "an image of the OS disk alone would lack them; use a pool without data disks",
);
pub(super) const ENCRYPTION_SET: Clause = model(
    "KW0209",
    "osDisk.managedDisk.diskEncryptionSet",
    "set",
    WITH_THE_MODEL,
    "versions encrypted with keys of your own are not supported so far",
);
pub(super) const CONFIDENTIAL: Clause =
    model("KW0210", "securityProfile.securityType", "ConfidentialVM", WITH_THE_MODEL, "not supported");
const AKS: &str = "AKS owns this scale set's model and overwrites it; use AKS' own node image upgrade";
pub(super) const AKS_TAG: Clause = model("KW0211", "tag aks-managed-*", "there", WITH_THE_MODEL, AKS);
pub(super) const AKS_EXTENSION: Clause =
    model("KW0211", "extensionProfile.extensions", "Microsoft.AKS/Compute.AKS.Linux.AKSNode", WITH_THE_MODEL, AKS);
pub(super) const AKS_GROUP: Clause = Clause {
    test: ("src/policy/preflight/scale_set.rs", "a_resource_group_of_aks_is_known_by_its_whole_form"),
    ..model("KW0211", "resource group", "`MC_<group>_<cluster>_<region>`", WITH_THE_MODEL, AKS)
};
pub(super) const AKS_LABEL: Clause = Clause {
    test: ("tests/simulated/refusals.rs", "a_pool_whose_nodes_are_of_aks_is_refused"),
    ..model("KW0211", "label kubernetes.azure.com/cluster", "there, on a node of the pool", &[Choose], AKS)
};
pub(super) const CAPZ: Clause = model(
    "KW0212",
    "tag sigs.k8s.io_cluster-api-provider-azure_cluster_*",
    "there",
    WITH_THE_MODEL,
    "Cluster API owns this scale set's model and reverts changes; set the image in its AzureMachinePool",
);
pub(super) const NOT_ADOPTED: Clause = Clause {
    test: ("tests/simulated/refusals.rs", "without_adopt_a_first_run_is_refused_and_says_what_would_be_lost"),
    ..model(
        "KW0213",
        "storageProfile.imageReference",
        "anything but the pool's definition",
        &[Choose],
        "the first run on a scale set changes its model; say that you want it with --adopt",
    )
};
pub(super) const DISK_ENCRYPTION: Clause = model(
    "KW0214",
    "extensionProfile.extensions",
    "Microsoft.Azure.Security/AzureDiskEncryptionForLinux",
    WITH_THE_MODEL,
    "a disk that is encrypted inside the machine can't be cleaned; use encryption at host",
);
pub(super) const DEPENDENT: Clause = Clause {
    test: ("tests/simulated/refusals.rs", "an_extension_that_waits_for_one_that_has_to_go_is_refused"),
    ..model(
        "KW0215",
        "provisionAfterExtensions",
        "an extension that leaves the model",
        WITH_THE_MODEL,
        "this profile removes the extension that it waits for, and new nodes would never be ready; take the one out of the \
         other's list",
    )
};
pub(super) const REGION: Clause = Clause {
    test: ("tests/simulated/refusals.rs", "a_gallery_elsewhere_has_to_replicate_to_the_scale_sets_region"),
    ..model(
        "KW0216",
        "setting regions",
        "without the scale set's own",
        &[Choose],
        "a scale set takes images of its own region only; add it to the pool's regions",
    )
};
pub(super) const UNSETTLED: Clause = Clause {
    stop_only: true,
    test: ("src/policy/preflight/scale_set.rs", "a_donor_is_not_taken_out_of_a_scale_set_that_is_changing"),
    ..model(
        "KW0217",
        "provisioningState",
        "not Succeeded",
        &[Choose],
        "an operation on the scale set is under way or has failed; wait for it, or repair it, before a node is taken out",
    )
};

pub(super) const UNSEEN: Clause = Clause {
    test: ("tests/simulated/refusals.rs", "a_profile_of_ones_own_needs_a_canary_and_a_copy"),
    ..model(
        "KW0218",
        "profile",
        "one of your own, without a canary",
        &[Choose],
        "nobody has seen a copy of such a node come up as a new one; set canary.policy: first-node, so that the first one is \
         looked at",
    )
};
pub(super) const UNSEEN_IN_PLACE: Clause = Clause {
    stop_only: true,
    ..Clause {
        value: "one of your own, with capture: stop",
        remedy: "nobody has seen such a node come back after it was cleaned in place; use capture: live",
        ..UNSEEN
    }
};

const fn other(
    code: &'static str,
    field: &'static str,
    value: &'static str,
    remedy: &'static str,
    when: &'static [Moment],
    test: (&'static str, &'static str),
) -> Clause {
    Clause { code, field, value, remedy, when, stop_only: false, test }
}

const ABSENT: (&str, &str) =
    ("tests/simulated/refusals.rs", "what_is_not_there_or_not_meant_is_refused_before_anything_is_asked_for");

/// All of them, in the order in which they are looked at.
pub const CLAUSES: &[Clause] = &[
    other(
        "KW0220",
        "uid of namespace kube-system",
        "not the run's cluster",
        "use the kubeconfig of the cluster that the run belongs to",
        &[Choose],
        ("tests/simulated/ranking.rs", "a_run_of_another_cluster_is_refused"),
    ),
    other("KW0221", "scale set", "not there", "check subscription, group and name", EVERYWHERE, ABSENT),
    UPGRADE_POLICY,
    OS_UPGRADE,
    REPAIRS,
    NO_PROFILE,
    EPHEMERAL,
    WINDOWS,
    SPOT,
    DATA_DISKS,
    ENCRYPTION_SET,
    CONFIDENTIAL,
    AKS_TAG,
    AKS_EXTENSION,
    AKS_GROUP,
    AKS_LABEL,
    CAPZ,
    DISK_ENCRYPTION,
    DEPENDENT,
    REGION,
    UNSETTLED,
    UNSEEN,
    UNSEEN_IN_PLACE,
    other(
        "KW0503",
        "CronJob or Job of the Python tool (kamino)",
        "live",
        "it updates the same pools; suspend the CronJob, wait for the Job, or delete them",
        &[Choose],
        ("tests/simulated/takeover.rs", "no_run_begins_beside_a_live_one_and_nothing_is_touched"),
    ),
    NOT_ADOPTED,
    other(
        "KW0201",
        "upgradePolicy.mode of any scale set that follows the definition (and KW0202, KW0203 likewise)",
        "anything but Manual",
        "a new version would roll its nodes; set it to Manual there too, or give this pool a definition of its own",
        &[Choose, Publish],
        ("tests/simulated/refusals.rs", "a_neighbour_that_follows_the_definition_and_would_roll_stops_the_run"),
    ),
    other(
        "KW0230",
        "nodes of the pool",
        "none is fit",
        "each node's reason is said; make one fit, or wait",
        &[Choose],
        ("tests/simulated/refusals.rs", "a_pool_without_a_fit_node_is_refused_with_each_nodes_reason"),
    ),
    other(
        "KW0237",
        "nodes of the pool, with cleaning.attach: instance",
        "none but the donor can take the copy",
        "each node's reason is said; let the pool have two fit nodes in the donor's zone, or install the disk driver",
        &[Moment::Prepare],
        ("tests/simulated/attached.rs", "where_no_other_node_can_help_the_run_is_undone_and_says_why_of_each"),
    ),
    other(
        "KW0236",
        "ranking.minCandidates",
        "more than there are fit nodes",
        "wait until more nodes are fit, or lower it",
        &[Choose],
        ("tests/simulated/ranking.rs", "fewer_candidates_than_asked_for_are_too_few"),
    ),
    other(
        "KW0235",
        "ranking.maxImageAge, ranking.maxImageAgeIfPatched",
        "more than the newest version's age",
        "nothing is to be done: no new image is needed; name a node to have one made all the same",
        &[Choose],
        ("tests/simulated/ranking.rs", "a_young_image_ends_the_run_before_anything_is_touched_and_that_is_no_failure"),
    ),
    other(
        "KW0231",
        "instance of the donor",
        "not there",
        "the node's providerID names an instance that is gone; delete the Node object, or wait until it is",
        &[Choose],
        ("tests/simulated/refusals.rs", "a_donor_without_an_instance_or_a_disk_is_refused"),
    ),
    other(
        "KW0232",
        "OS disk of the donor",
        "not there",
        "look at the instance in Azure",
        &[Choose],
        ("tests/simulated/refusals.rs", "a_donor_without_an_instance_or_a_disk_is_refused"),
    ),
    other(
        "KW0205",
        "osDisk.managedDisk of the donor's instance",
        "not there",
        "an instance without a managed OS disk can't be snapshotted",
        &[Choose],
        ("tests/simulated/refusals.rs", "a_donor_without_an_instance_or_a_disk_is_refused"),
    ),
    other(
        "KW0210",
        "securityProfile.securityType of the donor's disk",
        "ConfidentialVM_*",
        "not supported",
        &[Choose],
        ("tests/simulated/refusals.rs", "a_donor_without_an_instance_or_a_disk_is_refused"),
    ),
    other(
        "KW0004",
        "image definition: hyperVGeneration, architecture, SecurityType, DiskControllerTypes, plan, osState",
        "not as the donor's disk and the model say",
        "nobody can change a definition; choose another name in setting definition",
        &[Prepare],
        ("tests/simulated/refusals.rs", "a_definition_that_does_not_fit_the_disk_is_named_field_by_field"),
    ),
];
