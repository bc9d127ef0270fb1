//! What a run that is abandoned may leave, by name: for whoever takes it away.

use super::run::{Position, Run};
use crate::steps::{Helper, Names};

/// What may be there of an open run's making, now. Gallery and definition are not among it: they stay after every run.
#[must_use]
pub fn left(run: &Run) -> Vec<String> {
    let names = run.outputs.get("ChooseNames").and_then(|names| serde_json::from_value::<Names>(names.clone()).ok());
    let Some(Names { snapshot, disk, cleaning, version, .. }) = names else { return Vec::new() };
    let at = |step: &str| run.plan.iter().position(|planned| planned.name == step);
    let undone_from = match run.position() {
        Some(Position::Back { step, .. }) => step + 1,
        Some(Position::Forward { .. } | Position::Paying(_)) => run.plan.len(),
        None => return Vec::new(),
    };
    let may_be = |step: &str| run.asked.contains(step) && at(step).is_some_and(|at| at < undone_from);
    let done = |step: &str| run.outputs.contains_key(step);
    let helper = run.outputs.get("ChooseHelper").and_then(|it| serde_json::from_value::<Helper>(it.clone()).ok());
    let attached =
        helper.map_or_else(String::new, |it| format!("that disk attached to {}, lun {}", it.instance, it.lun));
    let set = &run.spec.scale_set;
    let (place, temporary) = (&run.spec.clean_namespace, !done("DeleteTemporaries"));
    [
        (temporary && may_be("SnapshotDisk"), format!("snapshot {snapshot}")),
        (temporary && may_be("CopyDisk"), format!("disk {disk}")),
        (may_be("AttachCopy") && !done("FreeCopy"), attached),
        (may_be("CleanCopy") && !done("DetachCopy"), format!("pod, claim and volume {cleaning} in namespace {place}")),
        (
            may_be("CreateVersion") && !may_be("PublishVersion"),
            format!("version {version}, which new nodes do not take"),
        ),
        (may_be("PublishVersion"), format!("version {version}, which is published or about to be")),
        (may_be("PatchModel") && !done("PatchModel"), format!("the model of scale set {set}, changed or about to be")),
    ]
    .into_iter()
    .filter_map(|(there, what)| there.then_some(what))
    .collect()
}
