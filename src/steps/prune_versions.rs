//! Delete the versions that the plan lets go, one a request.
//!
//! Effect: old versions of ours less. A repeat is safe: what is gone stays gone. Undo: none. Never touched: what by fresh
//! looks, taken right before each request, may not go any more (in use, pinned, or needed as a way back by now), and a version
//! that is not kamino-wf's. What a lock, a policy or its end of life keeps is left and reported: pruning is never worth a
//! failed update.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    PlanPrune, PrunePlan,
    image_use::{subscriptions, verdicts},
    plan_prune::rules,
};
use crate::{
    cloud::{Accepted, Provisioning, Version},
    model::{Class, VersionId},
    policy::retention::{Because, Rules, Runs},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct PruneVersions;

/// What goes, oldest first, and by which rules it is looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The versions.
    pub versions: Vec<VersionId>,
    /// By which rules; a release that did not store them kept the least.
    #[serde(default = "least")]
    pub rules: Rules,
    /// Where users are looked for, besides the gallery's own subscription.
    #[serde(default)]
    pub subscription: Option<String>,
}

/// What was true of every plan.
fn least() -> Rules {
    Rules { keep: 2, min_age_seconds: 0, kamino: false }
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
        let subscription = Some(context.spec.scale_set.subscription().to_owned());
        Ok(Input { versions, rules: rules(context.spec), subscription })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let there = still_there(ports, want).await?;
        let name = |found: &Version| found.id.name().to_owned();
        if let Some(found) = there.iter().find(|found| found.provisioning == Provisioning::Running) {
            return Ok(Seen::Underway(format!("version {} is being deleted", name(found))));
        }
        Ok(match there.first() {
            Some(found) => Seen::Partly(format!("version {} is still there", name(found))),
            None => Seen::Present(()),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let Some(first) = still_there(ports, want).await?.into_iter().next() else { return Ok(Accepted::default()) };
        let definition = first.id.definition();
        let subscription = want.subscription.as_deref().unwrap_or(definition.subscription());
        let subscriptions: BTreeSet<String> = subscriptions(subscription, &definition);
        let fresh = verdicts(ports, &subscriptions, &definition, Runs::Unknown, want.rules).await?;
        let mut stays = Vec::new();
        let mut refused = None;
        for verdict in want.versions.iter().filter_map(|id| fresh.iter().find(|verdict| verdict.version == *id)) {
            let name = verdict.version.name();
            if verdict.because == Some(Because::Foreign) {
                continue;
            }
            if !verdict.delete {
                stays.push(format!("version {name} stays after all: {}", verdict.reason));
                continue;
            }
            // A refused request has done nothing, so the next one is still the only one.
            match ports.cloud.begin_delete_version(&verdict.version).await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => match error.class() {
                    class @ (Class::Denied | Class::Refused) => {
                        refused = Some(class);
                        stays.push(error.to_string());
                    }
                    Class::Throttled { .. } | Class::Uncertain | Class::Busy | Class::Preempted | Class::Gone => {
                        return Err(error.into());
                    }
                },
            }
        }
        // All that was left of the plan stays: that is the end of this step, and what it reports.
        let (code, class) = refused.map_or(("KW0250", Class::Refused), |class| ("KW0501", class));
        if stays.is_empty() {
            // The list was behind.
            return Ok(Accepted::default());
        }
        Err(StepError { class, code, text: stays.join("; ") })
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

/// Of the plan's versions those that are still there and ours: one list, and a look at the first and at what is on its way, since
/// lists may be behind.
async fn still_there(ports: Ports<'_>, want: &Input) -> Result<Vec<Version>, StepError> {
    let Some(first) = want.versions.first() else { return Ok(Vec::new()) };
    let listed = match ports.cloud.versions(&first.definition()).await {
        Ok(listed) => listed,
        // The definition went, and all its versions with it.
        Err(error) if error.class() == Class::Gone => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut there: Vec<Version> = Vec::new();
    for id in &want.versions {
        let Some(listed) = listed.iter().find(|listed| listed.id == *id) else { continue };
        let found = if there.is_empty() || listed.provisioning == Provisioning::Running {
            ports.cloud.version(id).await?
        } else {
            Some(listed.clone())
        };
        there.extend(found.filter(|version| version.run.is_some()));
    }
    Ok(there)
}
