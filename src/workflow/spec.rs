//! What a run was asked to do: stored with it, so that changed settings never change a run under way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Attach, Capture, Credential, DonorChoice, GalleryId, Profile, Region, ScaleSetId},
    policy::{canary::Canary, drain::DrainPolicy, gates::Gate, ranking::Rules},
};

/// What a run was asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// The pool.
    pub scale_set: ScaleSetId,
    /// Which node to take.
    pub donor: DonorChoice,
    /// How its disk is captured.
    pub capture: Capture,
    /// Which manifest applies to the copy.
    pub profile: Profile,
    /// Where image versions go.
    pub gallery: GalleryId,
    /// The image definition's name in it.
    pub definition: String,
    /// Target regions besides the gallery's own.
    pub regions: Vec<Region>,
    /// Copies of a version in each region.
    pub replicas: u32,
    /// Copies in regions that have another number of them, by the region's key.
    #[serde(default)]
    pub replicas_in: BTreeMap<String, u32>,
    /// `Standard_LRS`, `Standard_ZRS` or `Premium_LRS`.
    pub storage: String,
    /// The snapshot is incremental.
    #[serde(default)]
    pub incremental: bool,
    /// By how many instances the scale set grows after the update.
    #[serde(default)]
    pub scale_out: u32,
    /// Allowed to change the model of a scale set that does not follow the definition yet.
    pub adopt: bool,
    /// Where a person is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approve: Vec<Gate>,
    /// How long a donor must have been ready, in seconds.
    pub min_ready_seconds: u64,
    /// How the donor is chosen.
    #[serde(default, skip_serializing_if = "Rules::is_default")]
    pub ranking: Rules,
    /// How many published versions stay.
    pub keep_versions: u32,
    /// Versions younger than this stay, in seconds.
    pub keep_seconds: u64,
    /// The namespace of cleaning pods.
    pub clean_namespace: String,
    /// The image of cleaning pods: our own.
    pub clean_image: String,
    /// How the copy comes to the cleaning pod.
    #[serde(default, skip_serializing_if = "Attach::is_csi")]
    pub attach: Attach,
    /// What becomes of the kubelet's credential on a donor that is cleaned in place.
    #[serde(default, skip_serializing_if = "Credential::is_keep")]
    pub credential: Credential,
    /// How many nodes may be out of service at a time, in the whole cluster; only with `capture: stop`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unavailable_max: usize,
    /// The uid of namespace kube-system: the cluster that the run belongs to.
    pub cluster: String,
    /// What may be done to the donor's pods, where it is taken out of service.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drain: DrainPolicy,
    /// Whether the first node that is made from the version is watched.
    #[serde(default, skip_serializing_if = "Canary::is_none")]
    pub canary: Canary,
}

/// Not written where it says nothing, so that an older release can still read what concerns it.
fn is_default(drain: &DrainPolicy) -> bool {
    *drain == DrainPolicy::default()
}

impl RunSpec {
    /// How many nodes may be out of service at a time; at least one, or nothing could ever begin.
    #[must_use]
    pub fn max_unavailable(&self) -> usize {
        self.unavailable_max.max(1)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
