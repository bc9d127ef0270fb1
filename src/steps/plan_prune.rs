//! Plan which old versions go. Decided once and stored; each is looked at again before it is deleted.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Preflight, Preflighted};
use crate::{
    cloud::{ImageRef, Version},
    model::{DefinitionId, VersionId},
    policy::retention::{Verdict, plan},
    workflow::{Context, Decide, Ports, RunSpec, StepError},
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

/// A verdict on every version of a definition, with one that is still to come (`kamino-wf plan`).
pub(crate) async fn verdicts(
    ports: Ports<'_>,
    spec: &RunSpec,
    definition: &DefinitionId,
    coming: Option<Version>,
) -> Result<Vec<Verdict>, StepError> {
    let mut versions = ports.cloud.versions(definition).await?;
    versions.extend(coming);
    let used = in_use(ports, spec.scale_set.subscription(), definition).await?;
    let min_age = Duration::from_secs(spec.keep_seconds);
    Ok(plan(versions, &used, spec.keep_versions, min_age, ports.clock.now()))
}

#[async_trait]
impl Decide for PlanPrune {
    const NAME: &'static str = "PlanPrune";
    type Output = PrunePlan;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<PrunePlan, StepError> {
        let Preflighted { definition, .. } = context.output(Preflight::NAME)?;
        Ok(PrunePlan { verdicts: bounded(verdicts(ports, context.spec, &definition, None).await?) })
    }
}

/// How many verdicts of a kind are stored, and so how many versions one run deletes: a record stays small in a definition of
/// thousands of versions, and the next run goes on.
const VERDICTS_MAX: usize = 50;

/// The newest that stay and the oldest that go; newest first, as they came.
fn bounded(verdicts: Vec<Verdict>) -> Vec<Verdict> {
    let gone = verdicts.iter().filter(|verdict| verdict.delete).count();
    let (mut kept, mut deleted) = (0, 0);
    verdicts
        .into_iter()
        .filter(|verdict| {
            if verdict.delete {
                deleted += 1;
                deleted + VERDICTS_MAX > gone
            } else {
                kept += 1;
                kept <= VERDICTS_MAX
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VersionName;

    #[test]
    fn a_definition_of_thousands_of_versions_makes_a_small_record() {
        let definition =
            DefinitionId::new("00000000-1111-2222-3333-444444444444", "g", &["protos", "pool1"]).expect("an id");
        let verdicts: Vec<Verdict> = (0..3000)
            .rev()
            .map(|number| Verdict {
                version: definition.version(&VersionName::parse(&format!("2026.1.{number}")).expect("a version")),
                delete: number < 2000,
                reason: "because".into(),
            })
            .collect();
        let bounded = bounded(verdicts);
        assert_eq!(bounded.len(), 2 * VERDICTS_MAX);
        assert!(bounded[0].version.name() == "2026.1.2999" && !bounded[0].delete, "the newest stays");
        assert!(bounded[99].version.name() == "2026.1.0" && bounded[99].delete, "the oldest goes");
    }
}
