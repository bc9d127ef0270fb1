//! Choose the node that the copy is attached to, where the cluster has no disk driver: one of the pool, and never the donor.
//!
//! A zonal disk can be attached in its zone only. The logical unit number is chosen from above, as whoever else attaches disks takes the
//! lowest one that is free. Decided once: a second attempt asks for the very same thing.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Preflight, Preflighted, RankNodes, Ranked, preflight::members};
use crate::{
    cloud::LUNS,
    cluster::{Attached, Node},
    model::{Attach, InstanceId, Members, NodeName},
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct ChooseHelper;

/// Who has the copy while it is cleaned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Helper {
    /// Its instance.
    pub instance: InstanceId,
    /// The logical unit number.
    pub lun: u32,
    /// Its node, and where that shows the disk.
    pub at: Attached,
}

/// Who helps a run, if anybody does.
pub(super) fn helper(context: Context<'_>) -> Result<Option<Helper>, StepError> {
    match context.spec.attach {
        Attach::Csi => Ok(None),
        Attach::Instance { .. } => context.output(ChooseHelper::NAME).map(Some),
    }
}

/// Why a node can't help, if it can't.
fn unfit(node: &Node, donor: &NodeName, zone: Option<&str>) -> Option<&'static str> {
    let reasons = [
        (node.name == *donor, "it is the donor"),
        (!node.linux, "it is not Linux"),
        (!node.ready, "it is not Ready"),
        (node.unschedulable, "it is cordoned"),
        (!node.taints.is_empty(), "it is tainted"),
        (zone.is_some() && node.zone.as_deref() != zone, "it is in another zone"),
    ];
    reasons.into_iter().find(|(applies, _)| *applies).map(|(_, why)| why)
}

/// The first by name that can, or what speaks against each.
fn first_fit<'a>(
    nodes: &'a [Node],
    members: &Members,
    donor: &NodeName,
    zone: Option<&str>,
) -> Result<(&'a Node, InstanceId), String> {
    let mut of_pool: Vec<_> =
        nodes.iter().filter_map(|node| Some((node, members.instance(&node.provider_id)?))).collect();
    of_pool.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let found = of_pool.iter().find(|(node, _)| unfit(node, donor, zone).is_none());
    found.map(|(node, instance)| (*node, instance.clone())).ok_or_else(|| {
        let each =
            of_pool.iter().map(|(node, _)| format!("{}: {}", node.name, unfit(node, donor, zone).unwrap_or_default()));
        each.collect::<Vec<_>>().join("; ")
    })
}

#[async_trait]
impl Decide for ChooseHelper {
    const NAME: &'static str = "ChooseHelper";
    type Output = Helper;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Helper, StepError> {
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        let Preflighted { orchestration, .. } = context.output(Preflight::NAME)?;
        let path = match &context.spec.attach {
            Attach::Instance { path } => path,
            Attach::Csi => return Err(StepError::refused("KW0001", "the copy is attached by the cluster's driver")),
        };
        let members = members(ports, &context.spec.scale_set, orchestration).await?;
        let nodes = ports.cluster.nodes().await?;
        let (node, id) = first_fit(&nodes, &members, &donor.node, donor.zone.as_deref()).map_err(|each| {
            let zone = donor.zone.as_ref().map_or_else(String::new, |zone| format!(" in zone {zone}"));
            let text =
                format!("no other node of the pool{zone} can take the copy of the disk of {}: {each}", donor.node);
            StepError::refused("KW0237", text)
        })?;
        let gone = || StepError::refused("KW0237", format!("the instance {id} of node {} does not exist", node.name));
        let instance = ports.cloud.instance(&id).await?.ok_or_else(gone)?;
        let full = || StepError::refused("KW0237", format!("the instance of node {} has {LUNS} data disks", node.name));
        let lun = (0..LUNS).rev().find(|lun| !instance.luns.contains(lun)).ok_or_else(full)?;
        let path = path.replace("{lun}", &lun.to_string());
        Ok(Helper { instance: id, lun, at: Attached { node: node.name.clone(), path } })
    }
}
