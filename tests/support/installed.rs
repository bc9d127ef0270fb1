//! The product as it is installed: namespaces, a service account with the rendered roles and nothing more; and nodes for it
//! to look at.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::atomic::Ordering, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    authorization::v1::SubjectAccessReview,
    coordination::v1::Lease,
    core::v1::{Namespace, Node, ServiceAccount},
};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::kubernetes::{Access, KubernetesCluster},
    permissions::{ClusterRight, ClusterScope, Installation, kubernetes_roles},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::{TestCluster, kubeconfig};

/// One installation, in namespaces of its own: tests that share a cluster do not meet.
pub struct Installed {
    pub at: Installation,
    /// Of its service account: what the product gets.
    pub kubeconfig: PathBuf,
    /// As the audit log calls it.
    pub user: String,
}

impl Installed {
    /// The product's adapter, with the product's rights.
    pub async fn connect(&self) -> KubernetesCluster {
        let access = Access::Kubeconfig { path: Some(self.kubeconfig.clone()), context: None };
        KubernetesCluster::connect(&access).await.expect("a client for the service account")
    }
}

/// A node as it is to be: everything that the projection looks at.
#[derive(Debug, Clone)]
pub struct TestNode {
    pub name: String,
    pub provider_id: String,
    pub boot_id: String,
    pub ready: &'static str,
    pub ready_since: Timestamp,
    /// Further conditions, type and status.
    pub conditions: Vec<(&'static str, &'static str)>,
    /// None: no lease. Renewed further only where a stand-in kubelet serves the node.
    pub lease_renewed: Option<Timestamp>,
    /// Beside `kubernetes.io/os` and `kubernetes.io/hostname`.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub unschedulable: bool,
    /// Key and effect; controllers add theirs.
    pub taints: Vec<(&'static str, &'static str)>,
}

impl TestNode {
    /// A healthy linux node in zone 1 of West Europe.
    pub fn new(name: &str) -> Self {
        let zone = "westeurope-1".to_owned();
        let labels = ["topology.kubernetes.io/zone", "topology.disk.csi.azure.com/zone"];
        let since: Timestamp = "2026-11-01T10:00:00Z".parse().expect("a time");
        Self {
            name: name.to_owned(),
            provider_id: format!(
                "azure:///subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/nodes/providers/\
                 Microsoft.Compute/virtualMachineScaleSets/pool1/virtualMachines/{name}"
            ),
            boot_id: format!("boot-of-{name}"),
            ready: "True",
            ready_since: since,
            conditions: Vec::new(),
            lease_renewed: Some(SystemClock.now()),
            labels: labels.map(|label| (label.to_owned(), zone.clone())).into(),
            annotations: BTreeMap::new(),
            unschedulable: false,
            taints: Vec::new(),
        }
    }
}

impl TestCluster {
    /// Makes namespaces and a service account, gives it the roles made from `rights`, waits until they are in force, and
    /// asks for its token as a kubelet does.
    pub async fn service_account_kubeconfig(&self, rights: &[ClusterRight]) -> Installed {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let at = Installation {
            namespace: format!("kamino-wf-{number}"),
            clean_namespace: format!("kamino-wf-clean-{number:02}"),
            service_account: "kamino-wf".to_owned(),
        };
        let admin = self.admin().await;
        let privileged = json!({ "pod-security.kubernetes.io/enforce": "privileged" });
        let restricted = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
        for (name, labels) in [(&at.namespace, restricted), (&at.clean_namespace, privileged)] {
            create::<Namespace>(&Api::all(admin.clone()), json!({ "metadata": { "name": name, "labels": labels } }))
                .await;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &at.namespace);
        create(&accounts, json!({ "metadata": { "name": at.service_account } })).await;
        for role in kubernetes_roles(rights, &at) {
            create_any(&admin, role).await;
        }
        let user = format!("system:serviceaccount:{}:{}", at.namespace, at.service_account);
        for right in rights {
            until_in_force(&admin, &user, right, &at).await;
        }
        // Pods are refused until the controller manager has made the namespace's own account.
        until("the default service account", async || {
            let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &at.clean_namespace);
            accounts.get_opt("default").await.expect("the administrator may look").is_some()
        })
        .await;
        self.as_service_account(at).await
    }

    /// The installation that is there, by the token of its service account, asked for as a kubelet does.
    pub async fn as_service_account(&self, at: Installation) -> Installed {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin().await, &at.namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let wanted = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(&at.service_account, &PostParams::default(), &wanted).await;
        let token = answer.expect("a token").status.expect("a token").token;
        let user = format!("system:serviceaccount:{}:{}", at.namespace, at.service_account);
        let path = self.folder.join(format!("{}.kubeconfig", at.namespace));
        fs::write(&path, kubeconfig(&self.folder, &self.server, &token)).expect("the folder can be written");
        Installed { at, kubeconfig: path, user }
    }

    /// Whoever has this token; without one the administrator.
    pub async fn holder_of(&self, token: Option<&str>) -> KubernetesCluster {
        let path = match token {
            None => self.folder.join("admin.kubeconfig"),
            Some(token) => {
                let number = self.counter.fetch_add(1, Ordering::Relaxed);
                let path = self.folder.join(format!("holder-{number}.kubeconfig"));
                fs::write(&path, kubeconfig(&self.folder, &self.server, token)).expect("the folder can be written");
                path
            }
        };
        let access = Access::Kubeconfig { path: Some(path), context: None };
        KubernetesCluster::connect(&access).await.expect("a kubeconfig")
    }

    /// Makes a node's object and lease, as its kubelet would.
    pub async fn add_node(&self, node: &TestNode) {
        let admin = self.admin().await;
        let mut labels = node.labels.clone();
        labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        labels.insert("kubernetes.io/hostname".to_owned(), node.name.clone());
        let mut conditions = vec![json!({ "type": "Ready", "status": node.ready, "reason": "Test",
            "lastTransitionTime": node.ready_since, "lastHeartbeatTime": node.ready_since })];
        conditions.extend(node.conditions.iter().map(|(kind, status)| json!({ "type": kind, "status": status })));
        let taints =
            node.taints.iter().map(|(key, effect)| json!({ "key": key, "effect": effect })).collect::<Vec<_>>();
        let object = json!({
            "metadata": { "name": node.name, "labels": labels, "annotations": node.annotations },
            "spec": { "providerID": node.provider_id, "unschedulable": node.unschedulable, "taints": taints },
            "status": { "conditions": conditions, "nodeInfo": {
                "architecture": "amd64", "bootID": node.boot_id, "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.8.0-1031-azure", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3",
                "machineID": "m", "operatingSystem": "linux", "osImage": "Ubuntu 24.04.3 LTS",
                "systemUUID": format!("uuid-of-{}", node.name) } },
        });
        create::<Node>(&Api::all(admin.clone()), object).await;
        if let Some(renewed) = node.lease_renewed {
            let leases: Api<Lease> = Api::namespaced(admin, "kube-node-lease");
            let renewed = renewed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            create(
                &leases,
                json!({ "metadata": { "name": node.name }, "spec": {
                "holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": renewed } }),
            )
            .await;
        }
    }
}

/// Makes an object, as whoever `api` is a client of.
pub async fn create<K>(api: &Api<K>, object: Value)
where
    K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let object = serde_json::from_value(object).expect("a good object");
    api.create(&PostParams::default(), &object).await.expect("the object can be made");
}

/// Makes an object of any kind, as the administrator.
pub async fn create_any(admin: &Client, object: Value) {
    let kind = object["kind"].as_str().expect("a kind").to_owned();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", &kind));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(admin.clone(), namespace, &resource),
        None => Api::all_with(admin.clone(), &resource),
    };
    create(&api, object).await;
}

/// The API server learns of roles by a watch, so a moment later.
async fn until_in_force(admin: &Client, user: &str, right: &ClusterRight, at: &Installation) {
    let namespace = match right.scope {
        ClusterScope::Cluster => "",
        ClusterScope::NodeLeases => "kube-node-lease",
        ClusterScope::Cleaning => &at.clean_namespace,
        ClusterScope::Own => &at.namespace,
        ClusterScope::Default => "default",
    };
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let question: SubjectAccessReview = serde_json::from_value(json!({ "metadata": {}, "spec": {
        "user": user,
        "resourceAttributes": { "group": right.group, "resource": resource, "subresource": subresource, "verb": right.verb,
            "namespace": namespace, "name": right.names.first() } } }))
    .expect("a question");
    let reviews: Api<SubjectAccessReview> = Api::all(admin.clone());
    until("the roles", async || {
        let answer = reviews.create(&PostParams::default(), &question).await.expect("the administrator may ask");
        answer.status.is_some_and(|status| status.allowed)
    })
    .await;
}

/// Waits until something is so, for half a minute at most.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(waited.is_ok(), "waited 30 s in vain for {what}");
}
