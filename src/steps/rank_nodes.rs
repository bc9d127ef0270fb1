//! Choose the donor: the most recently rebooted healthy node, with everything that says which machine it is (I5).

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    cloud::{Architecture, Plan},
    model::{DiskId, InstanceId, NodeName, Region},
    policy::ranking::{Verdict, rank},
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct RankNodes;

/// The donor, and which machine and disk it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Donor {
    /// Its name.
    pub node: NodeName,
    /// Its Node object's uid.
    pub node_uid: String,
    /// Its boot id.
    pub boot_id: String,
    /// Its kernel.
    pub kernel: String,
    /// Its kubelet.
    pub kubelet: String,
    /// Its instance.
    pub instance: InstanceId,
    /// Its instance's `vmId`.
    pub vm_id: String,
    /// Its OS disk.
    pub disk: DiskId,
    /// That disk's `uniqueId`.
    pub disk_unique_id: String,
    /// Where that disk is.
    pub location: Region,
    /// Its zone.
    pub zone: Option<String>,
    /// Its size.
    pub size_gib: u32,
    /// Its kind, as in `Premium_LRS`.
    pub sku: String,
    /// `V1` or `V2`.
    pub generation: String,
    /// Its instruction set.
    pub architecture: Architecture,
    /// As the disk says.
    pub security_type: Option<String>,
    /// As the disk says.
    #[serde(default)]
    pub controllers: Option<String>,
    /// As the disk says.
    #[serde(default)]
    pub plan: Option<Plan>,
}

/// The choice and its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranked {
    /// The donor.
    pub donor: Donor,
    /// One a node of the pool.
    pub verdicts: Vec<Verdict>,
}

/// How many verdicts are stored: a record stays small in a pool of a thousand nodes.
const VERDICTS_MAX: usize = 100;

#[async_trait]
impl Decide for RankNodes {
    const NAME: &'static str = "RankNodes";
    type Output = Ranked;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Ranked, StepError> {
        let spec = context.spec;
        let nodes = ports.cluster.nodes().await?;
        let min_ready = Duration::from_secs(spec.min_ready_seconds);
        let mut ranking = rank(nodes, &spec.scale_set, &spec.donor, min_ready, ports.clock.now());
        let Some((node, instance)) = ranking.candidates.first() else {
            let reasons: Vec<String> = ranking
                .verdicts
                .iter()
                .take(10)
                .map(|verdict| format!("{}: {}", verdict.node, verdict.reason))
                .collect();
            let text = if reasons.is_empty() {
                format!("no node of the cluster belongs to scale set {}", spec.scale_set)
            } else {
                format!("no node of scale set {} can be the donor ({})", spec.scale_set.name(), reasons.join("; "))
            };
            return Err(StepError::refused("KW0230", text));
        };
        let machine = ports.cloud.instance(instance).await?.ok_or_else(|| {
            StepError::gone("KW0231", format!("node {} says that it is {instance}, which does not exist", node.name))
        })?;
        let disk_id = machine.os_disk.ok_or_else(|| {
            StepError::refused("KW0205", format!("instance {} has no managed OS disk to snapshot", machine.id))
        })?;
        let disk = ports.cloud.disk(&disk_id).await?.ok_or_else(|| {
            StepError::gone("KW0232", format!("OS disk {disk_id} of node {} does not exist", node.name))
        })?;
        let donor = Donor {
            node: node.name.clone(),
            node_uid: node.uid.clone(),
            boot_id: node.boot_id.clone(),
            kernel: node.kernel.clone(),
            kubelet: node.kubelet.clone(),
            instance: machine.id,
            vm_id: machine.vm_id,
            disk: disk.id,
            disk_unique_id: disk.unique_id,
            location: disk.location,
            zone: disk.zone,
            size_gib: disk.size_gib,
            sku: disk.sku,
            generation: disk.generation,
            architecture: disk.architecture,
            security_type: disk.security_type,
            controllers: disk.controllers,
            plan: disk.plan,
        };
        ranking.verdicts.truncate(VERDICTS_MAX);
        Ok(Ranked { donor, verdicts: ranking.verdicts })
    }
}
