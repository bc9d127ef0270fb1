//! The way to the instance metadata service, which gives a machine its own tokens.
//!
//! It speaks plain http on a link-local address, so [`Transport`](super::transport::Transport), which speaks https only, can't
//! reach it and shall not. `azure_identity` builds the requests and repeats them as Microsoft's "How to use managed identities
//! to acquire an access token" asks: 404, 410 (the service is being updated, for up to 70 s), 429 and 5xx with growing
//! pauses, nothing else. What goes through here is bound for that one service and for its tokens; whatever else the library
//! takes from its surroundings (`IDENTITY_ENDPOINT` of App Service, of Azure Arc) is refused.
//!
//! No proxy: the service refuses forwarded requests, since they are how a stranger would steal a token.

use std::time::Duration;

use async_trait::async_trait;
use azure_core_v1::{
    error::{Error, ErrorKind},
    http::{AsyncRawResponse, Body, HttpClient, Request as V1Request, headers::Headers},
};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{
    redact::redact,
    settings::{AzureSetupError, Credential},
};

/// On a machine of Azure the service is a hop away: who does not connect at once is not on one.
const CONNECT: Duration = Duration::from_secs(3);
/// The service answers from a cache, and now and then asks Entra first.
const ANSWER: Duration = Duration::from_secs(30);
/// A token is 2 KiB.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The client of one service.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    client: Client<HttpConnector, Full<bytes::Bytes>>,
    service: String,
}

impl Metadata {
    pub(super) fn new(service: &str) -> Result<Self, AzureSetupError> {
        let bad = || AzureSetupError::BadSetting {
            setting: "metadataService",
            detail: format!(
                "it is {service:?}; expected an http URL without path, as in {}",
                Credential::METADATA_SERVICE
            ),
        };
        let url: Uri = service.parse().map_err(|_| bad())?;
        let plain = url.scheme_str() == Some("http")
            && url.path() == "/"
            && url.query().is_none()
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !plain {
            return Err(bad());
        }
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        // A connection each time: there is one token an hour.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(tcp);
        Ok(Self { client, service: service.trim_end_matches('/').to_owned() })
    }

    /// The service's URL for what the library asks of the address that it knows.
    fn ours(&self, asked: &str) -> Option<String> {
        let path = asked.strip_prefix(Credential::METADATA_SERVICE)?;
        path.starts_with("/metadata/identity/").then(|| format!("{}{path}", self.service))
    }
}

#[async_trait]
impl HttpClient for Metadata {
    async fn execute_request(&self, request: &V1Request) -> azure_core_v1::Result<AsyncRawResponse> {
        let asked = request.url().as_str();
        let Some(url) = self.ours(asked) else {
            let text = format!(
                "nothing was sent: {} is not the machine's metadata service; unset IDENTITY_ENDPOINT and MSI_ENDPOINT, or \
                 use another credential",
                redact(asked)
            );
            return Err(Error::with_message(ErrorKind::Credential, text));
        };
        let Body::Bytes(body) = request.body() else {
            return Err(Error::with_message(ErrorKind::Other, "a token request has no streaming body"));
        };
        let mut ours = Request::builder().method(request.method().as_str()).uri(url);
        for (name, value) in request.headers().iter() {
            ours = ours.header(name.as_str(), value.as_str());
        }
        let ours = ours
            .body(Full::new(body.clone()))
            .map_err(|error| Error::with_message(ErrorKind::DataConversion, error.to_string()))?;
        let silent = |detail: &str| {
            let text = format!("the instance metadata service at {} does not answer: {detail}", self.service);
            Error::with_message(ErrorKind::Connection, text)
        };
        let exchange = async {
            let reply = self.client.request(ours).await.map_err(|error| silent(&error.to_string()))?;
            let (head, body) = reply.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|_| silent("its answer broke off"))?.to_bytes();
            let mut headers = Headers::new();
            for (name, value) in &head.headers {
                if let Ok(value) = value.to_str() {
                    headers.insert(name.as_str().to_owned(), value.to_owned());
                }
            }
            Ok(AsyncRawResponse::from_bytes(head.status.as_u16().into(), headers, body))
        };
        tokio::time::timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(silent("not within 30 s")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_services_own_tokens_are_asked_for() {
        let service = Metadata::new("http://127.0.0.1:8081/").expect("a service");
        assert_eq!(
            service.ours("http://169.254.169.254/metadata/identity/oauth2/token?resource=r").as_deref(),
            Some("http://127.0.0.1:8081/metadata/identity/oauth2/token?resource=r")
        );
        for other in [
            "http://169.254.169.254/metadata/instance",
            "http://169.254.169.254.evil.example/metadata/identity/oauth2/token",
            "http://127.0.0.1:8081/msi/token",
        ] {
            assert_eq!(service.ours(other), None, "{other}");
        }
    }

    #[test]
    fn the_service_is_a_plain_http_url() {
        for bad in ["https://169.254.169.254", "http://169.254.169.254/metadata", "http://a@b", "169.254.169.254", ""] {
            let error = Metadata::new(bad).expect_err(bad).to_string();
            assert!(error.contains("metadataService") && error.contains("http://169.254.169.254"), "{error}");
        }
    }
}
