//! How far a scale set grows after an update, and who else has a say in that.
//!
//! Only upward, to a number that is chosen once; never against an autoscaler: it would take the new instances away again, or
//! grow beyond its own limits, and neither of the two would know why.

use crate::{
    cloud::{Autoscale, Provisioning, ScaleSet},
    model::ScaleSetId,
};

/// Tags by which cluster-autoscaler finds its scale sets or reads their shape: `cluster-autoscaler-enabled`,
/// `k8s.io_cluster-autoscaler_enabled`, `k8s.io_cluster-autoscaler_node-template_…` (a tag's name can't hold a `/`).
const AUTOSCALER: &str = "cluster-autoscaler";

/// The most instances that a scale set can have.
const INSTANCES_MAX: u32 = 1000;

/// From how many instances to how many, or why not.
///
/// # Errors
/// What speaks against it, with its value and the remedy.
pub fn target(set: &ScaleSet, autoscale: &[Autoscale], by: u32) -> Result<(u32, u32), String> {
    let name = set.id.name();
    let tag = set.tags.iter().find(|(tag, value)| tag.contains(AUTOSCALER) && !value.eq_ignore_ascii_case("false"));
    if let Some((tag, value)) = tag {
        return Err(format!(
            "tag {tag} of scale set {name} is {value:?}: the cluster's autoscaler decides how many instances it has; set \
             scaleOut to 0"
        ));
    }
    let scales = |setting: &&Autoscale| {
        setting.enabled && ScaleSetId::parse(&setting.target).is_ok_and(|target| target == set.id)
    };
    if let Some(setting) = autoscale.iter().find(scales) {
        return Err(format!(
            "autoscale setting {} scales {name}: Azure Monitor decides how many instances it has; set scaleOut to 0",
            setting.name
        ));
    }
    match set.provisioning {
        Provisioning::Succeeded => {}
        Provisioning::Running => return Err(format!("another operation on scale set {name} is under way")),
        Provisioning::Failed => {
            return Err(format!("provisioningState of scale set {name} is Failed: repair it before it grows"));
        }
    }
    let to = set.capacity.saturating_add(by);
    if to > INSTANCES_MAX {
        return Err(format!(
            "scale set {name} has {} instances, and {INSTANCES_MAX} is the most: set scaleOut to 0",
            set.capacity
        ));
    }
    Ok((set.capacity, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{Fingerprint, ImageRef, Orchestration, UpgradeMode};

    const ID: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute/\
                      virtualMachineScaleSets/pool1";

    fn set(tags: &[(&str, &str)]) -> ScaleSet {
        ScaleSet {
            id: ScaleSetId::parse(ID).expect("an id"),
            etag: None,
            location: crate::model::Region("westus".into()),
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
            image: ImageRef::Other("any".into()),
            extensions: vec![],
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            capacity: 3,
            fingerprint: Fingerprint::default(),
        }
    }

    fn setting(target: &str, enabled: bool) -> Vec<Autoscale> {
        vec![Autoscale { name: "cpu".into(), target: target.into(), enabled }]
    }

    #[test]
    fn nobody_elses_scale_set_grows_by_so_many() {
        assert_eq!(target(&set(&[("team", "platform"), ("cluster-autoscaler-enabled", "false")]), &[], 2), Ok((3, 5)));
        let others = setting(&ID.replace("pool1", "xpool1"), true);
        assert_eq!(target(&set(&[]), &others, 1), Ok((3, 4)));
        assert_eq!(target(&set(&[]), &setting(ID, false), 1), Ok((3, 4)));
        assert_eq!(target(&set(&[]), &setting("", true), 1), Ok((3, 4)));
    }

    #[test]
    fn an_autoscaler_is_never_worked_against() {
        for tag in [
            ("cluster-autoscaler-enabled", "true"),
            ("k8s.io_cluster-autoscaler_enabled", ""),
            ("k8s.io_cluster-autoscaler_node-template_label_pool", "a"),
        ] {
            let error = target(&set(&[tag]), &[], 1).expect_err(tag.0);
            assert!(error.contains(tag.0) && error.contains("scaleOut"), "{error}");
        }
        // Azure Monitor writes ids in a case of its own.
        let error = target(&set(&[]), &setting(&ID.to_uppercase(), true), 1).expect_err("Azure's own");
        assert!(error.contains("autoscale setting cpu") && error.contains("scaleOut"), "{error}");
    }

    #[test]
    fn one_that_is_not_at_rest_or_full_does_not_grow() {
        for (provisioning, word) in [(Provisioning::Running, "under way"), (Provisioning::Failed, "Failed")] {
            let error = target(&ScaleSet { provisioning, ..set(&[]) }, &[], 1).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
        let error = target(&ScaleSet { capacity: 1000, ..set(&[]) }, &[], 1).expect_err("full");
        assert!(error.contains("1000"), "{error}");
    }
}
