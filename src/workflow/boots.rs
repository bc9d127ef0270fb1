//! Boot ids between runs. A daemon that looks now and then knows well when a node was rebooted, and sees at once
//! that a mark of kured's sticks; runs alone would see both a week later.

use tracing::{debug, warn};

use super::engine::{Engine, EngineError, MEMORY};
use crate::{model::ScaleSetId, policy::ranking::Boots, steps::servers_time};

impl Engine {
    /// Looks at all nodes once and remembers the boots of those scale sets' nodes. A look that fails is left for the next.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn remember_boots(&self, sets: &[ScaleSetId]) -> Result<(), EngineError> {
        if sets.is_empty() || !self.authority.may_change() {
            return Ok(());
        }
        let nodes = match self.cluster.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => {
                debug!(%error, "nodes can't be looked at; boots are remembered later");
                return Ok(());
            }
        };
        let now = servers_time(&nodes, self.clock.now());
        let memory = self.memory().await?;
        let facts = sets.iter().filter_map(|set| {
            let boots = Boots::recalled(&memory, set).without_azure(set, &nodes, now);
            Some((format!("{MEMORY}{}", Boots::key(set)), Some(serde_json::to_value(&boots).ok()?)))
        });
        // A store that is broken ends the process by itself; one that is full has better things to keep.
        if let Err(error) = self.journal.put_facts(self.authority.epoch(), facts.collect()).await {
            warn!(%error, "boots can't be remembered");
        }
        Ok(())
    }
}
