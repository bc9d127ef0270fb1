//! A Node and its lease, as ranking sees them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node as KubeNode, NodeCondition},
};

use crate::{
    cluster::Node,
    model::{BadName, NodeName},
};

/// Conditions that are bad when true: the kubelet's and the network's, and the two of node-problem-detector's default
/// rules that a reboot is the remedy for.
const BAD_WHEN_TRUE: [&str; 6] =
    ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "KernelDeadlock", "ReadonlyFilesystem"];

/// Renewal times of leases by node.
pub(super) fn renewals(leases: impl IntoIterator<Item = Lease>) -> BTreeMap<String, Timestamp> {
    leases.into_iter().filter_map(|lease| Some((lease.metadata.name.clone()?, renewed(lease)?))).collect()
}

/// When a lease was last renewed.
pub(super) fn renewed(lease: Lease) -> Option<Timestamp> {
    lease.spec?.renew_time.map(|time| time.0)
}

/// A Node in our words.
pub(super) fn project(
    node: KubeNode,
    lease_renewed: Option<Timestamp>,
    seen: Option<Timestamp>,
) -> Result<Node, BadName> {
    let meta = node.metadata;
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let info = status.node_info.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let labels = meta.labels.unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    Ok(Node {
        name: NodeName::parse(&meta.name.unwrap_or_default())?,
        uid: meta.uid.unwrap_or_default(),
        version: meta.resource_version.unwrap_or_default(),
        provider_id: without_scheme(&spec.provider_id.unwrap_or_default()),
        boot_id: info.boot_id,
        machine_id: info.machine_id,
        system_uuid: info.system_uuid,
        kernel: info.kernel_version,
        kubelet: info.kubelet_version,
        ready: ready.is_some_and(is_true),
        ready_since: ready.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0),
        lease_renewed,
        unschedulable: spec.unschedulable.unwrap_or_default(),
        control_plane: is_control_plane(&labels),
        linux: labels.get("kubernetes.io/os").map_or(info.operating_system == "linux", |os| os == "linux"),
        under_pressure: conditions
            .iter()
            .filter(|condition| BAD_WHEN_TRUE.contains(&condition.type_.as_str()) && is_true(condition))
            .map(|condition| condition.type_.clone())
            .collect(),
        conditions: conditions.iter().filter(|it| is_true(it)).map(|it| it.type_.clone()).collect(),
        taints: spec.taints.unwrap_or_default().into_iter().map(|taint| taint.key).collect(),
        zone: labels.get("topology.kubernetes.io/zone").and_then(|zone| zone_number(zone)),
        created: meta.creation_timestamp.map(|time| time.0),
        labels,
        annotations: meta.annotations.unwrap_or_default(),
        seen,
    })
}

fn is_true(condition: &NodeCondition) -> bool {
    condition.status == "True"
}

/// kubeadm's label, the one it had before Kubernetes 1.20, and AKS Engine's.
fn is_control_plane(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key("node-role.kubernetes.io/control-plane")
        || labels.contains_key("node-role.kubernetes.io/master")
        || labels.get("kubernetes.io/role").is_some_and(|role| role == "master")
}

/// Without `azure://`, in whatever case that was written; what follows keeps its own.
fn without_scheme(provider_id: &str) -> String {
    const SCHEME: &str = "azure://";
    match provider_id.get(..SCHEME.len()) {
        Some(start) if start.eq_ignore_ascii_case(SCHEME) => provider_id[SCHEME.len()..].to_owned(),
        _ => provider_id.to_owned(),
    }
}

/// The `1` of `westeurope-1`. A node in no zone has its fault domain in that label, a number alone.
fn zone_number(label: &str) -> Option<String> {
    let (region, number) = label.rsplit_once('-')?;
    let good = !region.is_empty() && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    good.then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_goes_in_any_case_and_the_rest_stays() {
        let id = "/subscriptions/S/resourceGroups/MC_Group";
        for scheme in ["azure://", "Azure://", "AZURE://"] {
            assert_eq!(without_scheme(&format!("{scheme}{id}")), id);
        }
        assert_eq!(without_scheme("aws:///eu/i-1"), "aws:///eu/i-1");
        assert_eq!(without_scheme("azuré"), "azuré");
        assert_eq!(without_scheme(""), "");
    }

    #[test]
    fn a_fault_domain_is_no_zone() {
        assert_eq!(zone_number("westeurope-1").as_deref(), Some("1"));
        for label in ["0", "1", "", "-1", "westeurope-", "west-europe"] {
            assert_eq!(zone_number(label), None, "{label:?}");
        }
    }

    #[test]
    fn a_node_that_says_nothing_is_not_ready_and_not_linux() {
        let node: KubeNode =
            serde_json::from_value(serde_json::json!({ "metadata": { "name": "n" } })).expect("a node");
        let node = project(node, None, None).expect("a good name");
        assert!(!node.ready && !node.linux && !node.control_plane && node.ready_since.is_none());
    }
}
