//! Taking away what a run made: look whose it is, then ask for the next thing to go.
//!
//! Used by undo, by `DeleteTemporaries` and by the janitor, which so asks for nothing that undo would not. A repeat is safe: what is gone stays gone, and another's is left alone.

use crate::{
    cloud::{Accepted, Provisioning},
    model::{Class, DiskId, InstanceId, RunId, SnapshotId},
    workflow::{Ports, StepError, Undone},
};

/// The snapshot of a run.
pub(crate) async fn snapshot(ports: Ports<'_>, id: &SnapshotId, run: RunId) -> Result<Undone, StepError> {
    let Some(found) = ports.cloud.snapshot(id).await? else { return Ok(Undone::Gone) };
    if found.run != Some(run) {
        return Ok(Undone::Gone);
    }
    if found.provisioning == Provisioning::Running {
        return Ok(Undone::Going(format!("an operation on snapshot {} is under way", id.name())));
    }
    ports.cloud.begin_delete_snapshot(id).await?;
    Ok(Undone::Going(format!("snapshot {} is being deleted", id.name())))
}

/// The disk of a run. While a machine has it, Azure refuses; the engine comes back.
pub(crate) async fn disk(ports: Ports<'_>, id: &DiskId, run: RunId) -> Result<Undone, StepError> {
    let Some(found) = ports.cloud.disk(id).await? else { return Ok(Undone::Gone) };
    if found.run != Some(run) {
        return Ok(Undone::Gone);
    }
    if found.managed {
        return Ok(Undone::Going(format!("disk {} is still attached", id.name())));
    }
    if found.provisioning == Provisioning::Running {
        return Ok(Undone::Going(format!("an operation on disk {} is under way", id.name())));
    }
    ports.cloud.begin_delete_disk(id).await?;
    Ok(Undone::Going(format!("disk {} is being deleted", id.name())))
}

/// Asks for a disk to be detached. Azure refuses for one that has just been: whoever hears that looks once more.
pub(crate) async fn detached(ports: Ports<'_>, id: &DiskId, instance: &InstanceId) -> Result<Accepted, StepError> {
    match ports.cloud.begin_detach(instance, id).await {
        Err(error) if error.class() == Class::Refused => {
            let still = ports.cloud.disk(id).await?.is_some_and(|disk| disk.attached_to.as_ref() == Some(instance));
            if still { Err(error.into()) } else { Ok(Accepted::default()) }
        }
        asked => Ok(asked?),
    }
}

/// The attachment of a run's disk to an instance. The pod has to be gone: it would lose its disk.
pub(crate) async fn attachment(
    ports: Ports<'_>,
    id: &DiskId,
    instance: &InstanceId,
    run: RunId,
) -> Result<Undone, StepError> {
    let Some(found) = ports.cloud.disk(id).await?.filter(|found| found.run == Some(run)) else {
        return Ok(Undone::Gone);
    };
    match found.attached_to {
        Some(has) if has == *instance => {
            detached(ports, id, instance).await?;
            Ok(Undone::Going(format!("disk {} is being detached from {}", id.name(), instance.name())))
        }
        None if found.managed => Ok(Undone::Going(format!("disk {} says {:?}", id.name(), found.state))),
        // Nobody has it, or somebody else by now.
        None | Some(_) => Ok(Undone::Gone),
    }
}

/// Pod, claim and volume of a run's cleaning, in this order. The run is in its short form, as labels have it.
pub(crate) async fn cleaning(ports: Ports<'_>, namespace: &str, name: &str, run: &str) -> Result<Undone, StepError> {
    let view = ports.cluster.cleaning(namespace, name).await?;
    let ours = |label: &Option<String>| label.as_deref() == Some(run);
    if let Some(pod) = view.pod.filter(|pod| ours(&pod.owned.run)) {
        if !pod.owned.deleting {
            gone_is_fine(ports.cluster.delete_pod(namespace, name, &pod.owned.uid).await)?;
        }
        return Ok(Undone::Going(format!("pod {namespace}/{name} is being deleted")));
    }
    if let Some(claim) = view.claim.filter(|claim| ours(&claim.run)) {
        if !claim.deleting {
            gone_is_fine(ports.cluster.delete_claim(namespace, name, &claim.uid).await)?;
        }
        return Ok(Undone::Going(format!("claim {namespace}/{name} is being deleted")));
    }
    if let Some(volume) = view.volume.filter(|volume| ours(&volume.run)) {
        if !volume.deleting {
            gone_is_fine(ports.cluster.delete_volume(name, &volume.uid).await)?;
        }
        return Ok(Undone::Going(format!("volume {name} is being deleted")));
    }
    Ok(Undone::Gone)
}

/// The proof that a donor's cleaner has left. Its pod has to be gone: nobody leaves another then.
pub(crate) async fn proof(ports: Ports<'_>, namespace: &str, run: RunId) -> Result<Undone, StepError> {
    if ports.cluster.proof(namespace, run).await?.is_none() {
        return Ok(Undone::Gone);
    }
    ports.cluster.forget_proof(namespace, run).await?;
    Ok(Undone::Going("the proof is being taken away".into()))
}

/// Somebody was quicker.
fn gone_is_fine(result: Result<(), crate::cluster::ClusterError>) -> Result<(), StepError> {
    match result {
        Err(error) if error.class() == Class::Gone => Ok(()),
        other => Ok(other?),
    }
}
