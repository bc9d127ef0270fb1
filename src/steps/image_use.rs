//! Who uses the versions of a definition, and what is to become of each: read anew each time that it is asked for.
//!
//! Used by the plan, by `PruneVersions` right before each deletion, and by `images prune`, which so deletes nothing that a run
//! would not. Every scale set of the subscription is looked at with all its instances, whatever its model points at now: an
//! instance keeps the version that it was made from, and can be built anew only while that is there.

use std::collections::BTreeSet;

use crate::{
    cloud::{Cloud, ImageRef, Orchestration, ScaleSet, Version},
    model::{Class, DefinitionId},
    policy::retention::{Rules, Runs, Uses, Verdict, plan},
    workflow::{Ports, StepError},
};

/// What is to become of each version of a definition, by fresh looks; newest first.
pub(crate) async fn verdicts(
    ports: Ports<'_>,
    subscriptions: &BTreeSet<String>,
    definition: &DefinitionId,
    runs: Runs<'_>,
    rules: Rules,
) -> Result<Vec<Verdict>, StepError> {
    // Users first: what comes to be used of a version meanwhile is of one that is in the list below, and newer.
    let uses = uses(ports.cloud, subscriptions, definition).await?;
    let versions = ports.cloud.versions(definition).await?;
    Ok(plan(versions, &uses, runs, rules, ports.clock.now()))
}

/// The same with a version that is not there yet; of other runs nothing is known.
pub(crate) async fn foreseen(
    ports: Ports<'_>,
    subscriptions: &BTreeSet<String>,
    definition: &DefinitionId,
    coming: Version,
    rules: Rules,
) -> Result<Vec<Verdict>, StepError> {
    let uses = uses(ports.cloud, subscriptions, definition).await?;
    let mut versions = ports.cloud.versions(definition).await?;
    versions.push(coming);
    Ok(plan(versions, &uses, Runs::Unknown, rules, ports.clock.now()))
}

/// The subscriptions whose machines may use a definition's versions: the scale set's, and the gallery's own.
pub(crate) fn subscriptions(of: &str, definition: &DefinitionId) -> BTreeSet<String> {
    [of, definition.subscription()].into_iter().map(str::to_ascii_lowercase).collect()
}

/// Who uses which version.
pub(crate) async fn uses(
    cloud: &dyn Cloud,
    subscriptions: &BTreeSet<String>,
    definition: &DefinitionId,
) -> Result<Uses, StepError> {
    let mut uses = Uses::default();
    for subscription in subscriptions {
        let sets = cloud.scale_sets(subscription).await?;
        for set in &sets {
            if let ImageRef::Version(id) = &set.image {
                uses.note(id.clone(), format!("the model of scale set {}", set.id.name()));
            }
            if set.orchestration == Orchestration::Uniform {
                instances(cloud, set, definition, &mut uses).await?;
            }
        }
        machines(cloud, subscription, &sets, definition, &mut uses).await?;
    }
    Ok(uses)
}

/// The instances of a Uniform scale set.
async fn instances(
    cloud: &dyn Cloud,
    set: &ScaleSet,
    definition: &DefinitionId,
    uses: &mut Uses,
) -> Result<(), StepError> {
    let name = set.id.name();
    let instances = match cloud.instances(&set.id, set.orchestration).await {
        Ok(instances) => instances,
        Err(error) => match error.class() {
            // It went after the list was made, and all its instances with it.
            Class::Gone => return Ok(()),
            Class::Denied => {
                uses.unseen.insert(format!("the instances of scale set {name} may not be read ({error})"));
                return Ok(());
            }
            Class::Throttled { .. } | Class::Uncertain | Class::Busy | Class::Preempted | Class::Refused => {
                return Err(error.into());
            }
        },
    };
    for instance in instances {
        note(uses, instance.image, definition, format!("instance {name}/{}", instance.id.name()));
    }
    Ok(())
}

/// Machines of Flexible scale sets, and those that stand alone. The right to read them is needed only where a Flexible scale
/// set follows the definition.
async fn machines(
    cloud: &dyn Cloud,
    subscription: &str,
    sets: &[ScaleSet],
    definition: &DefinitionId,
    uses: &mut Uses,
) -> Result<(), StepError> {
    let machines = match cloud.machines(subscription).await {
        Ok(machines) => machines,
        Err(error) if error.class() == Class::Denied => {
            let follows = |set: &&ScaleSet| {
                set.orchestration == Orchestration::Flexible && set.image.definition().as_ref() == Some(definition)
            };
            if let Some(set) = sets.iter().find(follows) {
                let name = set.id.name();
                uses.unseen.insert(format!("the machines of Flexible scale set {name} may not be read ({error})"));
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    for machine in machines {
        note(uses, machine.image, definition, format!("machine {}", machine.id.name()));
    }
    Ok(())
}

/// One that was made from the definition and does not say from which version may be of any.
fn note(seen: &mut Uses, image: ImageRef, definition: &DefinitionId, user: String) {
    match image {
        ImageRef::Version(id) => seen.note(id, user),
        ImageRef::Definition(id) if id == *definition => {
            seen.unseen.insert(format!("{user} does not say which version it was made from"));
        }
        ImageRef::Definition(_) | ImageRef::Other(_) => {}
    }
}
