//! What can go wrong with a call to Azure, and who can do something about it.

use std::time::Duration;

use super::Bucket;
use crate::model::Class;

/// A failed call. `what` says which call, as in `GET snapshot kwf-pool1-0123456789ab`.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// 429, or a 503 that says when to come back; or our own limiter, which remembers one.
    #[error("{what}: throttled by Azure ({bucket}), not before {} s have passed", retry_after.as_secs())]
    Throttled {
        /// The call.
        what: String,
        /// What is rationed.
        bucket: Bucket,
        /// How long to wait.
        retry_after: Duration,
    },
    /// Time-out, reset, 5xx, an answer that can't be read: it may have happened.
    #[error("{what}: no answer that says whether it happened ({detail})")]
    Uncertain {
        /// The call.
        what: String,
        /// What was seen.
        detail: String,
    },
    /// 409: another operation holds the resource.
    #[error("{what}: another operation is in progress ({code}: {message})")]
    Busy {
        /// The call.
        what: String,
        /// Azure's code.
        code: String,
        /// Azure's words.
        message: String,
    },
    /// 412, `OperationPreempted`: somebody else changed it.
    #[error("{what}: changed by somebody else meanwhile ({code}: {message})")]
    Preempted {
        /// The call.
        what: String,
        /// Azure's code.
        code: String,
        /// Azure's words.
        message: String,
    },
    /// 401, 403, a lock, a policy: a person has to allow it.
    #[error("{what}: not allowed ({code}: {message})")]
    Denied {
        /// The call.
        what: String,
        /// Azure's code.
        code: String,
        /// Azure's words.
        message: String,
    },
    /// What the call is about, or its parent, does not exist.
    #[error("{what}: does not exist ({code}: {message})")]
    Gone {
        /// The call.
        what: String,
        /// Azure's code.
        code: String,
        /// Azure's words.
        message: String,
    },
    /// Any other 4xx: the same request can't succeed.
    #[error("{what}: refused by Azure ({code}: {message})")]
    Refused {
        /// The call.
        what: String,
        /// Azure's code.
        code: String,
        /// Azure's words.
        message: String,
    },
}

impl CloudError {
    /// What the engine does next.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Throttled { retry_after, .. } => Class::Throttled { retry_after: *retry_after },
            Self::Uncertain { .. } => Class::Uncertain,
            Self::Busy { .. } => Class::Busy,
            Self::Preempted { .. } => Class::Preempted,
            Self::Denied { .. } => Class::Denied,
            Self::Gone { .. } => Class::Gone,
            Self::Refused { .. } => Class::Refused,
        }
    }
}
