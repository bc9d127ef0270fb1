//! The list of rights, beside the workflow whose steps it names and the page that is made from it.

use std::{fs, path::Path};

use kamino_wf::{
    permissions::{AZURE, KUBERNETES},
    workflow::{LIVE, plan},
};

/// Steps of the design that no plan has yet.
const TO_COME: [&str; 1] = ["CanaryNode"];
/// What is no step and needs rights all the same.
const NO_STEPS: [&str; 2] = ["the daemon", "the janitor"];

#[test]
fn rights_are_for_steps_that_there_are() {
    let planned: Vec<String> = plan(LIVE).into_iter().map(|step| step.name).collect();
    let known =
        |step: &&str| planned.iter().any(|name| name == step) || TO_COME.contains(step) || NO_STEPS.contains(step);
    let named = KUBERNETES.iter().map(|right| right.steps).chain(AZURE.iter().map(|right| right.steps));
    let unknown: Vec<&str> =
        named.flatten().filter(|step| !known(step) && !step.starts_with("every")).copied().collect();
    assert!(unknown.is_empty(), "no such step: {unknown:?}");
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/permissions.md");
    let expected = kamino_wf::permissions::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).expect("docs can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/permissions.md is stale: UPDATE_DOCS=1 cargo test --test permissions");
}
