//! Finished runs leave the store when they are old. What they made is in Azure's tags; what steps remember is kept apart.

use tracing::info;

use super::engine::{Engine, EngineError};
use crate::{
    model::RunId,
    policy::history::{History, Past, outdated},
    store::StoreError,
};

/// Runs in one go: each is a commit. The next go takes the others.
const RUNS_MAX: usize = 100;

impl Engine {
    /// Takes finished runs out of the store that are both old and not among the newest. Says which.
    ///
    /// # Errors
    /// The store fails.
    pub async fn age_out(&self, history: History) -> Result<Vec<RunId>, EngineError> {
        let summaries = self.summaries().await?;
        let past: Vec<Past> = summaries
            .iter()
            .map(|run| Past { id: run.id, scale_set: run.scale_set.clone(), ended: (!run.open()).then_some(run.moved) })
            .collect();
        let mut gone = Vec::new();
        for id in outdated(&past, history, self.clock().now()).into_iter().take(RUNS_MAX) {
            if !self.authority().may_change() {
                break;
            }
            // Read here, and given back as the revision that must still be there.
            let head = self.journal.heads().await?.into_iter().find(|head| head.run == id.0);
            let Some(head) = head else { continue };
            match self.journal.remove(id.0, head.revision, self.authority().epoch()).await {
                Ok(()) => gone.push(id),
                // It has moved meanwhile, which an ended run does not do: left for a person to look at.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !gone.is_empty() {
            info!(runs = gone.len(), "finished runs were taken out of the store: they were old");
        }
        Ok(gone)
    }
}
