//! What the face needs of a world besides the port: scale sets are raw JSON, on the wire as in the world.

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    cloud::{Accepted, Cloud, CloudError},
    model::ScaleSetId,
};

/// A world that can stand behind the face.
#[async_trait]
pub trait Backend: Cloud {
    /// A scale set's model as it is, whatever the moment's throttling and staleness.
    fn raw_scale_set(&self, id: &ScaleSetId) -> Option<Value>;
    /// A PATCH of a scale set, as it came.
    async fn patch_scale_set(
        &self,
        id: &ScaleSetId,
        if_match: Option<&str>,
        body: &Value,
    ) -> Result<Accepted, CloudError>;
}
