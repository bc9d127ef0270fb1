//! One turn of one run: looks, asks, looks, waits, undoes. A step is asked to act once at most, journaled before and after.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{debug, error, info, warn};

use super::{
    ending::ending,
    engine::{Cell, Engine, EngineError, MEMORY, Next},
    plan::{OnFailure, Stage},
    run::{Event, Outcome, Phase, PlannedStep, Run},
    step::{AnyStep, Context, Seen, StepError, Undone},
    told::note,
};
use crate::{
    cloud::OperationState,
    model::Class,
    policy::obligations::{ABSENCE, Written},
};

/// Failed attempts of one step before its stage fails.
const SETBACKS_MAX: u32 = 3;
/// A call that fails so often in a row is worth a word on stderr, and again each time as often: half a minute, then minutes.
const LOOKS_BEFORE_WARNING: u32 = 4;
/// Pauses longer than this are stored, so that a restart keeps them.
const STORED_PAUSE: Duration = Duration::from_mins(1);

/// Where a step is, as `Position::Forward` says.
pub(super) struct At {
    pub(super) phase: Phase,
    pub(super) since: Timestamp,
    pub(super) setbacks: u32,
    pub(super) asked: u32,
}

/// Where an undo is, as `Position::Back` says.
pub(super) struct Back {
    pub(super) step: usize,
    pub(super) why: String,
    pub(super) cancelled: bool,
    pub(super) since: Timestamp,
    pub(super) last_ask: Option<Timestamp>,
}

/// One turn of one run.
pub(super) struct Turn<'a> {
    pub(super) engine: &'a Engine,
    pub(super) cell: &'a Arc<Cell>,
    pub(super) run: &'a Run,
}

impl Turn<'_> {
    pub(super) fn now(&self) -> Timestamp {
        self.engine.clock.now()
    }

    pub(super) async fn record(&self, events: Vec<Event>) -> Result<Next, EngineError> {
        let notes = events.iter().filter_map(|event| note(self.run, event)).collect();
        self.engine.record(self.cell, events).await?;
        self.engine.tell(notes).await;
        Ok(Next::Now)
    }

    pub(super) async fn end(&self, outcome: Outcome) -> Result<Next, EngineError> {
        info!(run = %self.run.id, ?outcome, "run ended");
        self.record(vec![Event::Ended { at: self.now(), outcome }]).await
    }

    async fn park(&self, why: String) -> Result<Next, EngineError> {
        error!(run = %self.run.id, step = self.run.step_name(), why, "run parked");
        self.record(vec![Event::Parked { at: self.now(), why }]).await
    }

    pub(super) async fn park_unknown(&self, step: usize) -> Result<Next, EngineError> {
        let planned = self
            .run
            .plan
            .get(step)
            .map_or_else(String::new, |PlannedStep { name, version }| format!("{name}/{version}"));
        let why = format!("step {planned} is not in this release; finish the run with release {}", self.run.release);
        // A node is out of service: it is given back first, by the steps that this release has.
        if self.run.debt.is_some() {
            return self.record(vec![Event::Undoing { at: self.now(), why, cancelled: false }]).await;
        }
        self.park(why).await
    }

    pub(super) fn overdue(&self, since: Timestamp, deadline: Duration) -> bool {
        Duration::try_from(self.now().duration_since(since)).is_ok_and(|elapsed| elapsed > deadline)
    }

    /// Waits before the next look; a long pause is stored.
    pub(super) async fn wait(&self, told: Option<Duration>, why: &str) -> Result<Next, EngineError> {
        let looks = self.cell.looks.fetch_add(1, Ordering::Relaxed);
        let pause = told.unwrap_or_else(|| self.engine.pace.pause(self.run.id, looks));
        if pause > STORED_PAUSE {
            return self.wait_stored(pause, why, false, vec![]).await;
        }
        self.cell.set_note(Some(why));
        Ok(Next::After(pause))
    }

    pub(super) async fn wait_stored(
        &self,
        pause: Duration,
        why: &str,
        throttled: bool,
        mut events: Vec<Event>,
    ) -> Result<Next, EngineError> {
        let at = self.now();
        let until = at.checked_add(pause).unwrap_or(Timestamp::MAX);
        info!(run = %self.run.id, step = self.run.step_name(), why, %until, "waiting");
        events.push(Event::Waiting { at, why: why.to_owned(), until, throttled });
        self.engine.store_throttling().await?;
        self.engine.record(self.cell, events).await?;
        Ok(Next::After(pause))
    }

    /// The stage's answer to a failure.
    async fn fail(&self, stage: &Stage, why: String, mut events: Vec<Event>) -> Result<Next, EngineError> {
        let at = self.now();
        warn!(run = %self.run.id, stage = stage.name, step = self.run.step_name(), why, "step failed");
        events.push(match stage.on_failure {
            // Whatever the stage says: a node is out of service.
            _ if self.run.debt.is_some() => Event::Undoing { at, why, cancelled: false },
            OnFailure::Stop => Event::Ended { at, outcome: Outcome::Undone { why } },
            OnFailure::Undo => Event::Undoing { at, why, cancelled: false },
            OnFailure::Forward | OnFailure::Insist => Event::Parked { at, why },
            OnFailure::Report => Event::Skipped { at, why },
        });
        self.record(events).await
    }

    /// What the run is about has vanished. Where a stage without a way back has only begun, that is still a way back: what
    /// is gone can't have been published, and resuming could never succeed.
    async fn vanished(
        &self,
        stage: &Stage,
        any: &dyn AnyStep,
        why: String,
        mut events: Vec<Event>,
    ) -> Result<Next, EngineError> {
        if stage.on_failure == OnFailure::Forward && stage.begins_with(any) {
            warn!(run = %self.run.id, stage = stage.name, step = any.name(), why, "gone, going back");
            events.push(Event::Undoing { at: self.now(), why, cancelled: false });
            return self.record(events).await;
        }
        self.fail(stage, why, events).await
    }

    /// What a failed call means for a run on its way forward. `events` go into the same commit.
    async fn trouble(
        &self,
        stage: &Stage,
        any: &dyn AnyStep,
        error: StepError,
        events: Vec<Event>,
    ) -> Result<Next, EngineError> {
        let StepError { class, code, text } = error;
        debug!(run = %self.run.id, step = self.run.step_name(), ?class, text, "call failed");
        match class {
            Class::Throttled { retry_after } => self.wait_stored(retry_after, &text, true, events).await,
            Class::Uncertain | Class::Busy | Class::Preempted => {
                if !events.is_empty() {
                    self.engine.record(self.cell, events).await?;
                }
                let failed = self.cell.looks.load(Ordering::Relaxed) + 1;
                if failed.is_multiple_of(LOOKS_BEFORE_WARNING) {
                    warn!(run = %self.run.id, step = self.run.step_name(), text, failed, "call fails again and again");
                }
                self.wait(None, &text).await
            }
            Class::Denied if self.run.debt.is_some() => self.fail(stage, format!("{code}: {text}"), events).await,
            Class::Denied => match stage.on_failure {
                OnFailure::Stop | OnFailure::Report => self.fail(stage, format!("{code}: {text}"), events).await,
                OnFailure::Undo | OnFailure::Forward | OnFailure::Insist => {
                    let mut events = events;
                    events.push(Event::Parked { at: self.now(), why: format!("{code}: {text}") });
                    self.record(events).await
                }
            },
            Class::Gone => self.vanished(stage, any, format!("{code}: {text}"), events).await,
            Class::Refused => self.fail(stage, format!("{code}: {text}"), events).await,
        }
    }

    pub(super) async fn forward(&self, stage: &Stage, any: &dyn AnyStep, at: At) -> Result<Next, EngineError> {
        if let Some(by) = &self.run.cancel {
            match stage.on_failure {
                OnFailure::Stop => return self.end(Outcome::Cancelled).await,
                // Refused once a stage without a way back has begun: it was accepted before, and nothing of it was asked for.
                OnFailure::Undo | OnFailure::Forward => {
                    let why = format!("cancelled by {by}");
                    return self.record(vec![Event::Undoing { at: self.now(), why, cancelled: true }]).await;
                }
                // Accepted before, and still due afterwards.
                OnFailure::Insist => {}
                OnFailure::Report => {
                    let why = format!("not finished: cancelled by {by}");
                    let skipped = Event::Skipped { at: self.now(), why };
                    let done = Event::Ended { at: self.now(), outcome: ending(self.run) };
                    return self.record(vec![skipped, done]).await;
                }
            }
        }
        if let Some(debt) = &self.run.debt
            && any.pays().is_empty()
            && debt.overdue(self.now())
        {
            let most = ABSENCE.as_secs() / 60;
            let why = format!("KW0601: the node has been out of service for {most} min, which is all that it may");
            return self.fail(stage, why, vec![]).await;
        }
        let overdue = self.overdue(at.since, any.deadline());
        match &at.phase {
            Phase::Fresh => self.fresh(stage, any, overdue).await,
            Phase::Clearing { .. } => match any.undo(self.engine.ports(), self.input(any)).await {
                Ok(Undone::Gone) => self.record(vec![Event::Cleared { at: self.now() }]).await,
                Ok(Undone::Going(_)) | Err(_) if overdue => {
                    self.fail(stage, format!("KW0003: {} did not go away in time", any.name()), vec![]).await
                }
                Ok(Undone::Going(what)) => self.wait(None, &what).await,
                Err(error) => self.trouble(stage, any, error, vec![]).await,
            },
            Phase::Decided | Phase::Asking { .. } | Phase::Asked { .. } => self.look(stage, any, at, overdue).await,
        }
    }

    fn input(&self, any: &dyn AnyStep) -> &Value {
        self.run.inputs.get(any.name()).unwrap_or(&Value::Null)
    }

    pub(super) fn context<'a>(&'a self, memory: &'a BTreeMap<String, Value>, store: Written) -> Context<'a> {
        Context {
            run: self.run.id,
            started: self.run.started,
            epoch: self.engine.authority.epoch().0,
            now: self.now(),
            asked: &self.run.asked,
            spec: &self.run.spec,
            outputs: &self.run.outputs,
            memory,
            store: Some(store),
        }
    }

    /// A decision, or an effect's input.
    async fn fresh(&self, stage: &Stage, any: &dyn AnyStep, overdue: bool) -> Result<Next, EngineError> {
        let memory = self.engine.memory().await?;
        let context = self.context(&memory, self.engine.written().await?);
        match any.decide(self.engine.ports(), context).await {
            None => match any.input(context) {
                Ok(input) => {
                    let at = self.now();
                    let owed = (!any.owes().is_empty() && self.run.debt.is_none())
                        .then(|| Event::Owed { at, duties: any.owes().to_vec() });
                    self.record(owed.into_iter().chain([Event::Decided { at, input }]).collect()).await
                }
                Err(error) => self.trouble(stage, any, error, vec![]).await,
            },
            Some(Ok((output, fact))) => {
                if let Some((key, value)) = fact {
                    self.engine
                        .journal
                        .put_facts(self.engine.authority.epoch(), vec![(format!("{MEMORY}{key}"), Some(value))])
                        .await?;
                }
                self.record(vec![Event::Confirmed { at: self.now(), output }]).await
            }
            Some(Err(error)) if overdue => {
                self.fail(stage, format!("KW0003: {} could not be decided in time: {error}", any.name()), vec![]).await
            }
            Some(Err(error)) => self.trouble(stage, any, error, vec![]).await,
        }
    }

    /// Looks, and asks if there is nothing to be seen.
    async fn look(&self, stage: &Stage, any: &dyn AnyStep, at: At, overdue: bool) -> Result<Next, EngineError> {
        let mut failed = None;
        let mut told = None;
        if let Phase::Asked { accepted, .. } = &at.phase
            && let Some(operation) = &accepted.operation
        {
            match self.engine.cloud.operation(operation).await {
                Ok(OperationState::Running(pause)) if !overdue => {
                    return self.wait(pause, &format!("{}: the operation is running", any.name())).await;
                }
                // The resource decides, whatever its operation says.
                Ok(OperationState::Running(pause)) => told = pause,
                Ok(OperationState::Succeeded | OperationState::Unknown) => {}
                Ok(OperationState::Failed { code, message }) => failed = Some(format!("{code}: {message}")),
                Err(error) => return self.trouble(stage, any, error.into(), vec![]).await,
            }
        }
        let seen = match any.observe(self.engine.ports(), self.input(any)).await {
            Ok(seen) => seen,
            Err(error) if overdue && !matches!(error.class, Class::Throttled { .. }) => {
                return self.fail(stage, format!("KW0003: {} is past its deadline: {error}", any.name()), vec![]).await;
            }
            Err(error) => return self.trouble(stage, any, error, vec![]).await,
        };
        match seen {
            Seen::Present(output) => {
                info!(requests = at.asked, "step done");
                let at = self.now();
                let paid = (self.run.debt.is_some() && !any.pays().is_empty())
                    .then(|| Event::Paid { at, duties: any.pays().to_vec() });
                self.record([Event::Confirmed { at, output }].into_iter().chain(paid).collect()).await
            }
            Seen::Foreign(what) => self.fail(stage, format!("KW0004: {what}"), vec![]).await,
            Seen::Broken(why) => {
                self.set_back(stage, any, &at, failed.map_or(why.clone(), |failed| format!("{why} ({failed})"))).await
            }
            Seen::Underway(what) | Seen::Partly(what) | Seen::Awaited { what, .. } if overdue => {
                let text = format!(
                    "KW0003: {} is past its deadline of {} min: {what}",
                    any.name(),
                    any.deadline().as_secs() / 60
                );
                self.fail(stage, text, vec![]).await
            }
            Seen::Absent if overdue => {
                let text = format!("KW0003: {} is past its deadline and there is nothing of it", any.name());
                self.fail(stage, text, vec![]).await
            }
            Seen::Underway(what) => self.wait(told, &what).await,
            Seen::Awaited { what, pause } => self.wait(Some(pause), &what).await,
            Seen::Absent => {
                if let Some(why) = failed {
                    return self.set_back(stage, any, &at, why).await;
                }
                if let Some(left) = self.unseen(any, at.phase.asked_at()) {
                    return Ok(self.settle(left));
                }
                self.ask(stage, any, at.asked + 1).await
            }
            Seen::Partly(_) => self.ask(stage, any, at.asked + 1).await,
        }
    }

    /// For how long an absence may still be a stale read of a request that was, or may have been, accepted.
    pub(super) fn settling(&self, any: &dyn AnyStep, asked_at: Option<Timestamp>) -> Option<Duration> {
        self.left_of(any.settles().min(self.engine.pace.settle), asked_at)
    }

    /// For how long an absence says nothing: the read may be stale, or the effect is on its way.
    pub(super) fn unseen(&self, any: &dyn AnyStep, asked_at: Option<Timestamp>) -> Option<Duration> {
        self.left_of(any.settles().min(self.engine.pace.settle).max(any.takes()), asked_at)
    }

    fn left_of(&self, span: Duration, since: Option<Timestamp>) -> Option<Duration> {
        let elapsed = Duration::try_from(self.now().duration_since(since?)).unwrap_or(span);
        span.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// Waits for a stale read to pass.
    pub(super) fn settle(&self, left: Duration) -> Next {
        let looks = self.cell.looks.fetch_add(1, Ordering::Relaxed);
        Next::After(left.min(self.engine.pace.pause(self.run.id, looks)))
    }

    async fn set_back(&self, stage: &Stage, any: &dyn AnyStep, at: &At, why: String) -> Result<Next, EngineError> {
        if at.setbacks + 1 >= SETBACKS_MAX {
            return self
                .fail(stage, format!("KW0005: {} failed {SETBACKS_MAX} times, lastly: {why}", any.name()), vec![])
                .await;
        }
        self.record(vec![Event::SetBack { at: self.now(), why }]).await
    }

    /// Asks once. The intent is durable before, the answer after.
    async fn ask(&self, stage: &Stage, any: &dyn AnyStep, attempt: u32) -> Result<Next, EngineError> {
        {
            let mut stored = self.cell.inner.lock().await;
            // Cancelled while this turn was looking: nothing new goes out.
            if stored.run.cancel != self.run.cancel {
                return Ok(Next::Now);
            }
            // The look took long, and the Lease ran out meanwhile.
            if !self.engine.authority.may_change() {
                return Ok(Next::Now);
            }
            let asking = Event::Asking { at: self.now(), attempt, epoch: self.engine.authority.epoch().0 };
            self.engine.record_in(&mut stored, self.cell, vec![asking]).await?;
        }
        match any.act(self.engine.ports(), self.input(any)).await {
            Ok(accepted) => {
                let told = accepted.retry_after;
                let said = accepted.said.clone().unwrap_or_else(|| format!("{} was asked for", any.name()));
                self.engine.record(self.cell, vec![Event::Asked { at: self.now(), accepted }]).await?;
                self.wait(told, &said).await
            }
            Err(error) => {
                let not_asked = Event::NotAsked { at: self.now(), why: error.text.clone() };
                let events = match error.class {
                    Class::Uncertain => vec![],
                    Class::Throttled { .. }
                    | Class::Busy
                    | Class::Preempted
                    | Class::Denied
                    | Class::Gone
                    | Class::Refused => {
                        vec![not_asked]
                    }
                };
                self.trouble(stage, any, error, events).await
            }
        }
    }

    /// One turn of a run on its way back.
    pub(super) async fn back(&self, any: &dyn AnyStep, back: Back) -> Result<Next, EngineError> {
        let Back { step, why, cancelled, since, last_ask } = back;
        if let Some(input) = self.run.inputs.get(any.name()) {
            let trouble = match any.undo(self.engine.ports(), input).await {
                Ok(Undone::Gone) => match self.settling(any, last_ask) {
                    Some(left) => return Ok(self.settle(left)),
                    None => None,
                },
                Ok(Undone::Going(what)) if !self.overdue(since, any.deadline()) => return self.wait(None, &what).await,
                Ok(Undone::Going(what)) => Some(what),
                Err(StepError { class: Class::Throttled { retry_after }, text, .. }) => {
                    return self.wait_stored(retry_after, &text, true, vec![]).await;
                }
                Err(error) if !self.overdue(since, any.deadline()) => {
                    warn!(run = %self.run.id, step = any.name(), %error, "undo failed, trying again");
                    return self.wait(None, &error.text).await;
                }
                Err(error) => Some(error.text),
            };
            if let Some(left) = trouble {
                let why = format!("{why}; and undoing {} failed: {left}", any.name());
                return self.end(Outcome::NeedsPerson { why }).await;
            }
        }
        if step > 0 {
            return self.record(vec![Event::StepUndone { at: self.now() }]).await;
        }
        self.end(if cancelled { Outcome::Cancelled } else { Outcome::Undone { why } }).await
    }
}
