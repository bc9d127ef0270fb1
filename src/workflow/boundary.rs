//! Between two stages: where a run stops for a person, if one asked it to or has to be asked.
//!
//! Nowhere else does a run rest of its own will, and not here either while it owes a node something.

use std::time::Duration;

use serde_json::Value;
use tracing::info;

use super::{
    engine::{EngineError, NO_AUTHORITY, Next, step_at},
    left::left,
    plan::{OnFailure, Stage},
    run::{Event, Outcome, Phase, Position, Run, RunState},
    spec::RunSpec,
    summary::Summary,
    turn::Turn,
};
use crate::{
    model::{Bootstrap, Capture},
    policy::{
        canary::Canary,
        gates::{Gate, PATIENCE},
    },
};

/// Who says no where nobody has said anything.
const NOBODY: &str = "nobody, who did not answer in time";

/// The stage that a run is about to begin, if it may rest before it.
fn boundary(run: &Run) -> Option<&'static Stage> {
    let Some(Position::Forward { step, phase: Phase::Fresh, .. }) = run.position() else { return None };
    // Nothing comes before the first stage, and a run that has something to pay or to undo does not rest.
    let may_rest = *step > 0 && run.debt.is_none() && run.cancel.is_none();
    begun_by(run, *step).filter(|stage| may_rest && rests_before(stage))
}

/// What is insisted on is not put off either.
fn rests_before(stage: &Stage) -> bool {
    stage.on_failure != OnFailure::Insist
}

/// How a run that is to be abandoned ends, as soon as it owes nothing. One that has succeeded already is left to its end: there
/// a cancel is all that is meant.
pub(super) fn abandoned(run: &Run) -> Option<Outcome> {
    let succeeded = match run.position()? {
        Position::Forward { step, .. } => {
            let report = |(stage, _): (&Stage, _)| stage.on_failure == OnFailure::Report;
            *step == run.plan.len() || step_at(run, *step).is_some_and(report)
        }
        Position::Paying(_) | Position::Back { .. } => false,
    };
    let due = run.abandon.is_some() && run.debt.is_none() && !succeeded;
    due.then(|| Outcome::Abandoned { left: left(run) })
}

/// The stage that begins with a step of the plan.
fn begun_by(run: &Run, index: usize) -> Option<&'static Stage> {
    let (stage, any) = step_at(run, index)?;
    stage.begins_with(any).then_some(stage)
}

/// Whether a stage begins after the step that a run is at, or with it and it has not begun: otherwise there is nothing to
/// stop before.
pub(super) fn comes_to_another(run: &Run) -> bool {
    let Some(Position::Forward { step, phase, .. }) = run.position() else { return false };
    let from = if *phase == Phase::Fresh { *step } else { *step + 1 };
    (from.max(1)..run.plan.len()).any(|index| begun_by(run, index).is_some_and(rests_before))
}

/// The gate that a run stands before, unless somebody has opened it.
fn gate(run: &Run, stage: &Stage) -> Option<Gate> {
    let at = run.position()?.step();
    let opened = run.approvals.iter().any(|approval| approval.step == at);
    let first = run.outputs.get("Preflight").is_none_or(|seen| seen["follows"] != true);
    Gate::before(stage.name, &run.spec.approve, first).filter(|_| !opened)
}

/// By how much the scale set grows, as part of a sentence.
fn grow(spec: &RunSpec) -> String {
    if spec.scale_out > 0 { format!(", and {} instances more", spec.scale_out) } else { String::new() }
}

/// What a person says yes to.
fn asks(run: &Run, gate: Gate) -> String {
    let summary = Summary::of(run);
    let (donor, version) = (summary.donor.unwrap_or_default(), summary.version.unwrap_or_default());
    let (set, spec) = (run.spec.scale_set.name(), &run.spec);
    match gate {
        Gate::Capture => match spec.capture {
            Capture::Live => format!("a snapshot of the disk of node {donor} becomes version {version}"),
            Capture::Stop => {
                format!("node {donor} is drained and switched off, and its disk becomes version {version}")
            }
        },
        Gate::Adopt => {
            let lost = match spec.profile.bootstrap() {
                Bootstrap::Disk => {
                    let removed = run.outputs.get("Preflight").map_or(&Value::Null, |seen| &seen["remove_extensions"]);
                    let names: Vec<&str> = removed.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    let and = if names.is_empty() { "" } else { " and extensions " };
                    format!(": its custom data{and}{} go, and nobody can read them back", names.join(", "))
                }
                Bootstrap::Model => String::new(),
            };
            format!("scale set {set} takes the image of a gallery for the first time{lost}")
        }
        Gate::Switch => {
            let tried = match spec.canary {
                Canary::FirstNode(_) => format!("{}; the first of them is watched", grow(spec)),
                Canary::None => String::new(),
            };
            format!("new nodes of scale set {set} start from version {version}, made from {donor}{tried}")
        }
        Gate::Tidy => {
            let grow = match spec.canary {
                Canary::None => grow(spec),
                // They came before, to be watched.
                Canary::FirstNode(_) => String::new(),
            };
            format!("snapshot and copy go, and versions beyond the newest {}{grow}", spec.keep_versions)
        }
    }
}

impl Turn<'_> {
    /// Stops before a stage if a person has asked for it or has to be asked; `None` goes on.
    pub(super) async fn stopped(&self) -> Result<Option<Next>, EngineError> {
        let Some(stage) = boundary(self.run) else { return Ok(None) };
        let at = self.now();
        let event = if self.run.pause.is_some() {
            Event::Paused { at }
        } else if let Some(gate) = gate(self.run, stage) {
            let until = at.checked_add(PATIENCE).unwrap_or(jiff::Timestamp::MAX);
            Event::ApprovalAsked { at, gate, why: asks(self.run, gate), until }
        } else {
            return Ok(None);
        };
        info!(run = %self.run.id, stage = stage.name, event = event.kind(), "stopped for a person");
        self.record_unmoved(event).await.map(Some)
    }

    /// Nobody has answered: that is a no, once its time has come.
    pub(super) async fn unanswered(&self) -> Result<Next, EngineError> {
        let RunState::NeedsApproval { gate, until, .. } = self.run.state else { return Ok(Next::Now) };
        let (at, by) = (self.now(), NOBODY.to_owned());
        if at < until {
            return Ok(Next::Stands(Duration::try_from(until.duration_since(at)).unwrap_or_default()));
        }
        if !self.engine.authority.may_change() {
            return Ok(Next::Stands(NO_AUTHORITY));
        }
        self.record_unmoved(Event::Rejected { at, gate, by }).await
    }

    /// Records an event unless a person has spoken since this turn began: then the next turn sees what they said.
    async fn record_unmoved(&self, event: Event) -> Result<Next, EngineError> {
        let mut stored = self.cell.inner.lock().await;
        if *stored.run == *self.run {
            self.engine.record_in(&mut stored, self.cell, vec![event]).await?;
        }
        Ok(Next::Now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::{ATTACHED, ATTACHED_CANARY, LIVE, LIVE_CANARY, STOP, STOP_CANARY};

    #[test]
    fn every_gate_is_before_a_stage_of_each_list_that_is_not_the_first() {
        for stages in [LIVE, STOP, LIVE_CANARY, STOP_CANARY, ATTACHED, ATTACHED_CANARY] {
            for gate in Gate::ALL {
                let at = stages.iter().position(|stage| stage.name == gate.stage());
                assert!(at.is_some_and(|at| at > 0), "{} is before no stage", gate.as_str());
            }
        }
    }
}
