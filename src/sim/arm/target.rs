//! What a path names. Azure does not mind the case of a path, and neither do the ids' types.

use crate::model::{
    DefinitionId, DiskId, GalleryId, GroupId, InstanceId, MachineId, ScaleSetId, SnapshotId, VersionId,
};

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    ScaleSet(ScaleSetId),
    ScaleSets(String),
    Instance(InstanceId),
    /// An order to an instance.
    Order(InstanceId, Order),
    Instances(ScaleSetId),
    /// Machines of a resource group that are no instances of a Uniform scale set.
    MachinesOf(GroupId),
    /// The same, of a subscription.
    Machines(String),
    Disk(DiskId),
    Disks(GroupId),
    Snapshot(SnapshotId),
    Snapshots(GroupId),
    Gallery(GalleryId),
    Definition(DefinitionId),
    Version(VersionId),
    Versions(DefinitionId),
    /// Azure Monitor's settings of a subscription.
    Autoscale(String),
    /// By its guid.
    Operation(String),
    /// The tags of a version.
    Tags(VersionId),
    /// The tags of a scale set.
    TagsOfSet(ScaleSetId),
    /// What the caller may do in a resource group or with a gallery, by its path.
    Permissions(String),
}

/// What a machine is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    PowerOff,
    Start,
    Restart,
    /// Data disks come or go, as the body says.
    Disks,
}

impl Order {
    fn parse(word: &str) -> Option<Self> {
        let orders = [
            ("poweroff", Self::PowerOff),
            ("start", Self::Start),
            ("restart", Self::Restart),
            ("attachdetachdatadisks", Self::Disks),
        ];
        orders.into_iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, order)| order)
    }
}

const TAGS: &str = "/providers/microsoft.resources/tags/default";
const PERMISSIONS: &str = "/providers/microsoft.authorization/permissions";

impl Target {
    pub(super) fn parse(path: &str) -> Option<Self> {
        if path.to_ascii_lowercase().ends_with(PERMISSIONS) {
            return Some(Self::Permissions(path[..path.len() - PERMISSIONS.len()].to_owned()));
        }
        if path.to_ascii_lowercase().ends_with(TAGS) {
            let tagged = &path[..path.len() - TAGS.len()];
            let of_set = || ScaleSetId::parse(tagged).map(Self::TagsOfSet);
            return VersionId::parse(tagged).map(Self::Tags).or_else(|_| of_set()).ok();
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let is = |at: usize, word: &str| parts.get(at).is_some_and(|part| part.eq_ignore_ascii_case(word));
        if is(0, "subscriptions") && is(2, "providers") && is(3, "microsoft.compute") {
            return match parts.len() {
                5 if is(4, "virtualmachinescalesets") => Some(Self::ScaleSets(parts[1].to_owned())),
                5 if is(4, "virtualmachines") => Some(Self::Machines(parts[1].to_owned())),
                8 if is(4, "locations") => Some(Self::Operation(parts[7].to_owned())),
                _ => None,
            };
        }
        if parts.len() == 5 && is(0, "subscriptions") && is(3, "microsoft.insights") && is(4, "autoscalesettings") {
            return Some(Self::Autoscale(parts[1].to_owned()));
        }
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if parts.len() % 2 == 1 {
            return match parts.last() {
                Some(last) if last.eq_ignore_ascii_case("virtualmachines") => {
                    let machines = || MachineId::parse(&format!("{path}/any")).map(|id| Self::MachinesOf(id.group()));
                    ScaleSetId::parse(parent).map(Self::Instances).or_else(|_| machines()).ok()
                }
                Some(last) if last.eq_ignore_ascii_case("disks") => {
                    DiskId::parse(&format!("{path}/any")).ok().map(|id| Self::Disks(id.group()))
                }
                Some(last) if last.eq_ignore_ascii_case("snapshots") => {
                    SnapshotId::parse(&format!("{path}/any")).ok().map(|id| Self::Snapshots(id.group()))
                }
                Some(last) if last.eq_ignore_ascii_case("versions") => {
                    DefinitionId::parse(parent).ok().map(Self::Versions)
                }
                Some(last) => {
                    let order = Order::parse(last)?;
                    InstanceId::parse(parent).ok().map(|id| Self::Order(id, order))
                }
                None => None,
            };
        }
        let one = ScaleSetId::parse(path).map(Self::ScaleSet);
        one.or_else(|_| InstanceId::parse(path).map(Self::Instance))
            .or_else(|_| DiskId::parse(path).map(Self::Disk))
            .or_else(|_| SnapshotId::parse(path).map(Self::Snapshot))
            .or_else(|_| GalleryId::parse(path).map(Self::Gallery))
            .or_else(|_| DefinitionId::parse(path).map(Self::Definition))
            .or_else(|_| VersionId::parse(path).map(Self::Version))
            .ok()
    }

    /// The API version that this kind of resource is asked with; any will do for operations.
    pub(super) fn api_version(&self) -> Option<&'static str> {
        match self {
            Self::ScaleSet(_)
            | Self::ScaleSets(_)
            | Self::Instance(_)
            | Self::Order(..)
            | Self::Instances(_)
            | Self::MachinesOf(_)
            | Self::Machines(_) => Some("2024-07-01"),
            Self::Disk(_) | Self::Disks(_) | Self::Snapshot(_) | Self::Snapshots(_) => Some("2024-03-02"),
            Self::Gallery(_) | Self::Definition(_) | Self::Version(_) | Self::Versions(_) => Some("2023-07-03"),
            Self::Tags(_) | Self::TagsOfSet(_) => Some("2021-04-01"),
            Self::Permissions(_) => Some("2022-04-01"),
            Self::Autoscale(_) => Some("2022-10-01"),
            Self::Operation(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_case_name_the_same_thing() {
        let group = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute";
        let sub = "/subscriptions/00000000-1111-2222-3333-444444444444/providers/Microsoft.Compute";
        let rows = [
            (format!("{group}/virtualMachineScaleSets/p"), "ScaleSet("),
            (format!("{group}/virtualMachineScaleSets/p/virtualMachines"), "Instances("),
            (format!("{group}/virtualMachineScaleSets/p/virtualmachines/0"), "Instance(Uniform("),
            (format!("{group}/virtualMachines/v"), "Instance(Flexible("),
            (format!("{group}/virtualMachines"), "MachinesOf("),
            (format!("{group}/virtualMachineScaleSets/p/virtualMachines/0/powerOff"), "Order("),
            (format!("{group}/virtualMachines/v/attachDetachDataDisks"), "Order("),
            (format!("{sub}/virtualMachines"), "Machines("),
            (
                format!("{group}/galleries/g/images/d/versions/1.2.3/providers/Microsoft.Resources/tags/default"),
                "Tags(",
            ),
            (format!("{group}/virtualMachineScaleSets/p/providers/Microsoft.Resources/tags/default"), "TagsOfSet("),
            (format!("{group}/disks/d"), "Disk("),
            (format!("{group}/disks"), "Disks("),
            (format!("{group}/snapshots/s"), "Snapshot("),
            (format!("{group}/snapshots"), "Snapshots("),
            (format!("{group}/galleries/g/images/d/versions/1.2.3"), "Version("),
            (format!("{group}/galleries/g/images/d/versions"), "Versions("),
            (format!("{group}/galleries/g/images/d"), "Definition("),
            (format!("{group}/galleries/g"), "Gallery("),
            (format!("{sub}/virtualMachineScaleSets"), "ScaleSets("),
            (sub.replace("Microsoft.Compute", "Microsoft.Insights/autoscalesettings"), "Autoscale("),
            (format!("{sub}/providers/Microsoft.Authorization/permissions"), "Permissions("),
            (format!("{sub}/locations/westus/DiskOperations/1-2"), "Operation("),
        ];
        for (path, kind) in rows {
            for path in [path.clone(), path.to_uppercase(), path.to_lowercase()] {
                let target = format!("{:?}", Target::parse(&path).expect("a target"));
                assert!(target.starts_with(kind), "{path}: {target}");
            }
        }
        assert_eq!(Target::parse(&format!("{group}/virtualMachineScaleSets/p/virtualMachines/0/reimage")), None);
        assert_eq!(Target::parse(&format!("{group}/virtualMachineScaleSets/p/start")), None, "of all instances");
        assert_eq!(Target::parse(&format!("{group}/virtualMachines/v/extensions/e")), None);
        assert_eq!(Target::parse("/"), None);
    }
}
