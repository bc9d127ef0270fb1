//! Publish the version: from here on it is what "latest" means for every scale set that follows the definition.
//!
//! Effect: one flag of our own version. A repeat is safe: the flag is set, not counted. Undo: none here; an older version is
//! published again by a person's decision. Never touched: other versions, and any scale set that would roll its nodes.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Verified, VerifyVersion,
    preflight::{followers, refuse},
};
use crate::{
    cloud::{Accepted, Provisioning},
    model::{RunId, ScaleSetId, VersionId},
    policy::preflight::would_roll,
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct PublishVersion;

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run that owns the version.
    pub run: RunId,
    /// The version that was proved.
    pub version: VersionId,
    /// The scale set that is to follow it, whether or not it does so far.
    #[serde(default)]
    pub scale_set: Option<ScaleSetId>,
}

#[async_trait]
impl Effect for PublishVersion {
    const NAME: &'static str = "PublishVersion";
    const DEADLINE: Duration = Duration::from_hours(2);
    const SETTLES: Duration = Duration::from_mins(1);
    type Input = Input;
    type Output = VersionId;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Verified { version, .. } = context.output(VerifyVersion::NAME)?;
        Ok(Input { run: context.run, version, scale_set: Some(context.spec.scale_set.clone()) })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<VersionId>, StepError> {
        let Some(found) = ports.cloud.version(&want.version).await? else {
            return Err(StepError::gone("KW0242", format!("version {} was deleted by somebody", want.version)));
        };
        if found.run != Some(want.run) {
            return Ok(Seen::Foreign(format!("version {} is not this run's any more", want.version.name())));
        }
        Ok(match (found.excluded_from_latest, found.provisioning) {
            (_, Provisioning::Running) => Seen::Underway(format!("version {} is being updated", want.version.name())),
            (false, Provisioning::Succeeded | Provisioning::Failed) => Seen::Present(want.version.clone()),
            (true, Provisioning::Succeeded | Provisioning::Failed) => Seen::Absent,
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        // Read again: what was true at preflight may have changed in the hours since.
        let sets = ports.cloud.scale_sets(want.version.subscription()).await?;
        let mut refusals = followers(&sets, &want.version.definition());
        if let Some(own) = sets.iter().find(|set| Some(&set.id) == want.scale_set.as_ref()) {
            refusals.extend(would_roll(own));
        }
        refuse(refusals)?;
        Ok(ports.cloud.begin_publish(&want.version, true).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
