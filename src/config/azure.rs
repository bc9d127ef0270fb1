//! Where Azure is and who we are there: the settings under `azure`, Azure's own variables, and the node's `azure.json`.
//!
//! What does not belong together is refused by name: a token sent to another cloud, or an identity other than the one that
//! was meant, would be found out late and explained badly.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::{ConfigError, Environment, bad, node_file, unset};
use crate::cloud::azure::{AzureSettings, Credential, Endpoints, KnownCloud, MachineIdentity};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct AzureFile {
    cloud: Option<CloudName>,
    resource_manager: Option<String>,
    authority: Option<String>,
    audience: Option<String>,
    ca_bundle: Option<PathBuf>,
    credential: Option<CredentialKind>,
    tenant: Option<String>,
    client: Option<String>,
    identity: Option<String>,
    subscription: Option<String>,
    token_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    azure_json: Option<PathBuf>,
    #[serde(default)]
    accept_node_secret: bool,
    metadata_service: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CloudName {
    Public,
    UsGovernment,
    China,
}

impl CloudName {
    fn known(self) -> KnownCloud {
        match self {
            Self::Public => KnownCloud::Public,
            Self::UsGovernment => KnownCloud::UsGovernment,
            Self::China => KnownCloud::China,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CredentialKind {
    WorkloadIdentity,
    ClientSecret,
    ManagedIdentity,
    AzureCli,
    AzureJson,
}

impl CredentialKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::WorkloadIdentity => "workload-identity",
            Self::ClientSecret => "client-secret",
            Self::ManagedIdentity => "managed-identity",
            Self::AzureCli => "azure-cli",
            Self::AzureJson => "azure-json",
        }
    }

    /// The settings that say something to it, of those that are about one credential or another.
    fn takes(self) -> &'static [&'static str] {
        match self {
            Self::WorkloadIdentity => &["tenant", "client", "tokenFile"],
            Self::ClientSecret => &["tenant", "client", "secretFile"],
            Self::ManagedIdentity => &["client", "identity", "metadataService"],
            Self::AzureCli => &["tenant", "subscription"],
            Self::AzureJson => &["azureJson", "acceptNodeSecret", "metadataService"],
        }
    }
}

/// The variable by which Azure's libraries are told of another metadata service than the machine's.
const METADATA_VARIABLE: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
/// Where the node's own settings are.
const NODE_FILE: &str = "/etc/kubernetes/azure.json";

/// `None` when nothing says who we are in Azure.
pub(super) fn settings(file: AzureFile, env: Environment<'_>) -> Result<Option<AzureSettings>, ConfigError> {
    let said = |name: &str| env(name).filter(|value| !value.is_empty());
    let token_file = file.token_file.clone().or_else(|| said("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from));
    // A file that is named has to be there, whether or not its secret is taken.
    let secret = match file.secret_file.as_deref() {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| bad("azure.secretFile", path, format!("it can't be read ({error})")))?,
        ),
        None => said("KAMINO_AZURE_CLIENT_SECRET"),
    };
    let kind = match (file.credential, &token_file, secret.is_some()) {
        (Some(kind), _, _) => kind,
        (None, Some(_), _) => CredentialKind::WorkloadIdentity,
        (None, None, true) => CredentialKind::ClientSecret,
        (None, None, false) => {
            strays(&file, None)?;
            return Ok(None);
        }
    };
    strays(&file, Some(kind))?;
    let needed = |setting: &str, value: &Option<String>, variable: &str| {
        let value = value.clone().or_else(|| env(variable)).filter(|value| !value.is_empty());
        value.ok_or_else(|| unset(&format!("azure.{setting}"), variable))
    };
    let service = || {
        let named = file.metadata_service.clone().or_else(|| said(METADATA_VARIABLE));
        named.unwrap_or_else(|| Credential::METADATA_SERVICE.into())
    };
    let mut found = None;
    let credential = match kind {
        CredentialKind::WorkloadIdentity => Credential::WorkloadIdentity {
            tenant: needed("tenant", &file.tenant, "AZURE_TENANT_ID")?,
            client: needed("client", &file.client, "AZURE_CLIENT_ID")?,
            token_file: token_file.ok_or_else(|| unset("azure.tokenFile", "AZURE_FEDERATED_TOKEN_FILE"))?,
        },
        CredentialKind::ClientSecret => Credential::ClientSecret {
            tenant: needed("tenant", &file.tenant, "AZURE_TENANT_ID")?,
            client: needed("client", &file.client, "AZURE_CLIENT_ID")?,
            secret: client_secret(secret)?,
        },
        CredentialKind::ManagedIdentity => {
            Credential::ManagedIdentity { identity: machine_identity(&file)?, service: service() }
        }
        CredentialKind::AzureCli => {
            Credential::AzureCli { tenant: file.tenant.clone(), subscription: file.subscription.clone() }
        }
        CredentialKind::AzureJson => {
            let path = file.azure_json.clone().unwrap_or_else(|| NODE_FILE.into());
            let node = node_file::read(&path, said("AZURE_ENVIRONMENT_FILEPATH").map(PathBuf::from))?;
            let credential = node.credential(&path, file.accept_node_secret, service())?;
            found = Some((path, node.cloud));
            credential
        }
    };
    let endpoints = endpoints(&file, said("AZURE_AUTHORITY_HOST"), found.as_ref())?;
    Ok(Some(AzureSettings { ca_bundle: file.ca_bundle, ..AzureSettings::at(endpoints, credential) }))
}

/// Refuses a setting that says nothing to the chosen credential.
fn strays(file: &AzureFile, kind: Option<CredentialKind>) -> Result<(), ConfigError> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let accept = file.accept_node_secret.then(|| "true".to_owned());
    let given = [
        ("identity", file.identity.clone()),
        ("subscription", file.subscription.clone()),
        ("tokenFile", path(&file.token_file)),
        ("secretFile", path(&file.secret_file)),
        ("azureJson", path(&file.azure_json)),
        ("acceptNodeSecret", accept),
        ("metadataService", file.metadata_service.clone()),
        ("tenant", file.tenant.clone()),
        ("client", file.client.clone()),
    ];
    for (setting, value) in given {
        let Some(value) = value else { continue };
        match kind {
            Some(kind) if kind.takes().contains(&setting) => {}
            // As they were before there were more credentials: both say who we are, and one is not looked at.
            Some(CredentialKind::WorkloadIdentity | CredentialKind::ClientSecret)
                if ["tokenFile", "secretFile"].contains(&setting) => {}
            Some(kind) => {
                let remedy = format!(
                    "azure.credential is {}, which takes {}: leave it out",
                    kind.as_str(),
                    kind.takes().join(", ")
                );
                return Err(bad(format!("azure.{setting}"), value, remedy));
            }
            None if ["tenant", "client"].contains(&setting) => {}
            None => {
                let remedy = "azure.credential is not set: say which credential it is for";
                return Err(bad(format!("azure.{setting}"), value, remedy));
            }
        }
    }
    Ok(())
}

fn client_secret(text: Option<String>) -> Result<SecretString, ConfigError> {
    let text = text.map(|text| text.trim_end().to_owned()).filter(|text| !text.is_empty());
    Ok(SecretString::from(text.ok_or_else(|| unset("azure.secretFile", "KAMINO_AZURE_CLIENT_SECRET"))?))
}

fn machine_identity(file: &AzureFile) -> Result<MachineIdentity, ConfigError> {
    match (&file.client, &file.identity) {
        (Some(client), Some(_)) => {
            let remedy = "azure.identity names an identity too: leave one of them out";
            Err(bad("azure.client", client, remedy))
        }
        (Some(client), None) => Ok(MachineIdentity::Client(client.clone())),
        (None, Some(id)) if is_identity(id) => Ok(MachineIdentity::Resource(id.clone())),
        (None, Some(id)) => {
            let remedy = "expected the resource id of a user-assigned identity, as in /subscriptions/…/resourceGroups/…/\
                          providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME; a client id goes into azure.client";
            Err(bad("azure.identity", id, remedy))
        }
        (None, None) => Ok(MachineIdentity::System),
    }
}

/// The resource id of a user-assigned identity.
pub(super) fn is_identity(id: &str) -> bool {
    let parts: Vec<&str> = id.split('/').collect();
    let is = |at: usize, word: &str| parts.get(at).is_some_and(|part| part.eq_ignore_ascii_case(word));
    parts.len() == 9
        && is(0, "")
        && is(1, "subscriptions")
        && is(3, "resourcegroups")
        && is(5, "providers")
        && is(6, "microsoft.managedidentity")
        && is(7, "userassignedidentities")
        && [2, 4, 8].iter().all(|at| parts.get(*at).is_some_and(|part| !part.is_empty()))
}

/// A value, and the setting or variable that it comes from.
struct Said {
    name: String,
    value: String,
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

/// The cloud's endpoints with what is said otherwise, if all of it fits together.
fn endpoints(
    file: &AzureFile,
    authority_variable: Option<String>,
    node: Option<&(PathBuf, node_file::NodeCloud)>,
) -> Result<Endpoints, ConfigError> {
    let cloud = file.cloud.map(CloudName::known);
    let base = match (&cloud, node) {
        (Some(cloud), Some((path, node_file::NodeCloud::Known(found)))) if cloud != found => {
            let remedy = format!("{} says that the node is in {}: leave it out", path.display(), found.as_str());
            return Err(bad("azure.cloud", cloud.as_str(), remedy));
        }
        (Some(cloud), Some((path, node_file::NodeCloud::Custom(_)))) => {
            let remedy = format!("{} says that the node is in a cloud of its own: leave it out", path.display());
            return Err(bad("azure.cloud", cloud.as_str(), remedy));
        }
        (None, Some((_, node_file::NodeCloud::Custom(found)))) => found.clone(),
        (None, Some((_, node_file::NodeCloud::Known(found)))) => found.endpoints(),
        (Some(cloud), _) => cloud.endpoints(),
        (None, None) => KnownCloud::Public.endpoints(),
    };
    let setting = |name: &str, value: &Option<String>| {
        let value = value.clone().filter(|value| !value.is_empty())?;
        Some(Said { name: format!("azure.{name}"), value })
    };
    let variable = authority_variable.map(|value| Said { name: "AZURE_AUTHORITY_HOST".into(), value });
    let manager = setting("resourceManager", &file.resource_manager);
    let authority = setting("authority", &file.authority).or(variable);
    let audience = setting("audience", &file.audience);
    // Named clouds have endpoints of their own; saying another for one of them is a mistake in one of the two.
    if let Some(cloud) = cloud {
        for (said, known) in
            [(&manager, &base.resource_manager), (&authority, &base.authority), (&audience, &base.audience)]
        {
            let Some(Said { name, value }) = said else { continue };
            if !same(value, known) && KnownCloud::of_url(value) != Some(cloud) {
                let remedy = format!("azure.cloud is {}, which has {known}: leave one of them out", cloud.as_str());
                return Err(bad(name.as_str(), value, remedy));
            }
        }
    }
    let resource_manager = manager.as_ref().map_or(base.resource_manager, |said| said.value.clone());
    let custom_manager = manager.is_some();
    let endpoints = Endpoints {
        authority: authority.as_ref().map_or(base.authority, |said| said.value.clone()),
        audience: match &audience {
            Some(said) => said.value.clone(),
            None if custom_manager => resource_manager.trim_end_matches('/').to_owned(),
            None => base.audience,
        },
        resource_manager,
    };
    // A cloud of one's own may take its tokens from any authority; a known one only from its own.
    if let Some(cloud) = KnownCloud::of_url(&endpoints.resource_manager) {
        let others = [
            (authority.as_ref().map_or("azure.authority", |said| said.name.as_str()), &endpoints.authority),
            (audience.as_ref().map_or("azure.audience", |said| said.name.as_str()), &endpoints.audience),
        ];
        for (name, value) in others {
            if let Some(other) = KnownCloud::of_url(value).filter(|other| *other != cloud) {
                let remedy = format!(
                    "that is in {}, and the resource manager {} is in {}: set azure.cloud to the one that is meant",
                    other.as_str(),
                    endpoints.resource_manager,
                    cloud.as_str()
                );
                return Err(bad(name, value, remedy));
            }
        }
    }
    Ok(endpoints)
}
