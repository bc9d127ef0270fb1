//! Clean the donor's own disk in a pod on the donor, and read the proof that it has left.
//!
//! Effect: a disk without secrets and tenants' data, a guard on it, and a kubelet and a runtime that are down. A repeat is
//! safe: the cleaner run twice gives the same disk, and a pod whose arguments name another boot or another machine does
//! nothing. Undo: delete the pod and the proof; what is cleaned stays cleaned, and the donor keeps its identity. With `credential:
//! rebootstrap` the Secret that its next credential hangs on is made first, and `ReleaseNode` deletes it, whatever happens. Never
//! touched: what makes the donor this node. The pod's own end says nothing: its kubelet is down by then. Only the proof counts.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ChooseNames, Names, NodeBefore, ReadNode, take_away};
use crate::{
    cloud::Accepted,
    cluster::{ClusterError, DonorCleaning, PodPhase},
    model::Credential,
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct CleanDisk;

/// The proof, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proved {
    /// Boot id, machine's id, hash of the manifest, report.
    pub proof: Value,
}

#[async_trait]
impl Effect for CleanDisk {
    const NAME: &'static str = "CleanDisk";
    /// Pulling the image takes a minute, cleaning seconds to minutes.
    const DEADLINE: Duration = Duration::from_mins(15);
    const TELLS: Option<(&'static str, &'static str)> = Some((
        "DiskCleaned",
        "kubelet and containers are stopped and the disk is cleaned; the machine has to boot to be a node again",
    ));
    type Input = DonorCleaning;
    type Output = Proved;

    fn input(&self, context: Context<'_>) -> Result<DonorCleaning, StepError> {
        let names: Names = context.output(ChooseNames::NAME)?;
        let before: NodeBefore = context.output(ReadNode::NAME)?;
        Ok(DonorCleaning {
            name: before.cleaning,
            namespace: before.cleaning_namespace,
            run: context.run,
            node: before.node,
            node_uid: before.node_uid,
            boot_id: before.boot_id,
            product_uuid: before.system_uuid,
            image: context.spec.clean_image.clone(),
            profile: context.spec.profile.clone(),
            credential: context.spec.credential,
            nonce: names.nonce,
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &DonorCleaning) -> Result<Seen<Proved>, StepError> {
        let node = ports.cluster.node(&want.node).await?.filter(|node| node.uid == want.node_uid);
        let Some(node) = node else {
            return Err(StepError::gone("KW0603", format!("node {} went while its disk was cleaned", want.node)));
        };
        // A reboot brings the donor back by itself, and its disk is dirty again.
        if node.boot_id != want.boot_id {
            let text = format!("node {} was rebooted while its disk was cleaned", want.node);
            return Err(StepError::gone("KW0606", text));
        }
        if let Some(text) = ports.cluster.proof(&want.namespace, want.run).await? {
            let proof: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            if let Some(why) = foreign(&proof, want) {
                return Ok(Seen::Foreign(format!("the proof of node {} is not of this cleaning: {why}", want.node)));
            }
            if proof["verdict"] == "clean" {
                return Ok(Seen::Present(Proved { proof }));
            }
            // Its kubelet is down: no pod can try again there before the machine has been restarted.
            let reason = proof["reason"].as_str().unwrap_or("no reason given");
            let text = format!("the disk of node {} was not cleaned: {reason}", want.node);
            return Err(StepError::refused("KW0612", text));
        }
        let view = ports.cluster.cleaning(&want.namespace, &want.name).await?;
        let Some(pod) = view.pod else {
            let anchored = renews(want) && ports.cluster.has_anchor(&want.anchor()).await?;
            let half = || Seen::Partly(format!("secret {} is there, and no pod yet", want.name));
            return Ok(if anchored { half() } else { Seen::Absent });
        };
        if pod.owned.run.as_deref() != Some(want.run.short().as_str()) {
            return Ok(Seen::Foreign(format!("pod {} exists and is not this run's", want.name)));
        }
        if pod.owned.deleting {
            return Ok(Seen::Underway(format!("pod {} is being deleted", want.name)));
        }
        Ok(match pod.phase {
            PodPhase::Pending(why) => Seen::Underway(format!("pod {} is pending: {why}", want.name)),
            PodPhase::Running => Seen::Underway(format!("pod {} is cleaning node {}", want.name, want.node)),
            // It refuses before it touches anything, and then its report arrives as any other.
            PodPhase::Succeeded => Seen::Broken("the cleaner ended and left no proof".into()),
            PodPhase::Failed(why) => {
                let report = pod.report.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
                match report {
                    Some(report) if report["verdict"] == "refused" => {
                        let reason = report["reason"].as_str().unwrap_or("no reason given");
                        return Err(StepError::refused("KW0240", format!("the cleaner refused the disk: {reason}")));
                    }
                    Some(_) | None => Seen::Broken(format!("the cleaner failed: {why}")),
                }
            }
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &DonorCleaning) -> Result<Accepted, StepError> {
        // One at a time: whoever dies after each request would never come to the second.
        let made = if renews(want) && !ports.cluster.has_anchor(&want.anchor()).await? {
            ports.cluster.create_anchor(&want.anchor()).await
        } else {
            ports.cluster.create_donor_pod(want).await
        };
        match made {
            // Made by an attempt whose answer was lost; the next look says whose it is.
            Ok(()) | Err(ClusterError::Exists { .. }) => Ok(Accepted::default()),
            Err(error) => Err(error.into()),
        }
    }

    async fn undo(&self, ports: Ports<'_>, want: &DonorCleaning) -> Result<Undone, StepError> {
        match take_away::cleaning(ports, &want.namespace, &want.name, &want.run.short()).await? {
            Undone::Gone => take_away::proof(ports, &want.namespace, want.run).await,
            going @ Undone::Going(_) => Ok(going),
        }
    }
}

fn renews(want: &DonorCleaning) -> bool {
    want.credential == Credential::Rebootstrap
}

/// Why a proof is not one of this cleaning.
fn foreign(proof: &Value, want: &DonorCleaning) -> Option<String> {
    let expected = [
        ("nonce", want.nonce.as_str()),
        ("bootId", want.boot_id.as_str()),
        ("productUuid", want.product_uuid.as_str()),
        ("profile", want.profile.name()),
    ];
    let wrong = expected
        .iter()
        .find(|(field, value)| !proof[*field].as_str().is_some_and(|found| found.eq_ignore_ascii_case(value)))?;
    Some(format!("its {} is {}, expected {:?}", wrong.0, proof[wrong.0], wrong.1))
}
