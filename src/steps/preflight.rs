//! Refuse before anything is touched: the scale set as it is, everybody who shares its image definition, and the cluster.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    cloud::{Plan, ScaleSet},
    model::{Bootstrap, DefinitionId, Region},
    policy::{
        preflight::{Refusal, refusals, would_roll},
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
    const CODES: [&str; 14] = [
        "KW0201", "KW0202", "KW0203", "KW0204", "KW0205", "KW0206", "KW0207", "KW0208", "KW0209", "KW0210", "KW0211",
        "KW0212", "KW0213", "KW0503",
    ];
    CODES.into_iter().find(|code| *code == text).unwrap_or("KW0200")
}

/// Everything that speaks against a run right now, all of it read and nothing decided.
///
/// # Errors
/// What keeps even the looks from being taken: a scale set that is not there, a call that fails.
pub(crate) async fn examine(
    ports: Ports<'_>,
    spec: &RunSpec,
) -> Result<(ScaleSet, DefinitionId, Vec<Refusal>), StepError> {
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
    let mut reasons = refusals(&set, &definition, spec.profile, spec.adopt);
    let sets = ports.cloud.scale_sets(spec.scale_set.subscription()).await?;
    reasons.extend(followers(&sets, &definition));
    reasons.extend(takeover::refusals(&ports.cluster.rivals().await?));
    reasons.dedup();
    Ok((set, definition, reasons))
}

#[async_trait]
impl Decide for Preflight {
    const NAME: &'static str = "Preflight";
    type Output = Preflighted;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Preflighted, StepError> {
        let spec = context.spec;
        let (set, definition, reasons) = examine(ports, spec).await?;
        refuse(reasons)?;
        let remove_extensions = match spec.profile.bootstrap() {
            Bootstrap::Disk => set
                .extensions
                .iter()
                .filter(|extension| bootstraps(&extension.handler))
                .map(|e| e.name.clone())
                .collect(),
            Bootstrap::Model => Vec::new(),
        };
        Ok(Preflighted {
            definition,
            location: set.location,
            security_type: set.security_type,
            disk_controller: set.disk_controller,
            plan: set.plan,
            remove_extensions,
        })
    }
}

/// Extensions that would set the node up a second time, by exact publisher and type; billing and monitoring stay.
fn bootstraps(handler: &str) -> bool {
    ["Microsoft.Azure.Extensions/CustomScript", "Microsoft.OSTCExtensions/CustomScriptForLinux"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(handler))
}
