//! What the API server's answers mean to us: the one place where a status becomes a [`ClusterError`].

use std::{error::Error, fmt::Write, time::Duration};

use kube::core::Status;

use crate::cluster::ClusterError;

/// When a 429 does not say how long. Priority and fairness sends it as a header that `kube` does not show, and always
/// means one second.
const PAUSE: Duration = Duration::from_secs(1);

/// Longer texts are cut: they go into the store and onto screens.
const MESSAGE_CHARS_MAX: usize = 1000;

/// `server` is named only where no answer came from it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is a library's; what it adds later is no certain answer either"
)]
pub(super) fn translate(what: String, server: &str, error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => from_status(what, &status),
        // No request went out, and waiting does not help: the token file is missing, or the login plugin fails.
        kube::Error::Auth(error) => ClusterError::Denied { what, message: cut(chain(&error)) },
        kube::Error::BuildRequest(error) => ClusterError::Refused { what, message: cut(chain(&error)) },
        // Whatever else it is, the request may have arrived and been carried out.
        other => ClusterError::Uncertain { what, detail: cut(format!("{server}: {}", chain(&other))) },
    }
}

pub(super) fn from_status(what: String, status: &Status) -> ClusterError {
    let message = cut(status.message.clone());
    let told = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
    let told = told.map(|seconds| Duration::from_secs(seconds.into()));
    match (status.code, told) {
        (429, told) => ClusterError::Throttled { what, retry_after: told.unwrap_or(PAUSE) },
        (503, Some(retry_after)) => ClusterError::Throttled { what, retry_after },
        (401 | 403, _) => ClusterError::Denied { what, message },
        (404, _) => ClusterError::Gone { what, message },
        (409, _) if status.is_already_exists() => ClusterError::Exists { what },
        (409, _) => ClusterError::Preempted { what, message },
        // A time-out in the server or on the way to it: etcd may have committed.
        (0 | 408 | 500.., _) => ClusterError::Uncertain { what, detail: format!("{} {message}", status.code) },
        (1..500, _) => ClusterError::Refused { what, message },
    }
}

/// An error and its causes, each once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Not longer than a message may be.
pub(super) fn cut(text: String) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Class;

    fn class(code: u16, reason: &str, retry_after_seconds: u32) -> Class {
        let body = serde_json::json!({
            "code": code, "reason": reason, "message": "as the server says",
            "details": { "retryAfterSeconds": retry_after_seconds },
        });
        let status: Status = serde_json::from_value(body).expect("a status");
        from_status("create pod a/b".into(), &status).class()
    }

    #[test]
    fn every_answer_has_its_class() {
        let throttled = |seconds| Class::Throttled { retry_after: Duration::from_secs(seconds) };
        for (code, reason, retry_after, expected) in [
            (400, "BadRequest", 0, Class::Refused),
            (401, "Unauthorized", 0, Class::Denied),
            (403, "Forbidden", 0, Class::Denied),
            (404, "NotFound", 0, Class::Gone),
            (408, "", 0, Class::Uncertain),
            (409, "AlreadyExists", 0, Class::Uncertain),
            (409, "Conflict", 0, Class::Preempted),
            (410, "Expired", 0, Class::Refused),
            (422, "Invalid", 0, Class::Refused),
            (429, "TooManyRequests", 7, throttled(7)),
            (429, "Failed to parse error data", 0, throttled(1)),
            (500, "InternalError", 0, Class::Uncertain),
            (503, "ServiceUnavailable", 3, throttled(3)),
            (503, "ServiceUnavailable", 0, Class::Uncertain),
            (504, "Timeout", 2, Class::Uncertain),
        ] {
            assert_eq!(class(code, reason, retry_after), expected, "{code} {reason}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("é".repeat(MESSAGE_CHARS_MAX + 5)).chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
