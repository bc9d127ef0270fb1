//! [`Cluster`]'s methods, one request each (reads of several objects: one request per object or list).

use async_trait::async_trait;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        coordination::v1::Lease as KubeLease,
        core::v1::{ConfigMap, Event, Namespace, Node as KubeNode, PersistentVolume, PersistentVolumeClaim, Pod},
    },
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{KubernetesCluster, donor, lease, node, objects, view};
use crate::{
    cluster::{
        self, Anchor, Budget, CleaningPod, CleaningSpec, CleaningView, Cluster, ClusterError, DonorCleaning, Eviction,
        Lease, LeaseClaim, Node, NodeChange, NodeNote, PodPhase, PodRef, Remains, Rival,
    },
    model::{NodeName, RunId},
    permissions::{EVENTS, PROOFS},
};

/// Where kubelets keep their leases, one per node and by its name.
const LEASES: &str = "kube-node-lease";

/// Of one pod. The API server drops them after an hour, and repeated ones are counted, not added.
const WARNINGS_MAX: u32 = 100;

/// Of each kind, in one answer. What is beyond it waits for these to go.
const REMAINS_MAX: u32 = 500;

#[async_trait]
impl Cluster for KubernetesCluster {
    async fn cluster_id(&self) -> Result<String, ClusterError> {
        let what = "get namespace kube-system";
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = self.call(what, namespaces.get("kube-system")).await?;
        namespace.metadata.uid.ok_or_else(|| senseless(what, "it has no uid"))
    }

    async fn nodes(&self) -> Result<Vec<Node>, ClusterError> {
        let leases: Api<KubeLease> = self.namespaced(LEASES);
        let everything = ListParams::default();
        let (nodes, seen) = self.dated_list::<KubeNode>("list nodes").await?;
        let leases = self.call(format!("list leases {LEASES}"), leases.list(&everything)).await?;
        let renewals = node::renewals(leases.items);
        let lease_of = |node: &KubeNode| node.metadata.name.as_ref().and_then(|name| renewals.get(name)).copied();
        let project = |item: KubeNode| {
            let renewed = lease_of(&item);
            node::project(item, renewed, seen).map_err(|error| senseless("list nodes", error))
        };
        nodes.into_iter().map(project).collect()
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        let what = format!("get node {name}");
        let nodes: Api<KubeNode> = Api::all(self.client.clone());
        let Some(found) = self.call(&what, nodes.get_opt(name.as_str())).await? else {
            return Ok(None);
        };
        let leases: Api<KubeLease> = self.namespaced(LEASES);
        let renewed = self.call(format!("get lease {LEASES}/{name}"), leases.get_opt(name.as_str())).await?;
        node::project(found, renewed.and_then(node::renewed), None).map(Some).map_err(|error| senseless(&what, error))
    }

    async fn cleaning(&self, namespace: &str, name: &str) -> Result<CleaningView, ClusterError> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let claims: Api<PersistentVolumeClaim> = self.namespaced(namespace);
        let pods: Api<Pod> = self.namespaced(namespace);
        let (volume, claim, pod) = tokio::try_join!(
            self.call(format!("get volume {name}"), volumes.get_opt(name)),
            self.call(format!("get claim {namespace}/{name}"), claims.get_opt(name)),
            self.call(format!("get pod {namespace}/{name}"), pods.get_opt(name)),
        )?;
        let mut pod = pod.map(view::pod);
        if let Some(CleaningPod { owned, phase: PodPhase::Pending(why), node: Some(_), .. }) = &mut pod {
            // What keeps a disk from its node, such as a right that the disk's driver lacks, is said in events only.
            let events: Api<Event> = self.namespaced(namespace);
            let warnings = format!("involvedObject.uid={},type=Warning", owned.uid);
            let warnings = ListParams::default().fields(&warnings).limit(WARNINGS_MAX);
            let what = format!("list events of pod {namespace}/{name}");
            let warnings = self.call(what, events.list(&warnings)).await?;
            if let Some(warning) = view::newest(&warnings.items) {
                *why = warning;
            }
        }
        Ok(CleaningView {
            volume: volume.map(|volume| view::owned(&volume.metadata)),
            claim: claim.map(|claim| view::owned(&claim.metadata)),
            pod,
        })
    }

    async fn rivals(&self) -> Result<Vec<Rival>, ClusterError> {
        self.list_rivals().await
    }

    async fn leftovers(&self, namespace: &str) -> Result<Remains, ClusterError> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let claims: Api<PersistentVolumeClaim> = self.namespaced(namespace);
        let pods: Api<Pod> = self.namespaced(namespace);
        let ours = ListParams::default().labels(objects::RUN_LABEL).limit(REMAINS_MAX);
        let (volumes, claims, pods) = tokio::try_join!(
            self.call("list volumes", volumes.list(&ours)),
            self.call(format!("list claims {namespace}"), claims.list(&ours)),
            self.call(format!("list pods {namespace}"), pods.list(&ours)),
        )?;
        let running = |pod: &Pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
        let for_us = |volume: &&PersistentVolume| {
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            claim.and_then(|claim| claim.namespace.as_deref()) == Some(namespace)
        };
        Ok(Remains {
            pods: pods.items.iter().filter_map(|pod| view::leftover(&pod.metadata, running(pod))).collect(),
            claims: claims.items.iter().filter_map(|claim| view::leftover(&claim.metadata, false)).collect(),
            volumes: volumes
                .items
                .iter()
                .filter(for_us)
                .filter_map(|volume| view::leftover(&volume.metadata, false))
                .collect(),
            proofs: self.proofs(namespace).await?,
        })
    }

    async fn create_volume(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = objects::volume(want);
        self.call(format!("create volume {}", want.name), volumes.create(&PostParams::default(), &volume)).await?;
        Ok(())
    }

    async fn create_claim(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        let claims: Api<PersistentVolumeClaim> = self.namespaced(&want.namespace);
        let claim = objects::claim(want);
        let what = format!("create claim {}/{}", want.namespace, want.name);
        self.call(what, claims.create(&PostParams::default(), &claim)).await?;
        Ok(())
    }

    async fn create_pod(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        let pods: Api<Pod> = self.namespaced(&want.namespace);
        let pod = objects::pod(want);
        let what = format!("create pod {}/{}", want.namespace, want.name);
        self.call(what, pods.create(&PostParams::default(), &pod)).await?;
        Ok(())
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError> {
        // A node that is lost would never confirm the end of a pod with grace, and its disk would stay attached.
        let at_once = only(uid).grace_period(0);
        self.delete(format!("delete pod {namespace}/{name}"), self.namespaced::<Pod>(namespace), name, &at_once).await
    }

    async fn delete_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError> {
        let claims: Api<PersistentVolumeClaim> = self.namespaced(namespace);
        self.delete(format!("delete claim {namespace}/{name}"), claims, name, &only(uid)).await
    }

    async fn delete_volume(&self, name: &str, uid: &str) -> Result<(), ClusterError> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        self.delete(format!("delete volume {name}"), volumes, name, &only(uid)).await
    }

    async fn change_node(&self, want: &NodeChange) -> Result<(), ClusterError> {
        let nodes: Api<KubeNode> = Api::all(self.client.clone());
        let body = Patch::Merge(donor::node_patch(want));
        let what = format!("patch node {}", want.name);
        self.call(what, nodes.patch(want.name.as_str(), &PatchParams::default(), &body)).await?;
        Ok(())
    }

    async fn tell(&self, note: &NodeNote) -> Result<(), ClusterError> {
        let event = donor::event(note);
        let what = format!("create event {} of node {}", note.reason, note.node);
        // Of what is in no namespace the API server takes events in this one.
        let events: Api<Event> = self.namespaced(EVENTS);
        match self.call(what, events.create(&PostParams::default(), &event)).await {
            Ok(_) | Err(ClusterError::Exists { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    async fn create_donor_pod(&self, want: &DonorCleaning) -> Result<(), ClusterError> {
        let pods: Api<Pod> = self.namespaced(&want.namespace);
        let what = format!("create pod {}/{}", want.namespace, want.name);
        self.call(what, pods.create(&PostParams::default(), &donor::pod(want))).await?;
        Ok(())
    }

    async fn has_anchor(&self, anchor: &Anchor) -> Result<bool, ClusterError> {
        self.anchor_exists(anchor).await
    }

    async fn create_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError> {
        self.post_anchor(anchor, &PostParams::default()).await
    }

    async fn delete_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError> {
        self.drop_anchor(anchor).await
    }

    async fn proof(&self, namespace: &str, run: RunId) -> Result<Option<String>, ClusterError> {
        let maps: Api<ConfigMap> = self.namespaced(namespace);
        let what = format!("get config map {namespace}/{PROOFS}");
        let found = self.call(what, maps.get_opt(PROOFS)).await?;
        Ok(found.and_then(|map| map.data).and_then(|mut data| data.remove(&run.short())))
    }

    async fn forget_proof(&self, namespace: &str, run: RunId) -> Result<(), ClusterError> {
        let maps: Api<ConfigMap> = self.namespaced(namespace);
        let without = Patch::Merge(json!({ "data": { run.short(): null } }));
        let what = format!("patch config map {namespace}/{PROOFS}");
        match self.call(what, maps.patch(PROOFS, &PatchParams::default(), &without)).await {
            Ok(_) | Err(ClusterError::Gone { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    async fn lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, ClusterError> {
        let leases: Api<KubeLease> = self.namespaced(namespace);
        let found = self.call(format!("get lease {namespace}/{name}"), leases.get_opt(name)).await?;
        Ok(found.map(lease::view))
    }

    async fn write_lease(
        &self,
        namespace: &str,
        name: &str,
        want: &LeaseClaim,
        over: Option<&str>,
    ) -> Result<Lease, ClusterError> {
        let leases: Api<KubeLease> = self.namespaced(namespace);
        let wanted = lease::object(name, want, over);
        let how = PostParams::default();
        let written = if over.is_some() {
            self.call(format!("update lease {namespace}/{name}"), leases.replace(name, &how, &wanted)).await?
        } else {
            self.call(format!("create lease {namespace}/{name}"), leases.create(&how, &wanted)).await?
        };
        Ok(lease::view(written))
    }

    async fn pods_on(&self, node: &NodeName) -> Result<Vec<cluster::Pod>, ClusterError> {
        self.list_pods_on(node).await
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<cluster::Pod>, ClusterError> {
        self.get_pod(namespace, name).await
    }

    async fn daemon_set_exists(&self, namespace: &str, name: &str) -> Result<bool, ClusterError> {
        self.has_daemon_set(namespace, name).await
    }

    async fn budgets(&self, namespace: &str) -> Result<Vec<Budget>, ClusterError> {
        self.list_budgets(namespace).await
    }

    async fn evict(&self, pod: &PodRef) -> Result<Eviction, ClusterError> {
        self.ask_to_go(pod).await
    }

    async fn delete_gently(&self, pod: &PodRef) -> Result<(), ClusterError> {
        let how = only(&pod.uid);
        match self.delete(format!("delete pod {pod}"), self.namespaced::<Pod>(&pod.namespace), &pod.name, &how).await {
            // The name was used again.
            Err(ClusterError::Preempted { message, .. }) if message.contains("UID in") => Ok(()),
            other => other,
        }
    }
}

impl KubernetesCluster {
    pub(super) fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Accepted is not gone: finalizers hold a claim while a pod uses it and a volume while a claim does. Gone already is
    /// what was asked for.
    async fn delete<K>(&self, what: String, api: Api<K>, name: &str, how: &DeleteParams) -> Result<(), ClusterError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        match self.call(what, api.delete(name, how)).await {
            Ok(_) | Err(ClusterError::Gone { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

/// Deletes what has this uid, and nothing else by the same name.
fn only(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}

/// An answer that the API server's own checks should have ruled out.
fn senseless(what: &str, detail: impl std::fmt::Display) -> ClusterError {
    ClusterError::Refused { what: what.to_owned(), message: detail.to_string() }
}
