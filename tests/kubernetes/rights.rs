//! Every right of the list is needed: without it, the call that it is for is denied in words that name it.

use k8s_openapi::api::core::v1::Pod;
use kamino_wf::{
    cluster::{CleaningSpec, Cluster, ClusterError, kubernetes::KubernetesCluster},
    model::{Class, NodeName},
    permissions::KUBERNETES,
};
use kube::Api;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    spec,
    support::{
        cluster::shared,
        installed::{TestNode, create},
    },
};

/// The one call of the port that needs this right.
async fn call(port: &KubernetesCluster, want: &CleaningSpec, resource: &str, verb: &str) -> Result<(), ClusterError> {
    let (namespace, name) = (want.namespace.as_str(), want.name.as_str());
    let node = NodeName::parse("denied").expect("a name");
    match (resource, verb) {
        ("namespaces", "get") => port.cluster_id().await.map(drop),
        ("nodes" | "leases", "list") => port.nodes().await.map(drop),
        ("nodes" | "leases", "get") => port.node(&node).await.map(drop),
        ("persistentvolumes" | "persistentvolumeclaims" | "pods", "get") | ("events", "list") => {
            port.cleaning(namespace, name).await.map(drop)
        }
        ("persistentvolumes", "create") => port.create_volume(want).await,
        ("persistentvolumes", "delete") => port.delete_volume(name, "uid").await,
        ("persistentvolumeclaims", "create") => port.create_claim(want).await,
        ("persistentvolumeclaims", "delete") => port.delete_claim(namespace, name, "uid").await,
        ("pods", "create") => port.create_pod(want).await,
        ("pods", "delete") => port.delete_pod(namespace, name, "uid").await,
        (resource, verb) => panic!("src/permissions.rs lists {verb} on {resource}: which call needs it?"),
    }
}

/// A node to ask for: the lease of one that is not there is not asked for.
static NODE: OnceCell<()> = OnceCell::const_new();

/// With all rights but one, its call is denied in words that name it; with that one, it is not.
async fn denied_without(resource: &str, verb: &str) {
    let Some(cluster) = shared() else { return };
    let rest: Vec<_> = KUBERNETES.iter().copied().filter(|it| (it.resource, it.verb) != (resource, verb)).collect();
    assert_eq!(rest.len(), KUBERNETES.len() - 1, "one right is taken away");
    NODE.get_or_init(async || cluster.add_node(&TestNode::new("denied")).await).await;

    let all = cluster.service_account_kubeconfig(KUBERNETES).await;
    let installed = cluster.service_account_kubeconfig(&rest).await;
    let (with, without) = (spec(&all), spec(&installed));
    if resource == "events" {
        // Asked for only of a pod that is bound and does not start.
        for want in [&with, &without] {
            let pods: Api<Pod> = Api::namespaced(cluster.admin().await, &want.namespace);
            let bound = json!({ "nodeName": "denied", "containers": [{ "name": "c", "image": "i" }] });
            create(&pods, json!({ "metadata": { "name": want.name }, "spec": bound })).await;
        }
    }
    let port = all.connect().await;
    let allowed = call(&port, &with, resource, verb).await;
    assert!(allowed.is_ok(), "with all rights: {allowed:?}");
    assert_eq!(port.missing_rights(KUBERNETES, &all.at).await.expect("an answer"), []);
    let port = installed.connect().await;
    let error = call(&port, &without, resource, verb).await.expect_err("a right is missing");
    let text = error.to_string();
    assert_eq!(error.class(), Class::Denied, "{text}");
    assert!(text.contains(&format!("cannot {verb} resource \"{resource}\"")), "{text}");
    assert!(text.contains(&installed.user), "{text}");
    let missing = port.missing_rights(KUBERNETES, &installed.at).await.expect("an answer");
    let missing: Vec<_> = missing.iter().map(|right| (right.resource, right.verb)).collect();
    assert_eq!(missing, [(resource, verb)], "and the self-check knew");
}

macro_rules! each_right {
    ($($test:ident: $resource:literal, $verb:literal;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                denied_without($resource, $verb).await;
            }
        )*

        #[test]
        fn each_right_of_the_list_has_its_test() {
            let tested: Vec<_> = vec![$(($resource, $verb)),*];
            let listed: Vec<_> = KUBERNETES.iter().map(|right| (right.resource, right.verb)).collect();
            assert_eq!(tested, listed);
        }
    };
}

each_right! {
    denied_without_get_namespaces: "namespaces", "get";
    denied_without_list_nodes: "nodes", "list";
    denied_without_get_nodes: "nodes", "get";
    denied_without_get_persistentvolumes: "persistentvolumes", "get";
    denied_without_create_persistentvolumes: "persistentvolumes", "create";
    denied_without_delete_persistentvolumes: "persistentvolumes", "delete";
    denied_without_list_leases: "leases", "list";
    denied_without_get_leases: "leases", "get";
    denied_without_get_persistentvolumeclaims: "persistentvolumeclaims", "get";
    denied_without_create_persistentvolumeclaims: "persistentvolumeclaims", "create";
    denied_without_delete_persistentvolumeclaims: "persistentvolumeclaims", "delete";
    denied_without_get_pods: "pods", "get";
    denied_without_create_pods: "pods", "create";
    denied_without_delete_pods: "pods", "delete";
    denied_without_list_events: "events", "list";
}
