//! The commands' side of the control socket.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::control::{By, Problem, Start, Started, socket_path};
use crate::workflow::{Description, RunSpec, Summary};

/// An answer comes from memory and the disk under the store.
const PATIENCE: Duration = Duration::from_secs(30);
/// A run's description with all its events.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Whoever holds the store said no.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// It does not answer as it should.
    #[error("the process that holds the store does not answer on {}: {detail}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What was seen.
        detail: String,
    },
}

/// A connection to whoever holds the store.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client, if somebody answers on the store's socket.
    pub async fn connect(store: &Path) -> Result<Option<Self>, CallError> {
        let path = socket_path(store);
        match UnixStream::connect(&path).await {
            Ok(_) => Ok(Some(Self { path })),
            // No socket, or one that a killed process left behind.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(CallError::Broken { path, detail: error.to_string() }),
        }
    }

    /// All runs.
    pub async fn list(&self) -> Result<Vec<Summary>, CallError> {
        self.call(Method::GET, "/v1/runs", &()).await
    }

    /// One run.
    pub async fn describe(&self, run: &str) -> Result<Description, CallError> {
        self.call(Method::GET, &format!("/v1/runs/{run}"), &()).await
    }

    /// Starts a run.
    pub async fn start(&self, spec: RunSpec, by: &str) -> Result<Started, CallError> {
        self.call(Method::POST, "/v1/runs", &Start { spec, by: by.to_owned() }).await
    }

    /// Cancels a run.
    pub async fn cancel(&self, run: &str, by: &str) -> Result<Started, CallError> {
        self.call(Method::POST, &format!("/v1/runs/{run}/cancel"), &By { by: by.to_owned() }).await
    }

    /// Resumes a run.
    pub async fn resume(&self, run: &str, by: &str) -> Result<Started, CallError> {
        self.call(Method::POST, &format!("/v1/runs/{run}/resume"), &By { by: by.to_owned() }).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let broken = |detail: String| CallError::Broken { path: self.path.clone(), detail };
        let exchange = async {
            let stream = UnixStream::connect(&self.path).await.map_err(|error| broken(error.to_string()))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| broken(error.to_string()))?;
            let body = if method == Method::GET {
                Bytes::new()
            } else {
                Bytes::from(serde_json::to_vec(body).map_err(|error| broken(error.to_string()))?)
            };
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "kamino-wf")
                .header("content-type", "application/json")
                .body(Full::new(body))
                .map_err(|error| broken(error.to_string()))?;
            let answer = async {
                let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
                let status = response.status();
                let bytes = Limited::new(response.into_body(), ANSWER_MAX)
                    .collect()
                    .await
                    .map_err(|error| broken(error.to_string()))?
                    .to_bytes();
                Ok::<(StatusCode, Bytes), CallError>((status, bytes))
            };
            tokio::pin!(answer);
            tokio::pin!(connection);
            tokio::select! {
                biased;
                answer = &mut answer => answer,
                ended = &mut connection => match ended {
                    Ok(()) => answer.await,
                    Err(error) => Err(broken(error.to_string())),
                },
            }
        };
        let (status, bytes) = timeout(PATIENCE, exchange)
            .await
            .map_err(|_| broken(format!("no answer within {} s", PATIENCE.as_secs())))??;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| broken(format!("an answer of another release? {error}")));
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(CallError::Refused(problem)),
            Err(_) => Err(broken(format!("{status}: {}", String::from_utf8_lossy(&bytes)))),
        }
    }
}
