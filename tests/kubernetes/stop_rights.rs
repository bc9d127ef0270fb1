//! Every right of `capture: stop` is needed: without it, the call that it is for is denied in words that name it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, Node};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{Anchor, Cluster, ClusterError, NodeChange, NodeNote, PodRef, kubernetes::KubernetesCluster},
    model::{Class, NodeName},
    permissions::{ClusterRight, DRAIN, FORCED_DRAIN, REBOOTSTRAP, STOP},
};
use kube::{Api, api::ListParams};

use crate::support::{
    cluster::{TestCluster, shared},
    installed::{Installed, TestNode},
};

const NODE: &str = "stopped";

/// Writes what is there already, over the version that it has now.
async fn write_node(cluster: &TestCluster, port: &KubernetesCluster) -> Result<(), ClusterError> {
    let nodes: Api<Node> = Api::all(cluster.admin().await);
    let version = nodes.get(NODE).await.expect("the node").metadata.resource_version.expect("a version");
    let name = NodeName::parse(NODE).expect("a name");
    let change = NodeChange { name, version, unschedulable: false, annotations: BTreeMap::new() };
    match port.change_node(&change).await {
        // The node controller was quicker; we were let through.
        Err(ClusterError::Preempted { .. }) => Ok(()),
        other => other,
    }
}

/// Tells the same twice, and looks for it as `kubectl describe node` does.
async fn tell_twice(cluster: &TestCluster, port: &KubernetesCluster) -> Result<(), ClusterError> {
    let client = cluster.admin().await;
    let node = Api::<Node>::all(client.clone()).get(NODE).await.expect("the node");
    let (run, uid) = (SystemClock.new_run(), node.metadata.uid.expect("a uid"));
    let told = NodeNote {
        node: NodeName::parse(NODE).expect("a name"),
        node_uid: uid.clone(),
        run,
        reason: "SwitchedOff",
        words: "the machine is off".into(),
        warning: false,
        at: SystemClock.now(),
    };
    port.tell(&told).await?;
    port.tell(&told).await?;
    let of_node =
        format!("involvedObject.kind=Node,involvedObject.uid={uid},involvedObject.name={NODE},source=kamino-wf");
    let events: Api<Event> = Api::namespaced(client, "default");
    let found = events.list(&ListParams::default().fields(&of_node)).await.expect("a list").items;
    let ours: Vec<_> =
        found.iter().filter(|it| it.metadata.name.as_ref().is_some_and(|it| it.contains(&run.short()))).collect();
    let [event] = ours[..] else { panic!("{found:?}") };
    let told = (event.reason.as_deref(), event.message.as_deref(), event.type_.as_deref());
    assert_eq!(told, (Some("SwitchedOff"), Some("the machine is off"), Some("Normal")));
    Ok(())
}

/// What a donor's token would be bound to, if there were one.
fn nowhere(space: &str) -> Anchor {
    let run = SystemClock.new_run();
    Anchor {
        name: format!("kwf-pool1-{run}"),
        namespace: space.to_owned(),
        run,
        node: NodeName::parse(NODE).expect("a name"),
        node_uid: "x".into(),
    }
}

/// The one call that needs this right.
async fn call(
    cluster: &TestCluster,
    installed: &Installed,
    port: &KubernetesCluster,
    right: &ClusterRight,
) -> Result<(), ClusterError> {
    let nobody = PodRef { namespace: "default".into(), name: "nobody".into(), uid: "x".into() };
    let (space, run) = (&installed.at.clean_namespace, SystemClock.new_run());
    match (right.resource, right.verb) {
        ("nodes", "patch") => write_node(cluster, port).await,
        ("events", "create") => tell_twice(cluster, port).await,
        ("secrets", "create") => port.has_anchor(&nowhere(space)).await.map(drop),
        ("secrets", "delete") => port.delete_anchor(&nowhere(space)).await,
        ("configmaps", "get") => port.proof(space, run).await.map(drop),
        ("configmaps", "patch") => port.forget_proof(space, run).await,
        ("pods", "list") => port.pods_on(&NodeName::parse("nowhere").expect("a name")).await.map(drop),
        ("pods", "get") => port.pod("default", "nobody").await.map(drop),
        ("pods/eviction", "create") => port.evict(&nobody).await.map(drop),
        ("daemonsets", "get") => port.daemon_set_exists("default", "nobody").await.map(drop),
        ("poddisruptionbudgets", "list") => port.budgets("default").await.map(drop),
        ("pods", "delete") => port.delete_gently(&nobody).await,
        (resource, verb) => panic!("src/permissions lists {verb} on {resource}: which call needs it?"),
    }
}

#[tokio::test]
async fn without_any_one_right_its_call_is_denied_and_the_self_check_knew() {
    let Some(cluster) = shared() else { return };
    cluster.add_node(&TestNode::new(NODE)).await;
    let all = [STOP, DRAIN, FORCED_DRAIN, REBOOTSTRAP].concat();
    let installed = cluster.service_account_kubeconfig(&all).await;
    let port = installed.connect().await;
    assert_eq!(port.missing_rights(&all, &installed.at).await.expect("an answer"), []);
    for right in &all {
        call(cluster, &installed, &port, right).await.expect("with all rights");
        let rest: Vec<ClusterRight> = all.iter().filter(|other| *other != right).copied().collect();
        let without = cluster.service_account_kubeconfig(&rest).await;
        let poorer = without.connect().await;
        let error = call(cluster, &without, &poorer, right).await.expect_err("a right is missing");
        let text = error.to_string();
        assert_eq!(error.class(), Class::Denied, "{text}");
        assert!(text.contains(&format!("cannot {} resource \"{}\"", right.verb, right.resource)), "{text}");
        assert!(text.contains(&without.user), "{text}");
        assert_eq!(poorer.missing_rights(&all, &without.at).await.expect("an answer"), [*right], "{text}");
    }
}
