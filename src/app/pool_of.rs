//! The pool that a node belongs to, for a person who names a node alone.

use anyhow::Result;

use super::{NoSuchNode, Reach, bad_node};
use crate::{
    cloud::Cloud,
    cluster::{Cluster as _, kubernetes::KubernetesCluster},
    config::{Config, Pool},
    model::{InstanceId, MachineId, NodeName, ScaleSetId},
};

pub(super) async fn pool_of<'a>(config: &'a Config, cluster: &KubernetesCluster, node: &NodeName) -> Result<&'a Pool> {
    let found = cluster.node(node).await?.ok_or_else(|| NoSuchNode(node.clone()))?;
    let instance = InstanceId::parse(&found.provider_id)
        .map_err(|error| bad_node(node, format!("it is no instance of a scale set ({error})")))?;
    let set = match instance {
        InstanceId::Uniform(id) => id.scale_set(),
        InstanceId::Flexible(id) => scale_set_of(&Reach::azure(config)?.cloud, node, id).await?,
    };
    let pool = config.pools.iter().find(|pool| pool.scale_set == set);
    pool.ok_or_else(|| {
        let remedy =
            format!("node {node} belongs to scale set {set}, and no pool in the settings has it; add one under pools");
        bad_node(node, remedy).into()
    })
}

/// Whose a machine of its own is, only Azure knows.
async fn scale_set_of(cloud: &dyn Cloud, node: &NodeName, machine: MachineId) -> Result<ScaleSetId> {
    let name = machine.name().to_owned();
    let found = cloud.instance(&InstanceId::Flexible(machine)).await?;
    let found = found.ok_or_else(|| bad_node(node, format!("its machine {name} does not exist")))?;
    Ok(found.scale_set().ok_or_else(|| bad_node(node, format!("its machine {name} belongs to no scale set")))?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cloud::{Limiter, Orchestration},
        sim::{Scene, Shared, SimCloud, spec},
    };

    #[test]
    fn a_machine_is_its_scale_sets_or_the_node_is_refused_by_name() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime can be built").block_on(async {
            let scene = Scene { orchestration: Orchestration::Flexible, ..Scene::nominal() };
            let shared = Shared::new(scene.world());
            let cloud = SimCloud::new(Arc::clone(&shared), Arc::new(Limiter::default()));
            let (node, provider_id) = {
                let world = shared.world();
                (world.nodes[0].name.clone(), world.nodes[0].provider_id.clone())
            };
            let machine = MachineId::parse(&provider_id).expect("a machine");
            let asked = async || scale_set_of(&cloud, &node, machine.clone()).await;
            assert_eq!(asked().await.expect("its scale set"), spec(&scene).scale_set);
            for (words, left) in [("belongs to no scale set", true), ("does not exist", false)] {
                {
                    let mut world = shared.world();
                    world.instances.get_mut(&machine.key()).expect("the machine").member_of = None;
                    if !left {
                        world.instances.remove(&machine.key());
                    }
                }
                let error = asked().await.expect_err(words).to_string();
                assert!(error.contains(words) && error.contains(node.as_str()), "{error}");
            }
        });
    }
}
