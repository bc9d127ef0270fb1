//! Image versions for `images`: read here, changed by whoever holds the store.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Reach, close, cluster, engine_of_command, open_store, place};
use crate::{
    clock::SystemClock,
    cloud::{Cloud as _, Provisioning, Tags, Version},
    cluster::kubernetes::KubernetesCluster,
    config::{Config, Pool},
    http::{Client, Mutations, Peer, PinRequest, PruneRequest},
    model::{Class, DefinitionId, VersionId, VersionName},
    policy::{
        leftovers::KnownRun,
        provenance::{PINNED, Provenance, lineage, tag},
        retention::{Because, Rules, Runs, Verdict},
    },
    steps::image_use::{subscriptions, verdicts},
    workflow::{Observer, PinAsk, PinReport, Ports, PruneAsk, PruneReport, going},
};

/// A version that no pool has, or more than one.
#[derive(Debug, thiserror::Error)]
#[error("there is no version {given:?}{of}; `kamino-wf images list` shows those there are")]
pub struct NoSuchImage {
    /// What was given.
    pub given: String,
    /// Of what.
    pub of: String,
}

/// Between two looks at a version whose tags are being changed.
const LOOK: Duration = Duration::from_secs(2);
/// For a changed tag to be seen, and for the operation on it to end.
const TAGGED_WITHIN: Duration = Duration::from_mins(5);

/// A version as it is, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageView {
    /// Where it comes from.
    pub from: Provenance,
    /// Its full id.
    pub id: VersionId,
    /// What Azure says of its making.
    pub provisioning: Provisioning,
    /// Its size.
    pub size_gib: Option<u32>,
    /// `images prune` would delete it.
    pub delete: bool,
    /// Why, or why not, in a word.
    pub because: Option<Because>,
    /// The same in one line.
    pub reason: String,
}

/// The versions of one definition, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// The pools whose settings name it.
    pub pools: Vec<String>,
    /// The definition.
    pub definition: DefinitionId,
    /// By which rules: the most that one of its pools keeps.
    pub rules: Rules,
    /// The subscription of its pools' scale sets.
    #[serde(skip)]
    subscription: String,
    /// Newest first.
    pub images: Vec<ImageView>,
    #[serde(skip)]
    versions: Vec<Version>,
}

impl Images {
    /// What a person is asked about: those that would go, oldest first.
    #[must_use]
    pub fn going(&self) -> Vec<VersionId> {
        let verdict = |view: &ImageView| Verdict {
            version: view.id.clone(),
            delete: view.delete,
            reason: String::new(),
            because: view.because,
        };
        going(&self.images.iter().map(verdict).collect::<Vec<_>>())
    }

    /// A version of it, by its name in any form that Azure knows, or by its id.
    #[must_use]
    pub fn version(&self, given: &str) -> Option<VersionId> {
        let name = VersionName::parse(given).ok();
        let fits = |version: &&Version| {
            version.id.as_str().eq_ignore_ascii_case(given) || name.is_some() && version.id.version().ok() == name
        };
        self.versions.iter().find(fits).map(|version| version.id.clone())
    }

    /// A version and what it descends from, and the parent that is not there any more.
    #[must_use]
    pub fn lineage(&self, of: &VersionId) -> (Vec<Provenance>, Option<String>) {
        lineage(&self.versions, of)
    }

    /// The newest published version.
    #[must_use]
    pub fn newest(&self) -> Option<VersionId> {
        let published = |view: &&ImageView| view.from.published && view.provisioning == Provisioning::Succeeded;
        self.images.iter().find(published).map(|view| view.id.clone())
    }
}

/// Reads the versions of the pools' definitions, and what is to become of each. `runs` are those of the store.
///
/// # Errors
/// No such pool, no credential, or Azure does not answer.
pub async fn images(config: &Config, pool: Option<&str>, runs: &[KnownRun], kamino: bool) -> Result<Vec<Images>> {
    let pools: Vec<&Pool> = match pool {
        Some(name) => vec![config.pool(name)?],
        None => config.pools.iter().collect(),
    };
    let reach = Reach::azure(config)?;
    let cluster = cluster(config).await?;
    let clock = SystemClock;
    let ports = Ports { cloud: &reach.cloud, cluster: &cluster, clock: &clock };
    let mut all: Vec<Images> = Vec::new();
    for pool in pools {
        let definition = pool.gallery.definition(&pool.definition)?;
        let rules = Rules { keep: pool.keep, min_age_seconds: pool.keep_for.as_secs(), kamino };
        if let Some(known) = all.iter_mut().find(|known| known.definition == definition) {
            known.pools.push(pool.name.clone());
            known.rules.keep = known.rules.keep.max(rules.keep);
            known.rules.min_age_seconds = known.rules.min_age_seconds.max(rules.min_age_seconds);
            continue;
        }
        let subscription = pool.scale_set.subscription().to_owned();
        let pools = vec![pool.name.clone()];
        all.push(Images { pools, definition, rules, subscription, images: Vec::new(), versions: Vec::new() });
    }
    for images in &mut all {
        fill(ports, images, runs)
            .await
            .with_context(|| format!("failed to read the versions of {}", images.definition))?;
    }
    Ok(all)
}

async fn fill(ports: Ports<'_>, images: &mut Images, runs: &[KnownRun]) -> Result<()> {
    images.versions = match ports.cloud.versions(&images.definition).await {
        Ok(versions) => versions,
        // Nothing was ever made for it.
        Err(error) if error.class() == Class::Gone => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let subscriptions = subscriptions(&images.subscription, &images.definition);
    let verdicts = verdicts(ports, &subscriptions, &images.definition, Runs::Known(runs), images.rules).await?;
    let by_id: BTreeMap<&VersionId, &Version> = images.versions.iter().map(|version| (&version.id, version)).collect();
    let view = |verdict: Verdict| {
        let version = by_id.get(&verdict.version)?;
        Some(ImageView {
            from: Provenance::of(version),
            id: version.id.clone(),
            provisioning: version.provisioning.clone(),
            size_gib: version.size_gib,
            delete: verdict.delete,
            because: verdict.because,
            reason: verdict.reason,
        })
    };
    images.images = verdicts.into_iter().filter_map(view).collect();
    Ok(())
}

/// Whoever holds the store, or this process in its place.
async fn with_holder<T>(
    config: &Config,
    observer: Observer,
    asked: impl AsyncFnOnce(&Client) -> Result<T>,
    here: impl AsyncFnOnce(&Mutations) -> Result<T>,
) -> Result<T> {
    if let Some(client) = Client::connect(&config.store).await? {
        return asked(&client).await;
    }
    let store = open_store(&place(config))?;
    let cluster: KubernetesCluster = cluster(config).await?;
    let engine = engine_of_command(config, cluster, store.journal.clone(), observer).await?;
    let mutations = Mutations::new(engine);
    let done = here(&mutations).await;
    drop(mutations);
    close(store).await?;
    done
}

/// Deletes the versions of a plan, as far as that is still right.
///
/// # Errors
/// Whoever holds the store refused, or the store can't be opened.
pub async fn prune(config: &Config, images: &Images, by: &str, observer: Observer) -> Result<PruneReport> {
    let request = |versions: Vec<VersionId>| PruneRequest {
        ask: PruneAsk {
            definition: images.definition.clone(),
            subscription: images.subscription.clone(),
            rules: images.rules,
            versions,
        },
        by: by.to_owned(),
    };
    let all = images.going();
    with_holder(
        config,
        observer,
        async |client| rounds(&all, async |versions| Ok(client.prune(&request(versions)).await?)).await,
        async |mutations| {
            rounds(&all, async |versions| Ok(mutations.prune(&request(versions), Some(Peer::this())).await?)).await
        },
    )
    .await
}

/// Asks again for what was left, until nothing is or it is broken off.
async fn rounds(
    all: &[VersionId],
    mut ask: impl AsyncFnMut(Vec<VersionId>) -> Result<PruneReport>,
) -> Result<PruneReport> {
    let mut total = PruneReport { left: all.len(), ..PruneReport::default() };
    while !all.is_empty() && total.left > 0 {
        let report = ask(all[all.len() - total.left..].to_vec()).await?;
        let stuck = report.left >= total.left;
        total.going.extend(report.going);
        total.stay.extend(report.stay);
        (total.left, total.broken_off, total.not_before) = (report.left, report.broken_off, report.not_before);
        if total.broken_off.is_some() || stuck {
            break;
        }
    }
    Ok(total)
}

/// Pins a version or takes the pin away, and looks that nothing else of it has changed.
///
/// # Errors
/// There is no such version, it is another's, Azure refused, or something else of the version changed too.
pub async fn pin(config: &Config, ask: PinAsk, by: &str, observer: Observer) -> Result<PinReport> {
    let reach = Reach::azure(config)?;
    let id = ask.version.clone();
    let before = reach.cloud.version(&id).await?;
    let want = ask.why.clone();
    let request = PinRequest { ask, by: by.to_owned() };
    let report = with_holder(
        config,
        observer,
        async |client| Ok(client.pin(&request).await?),
        async |mutations| Ok(mutations.pin(&request, Some(Peer::this())).await?),
    )
    .await?;
    let (Some(before), true) = (before, report.changed) else { return Ok(report) };
    let until = Instant::now() + TAGGED_WITHIN;
    while Instant::now() < until {
        sleep(LOOK).await;
        let Some(after) = reach.cloud.version(&id).await? else { bail!("version {id} is not there any more") };
        if after.provisioning == Provisioning::Running || tag(&after, PINNED).is_some() != want.is_some() {
            continue;
        }
        let changed = changed_besides(&before, &after);
        if !changed.is_empty() {
            bail!("KW0504: more than the pin of version {id} has changed: {}", changed.join(", "));
        }
        return Ok(report);
    }
    bail!("version {id} does not show its changed tag after {} min; look again later", TAGGED_WITHIN.as_secs() / 60)
}

/// What differs but for the pin and what passes by itself.
fn changed_besides(before: &Version, after: &Version) -> Vec<&'static str> {
    let plain = |tags: &Tags| -> Tags {
        let others = tags.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(PINNED));
        others.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
    };
    let created = |version: &Version| -> Option<Timestamp> { version.created };
    let checks = [
        ("excludeFromLatest", before.excluded_from_latest == after.excluded_from_latest),
        ("targetRegions", before.regions == after.regions),
        ("source", before.source == after.source),
        ("publishedDate", created(before) == created(after)),
        ("tags", plain(&before.tags) == plain(&after.tags)),
    ];
    checks.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect()
}
