//! Make an image version of the cleaned copy, excluded from latest: nobody takes it yet.
//!
//! Effect: one version, under a name of this run, replicated to all target regions. A repeat is safe: the same PUT changes
//! nothing, and a failed one is deleted before it is asked for again. Undo: delete it, unless it was published. Never
//! touched: a version by that name that another made.
//!
//! Not every region has zone-redundant storage, and Azure says so only when the version has failed, after minutes or hours. Then
//! it is made again in `Standard_LRS`, under the same name. What was learnt is written on our own copy before the failed version
//! goes, so that it is not forgotten in between, and remembered beyond the run, so that it isn't tried every time.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ChooseNames, Copied, CopyDisk, EnsureDefinition, EnsureGallery, Names, StopVm, ensure_gallery};
use crate::{
    cloud::{Accepted, DefinitionSpec, NewVersion, Provisioning, Replication, Version},
    model::{DiskId, Region, RunId},
    workflow::{Context, Decide, Effect, Ports, RunSpec, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct CreateVersion;

/// What to make, and whose it will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run that will own the version.
    pub run: RunId,
    /// Name, source, regions and tags.
    pub version: NewVersion,
}

/// The version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The image's size.
    pub size_gib: Option<u32>,
    /// It is in this storage, since Azure refused the one that was asked for.
    #[serde(default)]
    pub fell_back: Option<String>,
    /// And Azure has said that it is for want of zones.
    #[serde(default)]
    pub for_sure: bool,
}

/// Copies in three zones.
const ZONE_REDUNDANT: &str = "Standard_ZRS";
/// Copies in one place: to be had everywhere.
const LOCAL: &str = "Standard_LRS";
/// The tag of the copy that says in which storage its version is to be made; with [`GUESSED`] after it where Azure did not say why
/// the first one failed. Then it is tried, and not remembered.
const STORAGE_TAG: &str = "kamino-wf-storage";
const GUESSED: char = '?';
/// For how long it is remembered that there is no zone-redundant storage: Azure builds.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Where it is remembered that not all of these regions have zone-redundant storage.
pub(super) fn no_zones_key(subscription: &str, regions: &[Region]) -> String {
    let mut keys: Vec<String> = regions.iter().map(Region::key).collect();
    keys.sort();
    format!("no-zrs/{subscription}/{}", keys.join(",")).to_ascii_lowercase()
}

/// The target regions: the gallery's own first.
pub(super) fn regions(spec: &RunSpec, gallery: &Region) -> Vec<Region> {
    let mut regions = vec![gallery.clone()];
    for region in &spec.regions {
        if !regions.contains(region) {
            regions.push(region.clone());
        }
    }
    regions
}

/// What is asked for, unless it was found not long ago that there is none.
fn storage(context: Context<'_>, regions: &[Region], subscription: &str) -> String {
    let asked = &context.spec.storage;
    let since = context.memory.get(&no_zones_key(subscription, regions)).and_then(Value::as_str);
    let since = since.and_then(|text| text.parse::<Timestamp>().ok());
    let still = since.is_some_and(|since| context.started.duration_since(since) < REMEMBERED);
    if asked == ZONE_REDUNDANT && still { LOCAL.into() } else { asked.clone() }
}

/// Whether a failed version of ours lacks zones: none if it does not, false if it may.
fn lacks_zones(found: &Version) -> Option<bool> {
    let says = match &found.replication {
        Replication::Failed(why) => why.to_ascii_lowercase().contains("zrs").then_some(true),
        // The reason is with the operation, which nobody may have seen.
        Replication::Unknown => (found.provisioning == Provisioning::Failed).then_some(false),
        Replication::InProgress(_) | Replication::Completed => None,
    };
    says.filter(|_| found.storage.as_deref() == Some(ZONE_REDUNDANT))
}

/// The copy of ours that a version is made from, which can carry a tag; a snapshot does not, and then there is no second attempt
/// in other storage.
fn copy(want: &NewVersion) -> Option<DiskId> {
    DiskId::parse(want.source.as_str()).ok()
}

#[async_trait]
impl Effect for CreateVersion {
    const NAME: &'static str = "CreateVersion";
    /// Azure says up to six hours, and live updates have failed after more than two.
    const DEADLINE: Duration = Duration::from_hours(8);
    const SETTLES: Duration = Duration::from_mins(1);
    type Input = Input;
    type Output = Output;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let names: Names = context.output(ChooseNames::NAME)?;
        // The cleaned copy, or the snapshot of the disk that was cleaned on the donor.
        let source = if context.outputs.contains_key(StopVm::NAME) {
            names.snapshot.id().clone()
        } else {
            let copy: Copied = context.output(CopyDisk::NAME)?;
            copy.disk.id().clone()
        };
        let ensure_gallery::Output { location } = context.output(EnsureGallery::NAME)?;
        let _: DefinitionSpec = context.output(EnsureDefinition::NAME)?;
        let regions = regions(context.spec, &location);
        Ok(Input {
            run: context.run,
            version: NewVersion {
                storage: storage(context, &regions, names.version.subscription()),
                id: names.version,
                location,
                regions,
                replicas: context.spec.replicas,
                replicas_in: context.spec.replicas_in.clone(),
                source,
                tags: names.tags,
            },
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Output>, StepError> {
        let Some(found) = ports.cloud.version(&want.version.id).await? else { return Ok(Seen::Absent) };
        let name = found.id.name();
        if found.run != Some(want.run) {
            return Ok(Seen::Foreign(format!("version {name} exists and is not this run's")));
        }
        if !found.source.as_deref().is_some_and(|source| source.eq_ignore_ascii_case(want.version.source.as_str())) {
            return Ok(Seen::Foreign(format!("version {name} was made from something else")));
        }
        if copy(&want.version).is_some() && lacks_zones(&found).is_some() {
            return Ok(Seen::Partly(format!(
                "version {name} failed in {ZONE_REDUNDANT}, which not every target region has: {LOCAL} is next"
            )));
        }
        Ok(match (found.provisioning, found.replication) {
            (Provisioning::Failed, _) => Seen::Broken(format!("making version {name} failed")),
            (_, Replication::Failed(why)) => Seen::Broken(format!("replicating version {name} failed: {why}")),
            (Provisioning::Running, _) => Seen::Underway(format!("version {name} is being made")),
            (Provisioning::Succeeded, Replication::Completed) => {
                let fell_back = found.storage.filter(|storage| *storage != want.version.storage);
                let learnt = match copy(&want.version).filter(|_| fell_back.is_some()) {
                    Some(copy) => ports.cloud.disk(&copy).await?.and_then(|disk| disk.version_storage),
                    None => None,
                };
                let for_sure = learnt.is_some_and(|storage| !storage.ends_with(GUESSED));
                Seen::Present(Output { size_gib: found.size_gib, fell_back, for_sure })
            }
            (Provisioning::Succeeded, Replication::InProgress(percent)) => {
                Seen::Underway(format!("version {name} is being replicated, {percent} %"))
            }
            (Provisioning::Succeeded, Replication::Unknown) => {
                Seen::Underway(format!("version {name} does not say yet how far its replication is"))
            }
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let want = &want.version;
        let Some(copy) = copy(want).filter(|_| want.storage == ZONE_REDUNDANT) else {
            return Ok(ports.cloud.begin_version(want).await?);
        };
        let learnt = ports.cloud.disk(&copy).await?.and_then(|disk| disk.version_storage);
        let failed = ports.cloud.version(&want.id).await?.and_then(|found| lacks_zones(&found));
        Ok(match (failed, learnt) {
            (Some(for_sure), None) => {
                let mut tags = want.tags.clone();
                let next = if for_sure { LOCAL.into() } else { format!("{LOCAL}{GUESSED}") };
                tags.insert(STORAGE_TAG.into(), next);
                ports.cloud.begin_tag_disk(&copy, &tags).await?
            }
            (Some(_), Some(_)) => ports.cloud.begin_delete_version(&want.id).await?,
            (None, Some(storage)) => {
                let storage = storage.trim_end_matches(GUESSED).to_owned();
                ports.cloud.begin_version(&NewVersion { storage, ..want.clone() }).await?
            }
            (None, None) => ports.cloud.begin_version(want).await?,
        })
    }

    async fn undo(&self, ports: Ports<'_>, want: &Input) -> Result<Undone, StepError> {
        let Some(found) = ports.cloud.version(&want.version.id).await? else { return Ok(Undone::Gone) };
        if found.run != Some(want.run) {
            return Ok(Undone::Gone);
        }
        if !found.excluded_from_latest {
            let text = format!("version {} is published, nodes may come from it: it is left", found.id);
            return Err(StepError::refused("KW0241", text));
        }
        // Creating, or deleting already: Azure answers 409 to a deletion meanwhile.
        if found.provisioning == Provisioning::Running {
            return Ok(Undone::Going(format!("an operation on version {} is under way", found.id.name())));
        }
        ports.cloud.begin_delete_version(&want.version.id).await?;
        Ok(Undone::Going(format!("version {} is being deleted", found.id.name())))
    }
}
