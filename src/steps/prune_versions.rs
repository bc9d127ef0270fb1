//! Delete the versions that the plan lets go, one a request.
//!
//! Effect: old versions of ours less. A repeat is safe: what is gone stays gone. Undo: none. Never touched: a version that
//! somebody refers to by now, and a version that is not kamino-wf's.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{PlanPrune, PrunePlan, plan_prune::in_use};
use crate::{
    cloud::{Accepted, Provisioning},
    model::VersionId,
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct PruneVersions;

/// What goes, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The versions.
    pub versions: Vec<VersionId>,
}

#[async_trait]
impl Effect for PruneVersions {
    const NAME: &'static str = "PruneVersions";
    const DEADLINE: Duration = Duration::from_hours(2);
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let PrunePlan { verdicts } = context.output(PlanPrune::NAME)?;
        let versions =
            verdicts.into_iter().rev().filter(|verdict| verdict.delete).map(|verdict| verdict.version).collect();
        Ok(Input { versions })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        Ok(match next(ports, want).await? {
            Some((id, Provisioning::Running)) => Seen::Underway(format!("version {} is being deleted", id.name())),
            Some((id, Provisioning::Succeeded | Provisioning::Failed)) => {
                Seen::Partly(format!("version {} is still there", id.name()))
            }
            None => Seen::Present(()),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let Some((id, _)) = next(ports, want).await? else { return Ok(Accepted::default()) };
        if in_use(ports, id.subscription(), &id.definition()).await?.contains(&id) {
            let text =
                format!("version {id} came into use after the plan was made: it stays, and so do those after it");
            return Err(StepError::refused("KW0250", text));
        }
        Ok(ports.cloud.begin_delete_version(&id).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

/// The first version of the plan that is still there and ours.
async fn next(ports: Ports<'_>, want: &Input) -> Result<Option<(VersionId, Provisioning)>, StepError> {
    for id in &want.versions {
        if let Some(found) = ports.cloud.version(id).await?.filter(|version| version.run.is_some()) {
            return Ok(Some((id.clone(), found.provisioning)));
        }
    }
    Ok(None)
}
