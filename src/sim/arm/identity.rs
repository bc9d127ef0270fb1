//! The authority's side: tokens for whoever asks in the right form, and the check of those tokens.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::extract::Query;
use http::{HeaderMap, StatusCode, Uri, header::AUTHORIZATION};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Debug, Default)]
struct Inner {
    tokens: BTreeMap<String, Timestamp>,
    assertions: Vec<String>,
    requests: Vec<String>,
}

/// Tokens that were given, and until when each is good.
#[derive(Debug)]
pub(super) struct Identity {
    lifetime: Duration,
    inner: Mutex<Inner>,
}

impl Identity {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, inner: Mutex::default() }
    }

    /// Whether a path is the authority's and not the resource manager's.
    pub(super) fn owns(path: &str) -> bool {
        path.ends_with("/oauth2/v2.0/token")
            || path.ends_with("/.well-known/openid-configuration")
            || path == "/common/discovery/instance"
    }

    pub(super) fn answer(&self, path: &str, form: &[u8], base: &str, new: Uuid, now: Timestamp) -> (StatusCode, Value) {
        let tenant = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if path == "/common/discovery/instance" {
            let document = format!("{base}/{tenant}/v2.0/.well-known/openid-configuration");
            return (StatusCode::OK, json!({ "tenant_discovery_endpoint": document, "metadata": [] }));
        }
        if path.ends_with("/.well-known/openid-configuration") {
            let token_endpoint = format!("{base}/{tenant}/oauth2/v2.0/token");
            let issuer = format!("{base}/{tenant}/v2.0");
            return (StatusCode::OK, json!({ "token_endpoint": token_endpoint, "issuer": issuer }));
        }
        self.note(path, form);
        match self.token(form, new, now) {
            Ok(token) => {
                let seconds = self.lifetime.as_secs();
                (StatusCode::OK, json!({ "token_type": "Bearer", "expires_in": seconds, "access_token": token }))
            }
            Err(description) => {
                let body = json!({
                    "error": "invalid_client",
                    "error_description": format!("AADSTS7000215: {description}"),
                    "error_codes": [7_000_215],
                });
                (StatusCode::UNAUTHORIZED, body)
            }
        }
    }

    fn token(&self, form: &[u8], new: Uuid, now: Timestamp) -> Result<String, &'static str> {
        let form = parameters(&String::from_utf8_lossy(form));
        let field = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if field("grant_type") != Some("client_credentials") || field("client_id").is_none() {
            return Err("expected grant_type=client_credentials and a client_id");
        }
        if !field("scope").is_some_and(|scope| scope.ends_with("/.default")) {
            return Err("expected a scope that ends in /.default");
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match (field("client_secret"), field("client_assertion_type"), field("client_assertion")) {
            (Some(_), None, None) => {}
            (None, Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), Some(assertion)) => {
                inner.assertions.push(assertion.to_owned());
            }
            _ => return Err("expected a client_secret or a client_assertion and its type"),
        }
        drop(inner);
        Ok(self.mint(new, now))
    }

    /// What was asked, in order, with what is secret in it left out.
    fn note(&self, path: &str, form: &[u8]) {
        let secret = ["client_secret", "client_assertion"];
        let fields = parameters(&String::from_utf8_lossy(form));
        let fields = fields.iter().map(|(name, value)| {
            let value = if secret.contains(&name.as_str()) { "[secret]" } else { value.as_str() };
            format!("{name}={value}")
        });
        let line = format!("POST {path} {}", fields.collect::<Vec<_>>().join(" "));
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).requests.push(line);
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }

    /// A token that is good from now on.
    pub(super) fn mint(&self, new: Uuid, now: Timestamp) -> String {
        // In the shape of a real one, so that whatever looks for leaked tokens finds these.
        let token = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.{}.c2lnbmF0dXJl", new.simple());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tokens.insert(token.clone(), now + self.lifetime);
        token
    }

    /// Whether a request bears a token that was given and is still good.
    pub(super) fn admits(&self, headers: &HeaderMap, now: Timestamp) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|text| text.strip_prefix("Bearer "));
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        token.and_then(|token| inner.tokens.get(token)).is_some_and(|until| *until > now)
    }

    /// No token given so far is good any more.
    pub(super) fn revoke(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).tokens.clear();
    }

    pub(super) fn assertions(&self) -> Vec<String> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).assertions.clone()
    }

    pub(super) fn tokens(&self) -> Vec<String> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).tokens.keys().cloned().collect()
    }
}

/// A form or a query, decoded; names in lower case.
pub(super) fn parameters(encoded: &str) -> BTreeMap<String, String> {
    let pairs = format!("/?{encoded}")
        .parse::<Uri>()
        .ok()
        .and_then(|uri| Query::<BTreeMap<String, String>>::try_from_uri(&uri).ok());
    pairs.map(|Query(pairs)| pairs).unwrap_or_default().into_iter().map(|(k, v)| (k.to_ascii_lowercase(), v)).collect()
}
