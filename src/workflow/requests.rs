//! What people ask of runs: start, cancel, resume. Each is durable when it returns; carrying it out is the engine's.

use std::sync::Arc;

use super::{
    engine::{Cell, Engine, EngineError, Stored, step_at},
    plan::{self, OnFailure},
    reads::load,
    recovery,
    run::{Event, Position, Run, RunState},
    spec::RunSpec,
    step::StepError,
    summary::Summary,
};
use crate::{
    cloud::CloudError,
    model::{RunId, ScaleSetId},
    store::{Fact, Revision},
};

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

/// Says what else has to become durable in the same batch as a change: who asked, and what they were answered.
pub type Note<'a> = &'a (dyn Fn(Change) -> Vec<Fact> + Send + Sync);

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
    #[error("run {run} asks for an approval ({state}): `kamino-wf approve {run}` or `kamino-wf reject {run}`")]
    Asks { run: String, state: String },
    #[error("run {run} asks for no approval ({state}); there is nothing to approve or reject")]
    NotAsked { run: String, state: String },
    #[error("run {run} can't be paused ({state}): {why}")]
    NoPause { run: String, state: String, why: &'static str },
    #[error("run {run} is at revision {found} now, not {expected} ({state}); look at it again")]
    Changed { run: String, expected: u64, found: u64, state: String },
    #[error("idempotency key {0} was used for another request; take a new key for a new request")]
    KeyReused(String),
    #[error("run {run} was made by release {release} and needs its step {step}; use that release to finish it")]
    NeedsRelease { run: String, release: String, step: String },
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

    /// It has moved, or has ended.
    pub(super) fn unfit(&self, expected: Option<Revision>) -> Option<Rejected> {
        let ended = || Rejected::Ended { run: self.run.id.short(), state: Summary::of(&self.run).state };
        self.changed(expected).or_else(|| self.run.ended().then(ended))
    }
}

impl Engine {
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
            plan: plan::plan(plan::stages(&spec)),
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
            && match stage.on_failure {
                OnFailure::Insist => true,
                OnFailure::Forward => !(stage.begins_with(step) && position.untouched()),
                OnFailure::Stop | OnFailure::Undo | OnFailure::Report => false,
            }
        {
            return Ok(Err(Rejected::PastReturn { run: id.short(), step: step.name().to_owned() }));
        }
        if stored.run.cancel.is_some() {
            return self.already(&stored, note).await.map(Ok);
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
            RunState::Parked { .. } | RunState::Paused { .. } | RunState::Waiting { .. } => {}
            // A pause that has not come to be is taken back.
            RunState::Running { .. } if stored.run.pause.is_some() => {}
            RunState::NeedsApproval { .. } => {
                return Ok(Err(Rejected::Asks { run: id.short(), state: Summary::of(&stored.run).in_words() }));
            }
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
    pub(super) async fn ask_in(
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

    pub(super) async fn ended_or_unknown(
        &self,
        id: RunId,
        expected: Option<Revision>,
    ) -> Result<Rejected, EngineError> {
        Ok(match load(&self.journal, id).await? {
            Some((run, revision)) => {
                let stored = Stored { run: Arc::new(run), revision };
                let ended = || Rejected::Ended { run: id.short(), state: Summary::of(&stored.run).state };
                stored.changed(expected).unwrap_or_else(ended)
            }
            None => Rejected::NoSuchRun(id.short()),
        })
    }
}
