//! Take the donor's node out of service: claim, cordon and hold, in one PATCH.
//!
//! Effect: one node unschedulable, kept from autoscalers, and marked with all that it takes to put it right. A repeat is
//! safe: the PATCH carries the node's version, and a node with our claim is not claimed again. Undo: none of its own; what
//! is owed is paid by `StartVm` and `ReleaseNode`, whatever happens. Never touched: a node that another has claimed or
//! cordoned.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{NodeBefore, ReadNode};
use crate::{
    cloud::Accepted,
    cluster::{Node, NodeChange},
    policy::obligations::{
        ABSENCE, AsFound, CLAIM, CLAIM_VERSION, Claim, DO_NOT_DISRUPT, Duty, SCALE_DOWN_DISABLED, gives_way,
    },
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct HoldNode;

/// What the request is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The node, as it was found.
    pub before: NodeBefore,
    /// What is written on it.
    pub claim: Claim,
    /// How many nodes may be out of service at a time.
    pub max_unavailable: usize,
}

#[async_trait]
impl Effect for HoldNode {
    const NAME: &'static str = "HoldNode";
    const DEADLINE: Duration = Duration::from_mins(5);
    const OWES: &'static [Duty] = &Duty::ALL;
    const TELLS: Option<(&'static str, &'static str)> =
        Some(("TakenOutOfService", "cordoned and held, to make a node image of its disk"));
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let before: NodeBefore = context.output(ReadNode::NAME)?;
        let claim = Claim {
            version: CLAIM_VERSION,
            cluster: context.spec.cluster.clone(),
            run: context.run,
            epoch: context.epoch,
            since: context.now,
            deadline: context.now.checked_add(ABSENCE).unwrap_or(context.now),
            node_uid: before.node_uid.clone(),
            instance: before.instance.clone(),
            vm_id: before.vm_id.clone(),
            boot_id: before.boot_id.clone(),
            as_found: before.as_found.clone(),
            cleaning: format!("{}/{}", before.cleaning_namespace, before.cleaning),
            credential: context.spec.credential,
            restore: Claim::restore_command(&before.node),
            written: context.store,
        };
        Ok(Input { before, claim, max_unavailable: context.spec.max_unavailable() })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let before = &want.before;
        let nodes = ports.cluster.nodes().await?;
        let Some(node) = nodes.iter().find(|node| node.name == before.node && node.uid == before.node_uid) else {
            let text = format!("node {} went, or was made anew, since it was chosen", before.node);
            return Err(StepError::gone("KW0603", text));
        };
        let unreadable = |error: crate::policy::obligations::UnreadableClaim| Seen::Foreign(error.to_string());
        match Claim::on(node) {
            Err(error) => return Ok(unreadable(error)),
            Ok(Some(claim)) if claim.run != want.claim.run => {
                return Ok(Seen::Foreign(format!("node {} was claimed by run {}", node.name, claim.run)));
            }
            Ok(Some(_)) => {}
            Ok(None) if AsFound::of(node) != before.as_found => {
                return Ok(Seen::Foreign(format!("node {} was cordoned or held by somebody", node.name)));
            }
            Ok(None) => return Ok(Seen::Absent),
        }
        // Others may have claimed at the same moment: the older claim stays.
        let mut claims = Vec::new();
        for node in &nodes {
            match Claim::on(node) {
                Ok(found) => claims.extend(found.map(|claim| (node.name.clone(), claim))),
                Err(error) => return Ok(unreadable(error)),
            }
        }
        if let Some(why) = gives_way(&claims, want.claim.run, want.max_unavailable) {
            return Ok(Seen::Foreign(why));
        }
        Ok(if held(node) {
            Seen::Present(())
        } else {
            Seen::Partly(format!("node {} is claimed, and not cordoned and held any more", node.name))
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let before = &want.before;
        let node = ports.cluster.node(&before.node).await?.filter(|node| node.uid == before.node_uid);
        let Some(node) = node else {
            let text = format!("node {} went, or was made anew, since it was chosen", before.node);
            return Err(StepError::gone("KW0603", text));
        };
        let claim = serde_json::to_string(&want.claim).map_err(|error| {
            StepError::refused("KW0002", format!("the claim on node {} can't be written: {error}", node.name))
        })?;
        let hold = || Some("true".to_owned());
        ports
            .cluster
            .change_node(&NodeChange {
                name: node.name,
                version: node.version,
                unschedulable: true,
                annotations: BTreeMap::from([
                    (CLAIM.to_owned(), Some(claim)),
                    (SCALE_DOWN_DISABLED.to_owned(), hold()),
                    (DO_NOT_DISRUPT.to_owned(), hold()),
                ]),
            })
            .await?;
        Ok(Accepted::default())
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

/// Cordoned, and kept from autoscalers. Only the value `true` counts with them.
fn held(node: &Node) -> bool {
    let says = |name: &str| node.annotations.get(name).map(String::as_str) == Some("true");
    node.unschedulable && says(SCALE_DOWN_DISABLED) && says(DO_NOT_DISRUPT)
}
