//! What `doctor --azure` needs in the resource group of a scale set that is to be thrown away, besides what runs need. In no role:
//! whoever tries it out gives it there, and takes it back.

/// Actions, and what they are for.
pub const FIRST_CONTACT: &[(&str, &str)] = &[
    ("Microsoft.Authorization/permissions/read", "see what may be done there"),
    ("Microsoft.Resources/tags/write", "note on the scale set what is to be put back, and tag a version"),
    ("Microsoft.Compute/galleries/delete", "take the gallery away that it has made"),
    ("Microsoft.Compute/galleries/images/delete", "take the definition away that it has made"),
    (
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/attachDetachDataDisks/action",
        "attach a copy of its disk to an instance, and detach it",
    ),
    ("Microsoft.Compute/virtualMachines/attachDetachDataDisks/action", "the same, where the scale set is Flexible"),
    ("Microsoft.Compute/virtualMachineScaleSets/virtualMachines/powerOff/action", "switch an instance off"),
    ("Microsoft.Compute/virtualMachineScaleSets/virtualMachines/start/action", "switch it on again"),
    ("Microsoft.Compute/virtualMachines/powerOff/action", "the same, where the scale set is Flexible"),
    ("Microsoft.Compute/virtualMachines/start/action", "switch it on again"),
];
