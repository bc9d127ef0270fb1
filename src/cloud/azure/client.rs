//! What every call to the resource manager goes through: limiter, token, one attempt, classification.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    arm::{Arm, Generated, NoReply, Ticket, header},
    classify, operation,
    places::{self, Places, place_of},
    project::{self, Unreadable},
    settings::{AzureSettings, AzureSetupError},
    transport::Reply,
};
use crate::{
    clock::Clock,
    cloud::{Accepted, Bucket, CallKind, CloudError, Limiter, Meter, Operation},
    model::{ResourceId, RunId},
};

/// More pages than any list of ours can have: a `nextLink` that leads in a circle comes to an end.
const PAGES_MAX: usize = 500;

/// Azure.
pub struct AzureCloud {
    pub(super) arm: Arc<Arm>,
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
    meter: Arc<Meter>,
    places: Places,
    offset: Mutex<Option<SignedDuration>>,
    heard: Mutex<Heard>,
}

/// The form of an answer, for whoever wants to know how Azure answers and not what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// Its status; 0 where there was no answer yet.
    pub status: u16,
    /// `Azure-AsyncOperation`, wherever it leads.
    pub operation: Option<Operation>,
    /// `Location`, wherever it leads.
    pub location: Option<Operation>,
}

impl Heard {
    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let url = |name| headers.get(name).map(|it| Operation(String::from_utf8_lossy(it.as_bytes()).into_owned()));
        Self { status: status.as_u16(), operation: url("azure-asyncoperation"), location: url("location") }
    }
}

impl fmt::Debug for AzureCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureCloud").field("arm", &self.arm).finish_non_exhaustive()
    }
}

/// One call, before it is known how to send it.
pub(super) struct Call<'a> {
    /// As in `GET snapshot kwf-pool1-0123456789ab`.
    pub(super) what: String,
    pub(super) bucket: Bucket,
    /// Of the one thing that it is about.
    place: Option<String>,
    pub(super) run: Option<RunId>,
    pub(super) body: Option<&'a Value>,
}

impl<'a> Call<'a> {
    pub(super) fn new(verb: &str, noun: &str, id: &ResourceId, kind: CallKind) -> Self {
        let what = format!("{verb} {noun} {}", id.names().join("/"));
        Self { place: Some(place_of(id)), ..Self::anywhere(what, Bucket::new(id.subscription(), kind)) }
    }

    /// About more than one thing, or none.
    pub(super) fn anywhere(what: String, bucket: Bucket) -> Self {
        Self { what, bucket, place: None, run: None, body: None }
    }

    /// What it is about, without the name of what it is about.
    fn kind(&self) -> &str {
        let named = self.what.rsplit_once(' ').map(|(kind, _)| kind).filter(|kind| kind.contains(' '));
        named.unwrap_or(&self.what)
    }

    pub(super) fn of(self, run: Option<RunId>) -> Self {
        Self { run, ..self }
    }

    pub(super) fn with(self, body: &'a Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// How a call is sent.
#[derive(Clone, Copy)]
pub(super) enum How<'a> {
    Generated(Generated<'a>),
    Url(&'a Uri),
    /// A change by a URL of ours.
    Own(&'a Method, &'a Uri),
}

impl AzureCloud {
    /// Connects nowhere yet: the first call fetches a token.
    pub fn new(
        settings: &AzureSettings,
        limiter: Arc<Limiter>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AzureSetupError> {
        let arm = Arc::new(Arm::new(settings)?);
        let (meter, places, offset, heard) = (Arc::default(), Places::default(), Mutex::default(), Mutex::default());
        Ok(Self { arm, limiter, clock, meter, places, offset, heard })
    }

    /// Counts what is sent.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Sends a call if its bucket is open; a 401 is tried once more with a fresh token, since nothing has happened.
    pub(super) async fn exchange(&self, call: &Call<'_>, how: How<'_>) -> Result<Reply, CloudError> {
        let mut reply = self.attempt(call, how).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            self.arm.forget_token().await;
            reply = self.attempt(call, how).await?;
        }
        let (bucket, now) = (self.bucket(call), self.clock.now());
        if reply.status.is_success() {
            if let Some(pause) = classify::spent(&classify::remaining(&reply.headers)) {
                self.limiter.close(&bucket, now + pause);
            }
            return Ok(reply);
        }
        let error = classify::failure(&call.what, &bucket, &reply, now);
        if let CloudError::Throttled { retry_after, .. } = &error {
            for bucket in classify::closed_by(&bucket, &reply) {
                self.limiter.close(&bucket, now + *retry_after);
            }
        }
        Err(error)
    }

    /// The call's bucket, in the region of what it is about as far as that is known.
    fn bucket(&self, call: &Call<'_>) -> Bucket {
        let known = || call.place.as_ref().and_then(|place| self.places.region(place));
        let region = call.bucket.region.clone().or_else(|| call.body.and_then(places::named)).or_else(known);
        call.bucket.clone().at(region)
    }

    /// Nothing goes out to a bucket that Azure has closed.
    fn open(&self, call: &Call<'_>, bucket: &Bucket) -> Result<(), CloudError> {
        let closed = self.limiter.wait(bucket, self.clock.now());
        closed.map_or(Ok(()), |retry_after| Err(throttled(call, bucket, retry_after)))
    }

    async fn attempt(&self, call: &Call<'_>, how: How<'_>) -> Result<Reply, CloudError> {
        let bucket = self.bucket(call);
        self.open(call, &bucket)?;
        // Slower while a ration runs low: all runs stand in one queue.
        match self.limiter.pace(&bucket, self.clock.now()) {
            Ok(wait) if wait.is_zero() => {}
            Ok(wait) => {
                tracing::debug!(what = %call.what, ?wait, "slower: little is left of its ration");
                tokio::time::sleep(wait).await;
                // Another may have met a 429 meanwhile.
                self.open(call, &bucket)?;
            }
            Err(retry_after) => return Err(throttled(call, &bucket, retry_after)),
        }
        let ticket = Ticket { attempt: self.clock.new_id(), run: call.run, body: call.body.cloned() };
        let attempt = ticket.attempt;
        let answer = match how {
            How::Generated(send) => self.arm.generated(ticket, send).await,
            How::Url(url) => self.arm.get(url, &ticket).await,
            How::Own(method, url) => self.arm.change(method, url, &ticket).await,
        };
        self.meter.count(call.kind(), answer.as_ref().map_or(0, |reply| reply.status.as_u16()));
        let reply = answer.map_err(|error| classify::silence(&call.what, &bucket, error))?;
        if let Some(place) = &call.place {
            self.places.learn(place, &reply.body);
        }
        // Where it is may be known only now: what is left there counts for the next one.
        let bucket = self.bucket(call);
        let left = classify::remaining(&reply.headers);
        self.limiter.learn(&bucket, &left, self.clock.now());
        self.meter.left(&bucket.subscription, &left);
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Heard::of(reply.status, &reply.headers);
        if let Some(ahead) = classify::ahead(&reply.headers, self.clock.now()) {
            *self.offset.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        let azure_request_id = header(&reply.headers, "x-ms-request-id").unwrap_or_default();
        tracing::debug!(what = %call.what, status = reply.status.as_u16(), %attempt, azure_request_id, "answered");
        Ok(reply)
    }

    /// Reads one thing; `None` when it does not exist.
    pub(super) async fn read(&self, call: &Call<'_>, how: How<'_>) -> Result<Option<Value>, CloudError> {
        match self.exchange(call, how).await {
            Ok(reply) => json(call, &reply).map(Some),
            // A whole group that is missing is told as such: it is more likely a mistake than an end.
            Err(CloudError::Gone { code, .. }) if !code.eq_ignore_ascii_case("ResourceGroupNotFound") => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn read_as<T>(
        &self,
        call: Call<'_>,
        send: Generated<'_>,
        project: fn(&Value) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, CloudError> {
        let found = self.read(&call, How::Generated(send)).await?;
        found.map(|json| project(&json).map_err(|error| unreadable(&call, &error))).transpose()
    }

    /// Reads a list to its end.
    pub(super) async fn list<T>(
        &self,
        call: Call<'_>,
        path_and_query: &str,
        project: fn(&Value) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, CloudError> {
        let silence = |error: NoReply| classify::silence(&call.what, &call.bucket, error);
        let mut url = self.arm.url(path_and_query).map_err(silence)?;
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let json = json(&call, &self.exchange(&call, How::Url(&url)).await?)?;
            let (items, next) = project::page(&json, project).map_err(|error| unreadable(&call, &error))?;
            all.extend(items);
            let Some(next) = next else { return Ok(all) };
            url = self.arm.own(next).map_err(silence)?;
        }
        Err(CloudError::Uncertain {
            what: call.what,
            detail: format!("the list does not end within {PAGES_MAX} pages"),
        })
    }

    /// By how much the resource manager's clock was ahead of ours at its newest answer.
    pub(super) fn offset(&self) -> Option<SignedDuration> {
        *self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The form of the newest answer.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks once for a change.
    pub(super) async fn begin(&self, call: Call<'_>, send: Generated<'_>) -> Result<Accepted, CloudError> {
        self.begin_as(call, How::Generated(send)).await
    }

    /// As [`AzureCloud::begin`], whichever way it is sent.
    pub(super) async fn begin_as(&self, call: Call<'_>, how: How<'_>) -> Result<Accepted, CloudError> {
        let reply = self.exchange(&call, how).await?;
        // What Azure's support asks for.
        let azure_request_id = header(&reply.headers, "x-ms-request-id").unwrap_or_default();
        tracing::info!(what = %call.what, status = reply.status.as_u16(), azure_request_id, "accepted by Azure");
        Ok(operation::accepted(&self.arm, &call.what, &reply, self.clock.now()))
    }

    /// Asks for a deletion. What is gone already is as good as accepted.
    pub(super) async fn begin_delete(&self, call: Call<'_>, send: Generated<'_>) -> Result<Accepted, CloudError> {
        match self.begin(call, send).await {
            Err(CloudError::Gone { .. }) => Ok(Accepted::default()),
            other => other,
        }
    }
}

fn throttled(call: &Call<'_>, bucket: &Bucket, retry_after: Duration) -> CloudError {
    CloudError::Throttled { what: call.what.clone(), bucket: bucket.clone(), retry_after }
}

fn json(call: &Call<'_>, reply: &Reply) -> Result<Value, CloudError> {
    serde_json::from_slice(&reply.body).map_err(|error| CloudError::Uncertain {
        what: call.what.clone(),
        detail: format!("{} with a body that is no JSON: {error}", reply.status),
    })
}

pub(super) fn unreadable(call: &Call<'_>, error: &Unreadable) -> CloudError {
    CloudError::Uncertain { what: call.what.clone(), detail: error.to_string() }
}
