//! Clean the copy in a pod that has the disk as a raw block device, and read its report.
//!
//! Effect: volume, claim and pod of one name, and a cleaned disk. A repeat is safe: the names are unique, creating twice is
//! refused by the server, and the cleaner run twice gives the same disk. Undo: delete pod, claim and volume. Never touched:
//! objects by that name that another made; any node.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ChooseNames, Copied, CopyDisk, Names, RankNodes, Ranked, choose_helper::helper, take_away};
use crate::{
    cloud::Accepted,
    cluster::{CleaningSpec, ClusterError, PodPhase},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct CleanCopy;

/// What the cleaner reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaned {
    /// The report as it was written.
    pub report: Value,
    /// The node that the pod ran on.
    pub node: Option<String>,
}

#[async_trait]
impl Effect for CleanCopy {
    const NAME: &'static str = "CleanCopy";
    const DEADLINE: Duration = Duration::from_hours(1);
    type Input = CleaningSpec;
    type Output = Cleaned;

    fn input(&self, context: Context<'_>) -> Result<CleaningSpec, StepError> {
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        let names: Names = context.output(ChooseNames::NAME)?;
        let copy: Copied = context.output(CopyDisk::NAME)?;
        Ok(CleaningSpec {
            name: names.cleaning,
            namespace: context.spec.clean_namespace.clone(),
            run: context.run,
            disk: copy.disk,
            region: donor.location,
            zone: donor.zone,
            size_gib: copy.size_gib,
            image: context.spec.clean_image.clone(),
            at: helper(context)?.map(|helper| helper.at),
            profile: context.spec.profile.clone(),
            nonce: names.nonce,
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &CleaningSpec) -> Result<Seen<Cleaned>, StepError> {
        let view = ports.cluster.cleaning(&want.namespace, &want.name).await?;
        let ours = want.run.short();
        let owners = [
            view.volume.as_ref().map(|volume| ("volume", &volume.run)),
            view.claim.as_ref().map(|claim| ("claim", &claim.run)),
            view.pod.as_ref().map(|pod| ("pod", &pod.owned.run)),
        ];
        for (kind, run) in owners.into_iter().flatten() {
            if run.as_deref() != Some(ours.as_str()) {
                return Ok(Seen::Foreign(format!("{kind} {} exists and is not this run's", want.name)));
            }
        }
        let Some(pod) = view.pod else {
            return Ok(match (view.volume, view.claim) {
                (None, None) => Seen::Absent,
                (None, Some(_)) => Seen::Partly("the claim is there, the volume is not".into()),
                (Some(_), None) => Seen::Partly("the volume is there, the claim is not".into()),
                (Some(_), Some(_)) => Seen::Partly("volume and claim are there, the pod is not".into()),
            });
        };
        if pod.owned.deleting {
            return Ok(Seen::Underway(format!("pod {} is being deleted", want.name)));
        }
        Ok(match pod.phase {
            PodPhase::Pending(why) => Seen::Underway(format!("pod {} is pending: {why}", want.name)),
            PodPhase::Running => Seen::Underway(format!("pod {} is cleaning the copy", want.name)),
            PodPhase::Succeeded => {
                match pod.report.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
                    Some(report) if report["nonce"] == want.nonce.as_str() && report["verdict"] == "clean" => {
                        Seen::Present(Cleaned { report, node: pod.node })
                    }
                    Some(report) => {
                        Seen::Broken(format!("the cleaner's report is not this run's or not good: {report}"))
                    }
                    None => Seen::Broken("the cleaner's report was lost".into()),
                }
            }
            PodPhase::Failed(why) => {
                let report = pod.report.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
                match report {
                    // An unfit moment, or a disk that is no node's: only another snapshot can help.
                    Some(report) if report["verdict"] == "refused" => {
                        let reason = report["reason"].as_str().unwrap_or("no reason given").to_owned();
                        return Err(StepError::refused("KW0240", format!("the cleaner refused the copy: {reason}")));
                    }
                    Some(_) | None => Seen::Broken(format!("the cleaner failed: {why}")),
                }
            }
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &CleaningSpec) -> Result<Accepted, StepError> {
        let view = ports.cluster.cleaning(&want.namespace, &want.name).await?;
        let made = if view.volume.is_none() {
            ports.cluster.create_volume(want).await
        } else if view.claim.is_none() {
            ports.cluster.create_claim(want).await
        } else {
            ports.cluster.create_pod(want).await
        };
        match made {
            // Made by an attempt whose answer was lost; the next look says whose it is.
            Ok(()) | Err(ClusterError::Exists { .. }) => Ok(Accepted::default()),
            Err(error) => Err(error.into()),
        }
    }

    async fn undo(&self, ports: Ports<'_>, want: &CleaningSpec) -> Result<Undone, StepError> {
        take_away::cleaning(ports, &want.namespace, &want.name, &want.run.short()).await
    }
}
