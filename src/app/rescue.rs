//! `rescue` over the real adapters: nodes that are out of service, and one of them brought back.

use anyhow::Result;
use serde::Serialize;

use super::{Reach, cluster};
use crate::{
    clock::{Clock as _, SystemClock},
    cloud::{Cloud as _, CloudError, Orchestration, Powered, azure::AzureCloud},
    cluster::Cluster as _,
    config::Config,
    model::{NodeName, RunId, ScaleSetId},
    policy::{
        rescue::{Claimed, Owner, claimed},
        takeover::{self, Finding},
    },
    workflow::{
        Ports, Summary,
        rescue::{Ask, Rescued, Way, carry_out, look},
    },
};

/// Nodes that somebody has taken out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rescues {
    /// Those with a claim of ours, in the whole cluster.
    pub claims: Vec<Claimed>,
    /// Those of the settings' pools that look as the Python tool (kamino) leaves them.
    pub kamino: Vec<Finding>,
    /// What could not be read.
    pub troubles: Vec<String>,
}

/// Lists them. Azure is asked only about what the Python tool has left: claims are said without it.
///
/// # Errors
/// The API server does not answer.
pub async fn rescues(config: &Config) -> Result<Rescues> {
    let nodes = cluster(config).await?.nodes().await?;
    let (mut kamino, mut troubles) = (Vec::new(), Vec::new());
    match Reach::azure(config) {
        Ok(reach) => {
            for pool in &config.pools {
                match powers(&reach.cloud, &pool.scale_set).await {
                    Ok(powers) => kamino.extend(takeover::machines(&pool.scale_set, &nodes, &powers)),
                    Err(error) => troubles.push(format!("power of pool {}: {error}", pool.name)),
                }
            }
        }
        Err(error) => troubles.push(format!("what the Python tool has left: {error}")),
    }
    Ok(Rescues { claims: claimed(&nodes, SystemClock.now()), kamino, troubles })
}

/// Of the instances of a scale set that the Python tool knows: it takes Uniform ones only.
async fn powers(cloud: &AzureCloud, id: &ScaleSetId) -> Result<Vec<Powered>, CloudError> {
    match cloud.scale_set(id).await? {
        Some(set) if set.orchestration == Orchestration::Uniform => cloud.powers(id, set.orchestration).await,
        Some(_) | None => Ok(Vec::new()),
    }
}

/// What a person asks for a node.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// The run that it is taken from.
    pub despite: Option<&'a str>,
    /// Take what looks like the Python tool's doing for just that.
    pub kamino: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Brings a node back, or says what would. `runs` are those of the store, as far as there is one.
///
/// # Errors
/// It is somebody's, or can't be brought back as things are.
pub async fn rescue(
    config: &Config,
    wish: &Wish<'_>,
    runs: &[Summary],
    say: &(dyn Fn(&str) + Sync),
) -> Result<(Way, Option<Rescued>)> {
    let Reach { cloud, limiter: _ } = Reach::azure(config)?;
    let cluster = cluster(config).await?;
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &SystemClock };
    let owner = |run: RunId| match runs.iter().find(|summary| summary.id == run) {
        Some(summary) if summary.open() => Owner::Open,
        Some(_) => Owner::Ended,
        None => Owner::Unknown,
    };
    let ask = Ask { node: wish.node, owner: &owner, despite: wish.despite, kamino: wish.kamino };
    let way = look(ports, &ask).await?;
    if wish.dry_run {
        return Ok((way, None));
    }
    for words in way.words() {
        say(words);
    }
    let rescued = carry_out(ports, config.pace, &way, say).await?;
    Ok((way, Some(rescued)))
}
