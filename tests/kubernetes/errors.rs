//! What the adapter says when the API server does not do what it was asked.

use std::fs;

use kamino_wf::{
    cluster::{
        CleaningSpec, Cluster, ClusterError,
        kubernetes::{Access, KubernetesCluster},
    },
    model::Class,
    permissions::KUBERNETES,
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
    let rights: Vec<_> = KUBERNETES.to_vec();
    let elsewhere = cluster.service_account_kubeconfig(&rights).await;
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

#[tokio::test]
async fn a_server_that_is_not_there_leaves_us_uncertain() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("https://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": address } }],
        "users": [{ "name": "u", "user": { "token": "t" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    let path = folder.path().join("kubeconfig");
    fs::write(&path, kubeconfig.to_string()).expect("a file");
    let access = Access::Kubeconfig { path: Some(path), context: None };
    let port = KubernetesCluster::connect(&access).await.expect("a client");
    let error = port.cluster_id().await.expect_err("nobody listens");
    assert_eq!(error.class(), Class::Uncertain);
    let text = error.to_string();
    assert!(text.starts_with("get namespace kube-system: ") && text.contains(&address), "{text}");
    assert!(text.contains("refused"), "the system's own word is kept: {text}");
}
