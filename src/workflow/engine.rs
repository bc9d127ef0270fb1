//! Drives runs: looks, asks, looks, waits, undoes, and journals before and after. One `turn` is at most one request.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{
    delay::Pace,
    plan::{self, OnFailure, Stage},
    recovery::{self, Recovery},
    run::{Event, IllegalEvent, Outcome, Phase, PlannedStep, Position, Run, RunState},
    spec::RunSpec,
    step::{AnyStep, Context, Ports, Seen, StepError, Undone},
    summary::Summary,
};
use crate::{
    clock::Clock,
    cloud::{Bucket, Cloud, Limiter, OperationState},
    cluster::Cluster,
    model::{Class, RunId, ScaleSetId},
    store::{Fence, Journal, NewRecord, Revision, StoreError},
};

/// Failed attempts of one step before its stage fails.
const SETBACKS_MAX: u32 = 3;
/// Pauses longer than this are stored, so that a restart keeps them.
const STORED_PAUSE: Duration = Duration::from_mins(1);
/// Facts about closed buckets: `throttle/<subscription>/<kind>`.
const THROTTLE: &str = "throttle/";
/// Facts that steps remember.
const MEMORY: &str = "memory/";

/// Is told every event that has become durable.
pub type Observer = Box<dyn Fn(&Run, &Event) + Send + Sync>;

/// Why a run can't be driven any further by this process. Not a run's own failure: those are states.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed: nothing may be done that could not be recorded.
    #[error("failed to record what happened: {0}")]
    Store(#[from] StoreError),
    /// A bug of ours. Stopping beats damaging a cluster; the journal makes stopping cheap.
    #[error("stopped by a fault of kamino-wf itself, please report it: {0}")]
    Illegal(#[from] IllegalEvent),
    /// A stored record that this release can't read.
    #[error("run {run}: record {seq} can't be read by this release: {detail}")]
    Unreadable {
        /// The run.
        run: RunId,
        /// The record.
        seq: u64,
        /// What is wrong with it.
        detail: String,
    },
}

/// What a person asked for and can't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum Rejected {
    #[error("there is no run {0}; `kamino-wf list` shows those there are")]
    NoSuchRun(String),
    #[error("{given:?} fits more than one run ({}); give more digits", matches.join(", "))]
    Ambiguous { given: String, matches: Vec<String> },
    #[error("run {run} is open for scale set {scale_set}; wait for it, or `kamino-wf cancel {run}` first")]
    Occupied { run: String, scale_set: String },
    #[error("run {run} has ended ({state})")]
    Ended { run: String, state: String },
    #[error(
        "run {run} is past the point of no return ({step}): the scale set is consistent only when that is finished; \
         let it finish, then publish an older version if need be"
    )]
    PastReturn { run: String, step: String },
    #[error("run {run} goes on by itself ({state}); there is nothing to resume")]
    NotStopped { run: String, state: String },
    #[error("run {run} was made by release {release} and needs its step {step}; use that release to finish it")]
    NeedsRelease { run: String, release: String, step: String },
}

/// When a run is to be turned again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// After a pause.
    After(Duration),
    /// Not before a person speaks.
    Rest,
    /// Never: it is at an end.
    Ended,
}

struct Cell {
    inner: tokio::sync::Mutex<Stored>,
    /// Looks in a row without a change, for the pause before the next.
    looks: AtomicU32,
}

struct Stored {
    run: Run,
    revision: Revision,
}

/// The engine: ports, the journal, and the runs that are open.
pub struct Engine {
    cloud: Arc<dyn Cloud>,
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    journal: Journal,
    limiter: Arc<Limiter>,
    pace: Pace,
    release: String,
    observer: Observer,
    cells: Mutex<BTreeMap<RunId, Arc<Cell>>>,
    starting: tokio::sync::Mutex<()>,
    stored_throttle: Mutex<BTreeMap<Bucket, Timestamp>>,
    poked: Mutex<BTreeSet<RunId>>,
    poke: Notify,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("release", &self.release).finish_non_exhaustive()
    }
}

/// What an engine is made from.
#[expect(missing_debug_implementations, reason = "ports have none")]
pub struct Parts {
    /// Azure.
    pub cloud: Arc<dyn Cloud>,
    /// Kubernetes.
    pub cluster: Arc<dyn Cluster>,
    /// Wall time and ids.
    pub clock: Arc<dyn Clock>,
    /// The store.
    pub journal: Journal,
    /// The same limiter that the cloud adapter asks.
    pub limiter: Arc<Limiter>,
    /// How often the world is looked at.
    pub pace: Pace,
    /// This release.
    pub release: String,
    /// Is told every durable event.
    pub observer: Observer,
}

impl Engine {
    /// Reads what is stored: throttling first, so that not even the first request comes too early, then the open runs.
    pub async fn open(parts: Parts) -> Result<Self, EngineError> {
        let Parts { cloud, cluster, clock, journal, limiter, pace, release, observer } = parts;
        let mut stored_throttle = BTreeMap::new();
        for (_, value) in journal.facts(THROTTLE).await? {
            if let Ok((bucket, until)) = serde_json::from_value::<(Bucket, Timestamp)>(value) {
                limiter.close(&bucket, until);
                stored_throttle.insert(bucket, until);
            }
        }
        let engine = Self {
            cloud,
            cluster,
            clock,
            journal,
            limiter,
            pace,
            release,
            observer,
            cells: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            stored_throttle: Mutex::new(stored_throttle),
            poked: Mutex::default(),
            poke: Notify::new(),
        };
        for head in engine.journal.heads().await? {
            let open = serde_json::from_value::<Summary>(head.summary).is_ok_and(|summary| !summary.open());
            if !open {
                engine.adopt(RunId(head.run)).await?;
            }
        }
        Ok(engine)
    }

    /// Takes a stored run into memory.
    async fn adopt(&self, id: RunId) -> Result<(), EngineError> {
        let Some((run, revision)) = load(&self.journal, id).await? else { return Ok(()) };
        match recovery::decide(&run) {
            Recovery::Nothing => return Ok(()),
            Recovery::Wait => {}
            Recovery::NeedsRelease { release, step } => {
                warn!(run = %id, release, step, "run needs another release and is left as it is");
            }
            Recovery::Resume => self.poked().extend([id]),
        }
        let cell = Cell { inner: tokio::sync::Mutex::new(Stored { run, revision }), looks: AtomicU32::new(0) };
        self.cells().insert(id, Arc::new(cell));
        Ok(())
    }

    fn cells(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poked(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.poked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs that have to be turned now for a reason other than their own wake-up.
    pub(super) fn take_poked(&self) -> BTreeSet<RunId> {
        std::mem::take(&mut *self.poked())
    }

    /// Returns when there may be a run to turn.
    pub(super) async fn poked_again(&self) {
        self.poke.notified().await;
    }

    fn poke(&self, id: RunId) {
        self.poked().insert(id);
        self.poke.notify_one();
    }

    /// The clock that the engine goes by.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    fn ports(&self) -> Ports<'_> {
        Ports { cloud: self.cloud.as_ref(), cluster: self.cluster.as_ref(), clock: self.clock.as_ref() }
    }

    /// Begins a run. Its plan and what was asked for are durable when this returns.
    pub async fn start(&self, spec: RunSpec, by: &str) -> Result<Result<RunId, Rejected>, EngineError> {
        let _one_at_a_time = self.starting.lock().await;
        if let Some(rejected) = self.occupied(&spec.scale_set).await {
            return Ok(Err(rejected));
        }
        let id = self.clock.new_run();
        let event = Event::Started {
            at: self.clock.now(),
            plan: plan::plan(plan::stages(spec.capture)),
            spec: Box::new(spec),
            release: self.release.clone(),
            by: by.to_owned(),
        };
        let run = Run::begin(id, event.clone())?;
        let revision = self.commit(&run, Revision(0), std::slice::from_ref(&event)).await?;
        (self.observer)(&run, &event);
        let cell = Cell { inner: tokio::sync::Mutex::new(Stored { run, revision }), looks: AtomicU32::new(0) };
        self.cells().insert(id, Arc::new(cell));
        self.poke(id);
        Ok(Ok(id))
    }

    /// At most one open run a scale set.
    async fn occupied(&self, scale_set: &ScaleSetId) -> Option<Rejected> {
        let cells: Vec<Arc<Cell>> = self.cells().values().cloned().collect();
        for cell in cells {
            let stored = cell.inner.lock().await;
            if stored.run.spec.scale_set == *scale_set && !stored.run.ended() {
                let run = stored.run.id.short();
                return Some(Rejected::Occupied { run, scale_set: scale_set.name().to_owned() });
            }
        }
        None
    }

    /// A person says: stop and undo. Durable when this returns; the undoing is the engine's.
    pub async fn cancel(&self, id: RunId, by: &str) -> Result<Result<(), Rejected>, EngineError> {
        let Some(cell) = self.cell(id) else { return self.ended_or_unknown(id).await.map(Err) };
        let mut stored = cell.inner.lock().await;
        let Some(position) = stored.run.position() else {
            return Ok(Err(Rejected::Ended { run: id.short(), state: Summary::of(&stored.run).state }));
        };
        if matches!(position, Position::Forward { .. })
            && let Some((stage, step)) = step_at(&stored.run, position.step())
            && stage.on_failure == OnFailure::Forward
        {
            return Ok(Err(Rejected::PastReturn { run: id.short(), step: step.name().to_owned() }));
        }
        let event = Event::CancelRequested { at: self.clock.now(), by: by.to_owned() };
        self.record_in(&mut stored, &cell, vec![event]).await?;
        self.poke(id);
        Ok(Ok(()))
    }

    /// A person says: go on now.
    pub async fn resume(&self, id: RunId, by: &str) -> Result<Result<(), Rejected>, EngineError> {
        let Some(cell) = self.cell(id) else { return self.ended_or_unknown(id).await.map(Err) };
        let mut stored = cell.inner.lock().await;
        if let Some(step) = recovery::missing_step(&stored.run) {
            return Ok(Err(Rejected::NeedsRelease { run: id.short(), release: stored.run.release.clone(), step }));
        }
        match &stored.run.state {
            RunState::Parked { .. } | RunState::Waiting { .. } => {}
            RunState::Running { .. } | RunState::Ended(_) => {
                return Ok(Err(Rejected::NotStopped { run: id.short(), state: Summary::of(&stored.run).state }));
            }
        }
        let event = Event::Resumed { at: self.clock.now(), by: by.to_owned() };
        self.record_in(&mut stored, &cell, vec![event]).await?;
        self.poke(id);
        Ok(Ok(()))
    }

    fn cell(&self, id: RunId) -> Option<Arc<Cell>> {
        self.cells().get(&id).cloned()
    }

    async fn ended_or_unknown(&self, id: RunId) -> Result<Rejected, EngineError> {
        Ok(match load(&self.journal, id).await? {
            Some((run, _)) => Rejected::Ended { run: id.short(), state: Summary::of(&run).state },
            None => Rejected::NoSuchRun(id.short()),
        })
    }

    /// One turn of one run: at most one request, and everything about it durable.
    pub async fn turn(&self, id: RunId) -> Result<Next, EngineError> {
        let Some(cell) = self.cell(id) else { return Ok(Next::Ended) };
        let run = cell.inner.lock().await.run.clone();
        let position = match &run.state {
            RunState::Ended(_) => {
                self.cells().remove(&id);
                return Ok(Next::Ended);
            }
            RunState::Parked { .. } => return Ok(Next::Rest),
            RunState::Waiting { until, .. } if *until > self.clock.now() && run.cancel.is_none() => {
                let left = until.duration_since(self.clock.now());
                return Ok(Next::After(Duration::try_from(left).unwrap_or_default()));
            }
            RunState::Waiting { position, .. } | RunState::Running { position } => position.clone(),
        };
        let turn = Turn { engine: self, cell: &cell, run: &run };
        match position {
            Position::Forward { step, .. } if step == run.plan.len() => turn.end(Outcome::Done).await,
            Position::Forward { step, phase, since, setbacks, asked } => {
                let Some((stage, any)) = step_at(&run, step) else { return turn.park_unknown(step).await };
                turn.forward(stage, any, At { phase, since, setbacks, asked }).await
            }
            Position::Back { step, why, cancelled, since } => {
                let Some((_, any)) = step_at(&run, step) else { return turn.park_unknown(step).await };
                turn.back(any, step, why, cancelled, since).await
            }
        }
    }

    /// Makes events durable, then visible.
    async fn record(&self, cell: &Arc<Cell>, events: Vec<Event>) -> Result<(), EngineError> {
        let mut stored = cell.inner.lock().await;
        self.record_in(&mut stored, cell, events).await
    }

    async fn record_in(&self, stored: &mut Stored, cell: &Cell, events: Vec<Event>) -> Result<(), EngineError> {
        let mut run = stored.run.clone();
        let mut moments = Vec::new();
        for event in &events {
            run.apply(event.clone())?;
            moments.push(run.clone());
        }
        stored.revision = self.commit(&run, stored.revision, &events).await?;
        stored.run = run;
        if !events.iter().all(|event| matches!(event, Event::Waiting { .. })) {
            cell.looks.store(0, Ordering::Relaxed);
        }
        for (event, run) in events.iter().zip(&moments) {
            debug!(run = %run.id, step = run.step_name(), event = event.kind(), "recorded");
            (self.observer)(run, event);
        }
        Ok(())
    }

    async fn commit(&self, run: &Run, expected: Revision, events: &[Event]) -> Result<Revision, EngineError> {
        let mut records = Vec::new();
        for event in events {
            let payload = serde_json::to_value(event).map_err(|error| EngineError::Unreadable {
                run: run.id,
                seq: expected.0,
                detail: error.to_string(),
            })?;
            records.push(NewRecord { kind: event.kind(), payload });
        }
        let summary = serde_json::to_value(Summary::of(run)).unwrap_or_default();
        Ok(self.journal.commit(run.id.0, expected, Fence(0), records, summary).await?)
    }

    /// Stores what the limiter has learnt since the last time.
    async fn store_throttling(&self) -> Result<(), EngineError> {
        let closed = self.limiter.closed(self.clock.now());
        let news: Vec<(Bucket, Timestamp)> = {
            let known = self.stored_throttle.lock().unwrap_or_else(PoisonError::into_inner);
            closed.into_iter().filter(|(bucket, until)| known.get(bucket) != Some(until)).collect()
        };
        if news.is_empty() {
            return Ok(());
        }
        let facts = news
            .iter()
            .map(|(bucket, until)| {
                let key = format!("{THROTTLE}{}/{}", bucket.subscription, bucket.kind.as_str());
                (key, serde_json::to_value((bucket, until)).ok())
            })
            .collect();
        self.journal.put_facts(Fence(0), facts).await?;
        self.stored_throttle.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
        Ok(())
    }

    async fn memory(&self) -> Result<BTreeMap<String, Value>, EngineError> {
        let facts = self.journal.facts(MEMORY).await?;
        Ok(facts.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(MEMORY)?.to_owned(), value))).collect())
    }
}

/// The step at an index of a run's plan, if this release has it.
fn step_at(run: &Run, index: usize) -> Option<(&'static Stage, &'static dyn AnyStep)> {
    plan::find(plan::stages(run.spec.capture), run.plan.get(index)?)
}

/// A stored run and its revision.
pub async fn load(journal: &Journal, id: RunId) -> Result<Option<(Run, Revision)>, EngineError> {
    let Some((head, events)) = events(journal, id.0).await? else { return Ok(None) };
    Ok(Some((Run::fold(id, events)?, head)))
}

/// A stored run's events.
pub async fn events(journal: &Journal, id: Uuid) -> Result<Option<(Revision, Vec<Event>)>, EngineError> {
    let Some((head, records)) = journal.load(id).await? else { return Ok(None) };
    let mut events = Vec::with_capacity(records.len());
    for record in records {
        let event = serde_json::from_value(record.payload).map_err(|error| EngineError::Unreadable {
            run: RunId(id),
            seq: record.seq,
            detail: error.to_string(),
        })?;
        events.push(event);
    }
    Ok(Some((head.revision, events)))
}

/// Where a step is, as `Position::Forward` says.
struct At {
    phase: Phase,
    since: Timestamp,
    setbacks: u32,
    asked: u32,
}

/// One turn of one run.
struct Turn<'a> {
    engine: &'a Engine,
    cell: &'a Arc<Cell>,
    run: &'a Run,
}

impl Turn<'_> {
    fn now(&self) -> Timestamp {
        self.engine.clock.now()
    }

    async fn record(&self, events: Vec<Event>) -> Result<Next, EngineError> {
        self.engine.record(self.cell, events).await?;
        Ok(Next::Now)
    }

    async fn end(&self, outcome: Outcome) -> Result<Next, EngineError> {
        info!(run = %self.run.id, ?outcome, "run ended");
        self.record(vec![Event::Ended { at: self.now(), outcome }]).await
    }

    async fn park(&self, why: String) -> Result<Next, EngineError> {
        error!(run = %self.run.id, step = self.run.step_name(), why, "run parked");
        self.record(vec![Event::Parked { at: self.now(), why }]).await
    }

    async fn park_unknown(&self, step: usize) -> Result<Next, EngineError> {
        let planned = self
            .run
            .plan
            .get(step)
            .map_or_else(String::new, |PlannedStep { name, version }| format!("{name}/{version}"));
        self.park(format!("step {planned} is not in this release; finish the run with release {}", self.run.release))
            .await
    }

    fn overdue(&self, since: Timestamp, deadline: Duration) -> bool {
        Duration::try_from(self.now().duration_since(since)).is_ok_and(|elapsed| elapsed > deadline)
    }

    /// Waits before the next look; a long pause is stored.
    async fn wait(&self, told: Option<Duration>, why: &str) -> Result<Next, EngineError> {
        let looks = self.cell.looks.fetch_add(1, Ordering::Relaxed);
        let pause = told.unwrap_or_else(|| self.engine.pace.pause(self.run.id, looks));
        if pause > STORED_PAUSE {
            return self.wait_stored(pause, why, false, vec![]).await;
        }
        Ok(Next::After(pause))
    }

    async fn wait_stored(
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
            OnFailure::Stop => Event::Ended { at, outcome: Outcome::Undone { why } },
            OnFailure::Undo => Event::Undoing { at, why, cancelled: false },
            OnFailure::Forward => Event::Parked { at, why },
            OnFailure::Report => Event::Skipped { at, why },
        });
        self.record(events).await
    }

    /// What a failed call means for a run on its way forward. `events` go into the same commit.
    async fn trouble(&self, stage: &Stage, error: StepError, events: Vec<Event>) -> Result<Next, EngineError> {
        let StepError { class, code, text } = error;
        debug!(run = %self.run.id, step = self.run.step_name(), ?class, text, "call failed");
        match class {
            Class::Throttled { retry_after } => self.wait_stored(retry_after, &text, true, events).await,
            Class::Uncertain | Class::Busy | Class::Preempted => {
                if !events.is_empty() {
                    self.engine.record(self.cell, events).await?;
                }
                self.wait(None, &text).await
            }
            Class::Denied => match stage.on_failure {
                OnFailure::Stop | OnFailure::Report => self.fail(stage, format!("{code}: {text}"), events).await,
                OnFailure::Undo | OnFailure::Forward => {
                    let mut events = events;
                    events.push(Event::Parked { at: self.now(), why: format!("{code}: {text}") });
                    self.record(events).await
                }
            },
            Class::Gone | Class::Refused => self.fail(stage, format!("{code}: {text}"), events).await,
        }
    }

    async fn forward(&self, stage: &Stage, any: &dyn AnyStep, at: At) -> Result<Next, EngineError> {
        if let Some(by) = &self.run.cancel {
            match stage.on_failure {
                OnFailure::Stop => return self.end(Outcome::Cancelled).await,
                // Refused once a stage without a way back has begun: it was accepted before, and nothing of it was asked for.
                OnFailure::Undo | OnFailure::Forward => {
                    let why = format!("cancelled by {by}");
                    return self.record(vec![Event::Undoing { at: self.now(), why, cancelled: true }]).await;
                }
                OnFailure::Report => {
                    let why = format!("not finished: cancelled by {by}");
                    let skipped = Event::Skipped { at: self.now(), why };
                    let done = Event::Ended { at: self.now(), outcome: Outcome::Done };
                    return self.record(vec![skipped, done]).await;
                }
            }
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
                Err(error) => self.trouble(stage, error, vec![]).await,
            },
            Phase::Decided | Phase::Asking { .. } | Phase::Asked { .. } => self.look(stage, any, at, overdue).await,
        }
    }

    fn input(&self, any: &dyn AnyStep) -> &Value {
        self.run.inputs.get(any.name()).unwrap_or(&Value::Null)
    }

    /// A decision, or an effect's input.
    async fn fresh(&self, stage: &Stage, any: &dyn AnyStep, overdue: bool) -> Result<Next, EngineError> {
        let memory = self.engine.memory().await?;
        let context = Context {
            run: self.run.id,
            started: self.run.started,
            spec: &self.run.spec,
            outputs: &self.run.outputs,
            memory: &memory,
        };
        match any.decide(self.engine.ports(), context).await {
            None => match any.input(context) {
                Ok(input) => self.record(vec![Event::Decided { at: self.now(), input }]).await,
                Err(error) => self.trouble(stage, error, vec![]).await,
            },
            Some(Ok((output, fact))) => {
                if let Some((key, value)) = fact {
                    self.engine.journal.put_facts(Fence(0), vec![(format!("{MEMORY}{key}"), Some(value))]).await?;
                }
                self.record(vec![Event::Confirmed { at: self.now(), output }]).await
            }
            Some(Err(error)) if overdue => {
                self.fail(stage, format!("KW0003: {} could not be decided in time: {error}", any.name()), vec![]).await
            }
            Some(Err(error)) => self.trouble(stage, error, vec![]).await,
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
                Err(error) => return self.trouble(stage, error.into(), vec![]).await,
            }
        }
        let seen = match any.observe(self.engine.ports(), self.input(any)).await {
            Ok(seen) => seen,
            Err(error) if overdue && !matches!(error.class, Class::Throttled { .. }) => {
                return self.fail(stage, format!("KW0003: {} is past its deadline: {error}", any.name()), vec![]).await;
            }
            Err(error) => return self.trouble(stage, error, vec![]).await,
        };
        match seen {
            Seen::Present(output) => self.record(vec![Event::Confirmed { at: self.now(), output }]).await,
            Seen::Foreign(what) => self.fail(stage, format!("KW0004: {what}"), vec![]).await,
            Seen::Broken(why) => {
                self.set_back(stage, any, &at, failed.map_or(why.clone(), |failed| format!("{why} ({failed})"))).await
            }
            Seen::Underway(what) | Seen::Partly(what) if overdue => {
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
            Seen::Absent => {
                if let Some(why) = failed {
                    return self.set_back(stage, any, &at, why).await;
                }
                if let Some(left) = self.settling(any, &at.phase) {
                    let looks = self.cell.looks.fetch_add(1, Ordering::Relaxed);
                    return Ok(Next::After(left.min(self.engine.pace.pause(self.run.id, looks))));
                }
                self.ask(stage, any, at.asked + 1).await
            }
            Seen::Partly(_) => self.ask(stage, any, at.asked + 1).await,
        }
    }

    /// For how long an absence may still be a stale read of a request that was, or may have been, accepted.
    fn settling(&self, any: &dyn AnyStep, phase: &Phase) -> Option<Duration> {
        let (Phase::Asking { at, .. } | Phase::Asked { at, .. }) = phase else { return None };
        let settles = any.settles().min(self.engine.pace.settle);
        let elapsed = Duration::try_from(self.now().duration_since(*at)).unwrap_or(settles);
        settles.checked_sub(elapsed).filter(|left| !left.is_zero())
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
            self.engine.record_in(&mut stored, self.cell, vec![Event::Asking { at: self.now(), attempt }]).await?;
        }
        match any.act(self.engine.ports(), self.input(any)).await {
            Ok(accepted) => {
                let told = accepted.retry_after;
                self.engine.record(self.cell, vec![Event::Asked { at: self.now(), accepted }]).await?;
                self.wait(told, &format!("{} was asked for", any.name())).await
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
                self.trouble(stage, error, events).await
            }
        }
    }

    /// One turn of a run on its way back.
    async fn back(
        &self,
        any: &dyn AnyStep,
        step: usize,
        why: String,
        cancelled: bool,
        since: Timestamp,
    ) -> Result<Next, EngineError> {
        if let Some(input) = self.run.inputs.get(any.name()) {
            let trouble = match any.undo(self.engine.ports(), input).await {
                Ok(Undone::Gone) => None,
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
