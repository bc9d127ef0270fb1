//! What a run makes, changes and takes away, by name.

use super::{Change, Object};
use crate::{
    cloud::{ImageRef, ScaleSet},
    model::{Bootstrap, Capture, DefinitionId, NodeName},
    steps::Names,
    workflow::RunSpec,
};

/// Names end in the run's own digits; these are those of no run.
pub(super) const NO_RUN: &str = "000000000000";
const SOME_RUN: &str = "<run>";

fn object(kind: &'static str, name: &str, why: &str) -> Object {
    Object { kind, name: name.replace(NO_RUN, SOME_RUN), why: why.to_owned() }
}

/// Which of what stays is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) gallery: bool,
    pub(super) definition: bool,
}

/// What would be made, in order.
pub(super) fn creates(spec: &RunSpec, names: &Names, missing: Missing, donor: &NodeName) -> Vec<Object> {
    let mut all = Vec::new();
    if missing.gallery {
        all.push(object("gallery", spec.gallery.name(), "it is not there yet"));
    }
    if missing.definition {
        all.push(object("image definition", &spec.definition, "it is not there yet"));
    }
    let inside = format!("{}/{}", spec.clean_namespace, names.cleaning);
    match spec.capture {
        Capture::Live => {
            all.push(object("snapshot", names.snapshot.name(), "of the donor's OS disk"));
            all.push(object("disk", names.disk.name(), "the copy that is cleaned"));
            if !spec.attach.is_csi() {
                all.push(object("data disk", names.disk.name(), "of the machine of another node, until it is clean"));
            }
            all.push(object("volume", &names.cleaning, "the copy, for the pod"));
            all.push(object("claim", &inside, "the same"));
            all.push(object("pod", &inside, "cleans the copy"));
        }
        Capture::Stop => {
            all.push(object("cordon", donor.as_str(), "with a claim on the node, before it is drained"));
            all.push(object("pod", &inside, "cleans the donor from inside; then it is switched off"));
            all.push(object("snapshot", names.snapshot.name(), "of the donor's OS disk, while it is off"));
        }
    }
    all.push(object("version", names.version.name(), "what new nodes are made from"));
    all
}

/// What would be taken away again.
pub(super) fn temporaries(spec: &RunSpec, names: &Names, donor: &NodeName) -> Vec<Object> {
    let inside = format!("{}/{}", spec.clean_namespace, names.cleaning);
    match spec.capture {
        Capture::Live => vec![
            object("pod", &inside, "when it has cleaned"),
            object("claim", &inside, "likewise"),
            object("volume", &names.cleaning, "likewise"),
            object("disk", names.disk.name(), "when the version is proved"),
            object("snapshot", names.snapshot.name(), "likewise"),
        ],
        Capture::Stop => vec![
            object("pod", &inside, "when the donor is off"),
            object("cordon", donor.as_str(), "when the donor is really back, with all that was written on the node"),
            object("snapshot", names.snapshot.name(), "when the version is proved"),
        ],
    }
}

/// What would be different in the model; nothing where the scale set follows the definition already.
pub(super) fn model(set: &ScaleSet, definition: &DefinitionId, bootstrap: Bootstrap, gone: &[String]) -> Vec<Change> {
    let change = |field: &str, from: String, to: String| Change { field: field.to_owned(), from, to };
    let wanted = ImageRef::Definition(definition.clone());
    if set.image == wanted {
        return Vec::new();
    }
    let from = match &set.image {
        ImageRef::Definition(id) => id.to_string(),
        ImageRef::Version(id) => id.to_string(),
        ImageRef::Other(text) => text.clone(),
    };
    let mut changes = vec![change("storageProfile.imageReference", from, definition.to_string())];
    if bootstrap == Bootstrap::Disk {
        let hidden = "whatever it says; Azure shows it to nobody".into();
        changes.push(change("osProfile.customData", hidden, "#cloud-config, and nothing to do".into()));
    }
    for name in gone {
        let handler = set.extensions.iter().find(|it| it.name == *name).map_or("", |it| it.handler.as_str());
        changes.push(change(&format!("extensionProfile.extensions.{name}"), handler.to_owned(), "gone".into()));
    }
    changes
}
