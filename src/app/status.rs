//! Each pool as it is: what `status` shows, and what programs read from it. Changes nothing; what can't be read is said.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Reach, cluster};
use crate::{
    clock::{Clock as _, SystemClock},
    cloud::{Cloud, ImageRef, Instance, Provisioning, ScaleSet, Version},
    cluster::{Cluster, Node},
    config::{Config, Pool},
    model::{Capture, Class, Credential, DefinitionId, Profile, ScaleSetId},
    policy::{
        provenance::{Maker, PINNED, tag},
        takeover::{self, Finding, Names},
    },
    workflow::{Summary, next_run},
};

/// What new nodes are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelImage {
    /// The model refers to the pool's image definition: new nodes take its newest published version.
    pub follows_definition: bool,
    /// What it refers to.
    pub image: String,
}

/// A version, and how old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewestImage {
    /// Its name.
    pub version: String,
    /// Who made it.
    pub maker: Maker,
    /// The node that it was made from.
    pub donor: Option<String>,
    /// When it was published, by Azure's clock.
    pub created: Option<Timestamp>,
    /// How old it is.
    pub age_seconds: Option<i64>,
}

/// How many versions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// All.
    pub total: usize,
    /// New nodes may take them.
    pub published: usize,
    /// They stay whatever the rules say.
    pub pinned: usize,
    /// Made by kamino-wf.
    pub kamino_wf: usize,
    /// Made by the Python tool.
    pub kamino: usize,
    /// Made by others.
    pub foreign: usize,
}

/// How many instances were made from an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageCount {
    /// The version's name where it is one of the pool's definition, else what Azure says.
    pub image: String,
    /// How many instances.
    pub instances: usize,
    /// It is the newest published version.
    pub newest: bool,
}

/// A pool as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Its name in the settings.
    pub pool: String,
    /// Its scale set.
    pub scale_set: ScaleSetId,
    /// How many instances the scale set is set to.
    pub capacity: Option<u32>,
    /// Its image definition.
    pub definition: DefinitionId,
    /// What new nodes are made from.
    pub model: Option<ModelImage>,
    /// The newest published version.
    pub newest: Option<NewestImage>,
    /// How many versions there are.
    pub versions: Option<Versions>,
    /// What of a donor's, or of the pool's, can be read in its images, by how they are made.
    pub image_holds: Option<&'static str>,
    /// How many instances run which image, the most first.
    pub instances: Vec<ImageCount>,
    /// Its run that is not at an end.
    pub open_run: Option<Summary>,
    /// Its newest run that is.
    pub last_run: Option<Summary>,
    /// When the next one begins by itself.
    pub next_run: Option<Timestamp>,
    /// What the Python tool has left of it.
    pub kamino: Vec<Finding>,
    /// What could not be read.
    pub troubles: Vec<String>,
}

/// All pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// In the order of the settings.
    pub pools: Vec<PoolStatus>,
    /// Workloads of the Python tool in the cluster that will go on: while there are any, no run begins.
    pub kamino: Vec<Finding>,
    /// What could not be read, of no one pool.
    pub troubles: Vec<String>,
}

impl Status {
    /// Everything could be read.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.troubles.is_empty() && self.pools.iter().all(|pool| pool.troubles.is_empty())
    }
}

/// Looks at one pool, or at all of the settings'. `runs` are those of the store.
///
/// # Errors
/// No such pool, or no credential. What Azure and the API server said is in the status.
pub async fn status(config: &Config, pool: Option<&str>, runs: &[Summary]) -> Result<Status> {
    let pools: Vec<&Pool> = match pool {
        Some(name) => vec![config.pool(name)?],
        None => config.pools.iter().collect(),
    };
    let reach = Reach::azure(config)?;
    let cluster = cluster(config).await?;
    let mut troubles = Vec::new();
    let nodes = noted(&mut troubles, "nodes", cluster.nodes().await).unwrap_or_default();
    let rivals = noted(&mut troubles, "the Python tool's workloads", cluster.rivals().await).unwrap_or_default();
    let mut all = Vec::new();
    for pool in pools {
        all.push(of_pool(&reach.cloud, pool, &nodes, runs, SystemClock.now()).await?);
    }
    Ok(Status { pools: all, kamino: takeover::live(&rivals), troubles })
}

fn noted<T, E: std::fmt::Display>(troubles: &mut Vec<String>, what: &str, read: Result<T, E>) -> Option<T> {
    read.map_err(|error| troubles.push(format!("{what}: {error}"))).ok()
}

async fn of_pool(
    cloud: &dyn Cloud,
    pool: &Pool,
    nodes: &[Node],
    runs: &[Summary],
    now: Timestamp,
) -> Result<PoolStatus> {
    let definition = pool.gallery.definition(&pool.definition)?;
    let mut troubles = Vec::new();
    let set = noted(&mut troubles, "scale set", cloud.scale_set(&pool.scale_set).await).flatten();
    let versions = versions(cloud, &definition, &mut troubles).await;
    let (instances, powers) = match set.as_ref().map(|set| set.orchestration) {
        Some(orchestration) => {
            let instances = cloud.instances(&pool.scale_set, orchestration).await;
            let powers = cloud.powers(&pool.scale_set, orchestration).await;
            (noted(&mut troubles, "instances", instances), noted(&mut troubles, "power of instances", powers))
        }
        None => (None, None),
    };
    let (instances, powers) = (instances.unwrap_or_default(), powers.unwrap_or_default());
    let newest = versions.as_deref().and_then(newest);
    let of_set = |summary: &&Summary| summary.scale_set == pool.scale_set;
    let mut kamino = takeover::machines(&pool.scale_set, nodes, &powers);
    kamino.extend(findings(cloud, pool, &definition, &mut troubles).await);
    Ok(PoolStatus {
        pool: pool.name.clone(),
        scale_set: pool.scale_set.clone(),
        capacity: set.as_ref().map(|set| set.capacity),
        model: set.as_ref().map(|set| model(set, &definition)),
        newest: newest.map(|version| NewestImage {
            version: version.id.name().to_owned(),
            maker: Maker::of(version),
            donor: tag(version, "kamino-wf-donor").or_else(|| tag(version, "BuiltFrom")).map(str::to_owned),
            created: version.created,
            age_seconds: version.created.map(|at| now.duration_since(at)).map(|age: SignedDuration| age.as_secs()),
        }),
        versions: versions.as_deref().map(counted),
        image_holds: holds(pool),
        instances: by_image(&instances, &definition, newest),
        open_run: runs.iter().filter(of_set).rfind(|run| run.open()).cloned(),
        last_run: runs.iter().filter(of_set).rfind(|run| !run.open()).cloned(),
        next_run: pool.schedule.as_ref().and_then(|schedule| next_run(&pool.name, schedule, now)),
        definition,
        kamino,
        troubles,
    })
}

pub(super) fn holds(pool: &Pool) -> Option<&'static str> {
    match (&pool.profile, pool.capture, pool.credential) {
        (Profile::AksEngine, ..) => {
            Some("the pool's client certificate and azure.json, which a new node gets nowhere else")
        }
        (Profile::Kubeadm, Capture::Stop, Credential::Keep) => Some(
            "the donor's ssh host keys and its kubelet's credential, until a copy boots: whoever may read it can be the donor \
             (credential: rebootstrap)",
        ),
        (Profile::Kubeadm, Capture::Stop, Credential::Rebootstrap) => {
            Some("the donor's ssh host keys, until a copy boots")
        }
        (Profile::Kubeadm | Profile::Custom(_), ..) => None,
    }
}

async fn versions(cloud: &dyn Cloud, of: &DefinitionId, troubles: &mut Vec<String>) -> Option<Vec<Version>> {
    match cloud.versions(of).await {
        // Nothing was ever made for it.
        Err(error) if error.class() == Class::Gone => Some(Vec::new()),
        read => noted(troubles, "versions", read),
    }
}

/// What the Python tool has left of a pool in Azure, its machines apart.
async fn findings(
    cloud: &dyn Cloud,
    pool: &Pool,
    definition: &DefinitionId,
    troubles: &mut Vec<String>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    // A name that Azure would not take is the name of nothing that it has left.
    let Ok(names) = Names::of(&pool.scale_set) else { return found };
    if let Some(left) = noted(troubles, "kamino's snapshot", cloud.snapshot(&names.snapshot).await).flatten() {
        found.extend(takeover::snapshot(&left));
    }
    if names.definition != *definition {
        let theirs = noted(troubles, "kamino's definition", cloud.definition(&names.definition).await).flatten();
        if theirs.is_some() {
            let mut all = versions(cloud, &names.definition, troubles).await.unwrap_or_default();
            all.sort_by_key(|version| std::cmp::Reverse(version.id.version().ok()));
            let all: Vec<String> = all.iter().map(|version| version.id.name().to_owned()).collect();
            found.extend(takeover::definition(&names.definition, definition, &all));
        }
    }
    found
}

fn model(set: &ScaleSet, definition: &DefinitionId) -> ModelImage {
    let image = match &set.image {
        ImageRef::Definition(id) => id.to_string(),
        ImageRef::Version(id) => id.to_string(),
        ImageRef::Other(words) => words.clone(),
    };
    ModelImage { follows_definition: set.image == ImageRef::Definition(definition.clone()), image }
}

fn newest(versions: &[Version]) -> Option<&Version> {
    let published = versions
        .iter()
        .filter(|version| !version.excluded_from_latest && version.provisioning == Provisioning::Succeeded);
    published.max_by_key(|version| version.id.version().ok())
}

fn counted(versions: &[Version]) -> Versions {
    let count = |fits: &dyn Fn(&Version) -> bool| versions.iter().filter(|version| fits(version)).count();
    Versions {
        total: versions.len(),
        published: count(&|version| !version.excluded_from_latest),
        pinned: count(&|version| tag(version, PINNED).is_some()),
        kamino_wf: count(&|version| Maker::of(version) == Maker::KaminoWf),
        kamino: count(&|version| Maker::of(version) == Maker::Kamino),
        foreign: count(&|version| Maker::of(version) == Maker::Foreign),
    }
}

fn by_image(instances: &[Instance], definition: &DefinitionId, newest: Option<&Version>) -> Vec<ImageCount> {
    let mut counts: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for instance in instances {
        let (image, is_newest) = match &instance.image {
            ImageRef::Version(id) if id.definition() == *definition => {
                (id.name().to_owned(), newest.is_some_and(|newest| newest.id == *id))
            }
            ImageRef::Version(id) => (id.to_string(), false),
            ImageRef::Definition(id) => (format!("{id} (which version is not said)"), false),
            ImageRef::Other(words) if words.is_empty() => ("not said".into(), false),
            ImageRef::Other(words) => (words.clone(), false),
        };
        let (count, _) = counts.entry(image).or_insert((0, is_newest));
        *count += 1;
    }
    let mut counts: Vec<ImageCount> =
        counts.into_iter().map(|(image, (instances, newest))| ImageCount { image, instances, newest }).collect();
    counts.sort_by(|a, b| b.instances.cmp(&a.instances).then_with(|| a.image.cmp(&b.image)));
    counts
}
