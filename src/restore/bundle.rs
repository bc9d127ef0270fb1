//! The operator's file with what can't be read back. Nothing of its values is in any message.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cloud::Restoration;

/// Azure takes 64 KiB of custom data; the rest are extensions.
const SIZE_MAX: usize = 1 << 20;
/// Of custom data, decoded: Azure's own limit (virtual machine documents, "custom data").
const CUSTOM_DATA_MAX: usize = 64 << 10;

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("take the bundle: {0}; docs/restore.md shows one")]
pub struct BadBundle(String);

fn bad<T>(words: impl Into<String>) -> Result<T, BadBundle> {
    Err(BadBundle(words.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    version: u32,
    image_reference: Map<String, Value>,
    custom_data: Option<String>,
    #[serde(default)]
    extensions: Vec<Extension>,
}

#[derive(Deserialize)]
struct Extension {
    name: String,
    properties: Map<String, Value>,
}

/// Reads a bundle, YAML or JSON.
///
/// # Errors
/// [`BadBundle`], which names the field and what is expected there, and none of the values.
pub fn parse(text: &str) -> Result<Restoration, BadBundle> {
    if text.len() > SIZE_MAX {
        return bad(format!("it has {} bytes, expected at most {SIZE_MAX}", text.len()));
    }
    // In two steps: what a parser says of a value would show it.
    let value: Value = match serde_saphyr::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let place = error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
            return bad(format!("it is neither YAML nor JSON{place}"));
        }
    };
    let file: File = match serde_json::from_value(value) {
        Ok(file) => file,
        Err(error) => {
            let words = error.to_string();
            let harmless = ["unknown field", "missing field"].iter().any(|start| words.starts_with(start));
            return bad(if harmless { words } else { "a field has another form than it should".to_owned() });
        }
    };
    let File { version, image_reference, custom_data, extensions } = file;
    if version != 1 {
        return bad(format!("version is {version}: this release reads version 1"));
    }
    let says = |field: &str| image_reference.get(field).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let platform = ["publisher", "offer", "sku", "version"].iter().all(|field| says(field));
    if !(says("id") || says("sharedGalleryImageId") || says("communityGalleryImageId") || platform) {
        return bad("imageReference needs id, or publisher, offer, sku and version");
    }
    if let Some(data) = &custom_data {
        match STANDARD.decode(data.trim()) {
            Ok(bytes) if bytes.len() <= CUSTOM_DATA_MAX => {}
            Ok(bytes) => {
                return bad(format!("customData has {} bytes, expected at most {CUSTOM_DATA_MAX}", bytes.len()));
            }
            Err(_) => return bad("customData is not base64: put in the output of `base64 --wrap 0`"),
        }
    }
    let mut names = BTreeSet::new();
    for Extension { name, properties } in &extensions {
        if !names.insert(name.to_ascii_lowercase()) {
            return bad(format!("extension {name} is there twice"));
        }
        for field in ["publisher", "type"] {
            if !properties.get(field).is_some_and(Value::is_string) {
                return bad(format!("extension {name} has no properties.{field}"));
            }
        }
    }
    let extensions =
        extensions.into_iter().map(|Extension { name, properties }| (name, Value::Object(properties))).collect();
    Ok(Restoration { image_reference, custom_data: custom_data.map(|data| data.trim().to_owned()), extensions })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
version: 1
imageReference: { publisher: Canonical, offer: ubuntu-24_04-lts, sku: server, version: latest }
customData: I2Nsb3VkLWNvbmZpZwo=
extensions:
- name: vmssCSE
  properties: { publisher: Microsoft.Azure.Extensions, type: CustomScript, protectedSettings: { commandToExecute: s3cret } }
";

    #[test]
    fn a_good_one_says_all_that_goes_back() {
        let Restoration { image_reference, custom_data, extensions } = parse(GOOD).expect("a good bundle");
        assert_eq!(image_reference["sku"], "server");
        assert_eq!(custom_data.as_deref(), Some("I2Nsb3VkLWNvbmZpZwo="));
        assert_eq!(extensions["vmssCSE"]["protectedSettings"]["commandToExecute"], "s3cret");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is_shown() {
        let rows = [
            ("version: 1", "version: 2", "this release reads version 1"),
            ("customData: I2Nsb3VkLWNvbmZpZwo=", "customData: s3cret!", "customData is not base64"),
            ("customData: I2Nsb3VkLWNvbmZpZwo=", "custom: s3cret", "unknown field `custom`"),
            ("customData: I2Nsb3VkLWNvbmZpZwo=", "customData: [s3cret]", "another form"),
            (", sku: server", "", "imageReference needs id"),
            ("publisher: Microsoft.Azure.Extensions, ", "", "extension vmssCSE has no properties.publisher"),
            (
                "extensions:\n",
                "extensions:\n- { name: VMSScse, properties: { publisher: a, type: b } }\n",
                "is there twice",
            ),
            ("version: 1", "version: 1\n  s3cret: [", "neither YAML nor JSON at line"),
        ];
        for (from, to, words) in rows {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let error = parse(&text).expect_err(to).to_string();
            assert!(error.contains(words) && !error.contains("s3cret"), "{to}: {error}");
        }
        let long = GOOD.replace("I2Nsb3VkLWNvbmZpZwo=", &"A".repeat(100_000));
        assert!(parse(&long).expect_err("too long").to_string().contains("expected at most 65536"));
    }
}
