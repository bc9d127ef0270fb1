//! A copy of all that the engine remembers, while it goes on.

use super::engine::{Engine, EngineError};
use crate::store::Export;

impl Engine {
    /// Begins an export of the store as it is now, said to be made by this release.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn export(&self, release: &str) -> Result<Export, EngineError> {
        Ok(Export::begin(&self.journal, release, self.clock.now()).await?)
    }
}
