//! Detach the copy from the helper's instance, when nothing in the cluster has it any more.
//!
//! Effect: the machine has one data disk less. A repeat is safe: the disk says who has it, and what is detached already can't be
//! detached again. Undo: none is needed, `AttachCopy`'s own looks for itself. Never touched: other disks of the machine.

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
pub struct FreeCopy;

/// Which disk, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run.
    pub run: RunId,
    /// The cleaned disk.
    pub disk: DiskId,
    /// The helper's instance.
    pub instance: InstanceId,
}

#[async_trait]
impl Effect for FreeCopy {
    const NAME: &'static str = "FreeCopy";
    const DEADLINE: Duration = Duration::from_hours(1);
    /// A disk says for minutes that it is attached.
    const TAKES: Duration = Duration::from_mins(10);
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let copy: Copied = context.output(CopyDisk::NAME)?;
        let Helper { instance, .. } = context.output(ChooseHelper::NAME)?;
        Ok(Input { run: context.run, disk: copy.disk, instance })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let Some(disk) = ports.cloud.disk(&want.disk).await? else {
            return Err(StepError::gone("KW0234", format!("the copy {} was deleted by somebody", want.disk)));
        };
        Ok(match disk.attached_to {
            // Nothing has come of it so far.
            Some(has) if has == want.instance => Seen::Absent,
            Some(other) => Seen::Foreign(format!("disk {} is attached to {other}", want.disk.name())),
            None if disk.managed => Seen::Underway(format!("disk {} says {:?}", want.disk.name(), disk.state)),
            None => Seen::Present(()),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        take_away::detached(ports, &want.disk, &want.instance).await
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
