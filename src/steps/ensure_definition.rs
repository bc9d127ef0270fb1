//! Make sure that the image definition is there and says the truth about the donor's disk.
//!
//! Effect: one definition. A repeat is safe: the same PUT changes nothing. Undo: none, an empty definition costs nothing.
//! Never touched: a definition that says otherwise. Azure lets nobody change it, and deleting it would lose its versions.

use std::time::Duration;

use async_trait::async_trait;

use super::{EnsureGallery, Preflight, Preflighted, RankNodes, Ranked, create_version, ensure_gallery};
use crate::{
    cloud::{Accepted, DefinitionSpec, Provisioning},
    model::Region,
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
        let spec = context.spec;
        // Here, where a refusal costs nothing: only now it is known where the gallery is.
        let targets = create_version::regions(spec, &location);
        if let Some(unknown) = spec.replicas_in.keys().find(|key| !targets.iter().any(|region| region.key() == **key)) {
            let known: Vec<String> = targets.iter().map(Region::key).collect();
            let text = format!(
                "regionReplicas names {unknown}, which is no target region: expected one of {}, or add it to regions",
                known.join(", ")
            );
            return Err(StepError::refused("KW0301", text));
        }
        // A disk that is behind the model would give an image that the model's machines can't start from.
        if let (Some(model), Some(disk)) = (&security_type, &donor.security_type)
            && !model.eq_ignore_ascii_case(disk)
        {
            let text = format!(
                "the scale set's securityProfile.securityType is {model}, and that of node {}'s disk is {disk}: reimage the \
                 node, or choose one that was made since the model changed",
                donor.node
            );
            return Err(StepError::refused("KW0302", text));
        }
        Ok(DefinitionSpec {
            location,
            generation: donor.generation,
            architecture: donor.architecture,
            security_type: security_type.or(donor.security_type),
            disk_controllers: offered(disk_controller, donor.controllers),
            plan: plan.or(donor.plan),
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

/// What the disk can be behind, so that the pool may move to other sizes later; `NVMe` alone where the model is that.
fn offered(model: Option<String>, disk: Option<String>) -> Option<String> {
    let both =
        |kinds: &String| kinds.contains(',') && kinds.split(',').any(|kind| kind.trim().eq_ignore_ascii_case("SCSI"));
    match (model, disk.filter(both)) {
        (Some(model), _) if model.eq_ignore_ascii_case("NVMe") => Some(model),
        (_, Some(disk)) => Some(disk),
        (model, None) => model,
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
    // More than one is what the disk could do; the model's machines are behind SCSI then, and no more is needed.
    let missing: Vec<&str> = needed(want).filter(|kind| !controllers(found).any(|known| known == *kind)).collect();
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

/// Those without which the model's machines can't start.
fn needed(spec: &DefinitionSpec) -> impl Iterator<Item = &str> {
    let several = spec.disk_controllers.as_deref().is_some_and(|kinds| kinds.contains(','));
    controllers(spec).filter(move |kind| !several || kind.eq_ignore_ascii_case("SCSI"))
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
    fn a_new_definition_offers_what_the_disk_can_and_an_old_one_needs_only_what_the_model_is() {
        let of = |model: Option<&str>, disk: Option<&str>| offered(model.map(Into::into), disk.map(Into::into));
        assert_eq!(of(Some("SCSI"), Some("SCSI, NVMe")).as_deref(), Some("SCSI, NVMe"));
        assert_eq!(of(None, Some("SCSI, NVMe")).as_deref(), Some("SCSI, NVMe"));
        assert_eq!(of(Some("NVMe"), Some("SCSI, NVMe")).as_deref(), Some("NVMe"));
        assert_eq!(of(Some("SCSI"), Some("SCSI")).as_deref(), Some("SCSI"));
        assert_eq!(of(None, None), None);
        // Made by a release that knew less, or by the Python tool.
        let want = DefinitionSpec { disk_controllers: Some("SCSI, NVMe".into()), ..spec() };
        for old in [None, Some("SCSI".into()), Some("SCSI, NVMe".into())] {
            let found = DefinitionSpec { disk_controllers: old, ..spec() };
            assert!(mismatches(&want, &found, true).is_empty(), "{found:?}");
        }
        assert_eq!(mismatches(&want, &spec(), true), ["DiskControllerTypes is NVMe, the scale set's is SCSI"]);
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
