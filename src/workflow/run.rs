//! The run as a pure state machine: `apply(run, event) -> run`. What is stored are the events.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::spec::RunSpec;
use crate::{
    cloud::Accepted,
    model::RunId,
    policy::{
        gates::Gate,
        obligations::{Debt, Duty},
    },
};

/// A step as a run has planned it: name and version, so that another release can tell whether it knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The step's name.
    pub name: String,
    /// The step's version.
    pub version: u32,
}

/// What happened to a run. Stored format: names and fields never change their meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants' own lines say it")]
pub enum Event {
    /// The run began.
    Started { at: Timestamp, spec: Box<RunSpec>, plan: Vec<PlannedStep>, release: String, by: String },
    /// An effect's input is fixed. Durable before the first call.
    Decided { at: Timestamp, input: Value },
    /// A request is about to go out. Durable before it does. `epoch` is the Lease's, 0 without one.
    Asking {
        at: Timestamp,
        attempt: u32,
        #[serde(default, skip_serializing_if = "is_zero")]
        epoch: u64,
    },
    /// The request was accepted.
    Asked { at: Timestamp, accepted: Accepted },
    /// The request is known not to have been accepted; it will be built anew.
    NotAsked { at: Timestamp, why: String },
    /// The effect failed; what is left of it goes before the next attempt.
    SetBack { at: Timestamp, why: String },
    /// What was left of a failed effect is gone.
    Cleared { at: Timestamp },
    /// The step is done: an effect was seen, or a decision taken.
    Confirmed { at: Timestamp, output: Value },
    /// Nothing is done before `until`.
    Waiting { at: Timestamp, why: String, until: Timestamp, throttled: bool },
    /// A step of a stage that only reports has failed; the run goes on.
    Skipped { at: Timestamp, why: String },
    /// The run goes back.
    Undoing { at: Timestamp, why: String, cancelled: bool },
    /// Nothing is left of the step that is being undone.
    StepUndone { at: Timestamp },
    /// From here on the run owes a node these, until each is seen to be so. Durable before the first write to the node.
    Owed { at: Timestamp, duties: Vec<Duty> },
    /// On the way back, the step that pays what is owed is this one, with this input.
    Paying { at: Timestamp, step: usize, input: Value },
    /// These were seen to be so.
    Paid { at: Timestamp, duties: Vec<Duty> },
    /// What is owed can't be paid for the moment. A person is asked, and it goes on being tried.
    PersonAsked { at: Timestamp, why: String },
    /// A person is asked.
    Parked { at: Timestamp, why: String },
    /// A person said: go on.
    Resumed { at: Timestamp, by: String },
    /// A person said: stop and undo.
    CancelRequested { at: Timestamp, by: String },
    /// A person said: stop, pay what is owed, and leave the rest as it is.
    AbandonRequested { at: Timestamp, by: String },
    /// A person said: stop before the next stage.
    PauseRequested { at: Timestamp, by: String },
    /// There it has stopped.
    Paused { at: Timestamp },
    /// A person is asked whether the next stage may begin; `why` says what it would do. Without an answer it is no, `until` then.
    ApprovalAsked { at: Timestamp, gate: Gate, why: String, until: Timestamp },
    /// A person said yes.
    Approved { at: Timestamp, gate: Gate, by: String },
    /// A person said no: the run goes back.
    Rejected { at: Timestamp, gate: Gate, by: String },
    /// The end.
    Ended { at: Timestamp, outcome: Outcome },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Event {
    /// When it happened, by our clock.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Started { at, .. }
            | Self::Decided { at, .. }
            | Self::Asking { at, .. }
            | Self::Asked { at, .. }
            | Self::NotAsked { at, .. }
            | Self::SetBack { at, .. }
            | Self::Cleared { at }
            | Self::Confirmed { at, .. }
            | Self::Waiting { at, .. }
            | Self::Skipped { at, .. }
            | Self::Undoing { at, .. }
            | Self::StepUndone { at }
            | Self::Owed { at, .. }
            | Self::Paying { at, .. }
            | Self::Paid { at, .. }
            | Self::PersonAsked { at, .. }
            | Self::Parked { at, .. }
            | Self::Resumed { at, .. }
            | Self::CancelRequested { at, .. }
            | Self::AbandonRequested { at, .. }
            | Self::PauseRequested { at, .. }
            | Self::Paused { at }
            | Self::ApprovalAsked { at, .. }
            | Self::Approved { at, .. }
            | Self::Rejected { at, .. }
            | Self::Ended { at, .. } => *at,
        }
    }

    /// The record's kind in the store.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Decided { .. } => "decided",
            Self::Asking { .. } => "asking",
            Self::Asked { .. } => "asked",
            Self::NotAsked { .. } => "not_asked",
            Self::SetBack { .. } => "set_back",
            Self::Cleared { .. } => "cleared",
            Self::Confirmed { .. } => "confirmed",
            Self::Waiting { .. } => "waiting",
            Self::Skipped { .. } => "skipped",
            Self::Undoing { .. } => "undoing",
            Self::StepUndone { .. } => "step_undone",
            Self::Owed { .. } => "owed",
            Self::Paying { .. } => "paying",
            Self::Paid { .. } => "paid",
            Self::PersonAsked { .. } => "person_asked",
            Self::Parked { .. } => "parked",
            Self::Resumed { .. } => "resumed",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::AbandonRequested { .. } => "abandon_requested",
            Self::PauseRequested { .. } => "pause_requested",
            Self::Paused { .. } => "paused",
            Self::ApprovalAsked { .. } => "approval_asked",
            Self::Approved { .. } => "approved",
            Self::Rejected { .. } => "rejected",
            Self::Ended { .. } => "ended",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// New nodes are made from the new image.
    Done,
    /// It failed, and nothing of it is left.
    Undone {
        /// Why it failed.
        why: String,
    },
    /// A person cancelled it, and nothing of it is left.
    Cancelled,
    /// It failed, and undoing failed too, or its version did not stand its trial.
    NeedsPerson {
        /// What is left, and why.
        why: String,
    },
    /// A person said to leave what it has made.
    Abandoned {
        /// What may be left, by name.
        left: Vec<String>,
    },
}

/// Where an effect is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing of the step has happened.
    Fresh,
    /// The input is fixed and nothing was asked for, or surely not accepted.
    Decided,
    /// A request may have gone out.
    Asking {
        /// Counts requests of this step.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// A request was accepted.
    Asked {
        /// Counts requests of this step.
        attempt: u32,
        /// When.
        at: Timestamp,
        /// Azure's answer.
        accepted: Accepted,
    },
    /// A failed effect is being taken away before the next attempt.
    Clearing {
        /// Counts requests of this step.
        attempt: u32,
    },
}

impl Phase {
    /// When the last request went out, or may have.
    #[must_use]
    pub fn asked_at(&self) -> Option<Timestamp> {
        match self {
            Self::Asking { at, .. } | Self::Asked { at, .. } => Some(*at),
            Self::Fresh | Self::Decided | Self::Clearing { .. } => None,
        }
    }
}

/// Where a run is, when it is not at an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "direction", rename_all = "snake_case")]
pub enum Position {
    /// On its way forward.
    Forward {
        /// Index into the plan.
        step: usize,
        /// Where the step is.
        phase: Phase,
        /// When the step's clock began; throttled time moves it on.
        since: Timestamp,
        /// Failed attempts of this step.
        setbacks: u32,
        /// Requests of this step, over all attempts.
        asked: u32,
    },
    /// On its way back, with a node out of service: what is owed is paid first, and nothing can block it.
    Paying(Paying),
    /// On its way back.
    Back {
        /// Index into the plan of the step that is being undone.
        step: usize,
        /// Why.
        why: String,
        /// A person asked for it.
        cancelled: bool,
        /// When the undoing of this step began.
        since: Timestamp,
        /// When the interrupted step last asked: what it asked for may not be visible yet.
        last_ask: Option<Timestamp>,
    },
}

/// How what is owed is being paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paying {
    /// Index into the plan of the step that pays.
    pub step: usize,
    /// Where that step is; `Fresh` before it was chosen.
    pub phase: Phase,
    /// When it began to be paid.
    pub since: Timestamp,
    /// Requests of this step on the way back.
    pub asked: u32,
    /// Set when it could not be paid for so long that a person was asked.
    pub person: Option<String>,
    /// Index into the plan of the step where the undoing begins afterwards.
    pub from: usize,
    /// Why the run goes back.
    pub why: String,
    /// A person asked for it.
    pub cancelled: bool,
    /// When the interrupted step last asked: what it asked for may not be visible yet.
    pub last_ask: Option<Timestamp>,
}

impl Paying {
    /// The next thing that is owed; its step is not chosen yet.
    fn next(self, since: Timestamp) -> Position {
        Position::Paying(Self { phase: Phase::Fresh, since, asked: 0, person: None, ..self })
    }

    /// All is paid: the undoing begins.
    fn done(self, since: Timestamp) -> Position {
        let Self { from: step, why, cancelled, last_ask, .. } = self;
        Position::Back { step, why, cancelled, since, last_ask }
    }
}

impl Position {
    /// Index into the plan.
    #[must_use]
    pub fn step(&self) -> usize {
        match self {
            Self::Forward { step, .. } | Self::Paying(Paying { step, .. }) | Self::Back { step, .. } => *step,
        }
    }

    /// Nothing was asked for in this step that may have been accepted.
    #[must_use]
    pub fn untouched(&self) -> bool {
        matches!(self, Self::Forward { phase: Phase::Fresh | Phase::Decided, .. })
    }
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunState {
    /// Something is due.
    Running {
        /// Where.
        position: Position,
    },
    /// Nothing is due before `until`.
    Waiting {
        /// What for.
        why: String,
        /// Until when.
        until: Timestamp,
        /// Where it goes on.
        position: Position,
    },
    /// A person is asked.
    Parked {
        /// Why.
        why: String,
        /// Since when.
        since: Timestamp,
        /// Where it goes on.
        position: Position,
    },
    /// A person has stopped it before a stage.
    Paused {
        /// Who.
        by: String,
        /// Since when.
        since: Timestamp,
        /// Where it goes on.
        position: Position,
    },
    /// A person is asked whether a stage may begin.
    NeedsApproval {
        /// What is asked.
        gate: Gate,
        /// What the stage would do.
        why: String,
        /// Without an answer it is no then.
        until: Timestamp,
        /// Where it goes on.
        position: Position,
    },
    /// At an end.
    Ended(Outcome),
}

/// What a person has allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Index into the plan of the first step of the stage that may begin.
    pub step: usize,
    /// What was asked.
    pub gate: Gate,
    /// Who allowed it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A run: what its events add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// What was asked for.
    pub spec: RunSpec,
    /// The steps it consists of.
    pub plan: Vec<PlannedStep>,
    /// The release that made it.
    pub release: String,
    /// Who asked for it.
    pub by: String,
    /// When it began.
    pub started: Timestamp,
    /// When it was last seen to move.
    pub moved: Timestamp,
    /// Inputs by step.
    pub inputs: BTreeMap<String, Value>,
    /// The steps that a request has gone out for, or may have.
    pub asked: BTreeSet<String>,
    /// Outputs by step.
    pub outputs: BTreeMap<String, Value>,
    /// What it owes a node that it has taken out of service.
    pub debt: Option<Debt>,
    /// What went wrong without stopping it.
    pub warnings: Vec<String>,
    /// Who asked to cancel it.
    pub cancel: Option<String>,
    /// Who asked to leave what it has made; a cancel as well.
    pub abandon: Option<String>,
    /// Who asked to stop it before the next stage.
    pub pause: Option<String>,
    /// What was allowed.
    pub approvals: Vec<Approval>,
    /// Where it is.
    pub state: RunState,
}

/// An event that can't happen in this state; says both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("run {run}: event {event} can't happen in state {state}")]
pub struct IllegalEvent {
    /// The run.
    pub run: RunId,
    /// The event's kind.
    pub event: &'static str,
    /// The state, in words.
    pub state: String,
}

impl Run {
    /// The run that its first event makes.
    pub fn begin(id: RunId, event: Event) -> Result<Self, IllegalEvent> {
        let Event::Started { at, spec, plan, release, by } = event else {
            return Err(IllegalEvent { run: id, event: event.kind(), state: "none".into() });
        };
        let position = Position::Forward { step: 0, phase: Phase::Fresh, since: at, setbacks: 0, asked: 0 };
        Ok(Self {
            id,
            spec: *spec,
            plan,
            release,
            by,
            started: at,
            moved: at,
            inputs: BTreeMap::new(),
            asked: BTreeSet::new(),
            outputs: BTreeMap::new(),
            debt: None,
            warnings: Vec::new(),
            cancel: None,
            abandon: None,
            pause: None,
            approvals: Vec::new(),
            state: RunState::Running { position },
        })
    }

    /// The run that all its events make.
    pub fn fold(id: RunId, events: impl IntoIterator<Item = Event>) -> Result<Self, IllegalEvent> {
        let mut events = events.into_iter();
        let missing = IllegalEvent { run: id, event: "nothing", state: "none".into() };
        let mut run = Self::begin(id, events.next().ok_or(missing)?)?;
        for event in events {
            run.apply(event)?;
        }
        Ok(run)
    }

    /// Where the run is, unless it is at an end.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        match &self.state {
            RunState::Running { position }
            | RunState::Waiting { position, .. }
            | RunState::Parked { position, .. }
            | RunState::Paused { position, .. }
            | RunState::NeedsApproval { position, .. } => Some(position),
            RunState::Ended(_) => None,
        }
    }

    /// At an end.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.state, RunState::Ended(_))
    }

    /// At rest before a person speaks.
    #[must_use]
    pub fn stands(&self) -> bool {
        match &self.state {
            RunState::Parked { .. } | RunState::Paused { .. } | RunState::NeedsApproval { .. } => true,
            RunState::Running { .. } | RunState::Waiting { .. } | RunState::Ended(_) => false,
        }
    }

    /// The name of the step that it is at.
    #[must_use]
    pub fn step_name(&self) -> Option<&str> {
        self.plan.get(self.position()?.step()).map(|step| step.name.as_str())
    }

    /// Applies one event.
    #[expect(
        clippy::too_many_lines,
        reason = "one table of what may follow on what; cut up it could not be checked by eye"
    )]
    pub fn apply(&mut self, event: Event) -> Result<(), IllegalEvent> {
        let (kind, at) = (event.kind(), event.at());
        let name = self.step_name().unwrap_or_default().to_owned();
        let last = self.plan.len();
        let Some(position) = self.position().cloned() else { return Err(self.illegal(kind)) };

        if let Event::CancelRequested { by, .. } | Event::AbandonRequested { by, .. } = &event {
            if matches!(event, Event::AbandonRequested { .. }) {
                self.abandon.get_or_insert(by.clone());
            }
            self.cancel.get_or_insert(by.clone());
            self.pause = None;
            // A run that stands has to move again to come to its end.
            self.state = RunState::Running { position };
            self.moved = at;
            return Ok(());
        }
        if !self.may_hear(&event) {
            return Err(self.illegal(kind));
        }
        // Nobody rests while a node is out of service because of us.
        let rests = matches!(
            event,
            Event::Parked { .. } | Event::Paused { .. } | Event::ApprovalAsked { .. } | Event::Ended { .. }
        );
        if self.debt.is_some() && rests {
            return Err(self.illegal(kind));
        }

        let asking = matches!(event, Event::Asking { .. }).then(|| name.clone());
        let next = match (position, event) {
            // The step's time runs from here: before it, the run may have waited for others to end.
            (
                Position::Forward { step, phase: Phase::Fresh, since: _, setbacks, asked },
                Event::Decided { input, at: since },
            ) => {
                self.inputs.insert(name, input);
                running(Position::Forward { step, phase: Phase::Decided, since, setbacks, asked })
            }
            (
                Position::Forward {
                    step,
                    phase: Phase::Decided | Phase::Asking { .. } | Phase::Asked { .. },
                    since,
                    setbacks,
                    asked,
                },
                Event::Asking { attempt, .. },
            ) if attempt == asked + 1 => running(Position::Forward {
                step,
                phase: Phase::Asking { attempt, at },
                since,
                setbacks,
                asked: attempt,
            }),
            (
                Position::Forward { step, phase: Phase::Asking { attempt, .. }, since, setbacks, asked },
                Event::Asked { accepted, .. },
            ) => running(Position::Forward {
                step,
                phase: Phase::Asked { attempt, at, accepted },
                since,
                setbacks,
                asked,
            }),
            (
                Position::Forward { step, phase: Phase::Asking { .. }, since, setbacks, asked },
                Event::NotAsked { .. },
            )
            | (
                Position::Forward { step, phase: Phase::Clearing { .. }, since, setbacks, asked },
                Event::Cleared { .. },
            ) => running(Position::Forward { step, phase: Phase::Decided, since, setbacks, asked }),
            (
                Position::Forward {
                    step,
                    phase: Phase::Decided | Phase::Asking { .. } | Phase::Asked { .. },
                    since,
                    setbacks,
                    asked,
                },
                Event::SetBack { why, .. },
            ) => {
                self.warnings.push(format!("{name}: {why}"));
                let phase = Phase::Clearing { attempt: asked };
                running(Position::Forward { step, phase, since, setbacks: setbacks + 1, asked })
            }
            (Position::Forward { step, .. }, Event::Confirmed { output, .. }) => {
                self.outputs.insert(name, output);
                forward(step + 1, at)
            }
            (Position::Forward { step, .. }, Event::Skipped { why, .. }) => {
                self.warnings.push(format!("{name}: {why}"));
                forward(step + 1, at)
            }
            (position, Event::Waiting { why, until, throttled, .. }) => {
                let position = if throttled { delayed(position, at, until) } else { position };
                RunState::Waiting { why, until, position }
            }
            (position @ Position::Forward { .. }, Event::Owed { duties, .. }) if self.debt.is_none() => {
                self.debt = Some(Debt { since: at, duties });
                running(position)
            }
            (position, Event::Paid { duties, .. }) if self.debt.is_some() => {
                self.debt = self.debt.take().and_then(|debt| debt.without(&duties));
                running(match position {
                    Position::Paying(paying) if self.debt.is_none() => paying.done(at),
                    Position::Paying(paying) => paying.next(at),
                    other @ (Position::Forward { .. } | Position::Back { .. }) => other,
                })
            }
            (Position::Forward { step, phase, .. }, Event::Undoing { why, cancelled, .. }) => {
                self.pause = None;
                let (last_ask, phase) = (phase.asked_at(), Phase::Fresh);
                let (asked, person) = (0, None);
                let paying = Paying { step, phase, since: at, asked, person, from: step, why, cancelled, last_ask };
                running(if self.debt.is_some() { Position::Paying(paying) } else { paying.done(at) })
            }
            (Position::Paying(paying), Event::Paying { step, input, .. }) if step < last => {
                self.inputs.insert(self.plan[step].name.clone(), input);
                running(Position::Paying(Paying { step, phase: Phase::Decided, ..paying }))
            }
            (Position::Paying(paying), Event::Asking { attempt, .. }) if attempt == paying.asked + 1 => {
                let phase = Phase::Asking { attempt, at };
                running(Position::Paying(Paying { phase, asked: attempt, ..paying }))
            }
            (Position::Paying(paying), Event::Asked { accepted, .. }) => {
                let phase = Phase::Asked { attempt: paying.asked, at, accepted };
                running(Position::Paying(Paying { phase, ..paying }))
            }
            (Position::Paying(paying), Event::NotAsked { .. }) => {
                running(Position::Paying(Paying { phase: Phase::Decided, ..paying }))
            }
            (Position::Paying(paying), Event::PersonAsked { why, .. }) => {
                running(Position::Paying(Paying { person: Some(why), ..paying }))
            }
            (Position::Back { step, why, cancelled, .. }, Event::StepUndone { .. }) if step > 0 => {
                running(Position::Back { step: step - 1, why, cancelled, since: at, last_ask: None })
            }
            (position, Event::Parked { why, .. }) => RunState::Parked { why, since: at, position },
            (position, Event::Resumed { .. }) => {
                self.pause = None;
                running(restarted(position, at))
            }
            (Position::Forward { .. }, Event::PauseRequested { by, .. }) => {
                self.pause.get_or_insert(by);
                self.state.clone()
            }
            (position @ Position::Forward { phase: Phase::Fresh, .. }, Event::Paused { .. }) => {
                let Some(by) = self.pause.take() else { return Err(self.illegal(kind)) };
                RunState::Paused { by, since: at, position }
            }
            (
                position @ Position::Forward { phase: Phase::Fresh, .. },
                Event::ApprovalAsked { gate, why, until, .. },
            ) => RunState::NeedsApproval { gate, why, until, position },
            (position, Event::Approved { gate, by, .. }) => {
                self.approvals.push(Approval { step: position.step(), gate, by, at });
                running(restarted(position, at))
            }
            (position, Event::Rejected { by, .. }) => {
                self.cancel.get_or_insert(by);
                running(position)
            }
            (Position::Forward { step, .. }, Event::Ended { outcome: Outcome::Done, .. }) if step <= last => {
                RunState::Ended(Outcome::Done)
            }
            (
                Position::Forward { .. } | Position::Back { step: 0, .. },
                Event::Ended { outcome: Outcome::Cancelled, .. },
            ) if self.cancel.is_some() => RunState::Ended(Outcome::Cancelled),
            (
                Position::Forward { .. } | Position::Back { step: 0, .. },
                Event::Ended { outcome: Outcome::Undone { why }, .. },
            ) => RunState::Ended(Outcome::Undone { why }),
            (
                Position::Forward { .. } | Position::Back { .. },
                Event::Ended { outcome: Outcome::NeedsPerson { why }, .. },
            ) => RunState::Ended(Outcome::NeedsPerson { why }),
            (
                Position::Forward { .. } | Position::Back { .. },
                Event::Ended { outcome: Outcome::Abandoned { left }, .. },
            ) if self.abandon.is_some() => RunState::Ended(Outcome::Abandoned { left }),
            (
                Position::Forward { .. } | Position::Paying(_) | Position::Back { .. },
                Event::Started { .. }
                | Event::Decided { .. }
                | Event::Asking { .. }
                | Event::Asked { .. }
                | Event::NotAsked { .. }
                | Event::SetBack { .. }
                | Event::Cleared { .. }
                | Event::Confirmed { .. }
                | Event::Skipped { .. }
                | Event::Undoing { .. }
                | Event::StepUndone { .. }
                | Event::Owed { .. }
                | Event::Paying { .. }
                | Event::Paid { .. }
                | Event::PersonAsked { .. }
                | Event::CancelRequested { .. }
                | Event::AbandonRequested { .. }
                | Event::PauseRequested { .. }
                | Event::Paused { .. }
                | Event::ApprovalAsked { .. }
                | Event::Ended { .. },
            ) => return Err(self.illegal(kind)),
        };
        self.asked.extend(asking);
        self.state = next;
        self.moved = at;
        Ok(())
    }

    fn illegal(&self, event: &'static str) -> IllegalEvent {
        IllegalEvent { run: self.id, event, state: serde_json::to_string(&self.state).unwrap_or_default() }
    }

    /// Who stands hears a person only, and an answer is for who has asked.
    fn may_hear(&self, event: &Event) -> bool {
        match (&self.state, event) {
            (RunState::Parked { .. } | RunState::Paused { .. }, event) => matches!(event, Event::Resumed { .. }),
            (
                RunState::NeedsApproval { gate: asked, .. },
                Event::Approved { gate, .. } | Event::Rejected { gate, .. },
            ) => gate == asked,
            (RunState::NeedsApproval { .. }, _) => false,
            (RunState::Running { .. } | RunState::Waiting { .. } | RunState::Ended(_), event) => {
                !matches!(event, Event::Approved { .. } | Event::Rejected { .. })
            }
        }
    }
}

fn running(position: Position) -> RunState {
    RunState::Running { position }
}

fn forward(step: usize, at: Timestamp) -> RunState {
    running(Position::Forward { step, phase: Phase::Fresh, since: at, setbacks: 0, asked: 0 })
}

/// Throttled time does not count against a step's deadline.
fn delayed(position: Position, at: Timestamp, until: Timestamp) -> Position {
    let pause = until.duration_since(at);
    let moved = |since: Timestamp| since.checked_add(pause).unwrap_or(until);
    match position {
        Position::Forward { step, phase, since, setbacks, asked } => {
            Position::Forward { step, phase, since: moved(since), setbacks, asked }
        }
        // A node's tenants do not care why it is away.
        Position::Paying(paying) => Position::Paying(paying),
        Position::Back { step, why, cancelled, since, last_ask } => {
            Position::Back { step, why, cancelled, since: moved(since), last_ask }
        }
    }
}

/// A person who says "go on" gives the step its whole time and all its attempts again.
fn restarted(position: Position, at: Timestamp) -> Position {
    match position {
        Position::Forward { step, phase, asked, .. } => {
            Position::Forward { step, phase, since: at, setbacks: 0, asked }
        }
        Position::Paying(paying) => Position::Paying(Paying { since: at, person: None, ..paying }),
        Position::Back { step, why, cancelled, last_ask, .. } => {
            Position::Back { step, why, cancelled, since: at, last_ask }
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
