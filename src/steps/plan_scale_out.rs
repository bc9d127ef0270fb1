//! Plan to how many instances the scale set grows, once, so that no repeat of a crash makes it grow twice.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    model::Class,
    policy::scale_out::target,
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct PlanScaleOut;

/// What becomes of the scale set's capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleOutPlan {
    /// Nobody asked for more.
    None,
    /// From so many to so many.
    Grow {
        /// As it was.
        from: u32,
        /// As it will be.
        to: u32,
    },
    /// It was asked for, and is not done.
    Refused {
        /// Why.
        why: String,
    },
}

#[async_trait]
impl Decide for PlanScaleOut {
    const NAME: &'static str = "PlanScaleOut";
    type Output = ScaleOutPlan;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<ScaleOutPlan, StepError> {
        let spec = context.spec;
        if spec.scale_out == 0 {
            return Ok(ScaleOutPlan::None);
        }
        let id = &spec.scale_set;
        let set = ports.cloud.scale_set(id).await?;
        let set = set.ok_or_else(|| StepError::gone("KW0221", format!("scale set {id} was deleted by somebody")))?;
        let autoscale = match ports.cloud.autoscale(id.subscription()).await {
            Ok(settings) => settings,
            // Who may not read them learns nothing of them; the tags are looked at all the same.
            Err(error) if error.class() == Class::Denied => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(match target(&set, &autoscale, spec.scale_out) {
            Ok((from, to)) => ScaleOutPlan::Grow { from, to },
            Err(why) => ScaleOutPlan::Refused { why },
        })
    }
}
