//! Azure: a token, the resource manager, its clock, and what our roles grant.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::{
    cloud::{Cloud as _, CloudError, Granted, azure::AzureCloud},
    model::{Class, DefinitionId, GalleryId, GroupId},
    permissions::{AzureRight, AzureScope, Uses, in_azure},
};

/// The galleries of all pools, and the definitions in them.
pub type Galleries = BTreeMap<GalleryId, BTreeSet<DefinitionId>>;
/// The resource groups of all pools, and what the pools in each use.
pub type Groups = BTreeMap<GroupId, Uses>;

pub(super) const RIGHTS: &str = "Azure rights";
/// Without them less is looked at, and nothing fails.
const OPTIONAL: [&str; 1] = ["Microsoft.Insights/autoscaleSettings/read"];
const NOT_ASKED: &str =
    "Azure does not say what it grants on what a model refers to; it checks that when a model is sent";

/// Looks at Azure as far as these pools need it. True when it answers, so that pools can be looked at.
pub async fn azure(azure: &AzureCloud, groups: &Groups, galleries: &Galleries) -> (Vec<Check>, bool) {
    let mut checks = Vec::new();
    if let Err(error) = azure.credential().await {
        let remedy = "see azure.tenant, azure.client and the token file or secret; with workload identity, that the \
                      service account's name is in the application's federated credential; with a managed identity, that \
                      it is assigned to this machine and pods may reach the metadata service; with the Azure CLI, `az login`";
        checks.push(Check::wrong("Azure credential", error.to_string(), remedy));
        for name in ["resource manager", "resource manager's clock", RIGHTS] {
            checks.push(Check::skipped(name, "there is no token to ask with"));
        }
        return (checks, false);
    }
    checks.push(Check::ok("Azure credential", "the authority gives a token"));
    if groups.is_empty() {
        checks.push(Check::skipped(RIGHTS, "no pool is configured, so there is no place to ask about"));
        return (checks, false);
    }
    let mut rights = Vec::new();
    for (group, uses) in groups {
        match azure.granted_in(group).await {
            Ok(granted) => {
                let place = format!("resource group {}", group.name());
                let scopes = [AzureScope::Subscription, AzureScope::ScaleSets, AzureScope::Temporaries];
                let needed = |right: &AzureRight| scopes.contains(&right.scope) && uses.needs(right.part);
                rights.extend(lacking(&granted, needed, &place));
            }
            // Whatever else it says, it answers. Silence takes a minute, so nothing more is asked.
            Err(error) if error.class() == Class::Uncertain => {
                checks.extend(silent(&error));
                return (checks, false);
            }
            Err(error) => rights.push(unknown(&format!("resource group {}", group.name()), &error)),
        }
    }
    for (gallery, definitions) in galleries {
        rights.extend(on_gallery(azure, gallery, definitions).await);
    }
    checks.push(Check::ok("resource manager", "it answers"));
    checks.push(Check::clock("resource manager's clock", azure.ahead()));
    if rights.is_empty() {
        let uses = groups.values().fold(Uses::default(), |all, uses| all.and(*uses));
        let asked = in_azure().filter(|right| right.scope != AzureScope::Linked && uses.needs(right.part));
        let asked = asked.filter(|right| !OPTIONAL.contains(&right.action)).count();
        checks.push(Check::ok(RIGHTS, format!("all {asked} at {} places", groups.len() + galleries.len())));
    }
    checks.append(&mut rights);
    checks.push(Check::skipped("Azure rights on what models refer to", NOT_ASKED));
    (checks, true)
}

fn silent(error: &CloudError) -> Vec<Check> {
    let remedy = "see that azure.resourceManager can be reached from here, and azure.caBundle if a proxy is between";
    let mut checks = vec![Check::wrong("resource manager", error.to_string(), remedy)];
    for name in ["resource manager's clock", RIGHTS] {
        checks.push(Check::skipped(name, "the resource manager does not answer"));
    }
    checks
}

/// A role may be assigned on the gallery alone. One that is not there has no assignments of its own: its group counts.
async fn on_gallery(azure: &AzureCloud, gallery: &GalleryId, definitions: &BTreeSet<DefinitionId>) -> Vec<Check> {
    let (granted, place) = match azure.granted_on(gallery).await {
        Err(error) if error.class() == Class::Gone => {
            let group = gallery.group();
            (azure.granted_in(&group).await, format!("resource group {}", group.name()))
        }
        other => (other, format!("gallery {}", gallery.name())),
    };
    let granted = match granted {
        Ok(granted) => granted,
        Err(error) => return vec![unknown(&place, &error)],
    };
    // What is there need not be made.
    let mut spared = BTreeSet::new();
    if matches!(azure.gallery(gallery).await, Ok(Some(_))) {
        spared.insert("Microsoft.Compute/galleries/write");
        let mut all = true;
        for definition in definitions {
            all &= matches!(azure.definition(definition).await, Ok(Some(_)));
        }
        if all {
            spared.insert("Microsoft.Compute/galleries/images/write");
        }
    }
    let needed = |right: &AzureRight| right.scope == AzureScope::Gallery && !spared.contains(right.action);
    lacking(&granted, needed, &place)
}

fn lacking(granted: &[Granted], needed: impl Fn(&AzureRight) -> bool, place: &str) -> Vec<Check> {
    // The same action may be needed for two kinds of place that are one here.
    let mut missing: BTreeMap<&str, Vec<&AzureRight>> = BTreeMap::new();
    let needed = in_azure().filter(|right| needed(right) && !OPTIONAL.contains(&right.action));
    for right in needed.filter(|right| !Granted::any_allows(granted, right.action)) {
        missing.entry(right.action).or_default().push(right);
    }
    let check = |(action, rights): (&str, Vec<&AzureRight>)| {
        let steps: BTreeSet<&str> = rights.iter().flat_map(|right| right.steps).copied().collect();
        let why: Vec<&str> = rights.iter().map(|right| right.why).collect();
        let steps = steps.into_iter().collect::<Vec<_>>().join(", ");
        let remedy = format!("{steps} needs it ({}); docs/permissions.md has the roles", why.join("; "));
        Check::wrong(RIGHTS, format!("no role grants {action} on {place}"), remedy)
    };
    missing.into_iter().map(check).collect()
}

fn unknown(place: &str, error: &CloudError) -> Check {
    match error.class() {
        Class::Gone => Check::wrong(RIGHTS, error.to_string(), format!("see that {place} exists")),
        // To ask is an action of its own, which our roles need not have.
        Class::Denied => Check::warning(
            RIGHTS,
            format!("what is granted on {place} can't be read: {error}"),
            "grant Microsoft.Authorization/permissions/read there to have the rights checked; runs don't need it",
        ),
        Class::Throttled { .. } | Class::Busy | Class::Uncertain | Class::Preempted | Class::Refused => {
            Check::warning(RIGHTS, error.to_string(), "ask again later")
        }
    }
}
