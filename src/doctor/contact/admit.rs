//! Which scale set may be tried on: one that says so itself, and on which nobody lives.

use super::{
    hands::Hands,
    names::{Names, TAG},
};
use crate::{
    cloud::{CloudError, Instance, ScaleSet, UpgradeMode},
    model::{BadName, Members, ScaleSetId},
};

/// The pools of the settings: names and scale sets.
pub type Pools = [(String, ScaleSetId)];
/// The nodes of the cluster: names and provider ids.
pub type Nodes = [(String, String)];

/// Why nothing is tried. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ContactError {
    /// There is none of that name.
    #[error("there is no scale set {0}")]
    NoSuchScaleSet(ScaleSetId),
    /// It is not one to try things out on.
    #[error("scale set {set} is not one to try things out on: {why}")]
    Refused {
        /// Which.
        set: String,
        /// What speaks against it.
        why: String,
    },
    /// Azure does not say.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// A name can't be made of the scale set's.
    #[error(transparent)]
    Name(#[from] BadName),
}

impl ContactError {
    /// The page that says what to do.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Refused { .. } => Some("KW0701"),
            Self::NoSuchScaleSet(_) | Self::Cloud(_) | Self::Name(_) => None,
        }
    }
}

/// Looks at a scale set and at all that bears a name of ours, and asks for nothing.
pub(super) async fn admit(
    hands: Hands<'_>,
    set: &ScaleSetId,
    names: &Names,
    pools: &Pools,
    nodes: &Nodes,
) -> Result<(ScaleSet, Vec<Instance>), ContactError> {
    let refused = |why: String| Err(ContactError::Refused { set: set.name().to_owned(), why });
    if let Some((pool, _)) = pools.iter().find(|(_, of_pool)| of_pool == set) {
        return refused(format!("it is the scale set of pool {pool}"));
    }
    let found = hands.cloud.scale_set(set).await?.ok_or_else(|| ContactError::NoSuchScaleSet(set.clone()))?;
    if found.tags.get(TAG).map(String::as_str) != Some("true") {
        return refused(format!("it does not carry the tag {TAG}: true"));
    }
    if found.upgrade_mode != UpgradeMode::Manual {
        return refused(
            "its upgrade policy is not Manual, so a change of its model would replace instances".to_owned(),
        );
    }
    let instances = hands.cloud.instances(set, found.orchestration).await?;
    let members = Members::of(set, instances.iter().map(|instance| instance.id.clone()));
    if let Some((node, _)) = nodes.iter().find(|(_, provider_id)| members.instance(provider_id).is_some()) {
        return refused(format!("node {node} of the cluster is one of its instances"));
    }
    for thing in names.things() {
        if let Some((_, false)) = hands.look(&thing).await? {
            return refused(format!("{} is there and was not made by kamino-wf", thing.words()));
        }
    }
    Ok((found, instances))
}
