//! What an answer that is no success means, in one table; what it says of waiting; and which buckets it closes.
//!
//! Sources for each row: ARM's and the compute provider's error codes as seen in issues and recordings; docs/ASSUMPTIONS.md
//! says which of them nobody has seen yet. The order matters: the first row that fits decides.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use serde_json::Value;

use super::{
    arm::{NoReply, header},
    credential::TokenError,
    redact::redact,
    transport::{Reply, SendError},
};
use crate::cloud::{Bucket, CallKind, CloudError, Left};

/// For a 429 that does not say: Azure's short windows are three minutes, and its buckets refill by the minute.
const THROTTLED_DEFAULT: Duration = Duration::from_mins(1);

/// The longest wait that is believed. Twenty minutes have been seen.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// What a failed call amounts to; each is a variant of [`CloudError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Uncertain,
    Busy,
    Preempted,
    Denied,
    Gone,
    Refused,
}

/// One row: it fits when the status is this one (0: any), one of the codes is this one (empty: any), and the message
/// holds these words, whatever their case (empty: any).
struct Row(u16, &'static str, &'static str, Verdict);

use Verdict::{Busy, Denied, Gone, Preempted, Refused, Uncertain};

/// 429, and 503 with a Retry-After, have been taken out before.
const TABLE: &[Row] = &[
    // Somebody else's change won. `OperationPreempted` comes with 409 here, with `Canceled` from an operation.
    Row(0, "OperationPreempted", "", Preempted),
    Row(0, "", "preempted by a more recent", Preempted),
    Row(0, "", "canceledandsupersededduetoanotheroperation", Preempted),
    // The target itself is going away: waiting would not help.
    Row(409, "", "marked for deletion", Gone),
    Row(400, "", "not an active virtual machine scale set vm", Gone),
    Row(400, "InstanceIdsListInstanceIdNotActiveVM", "", Gone),
    // A person has to unlock, allow, register or pay. Locks and policies come with 403 or 409.
    Row(0, "ScopeLocked", "", Denied),
    Row(0, "ResourceGroupLocked", "", Denied),
    Row(0, "RequestDisallowedByPolicy", "", Denied),
    Row(0, "DenyAssignmentAuthorizationFailed", "", Denied),
    Row(0, "LinkedAuthorizationFailed", "", Denied),
    Row(0, "AuthorizationFailed", "", Denied),
    Row(0, "MissingSubscriptionRegistration", "", Denied),
    Row(0, "ReadOnlyDisabledSubscription", "", Denied),
    Row(0, "QuotaExceeded", "", Denied),
    Row(0, "ResourceQuotaExceeded", "", Denied),
    Row(0, "OperationNotAllowed", "quota", Denied),
    Row(0, "SkuNotAvailable", "", Denied),
    // What somebody who lost the right to see a subscription is told.
    Row(404, "SubscriptionNotFound", "", Denied),
    // A cloud that does not have this API at all, as Azure Stack.
    Row(404, "InvalidResourceType", "", Refused),
    // Azure has no room right now.
    Row(0, "AllocationFailed", "", Busy),
    Row(0, "ZonalAllocationFailed", "", Busy),
    Row(0, "OverconstrainedAllocationRequest", "", Busy),
    Row(0, "OverconstrainedZonalAllocationRequest", "", Busy),
    // Another operation holds it. These come with 409, and now and then with 400.
    Row(0, "AnotherOperationInProgress", "", Busy),
    Row(0, "RetryableError", "", Busy),
    Row(0, "", "another operation is in progress", Busy),
    Row(0, "", "conflict with a concurrent request", Busy),
    Row(0, "", "too many requests on source", Busy),
    Row(409, "CannotDeleteResource", "", Busy),
    // 409 that no waiting will cure.
    Row(409, "PropertyChangeNotAllowed", "", Refused),
    Row(409, "DeleteGalleryImageVersionBlockedBeforeEndOfLife", "", Refused),
    // The provider's own trouble in the dress of a client error.
    Row(0, "InternalExecutionError", "", Uncertain),
    Row(0, "InternalOperationError", "", Uncertain),
    Row(0, "InternalServerError", "", Uncertain),
];

/// What the status alone says.
fn by_status(status: StatusCode) -> Verdict {
    match status.as_u16() {
        401 | 402 | 403 | 407 => Denied,
        404 | 410 => Gone,
        408 | 425 => Uncertain,
        409 | 423 => Busy,
        412 | 428 => Preempted,
        400..=499 => Refused,
        // 5xx; and 1xx, 3xx and odd 2xx, which ARM has no business to send: look.
        _ => Uncertain,
    }
}

/// Azure's error body, with or without the outer `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) code: String,
    pub(super) message: String,
    /// Codes and targets of `details`: a 429 names its policy there.
    details: Vec<String>,
}

impl ErrorBody {
    pub(super) fn parse(status: StatusCode, body: &[u8]) -> Self {
        let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let error = if parsed["error"].is_object() { &parsed["error"] } else { &parsed };
        Self::of(error).unwrap_or_else(|| Self {
            code: format!("HTTP {}", status.as_u16()),
            message: redact(String::from_utf8_lossy(body).trim()),
            details: Vec::new(),
        })
    }

    /// From the value of an `error`.
    pub(super) fn of(error: &Value) -> Option<Self> {
        let code = error["code"].as_str()?;
        let details = error["details"].as_array().into_iter().flatten();
        let details = details.flat_map(|detail| [detail["code"].as_str(), detail["target"].as_str()]).flatten();
        Some(Self {
            code: redact(code),
            message: redact(error["message"].as_str().unwrap_or_default()),
            details: details.map(redact).collect(),
        })
    }

    pub(super) fn has_code(&self, code: &str) -> bool {
        self.code.eq_ignore_ascii_case(code) || self.details.iter().any(|detail| detail.eq_ignore_ascii_case(code))
    }
}

/// What a call came to that was answered, but not with success.
pub(super) fn failure(what: &str, bucket: &Bucket, reply: &Reply, now: Timestamp) -> CloudError {
    let told = retry_after(&reply.headers, now);
    let status = reply.status;
    if status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::SERVICE_UNAVAILABLE && told.is_some()) {
        let retry_after = told.unwrap_or(THROTTLED_DEFAULT);
        return CloudError::Throttled { what: what.to_owned(), bucket: bucket.clone(), retry_after };
    }
    let body = ErrorBody::parse(status, &reply.body);
    let said = body.message.to_ascii_lowercase();
    let row = TABLE.iter().find(|Row(code, error, words, _)| {
        (*code == 0 || *code == status.as_u16()) && (error.is_empty() || body.has_code(error)) && said.contains(words)
    });
    let verdict = if status.is_server_error() { Uncertain } else { row.map_or_else(|| by_status(status), |row| row.3) };
    let (what, ErrorBody { code, message, .. }) = (what.to_owned(), body);
    match verdict {
        Uncertain => CloudError::Uncertain { what, detail: format!("{status}, {code}: {message}") },
        Busy => CloudError::Busy { what, code, message },
        Preempted => CloudError::Preempted { what, code, message },
        Denied => CloudError::Denied { what, code, message },
        Gone => CloudError::Gone { what, code, message },
        Refused => CloudError::Refused { what, code, message },
    }
}

/// What a call came to that was not answered.
pub(super) fn silence(what: &str, bucket: &Bucket, error: NoReply) -> CloudError {
    let what = what.to_owned();
    let detail = error.to_string();
    match error {
        NoReply::Token(TokenError::Denied(message)) => CloudError::Denied { what, code: "NoToken".into(), message },
        NoReply::Token(TokenError::Throttled(_)) => {
            CloudError::Throttled { what, bucket: bucket.clone(), retry_after: THROTTLED_DEFAULT }
        }
        NoReply::Token(TokenError::Unreachable(_))
        | NoReply::Send(SendError::NeverSent(_) | SendError::MaybeSent(_)) => CloudError::Uncertain { what, detail },
        NoReply::ForeignHost(_) => CloudError::Refused { what, code: "ForeignHost".into(), message: detail },
        NoReply::Unsendable(_) => CloudError::Refused { what, code: "Unsendable".into(), message: detail },
    }
}

/// The buckets that a 429 closes: its own, or all of one kind when it is ARM's own limit and not the provider's, wherever.
pub(super) fn closed_by(bucket: &Bucket, reply: &Reply) -> Vec<Bucket> {
    let body = ErrorBody::parse(reply.status, &reply.body);
    if !body.has_code("SubscriptionRequestsThrottled") {
        return vec![bucket.clone()];
    }
    let like = |kind: &CallKind| kind.is_write() == bucket.kind.is_write();
    let bucket = |kind| Bucket::new(bucket.subscription.as_str(), kind);
    CallKind::ALL.into_iter().filter(like).map(bucket).collect()
}

/// Azure's buckets refill by the minute: a quarter of one brings the next token in all that we know.
const SPENT_PAUSE: Duration = Duration::from_secs(15);

/// How long to stay away from a bucket whose last token this successful answer took, if it did.
pub(super) fn spent(left: &[Left]) -> Option<Duration> {
    left.iter().any(|left| left.count == 0).then_some(SPENT_PAUSE)
}

/// What a reply says is left of each ration: the provider's by the names of their policies, ARM's own by what comes after
/// `x-ms-ratelimit-remaining-`, as in `subscription-reads`.
///
/// The provider's header holds several policies, `Microsoft.Compute/<policy>;<left>`. Only rations count:
/// `VmssQueuedVMOperations;0` stands in every answer.
pub(super) fn remaining(headers: &HeaderMap) -> Vec<Left> {
    const PREFIX: &str = "x-ms-ratelimit-remaining-";
    let rationed = |name: &str| ["Min", "Maximum", "Resource"].iter().any(|end| name.ends_with(end));
    let number = |text: &str| text.trim().parse::<i64>().ok().map(|left| u64::try_from(left).unwrap_or(0));
    let mut all = Vec::new();
    for (name, value) in headers {
        let (Some(ration), Ok(value)) = (name.as_str().strip_prefix(PREFIX), value.to_str()) else { continue };
        if ration == "resource" {
            let policies = value.split(',').filter_map(|policy| policy.trim().rsplit_once(';'));
            all.extend(policies.filter(|(policy, _)| rationed(policy)).filter_map(|(policy, left)| {
                let policy = policy.rsplit('/').next().unwrap_or(policy).to_owned();
                Some(Left { policy, count: number(left)? })
            }));
        } else if let Some(count) = number(value) {
            all.push(Left { policy: ration.to_owned(), count });
        }
    }
    all
}

/// How long Azure asks to wait: milliseconds where it says so, else seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let milliseconds = ["retry-after-ms", "x-ms-retry-after-ms"]
        .into_iter()
        .find_map(|name| header(headers, name)?.trim().parse().ok())
        .map(Duration::from_millis);
    let wait = milliseconds.or_else(|| {
        let text = header(headers, "retry-after")?.trim();
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| {
            let date = rfc2822::parse(text).ok()?.timestamp();
            Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
        })
    });
    wait.map(|wait| wait.min(RETRY_AFTER_MAX))
}

/// By how much the sender's clock is ahead of ours, to a second.
pub(super) fn ahead(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let date = rfc2822::parse(header(headers, "date")?).ok()?.timestamp();
    Some(date.duration_since(now))
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
