//! `values.yaml`, its schema, and the templates speak of the same values.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{chart, chart_file};

/// A value, what it is by default, and what the comment above it says.
pub(crate) struct Documented {
    pub(crate) key: String,
    pub(crate) default: Value,
    pub(crate) about: String,
}

pub(crate) fn defaults() -> Value {
    serde_saphyr::from_str(&chart_file("values.yaml")).expect("good YAML")
}

/// The values that have a comment with `# --`, in order.
pub(crate) fn documented() -> Vec<Documented> {
    let text = chart_file("values.yaml");
    let defaults = defaults();
    let (mut found, mut path, mut about) = (Vec::new(), Vec::<(usize, String)>::new(), None::<String>);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if let Some(comment) = line.strip_prefix('#') {
            match (comment.trim_start().strip_prefix("-- "), &mut about) {
                (Some(first), _) => about = Some(first.to_owned()),
                (None, Some(about)) => *about = format!("{about} {}", comment.trim()),
                (None, None) => {}
            }
            continue;
        }
        let Some((key, _)) = line.split_once(':').filter(|_| !line.is_empty()) else {
            about = None;
            continue;
        };
        path.retain(|(outer, _)| *outer < indent);
        path.push((indent, key.to_owned()));
        if let Some(about) = about.take() {
            let keys: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).collect();
            let default = defaults.pointer(&format!("/{}", keys.join("/"))).expect("a default").clone();
            found.push(Documented { key: keys.join("."), default, about });
        }
    }
    found
}

/// Paths of the values that are set one by one.
fn leaves(at: &str, value: &Value, documented: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    match value.as_object().filter(|inner| !inner.is_empty() && !documented.contains(at)) {
        Some(inner) => {
            for (key, value) in inner {
                leaves(format!("{at}.{key}").trim_start_matches('.'), value, documented, found);
            }
        }
        None => drop(found.insert(at.to_owned())),
    }
}

#[test]
fn every_value_has_its_words() {
    let documented: BTreeSet<String> = documented().into_iter().map(|it| it.key).collect();
    let mut all = BTreeSet::new();
    leaves("", &defaults(), &documented, &mut all);
    assert_eq!(all, documented, "a comment with `# --` stands above every value, and only there");
}

#[test]
fn the_schema_knows_every_value_and_no_other() {
    fn known(at: &str, schema: &Value, found: &mut BTreeSet<String>) {
        match schema["properties"].as_object() {
            Some(properties) => {
                assert_eq!(schema["additionalProperties"], false, "{at}: unknown keys must be refused");
                for (key, schema) in properties {
                    known(format!("{at}.{key}").trim_start_matches('.'), schema, found);
                }
            }
            None => drop(found.insert(at.to_owned())),
        }
    }
    let schema: Value = serde_json::from_str(&chart_file("values.schema.json")).expect("good JSON");
    let mut in_schema = BTreeSet::new();
    known("", &schema, &mut in_schema);
    // Helm hands it to every chart below another one.
    assert!(in_schema.remove("global"));
    let documented: BTreeSet<String> = documented().into_iter().map(|it| it.key).collect();
    assert_eq!(in_schema, documented);
}

#[test]
fn every_value_is_used() {
    let mut templates = String::new();
    for folder in ["templates", "templates/tests"] {
        for entry in fs::read_dir(chart().join(folder)).expect("templates") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                templates.push_str(&fs::read_to_string(path).expect("a template"));
            }
        }
    }
    let uses = |key: &str| {
        let name = format!(".{}", key.rsplit('.').next().unwrap_or(key));
        templates.match_indices(&name).any(|(at, _)| {
            !templates[at + name.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    };
    let unused: Vec<String> = documented().into_iter().map(|it| it.key).filter(|key| !uses(key)).collect();
    assert!(unused.is_empty(), "no template uses {unused:?}");
}
