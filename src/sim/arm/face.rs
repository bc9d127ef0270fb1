//! The running server.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{
    faults::{Faults, Injection},
    handle::State,
    identity::Identity,
    metadata::{Machine, MetadataService},
    operations::Operations,
    ration::Ration,
    request_log::{Logged, RequestLog},
    tls,
};
use crate::{clock::Clock, permissions::in_azure, sim::Shared};

/// Where the face listens and what it writes.
#[derive(Debug, Clone)]
pub struct ArmOptions {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address by which clients know it; that on which it listens by default. Both are in its certificate.
    pub known_as: Option<String>,
    /// Where the certificate of its authority is written, for the adapter's `ca_bundle`.
    pub ca_path: PathBuf,
    /// Where requests are logged, as JSON lines.
    pub log_path: Option<PathBuf>,
    /// How long its tokens are good. `azure_identity` fetches a new one in the last five minutes.
    pub token_lifetime: Duration,
    /// How many items a page of a list holds.
    pub page_size: usize,
    /// What `Retry-After` says of an accepted request and of a running operation; whole seconds are rounded up, and
    /// `x-ms-retry-after-ms` says it exactly.
    pub poll_after: Duration,
    /// How long a request and its answer are on their way, half of it each; nothing by default. Azure's take 50 to 500 ms.
    pub way: Duration,
}

impl ArmOptions {
    /// On a free port, with short pauses.
    #[must_use]
    pub fn new(ca_path: &Path) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            known_as: None,
            ca_path: ca_path.to_owned(),
            log_path: None,
            token_lifetime: Duration::from_hours(1),
            page_size: 2,
            poll_after: Duration::from_millis(20),
            way: Duration::ZERO,
        }
    }
}

/// A server that answers until it is dropped.
pub struct ArmFace {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinSet<()>,
}

impl ArmFace {
    /// Starts to listen.
    pub async fn serve(world: Arc<Shared>, clock: Arc<dyn Clock>, options: &ArmOptions) -> io::Result<Self> {
        if !options.listen.ip().is_loopback() {
            return Err(io::Error::other(format!("{} is no loopback address", options.listen)));
        }
        let acceptor = tls::acceptor(&options.ca_path, options.known_as.as_deref())?;
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            world,
            clock,
            base: match &options.known_as {
                Some(name) => format!("https://{name}:{}", address.port()),
                None => format!("https://{address}"),
            },
            page_size: options.page_size.max(1),
            poll_after: options.poll_after,
            way: options.way,
            log: RequestLog::new(options.log_path.as_deref())?,
            faults: Faults::default(),
            identity: Identity::new(options.token_lifetime),
            operations: Operations::default(),
            ration: Ration::default(),
            running: Mutex::default(),
            granted: Mutex::new(all_rights()),
            ahead: Mutex::default(),
        });
        let mut server = JoinSet::new();
        server.spawn(accept(listener, acceptor, Arc::clone(&state)));
        Ok(Self { address, state, server })
    }

    /// Its base URL: resource manager and authority in one.
    #[must_use]
    pub fn url(&self) -> String {
        self.state.base.clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Plants a trouble of the wire.
    pub fn plant(&self, injection: Injection) {
        self.state.faults.plant(injection);
    }

    /// What came in so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Logged> {
        self.state.log.entries()
    }

    /// From now on, the permissions API shows these role assignments, whatever the scope. At first they are all that the list of
    /// rights asks for.
    pub fn grant(&self, assignments: Vec<Value>) {
        *self.state.granted.lock().unwrap_or_else(PoisonError::into_inner) = assignments;
    }

    /// The role assignments that the permissions API shows.
    #[must_use]
    pub fn granted(&self) -> Vec<Value> {
        self.state.granted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on, its answers are dated by a clock that is ahead of this machine's.
    pub fn set_clock_ahead(&self, by: SignedDuration) {
        *self.state.ahead.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// From now on, requests are rationed as Azure's are: a bucket of so many, of which so many are left, filled again within
    /// three minutes.
    pub fn ration(&self, capacity: u32, left: u32) {
        self.state.ration.set(capacity, left);
    }

    /// A token that is good, as somebody else's login would have it.
    #[must_use]
    pub fn token(&self) -> String {
        self.state.identity.mint(self.state.clock.new_id(), self.state.clock.now())
    }

    /// The metadata service of a machine that has these identities; its tokens are good here, and say that they are for so long.
    pub async fn metadata(&self, machine: Machine, lifetime: Duration) -> io::Result<MetadataService> {
        MetadataService::serve(Arc::clone(&self.state), machine, lifetime).await
    }

    /// From now on, tokens given so far answer 401.
    pub fn revoke_tokens(&self) {
        self.state.identity.revoke();
    }

    /// What was asked of the authority, in order, with what is secret in it left out.
    #[must_use]
    pub fn token_requests(&self) -> Vec<String> {
        self.state.identity.requests()
    }

    /// The federated tokens that were handed in, oldest first.
    #[must_use]
    pub fn assertions(&self) -> Vec<String> {
        self.state.identity.assertions()
    }

    /// The tokens that are good: to look for leaks.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.state.identity.tokens()
    }

    /// Waits until the server ends, which it does only when it can't accept any more.
    pub async fn ended(mut self) {
        self.server.join_next().await;
    }
}

/// One assignment for each action, in another case than ours.
fn all_rights() -> Vec<Value> {
    let assignment = |action: &str| json!({ "actions": [action.to_ascii_lowercase()], "notActions": [], "dataActions": [], "notDataActions": [] });
    in_azure().map(|right| assignment(right.action)).collect()
}

/// The face as a process of its own: says on stdout where it is, in one line of JSON, and stays.
pub async fn run(world: Arc<Shared>, clock: Arc<dyn Clock>, options: ArmOptions) -> io::Result<()> {
    let face = ArmFace::serve(world, clock, &options).await?;
    println!("{}", serde_json::json!({ "url": face.url(), "ca": options.ca_path }));
    face.ended().await;
    Ok(())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&state)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    return;
                }
            },
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    // A client that does not know the authority yet, or that goes away, is no matter of ours.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| Arc::clone(&state).take(request));
    // An error of the service closes the connection without an answer: that is what `Cut` is for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
