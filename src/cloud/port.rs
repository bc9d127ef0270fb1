//! The `Cloud` port and the few types that steps need of Azure's resources.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CloudError, Fingerprint, Machine, MachinePower, ModelChange, Powered};
use crate::model::{
    DefinitionId, DiskId, GalleryId, GroupId, InstanceId, Region, ResourceId, RunId, ScaleSetId, SnapshotId, VersionId,
};

/// A resource's tags. Names are compared without regard to case by Azure; ours are lower case.
pub type Tags = BTreeMap<String, String>;

/// What a resource says of its own making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provisioning {
    /// `Creating`, `Updating`, `Deleting`, `Migrating` or a word we don't know.
    Running,
    /// `Succeeded`.
    Succeeded,
    /// `Failed` or `Canceled`.
    Failed,
}

/// The URL of an operation that Azure has accepted: a hint, never the truth. Signed, so it is kept whole, byte for byte,
/// and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Operation(pub String);

impl Operation {
    /// What may be shown: where it is, and nothing of what opens it.
    #[must_use]
    pub fn without_signature(&self) -> Self {
        match self.0.split_once('?') {
            Some((place, _)) => Self(format!("{place}?…")),
            None => self.clone(),
        }
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operation(..)")
    }
}

/// Azure's answer to a request that it has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Accepted {
    /// Where its progress can be asked for, if Azure said.
    pub operation: Option<Operation>,
    /// No look before this has passed, if Azure said.
    pub retry_after: Option<Duration>,
    /// `x-ms-request-id`, for support.
    pub request_id: Option<String>,
    /// What was answered, in words, where one request stands for several: recorded for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// What an operation says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationState {
    /// Not at an end; the pause that Azure asks for, if it does.
    Running(Option<Duration>),
    /// `Succeeded`: look at the resource.
    Succeeded,
    /// `Failed` or `Canceled`, with Azure's code and message: look at the resource all the same.
    Failed {
        /// Azure's error code, as in `OperationPreempted`.
        code: String,
        /// Azure's words.
        message: String,
    },
    /// 404 or 410: expired or never known. The resource decides.
    Unknown,
}

/// Uniform or Flexible: where a scale set's instances are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orchestration {
    /// Instances are children of the scale set. So is every scale set that is older than the word.
    #[default]
    Uniform,
    /// Instances are virtual machines of their own.
    Flexible,
}

impl Orchestration {
    /// Instances are children of the scale set.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        match self {
            Self::Uniform => true,
            Self::Flexible => false,
        }
    }
}

/// What happens to existing instances when the model changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeMode {
    /// Nothing: only new instances follow the model.
    Manual,
    /// All are taken down, in no guaranteed order.
    Automatic,
    /// Batches are taken down at once.
    Rolling,
    /// A word we don't know.
    Other(String),
}

/// What a scale set's or an instance's image reference points at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageRef {
    /// An image definition: new instances take its newest published version.
    Definition(DefinitionId),
    /// One version.
    Version(VersionId),
    /// A platform image, a community image, anything else; in words.
    Other(String),
}

impl ImageRef {
    /// The definition that the reference depends on.
    #[must_use]
    pub fn definition(&self) -> Option<DefinitionId> {
        match self {
            Self::Definition(id) => Some(id.clone()),
            Self::Version(id) => Some(id.definition()),
            Self::Other(_) => None,
        }
    }
}

/// A marketplace plan, which an image definition must carry on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The plan's name.
    pub name: String,
    /// Its publisher.
    pub publisher: String,
    /// Its product.
    pub product: String,
}

/// An extension of a scale set's model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The name in the model.
    pub name: String,
    /// Publisher and type, as in `Microsoft.Azure.Extensions/CustomScript`.
    pub handler: String,
    /// The extensions that a new instance has before it (`provisionAfterExtensions`).
    pub after: Vec<String>,
}

/// A scale set's model, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of Azure's, read one by one by preflight")]
pub struct ScaleSet {
    /// Its id, as Azure writes it.
    pub id: ScaleSetId,
    /// Its etag, quotes included, if Azure sent one.
    pub etag: Option<String>,
    /// Where it is.
    pub location: Region,
    /// Its zones, empty for a regional one.
    pub zones: Vec<String>,
    /// What it says of its last change.
    pub provisioning: Provisioning,
    /// Uniform or Flexible.
    pub orchestration: Orchestration,
    /// There is a `virtualMachineProfile`: new instances are made from it. A Flexible scale set may do without.
    pub profile: bool,
    /// What happens to existing instances when the model changes.
    pub upgrade_mode: UpgradeMode,
    /// `automaticOSUpgradePolicy.enableAutomaticOSUpgrade`.
    pub automatic_os_upgrade: bool,
    /// `automaticRepairsPolicy.enabled`.
    pub automatic_repairs: bool,
    /// The OS disk lives on the host (`diffDiskSettings`): there is nothing to snapshot.
    pub ephemeral_os_disk: bool,
    /// Linux, that is, not Windows.
    pub linux: bool,
    /// Spot or Low priority.
    pub spot: bool,
    /// `securityProfile.securityType`, as in `TrustedLaunch`.
    pub security_type: Option<String>,
    /// `Some(id)` when the OS disk is encrypted with a set of the customer's own.
    pub disk_encryption_set: Option<String>,
    /// `SCSI` or `NVMe`, where the model says so.
    pub disk_controller: Option<String>,
    /// How many data disks the model attaches.
    pub data_disks: usize,
    /// The marketplace plan.
    pub plan: Option<Plan>,
    /// What new instances are made from.
    pub image: ImageRef,
    /// The model's extensions.
    pub extensions: Vec<Extension>,
    /// Tags, names in lower case.
    pub tags: Tags,
    /// How many instances it is set to.
    pub capacity: u32,
    /// A hash for each part of the whole model, to say later what else has changed.
    pub fingerprint: Fingerprint,
}

/// An instance of a scale set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// `vmId`: differs when an instance number is used again.
    pub vm_id: String,
    /// What it says of its last change.
    pub provisioning: Provisioning,
    /// Its OS disk, unless it is ephemeral.
    pub os_disk: Option<DiskId>,
    /// The logical unit numbers of its data disks.
    #[serde(default)]
    pub luns: Vec<u32>,
    /// The exact version it was made from, where Azure says.
    pub image: ImageRef,
    /// When it was made, by Azure's clock, where Azure says.
    #[serde(default)]
    pub created: Option<Timestamp>,
    /// The Flexible scale set that it belongs to, if any. An instance of a Uniform one has its own in its id.
    pub member_of: Option<ScaleSetId>,
}

impl Instance {
    /// The scale set that it belongs to; none of a machine that stands alone.
    #[must_use]
    pub fn scale_set(&self) -> Option<ScaleSetId> {
        match &self.id {
            InstanceId::Uniform(id) => Some(id.scale_set()),
            InstanceId::Flexible(_) => self.member_of.clone(),
        }
    }
}

/// The logical unit numbers that Azure knows are below this (virtual machine documents, "data disk lun").
pub const LUNS: u32 = 64;

/// The instruction set of a disk or an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// `x64`.
    #[serde(rename = "x64")]
    X64,
    /// `Arm64`.
    Arm64,
}

/// Who has a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Nobody: it may be deleted, and be the source of a version.
    Unattached,
    /// A machine, or it says so for minutes after the machine has let go.
    Attached,
    /// Somebody holds a download URL.
    ActiveSas,
    /// A word we don't know, or reserved.
    Other(String),
}

/// A managed disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its id.
    pub id: DiskId,
    /// `uniqueId`: differs when a name is used again.
    pub unique_id: String,
    /// Where it is.
    pub location: Region,
    /// Its zone, for a zonal one.
    pub zone: Option<String>,
    /// What it says of its last change.
    pub provisioning: Provisioning,
    /// Who has it.
    pub state: DiskState,
    /// `managedBy` is set.
    pub managed: bool,
    /// The instance that it is attached to, if it is to one.
    #[serde(default)]
    pub attached_to: Option<InstanceId>,
    /// Its size.
    pub size_gib: u32,
    /// `Premium_LRS` and the like.
    pub sku: String,
    /// `V1` or `V2`.
    pub generation: String,
    /// Its instruction set.
    pub architecture: Architecture,
    /// `securityProfile.securityType`, as in `TrustedLaunch`.
    pub security_type: Option<String>,
    /// The controllers that it can be behind, as in `SCSI, NVMe`, where Azure says.
    pub controllers: Option<String>,
    /// The marketplace plan of the image that it comes from.
    pub plan: Option<Plan>,
    /// What it was copied from, if it was.
    pub source: Option<String>,
    /// When it was made, by Azure's clock.
    pub created: Option<Timestamp>,
    /// The storage in which a version of it is to be made (tag `kamino-wf-storage`), since Azure has refused another.
    pub version_storage: Option<String>,
    /// The run that made it (tag `kamino-wf-run`).
    pub run: Option<RunId>,
    /// That run's cluster (tag `kamino-wf-cluster`).
    pub cluster: Option<String>,
}

/// A snapshot of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// What it says of its making.
    pub provisioning: Provisioning,
    /// The disk it was taken of.
    pub source: Option<DiskId>,
    /// When it was taken, by Azure's clock.
    pub created: Option<Timestamp>,
    /// Its size.
    pub size_gib: u32,
    /// The run that made it.
    pub run: Option<RunId>,
    /// That run's cluster (tag `kamino-wf-cluster`).
    pub cluster: Option<String>,
}

/// What in a resource group carries the tag of a run, whosever.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Disks.
    pub disks: Vec<Disk>,
    /// Snapshots.
    pub snapshots: Vec<Snapshot>,
}

/// What to take a snapshot of, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    /// The name, chosen once by the run.
    pub id: SnapshotId,
    /// The disk.
    pub source: DiskId,
    /// Where the disk is.
    pub location: Region,
    /// `V1` or `V2`, as the disk.
    pub generation: String,
    /// Only what differs from the disk's newest snapshot is stored, and paid for.
    #[serde(default)]
    pub incremental: bool,
    /// Ours, `kamino-wf-run` among them.
    pub tags: Tags,
}

/// What to copy into a disk, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCopy {
    /// The name, chosen once by the run.
    pub id: DiskId,
    /// The snapshot to copy.
    pub source: SnapshotId,
    /// The region of both.
    pub location: Region,
    /// The zone in which a node can take it, for zonal pools.
    pub zone: Option<String>,
    /// `Premium_LRS` and the like.
    pub sku: String,
    /// `V1` or `V2`, as the original.
    pub generation: String,
    /// As the original.
    pub architecture: Architecture,
    /// As the original.
    pub security_type: Option<String>,
    /// As the original.
    #[serde(default)]
    pub controllers: Option<String>,
    /// Ours, `kamino-wf-run` among them.
    pub tags: Tags,
}

/// A compute gallery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gallery {
    /// Its id.
    pub id: GalleryId,
    /// Where it is.
    pub location: Region,
    /// What it says of its making.
    pub provisioning: Provisioning,
}

/// What an image definition says of its machines. Azure lets nobody change it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionSpec {
    /// Its id.
    pub id: DefinitionId,
    /// The gallery's region.
    pub location: Region,
    /// `V1` or `V2`.
    pub generation: String,
    /// The instruction set.
    pub architecture: Architecture,
    /// Feature `SecurityType`, as in `TrustedLaunch`; `None` for standard machines.
    pub security_type: Option<String>,
    /// Feature `DiskControllerTypes`, as in `SCSI, NVMe`.
    pub disk_controllers: Option<String>,
    /// The marketplace plan that versions inherit.
    pub plan: Option<Plan>,
    /// The triple by which the definition is unique in its gallery.
    pub publisher: String,
    /// Second part of the triple.
    pub offer: String,
    /// Third part of the triple.
    pub sku: String,
}

/// An image definition as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What it says of its machines.
    pub spec: DefinitionSpec,
    /// `Generalized`, that is, not `Specialized`.
    pub generalized: bool,
    /// What it says of its making.
    pub provisioning: Provisioning,
}

/// A version's copies in its target regions, taken together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// Azure doesn't say.
    Unknown,
    /// Under way, in per cent over all regions.
    InProgress(u8),
    /// In every region.
    Completed,
    /// Failed in at least one region, in Azure's words.
    Failed(String),
}

/// A version of an image definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// What it says of its making.
    pub provisioning: Provisioning,
    /// Its copies.
    pub replication: Replication,
    /// Not taken for "latest" by scale sets that refer to the definition.
    pub excluded_from_latest: bool,
    /// The regions it is to be in.
    pub regions: Vec<Region>,
    /// `Standard_LRS` and the like.
    pub storage: Option<String>,
    /// The disk or snapshot it was made from.
    pub source: Option<String>,
    /// The image's size, once known.
    pub size_gib: Option<u32>,
    /// When it was published, by Azure's clock.
    pub created: Option<Timestamp>,
    /// Tags, names in lower case.
    pub tags: Tags,
    /// The run that made it.
    pub run: Option<RunId>,
}

/// What to make a version from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVersion {
    /// The name, chosen once by the run.
    pub id: VersionId,
    /// The gallery's region, which is always among the targets.
    pub location: Region,
    /// The target regions.
    pub regions: Vec<Region>,
    /// Copies in each region.
    pub replicas: u32,
    /// Copies in regions that have another number of them, by the region's key.
    #[serde(default)]
    pub replicas_in: BTreeMap<String, u32>,
    /// `Standard_LRS`, `Standard_ZRS` or `Premium_LRS`.
    pub storage: String,
    /// The cleaned disk, or the snapshot of one.
    pub source: ResourceId,
    /// Ours, `kamino-wf-run` among them.
    pub tags: Tags,
}

/// Azure Monitor's own scaling of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscale {
    /// The setting's name.
    pub name: String,
    /// The id of what it scales, as Azure writes it.
    pub target: String,
    /// It is at work.
    pub enabled: bool,
}

/// The cloud port. Every read is a fresh one; `None` is a 404 of the thing itself.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// A scale set's model.
    async fn scale_set(&self, id: &ScaleSetId) -> Result<Option<ScaleSet>, CloudError>;
    /// All scale sets of the subscription that we may see.
    async fn scale_sets(&self, subscription: &str) -> Result<Vec<ScaleSet>, CloudError>;
    /// One instance.
    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, CloudError>;
    /// All instances of a scale set. Its orchestration says where they are.
    async fn instances(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Instance>, CloudError>;
    /// Whether an instance's machine is on.
    async fn power(&self, id: &InstanceId) -> Result<Option<MachinePower>, CloudError>;
    /// All virtual machines of the subscription that we may see and that are no instances of a Uniform scale set.
    async fn machines(&self, subscription: &str) -> Result<Vec<Machine>, CloudError>;
    /// The instances of a scale set, and which of them run.
    async fn powers(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Powered>, CloudError>;
    /// A disk.
    async fn disk(&self, id: &DiskId) -> Result<Option<Disk>, CloudError>;
    /// A snapshot.
    async fn snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, CloudError>;
    /// A gallery.
    async fn gallery(&self, id: &GalleryId) -> Result<Option<Gallery>, CloudError>;
    /// A definition.
    async fn definition(&self, id: &DefinitionId) -> Result<Option<Definition>, CloudError>;
    /// A version and its replication.
    async fn version(&self, id: &VersionId) -> Result<Option<Version>, CloudError>;
    /// All versions of a definition, in no promised order; replication is `Unknown`.
    async fn versions(&self, id: &DefinitionId) -> Result<Vec<Version>, CloudError>;
    /// The disks and snapshots of a resource group that carry the tag of a run. A list lags behind: what went may still be in
    /// it, and what was just made may not.
    async fn leftovers(&self, group: &GroupId) -> Result<Leftovers, CloudError>;
    /// The autoscale settings of a subscription.
    async fn autoscale(&self, subscription: &str) -> Result<Vec<Autoscale>, CloudError>;
    /// What an operation says of itself.
    async fn operation(&self, operation: &Operation) -> Result<OperationState, CloudError>;

    /// Asks for an instance's machine to be switched off in an orderly way; its host is kept for it.
    async fn begin_power_off(&self, id: &InstanceId) -> Result<Accepted, CloudError>;
    /// Asks for an instance's machine to be started.
    async fn begin_start(&self, id: &InstanceId) -> Result<Accepted, CloudError>;
    /// Asks for an instance's machine to be booted anew.
    async fn begin_restart(&self, id: &InstanceId) -> Result<Accepted, CloudError>;
    /// Asks for a snapshot of a disk, which may be in use.
    async fn begin_snapshot(&self, want: &SnapshotSpec) -> Result<Accepted, CloudError>;
    /// Asks for the deletion of a snapshot.
    async fn begin_delete_snapshot(&self, id: &SnapshotId) -> Result<Accepted, CloudError>;
    /// Asks for a disk that is a copy of a snapshot.
    async fn begin_copy_disk(&self, want: &DiskCopy) -> Result<Accepted, CloudError>;
    /// Asks for these tags on a disk, all of them.
    async fn begin_tag_disk(&self, id: &DiskId, tags: &Tags) -> Result<Accepted, CloudError>;
    /// Asks for the deletion of a disk.
    async fn begin_delete_disk(&self, id: &DiskId) -> Result<Accepted, CloudError>;
    /// Asks for a disk to be attached to a running instance, behind that logical unit number.
    async fn begin_attach(&self, to: &InstanceId, disk: &DiskId, lun: u32) -> Result<Accepted, CloudError>;
    /// Asks for a disk to be detached from an instance.
    async fn begin_detach(&self, from: &InstanceId, disk: &DiskId) -> Result<Accepted, CloudError>;
    /// Asks for a gallery.
    async fn begin_gallery(&self, id: &GalleryId, location: &Region) -> Result<Accepted, CloudError>;
    /// Asks for a definition.
    async fn begin_definition(&self, want: &DefinitionSpec) -> Result<Accepted, CloudError>;
    /// Asks for a version that is excluded from latest.
    async fn begin_version(&self, want: &NewVersion) -> Result<Accepted, CloudError>;
    /// Asks for a version to be taken for latest, or not to be.
    async fn begin_publish(&self, id: &VersionId, published: bool) -> Result<Accepted, CloudError>;
    /// Asks for the deletion of a version.
    async fn begin_delete_version(&self, id: &VersionId) -> Result<Accepted, CloudError>;
    /// Asks for one tag of a version to be set, or to go. Every other tag, and all else of the version, stays as it is.
    async fn begin_tag_version(&self, id: &VersionId, tag: &str, value: Option<&str>) -> Result<Accepted, CloudError>;
    /// Asks for the change of a scale set's model: one PATCH, built from a fresh read under its etag.
    async fn begin_model_change(&self, want: &ModelChange) -> Result<Accepted, CloudError>;
    /// Asks for so many instances, under the etag of a fresh read, if there are less.
    async fn begin_scale_out(&self, id: &ScaleSetId, run: RunId, capacity: u32) -> Result<Accepted, CloudError>;
}
