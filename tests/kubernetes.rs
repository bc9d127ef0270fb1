//! The Kubernetes adapter against a real API server, with the rights of the product's own service account and no others.
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kamino_wf::{
    cluster::{CleaningSpec, CleaningView, Cluster, ClusterError, PodPhase, kubernetes::KubernetesCluster},
    model::{DiskId, NodeName, Profile, Region, RunId},
    permissions::KUBERNETES,
};

use support::{
    cluster::{TestCluster, shared},
    installed::{Installed, TestNode, until},
    kubelet::Kubelet,
};

const BINARY: &str = env!("CARGO_BIN_EXE_kamino-wf");

#[tokio::test]
async fn the_clusters_id_is_the_uid_of_kube_system() {
    let Some(cluster) = shared() else { return };
    let installed = cluster.service_account_kubeconfig(KUBERNETES).await;
    let id = installed.connect().await.cluster_id().await.expect("an id");
    assert_eq!(id.len(), 36, "a uid: {id}");
}
