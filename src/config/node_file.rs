//! The node's `azure.json`, which cloud-provider-azure and AKS Engine write: the cloud, and who the node is in it.
//!
//! Only what we need is read, and nothing of it is ever repeated in an error: it may hold a secret. Sources: the documented
//! cluster configuration of cloud-provider-azure, and the Python tool, which took the client secret from there.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};

use super::{ConfigError, azure::is_identity, bad};
use crate::cloud::azure::{Credential, Endpoints, KnownCloud, MachineIdentity};

/// What the file says, as far as we read it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    cloud: String,
    tenant_id: String,
    aad_client_id: String,
    aad_client_secret: String,
    aad_client_cert_path: String,
    use_managed_identity_extension: bool,
    #[serde(rename = "userAssignedIdentityID")]
    user_assigned_identity_id: String,
    use_federated_workload_identity_extension: bool,
    aad_federated_token_file: String,
    resource_manager_endpoint: String,
    identity_system: String,
}

/// A cloud of its own, as in `azurestackcloud.json`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Environment {
    resource_manager_endpoint: String,
    active_directory_endpoint: String,
    service_management_endpoint: String,
    token_audience: String,
}

/// The cloud that the node is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeCloud {
    Known(KnownCloud),
    Custom(Endpoints),
}

/// The node's settings.
pub(super) struct Node {
    pub(super) cloud: NodeCloud,
    file: Written,
}

/// Reads `azure.json`, and for Azure Stack the environment beside it.
pub(super) fn read(path: &Path, environment: Option<PathBuf>) -> Result<Node, ConfigError> {
    let file: Written = parse("azure.azureJson", path)?;
    if file.identity_system.eq_ignore_ascii_case("adfs") || file.tenant_id.eq_ignore_ascii_case("adfs") {
        return Err(bad("azure.azureJson", path, "its identitySystem is adfs: AD FS is not supported, only Entra"));
    }
    let cloud = match file.cloud.to_ascii_lowercase().as_str() {
        "" | "azurecloud" | "azurepubliccloud" => NodeCloud::Known(KnownCloud::Public),
        "azureusgovernmentcloud" | "azureusgovernment" => NodeCloud::Known(KnownCloud::UsGovernment),
        "azurechinacloud" => NodeCloud::Known(KnownCloud::China),
        "azurestackcloud" => {
            let beside = environment.unwrap_or_else(|| path.with_file_name("azurestackcloud.json"));
            NodeCloud::Custom(custom(&beside, &file.resource_manager_endpoint)?)
        }
        "azuregermancloud" => {
            return Err(bad("azure.azureJson", path, "its cloud is AzureGermanCloud, which was closed in 2021"));
        }
        _ => {
            let remedy = format!(
                "its cloud is {:?}: expected AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud or AzureStackCloud",
                file.cloud
            );
            return Err(bad("azure.azureJson", path, remedy));
        }
    };
    Ok(Node { cloud, file })
}

fn custom(path: &Path, resource_manager: &str) -> Result<Endpoints, ConfigError> {
    let environment: Environment = parse("azure.azureJson", path)?;
    let first = |values: [&str; 2]| {
        values.into_iter().map(|it| it.trim_end_matches('/')).find(|it| !it.is_empty()).map(str::to_owned)
    };
    let needed = |field: &str, value: Option<String>| {
        value.ok_or_else(|| bad("azure.azureJson", path, format!("the cloud's environment does not say its {field}")))
    };
    Ok(Endpoints {
        resource_manager: needed(
            "resourceManagerEndpoint",
            first([resource_manager, &environment.resource_manager_endpoint]),
        )?,
        authority: needed("activeDirectoryEndpoint", first([&environment.active_directory_endpoint, ""]))?,
        audience: needed(
            "serviceManagementEndpoint",
            first([&environment.token_audience, &environment.service_management_endpoint]),
        )?,
    })
}

/// Says where it is wrong and not what stands there.
fn parse<T: DeserializeOwned>(setting: &str, path: &Path) -> Result<T, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| bad(setting, path, format!("it can't be read ({error})")))?;
    serde_json::from_str(&text).map_err(|error| {
        let place = format!("it is no JSON of this kind: line {}, column {}", error.line(), error.column());
        bad(setting, path, place)
    })
}

impl Node {
    /// Who the node is, if we may be it.
    pub(super) fn credential(
        &self,
        path: &Path,
        accept_secret: bool,
        service: String,
    ) -> Result<Credential, ConfigError> {
        let file = &self.file;
        let managed = |id: &str| {
            let identity = match id {
                "" => MachineIdentity::System,
                id if is_identity(id) => MachineIdentity::Resource(id.to_owned()),
                id => MachineIdentity::Client(id.to_owned()),
            };
            Credential::ManagedIdentity { identity, service }
        };
        let needed = |field: &str, value: &str| {
            let value = Some(value).filter(|value| !value.is_empty()).map(str::to_owned);
            value.ok_or_else(|| bad("azure.azureJson", path, format!("it does not say its {field}")))
        };
        // AKS Engine writes `msi` where a client would stand, whatever else it writes.
        if file.use_managed_identity_extension || file.aad_client_id.eq_ignore_ascii_case("msi") {
            return Ok(managed(&file.user_assigned_identity_id));
        }
        if file.use_federated_workload_identity_extension {
            return Ok(Credential::WorkloadIdentity {
                tenant: needed("tenantId", &file.tenant_id)?,
                client: needed("aadClientId", &file.aad_client_id)?,
                token_file: needed("aadFederatedTokenFile", &file.aad_federated_token_file)?.into(),
            });
        }
        if file.aad_client_secret.is_empty() {
            let remedy = if file.aad_client_cert_path.is_empty() {
                "it names neither a managed identity nor a client: use another azure.credential"
            } else {
                "it names a client certificate, which kamino-wf can't use: use another azure.credential"
            };
            return Err(bad("azure.azureJson", path, remedy));
        }
        if !accept_secret {
            let remedy = "it holds the secret of the cluster's own service principal, which every node has and which may do \
                          far more than kamino-wf needs: use workload-identity or managed-identity, or set \
                          azure.acceptNodeSecret: true";
            return Err(bad("azure.azureJson", path, remedy));
        }
        Ok(Credential::ClientSecret {
            tenant: needed("tenantId", &file.tenant_id)?,
            client: needed("aadClientId", &file.aad_client_id)?,
            secret: SecretString::from(file.aad_client_secret.clone()),
        })
    }
}
