//! The metadata service of a simulated machine: plain http on loopback, tokens that the face accepts.
//!
//! As strict as the real one: no answer without `Metadata: true`, none to forwarded requests, none to an identity that the
//! machine does not have; numbers are texts [Microsoft's "How to use managed identities to acquire an access token"].

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{handle::State, identity::parameters};

/// The path of tokens.
const TOKEN: &str = "/metadata/identity/oauth2/token";

/// The identities of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// It has one of its own.
    pub system: bool,
    /// Client id and resource id of each that was assigned to it.
    pub assigned: Vec<(String, String)>,
}

struct Inner {
    state: Arc<State>,
    machine: Machine,
    lifetime: Duration,
    /// Statuses to answer with instead, one a request.
    troubles: Mutex<VecDeque<u16>>,
    requests: Mutex<Vec<String>>,
}

/// A service that answers until it is dropped.
pub struct MetadataService {
    address: SocketAddr,
    inner: Arc<Inner>,
    _server: JoinSet<()>,
}

impl MetadataService {
    pub(super) async fn serve(state: Arc<State>, machine: Machine, lifetime: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let inner =
            Arc::new(Inner { state, machine, lifetime, troubles: Mutex::default(), requests: Mutex::default() });
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&inner)));
        Ok(Self { address, inner, _server: server })
    }

    /// Where it is, as a setting says it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests are answered with these statuses, one each.
    pub fn trouble(&self, statuses: &[u16]) {
        self.inner.troubles.lock().unwrap_or_else(PoisonError::into_inner).extend(statuses);
    }

    /// What came in so far: method, path, query and the header that it wants.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let inner = Arc::clone(&inner);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let response = answer(&inner, request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }
    }
}

fn answer(inner: &Inner, request: Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let (head, _) = request.into_parts();
    let metadata = head.headers.get("metadata").and_then(|value| value.to_str().ok()).unwrap_or("none");
    let line = format!("{} {} (metadata: {metadata})", head.method, head.uri);
    inner.requests.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    let trouble = inner.troubles.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (status, body) = match trouble {
        Some(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, json!({ "error": "trouble", "error_description": "as planted" }))
        }
        None if head.uri.path() != TOKEN => (StatusCode::NOT_FOUND, json!({ "error": "Not found" })),
        None => inner.token(&head.method, &head.headers, head.uri.query().unwrap_or_default()),
    };
    let mut response = Response::new(Full::new(bytes::Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

impl Inner {
    fn token(&self, method: &Method, headers: &HeaderMap, query: &str) -> (StatusCode, Value) {
        let refused =
            |text: &str| (StatusCode::BAD_REQUEST, json!({ "error": "invalid_request", "error_description": text }));
        if method != Method::GET {
            return refused("Only GET is supported");
        }
        if headers.get("metadata").is_none_or(|value| !value.as_bytes().eq_ignore_ascii_case(b"true")) {
            return refused("Required metadata header not specified");
        }
        if headers.contains_key("x-forwarded-for") {
            return refused("Forwarded requests are refused");
        }
        let query = parameters(query);
        let Some(resource) = query.get("resource").filter(|_| query.contains_key("api-version")) else {
            return refused("Required query variable is missing");
        };
        let assigned = &self.machine.assigned;
        let client = match (query.get("client_id"), query.get("msi_res_id").or_else(|| query.get("mi_res_id"))) {
            (Some(id), _) => assigned.iter().find(|(client, _)| client == id).map(|(client, _)| client.as_str()),
            (None, Some(id)) => assigned
                .iter()
                .find(|(_, resource)| resource.eq_ignore_ascii_case(id))
                .map(|(client, _)| client.as_str()),
            (None, None) if self.machine.system => Some("system"),
            (None, None) if assigned.len() > 1 => {
                return refused("Multiple user assigned identities exist, please specify the clientId / resourceId");
            }
            (None, None) => assigned.first().map(|(client, _)| client.as_str()),
        };
        let Some(client) = client else { return refused("Identity not found") };
        let now = self.state.clock.now();
        let token = self.state.identity.mint(self.state.clock.new_id(), now);
        // By the machine's wall clock, as the library reads it.
        let seconds = self.lifetime.as_secs();
        let wall = crate::clock::Clock::now(&crate::clock::SystemClock).as_second();
        let until = wall.saturating_add(i64::try_from(seconds).unwrap_or(0));
        let body = json!({
            "access_token": token,
            "client_id": client,
            "expires_in": seconds.to_string(),
            "expires_on": until.to_string(),
            "ext_expires_in": seconds.to_string(),
            "not_before": wall.to_string(),
            "resource": resource,
            "token_type": "Bearer",
        });
        (StatusCode::OK, body)
    }
}
