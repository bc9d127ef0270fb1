//! Delete what only the update needed: the snapshot and the copy.
//!
//! Effect: two resources less. A repeat is safe: what is gone stays gone. Undo: none. Never touched: a snapshot or disk that
//! is not this run's.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChooseNames, Names, take_away};
use crate::{
    cloud::Accepted,
    model::{DiskId, RunId, SnapshotId},
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
}

#[async_trait]
impl Effect for DeleteTemporaries {
    const NAME: &'static str = "DeleteTemporaries";
    const DEADLINE: Duration = Duration::from_hours(2);
    type Input = Input;
    type Output = ();

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let names: Names = context.output(ChooseNames::NAME)?;
        Ok(Input { run: context.run, disk: names.disk, snapshot: names.snapshot })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<()>, StepError> {
        let disk = ports.cloud.disk(&want.disk).await?.filter(|disk| disk.run == Some(want.run));
        let snapshot = ports.cloud.snapshot(&want.snapshot).await?.filter(|snapshot| snapshot.run == Some(want.run));
        Ok(match (disk, snapshot) {
            (None, None) => Seen::Present(()),
            (Some(_), _) => Seen::Partly(format!("disk {} is still there", want.disk.name())),
            (None, Some(_)) => Seen::Partly(format!("snapshot {} is still there", want.snapshot.name())),
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        if take_away::disk(ports, &want.disk, want.run).await? == Undone::Gone {
            take_away::snapshot(ports, &want.snapshot, want.run).await?;
        }
        Ok(Accepted::default())
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
