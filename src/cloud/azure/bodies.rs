//! What we send, as JSON: no field that we do not mean, no null. The model change makes its own
//! ([`ModelChange::body`](crate::cloud::ModelChange::body)).
//!
//! Raw, because the generated models write `null` for every date and can't say everything; the tests below hold each body
//! against those models, so that no name is misspelt.

use serde_json::{Map, Value, json};

use crate::{
    cloud::{Architecture, DefinitionSpec, DiskCopy, NewVersion, SnapshotSpec, Tags, model_change::upgrade_policy},
    model::{DiskId, Region},
};

/// A full copy in cheap storage: it lives for an hour, and becomes a disk.
const SNAPSHOT_STORAGE: &str = "Standard_LRS";

fn architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X64 => "x64",
        Architecture::Arm64 => "Arm64",
    }
}

pub(super) fn snapshot(want: &SnapshotSpec) -> Value {
    json!({
        "location": want.location.0,
        "tags": want.tags,
        "sku": { "name": SNAPSHOT_STORAGE },
        "properties": {
            "osType": "Linux",
            "hyperVGeneration": want.generation,
            "incremental": want.incremental,
            "creationData": { "createOption": "Copy", "sourceResourceId": want.source.as_str() },
        },
    })
}

pub(super) fn disk_copy(want: &DiskCopy) -> Value {
    let mut body = json!({
        "location": want.location.0,
        "tags": want.tags,
        "sku": { "name": want.sku },
        "properties": {
            "osType": "Linux",
            "hyperVGeneration": want.generation,
            "supportedCapabilities": { "architecture": architecture(want.architecture) },
            "creationData": { "createOption": "Copy", "sourceResourceId": want.source.as_str() },
        },
    });
    if let Some(zone) = &want.zone {
        body["zones"] = json!([zone]);
    }
    if let Some(controllers) = &want.controllers {
        body["properties"]["supportedCapabilities"]["diskControllerTypes"] = json!(controllers);
    }
    if let Some(security_type) = &want.security_type {
        body["properties"]["securityProfile"] = json!({ "securityType": security_type });
    }
    body
}

pub(super) fn gallery(location: &Region) -> Value {
    json!({
        "location": location.0,
        "properties": { "description": "Node images, made by kamino-wf" },
    })
}

pub(super) fn definition(want: &DefinitionSpec) -> Value {
    let features: Vec<Value> = [("SecurityType", &want.security_type), ("DiskControllerTypes", &want.disk_controllers)]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| json!({ "name": name, "value": value })))
        .collect();
    let mut properties = Map::from_iter([
        ("osType".to_owned(), json!("Linux")),
        ("osState".to_owned(), json!("Generalized")),
        ("hyperVGeneration".to_owned(), json!(want.generation)),
        ("architecture".to_owned(), json!(architecture(want.architecture))),
        ("identifier".to_owned(), json!({ "publisher": want.publisher, "offer": want.offer, "sku": want.sku })),
    ]);
    if !features.is_empty() {
        properties.insert("features".into(), json!(features));
    }
    if let Some(plan) = &want.plan {
        let plan = json!({ "name": plan.name, "publisher": plan.publisher, "product": plan.product });
        properties.insert("purchasePlan".into(), plan);
    }
    json!({ "location": want.location.0, "properties": properties })
}

/// Excluded from latest: nothing unproven becomes live.
pub(super) fn version(want: &NewVersion) -> Value {
    let regions: Vec<Value> = want
        .regions
        .iter()
        .map(|region| {
            json!({
                "name": region.0,
                "regionalReplicaCount": want.replicas_in.get(&region.key()).unwrap_or(&want.replicas),
                "storageAccountType": want.storage,
            })
        })
        .collect();
    json!({
        "location": want.location.0,
        "tags": want.tags,
        "properties": {
            "publishingProfile": {
                "targetRegions": regions,
                "replicaCount": want.replicas,
                "storageAccountType": want.storage,
                "excludeFromLatest": true,
            },
            "storageProfile": { "osDiskImage": { "source": { "id": want.source.as_str() } } },
        },
    })
}

/// The PATCH of a disk's tags: Azure replaces them all.
pub(super) fn disk_tags(tags: &Tags) -> Value {
    json!({ "tags": tags })
}

/// The PATCH that only raises a capacity: the rest of the model is not in it. The upgrade policy goes along, since terraform
/// found that a PATCH without it breaks scale sets that are not Manual.
pub(super) fn scale_out(live: &Value, capacity: u32) -> Value {
    let mut sku = live["sku"].as_object().cloned().unwrap_or_default();
    sku.retain(|_, value| !value.is_null());
    sku.insert("capacity".into(), json!(capacity));
    let mut body = json!({ "sku": sku });
    if let Some(policy) = upgrade_policy(live) {
        body["properties"]["upgradePolicy"] = policy.clone();
    }
    body
}

/// The PATCH that publishes a version or takes it back.
///
/// It carries the whole live publishing profile, so that it means the same whether Azure merges or replaces; `publishedDate`
/// is Azure's. A region may be excluded by itself: that switch goes along.
pub(super) fn publish(live: &Value, published: bool) -> Value {
    let mut profile = live["properties"]["publishingProfile"].as_object().cloned().unwrap_or_default();
    profile.remove("publishedDate");
    profile.retain(|_, value| !value.is_null());
    for region in profile.get_mut("targetRegions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(region) = region.as_object_mut()
            && region.contains_key("excludeFromLatest")
        {
            region.insert("excludeFromLatest".into(), json!(!published));
        }
    }
    profile.insert("excludeFromLatest".into(), json!(!published));
    json!({ "properties": { "publishingProfile": profile } })
}

/// A disk behind a logical unit number. It is ours, and stays when the machine goes; none of it is kept in the machine's memory.
pub(super) fn attach(disk: &DiskId, lun: u32) -> Value {
    json!({ "dataDisksToAttach": [
        { "diskId": disk.as_str(), "lun": lun, "caching": "None", "deleteOption": "Detach" },
    ] })
}

pub(super) fn detach(disk: &DiskId) -> Value {
    json!({ "dataDisksToDetach": [{ "diskId": disk.as_str() }] })
}

#[cfg(test)]
mod tests {
    use azure_mgmt_compute::package_2024_07_01::models;
    use serde::{Serialize, de::DeserializeOwned};

    use super::*;
    use crate::{
        cloud::Plan,
        model::{DefinitionId, DiskId, SnapshotId, VersionId},
    };

    const GROUP: &str =
        "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute";

    /// Reads a body into the generated model and writes it again: what the contract does not know would be lost.
    fn known_to_the_contract<T: DeserializeOwned + Serialize>(body: &Value) {
        let typed: T = serde_json::from_value(body.clone()).expect("a body that the contract knows");
        let mut back = serde_json::to_value(typed).expect("JSON");
        drop_nulls(&mut back);
        assert_eq!(&back, body);
    }

    fn drop_nulls(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, field| !field.is_null());
                fields.values_mut().for_each(drop_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(drop_nulls),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn tags() -> Tags {
        Tags::from([("kamino-wf-run".into(), "0193-run".into())])
    }

    #[test]
    fn every_field_is_in_azures_contract() {
        let region = Region("westeurope".into());
        known_to_the_contract::<models::Gallery>(&gallery(&region));
        known_to_the_contract::<models::Snapshot>(&snapshot(&SnapshotSpec {
            id: SnapshotId::parse(&format!("{GROUP}/snapshots/n")).expect("an id"),
            source: DiskId::parse(&format!("{GROUP}/disks/d")).expect("an id"),
            location: region.clone(),
            generation: "V2".into(),
            incremental: true,
            tags: tags(),
        }));
        known_to_the_contract::<models::DiskUpdate>(&disk_tags(&tags()));
        let live = json!({
            "sku": { "name": "Standard_D4s_v5", "tier": "Standard", "capacity": 3 },
            "properties": { "upgradePolicy": { "mode": "Manual" }, "overprovision": false },
        });
        known_to_the_contract::<models::VirtualMachineScaleSetUpdate>(&scale_out(&live, 4));
        known_to_the_contract::<models::Disk>(&disk_copy(&DiskCopy {
            id: DiskId::parse(&format!("{GROUP}/disks/n")).expect("an id"),
            source: SnapshotId::parse(&format!("{GROUP}/snapshots/s")).expect("an id"),
            location: region.clone(),
            zone: Some("1".into()),
            sku: "Premium_LRS".into(),
            generation: "V2".into(),
            architecture: Architecture::Arm64,
            security_type: Some("TrustedLaunch".into()),
            controllers: Some("SCSI, NVMe".into()),
            tags: tags(),
        }));
        known_to_the_contract::<models::GalleryImage>(&definition(&DefinitionSpec {
            id: DefinitionId::parse(&format!("{GROUP}/galleries/g/images/d")).expect("an id"),
            location: region.clone(),
            generation: "V2".into(),
            architecture: Architecture::X64,
            security_type: Some("TrustedLaunch".into()),
            disk_controllers: Some("SCSI, NVMe".into()),
            plan: Some(Plan { name: "n".into(), publisher: "p".into(), product: "o".into() }),
            publisher: "p".into(),
            offer: "o".into(),
            sku: "s".into(),
        }));
        known_to_the_contract::<models::GalleryImageVersion>(&version(&NewVersion {
            id: VersionId::parse(&format!("{GROUP}/galleries/g/images/d/versions/1.2.3")).expect("an id"),
            location: region.clone(),
            regions: vec![region, Region("northeurope".into())],
            replicas: 1,
            replicas_in: [("northeurope".into(), 3)].into(),
            storage: "Standard_ZRS".into(),
            source: crate::model::ResourceId::parse(&format!("{GROUP}/disks/d")).expect("an id"),
            tags: tags(),
        }));
    }

    #[test]
    fn publishing_says_the_same_whether_azure_merges_or_replaces() {
        let live = json!({ "properties": { "publishingProfile": {
            "targetRegions": [
                { "name": "West US", "regionalReplicaCount": 1, "storageAccountType": "Standard_LRS" },
                { "name": "East US", "excludeFromLatest": true },
            ],
            "replicaCount": 1,
            "publishedDate": "2026-11-24T10:00:00Z",
            "excludeFromLatest": true,
            "fieldOf2027": { "kept": true },
            "endOfLifeDate": null,
        }}});
        assert_eq!(
            publish(&live, true),
            json!({ "properties": { "publishingProfile": {
                "targetRegions": [
                    { "name": "West US", "regionalReplicaCount": 1, "storageAccountType": "Standard_LRS" },
                    { "name": "East US", "excludeFromLatest": false },
                ],
                "replicaCount": 1,
                "excludeFromLatest": false,
                "fieldOf2027": { "kept": true },
            }}})
        );
        assert_eq!(publish(&live, false)["properties"]["publishingProfile"]["excludeFromLatest"], json!(true));
    }
}
