//! Make sure that the gallery is there.
//!
//! Effect: one gallery, by the name in the settings. A repeat is safe: the same PUT changes nothing. Undo: none, an empty
//! gallery costs nothing and may be others' by now. Never touched: a gallery that is there.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Preflight, Preflighted};
use crate::{
    cloud::{Accepted, Provisioning},
    model::{GalleryId, Region},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct EnsureGallery;

/// Which gallery, and where it is made if it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The gallery.
    pub id: GalleryId,
    /// The scale set's region.
    pub location: Region,
}

/// The gallery's own region: versions have to be there too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where the gallery is.
    pub location: Region,
}

#[async_trait]
impl Effect for EnsureGallery {
    const NAME: &'static str = "EnsureGallery";
    const DEADLINE: Duration = Duration::from_mins(30);
    const SETTLES: Duration = Duration::from_mins(1);
    type Input = Input;
    type Output = Output;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Preflighted { location, .. } = context.output(Preflight::NAME)?;
        Ok(Input { id: context.spec.gallery.clone(), location })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Output>, StepError> {
        let Some(found) = ports.cloud.gallery(&want.id).await? else { return Ok(Seen::Absent) };
        Ok(match found.provisioning {
            Provisioning::Running => Seen::Underway(format!("gallery {} is being made", want.id.name())),
            Provisioning::Succeeded => Seen::Present(Output { location: found.location }),
            Provisioning::Failed => {
                Seen::Foreign(format!("gallery {} is in state Failed: repair or delete it", want.id))
            }
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        Ok(ports.cloud.begin_gallery(&want.id, &want.location).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}
