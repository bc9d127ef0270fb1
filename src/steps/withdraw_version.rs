//! Withdraw the version whose first node was bad: out of latest, and marked with the reason. New nodes come from the version
//! before it.
//!
//! Effect: one flag and one tag of our own version, the flag first, since that is what keeps new nodes from it. A repeat is safe:
//! both are set, not counted. Undo: none; a person may publish it again. Never touched: other versions, the nodes that were made
//! from it, and the flag of a version that is the only one published: without any, no node could be made at all.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    CanaryNode, ChooseNames, Names,
    canary_node::Verdict,
    preflight::{followers, refuse},
};
use crate::{
    cloud::{Accepted, Provisioning, Version},
    model::{RunId, ScaleSetId, VersionId},
    policy::{
        preflight::would_roll,
        provenance::{QUARANTINED, tag},
    },
    workflow::{Context, Decide as _, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct WithdrawVersion;

/// Which version, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run that owns it.
    pub run: RunId,
    /// It.
    pub version: VersionId,
    /// The scale set that follows it.
    pub scale_set: ScaleSetId,
    /// What its tag will say; none where nothing speaks against it.
    pub reason: Option<String>,
}

/// What became of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Withdrawn {
    /// Nothing speaks against it.
    NotNeeded,
    /// New nodes do not take it any more, and its tag says why.
    Withdrawn,
    /// Somebody has deleted it.
    Gone,
    /// It stays published, since no other version is.
    OnlyOne,
}

/// What Azure takes as a tag's value is 256 characters.
const REASON_MAX: usize = 250;

/// What the tag says.
fn reason(run: RunId, verdict: &Verdict) -> String {
    format!("run {}: {}", run.short(), verdict.in_words()).chars().take(REASON_MAX).collect()
}

/// One that takes its place: published, whole, and nothing speaks against it.
fn takes_over(other: &Version, this: &VersionId) -> bool {
    other.id != *this
        && !other.excluded_from_latest
        && other.provisioning == Provisioning::Succeeded
        && tag(other, QUARANTINED).is_none()
}

impl Input {
    /// Whether new nodes can be made without it.
    async fn another_is_published(&self, ports: Ports<'_>) -> Result<bool, StepError> {
        let versions = ports.cloud.versions(&self.version.definition()).await?;
        Ok(versions.iter().any(|other| takes_over(other, &self.version)))
    }

    /// Ours, as it is; none when it is gone.
    async fn found(&self, ports: Ports<'_>) -> Result<Option<Version>, StepError> {
        Ok(ports.cloud.version(&self.version).await?)
    }
}

#[async_trait]
impl Effect for WithdrawVersion {
    const NAME: &'static str = "WithdrawVersion";
    const DEADLINE: Duration = Duration::from_hours(2);
    const SETTLES: Duration = Duration::from_mins(1);
    type Input = Input;
    type Output = Withdrawn;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Names { version, .. } = context.output(ChooseNames::NAME)?;
        let reason = if context.outputs.contains_key(CanaryNode::NAME) {
            match context.output(CanaryNode::NAME)? {
                Verdict::Untried | Verdict::Passed { .. } => None,
                verdict @ Verdict::Failed { .. } => Some(reason(context.run, &verdict)),
            }
        } else {
            None
        };
        Ok(Input { run: context.run, version, scale_set: context.spec.scale_set.clone(), reason })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Withdrawn>, StepError> {
        if want.reason.is_none() {
            return Ok(Seen::Present(Withdrawn::NotNeeded));
        }
        let Some(found) = want.found(ports).await? else { return Ok(Seen::Present(Withdrawn::Gone)) };
        let name = want.version.name();
        if found.run != Some(want.run) {
            return Ok(Seen::Foreign(format!("version {name} is not this run's any more, and its first node is bad")));
        }
        Ok(match (found.provisioning.clone(), found.excluded_from_latest) {
            (Provisioning::Running, _) => Seen::Underway(format!("version {name} is being updated")),
            (Provisioning::Succeeded | Provisioning::Failed, true) if tag(&found, QUARANTINED).is_some() => {
                Seen::Present(Withdrawn::Withdrawn)
            }
            (Provisioning::Succeeded | Provisioning::Failed, true) => {
                Seen::Partly(format!("version {name} is out of latest, and does not say why yet"))
            }
            (Provisioning::Succeeded | Provisioning::Failed, false) if want.another_is_published(ports).await? => {
                Seen::Absent
            }
            (Provisioning::Succeeded | Provisioning::Failed, false) => Seen::Present(Withdrawn::OnlyOne),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let (Some(reason), Some(found)) = (&want.reason, want.found(ports).await?) else {
            return Ok(Accepted::default());
        };
        if found.run != Some(want.run) {
            return Ok(Accepted::default());
        }
        if found.excluded_from_latest {
            return Ok(ports.cloud.begin_tag_version(&want.version, QUARANTINED, Some(reason)).await?);
        }
        if !want.another_is_published(ports).await? {
            return Ok(Accepted::default());
        }
        // Another version becomes the latest: whoever rolls its nodes then must not follow it, as when this one was published.
        let sets = ports.cloud.scale_sets(want.version.subscription()).await?;
        let mut refusals = followers(&sets, &want.version.definition());
        if let Some(own) = sets.iter().find(|set| set.id == want.scale_set) {
            refusals.extend(would_roll(own));
        }
        refuse(refusals)?;
        Ok(ports.cloud.begin_publish(&want.version, false).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_a_tag_whatever_it_is() {
        let id = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute/\
                  virtualMachineScaleSets/pool1/virtualMachines/3";
        let failed = |reasons| Verdict::Failed { instance: id.parse().expect("an id"), node: None, reasons };
        let run = RunId(uuid::Uuid::from_u128(0x0123_4567_89ab));
        let text = reason(run, &failed(vec!["it is not Ready".into()]));
        assert_eq!(text, "run 0123456789ab: instance pool1/3 is not good: it is not Ready");
        assert_eq!(reason(run, &failed(vec!["é".repeat(400)])).chars().count(), REASON_MAX);
    }
}
