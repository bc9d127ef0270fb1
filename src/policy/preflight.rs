//! What a run refuses before it touches anything, in words that name the field, its value and the remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    cloud::{ImageRef, Orchestration, ScaleSet, UpgradeMode},
    model::{DefinitionId, Profile},
};

/// One reason not to begin, or not to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The page in docs/errors.
    pub code: String,
    /// What is looked at, as Azure calls it.
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

fn refusal(code: &str, field: &str, value: impl fmt::Display, remedy: &str) -> Refusal {
    Refusal { code: code.into(), field: field.into(), value: value.to_string(), remedy: remedy.into() }
}

/// Why a change of what "latest" means would do more than change new nodes: for every scale set that follows the
/// definition, read again inside publish and patch (I7).
#[must_use]
pub fn would_roll(set: &ScaleSet) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let at = |field: &str| format!("{field} of scale set {}", set.id.name());
    if set.upgrade_mode != UpgradeMode::Manual {
        refusals.push(refusal(
            "KW0201",
            &at("upgradePolicy.mode"),
            format!("{:?}", set.upgrade_mode),
            "a changed model takes running nodes down at once; set it to Manual",
        ));
    }
    if set.automatic_os_upgrade {
        refusals.push(refusal(
            "KW0202",
            &at("automaticOSUpgradePolicy.enableAutomaticOSUpgrade"),
            true,
            "a new version would replace running nodes; switch it off",
        ));
    }
    if set.automatic_repairs {
        refusals.push(refusal(
            "KW0203",
            &at("automaticRepairsPolicy.enabled"),
            true,
            "repairs would replace nodes by the new image unasked; switch them off",
        ));
    }
    refusals
}

/// Why this scale set can't have a prototype update.
#[must_use]
pub fn refusals(set: &ScaleSet, definition: &DefinitionId, profile: Profile, adopt: bool) -> Vec<Refusal> {
    let mut refusals = would_roll(set);
    if set.orchestration == Orchestration::Flexible {
        refusals.push(refusal(
            "KW0204",
            "orchestrationMode",
            "Flexible",
            "only Uniform scale sets are supported so far",
        ));
    }
    if set.ephemeral_os_disk {
        refusals.push(refusal(
            "KW0205",
            "osDisk.diffDiskSettings",
            "set",
            "an ephemeral OS disk can't be snapshotted; use a managed OS disk",
        ));
    }
    if !set.linux {
        refusals.push(refusal("KW0206", "osDisk.osType", "Windows", "only Linux nodes can be cleaned"));
    }
    if set.spot {
        refusals.push(refusal(
            "KW0207",
            "priority",
            "Spot",
            "a Spot node may vanish at any time; choose a regular pool",
        ));
    }
    if set.data_disks > 0 {
        refusals.push(refusal(
            "KW0208",
            "storageProfile.dataDisks",
            set.data_disks,
            "an image of the OS disk alone would lack them; use a pool without data disks",
        ));
    }
    if let Some(id) = &set.disk_encryption_set {
        refusals.push(refusal(
            "KW0209",
            "osDisk.managedDisk.diskEncryptionSet",
            id,
            "versions encrypted with keys of your own are not supported so far",
        ));
    }
    if set.security_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("ConfidentialVM")) {
        refusals.push(refusal("KW0210", "securityProfile.securityType", "ConfidentialVM", "not supported"));
    }
    if let Some((tag, value)) = set.tags.iter().find(|(name, _)| name.starts_with("aks-managed-")) {
        refusals.push(refusal(
            "KW0211",
            &format!("tag {tag}"),
            value,
            "AKS owns this scale set's model and overwrites it; use AKS' own node image upgrade",
        ));
    }
    if let Some((tag, value)) =
        set.tags.iter().find(|(name, _)| name.starts_with("sigs.k8s.io_cluster-api-provider-azure_cluster_"))
    {
        refusals.push(refusal(
            "KW0212",
            &format!("tag {tag}"),
            value,
            "Cluster API owns this scale set's model and reverts changes; set the image in its AzureMachinePool",
        ));
    }
    if set.image != ImageRef::Definition(definition.clone()) && !adopt {
        let lost = match profile.bootstrap() {
            crate::model::Bootstrap::Disk => {
                "custom data is replaced and extensions are removed, and neither can be read back"
            }
            crate::model::Bootstrap::Model => "new nodes will be made from the gallery's image",
        };
        refusals.push(refusal(
            "KW0213",
            "storageProfile.imageReference",
            describe(&set.image),
            &format!("the first run on a scale set changes its model ({lost}); say that you want it with --adopt"),
        ));
    }
    refusals
}

fn describe(image: &ImageRef) -> String {
    match image {
        ImageRef::Definition(id) => id.to_string(),
        ImageRef::Version(id) => id.to_string(),
        ImageRef::Other(text) => text.clone(),
    }
}
