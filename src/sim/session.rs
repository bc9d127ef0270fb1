//! Runs the real engine, steps and journal over a simulated world: one process after another until the run is at rest.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use jiff::Timestamp;

use super::{SimCloud, SimCluster, SimDisk, checkers, scene, scene::Scene, world::Shared};
use crate::{
    clock::Clock,
    cloud::{Cloud, Limiter},
    cluster::Cluster,
    model::RunId,
    store::{ByteTree, Fence, Journal},
    workflow::{Authority, Change, Driver, Engine, EngineError, Event, Pace, Parts, Run, Summary, events, load},
};

/// What a run did, as its journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// The stage and step that it is about, before the event.
    pub step: Option<String>,
    /// What happened.
    pub event: Event,
    /// How many processes there had been before.
    pub process: u64,
    /// How many crash points had been passed.
    pub point: u64,
}

/// What a person says to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the command of that name")]
pub enum Word {
    Cancel,
    Abandon,
    Pause,
    Resume,
    Approve,
    Reject,
}

/// When a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// When no run moves by itself any more.
    #[default]
    AtRest,
    /// When this many points were passed: as if the power went for good.
    AtPoint(u64),
}

/// How a session ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The run.
    pub run: Option<Run>,
    /// In one line.
    pub summary: Option<Summary>,
    /// What should never have been.
    pub violations: Vec<String>,
    /// Crashes on the way.
    pub crashes: u64,
    /// Crash points passed.
    pub points: u64,
    /// The world's log and the run's events, one line each, in order.
    pub log: Vec<String>,
}

/// Is told every line as it becomes durable.
pub type Watcher = Arc<dyn Fn(&Run, &Line) + Send + Sync>;

/// What stands before a port.
pub type Layer<P> = Arc<dyn Fn(Arc<P>) -> Arc<P> + Send + Sync>;
/// What stands before the journal's bytes.
pub type TreeLayer = Arc<dyn Fn(Box<dyn ByteTree>) -> Box<dyn ByteTree> + Send + Sync>;

/// What stands between the engine and the world: nothing, or a fault of ours that is to be caught.
#[derive(Clone, Default)]
#[expect(missing_debug_implementations, reason = "functions have none")]
pub struct Layers {
    /// Before Azure.
    pub cloud: Option<Layer<dyn Cloud>>,
    /// Before Kubernetes.
    pub cluster: Option<Layer<dyn Cluster>>,
    /// Before the disk.
    pub tree: Option<TreeLayer>,
}

/// A simulation.
#[expect(missing_debug_implementations, reason = "the watcher has none")]
pub struct Session {
    /// The world.
    pub shared: Arc<Shared>,
    /// The disk under the journal.
    pub disk: Arc<SimDisk>,
    scene: Scene,
    lines: Arc<Mutex<Vec<Line>>>,
    watcher: Watcher,
    /// A person cancels the run when this many points were passed.
    pub cancel_at: Option<u64>,
    /// A person says this when so many points were passed.
    pub said_at: Option<(u64, Word)>,
    /// What a person says each time the run has come to rest, one after the other.
    pub answers: Vec<Word>,
    said: AtomicBool,
    answered: AtomicUsize,
    /// How often a person resumes the run when it is parked.
    pub resumes: u32,
    /// Processes that may die before the simulation gives up.
    pub crashes_max: u64,
    /// What stands between the engine and the world.
    pub layers: Layers,
}

impl Session {
    /// A simulation of a scene. Inside a current-thread runtime with paused time.
    #[must_use]
    pub fn new(scene: Scene) -> Self {
        let shared = Shared::new(scene.world());
        Self::going_on(scene, shared, Arc::default())
    }

    /// A simulation that goes on in a world and with a journal that are there already.
    #[must_use]
    pub fn going_on(scene: Scene, shared: Arc<Shared>, disk: Arc<SimDisk>) -> Self {
        Self {
            shared,
            disk,
            scene,
            lines: Arc::default(),
            watcher: Arc::new(|_, _| {}),
            cancel_at: None,
            said_at: None,
            answers: Vec::new(),
            said: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            resumes: 0,
            crashes_max: 10_000,
            layers: Layers::default(),
        }
    }

    /// Lines go to `watcher` too.
    #[must_use]
    pub fn watched(mut self, watcher: Watcher) -> Self {
        self.watcher = watcher;
        self
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs to the end, over all crashes.
    pub async fn run(&self, stop: Stop) -> Result<Outcome, EngineError> {
        let mut violations = Vec::new();
        loop {
            let crash = &self.shared.crash;
            let finished = tokio::select! {
                biased;
                () = crash.died() => None,
                () = self.stopped(stop) => Some(Ok(())),
                result = self.process(&mut violations) => Some(result),
            };
            match finished {
                // A store error of a process that has died is the crash itself.
                Some(Err(_)) | None if crash.crashed() => {
                    let place = crash.place();
                    self.shared.world().note(format!("crash at {place}"));
                    self.disk.power_cut();
                    crash.restart();
                    if crash.crashes() > self.crashes_max {
                        violations.push(format!("still not at rest after {} crashes", crash.crashes()));
                        return self.outcome(violations).await;
                    }
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(())) | None => return self.outcome(violations).await,
            }
        }
    }

    async fn stopped(&self, stop: Stop) {
        match stop {
            Stop::AtRest => std::future::pending().await,
            Stop::AtPoint(point) => self.shared.crash.reached(point).await,
        }
    }

    /// One process, from opening the store to rest.
    async fn process(&self, violations: &mut Vec<String>) -> Result<(), EngineError> {
        let clock = self.shared.world().clock.clone();
        let tree = self.disk.tree(Arc::clone(&self.shared.crash));
        let tree = self.layers.tree.iter().fold(tree, |tree, layer| layer(tree));
        let (journal, committer) = Journal::open(tree, clock.new_id())?;
        let life = async {
            self.check_journal(&journal, violations).await?;
            let engine = Arc::new(self.engine(&journal).await?);
            let started = !journal.heads().await?.is_empty();
            if !started && let Err(rejected) = engine.start(scene::spec(&self.scene), "simulated operator").await? {
                violations.push(format!("the first run was rejected: {rejected}"));
            }
            let person = async {
                if let (Some(point), Some(id)) = (self.cancel_at, self.run_id(&journal).await) {
                    self.shared.crash.reached(point).await;
                    let answer = engine.cancel(id, "simulated operator").await;
                    self.shared.world().note(format!("cancel: {answer:?}"));
                }
                if let (Some((point, word)), Some(id)) = (self.said_at, self.run_id(&journal).await)
                    && !self.said.load(Ordering::Relaxed)
                {
                    self.shared.crash.reached(point).await;
                    self.say(&engine, id, word).await?;
                    self.said.store(true, Ordering::Relaxed);
                }
                std::future::pending::<Result<(), EngineError>>().await
            };
            let driving = async {
                Driver::new(Arc::clone(&engine)).run_to_rest().await?;
                for _ in 0..self.resumes {
                    if let Some(id) = self.run_id(&journal).await
                        && engine.resume(id, "simulated operator").await?.is_ok()
                    {
                        Driver::new(Arc::clone(&engine)).run_to_rest().await?;
                    }
                }
                while let Some(word) = self.answers.get(self.answered.load(Ordering::Relaxed)) {
                    let Some(id) = self.run_id(&journal).await else { break };
                    self.say(&engine, id, *word).await?;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    Driver::new(Arc::clone(&engine)).run_to_rest().await?;
                }
                Ok(())
            };
            tokio::select! {
                biased;
                result = person => result,
                result = driving => result,
            }
        };
        tokio::select! {
            biased;
            result = committer.run() => result.map_err(EngineError::from),
            result = life => result,
        }
    }

    /// Whoever said it before a crash and has no answer says it again.
    async fn say(&self, engine: &Engine, id: RunId, word: Word) -> Result<(), EngineError> {
        let (by, none) = ("simulated operator", |_: Change| Vec::new());
        let answer = match word {
            Word::Cancel => engine.cancel_noted(id, by, None, &none).await?,
            Word::Abandon => engine.abandon_noted(id, by, None, &none).await?,
            Word::Pause => engine.pause_noted(id, by, None, &none).await?,
            Word::Resume => engine.resume_noted(id, by, None, &none).await?,
            Word::Approve => engine.approve_noted(id, by, None, &none).await?,
            Word::Reject => engine.reject_noted(id, by, None, &none).await?,
        };
        self.shared.world().note(format!("{word:?}: {answer:?}"));
        Ok(())
    }

    async fn engine(&self, journal: &Journal) -> Result<Engine, EngineError> {
        let limiter = Arc::new(Limiter::default());
        let clock = self.shared.world().clock.clone();
        let (lines, watcher, crash) =
            (Arc::clone(&self.lines), Arc::clone(&self.watcher), Arc::clone(&self.shared.crash));
        let world = Arc::clone(&self.shared);
        let cloud: Arc<dyn Cloud> = Arc::new(SimCloud::new(Arc::clone(&self.shared), Arc::clone(&limiter)));
        let cluster: Arc<dyn Cluster> = Arc::new(SimCluster::new(Arc::clone(&self.shared)));
        Engine::open(Parts {
            authority: Arc::new(Authority::unlimited(Fence(0))),
            runs_at_once: usize::MAX,
            cloud: self.layers.cloud.iter().fold(cloud, |cloud, layer| layer(cloud)),
            cluster: self.layers.cluster.iter().fold(cluster, |cluster, layer| layer(cluster)),
            clock: Arc::new(clock),
            journal: journal.clone(),
            limiter,
            pace: Pace::default(),
            release: env!("CARGO_PKG_VERSION").into(),
            observer: Box::new(move |run, event| {
                let step = about(run, event);
                if matches!(event, Event::Waiting { throttled: true, .. }) {
                    let mut world = world.world();
                    world.told = world.closed.keys().cloned().collect();
                }
                world.world().note(format!("run {} {} {}", run.id, step.as_deref().unwrap_or("-"), text(event)));
                let line = Line {
                    at: event.at(),
                    step,
                    event: event.clone(),
                    process: crash.crashes(),
                    point: crash.passed(),
                };
                watcher(run, &line);
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                crash.event(event.kind());
            }),
        })
        .await
    }

    /// I4: what was acknowledged is there after a crash, in order and unchanged.
    async fn check_journal(&self, journal: &Journal, violations: &mut Vec<String>) -> Result<(), EngineError> {
        let acknowledged: Vec<Event> = self.lines().into_iter().map(|line| line.event).collect();
        let stored = match self.run_id(journal).await {
            Some(id) => events(journal, id.0).await?.map(|(_, events)| events).unwrap_or_default(),
            None => Vec::new(),
        };
        if !acknowledged.is_empty() {
            *self.shared.world().exercised.entry("I4").or_default() += 1;
        }
        if !stored.starts_with(&acknowledged) {
            violations.push(format!("I4: {} events were acknowledged, and the store holds others", acknowledged.len()));
        }
        // Durable though never acknowledged: the process died in between. They happened.
        for event in stored.iter().skip(acknowledged.len()) {
            let crash = &self.shared.crash;
            let (process, point) = (crash.crashes(), crash.passed());
            let line = Line { at: event.at(), step: None, event: event.clone(), process, point };
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        Ok(())
    }

    async fn run_id(&self, journal: &Journal) -> Option<RunId> {
        journal.heads().await.ok()?.first().map(|head| RunId(head.run))
    }

    async fn outcome(&self, mut violations: Vec<String>) -> Result<Outcome, EngineError> {
        // A look by nobody: not through a process that could die.
        let quiet = Arc::new(super::Crash::default());
        let (journal, committer) = Journal::open(self.disk.tree(quiet), uuid::Uuid::nil())?;
        let read = async {
            let Some(id) = self.run_id(&journal).await else { return Ok(None) };
            load(&journal, id).await
        };
        let run = tokio::select! {
            biased;
            result = committer.run() => { result?; None }
            result = read => result?.map(|(run, _)| run),
        };
        let mut world = self.shared.world();
        violations.extend(checkers::check(&mut world, run.as_ref(), &self.lines()));
        Ok(Outcome {
            summary: run.as_ref().map(Summary::of),
            run,
            violations,
            crashes: self.shared.crash.crashes(),
            points: self.shared.crash.passed(),
            log: world.log.clone(),
        })
    }
}

/// The step that an event is about: one that ended a step is about that one.
fn about(run: &Run, event: &Event) -> Option<String> {
    let back = i64::from(matches!(event, Event::StepUndone { .. }))
        - i64::from(matches!(event, Event::Confirmed { .. } | Event::Skipped { .. }));
    let at = i64::try_from(run.position()?.step()).ok()?;
    run.plan.get(usize::try_from(at + back).ok()?).map(|step| step.name.clone())
}

/// An event in a few words.
fn text(event: &Event) -> String {
    match event {
        Event::Waiting { why, until, .. } => format!("waiting until {until}: {why}"),
        Event::SetBack { why, .. }
        | Event::Skipped { why, .. }
        | Event::NotAsked { why, .. }
        | Event::PersonAsked { why, .. }
        | Event::Parked { why, .. }
        | Event::Undoing { why, .. } => format!("{}: {why}", event.kind()),
        Event::Asking { attempt, .. } => format!("asking (attempt {attempt})"),
        Event::Ended { outcome, .. } => format!("ended: {outcome:?}"),
        Event::Owed { duties, .. } | Event::Paid { duties, .. } => format!("{}: {duties:?}", event.kind()),
        Event::Started { .. }
        | Event::Paying { .. }
        | Event::Decided { .. }
        | Event::Asked { .. }
        | Event::Cleared { .. }
        | Event::Confirmed { .. }
        | Event::StepUndone { .. }
        | Event::Resumed { .. }
        | Event::CancelRequested { .. }
        | Event::AbandonRequested { .. }
        | Event::PauseRequested { .. }
        | Event::Paused { .. } => event.kind().to_owned(),
        Event::ApprovalAsked { gate, why, .. } => format!("approval_asked for {}: {why}", gate.as_str()),
        Event::Approved { gate, by, .. } | Event::Rejected { gate, by, .. } => {
            format!("{} {} by {by}", event.kind(), gate.as_str())
        }
    }
}
