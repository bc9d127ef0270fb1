//! Choose the donor: the most recently rebooted healthy node, with everything that says which machine it is (I5).

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Preflight, Preflighted, drain_node, preflight::members};
use crate::{
    cloud::{Architecture, Plan, Version},
    cluster::Node,
    model::{Capture, Class, DefinitionId, DiskId, DonorChoice, InstanceId, Members, NodeName, Region},
    policy::{
        canary::Identity,
        ranking::{Absence, Boots, Candidate, Patched, Question, Ranking, Verdict, needless, rank},
    },
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct RankNodes;

/// The donor, and which machine and disk it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Donor {
    /// Its name.
    pub node: NodeName,
    /// Its Node object's uid.
    pub node_uid: String,
    /// Its boot id.
    pub boot_id: String,
    /// Its kernel.
    pub kernel: String,
    /// Its kubelet.
    pub kubelet: String,
    /// Its instance.
    pub instance: InstanceId,
    /// Its instance's `vmId`.
    pub vm_id: String,
    /// Its OS disk.
    pub disk: DiskId,
    /// That disk's `uniqueId`.
    pub disk_unique_id: String,
    /// Where that disk is.
    pub location: Region,
    /// Its zone.
    pub zone: Option<String>,
    /// Its size.
    pub size_gib: u32,
    /// Its kind, as in `Premium_LRS`.
    pub sku: String,
    /// `V1` or `V2`.
    pub generation: String,
    /// Its instruction set.
    pub architecture: Architecture,
    /// As the disk says.
    pub security_type: Option<String>,
    /// When it was patched, if the signal is a time.
    #[serde(default)]
    pub patched: Option<Timestamp>,
    /// As the disk says.
    #[serde(default)]
    pub controllers: Option<String>,
    /// As the disk says.
    #[serde(default)]
    pub plan: Option<Plan>,
    /// By what it would be taken for itself, where a copy of it is to be told from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// The choice and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranked {
    /// The donor.
    pub donor: Donor,
    /// One a node of the pool.
    pub verdicts: Vec<Verdict>,
}

/// How many verdicts are stored: a record stays small in a pool of a thousand nodes.
const VERDICTS_MAX: usize = 100;

/// Of so many nodes it is asked whether they could be emptied; each costs a handful of lists.
const EMPTIED_IN_THOUGHT_MAX: usize = 10;

/// The servers' time, as far as they say it: by a clock of ours that is ahead a young node would look old.
pub(crate) fn servers_time(nodes: &[Node], ours: Timestamp) -> Timestamp {
    nodes.iter().filter_map(|node| node.seen).max().unwrap_or(ours)
}

/// The ranking, and the time that it is for.
pub(crate) async fn ranking(
    ports: Ports<'_>,
    context: Context<'_>,
    members: &Members,
) -> Result<(Ranking, Timestamp), StepError> {
    let spec = context.spec;
    let nodes = ports.cluster.nodes().await?;
    let now = servers_time(&nodes, ports.clock.now());
    let boots = Boots::recalled(context.memory, &spec.scale_set);
    let ranked = |taken_out: Option<&Absence>| {
        let question = Question {
            members,
            choice: &spec.donor,
            min_ready: Duration::from_secs(spec.min_ready_seconds),
            rules: &spec.ranking,
            boots: &boots,
            taken_out,
            now,
        };
        rank(&nodes, &question)
    };
    if spec.capture == Capture::Live {
        return Ok((ranked(None), now));
    }
    // The best one first, and the next only if it can't be emptied: of a large pool most are never looked at.
    let mut absence = Absence::default();
    for _ in 0..EMPTIED_IN_THOUGHT_MAX {
        let ranking = ranked(Some(&absence));
        let Some(best) = ranking.candidates.first() else { return Ok((ranking, now)) };
        let hindered = drain_node::hindered(ports, &best.node.name, &spec.drain).await?;
        if hindered.is_empty() {
            return Ok((ranking, now));
        }
        absence.blocked.insert(best.node.name.clone(), hindered);
    }
    Ok((ranked(Some(&absence)), now))
}

/// Why nobody can be the donor, with the reasons of some.
fn nobody(context: Context<'_>, ranking: &Ranking) -> StepError {
    let set = &context.spec.scale_set;
    let reasons: Vec<String> =
        ranking.verdicts.iter().take(10).map(|verdict| format!("{}: {}", verdict.node, verdict.reason)).collect();
    let text = if reasons.is_empty() {
        format!("no node of the cluster belongs to scale set {set}")
    } else {
        format!("no node of scale set {} can be the donor ({})", set.name(), reasons.join("; "))
    };
    StepError::refused("KW0230", text)
}

/// The best of a ranking, unless there are too few to choose from.
pub(crate) fn best<'a>(context: Context<'_>, ranking: &'a Ranking) -> Result<&'a Candidate, StepError> {
    let best = ranking.candidates.first().ok_or_else(|| nobody(context, ranking))?;
    let (fit, least) = (ranking.fit, context.spec.ranking.min_candidates);
    if context.spec.donor == DonorChoice::Pool && fit < usize::try_from(least).unwrap_or(usize::MAX) {
        let set = context.spec.scale_set.name();
        let text = format!(
            "{fit} nodes of scale set {set} are fit, and ranking.minCandidates asks for {least}: wait until more are \
             (`kamino-wf plan` says what each lacks), or lower it"
        );
        return Err(StepError::refused("KW0236", text));
    }
    Ok(best)
}

async fn versions(ports: Ports<'_>, definition: &DefinitionId) -> Result<Vec<Version>, StepError> {
    match ports.cloud.versions(definition).await {
        Ok(versions) => Ok(versions),
        Err(error) if error.class() == Class::Gone => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Ends the run when the newest version is young enough for this donor. One that a person has named is always taken, and a
/// scale set that does not follow the definition yet has none of its versions.
pub(crate) async fn needed(
    ports: Ports<'_>,
    context: Context<'_>,
    best: &Candidate,
    now: Timestamp,
) -> Result<(), StepError> {
    let (Some(limits), DonorChoice::Pool) = (context.spec.ranking.image_age, &context.spec.donor) else {
        return Ok(());
    };
    let Ok(Preflighted { definition, follows: true, .. }) = context.output(Preflight::NAME) else { return Ok(()) };
    match needless(limits, &best.patched, &versions(ports, &definition).await?, now) {
        None => Ok(()),
        Some(why) => {
            let text = format!(
                "no new image is needed: {why}; `kamino-wf start --node {}` makes one all the same",
                best.node.name
            );
            Err(StepError::refused("KW0235", text))
        }
    }
}

/// Which machine and disk a candidate is.
pub(crate) async fn identify(ports: Ports<'_>, candidate: &Candidate) -> Result<Donor, StepError> {
    let Candidate { node, instance, patched } = candidate;
    let machine = ports.cloud.instance(instance).await?.ok_or_else(|| {
        StepError::gone("KW0231", format!("node {} says that it is {instance}, which does not exist", node.name))
    })?;
    let disk_id = machine.os_disk.ok_or_else(|| {
        StepError::refused("KW0205", format!("instance {} has no managed OS disk to snapshot", machine.id))
    })?;
    let disk =
        ports.cloud.disk(&disk_id).await?.ok_or_else(|| {
            StepError::gone("KW0232", format!("OS disk {disk_id} of node {} does not exist", node.name))
        })?;
    if let Some(kind) = disk.security_type.as_deref().filter(|kind| kind.starts_with("Confidential")) {
        let text = format!("securityProfile.securityType of disk {} is {kind}: not supported", disk.id.name());
        return Err(StepError::refused("KW0210", text));
    }
    Ok(Donor {
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        boot_id: node.boot_id.clone(),
        kernel: node.kernel.clone(),
        kubelet: node.kubelet.clone(),
        instance: machine.id,
        vm_id: machine.vm_id,
        disk: disk.id,
        disk_unique_id: disk.unique_id,
        location: disk.location,
        zone: disk.zone,
        size_gib: disk.size_gib,
        sku: disk.sku,
        generation: disk.generation,
        architecture: disk.architecture,
        security_type: disk.security_type,
        controllers: disk.controllers,
        plan: disk.plan,
        patched: match patched {
            Patched::At(at) => Some(*at),
            Patched::Kernel(_) => None,
        },
        identity: None,
    })
}

#[async_trait]
impl Decide for RankNodes {
    const NAME: &'static str = "RankNodes";
    type Output = Ranked;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Ranked, StepError> {
        let Preflighted { orchestration, .. } = context.output(Preflight::NAME)?;
        let members = members(ports, &context.spec.scale_set, orchestration).await?;
        let (mut ranking, now) = ranking(ports, context, &members).await?;
        let best = best(context, &ranking)?;
        needed(ports, context, best, now).await?;
        let identity = context.spec.canary.limits().map(|_| Identity::of(&best.node));
        let donor = Donor { identity, ..identify(ports, best).await? };
        ranking.verdicts.truncate(VERDICTS_MAX);
        Ok(Ranked { donor, verdicts: ranking.verdicts })
    }
}
