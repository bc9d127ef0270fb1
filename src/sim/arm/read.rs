//! Request bodies as the port's words. What is missing or odd is Azure's `InvalidParameter`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    cloud::{Architecture, DefinitionSpec, DiskCopy, NewVersion, Plan, SnapshotSpec, Tags},
    model::{DefinitionId, DiskId, Region, ScaleSetId, SnapshotId, VersionId},
};

/// The field that can't be read.
#[derive(Debug)]
pub(super) struct BadField(pub(super) &'static str);

fn text(body: &Value, pointer: &'static str) -> Result<String, BadField> {
    body.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned).ok_or(BadField(pointer))
}

fn id<T: std::str::FromStr>(body: &Value, pointer: &'static str) -> Result<T, BadField> {
    text(body, pointer)?.parse().map_err(|_| BadField(pointer))
}

fn region(body: &Value) -> Result<Region, BadField> {
    text(body, "/location").map(Region)
}

fn tags(body: &Value) -> Tags {
    let tags = body["tags"].as_object().into_iter().flatten();
    tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn architecture(body: &Value, pointer: &str) -> Architecture {
    match body.pointer(pointer).and_then(Value::as_str) {
        Some("Arm64") => Architecture::Arm64,
        Some(_) | None => Architecture::X64,
    }
}

/// Only `Copy`: what anything else would do is not simulated.
fn copies(body: &Value) -> Result<(), BadField> {
    let option = text(body, "/properties/creationData/createOption")?;
    if option == "Copy" { Ok(()) } else { Err(BadField("/properties/creationData/createOption")) }
}

pub(super) fn snapshot(name: SnapshotId, body: &Value) -> Result<SnapshotSpec, BadField> {
    copies(body)?;
    Ok(SnapshotSpec {
        id: name,
        source: id(body, "/properties/creationData/sourceResourceId")?,
        location: region(body)?,
        generation: text(body, "/properties/hyperVGeneration")?,
        incremental: body.pointer("/properties/incremental").and_then(Value::as_bool).unwrap_or(false),
        tags: tags(body),
    })
}

pub(super) fn disk(name: DiskId, body: &Value) -> Result<DiskCopy, BadField> {
    copies(body)?;
    Ok(DiskCopy {
        id: name,
        source: id(body, "/properties/creationData/sourceResourceId")?,
        location: region(body)?,
        zone: body["zones"][0].as_str().map(ToOwned::to_owned),
        sku: text(body, "/sku/name")?,
        generation: text(body, "/properties/hyperVGeneration")?,
        architecture: architecture(body, "/properties/supportedCapabilities/architecture"),
        security_type: text(body, "/properties/securityProfile/securityType").ok(),
        controllers: text(body, "/properties/supportedCapabilities/diskControllerTypes").ok(),
        tags: tags(body),
    })
}

pub(super) fn gallery(body: &Value) -> Result<Region, BadField> {
    region(body)
}

pub(super) fn definition(name: DefinitionId, body: &Value) -> Result<DefinitionSpec, BadField> {
    if text(body, "/properties/osState")? != "Generalized" || text(body, "/properties/osType")? != "Linux" {
        return Err(BadField("/properties/osState"));
    }
    let feature = |name: &str| {
        let mut features = body["properties"]["features"].as_array().into_iter().flatten();
        let found = features.find(|feature| feature["name"] == name)?;
        found["value"].as_str().map(ToOwned::to_owned)
    };
    let plan = body.pointer("/properties/purchasePlan").map(|_| {
        let plan = Plan {
            name: text(body, "/properties/purchasePlan/name")?,
            publisher: text(body, "/properties/purchasePlan/publisher")?,
            product: text(body, "/properties/purchasePlan/product")?,
        };
        Ok(plan)
    });
    Ok(DefinitionSpec {
        id: name,
        location: region(body)?,
        generation: text(body, "/properties/hyperVGeneration")?,
        architecture: architecture(body, "/properties/architecture"),
        security_type: feature("SecurityType"),
        disk_controllers: feature("DiskControllerTypes"),
        plan: plan.transpose()?,
        publisher: text(body, "/properties/identifier/publisher")?,
        offer: text(body, "/properties/identifier/offer")?,
        sku: text(body, "/properties/identifier/sku")?,
    })
}

pub(super) fn version(name: VersionId, body: &Value) -> Result<NewVersion, BadField> {
    let profile = &body["properties"]["publishingProfile"];
    if profile["excludeFromLatest"] != true {
        return Err(BadField("/properties/publishingProfile/excludeFromLatest"));
    }
    let regions = profile["targetRegions"].as_array().into_iter().flatten();
    Ok(NewVersion {
        id: name,
        location: region(body)?,
        regions: regions.filter_map(|region| region["name"].as_str()).map(|name| Region(name.to_owned())).collect(),
        replicas: profile["replicaCount"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        replicas_in: replicas(profile),
        storage: text(body, "/properties/publishingProfile/storageAccountType")?,
        source: id(body, "/properties/storageProfile/osDiskImage/source/id")?,
        tags: tags(body),
    })
}

/// The regions that have another number of copies than the profile's own.
fn replicas(profile: &Value) -> BTreeMap<String, u32> {
    let own = profile["replicaCount"].as_u64();
    let regions = profile["targetRegions"].as_array().into_iter().flatten();
    let other = regions.filter(|region| region["regionalReplicaCount"].as_u64() != own);
    let pair = |region: &Value| {
        let count = u32::try_from(region["regionalReplicaCount"].as_u64()?).ok()?;
        Some((Region(region["name"].as_str()?.to_owned()).key(), count))
    };
    other.filter_map(pair).collect()
}

/// The scale set of the only filter that Azure takes for machines.
pub(super) fn member_of(filter: &str) -> Option<ScaleSetId> {
    let id = filter.strip_prefix("'virtualMachineScaleSet/id' eq '")?.strip_suffix('\'')?;
    ScaleSetId::parse(id).ok()
}

/// The tags of a disk's PATCH: all of them, from now on.
pub(super) fn disk_tags(body: &Value) -> Tags {
    tags(body)
}

/// What a version's PATCH asks for: to be published, or not to be.
/// The one tag that a request of the tags API is about, and its value or that it goes.
pub(super) fn tag_change(body: &Value) -> Result<(String, Option<String>), BadField> {
    let tags = body["properties"]["tags"].as_object().filter(|tags| tags.len() == 1);
    let (name, value) = tags.and_then(|tags| tags.iter().next()).ok_or(BadField("/properties/tags"))?;
    let value = value.as_str().ok_or(BadField("/properties/tags"))?.to_owned();
    match body["operation"].as_str() {
        Some("Merge") => Ok((name.clone(), Some(value))),
        Some("Delete") => Ok((name.clone(), None)),
        // `Replace` would take all the others away.
        Some(_) | None => Err(BadField("/operation")),
    }
}

pub(super) fn published(body: &Value) -> Result<bool, BadField> {
    let pointer = "/properties/publishingProfile/excludeFromLatest";
    body.pointer(pointer).and_then(Value::as_bool).map(|excluded| !excluded).ok_or(BadField(pointer))
}
