//! Read the donor's node as it is, right before it is taken out of service: what will be restored is decided here.
//!
//! Claims on all nodes are read too: at most so many nodes are out of service at a time, whoever took them, also when two
//! installations with two stores know nothing of each other.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Names, RankNodes, Ranked};
use crate::{
    model::{Class, InstanceId, NodeName},
    policy::obligations::{AsFound, CLAIM, Claim, gives_way},
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct ReadNode;

/// The donor's node, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBefore {
    /// Its name.
    pub node: NodeName,
    /// Its uid.
    pub node_uid: String,
    /// Its boot: another one after it has been off.
    pub boot_id: String,
    /// The machine's own id, by which the cleaner knows where it is.
    pub system_uuid: String,
    /// The machine.
    pub instance: InstanceId,
    /// Which machine by that number.
    pub vm_id: String,
    /// What will be restored.
    pub as_found: AsFound,
    /// The namespace of the cleaning pod.
    pub cleaning_namespace: String,
    /// The name of the cleaning pod.
    pub cleaning: String,
}

#[async_trait]
impl Decide for ReadNode {
    const NAME: &'static str = "ReadNode";
    /// Another run may have a node out of service for as long as [`crate::policy::obligations::ABSENCE`], and one before it too.
    const DEADLINE: Duration = Duration::from_hours(3);
    type Output = NodeBefore;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<NodeBefore, StepError> {
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        let names: Names = context.output(ChooseNames::NAME)?;
        let nodes = ports.cluster.nodes().await?;
        let mut claims = Vec::new();
        for node in &nodes {
            if let Some(claim) = Claim::on(node).map_err(|error| StepError::refused("KW0604", error.to_string()))? {
                // By it this store was further than it is: what it owes is not in it any more.
                if let (Some(then), Some(now)) = (claim.written, context.store)
                    && then.forgotten_by(now)
                {
                    let text = format!(
                        "the claim on node {} was written at commit {} of this store, which is at {} now: it went back in \
                         time; `{}` brings that node back",
                        node.name, then.commit, now.commit, claim.restore
                    );
                    return Err(StepError::refused("KW0105", text));
                }
                claims.push((node.name.clone(), claim));
            }
        }
        let changed = |why: &str| {
            let text = format!("node {} {why} since it was chosen: start again", donor.node);
            StepError::gone("KW0603", text)
        };
        let node = nodes.into_iter().find(|node| node.name == donor.node).ok_or_else(|| changed("went"))?;
        if node.uid != donor.node_uid {
            return Err(changed("was made anew"));
        }
        if node.boot_id != donor.boot_id {
            return Err(changed("was rebooted"));
        }
        if node.unschedulable {
            return Err(changed("was cordoned by somebody"));
        }
        if node.annotations.contains_key(CLAIM) {
            return Err(changed("was claimed by another run"));
        }
        if let Some(why) = gives_way(&claims, context.run, context.spec.max_unavailable()) {
            return Err(StepError { class: Class::Busy, code: "KW0605", text: why });
        }
        Ok(NodeBefore {
            as_found: AsFound::of(&node),
            node: node.name,
            node_uid: node.uid,
            boot_id: node.boot_id,
            system_uuid: node.system_uuid,
            instance: donor.instance,
            vm_id: donor.vm_id,
            cleaning_namespace: context.spec.clean_namespace.clone(),
            cleaning: names.cleaning,
        })
    }
}
