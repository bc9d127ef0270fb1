//! Which node becomes the donor: the most recently rebooted one that is healthy. Every node gets a verdict with a reason.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::Node,
    model::{DonorChoice, InstanceId, NodeName, ScaleSetId},
};

/// An annotation or label with this name keeps a node from being a donor.
pub const IGNORE: &str = "kamino-wf.io/ignore";
/// A kubelet renews its lease every 10 s; four are missed before it counts as silent.
const SILENT: Duration = Duration::from_secs(40);

/// What was decided about a node, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The node.
    pub node: NodeName,
    /// It could be the donor.
    pub fit: bool,
    /// In one line.
    pub reason: String,
}

/// The order of the candidates, best first, and a verdict on every node that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// Fit nodes with their instances, best first.
    pub candidates: Vec<(Node, InstanceId)>,
    /// One a node, best first, then by name.
    pub verdicts: Vec<Verdict>,
}

/// Ranks the nodes of a scale set at `now`.
#[must_use]
pub fn rank(
    nodes: Vec<Node>,
    scale_set: &ScaleSetId,
    choice: &DonorChoice,
    min_ready: Duration,
    now: Timestamp,
) -> Ranking {
    let mut fit = Vec::new();
    let mut verdicts = Vec::new();
    for node in nodes {
        let Ok(instance) = InstanceId::parse(&node.provider_id) else { continue };
        if instance.scale_set() != *scale_set {
            continue;
        }
        match unfit(&node, choice, min_ready, now) {
            Some(reason) => verdicts.push(Verdict { node: node.name.clone(), fit: false, reason }),
            None => fit.push((node, instance)),
        }
    }
    // A shorter time since Ready means a more recent reboot, hence more recent patches; the name breaks ties.
    fit.sort_by(|(a, _), (b, _)| b.ready_since.cmp(&a.ready_since).then_with(|| a.name.cmp(&b.name)));
    verdicts.sort_by(|a, b| a.node.cmp(&b.node));
    let mut all: Vec<Verdict> = fit
        .iter()
        .enumerate()
        .map(|(place, (node, _))| Verdict {
            node: node.name.clone(),
            fit: true,
            reason: format!(
                "place {}: ready since {}, kernel {}",
                place + 1,
                node.ready_since.map_or_else(String::new, |at| at.to_string()),
                node.kernel
            ),
        })
        .collect();
    all.append(&mut verdicts);
    Ranking { candidates: fit, verdicts: all }
}

/// Why a node can't be the donor.
fn unfit(node: &Node, choice: &DonorChoice, min_ready: Duration, now: Timestamp) -> Option<String> {
    let age = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
    if let DonorChoice::Node(wanted) = choice
        && *wanted != node.name
    {
        return Some(format!("not the node that was asked for ({wanted})"));
    }
    if node.control_plane {
        return Some("it belongs to the control plane".into());
    }
    if !node.linux {
        return Some("it does not run Linux".into());
    }
    if node.annotations.contains_key(IGNORE) || node.labels.contains_key(IGNORE) {
        return Some(format!("it carries {IGNORE}"));
    }
    if node.unschedulable {
        return Some("it is cordoned".into());
    }
    if !node.ready {
        return Some("it is not Ready".into());
    }
    if let Some(condition) = node.under_pressure.first() {
        return Some(format!("condition {condition} is true"));
    }
    if node.lease_renewed.is_some_and(|at| age(at) > SILENT) {
        return Some("its kubelet has been silent for more than 40 s".into());
    }
    match node.ready_since {
        None => Some("it does not say since when it is Ready".into()),
        Some(since) if age(since) < min_ready => {
            Some(format!("Ready for {} s only, {} s are asked for", age(since).as_secs(), min_ready.as_secs()))
        }
        Some(_) => None,
    }
}
