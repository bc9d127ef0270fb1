//! Why a request was not done, as an HTTP answer: the one place where an error becomes a status.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::api::{BODY_BYTES_MAX, Problem, ProblemKind};
use crate::workflow::{EngineError, Rejected};

/// A request that was not done.
#[derive(Debug)]
pub(super) struct Failure(StatusCode, Problem);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(self.1)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let status = match problem.kind {
            ProblemKind::BadRequest => StatusCode::BAD_REQUEST,
            ProblemKind::NotFound => StatusCode::NOT_FOUND,
            ProblemKind::Conflict => StatusCode::CONFLICT,
            ProblemKind::Changed => StatusCode::PRECONDITION_FAILED,
            ProblemKind::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            ProblemKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, problem)
    }
}

impl Failure {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Problem::new(ProblemKind::BadRequest, message).into()
    }

    pub(super) fn no_such_path(path: &str) -> Self {
        Problem::new(ProblemKind::NotFound, format!("there is nothing at {path}; docs/api.md lists what there is"))
            .into()
    }

    pub(super) fn no_such_method(method: &str, path: &str) -> Self {
        let problem = Problem::new(ProblemKind::BadRequest, format!("{path} can't be asked with {method}"));
        Self(StatusCode::METHOD_NOT_ALLOWED, problem)
    }

    pub(super) fn not_json() -> Self {
        let problem = Problem::new(ProblemKind::BadRequest, "expected a body with content-type application/json");
        Self(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem)
    }

    /// A body that could not be read.
    pub(super) fn body(status: StatusCode, detail: &str) -> Self {
        let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
            format!("the body is larger than {} KiB; no request needs that", BODY_BYTES_MAX >> 10)
        } else {
            format!("the body can't be read: {detail}")
        };
        Self(status, Problem::new(ProblemKind::BadRequest, message))
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let mut problem = Problem::new(ProblemKind::Failed, error.to_string());
        if let EngineError::Store(store) = &error {
            problem.code = Some(store.code().to_owned());
        }
        problem.into()
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        let kind = match rejected {
            Rejected::NoSuchRun(_) | Rejected::Ambiguous { .. } => ProblemKind::NotFound,
            Rejected::Changed { .. } => ProblemKind::Changed,
            Rejected::KeyReused(_) => ProblemKind::KeyReused,
            Rejected::Occupied { .. }
            | Rejected::Ended { .. }
            | Rejected::PastReturn { .. }
            | Rejected::NotStopped { .. }
            | Rejected::Asks { .. }
            | Rejected::NotAsked { .. }
            | Rejected::NoPause { .. }
            | Rejected::NeedsRelease { .. } => ProblemKind::Conflict,
        };
        let mut problem = Problem::new(kind, rejected.to_string());
        if let Rejected::Changed { found, .. } = rejected {
            problem.revision = Some(found);
        }
        problem.into()
    }
}
