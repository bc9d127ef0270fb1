//! Wait for a first node that is made from the published version: by the scale set's own growth, or whenever somebody else makes
//! one.
//!
//! Effect: none of ours; others make nodes. A repeat is safe: nothing is asked for. Undo: none. Never touched: anything. Where
//! nobody makes a node in time the version is untried, and the run goes on and says so.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Names, Preflight, Preflighted};
use crate::{
    cloud::{Accepted, ImageRef, Orchestration},
    model::{InstanceId, ScaleSetId, VersionId},
    policy::canary::span,
    workflow::{Context, Decide as _, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct AwaitNode;

/// Whose first node, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The version.
    pub version: VersionId,
    /// Where a node is looked for.
    pub scale_set: ScaleSetId,
    /// Where its instances are.
    pub orchestration: Orchestration,
    /// For how long is waited, in seconds.
    pub within_seconds: u64,
    /// And so until then.
    pub until: Timestamp,
}

/// The first instance that was made from the version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    /// It.
    pub instance: InstanceId,
    /// Which machine by that number.
    pub vm_id: String,
    /// When it was made, as Azure says, or else when it was first seen.
    pub since: Timestamp,
}

/// Between two looks while there is none: each is a list of all instances, and Azure rations those. A day of waiting makes so 144
/// records.
const PAUSE: Duration = Duration::from_mins(10);
/// A short wait is looked at more often.
const LOOKS_MIN: u32 = 10;

impl Input {
    /// Until the next look; the last one is when the time is over.
    fn pause(&self, now: Timestamp) -> Duration {
        let left = Duration::try_from(self.until.duration_since(now)).unwrap_or_default();
        PAUSE.min(Duration::from_secs(self.within_seconds) / LOOKS_MIN).min(left).max(Duration::from_secs(1))
    }
}

#[async_trait]
impl Effect for AwaitNode {
    const NAME: &'static str = "AwaitNode";
    /// More than the longest time that settings allow.
    const DEADLINE: Duration = Duration::from_hours(8 * 24);
    type Input = Input;
    type Output = Born;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Names { version, .. } = context.output(ChooseNames::NAME)?;
        let Preflighted { orchestration, .. } = context.output(Preflight::NAME)?;
        let limits = context.spec.canary.limits().unwrap_or_default();
        let scale_set = context.spec.scale_set.clone();
        let until = context.now.checked_add(limits.within()).unwrap_or(Timestamp::MAX);
        Ok(Input { version, scale_set, orchestration, within_seconds: limits.within_seconds, until })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Born>, StepError> {
        let instances = ports.cloud.instances(&want.scale_set, want.orchestration).await?;
        let wanted = ImageRef::Version(want.version.clone());
        let first = instances
            .into_iter()
            .filter(|instance| instance.image == wanted)
            .min_by_key(|it| (it.created.unwrap_or(Timestamp::MAX), it.id.key()));
        let now = ports.clock.now();
        if let Some(first) = first {
            let since = first.created.unwrap_or(now);
            return Ok(Seen::Present(Born { instance: first.id, vm_id: first.vm_id, since }));
        }
        let version = want.version.name();
        if now >= want.until {
            let within = span(Duration::from_secs(want.within_seconds));
            let text = format!("version {version} is not tried by any node: none was made from it within {within}");
            return Err(StepError::refused("KW0261", text));
        }
        let what = format!("no node was made from version {version} yet; the first one is watched");
        Ok(Seen::Awaited { what, pause: want.pause(now) })
    }

    async fn act(&self, _ports: Ports<'_>, _want: &Input) -> Result<Accepted, StepError> {
        Ok(Accepted::default())
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
