//! Instances: children of a Uniform scale set, or the machines of a Flexible one, each under the path that it has.

use azure_mgmt_compute::package_2024_07_01::{Client, models};
use futures_util::{FutureExt as _, TryFutureExt as _};
use serde_json::Value;

use super::{
    arm::Generated,
    client::{AzureCloud, Call},
    machines, project,
    requests::{SCALE_SETS_API, parents, plain},
};
use crate::{
    cloud::{Accepted, CallKind, CloudError, Instance, MachinePower, Orchestration, Powered},
    model::{InstanceId, ScaleSetId},
};

/// The list of a scale set's instances. Of a Flexible one it is that of its resource group, where all its machines are, for as
/// much as the filter lets through.
fn listed(id: &ScaleSetId, orchestration: Orchestration) -> String {
    match orchestration {
        Orchestration::Uniform => format!("{id}/virtualMachines?api-version={SCALE_SETS_API}"),
        Orchestration::Flexible => format!(
            "{}/providers/Microsoft.Compute/virtualMachines?api-version={SCALE_SETS_API}\
             &$filter='virtualMachineScaleSet/id'%20eq%20'{id}'",
            id.group()
        ),
    }
}

/// Whether one of that list is an instance of the scale set, whatever the filter has let through.
fn belongs(member_of: Option<&ScaleSetId>, id: &ScaleSetId, orchestration: Orchestration) -> bool {
    match orchestration {
        Orchestration::Uniform => true,
        Orchestration::Flexible => member_of == Some(id),
    }
}

impl AzureCloud {
    pub(super) async fn read_instance(&self, id: &InstanceId) -> Result<Option<Instance>, CloudError> {
        let (subscription, group, name) = plain(id);
        let [set, _] = parents(id);
        let call = Call::new("GET", "instance", id, CallKind::InstanceRead);
        let send: Generated<'_> = match id {
            InstanceId::Uniform(_) => {
                sent!(|it| it.virtual_machine_scale_set_v_ms_client().get(&group, &set, &name, &subscription))
            }
            InstanceId::Flexible(_) => sent!(|it| it.virtual_machines_client().get(&group, &name, &subscription)),
        };
        self.read_as(call, send, project::instance).await
    }

    pub(super) async fn read_power(&self, id: &InstanceId) -> Result<Option<MachinePower>, CloudError> {
        let (subscription, group, name) = plain(id);
        let [set, _] = parents(id);
        let call = Call::new("GET", "power of instance", id, CallKind::InstanceRead);
        let send: Generated<'_> = match id {
            InstanceId::Uniform(_) => sent!(|it| it
                .virtual_machine_scale_set_v_ms_client()
                .get(&group, &set, &name, &subscription)
                .expand("instanceView")),
            InstanceId::Flexible(_) => {
                sent!(|it| it.virtual_machines_client().get(&group, &name, &subscription).expand("instanceView"))
            }
        };
        self.read_as(call, send, machines::machine_power).await
    }

    pub(super) async fn list_instances(
        &self,
        id: &ScaleSetId,
        orchestration: Orchestration,
    ) -> Result<Vec<Instance>, CloudError> {
        let call = Call::new("GET", "instances of scale set", id, CallKind::InstanceRead);
        let mut all = self.list(call, &listed(id, orchestration), project::instance).await?;
        all.retain(|instance| belongs(instance.member_of.as_ref(), id, orchestration));
        Ok(all)
    }

    /// One list with the instances' views: a view each would cost a request each.
    pub(super) async fn list_powers(
        &self,
        id: &ScaleSetId,
        orchestration: Orchestration,
    ) -> Result<Vec<Powered>, CloudError> {
        let call = Call::new("GET", "power of instances of scale set", id, CallKind::InstanceRead);
        let path = format!("{}&$expand=instanceView", listed(id, orchestration));
        let all = self.list(call, &path, |json| Ok((project::member_of(json)?, machines::powered(json)?))).await?;
        let ours = all.into_iter().filter(|(member_of, _)| belongs(member_of.as_ref(), id, orchestration));
        Ok(ours.map(|(_, powered)| powered).collect())
    }

    /// Data disks come and go while the machine runs, and nothing else of it changes.
    pub(super) async fn send_disks(
        &self,
        id: &InstanceId,
        noun: &'static str,
        body: &Value,
    ) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let [set, _] = parents(id);
        let call = Call::new("POST", noun, id, CallKind::InstanceWrite);
        let none = models::AttachDetachDataDisksRequest::new;
        let send: Generated<'_> = match id {
            InstanceId::Uniform(_) => sent!(|it| it.virtual_machine_scale_set_v_ms_client().attach_detach_data_disks(
                &group,
                &set,
                &name,
                none(),
                &subscription
            )),
            InstanceId::Flexible(_) => {
                sent!(|it| it.virtual_machines_client().attach_detach_data_disks(&group, &name, none(), &subscription))
            }
        };
        self.begin(call.with(body), send).await
    }

    /// The machine is asked to end in an orderly way.
    pub(super) async fn send_power_off(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let [set, _] = parents(id);
        let call = Call::new("POST", "power off of instance", id, CallKind::InstanceWrite);
        let send: Generated<'_> = match id {
            InstanceId::Uniform(_) => sent!(|it| it
                .virtual_machine_scale_set_v_ms_client()
                .power_off(&group, &set, &name, &subscription)
                .skip_shutdown(false)),
            InstanceId::Flexible(_) => {
                sent!(|it| it.virtual_machines_client().power_off(&group, &name, &subscription).skip_shutdown(false))
            }
        };
        self.begin(call, send).await
    }

    pub(super) async fn send_start(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let [set, _] = parents(id);
        let call = Call::new("POST", "start of instance", id, CallKind::InstanceWrite);
        let send: Generated<'_> = match id {
            InstanceId::Uniform(_) => {
                sent!(|it| it.virtual_machine_scale_set_v_ms_client().start(&group, &set, &name, &subscription))
            }
            InstanceId::Flexible(_) => sent!(|it| it.virtual_machines_client().start(&group, &name, &subscription)),
        };
        self.begin(call, send).await
    }

    pub(super) async fn send_restart(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let [set, _] = parents(id);
        let call = Call::new("POST", "restart of instance", id, CallKind::InstanceWrite);
        let send: Generated<'_> = match id {
            InstanceId::Uniform(_) => {
                sent!(|it| it.virtual_machine_scale_set_v_ms_client().restart(&group, &set, &name, &subscription))
            }
            InstanceId::Flexible(_) => sent!(|it| it.virtual_machines_client().restart(&group, &name, &subscription)),
        };
        self.begin(call, send).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_the_filter_lets_through_by_mistake_is_no_instance() {
        let set = |name: &str| {
            let group = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers";
            ScaleSetId::parse(&format!("{group}/Microsoft.Compute/virtualMachineScaleSets/{name}")).expect("an id")
        };
        let ours = |of: Option<ScaleSetId>| belongs(of.as_ref(), &set("pool1"), Orchestration::Flexible);
        assert!(ours(Some(set("POOL1"))));
        assert!(!ours(Some(set("xpool1"))) && !ours(None));
        assert!(belongs(None, &set("pool1"), Orchestration::Uniform), "its place in the path says it");
    }
}
