//! Delete what only the update needed: the snapshot and the copy, or the proof of a donor's cleaner.
//!
//! Effect: two things less. A repeat is safe: what is gone stays gone. Undo: none. Never touched: a snapshot, disk or proof
//! that is not this run's.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Names, take_away};
use crate::{
    cloud::{Accepted, Provisioning},
    model::{Capture, DiskId, RunId, SnapshotId},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct DeleteTemporaries;

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The run that owns both.
    pub run: RunId,
    /// The copy.
    pub disk: DiskId,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The namespace that a donor's cleaner has left its proof in, with `capture: stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_in: Option<String>,
}

#[async_trait]
impl Effect for DeleteTemporaries {
    const NAME: &'static str = "DeleteTemporaries";
    const DEADLINE: Duration = Duration::from_hours(2);
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let names: Names = context.output(ChooseNames::NAME)?;
        let proof_in = match context.spec.capture {
            Capture::Live => None,
            Capture::Stop => Some(context.spec.clean_namespace.clone()),
        };
        Ok(Input { run: context.run, disk: names.disk, snapshot: names.snapshot, proof_in })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let disk = ports.cloud.disk(&want.disk).await?.filter(|disk| disk.run == Some(want.run));
        let snapshot = ports.cloud.snapshot(&want.snapshot).await?.filter(|snapshot| snapshot.run == Some(want.run));
        let left = disk
            .map(|disk| (format!("disk {} is still there", want.disk.name()), disk.provisioning, disk.managed))
            .or_else(|| {
                let snapshot = snapshot?;
                Some((format!("snapshot {} is still there", want.snapshot.name()), snapshot.provisioning, false))
            });
        let proof = match &want.proof_in {
            Some(namespace) => ports.cluster.proof(namespace, want.run).await?,
            None => None,
        };
        Ok(match left {
            None if proof.is_some() => Seen::Partly("the proof of the donor's cleaner is still there".into()),
            None => Seen::Present(()),
            Some((text, Provisioning::Running, _) | (text, _, true)) => Seen::Underway(text),
            Some((text, Provisioning::Succeeded | Provisioning::Failed, false)) => Seen::Partly(text),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        if take_away::disk(ports, &want.disk, want.run).await? == Undone::Gone
            && take_away::snapshot(ports, &want.snapshot, want.run).await? == Undone::Gone
            && let Some(namespace) = &want.proof_in
        {
            take_away::proof(ports, namespace, want.run).await?;
        }
        Ok(Accepted::default())
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
