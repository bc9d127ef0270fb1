//! The janitor's look at image versions: those that a failed run has left, unpublished and unused, go; at most one a sweep and
//! definition, each looked at again right before.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tracing::{info, warn};

use super::{
    engine::{Engine, EngineError},
    janitor::{Held, SweepReport, Swept, Trouble},
    step::{Ports, StepError},
    summary::Summary,
};
use crate::{
    cloud::Version,
    model::{Class, DefinitionId, RunId},
    policy::{
        leftovers::{Fate, Patience},
        unproven::{Making, is_left, judge},
    },
    steps::image_use::{subscriptions, uses},
};

/// A definition, and the subscription whose machines may use it.
pub type Place = (DefinitionId, String);

impl Engine {
    /// One sweep over the versions of these definitions.
    ///
    /// # Errors
    /// The store can't be read. What Azure said is in the report.
    pub async fn sweep_versions(
        &self,
        places: &BTreeSet<Place>,
        patience: Patience,
    ) -> Result<SweepReport, EngineError> {
        let failed = failed_runs(&self.summaries().await?);
        Ok(sweep_versions(self.ports(), places, patience, &|| self.authority().may_change(), &failed).await)
    }
}

/// Runs that have ended without success, and when. They never come back from there. What an abandoned one has left is a
/// person's to take away.
#[must_use]
pub fn failed_runs(summaries: &[Summary]) -> BTreeMap<RunId, Timestamp> {
    let failed = summaries.iter().filter(|run| !run.open() && !["done", "abandoned"].contains(&run.state.as_str()));
    failed.map(|run| (run.id, run.moved)).collect()
}

/// As [`Engine::sweep_versions`], over any ports.
pub async fn sweep_versions(
    ports: Ports<'_>,
    places: &BTreeSet<Place>,
    patience: Patience,
    may_change: &(dyn Fn() -> bool + Sync),
    failed: &BTreeMap<RunId, Timestamp>,
) -> SweepReport {
    let mut report = SweepReport::default();
    for place in places {
        match one(ports, place, patience, may_change, failed, &mut report).await {
            Ok(()) => {}
            // The definition is not there, and so is nothing in it.
            Err(error) if error.class == Class::Gone => {}
            Err(StepError { class, code, text }) => {
                let thing = format!("what is left in {}", place.0.names().join("/"));
                warn!(thing, code, text, "a sweep did not succeed with this; the next one tries again");
                report.troubles.push(Trouble { thing, code, text });
                if let Class::Throttled { retry_after } = class {
                    report.not_before = ports.clock.now().checked_add(retry_after).ok().or(Some(Timestamp::MAX));
                    return report;
                }
            }
        }
    }
    report
}

async fn one(
    ports: Ports<'_>,
    (definition, subscription): &Place,
    patience: Patience,
    may_change: &(dyn Fn() -> bool + Sync),
    failed: &BTreeMap<RunId, Timestamp>,
    report: &mut SweepReport,
) -> Result<(), StepError> {
    let making = |run: RunId| failed.get(&run).map_or(Making::NotOurs, |at| Making::Failed(*at));
    let versions = ports.cloud.versions(definition).await?;
    let left: Vec<(Version, (RunId, Timestamp))> =
        versions.into_iter().filter_map(|version| is_left(&version, making).map(|of| (version, of))).collect();
    if left.is_empty() {
        return Ok(());
    }
    let cluster = ports.cluster.cluster_id().await?;
    // Only now, since it costs a look at every scale set.
    let uses = uses(ports.cloud, &subscriptions(subscription, definition), definition).await?;
    for (listed, of) in left {
        let id = listed.id;
        let (thing, run) = (format!("version {}", id.names().join("/")), of.0.short());
        // The list may be behind: it may have been published, pinned or deleted meanwhile.
        let Some(fresh) = ports.cloud.version(&id).await? else { continue };
        let Some(of) = is_left(&fresh, making) else { continue };
        let (fate, reason) = judge(&fresh, of, &cluster, &uses, patience, ports.clock.now());
        if fate == Fate::Keep {
            info!(thing, run, reason, "found and left alone");
            report.held.push(Held { thing, run, reason });
            continue;
        }
        if !may_change() {
            return Ok(());
        }
        match ports.cloud.begin_delete_version(&id).await.map_err(StepError::from) {
            Ok(_) => {
                let now = "it is being deleted".to_owned();
                info!(thing, run, reason, now, "left behind, and taken away");
                report.swept.push(Swept { thing, run, reason, now });
                return Ok(());
            }
            // A lock or a policy: reported, and the next one's turn.
            Err(StepError { class: Class::Denied | Class::Refused, text, .. }) => {
                warn!(thing, run, text, "left behind, and may not be deleted");
                report.held.push(Held { thing, run, reason: text });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
