//! Choose every name, tag and number that the run will use, before the first effect: a second attempt asks for the very
//! same things.

use async_trait::async_trait;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Preflight, Preflighted, RankNodes, Ranked};
use crate::{
    cloud::Tags,
    model::{DefinitionId, DiskId, RunId, SnapshotId, VersionId, VersionName},
    policy::ranking::PATCHED_TAG,
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct ChooseNames;

/// Everything that the run will make, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// When they were chosen, by our clock.
    pub chosen: Timestamp,
    /// The snapshot of the donor's disk.
    pub snapshot: SnapshotId,
    /// The copy that is cleaned.
    pub disk: DiskId,
    /// Pod, claim and volume of the cleaning.
    pub cleaning: String,
    /// What the cleaner's report must repeat.
    pub nonce: String,
    /// The image version.
    pub version: VersionId,
    /// On all that we make in Azure.
    pub tags: Tags,
}

/// The tag that holds a run's full id.
const RUN_TAG: &str = "kamino-wf-run";

/// Where the highest version ever chosen for a definition is remembered, over deletions.
fn highest_key(definition: &DefinitionId) -> String {
    format!("highest/{}/{}", definition.subscription(), definition.names().join("/")).to_ascii_lowercase()
}

/// `kwf-<scale set>-<run12>`, the scale set's name cut to `room`.
fn name(scale_set: &str, run: RunId, room: usize) -> String {
    let cut: String = scale_set.chars().take(room).collect();
    format!("kwf-{cut}-{}", run.short())
}

/// For Kubernetes: lower case, and nothing but letters, digits and `-`.
fn kubernetes_name(scale_set: &str, run: RunId) -> String {
    let plain: String = scale_set
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .collect();
    name(&plain, run, 40)
}

#[async_trait]
impl Decide for ChooseNames {
    const NAME: &'static str = "ChooseNames";
    type Output = Names;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Names, StepError> {
        let Preflighted { definition, .. } = context.output(Preflight::NAME)?;
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        let versions = match ports.cloud.versions(&definition).await {
            Ok(versions) => versions,
            // The definition is made by a later step.
            Err(error) if error.class() == crate::model::Class::Gone => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let known = versions.iter().filter_map(|version| version.id.version().ok());
        let remembered = context
            .memory
            .get(&highest_key(&definition))
            .and_then(Value::as_str)
            .and_then(|text| VersionName::parse(text).ok());
        let highest = known.chain(remembered).max();
        let chosen = ports.clock.now();
        let version = definition.version(&VersionName::next(chosen.to_zoned(TimeZone::UTC).date(), highest.as_ref()));

        let (subscription, group) = (context.spec.scale_set.subscription(), context.spec.scale_set.resource_group());
        let ours = name(context.spec.scale_set.name(), context.run, 60);
        let bad = |error: crate::model::BadName| StepError::refused("KW0222", error.to_string());
        let newest =
            versions.iter().filter(|version| !version.excluded_from_latest).filter_map(|v| v.id.version().ok()).max();
        let mut tags = Tags::from([
            (RUN_TAG.to_owned(), context.run.0.to_string()),
            ("kamino-wf-cluster".into(), context.spec.cluster.clone()),
            ("kamino-wf-donor".into(), donor.node.to_string()),
            ("kamino-wf-kernel".into(), donor.kernel),
            ("kamino-wf-kubelet".into(), donor.kubelet),
            // Read by the Python tool.
            ("BuiltFrom".into(), donor.node.to_string()),
            ("BuiltAt".into(), chosen.to_string()),
        ]);
        if let Some(patched) = donor.patched {
            tags.insert(PATCHED_TAG.into(), patched.to_string());
        }
        if let Some(parent) = newest {
            tags.insert("kamino-wf-parent".into(), parent.to_string());
        }
        Ok(Names {
            chosen,
            snapshot: SnapshotId::new(subscription, group, &[&ours]).map_err(bad)?,
            disk: DiskId::new(subscription, group, &[&ours]).map_err(bad)?,
            cleaning: kubernetes_name(context.spec.scale_set.name(), context.run),
            nonce: ports.clock.new_id().simple().to_string(),
            version,
            tags,
        })
    }

    fn remember(&self, names: &Names) -> Option<(String, Value)> {
        Some((highest_key(&names.version.definition()), Value::String(names.version.name().to_owned())))
    }
}
