//! Attach the copy to the helper's instance, where the cluster has no disk driver.
//!
//! Effect: one data disk more on one running machine, under a number that was free. A repeat is safe: the disk says who has it, and
//! Azure gives it to one. Undo: it is detached, whoever of us attached it. Never touched: the donor's machine, other disks of the helper's.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChooseHelper, Copied, CopyDisk, Helper, take_away};
use crate::{
    cloud::Accepted,
    model::{DiskId, InstanceId, RunId},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct AttachCopy;

/// Which disk, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run.
    pub run: RunId,
    /// The copy.
    pub disk: DiskId,
    /// The helper's instance.
    pub instance: InstanceId,
    /// The logical unit number.
    pub lun: u32,
}

#[async_trait]
impl Effect for AttachCopy {
    const NAME: &'static str = "AttachCopy";
    const DEADLINE: Duration = Duration::from_mins(30);
    /// Between the answer and the disk's own word, as far as anybody has seen.
    const TAKES: Duration = Duration::from_mins(5);
    const SETTLES: Duration = Self::TAKES;
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let copy: Copied = context.output(CopyDisk::NAME)?;
        let Helper { instance, lun, at: _ } = context.output(ChooseHelper::NAME)?;
        Ok(Input { run: context.run, disk: copy.disk, instance, lun })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let Some(disk) = ports.cloud.disk(&want.disk).await? else {
            return Err(StepError::gone("KW0234", format!("the copy {} was deleted by somebody", want.disk)));
        };
        Ok(match disk.attached_to {
            Some(has) if has == want.instance => Seen::Present(()),
            Some(other) => Seen::Foreign(format!("disk {} is attached to {other}", want.disk.name())),
            None if disk.managed => Seen::Underway(format!("disk {} says {:?}", want.disk.name(), disk.state)),
            None => Seen::Absent,
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        Ok(ports.cloud.begin_attach(&want.instance, &want.disk, want.lun).await?)
    }

    async fn undo(&self, ports: Ports<'_>, want: &Input) -> Result<Undone, StepError> {
        take_away::attachment(ports, &want.disk, &want.instance, want.run).await
    }
}
