//! A run in one line: what `list` shows, and what the store keeps as the run's head.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    plan::{find, stages},
    run::{Outcome, Position, Run, RunState},
};
use crate::{
    model::{RunId, ScaleSetId},
    policy::obligations::Duty,
};

/// The refusal that is good news: it begins the reason with which such a run ends.
const NOT_NEEDED: &str = "KW0235";

/// Whether a run that ended for this reason was not needed, which is no failure.
#[must_use]
pub fn needless(why: &str) -> bool {
    why.starts_with(NOT_NEEDED)
}

/// What an abandoned run has left, in one line.
#[must_use]
pub fn left_in_words(left: &[String]) -> String {
    if left.is_empty() { "nothing is left".into() } else { format!("this may be left: {}", left.join("; ")) }
}

/// A run in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The run's full id.
    pub id: RunId,
    /// The form that people see.
    pub run: String,
    /// The pool.
    pub scale_set: ScaleSetId,
    /// `running`, `waiting`, `undoing`, `parked`, `paused`, `needs-approval`, `done`, `not-needed`, `undone`,
    /// `cancelled`, `abandoned` or `needs-person`.
    pub state: String,
    /// The stage that it is in.
    pub stage: Option<String>,
    /// The step that it is at.
    pub step: Option<String>,
    /// Why it waits, goes back, is parked or ended.
    pub why: Option<String>,
    /// When something is due again, if nothing is due now.
    pub until: Option<Timestamp>,
    /// The donor's name, once chosen.
    pub donor: Option<String>,
    /// The version's name, once chosen.
    pub version: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it last moved.
    pub moved: Timestamp,
    /// How much went wrong without stopping it.
    pub warnings: usize,
    /// What it owes a node that it has taken out of service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owes: Vec<Duty>,
}

impl Summary {
    /// The summary of a run.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        let stage = run.position().and_then(|position| {
            let planned = run.plan.get(position.step())?;
            find(stages(&run.spec), planned).map(|(stage, _)| stage.name.to_owned())
        });
        let (word, why, until) = match &run.state {
            RunState::Running { position: Position::Forward { .. } } => ("running", None, None),
            RunState::Running { position: Position::Paying(paying) } => {
                let why = paying.person.clone().unwrap_or_else(|| format!("gives the node back first: {}", paying.why));
                ("undoing", Some(why), None)
            }
            RunState::Running { position: Position::Back { why, .. } } => ("undoing", Some(why.clone()), None),
            RunState::Waiting { why, until, .. } => ("waiting", Some(why.clone()), Some(*until)),
            RunState::Parked { why, .. } => ("parked", Some(why.clone()), None),
            RunState::Paused { by, .. } => ("paused", Some(format!("by {by}")), None),
            RunState::NeedsApproval { gate, why, until, .. } => {
                ("needs-approval", Some(format!("{}: {why}", gate.as_str())), Some(*until))
            }
            RunState::Ended(Outcome::Done) => ("done", None, None),
            RunState::Ended(Outcome::Undone { why }) if needless(why) => ("not-needed", Some(why.clone()), None),
            RunState::Ended(Outcome::Undone { why }) => ("undone", Some(why.clone()), None),
            RunState::Ended(Outcome::Cancelled) => {
                ("cancelled", run.cancel.as_ref().map(|by| format!("by {by}")), None)
            }
            RunState::Ended(Outcome::NeedsPerson { why }) => ("needs-person", Some(why.clone()), None),
            RunState::Ended(Outcome::Abandoned { left }) => {
                let by = run.abandon.clone().unwrap_or_default();
                ("abandoned", Some(format!("by {by}; {}", left_in_words(left))), None)
            }
        };
        let text = |step: &str, pointer: &str| {
            run.outputs.get(step).and_then(|output| output.pointer(pointer)).and_then(Value::as_str).map(str::to_owned)
        };
        Self {
            id: run.id,
            run: run.id.short(),
            scale_set: run.spec.scale_set.clone(),
            state: word.to_owned(),
            stage,
            step: run.step_name().map(str::to_owned),
            why,
            until,
            donor: text("RankNodes", "/donor/node"),
            version: text("ChooseNames", "/version").and_then(|id| id.rsplit('/').next().map(str::to_owned)),
            started: run.started,
            moved: run.moved,
            warnings: run.warnings.len(),
            owes: run.debt.as_ref().map(|debt| debt.duties.clone()).unwrap_or_default(),
        }
    }

    /// As in `parked at PatchModel: not allowed`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let step = self.step.as_ref().map_or_else(String::new, |step| format!(" at {step}"));
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        format!("{}{step}{why}", self.state)
    }

    /// Still open: not at an end.
    #[must_use]
    pub fn open(&self) -> bool {
        let ends = ["done", "not-needed", "undone", "cancelled", "abandoned", "needs-person"];
        !ends.contains(&self.state.as_str())
    }
}
