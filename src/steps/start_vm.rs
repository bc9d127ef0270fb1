//! Start the donor's machine. Needs no Lease and no API server: a machine that we have stopped is started whatever else is
//! out of reach.
//!
//! Effect: one machine on, in a boot in which nothing of ours has stopped its kubelet. So one that was being cleaned, and is
//! not off, is restarted: nobody else would start its kubelet again. A repeat is safe: a machine that runs is started to no
//! effect, and one that was restarted has its time to come up. Undo: none. Never touched: a
//! machine by the same number that is another one; it was made anew, and nothing is owed to it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{CleanDisk, NodeBefore, ReadNode};
use crate::{
    cloud::{Accepted, Power},
    model::{InstanceId, NodeName},
    policy::obligations::{Claim, Duty},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct StartVm;

/// What the request is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The machine.
    pub instance: InstanceId,
    /// Which machine by that number.
    pub vm_id: String,
    /// The node on it.
    pub node: NodeName,
    /// Its uid.
    pub node_uid: String,
    /// The boot in which its kubelet may have been stopped: it has to be another one.
    pub boot_before: Option<String>,
}

impl Input {
    /// From the claim on a node alone. Nobody knows any more how far the run had come: `cleaned` says that its kubelet may have
    /// been stopped.
    pub(crate) fn of_claim(claim: &Claim, node: &NodeName, cleaned: bool) -> Self {
        Self {
            instance: claim.instance.clone(),
            vm_id: claim.vm_id.clone(),
            node: node.clone(),
            node_uid: claim.node_uid.clone(),
            boot_before: cleaned.then(|| claim.boot_id.clone()),
        }
    }
}

/// The machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Somebody has deleted it meanwhile, most likely an autoscaler: there is nothing to give back.
    pub lost: bool,
}

#[async_trait]
impl Effect for StartVm {
    const NAME: &'static str = "StartVm";
    /// Then a person is asked, and it goes on being tried. A start takes a minute.
    const DEADLINE: Duration = Duration::from_mins(15);
    /// An instance view is a cache of some seconds, and an order of the step that was interrupted may still arrive.
    const SETTLES: Duration = Duration::from_mins(1);
    /// A machine that boots is called running long before its kubelet says so in a new boot: it is not restarted meanwhile.
    const TAKES: Duration = Duration::from_mins(10);
    const PAYS: &'static [Duty] = &[Duty::VmRunning];
    const TELLS: Option<(&'static str, &'static str)> =
        Some(("SwitchedOn", "the machine runs again; its kubelet is waited for"));
    type Input = Input;
    type Output = Started;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let NodeBefore { instance, vm_id, node, node_uid, boot_id, .. } = context.output(ReadNode::NAME)?;
        let boot_before = context.asked.contains(CleanDisk::NAME).then_some(boot_id);
        Ok(Input { instance, vm_id, node, node_uid, boot_before })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Started>, StepError> {
        let power = ports.cloud.power(&want.instance).await?.filter(|power| power.vm_id == want.vm_id);
        let Some(power) = power else { return Ok(Seen::Present(Started { lost: true })) };
        let name = want.instance.name();
        Ok(match (power.state, &want.boot_before) {
            (Power::Running, None) => Seen::Present(Started { lost: false }),
            (Power::Running, Some(before)) => {
                let node = ports.cluster.node(&want.node).await?.filter(|node| node.uid == want.node_uid);
                match node {
                    None => Seen::Present(Started { lost: true }),
                    Some(node) if node.boot_id != *before => Seen::Present(Started { lost: false }),
                    // Booting, or running on without a kubelet.
                    Some(_) => Seen::Absent,
                }
            }
            (Power::Starting, _) => Seen::Underway(format!("instance {name} is starting")),
            // An order to stop that is under way would overtake ours.
            (Power::Stopping | Power::Deallocating, _) => Seen::Underway(format!("instance {name} is stopping")),
            (Power::Stopped | Power::Deallocated | Power::Other(_), _) => {
                Seen::Partly(format!("instance {name} is off"))
            }
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let power = ports.cloud.power(&want.instance).await?;
        if want.boot_before.is_some() && power.is_some_and(|power| power.state == Power::Running) {
            return Ok(ports.cloud.begin_restart(&want.instance).await?);
        }
        Ok(ports.cloud.begin_start(&want.instance).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
