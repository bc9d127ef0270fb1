//! The server's side: versioned JSON over HTTP on a unix socket.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use crate::{
    model::RunId,
    workflow::{Engine, EngineError, Rejected, RunSpec},
};

/// A request to start a run holds a few names and ids.
const BODY_MAX: usize = 64 * 1024;

/// The socket of the store in a directory.
#[must_use]
pub fn socket_path(store: &Path) -> PathBuf {
    store.join("control.sock")
}

/// Who asks, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// As in `alice@laptop`.
    pub by: String,
}

/// A request to start a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// What is asked for.
    pub spec: RunSpec,
    /// Who asks.
    pub by: String,
}

/// A run that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its full id.
    pub id: RunId,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `not-found`, `conflict` or `failed`.
    pub kind: String,
    /// In words, with the remedy.
    pub message: String,
}

/// The API over an engine.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/v1/runs", get(list).post(start))
        .route("/v1/runs/{run}", get(describe))
        .route("/v1/runs/{run}/cancel", post(cancel))
        .route("/v1/runs/{run}/resume", post(resume))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(engine)
}

struct Failure(StatusCode, Problem);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, Problem { kind: "failed".into(), message: error.to_string() })
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        let (status, kind) = match rejected {
            Rejected::NoSuchRun(_) | Rejected::Ambiguous { .. } => (StatusCode::NOT_FOUND, "not-found"),
            Rejected::Occupied { .. }
            | Rejected::Ended { .. }
            | Rejected::PastReturn { .. }
            | Rejected::NotStopped { .. }
            | Rejected::NeedsRelease { .. } => (StatusCode::CONFLICT, "conflict"),
        };
        Self(status, Problem { kind: kind.into(), message: rejected.to_string() })
    }
}

async fn list(State(engine): State<Arc<Engine>>) -> Result<Response, Failure> {
    Ok(Json(engine.summaries().await?).into_response())
}

async fn describe(State(engine): State<Arc<Engine>>, UrlPath(run): UrlPath<String>) -> Result<Response, Failure> {
    let id = engine.find(&run).await??;
    Ok(Json(engine.describe(id).await??).into_response())
}

async fn start(State(engine): State<Arc<Engine>>, Json(Start { spec, by }): Json<Start>) -> Result<Response, Failure> {
    let id = engine.start(spec, &by).await??;
    Ok((StatusCode::CREATED, Json(Started { id })).into_response())
}

async fn cancel(
    State(engine): State<Arc<Engine>>,
    UrlPath(run): UrlPath<String>,
    Json(By { by }): Json<By>,
) -> Result<Response, Failure> {
    let id = engine.find(&run).await??;
    engine.cancel(id, &by).await??;
    Ok(Json(Started { id }).into_response())
}

async fn resume(
    State(engine): State<Arc<Engine>>,
    UrlPath(run): UrlPath<String>,
    Json(By { by }): Json<By>,
) -> Result<Response, Failure> {
    let id = engine.find(&run).await??;
    engine.resume(id, &by).await??;
    Ok(Json(Started { id }).into_response())
}
