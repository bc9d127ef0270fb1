//! Nodes as ranking sees them.

use std::time::Duration;

use kamino_wf::{
    clock::{Clock as _, SystemClock},
    cluster::{Cluster, Node, kubernetes::KubernetesCluster},
    model::{DonorChoice, Members, NodeName, ScaleSetId},
    permissions::KUBERNETES,
    policy::ranking::{Boots, KURED_IN_PROGRESS, KURED_NEEDED, Question, Rules, Signal, rank},
};

use crate::support::{
    cluster::shared,
    installed::{TestNode, until},
};

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
    let alone = port.node(&node.name).await.expect("an answer").expect("the node");
    // Controllers take the taint of a new node away and add labels of old names, before or between the two looks.
    let plain = |node: &Node| {
        let labels = node.labels.iter().filter(|(name, _)| !name.starts_with("beta."));
        let labels = labels.map(|(name, value)| (name.clone(), value.clone())).collect();
        Node { seen: None, taints: vec![], labels, ..node.clone() }
    };
    assert_eq!(plain(&node), plain(&alone), "one and all see the same");
    assert_eq!(node.conditions, ["Ready"]);
    let ahead = node.seen.expect("the server says its time").duration_since(SystemClock.now()).as_secs();
    assert!((-5..=1).contains(&ahead), "the server runs on this machine: {ahead} s");
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
        TestNode { taints: vec![("ToBeDeletedByClusterAutoscaler", "NoSchedule")], ..TestNode::new("leaving") },
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
    assert_eq!(named(&port, "pressed").await.conditions, ["Ready", "DiskPressure", "KernelDeadlock"]);
    // What controllers say in taints, and whoever else; a node that is well has none in the end.
    until("the taints", async || {
        let has = async |name: &str, key: &str| named(&port, name).await.taints.iter().any(|taint| taint == key);
        has("silent", "node.kubernetes.io/unreachable").await
            && has("unready", "node.kubernetes.io/not-ready").await
            && has("cordoned", "node.kubernetes.io/unschedulable").await
            && named(&port, "leaving").await.taints == ["ToBeDeletedByClusterAutoscaler"]
    })
    .await;
    let nobody = NodeName::parse("nobody").expect("a name");
    assert_eq!(port.node(&nobody).await.expect("an answer"), None);
}

/// The whole way from an annotated Node to the donor: kured's own marks, read from the server and ranked.
#[tokio::test]
async fn nodes_that_kured_has_marked_are_ranked_by_its_marks() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let scale_set = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/nodes/providers/\
                     Microsoft.Compute/virtualMachineScaleSets/marked";
    let marked = |number: u8, marks: &[(&str, &str)]| TestNode {
        provider_id: format!("azure://{scale_set}/virtualMachines/{number}"),
        annotations: marks.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..TestNode::new(&format!("marked-{number}"))
    };
    let (early, late) = ("2026-11-02T01:00:00+02:00", "2026-11-02T00:30:00Z");
    for node in [
        marked(0, &[(KURED_NEEDED, early)]),
        marked(1, &[(KURED_NEEDED, late)]),
        marked(2, &[(KURED_NEEDED, late), (KURED_IN_PROGRESS, late)]),
        marked(3, &[]),
    ] {
        cluster.add_node(&node).await;
    }
    let port = installed.connect().await;
    let members = Members::of(&ScaleSetId::parse(scale_set).expect("an id"), []);
    let rules = Rules { signal: Signal::Kured, ..Rules::default() };
    let ranked = async || {
        let nodes = port.nodes().await.expect("nodes");
        let now = nodes.iter().filter_map(|node| node.seen).max().expect("the server's time");
        let question = Question {
            members: &members,
            choice: &DonorChoice::Pool,
            min_ready: Duration::from_hours(1),
            rules: &rules,
            boots: &Boots::default(),
            taken_out: None,
            now,
        };
        rank(&nodes, &question)
    };
    // A new node is not ready until the controllers have taken that taint away.
    let settled = async || !ranked().await.verdicts.iter().any(|verdict| verdict.reason.contains("taint"));
    until("the taints to go", settled).await;
    let ranking = ranked().await;
    let order: Vec<&str> = ranking.verdicts.iter().map(|it| it.node.as_str()).collect();
    assert_eq!(order, ["marked-1", "marked-0", "marked-2", "marked-3"], "as times, not as texts: {ranking:#?}");
    assert!(ranking.verdicts[2].reason.contains("kured is about to reboot it"), "{:?}", ranking.verdicts[2]);
    assert!(ranking.verdicts[3].reason.contains("kured has never marked it"), "{:?}", ranking.verdicts[3]);
}
