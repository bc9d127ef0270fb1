//! What the world holds of ours, whatever any store says: for somebody whose store is lost. Only looks.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;

use super::{Reach, cluster};
use crate::{
    clock::SystemClock,
    config::Config,
    model::GroupId,
    policy::leftovers::Patience,
    workflow::{Ports, SweepReport, sweep},
};

/// Looks for everything that carries a run's tag in the groups of all pools and of `more`, and in the cleaning namespace.
///
/// # Errors
/// Settings that can't be used. What did not answer is in the report.
pub async fn remains(config: &Config, more: impl IntoIterator<Item = GroupId>) -> Result<SweepReport> {
    let cluster = cluster(config).await?;
    let Reach { cloud, limiter: _ } = Reach::azure(config)?;
    let groups: BTreeSet<GroupId> = config.pools.iter().map(|pool| pool.scale_set.group()).chain(more).collect();
    // As long as there are things to find: each is held, and none is asked to go.
    let for_ever = Patience { after_end: Duration::MAX, unknown: Duration::MAX };
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &SystemClock };
    let nothing_known = async || Ok::<_, anyhow::Error>(Vec::new());
    sweep(ports, &groups, &config.clean_namespace, for_ever, &|| false, nothing_known).await
}
