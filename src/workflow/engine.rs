//! Drives runs: looks, asks, looks, waits, undoes, and journals before and after. One `turn` asks one step to
//! act once at most.

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

use super::{
    authority::Authority,
    boundary::abandoned,
    delay::Pace,
    ending::ending,
    plan::{self, Stage},
    reads::load,
    recovery::{self, Recovery},
    run::{Event, IllegalEvent, Phase, Position, Run, RunState},
    step::{AnyStep, Ports},
    summary::Summary,
    turn::{At, Back, Turn},
};
use crate::{
    clock::Clock,
    cloud::{Bucket, Cloud, Limiter},
    cluster::Cluster,
    model::RunId,
    policy::obligations::{Duty, Written},
    store::{Fact, Journal, NewRecord, Revision, StoreError},
};

/// Facts about closed buckets: `throttle/<subscription>/<kind>`, and `/<region>` if one is known.
const THROTTLE: &str = "throttle/";
/// Facts that steps remember.
pub(super) const MEMORY: &str = "memory/";

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

/// When a run is to be turned again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// After a pause.
    After(Duration),
    /// Not before a person speaks.
    Rest,
    /// Not before a person speaks, but for so long at most.
    Stands(Duration),
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
    pub(super) fn new(run: Run, revision: Revision) -> Arc<Self> {
        Arc::new(Self {
            inner: tokio::sync::Mutex::new(Stored { run: Arc::new(run), revision }),
            looks: AtomicU32::new(0),
            note: Mutex::default(),
        })
    }

    pub(super) fn set_note(&self, note: Option<&str>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note.map(str::to_owned);
    }

    pub(super) fn note(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) struct Stored {
    /// Shared with whoever looks at it: what happens makes another one.
    pub(super) run: Arc<Run>,
    pub(super) revision: Revision,
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
    pub(super) runs_at_once: usize,
    pub(super) release: String,
    pub(super) observer: Observer,
    cells: Mutex<BTreeMap<RunId, Arc<Cell>>>,
    pub(super) starting: tokio::sync::Mutex<()>,
    stored_throttle: Mutex<BTreeMap<Bucket, Timestamp>>,
    poked: Mutex<BTreeSet<RunId>>,
    poke: Notify,
    pub(super) recorded: watch::Sender<u64>,
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

    pub(super) fn cells(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Arc<Cell>>> {
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

    pub(super) fn held(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
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

    pub(super) fn poke(&self, id: RunId) {
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

    pub(super) fn cell(&self, id: RunId) -> Option<Arc<Cell>> {
        self.cells().get(&id).cloned()
    }

    /// One turn of one run: one step acts once at most, and everything about it is durable.
    pub async fn turn(&self, id: RunId) -> Result<Next, EngineError> {
        let Some(cell) = self.cell(id) else { return Ok(Next::Ended) };
        let run = cell.inner.lock().await.run.clone();
        let position = match &run.state {
            RunState::Ended(_) => {
                self.cells().remove(&id);
                return Ok(Next::Ended);
            }
            RunState::Parked { .. } | RunState::Paused { .. } => return Ok(Next::Rest),
            RunState::NeedsApproval { .. } => return Turn { engine: self, cell: &cell, run: &run }.unanswered().await,
            RunState::Waiting { until, .. } if *until > self.clock.now() => {
                let left = until.duration_since(self.clock.now());
                return Ok(Next::After(Duration::try_from(left).unwrap_or_default()));
            }
            RunState::Waiting { position, .. } | RunState::Running { position } => position.clone(),
        };
        // Looks are harmless, but what they say is recorded, and that is the holder's.
        if !self.authority.may_change() && !starts_a_machine(&run, &position, self.clock.now()) {
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
            Position::Paying(paying) => paying.asked,
            Position::Back { .. } => 0,
        };
        let scale_set = run.spec.scale_set.name();
        let span = info_span!("step", run = %id, scale_set, step = run.step_name(), attempt = asked);
        let turn = Turn { engine: self, cell: &cell, run: &run };
        async {
            if let Some(outcome) = abandoned(&run) {
                return turn.end(outcome).await;
            }
            if let Some(next) = turn.stopped().await? {
                return Ok(next);
            }
            match position {
                Position::Forward { step, .. } if step == run.plan.len() => turn.end(ending(&run)).await,
                Position::Forward { step, phase, since, setbacks, asked } => {
                    let Some((stage, any)) = step_at(&run, step) else { return turn.park_unknown(step).await };
                    turn.forward(stage, any, At { phase, since, setbacks, asked }).await
                }
                Position::Paying(paying) => turn.pay(paying).await,
                Position::Back { step, why, cancelled, since, last_ask } => {
                    let Some((_, any)) = step_at(&run, step) else { return turn.park_unknown(step).await };
                    turn.back(any, Back { step, why, cancelled, since, last_ask }).await
                }
            }
        }
        .instrument(span)
        .await
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

    pub(super) async fn record_with(
        &self,
        stored: &mut Stored,
        cell: &Cell,
        events: Vec<Event>,
        facts: Vec<Fact>,
    ) -> Result<(), EngineError> {
        let mut run = Arc::clone(&stored.run);
        let mut moments = Vec::new();
        for event in &events {
            Arc::make_mut(&mut run).apply(event.clone())?;
            moments.push(Arc::clone(&run));
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

    pub(super) fn say_recorded(&self) {
        self.recorded.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) async fn commit(
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
                let region = bucket.region.as_ref().map_or_else(String::new, |region| format!("/{region}"));
                let key = format!("{THROTTLE}{}/{}{region}", bucket.subscription, bucket.kind.as_str());
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

    /// How far the store has come.
    pub(super) async fn written(&self) -> Result<Written, EngineError> {
        let now = self.journal.position().await?;
        Ok(Written { store: now.store, commit: now.commit })
    }

    pub(super) async fn memory(&self) -> Result<BTreeMap<String, Value>, EngineError> {
        let facts = self.journal.facts(MEMORY).await?;
        Ok(facts.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(MEMORY)?.to_owned(), value))).collect())
    }
}

/// Between two looks at whether the Lease is ours: it is renewed that often.
pub(super) const NO_AUTHORITY: Duration = Duration::from_secs(5);
/// Between two looks at whether another run has ended. One takes an hour.
const CROWDED: Duration = Duration::from_secs(30);

/// About to start a machine that we have stopped, which needs no Lease: nobody but us has this run's journal, a machine that
/// runs is started to no effect, and the Lease's API server may be what is out of reach. When a node has been away for as long
/// as it may, a run without the Lease goes back for this reason alone.
fn starts_a_machine(run: &Run, position: &Position, now: Timestamp) -> bool {
    let Some(debt) = run.debt.as_ref().filter(|debt| debt.duties.contains(&Duty::VmRunning)) else { return false };
    let pays = |step: usize| step_at(run, step).is_some_and(|(_, any)| any.pays().contains(&Duty::VmRunning));
    match position {
        Position::Forward { step, .. } => pays(*step) || debt.overdue(now),
        Position::Paying(paying) => paying.phase == Phase::Fresh || pays(paying.step),
        Position::Back { .. } => false,
    }
}

/// The step at an index of a run's plan, if this release has it.
pub(super) fn step_at(run: &Run, index: usize) -> Option<(&'static Stage, &'static dyn AnyStep)> {
    plan::find(plan::stages(&run.spec), run.plan.get(index)?)
}
