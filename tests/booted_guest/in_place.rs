//! A donor that is cleaned from inside (`capture: stop`): by our container on the donor itself, as the product makes it.

use std::{process::Command, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{
        Cluster, DonorCleaning, PodPhase,
        kubernetes::{Access, KubernetesCluster},
    },
    model::{Credential, NodeName},
    permissions::{BOOTSTRAP, KUBERNETES},
};
use kube::Api;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    guest::Disk,
    machine::Machine,
    pool::{Joined, Lab},
    support::{
        installed::{create, create_any, until},
        node::product::{REPOSITORY, script},
    },
};

/// Longer than anything of it takes, also on a busy machine.
const CLEANS: Duration = Duration::from_mins(3);

/// How a donor's cleaner ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It left this in the cluster.
    Proved(Value),
    /// Its pod failed, with this as its last words.
    Refused(Value),
}

/// Where donors' cleaners may leave their proofs: what the chart makes for `capture: stop`.
pub(crate) struct Place {
    namespace: String,
    port: KubernetesCluster,
}

impl Place {
    pub(crate) async fn make(lab: &Lab) -> Self {
        let installed = lab.cluster.service_account_kubeconfig(KUBERNETES).await;
        let namespace = installed.at.clean_namespace.clone();
        let client = lab.client().await;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        create(&accounts, json!({ "metadata": { "name": "kamino-wf-cleaner" } })).await;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        create(&maps, json!({ "metadata": { "name": "kamino-wf-proofs" } })).await;
        let metadata = json!({ "name": "kamino-wf-cleaner", "namespace": namespace });
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["kamino-wf-proofs"], "verbs": ["patch"] }],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "kamino-wf-cleaner" },
            "subjects": [{ "kind": "ServiceAccount", "name": "kamino-wf-cleaner", "namespace": namespace }],
        });
        for object in [role, binding] {
            create_any(&client, object).await;
        }
        // What it takes beyond that is tested where rights are: here the administrator asks.
        let access = Access::Kubeconfig { path: Some(lab.cluster.kubeconfig()), context: None };
        let port = KubernetesCluster::connect(&access).await.expect("the administrator's kubeconfig");
        Self { namespace, port }
    }

    /// Who asks for a donor's next credential, and that it gets one: what the chart makes with `capture.rebootstrap`.
    pub(crate) async fn gives_credentials(&self, lab: &Lab) {
        let client = lab.client().await;
        let namespace = &self.namespace;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        create(&accounts, json!({ "metadata": { "name": BOOTSTRAP } })).await;
        let (rbac, group) = ("rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io");
        let roles = ["system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"];
        for (number, role) in roles.iter().enumerate() {
            let binding = json!({
                "apiVersion": rbac, "kind": "ClusterRoleBinding",
                "metadata": { "name": format!("{namespace}-bootstrap-{number}") },
                "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
                "subjects": [{ "kind": "ServiceAccount", "name": BOOTSTRAP, "namespace": namespace }],
            });
            create_any(&client, binding).await;
        }
        let metadata = json!({ "name": "kamino-wf-cleaner-asks", "namespace": namespace });
        let role = json!({
            "apiVersion": rbac, "kind": "Role", "metadata": metadata,
            "rules": [{ "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [BOOTSTRAP],
                "verbs": ["create"] }],
        });
        let binding = json!({
            "apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": group, "kind": "Role", "name": "kamino-wf-cleaner-asks" },
            "subjects": [{ "kind": "ServiceAccount", "name": "kamino-wf-cleaner", "namespace": namespace }],
        });
        for object in [role, binding] {
            create_any(&client, object).await;
        }
    }

    /// What keeps the token for a donor's next credential alive.
    pub(crate) async fn lets_live(&self, want: &DonorCleaning) {
        self.port.create_anchor(&want.anchor()).await.expect("a secret");
    }

    /// Its end.
    pub(crate) async fn lets_die(&self, want: &DonorCleaning) {
        self.port.delete_anchor(&want.anchor()).await.expect("deleted");
    }

    /// What the step of the workflow asks for, of this donor in this boot.
    pub(crate) fn request(&self, lab: &Lab, donor: &Joined) -> DonorCleaning {
        let run = SystemClock.new_run();
        DonorCleaning {
            name: format!("kwf-pool1-{run}"),
            namespace: self.namespace.clone(),
            run,
            node: NodeName::parse(donor.machine.identity.name).expect("a name"),
            node_uid: donor.uid.clone(),
            boot_id: donor.info.boot_id.clone(),
            product_uuid: donor.info.system_uuid.clone(),
            image: format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION")),
            profile: lab.profile.clone(),
            credential: Credential::Keep,
            nonce: "8f14e45f".into(),
        }
    }

    pub(crate) async fn start(&self, want: &DonorCleaning) {
        self.port.create_donor_pod(want).await.expect("a pod");
    }

    /// Waits until the cleaner has left its proof, or its pod has failed without.
    pub(crate) async fn ended(&self, want: &DonorCleaning, machine: &Machine) -> Ended {
        let began = Instant::now();
        loop {
            if let Some(text) = self.port.proof(&self.namespace, want.run).await.expect("a look") {
                return Ended::Proved(serde_json::from_str(&text).expect("JSON"));
            }
            let pod = self.port.cleaning(&self.namespace, &want.name).await.expect("a look").pod.expect("the pod");
            if let PodPhase::Failed(why) = &pod.phase {
                let report = pod.report.as_deref().and_then(|text| serde_json::from_str(text).ok());
                return Ended::Refused(report.unwrap_or_else(|| json!({ "no report": why, "said": pod.report })));
            }
            assert!(began.elapsed() < CLEANS, "no proof: {pod:?}; {}", machine.diagnosis());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// As a run does before it starts the machine again.
    pub(crate) async fn take_pod_away(&self, want: &DonorCleaning) {
        let pod = self.port.cleaning(&self.namespace, &want.name).await.expect("a look").pod.expect("the pod");
        self.port.delete_pod(&self.namespace, &want.name, &pod.owned.uid).await.expect("deleted");
    }
}

/// Loads the product's image, as a node that pulled it would have it.
pub(crate) fn import_product(machine: &Machine) {
    machine.import(&script("scripts/image"));
}

/// Switches a machine off by its cable, and waits until nobody has its disk any more.
pub(crate) async fn pull_the_cord(lab: &Lab, machine: Machine) -> Disk {
    let (disk, address) =
        (Disk { image: machine.disk.image.clone(), form: machine.disk.form }, machine.identity.address);
    let folder = disk.image.with_extension("machine");
    drop(machine);
    until("the disk to be free", async || {
        let loops = Command::new("losetup").arg("-j").arg(&disk.image).output().expect("losetup runs");
        loops.stdout.is_empty()
    })
    .await;
    let cable = format!("cable-{}", address.rsplit('.').next().expect("four numbers"));
    // What still holds its network would keep the cable for a while; the machine may be switched on again before.
    let _ = lab.cluster.inside("ip").args(["link", "delete", &cable]).output().expect("ip runs");
    std::fs::remove_dir(folder).expect("nothing is mounted there any more");
    disk
}
