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
    let missing: Vec<&str> = controllers(want).filter(|kind| !controllers(found).any(|known| known == *kind)).collect();
    if !missing.is_empty() {
        let known = controllers(found).collect::<Vec<_>>().join(", ");
        wrong.push(format!("DiskControllerTypes is {known}, the scale set's is {}", missing.join(", ")));
    }
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

/// The disk controllers that machines may have; a definition that names none takes SCSI only, and so does a model.
fn controllers(spec: &DefinitionSpec) -> impl Iterator<Item = &str> {
    spec.disk_controllers.as_deref().unwrap_or("SCSI").split(',').map(str::trim)
}

/// A definition may be more general than the machine: `TrustedLaunchSupported` takes standard and trusted ones.
fn security(spec: &DefinitionSpec) -> Option<&str> {
    spec.security_type.as_deref().filter(|kind| !kind.ends_with("Supported") && *kind != "Standard")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Architecture, Plan},
        model::{DefinitionId, Region},
    };

    fn spec() -> DefinitionSpec {
        let names = ["protos", "pool1"];
        DefinitionSpec {
            id: DefinitionId::new("00000000-1111-2222-3333-444444444444", "g", &names).expect("an id"),
            location: Region("westeurope".into()),
            generation: "V2".into(),
            architecture: Architecture::X64,
            security_type: Some("TrustedLaunch".into()),
            disk_controllers: Some("NVMe".into()),
            plan: None,
            publisher: "p".into(),
            offer: "o".into(),
            sku: "s".into(),
        }
    }

    #[test]
    fn each_field_that_azure_lets_nobody_change_is_named_when_it_does_not_fit() {
        let plan = Plan { name: "n".into(), publisher: "p".into(), product: "o".into() };
        let table: [(&str, DefinitionSpec); 6] = [
            ("hyperVGeneration is V1, the disk's is V2", DefinitionSpec { generation: "V1".into(), ..spec() }),
            ("architecture is Arm64", DefinitionSpec { architecture: Architecture::Arm64, ..spec() }),
            ("SecurityType is none, the disk's is TrustedLaunch", DefinitionSpec { security_type: None, ..spec() }),
            (
                "DiskControllerTypes is SCSI, the scale set's is NVMe",
                DefinitionSpec { disk_controllers: None, ..spec() },
            ),
            ("purchasePlan is Some", DefinitionSpec { plan: Some(plan), ..spec() }),
            ("", DefinitionSpec { disk_controllers: Some("SCSI, NVMe".into()), sku: "another".into(), ..spec() }),
        ];
        for (text, found) in table {
            let wrong = mismatches(&spec(), &found, true);
            assert_eq!(wrong.len(), usize::from(!text.is_empty()), "{wrong:?}");
            assert!(wrong.iter().all(|wrong| wrong.starts_with(text)), "{wrong:?}");
        }
        assert_eq!(mismatches(&spec(), &spec(), false), ["osState is Specialized"]);
    }

    #[test]
    fn a_more_general_definition_and_a_model_that_says_nothing_fit() {
        let found = DefinitionSpec { disk_controllers: Some("SCSI,NVMe".into()), ..spec() };
        assert!(mismatches(&DefinitionSpec { disk_controllers: None, ..spec() }, &found, true).is_empty());
        let standard = DefinitionSpec { security_type: None, ..spec() };
        let general = DefinitionSpec { security_type: Some("TrustedLaunchSupported".into()), ..spec() };
        assert!(mismatches(&standard, &general, true).is_empty());
    }
}
