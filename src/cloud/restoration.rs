//! The reverse of a model change, as JSON in and JSON out: what a model said before its first update.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

use super::model_change::{extensions, image_reference, storage, upgrade_policy};

/// What goes back into a model. Some of it is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Restoration {
    /// What new instances were made from, as Azure takes it.
    pub image_reference: Map<String, Value>,
    /// In base64.
    pub custom_data: Option<String>,
    /// Extensions by name, each with its properties.
    pub extensions: BTreeMap<String, Value>,
}

/// Without values.
impl fmt::Debug for Restoration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restoration").field("extensions", &self.extensions.keys()).finish_non_exhaustive()
    }
}

impl Restoration {
    /// The PATCH body for a model as it is now: its whole storage profile, and the extensions that it has besides.
    #[must_use]
    pub fn body(&self, live: &Value) -> Value {
        let profile = &live["properties"]["virtualMachineProfile"];
        let image = image_reference(&profile["storageProfile"]["imageReference"], self.image_reference.clone());
        let mut machine = Map::from_iter([("storageProfile".to_owned(), storage(profile, image))]);
        if let Some(data) = &self.custom_data {
            machine.insert("osProfile".into(), json!({ "customData": data }));
        }
        if !self.extensions.is_empty() {
            let kept = extensions(live).filter(|it| !self.has(it["name"].as_str().unwrap_or_default())).cloned();
            let back =
                self.extensions.iter().map(|(name, properties)| json!({ "name": name, "properties": properties }));
            machine.insert("extensionProfile".into(), json!({ "extensions": kept.chain(back).collect::<Vec<_>>() }));
        }
        let mut body = json!({ "properties": { "virtualMachineProfile": machine } });
        if let Some(policy) = upgrade_policy(live) {
            body["properties"]["upgradePolicy"] = policy.clone();
        }
        body
    }

    fn has(&self, name: &str) -> bool {
        self.extensions.keys().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Whether a model shows it: all of it that Azure shows.
    #[must_use]
    pub fn is_shown(&self, live: &Value) -> bool {
        let found = &live["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"];
        let same = |field: &str, value: &Value| match (value.as_str(), found[field].as_str()) {
            (Some(wanted), Some(found)) => wanted.eq_ignore_ascii_case(found),
            _ => *value == found[field],
        };
        let image = self.image_reference.iter().all(|(field, value)| same(field, value));
        // A platform image that still has the gallery's id is neither.
        let alone = self.image_reference.contains_key("id") || found["id"].is_null();
        let names: Vec<&str> = extensions(live).filter_map(|it| it["name"].as_str()).collect();
        let extensions = self.extensions.keys().all(|name| names.iter().any(|found| found.eq_ignore_ascii_case(name)));
        image && alone && extensions
    }

    /// Whether `pointer`, a part of the model that differs from before, is one that this was to touch.
    #[must_use]
    pub fn allows(&self, pointer: &str) -> bool {
        let profile = "/properties/virtualMachineProfile/";
        let part = pointer.strip_prefix(profile).unwrap_or_default();
        part.starts_with("storageProfile/imageReference")
            || !self.extensions.is_empty() && part.starts_with("extensionProfile")
    }

    /// The extensions of a model that are replaced, and those that are new to it.
    #[must_use]
    pub fn extensions_in(&self, live: &Value) -> (Vec<String>, Vec<String>) {
        let there = |name: &String| {
            extensions(live).any(|it| it["name"].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name)))
        };
        self.extensions.keys().cloned().partition(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Value {
        json!({ "properties": {
            "upgradePolicy": { "mode": "Manual" },
            "virtualMachineProfile": {
                "storageProfile": {
                    "osDisk": { "osType": "Linux", "createOption": "FromImage", "name": "n", "caching": "ReadOnly" },
                    "imageReference": { "id": "/some/definition", "exactVersion": "1.2.3" },
                },
                "extensionProfile": { "extensions": [{ "name": "billing" }, { "name": "CSE", "properties": { "old": true } }] },
            },
        } })
    }

    fn wanted() -> Restoration {
        let image_reference = json!({ "publisher": "Canonical", "offer": "u", "sku": "s", "version": "latest" });
        Restoration {
            image_reference: image_reference.as_object().expect("fields").clone(),
            custom_data: Some("c3M=".into()),
            extensions: [("cse".to_owned(), json!({ "publisher": "p" }))].into(),
        }
    }

    #[test]
    fn the_whole_storage_profile_goes_along_with_what_comes_back() {
        let body = wanted().body(&live());
        let profile = &body["properties"]["virtualMachineProfile"];
        assert_eq!(profile["storageProfile"]["osDisk"], json!({ "caching": "ReadOnly" }));
        assert_eq!(
            profile["storageProfile"]["imageReference"],
            json!({ "publisher": "Canonical", "offer": "u", "sku": "s", "version": "latest", "id": null })
        );
        assert_eq!(profile["osProfile"], json!({ "customData": "c3M=" }));
        let kept =
            json!({ "extensions": [{ "name": "billing" }, { "name": "cse", "properties": { "publisher": "p" } }] });
        assert_eq!(profile["extensionProfile"], kept);
        assert_eq!(body["properties"]["upgradePolicy"]["mode"], "Manual");
        assert_eq!(wanted().extensions_in(&live()), (vec!["cse".to_owned()], vec![]));
    }

    #[test]
    fn it_is_shown_when_image_and_extensions_are() {
        let mut model = live();
        assert!(!wanted().is_shown(&model));
        let profile = &mut model["properties"]["virtualMachineProfile"];
        profile["storageProfile"]["imageReference"] =
            json!({ "publisher": "canonical", "offer": "u", "sku": "s", "version": "latest", "exactVersion": "9" });
        assert!(wanted().is_shown(&model));
        let mut merged = model.clone();
        merged["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"]["id"] =
            "/some/definition".into();
        assert!(!wanted().is_shown(&merged), "both images are named");
        model["properties"]["virtualMachineProfile"]["extensionProfile"] = json!({ "extensions": [] });
        assert!(!wanted().is_shown(&model));
        assert!(wanted().allows("/properties/virtualMachineProfile/extensionProfile/extensions"));
        assert!(!wanted().allows("/properties/virtualMachineProfile/storageProfile/osDisk"));
        assert!(!format!("{:?}", wanted()).contains("c3M="));
    }
}
