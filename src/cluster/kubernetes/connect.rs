//! From a kubeconfig or the pod's own token to a client, and the one way in which a request is sent.

use std::{error::Error, path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::error::{self, chain};
use crate::cluster::ClusterError;

/// For the TCP and TLS handshakes. A healthy API server answers in milliseconds; another region's in less than one second.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two pieces of an answer. The API server itself gives up on a request after 60 s.
const SILENCE: Duration = Duration::from_secs(20);
/// The same for a stream: `kube` pings it every minute, so after two without an answer nobody is there.
const STREAM_SILENCE: Duration = Duration::from_secs(150);
/// For a whole call. Five thousand nodes are 50 MB, which take some seconds.
const CALL: Duration = Duration::from_secs(45);

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// With the token that the kubelet puts into the pod, and renews.
    InCluster,
    /// With a kubeconfig.
    Kubeconfig {
        /// The file; without it `KUBECONFIG`, then `~/.kube/config`.
        path: Option<PathBuf>,
        /// The context; without it the file's current one.
        context: Option<String>,
    },
}

/// Why there is no client. Nothing was sent to a server yet.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the place, and the library's own words")]
pub enum ConnectError {
    /// The file can't be read, is no kubeconfig, or lacks the context.
    #[error("use kubeconfig {file}: {detail}")]
    Kubeconfig { file: String, detail: String },
    /// Not in a pod, or the pod has no token (`automountServiceAccountToken`).
    #[error("use the pod's own service account: {detail}")]
    InCluster { detail: String },
    /// Certificates or addresses that make no client.
    #[error("make a client for {server}: {detail}")]
    Client { server: String, detail: String },
}

/// The cluster port over the wire.
#[derive(Clone)]
pub struct KubernetesCluster {
    pub(super) client: Client,
    server: String,
}

impl KubernetesCluster {
    /// Makes a client; sends nothing. Within a tokio runtime only.
    pub async fn connect(access: &Access) -> Result<Self, ConnectError> {
        Self::connect_with(access, SILENCE).await
    }

    /// As [`KubernetesCluster::connect`], for answers that take as long as they take.
    pub(super) async fn connect_for_streams(access: &Access) -> Result<Self, ConnectError> {
        Self::connect_with(access, STREAM_SILENCE).await
    }

    async fn connect_with(access: &Access, silence: Duration) -> Result<Self, ConnectError> {
        let mut config = match access {
            Access::InCluster => {
                Config::incluster().map_err(|error| ConnectError::InCluster { detail: chain(&error) })?
            }
            Access::Kubeconfig { path, context } => from_kubeconfig(path.as_ref(), context.as_ref()).await?,
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(silence);
        config.write_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        // It would sleep inside a step, for minutes, and hide a 429: the engine waits, durably and visibly.
        config.default_retry = false;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config)
            .map_err(|error| ConnectError::Client { server: server.clone(), detail: chain(&error) })?;
        Ok(Self { client, server })
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends one request and waits for its answer, for [`CALL`] at most. `what` is how messages name it.
    pub(super) async fn call<T>(
        &self,
        what: impl Into<String>,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(CALL, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(error::translate(what.into(), &self.server, failure)),
            Err(_) => Err(ClusterError::Uncertain {
                what: what.into(),
                detail: format!("{} sent no answer within {} s", self.server, CALL.as_secs()),
            }),
        }
    }
}

async fn from_kubeconfig(path: Option<&PathBuf>, context: Option<&String>) -> Result<Config, ConnectError> {
    let bad = |error: &dyn Error| ConnectError::Kubeconfig {
        file: path.map_or_else(|| "KUBECONFIG or ~/.kube/config".to_owned(), |path| path.display().to_string()),
        detail: chain(error),
    };
    let kubeconfig = match path {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    }
    .map_err(|error| bad(&error))?;
    let options = KubeConfigOptions { context: context.cloned(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let access = Access::Kubeconfig { path: Some("/nowhere/kubeconfig".into()), context: None };
        let error = KubernetesCluster::connect(&access).await.err().expect("no such file");
        assert!(error.to_string().starts_with("use kubeconfig /nowhere/kubeconfig: "), "{error}");
    }

    #[tokio::test]
    async fn a_context_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n").expect("a file");
        let access = Access::Kubeconfig { path: Some(path), context: Some("elsewhere".into()) };
        let error = KubernetesCluster::connect(&access).await.err().expect("no such context");
        assert!(error.to_string().contains("elsewhere"), "{error}");
    }
}
