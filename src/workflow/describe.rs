//! A run step by step: what `describe` shows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    plan::{find, stages},
    run::{Approval, Event, IllegalEvent, Run},
    shown::shown,
    spec::RunSpec,
    step::Effect as _,
    summary::Summary,
};
use crate::{
    model::RunId,
    policy::gates::Gate,
    steps::{CanaryNode, Verdict},
};

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// Its stage.
    pub stage: String,
    /// Its name.
    pub step: String,
    /// `pending`, `current`, `done`, `skipped` or `undone`.
    pub state: String,
    /// When it began.
    pub began: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Requests that went out.
    pub requests: u32,
    /// What it waits for, what failed, why it was skipped; the newest.
    pub note: Option<String>,
}

/// What a person has allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// What was asked.
    pub gate: Gate,
    /// Who allowed it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A run step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// In one line.
    pub summary: Summary,
    /// What was asked for.
    pub spec: RunSpec,
    /// Who asked.
    pub by: String,
    /// The release that made it.
    pub release: String,
    /// What went wrong without stopping it.
    pub warnings: Vec<String>,
    /// Who asked to stop it before its next stage, where it has not come to that yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<String>,
    /// What was allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalView>,
    /// The steps of its plan.
    pub steps: Vec<StepView>,
    /// All that happened, oldest first, without what gives access.
    pub events: Vec<Event>,
}

impl Description {
    /// The description that a run's events make.
    pub fn of(id: RunId, events: Vec<Event>) -> Result<Self, IllegalEvent> {
        let mut steps: Vec<StepView> = Vec::new();
        let mut so_far: Option<Run> = None;
        for event in &events {
            let Some(run) = &mut so_far else {
                let run = Run::begin(id, event.clone())?;
                steps = run.plan.iter().map(|planned| pending(&run, planned)).collect();
                so_far = Some(run);
                continue;
            };
            let at = run.position().map(super::run::Position::step);
            if let Some(step) = at.and_then(|at| steps.get_mut(at)) {
                note(step, event);
            }
            run.apply(event.clone())?;
        }
        let run = so_far.ok_or(IllegalEvent { run: id, event: "nothing", state: "none".into() })?;
        if let Some(step) = run.position().and_then(|position| steps.get_mut(position.step()))
            && step.state == "pending"
        {
            step.state = "current".into();
        }
        Ok(Self {
            summary: Summary::of(&run),
            spec: run.spec,
            by: run.by,
            release: run.release,
            warnings: run.warnings,
            pause: run.pause,
            approvals: run
                .approvals
                .into_iter()
                .map(|Approval { step: _, gate, by, at }| ApprovalView { gate, by, at })
                .collect(),
            steps,
            events: events.into_iter().map(shown).collect(),
        })
    }
}

fn pending(run: &Run, planned: &super::run::PlannedStep) -> StepView {
    let stage = find(stages(&run.spec), planned).map_or("unknown", |(stage, _)| stage.name);
    StepView {
        stage: stage.to_owned(),
        step: planned.name.clone(),
        state: "pending".into(),
        began: None,
        ended: None,
        requests: 0,
        note: None,
    }
}

/// What a step has found that a person wants to see at a glance: how the version stood its trial.
fn verdict(step: &str, output: &Value) -> Option<String> {
    let verdict = || serde_json::from_value::<Verdict>(output.clone()).ok();
    (step == CanaryNode::NAME).then(verdict).flatten().map(|verdict| verdict.in_words())
}

/// What an event says of the step that the run was at.
fn note(step: &mut StepView, event: &Event) {
    let at = event.at();
    // A step that a person stands before has not begun.
    if !matches!(event, Event::Paused { .. } | Event::ApprovalAsked { .. }) {
        step.began.get_or_insert(at);
    }
    let ended = |step: &mut StepView, state: &str| {
        state.clone_into(&mut step.state);
        step.ended = Some(at);
    };
    match event {
        Event::Asking { attempt, .. } => step.requests = *attempt,
        Event::Confirmed { output, .. } => {
            ended(step, "done");
            step.note = verdict(&step.step, output);
        }
        Event::Skipped { why, .. } => {
            ended(step, "skipped");
            step.note = Some(why.clone());
        }
        Event::StepUndone { .. } => ended(step, "undone"),
        Event::Undoing { why, .. }
        | Event::SetBack { why, .. }
        | Event::NotAsked { why, .. }
        | Event::PersonAsked { why, .. }
        | Event::Parked { why, .. } => step.note = Some(why.clone()),
        Event::ApprovalAsked { gate, why, until, .. } => {
            step.note = Some(format!("{}, asked until {until:.0}: {why}", gate.as_str()));
        }
        Event::Approved { gate, by, .. } => step.note = Some(format!("{}: approved by {by}", gate.as_str())),
        Event::Rejected { gate, by, .. } => step.note = Some(format!("{}: rejected by {by}", gate.as_str())),
        Event::Waiting { why, until, .. } => step.note = Some(format!("until {until:.0}: {why}")),
        Event::Ended { outcome, .. } => match outcome {
            super::run::Outcome::Done => {}
            super::run::Outcome::Undone { why } | super::run::Outcome::NeedsPerson { why } => {
                step.note = Some(why.clone());
            }
            super::run::Outcome::Cancelled => ended(step, "undone"),
            super::run::Outcome::Abandoned { .. } => step.note = Some("abandoned".into()),
        },
        Event::Started { .. }
        | Event::Decided { .. }
        | Event::Asked { .. }
        | Event::Cleared { .. }
        | Event::Owed { .. }
        | Event::Paying { .. }
        | Event::Paid { .. }
        | Event::Resumed { .. }
        | Event::CancelRequested { .. }
        | Event::AbandonRequested { .. }
        | Event::PauseRequested { .. }
        | Event::Paused { .. } => {}
    }
}
