//! The workflow, top to bottom, as data. Order, names and versions are stored format: see docs/adr/0003 before changing one.

use super::{
    run::PlannedStep,
    spec::RunSpec,
    step::{Affects, AnyStep, Decides},
};
use crate::model::{Attach, Capture};
use crate::policy::canary::Canary;
use crate::steps::{
    AttachCopy, AwaitNode, CanaryNode, ChooseHelper, ChooseNames, CleanCopy, CleanDisk, CopyDisk, CreateVersion,
    DeleteTemporaries, DetachCopy, DrainNode, EnsureDefinition, EnsureGallery, FreeCopy, HoldNode, PatchModel,
    PlanPrune, PlanScaleOut, Preflight, PruneVersions, PublishVersion, RankNodes, ReadModel, ReadNode, ReleaseNode,
    ScaleOut, SnapshotDisk, StartVm, StopVm, VerifyVersion, WithdrawVersion,
};

/// What a failure in a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The run ends; what was made stays, and nothing of it costs anything.
    Stop,
    /// The run goes back and takes away what it made.
    Undo,
    /// There is no way back: a person is asked, and the run goes on from there.
    Forward,
    /// There is no way back and none past it: as `Forward`, and neither a cancel nor a pause comes before it is done.
    Insist,
    /// The update has succeeded already: it is reported, and the run goes on.
    Report,
}

/// Some steps with one answer to failure.
#[derive(Debug)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What a failure in it does.
    pub on_failure: OnFailure,
    /// Its steps, in order.
    pub steps: &'static [&'static dyn AnyStep],
}

impl Stage {
    /// Whether a step is its first: before that one has asked for anything, nothing of the stage has happened.
    #[must_use]
    pub fn begins_with(&self, step: &dyn AnyStep) -> bool {
        self.steps.first().is_some_and(|first| first.name() == step.name())
    }
}

/// Reads only. What is decided here is stored, and never decided again in this run.
const CHOOSE: Stage = Stage {
    name: "choose",
    on_failure: OnFailure::Stop,
    steps: &[&Decides(Preflight), &Decides(RankNodes), &Decides(ChooseNames)],
};
/// Before the capture, so that a refusal here costs nothing.
const PREPARE: Stage = Stage {
    name: "prepare",
    on_failure: OnFailure::Stop,
    steps: &[&Affects(EnsureGallery), &Affects(EnsureDefinition)],
};
/// Slow, and invisible: the version is excluded from latest.
const PUBLISH: Stage =
    Stage { name: "publish", on_failure: OnFailure::Undo, steps: &[&Affects(CreateVersion), &Decides(VerifyVersion)] };
/// The point of no return: new nodes start from the new image.
const SWITCH: Stage = Stage {
    name: "switch",
    on_failure: OnFailure::Forward,
    steps: &[&Affects(PublishVersion), &Decides(ReadModel), &Affects(PatchModel)],
};
/// The update has succeeded already.
const TIDY: Stage = Stage {
    name: "tidy",
    on_failure: OnFailure::Report,
    steps: &[
        &Affects(DeleteTemporaries),
        &Decides(PlanPrune),
        &Affects(PruneVersions),
        &Decides(PlanScaleOut),
        &Affects(ScaleOut),
    ],
};

/// For pools that ask for it: the first node that is made from the version is watched. The scale set grows before, since what it
/// grows by is what tries the version; what is old goes after, since it is the way back. A wait that ends without a verdict is
/// reported: the update itself has succeeded.
const CANARY: Stage = Stage {
    name: "canary",
    on_failure: OnFailure::Report,
    steps: &[&Decides(PlanScaleOut), &Affects(ScaleOut), &Affects(AwaitNode), &Affects(CanaryNode)],
};
/// Every new node is a bad one until this is done.
const WITHDRAW: Stage = Stage { name: "withdraw", on_failure: OnFailure::Insist, steps: &[&Affects(WithdrawVersion)] };
/// As `TIDY`; the scale set has grown before.
const TIDY_AFTER_CANARY: Stage = Stage {
    name: "tidy",
    on_failure: OnFailure::Report,
    steps: &[&Affects(DeleteTemporaries), &Decides(PlanPrune), &Affects(PruneVersions)],
};
/// The donor goes on working: all that is written is a snapshot and a copy of our own.
const CAPTURE_LIVE: Stage = Stage {
    name: "capture",
    on_failure: OnFailure::Undo,
    steps: &[&Affects(SnapshotDisk), &Affects(CopyDisk), &Affects(CleanCopy), &Affects(DetachCopy)],
};
/// The same without a disk driver in the cluster: the copy is attached to another node of the pool.
const CAPTURE_ATTACHED: Stage = Stage {
    name: "capture",
    on_failure: OnFailure::Undo,
    steps: &[
        &Decides(ChooseHelper),
        &Affects(SnapshotDisk),
        &Affects(CopyDisk),
        &Affects(AttachCopy),
        &Affects(CleanCopy),
        &Affects(DetachCopy),
        &Affects(FreeCopy),
    ],
};
/// The donor is out of service from `HoldNode` to `ReleaseNode`.
const CAPTURE_STOP: Stage = Stage {
    name: "capture",
    on_failure: OnFailure::Undo,
    steps: &[
        &Decides(ReadNode),
        &Affects(HoldNode),
        &Affects(DrainNode),
        &Affects(CleanDisk),
        &Affects(StopVm),
        &Affects(SnapshotDisk),
        &Affects(StartVm),
        &Affects(ReleaseNode),
    ],
};

/// `capture: live`: the donor is only read.
pub static LIVE: &[Stage] = &[CHOOSE, PREPARE, CAPTURE_LIVE, PUBLISH, SWITCH, TIDY];

/// `capture: stop`: the donor is out of service from `HoldNode` to `ReleaseNode`, and whatever happens in between, it is
/// given back first.
pub static STOP: &[Stage] = &[CHOOSE, PREPARE, CAPTURE_STOP, PUBLISH, SWITCH, TIDY];

/// `LIVE`, and the version's first node is watched.
pub static LIVE_CANARY: &[Stage] =
    &[CHOOSE, PREPARE, CAPTURE_LIVE, PUBLISH, SWITCH, CANARY, WITHDRAW, TIDY_AFTER_CANARY];

/// `LIVE`, in a cluster without a disk driver.
pub static ATTACHED: &[Stage] = &[CHOOSE, PREPARE, CAPTURE_ATTACHED, PUBLISH, SWITCH, TIDY];

/// `ATTACHED`, and the version's first node is watched.
pub static ATTACHED_CANARY: &[Stage] =
    &[CHOOSE, PREPARE, CAPTURE_ATTACHED, PUBLISH, SWITCH, CANARY, WITHDRAW, TIDY_AFTER_CANARY];

/// `STOP`, and the version's first node is watched.
pub static STOP_CANARY: &[Stage] =
    &[CHOOSE, PREPARE, CAPTURE_STOP, PUBLISH, SWITCH, CANARY, WITHDRAW, TIDY_AFTER_CANARY];

/// The list of a run: what it was asked to do says which.
#[must_use]
pub fn stages(spec: &RunSpec) -> &'static [Stage] {
    match (spec.capture, &spec.attach, spec.canary) {
        (Capture::Live, Attach::Csi, Canary::None) => LIVE,
        (Capture::Live, Attach::Csi, Canary::FirstNode(_)) => LIVE_CANARY,
        (Capture::Live, Attach::Instance { .. }, Canary::None) => ATTACHED,
        (Capture::Live, Attach::Instance { .. }, Canary::FirstNode(_)) => ATTACHED_CANARY,
        (Capture::Stop, _, Canary::None) => STOP,
        (Capture::Stop, _, Canary::FirstNode(_)) => STOP_CANARY,
    }
}

/// The plan that a new run stores.
#[must_use]
pub fn plan(stages: &[Stage]) -> Vec<PlannedStep> {
    stages
        .iter()
        .flat_map(|stage| stage.steps)
        .map(|step| PlannedStep { name: step.name().to_owned(), version: step.version() })
        .collect()
}

/// The step that a stored plan means, and its stage; `None` when this release doesn't have it.
#[must_use]
pub fn find(stages: &'static [Stage], planned: &PlannedStep) -> Option<(&'static Stage, &'static dyn AnyStep)> {
    stages.iter().find_map(|stage| {
        let step = stage.steps.iter().find(|step| step.name() == planned.name && step.version() == planned.version)?;
        Some((stage, *step))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_list_is_as_documented() {
        let lists = [
            ("live", LIVE),
            ("stop", STOP),
            ("live_canary", LIVE_CANARY),
            ("stop_canary", STOP_CANARY),
            ("attached", ATTACHED),
            ("attached_canary", ATTACHED_CANARY),
        ];
        for (capture, stages) in lists {
            let names: Vec<String> = plan(stages).into_iter().map(|step| step.name).collect();
            let mut unique = names.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), names.len());
            let text: Vec<String> = stages
                .iter()
                .map(|stage| {
                    let steps: Vec<String> = stage.steps.iter().map(|step| format!("{step:?}")).collect();
                    format!("{} ({:?}): {}", stage.name, stage.on_failure, steps.join(", "))
                })
                .collect();
            insta::assert_snapshot!(capture, text.join("\n"));
        }
    }

    #[test]
    fn all_that_a_list_owes_its_later_steps_pay_and_nothing_else_owes() {
        for stages in [LIVE, STOP, LIVE_CANARY, STOP_CANARY, ATTACHED, ATTACHED_CANARY] {
            let steps: Vec<&dyn AnyStep> = stages.iter().flat_map(|stage| stage.steps).copied().collect();
            for (at, step) in steps.iter().enumerate().filter(|(_, step)| !step.owes().is_empty()) {
                let mut paid: Vec<_> = steps[at + 1..].iter().flat_map(|later| later.pays()).collect();
                paid.sort();
                assert_eq!(paid, step.owes().iter().collect::<Vec<_>>(), "{}", step.name());
            }
        }
    }
}
