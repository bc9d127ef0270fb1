//! A scale set with Flexible orchestration over the wire: its instances are asked for as the machines that they are.

use kamino_wf::{
    cloud::{Cloud as _, Orchestration, Provisioning},
    model::InstanceId,
    sim::{
        Scene,
        arm::{Effect, Fault, Injection, Logged},
    },
    workflow::{Outcome, RunState},
};
use serde_json::Value;

use super::{
    requests::golden,
    stage::{PACE, Stage, run},
    update::update,
};

fn scene() -> Scene {
    Scene { orchestration: Orchestration::Flexible, adopted: true, scale: PACE, ..Scene::nominal() }
}

#[tokio::test]
async fn what_each_call_to_a_flexible_scale_set_sends() {
    let stage = Stage::on(scene(), |_| {}, |_| {}).await;
    let (azure, set) = (&stage.azure, stage.scale_set());
    let id: InstanceId = stage.named("virtualMachines", "pool1_3f2a0000");
    golden!(stage, "flexible_instance", azure.instance(&id)).expect("the machine");
    golden!(stage, "flexible_instances", azure.instances(&set, Orchestration::Flexible));
    golden!(stage, "flexible_power", azure.power(&id)).expect("the machine");
    golden!(stage, "flexible_powers", azure.powers(&set, Orchestration::Flexible));
    golden!(stage, "flexible_begin_model_change", azure.begin_model_change(&stage.model_change()));
    stage
        .until("the model", async || {
            let set = azure.scale_set(&set).await.expect("a look")?;
            (set.provisioning == Provisioning::Succeeded).then_some(())
        })
        .await;
    golden!(stage, "flexible_begin_scale_out", azure.begin_scale_out(&set, run(), 5));
}

/// As to an instance of a Uniform one, under the path that the machine has. What is not there is refused.
#[tokio::test]
async fn what_a_data_disk_of_its_machine_sends() {
    let stage = Stage::on(scene(), |_| {}, |_| {}).await;
    let id: InstanceId = stage.named("virtualMachines", "pool1_3f2a0000");
    let copy = stage.copy().id;
    let error = stage.azure.begin_attach(&id, &copy, 63).await.expect_err("there is no such disk");
    assert_eq!(error.class(), kamino_wf::model::Class::Gone, "{error}");
    let sent = stage.face.requests().into_iter().rfind(|it| it.method == "POST").expect("it was asked");
    assert!(sent.path.ends_with("/virtualMachines/pool1_3f2a0000/attachDetachDataDisks"), "{}", sent.path);
    assert_eq!(sent.body.expect("a body")["dataDisksToAttach"][0]["lun"], 63);
}

/// Orders go to the machine, never to the scale set, with an orderly end for who is on it.
#[tokio::test]
async fn what_the_power_of_its_machine_sends() {
    let stage = Stage::on(scene(), |_| {}, |_| {}).await;
    let (azure, id) = (&stage.azure, stage.named::<InstanceId>("virtualMachines", "pool1_3f2a0000"));
    let path_part = "/virtualMachines/pool1_3f2a0000/".to_owned();
    let fault = Fault::Answer { status: 202, headers: vec![], body: Value::Null };
    stage.face.plant(Injection { method: "POST", path_part, times: 3, fault });
    golden!(stage, "flexible_begin_power_off", azure.begin_power_off(&id));
    golden!(stage, "flexible_begin_start", azure.begin_start(&id));
    golden!(stage, "flexible_begin_restart", azure.begin_restart(&id));
}

/// Over the wire, with its pages and cases, the same comes out as without it; and nothing where nothing is.
#[tokio::test]
async fn its_machines_are_read_as_the_world_holds_them() {
    let stage = Stage::on(scene(), |_| {}, |_| {}).await;
    let (azure, direct, set) = (&stage.azure, stage.direct(), stage.scale_set());
    let instances = azure.instances(&set, Orchestration::Flexible).await.expect("a look");
    assert_eq!(instances, direct.instances(&set, Orchestration::Flexible).await.expect("a look"));
    assert_eq!(instances.len(), 3, "two pages");
    assert!(instances.iter().all(|instance| instance.scale_set().as_ref() == Some(&set)), "{instances:#?}");
    let powers = azure.powers(&set, Orchestration::Flexible).await.expect("a look");
    assert_eq!(powers, direct.powers(&set, Orchestration::Flexible).await.expect("a look"));
    let id = &instances[0].id;
    assert_eq!(azure.instance(id).await.expect("a look"), direct.instance(id).await.expect("a look"));
    assert_eq!(azure.instances(&set, Orchestration::Uniform).await.expect("a look"), [], "not there");
    let nobody: InstanceId = stage.named("virtualMachines", "nobody");
    assert_eq!(azure.instance(&nobody).await.expect("a look"), None);
}

#[tokio::test]
async fn a_whole_update_of_a_flexible_scale_set_goes_over_the_wire() {
    for adopted in [false, true] {
        let ended = update(Scene { adopted, ..scene() }).await;
        assert_eq!(ended.run.state, RunState::Ended(Outcome::Done), "{}", ended.log.join("\n"));
        assert!(ended.violations.is_empty(), "{:#?}", ended.violations);
        assert!(ended.requests.iter().all(|it| it.effect != Effect::Refused), "{:#?}", ended.requests);
        let own = |it: &&Logged| it.path.contains("/virtualMachines/pool1_3f2a");
        assert!(ended.requests.iter().filter(own).all(|it| it.method == "GET"), "the donor is only read");
        assert!(ended.requests.iter().filter(own).count() > 1, "{:#?}", ended.requests);
    }
}
