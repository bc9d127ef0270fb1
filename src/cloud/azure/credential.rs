//! Tokens: `azure_identity` over our transport, or over the two that it can't be: the machine's metadata service and `az`.
//!
//! The federated token file is read for every new token, since the kubelet replaces it. A 401 from ARM drops the cached
//! token once ([`Tokens::forget`]): `azure_identity` itself has no way to.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use azure_core_v1::{
    cloud::CustomConfiguration,
    credentials::{Secret, TokenCredential},
    error::ErrorKind,
    http::{ClientMethodOptions, ClientOptions, RetryOptions, Transport as V1Transport},
};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::RwLock;

use super::{
    cli_token::CliToken,
    metadata::Metadata,
    redact::redact,
    settings::{AzureSettings, AzureSetupError, Credential, MachineIdentity},
    transport::Transport,
};

/// Why there is no token, and who can do something about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    /// The authority said no, or the token file can't be read: a person has to act.
    #[error("no token: {0}")]
    Denied(String),
    /// The authority asks for patience.
    #[error("no token: the authority is busy: {0}")]
    Throttled(String),
    /// The authority did not answer, or not in a way that can be read.
    #[error("no token, so nothing was sent: {0}")]
    Unreachable(String),
}

/// The one source of tokens.
pub(super) struct Tokens {
    settings: AzureSettings,
    transport: Transport,
    scope: String,
    current: RwLock<Arc<dyn TokenCredential>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(super) fn new(settings: &AzureSettings, transport: &Transport) -> Result<Self, AzureSetupError> {
        if settings.audience.is_empty() {
            let detail = "it is empty; expected whom tokens are for, as in https://management.azure.com".into();
            return Err(AzureSetupError::BadSetting { setting: "audience", detail });
        }
        Ok(Self {
            settings: settings.clone(),
            transport: transport.clone(),
            scope: format!("{}/.default", settings.audience),
            current: RwLock::new(credential(settings, transport)?),
        })
    }

    /// A token for ARM, from the cache while it is good.
    pub(super) async fn token(&self) -> Result<SecretString, TokenError> {
        let credential = Arc::clone(&*self.current.read().await);
        // One caller fetches and the others wait for it: none of them longer than for a request.
        let scopes = [self.scope.as_str()];
        let fetched = tokio::time::timeout(self.settings.timeouts.request, credential.get_token(&scopes, None)).await;
        let Ok(fetched) = fetched else {
            return Err(TokenError::Unreachable("the authority did not answer in time".into()));
        };
        match fetched {
            Ok(token) => Ok(SecretString::from(token.token.secret().to_owned())),
            Err(error) => Err(classify(&error, &self.settings.credential)),
        }
    }

    /// Drops what is cached: ARM did not accept it.
    pub(super) async fn forget(&self) {
        match credential(&self.settings, &self.transport) {
            Ok(fresh) => *self.current.write().await = fresh,
            // Can't be: the same settings were good at the start. The old credential goes on.
            Err(error) => tracing::warn!(%error, "the cached token could not be dropped"),
        }
    }
}

fn credential(settings: &AzureSettings, transport: &Transport) -> Result<Arc<dyn TokenCredential>, AzureSetupError> {
    let client_options = || {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host.clone_from(&settings.authority);
        ClientOptions {
            transport: Some(V1Transport::new(Arc::new(transport.clone()))),
            retry: RetryOptions::none(),
            cloud: Some(Arc::new(cloud.into())),
            ..ClientOptions::default()
        }
    };
    let bad = |setting| {
        move |error: azure_core_v1::Error| AzureSetupError::BadSetting { setting, detail: redact(&error.to_string()) }
    };
    match &settings.credential {
        Credential::WorkloadIdentity { tenant, client, token_file } => {
            let assertion = TokenFile(token_file.clone());
            let options = ClientAssertionCredentialOptions { client_options: client_options() };
            let made = ClientAssertionCredential::new(tenant.clone(), client.clone(), assertion, Some(options));
            Ok(made.map_err(bad("credential.workload_identity"))?)
        }
        Credential::ClientSecret { tenant, client, secret } => {
            let secret = Secret::new(secret.expose_secret().to_owned());
            let options = ClientSecretCredentialOptions { client_options: client_options() };
            let made = ClientSecretCredential::new(tenant, client.clone(), secret, Some(options));
            Ok(made.map_err(bad("credential.client_secret"))?)
        }
        Credential::ManagedIdentity { identity, service } => {
            let client_options = ClientOptions {
                transport: Some(V1Transport::new(Arc::new(Metadata::new(service)?))),
                ..ClientOptions::default()
            };
            let user_assigned_id = match identity {
                MachineIdentity::System => None,
                MachineIdentity::Client(id) => Some(UserAssignedId::ClientId(id.clone())),
                MachineIdentity::Resource(id) => Some(UserAssignedId::ResourceId(id.clone())),
            };
            let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
            let made = ManagedIdentityCredential::new(Some(options));
            Ok(made.map_err(bad("credential.managed_identity"))?)
        }
        Credential::AzureCli { tenant, subscription } => {
            let made = CliToken::new(tenant.clone(), subscription.clone());
            Ok(made.map_err(bad("credential.azure_cli"))?)
        }
    }
}

/// The file into which the kubelet projects the service account's token.
#[derive(Debug)]
struct TokenFile(PathBuf);

#[async_trait]
impl ClientAssertion for TokenFile {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core_v1::Result<String> {
        let path = self.0.display();
        let token = tokio::fs::read_to_string(&self.0).await.map_err(|error| {
            azure_core_v1::Error::with_message(ErrorKind::Credential, format!("token file {path}: {error}"))
        })?;
        let token = token.trim();
        if token.is_empty() {
            return Err(azure_core_v1::Error::with_message(
                ErrorKind::Credential,
                format!("token file {path} is empty"),
            ));
        }
        Ok(token.to_owned())
    }
}

/// `azure_identity` wraps the cause once; what it was is in the innermost error's kind.
fn classify(error: &azure_core_v1::Error, credential: &Credential) -> TokenError {
    let text = redact(&error.to_string());
    let mut innermost = error;
    while let Some(inner) = innermost.downcast_ref::<azure_core_v1::Error>() {
        innermost = inner;
    }
    match innermost.kind() {
        ErrorKind::HttpResponse { status, .. } => match u16::from(*status) {
            429 | 503 => TokenError::Throttled(text),
            // The metadata service while it is being updated.
            404 | 410 if matches!(credential, Credential::ManagedIdentity { .. }) => TokenError::Unreachable(text),
            400..=499 => TokenError::Denied(text),
            _ => TokenError::Unreachable(text),
        },
        ErrorKind::Credential => TokenError::Denied(text),
        ErrorKind::Connection | ErrorKind::Io | ErrorKind::DataConversion | ErrorKind::Other => {
            TokenError::Unreachable(text)
        }
    }
}
