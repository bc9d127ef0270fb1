//! Switch the donor's machine off, by the platform, and see that nothing of ours is left on it.
//!
//! Effect: one machine off that stays allocated, so that its host is kept for it. A repeat is safe: a machine that is off is
//! switched off to no effect. Undo: none of its own; `StartVm` pays. Never touched: a machine by the same number that is
//! another one, one that was rebooted since the proof, and the scale set as a whole: the call goes to the instance.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{NodeBefore, ReadNode, take_away};
use crate::{
    cloud::{Accepted, Power},
    model::RunId,
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct StopVm;

/// What the request is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run.
    pub run: RunId,
    /// The node and its machine.
    pub before: NodeBefore,
}

#[async_trait]
impl Effect for StopVm {
    const NAME: &'static str = "StopVm";
    const DEADLINE: Duration = Duration::from_mins(20);
    /// An instance view is a cache of some seconds.
    const SETTLES: Duration = Duration::from_secs(30);
    const TELLS: Option<(&'static str, &'static str)> =
        Some(("SwitchedOff", "the machine is off while a snapshot of its disk is taken"));
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        Ok(Input { run: context.run, before: context.output(ReadNode::NAME)? })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let before = &want.before;
        let power = ports.cloud.power(&before.instance).await?.filter(|power| power.vm_id == before.vm_id);
        let Some(power) = power else {
            let text = format!("instance {} is not the machine that was chosen any more", before.instance);
            return Err(StepError::gone("KW0233", text));
        };
        Ok(match power.state {
            Power::Stopped | Power::Deallocated => {
                let view = ports.cluster.cleaning(&before.cleaning_namespace, &before.cleaning).await?;
                match view.pod {
                    // A kubelet that comes up finds no pod of ours to run again.
                    Some(pod) if pod.owned.run.as_deref() == Some(want.run.short().as_str()) => {
                        Seen::Partly(format!("pod {} is still there", before.cleaning))
                    }
                    Some(_) | None => Seen::Present(()),
                }
            }
            Power::Stopping | Power::Deallocating => {
                Seen::Underway(format!("instance {} is stopping", before.instance.name()))
            }
            Power::Starting => Seen::Underway(format!("instance {} is starting", before.instance.name())),
            Power::Running | Power::Other(_) => Seen::Absent,
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let before = &want.before;
        let power = ports.cloud.power(&before.instance).await?;
        if power.is_some_and(|power| matches!(power.state, Power::Stopped | Power::Deallocated)) {
            let (namespace, name) = (&before.cleaning_namespace, &before.cleaning);
            take_away::cleaning(ports, namespace, name, &want.run.short()).await?;
            return Ok(Accepted::default());
        }
        // The proof is of this boot. A reboot since then has made the disk dirty again, and brought the donor back.
        let node = ports.cluster.node(&before.node).await?.filter(|node| node.uid == before.node_uid);
        if node.is_none_or(|node| node.boot_id != before.boot_id) {
            let text = format!("node {} was rebooted, or made anew, after its disk was cleaned", before.node);
            return Err(StepError::gone("KW0606", text));
        }
        Ok(ports.cloud.begin_power_off(&before.instance).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
