//! What speaks against any donor, whatever the signal says: what it is, what people say of it, and how it is.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Ignore, Rules, rules::matches};
use crate::cluster::Node;

/// An annotation or label with this name keeps a node from being a donor.
pub const IGNORE: &str = "kamino-wf.io/ignore";
/// AKS' word for a node whose upgrade is paused or has failed; its autoscaler and upgrades leave such a node alone.
pub const AKS_UPGRADE: &str = "kubernetes.azure.com/upgrade-status";
/// Of cloud-provider-azure and AKS, on Spot nodes.
const PRIORITY: &str = "kubernetes.azure.com/scalesetpriority";

/// A kubelet renews its lease every 10 s; four are missed before it counts as silent.
const SILENT: Duration = Duration::from_secs(40);
/// A lease that was renewed later than this in the future: the node's clock is ahead, and all of its times are wrong.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(10);

/// Taints that say that a node is not there, or about to go, by their keys.
const TAINTS: [(&str, &str); 9] = [
    ("node.kubernetes.io/not-ready", "it is not Ready"),
    ("node.kubernetes.io/unreachable", "its kubelet can't be reached"),
    ("node.kubernetes.io/network-unavailable", "its network is not set up"),
    ("node.kubernetes.io/out-of-service", "it is out of service"),
    ("node.cloudprovider.kubernetes.io/shutdown", "its machine is shut down"),
    ("node.cloudprovider.kubernetes.io/uninitialized", "the cloud provider has not set it up"),
    ("ToBeDeletedByClusterAutoscaler", "the cluster autoscaler is removing it"),
    ("karpenter.sh/disrupted", "Karpenter is removing it"),
    ("weave.works/kured-node-reboot", "kured is about to reboot it"),
];

/// Why a node can't be the donor, whoever asks.
pub(super) fn unfit(node: &Node, rules: &Rules, min_ready: Duration, now: Timestamp) -> Option<String> {
    what_it_is(node)
        .or_else(|| ignored(node, &rules.ignore))
        .or_else(|| how_it_is(node, rules, now))
        .or_else(|| too_young(node, min_ready, now))
}

fn what_it_is(node: &Node) -> Option<String> {
    if node.control_plane {
        return Some("it belongs to the control plane".into());
    }
    if !node.linux {
        return Some("it does not run Linux".into());
    }
    if node.labels.get(PRIORITY).is_some_and(|priority| priority.eq_ignore_ascii_case("spot")) {
        return Some("it is a Spot node, which may vanish at any time".into());
    }
    None
}

fn ignored(node: &Node, ignore: &Ignore) -> Option<String> {
    if node.annotations.contains_key(IGNORE) || node.labels.contains_key(IGNORE) {
        return Some(format!("it carries {IGNORE}"));
    }
    if let Some(status) = node.labels.get(AKS_UPGRADE).or_else(|| node.annotations.get(AKS_UPGRADE)) {
        return Some(format!("{AKS_UPGRADE} is {status}"));
    }
    if let Some(pattern) = ignore.names.iter().find(|pattern| matches(pattern, node.name.as_str())) {
        return Some(format!("the settings ignore names like {pattern}"));
    }
    if let Some(label) = ignore.labels.iter().find(|wanted| has(&node.labels, wanted)) {
        return Some(format!("the settings ignore nodes with label {label}"));
    }
    let annotation = ignore.annotations.iter().find(|wanted| has(&node.annotations, wanted))?;
    Some(format!("the settings ignore nodes with annotation {annotation}"))
}

/// `key`, or `key=value`.
fn has(pairs: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => pairs.get(key).is_some_and(|found| found == value),
        None => pairs.contains_key(wanted),
    }
}

fn how_it_is(node: &Node, rules: &Rules, now: Timestamp) -> Option<String> {
    if node.unschedulable {
        return Some("it is cordoned".into());
    }
    if !node.ready {
        return Some("it is not Ready".into());
    }
    let bad = |condition: &&String| rules.bad_conditions.contains(condition);
    if let Some(condition) = node.under_pressure.first().or_else(|| node.conditions.iter().find(bad)) {
        return Some(format!("condition {condition} is true"));
    }
    if let Some((taint, why)) = TAINTS.iter().find(|(taint, _)| node.taints.iter().any(|found| found == taint)) {
        return Some(format!("{why} (taint {taint})"));
    }
    let Some(renewed) = node.lease_renewed else {
        return Some("its kubelet has no lease, so nobody knows whether it is alive".into());
    };
    if age(renewed, now) > SILENT {
        return Some("its kubelet has been silent for more than 40 s".into());
    }
    // Measured by the server's clock only: by ours it might be we who are late.
    let ahead = age(now, renewed);
    (node.seen.is_some() && ahead > CLOCK_AHEAD_MAX).then(|| {
        format!("its clock is {} s ahead of the API server's, so its times can't be compared", ahead.as_secs())
    })
}

/// By `Ready` alone: of a quick reboot nobody knows more than between which two looks it was, and a pool whose nodes are
/// all patched between two runs would never have a donor.
fn too_young(node: &Node, min_ready: Duration, now: Timestamp) -> Option<String> {
    let Some(since) = node.ready_since else { return Some("it does not say since when it is Ready".into()) };
    (age(since, now) < min_ready)
        .then(|| format!("Ready for {} s only, {} s are asked for", age(since, now).as_secs(), min_ready.as_secs()))
}

/// Zero for what is still to come.
pub(super) fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::rank::tests::{node, now},
        *,
    };

    type Change = fn(&mut Node);

    fn why(node: &Node, rules: &Rules) -> Option<String> {
        unfit(node, rules, Duration::from_hours(1), now())
    }

    #[test]
    fn each_reason_against_a_node_is_said() {
        let table: [(&str, Change); 18] = [
            ("it belongs to the control plane", |node| node.control_plane = true),
            ("it does not run Linux", |node| node.linux = false),
            ("it is a Spot node, which may vanish at any time", |node| {
                node.labels.insert(PRIORITY.into(), "spot".into());
            }),
            ("it carries kamino-wf.io/ignore", |node| drop(node.labels.insert(IGNORE.into(), String::new()))),
            ("it carries kamino-wf.io/ignore", |node| drop(node.annotations.insert(IGNORE.into(), String::new()))),
            ("kubernetes.azure.com/upgrade-status is Quarantined", |node| {
                node.labels.insert(AKS_UPGRADE.into(), "Quarantined".into());
            }),
            ("it is cordoned", |node| node.unschedulable = true),
            ("it is not Ready", |node| node.ready = false),
            ("condition MemoryPressure is true", |node| node.under_pressure = vec!["MemoryPressure".into()]),
            ("condition XfsShutdown is true", |node| node.conditions = vec!["XfsShutdown".into()]),
            ("its kubelet can't be reached (taint node.kubernetes.io/unreachable)", |node| {
                node.taints = vec!["node.kubernetes.io/unreachable".into()];
            }),
            ("the cluster autoscaler is removing it (taint ToBeDeletedByClusterAutoscaler)", |node| {
                node.taints = vec!["dedicated".into(), "ToBeDeletedByClusterAutoscaler".into()];
            }),
            ("its kubelet has no lease, so nobody knows whether it is alive", |node| node.lease_renewed = None),
            ("its kubelet has been silent for more than 40 s", |node| {
                node.lease_renewed = Some(now() - Duration::from_secs(41));
            }),
            ("its clock is 11 s ahead of the API server's, so its times can't be compared", |node| {
                node.lease_renewed = Some(now() + Duration::from_secs(11));
            }),
            ("it does not say since when it is Ready", |node| node.ready_since = None),
            ("Ready for 3599 s only, 3600 s are asked for", |node| {
                node.ready_since = Some(now() - Duration::from_secs(3599));
            }),
            // A node's clock that is ahead of the server's.
            ("Ready for 0 s only, 3600 s are asked for", |node| {
                node.ready_since = Some(now() + Duration::from_secs(5));
            }),
        ];
        for (reason, change) in table {
            let mut unfit = node(0, 5);
            change(&mut unfit);
            assert_eq!(why(&unfit, &Rules::default()).as_deref(), Some(reason));
        }
        assert_eq!(why(&node(0, 5), &Rules::default()), None, "the control is fit");
    }

    #[test]
    fn what_the_settings_ignore_is_ignored_and_nothing_else() {
        let mut labelled = node(0, 5);
        labelled.labels.insert("team".into(), "ml".into());
        labelled.annotations.insert("frozen".into(), "yes".into());
        labelled.conditions = vec!["GpuIsSad".into(), "Ready".into()];
        let of = |names: &[&str], labels: &[&str], annotations: &[&str]| Rules {
            ignore: Ignore {
                names: names.iter().map(|it| (*it).to_owned()).collect(),
                labels: labels.iter().map(|it| (*it).to_owned()).collect(),
                annotations: annotations.iter().map(|it| (*it).to_owned()).collect(),
            },
            ..Rules::default()
        };
        let rows = [
            (of(&["*vmss00000?"], &[], &[]), Some("the settings ignore names like *vmss00000?")),
            (of(&["vmss"], &[], &[]), None),
            (of(&[], &["team"], &[]), Some("the settings ignore nodes with label team")),
            (of(&[], &["team=ml"], &[]), Some("the settings ignore nodes with label team=ml")),
            (of(&[], &["team=web", "tea"], &[]), None),
            (of(&[], &[], &["frozen=yes"]), Some("the settings ignore nodes with annotation frozen=yes")),
            (of(&[], &[], &["frozen=no"]), None),
            (Rules { bad_conditions: vec!["GpuIsSad".into()], ..Rules::default() }, Some("condition GpuIsSad is true")),
        ];
        for (rules, expected) in rows {
            assert_eq!(why(&labelled, &rules).as_deref(), expected, "{rules:?}");
        }
    }

    #[test]
    fn without_the_servers_clock_a_node_is_not_blamed_for_ours() {
        let ahead = Node { lease_renewed: Some(now() + Duration::from_mins(5)), seen: None, ..node(0, 5) };
        assert_eq!(why(&ahead, &Rules::default()), None);
    }
}
