//! What `capture: stop` needs besides emptying a node: to write on it, to clean its disk from inside, to stop and to start its
//! machine.
//!
//! A write to a Node can't be narrowed by a role to the few fields that are ours, nor a pod to the one that cleans a donor: the
//! chart's admission policies do that, where the server has them.

use super::{AzureRight, AzureScope, ClusterRight, ClusterScope, Part};

/// The `ConfigMap` in the cleaning namespace that takes proofs, a key a run. The chart makes it, with a Role that names it.
pub const PROOFS: &str = "kamino-wf-proofs";
/// The `ServiceAccount` of cleaning pods on donors: may patch that `ConfigMap`, ask for tokens of [`super::BOOTSTRAP`] where the chart
/// gives it that, and nothing else.
pub const CLEANER: &str = "kamino-wf-cleaner";

/// The namespace that takes events of nodes.
pub const EVENTS: &str = "default";

const fn stop(
    (resource, verb): (&'static str, &'static str),
    scope: ClusterScope,
    steps: &'static [&'static str],
    why: &'static str,
) -> ClusterRight {
    ClusterRight { group: "", resource, names: &[], verb, scope, part: Part::Stop, steps, why }
}

/// The rights in the cluster; those of a drain are [`super::DRAIN`].
pub const STOP: &[ClusterRight] = &[
    stop(
        ("nodes", "patch"),
        ClusterScope::Cluster,
        &["HoldNode", "ReleaseNode", "rescue"],
        "cordon the donor, keep autoscalers off it and leave the claim, in one write; and put it all back, in another",
    ),
    ClusterRight {
        names: &[PROOFS],
        ..stop(
            ("configmaps", "get"),
            ClusterScope::Cleaning,
            &["CleanDisk", "DeleteTemporaries", "the janitor"],
            "read the proof that a donor's cleaner has left when its kubelet was down",
        )
    },
    ClusterRight {
        names: &[PROOFS],
        ..stop(
            ("configmaps", "patch"),
            ClusterScope::Cleaning,
            &["CleanDisk", "DeleteTemporaries", "the janitor"],
            "take the proof away when it has been read, or the run went back; and those that no run takes away",
        )
    },
    stop(
        ("events", "create"),
        ClusterScope::Default,
        &["the engine", "rescue"],
        "say on the donor's node what happens to it, for whoever asks `kubectl describe node`; without it all goes on, untold",
    ),
];

const fn power(action: &'static str, steps: &'static [&'static str], why: &'static str) -> AzureRight {
    AzureRight { action, scope: AzureScope::ScaleSets, part: Part::Stop, steps, why }
}

/// The actions in Azure, each on one instance: none on a whole scale set.
pub const STOP_AZURE: &[AzureRight] = &[
    power(
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/powerOff/action",
        &["StopVm"],
        "switch the donor off while its disk is snapshotted; it stays allocated",
    ),
    power(
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/start/action",
        &["StartVm", "rescue"],
        "switch it on again, whatever has happened",
    ),
    power(
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/restart/action",
        &["StartVm", "rescue"],
        "boot a donor anew whose kubelet was stopped by a cleaning that went no further",
    ),
    power(
        "Microsoft.Compute/virtualMachines/powerOff/action",
        &["StopVm"],
        "the same for a donor of a Flexible scale set, which is a machine of its own",
    ),
    power("Microsoft.Compute/virtualMachines/start/action", &["StartVm", "rescue"], "the same"),
    power("Microsoft.Compute/virtualMachines/restart/action", &["StartVm", "rescue"], "the same"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_one_config_map_and_single_instances_are_written_to() {
        for right in STOP {
            assert_eq!(right.part, Part::Stop, "{right:?}");
            let node = (right.resource, right.verb) == ("nodes", "patch");
            let event = (right.resource, right.verb) == ("events", "create");
            let proof = (right.resource, right.names) == ("configmaps", [PROOFS].as_slice());
            assert!(node || event || proof, "{right:?}");
        }
        for right in STOP_AZURE {
            let verbs = ["powerOff", "start", "restart"];
            let on_one = |verb: &&str| {
                ["virtualMachineScaleSets/virtualMachines", "virtualMachines"]
                    .iter()
                    .any(|kind| right.action == format!("Microsoft.Compute/{kind}/{verb}/action"))
            };
            assert!(verbs.iter().any(on_one) && right.part == Part::Stop, "{right:?}");
        }
    }
}
