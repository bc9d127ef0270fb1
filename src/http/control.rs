//! The server's side: versioned JSON over HTTP on a unix socket.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        ConnectInfo, DefaultBodyLimit, FromRequestParts, Path as UrlPath, State,
        connect_info::Connected,
        rejection::{BytesRejection, PathRejection},
    },
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::IncomingStream,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixListener, sync::watch};

use super::{
    api::{
        self, AuditList, BODY_BYTES_MAX, BY_CHARS_MAX, By, Changed, Endpoint, IDEMPOTENCY_KEY, KEY_CHARS_MAX,
        LAST_EVENT_ID, Memory, Peer, REPLAYED, RunList, RunView, Start,
    },
    backup, events,
    failure::Failure,
    images,
    mutations::{Asked, Done, Mutations, What, audit_entries, audit_prefix, fingerprint},
    to_the_end::ToTheEnd,
};
use crate::{
    store::Revision,
    workflow::{Engine, Rejected, memory_of, memory_prefix},
};

#[derive(Debug, Clone)]
pub(super) struct Served {
    engine: Arc<Engine>,
    pub(super) mutations: Arc<Mutations>,
    pub(super) changes: ToTheEnd,
    shutdown: watch::Receiver<bool>,
}

/// Answers on a socket until `shutdown` says true or is dropped, and ends once all that were connected have their answers.
///
/// # Errors
/// None from a connection: those are the other side's.
pub async fn serve(listener: UnixListener, engine: Arc<Engine>, shutdown: watch::Receiver<bool>) -> io::Result<()> {
    let (changes, working) = ToTheEnd::new();
    let router = router(engine, changes, shutdown.clone()).into_make_service_with_connect_info::<Caller>();
    let serving = async move { axum::serve(listener, router).with_graceful_shutdown(stopped(shutdown)).await };
    let working = async {
        working.await;
        Ok(())
    };
    tokio::try_join!(serving, working).map(|_| ())
}

/// Returns when it is time to stop.
pub(super) async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // Whoever could say so and is gone has said so.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The API over an engine. Streams of events end with `shutdown`.
fn router(engine: Arc<Engine>, changes: ToTheEnd, shutdown: watch::Receiver<bool>) -> Router {
    let mutations = Arc::new(Mutations::new(Arc::clone(&engine)));
    Router::new()
        .route(api::LIST.path, get(list).post(start))
        .route(api::DESCRIBE.path, get(describe))
        .route(api::EVENTS.path, get(follow))
        .route(api::CANCEL.path, post(cancel))
        .route(api::RESUME.path, post(resume))
        .route(api::PAUSE.path, post(pause))
        .route(api::APPROVE.path, post(approve))
        .route(api::REJECT.path, post(reject))
        .route(api::ABANDON.path, post(abandon))
        .route(api::AUDIT.path, get(audit))
        .route(api::MEMORY.path, get(memory))
        .route(api::PRUNE.path, post(images::prune))
        .route(api::PIN.path, post(images::pin))
        .route(api::EXPORT.path, get(export))
        .fallback(async |uri: Uri| Failure::no_such_path(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Failure::no_such_method(method.as_str(), uri.path())
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Served { engine, mutations, changes, shutdown })
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
struct Caller(Option<Peer>);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().ok();
        Self(peer.map(|peer| Peer { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() }))
    }
}

/// What a change says about itself beside its body.
pub(super) struct Heads {
    pub(super) peer: Option<Peer>,
    key: Option<String>,
    expected: Option<Revision>,
    path: String,
}

impl<S: Sync> FromRequestParts<S> for Heads {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let json = text(&parts.headers, &CONTENT_TYPE)?.is_some_and(|given| {
            given.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
        if !json {
            return Err(Failure::not_json());
        }
        let key = text(&parts.headers, &HeaderName::from_static(IDEMPOTENCY_KEY))?;
        if let Some(key) = key
            && (key.is_empty() || key.len() > KEY_CHARS_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let message = format!("Idempotency-Key: expected 1 to {KEY_CHARS_MAX} visible ASCII characters");
            return Err(Failure::bad_request(message));
        }
        Ok(Self {
            peer: parts.extensions.get::<ConnectInfo<Caller>>().and_then(|ConnectInfo(Caller(peer))| *peer),
            key: key.map(str::to_owned),
            expected: text(&parts.headers, &IF_MATCH)?.map_or(Ok(None), revision)?,
            path: parts.uri.path().to_owned(),
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let mut all = headers.get_all(name).iter();
    let (first, more) = (all.next(), all.next());
    if more.is_some() {
        return Err(Failure::bad_request(format!("{name} is there twice")));
    }
    first.map(HeaderValue::to_str).transpose().map_err(|_| Failure::bad_request(format!("{name} is no plain text")))
}

/// `"12"` means only revision 12, `*` any.
fn revision(given: &str) -> Result<Option<Revision>, Failure> {
    if given == "*" {
        return Ok(None);
    }
    let number = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|it| it.parse().ok());
    let bad = || Failure::bad_request(format!("If-Match is {given}; expected one ETag of the run, as in \"12\", or *"));
    number.map(|number| Some(Revision(number))).ok_or_else(bad)
}

type Run = Result<UrlPath<String>, PathRejection>;
pub(super) type Body = Result<Bytes, BytesRejection>;

fn run(path: Run) -> Result<String, Failure> {
    path.map(|UrlPath(run)| run).map_err(|_| Failure::bad_request("the run in the path is no text in UTF-8"))
}

/// The body as what is expected here, in words where it is not.
pub(super) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is not what is expected here: {error}")))
}

pub(super) fn answered<Ask, Say: Serialize>(endpoint: &Endpoint<Ask, Say>, say: Say) -> Response {
    Json(endpoint.answer(say)).into_response()
}

fn etag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

async fn list(State(Served { engine, .. }): State<Served>) -> Result<Response, Failure> {
    Ok(answered(&api::LIST, RunList { runs: engine.summaries().await? }))
}

async fn describe(State(Served { engine, .. }): State<Served>, path: Run) -> Result<Response, Failure> {
    let id = engine.find(&run(path)?).await??;
    let view = RunView::of(engine.describe(id).await??);
    let etag = etag(view.revision);
    Ok(([(ETAG, etag)], answered(&api::DESCRIBE, view)).into_response())
}

async fn audit(State(Served { engine, .. }): State<Served>) -> Result<Response, Failure> {
    let entries = audit_entries(engine.facts(audit_prefix()).await?);
    Ok(answered(&api::AUDIT, AuditList { entries }))
}

async fn memory(State(Served { engine, .. }): State<Served>) -> Result<Response, Failure> {
    let facts = memory_of(engine.facts(memory_prefix()).await?);
    Ok(answered(&api::MEMORY, Memory { facts }))
}

async fn export(State(Served { engine, .. }): State<Served>) -> Result<Response, Failure> {
    Ok(backup::sent(engine.export(env!("CARGO_PKG_VERSION")).await?))
}

async fn follow(
    State(Served { engine, shutdown, .. }): State<Served>,
    path: Run,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let id = engine.find(&run(path)?).await??;
    let name = HeaderName::from_static(LAST_EVENT_ID);
    let after = match text(&headers, &name)? {
        None => 0,
        Some(given) => given.parse().map_err(|_| {
            Failure::bad_request(format!("Last-Event-ID is {given:?}; expected the number of an event, as in 12"))
        })?,
    };
    let news = engine.news(id, Revision(after), 0).await??;
    if after > news.revision.0 {
        // Not a newer run: a store that was restored from a copy.
        let summary = engine.describe(id).await??.summary;
        let (run, state) = (id.short(), summary.in_words());
        return Err(Rejected::Changed { run, expected: after, found: news.revision.0, state }.into());
    }
    Ok(events::stream(engine, id, Revision(after), shutdown).into_response())
}

async fn start(State(served): State<Served>, heads: Heads, body: Body) -> Result<Response, Failure> {
    if heads.expected.is_some() {
        return Err(Failure::bad_request("If-Match can't be met: a run that is to be started has no revision yet"));
    }
    let body = bytes(body)?;
    let Start { spec, by } = parsed(&body)?;
    let mut response = change(&served, &heads, by, What::Start(Box::new(spec)), &body).await?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

async fn cancel(served: State<Served>, path: Run, heads: Heads, body: Body) -> Result<Response, Failure> {
    word(served, path, heads, body, What::Cancel).await
}

async fn resume(served: State<Served>, path: Run, heads: Heads, body: Body) -> Result<Response, Failure> {
    word(served, path, heads, body, What::Resume).await
}

async fn pause(served: State<Served>, path: Run, heads: Heads, body: Body) -> Result<Response, Failure> {
    word(served, path, heads, body, What::Pause).await
}

async fn approve(served: State<Served>, path: Run, heads: Heads, body: Body) -> Result<Response, Failure> {
    word(served, path, heads, body, What::Approve).await
}

async fn reject(served: State<Served>, path: Run, heads: Heads, body: Body) -> Result<Response, Failure> {
    word(served, path, heads, body, What::Reject).await
}

async fn abandon(served: State<Served>, path: Run, heads: Heads, body: Body) -> Result<Response, Failure> {
    word(served, path, heads, body, What::Abandon).await
}

/// What somebody says to a run: their name is all that there is to the body.
async fn word(
    State(served): State<Served>,
    path: Run,
    heads: Heads,
    body: Body,
    what: fn(String) -> What,
) -> Result<Response, Failure> {
    let body = bytes(body)?;
    let By { by } = parsed(&body)?;
    change(&served, &heads, by, what(run(path)?), &body).await
}

pub(super) fn bytes(body: Body) -> Result<Bytes, Failure> {
    body.map_err(|error| Failure::body(error.status(), &error.body_text()))
}

/// Who asks, in a form that can be put on record.
pub(super) fn checked_by(by: &str) -> Result<(), Failure> {
    if by.is_empty() || by.chars().count() > BY_CHARS_MAX || by.chars().any(char::is_control) {
        return Err(Failure::bad_request(format!("by: expected 1 to {BY_CHARS_MAX} characters that say who asks")));
    }
    Ok(())
}

async fn change(served: &Served, heads: &Heads, by: String, what: What, body: &[u8]) -> Result<Response, Failure> {
    checked_by(&by)?;
    let asked = Asked {
        by,
        peer: heads.peer,
        key: heads.key.clone(),
        expected: heads.expected,
        fingerprint: fingerprint(&heads.path, heads.expected, body),
    };
    let mutations = Arc::clone(&served.mutations);
    let Done { answer, replayed } = served.changes.done(async move { mutations.ask(asked, what).await }).await??;
    let Changed { revision, ref run, .. } = answer;
    let location = HeaderValue::try_from(api::DESCRIBE.path_for(run)).ok();
    let mut response = ([(ETAG, etag(revision))], answered(&api::CANCEL, answer)).into_response();
    response.headers_mut().extend(location.map(|location| (LOCATION, location)));
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}
