//! Refuse before anything is touched: the scale set as it is, everybody who shares its image definition, and the cluster.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rank_nodes::servers_time;
use crate::{
    cloud::{ImageRef, Orchestration, Plan, ScaleSet},
    cluster::Node,
    model::{Capture, DefinitionId, Members, Region, ScaleSetId},
    policy::{
        preflight::{CLAUSES, Refusal, bootstrapping, elsewhere, owned_by_aks, refusals, unseen, would_roll},
        ranking::Boots,
        takeover,
    },
    workflow::{Context, Decide, Ports, RunSpec, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct Preflight;

/// What later steps build on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflighted {
    /// The definition that new nodes shall follow.
    pub definition: DefinitionId,
    /// The scale set's region.
    pub location: Region,
    /// `TrustedLaunch` or none.
    pub security_type: Option<String>,
    /// `SCSI` or `NVMe`, where the model says so.
    pub disk_controller: Option<String>,
    /// The marketplace plan.
    pub plan: Option<Plan>,
    /// Extensions that leave the model when the disk bootstraps the node.
    pub remove_extensions: Vec<String>,
    /// The scale set follows the definition already.
    #[serde(default)]
    pub follows: bool,
    /// Where its instances are.
    #[serde(default, skip_serializing_if = "Orchestration::is_uniform")]
    pub orchestration: Orchestration,
    /// What is known of the boots of the pool's nodes, to be remembered.
    #[serde(default, skip_serializing_if = "Boots::is_empty")]
    pub boots: Boots,
    /// Whose boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_set: Option<ScaleSetId>,
}

/// Scale sets other than `set` that follow `definition`, and why a new version would do more than change new nodes.
pub(super) fn followers(sets: &[ScaleSet], definition: &DefinitionId) -> Vec<Refusal> {
    sets.iter().filter(|set| set.image.definition().as_ref() == Some(definition)).flat_map(would_roll).collect()
}

pub(super) fn refuse(mut refusals: Vec<Refusal>) -> Result<(), StepError> {
    refusals.dedup();
    let Some(first) = refusals.first() else { return Ok(()) };
    let code = super::preflight::code(&first.code);
    let text: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    Err(StepError::refused(code, text.join("; ")))
}

/// Stored refusals carry their code as text; errors carry a static one.
fn code(text: &str) -> &'static str {
    CLAUSES.iter().map(|clause| clause.code).find(|code| *code == text).unwrap_or("KW0200")
}

/// What was looked at before anything is touched.
#[derive(Debug)]
pub(crate) struct Examined {
    /// The scale set.
    pub(crate) set: ScaleSet,
    /// What new nodes shall follow.
    pub(crate) definition: DefinitionId,
    /// Everything that speaks against a run right now.
    pub(crate) refusals: Vec<Refusal>,
    /// The cluster's nodes.
    pub(crate) nodes: Vec<Node>,
    /// What tells those that belong to the scale set.
    pub(crate) members: Members,
}

/// Who belongs to a scale set. Azure is asked only where the ids of instances don't say it.
pub(super) async fn members(
    ports: Ports<'_>,
    scale_set: &ScaleSetId,
    orchestration: Orchestration,
) -> Result<Members, StepError> {
    let listed = match orchestration {
        Orchestration::Uniform => Vec::new(),
        Orchestration::Flexible => ports.cloud.instances(scale_set, orchestration).await?,
    };
    Ok(Members::of(scale_set, listed.into_iter().map(|instance| instance.id)))
}

/// Everything that speaks against a run right now, all of it read and nothing decided.
///
/// # Errors
/// What keeps even the looks from being taken: a scale set that is not there, a call that fails.
pub(crate) async fn examine(ports: Ports<'_>, spec: &RunSpec) -> Result<Examined, StepError> {
    let cluster = ports.cluster.cluster_id().await?;
    if cluster != spec.cluster {
        let text =
            format!("the run belongs to cluster {}, and this is cluster {cluster}: use its kubeconfig", spec.cluster);
        return Err(StepError::refused("KW0220", text));
    }
    let set = ports.cloud.scale_set(&spec.scale_set).await?.ok_or_else(|| {
        StepError::gone(
            "KW0221",
            format!("scale set {} does not exist: check subscription, group and name", spec.scale_set),
        )
    })?;
    let definition = spec
        .gallery
        .definition(&spec.definition)
        .map_err(|error| StepError::refused("KW0222", format!("setting definition: {error}")))?;
    let taken_out = match spec.capture {
        Capture::Live => false,
        Capture::Stop => true,
    };
    let mut reasons = refusals(&set, &definition, &spec.profile, spec.adopt, taken_out);
    reasons.extend(unseen(&spec.profile, spec.capture, &spec.canary));
    let sets = ports.cloud.scale_sets(spec.scale_set.subscription()).await?;
    reasons.extend(followers(&sets, &definition));
    let gallery = ports.cloud.gallery(&spec.gallery).await?;
    reasons.extend(elsewhere(&set, gallery.as_ref().map(|gallery| &gallery.location), &spec.regions));
    let nodes = ports.cluster.nodes().await?;
    let members = members(ports, &spec.scale_set, set.orchestration).await?;
    if !reasons.iter().any(|reason| reason.code == "KW0211") {
        reasons.extend(owned_by_aks(&nodes, &members));
    }
    reasons.extend(takeover::refusals(&ports.cluster.rivals().await?));
    reasons.dedup();
    Ok(Examined { set, definition, refusals: reasons, nodes, members })
}

/// What later steps build on, of what was seen.
pub(crate) fn preflighted(ports: Ports<'_>, context: Context<'_>, seen: Examined) -> Preflighted {
    let Examined { set, definition, nodes, members, refusals: _ } = seen;
    let now = servers_time(&nodes, ports.clock.now());
    Preflighted {
        boots: Boots::recalled(context.memory, &context.spec.scale_set).of(&members, &nodes, now),
        follows: set.image == ImageRef::Definition(definition.clone()),
        remove_extensions: bootstrapping(&set, &context.spec.profile),
        definition,
        location: set.location,
        security_type: set.security_type,
        disk_controller: set.disk_controller,
        plan: set.plan,
        orchestration: set.orchestration,
        scale_set: Some(set.id),
    }
}

#[async_trait]
impl Decide for Preflight {
    const NAME: &'static str = "Preflight";
    type Output = Preflighted;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Preflighted, StepError> {
        let mut seen = examine(ports, context.spec).await?;
        refuse(std::mem::take(&mut seen.refusals))?;
        Ok(preflighted(ports, context, seen))
    }

    // By this step and not by the ranking: a pool whose nodes all carry a mark that sticks is refused there, and would be
    // for ever if nobody remembered what was seen.
    fn remember(&self, output: &Preflighted) -> Option<(String, Value)> {
        let key = Boots::key(output.scale_set.as_ref()?);
        Some((key, serde_json::to_value(&output.boots).ok()?))
    }
}
