//! What a donor's cleaner asks of the cluster, sent. Outside of any runtime: the cleaner has none.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::cluster::{
    ClusterError,
    kubernetes::{Access, KubernetesCluster},
};

/// Leaves a proof, and waits for the answer.
///
/// # Errors
/// Without a runtime, with a kubeconfig that can't be used, or in the words of the API server: it may be sent again.
pub fn leave_proof(kubeconfig: PathBuf, namespace: &str, name: &str, key: &str, words: &str) -> Result<()> {
    asked(kubeconfig, async |cluster| cluster.leave_proof(namespace, name, key, words).await)
}

/// A token that lives as long as a Secret, and for how long at most.
///
/// # Errors
/// As [`leave_proof`].
pub fn bound_token(kubeconfig: PathBuf, namespace: &str, secret: &str) -> Result<(String, Duration)> {
    asked(kubeconfig, async |cluster| cluster.bound_token(namespace, secret).await)
}

/// Whether whoever the file names may ask for a node's certificate, and gets it.
///
/// # Errors
/// As [`leave_proof`], or it may not.
pub fn may_bootstrap(kubeconfig: PathBuf) -> Result<()> {
    let lacking = asked(kubeconfig, async |cluster| cluster.lacking_to_bootstrap().await)?;
    anyhow::ensure!(lacking.is_empty(), "it may not {}", lacking.join(", nor "));
    Ok(())
}

fn asked<T>(kubeconfig: PathBuf, ask: impl AsyncFnOnce(&KubernetesCluster) -> Result<T, ClusterError>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("failed to start a runtime")?.block_on(async {
        let access = Access::Kubeconfig { path: Some(kubeconfig), context: None };
        let cluster = KubernetesCluster::connect(&access).await?;
        Ok(ask(&cluster).await?)
    })
}
