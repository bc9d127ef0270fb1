//! Give the copy back: pod, claim and volume go, and the disk is nobody's.
//!
//! A step of its own, after the report is stored: the report dies with the pod. Effect: three objects less. A repeat is
//! safe: deletions carry the object's uid. Undo: none is needed. Never touched: the disk itself. Where the run has attached the disk
//! itself, it is still attached afterwards: `FreeCopy` comes next.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Copied, CopyDisk, Names, take_away};
use crate::{
    cloud::{Accepted, DiskState},
    model::{DiskId, RunId},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct DetachCopy;

/// What goes, and what becomes free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run.
    pub run: RunId,
    /// The namespace of pod and claim.
    pub namespace: String,
    /// The name of all three.
    pub name: String,
    /// The cleaned disk.
    pub disk: DiskId,
    /// The run has attached it to another node, and no driver detaches it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub helped: bool,
}

#[async_trait]
impl Effect for DetachCopy {
    const NAME: &'static str = "DetachCopy";
    const DEADLINE: Duration = Duration::from_hours(1);
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let names: Names = context.output(ChooseNames::NAME)?;
        let copy: Copied = context.output(CopyDisk::NAME)?;
        Ok(Input {
            run: context.run,
            namespace: context.spec.clean_namespace.clone(),
            name: names.cleaning,
            disk: copy.disk,
            helped: !context.spec.attach.is_csi(),
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let view = ports.cluster.cleaning(&want.namespace, &want.name).await?;
        let ours = want.run.short();
        let left = [
            view.pod.map(|pod| ("pod", pod.owned)),
            view.claim.map(|claim| ("claim", claim)),
            view.volume.map(|volume| ("volume", volume)),
        ];
        if let Some((kind, owned)) =
            left.into_iter().flatten().find(|(_, owned)| owned.run.as_deref() == Some(ours.as_str()))
        {
            let text = format!("{kind} {} is still there", want.name);
            return Ok(if owned.deleting { Seen::Underway(text) } else { Seen::Partly(text) });
        }
        if want.helped {
            return Ok(Seen::Present(()));
        }
        let Some(disk) = ports.cloud.disk(&want.disk).await? else {
            return Err(StepError::gone("KW0234", format!("the copy {} was deleted by somebody", want.disk)));
        };
        Ok(if disk.state == DiskState::Unattached && !disk.managed {
            Seen::Present(())
        } else {
            Seen::Underway(format!("disk {} still says {:?}", want.disk.name(), disk.state))
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        take_away::cleaning(ports, &want.namespace, &want.name, &want.run.short()).await?;
        Ok(Accepted::default())
    }

    async fn undo(&self, ports: Ports<'_>, want: &Input) -> Result<Undone, StepError> {
        take_away::cleaning(ports, &want.namespace, &want.name, &want.run.short()).await
    }
}
