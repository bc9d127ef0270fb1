//! Who the pod is in Azure: each way to say so, and what it takes.

use std::fs;

use serde_json::{Value, json};

use crate::{
    Helm, objects,
    render::{of_kind, pods},
    tools, values,
};

/// Who we are in Azure: what is set, what the settings say then, and the volume that comes with it.
fn credentials() -> Vec<(&'static str, Value, Value)> {
    let client = "11111111-2222-3333-4444-555555555555";
    let identity = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
    let node = "/etc/kubernetes/azure.json";
    let secret = |name: &str, key: &str, path: &str| json!({ "secret": { "secretName": name, "items": [{ "key": key, "path": path }] } });
    vec![
        ("managed-identity", json!({ "client": client }), Value::Null),
        ("managed-identity,azure.clientId=", json!({}), Value::Null),
        (
            "managed-identity,azure.clientId=,azure.identity=/subscriptions/s/resourceGroups/g/providers/\
             Microsoft.ManagedIdentity/userAssignedIdentities/i",
            json!({ "identity": identity }),
            Value::Null,
        ),
        (
            "client-secret,azure.tenantId=66666666-7777-8888-9999-000000000000,azure.existingSecret=azure",
            json!({ "client": client, "tenant": "66666666-7777-8888-9999-000000000000",
                "secretFile": "/etc/kamino-wf-secret/client-secret" }),
            secret("azure", "client-secret", "client-secret"),
        ),
        (
            "azure-json,azure.clientId=",
            json!({ "azureJson": node }),
            json!({ "hostPath": { "path": node, "type": "File" } }),
        ),
        (
            "azure-json,azure.clientId=,azure.azureJson=/etc/node/azure.json",
            json!({ "azureJson": node }),
            json!({ "hostPath": { "path": "/etc/node/azure.json", "type": "File" } }),
        ),
        (
            "azure-json,azure.clientId=,azure.existingSecret=node,azure.existingSecretKey=file,azure.acceptNodeSecret=true",
            json!({ "azureJson": node, "acceptNodeSecret": true }),
            secret("node", "file", "azure.json"),
        ),
    ]
}

/// Each credential brings its volume, its way out, and settings that the binary takes.
#[test]
fn each_credential_comes_with_what_it_takes() {
    let Some(tools) = tools() else { return };
    let good = values("default");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("client-secret"), "s").expect("a file");
    let node = json!({ "cloud": "AzurePublicCloud", "tenantId": "t", "useManagedIdentityExtension": true });
    fs::write(at("azure.json"), node.to_string()).expect("a file");
    for (set, expected, brought) in credentials() {
        let setting = format!("azure.credential={set}");
        let text = Helm::Four.template(tools, &["--values", good.to_str().expect("a path"), "--set", &setting]);
        let objects = objects(&text.unwrap_or_else(|error| panic!("{set}: {error}")));
        let kind = set.split(',').next().expect("a credential");

        let text = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().expect("settings");
        let settings: Value = serde_saphyr::from_str(text).expect("YAML");
        let mut azure = expected;
        azure["credential"] = kind.into();
        assert_eq!(settings["azure"], azure, "{set}");
        for (name, pod) in pods(&objects) {
            let of = |list: &Value| {
                let list = list.as_array().expect("a list").iter();
                list.filter(|it| !["config", "store"].contains(&it["name"].as_str().expect("a name")))
                    .cloned()
                    .collect()
            };
            let (volumes, mounts): (Vec<Value>, Vec<Value>) =
                (of(&pod["volumes"]), of(&pod["containers"][0]["volumeMounts"]));
            assert!(mounts.iter().all(|it| it["readOnly"] == true), "{set}, {name}: {mounts:?}");
            assert_eq!(mounts.len(), volumes.len(), "{set}, {name}");
            let mut volume = volumes.first().cloned().unwrap_or_default();
            for (at, field) in [("", "name"), ("/secret", "defaultMode")] {
                volume.pointer_mut(at).and_then(Value::as_object_mut).map(|it| it.remove(field));
            }
            assert_eq!(volume, brought, "{set}, {name}");
        }
        let policies = of_kind(&objects, "NetworkPolicy");
        let open = policies.iter().any(|it| it.to_string().contains(r#"{"cidr":"169.254.169.254/32"}"#));
        assert_eq!(open, ["managed-identity", "azure-json"].contains(&kind), "{set}: the metadata service");

        let there = text
            .replace("/etc/kamino-wf-secret/client-secret", &at("client-secret"))
            .replace("/etc/kubernetes/azure.json", &at("azure.json"));
        let path = folder.path().join("config.yaml");
        fs::write(&path, there).expect("a file");
        let overrides = kamino_wf::config::Overrides { config: Some(path), ..Default::default() };
        let config = kamino_wf::config::Config::load(overrides, &|_: &str| None);
        assert!(config.unwrap_or_else(|error| panic!("{set}: {error}")).azure.is_some(), "{set}");
    }
}
