//! The odd worlds of a version whose first node is watched, a row each.

use super::{
    Start::{Broken, Foreign},
    made,
    rows::{Row, later},
    stranger,
};
use crate::{
    cloud::{ImageRef, Instance, Provisioning},
    policy::{
        canary::{Canary, Limits},
        provenance::{QUARANTINED, tag},
    },
    sim::{Newcomer, Scene, World, spec},
};

pub(super) fn tried() -> Scene {
    Scene { canary: Canary::FirstNode(Limits::default()), ..later() }
}

fn makes(world: &mut World, makes: Newcomer) {
    world.nursery.as_mut().expect("nodes are made here").makes = makes;
}

/// The first instance of the version.
fn newborn<'a>(world: &'a mut World, known: &super::Known) -> &'a mut Instance {
    let image = ImageRef::Version(known.names().version);
    world.instances.values_mut().find(|instance| instance.image == image).expect("it was made")
}

pub(super) const CANARY_ROWS: &[Row] = &[
    Row {
        step: "AwaitNode",
        start: Foreign,
        scene: tried,
        at: Some("PatchModel"),
        // Nothing grows, and all that there is was made from something else.
        change: |world, _| {
            let id = spec(&tried()).scale_set;
            let model = &mut world.scale_sets.get_mut(&id.key()).expect("the scale set").value;
            model["tags"]["cluster-autoscaler-enabled"] = "true".into();
        },
        end: "done",
        says: &["KW0303", "KW0261", "not tried by any node"],
        left: |world, known| !world.versions[&known.names().version.key()].value.excluded_from_latest,
    },
    Row {
        step: "AwaitNode",
        start: Broken,
        scene: tried,
        at: Some("ScaleOut"),
        // A machine that Azure calls failed may well become a node.
        change: |world, known| newborn(world, known).provisioning = Provisioning::Failed,
        end: "done",
        says: &[],
        left: |world, known| !world.versions[&known.names().version.key()].value.excluded_from_latest,
    },
    Row {
        step: "CanaryNode",
        start: Foreign,
        scene: tried,
        at: Some("AwaitNode"),
        change: |world, known| newborn(world, known).vm_id = "another by that number".into(),
        end: "needs-person",
        says: &["KW0260", "taken away, or made anew"],
        left: |world, known| world.versions[&known.names().version.key()].value.excluded_from_latest,
    },
    Row {
        step: "CanaryNode",
        start: Broken,
        scene: tried,
        at: Some("ScaleOut"),
        change: |world, known| {
            makes(world, Newcomer::NeverJoins);
            newborn(world, known).provisioning = Provisioning::Failed;
        },
        end: "needs-person",
        says: &["KW0260", "no Node with its providerID", "Azure calls its instance Failed"],
        left: |world, known| world.versions[&known.names().version.key()].value.excluded_from_latest,
    },
    Row {
        step: "WithdrawVersion",
        start: Foreign,
        scene: tried,
        at: Some("ScaleOut"),
        change: |world, known| {
            makes(world, Newcomer::NeverReady);
            made(world, known).run = Some(stranger());
        },
        end: "parked",
        says: &["KW0004", "is not this run's any more"],
        left: |world, known| !world.versions[&known.names().version.key()].value.excluded_from_latest,
    },
    Row {
        step: "WithdrawVersion",
        start: Broken,
        scene: tried,
        at: Some("ScaleOut"),
        change: |world, known| {
            makes(world, Newcomer::NeverReady);
            made(world, known).provisioning = Provisioning::Failed;
        },
        end: "needs-person",
        says: &["KW0260", "is withdrawn"],
        left: |world, known| tag(&world.versions[&known.names().version.key()].value, QUARANTINED).is_some(),
    },
];
