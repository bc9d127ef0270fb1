//! What the tests of drains share: a node with real workloads on it, a hand that plays the kubelet, and the step, driven as the
//! engine drives it.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cloud::Accepted,
    cluster::kubernetes::KubernetesCluster,
    model::{Class, NodeName},
    permissions::{ClusterRight, DRAIN, FORCED_DRAIN, KUBERNETES},
    policy::drain::{DrainPolicy, Force},
    sim::{Scene, Shared, SimCloud},
    steps::{DrainInput, DrainNode, Drained},
    workflow::{Effect, Ports, Seen, StepError},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde_json::{Value, json};

use crate::support::{
    cluster::{TestCluster, shared},
    installed::{Installed, TestNode, create, until},
};

/// All that a drain may need.
pub(crate) fn rights() -> Vec<ClusterRight> {
    [KUBERNETES, DRAIN, FORCED_DRAIN].concat()
}

/// A node, a namespace for its tenants, and the adapter with the rights of its service account.
pub(crate) struct Stage {
    pub(crate) cluster: &'static TestCluster,
    pub(crate) admin: Client,
    pub(crate) port: KubernetesCluster,
    pub(crate) installed: Installed,
    pub(crate) namespace: String,
    pub(crate) node: NodeName,
}

/// How a drain ended.
pub(crate) struct Driven {
    pub(crate) end: Result<Drained, StepError>,
    pub(crate) said: Vec<String>,
    pub(crate) looks: Vec<String>,
}

impl Stage {
    pub(crate) async fn new() -> Option<Self> {
        let cluster = shared()?;
        let installed = cluster.service_account_kubeconfig(&rights()).await;
        let (port, admin) = (installed.connect().await, cluster.admin().await);
        let namespace = format!("tenants-of-{}", installed.at.namespace);
        let node = format!("drained-{}", installed.at.namespace);
        cluster.add_node(&TestNode::new(&node)).await;
        create::<Namespace>(&Api::all(admin.clone()), json!({ "metadata": { "name": namespace } })).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &namespace);
        until("the default service account", async || {
            accounts.get_opt("default").await.expect("the administrator may look").is_some()
        })
        .await;
        let node = NodeName::parse(&node).expect("a name");
        Some(Self { cluster, admin, port, installed, namespace, node })
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// The node is marked as not to be scheduled to.
    pub(crate) async fn cordon(&self) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
        nodes.patch(self.node.as_str(), &PatchParams::default(), &patch).await.expect("a cordon");
    }

    /// A pod of the test's own on the node, which runs and is Ready; `more` is merged into it.
    pub(crate) async fn pod(&self, name: &str, more: Value) {
        let mut pod = json!({ "metadata": { "name": name, "labels": { "what": name } },
            "spec": { "nodeName": self.node, "containers": [{ "name": "c", "image": "i" }] } });
        merge(&mut pod, more);
        create(&self.api::<Pod>(), pod).await;
        self.says(name, "Running").await;
    }

    /// What a kubelet would say of a pod.
    pub(crate) async fn says(&self, name: &str, phase: &str) {
        let ready = if phase == "Running" { "True" } else { "False" };
        let status = json!({ "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] } });
        let patch = Patch::Strategic(status);
        self.api::<Pod>().patch_status(name, &PatchParams::default(), &patch).await.expect("a status");
    }

    /// Waits for so many pods of a workload that are bound nowhere, binds them to a node as a scheduler does, and lets them run.
    pub(crate) async fn bind(&self, what: &str, count: usize, node: &str) {
        let pods: Api<Pod> = self.api();
        let mut found = Vec::new();
        until("pods to bind", async || {
            let list = pods.list(&ListParams::default().labels(&format!("what={what}"))).await.expect("pods");
            found = list.items;
            found.retain(|pod| {
                pod.metadata.deletion_timestamp.is_none()
                    && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
            });
            found.len() >= count
        })
        .await;
        for pod in found.into_iter().take(count) {
            let name = pod.metadata.name.expect("a name");
            let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
                "target": { "apiVersion": "v1", "kind": "Node", "name": node } });
            let made =
                pods.create_subresource::<Value, Value>("binding", &name, &PostParams::default(), &binding).await;
            made.expect("a binding");
            self.says(&name, "Running").await;
        }
    }

    /// The `what` labels of the pods that are on the node.
    pub(crate) async fn there(&self) -> BTreeSet<String> {
        let pods: Api<Pod> = Api::all(self.admin.clone());
        let on = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        let labels = pods.list(&on).await.expect("pods").items.into_iter().filter_map(|pod| pod.metadata.labels);
        labels.filter_map(|labels| labels.get("what").cloned()).collect()
    }

    /// Does something while pods of the node that were asked to go are confirmed to have gone, as its kubelet would.
    pub(crate) async fn with_kubelet<T>(&self, body: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            never = self.confirm() => match never {},
            done = body => done,
        }
    }

    async fn confirm(&self) -> Infallible {
        let all: Api<Pod> = Api::all(self.admin.clone());
        let on = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        loop {
            for pod in all.list(&on).await.map(|list| list.items).unwrap_or_default() {
                let held = pod.metadata.finalizers.as_ref().is_some_and(|held| !held.is_empty());
                if pod.metadata.deletion_timestamp.is_some() && !held {
                    let namespace = pod.metadata.namespace.expect("a namespace");
                    let pods: Api<Pod> = Api::namespaced(self.admin.clone(), &namespace);
                    let name = pod.metadata.name.expect("a name");
                    // Somebody may have been quicker.
                    let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn input(&self, policy: DrainPolicy) -> DrainInput {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let uid = nodes.get(self.node.as_str()).await.expect("the node").metadata.uid.expect("a uid");
        DrainInput { node: self.node.clone(), uid, cordoned: SystemClock.now(), policy }
    }

    pub(crate) async fn look(&self, input: &DrainInput) -> Result<Seen<Drained>, StepError> {
        self.with(async |ports| DrainNode.observe(ports, input).await).await
    }

    pub(crate) async fn act(&self, input: &DrainInput) -> Result<Accepted, StepError> {
        self.with(async |ports| DrainNode.act(ports, input).await).await
    }

    async fn with<T>(&self, body: impl AsyncFnOnce(Ports<'_>) -> T) -> T {
        // The step does not speak to Azure.
        let cloud = SimCloud::new(Shared::new(Scene::nominal().world()), Arc::default());
        body(Ports { cloud: &cloud, cluster: &self.port, clock: &SystemClock }).await
    }

    /// Drives the step to its end, in a minute at most; quicker than the engine does.
    pub(crate) async fn drain(&self, input: &DrainInput) -> Driven {
        self.with_kubelet(self.drive(input)).await
    }

    async fn drive(&self, input: &DrainInput) -> Driven {
        let (mut said, mut looks) = (Vec::new(), Vec::new());
        for _ in 0..240 {
            let failed = match self.look(input).await {
                Ok(Seen::Present(drained)) => return Driven { end: Ok(drained), said, looks },
                Ok(Seen::Underway(text)) => {
                    looks.push(text);
                    None
                }
                Ok(Seen::Partly(text)) => {
                    looks.push(text);
                    match self.act(input).await {
                        Ok(accepted) => {
                            said.extend(accepted.said);
                            None
                        }
                        Err(error) => Some(error),
                    }
                }
                Ok(seen) => panic!("the step says no such thing: {seen:?}"),
                Err(error) => Some(error),
            };
            if let Some(error) = failed
                && matches!(error.class, Class::Refused | Class::Gone | Class::Denied)
            {
                return Driven { end: Err(error), said, looks };
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("not at an end after a minute: {looks:#?} {said:#?}")
    }
}

/// A decision that holds for the test.
pub(crate) fn force() -> Force {
    let until = SystemClock.now() + Duration::from_hours(1);
    Force { by: "jane@example.com".into(), why: "a test".into(), until }
}

/// Objects grow together; everything else is replaced.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
