//! What a donor's cleaner leaves in the cluster, sent.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cluster::kubernetes::{Access, KubernetesCluster};

/// Sends it, and waits for the answer. Outside of any runtime: the cleaner has none.
///
/// # Errors
/// Without a runtime, with a kubeconfig that can't be used, or in the words of the API server: it may be sent again.
pub fn leave_proof(kubeconfig: PathBuf, namespace: &str, name: &str, key: &str, words: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("failed to start a runtime")?.block_on(async {
        let access = Access::Kubeconfig { path: Some(kubeconfig), context: None };
        let cluster = KubernetesCluster::connect(&access).await?;
        Ok(cluster.leave_proof(namespace, name, key, words).await?)
    })
}
