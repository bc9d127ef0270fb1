//! What the adapter must be told, and what can be wrong with it.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::clouds::{Endpoints, KnownCloud};

/// Where Azure is and who we are there. Subscriptions are not named here: each id carries its own.
#[derive(Debug, Clone)]
pub struct AzureSettings {
    /// The resource manager's base URL, as in `https://management.azure.com`.
    pub resource_manager: String,
    /// The authority that gives tokens, as in `https://login.microsoftonline.com`.
    pub authority: String,
    /// Whom tokens are for, as in `https://management.azure.com`; the scope is this and `/.default`.
    pub audience: String,
    /// Certificates to trust besides the system's: a PEM file.
    pub ca_bundle: Option<PathBuf>,
    /// How we prove who we are.
    pub credential: Credential,
    /// How long one request may take.
    pub timeouts: Timeouts,
}

impl AzureSettings {
    /// The public cloud.
    #[must_use]
    pub fn public(credential: Credential) -> Self {
        Self::at(KnownCloud::Public.endpoints(), credential)
    }

    /// Any cloud.
    #[must_use]
    pub fn at(endpoints: Endpoints, credential: Credential) -> Self {
        let Endpoints { resource_manager, authority, audience } = endpoints;
        Self { resource_manager, authority, audience, ca_bundle: None, credential, timeouts: Timeouts::default() }
    }
}

/// How we prove who we are.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A service account's token, projected into a file that the kubelet keeps fresh.
    WorkloadIdentity {
        /// The directory's id or name.
        tenant: String,
        /// The application's id.
        client: String,
        /// The file, read anew for every token.
        token_file: PathBuf,
    },
    /// An application's secret.
    ClientSecret {
        /// The directory's id or name.
        tenant: String,
        /// The application's id.
        client: String,
        /// The secret.
        secret: SecretString,
    },
    /// The identity of the machine we run on, from its instance metadata service.
    ManagedIdentity {
        /// Which of the machine's identities.
        identity: MachineIdentity,
        /// Where the service is: `http://169.254.169.254` on every machine of Azure.
        service: String,
    },
    /// Whoever is logged in to the Azure CLI on this machine.
    AzureCli {
        /// The directory, where it is not the account's own.
        tenant: Option<String>,
        /// The subscription whose account is asked, where it is not the current one.
        subscription: Option<String>,
    },
}

impl Credential {
    /// Where every machine of Azure finds its metadata service.
    pub const METADATA_SERVICE: &str = "http://169.254.169.254";
}

/// Which of a machine's identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineIdentity {
    /// The one that lives and dies with the machine, or the only one there is.
    System,
    /// A user-assigned one, by its client id.
    Client(String),
    /// A user-assigned one, by its resource id.
    Resource(String),
}

/// How long one request may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To a TCP connection.
    pub connect: Duration,
    /// From the first byte sent to the last byte read, connection and TLS included.
    pub request: Duration,
}

impl Default for Timeouts {
    /// ARM gives up on its own back ends after 60 s: a little longer than that hears its answer.
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), request: Duration::from_secs(75) }
    }
}

/// A setting with which the adapter can't start.
#[derive(Debug, thiserror::Error)]
pub enum AzureSetupError {
    /// Not an https URL without path.
    #[error("{setting} is {given:?}: expected an https URL without path or query, as in {example}")]
    BadUrl {
        /// The setting's name.
        setting: &'static str,
        /// What was given.
        given: String,
        /// A good one.
        example: &'static str,
    },
    /// Empty or of a wrong form.
    #[error("{setting} can't be used: {detail}")]
    BadSetting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The CA bundle can't be read or holds no certificate.
    #[error("ca_bundle {} can't be used: {detail}", path.display())]
    CaBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Neither the system nor the bundle has a certificate to trust.
    #[error("no certificate authority to trust: the system has none ({detail}) and ca_bundle is not set")]
    NoRoots {
        /// What was seen while loading the system's.
        detail: String,
    },
    /// The TLS library refused its settings.
    #[error("tls can't be set up: {detail}")]
    Tls {
        /// The library's words.
        detail: String,
    },
}
