//! Give the donor's node back: wait until it is really back, take the cleaning pod away, and restore cordon and hold as
//! they were found, together with the claim, in one PATCH.
//!
//! Effect: one node in service, and a token that is dead, where it has come back with a new credential: not before, as a donor
//! without it never comes back. A repeat is safe: without our claim there is nothing to restore. Undo: none. Never touched: a
//! node that was made anew, and what others have set since.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{HoldNode, NodeBefore, ReadNode, take_away};
use crate::{
    cloud::Accepted,
    cluster::{Anchor, Node, NodeChange},
    model::{Class, Credential, NodeName, RunId},
    policy::obligations::{AsFound, CLAIM, Claim, DO_NOT_DISRUPT, Duty, SCALE_DOWN_DISABLED},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct ReleaseNode;

/// What the requests are built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeName,
    /// Its uid.
    pub node_uid: String,
    /// It was seen to be held by this run, so a claim that is not there any more was taken off by somebody.
    pub held: bool,
    /// What is restored.
    pub as_found: AsFound,
    /// The namespace of the cleaning pod.
    pub cleaning_namespace: String,
    /// The name of the cleaning pod.
    pub cleaning: String,
    /// What became of the kubelet's credential.
    #[serde(default, skip_serializing_if = "Credential::is_keep")]
    pub credential: Credential,
}

impl Input {
    /// From the claim on a node alone.
    pub(crate) fn of_claim(claim: &Claim, node: &NodeName) -> Self {
        let (namespace, name) = claim.cleaning.split_once('/').unwrap_or(("", &claim.cleaning));
        Self {
            run: claim.run,
            node: node.clone(),
            node_uid: claim.node_uid.clone(),
            held: true,
            as_found: claim.as_found.clone(),
            cleaning_namespace: namespace.to_owned(),
            cleaning: name.to_owned(),
            credential: claim.credential,
        }
    }

    /// Whether the token by which the donor asked for its new credential lives.
    pub(crate) async fn token_lives(&self, ports: Ports<'_>) -> Result<bool, StepError> {
        match self.credential {
            Credential::Keep => Ok(false),
            Credential::Rebootstrap => Ok(ports.cluster.has_anchor(&self.anchor()).await?),
        }
    }

    fn anchor(&self) -> Anchor {
        Anchor {
            name: self.cleaning.clone(),
            namespace: self.cleaning_namespace.clone(),
            run: self.run,
            node: self.node.clone(),
            node_uid: self.node_uid.clone(),
        }
    }
}

/// How the node came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Somebody has deleted it meanwhile: there was nothing to give back.
    pub lost: bool,
}

/// A kubelet that has renewed its lease within this is alive; it does so each 10 s.
const SILENT: Duration = Duration::from_secs(40);
/// What says that a node is away, or was a moment ago.
const AWAY: [&str; 4] = [
    "node.cloudprovider.kubernetes.io/shutdown",
    "node.kubernetes.io/out-of-service",
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

#[async_trait]
impl Effect for ReleaseNode {
    const NAME: &'static str = "ReleaseNode";
    /// Then a person is asked, and it goes on being tried. The cloud provider takes its shutdown taint away within 10 minutes.
    const DEADLINE: Duration = Duration::from_mins(20);
    /// A request of the step that was interrupted may still arrive for so long.
    const SETTLES: Duration = Duration::from_mins(1);
    const PAYS: &'static [Duty] = &[Duty::NodeReady, Duty::CordonAsFound, Duty::HoldAsFound, Duty::CleanPodGone];
    const TELLS: Option<(&'static str, &'static str)> =
        Some(("BackInService", "the node is back; cordon and annotations are as they were found"));
    type Input = Input;
    type Output = Released;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let before: NodeBefore = context.output(ReadNode::NAME)?;
        Ok(Input {
            run: context.run,
            node: before.node,
            node_uid: before.node_uid,
            held: context.outputs.contains_key(HoldNode::NAME),
            as_found: before.as_found,
            cleaning_namespace: before.cleaning_namespace,
            cleaning: before.cleaning,
            credential: context.spec.credential,
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Released>, StepError> {
        let view = ports.cluster.cleaning(&want.cleaning_namespace, &want.cleaning).await?;
        if let Some(pod) = view.pod.filter(|pod| pod.owned.run.as_deref() == Some(want.run.short().as_str())) {
            let text = format!("pod {} is still there", want.cleaning);
            return Ok(if pod.owned.deleting { Seen::Underway(text) } else { Seen::Partly(text) });
        }
        let node = ports.cluster.node(&want.node).await?.filter(|node| node.uid == want.node_uid);
        let away = node.as_ref().and_then(|node| not_back(node, ports.clock.now()));
        let away = away.map(|why| Seen::Underway(format!("node {} is not back: {why}", want.node)));
        if want.token_lives(ports).await? {
            return Ok(away.unwrap_or_else(|| Seen::Partly(format!("the token of node {} still lives", want.node))));
        }
        let Some(node) = node else { return Ok(Seen::Present(Released { lost: true })) };
        if !ours(&node, want)? {
            return Ok(Seen::Present(Released { lost: false }));
        }
        Ok(away.unwrap_or_else(|| Seen::Partly(format!("node {} is back and still cordoned", node.name))))
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let (namespace, name) = (&want.cleaning_namespace, &want.cleaning);
        if take_away::cleaning(ports, namespace, name, &want.run.short()).await? != Undone::Gone {
            return Ok(Accepted::default());
        }
        let node = ports.cluster.node(&want.node).await?.filter(|node| node.uid == want.node_uid);
        if node.as_ref().is_some_and(|node| not_back(node, ports.clock.now()).is_some()) {
            return Ok(Accepted::default());
        }
        if want.token_lives(ports).await? {
            ports.cluster.delete_anchor(&want.anchor()).await?;
            return Ok(Accepted::default());
        }
        if let Some(node) = node
            && ours(&node, want)?
        {
            ports.cluster.change_node(&restored(&node, &want.as_found)).await?;
        }
        Ok(Accepted::default())
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

/// Whether it is this run's to give back. By its claim; where somebody has taken that off a node that was held, by what we have
/// set and they have left. A claim that can't be read is nobody's word that nothing is owed: a person is asked.
fn ours(node: &Node, want: &Input) -> Result<bool, StepError> {
    match Claim::on(node) {
        Ok(Some(claim)) => Ok(claim.run == want.run),
        Ok(None) => {
            let ours = |now: Option<&str>, before: Option<&str>| now == Some("true") && before != Some("true");
            let mark = node.annotations.get(SCALE_DOWN_DISABLED).map(String::as_str);
            Ok(want.held && ours(mark, want.as_found.scale_down_disabled.as_deref()))
        }
        Err(error) => Err(StepError { class: Class::Denied, code: "KW0604", text: error.to_string() }),
    }
}

/// Why a node is not really back, if it is not.
pub(crate) fn not_back(node: &Node, now: Timestamp) -> Option<String> {
    let past =
        |since: Timestamp, span: Duration| Duration::try_from(now.duration_since(since)).is_ok_and(|it| it > span);
    if !node.ready {
        return Some("it is not Ready".into());
    }
    if node.lease_renewed.is_none_or(|renewed| past(renewed, SILENT)) {
        return Some(format!("its kubelet has been silent for more than {} s", SILENT.as_secs()));
    }
    let taint = node.taints.iter().find(|taint| AWAY.contains(&taint.as_str()))?;
    Some(format!("taint {taint} is still on it"))
}

/// What we set becomes what it was; what somebody else has set since stays.
pub(crate) fn restored(node: &Node, as_found: &AsFound) -> NodeChange {
    let mut annotations = BTreeMap::from([(CLAIM.to_owned(), None)]);
    let held = [(SCALE_DOWN_DISABLED, &as_found.scale_down_disabled), (DO_NOT_DISRUPT, &as_found.do_not_disrupt)];
    for (name, before) in held {
        if node.annotations.get(name).map(String::as_str) == Some("true") {
            annotations.insert(name.to_owned(), before.clone());
        }
    }
    NodeChange {
        name: node.name.clone(),
        version: node.version.clone(),
        unschedulable: as_found.unschedulable,
        annotations,
    }
}
