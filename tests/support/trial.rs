//! A scale set that is there to be thrown away: one instance, which is no node, in the world of a pool.

use kamino_wf::{
    cloud::{DiskState, ImageRef, Orchestration},
    doctor::TAG,
    model::{DiskId, InstanceId, NodeName, ScaleSetId},
    sim::World,
};
use serde_json::json;

/// Puts it beside the pool, and says which it is.
pub(crate) fn furnish(world: &mut World, pool: &ScaleSetId, orchestration: Orchestration) -> ScaleSetId {
    let (subscription, group) = (pool.subscription(), pool.resource_group());
    let set = ScaleSetId::new(subscription, group, &["trial"]).expect("an id");
    let disk = DiskId::new(subscription, group, &["trial_0_OsDisk_1"]).expect("an id");
    let instance = InstanceId::parse(&match orchestration {
        Orchestration::Uniform => format!("{set}/virtualMachines/0"),
        Orchestration::Flexible => format!("{}/providers/Microsoft.Compute/virtualMachines/trial_1", set.group()),
    });
    let instance = instance.expect("an id");

    let mut model = world.scale_sets[&pool.key()].clone();
    model.value["id"] = json!(set.as_str());
    model.value["name"] = json!(set.name());
    model.value["tags"] = json!({ "Team": "platform", TAG: "true" });
    model.value["sku"]["capacity"] = json!(1);
    model.value["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] = json!({
        "publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest",
        "exactVersion": "24.04.202609010",
    });
    if orchestration == Orchestration::Flexible {
        model.value["properties"]["orchestrationMode"] = json!("Flexible");
        model.value["properties"].as_object_mut().expect("properties").remove("upgradePolicy");
    }
    world.scale_sets.insert(set.key(), model);

    let donor = InstanceId::parse(&format!("{pool}/virtualMachines/0")).expect("an id").key();
    let mut value = world.instances[&donor].clone();
    let donors_disk = value.os_disk.replace(disk.clone()).expect("a disk");
    value.id = instance.clone();
    value.image = ImageRef::Other("Canonical".into());
    value.member_of = (orchestration == Orchestration::Flexible).then(|| set.clone());
    world.instances.insert(instance.key(), value);
    let mut machine = world.machines[&donor].clone();
    machine.node = NodeName::parse("nobody").expect("a name");
    machine.disk = disk.key();
    world.machines.insert(instance.key(), machine);
    let mut value = world.disks[&donors_disk.key()].clone();
    value.value.id = disk.clone();
    value.value.security_type = Some("TrustedLaunch".into());
    assert!(value.value.zone.is_some() && value.value.state == DiskState::Attached, "{value:?}");
    world.disks.insert(disk.key(), value);
    set
}
