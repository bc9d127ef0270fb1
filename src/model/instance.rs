//! Instances of scale sets, and who belongs to one.

use std::{collections::BTreeSet, fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{BadName, ResourceId, ScaleSetId, parent};

resource_id!(
    /// An instance of a Uniform scale set: a child of it.
    UniformId,
    "Microsoft.Compute/virtualMachineScaleSets/virtualMachines",
    "expected the id of a Uniform scale set's instance, .../virtualMachineScaleSets/<name>/virtualMachines/<number>"
);
resource_id!(
    /// A virtual machine of its own: an instance of a Flexible scale set, or one that stands alone.
    MachineId,
    "Microsoft.Compute/virtualMachines",
    "expected the id of a virtual machine, .../Microsoft.Compute/virtualMachines/<name>"
);

impl UniformId {
    /// The scale set that the instance belongs to.
    #[must_use]
    pub fn scale_set(&self) -> ScaleSetId {
        ScaleSetId(ResourceId { text: parent(self.as_str()) })
    }
}

/// An instance of a scale set. Its id says which of the two kinds it is, and is stored as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum InstanceId {
    /// A child of its scale set, which its id names.
    Uniform(UniformId),
    /// A virtual machine of its own. Which scale set it belongs to, if any, only Azure knows.
    Flexible(MachineId),
}

impl InstanceId {
    /// Parses an id and checks its kind.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        const EXPECTED: &str = "expected the id of a scale set's instance, \
                                .../virtualMachineScaleSets/<name>/virtualMachines/<number> or .../virtualMachines/<name>";
        UniformId::parse(text)
            .map(Self::Uniform)
            .or_else(|_| MachineId::parse(text).map(Self::Flexible))
            .map_err(|_| BadName::new("InstanceId", text, EXPECTED))
    }

    /// The untyped id.
    #[must_use]
    pub fn id(&self) -> &ResourceId {
        match self {
            Self::Uniform(id) => id.id(),
            Self::Flexible(id) => id.id(),
        }
    }
}

impl Deref for InstanceId {
    type Target = ResourceId;
    fn deref(&self) -> &ResourceId {
        self.id()
    }
}
impl TryFrom<String> for InstanceId {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}
impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.as_str().to_owned()
    }
}
impl FromStr for InstanceId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::parse(text)
    }
}
impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

/// Who belongs to a scale set: what tells its nodes from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    scale_set: ScaleSetId,
    machines: BTreeSet<MachineId>,
}

impl Members {
    /// Instances of a Uniform scale set say themselves that they belong to it; those of a Flexible one are `listed`.
    #[must_use]
    pub fn of(scale_set: &ScaleSetId, listed: impl IntoIterator<Item = InstanceId>) -> Self {
        let machine = |id| match id {
            InstanceId::Uniform(_) => None,
            InstanceId::Flexible(id) => Some(id),
        };
        Self { scale_set: scale_set.clone(), machines: listed.into_iter().filter_map(machine).collect() }
    }

    /// The instance that a node is by its providerID, if it belongs to the scale set. Its name says nothing.
    #[must_use]
    pub fn instance(&self, provider_id: &str) -> Option<InstanceId> {
        let id = InstanceId::parse(provider_id).ok()?;
        let ours = match &id {
            InstanceId::Uniform(id) => id.scale_set() == self.scale_set,
            InstanceId::Flexible(id) => self.machines.contains(id),
        };
        ours.then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPUTE: &str =
        "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/K8S/providers/Microsoft.Compute";

    fn instance(rest: &str) -> InstanceId {
        InstanceId::parse(&format!("{COMPUTE}/{rest}")).expect("an instance")
    }

    #[test]
    fn an_id_says_which_kind_of_instance_it_is_in_any_case() {
        for (rest, uniform) in
            [("virtualMachineScaleSets/pool1/virtualMachines/3", true), ("virtualMachines/pool1_3f2a", false)]
        {
            let id = instance(rest);
            assert_eq!(matches!(&id, InstanceId::Uniform(_)), uniform, "{id}");
            assert_eq!(id, InstanceId::parse(&id.as_str().to_lowercase()).expect("the same instance"));
        }
        for rest in ["virtualMachineScaleSets/pool1", "disks/d", "virtualMachines/v/extensions/e"] {
            let error = InstanceId::parse(&format!("{COMPUTE}/{rest}")).expect_err(rest);
            assert!(error.to_string().contains("virtualMachines/<name>"), "{error}");
        }
    }

    /// Stores of earlier releases hold ids of Uniform instances as plain texts.
    #[test]
    fn an_instance_is_stored_as_its_id_as_it_was_written() {
        for rest in ["virtualMachineScaleSets/pool1/virtualMachines/3", "virtualMachines/Pool1_3f2a"] {
            let id = instance(rest);
            let stored = serde_json::to_value(&id).expect("JSON");
            assert_eq!(stored, serde_json::json!(format!("{COMPUTE}/{rest}")));
            assert_eq!(serde_json::from_value::<InstanceId>(stored).expect("it reads"), id);
        }
        assert!(serde_json::from_value::<InstanceId>(serde_json::json!(format!("{COMPUTE}/disks/d"))).is_err());
    }

    #[test]
    fn only_those_who_belong_to_a_scale_set_are_its_members() {
        let set = ScaleSetId::parse(&format!("{COMPUTE}/virtualMachineScaleSets/pool1")).expect("an id");
        let ours = instance("virtualMachines/pool1_3f2a");
        let members = Members::of(&set, [ours.clone()]);
        assert_eq!(members.instance(&ours.as_str().to_lowercase()), Some(ours));
        let uniform = instance("virtualMachineScaleSets/POOL1/virtualMachines/3");
        assert_eq!(members.instance(uniform.as_str()), Some(uniform));
        for other in ["virtualMachines/pool1_4b", "virtualMachineScaleSets/xpool1/virtualMachines/3", "disks/d"] {
            assert_eq!(members.instance(&format!("{COMPUTE}/{other}")), None, "{other}");
        }
        assert_eq!(members.instance(""), None, "a node that nobody has given a providerID yet");
    }
}
