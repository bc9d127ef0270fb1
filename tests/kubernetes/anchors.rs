//! `credential: rebootstrap`: a token for a node's credential that is dead as soon as the Secret that it is bound to is deleted, by
//! somebody who may neither read the one nor ask for the other.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Secret, ServiceAccount};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{Anchor, Cluster, ClusterError},
    model::{Class, NodeName},
    permissions::{BOOTSTRAP, REBOOTSTRAP},
};
use kube::Api;
use serde_json::json;

use crate::support::{
    cluster::{TestCluster, shared},
    installed::{Installed, TestNode, create, create_any, until},
};

async fn anchor(cluster: &TestCluster, installed: &Installed, node: &str) -> Anchor {
    cluster.add_node(&TestNode::new(node)).await;
    let made: Node = Api::all(cluster.admin().await).get(node).await.expect("the node");
    let run = SystemClock.new_run();
    Anchor {
        name: format!("kwf-pool1-{run}"),
        namespace: installed.at.clean_namespace.clone(),
        run,
        node: NodeName::parse(node).expect("a name"),
        node_uid: made.metadata.uid.expect("a uid"),
    }
}

/// What the chart makes with `capture.rebootstrap`, without the second of the account's two roles where it is not `approved`.
async fn account(cluster: &TestCluster, namespace: &str, approved: bool) {
    let client = cluster.admin().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    create(&accounts, json!({ "metadata": { "name": BOOTSTRAP } })).await;
    let roles = ["system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"];
    for (number, role) in roles.iter().enumerate().take(if approved { 2 } else { 1 }) {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": format!("{namespace}-bootstrap-{number}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": BOOTSTRAP, "namespace": namespace }],
        });
        create_any(&client, binding).await;
    }
}

#[tokio::test]
async fn the_token_is_dead_when_its_secret_is_deleted() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(REBOOTSTRAP).await;
    let port = installed.connect().await;
    let anchor = anchor(cluster, &installed, "renewed").await;
    let space = &anchor.namespace;
    account(cluster, space, true).await;
    // The cleaner on a donor, whose rights are the chart's: see there.
    let cleaner = cluster.holder_of(None).await;
    let early = cleaner.bound_token(space, &anchor.name).await.expect_err("there is no such secret");
    assert!(early.to_string().contains(&anchor.name), "{early}");

    assert!(!port.has_anchor(&anchor).await.expect("a look"));
    assert!(!port.has_anchor(&anchor).await.expect("a look makes none"));
    port.create_anchor(&anchor).await.expect("made");
    assert!(port.has_anchor(&anchor).await.expect("a look"));
    let again = port.create_anchor(&anchor).await;
    assert!(matches!(again, Err(ClusterError::Exists { .. })), "{again:?}");
    let secrets: Api<Secret> = Api::namespaced(cluster.admin().await, space);
    let made = secrets.get(&anchor.name).await.expect("the secret");
    assert!(made.data.is_none_or(|data| data.is_empty()), "nothing is in it");

    let (token, lives) = cleaner.bound_token(space, &anchor.name).await.expect("a token");
    assert!(lives >= Duration::from_hours(24), "{lives:?}");
    let donor = cluster.holder_of(Some(&token)).await;
    assert_eq!(donor.lacking_to_bootstrap().await.expect("an answer"), [""; 0]);

    for _ in 0..2 {
        port.delete_anchor(&anchor).await.expect("deleted, also twice");
        assert!(!port.has_anchor(&anchor).await.expect("a look"));
    }
    // The API server remembers a token that it has just looked at for some seconds.
    until("the token to be dead", async || donor.lacking_to_bootstrap().await.is_err()).await;
    let dead = donor.lacking_to_bootstrap().await.expect_err("dead");
    assert_eq!(dead.class(), Class::Denied, "{dead}");
    // One by the same name, made anew, brings it not back.
    port.create_anchor(&anchor).await.expect("made");
    assert!(donor.lacking_to_bootstrap().await.is_err());
    port.delete_anchor(&anchor).await.expect("deleted");
}

#[tokio::test]
async fn it_goes_with_its_node_at_the_latest() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(REBOOTSTRAP).await;
    let port = installed.connect().await;
    let anchor = anchor(cluster, &installed, "renewed-and-deleted").await;
    port.create_anchor(&anchor).await.expect("made");
    let nodes: Api<Node> = Api::all(cluster.admin().await);
    nodes.delete(anchor.node.as_str(), &kube::api::DeleteParams::default()).await.expect("deleted");
    until("the secret to go", async || !port.has_anchor(&anchor).await.expect("a look")).await;
}

#[tokio::test]
async fn an_account_whose_requests_nobody_approves_is_found_out_before_anything_is_done() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(REBOOTSTRAP).await;
    let port = installed.connect().await;
    let anchor = anchor(cluster, &installed, "renewed-by-nobody").await;
    account(cluster, &anchor.namespace, false).await;
    port.create_anchor(&anchor).await.expect("made");
    let (token, _) = cluster.holder_of(None).await.bound_token(&anchor.namespace, &anchor.name).await.expect("a token");
    let lacking = cluster.holder_of(Some(&token)).await.lacking_to_bootstrap().await.expect("an answer");
    assert_eq!(lacking, ["create certificatesigningrequests/nodeclient"]);
}
