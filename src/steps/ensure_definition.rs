//! Make sure that the image definition is there and says the truth about the donor's disk.
//!
//! Effect: one definition. A repeat is safe: the same PUT changes nothing. Undo: none, an empty definition costs nothing.
//! Never touched: a definition that says otherwise. Azure lets nobody change it, and deleting it would lose its versions.

use std::time::Duration;

use async_trait::async_trait;

use super::{EnsureGallery, Preflight, Preflighted, RankNodes, Ranked, ensure_gallery};
use crate::{
    cloud::{Accepted, DefinitionSpec, Provisioning},
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

/// The step.
#[derive(Debug)]
pub struct EnsureDefinition;

/// The publisher of our definitions; with gallery and definition names as offer and sku the triple is unique.
const PUBLISHER: &str = "kamino-wf";

#[async_trait]
impl Effect for EnsureDefinition {
    const NAME: &'static str = "EnsureDefinition";
    const DEADLINE: Duration = Duration::from_mins(30);
    const SETTLES: Duration = Duration::from_mins(1);
    type Input = DefinitionSpec;
    type Output = DefinitionSpec;

    fn input(&self, context: Context<'_>) -> Result<DefinitionSpec, StepError> {
        let Preflighted { definition, security_type, disk_controller, plan, .. } = context.output(Preflight::NAME)?;
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        let ensure_gallery::Output { location } = context.output(EnsureGallery::NAME)?;
        Ok(DefinitionSpec {
            location,
            generation: donor.generation,
            architecture: donor.architecture,
            security_type: security_type.or(donor.security_type),
            disk_controllers: disk_controller,
            plan,
            publisher: PUBLISHER.into(),
            offer: definition.gallery().name().to_owned(),
            sku: definition.name().to_owned(),
            id: definition,
        })
    }

    async fn observe(&self, ports: Ports<'_>, want: &DefinitionSpec) -> Result<Seen<DefinitionSpec>, StepError> {
        let Some(found) = ports.cloud.definition(&want.id).await? else { return Ok(Seen::Absent) };
        match found.provisioning {
            Provisioning::Running => return Ok(Seen::Underway(format!("definition {} is being made", want.id.name()))),
            Provisioning::Failed => {
                return Ok(Seen::Foreign(format!("definition {} is in state Failed: repair or delete it", want.id)));
            }
            Provisioning::Succeeded => {}
        }
        let wrong = mismatches(want, &found.spec, found.generalized);
        Ok(if wrong.is_empty() {
            Seen::Present(found.spec)
        } else {
            Seen::Foreign(format!(
                "definition {} does not fit the donor's disk ({}), and Azure lets nobody change it: choose another name in \
                 the setting definition",
                want.id,
                wrong.join("; ")
            ))
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &DefinitionSpec) -> Result<Accepted, StepError> {
        Ok(ports.cloud.begin_definition(want).await?)
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &DefinitionSpec) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

fn mismatches(want: &DefinitionSpec, found: &DefinitionSpec, generalized: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |field: &str, want: Option<&str>, found: Option<&str>| {
        let same = want.unwrap_or_default().eq_ignore_ascii_case(found.unwrap_or_default());
        if !same {
            wrong.push(format!("{field} is {}, the disk's is {}", found.unwrap_or("none"), want.unwrap_or("none")));
        }
    };
    check("hyperVGeneration", Some(&want.generation), Some(&found.generation));
    check("SecurityType", security(want), security(found));
    if !generalized {
        wrong.push("osState is Specialized".into());
    }
    if want.architecture != found.architecture {
        wrong.push(format!("architecture is {:?}, the disk's is {:?}", found.architecture, want.architecture));
    }
    if want.plan != found.plan {
        wrong.push(format!("purchasePlan is {:?}, the scale set's is {:?}", found.plan, want.plan));
    }
    wrong
}

/// A definition may be more general than the machine: `TrustedLaunchSupported` takes standard and trusted ones.
fn security(spec: &DefinitionSpec) -> Option<&str> {
    spec.security_type.as_deref().filter(|kind| !kind.ends_with("Supported") && *kind != "Standard")
}
