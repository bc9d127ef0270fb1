//! What `cleaning.attach: instance` needs: to attach a disk to one machine, and to detach it.

use super::{AzureRight, AzureScope, Part};

const fn attach(action: &'static str, why: &'static str) -> AzureRight {
    let steps = &["AttachCopy", "FreeCopy"];
    AzureRight { action, scope: AzureScope::ScaleSets, part: Part::Attach, steps, why }
}

/// The actions in Azure, each on one instance; the cluster asks for nothing more.
pub const ATTACH_AZURE: &[AzureRight] = &[
    attach(
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/attachDetachDataDisks/action",
        "attach the copy to another node of the pool for as long as it is cleaned, and detach it",
    ),
    attach(
        "Microsoft.Compute/virtualMachines/attachDetachDataDisks/action",
        "the same for a Flexible scale set, whose instances are machines of their own",
    ),
];
