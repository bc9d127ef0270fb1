//! Each row of the table, as Azure has been seen to say it.

use bytes::Bytes;
use http::HeaderName;
use serde_json::json;

use super::*;
use crate::model::Class;

fn now() -> Timestamp {
    "2026-11-24T10:00:00Z".parse().expect("a time")
}

fn bucket(kind: CallKind) -> Bucket {
    Bucket::new("s", kind)
}

fn reply(status: u16, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Reply {
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value")))
        .collect();
    Reply { status: StatusCode::from_u16(status).expect("a status"), headers, body: body.into() }
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    reply(status, &[], json!({ "error": { "code": code, "message": message } }).to_string())
}

fn class(reply: &Reply) -> Class {
    failure("PUT version v", &bucket(CallKind::VersionWrite), reply, now()).class()
}

#[test]
fn each_answer_has_its_class() {
    let preempted_409 = "Operation was preempted by a more recent operation.";
    let another = "Conflict: another operation is in progress on this resource";
    let rows: &[(u16, &str, &str, Class)] = &[
        (500, "InternalServerError", "An error occurred", Class::Uncertain),
        (500, "ScopeLocked", "even so: a 5xx does not say whether it happened", Class::Uncertain),
        (502, "BadGateway", "", Class::Uncertain),
        (503, "ServiceUnavailable", "no Retry-After", Class::Uncertain),
        (504, "GatewayTimeout", "", Class::Uncertain),
        (408, "RequestTimeout", "", Class::Uncertain),
        (400, "InternalOperationError", "", Class::Uncertain),
        (409, "InternalExecutionError", "An internal execution error occurred.", Class::Uncertain),
        (302, "Found", "", Class::Uncertain),
        (409, "Conflict", "The request failed due to conflict with a concurrent request.", Class::Busy),
        (409, "AnotherOperationInProgress", "Another operation on this or dependent resource", Class::Busy),
        (409, "OperationNotAllowed", another, Class::Busy),
        (400, "OperationNotAllowed", another, Class::Busy),
        (409, "OperationNotAllowed", "Disk d is attached to VM v.", Class::Busy),
        (409, "CannotDeleteResource", "Can not delete resource before nested resources are deleted.", Class::Busy),
        (409, "AllocationFailed", "", Class::Busy),
        (400, "ZonalAllocationFailed", "", Class::Busy),
        (400, "BadRequest", "Too many requests on source", Class::Busy),
        (409, "NeverHeardOf", "", Class::Busy),
        (412, "PreconditionFailed", "The etag does not match.", Class::Preempted),
        (409, "OperationPreempted", preempted_409, Class::Preempted),
        (409, "Conflict", "CanceledAndSupersededDueToAnotherOperation", Class::Preempted),
        (401, "ExpiredAuthenticationToken", "", Class::Denied),
        (403, "AuthorizationFailed", "does not have authorization", Class::Denied),
        (403, "LinkedAuthorizationFailed", "", Class::Denied),
        (403, "DenyAssignmentAuthorizationFailed", "nrgLockdown", Class::Denied),
        (403, "RequestDisallowedByPolicy", "", Class::Denied),
        (409, "ScopeLocked", "The scope is locked", Class::Denied),
        (409, "ResourceGroupLocked", "", Class::Denied),
        (409, "MissingSubscriptionRegistration", "", Class::Denied),
        (403, "QuotaExceeded", "", Class::Denied),
        (409, "OperationNotAllowed", "Operation could not be completed, exceeding approved Cores Quota", Class::Denied),
        (409, "SkuNotAvailable", "", Class::Denied),
        (404, "SubscriptionNotFound", "", Class::Denied),
        (404, "InvalidResourceType", "", Class::Refused),
        (404, "ResourceNotFound", "", Class::Gone),
        (404, "ParentResourceNotFound", "", Class::Gone),
        (410, "Gone", "", Class::Gone),
        (409, "OperationNotAllowed", "cannot be done since the VM Scale Set is marked for deletion.", Class::Gone),
        (
            400,
            "InvalidParameter",
            "The provided instanceId 7 is not an active Virtual Machine Scale Set VM instanceId.",
            Class::Gone,
        ),
        (400, "InstanceIdsListInstanceIdNotActiveVM", "", Class::Gone),
        (400, "InvalidParameter", "", Class::Refused),
        (400, "BadRequest", "", Class::Refused),
        (400, "MissingApiVersionParameter", "", Class::Refused),
        (405, "MethodNotAllowed", "", Class::Refused),
        (409, "PropertyChangeNotAllowed", "Changing property 'customData' is not allowed.", Class::Refused),
        (409, "DeleteGalleryImageVersionBlockedBeforeEndOfLife", "", Class::Refused),
    ];
    for (status, code, message, expected) in rows {
        assert_eq!(class(&error(*status, code, message)), *expected, "{status} {code} {message}");
    }
}

#[test]
fn every_row_of_the_table_can_be_reached() {
    for (at, Row(status, code, words, verdict)) in TABLE.iter().enumerate() {
        let status = if *status == 0 { 409 } else { *status };
        let code = if code.is_empty() { "NeverHeardOf" } else { code };
        let expected = match verdict {
            Uncertain => Class::Uncertain,
            Busy => Class::Busy,
            Preempted => Class::Preempted,
            Denied => Class::Denied,
            Gone => Class::Gone,
            Refused => Class::Refused,
        };
        assert_eq!(class(&error(status, code, words)), expected, "row {at}");
    }
}

#[test]
fn throttling_goes_by_the_status_and_waits_as_told() {
    let body = json!({
        "code": "OperationNotAllowed",
        "message": "The server rejected the request because too many requests have been received for this subscription.",
        "details": [{ "code": "TooManyRequests", "target": "HighCostGetVMScaleSet3Min", "message": "{}" }],
    });
    for body in [body.clone(), json!({ "error": body })] {
        let reply = reply(429, &[("retry-after", "1200")], body.to_string());
        assert_eq!(class(&reply), Class::Throttled { retry_after: Duration::from_mins(20) });
    }
    let told = |status, headers: &[(&'static str, &str)]| class(&reply(status, headers, ""));
    let wait = |retry_after| Class::Throttled { retry_after };
    assert_eq!(told(429, &[]), wait(THROTTLED_DEFAULT));
    assert_eq!(told(503, &[("retry-after", "7")]), wait(Duration::from_secs(7)));
    assert_eq!(told(429, &[("retry-after", "7"), ("x-ms-retry-after-ms", "70")]), wait(Duration::from_millis(70)));
    assert_eq!(told(429, &[("retry-after-ms", "5"), ("x-ms-retry-after-ms", "70")]), wait(Duration::from_millis(5)));
    assert_eq!(told(429, &[("retry-after", "Tue, 24 Nov 2026 10:02:00 GMT")]), wait(Duration::from_mins(2)));
    assert_eq!(told(429, &[("retry-after", "Tue, 24 Nov 2026 09:00:00 GMT")]), wait(Duration::ZERO));
    assert_eq!(told(429, &[("retry-after", "soon")]), wait(THROTTLED_DEFAULT));
    assert_eq!(told(429, &[("retry-after", "99999999999")]), wait(RETRY_AFTER_MAX));
}

#[test]
fn arms_own_limit_closes_every_bucket_of_its_kind() {
    let arm = error(429, "SubscriptionRequestsThrottled", "Please try again after '30' seconds.");
    let closed = closed_by(&bucket(CallKind::VersionWrite), &arm);
    assert!(closed.len() > 3 && closed.iter().all(|bucket| bucket.kind.is_write()), "{closed:?}");
    let closed = closed_by(&bucket(CallKind::DiskRead), &arm);
    assert!(closed.len() > 3 && closed.iter().all(|bucket| !bucket.kind.is_write()), "{closed:?}");
    let compute = error(429, "OperationNotAllowed", "too many requests");
    assert_eq!(closed_by(&bucket(CallKind::DiskRead), &compute), [bucket(CallKind::DiskRead)]);
}

#[test]
fn a_body_that_is_no_json_is_told_short_and_without_secrets() {
    let page = format!("<html>proxy refused https://h/a?sig=abc {}</html>", "x".repeat(5000));
    let text = failure("GET disk d", &bucket(CallKind::DiskRead), &reply(403, &[], page), now()).to_string();
    assert!(text.contains("HTTP 403") && !text.contains("abc") && text.len() < 1200, "{text}");
}

#[test]
fn silence_is_uncertain_and_a_missing_token_is_a_persons_business() {
    let class = |error| silence("w", &bucket(CallKind::DiskWrite), error).class();
    assert_eq!(class(NoReply::Send(SendError::MaybeSent("reset".into()))), Class::Uncertain);
    assert_eq!(class(NoReply::Send(SendError::NeverSent("refused".into()))), Class::Uncertain);
    assert_eq!(class(NoReply::Token(TokenError::Unreachable("down".into()))), Class::Uncertain);
    assert_eq!(class(NoReply::Token(TokenError::Denied("AADSTS7000215".into()))), Class::Denied);
    assert_eq!(class(NoReply::ForeignHost("evil.example".into())), Class::Refused);
    let throttled = class(NoReply::Token(TokenError::Throttled("429".into())));
    assert_eq!(throttled, Class::Throttled { retry_after: THROTTLED_DEFAULT });
}

#[test]
fn the_last_token_of_a_ration_is_a_reason_to_pause_and_other_zeros_are_not() {
    let spent = |value| {
        let reply = reply(200, &[("x-ms-ratelimit-remaining-resource", value)], "");
        spent(&remaining(&reply.headers))
    };
    assert_eq!(spent("Microsoft.Compute/VmssQueuedVMOperations;0,Microsoft.Compute/GetVMScaleSet3Min;190"), None);
    assert_eq!(
        spent("Microsoft.Compute/GetVMScaleSet3Min;190,Microsoft.Compute/GetVMScaleSet30Min;0"),
        Some(SPENT_PAUSE)
    );
    assert_eq!(spent("nonsense"), None);
}

#[test]
fn every_ration_of_a_reply_is_read() {
    let headers = [
        (
            "x-ms-ratelimit-remaining-resource",
            "Microsoft.Compute/DeleteVMScaleSetSubscriptionMaximum;524, Microsoft.Compute/VmssQueuedVMOperations;0",
        ),
        ("x-ms-ratelimit-remaining-subscription-writes", "199"),
        ("x-ms-ratelimit-remaining-subscription-global-writes", "2999"),
        ("x-ms-ratelimit-remaining-tenant-reads", "many"),
        ("x-ms-request-charge", "2"),
    ];
    let left: Vec<String> =
        remaining(&reply(200, &headers, "").headers).iter().map(|it| format!("{} {}", it.policy, it.count)).collect();
    assert_eq!(
        left,
        ["DeleteVMScaleSetSubscriptionMaximum 524", "subscription-writes 199", "subscription-global-writes 2999",]
    );
}
