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
use tokio::sync::{Notify, watch};
use tracing::{Instrument as _, debug, info_span, warn};
use uuid::Uuid;

use super::{
    authority::Authority,
    delay::Pace,
    describe::Description,
    plan::{self, OnFailure, Stage},
    recovery::{self, Recovery},
    run::{Event, IllegalEvent, Outcome, Phase, PlannedStep, Position, Run, RunState},
    spec::RunSpec,
    step::{AnyStep, Ports, StepError},
    summary::Summary,
    turn::{At, Back, Turn},
};
use crate::{
    clock::Clock,
    cloud::{Bucket, Cloud, CloudError, Limiter},
    cluster::Cluster,
    model::{RunId, ScaleSetId},
    store::{Fact, Journal, NewRecord, Revision, StoreError},
};

/// Facts about closed buckets: `throttle/<subscription>/<kind>`.
const THROTTLE: &str = "throttle/";
/// Facts that steps remember.
pub(super) const MEMORY: &str = "memory/";

/// What a person's word did to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The run.
    pub run: RunId,
    /// Its revision before.
    pub before: Revision,
    /// Its revision now.
    pub after: Revision,
    /// It was so already.
    pub already: bool,
}

/// What happened to a run since somebody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The run's revision: how many events it has in all.
    pub revision: Revision,
    /// Events and their places in the journal, oldest first.
    pub events: Vec<(u64, Event)>,
    /// Set when the run is at an end and nothing comes after these events.
    pub end: Option<Summary>,
}

/// Says what else has to become durable in the same batch as a change: who asked, and what they were answered.
pub type Note<'a> = &'a (dyn Fn(Change) -> Vec<Fact> + Send + Sync);

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
    #[error("run {run} is at revision {found} now, not {expected} ({state}); look at it again")]
    Changed { run: String, expected: u64, found: u64, state: String },
    #[error("idempotency key {0} was used for another request; take a new key for a new request")]
    KeyReused(String),
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

pub(super) struct Cell {
    pub(super) inner: tokio::sync::Mutex<Stored>,
    /// Looks in a row without a change, for the pause before the next.
    pub(super) looks: AtomicU32,
    /// What the pause after the newest look is for: too short to be stored, but whoever asks is told.
    note: Mutex<Option<String>>,
}

impl Cell {
    fn new(run: Run, revision: Revision) -> Arc<Self> {
        Arc::new(Self {
            inner: tokio::sync::Mutex::new(Stored { run, revision }),
            looks: AtomicU32::new(0),
            note: Mutex::default(),
        })
    }

    pub(super) fn set_note(&self, note: Option<&str>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note.map(str::to_owned);
    }

    fn note(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) struct Stored {
    pub(super) run: Run,
    revision: Revision,
}

impl Stored {
    /// It has moved since whoever asks has looked.
    fn changed(&self, expected: Option<Revision>) -> Option<Rejected> {
        let expected = expected.filter(|expected| *expected != self.revision)?;
        Some(Rejected::Changed {
            run: self.run.id.short(),
            expected: expected.0,
            found: self.revision.0,
            state: Summary::of(&self.run).in_words(),
        })
    }
}

/// The engine: ports, the journal, and the runs that are open.
pub struct Engine {
    pub(super) cloud: Arc<dyn Cloud>,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) journal: Journal,
    pub(super) limiter: Arc<Limiter>,
    pub(super) authority: Arc<Authority>,
    pub(super) pace: Pace,
    runs_at_once: usize,
    release: String,
    observer: Observer,
    cells: Mutex<BTreeMap<RunId, Arc<Cell>>>,
    starting: tokio::sync::Mutex<()>,
    stored_throttle: Mutex<BTreeMap<Bucket, Timestamp>>,
    poked: Mutex<BTreeSet<RunId>>,
    poke: Notify,
    recorded: watch::Sender<u64>,
    /// Runs that nothing moves before a person speaks (`serve --hold-on-start`).
    held: Mutex<BTreeSet<RunId>>,
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
    /// Whether this process may change the world.
    pub authority: Arc<Authority>,
    /// How often the world is looked at.
    pub pace: Pace,
    /// Runs that are beyond choosing at a time; the others wait.
    pub runs_at_once: usize,
    /// This release.
    pub release: String,
    /// Is told every durable event.
    pub observer: Observer,
}

impl Engine {
    /// Reads what is stored: throttling first, so that not even the first request comes too early, then the open runs.
    pub async fn open(parts: Parts) -> Result<Self, EngineError> {
        let Parts { cloud, cluster, clock, journal, limiter, authority, pace, runs_at_once, release, observer } = parts;
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
            authority,
            pace,
            runs_at_once,
            release,
            observer,
            cells: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            stored_throttle: Mutex::new(stored_throttle),
            poked: Mutex::default(),
            poke: Notify::new(),
            recorded: watch::Sender::default(),
            held: Mutex::default(),
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
        self.cells().insert(id, Cell::new(run, revision));
        Ok(())
    }

    fn cells(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poked(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.poked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing moves the runs that are open now, until a person resumes or cancels each.
    pub fn hold(&self) {
        let ids: Vec<RunId> = self.cells().keys().copied().collect();
        self.poked().clear();
        self.held().extend(ids);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether this process may change the world.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The clock that the engine goes by.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(super) fn ports(&self) -> Ports<'_> {
        Ports { cloud: self.cloud.as_ref(), cluster: self.cluster.as_ref(), clock: self.clock.as_ref() }
    }

    /// Begins a run. Its plan and what was asked for are durable when this returns.
    pub async fn start(&self, spec: RunSpec, by: &str) -> Result<Result<RunId, Rejected>, EngineError> {
        Ok(self.start_noted(spec, by, &|_| Vec::new()).await?.map(|change| change.run))
    }

    /// As [`Engine::start`], with a note in the same batch.
    pub async fn start_noted(
        &self,
        spec: RunSpec,
        by: &str,
        note: Note<'_>,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        let _one_at_a_time = self.starting.lock().await;
        if let Some(run) = self.open_run(&spec.scale_set).await {
            let scale_set = spec.scale_set.name().to_owned();
            return Ok(Err(Rejected::Occupied { run: run.short(), scale_set }));
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
        let change = Change { run: id, before: Revision(0), after: Revision(1), already: false };
        let revision = self.commit(&run, Revision(0), std::slice::from_ref(&event), note(change)).await?;
        (self.observer)(&run, &event);
        self.cells().insert(id, Cell::new(run, revision));
        self.say_recorded();
        self.poke(id);
        Ok(Ok(change))
    }

    /// The open run of a scale set: there is at most one.
    pub async fn open_run(&self, scale_set: &ScaleSetId) -> Option<RunId> {
        let cells: Vec<Arc<Cell>> = self.cells().values().cloned().collect();
        for cell in cells {
            let stored = cell.inner.lock().await;
            if stored.run.spec.scale_set == *scale_set && !stored.run.ended() {
                return Some(stored.run.id);
            }
        }
        None
    }

    /// Asks Azure for the scale set once, before a run is begun: is it there, and may we?
    ///
    /// # Errors
    /// What Azure said. Throttling is none: the run will wait.
    pub async fn first_contact(&self, scale_set: &ScaleSetId) -> Result<(), StepError> {
        match self.cloud.scale_set(scale_set).await {
            Ok(Some(_)) | Err(CloudError::Throttled { .. }) => Ok(()),
            Ok(None) => Err(StepError::gone(
                "KW0221",
                format!("scale set {scale_set} does not exist: check subscription, group and name in the settings"),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// A person says: stop and undo. Durable when this returns; the undoing is the engine's.
    pub async fn cancel(&self, id: RunId, by: &str) -> Result<Result<(), Rejected>, EngineError> {
        Ok(self.cancel_noted(id, by, None, &|_| Vec::new()).await?.map(|_| ()))
    }

    /// As [`Engine::cancel`], only at the expected revision if there is one, and with a note in the same batch.
    pub async fn cancel_noted(
        &self,
        id: RunId,
        by: &str,
        expected: Option<Revision>,
        note: Note<'_>,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        let Some(cell) = self.cell(id) else { return self.ended_or_unknown(id, expected).await.map(Err) };
        let mut stored = cell.inner.lock().await;
        if let Some(changed) = stored.changed(expected) {
            return Ok(Err(changed));
        }
        let Some(position) = stored.run.position() else {
            return Ok(Err(Rejected::Ended { run: id.short(), state: Summary::of(&stored.run).state }));
        };
        if matches!(position, Position::Forward { .. })
            && let Some((stage, step)) = step_at(&stored.run, position.step())
            && stage.on_failure == OnFailure::Forward
            && !(stage.begins_with(step) && position.untouched())
        {
            return Ok(Err(Rejected::PastReturn { run: id.short(), step: step.name().to_owned() }));
        }
        if stored.run.cancel.is_some() {
            let change = Change { run: id, before: stored.revision, after: stored.revision, already: true };
            self.put_facts(note(change)).await?;
            return Ok(Ok(change));
        }
        self.held().remove(&id);
        let event = Event::CancelRequested { at: self.clock.now(), by: by.to_owned() };
        self.ask_in(&mut stored, &cell, event, note).await.map(Ok)
    }

    /// A person says: go on now.
    pub async fn resume(&self, id: RunId, by: &str) -> Result<Result<(), Rejected>, EngineError> {
        Ok(self.resume_noted(id, by, None, &|_| Vec::new()).await?.map(|_| ()))
    }

    /// As [`Engine::resume`], only at the expected revision if there is one, and with a note in the same batch.
    pub async fn resume_noted(
        &self,
        id: RunId,
        by: &str,
        expected: Option<Revision>,
        note: Note<'_>,
    ) -> Result<Result<Change, Rejected>, EngineError> {
        let Some(cell) = self.cell(id) else { return self.ended_or_unknown(id, expected).await.map(Err) };
        let mut stored = cell.inner.lock().await;
        if let Some(changed) = stored.changed(expected) {
            return Ok(Err(changed));
        }
        if let Some(step) = recovery::missing_step(&stored.run) {
            return Ok(Err(Rejected::NeedsRelease { run: id.short(), release: stored.run.release.clone(), step }));
        }
        let held = self.held().remove(&id);
        match &stored.run.state {
            RunState::Parked { .. } | RunState::Waiting { .. } => {}
            // Nothing happened to the run itself: there is nothing to record.
            RunState::Running { .. } if held => {
                let change = Change { run: id, before: stored.revision, after: stored.revision, already: false };
                self.put_facts(note(change)).await?;
                self.poke(id);
                return Ok(Ok(change));
            }
            RunState::Running { .. } | RunState::Ended(_) => {
                return Ok(Err(Rejected::NotStopped { run: id.short(), state: Summary::of(&stored.run).state }));
            }
        }
        let event = Event::Resumed { at: self.clock.now(), by: by.to_owned() };
        self.ask_in(&mut stored, &cell, event, note).await.map(Ok)
    }

    /// Records what a person asked of a run, and has it turned.
    async fn ask_in(
        &self,
        stored: &mut Stored,
        cell: &Cell,
        event: Event,
        note: Note<'_>,
    ) -> Result<Change, EngineError> {
        let before = stored.revision;
        let change = Change { run: stored.run.id, before, after: Revision(before.0 + 1), already: false };
        self.record_with(stored, cell, vec![event], note(change)).await?;
        self.poke(stored.run.id);
        Ok(change)
    }

    /// All runs, oldest first; each says what it waits for, also where that is too short to be stored.
    pub async fn summaries(&self) -> Result<Vec<Summary>, EngineError> {
        let mut all = summaries(&self.journal).await?;
        for summary in &mut all {
            let note = self.note(summary.id);
            summary.why = summary.why.take().or(note);
        }
        Ok(all)
    }

    /// One run, step by step, and what it waits for.
    pub async fn describe(&self, id: RunId) -> Result<Result<Description, Rejected>, EngineError> {
        let mut described = describe(&self.journal, id).await?;
        if let Ok(description) = &mut described {
            let note = self.note(id);
            if let Some(step) = description.steps.iter_mut().find(|step| step.state == "current") {
                step.note = note.clone().or(step.note.take());
            }
            description.summary.why = description.summary.why.take().or(note);
        }
        Ok(described)
    }

    /// What a run waits for that is too short to be stored.
    fn note(&self, id: RunId) -> Option<String> {
        if self.held().contains(&id) {
            return Some(format!("held since kamino-wf started: `kamino-wf resume {id}` lets it go on"));
        }
        self.cell(id).and_then(|cell| cell.note())
    }

    /// The run that a person means by some digits of its id.
    pub async fn find(&self, given: &str) -> Result<Result<RunId, Rejected>, EngineError> {
        Ok(find_run(&self.summaries().await?, given))
    }

    fn cell(&self, id: RunId) -> Option<Arc<Cell>> {
        self.cells().get(&id).cloned()
    }

    async fn ended_or_unknown(&self, id: RunId, expected: Option<Revision>) -> Result<Rejected, EngineError> {
        Ok(match load(&self.journal, id).await? {
            Some((run, revision)) => {
                let stored = Stored { run, revision };
                let ended = || Rejected::Ended { run: id.short(), state: Summary::of(&stored.run).state };
                stored.changed(expected).unwrap_or_else(ended)
            }
            None => Rejected::NoSuchRun(id.short()),
        })
    }

    /// Changes whenever something was recorded of any run.
    #[must_use]
    pub fn recorded(&self) -> watch::Receiver<u64> {
        self.recorded.subscribe()
    }

    /// How many events an open run has.
    pub async fn revision(&self, id: RunId) -> Option<Revision> {
        let cell = self.cell(id)?;
        let revision = cell.inner.lock().await.revision;
        Some(revision)
    }

    /// What was recorded of a run after a revision: the oldest, `most` at most.
    pub async fn news(&self, id: RunId, after: Revision, most: usize) -> Result<Result<News, Rejected>, EngineError> {
        let Some((revision, events)) = events(&self.journal, id.0).await? else {
            return Ok(Err(Rejected::NoSuchRun(id.short())));
        };
        let skipped = usize::try_from(after.0).unwrap_or(usize::MAX).min(events.len());
        let complete = events.len() - skipped <= most;
        let end = match events.last() {
            Some(Event::Ended { .. }) if complete => Some(Summary::of(&Run::fold(id, events.iter().cloned())?)),
            _ => None,
        };
        let news = (after.0 + 1..).zip(events.into_iter().skip(skipped).take(most)).collect();
        Ok(Ok(News { revision, events: news, end }))
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
            RunState::Waiting { until, .. } if *until > self.clock.now() => {
                let left = until.duration_since(self.clock.now());
                return Ok(Next::After(Duration::try_from(left).unwrap_or_default()));
            }
            RunState::Waiting { position, .. } | RunState::Running { position } => position.clone(),
        };
        // Looks are harmless, but what they say is recorded, and that is the holder's.
        if !self.authority.may_change() {
            cell.set_note(Some("this process does not hold the Lease: nothing moves"));
            return Ok(Next::After(NO_AUTHORITY));
        }
        if let Some(others) = self.crowded(&run).await {
            cell.set_note(Some(&format!(
                "waits for other runs: {others} under way, at most {} at a time",
                self.runs_at_once
            )));
            return Ok(Next::After(CROWDED));
        }
        // Whatever is logged below, also by the adapters, says which run and step it is about.
        let asked = match &position {
            Position::Forward { asked, .. } => *asked,
            Position::Back { .. } => 0,
        };
        let scale_set = run.spec.scale_set.name();
        let span = info_span!("step", run = %id, scale_set, step = run.step_name(), attempt = asked);
        let turn = Turn { engine: self, cell: &cell, run: &run };
        async {
            match position {
                Position::Forward { step, .. } if step == run.plan.len() => turn.end(Outcome::Done).await,
                Position::Forward { step, phase, since, setbacks, asked } => {
                    let Some((stage, any)) = step_at(&run, step) else { return turn.park_unknown(step).await };
                    turn.forward(stage, any, At { phase, since, setbacks, asked }).await
                }
                Position::Back { step, why, cancelled, since, last_ask } => {
                    let Some((_, any)) = step_at(&run, step) else { return turn.park_unknown(step).await };
                    turn.back(any, Back { step, why, cancelled, since, last_ask }).await
                }
            }
        }
        .instrument(span)
        .await
    }

    /// Whether as many others as may be at a time are beyond choosing, when this run is about to go beyond.
    async fn crowded(&self, run: &Run) -> Option<usize> {
        if !at_gate(run) {
            return None;
        }
        let cells: Vec<Arc<Cell>> = self.cells().values().cloned().collect();
        let mut before_us = 0;
        for cell in cells {
            let other = &cell.inner.lock().await.run;
            // Of those that are at the gate together, the oldest goes first.
            let counts = if at_gate(other) { other.id < run.id } else { beyond_gate(other) };
            before_us += usize::from(other.id != run.id && counts);
        }
        (before_us >= self.runs_at_once).then_some(before_us)
    }

    /// Makes events durable, then visible.
    pub(super) async fn record(&self, cell: &Arc<Cell>, events: Vec<Event>) -> Result<(), EngineError> {
        let mut stored = cell.inner.lock().await;
        self.record_in(&mut stored, cell, events).await
    }

    pub(super) async fn record_in(
        &self,
        stored: &mut Stored,
        cell: &Cell,
        events: Vec<Event>,
    ) -> Result<(), EngineError> {
        self.record_with(stored, cell, events, Vec::new()).await
    }

    async fn record_with(
        &self,
        stored: &mut Stored,
        cell: &Cell,
        events: Vec<Event>,
        facts: Vec<Fact>,
    ) -> Result<(), EngineError> {
        let mut run = stored.run.clone();
        let mut moments = Vec::new();
        for event in &events {
            run.apply(event.clone())?;
            moments.push(run.clone());
        }
        stored.revision = self.commit(&run, stored.revision, &events, facts).await?;
        stored.run = run;
        if !events.iter().all(|event| matches!(event, Event::Waiting { .. })) {
            cell.looks.store(0, Ordering::Relaxed);
            cell.set_note(None);
        }
        for (event, run) in events.iter().zip(&moments) {
            debug!(run = %run.id, step = run.step_name(), event = event.kind(), "recorded");
            (self.observer)(run, event);
        }
        self.say_recorded();
        Ok(())
    }

    fn say_recorded(&self) {
        self.recorded.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn commit(
        &self,
        run: &Run,
        expected: Revision,
        events: &[Event],
        facts: Vec<Fact>,
    ) -> Result<Revision, EngineError> {
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
        let epoch = self.authority.epoch();
        Ok(self.journal.commit_with(run.id.0, expected, epoch, records, summary, facts).await?)
    }

    /// The facts whose key starts with `prefix`, in key order.
    pub async fn facts(&self, prefix: &str) -> Result<Vec<(String, Value)>, EngineError> {
        Ok(self.journal.facts(prefix).await?)
    }

    /// Makes facts durable that belong to no change of a run.
    pub async fn put_facts(&self, facts: Vec<Fact>) -> Result<(), EngineError> {
        if facts.is_empty() {
            return Ok(());
        }
        Ok(self.journal.put_facts(self.authority.epoch(), facts).await?)
    }

    /// Stores what the limiter has learnt since the last time.
    pub(super) async fn store_throttling(&self) -> Result<(), EngineError> {
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
        self.journal.put_facts(self.authority.epoch(), facts).await?;
        self.stored_throttle.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
        Ok(())
    }

    /// One fact outside any run.
    pub(super) async fn fact(&self, key: &str) -> Result<Option<Value>, EngineError> {
        let facts = self.journal.facts(key).await?;
        Ok(facts.into_iter().find(|(found, _)| found == key).map(|(_, value)| value))
    }

    pub(super) async fn memory(&self) -> Result<BTreeMap<String, Value>, EngineError> {
        let facts = self.journal.facts(MEMORY).await?;
        Ok(facts.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(MEMORY)?.to_owned(), value))).collect())
    }
}

/// Between two looks at whether the Lease is ours: it is renewed that often.
const NO_AUTHORITY: Duration = Duration::from_secs(5);
/// Between two looks at whether another run has ended. One takes an hour.
const CROWDED: Duration = Duration::from_secs(30);

/// About to leave the stage in which nothing is touched.
fn at_gate(run: &Run) -> bool {
    let fresh =
        matches!(run.position(), Some(Position::Forward { phase: Phase::Fresh, step, .. }) if *step == choosing(run));
    fresh && run.cancel.is_none()
}

/// It may have touched something, and has not ended. One that is parked does nothing until a person comes, which may take days:
/// it keeps nobody waiting.
fn beyond_gate(run: &Run) -> bool {
    let parked = matches!(run.state, RunState::Parked { .. });
    !parked && run.position().is_some_and(|position| position.step() >= choosing(run))
}

/// How many steps of a run's plan are of the stage that touches nothing.
fn choosing(run: &Run) -> usize {
    let stages = plan::stages(run.spec.capture);
    let first = |step: &PlannedStep| plan::find(stages, step).is_some_and(|(stage, _)| stage.name == stages[0].name);
    run.plan.iter().take_while(|step| first(step)).count()
}

/// The step at an index of a run's plan, if this release has it.
fn step_at(run: &Run, index: usize) -> Option<(&'static Stage, &'static dyn AnyStep)> {
    plan::find(plan::stages(run.spec.capture), run.plan.get(index)?)
}

/// All stored runs, oldest first.
pub async fn summaries(journal: &Journal) -> Result<Vec<Summary>, EngineError> {
    let mut summaries = Vec::new();
    for head in journal.heads().await? {
        let summary = serde_json::from_value(head.summary).map_err(|error| EngineError::Unreadable {
            run: RunId(head.run),
            seq: head.revision.0,
            detail: format!("its head: {error}"),
        })?;
        summaries.push(summary);
    }
    Ok(summaries)
}

/// A stored run, step by step.
pub async fn describe(journal: &Journal, id: RunId) -> Result<Result<Description, Rejected>, EngineError> {
    Ok(match events(journal, id.0).await? {
        Some((_, events)) => Ok(Description::of(id, events)?),
        None => Err(Rejected::NoSuchRun(id.short())),
    })
}

/// The run that a person means: the beginning of its short form, or its full id.
pub fn find_run(summaries: &[Summary], given: &str) -> Result<RunId, Rejected> {
    let given = given.to_ascii_lowercase();
    let plain = given.replace('-', "");
    let matches: Vec<&Summary> = summaries
        .iter()
        .filter(|summary| {
            !given.is_empty() && (summary.run.starts_with(&given) || summary.id.0.simple().to_string() == plain)
        })
        .collect();
    match matches[..] {
        [one] => Ok(one.id),
        [] => Err(Rejected::NoSuchRun(given)),
        _ => Err(Rejected::Ambiguous { given, matches: matches.iter().map(|summary| summary.run.clone()).collect() }),
    }
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
