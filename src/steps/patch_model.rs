//! Make the scale set follow the definition. On later runs it already does, and nothing is asked.
//!
//! Effect: image reference, and with a disk that bootstraps the node custom data and extensions, in one PATCH under the
//! model's etag. A repeat is safe: it asks for the same model. Undo: none, custom data can't be read back; the run goes on
//! until the model is consistent. Never touched: anything else of the model; a difference stops the run and is named.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ModelBefore, Preflight, Preflighted, ReadModel, preflight::refuse};
use crate::{
    cloud::{Accepted, Fingerprint, ImageRef, ModelChange, Provisioning},
    model::{Bootstrap, Class},
    policy::preflight::still_refused,
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct PatchModel;

/// What the model shall say, and how it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The change.
    pub change: ModelChange,
    /// The model's fingerprint before.
    pub before: Fingerprint,
    /// It followed the definition already.
    pub followed: bool,
}

/// The model as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The parts that this run changed.
    pub changed: Vec<String>,
}

#[async_trait]
impl Effect for PatchModel {
    const NAME: &'static str = "PatchModel";
    const DEADLINE: Duration = Duration::from_hours(2);
    const SETTLES: Duration = Duration::from_mins(1);
    type Input = Input;
    type Output = Output;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Preflighted { definition, remove_extensions, .. } = context.output(Preflight::NAME)?;
        let ModelBefore { image, fingerprint } = context.output(ReadModel::NAME)?;
        let bootstrap = context.spec.profile.bootstrap();
        Ok(Input {
            followed: image == ImageRef::Definition(definition.clone()),
            change: ModelChange {
                scale_set: context.spec.scale_set.clone(),
                run: context.run,
                image: definition,
                empty_custom_data: bootstrap == Bootstrap::Disk,
                remove_extensions,
                under: None,
            },
            before: fingerprint,
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Output>, StepError> {
        let id = &want.change.scale_set;
        let Some(found) = ports.cloud.scale_set(id).await? else {
            return Err(StepError::gone("KW0221", format!("scale set {id} was deleted by somebody")));
        };
        if found.provisioning == Provisioning::Running {
            return Ok(Seen::Underway(format!("scale set {} is being updated", id.name())));
        }
        if found.image != ImageRef::Definition(want.change.image.clone()) {
            return Ok(Seen::Absent);
        }
        if want.followed {
            // Nothing was asked, so whatever differs is somebody else's business.
            return Ok(Seen::Present(Output { changed: vec![] }));
        }
        let (changed, alien): (Vec<String>, Vec<String>) =
            want.before.diff(&found.fingerprint).into_iter().partition(|part| want.change.allows(part));
        if let Some(left) =
            found.extensions.iter().find(|extension| want.change.remove_extensions.contains(&extension.name))
        {
            return Ok(Seen::Foreign(format!(
                "extension {} is still in the model of scale set {}: delete it, then resume",
                left.name,
                id.name()
            )));
        }
        Ok(if alien.is_empty() {
            Seen::Present(Output { changed })
        } else {
            Seen::Foreign(format!(
                "besides the image, these parts of scale set {}'s model changed during the update: {}; compare them with \
                 what you want, then resume",
                id.name(),
                alien.join(", ")
            ))
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let id = &want.change.scale_set;
        let mut under = None;
        if let Some(set) = ports.cloud.scale_set(id).await? {
            refuse(still_refused(&set, &want.change.remove_extensions))?;
            if set.provisioning == Provisioning::Running {
                let text = format!("an operation on scale set {} is under way", id.name());
                return Err(StepError { class: Class::Busy, code: "KW0300", text });
            }
            under = set.etag;
        }
        // Whoever changes the model between this look and the request has changed its etag as well.
        Ok(ports.cloud.begin_model_change(&ModelChange { under, ..want.change.clone() }).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
