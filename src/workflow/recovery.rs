//! What to do with a stored run at start; pure.

use super::{
    plan::{find, stages},
    run::{Run, RunState},
};

/// What to do with a stored run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// At an end: nothing.
    Nothing,
    /// A person was asked: nothing before an answer.
    Wait,
    /// Go on: the next look finds out what happened meanwhile.
    Resume,
    /// This release lacks a step that the run's plan names.
    NeedsRelease {
        /// The release that made the run.
        release: String,
        /// The step, as in `CleanCopy/2`.
        step: String,
    },
}

/// The first planned step that this release lacks, as in `CleanCopy/2`.
#[must_use]
pub fn missing_step(run: &Run) -> Option<String> {
    let planned = run.plan.iter().find(|planned| find(stages(&run.spec), planned).is_none())?;
    Some(format!("{}/{}", planned.name, planned.version))
}

/// Decides for one run.
#[must_use]
pub fn decide(run: &Run) -> Recovery {
    match &run.state {
        RunState::Ended(_) => Recovery::Nothing,
        RunState::Parked { .. } | RunState::Paused { .. } => Recovery::Wait,
        // A person has so long to answer and no longer: somebody has to look at the clock.
        RunState::Running { .. } | RunState::Waiting { .. } | RunState::NeedsApproval { .. } => match missing_step(run)
        {
            Some(step) => Recovery::NeedsRelease { release: run.release.clone(), step },
            None => Recovery::Resume,
        },
    }
}
