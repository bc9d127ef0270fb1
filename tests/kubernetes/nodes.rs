//! Nodes as ranking sees them.

use kamino_wf::{
    cluster::{Cluster, Node, kubernetes::KubernetesCluster},
    model::NodeName,
    permissions::KUBERNETES,
};

use crate::support::{cluster::shared, installed::TestNode};

async fn named(port: &KubernetesCluster, name: &str) -> Node {
    let nodes = port.nodes().await.expect("nodes");
    nodes.into_iter().find(|node| node.name.as_str() == name).expect("the node is listed")
}

#[tokio::test]
async fn the_clusters_id_is_the_uid_of_kube_system() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let id = installed.connect().await.cluster_id().await.expect("an id");
    assert_eq!(id.len(), 36, "a uid: {id}");
}

#[tokio::test]
async fn a_healthy_node_is_seen_as_it_is() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let mut given = TestNode::new("healthy");
    given.provider_id = given.provider_id.replace("azure://", "Azure://").replace("nodes", "MC_Nodes");
    given.lease_renewed = Some("2026-11-24T10:00:00.123456Z".parse().expect("a time"));
    cluster.add_node(&given).await;
    let port = installed.connect().await;
    let node = named(&port, "healthy").await;
    assert_eq!(Some(&node), port.node(&node.name).await.expect("the node").as_ref(), "one and all see the same");
    assert_eq!(node.provider_id, given.provider_id["Azure://".len()..], "without the scheme, in its own case");
    assert_eq!((node.boot_id.as_str(), node.system_uuid.as_str()), ("boot-of-healthy", "uuid-of-healthy"));
    assert_eq!((node.kernel.as_str(), node.kubelet.as_str()), ("6.8.0-1031-azure", "v1.36.3"));
    assert!(node.ready && node.linux && !node.control_plane && !node.unschedulable, "{node:?}");
    assert_eq!(node.ready_since, Some(given.ready_since));
    assert_eq!(node.lease_renewed, given.lease_renewed);
    assert_eq!(node.zone.as_deref(), Some("1"));
    assert_eq!(node.uid.len(), 36);
    assert!(node.created.is_some() && node.under_pressure.is_empty(), "{node:?}");
}

#[tokio::test]
async fn nodes_that_no_run_should_choose_say_why() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let label = |name: &str| (name.to_owned(), String::new());
    for node in [
        TestNode { ready: "Unknown", lease_renewed: None, ..TestNode::new("silent") },
        TestNode { ready: "False", ..TestNode::new("unready") },
        TestNode {
            conditions: vec![("DiskPressure", "True"), ("MemoryPressure", "False"), ("KernelDeadlock", "True")],
            ..TestNode::new("pressed")
        },
        TestNode { labels: [label("node-role.kubernetes.io/control-plane")].into(), ..TestNode::new("control") },
        TestNode { labels: [label("node-role.kubernetes.io/master")].into(), ..TestNode::new("master") },
        TestNode { unschedulable: true, provider_id: String::new(), ..TestNode::new("cordoned") },
    ] {
        cluster.add_node(&node).await;
    }
    let port = installed.connect().await;
    let silent = named(&port, "silent").await;
    assert!(!silent.ready && silent.lease_renewed.is_none(), "{silent:?}");
    assert!(!named(&port, "unready").await.ready);
    assert_eq!(named(&port, "pressed").await.under_pressure, ["DiskPressure", "KernelDeadlock"]);
    let (control, master) = (named(&port, "control").await, named(&port, "master").await);
    assert!(control.control_plane && master.control_plane && control.zone.is_none(), "{control:?} {master:?}");
    let cordoned = named(&port, "cordoned").await;
    assert!(cordoned.unschedulable && cordoned.provider_id.is_empty(), "{cordoned:?}");
    let nobody = NodeName::parse("nobody").expect("a name");
    assert_eq!(port.node(&nobody).await.expect("an answer"), None);
}
