//! `kubectl kamino`: the controller's pod is found or not, and a right that is missing is named. Commands in a real container
//! run in `tests/real_node`.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Stdio};

use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    core::v1::Pod,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    binary::{Ended, PRODUCT},
    cluster::{TestCluster, mortal, shared},
    installed::{Installed, create, until},
};

/// A person with these rights in a namespace of their own: verb and resource.
struct Person {
    cluster: &'static TestCluster,
    installed: Installed,
    home: TempDir,
}

impl Person {
    async fn new(rights: &[(&str, &str)]) -> Option<Self> {
        let cluster = shared()?;
        let installed = cluster.service_account_kubeconfig(&[]).await;
        let namespace = installed.at.namespace.clone();
        let admin = cluster.admin().await;
        let granted: Vec<Value> = rights
            .iter()
            .map(|(verb, resource)| json!({ "apiGroups": [""], "resources": [resource], "verbs": [verb] }))
            .collect();
        let roles: Api<Role> = Api::namespaced(admin.clone(), &namespace);
        create(&roles, json!({ "metadata": { "name": "person" }, "rules": granted })).await;
        let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), &namespace);
        create(
            &bindings,
            json!({ "metadata": { "name": "person" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "person" },
                "subjects": [{ "kind": "ServiceAccount", "name": installed.at.service_account, "namespace": namespace }] }),
        )
        .await;
        let reviews: Api<SubjectAccessReview> = Api::all(admin);
        for (verb, resource) in rights {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let question: SubjectAccessReview = serde_json::from_value(json!({ "metadata": {}, "spec": {
                "user": installed.user, "resourceAttributes": { "verb": verb, "resource": resource,
                "subresource": subresource, "namespace": namespace } } }))
            .expect("a question");
            until("the role", async || {
                let answer =
                    reviews.create(&PostParams::default(), &question).await.expect("the administrator may ask");
                answer.status.is_some_and(|status| status.allowed)
            })
            .await;
        }
        let home = tempfile::tempdir().expect("a folder");
        symlink(PRODUCT, home.path().join("kubectl-kamino")).expect("a link");
        Some(Self { cluster, installed, home })
    }

    fn namespace(&self) -> &str {
        &self.installed.at.namespace
    }

    /// A pod as its kubelet would show it.
    async fn pod(&self, name: &str, component: &str, state: Value, ready: bool) {
        let pods: Api<Pod> = Api::namespaced(self.cluster.admin().await, self.namespace());
        let labels = json!({ "app.kubernetes.io/name": "kamino-wf", "app.kubernetes.io/component": component });
        let security = json!({ "allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" } });
        let container = json!({ "name": "kamino-wf", "image": "i", "securityContext": security });
        let spec =
            json!({ "containers": [container], "schedulerName": "nobody", "automountServiceAccountToken": false });
        until("the default service account", async || {
            let pod = json!({ "metadata": { "name": name, "labels": labels }, "spec": spec });
            let pod = serde_json::from_value(pod).expect("a good object");
            pods.create(&PostParams::default(), &pod).await.is_ok()
        })
        .await;
        let shown = json!({ "name": "kamino-wf", "image": "i", "imageID": "i", "restartCount": 0, "ready": ready,
            "state": state });
        let status = json!({ "status": { "phase": "Running", "containerStatuses": [shown] } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("the status is taken");
    }

    /// The plugin as `kubectl` starts it.
    async fn kubectl_kamino(&self, arguments: &[&str], kubeconfig: &PathBuf) -> Ended {
        let mut command = mortal(&self.home.path().join("kubectl-kamino"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).env("USER", "tester");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
        crate::support::binary::Running::spawn(command).ended().await
    }

    async fn asks(&self, arguments: &[&str]) -> Ended {
        let here = [&["-n", self.namespace()], arguments].concat();
        self.kubectl_kamino(&here, &self.installed.kubeconfig).await
    }
}

const RUNNING: fn() -> Value = || json!({ "running": {} });

#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let rights = [("list", "pods"), ("get", "pods/exec"), ("create", "pods/exec")];
    for (given, missing) in [
        (vec![], "list pods"),
        (vec![0], "get and create pods/exec"),
        (vec![0, 1], "create pods/exec"),
        (vec![0, 2], "get pods/exec"),
    ] {
        let given: Vec<_> = given.into_iter().map(|at: usize| rights[at]).collect();
        let Some(person) = Person::new(&given).await else { return };
        person.pod("controller-0", "controller", RUNNING(), true).await;
        let ended = person.asks(&["list"]).await;
        ended.assert(1, &[&format!("you may not {missing} in namespace {}", person.namespace()), "The commands need"]);
        assert_eq!(ended.stdout, "", "stdout is data");
    }
}

/// With all three, the API server takes the command, with the name that it knows the person by, and asks a kubelet, which
/// there is none of.
#[tokio::test]
async fn with_all_rights_the_command_goes_out_in_the_persons_name() {
    let rights = [("list", "pods"), ("get", "pods/exec"), ("create", "pods/exec")];
    let Some(person) = Person::new(&rights).await else { return };
    // Neither the cleaner's pod nor one that is down is meant.
    person.pod("cleaner-0", "cleaner", RUNNING(), true).await;
    let crashing = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    person.pod("controller-0", "controller", crashing, false).await;
    let ended = person.asks(&["cancel", "0123"]).await;
    ended.assert(1, &["does not run: controller-0", "CrashLoopBackOff"]);
    person.pod("controller-1", "controller", RUNNING(), false).await;
    let ended = person.asks(&["cancel", "0123"]).await;
    ended.assert(
        1,
        &[
            "pod controller-1 is not ready; asking it all the same",
            "run a command in pod controller-1: pod controller-1 does not have a host assigned",
        ],
    );
    let audit = fs::read_to_string(person.cluster.folder.join("audit.log")).expect("a log");
    let user = person.installed.user.replace(':', "%3A");
    let command = format!("command=%2Fkamino-wf&command=--by&command={user}&command=cancel&command=0123");
    let exec = format!("/api/v1/namespaces/{}/pods/controller-1/exec?", person.namespace());
    let sent = audit.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let sent: Vec<String> = sent.filter_map(|line| Some(line["requestURI"].as_str()?.to_owned())).collect();
    assert!(
        sent.iter().any(|uri| uri.starts_with(&exec) && uri.ends_with(&command) && uri.contains("container=kamino-wf")),
        "{:#?}",
        sent.iter().filter(|uri| uri.contains("/exec")).collect::<Vec<_>>()
    );
    person.pod("controller-2", "controller", RUNNING(), true).await;
    person.asks(&["list"]).await.assert(1, &["run a command in pod controller-2"]);
    person.pod("controller-3", "controller", RUNNING(), true).await;
    person.asks(&["list"]).await.assert(1, &["more than one controller", "controller-2", "controller-3"]);
}

#[tokio::test]
async fn it_looks_where_the_flag_says_or_the_context_or_where_the_documents_install_it() {
    let Some(person) = Person::new(&[("list", "pods")]).await else { return };
    person.asks(&["list"]).await.assert(1, &["found no controller", person.namespace(), "-n NAMESPACE"]);
    let kubeconfig = &person.installed.kubeconfig;
    let ended = person.kubectl_kamino(&["list"], kubeconfig).await;
    ended.assert(1, &["may not list pods in namespace kamino-wf."]);
    let mut with: Value = serde_json::from_str(&fs::read_to_string(kubeconfig).expect("a file")).expect("JSON is YAML");
    with["contexts"][0]["context"]["namespace"] = json!(person.namespace());
    let other = person.home.path().join("other");
    fs::write(&other, with.to_string()).expect("a file");
    person.kubectl_kamino(&["list"], &other).await.assert(1, &["found no controller", person.namespace()]);
    let ended = person.kubectl_kamino(&["list", "-n", "elsewhere"], &other).await;
    ended.assert(1, &["may not list pods in namespace elsewhere"]);
    let ended = person.kubectl_kamino(&["list", "--context", "nosuch"], &other).await;
    ended.assert(2, &["kubeconfig", "nosuch"]);
    let ended = person.kubectl_kamino(&["list", "--kubeconfig", "/nowhere"], &other).await;
    ended.assert(2, &["kubeconfig", "/nowhere"]);
    person.kubectl_kamino(&["serve"], &other).await.assert(2, &["\"serve\" is nothing to run in the pod"]);
    person.kubectl_kamino(&["--help"], &other).await.assert(0, &["Usage: kubectl kamino [-n NAMESPACE]"]);
}
