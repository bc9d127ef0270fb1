//! What the admission policies let through, and what they refuse: each clause of each policy, on a real API server.
//!
//! The good objects are the ones that the product makes, with the product's own token. Each bad one is a good one with one thing
//! changed, so that what refuses it is that clause and no other.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, ResourceQuota, ServiceAccount};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{CleaningSpec, Cluster, kubernetes::KubernetesCluster},
    model::{DiskId, Profile, Region},
    permissions::Installation,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    Helm,
    cases::{CASES, CLAIM, POD, VOLUME},
    install::{Release, api_of},
    support::{
        cluster::{TestCluster, shared},
        installed::{Installed, TestNode, create, until},
    },
    tools,
};

/// The chart as it is installed, and who meets its policies.
struct Scene {
    admin: Client,
    /// The controller, with its token, and more rights than the chart gives: what refuses it is a policy.
    controller: Client,
    port: KubernetesCluster,
    at: Installation,
}

pub(crate) async fn client(installed: &Installed) -> Client {
    let kubeconfig = Kubeconfig::read_from(&installed.kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

/// All tests here share one installation, as policies for volumes and nodes are the cluster's. Clients belong to a test's runtime.
async fn scene() -> Option<Scene> {
    static INSTALLED: OnceCell<Installed> = OnceCell::const_new();
    let (Some(_), Some(cluster)) = (tools(), shared()) else { return None };
    let installed = INSTALLED
        .get_or_init(async || {
            let release = Release::new(cluster, Helm::Four).await;
            release.apply("install", &[]);
            let at = Installation {
                namespace: release.namespace.clone(),
                clean_namespace: release.clean_namespace.clone(),
                service_account: "kamino-wf".to_owned(),
            };
            for name in ["foreign", "ours"] {
                cluster.add_node(&TestNode::new(name)).await;
            }
            let installed = cluster.as_service_account(at).await;
            let scene = Scene::of(cluster, &installed).await;
            scene.give_more_rights().await;
            scene.wait().await;
            installed
        })
        .await;
    Some(Scene::of(cluster, installed).await)
}

impl Scene {
    async fn of(cluster: &TestCluster, installed: &Installed) -> Self {
        Self {
            admin: cluster.admin().await,
            controller: client(installed).await,
            port: installed.connect().await,
            at: installed.at.clone(),
        }
    }

    /// Everything that a policy is to refuse, RBAC must allow.
    async fn give_more_rights(&self) {
        let all = json!(["create", "update", "patch", "delete"]);
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": "more" }, "rules": [
                { "apiGroups": [""], "resources": ["nodes", "nodes/status", "persistentvolumes"], "verbs": all }] });
        let subject =
            json!({ "kind": "ServiceAccount", "name": self.at.service_account, "namespace": self.at.namespace });
        let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "more" }, "subjects": [subject],
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "more" } });
        for object in [role, binding] {
            create(&api_of(&self.admin, &object, None), object.clone()).await;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), &self.at.clean_namespace);
        create(&accounts, json!({ "metadata": { "name": "other" } })).await;
    }

    /// Until roles, quota and policies are in force: the API server learns of them by watches.
    async fn wait(&self) {
        until("the default service account", async || {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), &self.at.clean_namespace);
            accounts.get_opt("default").await.expect("the administrator may look").is_some()
        })
        .await;
        until("the quota", async || {
            let quotas: Api<ResourceQuota> = Api::namespaced(self.admin.clone(), &self.at.clean_namespace);
            let quota = quotas.get("kamino-wf").await.expect("the chart's quota");
            quota.status.and_then(|status| status.hard).is_some_and(|hard| !hard.is_empty())
        })
        .await;
        let [volume, claim, pod] = self.examples();
        let patch = json!({ "metadata": { "annotations": { "x": "y" } } });
        until("the policies", async || {
            let mut foreign = volume.clone();
            foreign["spec"]["volumeMode"] = "Filesystem".into();
            let nodes: Api<Node> = Api::all(self.controller.clone());
            let dry = PatchParams { dry_run: true, ..PatchParams::default() };
            refused(&attempt(&self.admin, &pod).await)
                && refused(&attempt(&self.admin, &claim).await)
                && refused(&attempt(&self.controller, &foreign).await)
                && refused(&nodes.patch("ours", &dry, &Patch::Merge(&patch)).await.map(drop))
        })
        .await;
    }

    fn spec(&self) -> CleaningSpec {
        let run = SystemClock.new_run();
        let name = format!("kwf-pool1-{run}");
        CleaningSpec {
            namespace: self.at.clean_namespace.clone(),
            run,
            disk: DiskId::new("00000000-1111-2222-3333-444444444444", "Nodes", &[&name]).expect("an id"),
            name,
            region: Region("West Europe".into()),
            zone: Some("1".into()),
            size_gib: 1,
            image: "registry.example/kamino-wf:0.1.0".into(),
            at: None,
            profile: Profile::Kubeadm,
            nonce: "8f14e45f".into(),
        }
    }

    /// Some volume, claim and pod, good enough to be refused for who makes them.
    fn examples(&self) -> [Value; 3] {
        let namespace = &self.at.clean_namespace;
        let volume = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "kwf-example" },
            "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "volumeMode": "Block",
                "csi": { "driver": "disk.csi.azure.com", "volumeHandle": "x" } } });
        let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "kwf-example", "namespace": namespace },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "kwf-example", "namespace": namespace },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        [volume, claim, pod]
    }

    /// What the product makes of a run, as the server has it.
    async fn made_by_the_product(&self) -> [Value; 3] {
        let want = self.spec();
        self.port.create_volume(&want).await.expect("the volume is let through");
        self.port.create_claim(&want).await.expect("the claim is let through");
        self.port.create_pod(&want).await.expect("the pod is let through");
        let mut found = Vec::new();
        for kind in ["PersistentVolume", "PersistentVolumeClaim", "Pod"] {
            let namespace = (kind != "PersistentVolume").then_some(want.namespace.as_str());
            let api = api_of(&self.admin, &json!({ "apiVersion": "v1", "kind": kind }), namespace);
            let there = api.get(&want.name).await.expect("it is there");
            let mut object = serde_json::to_value(there).expect("an object");
            let kept = ["name", "namespace", "labels"].map(|key| (key.to_owned(), object["metadata"][key].clone()));
            object["metadata"] = kept.into_iter().filter(|(_, value)| !value.is_null()).collect();
            object.as_object_mut().expect("an object").remove("status");
            // As it is before the binder has seen it.
            if let Some(reference) = object.pointer_mut("/spec/claimRef").and_then(Value::as_object_mut) {
                reference.retain(|key, _| ["apiVersion", "kind", "name", "namespace"].contains(&key.as_str()));
            }
            found.push(object);
        }
        // For these names again, with one thing changed. The claim goes with its pod.
        let pods = api_of(&self.admin, &json!({ "apiVersion": "v1", "kind": "Pod" }), Some(&want.namespace));
        pods.delete(&want.name, &DeleteParams::default().grace_period(0)).await.expect("the pod goes");
        let claims =
            api_of(&self.admin, &json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim" }), Some(&want.namespace));
        claims.delete(&want.name, &DeleteParams::default()).await.expect("the claim goes");
        until("pod and claim to go", async || {
            let gone = pods.get_opt(&want.name).await.is_ok_and(|it| it.is_none());
            gone && claims.get_opt(&want.name).await.is_ok_and(|it| it.is_none())
        })
        .await;
        let volumes: Api<PersistentVolume> = Api::all(self.admin.clone());
        let uid = volumes.get(&want.name).await.expect("the volume").metadata.uid.expect("a uid");
        self.port.delete_volume(&want.name, &uid).await.expect("a volume of ours may be deleted by us");
        until("the volume to go", async || volumes.get_opt(&want.name).await.is_ok_and(|it| it.is_none())).await;
        found.try_into().expect("three objects")
    }
}

/// Makes an object without keeping it.
pub(crate) async fn attempt(who: &Client, object: &Value) -> Result<(), kube::Error> {
    let api = api_of(who, object, object["metadata"]["namespace"].as_str());
    let object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
    api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await.map(drop)
}

/// By one of our policies.
pub(crate) fn refused(answer: &Result<(), kube::Error>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy"))
}

/// What a policy says to it.
pub(crate) fn refusal(answer: Result<(), kube::Error>, what: &str) -> String {
    match answer {
        Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => {
            status.message.split_once("denied request: ").expect("a reason").1.to_owned()
        }
        other => panic!("{what}: not refused by a policy: {other:?}"),
    }
}

/// All clauses of these policies, as the chart renders them.
pub(crate) fn clauses(golden: &str, names: &[&str]) -> BTreeSet<String> {
    let path = crate::root().join(format!("tests/golden/chart/{golden}.yaml"));
    let text = std::fs::read_to_string(path).expect("what is rendered");
    let of = |it: &Value| names.iter().any(|name| it["metadata"]["name"] == format!("kamino-wf.kamino-wf.{name}"));
    let policies = crate::objects(&text).into_iter().filter(|it| it["kind"] == "ValidatingAdmissionPolicy" && of(it));
    let messages = |it: Value| {
        let all = it["spec"]["validations"].as_array().expect("clauses").clone();
        all.into_iter().map(|clause| clause["message"].as_str().expect("a message").to_owned())
    };
    policies.flat_map(messages).collect()
}

#[tokio::test]
async fn each_clause_refuses_and_what_the_product_makes_is_let_through() {
    let Some(scene) = scene().await else { return };
    let good = scene.made_by_the_product().await;
    for object in &good {
        let answer = attempt(&scene.controller, object).await;
        assert!(answer.is_ok(), "good again: {answer:?}\n{object:#}");
    }
    let mut said = BTreeSet::new();

    for (kind, what, change, expected) in CASES {
        let mut bad = good[*kind].clone();
        change(&mut bad);
        assert_ne!(bad, good[*kind], "{what}");
        let refusal = refusal(attempt(&scene.controller, &bad).await, what);
        assert!(refusal.starts_with(expected), "{what}: {refusal}");
        said.insert(refusal);
    }

    // By somebody else, who may otherwise do everything.
    for kind in [POD, CLAIM] {
        let refusal = refusal(attempt(&scene.admin, &good[kind]).await, "by the administrator");
        assert!(refusal.starts_with("only the controller makes"), "{refusal}");
        said.insert(refusal);
    }
    let answer = attempt(&scene.admin, &good[VOLUME]).await;
    assert!(answer.is_ok(), "the volumes of others are theirs: {answer:?}");

    said.extend(nodes(&scene).await);
    let said: BTreeSet<String> =
        said.into_iter().map(|it| it.replace(&scene.at.clean_namespace, "kamino-wf-clean")).collect();
    let all = clauses("default", &["cleaning", "claims", "volumes", "nodes"]);
    assert_eq!(said, all, "each clause has refused something");
}

/// A node is not written to, whatever RBAC says; it is read, and others write to it.
async fn nodes(scene: &Scene) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    let of = |who: &Client| Api::<Node>::all(who.clone());
    let cordon = json!({ "spec": { "unschedulable": true } });
    let mark = json!({ "metadata": { "annotations": { "kamino-wf.io/claim": "x" } } });
    let status = json!({ "status": { "phase": "Running" } });
    let by_us = PatchParams::default();
    let controller = of(&scene.controller);
    said.insert(refusal(controller.patch("ours", &by_us, &Patch::Merge(&cordon)).await.map(drop), "cordon"));
    said.insert(refusal(controller.patch("ours", &by_us, &Patch::Merge(&mark)).await.map(drop), "annotate"));
    said.insert(refusal(controller.patch_status("ours", &by_us, &Patch::Merge(&status)).await.map(drop), "its status"));
    said.insert(refusal(controller.delete("ours", &DeleteParams::default()).await.map(drop), "delete"));
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "new" } });
    said.insert(refusal(attempt(&scene.controller, &node).await, "create"));
    assert!(
        scene.port.nodes().await.is_ok_and(|nodes| nodes.iter().any(|node| node.name.as_str() == "ours")),
        "it is read"
    );
    of(&scene.admin).patch("ours", &by_us, &Patch::Merge(&mark)).await.expect("others may write to it");
    said
}

/// A good pod, changed afterwards: an image may be, and containers added for debugging.
#[tokio::test]
async fn a_cleaning_pod_stays_what_it_is() {
    let Some(scene) = scene().await else { return };
    let want = scene.spec();
    scene.port.create_pod(&want).await.expect("the pod is let through");
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(scene.admin.clone(), &want.namespace);
    let image = json!({ "spec": { "containers": [{ "name": "clean", "image": "evil.example/x:1" }] } });
    let changed = pods.patch(&want.name, &PatchParams::default(), &Patch::Strategic(&image)).await.map(drop);
    assert!(refusal(changed, "another image").starts_with("a cleaning pod's image"));
    let debugger = json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": "busybox" }] } });
    let patch = Patch::Strategic(&debugger);
    let added = pods.patch_subresource("ephemeralcontainers", &want.name, &PatchParams::default(), &patch).await;
    assert!(refusal(added.map(drop), "a debugger").starts_with("a cleaning pod has one container"));
    let label = json!({ "metadata": { "annotations": { "example.com/seen": "yes" } } });
    pods.patch(&want.name, &PatchParams::default(), &Patch::Merge(&label)).await.expect("annotations may be written");
    pods.delete(&want.name, &DeleteParams::default().grace_period(0)).await.expect("the pod goes");
}

/// Volumes that are not ours are neither deleted nor made ours.
#[tokio::test]
async fn volumes_of_others_are_left_alone() {
    let Some(scene) = scene().await else { return };
    let [mut volume, _, _] = scene.examples();
    volume["metadata"]["name"] = "database".into();
    volume["spec"]["volumeMode"] = "Filesystem".into();
    let theirs: Api<PersistentVolume> = Api::all(scene.admin.clone());
    create(&theirs, volume).await;
    let ours: Api<PersistentVolume> = Api::all(scene.controller.clone());
    let deleted = ours.delete("database", &DeleteParams::default()).await.map(drop);
    assert!(refusal(deleted, "delete").starts_with("the controller touches no volume but"));
    let label = json!({ "metadata": { "labels": { "kamino-wf.io/run": "0123456789ab" } } });
    let taken = ours.patch("database", &PatchParams::default(), &Patch::Merge(&label)).await.map(drop);
    assert!(refusal(taken, "take over").starts_with("the controller touches no volume but"));
    theirs.delete("database", &DeleteParams::default()).await.expect("its owner may");
}

/// The server reads each expression against the types that it is for, and says what is wrong.
#[tokio::test]
async fn the_server_finds_nothing_wrong_with_the_expressions() {
    let Some(scene) = scene().await else { return };
    let kind = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy" });
    let policies = api_of(&scene.admin, &kind, None);
    for part in ["cleaning", "claims", "volumes", "nodes"] {
        let name = format!("kamino-wf.{}.{part}", scene.at.namespace);
        let mut checked = Value::Null;
        until("the check of types", async || {
            let policy = policies.get(&name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            checked = policy.data["status"].clone();
            !checked["observedGeneration"].is_null()
        })
        .await;
        assert!(checked["typeChecking"]["expressionWarnings"].is_null(), "{name}: {checked:#}");
    }
}
