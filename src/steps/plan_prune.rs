//! Plan which old versions go. Decided once and stored; each is looked at again before it is deleted.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Preflight, Preflighted,
    image_use::{foreseen, subscriptions, verdicts},
};
use crate::{
    cloud::Version,
    model::DefinitionId,
    policy::retention::{Rules, Runs, Verdict},
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

/// What a run lets stay. Kamino's versions go at a person's word only.
pub(crate) fn rules(spec: &RunSpec) -> Rules {
    Rules { keep: spec.keep_versions, min_age_seconds: spec.keep_seconds, kamino: false }
}

/// What the plan of a run would be, with the version that is still to come (`kamino-wf plan`).
pub(crate) async fn preview(
    ports: Ports<'_>,
    spec: &RunSpec,
    definition: &DefinitionId,
    coming: Version,
) -> Result<Vec<Verdict>, StepError> {
    let subscriptions = subscriptions(spec.scale_set.subscription(), definition);
    foreseen(ports, &subscriptions, definition, coming, rules(spec)).await
}

#[async_trait]
impl Decide for PlanPrune {
    const NAME: &'static str = "PlanPrune";
    type Output = PrunePlan;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<PrunePlan, StepError> {
        let spec = context.spec;
        let Preflighted { definition, .. } = context.output(Preflight::NAME)?;
        let subscriptions = subscriptions(spec.scale_set.subscription(), &definition);
        // Of other runs a step knows nothing: what is not published is left to those who do.
        let verdicts = verdicts(ports, &subscriptions, &definition, Runs::Unknown, rules(spec)).await?;
        Ok(PrunePlan { verdicts: bounded(verdicts) })
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
    use crate::model::{DefinitionId, VersionName};

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
                because: None,
            })
            .collect();
        let bounded = bounded(verdicts);
        assert_eq!(bounded.len(), 2 * VERDICTS_MAX);
        assert!(bounded[0].version.name() == "2026.1.2999" && !bounded[0].delete, "the newest stays");
        assert!(bounded[99].version.name() == "2026.1.0" && bounded[99].delete, "the oldest goes");
    }
}
