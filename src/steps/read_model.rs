//! Read the scale set's model just before it is changed: what anything else than our change is measured against.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Preflight, Preflighted, preflight::refuse};
use crate::{
    cloud::{Fingerprint, ImageRef},
    policy::preflight::still_refused,
    workflow::{Context, Decide, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct ReadModel;

/// The model as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelBefore {
    /// What new instances were made from.
    pub image: ImageRef,
    /// A hash for each part of the whole.
    pub fingerprint: Fingerprint,
}

#[async_trait]
impl Decide for ReadModel {
    const NAME: &'static str = "ReadModel";
    type Output = ModelBefore;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<ModelBefore, StepError> {
        let id = &context.spec.scale_set;
        let set = ports
            .cloud
            .scale_set(id)
            .await?
            .ok_or_else(|| StepError::gone("KW0221", format!("scale set {id} was deleted by somebody")))?;
        let Preflighted { remove_extensions, .. } = context.output(Preflight::NAME)?;
        refuse(still_refused(&set, &remove_extensions))?;
        Ok(ModelBefore { image: set.image, fingerprint: set.fingerprint })
    }
}
