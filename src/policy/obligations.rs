//! What a run owes the node that it has taken out of service, and the claim that says so on the node itself.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    cluster::Node,
    model::{Credential, InstanceId, NodeName, RunId},
};

/// The annotation that says whose a node is, and what puts it right.
pub const CLAIM: &str = "kamino-wf.io/claim";
/// What the cluster autoscaler obeys; only the value `true` counts.
pub const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
/// What Karpenter obeys.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";

/// The whole absence of a node, from the cordon on: draining, cleaning, off, snapshot. Throttled time counts: the node's
/// tenants do not care why it is away. kamino's own takes 20 to 30 minutes.
pub const ABSENCE: Duration = Duration::from_mins(45);

/// One thing that is owed until it is seen to be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// The machine runs.
    VmRunning,
    /// Its node is Ready, and the marks of its having been off are gone.
    NodeReady,
    /// It is schedulable, unless it was found otherwise.
    CordonAsFound,
    /// What keeps autoscalers away is as it was found.
    HoldAsFound,
    /// The cleaning pod is gone, and the token for a new credential with it.
    CleanPodGone,
}

impl Duty {
    /// All of them, in the order in which they are paid.
    pub const ALL: [Self; 5] =
        [Self::VmRunning, Self::NodeReady, Self::CordonAsFound, Self::HoldAsFound, Self::CleanPodGone];

    /// The word in records, claims and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VmRunning => "vm-running",
            Self::NodeReady => "node-ready",
            Self::CordonAsFound => "cordon-as-found",
            Self::HoldAsFound => "hold-as-found",
            Self::CleanPodGone => "clean-pod-gone",
        }
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is owed, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debt {
    /// When the node was asked to leave service.
    pub since: Timestamp,
    /// What is not paid yet.
    pub duties: Vec<Duty>,
}

impl Debt {
    /// What is left when these are paid; `None` for nothing.
    #[must_use]
    pub fn without(mut self, paid: &[Duty]) -> Option<Self> {
        self.duties.retain(|duty| !paid.contains(duty));
        (!self.duties.is_empty()).then_some(self)
    }

    /// The node has been away for as long as it may.
    #[must_use]
    pub fn overdue(&self, now: Timestamp) -> bool {
        Duration::try_from(now.duration_since(self.since)).is_ok_and(|away| away > ABSENCE)
    }
}

/// What a run changes on a node, as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsFound {
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// The cluster autoscaler's annotation.
    pub scale_down_disabled: Option<String>,
    /// Karpenter's annotation.
    pub do_not_disrupt: Option<String>,
}

impl AsFound {
    /// A node as it is.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let value = |name: &str| node.annotations.get(name).cloned();
        Self {
            unschedulable: node.unschedulable,
            scale_down_disabled: value(SCALE_DOWN_DISABLED),
            do_not_disrupt: value(DO_NOT_DISRUPT),
        }
    }
}

/// The claim on a node: enough to put it right without any store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The form of this text.
    pub version: u32,
    /// The cluster, so that a claim in a restored backup of another one is recognised.
    pub cluster: String,
    /// The run.
    pub run: RunId,
    /// The Lease's epoch when it was made, 0 without one.
    pub epoch: u64,
    /// When the node was claimed.
    pub since: Timestamp,
    /// When it should be back.
    pub deadline: Timestamp,
    /// The node's uid: a node that was made anew owes nothing.
    pub node_uid: String,
    /// The machine.
    pub instance: InstanceId,
    /// Which machine by that number.
    pub vm_id: String,
    /// The boot in which it was claimed.
    pub boot_id: String,
    /// How the node was.
    pub as_found: AsFound,
    /// Namespace and name of the cleaning pod.
    pub cleaning: String,
    /// What becomes of the kubelet's credential: where it is a new one, the Secret by the pod's name keeps its token alive.
    #[serde(default, skip_serializing_if = "Credential::is_keep")]
    pub credential: Credential,
    /// The command that puts it all right.
    pub restore: String,
    /// The store that wrote it, and how far that had come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

/// A store at one moment: one that has come less far later went back in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its own id.
    pub store: Uuid,
    /// How many commits it had seen.
    pub commit: u64,
}

impl Written {
    /// Whether a store that is here now was there already, and has forgotten it.
    #[must_use]
    pub fn forgotten_by(self, now: Self) -> bool {
        self.store == now.store && self.commit > now.commit
    }
}

/// The form of claims that this release writes.
pub const CLAIM_VERSION: u32 = 1;

impl Claim {
    /// What a person types to get a node back.
    #[must_use]
    pub fn restore_command(node: &NodeName) -> String {
        format!("kamino-wf rescue --node {node}")
    }

    /// The claim on a node, if it has one that can be read.
    pub fn on(node: &Node) -> Result<Option<Self>, UnreadableClaim> {
        let Some(text) = node.annotations.get(CLAIM) else { return Ok(None) };
        let unreadable = |detail: String| UnreadableClaim { node: node.name.clone(), detail };
        let claim: Self = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if claim.version > CLAIM_VERSION {
            return Err(unreadable(format!("it has version {}, this release reads {CLAIM_VERSION}", claim.version)));
        }
        Ok(Some(claim))
    }
}

/// A claim that this release can't read. Never taken for no claim: somebody owes that node something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {CLAIM} of node {node} can't be read: {detail}")]
pub struct UnreadableClaim {
    /// The node.
    pub node: NodeName,
    /// What is wrong with it.
    pub detail: String,
}

/// Whether one more node may be taken out of service: claims of others than `run`, among all nodes.
///
/// Two who look at the same moment both claim, and look again: then the older claim stays, by time and run, and the other
/// gives way. So the limit holds between two stores that know nothing of each other.
#[must_use]
pub fn gives_way(claims: &[(NodeName, Claim)], run: RunId, max_unavailable: usize) -> Option<String> {
    let ours = claims.iter().find(|(_, claim)| claim.run == run).map(|(_, claim)| (claim.since, claim.run));
    let mut before: Vec<&NodeName> = claims
        .iter()
        .filter(|(_, claim)| claim.run != run && ours.is_none_or(|ours| (claim.since, claim.run) < ours))
        .map(|(node, _)| node)
        .collect();
    if before.len() < max_unavailable {
        return None;
    }
    before.sort();
    let names: Vec<&str> = before.iter().map(|node| node.as_str()).collect();
    Some(format!("{} out of service already, at most {max_unavailable} at a time may be", names.join(", ")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_795_500_000 + 60 * minute).expect("a time")
    }

    pub(in super::super) fn claim(node: &str, run: u128, minute: i64) -> (NodeName, Claim) {
        let name = NodeName::parse(node).expect("a name");
        let claim = Claim {
            version: CLAIM_VERSION,
            cluster: "c".into(),
            run: RunId(uuid::Uuid::from_u128(run)),
            epoch: 3,
            since: at(minute),
            deadline: at(minute + 45),
            node_uid: "u".into(),
            instance: InstanceId::parse(
                "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute/\
                 virtualMachineScaleSets/pool1/virtualMachines/0",
            )
            .expect("an id"),
            vm_id: "v".into(),
            boot_id: "b".into(),
            as_found: AsFound { unschedulable: false, scale_down_disabled: None, do_not_disrupt: Some("false".into()) },
            cleaning: "kamino-wf-clean/kwf-pool1-1".into(),
            credential: Credential::Keep,
            restore: Claim::restore_command(&name),
            written: None,
        };
        (name, claim)
    }

    pub(in super::super) fn bare(name: &NodeName) -> Node {
        Node {
            name: name.clone(),
            uid: "u".into(),
            version: "1".into(),
            provider_id: String::new(),
            boot_id: String::new(),
            machine_id: String::new(),
            system_uuid: String::new(),
            kernel: String::new(),
            kubelet: String::new(),
            ready: true,
            ready_since: None,
            lease_renewed: None,
            unschedulable: false,
            control_plane: false,
            linux: true,
            under_pressure: vec![],
            conditions: vec![],
            taints: vec![],
            seen: None,
            zone: None,
            created: None,
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn of_two_who_claim_at_once_the_older_stays() {
        let run = |id| RunId(uuid::Uuid::from_u128(id));
        let both = [claim("a", 1, 0), claim("b", 2, 0)];
        assert_eq!(gives_way(&both, run(1), 1), None);
        assert_eq!(
            gives_way(&both, run(2), 1).as_deref(),
            Some("a out of service already, at most 1 at a time may be")
        );
        // Before one's own claim, every other counts.
        assert!(gives_way(&both, run(3), 2).is_some());
        assert_eq!(gives_way(&both, run(3), 3), None);
        assert_eq!(gives_way(&[], run(3), 1), None);
    }

    #[test]
    fn the_budget_of_absence_runs_from_the_cordon() {
        let debt = Debt { since: at(0), duties: Duty::ALL.to_vec() };
        assert!(!debt.overdue(at(45)) && debt.overdue(at(46)));
        // A clock that went back is no reason to hurry.
        assert!(!debt.overdue(at(-10)));
    }

    #[test]
    fn a_claim_reads_as_it_was_written_and_one_of_a_later_release_is_not_taken_for_none() {
        let (name, mut claim) = claim("a", 1, 0);
        let node = |text: String| Node {
            annotations: std::collections::BTreeMap::from([(CLAIM.to_owned(), text)]),
            ..bare(&name)
        };
        let text = serde_json::to_string(&claim).expect("text");
        assert_eq!(Claim::on(&node(text)).expect("readable"), Some(claim.clone()));
        claim.version = 2;
        let text = serde_json::to_string(&claim).expect("text");
        assert!(Claim::on(&node(text)).is_err() && Claim::on(&node("{}".into())).is_err());
        assert_eq!(Claim::on(&bare(&name)).expect("no claim"), None);
    }
}
