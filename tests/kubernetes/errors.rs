//! What the adapter says when the API server does not do what it was asked.

use std::{fs, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kamino_wf::{
    cluster::{
        CleaningSpec, Cluster, ClusterError,
        kubernetes::{Access, KubernetesCluster},
    },
    model::Class,
    permissions::KUBERNETES,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    spec,
    support::{cluster::shared, installed::until},
};

#[tokio::test]
async fn without_its_namespace_a_pod_is_gone_and_a_bad_one_refused() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let port = installed.connect().await;
    let mut bad = spec(&installed);
    bad.name = "No_Name".into();
    let refused = port.create_pod(&bad).await.expect_err("a bad name");
    assert!(
        matches!(refused, ClusterError::Refused { .. }) && refused.to_string().contains("metadata.name"),
        "{refused}"
    );

    // RBAC answers before the namespace is looked for: the right must be there, the namespace not.
    let elsewhere = cluster.service_account_kubeconfig(KUBERNETES).await;
    let admin = cluster.admin().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": format!("everywhere:{}", elsewhere.at.namespace) },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": elsewhere.at.service_account,
            "namespace": elsewhere.at.namespace }] });
    let request = http::Request::post(roles).header("content-type", "application/json");
    let request = request.body(binding.to_string().into_bytes()).expect("a request");
    admin.request_text(request).await.expect("a binding");
    let port = elsewhere.connect().await;
    let want = CleaningSpec { namespace: "nowhere".into(), ..spec(&elsewhere) };
    let mut gone = port.create_pod(&want).await;
    until("the binding", async || {
        gone = port.create_pod(&want).await;
        !matches!(gone, Err(ClusterError::Denied { .. }))
    })
    .await;
    let gone = gone.expect_err("no such namespace");
    assert_eq!(gone.class(), Class::Gone);
    assert_eq!(
        gone.to_string(),
        format!("create pod nowhere/{}: does not exist (namespaces \"nowhere\" not found)", want.name)
    );
}

/// A cluster whose defaults forbid privileged pods, and an operator who forgot to label the namespace.
#[tokio::test]
async fn an_admission_rule_that_says_no_is_quoted() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin().await);
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "baseline" } } });
    let patch = Patch::Merge(label);
    namespaces.patch(&installed.at.clean_namespace, &PatchParams::default(), &patch).await.expect("a label");
    let (port, want) = (installed.connect().await, spec(&installed));
    let mut answer = port.create_pod(&want).await;
    // Admission learns of the label by a watch: a pod that was let in goes again.
    until("the label", async || {
        if let Some(pod) = port.cleaning(&want.namespace, &want.name).await.expect("a look").pod {
            port.delete_pod(&want.namespace, &want.name, &pod.owned.uid).await.expect("accepted");
            answer = port.create_pod(&want).await;
        }
        answer.is_err()
    })
    .await;
    let error = answer.expect_err("a privileged pod");
    assert_eq!(error.class(), Class::Denied);
    let text = error.to_string();
    assert!(text.starts_with(&format!("create pod {}/{}: not allowed (", want.namespace, want.name)), "{text}");
    assert!(text.contains("violates PodSecurity \"baseline:latest\": privileged"), "{text}");
}

/// Accepts connections, and says nothing.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_leaves_us_uncertain_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("https://{}", listener.local_addr().expect("an address"));
    let port = stranger(folder.path(), &address).await;
    let since = tokio::time::Instant::now();
    let error = port.cluster_id().await.expect_err("nobody answers");
    assert_eq!(error.class(), Class::Uncertain, "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    assert!(since.elapsed() < Duration::from_mins(1), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_server_that_is_not_there_leaves_us_uncertain() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("https://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let port = stranger(folder.path(), &address).await;
    let error = port.cluster_id().await.expect_err("nobody listens");
    assert_eq!(error.class(), Class::Uncertain);
    let text = error.to_string();
    assert!(text.starts_with("get namespace kube-system: ") && text.contains(&address), "{text}");
    assert!(text.contains("refused"), "the system's own word is kept: {text}");
}

/// The adapter on a server that knows nobody.
async fn stranger(folder: &Path, address: &str) -> KubernetesCluster {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": address, "insecure-skip-tls-verify": true } }],
        "users": [{ "name": "u", "user": { "token": "t" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    let path = folder.join("kubeconfig");
    fs::write(&path, kubeconfig.to_string()).expect("a file");
    KubernetesCluster::connect(&Access::Kubeconfig { path: Some(path), context: None }).await.expect("a client")
}

/// A token that is no longer good, as after the service account was deleted.
#[tokio::test]
async fn a_token_that_is_not_accepted_is_denied() {
    let Some(cluster) = shared() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let port = stranger(folder.path(), &cluster.server).await;
    let error = port.nodes().await.expect_err("nobody knows this token");
    assert_eq!((error.class(), error.to_string().as_str()), (Class::Denied, "list nodes: not allowed (Unauthorized)"));
}
