//! A node that the Python tool (kamino) was killed over: started, and its marks taken off, because a person says that they are its.
//!
//! It annotates first and uncordons first, so a cordon beside its annotation is its own, and one without is somebody else's.

use std::slice;

use super::{RescueError, Way};
use crate::{
    cloud::{Accepted, Powered},
    cluster::Node,
    model::{InstanceId, NodeName, UniformId},
    policy::{
        obligations::{AsFound, DO_NOT_DISRUPT, SCALE_DOWN_DISABLED},
        takeover,
    },
    steps::{release_node, start_vm},
    workflow::{Ports, Seen, StepError},
};

/// A node that carries no claim.
pub(super) async fn look(ports: Ports<'_>, node: &Node, allowed: bool) -> Result<Way, RescueError> {
    let nothing = |why: &str| Ok(Way::Nothing(format!("node {} carries no claim, {why}", node.name)));
    // That tool knows no other scale sets.
    let Ok(uniform) = UniformId::parse(&node.provider_id) else {
        return nothing("and is no instance of a Uniform scale set");
    };
    let instance = InstanceId::Uniform(uniform.clone());
    let Some(machine) = ports.cloud.power(&instance).await.map_err(StepError::from)? else {
        return nothing("and its machine does not exist");
    };
    let powered = Powered { id: instance.clone(), power: machine.state };
    let found = takeover::machines(&uniform.scale_set(), slice::from_ref(node), slice::from_ref(&powered));
    let Some(finding) = found.into_iter().next() else {
        return nothing("and the Python tool (kamino) has left nothing on it");
    };
    if !allowed {
        return Err(RescueError::NobodysSignature { node: node.name.clone(), seen: finding.seen });
    }
    // It would go on with the node under our hands.
    let rivals = ports.cluster.rivals().await.map_err(StepError::from)?;
    if let Some(live) = takeover::refusals(&rivals).first() {
        return Err(StepError::refused("KW0503", live.to_string()).into());
    }
    let held = held(node);
    let mut words = vec![format!("node {} carries no claim: {}", node.name, finding.seen)];
    if powered.power.is_off() {
        words.push(format!("start instance {}", instance.name()));
    }
    words.push("wait until it is really back: Ready, and no sign of its absence left".into());
    match (node.unschedulable, held) {
        (true, true) => words.push("uncordon it".into()),
        (true, false) => words.push("leave it cordoned: the tool never cordons without its annotation".into()),
        (false, _) => {}
    }
    if held {
        words.push(format!("take off annotation {SCALE_DOWN_DISABLED}"));
    }
    let start = start_vm::Input {
        instance,
        vm_id: machine.vm_id,
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        boot_before: None,
    };
    let marks = Marks {
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        as_found: AsFound {
            unschedulable: false,
            scale_down_disabled: None,
            // Not one of its marks.
            do_not_disrupt: node.annotations.get(DO_NOT_DISRUPT).cloned(),
        },
    };
    Ok(Way::Kamino { start: Box::new(start), marks: Box::new(marks), words })
}

/// What is taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    node: NodeName,
    node_uid: String,
    as_found: AsFound,
}

/// Whether the node is back, and free of them. A cordon without the annotation is left.
pub(super) async fn observe(ports: Ports<'_>, want: &Marks) -> Result<Seen<()>, StepError> {
    let Some(node) = still(ports, want).await? else { return Ok(Seen::Present(())) };
    if let Some(why) = release_node::not_back(&node, ports.clock.now()) {
        return Ok(Seen::Underway(format!("node {} is not back: {why}", node.name)));
    }
    Ok(if held(&node) {
        Seen::Partly(format!("node {} is back and still marked", node.name))
    } else {
        Seen::Present(())
    })
}

/// Takes cordon and annotation off, in one write.
pub(super) async fn act(ports: Ports<'_>, want: &Marks) -> Result<Accepted, StepError> {
    if let Some(node) = still(ports, want).await? {
        ports.cluster.change_node(&release_node::restored(&node, &want.as_found)).await?;
    }
    Ok(Accepted::default())
}

/// The node, if it is still the one that was looked at.
async fn still(ports: Ports<'_>, want: &Marks) -> Result<Option<Node>, StepError> {
    Ok(ports.cluster.node(&want.node).await?.filter(|node| node.uid == want.node_uid))
}

fn held(node: &Node) -> bool {
    node.annotations.get(SCALE_DOWN_DISABLED).is_some_and(|value| value == "true")
}
