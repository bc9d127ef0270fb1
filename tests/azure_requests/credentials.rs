//! Every way to a token: what is asked of whom, and what comes of what they answer.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use kamino_wf::{
    cloud::{
        Cloud as _,
        azure::{Credential, KnownCloud, MachineIdentity},
    },
    model::Class,
    sim::arm::{Machine, MetadataService},
};
use serde_json::{Value, json};
use tokio::process::Command;

use super::stage::Stage;

const RESOURCE_ID: &str = "/subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/\
                           Microsoft.ManagedIdentity/userAssignedIdentities/kamino";

/// An adapter that is one of this machine's identities, and the service that says so.
async fn on(machine: Machine, identity: MachineIdentity, lifetime: Duration) -> (Stage, MetadataService) {
    let stage = Stage::new().await;
    let service = stage.face.metadata(machine, lifetime).await.expect("a service");
    let credential = Credential::ManagedIdentity { identity, service: service.url() };
    let stage = stage.again(|settings| settings.credential = credential);
    (stage, service)
}

fn assigned(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), format!("{RESOURCE_ID}-{name}"))).collect()
}

#[tokio::test]
async fn each_identity_of_a_machine_is_asked_for_in_its_own_words() {
    let both = Machine { system: true, assigned: assigned(&["one", "two"]) };
    let mut asked = Vec::new();
    for identity in [
        MachineIdentity::System,
        MachineIdentity::Client("two".into()),
        MachineIdentity::Resource(format!("{RESOURCE_ID}-one")),
    ] {
        let (stage, service) = on(both.clone(), identity, Duration::from_hours(24)).await;
        for _ in 0..3 {
            stage.azure.disk(&stage.donor_disk()).await.expect("a look").expect("a disk");
        }
        // Once for all three: the token is kept.
        asked.extend(service.requests());
        assert!(stage.face.assertions().is_empty(), "Entra was not asked");
    }
    insta::with_settings!({ snapshot_path => "../golden/credentials", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("managed_identity", asked.join("\n"));
    });
}

#[tokio::test]
async fn the_authority_is_asked_for_the_clouds_audience() {
    let mut asked = Vec::new();
    let federated = |stage: &Stage| Credential::WorkloadIdentity {
        tenant: "tenant.example".into(),
        client: "client".into(),
        token_file: stage.token_file.clone(),
    };
    let secret = |_: &Stage| Credential::ClientSecret {
        tenant: "tenant.example".into(),
        client: "client".into(),
        secret: "hush-hush".to_owned().into(),
    };
    let ways: [&dyn Fn(&Stage) -> Credential; 2] = [&federated, &secret];
    for way in ways {
        for cloud in KnownCloud::ALL {
            let stage = Stage::new().await;
            let credential = way(&stage);
            let stage = stage.again(|settings| {
                settings.credential = credential;
                settings.audience = cloud.endpoints().audience;
            });
            stage.azure.disk(&stage.donor_disk()).await.expect("a look").expect("a disk");
            asked.extend(stage.face.token_requests());
        }
    }
    insta::with_settings!({ snapshot_path => "../golden/credentials", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("authority", asked.join("\n"));
    });
}

#[tokio::test]
async fn an_identity_that_the_machine_does_not_have_is_for_a_person() {
    let machines = [
        (Machine::default(), MachineIdentity::System),
        (Machine { system: true, assigned: assigned(&["one"]) }, MachineIdentity::Client("two".into())),
        // Two, and nobody says which.
        (Machine { system: false, assigned: assigned(&["one", "two"]) }, MachineIdentity::System),
    ];
    for (machine, identity) in machines {
        let (stage, service) = on(machine, identity, Duration::from_hours(24)).await;
        let error = stage.azure.disk(&stage.donor_disk()).await.expect_err("no identity");
        assert_eq!(error.class(), Class::Denied, "{error}");
        assert_eq!(service.requests().len(), 1, "a 400 is not repeated");
    }
}

/// 404 and 410 are said while the service is being updated; 429 and 5xx on a bad day.
#[tokio::test]
async fn a_service_that_is_being_updated_is_asked_again() {
    let (stage, service) =
        on(Machine { system: true, ..Machine::default() }, MachineIdentity::System, Duration::from_hours(24)).await;
    service.trouble(&[410, 404]);
    stage.azure.disk(&stage.donor_disk()).await.expect("a look in the end");
    assert_eq!(service.requests().len(), 3);
}

#[tokio::test]
async fn a_machines_token_is_fetched_anew_before_it_ends_and_when_it_is_refused() {
    let machine = Machine { system: true, ..Machine::default() };
    // Tokens of a minute: the library fetches a new one in the last five.
    let (stage, service) = on(machine.clone(), MachineIdentity::System, Duration::from_mins(1)).await;
    for _ in 0..2 {
        stage.azure.disk(&stage.donor_disk()).await.expect("a look");
    }
    assert_eq!(service.requests().len(), 2);

    let (stage, service) = on(machine, MachineIdentity::System, Duration::from_hours(24)).await;
    stage.azure.disk(&stage.donor_disk()).await.expect("a look");
    stage.face.revoke_tokens();
    stage.azure.disk(&stage.donor_disk()).await.expect("a look with a new token");
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn a_machine_without_the_service_says_so() {
    let stage = Stage::new().await;
    let nobody = "http://127.0.0.1:1".to_owned();
    let credential = Credential::ManagedIdentity { identity: MachineIdentity::System, service: nobody };
    let stage = stage.again(|settings| {
        settings.credential = credential;
        settings.timeouts.request = Duration::from_secs(2);
    });
    let error = stage.azure.disk(&stage.donor_disk()).await.expect_err("nobody there");
    assert_eq!(error.class(), Class::Uncertain, "{error}");
    assert!(stage.face.requests().is_empty(), "nothing was sent without a token");
}

/// `az` as it is on a laptop: a process that says its token, and writes down what it was asked.
fn az(dir: &Path, script: &str) {
    let path = dir.join("az");
    fs::write(&path, format!("#!/bin/sh\necho \"$@\" >> {}/asked\n{script}\n", dir.display())).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable");
}

/// What `doctor` says of Azure in a process whose PATH has that directory, and what it wrote on stderr.
async fn doctor(stage: &Stage, dir: &Path, azure: &Value) -> (Vec<(String, String, String)>, String) {
    let config = dir.join("config.yaml");
    let mut settings = json!({
        "resourceManager": stage.face.url(), "authority": stage.face.url(), "caBundle": stage.ca(),
        "credential": "azure-cli",
    });
    settings.as_object_mut().expect("an object").extend(azure.as_object().expect("an object").clone());
    let scale_set = stage.scale_set();
    let settings = json!({
        "azure": settings,
        "store": dir.join("store"),
        "kubernetes": { "kubeconfig": "/nowhere" },
        "cleaning": { "image": "registry.example/kamino-wf:test" },
        "pools": [{ "name": "pool1", "scaleSet": scale_set.to_string(), "profile": "kubeadm",
                    "gallery": stage.definition().gallery().to_string() }],
    });
    fs::write(&config, settings.to_string()).expect("settings");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kamino-wf"));
    command.args(["doctor", "-o", "json", "--config"]).arg(&config);
    command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", dir.display())).env("HOME", dir);
    command.env("KAMINO_LOG", "trace");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_mins(2), command.output()).await;
    let output = output.expect("it ends").expect("it starts");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let checks = said["checks"].as_array().expect("checks").iter();
    let checks = checks.map(|it| (text(it, "name"), text(it, "state"), text(it, "seen"))).collect();
    (checks, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn check<'a>(checks: &'a [(String, String, String)], name: &str) -> (&'a str, &'a str) {
    let found = checks.iter().find(|(known, ..)| known == name);
    found.map(|(_, state, seen)| (state.as_str(), seen.as_str())).expect(name)
}

#[tokio::test]
async fn the_azure_clis_login_works_in_the_real_binary() {
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().expect("a directory");
    let token = stage.face.token();
    // As azure-cli prints it: local time without a zone, and the second that counts.
    let printed = json!({ "accessToken": token, "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4_070_908_800_i64,
                          "subscription": "s", "tenant": "t", "tokenType": "Bearer" });
    fs::write(dir.path().join("token.json"), printed.to_string()).expect("a token");
    az(dir.path(), &format!("cat {}/token.json", dir.path().display()));
    let (checks, log) =
        doctor(&stage, dir.path(), &json!({ "tenant": "tenant.example", "subscription": "my-sub" })).await;
    assert_eq!(check(&checks, "Azure credential").0, "ok", "{checks:#?}");
    assert_eq!(check(&checks, "Azure rights").0, "ok", "{checks:#?}");
    let asked = fs::read_to_string(dir.path().join("asked")).expect("what az was asked");
    // Once for all that doctor asks: each is half a second of Python.
    insta::with_settings!({ snapshot_path => "../golden/credentials", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("azure_cli", asked.replace(&stage.face.url(), "[face]"));
    });
    assert!(stage.face.assertions().is_empty(), "Entra was not asked");
    assert!(log.contains("az account get-access-token"), "it is logged at trace level: {log}");
    assert!(!log.contains(&token) && !log.contains(&token[40..60]), "the token is not");
}

#[tokio::test]
async fn an_azure_cli_that_is_missing_or_logged_out_says_so() {
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (checks, _) = doctor(&stage, dir.path(), &json!({})).await;
    let (found, seen) = check(&checks, "Azure credential");
    assert!(found == "wrong" && seen.contains("az not found on PATH"), "{seen}");

    let secret = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.planted-canary";
    az(
        dir.path(),
        &format!("echo \"ERROR: Please run 'az login' to setup account. refresh_token={secret}\" >&2; exit 1"),
    );
    let (checks, log) = doctor(&stage, dir.path(), &json!({})).await;
    let (found, seen) = check(&checks, "Azure credential");
    assert!(found == "wrong" && seen.contains("az login"), "{seen}");
    assert!(!seen.contains("canary") && !log.contains("canary"), "{seen}\n{log}");
}

#[tokio::test]
async fn the_nodes_file_works_in_the_real_binary_and_its_secret_only_when_accepted() {
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("azure.json");
    let service =
        stage.face.metadata(Machine { system: false, assigned: assigned(&["abc"]) }, Duration::from_hours(24));
    let service = service.await.expect("a service");
    let node = json!({ "cloud": "AzurePublicCloud", "tenantId": "t", "aadClientId": "msi", "aadClientSecret": "msi",
                       "useManagedIdentityExtension": true, "userAssignedIdentityID": "abc" });
    fs::write(&path, node.to_string()).expect("azure.json");
    let own = json!({ "credential": "azure-json", "azureJson": path, "metadataService": service.url() });
    let (checks, log) = doctor(&stage, dir.path(), &own).await;
    assert_eq!(check(&checks, "Azure credential").0, "ok", "{checks:#?}\n{log}");
    assert_eq!(service.requests().len(), 1);
    for token in stage.face.tokens() {
        assert!(!log.contains(&token), "a token is in the log");
    }

    let node = json!({ "tenantId": "tenant.example", "aadClientId": "c", "aadClientSecret": "planted-canary" });
    fs::write(&path, node.to_string()).expect("azure.json");
    let own = json!({ "credential": "azure-json", "azureJson": path, "acceptNodeSecret": true });
    let (checks, log) = doctor(&stage, dir.path(), &own).await;
    assert_eq!(check(&checks, "Azure credential").0, "ok", "{checks:#?}\n{log}");
    assert!(!log.contains("canary"), "the secret is in the log");
}
