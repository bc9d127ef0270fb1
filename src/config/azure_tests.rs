//! What the settings under `azure` come to, and what of them is refused.

use std::path::Path;

use secrecy::ExposeSecret as _;

use super::{Config, ConfigError, Overrides};
use crate::cloud::azure::{AzureSettings, Credential, MachineIdentity};

const IDENTITY: &str =
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/kamino";

type Variables<'a> = &'a [(&'a str, &'a str)];

/// Settings with these under `azure`, and what these variables say.
fn load(azure: &str, variables: &[(&str, &str)]) -> Result<Option<AzureSettings>, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, format!("azure: {{ {azure} }}\n")).expect("a file");
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Config::load(Overrides { config: Some(path), ..Overrides::default() }, &env).map(|config| config.azure)
}

fn good(azure: &str, variables: &[(&str, &str)]) -> AzureSettings {
    load(azure, variables).expect(azure).expect("a credential")
}

/// Which identity, and where its service is.
fn managed(settings: AzureSettings) -> (MachineIdentity, String) {
    let Credential::ManagedIdentity { identity, service } = settings.credential else { panic!("{settings:?}") };
    (identity, service)
}

fn node(dir: &Path, text: &str) -> String {
    let path = dir.join("azure.json");
    std::fs::write(&path, text).expect("a file");
    format!("credential: azure-json, azureJson: '{}'", path.display())
}

#[test]
fn a_managed_identity_is_the_systems_or_one_that_is_named() {
    let identity = |azure: &str, variables: &[(&str, &str)]| managed(good(azure, variables));
    let usual = "http://169.254.169.254".to_owned();
    // The webhook's variable is about another credential.
    let webhook = [("AZURE_CLIENT_ID", "another")];
    assert_eq!(identity("credential: managed-identity", &webhook), (MachineIdentity::System, usual.clone()));
    assert_eq!(
        identity("credential: managed-identity, client: abc", &[]),
        (MachineIdentity::Client("abc".into()), usual.clone())
    );
    assert_eq!(
        identity(&format!("credential: managed-identity, identity: {IDENTITY}"), &[]),
        (MachineIdentity::Resource(IDENTITY.into()), usual)
    );
    let other = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")];
    assert_eq!(identity("credential: managed-identity", &other).1, "http://127.0.0.1:1");
}

#[test]
fn the_azure_cli_takes_a_tenant_and_a_subscription() {
    let found = good("credential: azure-cli, tenant: t, subscription: s", &[]).credential;
    assert!(
        matches!(&found, Credential::AzureCli { tenant: Some(t), subscription: Some(s) } if t == "t" && s == "s"),
        "{found:?}"
    );
}

#[test]
fn a_cloud_is_all_of_its_endpoints() {
    let of = |azure: &str, variables: &[(&str, &str)]| {
        let found = good(&format!("credential: azure-cli{azure}"), variables);
        [found.resource_manager, found.authority, found.audience]
    };
    let public = ["https://management.azure.com", "https://login.microsoftonline.com", "https://management.azure.com"];
    let government = [
        "https://management.usgovcloudapi.net",
        "https://login.microsoftonline.us",
        "https://management.usgovcloudapi.net",
    ];
    let china = [
        "https://management.chinacloudapi.cn",
        "https://login.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
    ];
    assert_eq!(of("", &[]), public);
    assert_eq!(of(", cloud: public", &[]), public);
    assert_eq!(of(", cloud: us-government", &[]), government);
    assert_eq!(of(", cloud: china", &[]), china);
    // As the webhook says it there, slash and all.
    let webhook = [("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")];
    assert_eq!(of(", cloud: us-government", &webhook)[0], government[0]);
    // One of a known cloud's other names is as good.
    let newer = ", cloud: china, authority: 'https://login.partner.microsoftonline.cn'";
    assert_eq!(of(newer, &[])[1], "https://login.partner.microsoftonline.cn");
    // A cloud of one's own may take its tokens from Entra.
    let own = of(", resourceManager: 'https://management.local.azurestack.external/'", &[]);
    assert_eq!(own[1..], ["https://login.microsoftonline.com", "https://management.local.azurestack.external"]);
}

#[test]
fn the_nodes_file_says_cloud_and_identity() {
    let dir = tempfile::tempdir().expect("a directory");
    let of = |text: &str| good(&node(dir.path(), text), &[]);
    let managed = |text: &str| managed(of(text)).0;
    // AKS Engine's, with the fields of next year.
    let text = r#"{"cloud":"AzurePublicCloud","aadClientId":"msi","aadClientSecret":"msi","newField":{"a":1},
                   "useManagedIdentityExtension":true,"userAssignedIdentityID":"abc"}"#;
    assert_eq!(managed(text), MachineIdentity::Client("abc".into()));
    assert_eq!(managed(r#"{"aadClientId":"msi"}"#), MachineIdentity::System);
    assert_eq!(managed(r#"{"useManagedIdentityExtension":true,"userAssignedIdentityID":""}"#), MachineIdentity::System);
    let text = format!(r#"{{"useManagedIdentityExtension":true,"userAssignedIdentityID":"{IDENTITY}"}}"#);
    assert_eq!(managed(&text), MachineIdentity::Resource(IDENTITY.into()));

    let clouds = [
        ("", "https://management.azure.com"),
        ("AzureCloud", "https://management.azure.com"),
        ("AZUREPUBLICCLOUD", "https://management.azure.com"),
        ("AzureUSGovernmentCloud", "https://management.usgovcloudapi.net"),
        ("AzureUSGovernment", "https://management.usgovcloudapi.net"),
        ("AzureChinaCloud", "https://management.chinacloudapi.cn"),
    ];
    for (cloud, manager) in clouds {
        let found = of(&format!(r#"{{"cloud":"{cloud}","aadClientId":"msi"}}"#));
        assert_eq!(found.resource_manager, manager, "{cloud}");
    }

    let federated = of(r#"{"useFederatedWorkloadIdentityExtension":true,"tenantId":"t","aadClientId":"c",
                            "aadFederatedTokenFile":"/var/token"}"#);
    assert!(matches!(federated.credential, Credential::WorkloadIdentity { .. }), "{federated:?}");
}

#[test]
fn the_nodes_secret_is_taken_only_when_somebody_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = r#"{"tenantId":"t","aadClientId":"c","aadClientSecret":"hush-hush"}"#;
    let azure = node(dir.path(), text);
    let error = load(&azure, &[]).expect_err("not by itself").to_string();
    assert!(error.contains("azure.acceptNodeSecret: true") && !error.contains("hush"), "{error}");
    let found = good(&format!("{azure}, acceptNodeSecret: true"), &[]);
    assert!(!format!("{found:?}").contains("hush"), "{found:?}");
    let Credential::ClientSecret { secret, .. } = found.credential else { panic!("{found:?}") };
    assert_eq!(secret.expose_secret(), "hush-hush");
}

#[test]
fn azure_stack_has_its_environment_beside_the_nodes_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let azure = node(dir.path(), r#"{"cloud":"AzureStackCloud","aadClientId":"msi"}"#);
    let error = load(&azure, &[]).expect_err("no environment").to_string();
    assert!(error.contains("azurestackcloud.json"), "{error}");

    let environment = r#"{"name":"AzureStackCloud","resourceManagerEndpoint":"https://management.stack.example/",
        "activeDirectoryEndpoint":"https://login.microsoftonline.com/","serviceManagementEndpoint":"https://management.stack.example/guid"}"#;
    std::fs::write(dir.path().join("azurestackcloud.json"), environment).expect("a file");
    let found = good(&azure, &[]);
    assert_eq!(
        [found.resource_manager.as_str(), &found.authority, &found.audience],
        [
            "https://management.stack.example",
            "https://login.microsoftonline.com",
            "https://management.stack.example/guid"
        ]
    );

    let elsewhere = dir.path().join("elsewhere.json");
    std::fs::write(&elsewhere, environment.replace("management.stack", "management.other")).expect("a file");
    let found = good(&azure, &[("AZURE_ENVIRONMENT_FILEPATH", elsewhere.to_str().expect("a path"))]);
    assert_eq!(found.resource_manager, "https://management.other.example");
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    // Each row has a file of its own.
    let files = std::cell::Cell::new(0);
    let file = |text: &str| {
        files.set(files.get() + 1);
        let own = dir.path().join(files.get().to_string());
        std::fs::create_dir(&own).expect("a directory");
        node(&own, text)
    };
    let government = [("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")];
    let cli = "credential: azure-cli";
    let managed = "credential: managed-identity";
    let rows: Vec<(String, Variables<'_>, &str)> = vec![
        (format!("{cli}, cloud: mars"), &[], "mars"),
        (
            format!("{cli}, cloud: china, resourceManager: 'https://management.azure.com'"),
            &[],
            "azure.resourceManager is",
        ),
        (format!("{cli}, cloud: china, authority: 'https://login.microsoftonline.com'"), &[], "azure.authority is"),
        (format!("{cli}, cloud: china, audience: 'https://management.azure.com'"), &[], "azure.audience is"),
        (format!("{cli}, cloud: public"), &government, "AZURE_AUTHORITY_HOST is"),
        (cli.into(), &government, "set azure.cloud to the one that is meant"),
        (format!("{cli}, authority: 'https://login.chinacloudapi.cn'"), &[], "azure.authority is"),
        (format!("{cli}, client: abc"), &[], "azure.client is \"abc\": azure.credential is azure-cli"),
        (format!("{managed}, client: abc, identity: {IDENTITY}"), &[], "azure.client is \"abc\": azure.identity"),
        (format!("{managed}, identity: abc"), &[], "azure.identity is \"abc\": expected the resource id"),
        (format!("{managed}, tenant: t"), &[], "azure.tenant is \"t\""),
        (format!("{managed}, secretFile: /s"), &[], "azure.secretFile is \"/s\": it can't be read"),
        (
            format!("{managed}, secretFile: /etc/hostname"),
            &[],
            "azure.secretFile is \"/etc/hostname\": azure.credential",
        ),
        ("acceptNodeSecret: true".into(), &[], "azure.acceptNodeSecret is \"true\": azure.credential is not set"),
        ("credential: client-secret, tenant: t, client: c".into(), &[], "azure.secretFile is not set"),
        ("credential: azure-json, azureJson: /nowhere.json".into(), &[], "/nowhere.json"),
        (file(r#"{"cloud":"AzureGermanCloud"}"#), &[], "closed in 2021"),
        (file(r#"{"cloud":"AzureMarsCloud"}"#), &[], "AzureMarsCloud"),
        (file(r#"{"tenantId":"adfs","aadClientId":"c"}"#), &[], "AD FS"),
        (file(r#"{"aadClientId":"c","aadClientCertPath":"/x.pfx"}"#), &[], "client certificate"),
        (file("{}"), &[], "neither a managed identity nor a client"),
        (
            format!("{}, cloud: public", file(r#"{"cloud":"AzureChinaCloud","aadClientId":"msi"}"#)),
            &[],
            "azure.cloud is \"public\"",
        ),
    ];
    for (azure, variables, expected) in rows {
        let error = load(&azure, variables).expect_err(&azure).to_string();
        assert!(error.contains(expected), "{azure}\n{error}");
    }
}

#[test]
fn a_nodes_file_that_is_no_json_says_where_and_not_what() {
    let dir = tempfile::tempdir().expect("a directory");
    let azure = node(dir.path(), "{\"aadClientSecret\":\n hush-hush}");
    let error = load(&azure, &[]).expect_err("no JSON").to_string();
    assert!(error.contains("line 2") && !error.contains("hush"), "{error}");
    let azure = node(dir.path(), r#"{"aadClientSecret":["hush-hush"]}"#);
    let error = load(&azure, &[]).expect_err("no text").to_string();
    assert!(error.contains("line 1") && !error.contains("hush"), "{error}");
}
