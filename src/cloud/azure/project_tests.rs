//! Replies as Azure gives them, shortened; with fields and words of a later year.

use serde_json::json;

use super::*;

const GROUP: &str =
    "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/K8S/providers/Microsoft.Compute";

fn live() -> Value {
    json!({
        "id": format!("{GROUP}/virtualMachineScaleSets/pool1"),
        "etag": "\"7\"",
        "location": "West US",
        "zones": ["1", "2"],
        "tags": { "Kamino-WF-Run": "x", "poolName": "pool1" },
        "sku": { "name": "Standard_D4s_v5", "capacity": 3 },
        "fieldOf2027": 1,
        "properties": {
            "provisioningState": "WordOf2027",
            "upgradePolicy": { "mode": "Manual", "automaticOSUpgradePolicy": { "enableAutomaticOSUpgrade": true } },
            "virtualMachineProfile": {
                "priority": "Spot",
                "securityProfile": { "securityType": "TrustedLaunch" },
                "storageProfile": {
                    "diskControllerType": "NVMe",
                    "osDisk": { "osType": "Linux", "managedDisk": { "diskEncryptionSet": { "id": "/des" } } },
                    "dataDisks": [{ "lun": 0 }],
                    "imageReference": { "id": format!("{GROUP}/galleries/protos/images/pool1") },
                },
                "extensionProfile": { "extensions": [
                    { "name": "cse", "properties": { "publisher": "Microsoft.Azure.Extensions", "type": "CustomScript" } },
                ]},
            },
        },
    })
}

#[test]
fn a_scale_set_says_what_preflight_must_know() {
    let set = scale_set(&live()).expect("a scale set");
    assert_eq!(set.provisioning, Provisioning::Running);
    assert_eq!((set.upgrade_mode, set.automatic_os_upgrade), (UpgradeMode::Manual, true));
    assert_eq!(set.location, Region("westus".into()));
    assert!(set.spot && set.linux && !set.ephemeral_os_disk && !set.automatic_repairs);
    assert_eq!(set.disk_encryption_set.as_deref(), Some("/des"));
    assert_eq!(set.extensions[0].handler, "Microsoft.Azure.Extensions/CustomScript");
    assert_eq!(set.tags.get("kamino-wf-run").map(String::as_str), Some("x"));
    assert!(matches!(set.image, ImageRef::Definition(_)));
    assert!(set.fingerprint.0.contains_key("/fieldOf2027"), "unknown fields are watched too");
}

#[test]
fn what_is_missing_makes_us_do_less() {
    let bare = json!({ "id": format!("{GROUP}/virtualMachineScaleSets/p"), "location": "westus", "properties": {} });
    let set = scale_set(&bare).expect("a scale set");
    assert_eq!(set.upgrade_mode, UpgradeMode::Other(String::new()), "not taken for Manual");
    assert!(!set.linux, "not taken for Linux");
    assert_eq!(set.provisioning, Provisioning::Running);
    assert_eq!(scale_set(&json!({ "location": "westus" })), Err(Unreadable::Missing("/id")));
}

#[test]
fn an_image_reference_is_read_by_its_id_unless_it_is_mixed() {
    let version = format!("{GROUP}/galleries/protos/images/pool1/versions/2026.11.24000");
    assert!(matches!(image(&json!({ "id": version })), ImageRef::Version(_)));
    assert!(matches!(image(&json!({ "id": version, "publisher": "old" })), ImageRef::Other(_)));
    let platform = json!({ "publisher": "Canonical", "offer": "o", "sku": "s", "version": "latest" });
    assert_eq!(image(&platform), ImageRef::Other("Canonical o s latest".into()));
    let definition = json!({ "id": format!("{GROUP}/galleries/p/images/d"), "exactVersion": "1.2.3" });
    let ImageRef::Version(exact) = exact(&definition) else { panic!("an exact version") };
    assert_eq!(exact.names(), ["p", "d", "1.2.3"]);
}

#[test]
fn the_runs_tag_is_read_with_hyphens_and_without() {
    let uuid = Uuid::from_u128(7);
    for text in [uuid.simple().to_string(), uuid.hyphenated().to_string().to_uppercase()] {
        assert_eq!(run(&Tags::from([(RUN_TAG.into(), text)])), Some(RunId(uuid)));
    }
    assert_eq!(run(&Tags::from([(RUN_TAG.into(), "somebody else's".into())])), None);
}

#[test]
fn a_disk_that_lets_go_slowly_is_still_managed() {
    let json = json!({
        "id": format!("{GROUP}/disks/d"), "location": "westus", "managedBy": "/vm", "sku": { "name": "Premium_LRS" },
        "properties": { "diskState": "ActiveSASFrozen", "diskSizeGB": 64, "uniqueId": "u", "provisioningState": "Succeeded" },
    });
    let disk = disk(&json).expect("a disk");
    assert!(disk.managed);
    assert_eq!((disk.state, disk.generation.as_str(), disk.size_gib), (DiskState::ActiveSas, "V1", 64));
}

#[test]
fn replication_is_the_mean_of_its_regions_or_the_reason_of_the_failed() {
    let status = |state: &str| {
        json!({ "aggregatedState": state, "summary": [
            { "region": "West US", "state": "Completed", "progress": 100 },
            { "region": "East US", "state": "Failed", "progress": 10, "details": "ZRS is not supported" },
        ]})
    };
    assert_eq!(replication(&status("InProgress")), Replication::InProgress(55));
    assert_eq!(replication(&status("Completed")), Replication::Completed);
    assert_eq!(replication(&status("Failed")), Replication::Failed("East US: Failed ZRS is not supported".into()));
    assert_eq!(replication(&status("WordOf2027")), Replication::Unknown);
    assert_eq!(replication(&Value::Null), Replication::Unknown);
}

#[test]
fn a_page_without_items_is_no_page() {
    assert_eq!(page(&json!({ "value": [], "nextLink": "" }), snapshot), Ok((vec![], None)));
    assert_eq!(page(&json!({}), snapshot), Err(Unreadable::Missing("value")));
}

#[test]
fn an_incremental_snapshot_is_done_when_all_of_it_is_there() {
    let of = |percent: Value| {
        let json = json!({ "id": format!("{GROUP}/snapshots/s"), "location": "westus",
            "properties": { "provisioningState": "Succeeded", "incremental": true, "completionPercent": percent } });
        snapshot(&json).expect("a snapshot").provisioning
    };
    assert_eq!(of(json!(42.5)), Provisioning::Running);
    assert_eq!(of(json!(100.0)), Provisioning::Succeeded);
    // In its own region it does not say, and is.
    assert_eq!(of(Value::Null), Provisioning::Succeeded);
}

#[test]
fn a_disk_says_what_its_image_has_to_be() {
    let json = json!({ "id": format!("{GROUP}/disks/d"), "location": "westus", "sku": { "name": "Premium_LRS" },
        "tags": { "Kamino-WF-Storage": "Standard_LRS" },
        "properties": { "hyperVGeneration": "V2", "supportedCapabilities": { "architecture": "Arm64",
            "diskControllerTypes": "SCSI, NVMe" }, "securityProfile": { "securityType": "TrustedLaunch" },
            "purchasePlan": { "name": "n", "publisher": "p", "product": "o", "promotionCode": "x" } } });
    let disk = disk(&json).expect("a disk");
    assert_eq!((disk.generation.as_str(), disk.architecture), ("V2", Architecture::Arm64));
    assert_eq!(disk.controllers.as_deref(), Some("SCSI, NVMe"));
    assert_eq!(disk.security_type.as_deref(), Some("TrustedLaunch"));
    assert_eq!(disk.plan, Some(Plan { name: "n".into(), publisher: "p".into(), product: "o".into() }));
    assert_eq!(disk.version_storage.as_deref(), Some("Standard_LRS"));
}

#[test]
fn an_autoscale_setting_that_does_not_say_is_at_work() {
    let setting = autoscale(&json!({ "name": "cpu", "properties": { "targetResourceUri": "/x" } })).expect("a setting");
    assert!(setting.enabled && setting.target == "/x");
    let off = json!({ "name": "cpu", "properties": { "enabled": false } });
    assert!(!autoscale(&off).expect("a setting").enabled);
}
