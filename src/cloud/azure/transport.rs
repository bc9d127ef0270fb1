//! One HTTP transport for tokens and for ARM: the hyper and rustls that `kube` brings already.
//!
//! Why not the SDK's: it opens a connection per call, has no time-outs, and brings a second TLS stack. What callers need
//! to know of a failure is whether the request may have arrived, so that is in the error's type.

use std::{fmt::Write as _, fs, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core_v1::http::{AsyncRawResponse, HttpClient, Request as V1Request, headers::Headers};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    redact::redact,
    settings::{AzureSettings, AzureSetupError},
};

/// The longest answer that is read. A page of a list is below 1 MiB.
const REPLY_BYTES_MAX: usize = 8 << 20;

/// How long a connection may lie idle: less than the four minutes after which Azure's load balancers forget it.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// An answer, of whatever status.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// No answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SendError {
    /// The request did not leave this machine.
    #[error("never sent: {0}")]
    NeverSent(String),
    /// It may have arrived, and have done its work.
    #[error("maybe sent: {0}")]
    MaybeSent(String),
}

/// The connections, shared by all requests.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    request_time: Duration,
}

impl Transport {
    pub(super) fn new(settings: &AzureSettings) -> Result<Self, AzureSetupError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.timeouts.connect));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(settings)?)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(4)
            .build(https);
        Ok(Self { client, request_time: settings.timeouts.request })
    }

    /// Sends one request and reads the whole answer. Nothing is sent twice.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, SendError> {
        let server = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let exchange = async {
            let reply = self.client.request(request).await.map_err(|error| {
                let detail = format!("{server}: {}", redact(&chain(&error)));
                if error.is_connect() { SendError::NeverSent(detail) } else { SendError::MaybeSent(detail) }
            })?;
            let (head, body) = reply.into_parts();
            let body = Limited::new(body, REPLY_BYTES_MAX).collect().await.map_err(|error| {
                SendError::MaybeSent(format!("answer {} broke off or is too long: {}", head.status, chain(&*error)))
            })?;
            Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let seconds = self.request_time.as_secs_f32();
        tokio::time::timeout(self.request_time, exchange)
            .await
            .unwrap_or_else(|_| Err(SendError::MaybeSent(format!("no answer within {seconds} s"))))
    }
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn tls(settings: &AzureSettings) -> Result<ClientConfig, AzureSetupError> {
    let system = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = &settings.ca_bundle {
        let bad = |detail: String| AzureSetupError::CaBundle { path: path.clone(), detail };
        let pem = fs::read(path).map_err(|error| bad(error.to_string()))?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(bad("it holds no certificate in PEM form".into()));
        }
    }
    if roots.is_empty() {
        let detail = system.errors.first().map_or_else(|| "no error".into(), ToString::to_string);
        return Err(AzureSetupError::NoRoots { detail });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AzureSetupError::Tls { detail: error.to_string() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// For `azure_identity`: tokens are fetched over the same connections and roots.
#[async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &V1Request) -> azure_core_v1::Result<AsyncRawResponse> {
        use azure_core_v1::error::{Error, ErrorKind};
        use azure_core_v1::http::Body;

        let Body::Bytes(body) = request.body() else {
            return Err(Error::with_message(ErrorKind::Other, "a token request has no streaming body"));
        };
        let mut ours = Request::builder().method(request.method().as_str()).uri(request.url().as_str());
        for (name, value) in request.headers().iter() {
            ours = ours.header(name.as_str(), value.as_str());
        }
        let ours = ours
            .body(Full::new(body.clone()))
            .map_err(|error| Error::with_message(ErrorKind::DataConversion, error.to_string()))?;
        let reply = self.send(ours).await.map_err(|error| {
            let kind = match &error {
                SendError::NeverSent(_) => ErrorKind::Connection,
                SendError::MaybeSent(_) => ErrorKind::Io,
            };
            Error::with_error(kind, error.clone(), error.to_string())
        })?;
        let mut headers = Headers::new();
        for (name, value) in &reply.headers {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(AsyncRawResponse::from_bytes(reply.status.as_u16().into(), headers, reply.body))
    }
}
