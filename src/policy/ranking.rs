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

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE_SET: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/G/providers/\
                             Microsoft.Compute/virtualMachineScaleSets/pool1";

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().expect("a time")
    }

    /// A healthy node that has been Ready for some hours.
    fn node(number: u32, hours: u64) -> Node {
        Node {
            name: NodeName::parse(&format!("pool1-vmss{number:06}")).expect("a name"),
            uid: String::new(),
            version: String::new(),
            taints: vec![],
            // cloud-provider-azure lower-cases the resource group.
            provider_id: format!("{}/virtualMachines/{number}", SCALE_SET.replace("/G/", "/g/")),
            boot_id: String::new(),
            system_uuid: String::new(),
            kernel: "6.8".into(),
            kubelet: "v1.33.4".into(),
            ready: true,
            ready_since: Some(now() - Duration::from_hours(hours)),
            lease_renewed: Some(now() - Duration::from_secs(9)),
            unschedulable: false,
            control_plane: false,
            linux: true,
            under_pressure: vec![],
            zone: None,
            created: None,
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    fn ranked(nodes: Vec<Node>, choice: &DonorChoice) -> Ranking {
        let scale_set = ScaleSetId::parse(SCALE_SET).expect("an id");
        rank(nodes, &scale_set, choice, Duration::from_hours(1), now())
    }

    #[test]
    fn each_reason_against_a_node_is_said() {
        type Change = fn(&mut Node);
        let mark = || std::collections::BTreeMap::from([(IGNORE.to_owned(), String::new())]);
        let marked = [Node { labels: mark(), ..node(0, 5) }, Node { annotations: mark(), ..node(0, 5) }];
        for node in marked {
            let ranking = ranked(vec![node], &DonorChoice::Pool);
            assert_eq!(ranking.verdicts[0].reason, "it carries kamino-wf.io/ignore");
        }
        let table: [(&str, Change); 9] = [
            ("it belongs to the control plane", |node| node.control_plane = true),
            ("it does not run Linux", |node| node.linux = false),
            ("it is cordoned", |node| node.unschedulable = true),
            ("it is not Ready", |node| node.ready = false),
            ("condition MemoryPressure is true", |node| node.under_pressure = vec!["MemoryPressure".into()]),
            ("its kubelet has been silent for more than 40 s", |node| {
                node.lease_renewed = Some(now() - Duration::from_secs(41));
            }),
            ("it does not say since when it is Ready", |node| node.ready_since = None),
            ("Ready for 3599 s only, 3600 s are asked for", |node| {
                node.ready_since = Some(now() - Duration::from_secs(3599));
            }),
            // A clock that is behind the cluster's.
            ("Ready for 0 s only, 3600 s are asked for", |node| {
                node.ready_since = Some(now() + Duration::from_secs(5));
            }),
        ];
        for (reason, change) in table {
            let mut unfit = node(0, 5);
            change(&mut unfit);
            let ranking = ranked(vec![unfit, node(1, 50)], &DonorChoice::Pool);
            assert_eq!(ranking.candidates.len(), 1, "{reason}");
            let verdict = ranking.verdicts.iter().find(|verdict| !verdict.fit).expect("a verdict");
            assert_eq!((verdict.node.as_str(), verdict.reason.as_str()), ("pool1-vmss000000", reason));
        }
    }

    #[test]
    fn the_most_recently_rebooted_is_first_and_the_name_breaks_ties() {
        let ranking = ranked(vec![node(3, 9), node(2, 2), node(1, 9), node(0, 100)], &DonorChoice::Pool);
        let order: Vec<&str> = ranking.verdicts.iter().map(|verdict| verdict.node.as_str()).collect();
        assert_eq!(order, ["pool1-vmss000002", "pool1-vmss000001", "pool1-vmss000003", "pool1-vmss000000"]);
        assert_eq!(ranking.verdicts[0].reason, "place 1: ready since 2026-11-24T10:00:00Z, kernel 6.8");
    }

    #[test]
    fn nodes_of_other_pools_get_no_verdict_and_a_choice_leaves_one() {
        let mut other = node(7, 2);
        other.provider_id = other.provider_id.replace("/pool1/", "/xpool1/");
        let mut bare = node(8, 2);
        bare.provider_id.clear();
        let choice = DonorChoice::Node(NodeName::parse("pool1-vmss000001").expect("a name"));
        let ranking = ranked(vec![other, bare, node(0, 2), node(1, 9)], &choice);
        assert_eq!(ranking.verdicts.len(), 2);
        assert_eq!(ranking.candidates[0].0.name.as_str(), "pool1-vmss000001");
        assert_eq!(ranking.verdicts[1].reason, "not the node that was asked for (pool1-vmss000001)");
    }
}
