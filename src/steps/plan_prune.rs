//! Plan which old versions go. Decided once and stored; each is looked at again before it is deleted.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Preflight, Preflighted};
use crate::{
    cloud::ImageRef,
    model::{DefinitionId, VersionId},
    policy::retention::{Verdict, plan},
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct PlanPrune;

/// A verdict on every version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Newest first.
    pub verdicts: Vec<Verdict>,
}

/// Versions that a scale set's model or an instance refers to, among those of one definition.
pub(super) async fn in_use(
    ports: Ports<'_>,
    subscription: &str,
    definition: &DefinitionId,
) -> Result<BTreeSet<VersionId>, StepError> {
    let mut used = BTreeSet::new();
    for set in ports.cloud.scale_sets(subscription).await? {
        if let ImageRef::Version(id) = &set.image {
            used.insert(id.clone());
        }
        if set.image.definition().as_ref() == Some(definition) {
            for instance in ports.cloud.instances(&set.id).await? {
                if let ImageRef::Version(id) = instance.image {
                    used.insert(id);
                }
            }
        }
    }
    Ok(used)
}

#[async_trait]
impl Decide for PlanPrune {
    const NAME: &'static str = "PlanPrune";
    type Output = PrunePlan;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<PrunePlan, StepError> {
        let spec = context.spec;
        let Preflighted { definition, .. } = context.output(Preflight::NAME)?;
        let versions = ports.cloud.versions(&definition).await?;
        let used = in_use(ports, spec.scale_set.subscription(), &definition).await?;
        let min_age = Duration::from_secs(spec.keep_seconds);
        Ok(PrunePlan { verdicts: plan(versions, &used, spec.keep_versions, min_age, ports.clock.now()) })
    }
}
