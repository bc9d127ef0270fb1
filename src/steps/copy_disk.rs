//! Copy the snapshot into a disk, in a zone where a node can take it.
//!
//! Effect: one managed disk, under a name of this run. A repeat is safe: a PUT on an existing disk copies nothing again.
//! Undo: delete it. Never touched: a disk by that name that another made.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Names, RankNodes, Ranked, take_away};
use crate::{
    cloud::{Accepted, DiskCopy, Provisioning},
    model::{DiskId, RunId},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct CopyDisk;

/// What to copy, and whose it will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run that will own the disk.
    pub run: RunId,
    /// Name, source, place and tags.
    pub copy: DiskCopy,
}

/// The copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The disk.
    pub disk: DiskId,
    /// Its `uniqueId`.
    pub unique_id: String,
    /// Its size.
    pub size_gib: u32,
}

#[async_trait]
impl Effect for CopyDisk {
    const NAME: &'static str = "CopyDisk";
    const DEADLINE: Duration = Duration::from_hours(2);
    const SETTLES: Duration = Duration::from_mins(1);
    type Input = Input;
    type Output = Copied;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        let names: Names = context.output(ChooseNames::NAME)?;
        Ok(Input {
            run: context.run,
            copy: DiskCopy {
                id: names.disk,
                source: names.snapshot,
                location: donor.location,
                // Where the donor is, a node is.
                zone: donor.zone,
                sku: donor.sku,
                generation: donor.generation,
                architecture: donor.architecture,
                security_type: donor.security_type,
                controllers: donor.controllers,
                tags: names.tags,
            },
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Copied>, StepError> {
        let Some(found) = ports.cloud.disk(&want.copy.id).await? else { return Ok(Seen::Absent) };
        let name = found.id.name();
        if found.run != Some(want.run) {
            return Ok(Seen::Foreign(format!("disk {name} exists and is not this run's")));
        }
        if !found.source.as_deref().is_some_and(|source| source.eq_ignore_ascii_case(want.copy.source.as_str())) {
            return Ok(Seen::Foreign(format!("disk {name} is a copy of something else")));
        }
        if found.zone != want.copy.zone {
            return Ok(Seen::Broken(format!(
                "disk {name} is in zone {:?}, asked for {:?}",
                found.zone, want.copy.zone
            )));
        }
        Ok(match found.provisioning {
            Provisioning::Running => Seen::Underway(format!("disk {name} is being copied")),
            Provisioning::Succeeded => {
                Seen::Present(Copied { disk: found.id, unique_id: found.unique_id, size_gib: found.size_gib })
            }
            Provisioning::Failed => Seen::Broken(format!("copying disk {name} failed")),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        Ok(ports.cloud.begin_copy_disk(&want.copy).await?)
    }

    async fn undo(&self, ports: Ports<'_>, want: &Input) -> Result<Undone, StepError> {
        take_away::disk(ports, &want.copy.id, want.run).await
    }
}
