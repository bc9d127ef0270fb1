//! What nodes say of who owns them.

use super::{Refusal, clauses::AKS_LABEL};
use crate::{cluster::Node, model::Members};

/// On every node of AKS: the managed cluster's resource group.
const CLUSTER: &str = "kubernetes.azure.com/cluster";

/// Why the scale set is AKS', by the word of its first node that says so.
#[must_use]
pub fn owned_by_aks(nodes: &[Node], members: &Members) -> Option<Refusal> {
    let ours = |node: &&Node| members.instance(&node.provider_id).is_some();
    let (node, value) = nodes.iter().filter(ours).find_map(|node| Some((node, node.labels.get(CLUSTER)?)))?;
    Some(AKS_LABEL.at(format!("{} of node {}", AKS_LABEL.field, node.name), value))
}
