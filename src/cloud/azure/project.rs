//! Azure's JSON as our types, field by field. Unknown fields are passed over, unknown words become `Other` or `Running`,
//! and what is missing reads as the answer that makes us do less.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    cloud::{
        Architecture, Autoscale, Definition, DefinitionSpec, Disk, DiskState, Extension, Fingerprint, Gallery,
        ImageRef, Instance, Orchestration, Plan, Provisioning, Replication, ScaleSet, Snapshot, Tags, UpgradeMode,
        Version,
    },
    model::{BadName, DefinitionId, DiskId, GalleryId, InstanceId, Region, RunId, ScaleSetId, VersionId, VersionName},
};

/// The tag that holds a run's whole uuid.
const RUN_TAG: &str = "kamino-wf-run";

/// The tag that holds the uid of the run's cluster.
const CLUSTER_TAG: &str = "kamino-wf-cluster";

/// The tag that says in which storage a version of a disk is to be made.
const STORAGE_TAG: &str = "kamino-wf-storage";

/// A resource that lacks what every such resource has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the answer has no {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Id(#[from] BadName),
}

pub(crate) fn scale_set(json: &Value) -> Result<ScaleSet, Unreadable> {
    let properties = &json["properties"];
    let machine = &properties["virtualMachineProfile"];
    let storage = &machine["storageProfile"];
    let os_disk = &storage["osDisk"];
    let is = |value: &Value| value.as_bool().unwrap_or(false);
    let orchestration = match properties["orchestrationMode"].as_str() {
        Some(mode) if mode.eq_ignore_ascii_case("flexible") => Orchestration::Flexible,
        Some(_) | None => Orchestration::Uniform,
    };
    Ok(ScaleSet {
        id: needed(json, "/id")?.parse()?,
        etag: text(json, "/etag"),
        location: location(json)?,
        zones: strings(&json["zones"]),
        provisioning: provisioning(json),
        orchestration,
        profile: machine.is_object(),
        upgrade_mode: upgrade_mode(properties["upgradePolicy"]["mode"].as_str(), orchestration),
        automatic_os_upgrade: is(&properties["upgradePolicy"]["automaticOSUpgradePolicy"]["enableAutomaticOSUpgrade"]),
        automatic_repairs: is(&properties["automaticRepairsPolicy"]["enabled"]),
        ephemeral_os_disk: !os_disk["diffDiskSettings"].is_null(),
        linux: os_disk["osType"].as_str().map_or_else(
            || machine["osProfile"]["linuxConfiguration"].is_object(),
            |system| system.eq_ignore_ascii_case("linux"),
        ),
        spot: machine["priority"].as_str().is_some_and(|priority| !priority.eq_ignore_ascii_case("regular")),
        security_type: text(machine, "/securityProfile/securityType"),
        disk_encryption_set: text(os_disk, "/managedDisk/diskEncryptionSet/id")
            .or_else(|| text(os_disk, "/managedDisk/securityProfile/diskEncryptionSet/id")),
        disk_controller: text(storage, "/diskControllerType"),
        data_disks: storage["dataDisks"].as_array().map_or(0, Vec::len),
        plan: plan(&json["plan"]),
        image: image(&storage["imageReference"]),
        extensions: machine["extensionProfile"]["extensions"].as_array().into_iter().flatten().map(extension).collect(),
        tags: tags(json),
        capacity: number(json, "/sku/capacity").unwrap_or(0),
        fingerprint: Fingerprint::of(json),
    })
}

pub(super) fn instance(json: &Value) -> Result<Instance, Unreadable> {
    let storage = &json["properties"]["storageProfile"];
    Ok(Instance {
        id: needed(json, "/id")?.parse()?,
        vm_id: needed(json, "/properties/vmId")?.to_owned(),
        provisioning: provisioning(json),
        os_disk: storage.pointer("/osDisk/managedDisk/id").and_then(Value::as_str).map(DiskId::parse).transpose()?,
        luns: storage["dataDisks"].as_array().into_iter().flatten().filter_map(|disk| number(disk, "/lun")).collect(),
        image: exact(&storage["imageReference"]),
        created: time(json, "/properties/timeCreated"),
        member_of: member_of(json)?,
    })
}

/// The Flexible scale set of a machine.
pub(super) fn member_of(json: &Value) -> Result<Option<ScaleSetId>, Unreadable> {
    Ok(text(json, "/properties/virtualMachineScaleSet/id").as_deref().map(ScaleSetId::parse).transpose()?)
}

pub(super) fn disk(json: &Value) -> Result<Disk, Unreadable> {
    let properties = &json["properties"];
    Ok(Disk {
        id: needed(json, "/id")?.parse()?,
        unique_id: text(properties, "/uniqueId").unwrap_or_default(),
        location: location(json)?,
        zone: strings(&json["zones"]).into_iter().next(),
        provisioning: provisioning(json),
        state: disk_state(properties["diskState"].as_str().unwrap_or_default()),
        managed: json["managedBy"].as_str().is_some_and(|owner| !owner.is_empty()),
        attached_to: json["managedBy"].as_str().and_then(|owner| InstanceId::parse(owner).ok()),
        size_gib: number(properties, "/diskSizeGB").unwrap_or(0),
        sku: needed(json, "/sku/name")?.to_owned(),
        generation: text(properties, "/hyperVGeneration").unwrap_or_else(|| "V1".into()),
        architecture: architecture(&properties["supportedCapabilities"]),
        security_type: text(properties, "/securityProfile/securityType"),
        controllers: text(properties, "/supportedCapabilities/diskControllerTypes"),
        plan: plan(&properties["purchasePlan"]),
        source: text(properties, "/creationData/sourceResourceId"),
        created: time(properties, "/timeCreated"),
        version_storage: tags(json).remove(STORAGE_TAG),
        run: run(&tags(json)),
        cluster: tags(json).remove(CLUSTER_TAG),
    })
}

pub(super) fn snapshot(json: &Value) -> Result<Snapshot, Unreadable> {
    let properties = &json["properties"];
    Ok(Snapshot {
        id: needed(json, "/id")?.parse()?,
        // An incremental one is there before all of it is.
        provisioning: match (provisioning(json), properties["completionPercent"].as_f64()) {
            (Provisioning::Succeeded, Some(percent)) if percent < 100.0 => Provisioning::Running,
            (state, _) => state,
        },
        source: text(properties, "/creationData/sourceResourceId").and_then(|id| DiskId::parse(&id).ok()),
        created: time(properties, "/timeCreated"),
        size_gib: number(properties, "/diskSizeGB").unwrap_or(0),
        run: run(&tags(json)),
        cluster: tags(json).remove(CLUSTER_TAG),
    })
}

/// Of a run, whosever; what is somebody else's need not be readable.
pub(super) fn tagged<T>(json: &Value, project: fn(&Value) -> Result<T, Unreadable>) -> Result<Option<T>, Unreadable> {
    run(&tags(json)).map(|_| project(json)).transpose()
}

pub(super) fn gallery(json: &Value) -> Result<Gallery, Unreadable> {
    Ok(Gallery {
        id: GalleryId::parse(needed(json, "/id")?)?,
        location: location(json)?,
        provisioning: provisioning(json),
    })
}

pub(super) fn definition(json: &Value) -> Result<Definition, Unreadable> {
    let properties = &json["properties"];
    let feature = |name: &str| {
        let mut features = properties["features"].as_array().into_iter().flatten();
        let found = features.find(|feature| feature["name"].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name)));
        found.and_then(|feature| text(feature, "/value"))
    };
    let spec = DefinitionSpec {
        id: DefinitionId::parse(needed(json, "/id")?)?,
        location: location(json)?,
        generation: text(properties, "/hyperVGeneration").unwrap_or_else(|| "V1".into()),
        architecture: architecture(properties),
        security_type: feature("SecurityType").filter(|kind| !kind.eq_ignore_ascii_case("standard")),
        disk_controllers: feature("DiskControllerTypes"),
        plan: plan(&properties["purchasePlan"]),
        publisher: needed(json, "/properties/identifier/publisher")?.to_owned(),
        offer: needed(json, "/properties/identifier/offer")?.to_owned(),
        sku: needed(json, "/properties/identifier/sku")?.to_owned(),
    };
    let generalized = properties["osState"].as_str().is_some_and(|state| state.eq_ignore_ascii_case("generalized"));
    Ok(Definition { spec, generalized, provisioning: provisioning(json) })
}

pub(super) fn version(json: &Value) -> Result<Version, Unreadable> {
    let properties = &json["properties"];
    let publishing = &properties["publishingProfile"];
    let storage = &properties["storageProfile"];
    let tags = tags(json);
    let regions = publishing["targetRegions"].as_array().into_iter().flatten();
    Ok(Version {
        id: needed(json, "/id")?.parse()?,
        provisioning: provisioning(json),
        replication: replication(&properties["replicationStatus"]),
        excluded_from_latest: publishing["excludeFromLatest"].as_bool().unwrap_or(false),
        regions: regions.filter_map(|region| text(region, "/name")).map(Region).collect(),
        storage: text(publishing, "/storageAccountType")
            .or_else(|| text(publishing, "/targetRegions/0/storageAccountType")),
        source: text(storage, "/osDiskImage/source/id").or_else(|| text(storage, "/source/id")),
        size_gib: number(storage, "/osDiskImage/sizeInGB"),
        created: time(publishing, "/publishedDate"),
        run: run(&tags),
        tags,
    })
}

pub(super) fn autoscale(json: &Value) -> Result<Autoscale, Unreadable> {
    Ok(Autoscale {
        name: needed(json, "/name")?.to_owned(),
        target: text(&json["properties"], "/targetResourceUri").unwrap_or_default(),
        // What does not say is at work.
        enabled: json["properties"]["enabled"].as_bool().unwrap_or(true),
    })
}

/// The items of one page of a list, and where the next page is.
pub(super) fn page<T>(
    json: &Value,
    item: fn(&Value) -> Result<T, Unreadable>,
) -> Result<(Vec<T>, Option<&str>), Unreadable> {
    let items = json["value"].as_array().ok_or(Unreadable::Missing("value"))?;
    let next = json["nextLink"].as_str().filter(|link| !link.is_empty());
    Ok((items.iter().map(item).collect::<Result<_, _>>()?, next))
}

pub(super) fn needed<'a>(json: &'a Value, pointer: &'static str) -> Result<&'a str, Unreadable> {
    json.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or(Unreadable::Missing(pointer))
}

fn text(json: &Value, pointer: &str) -> Option<String> {
    json.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}

fn number(json: &Value, pointer: &str) -> Option<u32> {
    json.pointer(pointer).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
}

fn time(json: &Value, pointer: &str) -> Option<Timestamp> {
    json.pointer(pointer).and_then(Value::as_str).and_then(|text| text.parse().ok())
}

fn strings(json: &Value) -> Vec<String> {
    json.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn location(json: &Value) -> Result<Region, Unreadable> {
    needed(json, "/location").map(|location| Region(location.to_owned()))
}

/// A word that we don't know, and no word at all, are "not at an end".
fn provisioning(json: &Value) -> Provisioning {
    match json["properties"]["provisioningState"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "succeeded" => Provisioning::Succeeded,
        "failed" | "canceled" | "cancelled" => Provisioning::Failed,
        _ => Provisioning::Running,
    }
}

/// Flexible scale sets were made without an upgrade policy for years; it is Manual then (docs/ASSUMPTIONS.md).
fn upgrade_mode(mode: Option<&str>, orchestration: Orchestration) -> UpgradeMode {
    let Some(mode) = mode else {
        return match orchestration {
            Orchestration::Flexible => UpgradeMode::Manual,
            Orchestration::Uniform => UpgradeMode::Other(String::new()),
        };
    };
    match mode.to_ascii_lowercase().as_str() {
        "manual" => UpgradeMode::Manual,
        "automatic" => UpgradeMode::Automatic,
        "rolling" => UpgradeMode::Rolling,
        _ => UpgradeMode::Other(mode.to_owned()),
    }
}

fn disk_state(state: &str) -> DiskState {
    match state.to_ascii_lowercase().as_str() {
        "unattached" => DiskState::Unattached,
        "attached" => DiskState::Attached,
        "activesas" | "activesasfrozen" => DiskState::ActiveSas,
        _ => DiskState::Other(state.to_owned()),
    }
}

/// Azure leaves it out for the oldest disks and images, which are x64.
fn architecture(json: &Value) -> Architecture {
    match json["architecture"].as_str() {
        Some(word) if word.eq_ignore_ascii_case("arm64") => Architecture::Arm64,
        Some(_) | None => Architecture::X64,
    }
}

fn plan(json: &Value) -> Option<Plan> {
    let name = text(json, "/name")?;
    let part = |pointer| text(json, pointer).unwrap_or_default();
    Some(Plan { name, publisher: part("/publisher"), product: part("/product") })
}

/// Custom script or any other: told apart by publisher and type.
fn extension(json: &Value) -> Extension {
    let part = |pointer| text(json, pointer).unwrap_or_default();
    let handler = format!("{}/{}", part("/properties/publisher"), part("/properties/type"));
    Extension { name: part("/name"), handler, after: strings(&json["properties"]["provisionAfterExtensions"]) }
}

/// What the reference points at. A mixed one (an id beside publisher and offer) points at nothing that we know.
fn image(json: &Value) -> ImageRef {
    // With a publisher besides, nobody knows which of the two new instances take.
    if let (Some(id), None) = (json["id"].as_str(), json["publisher"].as_str()) {
        if let Ok(definition) = DefinitionId::parse(id) {
            return ImageRef::Definition(definition);
        }
        if let Ok(version) = VersionId::parse(id) {
            return ImageRef::Version(version);
        }
    }
    let words: Vec<&str> =
        ["id", "sharedGalleryImageId", "communityGalleryImageId", "publisher", "offer", "sku", "version"]
            .into_iter()
            .filter_map(|field| json[field].as_str())
            .collect();
    ImageRef::Other(words.join(" "))
}

/// As [`image`], but to the version where Azure says which it took.
pub(super) fn exact(json: &Value) -> ImageRef {
    match image(json) {
        ImageRef::Definition(definition) => match json["exactVersion"].as_str().map(VersionName::parse) {
            Some(Ok(version)) => ImageRef::Version(definition.version(&version)),
            Some(Err(_)) | None => ImageRef::Definition(definition),
        },
        ImageRef::Version(version) => ImageRef::Version(version),
        ImageRef::Other(words) => ImageRef::Other(words),
    }
}

fn replication(json: &Value) -> Replication {
    let regions = || json["summary"].as_array().into_iter().flatten();
    match json["aggregatedState"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "completed" => Replication::Completed,
        "failed" => {
            let failed = regions().filter(|region| region["state"].as_str() != Some("Completed"));
            let words = failed.map(|region| {
                let part = |pointer| text(region, pointer).unwrap_or_default();
                format!("{}: {} {}", part("/region"), part("/state"), part("/details"))
            });
            Replication::Failed(words.collect::<Vec<_>>().join("; "))
        }
        "inprogress" => {
            let (sum, count) = regions().fold((0_u64, 0), |(sum, count), region| {
                (sum + region["progress"].as_u64().unwrap_or(0).min(100), count + 1)
            });
            let percent = sum.checked_div(count).unwrap_or(0);
            Replication::InProgress(u8::try_from(percent).unwrap_or(100))
        }
        _ => Replication::Unknown,
    }
}

fn tags(json: &Value) -> Tags {
    let tags = json["tags"].as_object().into_iter().flatten();
    tags.filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned()))).collect()
}

/// The run named in our tag, with hyphens or without.
pub(super) fn run(tags: &Tags) -> Option<RunId> {
    tags.get(RUN_TAG).and_then(|text| Uuid::try_parse(text).ok()).map(RunId)
}

#[cfg(test)]
#[path = "project_tests.rs"]
mod tests;
