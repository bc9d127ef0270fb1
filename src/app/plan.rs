//! What runs would do, over the real adapters and whatever the store knows.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use tracing::warn;

use super::{Reach, clean_image, cluster, groups, place, pool_spec, read_store, uses};
use crate::{
    clock::SystemClock,
    cloud::azure::AzureCloud,
    cluster::{Cluster as _, kubernetes::KubernetesCluster},
    config::{Config, Pool},
    doctor::{Galleries, RIGHTS, State, azure, kubernetes},
    http::Client,
    model::DonorChoice,
    permissions::Uses,
    preview::{Known, PoolPlan, Prospect, Wanted, pool},
    workflow::{EngineError, Ports, Summary, memory_of, memory_prefix, summaries},
};

/// The plans of some pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Each pool's.
    pub pools: Vec<PoolPlan>,
    /// Rights that runs of them need and that are not granted.
    pub missing_rights: Vec<String>,
    /// Why the store could not be asked: what it remembers is not in the plan.
    pub without_memory: Option<String>,
}

impl Plan {
    /// Whether a run of any of them would come out so.
    #[must_use]
    pub fn any(&self, prospect: Prospect) -> bool {
        self.pools.iter().any(|pool| pool.prospect == prospect)
    }
}

/// Makes the plans of one pool, or of all.
///
/// # Errors
/// Settings that can't be used, and an API server that does not answer: without it nobody knows which cluster this is.
pub async fn plan(config: &Config, only: Option<&str>, adopt: bool) -> Result<Plan> {
    let pools: Vec<&Pool> = match only {
        Some(name) => vec![config.pool(name)?],
        None => config.pools.iter().collect(),
    };
    clean_image(config)?;
    let Reach { cloud, limiter: _ } = Reach::azure(config)?;
    let cluster = cluster(config).await?;
    let id = cluster.cluster_id().await.context("failed to ask which cluster this is")?;
    let (stored, without_memory) = match stored(config).await {
        Ok(stored) => (stored, None),
        Err(error) => {
            warn!("the store can't be asked: {error:#}");
            (Stored::default(), Some(format!("{error:#}")))
        }
    };
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &SystemClock };
    let mut plans = Vec::new();
    for wanted in &pools {
        let spec = pool_spec(config, wanted, DonorChoice::Pool, adopt || wanted.adopt, id.clone())?;
        let open = |run: &&Summary| run.open() && run.scale_set == spec.scale_set;
        let open = stored.runs.iter().find(open).map(|run| run.run.clone());
        let known = Known { memory: stored.memory.clone(), open };
        plans.push(pool(ports, &Wanted { name: wanted.name.clone(), spec }, &known).await);
    }
    let missing_rights = missing_rights(config, &pools, &cluster, &cloud).await;
    Ok(Plan { pools: plans, missing_rights, without_memory })
}

#[derive(Default)]
pub(super) struct Stored {
    pub(super) runs: Vec<Summary>,
    memory: BTreeMap<String, Value>,
}

/// From whoever holds the store, or from the store itself. One that is not there is not made.
pub(super) async fn stored(config: &Config) -> Result<Stored> {
    if let Some(client) = Client::connect(&config.store).await? {
        return Ok(Stored { runs: client.list().await?, memory: client.memory().await? });
    }
    if !config.store.join("db").try_exists()? {
        return Ok(Stored::default());
    }
    let (journal, guard) = read_store(&place(config))?;
    let read = async {
        let facts = journal.facts(memory_prefix()).await?;
        Ok::<_, EngineError>(Stored { runs: summaries(&journal).await?, memory: memory_of(facts) })
    };
    let read = read.await;
    drop(journal);
    let closed = guard.close();
    let stored = read?;
    closed?;
    Ok(stored)
}

/// By the same looks as `doctor`'s.
async fn missing_rights(
    config: &Config,
    pools: &[&Pool],
    cluster: &KubernetesCluster,
    cloud: &AzureCloud,
) -> Vec<String> {
    let own = config.place.namespace.as_deref();
    let used = pools.iter().map(|pool| uses(config, pool)).fold(Uses::default(), Uses::and);
    let (mut checks, _) = kubernetes(cluster, own, &config.clean_namespace, &config.lease, used).await;
    let groups = groups(config, pools.iter().copied());
    let mut galleries = Galleries::new();
    for pool in pools {
        galleries.entry(pool.gallery.clone()).or_default().extend(pool.gallery.definition(&pool.definition));
    }
    checks.extend(azure(cloud, &groups, &galleries).await.0);
    let missing = checks.into_iter().filter(|it| it.state == State::Wrong && RIGHTS.contains(&it.name.as_str()));
    missing.map(|it| it.remedy.map_or(it.seen.clone(), |remedy| format!("{}: {remedy}", it.seen))).collect()
}
