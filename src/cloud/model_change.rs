//! The change of a scale set's model, as JSON in and JSON out: what to send, and what may differ afterwards.
//!
//! Raw JSON because typed models lose fields. One PATCH with the complete live storage profile, because a partial one has
//! erased data disks and reset OS disk settings (Azure/azure-rest-api-specs#10373, #13164); then a diff of the whole model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::{DefinitionId, RunId, ScaleSetId};

/// What the model shall say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelChange {
    /// The scale set.
    pub scale_set: ScaleSetId,
    /// The run, for Azure's correlation id.
    pub run: RunId,
    /// The definition that new instances shall follow.
    pub image: DefinitionId,
    /// Replace custom data by one that does nothing: the disk bootstraps the node.
    pub empty_custom_data: bool,
    /// Extensions that must go, by name. Those kept are sent along, as Azure shows them.
    pub remove_extensions: Vec<String>,
    /// The etag of the model that was found good: a model that has another one by now has to be looked at again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
}

/// `#cloud-config\n` in base64: custom data can't be removed, only replaced.
const NOTHING_TO_DO: &str = "I2Nsb3VkLWNvbmZpZwo=";

/// Fields of an image reference that name an image, in one way or another.
const NAMES: [&str; 7] =
    ["id", "publisher", "offer", "sku", "version", "sharedGalleryImageId", "communityGalleryImageId"];

/// Parts of an OS disk that Azure shows and does not take back.
const OS_DISK_READ_ONLY: [&str; 3] = ["osType", "createOption", "name"];

impl ModelChange {
    /// The PATCH body for a model as it is now.
    #[must_use]
    pub fn body(&self, live: &Value) -> Value {
        let profile = &live["properties"]["virtualMachineProfile"];
        let id = Map::from_iter([("id".to_owned(), Value::from(self.image.as_str()))]);
        let image = image_reference(&profile["storageProfile"]["imageReference"], id);
        let mut machine = Map::from_iter([("storageProfile".to_owned(), storage(profile, image))]);
        if self.empty_custom_data {
            machine.insert("osProfile".into(), json!({ "customData": NOTHING_TO_DO }));
        }
        if !self.remove_extensions.is_empty() {
            let kept: Vec<&Value> = extensions(live)
                .filter(|extension| {
                    let name = extension["name"].as_str().unwrap_or_default();
                    !self.remove_extensions.iter().any(|gone| gone.eq_ignore_ascii_case(name))
                })
                .collect();
            machine.insert("extensionProfile".into(), json!({ "extensions": kept }));
        }
        let mut body = json!({ "properties": { "virtualMachineProfile": machine } });
        if let Some(policy) = upgrade_policy(live) {
            body["properties"]["upgradePolicy"] = policy.clone();
        }
        body
    }

    /// Whether a model as it is now is another than the one that was found good. One without an etag can't be told.
    #[must_use]
    pub fn outdated(&self, live: &Value) -> bool {
        self.under.as_deref().zip(live["etag"].as_str()).is_some_and(|(seen, now)| seen != now)
    }

    /// Whether `pointer`, a part of the model that differs from before, is one that this change was to touch.
    #[must_use]
    pub fn allows(&self, pointer: &str) -> bool {
        pointer.starts_with("/properties/virtualMachineProfile/storageProfile/imageReference")
            || (!self.remove_extensions.is_empty()
                && pointer.starts_with("/properties/virtualMachineProfile/extensionProfile"))
    }
}

/// The whole storage profile as it is, with another image reference.
pub(super) fn storage(profile: &Value, image_reference: Value) -> Value {
    let mut storage = profile["storageProfile"].as_object().cloned().unwrap_or_default();
    if let Some(disk) = storage.get_mut("osDisk").and_then(Value::as_object_mut) {
        for field in OS_DISK_READ_ONLY {
            disk.remove(field);
        }
    }
    storage.insert("imageReference".into(), image_reference);
    Value::Object(storage)
}

/// An image reference, and an explicit null for each field that names another image: whether Azure merges or replaces an
/// image reference in a PATCH, none of them stays (docs/ASSUMPTIONS.md).
pub(super) fn image_reference(live: &Value, mut wanted: Map<String, Value>) -> Value {
    for field in NAMES {
        if live.get(field).is_some_and(|value| !value.is_null()) && !wanted.contains_key(field) {
            wanted.insert(field.to_owned(), Value::Null);
        }
    }
    Value::Object(wanted)
}

/// The upgrade policy as it is. A Flexible scale set may have none, and keeps having none.
pub(super) fn upgrade_policy(live: &Value) -> Option<&Value> {
    live.pointer("/properties/upgradePolicy").filter(|policy| !policy.is_null())
}

pub(super) fn extensions(live: &Value) -> impl Iterator<Item = &Value> {
    live["properties"]["virtualMachineProfile"]["extensionProfile"]["extensions"].as_array().into_iter().flatten()
}

/// A short hash for each part of a model: says what changed, and holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub BTreeMap<String, String>);

/// How deep parts are told apart: `/properties/virtualMachineProfile/storageProfile/osDisk` is four.
const DEPTH: usize = 4;

/// Parts that change by themselves, or that others may change: state, etag, and the capacity that is the autoscaler's.
const VOLATILE: [&str; 6] = [
    "/etag",
    "/systemData",
    "/properties/provisioningState",
    "/properties/timeCreated",
    "/sku/capacity",
    "/properties/uniqueId",
];

impl Fingerprint {
    /// The fingerprint of a model as Azure shows it.
    #[must_use]
    pub fn of(model: &Value) -> Self {
        let mut parts = BTreeMap::new();
        collect("", model, 0, &mut parts);
        Self(parts)
    }

    /// The parts that differ, as JSON pointers.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Vec<String> {
        let keys: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }
}

fn collect(pointer: &str, value: &Value, depth: usize, parts: &mut BTreeMap<String, String>) {
    if VOLATILE.contains(&pointer) || value.is_null() {
        return;
    }
    match value {
        Value::Object(fields) if depth < DEPTH => {
            for (name, field) in fields {
                collect(&format!("{pointer}/{name}"), field, depth + 1, parts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            let hash = Sha256::digest(value.to_string().as_bytes());
            let number = u64::from_be_bytes([0, 0, hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]]);
            parts.insert(pointer.to_owned(), format!("{number:012x}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Value {
        json!({
            "etag": "\"7\"",
            "sku": { "name": "Standard_D4s_v5", "capacity": 3 },
            "properties": {
                "provisioningState": "Succeeded",
                "upgradePolicy": { "mode": "Manual" },
                "virtualMachineProfile": {
                    "storageProfile": {
                        "osDisk": { "osType": "Linux", "createOption": "FromImage", "caching": "ReadOnly", "diskSizeGB": 64,
                                    "managedDisk": { "storageAccountType": "Premium_LRS" } },
                        "dataDisks": [{ "lun": 0 }],
                        "imageReference": { "publisher": "Canonical", "offer": "o", "sku": "s", "version": "latest" },
                    },
                    "extensionProfile": { "extensions": [{ "name": "cse" }, { "name": "billing" }] },
                }
            }
        })
    }

    fn change() -> ModelChange {
        let id = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute";
        ModelChange {
            scale_set: ScaleSetId::parse(&format!("{id}/virtualMachineScaleSets/pool1")).expect("an id"),
            run: RunId(uuid::Uuid::nil()),
            image: DefinitionId::parse(&format!("{id}/galleries/protos/images/pool1")).expect("an id"),
            empty_custom_data: true,
            remove_extensions: vec!["CSE".into()],
            under: None,
        }
    }

    #[test]
    fn the_body_carries_the_whole_storage_profile_and_nothing_that_is_others() {
        insta::assert_json_snapshot!(change().body(&live()));
    }

    #[test]
    fn kubeadm_pools_keep_custom_data_and_extensions() {
        let body = ModelChange { empty_custom_data: false, remove_extensions: vec![], ..change() }.body(&live());
        let machine = body["properties"]["virtualMachineProfile"].as_object().expect("a profile");
        assert_eq!(machine.keys().collect::<Vec<_>>(), ["storageProfile"]);
    }

    #[test]
    fn a_model_without_an_upgrade_policy_gets_none() {
        let mut flexible = live();
        flexible["properties"].as_object_mut().expect("properties").remove("upgradePolicy");
        let body = change().body(&flexible);
        assert_eq!(
            body["properties"].as_object().expect("properties").keys().collect::<Vec<_>>(),
            ["virtualMachineProfile"]
        );
    }

    #[test]
    fn a_model_that_was_changed_since_it_was_found_good_is_outdated() {
        let under = |etag: Option<&str>| ModelChange { under: etag.map(str::to_owned), ..change() };
        assert!(under(Some("\"6\"")).outdated(&live()));
        assert!(!under(Some("\"7\"")).outdated(&live()) && !under(None).outdated(&live()));
        let mut bare = live();
        bare["etag"] = Value::Null;
        assert!(!under(Some("\"6\"")).outdated(&bare), "without etags there is nothing to compare");
    }

    #[test]
    fn the_diff_names_what_changed_and_ignores_what_changes_by_itself() {
        let before = Fingerprint::of(&live());
        let mut after = live();
        after["etag"] = json!("\"8\"");
        after["sku"]["capacity"] = json!(9);
        assert!(before.diff(&Fingerprint::of(&after)).is_empty());
        after["properties"]["virtualMachineProfile"]["storageProfile"]["osDisk"]["caching"] = json!("None");
        let diff = before.diff(&Fingerprint::of(&after));
        assert_eq!(diff, ["/properties/virtualMachineProfile/storageProfile/osDisk"]);
        assert!(!change().allows(&diff[0]));
    }
}
