//! What speaks against a scale set, as its model is.

use super::{
    Refusal,
    clauses::{
        AKS_EXTENSION, AKS_GROUP, AKS_TAG, CAPZ, CONFIDENTIAL, Clause, DATA_DISKS, DEPENDENT, DISK_ENCRYPTION,
        ENCRYPTION_SET, EPHEMERAL, NO_PROFILE, NOT_ADOPTED, OS_UPGRADE, REGION, REPAIRS, SPOT, UNSETTLED,
        UPGRADE_POLICY, WINDOWS,
    },
};
use crate::{
    cloud::{Extension, ImageRef, Provisioning, ScaleSet, UpgradeMode},
    model::{Bootstrap, DefinitionId, Profile, Region},
};

/// Why a change of what "latest" means would do more than change new nodes: for every scale set that follows the
/// definition, read again inside publish and patch (I7).
#[must_use]
pub fn would_roll(set: &ScaleSet) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let at = |clause: &Clause| format!("{} of scale set {}", clause.field, set.id.name());
    if set.upgrade_mode != UpgradeMode::Manual {
        refusals.push(UPGRADE_POLICY.at(at(&UPGRADE_POLICY), format!("{:?}", set.upgrade_mode)));
    }
    if set.automatic_os_upgrade {
        refusals.push(OS_UPGRADE.at(at(&OS_UPGRADE), true));
    }
    if set.automatic_repairs {
        refusals.push(REPAIRS.at(at(&REPAIRS), true));
    }
    refusals
}

/// Why this scale set can't have a prototype update.
#[must_use]
pub fn refusals(
    set: &ScaleSet,
    definition: &DefinitionId,
    profile: &Profile,
    adopt: bool,
    taken_out: bool,
) -> Vec<Refusal> {
    let mut refusals = still_refused(set, &bootstrapping(set, profile));
    if taken_out && set.provisioning != Provisioning::Succeeded {
        refusals.push(UNSETTLED.found(format!("{:?}", set.provisioning)));
    }
    if set.image != ImageRef::Definition(definition.clone()) && !adopt {
        let lost = match profile.bootstrap() {
            Bootstrap::Disk => "custom data is replaced and extensions are removed, and neither can be read back",
            Bootstrap::Model => "new nodes will be made from the gallery's image",
        };
        let remedy = NOT_ADOPTED.remedy.replacen("changes its model", &format!("changes its model ({lost})"), 1);
        refusals.push(Refusal { remedy, ..NOT_ADOPTED.found(describe(&set.image)) });
    }
    refusals
}

/// What speaks against changing a model, whenever: read again in the look whose etag the change names. `gone` are the
/// extensions that leave it.
#[must_use]
pub fn still_refused(set: &ScaleSet, gone: &[String]) -> Vec<Refusal> {
    let mut refusals = would_roll(set);
    if !set.profile {
        // There is nothing else of a model to look at.
        refusals.push(NO_PROFILE.found("not there"));
        return refusals;
    }
    if set.ephemeral_os_disk {
        refusals.push(EPHEMERAL.found("set"));
    }
    if !set.linux {
        refusals.push(WINDOWS.found("Windows"));
    }
    if set.spot {
        refusals.push(SPOT.found("Spot"));
    }
    if set.data_disks > 0 {
        refusals.push(DATA_DISKS.found(set.data_disks));
    }
    if let Some(id) = &set.disk_encryption_set {
        refusals.push(ENCRYPTION_SET.found(id));
    }
    if set.security_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("ConfidentialVM")) {
        refusals.push(CONFIDENTIAL.found("ConfidentialVM"));
    }
    refusals.extend(owners(set));
    if let Some(extension) = with_handler(set, DISK_ENCRYPTION.value) {
        refusals.push(DISK_ENCRYPTION.at(format!("extension {}", extension.name), DISK_ENCRYPTION.value));
    }
    let goes = |name: &str| gone.iter().any(|it| it.eq_ignore_ascii_case(name));
    for kept in set.extensions.iter().filter(|extension| !goes(&extension.name)) {
        if let Some(before) = kept.after.iter().find(|name| goes(name)) {
            refusals.push(DEPENDENT.at(format!("{} of extension {}", DEPENDENT.field, kept.name), before));
        }
    }
    refusals
}

/// Others who own the model, and would change it back.
fn owners(set: &ScaleSet) -> Vec<Refusal> {
    let tagged = |start: &str| set.tags.iter().find(|(name, _)| name.starts_with(start));
    let mut refusals = Vec::new();
    // One word of AKS' is enough.
    if let Some((tag, value)) = tagged("aks-managed-") {
        refusals.push(AKS_TAG.at(format!("tag {tag}"), value));
    } else if let Some(extension) = with_handler(set, AKS_EXTENSION.value) {
        refusals.push(AKS_EXTENSION.at(format!("extension {}", extension.name), AKS_EXTENSION.value));
    } else if is_aks_group(set.id.resource_group(), &set.location) {
        refusals.push(AKS_GROUP.found(set.id.resource_group()));
    }
    if let Some((tag, value)) = tagged("sigs.k8s.io_cluster-api-provider-azure_cluster_") {
        refusals.push(CAPZ.at(format!("tag {tag}"), value));
    }
    refusals
}

/// `MC_<group>_<cluster>_<region>`, as AKS names the group of its nodes unless it is told another name.
fn is_aks_group(group: &str, region: &Region) -> bool {
    let group = group.to_ascii_lowercase();
    group.strip_prefix("mc_").and_then(|rest| rest.strip_suffix(&format!("_{}", region.key()))).is_some_and(|middle| {
        middle.split_once('_').is_some_and(|(group, cluster)| !group.is_empty() && !cluster.is_empty())
    })
}

fn with_handler<'a>(set: &'a ScaleSet, handler: &str) -> Option<&'a Extension> {
    set.extensions.iter().find(|extension| extension.handler.eq_ignore_ascii_case(handler))
}

/// Extensions that would set a node up a second time, by exact publisher and type; billing and monitoring stay.
#[must_use]
pub fn bootstrapping(set: &ScaleSet, profile: &Profile) -> Vec<String> {
    const HANDLERS: [&str; 2] =
        ["Microsoft.Azure.Extensions/CustomScript", "Microsoft.OSTCExtensions/CustomScriptForLinux"];
    let bootstraps = |it: &&Extension| HANDLERS.iter().any(|known| known.eq_ignore_ascii_case(&it.handler));
    match profile.bootstrap() {
        Bootstrap::Disk => set.extensions.iter().filter(bootstraps).map(|it| it.name.clone()).collect(),
        Bootstrap::Model => Vec::new(),
    }
}

/// Why versions would not be where the scale set is. A gallery that is not there yet is made there.
#[must_use]
pub fn elsewhere(set: &ScaleSet, gallery: Option<&Region>, regions: &[Region]) -> Option<Refusal> {
    let gallery = gallery?;
    let reached = *gallery == set.location || regions.contains(&set.location);
    (!reached).then(|| {
        let all: Vec<&str> = std::iter::once(gallery).chain(regions).map(|region| region.0.as_str()).collect();
        REGION.at(REGION.field, format!("{}, and the scale set is in {}", all.join(", "), set.location))
    })
}

fn describe(image: &ImageRef) -> String {
    match image {
        ImageRef::Definition(id) => id.to_string(),
        ImageRef::Version(id) => id.to_string(),
        ImageRef::Other(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Fingerprint, Orchestration},
        model::ScaleSetId,
    };

    fn set(group: &str) -> ScaleSet {
        ScaleSet {
            id: ScaleSetId::new("00000000-1111-2222-3333-444444444444", group, &["pool1"]).expect("an id"),
            etag: None,
            location: Region("West Europe".into()),
            zones: vec![],
            provisioning: Provisioning::Succeeded,
            orchestration: Orchestration::Uniform,
            profile: true,
            upgrade_mode: UpgradeMode::Manual,
            automatic_os_upgrade: false,
            automatic_repairs: false,
            ephemeral_os_disk: false,
            linux: true,
            spot: false,
            security_type: None,
            disk_encryption_set: None,
            disk_controller: None,
            data_disks: 0,
            plan: None,
            image: ImageRef::Other("an image".into()),
            extensions: vec![],
            tags: std::collections::BTreeMap::new(),
            capacity: 3,
            fingerprint: Fingerprint::default(),
        }
    }

    #[test]
    fn a_resource_group_of_aks_is_known_by_its_whole_form() {
        let refused = |group: &str| still_refused(&set(group), &[]);
        let of_aks = refused("MC_prod_cluster-1_westeurope");
        assert_eq!((of_aks.len(), of_aks[0].code.as_str()), (1, "KW0211"));
        assert!(of_aks[0].to_string().contains("resource group is MC_prod_cluster-1_westeurope"), "{}", of_aks[0]);
        for group in ["MC_nodes", "MC_prod_westeurope", "MC_prod_cluster_northeurope", "k8s_MC_a_b_westeurope", "K8S"] {
            assert!(refused(group).is_empty(), "{group}");
        }
    }

    #[test]
    fn a_donor_is_not_taken_out_of_a_scale_set_that_is_changing() {
        let definition = DefinitionId::new("00000000-1111-2222-3333-444444444444", "g", &["protos", "pool1"]);
        let definition = definition.expect("an id");
        let changing = ScaleSet { provisioning: Provisioning::Running, ..set("g") };
        let refused = |set: &ScaleSet, taken_out| refusals(set, &definition, &Profile::Kubeadm, true, taken_out);
        assert!(refused(&changing, false).is_empty(), "a snapshot of a running disk is no business of the scale set's");
        let stop = refused(&changing, true);
        assert_eq!(stop.iter().map(|it| it.code.as_str()).collect::<Vec<_>>(), ["KW0217"]);
        assert!(stop[0].to_string().contains("provisioningState is Running"), "{}", stop[0]);
        assert!(refused(&set("g"), true).is_empty());
    }
}
