//! The commands' side of the control socket.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::ErrorKind,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

use super::{
    api::{
        self, Answer, AuditEntry, AuditList, By, Changed, Endpoint, IDEMPOTENCY_KEY, Memory, Problem, ProblemKind,
        RunList, RunView, Start, VERSION, socket_path,
    },
    follow::Follow,
    images::{PinRequest, PruneRequest},
    pieces::Pieces,
};
use crate::workflow::{PinReport, PruneReport, RunSpec, Summary};

/// An answer comes from memory and the disk under the store.
const PATIENCE: Duration = Duration::from_secs(30);
/// One that costs looks at every scale set of a subscription, a handful of times.
const SLOW: Duration = Duration::from_mins(10);
/// A run's description with all its events.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Before a change is asked for again whose answer was lost: for a holder that was just replaced.
const AGAIN: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Whoever holds the store said no.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// It does not answer as it should.
    #[error("the process that holds the store does not answer on {}: {detail}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What was seen.
        detail: String,
    },
}

/// On which terms a run is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who asks.
    pub by: String,
    /// The same for the same request, so that asking again does nothing twice.
    pub key: String,
    /// Only if the run is at this revision.
    pub revision: Option<u64>,
}

/// A connection to whoever holds the store.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
}

/// What drives the other half of an exchange; it has to be polled.
pub(super) type Driving = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl Client {
    /// A client, if somebody answers on the store's socket.
    pub async fn connect(store: &Path) -> Result<Option<Self>, CallError> {
        let path = socket_path(store);
        match UnixStream::connect(&path).await {
            Ok(_) => Ok(Some(Self { path })),
            // No socket, or one that a killed process left behind.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(CallError::Broken { path, detail: error.to_string() }),
        }
    }

    /// All runs.
    pub async fn list(&self) -> Result<Vec<Summary>, CallError> {
        let RunList { runs } = self.get(&api::LIST, "").await?;
        Ok(runs)
    }

    /// One run.
    pub async fn describe(&self, run: &str) -> Result<RunView, CallError> {
        self.get(&api::DESCRIBE, run).await
    }

    /// Who asked for what, oldest first.
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, CallError> {
        let AuditList { entries } = self.get(&api::AUDIT, "").await?;
        Ok(entries)
    }

    /// What steps remember beyond their runs; nothing from a holder of an older release, which can't be asked for it.
    pub async fn memory(&self) -> Result<BTreeMap<String, Value>, CallError> {
        match self.get(&api::MEMORY, "").await {
            Ok(Memory { facts }) => Ok(facts),
            Err(CallError::Refused(problem)) if problem.kind == ProblemKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// Starts a run.
    pub async fn start(&self, spec: RunSpec, terms: &Terms) -> Result<Changed, CallError> {
        self.change(&api::START, "", &Start { spec, by: terms.by.clone() }, terms).await
    }

    /// Cancels a run.
    pub async fn cancel(&self, run: &str, terms: &Terms) -> Result<Changed, CallError> {
        self.change(&api::CANCEL, run, &By { by: terms.by.clone() }, terms).await
    }

    /// Resumes a run.
    pub async fn resume(&self, run: &str, terms: &Terms) -> Result<Changed, CallError> {
        self.change(&api::RESUME, run, &By { by: terms.by.clone() }, terms).await
    }

    /// Stops a run before its next stage.
    pub async fn pause(&self, run: &str, terms: &Terms) -> Result<Changed, CallError> {
        self.change(&api::PAUSE, run, &By { by: terms.by.clone() }, terms).await
    }

    /// Says yes to what a run asks.
    pub async fn approve(&self, run: &str, terms: &Terms) -> Result<Changed, CallError> {
        self.change(&api::APPROVE, run, &By { by: terms.by.clone() }, terms).await
    }

    /// Says no.
    pub async fn reject(&self, run: &str, terms: &Terms) -> Result<Changed, CallError> {
        self.change(&api::REJECT, run, &By { by: terms.by.clone() }, terms).await
    }

    /// Ends a run and leaves what it has made.
    pub async fn abandon(&self, run: &str, terms: &Terms) -> Result<Changed, CallError> {
        self.change(&api::ABANDON, run, &By { by: terms.by.clone() }, terms).await
    }

    /// Deletes old versions. Each costs whoever holds the store a look at all scale sets.
    pub async fn prune(&self, prune: &PruneRequest) -> Result<PruneReport, CallError> {
        self.post_slowly(&api::PRUNE, prune).await
    }

    /// Pins a version, or takes the pin away.
    pub async fn pin(&self, pin: &PinRequest) -> Result<PinReport, CallError> {
        self.post_slowly(&api::PIN, pin).await
    }

    /// Asks for what is answered only after a talk with Azure.
    async fn post_slowly<Ask: Serialize, Say: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Ask, Say>,
        ask: &Ask,
    ) -> Result<Say, CallError> {
        let body = Bytes::from(serde_json::to_vec(ask).map_err(|error| self.broken(&error))?);
        let request = Request::builder()
            .method(endpoint.method.clone())
            .uri(endpoint.path)
            .header(header::CONTENT_TYPE, "application/json");
        self.call_within(SLOW, request, body).await
    }

    /// A run's events after the one with this number, as they come.
    pub async fn follow(&self, run: &str, after: u64) -> Result<Follow, CallError> {
        let request = Request::builder()
            .method(api::EVENTS.method.clone())
            .uri(api::EVENTS.path_for(run))
            .header(header::ACCEPT, "text/event-stream")
            .header(api::LAST_EVENT_ID, after);
        let (response, driving) = self.patiently(self.exchange(request, Bytes::new())).await?;
        if response.status().is_success() {
            return Ok(Follow::new(self.path.clone(), response.into_body(), driving));
        }
        let (status, bytes) = self.patiently(self.collected(response, driving)).await?;
        Err(self.refusal(status, &bytes))
    }

    /// The whole store as lines of text, as they come.
    pub async fn export(&self) -> Result<Pieces, CallError> {
        let request = Request::builder().method(api::EXPORT.method.clone()).uri(api::EXPORT.path_for(""));
        let (response, driving) = self.patiently(self.exchange(request, Bytes::new())).await?;
        if response.status().is_success() {
            return Ok(Pieces::new(self.path.clone(), response.into_body(), driving));
        }
        let (status, bytes) = self.patiently(self.collected(response, driving)).await?;
        Err(self.refusal(status, &bytes))
    }

    async fn get<Say: DeserializeOwned>(&self, endpoint: &Endpoint<(), Say>, run: &str) -> Result<Say, CallError> {
        let request = Request::builder().method(endpoint.method.clone()).uri(endpoint.path_for(run));
        self.call(request, Bytes::new()).await
    }

    /// Asks once more with the same key if the answer was lost: it may have been done.
    async fn change<Ask: Serialize>(
        &self,
        endpoint: &Endpoint<Ask, Changed>,
        run: &str,
        ask: &Ask,
        terms: &Terms,
    ) -> Result<Changed, CallError> {
        let body = Bytes::from(serde_json::to_vec(ask).map_err(|error| self.broken(&error))?);
        let request = || {
            let request = Request::builder()
                .method(endpoint.method.clone())
                .uri(endpoint.path_for(run))
                .header(header::CONTENT_TYPE, "application/json")
                .header(IDEMPOTENCY_KEY, &terms.key);
            match terms.revision {
                Some(revision) => request.header(header::IF_MATCH, format!("\"{revision}\"")),
                None => request,
            }
        };
        match self.call(request(), body.clone()).await {
            Err(CallError::Broken { .. }) => {
                tokio::time::sleep(AGAIN).await;
                self.call(request(), body).await
            }
            answer => answer,
        }
    }

    async fn call<Say: DeserializeOwned>(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Say, CallError> {
        self.call_within(PATIENCE, request, body).await
    }

    async fn call_within<Say: DeserializeOwned>(
        &self,
        patience: Duration,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Say, CallError> {
        let exchange = async {
            let (response, driving) = self.exchange(request, body).await?;
            self.collected(response, driving).await
        };
        let (status, bytes) = self.within(patience, exchange).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        let answer: Answer<Say> = serde_json::from_slice(&bytes)
            .map_err(|error| self.broken(&format!("an answer of another release? {error}")))?;
        if answer.api_version != VERSION {
            return Err(self.broken(&format!("it speaks {}, not {VERSION}", answer.api_version)));
        }
        Ok(answer.it)
    }

    /// Sends a request, and returns with the head of its answer.
    async fn exchange(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Driving), CallError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.broken(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        let request =
            request.header(header::HOST, "kamino-wf").body(Full::new(body)).map_err(|error| self.broken(&error))?;
        let mut driving: Driving = Box::pin(connection);
        let mut answer = Box::pin(sender.send_request(request));
        let response = tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = &mut driving => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        };
        Ok((response.map_err(|error| self.broken(&error))?, driving))
    }

    async fn collected(
        &self,
        response: Response<Incoming>,
        mut driving: Driving,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let status = response.status();
        let mut all = Box::pin(Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect());
        let all = tokio::select! {
            biased;
            all = &mut all => all,
            // What has come is there to be read, whether or not it ended well.
            _ = &mut driving => all.await,
        };
        Ok((status, all.map_err(|error| self.broken(&error))?.to_bytes()))
    }

    async fn patiently<T>(&self, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        self.within(PATIENCE, work).await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        match timeout(patience, work).await {
            Ok(done) => done,
            Err(_) => Err(self.broken(&format!("no answer within {} s", patience.as_secs()))),
        }
    }

    fn refusal(&self, status: StatusCode, bytes: &[u8]) -> CallError {
        match serde_json::from_slice::<Problem>(bytes) {
            Ok(problem) => CallError::Refused(problem),
            Err(_) => self.broken(&format!("{status}: {}", String::from_utf8_lossy(bytes))),
        }
    }

    fn broken(&self, detail: &dyn Display) -> CallError {
        CallError::Broken { path: self.path.clone(), detail: detail.to_string() }
    }
}
