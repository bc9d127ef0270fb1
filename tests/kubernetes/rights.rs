//! Every right of the list is needed: without it, the call that it is for is denied in words that name it.

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kamino_wf::{
    cluster::{CleaningSpec, Cluster, ClusterError, kubernetes::KubernetesCluster},
    model::{Class, NodeName},
    permissions::{
        ClusterScope::{self, Cleaning, Cluster as Everywhere, NodeLeases, Own},
        KUBERNETES, LEASE,
    },
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    spec,
    support::{
        cluster::shared,
        installed::{Installed, TestNode, create},
    },
};

/// What tells the rights of the list apart.
type Right = (&'static str, &'static str, ClusterScope);

/// The one call that needs this right.
async fn call(
    installed: &Installed,
    port: &KubernetesCluster,
    want: &CleaningSpec,
    right: Right,
) -> Result<(), ClusterError> {
    let (namespace, name) = (want.namespace.as_str(), want.name.as_str());
    let node = NodeName::parse("denied").expect("a name");
    match right {
        ("namespaces", "get", _) => port.cluster_id().await.map(drop),
        ("nodes", "list", _) | ("leases", "list", NodeLeases) => port.nodes().await.map(drop),
        ("nodes", "get", _) | ("leases", "get", NodeLeases) => port.node(&node).await.map(drop),
        ("leases", verb, Own) => lease(installed, verb).await,
        ("persistentvolumes" | "persistentvolumeclaims" | "pods", "get", _) | ("events", "list", _) => {
            port.cleaning(namespace, name).await.map(drop)
        }
        ("persistentvolumes" | "persistentvolumeclaims" | "pods", "list", _) => {
            port.leftovers(namespace).await.map(drop)
        }
        ("cronjobs" | "jobs", "list", _) => port.rivals().await.map(drop),
        ("persistentvolumes", "create", _) => port.create_volume(want).await,
        ("persistentvolumes", "delete", _) => port.delete_volume(name, "uid").await,
        ("persistentvolumeclaims", "create", _) => port.create_claim(want).await,
        ("persistentvolumeclaims", "delete", _) => port.delete_claim(namespace, name, "uid").await,
        ("pods", "create", _) => port.create_pod(want).await,
        ("pods", "delete", _) => port.delete_pod(namespace, name, "uid").await,
        (resource, verb, scope) => {
            panic!("src/permissions.rs lists {verb} on {resource} ({scope:?}): which call needs it?")
        }
    }
}

/// What the daemon does with its Lease, as the service account.
async fn lease(installed: &Installed, verb: &str) -> Result<(), ClusterError> {
    let options = KubeConfigOptions::default();
    let kubeconfig = Kubeconfig::read_from(&installed.kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    let client = Client::try_from(config).expect("a client");
    let leases: Api<Lease> = Api::namespaced(client, &installed.at.namespace);
    let lease: Lease = serde_json::from_value(json!({ "metadata": { "name": LEASE } })).expect("a lease");
    let done = match verb {
        "create" => leases.create(&PostParams::default(), &lease).await,
        "get" => leases.get(LEASE).await,
        "update" => {
            let found = leases.get(LEASE).await.expect("it is there and may be read");
            leases.replace(LEASE, &PostParams::default(), &found).await
        }
        verb => panic!("src/permissions.rs lists {verb} on our Lease: which call needs it?"),
    };
    match done {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Err(ClusterError::Denied { what: format!("{verb} lease"), message: status.message.clone() })
        }
        Err(error) => panic!("{verb} of the lease: {error}"),
    }
}

/// A node to ask for: the lease of one that is not there is not asked for.
static NODE: OnceCell<()> = OnceCell::const_new();

/// With all rights but one, its call is denied in words that name it; with that one, it is not.
async fn denied_without(right: Right) {
    let Some(cluster) = shared() else { return };
    let (resource, verb, scope) = right;
    let rest: Vec<_> =
        KUBERNETES.iter().copied().filter(|it| (it.resource, it.verb, it.scope) != (resource, verb, scope)).collect();
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
    if scope == Own && verb != "create" {
        // Only one that is there can be read and renewed.
        for at in [&all.at, &installed.at] {
            let leases: Api<Lease> = Api::namespaced(cluster.admin().await, &at.namespace);
            create(&leases, json!({ "metadata": { "name": LEASE } })).await;
        }
    }
    let port = all.connect().await;
    let allowed = call(&all, &port, &with, right).await;
    assert!(allowed.is_ok(), "with all rights: {allowed:?}");
    assert_eq!(port.missing_rights(KUBERNETES, &all.at).await.expect("an answer"), []);
    let port = installed.connect().await;
    let error = call(&installed, &port, &without, right).await.expect_err("a right is missing");
    let text = error.to_string();
    assert_eq!(error.class(), Class::Denied, "{text}");
    assert!(text.contains(&format!("cannot {verb} resource \"{resource}\"")), "{text}");
    assert!(text.contains(&installed.user), "{text}");
    let missing = port.missing_rights(KUBERNETES, &installed.at).await.expect("an answer");
    let missing: Vec<_> = missing.iter().map(|it| (it.resource, it.verb, it.scope)).collect();
    assert_eq!(missing, [right], "and the self-check knew");
}

macro_rules! each_right {
    ($($test:ident: $resource:literal, $verb:literal, $scope:ident;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                denied_without(($resource, $verb, $scope)).await;
            }
        )*

        #[test]
        fn each_right_of_the_list_has_its_test() {
            let tested: Vec<Right> = vec![$(($resource, $verb, $scope)),*];
            let listed: Vec<Right> = KUBERNETES.iter().map(|it| (it.resource, it.verb, it.scope)).collect();
            assert_eq!(tested, listed);
        }
    };
}

each_right! {
    denied_without_get_namespaces: "namespaces", "get", Everywhere;
    denied_without_list_nodes: "nodes", "list", Everywhere;
    denied_without_get_nodes: "nodes", "get", Everywhere;
    denied_without_get_persistentvolumes: "persistentvolumes", "get", Everywhere;
    denied_without_list_persistentvolumes: "persistentvolumes", "list", Everywhere;
    denied_without_create_persistentvolumes: "persistentvolumes", "create", Everywhere;
    denied_without_delete_persistentvolumes: "persistentvolumes", "delete", Everywhere;
    denied_without_list_leases: "leases", "list", NodeLeases;
    denied_without_get_leases: "leases", "get", NodeLeases;
    denied_without_get_persistentvolumeclaims: "persistentvolumeclaims", "get", Cleaning;
    denied_without_list_persistentvolumeclaims: "persistentvolumeclaims", "list", Cleaning;
    denied_without_create_persistentvolumeclaims: "persistentvolumeclaims", "create", Cleaning;
    denied_without_delete_persistentvolumeclaims: "persistentvolumeclaims", "delete", Cleaning;
    denied_without_get_pods: "pods", "get", Cleaning;
    denied_without_list_pods: "pods", "list", Cleaning;
    denied_without_create_pods: "pods", "create", Cleaning;
    denied_without_delete_pods: "pods", "delete", Cleaning;
    denied_without_list_events: "events", "list", Cleaning;
    denied_without_list_cronjobs: "cronjobs", "list", Everywhere;
    denied_without_list_jobs: "jobs", "list", Everywhere;
    denied_without_create_our_lease: "leases", "create", Own;
    denied_without_get_our_lease: "leases", "get", Own;
    denied_without_update_our_lease: "leases", "update", Own;
}
