//! Every right of a drain is needed: without it, the call that it is for is denied in words that name it.

use kamino_wf::{
    cluster::{Cluster, ClusterError, PodRef, kubernetes::KubernetesCluster},
    model::{Class, NodeName},
    permissions::{ClusterRight, DRAIN, FORCED_DRAIN},
};

use crate::support::cluster::shared;

/// The one call that needs this right.
async fn call(port: &KubernetesCluster, right: &ClusterRight) -> Result<(), ClusterError> {
    let nobody = PodRef { namespace: "default".into(), name: "nobody".into(), uid: "x".into() };
    match (right.resource, right.verb) {
        ("pods", "list") => port.pods_on(&NodeName::parse("nowhere").expect("a name")).await.map(drop),
        ("pods", "get") => port.pod("default", "nobody").await.map(drop),
        ("pods/eviction", "create") => port.evict(&nobody).await.map(drop),
        ("daemonsets", "get") => port.daemon_set_exists("default", "nobody").await.map(drop),
        ("poddisruptionbudgets", "list") => port.budgets("default").await.map(drop),
        ("pods", "delete") => port.delete_gently(&nobody).await,
        (resource, verb) => panic!("src/permissions/drain.rs lists {verb} on {resource}: which call needs it?"),
    }
}

#[tokio::test]
async fn without_any_one_right_its_call_is_denied_and_the_self_check_knew() {
    let Some(cluster) = shared() else { return };
    let all = [DRAIN, FORCED_DRAIN].concat();
    let installed = cluster.service_account_kubeconfig(&all).await;
    let port = installed.connect().await;
    assert_eq!(port.missing_rights(&all, &installed.at).await.expect("an answer"), []);
    for right in &all {
        call(&port, right).await.expect("with all rights");
        let rest: Vec<ClusterRight> = all.iter().filter(|other| *other != right).copied().collect();
        let without = cluster.service_account_kubeconfig(&rest).await;
        let poorer = without.connect().await;
        let error = call(&poorer, right).await.expect_err("a right is missing");
        let text = error.to_string();
        assert_eq!(error.class(), Class::Denied, "{text}");
        assert!(text.contains(&format!("cannot {} resource \"{}\"", right.verb, right.resource)), "{text}");
        assert!(text.contains(&without.user), "{text}");
        assert_eq!(poorer.missing_rights(&all, &without.at).await.expect("an answer"), [*right], "{text}");
    }
}
