//! Snapshot the OS disk of the donor, which goes on working; with `capture: stop`, of one that is off and stays so.
//!
//! Effect: one snapshot, one point in time of the disk, under a name of this run. A repeat is safe: the name is unique, and
//! the same PUT on an existing snapshot changes nothing (Azure/azure-cli#28879). Undo: delete it. Never touched: the donor,
//! its instance and its disk, and a snapshot by that name that another made.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Names, RankNodes, Ranked, StopVm, take_away};
use crate::{
    cloud::{Accepted, Power, Provisioning, SnapshotSpec},
    model::{InstanceId, RunId},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct SnapshotDisk;

/// What to snapshot, and whose disk it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run that will own the snapshot.
    pub run: RunId,
    /// The donor's instance.
    pub instance: InstanceId,
    /// Its `vmId` when it was chosen.
    pub vm_id: String,
    /// The disk's `uniqueId` when it was chosen.
    pub disk_unique_id: String,
    /// Name, source and tags.
    pub snapshot: SnapshotSpec,
    /// No snapshot of this run can be older.
    pub not_before: Timestamp,
    /// The machine is off, and has to stay so until the snapshot is taken.
    #[serde(default)]
    pub off: bool,
}

/// The snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshotted {
    /// When it was taken, by Azure's clock.
    pub taken: Option<Timestamp>,
    /// Its size.
    pub size_gib: u32,
}

/// By how much Azure's clock and ours may differ.
const SKEW: Duration = Duration::from_mins(2);

#[async_trait]
impl Effect for SnapshotDisk {
    const NAME: &'static str = "SnapshotDisk";
    const DEADLINE: Duration = Duration::from_hours(1);
    const SETTLES: Duration = Duration::from_mins(1);
    const TELLS: Option<(&'static str, &'static str)> =
        Some(("DiskSnapshotted", "the snapshot is there; next the machine is started"));
    type Input = Input;
    type Output = Snapshotted;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        let names: Names = context.output(ChooseNames::NAME)?;
        Ok(Input {
            run: context.run,
            instance: donor.instance,
            vm_id: donor.vm_id,
            disk_unique_id: donor.disk_unique_id,
            snapshot: SnapshotSpec {
                id: names.snapshot,
                source: donor.disk,
                location: donor.location,
                generation: donor.generation,
                incremental: context.spec.incremental,
                tags: names.tags,
            },
            not_before: names.chosen,
            off: context.outputs.contains_key(StopVm::NAME),
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Snapshotted>, StepError> {
        let Some(found) = ports.cloud.snapshot(&want.snapshot.id).await? else { return Ok(Seen::Absent) };
        let name = found.id.name();
        if found.run != Some(want.run) {
            return Ok(Seen::Foreign(format!("snapshot {name} exists and is not this run's")));
        }
        if found.source.as_ref() != Some(&want.snapshot.source) {
            return Ok(Seen::Foreign(format!("snapshot {name} is of another disk")));
        }
        if found.created.is_some_and(|at| at + SKEW < want.not_before) {
            return Ok(Seen::Foreign(format!("snapshot {name} is older than this run")));
        }
        if want.off && !off(ports, want).await? {
            return Ok(Seen::Foreign(format!("the machine was started before snapshot {name} was taken")));
        }
        Ok(match found.provisioning {
            Provisioning::Running => Seen::Underway(format!("snapshot {name} is being taken")),
            Provisioning::Succeeded => Seen::Present(Snapshotted { taken: found.created, size_gib: found.size_gib }),
            Provisioning::Failed => Seen::Broken(format!("snapshot {name} failed")),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        // The disk may have been swapped by a reimage since the donor was chosen, and a number may have been used again.
        let instance = ports.cloud.instance(&want.instance).await?;
        let disk = ports.cloud.disk(&want.snapshot.source).await?;
        let same = instance.as_ref().is_some_and(|instance| {
            instance.vm_id == want.vm_id && instance.os_disk.as_ref() == Some(&want.snapshot.source)
        }) && disk.is_some_and(|disk| disk.unique_id == want.disk_unique_id);
        if !same {
            let text = format!("instance {} is not the machine that was chosen any more: start again", want.instance);
            return Err(StepError::gone("KW0233", text));
        }
        if want.off && !off(ports, want).await? {
            let text = format!("instance {} was started by somebody: its disk is not clean any more", want.instance);
            return Err(StepError::gone("KW0607", text));
        }
        Ok(ports.cloud.begin_snapshot(&want.snapshot).await?)
    }

    async fn undo(&self, ports: Ports<'_>, want: &Input) -> Result<Undone, StepError> {
        take_away::snapshot(ports, &want.snapshot.id, want.run).await
    }
}

/// The machine is off, and is the one that was chosen.
async fn off(ports: Ports<'_>, want: &Input) -> Result<bool, StepError> {
    let power = ports.cloud.power(&want.instance).await?;
    Ok(power
        .is_some_and(|power| power.vm_id == want.vm_id && matches!(power.state, Power::Stopped | Power::Deallocated)))
}
