//! What a drain does with each pod of a node: the filters of `kubectl drain`, in its order and with its outcomes, and what we ask
//! beyond them.
//!
//! Where we differ, and why: a pod that terminates already is waited for, whatever filter it would fail, since it goes anyway; a
//! pod whose owner marked it as not to be disturbed is refused, where `kubectl` evicts it; so is one with more than one budget,
//! which `kubectl` finds out only after it has evicted all others.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cluster::{Pod, PodLife};

/// What a run may do to the pods of its donor. Part of the run's stored input: changed settings never change a drain under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainPolicy {
    /// The node is given back when it is not empty after so many seconds.
    #[serde(default = "deadline_seconds")]
    pub deadline_seconds: u64,
    /// Pods with a volume `emptyDir` may go, and its content with them.
    #[serde(default)]
    pub delete_empty_dir: bool,
    /// So many pods are on their way at a time, at most.
    #[serde(default = "max_parallel")]
    pub max_parallel: u32,
    /// Pods that should have been gone for longer than so many seconds are not waited for (a finalizer that nobody serves).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_terminating_after_seconds: Option<u64>,
    /// What a person has decided beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<Force>,
}

/// A person's decision to let pods go that nobody makes again, or that ask to be left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Force {
    /// Who decided it.
    pub by: String,
    /// Why.
    pub why: String,
    /// It holds no longer than this.
    pub until: Timestamp,
}

/// A third of the budget of a node's absence: stopping, the snapshot and starting need the rest.
const fn deadline_seconds() -> u64 {
    15 * 60
}

/// Enough for a node of a hundred pods within the deadline, and few enough for schedulers and registries to follow.
const fn max_parallel() -> u32 {
    5
}

impl Default for DrainPolicy {
    fn default() -> Self {
        Self {
            deadline_seconds: deadline_seconds(),
            delete_empty_dir: false,
            max_parallel: max_parallel(),
            skip_terminating_after_seconds: None,
            force: None,
        }
    }
}

impl DrainPolicy {
    /// For how long a drain may go on.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// The decision that holds now.
    #[must_use]
    pub fn forced(&self, now: Timestamp) -> Option<&Force> {
        self.force.as_ref().filter(|force| now < force.until)
    }
}

/// What is done with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is asked to go, or waited for when it is going already.
    Evict,
    /// It is left where it is, and the node counts as empty with it.
    Leave(String),
    /// It ends by itself soon and is waited for.
    Await(String),
    /// A person has to decide; nothing of this node is evicted before. Says what, and the remedy.
    Refuse(String),
}

/// What is asked about a node's pods.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What the run may do.
    pub policy: &'a DrainPolicy,
    /// When the node was cordoned; none in a plan, when it is not.
    pub cordoned: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
    /// Whether the `DaemonSets` that pods name are there, by namespace and name.
    pub daemon_sets: &'a BTreeMap<(String, String), bool>,
}

/// The owner's words for "leave this pod alone", to the cluster autoscaler and to Karpenter.
const MARKS: [(&str, &str); 2] =
    [("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), ("karpenter.sh/do-not-disrupt", "true")];

/// The label of cleaning pods, ours and those of other runs.
const RUN: &str = "kamino-wf.io/run";

/// A scheduler may bind a pod to a node whose cordon it has not seen yet. Later than this, whoever put it there ignores cordons.
const UNSEEN: Duration = Duration::from_mins(1);

/// The `DaemonSet` that a pod is of, by namespace and name: whether it is there has to be known for a [`Question`].
#[must_use]
pub fn daemon_set(pod: &Pod) -> Option<(String, String)> {
    let owner = pod.controller.as_ref().filter(|owner| owner.kind == "DaemonSet" && owner.group == "apps")?;
    // Any finished pod can go.
    (pod.life != PodLife::Finished).then(|| (pod.id.namespace.clone(), owner.name.clone()))
}

/// What is done with a pod. `kubectl`'s filters come in its order; the first that says no decides.
#[must_use]
pub fn verdict(pod: &Pod, question: &Question<'_>) -> Verdict {
    let Question { policy, cordoned, now, daemon_sets } = *question;
    let forced = policy.forced(now).is_some();
    let past = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();

    // skipDeleted
    if let (Some(seconds), Some(at)) = (policy.skip_terminating_after_seconds, pod.deleting)
        && past(at) > Duration::from_secs(seconds)
    {
        return Verdict::Leave(format!("it should have been gone since {at} and is not waited for any longer"));
    }
    // daemonSet
    if let Some(set) = daemon_set(pod) {
        if daemon_sets.get(&set).copied().unwrap_or_default() {
            return Verdict::Leave(format!("DaemonSet {} would make another at once", set.1));
        }
        if !forced && pod.deleting.is_none() {
            return Verdict::Refuse(format!(
                "its DaemonSet {} does not exist, so nothing makes another: delete the pod, or grant drain.force",
                set.1
            ));
        }
    }
    // mirrorPod
    if pod.mirror {
        return Verdict::Leave("it is a static pod of the node itself".into());
    }
    // Somebody has asked it to go; and what is finished has nothing to lose.
    if pod.deleting.is_some() || pod.life == PodLife::Finished {
        return Verdict::Evict;
    }
    if pod.controller.is_none() && pod.labels.contains_key(RUN) {
        return Verdict::Await("it cleans another run's copy and ends by itself".into());
    }
    if let (Some(cordoned), Some(created)) = (cordoned, pod.created)
        && Duration::try_from(created.duration_since(cordoned)).is_ok_and(|later| later > UNSEEN)
    {
        return Verdict::Leave("it was put here after the cordon by something that does not mind cordons".into());
    }
    // localStorage
    if pod.empty_dir && !policy.delete_empty_dir {
        let remedy = "what is in it would be lost: set drain.deleteEmptyDir, or move the pod yourself";
        return Verdict::Refuse(format!("it has a volume emptyDir, and {remedy}"));
    }
    if forced {
        return Verdict::Evict;
    }
    // unreplicated
    if pod.controller.is_none() {
        let remedy = "delete it yourself, or grant drain.force";
        return Verdict::Refuse(format!("it has no controller, so nothing makes another: {remedy}"));
    }
    let mark = MARKS.iter().find(|(name, value)| pod.annotations.get(*name).is_some_and(|found| found == value));
    if let Some((name, value)) = mark {
        return Verdict::Refuse(format!("its owner says {name}={value}: ask them, or grant drain.force"));
    }
    Verdict::Evict
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
