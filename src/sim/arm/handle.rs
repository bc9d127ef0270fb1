//! One request: who asks, what of, what the world says, and how Azure would put it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use jiff::{SignedDuration, fmt::rfc2822::DateTimePrinter};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    faults::{Fault, Faults},
    identity::{Identity, parameters},
    operations::Operations,
    ration::Ration,
    request_log::{Effect, Logged, RequestLog},
    target::Target,
};
use crate::{
    clock::{Clock, SystemClock},
    cloud::{CloudError, Limiter},
    sim::{Shared, SimCloud},
};

/// The longest request that is read.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// The connection is cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated network cut the connection")]
pub(super) struct Cut;

/// What goes on the wire, if anything does.
pub(super) type Answered = Result<Response<Full<Bytes>>, Cut>;

/// All that a request needs.
pub(super) struct State {
    pub(super) world: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) base: String,
    pub(super) page_size: usize,
    pub(super) poll_after: Duration,
    pub(super) way: Duration,
    pub(super) log: RequestLog,
    pub(super) faults: Faults,
    pub(super) identity: Identity,
    pub(super) operations: Operations,
    pub(super) ration: Ration,
    pub(super) running: Mutex<JoinSet<()>>,
    /// Role assignments of whoever asks, as the permissions API shows them.
    pub(super) granted: Mutex<Vec<Value>>,
    /// By how much its clock is ahead of this machine's, in its answers' dates.
    pub(super) ahead: Mutex<SignedDuration>,
}

/// An answer before it is put on the wire.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, headers: Vec::new(), body }
    }

    pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self { status, headers: Vec::new(), body: json!({ "error": { "code": code, "message": message } }) }
    }
}

/// A request in parts.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path_and_query: &'a str,
    pub(super) query: BTreeMap<String, String>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Value,
}

impl State {
    /// Reads a request to its end, and has it done by a task of its own: what has arrived is done, whether or not
    /// somebody still waits for the answer.
    pub(super) async fn take(self: Arc<Self>, request: Request<Incoming>) -> Answered {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| Cut)?.to_bytes();
        let (tell, answer) = oneshot::channel();
        {
            let state = Arc::clone(&self);
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            while running.try_join_next().is_some() {}
            running.spawn(async move {
                // Nobody may be there to hear it.
                let _ = tell.send(state.handle(head, body).await);
            });
        }
        answer.await.unwrap_or(Err(Cut))
    }

    async fn handle(&self, head: Parts, body: Bytes) -> Answered {
        let path = head.uri.path().to_owned();
        if Identity::owns(&path) {
            match self.faults.strike(head.method.as_str(), &path) {
                Some(Fault::CutBefore | Fault::CutAfter) => return Err(Cut),
                Some(Fault::Answer { status, headers, body }) => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    return Ok(wire(&Answer { status, headers, body }));
                }
                Some(Fault::ForeignHost(_)) | None => {}
            }
            let (id, now) = (self.clock.new_id(), self.clock.now());
            let (status, body) = self.identity.answer(&path, &body, &self.base, id, now);
            return Ok(wire(&Answer { status, headers: Vec::new(), body }));
        }

        let query = parameters(head.uri.query().unwrap_or_default());
        let asked = Asked {
            method: &head.method,
            path_and_query: head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str),
            query,
            headers: &head.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        };
        let target = Target::parse(&path);
        tokio::time::sleep(self.way / 2).await;
        let answer = self.through_faults(&asked, &path, target.as_ref()).await;
        self.log(&asked, &path, target.as_ref(), answer.as_ref().ok());
        tokio::time::sleep(self.way / 2).await;
        let mut answer = answer?;
        answer.headers.push(("x-ms-request-id", self.clock.new_id().hyphenated().to_string()));
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&(SystemClock.now() + ahead)) {
            answer.headers.push(("date", date));
        }
        let left = self.ration.left().unwrap_or_else(|| "Microsoft.Compute/GetVMScaleSet3Min;197".into());
        let left = format!("{left},Microsoft.Compute/VmssQueuedVMOperations;0");
        answer.headers.push(("x-ms-ratelimit-remaining-resource", left));
        Ok(wire(&answer))
    }

    async fn through_faults(&self, asked: &Asked<'_>, path: &str, target: Option<&Target>) -> Result<Answer, Cut> {
        let fault = self.faults.strike(asked.method.as_str(), path);
        match fault {
            Some(Fault::CutBefore) => return Err(Cut),
            Some(Fault::Answer { status, headers, body }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Ok(Answer { status, headers, body });
            }
            Some(Fault::CutAfter | Fault::ForeignHost(_)) | None => {}
        }
        let answer = match self.gate(asked, target).or_else(|| self.ration.take()) {
            Some(refusal) => refusal,
            None => match self.dispatch(asked, target).await {
                Ok(answer) => answer,
                Err(error) => failure(&error)?,
            },
        };
        match fault {
            Some(Fault::CutAfter) => Err(Cut),
            Some(Fault::ForeignHost(host)) => Ok(pointing_at(&host, &self.base, answer)),
            Some(Fault::CutBefore | Fault::Answer { .. }) | None => Ok(answer),
        }
    }

    /// Who may ask at all, and how.
    fn gate(&self, asked: &Asked<'_>, target: Option<&Target>) -> Option<Answer> {
        if !self.identity.admits(asked.headers, self.clock.now()) {
            let message = "The access token is missing, unknown or expired.";
            return Some(Answer::error(StatusCode::UNAUTHORIZED, "ExpiredAuthenticationToken", message));
        }
        let Some(version) = asked.query.get("api-version") else {
            let message = "The api-version query parameter (?api-version=) is required for all requests.";
            return Some(Answer::error(StatusCode::BAD_REQUEST, "MissingApiVersionParameter", message));
        };
        let expected = target.and_then(Target::api_version)?;
        (version != expected).then(|| {
            let message = format!("No registered resource provider found for API version '{version}'.");
            Answer::error(StatusCode::BAD_REQUEST, "NoRegisteredProviderFound", &message)
        })
    }
}

impl State {
    /// The world's port with an empty memory: whoever comes too early is seen by the world itself.
    pub(super) fn port(&self) -> SimCloud {
        SimCloud::new(Arc::clone(&self.world), Arc::new(Limiter::default()))
    }

    fn log(&self, asked: &Asked<'_>, path: &str, target: Option<&Target>, answer: Option<&Answer>) {
        let header = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let signed = matches!(target, Some(Target::Operation(_)));
        let others = asked.query.iter().filter(|(name, _)| !signed && *name != "api-version");
        let effect = match (asked.method, answer) {
            (&Method::GET, _) => Effect::Read,
            (_, None) => Effect::Unknown,
            (_, Some(answer)) if answer.status.is_success() => Effect::Accepted,
            (_, Some(_)) => Effect::Refused,
        };
        self.log.write(Logged {
            seq: 0,
            time: self.clock.now(),
            method: asked.method.to_string(),
            path: path.to_owned(),
            query: others.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"),
            api_version: asked.query.get("api-version").cloned(),
            client_request_id: header("x-ms-client-request-id"),
            correlation_id: header("x-ms-correlation-request-id"),
            if_match: header("if-match"),
            status: answer.map(|answer| answer.status.as_u16()),
            effect,
            body: Some(asked.body.clone()).filter(|body| !body.is_null()),
        });
    }
}

/// The world's refusal as Azure would put it; not knowing is a cut connection.
fn failure(error: &CloudError) -> Result<Answer, Cut> {
    match error {
        CloudError::Throttled { retry_after, bucket, .. } => {
            let message =
                "The server rejected the request because too many requests have been received for this subscription.";
            let target = format!("{}3Min", bucket.kind.as_str());
            let error = json!({
                "code": "OperationNotAllowed",
                "message": message,
                "details": [{ "code": "TooManyRequests", "target": target, "message": "{}" }],
            });
            // Azure sends both forms.
            let bare = retry_after.as_millis() % 2 == 1;
            let body = if bare { error } else { json!({ "error": error }) };
            Ok(Answer { status: StatusCode::TOO_MANY_REQUESTS, headers: pause(*retry_after), body })
        }
        CloudError::Uncertain { .. } => Err(Cut),
        CloudError::Busy { code, message, .. } => Ok(Answer::error(StatusCode::CONFLICT, code, message)),
        CloudError::Preempted { code, message, .. } => {
            Ok(Answer::error(StatusCode::PRECONDITION_FAILED, code, message))
        }
        CloudError::Denied { code, message, .. } => Ok(Answer::error(StatusCode::FORBIDDEN, code, message)),
        CloudError::Gone { code, message, .. } => Ok(Answer::error(StatusCode::NOT_FOUND, code, message)),
        CloudError::Refused { code, message, .. } => Ok(Answer::error(StatusCode::BAD_REQUEST, code, message)),
    }
}

/// `Retry-After` in whole seconds, and exactly for those who read on.
pub(super) fn pause(wait: Duration) -> Vec<(&'static str, String)> {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    vec![("retry-after", seconds.to_string()), ("x-ms-retry-after-ms", wait.as_millis().to_string())]
}

/// The answer with every URL of ours on another host.
fn pointing_at(host: &str, base: &str, mut answer: Answer) -> Answer {
    let elsewhere = format!("https://{host}");
    for (_, value) in &mut answer.headers {
        *value = value.replace(base, &elsewhere);
    }
    if let Some(link) = answer.body["nextLink"].as_str() {
        answer.body["nextLink"] = json!(link.replace(base, &elsewhere));
    }
    answer
}

fn wire(answer: &Answer) -> Response<Full<Bytes>> {
    let body = if answer.body.is_null() { Bytes::new() } else { Bytes::from(answer.body.to_string()) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    for (name, value) in &answer.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}
