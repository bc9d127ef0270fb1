//! Let the scale set grow to the planned number of instances: the first that are made from the new image.
//!
//! Effect: a higher capacity, an absolute number. A repeat is safe: what is reached is not asked for again. Undo: none, the
//! update has succeeded. Never touched: a capacity that is higher already, one that somebody has lowered meanwhile, and a scale set
//! that an autoscaler rules.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{PlanScaleOut, ScaleOutPlan};
use crate::{
    cloud::{Accepted, Provisioning},
    model::{RunId, ScaleSetId},
    workflow::{Context, Decide as _, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct ScaleOut;

/// The scale set, and from how many instances to how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run, for Azure's logs.
    pub run: RunId,
    /// Which.
    pub scale_set: ScaleSetId,
    /// As it was; none when nothing is to be done.
    pub grow: Option<(u32, u32)>,
}

/// How many instances it is set to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// None when nothing was to be done.
    pub capacity: Option<u32>,
}

#[async_trait]
impl Effect for ScaleOut {
    const NAME: &'static str = "ScaleOut";
    /// An instance takes minutes; a region without room is tried again for longer.
    const DEADLINE: Duration = Duration::from_hours(1);
    type Input = Input;
    type Output = Output;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let grow = match context.output(PlanScaleOut::NAME)? {
            ScaleOutPlan::None => None,
            ScaleOutPlan::Grow { from, to } => Some((from, to)),
            ScaleOutPlan::Refused { why } => return Err(StepError::refused("KW0303", why)),
        };
        Ok(Input { run: context.run, scale_set: context.spec.scale_set.clone(), grow })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Output>, StepError> {
        let Some((from, to)) = want.grow else { return Ok(Seen::Present(Output { capacity: None })) };
        let id = &want.scale_set;
        let set = ports.cloud.scale_set(id).await?;
        let set = set.ok_or_else(|| StepError::gone("KW0221", format!("scale set {id} was deleted by somebody")))?;
        let (name, now) = (id.name(), set.capacity);
        Ok(match set.provisioning {
            Provisioning::Running => Seen::Underway(format!("scale set {name} is being changed; it is set to {now}")),
            Provisioning::Failed if now >= to => {
                Seen::Foreign(format!("scale set {name} is set to {now} and in state Failed: see its instances"))
            }
            Provisioning::Succeeded if now >= to => Seen::Present(Output { capacity: Some(now) }),
            Provisioning::Succeeded | Provisioning::Failed if now < from => {
                Seen::Foreign(format!("somebody has set scale set {name} from {from} to {now}: it is left so"))
            }
            Provisioning::Succeeded | Provisioning::Failed => Seen::Absent,
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let Some((_, to)) = want.grow else { return Ok(Accepted::default()) };
        Ok(ports.cloud.begin_scale_out(&want.scale_set, want.run, to).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
