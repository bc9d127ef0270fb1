//! `kubectl kamino`: a person with the rights to list pods and to run commands in them, and a controller in a real container.

use std::{os::unix::fs::symlink, process::Stdio};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    rbac::v1::{Role, RoleBinding},
};
use kamino_wf::{
    permissions::KUBERNETES,
    sim::{Scene, spec},
};
use kube::Api;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    support::{
        binary::{Ended, PRODUCT, Running},
        cluster::mortal,
        installed::{Installed, create, until},
        node::real_cluster::RealCluster,
        world::CLEANER_IMAGE,
    },
    with_product,
};

/// A controller that serves in a pod, and a person who may list pods there and run commands in them, and nothing else.
struct Desk {
    controller: Installed,
    person: Installed,
    home: TempDir,
}

/// Somebody who may list pods of a namespace and run commands in them, and nothing else.
pub(crate) async fn person(cluster: &'static RealCluster, namespace: &str) -> Installed {
    let person = cluster.service_account_kubeconfig(&[]).await;
    let admin = cluster.admin().await;
    let allowed = json!([
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] },
        { "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"] },
    ]);
    let roles: Api<Role> = Api::namespaced(admin.clone(), namespace);
    create(&roles, json!({ "metadata": { "name": "operator" }, "rules": allowed })).await;
    let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), namespace);
    let subject =
        json!({ "kind": "ServiceAccount", "name": person.at.service_account, "namespace": person.at.namespace });
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator" });
    let binding = json!({ "metadata": { "name": "operator" }, "roleRef": role, "subjects": [subject] });
    create(&bindings, binding).await;
    person
}

impl Desk {
    async fn new(cluster: &'static RealCluster) -> Self {
        let controller = cluster.service_account_kubeconfig(KUBERNETES).await;
        let admin = cluster.admin().await;
        let namespace = controller.at.namespace.clone();
        let person = person(cluster, &namespace).await;

        let settings: Api<ConfigMap> = Api::namespaced(admin.clone(), &namespace);
        let data = json!({ "config.yaml": settings_file(&controller).to_string(), "token": "a.b.c" });
        create(&settings, json!({ "metadata": { "name": "settings" }, "data": data })).await;
        let pods: Api<Pod> = Api::namespaced(admin, &namespace);
        create(&pods, pod(&controller.at.service_account)).await;
        until("the controller", async || {
            let status = pods.get("controller").await.expect("the pod").status.unwrap_or_default();
            status.container_statuses.unwrap_or_default().iter().any(|it| it.ready)
        })
        .await;
        let home = tempfile::tempdir().expect("a folder");
        symlink(PRODUCT, home.path().join("kubectl-kamino")).expect("a link");
        Self { controller, person, home }
    }

    /// The plugin as `kubectl` starts it.
    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = mortal(&self.home.path().join("kubectl-kamino"));
        command.args(["-n", &self.controller.at.namespace]).args(arguments).stdin(Stdio::null());
        command.env_clear().env("HOME", self.home.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Running::spawn({
            command.env("KUBECONFIG", &self.person.kubeconfig);
            command
        })
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).ended().await
    }
}

/// Azure is nowhere here: a run waits for it, which is long enough to be looked at and cancelled.
fn settings_file(installed: &Installed) -> Value {
    let spec = spec(&Scene::nominal());
    json!({
        "azure": { "credential": "workload-identity", "tenant": "t", "client": "c", "tokenFile": "/etc/kamino-wf/token",
            "caBundle": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "resourceManager": "https://127.0.0.1:1", "authority": "https://127.0.0.1:1" },
        "cleaning": { "namespace": installed.at.clean_namespace, "image": CLEANER_IMAGE },
        "pools": [{ "name": "pool1", "scaleSet": spec.scale_set.to_string(), "profile": "kubeadm",
            "gallery": spec.gallery.to_string() }],
    })
}

fn pod(account: &str) -> Value {
    let security = json!({ "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
        "runAsGroup": 65532, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
        "seccompProfile": { "type": "RuntimeDefault" } });
    let container = json!({ "name": "kamino-wf", "image": CLEANER_IMAGE, "imagePullPolicy": "Never", "args": ["serve"],
        "securityContext": security,
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": 8080 }, "periodSeconds": 1 },
        "volumeMounts": [
            { "name": "store", "mountPath": "/var/lib/kamino-wf" }, { "name": "settings", "mountPath": "/etc/kamino-wf" },
        ] });
    let labels = json!({ "app.kubernetes.io/name": "kamino-wf", "app.kubernetes.io/component": "controller" });
    json!({
        "metadata": { "name": "controller", "labels": labels },
        "spec": { "serviceAccountName": account, "enableServiceLinks": false, "containers": [container],
            "terminationGracePeriodSeconds": 5, "securityContext": { "fsGroup": 65532 },
            "volumes": [{ "name": "store", "emptyDir": {} }, { "name": "settings", "configMap": { "name": "settings" } }] },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_lists_starts_follows_and_cancels_with_their_own_rights_and_name() {
    let Some(cluster) = with_product() else { return };
    let desk = Desk::new(cluster).await;
    let list = desk.run(&["list"]).await;
    list.assert(0, &["There are no runs yet"]);
    assert_eq!(list.stderr, "", "nothing of it is talk");
    desk.run(&["describe", "nosuchrun"]).await.assert(4, &["there is no run nosuchrun"]);
    desk.run(&["describe"]).await.assert(2, &["Usage: kamino-wf describe"]);

    let started = desk.run(&["start", "--pool", "pool1", "--adopt"]).await;
    let run = started.assert(0, &["is driven by the process that holds the store"]).stdout.trim().to_owned();
    let listed = desk.run(&["list", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(listed["runs"][0]["run"], run.as_str());
    // Two who follow it: one lets go, one stays.
    let left = desk.start(&["describe", &run, "--watch"]);
    let watching = desk.start(&["describe", &run, "--watch"]);
    for follower in [&left, &watching] {
        until("the run is described", async || follower.data().contains("PruneVersions")).await;
    }
    left.signal(Signal::INT);
    left.ended().await.assert(130, &[]);
    desk.run(&["cancel", &run]).await.assert(0, &["is being cancelled"]);
    let ended = watching.ended().await;
    ended.assert(9, &[&format!("cancelled by {}", desk.person.user), "cancelled, and nothing of it is left"]);

    desk.run(&["cancel", &run]).await.assert(5, &["has ended (cancelled)"]);
    let record = desk.run(&["list", "--audit", "-o", "json"]).await.assert(0, &[]).json();
    let who = |it: &Value| json!([it["verb"], it["verdict"], it["by"], it["peer"]["uid"]]);
    let record: Vec<Value> = record["entries"].as_array().expect("a list").iter().map(who).collect();
    let user = &desk.person.user;
    let expected = json!([
        ["start", "accepted", user, 65532],
        ["cancel", "accepted", user, 65532],
        ["cancel", "refused", user, 65532]
    ]);
    assert_eq!(json!(record), expected, "who by the API server's word, and the pod's own user by the kernel's");
    // What the person may not do without the plugin, they may not do with it.
    cluster.kubectl(&["delete", "rolebinding", "operator", "-n", &desk.controller.at.namespace]);
    until("the right is gone", async || desk.run(&["list"]).await.code() == Some(1)).await;
    desk.run(&["list"]).await.assert(1, &["you may not list pods in namespace"]);
}
