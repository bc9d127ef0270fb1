//! What emptying a node needs beyond the rest, and only where `capture: stop` is used.
//!
//! Evictions ask each budget; only a deletion does not, and that right is needed only where a person has granted `drain.force`.

use super::{ClusterRight, ClusterScope, Part};

const DRAIN_STEP: &[&str] = &["DrainNode"];

const fn drain((group, resource, verb): (&'static str, &'static str, &'static str), why: &'static str) -> ClusterRight {
    let (scope, part) = (ClusterScope::Cluster, Part::Stop);
    ClusterRight { group, resource, names: &[], verb, scope, part, steps: DRAIN_STEP, why }
}

/// The rights of a drain that honours every budget.
pub const DRAIN: &[ClusterRight] = &[
    drain(("", "pods", "list"), "see which pods a node has, in every namespace"),
    drain(("", "pods", "get"), "read a pod once more right before it is asked to go"),
    drain(("", "pods/eviction", "create"), "ask a pod to go, unless a budget says no"),
    drain(("apps", "daemonsets", "get"), "see that a pod's DaemonSet is there: it would make another at once"),
    drain(
        ("policy", "poddisruptionbudgets", "list"),
        "say which budget has no room and since when, and ask when it has",
    ),
];

/// What a drain needs besides where `drain.force` is granted.
pub const FORCED_DRAIN: &[ClusterRight] = &[ClusterRight {
    part: Part::ForcedDrain,
    ..drain(("", "pods", "delete"), "remove a pod that no eviction can, as it is under more than one budget")
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_deletes_nothing_unless_it_is_forced() {
        for right in DRAIN {
            let asks = right.resource == "pods/eviction" && right.verb == "create";
            assert!(asks || ["get", "list"].contains(&right.verb), "{right:?}");
        }
        assert_eq!(FORCED_DRAIN.len(), 1);
        for (part, rights) in [(Part::Stop, DRAIN), (Part::ForcedDrain, FORCED_DRAIN)] {
            assert!(rights.iter().all(|it| (it.part, it.steps) == (part, ["DrainNode"].as_slice())), "{rights:?}");
        }
    }
}
