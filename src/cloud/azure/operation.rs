//! Operations: where an accepted request says that it is, and what that URL says of it.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    arm::{Arm, header},
    classify::{ErrorBody, retry_after},
    transport::Reply,
};
use crate::cloud::{Accepted, Operation, OperationState};

/// What an accepted request says. `Azure-AsyncOperation` comes before `Location`, as Microsoft's protocol demands; a URL on
/// another host is never asked, so it is not kept either: the resource tells.
pub(super) fn accepted(arm: &Arm, what: &str, reply: &Reply, now: Timestamp) -> Accepted {
    let url = header(&reply.headers, "azure-asyncoperation").or_else(|| header(&reply.headers, "location"));
    let operation = url.and_then(|url| match arm.own(url) {
        Ok(_) => Some(Operation(url.to_owned())),
        Err(error) => {
            tracing::warn!(what, %error, "the operation's URL is left aside");
            None
        }
    });
    Accepted {
        operation,
        retry_after: retry_after(&reply.headers, now),
        request_id: header(&reply.headers, "x-ms-request-id").map(ToOwned::to_owned),
        said: None,
    }
}

/// What an operation's URL says, if it answered with 2xx.
///
/// A status URL answers 200 with a body that has `status`, also when the operation has failed. A `Location` answers 202
/// while it runs, then 200 with the resource or nothing, or 204.
pub(super) fn state(reply: &Reply, now: Timestamp) -> OperationState {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    let running = || OperationState::Running(retry_after(&reply.headers, now));
    match body["status"].as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("succeeded") => OperationState::Succeeded,
        Some(word @ ("failed" | "canceled" | "cancelled")) => {
            let error = ErrorBody::of(&body["error"]).or_else(|| ErrorBody::of(&body["properties"]["error"]));
            let (code, message) = error.map_or_else(
                || (if word == "failed" { "Failed" } else { "Canceled" }.to_owned(), "no reason given".to_owned()),
                |error| (error.code, error.message),
            );
            OperationState::Failed { code, message }
        }
        Some(_) => running(),
        None if reply.status == StatusCode::ACCEPTED => running(),
        None => OperationState::Succeeded,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use serde_json::json;

    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        let headers = HeaderMap::from_iter([("retry-after".parse().expect("a name"), "7".parse().expect("a value"))]);
        Reply { status: StatusCode::from_u16(status).expect("a status"), headers, body: body.to_owned().into() }
    }

    fn of(status: u16, body: &str) -> OperationState {
        state(&reply(status, body), "2026-11-24T10:00:00Z".parse().expect("a time"))
    }

    #[test]
    fn only_three_words_are_an_end() {
        let running = OperationState::Running(Some(Duration::from_secs(7)));
        for word in ["InProgress", "Accepted", "Updating", "WordOf2027"] {
            assert_eq!(of(200, &json!({ "status": word }).to_string()), running, "{word}");
            assert_eq!(of(202, &json!({ "status": word }).to_string()), running, "{word}");
        }
        assert_eq!(of(200, r#"{"status":"succeeded","properties":{"output":{}}}"#), OperationState::Succeeded);
        for word in ["Failed", "Canceled", "Cancelled"] {
            let body = json!({ "status": word, "error": { "code": "OperationPreempted", "message": "m" } });
            let failed = OperationState::Failed { code: "OperationPreempted".into(), message: "m".into() };
            assert_eq!(of(200, &body.to_string()), failed, "{word}");
        }
        let bare = OperationState::Failed { code: "Failed".into(), message: "no reason given".into() };
        assert_eq!(of(200, r#"{"status":"Failed"}"#), bare);
    }

    #[test]
    fn a_location_goes_by_its_status() {
        assert_eq!(of(202, ""), OperationState::Running(Some(Duration::from_secs(7))));
        assert_eq!(of(204, ""), OperationState::Succeeded);
        assert_eq!(of(200, ""), OperationState::Succeeded);
        assert_eq!(of(200, r#"{"id":"/a","properties":{"provisioningState":"Updating"}}"#), OperationState::Succeeded);
    }
}
