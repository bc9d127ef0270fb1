//! Make an image version of the cleaned copy, excluded from latest: nobody takes it yet.
//!
//! Effect: one version, under a name of this run, replicated to all target regions. A repeat is safe: the same PUT changes
//! nothing, and a failed one is deleted before it is asked for again. Undo: delete it, unless it was published. Never
//! touched: a version by that name that another made.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Copied, CopyDisk, EnsureDefinition, EnsureGallery, Names, StopVm, ensure_gallery};
use crate::{
    cloud::{Accepted, DefinitionSpec, NewVersion, Provisioning, Replication},
    model::{Region, RunId},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
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
        let mut regions = vec![location.clone()];
        for region in &context.spec.regions {
            if !regions.contains(region) {
                regions.push(Region(region.0.clone()));
            }
        }
        Ok(Input {
            run: context.run,
            version: NewVersion {
                id: names.version,
                location,
                regions,
                replicas: context.spec.replicas,
                storage: context.spec.storage.clone(),
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
        Ok(match (found.provisioning, found.replication) {
            (Provisioning::Failed, _) => Seen::Broken(format!("making version {name} failed")),
            (_, Replication::Failed(why)) => Seen::Broken(format!("replicating version {name} failed: {why}")),
            (Provisioning::Running, _) => Seen::Underway(format!("version {name} is being made")),
            (Provisioning::Succeeded, Replication::Completed) => Seen::Present(Output { size_gib: found.size_gib }),
            (Provisioning::Succeeded, Replication::InProgress(percent)) => {
                Seen::Underway(format!("version {name} is being replicated, {percent} %"))
            }
            (Provisioning::Succeeded, Replication::Unknown) => {
                Seen::Underway(format!("version {name} does not say yet how far its replication is"))
            }
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        Ok(ports.cloud.begin_version(&want.version).await?)
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
