//! What a scheduler and a disk driver look at: whether a pod's claims are bound, and to what, and whether a node will do.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PodSpec};
use kube::{Api, Client};

/// The node and the namespace that one stand-in serves.
pub struct Placement {
    pub client: Client,
    pub namespace: String,
    pub node: String,
}

impl Placement {
    /// Why the pod can't be bound to the node.
    pub async fn obstacle(&self, spec: &PodSpec) -> Option<String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Ok(Some(node)) = nodes.get_opt(&self.node).await else { return Some("no such node".to_owned()) };
        let labels = node.metadata.labels.unwrap_or_default();
        if node.spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
            return Some("1 node(s) were unschedulable".to_owned());
        }
        if spec.node_selector.iter().flatten().any(|(name, value)| labels.get(name) != Some(value)) {
            return Some("1 node(s) didn't match Pod's node affinity/selector".to_owned());
        }
        for claim in claims(spec) {
            match self.volume_of(claim).await {
                Ok(volume) if !allows(&volume, &labels) => {
                    return Some("1 node(s) didn't match PersistentVolume's node affinity".to_owned());
                }
                Ok(_) => {}
                Err(why) => return Some(why),
            }
        }
        None
    }

    /// The volume behind a claim that is bound, by both accounts.
    pub async fn volume_of(&self, claim: &str) -> Result<PersistentVolume, String> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace);
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let Ok(Some(found)) = claims.get_opt(claim).await else {
            return Err(format!("persistentvolumeclaim \"{claim}\" not found"));
        };
        let bound = found.status.is_some_and(|status| status.phase.as_deref() == Some("Bound"));
        let name = found.spec.and_then(|spec| spec.volume_name).filter(|_| bound);
        let unbound = || "pod has unbound immediate PersistentVolumeClaims".to_owned();
        let volume = volumes.get_opt(&name.ok_or_else(unbound)?).await.ok().flatten().ok_or_else(unbound)?;
        let claimed_by = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|it| it.uid.as_ref());
        if claimed_by == found.metadata.uid.as_ref() { Ok(volume) } else { Err(unbound()) }
    }
}

fn claims(spec: &PodSpec) -> impl Iterator<Item = &str> {
    spec.volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|claim| &*claim.claim_name)
}

/// Node affinity with the operator `In`; anything else is not allowed anywhere.
fn allows(volume: &PersistentVolume, labels: &BTreeMap<String, String>) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return true };
    required.node_selector_terms.iter().any(|term| {
        term.match_expressions.iter().flatten().all(|wanted| {
            wanted.operator == "In"
                && labels.get(&wanted.key).is_some_and(|value| wanted.values.iter().flatten().any(|it| it == value))
        })
    })
}
