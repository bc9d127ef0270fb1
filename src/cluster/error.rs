//! What can go wrong with a call to the API server, and who can do something about it.

use std::time::Duration;

use crate::model::Class;

/// A failed call. `what` says which call, as in `create pod kamino-wf-clean/kwf-pool1-0123456789ab`.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the call, and the server's own words")]
pub enum ClusterError {
    /// 429 or 503 with a time to come back.
    #[error("{what}: the API server asks for a pause of {} s", retry_after.as_secs())]
    Throttled { what: String, retry_after: Duration },
    /// Time-out, reset, 5xx: it may have happened.
    #[error("{what}: no answer that says whether it happened ({detail})")]
    Uncertain { what: String, detail: String },
    /// 409 on create: there is one by that name already. Look whose it is.
    #[error("{what}: exists already")]
    Exists { what: String },
    /// 409 on change or delete: somebody else was quicker, or the precondition failed.
    #[error("{what}: changed by somebody else meanwhile ({message})")]
    Preempted { what: String, message: String },
    /// 401 or 403: a right is missing, or an admission rule says no.
    #[error("{what}: not allowed ({message})")]
    Denied { what: String, message: String },
    /// 404 of something that has to be there, such as the namespace.
    #[error("{what}: does not exist ({message})")]
    Gone { what: String, message: String },
    /// 422 and other 4xx: the same request can't succeed.
    #[error("{what}: refused by the API server ({message})")]
    Refused { what: String, message: String },
}

impl ClusterError {
    /// What the engine does next.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Throttled { retry_after, .. } => Class::Throttled { retry_after: *retry_after },
            Self::Uncertain { .. } | Self::Exists { .. } => Class::Uncertain,
            Self::Preempted { .. } => Class::Preempted,
            Self::Denied { .. } => Class::Denied,
            Self::Gone { .. } => Class::Gone,
            Self::Refused { .. } => Class::Refused,
        }
    }
}
