//! Judge the first node that was made from the version: it is Ready in time and stays so, it is nobody else, and it is as its
//! donor is.
//!
//! Effect: none of ours; the node comes up by itself. A repeat is safe: nothing is asked for. Undo: none. Never touched: the node,
//! good or bad; a bad one is left for a person to look at. An instance that goes before its verdict counts as bad: autoscalers
//! take those away that do not join.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AwaitNode, ChooseNames, Names, RankNodes, Ranked, await_node::Born, servers_time};
use crate::{
    cloud::{Accepted, ImageRef, Provisioning},
    model::{InstanceId, NodeName, VersionId},
    policy::canary::{Judged, Limits, Original, judge},
    workflow::{Context, Decide as _, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct CanaryNode;

/// Which instance, and what it is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The version.
    pub version: VersionId,
    /// Its first instance; none where nobody made one.
    pub born: Option<Born>,
    /// The donor.
    pub original: Original,
    /// How long is waited.
    pub limits: Limits,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No node was made from it.
    Untried,
    /// It is good.
    Passed {
        /// Its node.
        node: NodeName,
        /// What was looked at, each with what was found.
        checks: Vec<String>,
        /// How long after its machine was made it was Ready.
        ready_after_seconds: u64,
    },
    /// It is not.
    Failed {
        /// Its instance.
        instance: InstanceId,
        /// Its node, if there was one.
        node: Option<NodeName>,
        /// Each thing that is wrong.
        reasons: Vec<String>,
    },
}

impl Verdict {
    /// In a line, for people.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Untried => "not tried by any node".into(),
            Self::Passed { node, ready_after_seconds, .. } => {
                format!("node {node} is good, and was Ready {ready_after_seconds} s after its machine was made")
            }
            Self::Failed { instance, node, reasons } => {
                let whose = node.as_ref().map_or_else(
                    || format!("instance {}", instance.names().join("/")),
                    |node| format!("node {node}, instance {}", instance.names().join("/")),
                );
                format!("{whose} is not good: {}", reasons.join("; "))
            }
        }
    }
}

#[async_trait]
impl Effect for CanaryNode {
    const NAME: &'static str = "CanaryNode";
    /// More than the two longest times that settings allow, one after the other.
    const DEADLINE: Duration = Duration::from_hours(4);
    type Input = Input;
    type Output = Verdict;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Names { version, .. } = context.output(ChooseNames::NAME)?;
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        // The wait may have ended without one.
        let born =
            context.outputs.contains_key(AwaitNode::NAME).then(|| context.output(AwaitNode::NAME)).transpose()?;
        Ok(Input {
            version,
            born,
            original: Original {
                node: donor.node,
                boot_id: donor.boot_id,
                kubelet: donor.kubelet,
                identity: donor.identity,
            },
            limits: context.spec.canary.limits().unwrap_or_default(),
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Verdict>, StepError> {
        let Some(born) = &want.born else { return Ok(Seen::Present(Verdict::Untried)) };
        let failed = |node, reasons| Verdict::Failed { instance: born.instance.clone(), node, reasons };
        let instance = ports.cloud.instance(&born.instance).await?;
        let made_from_it = ImageRef::Version(want.version.clone());
        let Some(instance) = instance.filter(|it| it.vm_id == born.vm_id && it.image == made_from_it) else {
            let why = "it was taken away, or made anew, before it had shown itself to be good".into();
            return Ok(Seen::Present(failed(None, vec![why])));
        };
        let all = ports.cluster.nodes().await?;
        let is_it = |provider_id: &str| InstanceId::parse(provider_id).is_ok_and(|id| id == born.instance);
        let name = all.iter().find(|node| is_it(&node.provider_id)).map(|node| node.name.clone());
        // A fresh look at the one that counts: the list of a large cluster is some time old.
        let node = match &name {
            Some(name) => ports.cluster.node(name).await?.filter(|node| is_it(&node.provider_id)),
            None => None,
        };
        let now = node.as_ref().and_then(|node| node.seen).unwrap_or_else(|| servers_time(&all, ports.clock.now()));
        Ok(match judge(node.as_ref(), &all, &want.original, born.since, want.limits, now) {
            Judged::Waits(why) => Seen::Underway(why),
            Judged::Passes { checks, ready_after } => match name {
                Some(node) => {
                    Seen::Present(Verdict::Passed { node, checks, ready_after_seconds: ready_after.as_secs() })
                }
                None => Seen::Underway("its Node went while it was looked at".into()),
            },
            Judged::Fails { mut reasons } => {
                if instance.provisioning == Provisioning::Failed {
                    reasons.push("Azure calls its instance Failed".into());
                }
                Seen::Present(failed(name, reasons))
            }
        })
    }

    async fn act(&self, _ports: Ports<'_>, _want: &Input) -> Result<Accepted, StepError> {
        Ok(Accepted::default())
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
