//! One exchange with the resource manager: the generated client says where and how, we send.
//!
//! The generated client gets a token that is none. The real one is added here, below everything that logs (`azure_core`
//! 0.21 prints the authorization header of every request at debug level), and only for the resource manager's own host:
//! `nextLink` and operation URLs are strangers' texts.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use azure_core::{
    ClientOptions, HttpClient, RetryOptions, StatusCode, TransportOptions,
    auth::{AccessToken, TokenCredential},
    error::{Error, ErrorKind},
};
use azure_mgmt_compute::package_2024_07_01::Client;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_MATCH, USER_AGENT},
};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use uuid::Uuid;

use super::{
    credential::{TokenError, Tokens},
    settings::{AzureSettings, AzureSetupError},
    transport::{Reply, SendError, Transport},
};
use crate::model::RunId;

/// Who we are in Azure's logs.
const AGENT: &str = concat!("kamino-wf/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReply {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Send(#[from] SendError),
    /// A URL that Azure gave us points elsewhere. Nothing was sent.
    #[error("nothing was sent: {0:?} is not the resource manager's host")]
    ForeignHost(String),
    /// The request could not be built. Nothing was sent.
    #[error("nothing was sent: {0}")]
    Unsendable(String),
}

/// What distinguishes this request from others to the same URL.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    /// Fresh for each attempt: `x-ms-client-request-id`.
    pub(super) attempt: Uuid,
    /// The run, where known: `x-ms-correlation-request-id`.
    pub(super) run: Option<RunId>,
    /// The body, instead of what the generated client made of its typed one: typed models lose fields and add nulls.
    pub(super) body: Option<Value>,
}

/// A request of the generated client: always `.send()`, never `.await` of the builder.
pub(super) type Generated<'a> = &'a (dyn Fn(Client) -> BoxFuture<'static, azure_core::Result<()>> + Send + Sync);

/// The resource manager.
#[derive(Debug)]
pub(super) struct Arm {
    transport: Transport,
    tokens: Tokens,
    endpoint: azure_core::Url,
    host: String,
}

impl Arm {
    pub(super) fn new(settings: &AzureSettings) -> Result<Self, AzureSetupError> {
        let (endpoint, host) =
            base_url("resource_manager", &settings.resource_manager, "https://management.azure.com")?;
        base_url("authority", &settings.authority, "https://login.microsoftonline.com")?;
        let transport = Transport::new(settings)?;
        let tokens = Tokens::new(settings, &transport)?;
        Ok(Self { transport, tokens, endpoint, host })
    }

    /// Asks for a token, then sends what the generated client builds.
    pub(super) async fn generated(self: &Arc<Self>, ticket: Ticket, send: Generated<'_>) -> Result<Reply, NoReply> {
        let token = self.tokens.token().await?;
        let answer = Arc::new(Mutex::new(None));
        let wire = Wire { arm: Arc::clone(self), ticket, token, answer: Arc::clone(&answer) };
        let options = ClientOptions::new(TransportOptions::new(Arc::new(wire))).retry(RetryOptions::none());
        let client = Client::new(self.endpoint.clone(), Arc::new(NoToken), vec![String::new()], options);
        let outcome = send(client).await;
        // What the SDK makes of the answer is of no interest: it hides headers and body of what is no success.
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (answer, outcome) {
            (Some(answer), _) => answer,
            (None, Err(error)) => Err(NoReply::Unsendable(error.to_string())),
            (None, Ok(())) => Err(NoReply::Unsendable("the generated client did not use its transport".into())),
        }
    }

    /// Asks for a token, then reads a URL that is on the resource manager's own host. The URL is sent byte for byte.
    pub(super) async fn get(&self, url: &Uri, ticket: &Ticket) -> Result<Reply, NoReply> {
        let token = self.tokens.token().await?;
        self.send(&token, ticket, Request::builder().method(Method::GET).uri(url.clone()), Bytes::new()).await
    }

    /// Asks for a token, then sends a change to a URL of ours, for what the generated client does not know.
    pub(super) async fn change(&self, method: &Method, url: &Uri, ticket: &Ticket) -> Result<Reply, NoReply> {
        let token = self.tokens.token().await?;
        let body = ticket.body.as_ref().map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder().method(method.clone()).uri(url.clone());
        self.send(&token, ticket, request.header(CONTENT_TYPE, "application/json"), body).await
    }

    /// Asks for a token, and that is all.
    pub(super) async fn credential(&self) -> Result<(), NoReply> {
        self.tokens.token().await?;
        Ok(())
    }

    /// The cached token was not accepted.
    pub(super) async fn forget_token(&self) {
        self.tokens.forget().await;
    }

    /// The URL of a path and query on the resource manager's host.
    pub(super) fn url(&self, path_and_query: &str) -> Result<Uri, NoReply> {
        let url = format!("https://{}{path_and_query}", self.host);
        url.parse().map_err(|_| NoReply::Unsendable("a path that is no part of a URL".into()))
    }

    /// A stranger's URL, if it is on the resource manager's own host.
    pub(super) fn own(&self, url: &str) -> Result<Uri, NoReply> {
        let parsed: Option<Uri> = url.parse().ok();
        // Without user and password, which are nobody's to see.
        let host = parsed.as_ref().and_then(Uri::authority).map(|authority| {
            let text = authority.as_str().to_ascii_lowercase();
            text.rsplit_once('@').map_or(text.clone(), |(_, host)| host.to_owned())
        });
        match parsed {
            Some(parsed) if self.is_own(&parsed) => Ok(parsed),
            Some(_) | None => Err(NoReply::ForeignHost(host.unwrap_or_default())),
        }
    }

    fn is_own(&self, url: &Uri) -> bool {
        let host = url.host().unwrap_or_default();
        let port = url.port_u16().unwrap_or(443);
        // Compared with user and password cut off, so that none may hide behind an `@`.
        let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        url.scheme_str() == Some("https") && plain && self.host.eq_ignore_ascii_case(&with_port(host, port))
    }

    async fn send(
        &self,
        token: &SecretString,
        ticket: &Ticket,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Reply, NoReply> {
        let mut request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, AGENT)
            .header("x-ms-client-request-id", ticket.attempt.hyphenated().to_string())
            .body(Full::new(body))
            .map_err(|error| NoReply::Unsendable(error.to_string()))?;
        if !self.is_own(request.uri()) {
            return Err(NoReply::ForeignHost(request.uri().host().unwrap_or_default().to_owned()));
        }
        if let Some(run) = ticket.run
            && let Ok(run) = HeaderValue::from_str(&run.0.hyphenated().to_string())
        {
            request.headers_mut().insert("x-ms-correlation-request-id", run);
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|_| NoReply::Unsendable("the token is no header value".into()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        Ok(self.transport.send(request).await?)
    }
}

fn with_port(host: &str, port: u16) -> String {
    if port == 443 { host.to_owned() } else { format!("{host}:{port}") }
}

/// An https URL without path, query and user, and its host in lower case with the port where it is not 443.
fn base_url(
    setting: &'static str,
    given: &str,
    example: &'static str,
) -> Result<(azure_core::Url, String), AzureSetupError> {
    let bad = || AzureSetupError::BadUrl { setting, given: given.to_owned(), example };
    let url: azure_core::Url = given.parse().map_err(|_| bad())?;
    let plain = url.scheme() == "https"
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let host = url.host_str().filter(|_| plain).ok_or_else(bad)?;
    let host = with_port(host, url.port().unwrap_or(443));
    Ok((url, host))
}

/// The transport under one generated request: adds what the SDK must not see, and keeps the answer whole.
struct Wire {
    arm: Arc<Arm>,
    ticket: Ticket,
    token: SecretString,
    answer: Arc<Mutex<Option<Result<Reply, NoReply>>>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("attempt", &self.ticket.attempt).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Wire {
    async fn execute_request(&self, request: &azure_core::Request) -> azure_core::Result<azure_core::Response> {
        let answer = self.forward(request).await;
        let summary = match &answer {
            Ok(reply) => Ok(summary(reply)),
            Err(error) => Err(Error::message(ErrorKind::Other, error.to_string())),
        };
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        summary
    }
}

impl Wire {
    async fn forward(&self, request: &azure_core::Request) -> Result<Reply, NoReply> {
        let mut ours = Request::builder().method(request.method().as_ref()).uri(request.url().as_str());
        for (name, value) in request.headers().iter() {
            if [CONTENT_TYPE.as_str(), IF_MATCH.as_str()].contains(&name.as_str()) {
                ours = ours.header(name.as_str(), value.as_str());
            }
        }
        let body = match &self.ticket.body {
            Some(body) => Bytes::from(body.to_string()),
            None => Bytes::new(),
        };
        self.arm.send(&self.token, &self.ticket, ours, body).await
    }
}

/// As much as the generated client needs in order to come to an end.
fn summary(reply: &Reply) -> azure_core::Response {
    let status = StatusCode::try_from(reply.status.as_u16()).unwrap_or(StatusCode::InternalServerError);
    azure_core::Response::new(
        status,
        azure_core::headers::Headers::new(),
        Box::pin(azure_core::BytesStream::new_empty()),
    )
}

/// Stands where the SDK wants a credential.
#[derive(Debug)]
struct NoToken;

#[async_trait]
impl TokenCredential for NoToken {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new("none", time::OffsetDateTime::UNIX_EPOCH))
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

/// A header's text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cloud::azure::Credential;

    fn settings() -> AzureSettings {
        AzureSettings::public(Credential::WorkloadIdentity {
            tenant: "t".into(),
            client: "c".into(),
            token_file: PathBuf::from("token"),
        })
    }

    #[test]
    fn only_the_resource_managers_own_host_is_ours() {
        let arm = Arm::new(&settings()).expect("the public cloud");
        for good in ["https://management.azure.com/a?b=c", "https://MANAGEMENT.azure.com:443/a"] {
            assert!(arm.own(good).is_ok(), "{good}");
        }
        for bad in [
            "http://management.azure.com/a",
            "https://management.azure.com:8443/a",
            "https://management.azure.com.evil.example/a",
            "https://evil.example/management.azure.com",
            "https://management.azure.com@evil.example/a",
            "https://user@management.azure.com/a",
            "//management.azure.com/a",
            "/a",
            "",
        ] {
            assert!(matches!(arm.own(bad), Err(NoReply::ForeignHost(_))), "{bad}");
        }
    }

    #[test]
    fn an_operation_url_keeps_every_byte() {
        let arm = Arm::new(&settings()).expect("the public cloud");
        let url = "https://management.azure.com/subscriptions/s/operations/1?p=a%2Fb&t=1&c=MII%3d&s=U-L~p(x)A'q&h=%zz";
        let parsed = arm.own(url).expect("ours");
        assert_eq!(parsed.to_string(), url);
    }

    #[test]
    fn errors_of_settings_name_the_setting() {
        let good = settings();
        let bad = [
            (
                AzureSettings { resource_manager: "http://management.azure.com".into(), ..good.clone() },
                "resource_manager",
            ),
            (AzureSettings { resource_manager: "https://a.b/base".into(), ..good.clone() }, "resource_manager"),
            (AzureSettings { authority: "login".into(), ..good.clone() }, "authority"),
            (AzureSettings { audience: String::new(), ..good.clone() }, "audience"),
            (AzureSettings { ca_bundle: Some(PathBuf::from("/nowhere")), ..good.clone() }, "ca_bundle"),
            (
                AzureSettings {
                    credential: Credential::ClientSecret {
                        tenant: "not a tenant".into(),
                        client: "c".into(),
                        secret: "hush".to_owned().into(),
                    },
                    ..good.clone()
                },
                "credential.client_secret",
            ),
        ];
        for (settings, setting) in bad {
            let error = Arm::new(&settings).expect_err(setting).to_string();
            assert!(error.contains(setting) && !error.contains("hush"), "{error}");
        }
    }
}
