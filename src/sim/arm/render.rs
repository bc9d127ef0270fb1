//! Resources as Azure shows them: regions in their long names, ids in another case, fields and words of a later year.

use serde_json::{Value, json};

use crate::{
    cloud::{
        Architecture, Autoscale, Definition, Disk, DiskState, Gallery, ImageRef, Instance, Machine, Plan, Power,
        Provisioning, Replication, Snapshot, Version,
    },
    model::{InstanceId, Region, ResourceId, RunId},
};

/// What no client of today knows, in every reply.
fn of_a_later_year(mut resource: Value) -> Value {
    resource["systemData"] = json!({ "createdByType": "WordOf2027" });
    resource["properties"]["fieldOf2027"] = json!({ "kind": "WordOf2027", "list": [1, null] });
    resource
}

/// A scale set is raw in the world already.
pub(super) fn scale_set(raw: Value) -> Value {
    of_a_later_year(raw)
}

/// Azure answers with the resource group as somebody once wrote it, mostly in upper case.
fn shouted(id: &ResourceId) -> String {
    let group = id.resource_group();
    id.as_str().replacen(&format!("/{group}/"), &format!("/{}/", group.to_uppercase()), 1)
}

/// `westus` as `West US`.
fn long_name(region: &Region) -> String {
    let key = region.key();
    match key.as_str() {
        "westus" => "West US".into(),
        "eastus" => "East US".into(),
        "westeurope" => "West Europe".into(),
        "northeurope" => "North Europe".into(),
        "germanywestcentral" => "Germany West Central".into(),
        _ => region.0.clone(),
    }
}

/// `running` is what this kind of resource says while it is not at an end; some of these words are in no document.
fn state(provisioning: &Provisioning, running: &str) -> Value {
    json!(match provisioning {
        Provisioning::Running => running,
        Provisioning::Succeeded => "Succeeded",
        Provisioning::Failed => "Failed",
    })
}

fn architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X64 => "x64",
        Architecture::Arm64 => "Arm64",
    }
}

fn image(reference: &ImageRef) -> Value {
    match reference {
        ImageRef::Definition(id) => json!({ "id": id.as_str() }),
        ImageRef::Version(id) => json!({ "id": id.definition().as_str(), "exactVersion": id.name() }),
        ImageRef::Other(words) => json!({ "publisher": words }),
    }
}

fn plan(plan: &Plan) -> Value {
    json!({ "name": plan.name, "publisher": plan.publisher, "product": plan.product })
}

/// Ours among a company's own, in the case that it once chose.
fn tags(run: Option<RunId>, cluster: Option<&String>) -> Value {
    let mut tags = json!({ "Team": "platform" });
    if let Some(run) = run {
        tags["Kamino-WF-Run"] = json!(run.0.hyphenated().to_string());
    }
    if let Some(cluster) = cluster {
        tags["kamino-wf-cluster"] = json!(cluster);
    }
    tags
}

/// Leaves out what is null, as Azure does for what has no value.
fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
        for field in fields.values_mut() {
            *field = without_nulls(field.take());
        }
    }
    value
}

pub(super) fn instance(it: &Instance) -> Value {
    let disk = it.os_disk.as_ref().map(|disk| json!({ "id": shouted(disk) }));
    let number = match &it.id {
        InstanceId::Uniform(id) => Some(id.name()),
        InstanceId::Flexible(_) => None,
    };
    of_a_later_year(without_nulls(json!({
        "id": shouted(&it.id),
        "name": it.id.name(),
        "instanceId": number,
        "location": "westus",
        "properties": {
            "vmId": it.vm_id,
            "latestModelApplied": number.map(|_| true),
            "timeCreated": it.created.map(|at| at.to_string()),
            "virtualMachineScaleSet": it.member_of.as_ref().map(|id| json!({ "id": shouted(id) })),
            "provisioningState": state(&it.provisioning, "Updating"),
            "storageProfile": {
                "imageReference": image(&it.image),
                "osDisk": { "osType": "Linux", "managedDisk": disk },
                "dataDisks": it.luns.iter().map(|lun| json!({ "lun": lun })).collect::<Vec<_>>(),
            },
        },
    })))
}

/// A machine of its own, as the list of a subscription has it.
pub(super) fn machine(it: &Machine) -> Value {
    of_a_later_year(json!({
        "id": shouted(&it.id),
        "name": it.id.name(),
        "location": "westus",
        "properties": { "provisioningState": "Succeeded", "storageProfile": { "imageReference": image(&it.image) } },
    }))
}

/// What `$expand=instanceView` adds to an instance.
pub(super) fn view(power: &Power) -> Value {
    let word = match power {
        Power::Running => "running",
        Power::Starting => "starting",
        Power::Stopping => "stopping",
        Power::Stopped => "stopped",
        Power::Deallocating => "deallocating",
        Power::Deallocated => "deallocated",
        Power::Other(word) => word,
    };
    json!({ "statuses": [{ "code": "ProvisioningState/succeeded", "level": "Info" },
                         { "code": format!("PowerState/{word}"), "level": "Info" }] })
}

fn disk_tags(it: &Disk) -> Value {
    let mut tags = tags(it.run, it.cluster.as_ref());
    if let Some(storage) = &it.version_storage {
        tags["Kamino-WF-Storage"] = json!(storage);
    }
    tags
}

pub(super) fn autoscale(it: &Autoscale) -> Value {
    of_a_later_year(json!({
        "name": it.name,
        "location": "westus",
        "properties": { "targetResourceUri": it.target, "enabled": it.enabled, "profiles": [] },
    }))
}

pub(super) fn disk(it: &Disk) -> Value {
    let (attached, word) = match &it.state {
        DiskState::Unattached => (it.managed, "Unattached"),
        DiskState::Attached => (true, "Attached"),
        DiskState::ActiveSas => (it.managed, "ActiveSAS"),
        DiskState::Other(word) => (it.managed, word.as_str()),
    };
    let owner = attached.then(|| {
        if let Some(instance) = &it.attached_to {
            return shouted(instance);
        }
        let group = it.id.resource_group();
        format!("/subscriptions/{}/resourceGroups/{group}/providers/Microsoft.Compute/o/owner", it.id.subscription())
    });
    let managed_by = if it.managed { owner } else { None };
    of_a_later_year(without_nulls(json!({
        "id": shouted(&it.id),
        "name": it.id.name(),
        "location": it.location.key(),
        "zones": it.zone.as_ref().map(|zone| [zone]),
        "managedBy": managed_by,
        "sku": { "name": it.sku, "tier": "Premium" },
        "tags": disk_tags(it),
        "properties": {
            "uniqueId": it.unique_id,
            "timeCreated": it.created.map(|at| at.to_string()),
            "diskSizeGB": it.size_gib,
            "diskState": word,
            "osType": "Linux",
            "hyperVGeneration": it.generation,
            "supportedCapabilities": {
                "architecture": architecture(it.architecture),
                "diskControllerTypes": it.controllers,
            },
            "purchasePlan": it.plan.as_ref().map(plan),
            "securityProfile": it.security_type.as_ref().map(|kind| json!({ "securityType": kind })),
            "creationData": { "createOption": "Copy", "sourceResourceId": it.source },
            "provisioningState": state(&it.provisioning, "HydratingOf2027"),
        },
    })))
}

pub(super) fn snapshot(it: &Snapshot) -> Value {
    of_a_later_year(without_nulls(json!({
        "id": shouted(&it.id),
        "name": it.id.name(),
        "location": "westus",
        "sku": { "name": "Standard_LRS", "tier": "Standard" },
        "tags": tags(it.run, it.cluster.as_ref()),
        "properties": {
            "diskSizeGB": it.size_gib,
            "diskState": "Unattached",
            "timeCreated": it.created.map(|at| at.to_string()),
            "creationData": { "createOption": "Copy", "sourceResourceId": it.source.as_ref().map(|id| shouted(id)) },
            "provisioningState": state(&it.provisioning, "Updating"),
        },
    })))
}

pub(super) fn gallery(it: &Gallery) -> Value {
    of_a_later_year(json!({
        "id": shouted(&it.id),
        "name": it.id.name(),
        "location": it.location.key(),
        "properties": { "provisioningState": state(&it.provisioning, "Creating") },
    }))
}

pub(super) fn definition(it: &Definition) -> Value {
    let spec = &it.spec;
    let features: Vec<Value> = [("SecurityType", &spec.security_type), ("DiskControllerTypes", &spec.disk_controllers)]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| json!({ "name": name, "value": value })))
        .collect();
    of_a_later_year(without_nulls(json!({
        "id": shouted(&spec.id),
        "name": spec.id.name(),
        "location": spec.location.key(),
        "properties": {
            "osType": "Linux",
            "osState": if it.generalized { "Generalized" } else { "Specialized" },
            "hyperVGeneration": spec.generation,
            "architecture": architecture(spec.architecture),
            "identifier": { "publisher": spec.publisher, "offer": spec.offer, "sku": spec.sku },
            "features": features,
            "purchasePlan": spec.plan.as_ref().map(plan),
            "provisioningState": state(&it.provisioning, "Creating"),
        },
    })))
}

pub(super) fn version(it: &Version, with_replication: bool) -> Value {
    let regions: Vec<Value> = it
        .regions
        .iter()
        .map(|region| json!({ "name": long_name(region), "regionalReplicaCount": 1, "storageAccountType": it.storage }))
        .collect();
    of_a_later_year(without_nulls(json!({
        "id": shouted(&it.id),
        "name": it.id.name(),
        "location": it.regions.first().map_or_else(|| "westus".into(), Region::key),
        "tags": it.tags,
        "properties": {
            "publishingProfile": {
                "targetRegions": regions,
                "replicaCount": 1,
                "storageAccountType": it.storage,
                "excludeFromLatest": it.excluded_from_latest,
                "publishedDate": it.created.map(|at| at.to_string()),
            },
            "storageProfile": { "osDiskImage": {
                "sizeInGB": it.size_gib,
                "hostCaching": "None",
                "source": it.source.as_ref().map(|id| json!({ "id": id })),
            }},
            "provisioningState": state(&it.provisioning, "Creating"),
            "replicationStatus": with_replication.then(|| replication(it)),
        },
    })))
}

fn replication(it: &Version) -> Value {
    let (aggregated, state, progress, details) = match &it.replication {
        Replication::Unknown => ("Unknown", "Unknown", 0, ""),
        Replication::InProgress(progress) => ("InProgress", "Replicating", *progress, ""),
        Replication::Completed => ("Completed", "Completed", 100, ""),
        Replication::Failed(details) => ("Failed", "Failed", 0, details.as_str()),
    };
    let summary: Vec<Value> = it
        .regions
        .iter()
        .map(|region| json!({ "region": long_name(region), "state": state, "progress": progress, "details": details }))
        .collect();
    json!({ "aggregatedState": aggregated, "summary": summary })
}
